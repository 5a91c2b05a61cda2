"""The editor at pseudo-terminals: what is typed, pasted, shown, and when the prompt goes."""

import asyncio
import os
import re
import signal
import stat
import termios
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from tests.helpers.person import (
    AT_ONCE,
    COOKED,
    CTRL_C,
    CTRL_D,
    CTRL_Z,
    DRAWN,
    EDITING,
    LABEL,
    TIMEOUT,
    UP,
    Person,
    at_prompt,
    somebody,
    take,
    take_all,
)

from trio_upper.platform import terminal
from trio_upper.terminal.console import HungUp, Interrupted
from trio_upper.terminal.editor import Entry, open_prompt
from trio_upper.terminal.history import LINE_CHARACTERS, open_history
from trio_upper.terminal.lease import Lease
from trio_upper.terminal.screen import TICK_SECONDS


async def test_a_typed_line_is_a_message_and_its_reply_stands_above_the_prompt() -> None:
    """The line stays on the screen behind its label, the reply follows, then the prompt again."""
    async with at_prompt() as (person, prompt), prompt.converse(LABEL) as conversation:
        await person.sees(DRAWN)
        await person.types("Straße 日本\r")
        assert await take(conversation, 1) == ["Straße 日本\n".encode()]
        await person.sees(f"{LABEL}Straße 日本\r\n")
        await conversation.show("STRASSE 日本\n".encode())
        await person.sees("STRASSE 日本   ")
        assert re.fullmatch(r"\d+\.\d\d ms\r\n", await person.sees("\r\n"))
        await person.sees(DRAWN)


