"""The prompt of a terminal that can only print."""

import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from tests.helpers.person import (
    AT_ONCE,
    CTRL_D,
    LABEL,
    Person,
    at_prompt,
    somebody,
    take,
    take_all,
)

from trio_upper.platform import terminal
from trio_upper.terminal import plain
from trio_upper.terminal.editor import open_prompt
from trio_upper.terminal.prompt import Prompt


@asynccontextmanager
async def at_dumb_prompt(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Person, Prompt]]:
    monkeypatch.setenv("TERM", "dumb")
    async with at_prompt() as (person, prompt):
        yield person, prompt


async def test_a_dumb_terminal_gets_lines_and_no_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain text in and out, the prompt again after each reply, Ctrl-D ends."""
    monkeypatch.delenv("NO_COLOR")
    async with at_dumb_prompt(monkeypatch) as (person, prompt):
        async with prompt.converse(LABEL) as conversation:
            assert await person.sees(LABEL) == LABEL
            await person.types("hello\n")
            assert await take(conversation, 1) == [b"hello\n"]
            await conversation.show(b"HELLO\x1b\n")
            seen = await person.sees(LABEL)
            assert re.fullmatch(rf"hello\r\nHELLO\\x1b   \d+\.\d\d ms\r\n{LABEL}", seen)
            await person.types(CTRL_D)
            assert await take_all(conversation) == []
            assert await person.sees("\n") == "\r\n"  # so that the shell's prompt has its own line
        await prompt.notice("end")
        assert await person.sees("end\r\n") == "end\r\n"


async def test_half_a_line_can_be_sent_at_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """By Ctrl-D, as to any program; what is shown then begins a line of its own."""
    async with at_dumb_prompt(monkeypatch) as (person, prompt):
        async with prompt.converse(LABEL) as conversation:
            await person.sees(LABEL)
            await person.types(f"half{CTRL_D}")
            assert await take(conversation, 1) == [b"half"]
            await prompt.notice("hello")
            await person.sees(f"half\r\nhello\r\n{LABEL}")
            await conversation.show(b"HALF")
            await person.types(CTRL_D)
            assert await take_all(conversation) == []
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

            assert await prompt.offer("Again?") is None


async def test_a_dumb_prompt_is_cancelled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a line typed holds nothing up, and is no command for the shell afterwards."""
    monkeypatch.setenv("TERM", "unknown")
    async with somebody() as person:
        with trio.move_on_after(0.05) as scope:
            async with (
                open_prompt(input_fd=person.tty, output_fd=person.tty) as prompt,
                prompt.converse(LABEL) as conversation,
            ):
                await person.types("half a li")
                await person.sees("half a li")
                await anext(conversation)
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


async def test_a_line_that_the_terminal_cut_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A canonical terminal drops what is typed after 4095 bytes of a line, and tells nobody."""
    async with at_dumb_prompt(monkeypatch) as (person, prompt), prompt.converse(LABEL) as messages:
        await person.types("x" * 5000 + "\n")
        assert await take(messages, 1) == [b"x" * 4095 + b"\n"]
        await person.sees("the terminal cut this line after 4095 bytes")
        await person.types("y" * 4094 + "\n")
        assert await take(messages, 1) == [b"y" * 4094 + b"\n"]


async def test_what_cannot_be_put_into_the_line_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal has the line, so what was typed at an offer has to be typed again."""
    async with at_dumb_prompt(monkeypatch) as (person, prompt):
        async with prompt.converse(LABEL, b"words\x1b") as messages:
            await person.sees(f"trio-upper: not sent: 'words\\x1b'\r\n{LABEL}")
        assert messages.unfinished == b""


async def test_the_label_is_shown_again_after_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal is as it was found all the time; what is half typed stays in it."""
    monkeypatch.setattr(terminal, "stop_job", lambda _: None)
    async with at_dumb_prompt(monkeypatch) as (person, prompt), prompt.converse(LABEL):
        await person.sees(LABEL)
        signal.raise_signal(signal.SIGTSTP)
        assert await person.sees(LABEL) == LABEL


async def test_in_the_background_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is typed there is the shell's; what is typed in front again is ours."""
    monkeypatch.setattr(plain, "BACKGROUND_SECONDS", 0.001)
    async with at_dumb_prompt(monkeypatch) as (person, prompt), prompt.converse(LABEL) as messages:
        await person.sees(LABEL)
        in_foreground = iter([False, False])
        monkeypatch.setattr(terminal, "in_foreground", lambda _: next(in_foreground, True))
        await person.types("x\n")
        assert await take(messages, 1) == [b"x\n"]
