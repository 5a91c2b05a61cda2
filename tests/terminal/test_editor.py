"""The prompt at pseudo-terminals; in a process of its own where signals are the point."""

import asyncio
import errno
import os
import re
import shlex
import shutil
import signal
import stat
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from trio_upper.terminal import editor as prompt_room
from trio_upper.terminal import prompt as terminal
from trio_upper.terminal.editor import Entry, Screen, open_asyncio, open_prompt
from trio_upper.terminal.history import LONGEST_EDITED
from trio_upper.terminal.prompt import HungUp, Interrupted, Prompt

DEADLINE = 60
"""Seconds after which a test has failed; none is waited for."""

AT_ONCE = 1.5
"""Seconds for what is promised within half of one; a busy machine gets more."""

LABEL = "127.0.0.1:8746> "
DRAWN = "127.0.0.1:8746>"  # the editor moves the cursor over the space
EDITING = "\x1b[?2004h"  # a prompt that has just been drawn
UP = "\x1b[A"
CTRL_C, CTRL_D, CTRL_Z = "\x03", "\x04", "\x1a"
COOKED = termios.ECHO | termios.ICANON | termios.ISIG


@pytest.fixture(autouse=True)
def _capable_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("PROMPT_TOOLKIT_NO_CPR", "1")
    monkeypatch.setenv("NO_COLOR", "1")


class Person:
    """Somebody at a pseudo-terminal, who types and sees what appears."""

    def __init__(self, master: int, tty: int) -> None:
        self.master = master
        self.tty = tty
        self._seen = bytearray()
        self._more = trio.Event()

    async def watch(self) -> None:
        """Look at the screen all the time, so that nobody who writes to it has to wait."""
        while True:
            await trio.lowlevel.wait_readable(self.master)
            self._seen += os.read(self.master, 65536)
            self._more.set()
            self._more = trio.Event()

    async def sees(self, text: str) -> str:
        """Wait for *text*; return what came up to its end, which is not seen again."""
        wanted, start = text.encode(), 0
        with trio.move_on_after(DEADLINE):
            while (found := self._seen.find(wanted, start)) < 0:
                start = max(0, len(self._seen) - len(wanted))
                await self._more.wait()
        assert found >= 0, f"{text!r} does not appear; the end is {self._seen[-500:]!r}"
        end = found + len(wanted)
        seen = self._seen[:end].decode()
        del self._seen[:end]
        return seen

    async def types(self, text: str) -> None:
        """Type or paste *text*, as fast as the terminal takes it."""
        rest = memoryview(text.encode())
        os.set_blocking(self.master, False)
        with trio.fail_after(DEADLINE):
            while rest:
                await trio.lowlevel.wait_writable(self.master)
                rest = rest[os.write(self.master, rest[:4096]) :]

    def has_sane_terminal(self) -> bool:
        return self.flags() & COOKED == COOKED

    def flags(self) -> int:
        flags: int = termios.tcgetattr(self.tty)[3]
        return flags


@asynccontextmanager
async def somebody() -> AsyncIterator[Person]:
    """Somebody at a terminal, whose screen is looked at inside the block; it has a deadline."""
    master, tty = os.openpty()
    person = Person(master, tty)
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(person.watch)
            yield person
            nursery.cancel_scope.cancel()
    os.close(tty)
    os.close(master)


@asynccontextmanager
async def at_prompt(history: Path | None = None) -> AsyncIterator[tuple[Person, Prompt]]:
    """Somebody at a prompt; the terminal is sane afterwards."""
    async with somebody() as person:
        async with open_prompt(
            history=history, input_fd=person.tty, output_fd=person.tty
        ) as prompt:
            yield person, prompt
        assert person.has_sane_terminal()


async def take(talk: AsyncIterator[bytes], count: int) -> list[bytes]:
    lines = []
    with trio.fail_after(DEADLINE):
        for _ in range(count):
            lines.append(await anext(talk))  # noqa: PERF401 (a comprehension hides the checkpoint)
    return lines


async def take_all(talk: AsyncIterator[bytes]) -> list[bytes]:
    with trio.fail_after(DEADLINE):
        return [line async for line in talk]