async def test_times_are_dimmed_unless_colour_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NO_COLOR the time after a reply is dimmed."""
    monkeypatch.delenv("NO_COLOR")
    async with at_prompt() as (person, prompt), prompt.converse(LABEL) as conversation:
        await person.types("a\r")
        await take(conversation, 1)
        await conversation.show(b"A\n")
        await person.sees("A   \x1b[2m")
        await person.sees(" ms\x1b[0m\r\n")


@pytest.mark.parametrize("end", ["\r", "\n"])
async def test_300_pasted_lines_are_300_messages(end: str) -> None:
    """A raw paste keeps its lines apart and in order, whatever ends them, and Ctrl-D after it."""
    lines = [f"line {n} of a paste" for n in range(300)]
    async with at_prompt() as (person, prompt), prompt.converse(LABEL) as conversation:
        await person.types(end.join([*lines, CTRL_D]))
        assert await take_all(conversation) == [f"{line}\n".encode() for line in lines]


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
async def test_300_lines_in_a_bracketed_paste_are_300_messages(end: str) -> None:
    """A bracketed paste is sent line by line; what follows its last end of line is edited."""
    lines = [f"line {n} of a paste" for n in range(300)]
    async with at_prompt() as (person, prompt), prompt.converse(LABEL) as conversation:
        await person.types(f"\x1b[200~{end.join([*lines, 'rest'])}\x1b[201~ of it\r{CTRL_D}")
        messages = [f"{line}\n".encode() for line in [*lines, "rest of it"]]
        assert await take_all(conversation) == messages


async def test_300_replies_come_in_order_with_the_prompt_in_between() -> None:
    """Replies that arrive while lines are pasted disturb neither them nor the prompt."""
    async with at_prompt() as (person, prompt), prompt.converse(LABEL) as conversation:
        await person.types("".join(f"line {n}\r" for n in range(300)))
        for n in range(300):
            assert await take(conversation, 1) == [b"line %d\n" % n]
            await conversation.show(b"LINE %d\n" % n)
        for n in range(300):
            await person.sees(f"LINE {n}   ")
        await person.sees(DRAWN)


async def test_ctrl_d_ends_the_lines_and_the_prompt() -> None:
    """A Ctrl-D right behind a line is not lost; a reply after it is printed without a prompt."""
    async with at_prompt() as (person, prompt):
        async with prompt.converse(LABEL) as conversation:
            await person.types(f"last\r{CTRL_D}")
            assert await take_all(conversation) == [b"last\n"]
            await conversation.show(b"LAST\n")
            await person.sees("LAST   ")
        await prompt.notice("end")
        assert DRAWN not in await person.sees("end\r\n")


async def test_ctrl_c_interrupts_what_runs_beside_the_prompt() -> None:
    """Ctrl-C ends the block at once, also when nobody waits for a line; half a line is dropped."""
    async with at_prompt() as (person, prompt):
        with pytest.RaisesGroup(Interrupted), trio.fail_after(TIMEOUT):
            async with prompt.converse(LABEL):
                await person.sees(EDITING)
                await person.types(f"half{CTRL_C}")
                await trio.sleep_forever()


async def test_the_prompt_goes_with_the_conversation() -> None:
    """With half a line typed the prompt disappears, the text is not sent, the terminal is sane."""
    async with at_prompt() as (person, prompt):
        async with prompt.converse(LABEL) as conversation:
            await person.types("half a li")
            await person.sees("half a li")
        assert conversation.unfinished == b"half a li"
        assert conversation.unanswered() == []
        assert not conversation.ended
        await prompt.notice("the server closed the connection")
        after = await person.sees("the server closed the connection\r\n")
        assert DRAWN not in after
        assert "\x1b[J" in after  # ECMA-48 ED: what stood there is erased


async def test_a_cancelled_prompt_leaves_a_sane_terminal_at_once() -> None:
    """Cancelled from outside with half a line typed: sane again at once."""
    async with somebody() as person:
        with trio.CancelScope() as scope:
            async with (
                open_prompt(input_fd=person.tty, output_fd=person.tty) as prompt,
                prompt.converse(LABEL) as conversation,
            ):
                await person.types("half a li")
                await person.sees("half a li")
                scope.cancel()
                cancelled = trio.current_time()
                await anext(conversation)
        assert trio.current_time() - cancelled < AT_ONCE
        assert person.has_sane_terminal()
        await person.sees("\x1b[?2004l")  # no bracketed paste any more


async def test_a_prompt_that_is_cancelled_before_it_starts() -> None:
    """An open_prompt in a scope that is cancelled already ends and leaves the terminal alone."""
    async with somebody() as person:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with open_prompt(input_fd=person.tty, output_fd=person.tty) as prompt:
                await prompt.ask("Host", "h")
        assert scope.cancelled_caught
        assert person.has_sane_terminal()


async def test_between_two_prompts_the_terminal_is_silent() -> None:
    """No echo and no lines of its own, but Ctrl-C is a signal then and a key at the prompt."""
    async with at_prompt() as (person, prompt):
        assert person.flags() & COOKED == termios.ISIG
        async with prompt.converse(LABEL):
            await person.sees(DRAWN)
            assert person.flags() & COOKED == 0
        assert person.flags() & COOKED == termios.ISIG


async def test_questions_take_what_was_typed_ahead() -> None:
    """Answers that are pasted together answer one question each; the rest is the first message."""
    async with at_prompt() as (person, prompt):
        await person.types("\x1b[200~ example.org \n\nhello\n\x1b[201~")
        assert await prompt.ask("Host", "127.0.0.1") == "example.org"
        assert await prompt.ask("Port", "8746") == "8746"
        async with prompt.converse(LABEL) as conversation:
            assert await take(conversation, 1) == [b"hello\n"]
        await person.sees("Host [127.0.0.1]:")
        await person.sees("Port [8746]:")


@pytest.mark.parametrize(("key", "error"), [(CTRL_C, Interrupted), (CTRL_D, EOFError)])
async def test_a_question_can_be_left(key: str, error: type[Exception]) -> None:
    """Ctrl-C and Ctrl-D are exceptions of their own in a question."""
    async with at_prompt() as (person, prompt), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def leave() -> None:
            await person.sees(EDITING)
            await person.types(key)

        with pytest.raises(error), trio.fail_after(TIMEOUT):
            await prompt.ask("Host", "127.0.0.1")


async def test_an_offer_is_not_taken_by_what_was_typed_before() -> None:
    """Lines in flight when the server goes do not connect again: the answer is what comes after."""
    async with at_prompt() as (person, prompt):
        async with prompt.converse(LABEL) as conversation:
            await person.types(f"\x1b[200~one\n{'x' * 5000}\n")
            await take(conversation, 1)
        await person.types("\r\rmore\r")
        await trio.lowlevel.wait_readable(person.tty)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def answer() -> None:
                await person.sees("Again?")
                await person.types(CTRL_D)

            assert await prompt.offer("Again?") is None


async def test_an_offer_is_not_taken_by_a_spare_answer() -> None:
    """What was read together with an earlier answer, and kept, does not connect again either."""
    async with at_prompt() as (person, prompt), trio.open_nursery() as nursery:
        await person.types("host\r\r")
        await trio.lowlevel.wait_readable(person.tty)
        assert await prompt.ask("Host", "h") == "host"

        @nursery.start_soon
        async def answer() -> None:
            await person.sees("Again?")
            await person.types(CTRL_D)

        assert await prompt.offer("Again?") is None


async def test_a_notice_stands_above_the_prompt() -> None:
    """A notice is a line of its own, and what is half typed is drawn again below it."""
    async with at_prompt() as (person, prompt), prompt.converse(LABEL):
        await person.types("half")
        await person.sees("half")
        await prompt.notice("server: \x1b]0;evil\x07")
        await person.sees("server: \\x1b]0;evil\\x07\r\n")
        await person.sees(DRAWN)
        await person.sees("half")


async def test_a_megabyte_in_one_line_comes_and_goes() -> None:
    """A long pasted line is one message, its reply is shown whole, and the prompt lives on."""
    size = 1_000_000
    async with at_prompt() as (person, prompt), prompt.converse(LABEL) as conversation:
        await person.types("é" + "x" * size + "\r")
        assert await take(conversation, 1) == ["é".encode() + b"x" * size + b"\n"]
        await person.sees(" characters) ")
        await conversation.show(b"X" * size)
        await conversation.show(b"\n")
        assert (await person.sees(" ms\r\n")).count("X") == size
        await person.sees(DRAWN)
        await person.types("y\r")
        assert await take(conversation, 1) == [b"y\n"]


async def test_ctrl_backslash_quits_the_whole_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a prompt it is a character, and does what it would do at any terminal."""
    signalled = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def signal_job(sent: int) -> None:
        assert sent == signal.SIGQUIT
        token.run_sync_soon(signalled.set)

    monkeypatch.setattr(terminal, "signal_job", signal_job)
    async with at_prompt() as (person, prompt), prompt.converse(LABEL) as conversation:
        await person.sees(DRAWN)
        await person.types("\x1c")
        await signalled.wait()
        await person.types("y\r")
        assert await take(conversation, 1) == [b"y\n"]


