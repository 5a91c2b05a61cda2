"""Descriptors for tests, connected in pairs, and what is done at their ends."""

import os
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import trio
from trio.testing import wait_all_tasks_blocked

from tests.helpers.waiting import TIMEOUT_SECONDS
from trio_upper.stdio.descriptors import ThreadSink, ThreadSource
from trio_upper.stdio.streams import Input, Output

# More than any pipe, socket or terminal here holds, in bytes.
MUCH = b"0123456789abcdef" * 128 * 1024


class Ends(NamedTuple):
    """Two connected descriptors: what is written to `write` can be read from `read`."""

    read: int
    write: int


class Descriptors:
    """Descriptors of a test, each closed once: by the test, or after it."""

    def __init__(self) -> None:
        self._open: list[int] = []

    def keep(self, fd: int) -> int:
        self._open.append(fd)
        return fd

    def ends(self, read: int, write: int) -> Ends:
        return Ends(self.keep(read), self.keep(write))

    def close(self, fd: int) -> None:
        self._open.remove(fd)
        os.close(fd)

    def close_all(self) -> None:
        for fd in self._open:
            os.close(fd)


def pipe(fds: Descriptors) -> Ends:
    return fds.ends(*os.pipe())


def sockets(fds: Descriptors) -> Ends:
    return fds.ends(*(end.detach() for end in socket.socketpair()))


def terminal(fds: Descriptors) -> Ends:
    """A terminal, and the descriptor at which somebody types, without echo."""
    import pty
    import termios  # Windows, which imports this module, too, has neither

    master, slave = pty.openpty()
    attributes = termios.tcgetattr(slave)
    attributes[3] &= ~termios.ECHO
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    return fds.ends(slave, master)


def screen(fds: Descriptors) -> Ends:
    """A terminal, and the descriptor that reads what is shown, byte for byte."""
    import pty
    import termios

    master, slave = pty.openpty()
    attributes = termios.tcgetattr(slave)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    return fds.ends(master, slave)


def file(fds: Descriptors, path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    return fds.keep(os.open(path, flags, 0o600))


@asynccontextmanager
async def in_background(job: Callable[[], Awaitable[object]]) -> AsyncIterator[trio.CancelScope]:
    """Have `job` block, then run the block; leaving the block waits for its end."""
    with trio.fail_after(TIMEOUT_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(job)
            await wait_all_tasks_blocked()
            yield nursery.cancel_scope


async def drain(fd: int, size: int) -> bytes:
    """Read that many bytes, in a thread, as another process would."""

    def read() -> bytes:
        data = b""
        while len(data) < size:
            data += os.read(fd, size)
        return data

    return await trio.to_thread.run_sync(read)


async def wait(event: threading.Event) -> None:
    assert await trio.to_thread.run_sync(event.wait, TIMEOUT_SECONDS)


async def no_thread_left(stream: Input | Output) -> None:
    """Wait for a thread that was left behind: it shall not find its number to be a later test's."""

    def left() -> bool:
        if isinstance(stream, Output):
            return isinstance(stream._sink, ThreadSink) and stream._sink._working
        source = stream._source
        return isinstance(source, ThreadSource) and source._limiter.borrowed_tokens > 0

    with trio.fail_after(TIMEOUT_SECONDS):
        while left():
            await wait_all_tasks_blocked()