async def test_a_typed_line_is_a_message_and_its_reply_stands_above_the_prompt() -> None:
    """The line stays on the screen behind its label, the reply follows, then the prompt again."""
    async with at_prompt() as (person, prompt), prompt.talk(LABEL) as talk:
        await person.sees(DRAWN)
        await person.types("Straße 日本\r")
        assert await take(talk, 1) == ["Straße 日本\n".encode()]
        await person.sees(f"{LABEL}Straße 日本\r\n")
        await talk.show("STRASSE 日本\n".encode())
        await person.sees("STRASSE 日本   ")
        assert re.fullmatch(r"\d+\.\d\d ms\r\n", await person.sees("\r\n"))
        await person.sees(DRAWN)


async def test_times_are_dimmed_unless_colour_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NO_COLOR the time after a reply is dimmed."""
    monkeypatch.delenv("NO_COLOR")
    async with at_prompt() as (person, prompt), prompt.talk(LABEL) as talk:
        await person.types("a\r")
        await take(talk, 1)
        await talk.show(b"A\n")
        await person.sees("A   \x1b[2m")
        await person.sees(" ms\x1b[0m\r\n")


@pytest.mark.parametrize("end", ["\r", "\n"])
async def test_300_pasted_lines_are_300_messages(end: str) -> None:
    """A raw paste keeps its lines apart and in order, whatever ends them, and Ctrl-D after it."""
    lines = [f"line {n} of a paste" for n in range(300)]
    async with at_prompt() as (person, prompt), prompt.talk(LABEL) as talk:
        await person.types(end.join([*lines, CTRL_D]))
        assert await take_all(talk) == [f"{line}\n".encode() for line in lines]


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
async def test_300_lines_in_a_bracketed_paste_are_300_messages(end: str) -> None:
    """A bracketed paste is sent line by line; what follows its last end of line is edited."""
    lines = [f"line {n} of a paste" for n in range(300)]
    async with at_prompt() as (person, prompt), prompt.talk(LABEL) as talk:
        await person.types(f"\x1b[200~{end.join([*lines, 'rest'])}\x1b[201~ of it\r{CTRL_D}")
        assert await take_all(talk) == [f"{line}\n".encode() for line in [*lines, "rest of it"]]


async def test_300_replies_come_in_order_with_the_prompt_in_between() -> None:
    """Replies that arrive while lines are pasted disturb neither them nor the prompt."""
    async with at_prompt() as (person, prompt), prompt.talk(LABEL) as talk:
        await person.types("".join(f"line {n}\r" for n in range(300)))
        for n in range(300):
            assert await take(talk, 1) == [b"line %d\n" % n]
            await talk.show(b"LINE %d\n" % n)
        for n in range(300):
            await person.sees(f"LINE {n}   ")
        await person.sees(DRAWN)


async def test_ctrl_d_ends_the_lines_and_the_prompt() -> None:
    """A Ctrl-D right behind a line is not lost; a reply after it is printed without a prompt."""
    async with at_prompt() as (person, prompt):
        async with prompt.talk(LABEL) as talk:
            await person.types(f"last\r{CTRL_D}")
            assert await take_all(talk) == [b"last\n"]
            await talk.show(b"LAST\n")
            await person.sees("LAST   ")
        await prompt.notice("end")
        assert DRAWN not in await person.sees("end\r\n")


async def test_ctrl_c_interrupts_what_runs_beside_the_prompt() -> None:
    """Ctrl-C ends the block at once, also when nobody waits for a line; half a line is dropped."""
    async with at_prompt() as (person, prompt):
        with pytest.RaisesGroup(Interrupted), trio.fail_after(DEADLINE):
            async with prompt.talk(LABEL):
                await person.sees(EDITING)
                await person.types(f"half{CTRL_C}")
                await trio.sleep_forever()


async def test_the_prompt_goes_with_the_conversation() -> None:
    """With half a line typed the prompt disappears, the text is not sent, the terminal is sane."""
    async with at_prompt() as (person, prompt):
        async with prompt.talk(LABEL) as talk:
            await person.types("half a li")
            await person.sees("half a li")
        assert talk.half_typed == b"half a li"
        assert talk.unanswered() == []
        assert not talk.ended
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
                prompt.talk(LABEL) as talk,
            ):
                await person.types("half a li")
                await person.sees("half a li")
                scope.cancel()
                cancelled = trio.current_time()
                await anext(talk)
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
        async with prompt.talk(LABEL):
            await person.sees(DRAWN)
            assert person.flags() & COOKED == 0
        assert person.flags() & COOKED == termios.ISIG


async def test_questions_take_what_was_typed_ahead() -> None:
    """Answers that are pasted together answer one question each; the rest is the first message."""
    async with at_prompt() as (person, prompt):
        await person.types("\x1b[200~ example.org \n\nhello\n\x1b[201~")
        assert await prompt.ask("Host", "127.0.0.1") == "example.org"
        assert await prompt.ask("Port", "8746") == "8746"
        async with prompt.talk(LABEL) as talk:
            assert await take(talk, 1) == [b"hello\n"]
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

        with pytest.raises(error), trio.fail_after(DEADLINE):
            await prompt.ask("Host", "127.0.0.1")


async def test_an_offer_is_not_taken_by_what_was_typed_before() -> None:
    """Lines in flight when the server goes do not connect again: the answer is what comes after."""
    async with at_prompt() as (person, prompt):
        async with prompt.talk(LABEL) as talk:
            await person.types(f"\x1b[200~one\n{'x' * 5000}\n")
            await take(talk, 1)
        await person.types("\r\rmore\r")
        await trio.lowlevel.wait_readable(person.tty)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def answer() -> None:
                await person.sees("Again?")
                await person.types(CTRL_D)

            assert not await prompt.offer("Again?")


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

        assert not await prompt.offer("Again?")


async def test_a_notice_stands_above_the_prompt() -> None:
    """A notice is a line of its own, and what is half typed is drawn again below it."""
    async with at_prompt() as (person, prompt), prompt.talk(LABEL):
        await person.types("half")
        await person.sees("half")
        await prompt.notice("server: \x1b]0;evil\x07")
        await person.sees("server: \\x1b]0;evil\\x07\r\n")
        await person.sees(DRAWN)
        await person.sees("half")


async def test_a_megabyte_in_one_line_comes_and_goes() -> None:
    """A long pasted line is one message, its reply is shown whole, and the prompt lives on."""
    size = 1_000_000
    async with at_prompt() as (person, prompt), prompt.talk(LABEL) as talk:
        await person.types("é" + "x" * size + "\r")
        assert await take(talk, 1) == ["é".encode() + b"x" * size + b"\n"]
        await person.sees(" characters) ")
        await talk.show(b"X" * size)
        await talk.show(b"\n")
        assert (await person.sees(" ms\r\n")).count("X") == size
        await person.sees(DRAWN)
        await person.types("y\r")
        assert await take(talk, 1) == [b"y\n"]


async def test_ctrl_z_stops_the_whole_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell gets the terminal, and the prompt is there again when it is continued."""
    stopped = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def kill(process: int, number: int) -> None:
        assert (process, number) == (0, signal.SIGTSTP)
        token.run_sync_soon(stopped.set)

    monkeypatch.setattr(os, "kill", kill)
    async with at_prompt() as (person, prompt), prompt.talk(LABEL) as talk:
        await person.sees(DRAWN)
        await person.types("\x1a")
        with trio.fail_after(10):
            await stopped.wait()
        await person.types("y\r")
        assert await take(talk, 1) == [b"y\n"]


