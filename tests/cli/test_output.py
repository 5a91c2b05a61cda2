"""What is said to a person: at a terminal, in a file, and where nobody takes it."""

import errno
import io
import math
import sys
from collections.abc import AsyncGenerator

import pytest
import trio
from tests.helpers.screens import screen
from tests.helpers.waiting import TIMEOUT_SECONDS

from trio_upper.cli import output
from trio_upper.cli.output import (
    LAST_WORDS_SECONDS,
    LINES_BEHIND,
    NamedCuts,
    behind,
    escaped,
    patience,
    say,
    tell,
)
from trio_upper.platform import HUNG_UP, STOP_SIGNALS
from trio_upper.terminal.plain import LINE_CUT


class Full(io.StringIO):
    """A disk without room."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "")


@pytest.mark.parametrize("stderr", [None, Full()])
def test_what_nobody_takes_is_not_said(
    stderr: io.StringIO | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nowhere to say why."""
    monkeypatch.setattr(sys, "stderr", stderr)
    say("hello")


async def test_a_line_is_told_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    """As it is said."""
    await tell("hello")
    assert capsys.readouterr().err == "trio-upper: hello\n"


async def test_a_line_is_told_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is said; a surrogate that no terminal can be sent is no error."""
    with screen() as stderr:
        monkeypatch.setattr(sys, "stderr", stderr.stream)
        await tell("hello\udcff")
        assert stderr.shown == "trio-upper: hello?\r\n"


async def test_a_terminal_that_hangs_up_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a line, too."""

    def write(fd: int, data: bytes) -> int:
        if len(data) < 10:
            raise OSError(errno.EIO, "")
        return 5

    with screen() as stderr:
        monkeypatch.setattr(sys, "stderr", stderr.stream)
        monkeypatch.setattr("os.write", write)
        await tell("hello")


async def test_a_terminal_that_takes_nothing_holds_up_no_other_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And whoever tells can be cancelled."""
    with screen() as stderr:
        monkeypatch.setattr(sys, "stderr", stderr.stream)
        stderr.stop()
        with trio.fail_after(TIMEOUT_SECONDS), trio.move_on_after(0.01) as scope:
            await tell("hello")
        assert scope.cancelled_caught
        stderr.go_on()


async def test_lines_behind_hold_up_nobody() -> None:
    """What a terminal has not taken is written later, in order; too many lines are dropped."""
    takes, written = trio.Event(), []

    async def write(line: str) -> None:
        await takes.wait()
        written.append(line)

    lines = [str(number) for number in range(2 * LINES_BEHIND)]
    with trio.fail_after(TIMEOUT_SECONDS):
        async with behind(write) as put:
            for line in lines:
                await put(line)
            takes.set()
    assert LINES_BEHIND <= len(written) <= LINES_BEHIND + 1  # one of them was being written
    assert written == lines[: len(written)]


@pytest.mark.parametrize(
    ("received", "terminal", "seconds"),
    [
        (None, True, math.inf),
        (STOP_SIGNALS[0], True, LAST_WORDS_SECONDS),
        (STOP_SIGNALS[0], False, math.inf),
        (HUNG_UP, False, 0),
    ],
)
def test_patience(
    received: int | None, terminal: bool, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal does not wait for a terminal; whoever reads a pipe gets all of it."""
    monkeypatch.setattr(output, "is_terminal", lambda _: terminal)
    assert patience(received) == seconds


async def shown(*replies: bytes) -> bytes:
    """Return what comes to standard output of `replies`."""
    written = b""

    async def write(data: bytes) -> None:
        nonlocal written
        written += data
        await trio.lowlevel.checkpoint()

    async with escaped(write) as sink:
        for reply in replies:
            await sink(reply)
    return written


async def test_replies_cannot_drive_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """However they are cut; the bytes of half a character are shown at the end."""
    with screen() as stdout:
        monkeypatch.setattr(sys, "stdout", stdout.stream)
        replies = b"\x1b]0;EVIL\x07\nSTRASSE \xe2", b"\x82\xac\n\xe2"
        assert await shown(*replies) == b"\\x1b]0;EVIL\\x07\nSTRASSE \xe2\x82\xac\n\\xe2"


async def test_replies_for_a_file_are_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert await shown(b"\x1b[2J", b"\xff") == b"\x1b[2J\xff"


async def test_a_line_that_a_terminal_cut_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """It is sent, as far as it came."""

    async def typed() -> AsyncGenerator[bytes]:
        for line in b"x" * 4094 + b"\n", b"y" * 4095 + b"\n":
            await trio.lowlevel.checkpoint()
            yield line

    assert [len(line) async for line in NamedCuts(typed())] == [4095, 4096]
    assert capsys.readouterr().err == f"trio-upper: {LINE_CUT}\n"
