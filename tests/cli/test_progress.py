"""The progress of something long: when it is shown, what, and that it delays nobody."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from tests.helpers.screens import Screen, screen
from trio.testing import MockClock

from trio_upper.cli.progress import (
    BAR_CHARACTERS,
    LONG_SECONDS,
    REFRESH_SECONDS,
    Meter,
    StatusLine,
    bar,
    open_status,
)
from trio_upper.platform import terminal


@pytest.fixture
def stderr() -> Iterator[Screen]:
    with screen() as made:
        yield made


def put(stream: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `stream` standard error; in the test, for pytest sets it after the fixtures."""
    monkeypatch.setattr(sys, "stderr", stream)


def test_a_line_is_drawn_over_what_stood_there(
    stderr: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shorter ones leave nothing of longer ones, and at the end there is an empty line."""
    put(stderr.stream, monkeypatch)
    with open_status() as status:
        assert status is not None
        status.draw("longer")
        status.draw("line")
    assert stderr.shown == "\rlonger\rline  \r      \r"


def test_where_nothing_was_drawn_nothing_is_erased(
    stderr: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line may have words of somebody else."""
    put(stderr.stream, monkeypatch)
    with open_status():
        pass
    assert stderr.shown == ""


def test_a_line_has_no_more_characters_than_the_terminal_has_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that wraps could not be drawn over."""
    with screen(columns=10) as stderr:
        put(stderr.stream, monkeypatch)
        with open_status() as status:
            assert status is not None
            status.draw("0123456789")
        assert stderr.shown.startswith("\r012345678\r")


@pytest.mark.parametrize("stream", [None, "file"])
def test_nobody_to_see_it(stream: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error may be closed, or a file."""
    with Path(os.devnull).open("w") as file:
        put(file if stream else None, monkeypatch)
        with open_status() as status:
            assert status is None


def test_frames_that_a_terminal_does_not_take_are_dropped(
    stderr: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-S nothing waits, and after Ctrl-Q nothing old is shown."""
    put(stderr.stream, monkeypatch)
    with open_status() as status:
        assert status is not None
        stderr.stop()
        status.draw("old")
        stderr.go_on()
        status.draw("new")
    assert stderr.shown == "\rnew\r   \r"


def test_a_frame_that_was_begun_is_finished_first() -> None:
    """Else the next one would begin in the middle of a character."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    size = 0
    while terminal.wait_writable(write, 0):
        size += os.write(write, bytes(4096))
    os.read(read, 4096)
    status = StatusLine(write)
    status._rest = b"x" * 5000
    status.draw("dropped")
    os.read(read, size)
    status.draw("new")
    assert os.read(read, 10_000).lstrip(b"\0") == b"x" * (5000 - 4096) + b"\rnew    "
    os.close(read)
    status.draw("nobody is left")
    os.close(write)


def test_in_the_background_nothing_is_drawn(
    stderr: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The terminal is the shell's then."""
    put(stderr.stream, monkeypatch)
    monkeypatch.setattr(terminal, "in_foreground", lambda _: False)
    with open_status() as status:
        assert status is not None
        status.draw("hidden")
    assert stderr.shown == ""


@pytest.mark.parametrize(("share", "filled"), [(0, 0), (0.5, 20), (1, 40), (1.2, 40)])
def test_a_bar_is_filled_as_far_as_it_is(share: float, filled: int) -> None:
    """And no further: some replies are longer than what was sent."""
    assert bar(share) == "━" * filled + "─" * (BAR_CHARACTERS - filled)


async def transfer(
    meter: Meter, monkeypatch: pytest.MonkeyPatch, stderr: Screen, seconds: float
) -> str:
    put(stderr.stream, monkeypatch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(meter.show)
        for _ in range(round(seconds / REFRESH_SECONDS)):
            await trio.sleep(REFRESH_SECONDS)
            await meter(bytes(1_000_000))
        nursery.cancel_scope.cancel()
    return stderr.shown


async def take(data: bytes) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        (20_000_000, r"━{20,}─{10,}  1\d\.0 MB of 20\.0 MB, 3\.\d MB/s"),
        (None, r"\r1\d\.0 MB, 3\.\d MB/s"),
    ],
)
async def test_a_long_transfer_is_shown(
    size: int | None,
    seen: str,
    stderr: Screen,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What has been answered and the rate, and the share where the size is known."""
    assert re.search(seen, await transfer(Meter(take, size), monkeypatch, stderr, 3))


async def test_a_short_transfer_is_not(
    stderr: Screen, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is over before anybody could read."""
    seconds = LONG_SECONDS - REFRESH_SECONDS
    assert await transfer(Meter(take, None), monkeypatch, stderr, seconds) == ""


@pytest.mark.parametrize("other", [True, False])
async def test_it_never_mixes_with_replies(
    other: bool,
    stderr: Screen,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where they go to a terminal, too, and where there is none to draw at, nothing is shown."""
    if other:
        monkeypatch.setattr(sys, "stdout", stderr.stream)
        assert await transfer(Meter(take, None), monkeypatch, stderr, 3) == ""
    else:
        monkeypatch.setattr(terminal, "open_writer", lambda _: None)
        assert await transfer(Meter(take, None), monkeypatch, stderr, 3) == ""
