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
"""

import errno
import os
import select
import socket
import stat
import sys
from functools import partial
from types import TracebackType
from typing import final

import trio

from trio_upper import platform
from trio_upper.stdio.descriptors import (
    PIPE_BYTES,
    Data,
    ReadySink,
    ReadySource,
    Sink,
    Source,
    ThreadSink,
    ThreadSource,
)

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
    def __init__(self, fd: int, action: str, error: OSError) -> None:
        code = error.errno or errno.EIO
        name = NAMES.get(fd, f"descriptor {fd}")
        reason = REASONS.get(code) or error.strerror or str(error)
        super().__init__(code, f"cannot {action} {name}: {reason}")

    def __str__(self) -> str:
        return str(self.strerror)


class InputError(_StdioError):
    """Reading failed; `str` of it is one sentence for a person, `errno` the cause.

    Not a `trio.BrokenResourceError`, which `trio.abc.ReceiveStream` would have: beside a connection
    that one means the connection.
    """


class OutputError(_StdioError):
    """Writing failed; otherwise like `InputError`."""


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


def output_error(fd: int, error: OSError) -> OutputError:
    """Return what `Output` raises for `error`, for whoever wrote to `fd` in another way."""
    kind = OutputClosed if error.errno in {errno.EPIPE, errno.ECONNRESET} else OutputError
    return kind(fd, "write to", error)


@final
class Input(trio.abc.ReceiveStream):
    """What `open_input` returns.

    A cancelled `receive_some` loses nothing. If it waited in a thread, that is left behind: what it
    still reads, the next call returns, and the process's exit does not wait for it.
    """

    def __init__(self, fd: int, source: Source, size: int | None) -> None:
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
                raise InputError(self._fd, "read", error) from error

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

    def __init__(self, fd: int, sink: Sink) -> None:
        self._fd = fd
        self._sink = sink
        self._turn = _Turn()
        self._failed = False

    async def send_all(self, data: Data) -> None:
        """Write all of `data`; to a file, `FILE_BEHIND_BYTES` may be late.

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
        return output_error(self._fd, error)


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


def _source(fd: int) -> Source:
    if not _is_open(fd):
        return ReadySource(-1, lambda _: b"", _nothing)
    mode = os.fstat(fd).st_mode
    if not platform.CAN_WAIT or not platform.is_open_for(fd, os.O_RDONLY):
        return ThreadSource(fd)
    if stat.S_ISSOCK(mode):
        ours = socket.socket(fileno=os.dup(fd))
        return ReadySource(ours.fileno(), partial(_receive_now, ours), ours.close)
    if stat.S_ISFIFO(mode) or os.isatty(fd):
        again = platform.reopen(fd, os.O_RDONLY)
        if again is None:
            return ReadySource(fd, partial(_read_now, fd), _nothing)
        platform.widen_pipe(again, PIPE_BYTES)
        return ReadySource(again, partial(os.read, again), partial(os.close, again))
    return ThreadSource(fd)


def _sink(fd: int) -> Sink:
    if not _is_open(fd):
        return ThreadSink(-1)  # writing to it fails with EBADF, as it must
    mode = os.fstat(fd).st_mode
    if platform.CAN_WAIT and stat.S_ISSOCK(mode):
        ours = socket.socket(fileno=os.dup(fd))
        return ReadySink(ours.fileno(), partial(_send_now, ours), ours.close)
    if platform.CAN_WAIT and stat.S_ISFIFO(mode) and platform.is_open_for(fd, os.O_WRONLY):
        again = platform.reopen(fd, os.O_WRONLY)
        if again is not None:
            platform.widen_pipe(again, PIPE_BYTES)
            return ReadySink(again, partial(os.write, again), partial(os.close, again))
    return ThreadSink(fd, is_file=stat.S_ISREG(mode))


def _is_open(fd: int) -> bool:
    if fd in FOUND_AT_START and FOUND_AT_START[fd] is None:
        return False
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


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


def _nothing() -> None:
    """Close nothing: the descriptor is the caller's."""


def _read_now(fd: int, max_bytes: int) -> bytes:
    """Read from a descriptor that blocks, and must stay so for others, without blocking.

    Raises BlockingIOError if nothing is there. It does block if another process takes the bytes
    between the two calls.
    """
    if not select.select([fd], [], [], 0)[0]:
        raise BlockingIOError
    return os.read(fd, max_bytes)


def _receive_now(ours: socket.socket, max_bytes: int) -> bytes:
    return ours.recv(max_bytes, platform.DONT_WAIT)


def _send_now(ours: socket.socket, data: memoryview) -> int:
    return ours.send(data, platform.DONT_WAIT)