async def test_a_screen_that_takes_nothing_holds_up_nobody_in_a_hurry() -> None:
    """What does not fit is dropped then, however short."""
    output, screen_end = os.pipe()
    os.set_blocking(screen_end, False)
    full = 0
    with suppress(BlockingIOError):
        while True:
            full += os.write(screen_end, bytes(prompt_room.WRITE_BYTES))
    screen = Screen(screen_end, lambda: True)
    with trio.fail_after(DEADLINE):
        await trio.to_thread.run_sync(screen.write, "\x1b[J", abandon_on_cancel=True)
    assert os.read(output, 2 * full) == bytes(full)
    os.close(screen_end)
    assert os.read(output, 100) == b""
    os.close(output)


async def test_a_long_paste_in_the_middle_of_a_line_stays_there(tmp_path: Path) -> None:
    """What stood behind the cursor is the end of the message; history keeps no such line."""
    history = tmp_path / "history"
    paste = "x" * LONGEST_EDITED
    async with at_prompt(history) as (person, prompt), prompt.talk(LABEL) as talk:
        await person.types("ac\x1b[D")  # cursor left
        await person.types(f"\x1b[200~{paste}\x1b[201~\r")
        assert await take(talk, 1) == [f"a{paste}c\n".encode()]
    assert not history.exists() or history.read_bytes() == b""


async def test_a_long_paste_answers_no_question() -> None:
    """No host is that long: the paste is dropped, and the question waits."""
    paste = "x" * 10 * LONGEST_EDITED
    async with at_prompt() as (person, prompt), trio.open_nursery() as nursery:
        nursery.start_soon(person.types, f"\x1b[200~{paste}\x1b[201~\x15host\r")
        assert await prompt.ask("Host", "h") == "host"


