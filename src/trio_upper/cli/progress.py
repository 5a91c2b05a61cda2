"""How far something long is: one line at the terminal of standard error, drawn again and again."""

import os
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import trio

from trio_upper.cli.output import is_terminal
from trio_upper.platform import terminal

# A transfer that takes longer is worth a line.
LONG_SECONDS = 2.0

# Between two frames: often enough to look alive, and at some 0.1 ms each too seldom to be felt.
REFRESH_SECONDS = 0.25

# How many frames back the rate looks.
RATE_FRAMES = 8

BAR_CHARACTERS = 40

# Columns of a terminal that does not know how many it has.
USUAL_COLUMNS = 80


class StatusLine:
    """A line that is drawn over itself and waits for nothing: a frame that does not fit is dropped.

    A terminal that takes nothing (Ctrl-S, a frozen window) delays nobody, and in the background
    nothing is drawn. The cursor stays as it is, so there is nothing to tidy up when the job is
    stopped or killed.
    """

    def __init__(self, fd: int) -> None:
        """Draw to the non-blocking `fd`, a terminal that the caller closes."""
        self._fd = fd
        self._rest = b""  # of a frame that was written in part
        self._shown = 0

    async def show(self, describe: Callable[[], str]) -> None:
        """Draw what `describe` returns, again and again, until cancelled."""
        while True:
            self.draw(describe())
            await trio.sleep(REFRESH_SECONDS)

    def draw(self, text: str) -> None:
        """Show `text`, as much of it as one line holds, instead of what stands there."""
        line = text[: _columns(self._fd) - 1]
        self._write(f"\r{line.ljust(self._shown)}")
        self._shown = max(self._shown, len(line))

    def erase(self) -> None:
        """Leave an empty line, with the cursor at its start."""
        if self._shown:
            self._write(f"\r{' ' * self._shown}\r")

    def _write(self, frame: str) -> None:
        if terminal.in_foreground(self._fd):
            with suppress(OSError):  # it takes nothing, or has gone
                self._rest = self._rest[os.write(self._fd, self._rest) :]
                if not self._rest:
                    data = frame.encode()
                    self._rest = data[os.write(self._fd, data) :]


@contextmanager
def open_status() -> Iterator[StatusLine | None]:
    """Give a line at the terminal of standard error inside the block, None if there is none."""
    fd = terminal.open_writer(sys.stderr.fileno()) if is_terminal(sys.stderr) else None
    if fd is None:
        yield None
        return
    status = StatusLine(fd)
    try:
        yield status
    finally:
        status.erase()
        os.close(fd)


def bar(share: float) -> str:
    """Return a bar that is filled to `share`, from 0 to 1."""
    filled = round(min(share, 1.0) * BAR_CHARACTERS)
    return "━" * filled + "─" * (BAR_CHARACTERS - filled)


class Meter:
    """A sink that passes on to `sink`, and counts; `size` bytes are expected, None if unknown."""

    def __init__(self, sink: Callable[[bytes], Awaitable[object]], size: int | None) -> None:
        self._sink = sink
        self._size = size
        self._bytes = 0
        self._frames: deque[tuple[float, int]] = deque(maxlen=RATE_FRAMES + 1)

    async def __call__(self, data: bytes) -> None:
        await self._sink(data)
        self._bytes += len(data)

    async def show(self) -> None:
        """Draw bytes, rate, and the share if the size is known, until cancelled.

        Only if the transfer is long, and not where its replies are shown.
        """
        self._frames.append((trio.current_time(), self._bytes))
        await trio.sleep(LONG_SECONDS)
        if not is_terminal(sys.stdout):
            with open_status() as status:
                if status is not None:
                    await status.show(self._describe)

    def _describe(self) -> str:
        now = trio.current_time()
        self._frames.append((now, self._bytes))
        since, before = self._frames[0]
        rate = (self._bytes - before) / (now - since)
        done = _megabytes(self._bytes)
        if self._size:
            done = f"{bar(self._bytes / self._size)}  {done} of {_megabytes(self._size)}"
        return f"{done}, {_megabytes(rate)}/s"


def _megabytes(count: float) -> str:
    return f"{count / 1e6:,.1f} MB"


def _columns(fd: int) -> int:
    try:
        return os.get_terminal_size(fd).columns or USUAL_COLUMNS
    except OSError:  # it has gone
        return USUAL_COLUMNS
