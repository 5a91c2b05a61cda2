"""Somebody at a pseudo-terminal of this process, who is prompted there."""

import os
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from trio_upper.terminal.editor import open_prompt
from trio_upper.terminal.prompt import Prompt

# Seconds after which a test has failed; none is waited for.
TIMEOUT = 60

# Seconds for what is promised within half of one; a busy machine gets more.
AT_ONCE = 1.5

LABEL = "127.0.0.1:8746> "
DRAWN = "127.0.0.1:8746>"  # the editor moves the cursor over the space
EDITING = "\x1b[?2004h"  # a prompt that has just been drawn
UP = "\x1b[A"
CTRL_C, CTRL_D, CTRL_Z = "\x03", "\x04", "\x1a"
COOKED = termios.ECHO | termios.ICANON | termios.ISIG


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
        """Wait for `text`; return what came up to its end, which is not seen again."""
        wanted, start = text.encode(), 0
        with trio.move_on_after(TIMEOUT):
            while (found := self._seen.find(wanted, start)) < 0:
                start = max(0, len(self._seen) - len(wanted))
                await self._more.wait()
        assert found >= 0, f"{text!r} does not appear; the end is {self._seen[-500:]!r}"
        end = found + len(wanted)
        seen = self._seen[:end].decode()
        del self._seen[:end]
        return seen

    async def types(self, text: str) -> None:
        """Type or paste `text`, as fast as the terminal takes it."""
        rest = memoryview(text.encode())
        os.set_blocking(self.master, False)
        with trio.fail_after(TIMEOUT):
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
    with trio.fail_after(TIMEOUT):
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


async def take(messages: AsyncIterator[bytes], count: int) -> list[bytes]:
    lines = []
    with trio.fail_after(TIMEOUT):
        for _ in range(count):
            lines.append(await anext(messages))  # noqa: PERF401 (a comprehension hides the checkpoint)
    return lines


async def take_all(messages: AsyncIterator[bytes]) -> list[bytes]:
    with trio.fail_after(TIMEOUT):
        return [line async for line in messages]