async def test_bytes_that_are_not_text_are_sent_as_they_are() -> None:
    """A byte that is not UTF-8 survives the editor."""
    async with at_prompt() as (person, prompt), prompt.talk(LABEL) as talk:
        os.write(person.master, b"a\xffb\r")
        assert await take(talk, 1) == [b"a\xffb\n"]
        await person.sees("a\\xffb\r\n")


async def test_history_goes_back_over_two_prompts(tmp_path: Path) -> None:
    """Arrow-up finds what was typed at an earlier prompt; file and folder are the user's alone."""
    history = tmp_path / "state" / "trio-upper" / "history"
    for keys, line in [("first\r", b"first\n"), (f"{UP}!\r", b"first!\n")]:
        async with at_prompt(history) as (person, prompt), prompt.talk(LABEL) as talk:
            await person.sees(EDITING)
            await person.types(keys)
            assert await take(talk, 1) == [line]
    assert history.read_text() == "first\nfirst!\n"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert stat.S_IMODE(history.parent.stat().st_mode) == 0o700


async def test_a_terminal_that_nobody_reads_holds_up_nobody(tmp_path: Path) -> None:
    """Cancelled while the screen takes nothing: the prompt ends within its patience."""
    master, tty = os.openpty()
    with trio.move_on_after(0.1) as scope:
        async with (
            open_prompt(input_fd=tty, output_fd=tty) as prompt,
            prompt.talk(LABEL) as talk,
        ):
            await talk.show(b"A" * 1_000_000 + b"\n")
    assert scope.cancelled_caught
    assert trio.current_time() - scope.deadline < AT_ONCE
    assert termios.tcgetattr(tty)[3] & COOKED == COOKED
    os.close(tty)
    os.close(master)


def test_in_a_hurry_only_what_is_short_is_written() -> None:
    """The rest of a long reply would take a slow terminal too long; tidying up is short."""
    output, screen_end = os.pipe()
    os.set_blocking(screen_end, False)
    screen = Screen(screen_end, lambda: True)
    screen.write("A" * (prompt_room.WRITE_BYTES + 1))
    screen.write("\x1b[J")
    os.close(screen_end)
    assert os.read(output, 100) == b"\x1b[J"
    os.close(output)


