"""The screen that holds up nobody: what it writes, waits for and drops."""

import errno
import os
from contextlib import suppress
from itertools import cycle

import pytest
import trio
from tests.helpers.person import TIMEOUT, at_prompt

from trio_upper import platform
from trio_upper.terminal.screen import WRITE_BYTES, Screen


def full_pipe() -> tuple[int, int, int]:
    """Return both ends of a pipe, and how many zero bytes fill it."""
    output, screen_end = os.pipe()
    os.set_blocking(screen_end, False)
    full = 0
    with suppress(BlockingIOError):
        while True:
            full += os.write(screen_end, bytes(WRITE_BYTES))
    return output, screen_end, full


async def test_a_screen_that_takes_nothing_holds_up_nobody_in_a_hurry() -> None:
    """What does not fit is dropped then, however short."""
    output, screen_end, full = full_pipe()
    screen = Screen(screen_end, hurried=lambda: True, usable=lambda: True)
    with trio.fail_after(TIMEOUT):
        await trio.to_thread.run_sync(screen.write, "\x1b[J", abandon_on_cancel=True)
    assert os.read(output, 2 * full) == bytes(full)
    os.close(screen_end)
    assert os.read(output, 100) == b""
    os.close(output)


def test_a_screen_waits_for_a_slow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does not take at once is written when it takes more."""
    output, screen_end, full = full_pipe()
    drawn = []
    rooms = cycle([False, True])

    def wait_writable(fd: int, seconds: float) -> bool:
        if has_room := next(rooms):
            drawn.append(os.read(output, full))
        return has_room

    monkeypatch.setattr(platform.terminal, "wait_writable", wait_writable)
    Screen(screen_end, hurried=lambda: False, usable=lambda: True).write("\x1b[J" * full)
    os.close(screen_end)
    with os.fdopen(output, "rb") as rest:
        drawn.append(rest.read())
    assert b"".join(drawn) == bytes(full) + b"\x1b[J" * full
    assert len(drawn) > 3


def test_nothing_is_drawn_on_a_terminal_that_a_shell_has() -> None:
    """Also what is short."""
    output, screen_end = os.pipe()
    Screen(screen_end, hurried=lambda: False, usable=lambda: False).write("\x1b[J")
    os.close(screen_end)
    assert os.read(output, 100) == b""
    os.close(output)


def test_in_a_hurry_only_what_is_short_is_written() -> None:
    """The rest of a long reply would take a slow terminal too long; tidying up is short."""
    output, screen_end = os.pipe()
    os.set_blocking(screen_end, False)
    screen = Screen(screen_end, hurried=lambda: True, usable=lambda: True)
    screen.write("A" * (WRITE_BYTES + 1))
    screen.write("\x1b[J")
    os.close(screen_end)
    assert os.read(output, 100) == b"\x1b[J"
    os.close(output)


async def test_a_terminal_that_cannot_be_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """After su the terminal belongs to somebody else: the descriptor at hand serves."""

    def ttyname(fd: int) -> str:
        raise PermissionError(errno.EACCES, "not yours", str(fd))

    monkeypatch.setattr(os, "ttyname", ttyname)
    async with at_prompt() as (person, prompt):
        await prompt.notice("hello")
        await person.sees("hello\r\n")
