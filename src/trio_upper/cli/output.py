"""What all commands share of saying something to a person."""

import math
import os
import sys
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Self, TextIO

from trio_upper import platform
from trio_upper.terminal.escape import Escaper

Sink = Callable[[bytes], Awaitable[object]]
Tell = Callable[[str], Awaitable[object]]

# How many lines a terminal may be behind before more are dropped.
LINES_BEHIND = 1000

# How long a terminal may take for what is said after a signal, in seconds.
LAST_WORDS_SECONDS = 1.0


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a standard stream, None if it is closed, is a terminal."""
    return stream is not None and platform.is_terminal(stream)


def patience(received: int | None) -> float:
    """Return how long standard output may take for what is said after the signal `received`.

    In seconds; None is no signal. A terminal that has gone, or takes nothing, holds up no signal;
    whoever reads a pipe or a file gets it all.
    """
    if received == platform.HUNG_UP:
        return 0.0
    return math.inf if received is None or not is_terminal(sys.stdout) else LAST_WORDS_SECONDS


def say(text: str) -> None:
    """Print a line of the program's own to standard error, if there is one and it is read."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(f"trio-upper: {text}", file=sys.stderr, flush=True)  # noqa: T201


async def tell(text: str) -> None:
    """`say` for use under Trio: a terminal that takes nothing holds up no other task."""
    import trio

    if sys.stderr is not None and sys.stderr.isatty():
        line = f"trio-upper: {text}\n".encode(errors="replace")
        fd = sys.stderr.fileno()
        await trio.to_thread.run_sync(_write_all, fd, line, abandon_on_cancel=True)
    else:
        say(text)
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def behind(write: Tell) -> AsyncIterator[Tell]:
    """Give a function that has a line written by `write` soon, and waits for nothing.

    For what is measured beside a terminal that takes nothing (Ctrl-S, a frozen window): when that
    is `LINES_BEHIND` lines behind, more are dropped. The block's end waits until all is written.
    """
    import trio

    lines, unwritten = trio.open_memory_channel[str](LINES_BEHIND)

    async def write_all() -> None:
        async for line in unwritten:
            await write(line)

    async def put(line: str) -> None:
        await trio.lowlevel.checkpoint()
        with suppress(trio.WouldBlock):
            lines.send_nowait(line)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_all)
        with lines:
            yield put


def _write_all(fd: int, data: bytes) -> None:
    """Write without a lock, which a thread that is left behind would hold at the process's exit."""
    with suppress(OSError):
        while data:
            data = data[os.write(fd, data) :]


@asynccontextmanager
async def escaped(sink: Sink) -> AsyncIterator[Sink]:
    """Give a sink for replies that writes them to `sink`, which writes to standard output.

    At a terminal they are escaped, so that nothing that a server says can drive it. The last bytes
    of a character that is not whole are written at the end.
    """
    if not is_terminal(sys.stdout):
        yield sink
        return
    escaper = Escaper()

    async def show(replies: bytes) -> None:
        await sink(escaper.feed(replies).encode())

    yield show
    await sink(escaper.finish().encode())


class NamedCuts:
    """What is typed at a terminal, line by line; says of each whether the terminal has cut it.

    An async generator would have to be closed by whoever iterates; this has nothing to close.
    """

    def __init__(self, typed: AsyncIterable[bytes]) -> None:
        self._lines = aiter(typed)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next line as it came."""
        from trio_upper.terminal.plain import LINE_CUT, is_cut

        line = await anext(self._lines)
        if is_cut(line):
            await tell(LINE_CUT)
        return line


def sole_error(error: BaseException) -> BaseException:
    """Return `error`, or the first one in it: the nurseries make nested groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
