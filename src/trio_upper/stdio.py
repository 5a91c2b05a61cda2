"""Standard input and output as Trio streams, whatever they are.

No single way reads every descriptor so that it can be cancelled (trio issue 174), and O_NONBLOCK
belongs to the open file description, which other processes share. So each kind has its own way:

| what it is | how it is read | how it is written |
|---|---|---|
| pipe | reopened through `/proc`, so that O_NONBLOCK is ours alone | the same |
| terminal | the same | by a thread |
| either, where it cannot be reopened | `select` is asked first | by a thread |
| socket | `recv` with MSG_DONTWAIT | `send` with MSG_DONTWAIT |
| file, `/dev/null`, all else | by a thread: epoll refuses these | by a thread, up to 1 MiB late |
| closed | is at its end | raises `OutputError` |

The threads call `os.read` and `os.write`. One that waits inside `sys.stdin.buffer` holds a lock
that the interpreter wants at its exit: left behind, it aborts the process (CPython issue 86883).
"""

import errno
import os
import select
import socket
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Protocol, final

import trio

Data = bytes | bytearray | memoryview

FILE_PIECE = 1024 * 1024
"""Bytes for one read of a file.

A hop to a thread and back takes some 0.1 ms whatever it reads: 64 KiB make 0.5 GB/s, 256 KiB 1.5,
1 MiB 4.7, 4 MiB 8.8. Beyond 1 MiB a client only becomes larger, its connection is no faster.
preadv2(2) with RWF_NOWAIT needs no thread for what is cached (10 GB/s); that did not show in a
whole transfer either, and tmpfs refuses it.
"""

PIPE_SIZE = 256 * 1024
"""Bytes that a pipe shall hold, and for one read of anything but a file.

Linux gives a pipe 64 KiB, over which both sides keep falling asleep: 1.1 GB/s. 256 KiB make 3.4
for a fifth of our CPU time, and 1 MiB no more. A user may have 64 MiB in pipes (pipe(7),
pipe-user-pages-soft), which are 256 of these.
"""

FILE_BEHIND = 1024 * 1024
"""Bytes of a file's output that may be unwritten when `send_all` returns.

Waiting for the thread after each 64 KiB, as they come from a connection, makes 0.4 GB/s; leaving
them to it 2 GB/s, for half of the CPU time. 4 MiB are a little faster, and more to lose when the
process is killed.
"""

WRITE_PIECE = 256 * 1024
"""Bytes for one write by a thread: ext4 needs up to twice the time for the same in larger pieces.

It is also all that a thread writes after it was left behind.
"""

# Device numbers, from the kernel's Documentation/admin-guide/devices.txt: reopening this one would
# make a new terminal instead.
TERMINAL_MASTER = 5, 2

# On Windows, Trio can wait for sockets only: see `trio.lowlevel.wait_readable`.
CAN_WAIT = sys.platform != "win32"

OWN_DESCRIPTORS = "/proc/self/fd"

# What the interpreter found at its start. A descriptor that was closed then soon belongs to
# something else, such as Trio's epoll.
FOUND_AT_START = {0: sys.__stdin__, 1: sys.__stdout__}

NAMES = {0: "standard input", 1: "standard output"}

REASONS = {
    errno.EBADF: "it is closed, or open in the other direction only",
    errno.EDQUOT: "your disk quota is used up; free some space or write elsewhere",
    errno.EIO: "the terminal has gone, or the device fails",
    errno.EISDIR: "it is a directory; name a file instead",
    errno.ENOSPC: "the disk is full; free some space or write elsewhere",
    errno.EPIPE: "nobody reads it any more",
}


class _StdioError(OSError):
    def __init__(self, fd: int, failure: str, error: OSError) -> None:
        code = error.errno or errno.EIO
        name = NAMES.get(fd, f"descriptor {fd}")
        super().__init__(code, f"{name} {failure}: {REASONS.get(code, os.strerror(code))}")

    def __str__(self) -> str:
        return str(self.strerror)


class InputError(_StdioError):
    """Standard input cannot be read; `str` of it is one sentence for a person, `errno` the cause.

    Not a `trio.BrokenResourceError`, which `trio.abc.ReceiveStream` would have: beside a connection
    that one means the connection.
    """


class OutputError(_StdioError):
    """Standard output cannot be written; in all else like `InputError`."""


class OutputClosed(OutputError):
    """Nobody reads standard output any more: EPIPE, from a socket ECONNRESET.

    The normal end of a filter, as in `| head -1`.
    """


async def open_input(fd: int = 0) -> "Input":
    """Return a stream of what can be read from `fd`, in the way that the module's table tells.

    A closed `fd` is at its end at once. Standard input counts as closed if it was closed when the
    interpreter started, whatever has its number now.

    Resource handling: `fd` stays open, is the caller's, and must not be closed before the stream.

    Error handling: what is wrong with `fd` shows when it is read, as `InputError`. Here, OSError
    escapes when this process may open no more descriptors.
    """
    await trio.lowlevel.checkpoint()
    return Input(fd, _source(fd), _bytes_left(fd))