async def test_tab_types_a_tab() -> None:
    """There is nothing to complete: a tab is text, which the echo shows escaped."""
    async with at_prompt() as (person, prompt), prompt.converse(LABEL) as conversation:
        await person.sees(DRAWN)
        await person.types("key\tvalue\r")
        assert await take(conversation, 1) == [b"key\tvalue\n"]
        await person.sees("key\\tvalue\r\n")


@pytest.mark.parametrize(
    "sequence",
    ["\x1b[31m", "\x1b[<0;1m", "\x1b[<0;1;1M", "\x1b[M", "\x1b[M !!", "\x1b[5n", "\x1b[?62;c"],
)
async def test_sequences_that_are_no_key_change_nothing(sequence: str) -> None:
    """Colours and reports of a mouse, typed or pasted without marks, neither crash nor are text."""
    async with at_prompt() as (person, prompt), prompt.converse(LABEL) as conversation:
        await person.sees(DRAWN)
        await person.types(f"be{sequence}fore{sequence}\r")
        after = sequence.removeprefix("\x1b[M") if sequence.startswith("\x1b[M") else ""
        assert await take(conversation, 1) == [f"be{after}fore{after}\n".encode()]


async def test_what_stands_in_a_new_prompt_can_be_edited() -> None:
    """It is not sent before Enter, and what is left of it at the end is known again."""
    async with at_prompt() as (person, prompt):
        async with prompt.converse(LABEL, b"half a\xff") as conversation:
            await person.sees("half a")
            await person.types(" line\r")
            assert await take(conversation, 1) == [b"half a\xff line\n"]
        async with prompt.converse(LABEL, b"again") as conversation:
            await person.sees("again")
        assert conversation.unfinished == b"again"


