"""The parts of a terminal that edit no lines, with a console in memory."""

import os
import select
import subprocess
import sys
import termios

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from trio_upper.terminal import prompt as terminal
from trio_upper.terminal.prompt import (
    Escaper,
    HungUp,
    Interrupted,
    Prompt,
    Talk,
    escape,
    forget_typed,
)

DEADLINE = 10
"""Seconds after which a test has failed; none is waited for."""


class MemoryConsole:
    """A console whose screen is a string and whose keyboard is a list of answers, and of lines."""

    def __init__(self, *answers: str | Exception) -> None:
        self.screen = ""
        self.prints = 0
        self.questions: list[tuple[str, bool]] = []
        self.labels: list[str] = []
        self.answers = list(answers)
        self.keyboard, self._typed = trio.open_memory_channel[bytes](10)

    async def print(self, text: str) -> None:
        await trio.lowlevel.checkpoint()
        self.screen += text
        self.prints += 1

    async def ask(self, question: str, *, fresh: bool) -> str:
        await trio.lowlevel.checkpoint()
        self.questions.append((question, fresh))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def type(self, label: str, talk: Talk) -> None:
        self.labels.append(label)
        async for line in self._typed:
            talk.enter(line)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", r"\x1b[31m"),
        ("a\tb\rc\0\x7f", r"a\tb\rc\x00\x7f"),
        ("\x9b2J", r"\u009b2J"),
        (b"\x9b2J \xff", r"\x9b2J \xff"),
        (b"\xe2\x82", r"\xe2\x82"),
        ("\u202egpj.exe\u2066", r"\u202egpj.exe\u2066"),
        ("\u200b\ufeff\xad\u2028", r"\u200b\ufeff\u00ad\u2028"),
        ("\udcff", r"\udcff"),
        ("two\nlines", "two\nlines"),
        ("STRASSE \\ 日本 👩\u200d🚀 \ue000", "STRASSE \\ 日本 👩\u200d🚀 \ue000"),
    ],
)
def test_escape_shows_what_could_drive_a_terminal(text: str | bytes, shown: str) -> None:
    """Control characters, direction overrides and broken bytes are spelled out; text stays."""
    assert escape(text) == shown


SHARDS = [b"\xf0", b"\x9f", b"\x9a", b"\x80", b"\xe2", b"\x82", b"\xac", b"\xed", b"\x1b", b"\n"]


@given(st.lists(st.sampled_from(SHARDS) | st.text().map(str.encode)))
def test_escaping_does_not_depend_on_the_split(pieces: list[bytes]) -> None:
    """A stream cut anywhere is escaped as if it had come whole, and nothing unsafe is left."""
    escaper = Escaper()
    shown = "".join(map(escaper.feed, pieces)) + escaper.finish()
    assert shown == escape(b"".join(pieces))
    assert not terminal.UNSAFE.search(shown)


def test_an_escaper_holds_back_only_a_code_point_that_is_cut() -> None:
    """Three of the four bytes of a code point wait; the letter before them does not."""
    escaper = Escaper()
    assert escaper.feed(b"A\xf0\x9f\x9a") == "A"
    assert escaper.feed(b"\x80") == "🚀"
    assert escaper.finish() == ""


async def test_each_reply_line_ends_with_its_round_trip_time(autojump_clock: object) -> None:
    """Reply line k is timed from when message k was taken, whole or in pieces."""
    console = MemoryConsole()
    async with Prompt(console).talk("here> ") as talk:
        await console.keyboard.send(b"hello\n")
        await console.keyboard.send(b"you\n")
        assert await anext(talk) == b"hello\n"
        await trio.sleep(0.001)
        assert await anext(talk) == b"you\n"
        await trio.sleep(0.00043)
        await talk.show(b"HEL")
        await talk.show(b"LO\nY")
        await trio.sleep(2)
        await talk.show(b"OU\n")
    assert console.labels == ["here> "]
    assert console.screen == "HELLO   1.43 ms\nYOU   2.00 s\n"


async def test_a_time_is_dimmed_when_asked_for(autojump_clock: object) -> None:
    """Dimming surrounds the time alone, and ends on the same line."""
    console = MemoryConsole()
    async with Prompt(console, dim=True).talk("") as talk:
        await console.keyboard.send(b"a\n")
        await anext(talk)
        await talk.show(b"A\n")
    assert console.screen == "A   \x1b[2m0.00 ms\x1b[0m\n"


async def test_a_label_cannot_drive_the_terminal() -> None:
    """A host may be called whatever it likes."""
    console = MemoryConsole()
    async with Prompt(console).talk("\x1b[2J> "):
        await console.keyboard.aclose()
        await wait_all_tasks_blocked()
    assert console.labels == ["\\x1b[2J> "]