def open_output(fd: int = 1) -> "Output":
    """Return a stream that writes to `fd`, in the way that the module's table tells.

    Resource handling and error handling: as `open_input`, with `OutputError`.
    """
    return Output(fd, _sink(fd))


@final
class Input(trio.abc.ReceiveStream):
    """What `open_input` returns.

    A cancelled `receive_some` loses nothing. If it waited in a thread, that is left behind: what it
    still reads, the next call returns, and the process's exit does not wait for it.
    """

    def __init__(self, fd: int, source: "_Source", size: int | None) -> None:
        #: How many bytes there were to read when it was opened; None if nobody knows (a pipe).
        self.size = size
        self._fd = fd
        self._source = source
        self._turn = _Turn()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what comes next, at most `max_bytes` (None: as many as suit); empty at the end.

        Raises `InputError`, and what `trio.abc.ReceiveStream` names for a stream in use or closed.
        """
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._turn:
            try:
                return await self._source.read(max_bytes or self._source.piece)
            except OSError as error:
                raise InputError(self._fd, "cannot be read", error) from error

    async def __anext__(self) -> bytes:
        """As in `trio.abc.ReceiveStream`, which leaves open whether it is a bytearray."""
        if data := await self.receive_some():
            return data
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close what was opened, never the descriptor given; waits for nothing."""
        if not self._turn.closed:
            self._turn.closed = True
            self._source.close()
        await trio.lowlevel.checkpoint()


@final
class Output(trio.abc.SendStream):
    """What `open_output` returns."""

    def __init__(self, fd: int, sink: "_Sink") -> None:
        self._fd = fd
        self._sink = sink
        self._turn = _Turn()
        self._failed = False

    async def send_all(self, data: Data) -> None:
        """Write all of `data`. To a file, the last `FILE_BEHIND` bytes are still on their way then.

        Raises `OutputClosed`, `OutputError` (for a file perhaps about what was sent before), and
        what `trio.abc.SendStream` names for a stream in use or closed. If it is cancelled, some of
        `data` may have been written.
        """
        with self._turn:
            try:
                await self._sink.write(data)
            except OSError as error:
                raise self._explained(error) from error

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room for more. Raises as `send_all`."""
        with self._turn:
            try:
                await self._sink.wait_for_room()
            except OSError as error:
                raise self._explained(error) from error

    async def aclose(self) -> None:
        """Wait until all is written, then close what was opened, never the descriptor given.

        Raises `OutputError` or `OutputClosed` for what no `send_all` has told yet. If it is
        cancelled, or `send_all` is running, what is not written is dropped instead.
        """
        if not self._turn.closed:
            self._turn.closed = True
            try:
                if not (self._turn.busy or self._failed):
                    await self._sink.finish()
            except OSError as error:
                raise self._explained(error) from error
            finally:
                self._sink.close()
        await trio.lowlevel.checkpoint()

    def _explained(self, error: OSError) -> OutputError:
        self._failed = True
        kind = OutputClosed if error.errno in {errno.EPIPE, errno.ECONNRESET} else OutputError
        return kind(self._fd, "cannot be written", error)


class _Turn:
    """At most one task at a time, and none after the close, as `trio.abc` demands."""

    def __init__(self) -> None:
        self.busy = False
        self.closed = False

    def __enter__(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError("this stream was closed")
        if self.busy:
            raise trio.BusyResourceError("another task is using this stream")
        self.busy = True

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.busy = False


class _Source(Protocol):
    """One way of reading; only one task at a time calls it."""

    piece: int

    async def read(self, max_bytes: int) -> bytes: ...

    def close(self) -> None: ...


class _Sink(Protocol):
    """One way of writing; only one task at a time calls it, except for `close`."""

    async def write(self, data: Data) -> None: ...

    async def wait_for_room(self) -> None: ...

    async def finish(self) -> None: ...

    def close(self) -> None: ...


def _source(fd: int) -> _Source:
    if not _is_open(fd):
        return _ReadySource(-1, lambda _: b"", _nothing)
    mode = os.fstat(fd).st_mode
    if not CAN_WAIT or not _is_open_for(fd, os.O_RDONLY):
        return _ThreadSource(fd)
    if stat.S_ISSOCK(mode):
        ours = socket.socket(fileno=os.dup(fd))
        receive = partial(_receive_now, ours)
        return _ReadySource(ours.fileno(), receive, ours.close)
    if stat.S_ISFIFO(mode) or os.isatty(fd):
        again = _reopen(fd, os.O_RDONLY)
        if again is None:
            return _ReadySource(fd, partial(_read_if_ready, fd), _nothing)
        return _ReadySource(again, partial(os.read, again), partial(os.close, again))
    return _ThreadSource(fd)


def _sink(fd: int) -> _Sink:
    if not _is_open(fd):
        return _ThreadSink(-1)  # writing to it fails with EBADF, as it must
    mode = os.fstat(fd).st_mode
    if CAN_WAIT and stat.S_ISSOCK(mode):
        ours = socket.socket(fileno=os.dup(fd))
        return _ReadySink(ours.fileno(), partial(_send_now, ours), ours.close)
    if CAN_WAIT and stat.S_ISFIFO(mode) and _is_open_for(fd, os.O_WRONLY):
        again = _reopen(fd, os.O_WRONLY)
        if again is not None:
            return _ReadySink(again, partial(os.write, again), partial(os.close, again))
    return _ThreadSink(fd, is_file=stat.S_ISREG(mode))


def _is_open(fd: int) -> bool:
    if fd in FOUND_AT_START and FOUND_AT_START[fd] is None:
        return False
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _is_open_for(fd: int, way: int) -> bool:
    """Whether `fd` may be read (`way` is O_RDONLY) or written (O_WRONLY).

    To be known first: reopening can turn a pipe round, and who waits at its wrong end waits on.
    """
    import fcntl  # there is none on Windows, which does not come here

    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE in {way, os.O_RDWR}


def _bytes_left(fd: int) -> int | None:
    """Return how many bytes of a file are left to read; None for all else, and for an empty one.

    The files in /proc say that they are empty, and are not.
    """
    if not _is_open(fd):
        return None
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        return None
    left = found.st_size - os.lseek(fd, 0, os.SEEK_CUR)
    return left if left > 0 else None


def _reopen(fd: int, way: int) -> int | None:
    """Open the pipe or terminal `fd` once more, non-blocking; None if that cannot be done.

    It cannot when it belongs to another user (sudo: EACCES), or there is no /proc (ENOENT).
    """
    device = os.fstat(fd).st_rdev
    if (os.major(device), os.minor(device)) == TERMINAL_MASTER:
        return None
    try:
        again = os.open(f"{OWN_DESCRIPTORS}/{fd}", way | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return None
    _widen(again)
    return again


def _widen(fd: int) -> None:
    """Have the pipe `fd` hold `PIPE_SIZE`, if it can: it is no pipe, or the user has too many."""
    import fcntl  # there is none on Windows, which does not come here

    with suppress(OSError):
        if fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) < PIPE_SIZE:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)


def _read_blocking(fd: int, size: int) -> bytes:
    while True:
        try:
            return os.read(fd, size)
        except BlockingIOError:  # somebody left O_NONBLOCK set
            select.select([fd], [], [])


def _write_blocking(fd: int, data: bytes) -> None:
    with memoryview(data) as view:
        written = 0
        while written < len(view):
            try:
                written += os.write(fd, view[written : written + WRITE_PIECE])
            except BlockingIOError:  # somebody left O_NONBLOCK set
                select.select([], [fd], [])


def _close_duplicate(fd: int) -> None:
    """Raise what a network file system could not write: close(2) tells, also of a duplicate."""
    os.close(os.dup(fd))


def _nothing() -> None:
    """Close nothing: the descriptor is the caller's."""