async def test_the_prompt_comes_back_after_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell has a sane terminal meanwhile, the prompt is erased, and drawn when it goes on."""
    stopped: list[tuple[int, bool]] = []
    has_stopped = trio.Event()
    async with at_prompt() as (person, prompt), prompt.converse(LABEL) as conversation:

        def stop(number: int) -> None:
            stopped.append((number, person.has_sane_terminal()))
            has_stopped.set()

        monkeypatch.setattr(terminal, "stop_job", stop)
        await person.types("half")
        await person.sees("half")
        await person.types(CTRL_Z)
        with trio.fail_after(TIMEOUT):
            await has_stopped.wait()
        await person.sees("\x1b[?2004l")
        await person.sees(EDITING)
        await person.sees("half")
        assert stopped == [(signal.SIGTSTP, True)]
        signal.raise_signal(signal.SIGCONT)  # as a shell that does not know that it goes on
        await person.sees("half")
        await person.types("!\r")
        assert await take(conversation, 1) == [b"half!\n"]


async def test_a_terminal_changes_hands_in_the_thread_that_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is drawn in between, to stay: a key that was pressed is drawn some time later."""
    changes: list[tuple[str, str]] = []
    resumed = trio.Event()
    token = trio.lowlevel.current_trio_token()
    give_back, take_again = Lease.give_back, Lease.take_again

    def noted(change: Callable[[Lease], bool], lease: Lease) -> bool:
        changes.append((change.__name__, threading.current_thread().name))
        if change is take_again:
            token.run_sync_soon(resumed.set)
        return change(lease)

    async with at_prompt() as (person, prompt), prompt.converse(LABEL):
        await person.sees(DRAWN)
        monkeypatch.setattr(terminal, "stop_job", int)
        monkeypatch.setattr(Lease, "give_back", lambda lease: noted(give_back, lease))
        monkeypatch.setattr(Lease, "take_again", lambda lease: noted(take_again, lease))
        signal.raise_signal(signal.SIGTSTP)
        await resumed.wait()
        assert changes == [("give_back", "asyncio"), ("take_again", "asyncio")]


async def test_a_stop_between_two_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to erase or to draw, but the modes are given back and set again."""
    stopped = trio.Event()
    monkeypatch.setattr(terminal, "stop_job", lambda _: stopped.set())
    async with at_prompt() as (person, prompt):
        signal.raise_signal(signal.SIGTSTP)
        await stopped.wait()
        await prompt.notice("on")
        await person.sees("on\r\n")
        assert not person.has_sane_terminal()


async def test_in_the_background_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notice waits for the foreground, and the screen is the shell's until then."""
    foreground = False
    waits = trio.Event()
    token = trio.lowlevel.current_trio_token()
    sleep = asyncio.sleep

    async def tick(seconds: float) -> None:
        if seconds == TICK_SECONDS:
            token.run_sync_soon(waits.set)
        await sleep(seconds)

    async with at_prompt() as (person, prompt), trio.open_nursery() as nursery:
        monkeypatch.setattr(terminal, "in_foreground", lambda _: foreground)
        monkeypatch.setattr(asyncio, "sleep", tick)
        nursery.start_soon(prompt.notice, "late")
        await waits.wait()
        foreground = True
        assert await person.sees("late\r\n") == "late\r\n"


async def test_a_long_paste_in_the_middle_of_a_line_stays_there(tmp_path: Path) -> None:
    """What stood behind the cursor is the end of the message; history keeps no such line."""
    history = tmp_path / "history"
    paste = "x" * LINE_CHARACTERS
    async with at_prompt(history) as (person, prompt), prompt.converse(LABEL) as conversation:
        await person.types("ac\x1b[D")  # cursor left
        await person.types(f"\x1b[200~{paste}\x1b[201~\r")
        assert await take(conversation, 1) == [f"a{paste}c\n".encode()]
    assert not history.exists() or history.read_bytes() == b""


async def test_a_long_paste_answers_no_question() -> None:
    """No host is that long: the paste is dropped, and the question waits."""
    paste = "x" * 10 * LINE_CHARACTERS
    async with at_prompt() as (person, prompt), trio.open_nursery() as nursery:
        nursery.start_soon(person.types, f"\x1b[200~{paste}\x1b[201~\x15host\r")
        assert await prompt.ask("Host", "h") == "host"