async def test_the_lines_end_with_the_typing() -> None:
    """Ctrl-D ends the iteration; replies are shown after it all the same."""
    console = MemoryConsole()
    async with Prompt(console).talk("") as talk:
        await console.keyboard.send(b"a\n")
        await wait_all_tasks_blocked()
        assert not talk.ended
        await console.keyboard.aclose()
        assert [line async for line in talk] == [b"a\n"]
        assert talk.ended
        await talk.show(b"A\n")
    assert console.screen.startswith("A   ")


async def test_a_reply_nobody_asked_for_has_no_time() -> None:
    """More lines than messages are shown as they are, escaped."""
    console = MemoryConsole()
    async with Prompt(console).talk("") as talk:
        await talk.show(b"\x1b[2J\xff\n")
    assert console.screen == "\\x1b[2J\\xff\n"


async def test_half_a_reply_is_shown_when_its_conversation_ends() -> None:
    """Escaped as far as it came, on a line of its own."""
    console = MemoryConsole()
    async with Prompt(console).talk("") as talk:
        await talk.show(b"LO\xc3")
        assert console.screen == ""
    assert console.screen == "LO\\xc3\n"


@pytest.mark.parametrize("ends", [False, True])
async def test_what_was_not_answered_is_known(ends: bool) -> None:
    """Both what was taken, and what was entered and could no more be sent, in order."""
    console = MemoryConsole()
    async with Prompt(console).talk("") as talk:
        await console.keyboard.send(b"one\ntwo\n")
        await console.keyboard.send(b"\xff\n")
        await console.keyboard.send(b"four\n")
        if ends:
            await console.keyboard.aclose()
        await wait_all_tasks_blocked()
        await anext(talk)
        await talk.show(b"ONE\nT")
    assert talk.unanswered() == [b"two", b"\xff", b"four"]
    assert talk.ended is ends


async def test_a_long_reply_is_shown_before_its_end() -> None:
    """10 MB in one line come in pieces: none waits for the end, none is lost, none is tiny."""
    console = MemoryConsole()
    piece, count = 10_000, 1000
    async with Prompt(console).talk("") as talk:
        for _ in range(count):
            await talk.show(b"A" * piece)
        in_time = console.screen
    assert piece * count - in_time.count("A") <= terminal.LONGEST_UNSHOWN
    assert console.screen.count("A") == piece * count
    assert console.prints <= piece * count / terminal.LONGEST_UNSHOWN + 1


async def test_a_notice_cannot_drive_the_terminal() -> None:
    """A notice is one line, with foreign words escaped."""
    console = MemoryConsole()
    await Prompt(console).notice("it said: \x07")
    assert console.screen == "it said: \\x07\n"


async def test_a_question_shows_its_default() -> None:
    """Enter alone takes the default; spaces around an answer are dropped."""
    console = MemoryConsole("", " b ")
    prompt = Prompt(console)
    assert await prompt.ask("Host", "127.0.0.1") == "127.0.0.1"
    assert await prompt.ask("Host", "127.0.0.1") == "b"
    assert console.questions == [("Host [127.0.0.1]: ", False)] * 2


async def test_an_offer_takes_enter_or_the_end() -> None:
    """Words do not accept an offer, Enter does; Ctrl-D declines; Ctrl-C is no answer."""
    console = MemoryConsole("no", "", EOFError(), Interrupted())
    prompt = Prompt(console)
    assert await prompt.offer("Again?")
    assert not await prompt.offer("Again?")
    with pytest.raises(Interrupted):
        await prompt.offer("Again?")
    assert console.questions == [("Again? ", True)] * 4


def fail_while_silent(tty: int, master: int) -> None:
    with terminal.saved_terminal(tty):
        terminal.silence(tty)
        flags = termios.tcgetattr(tty)[3]
        assert not flags & (termios.ECHO | termios.ICANON)
        assert flags & termios.ISIG
        os.write(master, b"rm -r important\n")
        assert select.select([tty], [], [], DEADLINE)[0]
        raise ZeroDivisionError


def test_a_terminal_is_left_as_it_was() -> None:
    """Silenced, it neither echoes nor keeps lines but still signals; afterwards it does all."""
    master, tty = os.openpty()
    before = termios.tcgetattr(tty)
    with pytest.raises(ZeroDivisionError):
        fail_while_silent(tty, master)
    assert termios.tcgetattr(tty) == before
    os.write(master, b"x\n")
    assert os.read(tty, 100) == b"x\n"
    os.close(tty)
    os.close(master)


def test_a_terminal_that_hung_up_needs_no_restoring() -> None:
    """Nothing is raised when the terminal has gone in between, unless somebody is to be asked."""
    master, tty = os.openpty()
    with terminal.saved_terminal(tty):
        os.close(master)
        with pytest.raises(HungUp):
            forget_typed(tty)
    os.close(tty)


def test_the_room_is_light_without_a_prompt() -> None:
    """Escaping a banner does not import what edits lines."""
    module = "trio_upper.terminal.prompt"
    code = f"import sys, {module}; print({{'prompt_toolkit', 'asyncio'}} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert run.stdout.strip() == "set()"