async def test_a_slow_terminal_gets_everything() -> None:
    """A screen that stops for a while loses nothing when nobody is in a hurry."""
    master, tty = os.openpty()
    person = Person(master, tty)
    async with (
        open_prompt(input_fd=tty, output_fd=tty) as prompt,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(prompt.notice, "A" * 200_000)
        await trio.sleep(2.5 * prompt_room.TICK_MS / 1000)  # nobody looks at the screen
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
    with trio.fail_after(DEADLINE):
        async with open_prompt(input_fd=tty, output_fd=tty) as prompt:
            with pytest.RaisesGroup(HungUp):
                async with prompt.talk(LABEL) as talk:
                    os.close(master)
                    await talk.show(b"A\n")
                    await trio.sleep_forever()
            assert not talk.ended
    os.close(tty)


@pytest.mark.parametrize("term", ["xterm", "dumb"])
async def test_a_terminal_that_has_hung_up_cannot_be_asked(
    term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a question nor an offer has been declined then."""
    monkeypatch.setenv("TERM", term)
    master, tty = os.openpty()
    with trio.fail_after(DEADLINE):
        async with open_prompt(input_fd=tty, output_fd=tty) as prompt:
            os.close(master)
            with pytest.raises(HungUp):
                await prompt.ask("Host", "127.0.0.1")
            with pytest.raises(HungUp):
                await prompt.offer("Again?")
    os.close(tty)


async def test_reading_a_dumb_terminal_may_fail_before_it_has_hung_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel gives EIO while it is about to hang up, and to a job that lost its terminal."""

    def read(fd: int, size: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    async with at_dumb_prompt(monkeypatch) as (person, prompt):
        await person.types("\n")
        monkeypatch.setattr(terminal, "os", SimpleNamespace(read=read, write=os.write))
        with pytest.raises(HungUp):
            await prompt.ask("Host", "127.0.0.1")


async def test_a_terminal_that_cannot_be_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """After su the terminal belongs to somebody else: the descriptor at hand serves."""

    def ttyname(fd: int) -> str:
        raise PermissionError(errno.EACCES, "not yours", str(fd))

    monkeypatch.setattr(os, "ttyname", ttyname)
    async with at_prompt() as (person, prompt):
        await prompt.notice("hello")
        await person.sees("hello\r\n")


async def test_a_bug_in_the_editor_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in what a key does leaves the block, instead of a log over the screen."""

    def accept(self: Entry, buffer: object) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(Entry, "accept", accept)
    async with at_prompt() as (person, prompt):
        with pytest.RaisesGroup(ZeroDivisionError), trio.fail_after(DEADLINE):
            async with prompt.talk(LABEL):
                await person.types("a\r")
                await trio.sleep_forever()


async def test_the_threads_take_turns_while_there_is_a_prompt() -> None:
    """So that drawing it does not hold up a reply; afterwards all is as it was."""
    before = sys.getswitchinterval()
    async with at_prompt():
        assert sys.getswitchinterval() < before
    assert sys.getswitchinterval() == before


async def test_a_job_that_ends_in_spite_of_a_cancellation_gives_its_result() -> None:
    """Nothing that was done is lost: the cancellation waits for the next checkpoint."""

    async def stubborn() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
        return "done"

    with trio.CancelScope() as scope:
        async with open_asyncio() as loop:
            scope.cancel()
            assert await loop.run(stubborn) == "done"
            assert not loop.hurried
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught


@asynccontextmanager
async def at_dumb_prompt(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Person, Prompt]]:
    monkeypatch.setenv("TERM", "dumb")
    async with at_prompt() as (person, prompt):
        yield person, prompt


async def test_a_dumb_terminal_gets_lines_and_no_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain text in and out, the prompt again after each reply, Ctrl-D ends."""
    monkeypatch.delenv("NO_COLOR")
    async with at_dumb_prompt(monkeypatch) as (person, prompt):
        async with prompt.talk(LABEL) as talk:
            assert await person.sees(LABEL) == LABEL
            await person.types("hello\n")
            assert await take(talk, 1) == [b"hello\n"]
            await talk.show(b"HELLO\x1b\n")
            seen = await person.sees(LABEL)
            assert re.fullmatch(rf"hello\r\nHELLO\\x1b   \d+\.\d\d ms\r\n{LABEL}", seen)
            await person.types(CTRL_D)
            assert await take_all(talk) == []
            assert await person.sees("\n") == "\r\n"  # so that the shell's prompt has its own line
        await prompt.notice("end")
        assert await person.sees("end\r\n") == "end\r\n"


async def test_half_a_line_can_be_sent_at_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """By Ctrl-D, as to any program; what is shown then begins a line of its own."""
    async with at_dumb_prompt(monkeypatch) as (person, prompt):
        async with prompt.talk(LABEL) as talk:
            await person.sees(LABEL)
            await person.types(f"half{CTRL_D}")
            assert await take(talk, 1) == [b"half"]
            await prompt.notice("hello")
            await person.sees(f"half\r\nhello\r\n{LABEL}")
            await talk.show(b"HALF")
            await person.types(CTRL_D)
            assert await take_all(talk) == []
        assert await person.sees("HALF\r\n") == "\r\nHALF\r\n"


async def test_a_dumb_terminal_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions and offers work without editing."""
    async with at_dumb_prompt(monkeypatch) as (person, prompt):
        await person.types("\nport\n")
        assert await prompt.ask("Host", "127.0.0.1") == "127.0.0.1"
        assert await prompt.ask("Port", "8746") == "port"
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def answer() -> None:
                await person.sees("Again?")
                await person.types(CTRL_D)

            assert not await prompt.offer("Again?")


async def test_a_dumb_prompt_is_cancelled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a line typed holds nothing up, and is no command for the shell afterwards."""
    monkeypatch.setenv("TERM", "unknown")
    async with somebody() as person:
        with trio.move_on_after(0.05) as scope:
            async with (
                open_prompt(input_fd=person.tty, output_fd=person.tty) as prompt,
                prompt.talk(LABEL) as talk,
            ):
                await person.types("half a li")
                await person.sees("half a li")
                await anext(talk)
        assert trio.current_time() - scope.deadline < AT_ONCE
        await person.types("ne\n")
        await trio.lowlevel.wait_readable(person.tty)
        assert os.read(person.tty, 100) == b"ne\n"


async def test_a_dumb_terminal_that_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that blocks is left behind when it is cancelled; one that fails is no error."""
    monkeypatch.setenv("TERM", "dumb")
    master, tty = os.openpty()
    with trio.move_on_after(0.05) as scope:
        async with open_prompt(input_fd=tty, output_fd=tty) as prompt:
            await prompt.notice("A" * 1_000_000)
    assert scope.cancelled_caught
    os.close(master)  # and the thread ends with EIO
    os.close(tty)


def test_a_terminal_without_a_size_has_the_usual_one() -> None:
    """0 by 0 (a serial line) and a terminal that is gone count as 24 lines of 80."""
    master, tty = os.openpty()
    assert prompt_room._size(tty) == (24, 80)
    termios.tcsetwinsize(tty, (5, 40))
    assert prompt_room._size(tty) == (5, 40)
    os.close(tty)
    os.close(master)
    assert prompt_room._size(tty) == (24, 80)


PROGRAM = f"""
import signal, sys
from pathlib import Path
import trio
from trio_upper.terminal.editor import open_prompt
from trio_upper.terminal.prompt import Interrupted

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
died = []

async def main():
    with trio.open_signal_receiver(*SIGNALS) as arriving:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, arriving, nursery.cancel_scope)
            async with open_prompt(history=Path(sys.argv[1])) as prompt:
                async with prompt.talk({LABEL!r}) as talk:
                    async for line in talk:
                        await talk.show(line.upper())
            nursery.cancel_scope.cancel()

async def watch(arriving, scope):
    async for number in arriving:
        died.append(number)
        scope.cancel()

try:
    trio.run(main)
except* Interrupted:
    died.append(signal.SIGINT)
for number in died:
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
"""
"""A client without a network: it answers itself, and ends as the real one does."""


LEADER = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Gives the session that it leads the terminal, then becomes the command."""


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return [sys.executable, str(path), str(tmp_path / "history")]


@asynccontextmanager
async def running(person: Person, command: list[str]) -> AsyncIterator[trio.Process]:
    """A command in a session of its own, the terminal of which is the person's."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", LEADER, *command],
        stdin=person.tty,
        stdout=person.tty,
        stderr=person.tty,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        with trio.move_on_after(DEADLINE, shield=True):
            await process.wait()


async def ends(process: trio.Process, within: float = DEADLINE) -> int:
    with trio.fail_after(within):
        return await process.wait()


async def test_two_runs_share_a_history(program: list[str]) -> None:
    """Arrow-up in a second process finds the line of the first; Ctrl-D is exit code 0."""
    async with somebody() as person:
        for keys, reply in [("hello", "HELLO"), (UP, "HELLO")]:
            async with running(person, program) as process:
                await person.sees(EDITING)
                await person.types(f"{keys}\r")
                await person.sees(f"{reply}   ")
                await person.types(CTRL_D)
                assert await ends(process) == 0
                assert person.has_sane_terminal()


async def test_ctrl_c_kills_by_sigint(program: list[str]) -> None:
    """Ctrl-C with half a line typed: the shell sees SIGINT, the terminal is sane."""
    async with somebody() as person, running(person, program) as process:
        await person.sees(EDITING)
        await person.types("half a li")
        await person.sees("half a li")
        await person.types(CTRL_C)
        assert await ends(process) == -signal.SIGINT
        assert person.has_sane_terminal()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_a_prompt_at_once(program: list[str], number: signal.Signals) -> None:
    """With half a line typed: dead by the signal at once, terminal sane."""
    async with somebody() as person, running(person, program) as process:
        await person.sees(EDITING)
        await person.types("half a li")
        await person.sees("half a li")
        process.send_signal(number)
        assert await ends(process, within=AT_ONCE) == -number
        assert person.has_sane_terminal()


@pytest.mark.skipif(not shutil.which("bash"), reason="job control needs a shell")
async def test_ctrl_z_hands_a_sane_terminal_to_the_shell(
    program: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Suspended, the shell has its terminal; back in the foreground, half a line is still there."""
    monkeypatch.setenv("PS1", "shell$ ")
    shell = ["bash", "--norc", "--noediting", "-i"]
    async with somebody() as person, running(person, shell) as process:
        await person.types(f"{shlex.join(program)}\n")
        await person.sees(DRAWN)
        await person.types("half")
        await person.sees("half")
        await person.types(CTRL_Z)
        await person.sees("Stopped")
        await person.sees("shell$ ")
        assert person.has_sane_terminal()
        await person.types("fg\n")
        await person.sees(DRAWN)
        await person.sees("half")
        await person.types(f"!\r{CTRL_D}")
        await person.sees("HALF!   ")
        await person.sees("shell$ ")
        await person.types("exit 3\n")
        assert await ends(process) == 3