def _receive_now(ours: socket.socket, size: int) -> bytes:
    return ours.recv(size, socket.MSG_DONTWAIT)


def _send_now(ours: socket.socket, data: memoryview) -> int:
    return ours.send(data, socket.MSG_DONTWAIT)


def _read_if_ready(fd: int, size: int) -> bytes:
    """Read from a descriptor that blocks, and must stay so for others, without blocking.

    It does block if another process takes the bytes between the two calls.
    """
    if not select.select([fd], [], [], 0)[0]:
        raise BlockingIOError
    return os.read(fd, size)


class _ReadySource:
    """Reads what is there; Trio waits if nothing is.

    `read` raises BlockingIOError then. It is tried before waiting: epoll never wakes a reader that
    opened a FIFO after its last writer had left (`fifo_open` in Linux), but reading gives the end.
    """

    piece = PIPE_SIZE

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


class _ThreadSource:
    """Reads in a thread, which is left to itself when the task is cancelled.

    What such a thread still reads is kept for the next call, and the limiter has that one wait for
    it, so that nothing is lost or out of order and no second thread piles up behind it.
    """

    piece = FILE_PIECE

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


class _ReadySink:
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


class _ThreadSink:
    """Writes in a thread, which is left to itself when the task is cancelled.

    A thread runs while there is something to write. `write` adds to that and, for a file, goes on
    when no more than `FILE_BEHIND` bytes are left; else, when none is, so that what is printed
    afterwards elsewhere comes afterwards on a terminal, too.
    """

    def __init__(self, fd: int, *, is_file: bool = False) -> None:
        self._fd = fd
        self._is_file = is_file
        self._behind = FILE_BEHIND if is_file else 0
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
