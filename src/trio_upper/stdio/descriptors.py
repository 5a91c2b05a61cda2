"""Ways to read and write a descriptor, none of which holds up who is cancelled.

The threads call `os.read` and `os.write`. One that waits inside `sys.stdin.buffer` holds a lock
that the interpreter wants at its exit: left behind, it aborts the process (CPython issue 86883).
"""

import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

import trio

from trio_upper.platform import read_descriptor, write_descriptor

Data = bytes | bytearray | memoryview

# Bytes for one read of a file.
#
# A hop to a thread and back takes some 0.1 ms whatever it reads: 64 KiB make 0.5 GB/s, 256 KiB 1.5,
# 1 MiB 4.7, 4 MiB 8.8. A whole transfer takes a tenth less CPU time with 2 MiB than with 1, and no
# less with 4, with which a client becomes twice as large where the text is not ASCII.
# preadv2(2) with RWF_NOWAIT needs no thread for what is cached (10 GB/s); that did not show in a
# whole transfer either, and tmpfs refuses it.
FILE_PIECE_BYTES = 2 * 1024 * 1024

# Bytes that a pipe shall hold, and for one read of anything but a file.
#
# Linux gives a pipe 64 KiB, over which both sides keep falling asleep: 1.1 GB/s. 256 KiB make 3.4
# for a fifth of our CPU time, and 1 MiB no more. A user may have 64 MiB in pipes (pipe(7),
# pipe-user-pages-soft), which are 256 of these.
PIPE_BYTES = 256 * 1024

# Bytes of a file's output that may be unwritten when `send_all` returns.
#
# Waiting for the thread after each 64 KiB, as they come from a connection, makes 0.4 GB/s; leaving
# them to it 2 GB/s, for half of the CPU time. 4 MiB are a little faster, and more to lose when the
# process is killed.
FILE_BEHIND_BYTES = 1024 * 1024

# Bytes for one write by a thread: ext4 needs up to twice the time for the same in larger pieces.
#
# It is also all that a thread writes after it was left behind.
WRITE_PIECE_BYTES = 256 * 1024


class Source(Protocol):
    """One way of reading; only one task at a time calls it.

    It reads `piece` bytes at once where nobody asks for fewer. Raises OSError as the system tells
    it, and `trio.ClosedResourceError` from a read that `close` finds waiting.
    """

    piece: int

    async def read(self, max_bytes: int) -> bytes: ...

    def close(self) -> None: ...


class Sink(Protocol):
    """One way of writing; only one task at a time calls it, except for `close`.

    Raises as `Source`. `finish` waits until all is written; `close` drops what is not.
    """

    async def write(self, data: Data) -> None: ...

    async def wait_for_room(self) -> None: ...

    async def finish(self) -> None: ...

    def close(self) -> None: ...


class ReadySource:
    """Reads what is there; Trio waits if nothing is.

    `read` raises BlockingIOError then. It is tried before waiting: epoll never wakes a reader that
    opened a FIFO after its last writer had left (`fifo_open` in Linux), but reading gives the end.
    """

    piece = PIPE_BYTES

    def __init__(self, fd: int, read: Callable[[int], bytes], close: Callable[[], object]) -> None:
        self._fd = fd
        self._read = read
        self._close = close
        self._closed = False

    async def read(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._closed:  # once it is, the number may be another's
            try:
                return self._read(max_bytes)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._fd)
        raise trio.ClosedResourceError("this stream was closed")

    def close(self) -> None:
        self._closed = True
        trio.lowlevel.notify_closing(self._fd)
        self._close()


class ThreadSource:
    """Reads in a thread, which is left to itself when the task is cancelled.

    What such a thread still reads is kept for the next call, and the limiter has that one wait for
    it, so that nothing is lost or out of order and no second thread piles up behind it.
    """

    piece = FILE_PIECE_BYTES

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._kept: bytes | None = None
        self._limiter = trio.CapacityLimiter(1)
        self._reading = trio.CancelScope()

    async def read(self, max_bytes: int) -> bytes:
        with trio.CancelScope() as self._reading:
            data = await trio.to_thread.run_sync(
                self._fetch, max_bytes, abandon_on_cancel=True, limiter=self._limiter
            )
            self._kept = data[max_bytes:] or None
            return data[:max_bytes]
        raise trio.ClosedResourceError("this stream was closed")

    def _fetch(self, max_bytes: int) -> bytes:
        if self._kept is None:
            self._kept = _read_blocking(self._fd, max_bytes)
        return self._kept

    def close(self) -> None:
        self._reading.cancel()


