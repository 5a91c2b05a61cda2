"""The progress of a long transfer: when it is shown, and what."""

import io
import sys
from collections.abc import AsyncGenerator

import pytest
import trio
from trio.testing import MockClock

from trio_upper.cli.progress import LONG, REFRESH, Meter, is_wanted


class Screen(io.StringIO):
    """A terminal that keeps what is written."""

    def isatty(self) -> bool:
        return True


async def pieces(*sizes: int) -> AsyncGenerator[bytes]:
    for size in sizes:
        await trio.lowlevel.checkpoint()
        yield bytes(size)


@pytest.mark.parametrize(
    ("stderr", "stdout", "wanted"),
    [
        (Screen(), io.StringIO(), True),
        (Screen(), None, True),
        (Screen(), Screen(), False),
        (io.StringIO(), io.StringIO(), False),
        (None, io.StringIO(), False),
    ],
)
def test_it_never_mixes_with_output(
    stderr: io.StringIO | None,
    stdout: io.StringIO | None,
    wanted: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It needs a terminal to be seen at, and one to which no replies go."""
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(sys, "stdout", stdout)
    assert is_wanted() is wanted


@pytest.mark.parametrize(("size", "seen"), [(4_000_000, "3.0/4.0 MB"), (None, "3.0/? MB")])
async def test_a_long_transfer_is_shown(
    size: int | None,
    seen: str,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bytes and rate, and the share where the size is known, but nothing in the first seconds."""
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    meter = Meter(pieces(1_000_000, 2_000_000), size)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(meter.show)
        assert [len(piece) async for piece in meter] == [1_000_000, 2_000_000]
        await trio.sleep(LONG - REFRESH)
        assert screen.getvalue() == ""
        await trio.sleep(3 * REFRESH)
        nursery.cancel_scope.cancel()
    assert seen in screen.getvalue()