async def test_bytes_that_are_not_text_are_sent_as_they_are() -> None:
    """A byte that is not UTF-8 survives the editor."""
    async with at_prompt() as (person, prompt), prompt.converse(LABEL) as conversation:
        os.write(person.master, b"a\xffb\r")
        assert await take(conversation, 1) == [b"a\xffb\n"]
        await person.sees("a\\xffb\r\n")


async def test_history_goes_back_over_two_prompts(tmp_path: Path) -> None:
    """Arrow-up finds what was typed at an earlier prompt; file and folder are the user's alone."""
    history = tmp_path / "state" / "trio-upper" / "history"
    for keys, line in [("first\r", b"first\n"), (f"{UP}!\r", b"first!\n")]:
        async with at_prompt(history) as (person, prompt), prompt.converse(LABEL) as conversation:
            await person.sees(EDITING)
            await person.types(keys)
            assert await take(conversation, 1) == [line]
    assert list(open_history(history).load_history_strings()) == ["first!", "first"]
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert stat.S_IMODE(history.parent.stat().st_mode) == 0o700


async def test_a_terminal_that_nobody_reads_holds_up_nobody(tmp_path: Path) -> None:
    """Cancelled while the screen takes nothing: the prompt ends within its limit."""
    master, tty = os.openpty()
    with trio.move_on_after(0.1) as scope:
        async with (
            open_prompt(input_fd=tty, output_fd=tty) as prompt,
            prompt.converse(LABEL) as conversation,
        ):
            await conversation.show(b"A" * 1_000_000 + b"\n")
    assert scope.cancelled_caught
    assert trio.current_time() - scope.deadline < AT_ONCE
    assert termios.tcgetattr(tty)[3] & COOKED == COOKED
    os.close(tty)
    os.close(master)


async def test_a_slow_terminal_gets_everything() -> None:
    """A screen that stops for a while loses nothing when nobody is in a hurry."""
    master, tty = os.openpty()
    person = Person(master, tty)
    async with (
        open_prompt(input_fd=tty, output_fd=tty) as prompt,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(prompt.notice, "A" * 200_000)
        await trio.sleep(2.5 * TICK_SECONDS)  # nobody looks at the screen
        nursery.start_soon(person.watch)
        assert (await person.sees("\r\n")).count("A") == 200_000
        nursery.cancel_scope.cancel()
    os.close(tty)
    os.close(master)


@pytest.mark.parametrize("term", ["xterm", "dumb"])
async def test_a_terminal_that_hangs_up(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends a conversation, and is no Ctrl-D; until then output goes nowhere."""
    monkeypatch.setenv("TERM", term)
    master, tty = os.openpty()
    with trio.fail_after(TIMEOUT):
        async with open_prompt(input_fd=tty, output_fd=tty) as prompt:
            with pytest.RaisesGroup(HungUp):
                async with prompt.converse(LABEL) as conversation:
                    os.close(master)
                    await conversation.show(b"A\n")
                    await trio.sleep_forever()
            assert not conversation.ended
    os.close(tty)


@pytest.mark.parametrize("term", ["xterm", "dumb"])
async def test_a_terminal_that_has_hung_up_cannot_be_asked(
    term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a question nor an offer has been declined then."""
    monkeypatch.setenv("TERM", term)
    master, tty = os.openpty()
    with trio.fail_after(TIMEOUT):
        async with open_prompt(input_fd=tty, output_fd=tty) as prompt:
            os.close(master)
            with pytest.raises(HungUp):
                await prompt.ask("Host", "127.0.0.1")
            with pytest.raises(HungUp):
                await prompt.offer("Again?")
    os.close(tty)


async def test_a_bug_in_the_editor_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in what a key does leaves the block, instead of a log over the screen."""

    def accept(self: Entry, buffer: object) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(Entry, "accept", accept)
    async with at_prompt() as (person, prompt):
        with pytest.RaisesGroup(ZeroDivisionError), trio.fail_after(TIMEOUT):
            async with prompt.converse(LABEL):
                await person.types("a\r")
                await trio.sleep_forever()