class ReadySink:
    """Writes what there is room for; Trio waits when there is none.

    `write` returns how many bytes it took, or raises BlockingIOError.
    """

    def __init__(
        self, fd: int, write: Callable[[memoryview], int], close: Callable[[], object]
    ) -> None:
        self._fd = fd
        self._write = write
        self._close = close
        self._closed = False

    async def write(self, data: Data) -> None:
        await trio.lowlevel.checkpoint()
        with memoryview(data) as view:
            written = 0
            while written < len(view):
                written += self._write_some(view[written:])
                if written < len(view):
                    await trio.lowlevel.wait_writable(self._fd)

    def _write_some(self, data: memoryview) -> int:
        if self._closed:  # the number may be another's by now
            raise trio.ClosedResourceError("this stream was closed")
        with data, suppress(BlockingIOError):
            return self._write(data)
        return 0

    async def wait_for_room(self) -> None:
        await trio.lowlevel.wait_writable(self._fd)

    async def finish(self) -> None:
        """Do nothing: all is written when `write` returns."""

    def close(self) -> None:
        self._closed = True
        trio.lowlevel.notify_closing(self._fd)
        self._close()


class ThreadSink:
    """Writes in a thread, which is left to itself when the task is cancelled.

    A thread runs while there is something to write. `write` adds to that and, for a file, goes on
    when no more than `FILE_BEHIND_BYTES` are left; else, when none is, so that what is printed
    afterwards elsewhere comes afterwards on a terminal, too.
    """

    def __init__(self, fd: int, *, is_file: bool = False) -> None:
        self._fd = fd
        self._is_file = is_file
        self._behind = FILE_BEHIND_BYTES if is_file else 0
        self._progress = trio.Event()  # set when the thread tells, and then replaced
        self._lock = threading.Lock()  # held for all that follows
        self._pieces: list[bytes] = []  # what the thread has not taken yet
        self._unwritten = 0  # bytes, with those that it has taken
        self._working = False  # whether there is a thread
        self._watched = False  # whether it shall tell
        self._failure: Exception | None = None
        self._closed = False

    async def write(self, data: Data) -> None:
        await trio.lowlevel.checkpoint()
        piece = bytes(data)  # a copy, unless it is bytes: the caller may use its buffer again
        if self._add(piece):
            token = trio.lowlevel.current_trio_token()
            trio.lowlevel.start_thread_soon(partial(self._work, token), lambda _: None)
        await self._wait_until_left(self._behind)

    def _add(self, piece: bytes) -> bool:
        """Leave `piece` to the thread; return whether one is to be started."""
        with self._lock:
            if not piece or self._failure is not None:
                return False
            self._pieces.append(piece)
            self._unwritten += len(piece)
            start, self._working = not self._working, True
            return start

    async def wait_for_room(self) -> None:
        await trio.lowlevel.checkpoint()
        await self._wait_until_left(self._behind)

    async def finish(self) -> None:
        await self._wait_until_left(0)
        if self._is_file:
            await trio.to_thread.run_sync(_close_duplicate, self._fd, abandon_on_cancel=True)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._pieces.clear()
        self._wake()

    async def _wait_until_left(self, unwritten: int) -> None:
        while self._watch(unwritten):
            await self._progress.wait()
        if self._failure is not None:
            raise self._failure

    def _watch(self, unwritten: int) -> bool:
        """Return whether there is something to wait for; if so, have the thread tell."""
        with self._lock:
            if self._closed:
                raise trio.ClosedResourceError("this stream was closed")
            self._watched = self._unwritten > unwritten and self._failure is None
            return self._watched

    def _wake(self) -> None:
        self._progress.set()
        self._progress = trio.Event()

    def _work(self, token: trio.lowlevel.TrioToken) -> None:
        """Write until nothing is left. Runs in the thread, as does all that it calls."""
        try:
            while pieces := self._take():
                data = b"".join(pieces)
                _write_blocking(self._fd, data)
                self._tell(token, len(data))
        except Exception as error:  # whatever it is, the task that waits must hear of it
            with self._lock:
                self._failure, self._working = error, False
            self._tell(token, 0)

    def _take(self) -> list[bytes]:
        with self._lock:
            pieces, self._pieces = self._pieces, []
            self._working = bool(pieces)
            return pieces

    def _tell(self, token: trio.lowlevel.TrioToken, written: int) -> None:
        with self._lock:
            self._unwritten -= written
            watched, self._watched = self._watched, False
        if watched:
            with suppress(trio.RunFinishedError):  # the task was cancelled and all is over
                token.run_sync_soon(self._wake)


def _read_blocking(fd: int, size: int) -> bytes:
    while True:
        try:
            return read_descriptor(fd, size)
        except BlockingIOError:  # somebody left O_NONBLOCK set
            select.select([fd], [], [])


def _write_blocking(fd: int, data: bytes) -> None:
    with memoryview(data) as view:
        written = 0
        while written < len(view):
            try:
                written += write_descriptor(fd, view[written : written + WRITE_PIECE_BYTES])
            except BlockingIOError:  # somebody left O_NONBLOCK set
                select.select([], [fd], [])


def _close_duplicate(fd: int) -> None:
    """Raise what a network file system could not write: close(2) tells, also of a duplicate."""
    os.close(os.dup(fd))
