"""Standard input and output as streams: every kind of descriptor, its end, failure and leaving."""

import errno
import os
import pty
import resource
import select
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
from trio.testing import check_one_way_stream, wait_all_tasks_blocked

from trio_upper import stdio
from trio_upper.stdio import (
    FILE_BEHIND,
    FILE_PIECE,
    PIPE_SIZE,
    Input,
    InputError,
    Output,
    OutputClosed,
    OutputError,
    open_input,
    open_output,
)

# What must happen at once may take this long on a busy machine; seconds.
SOON = 10.0

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


@pytest.fixture
def fds() -> Iterator[Descriptors]:
    fds = Descriptors()
    yield fds
    fds.close_all()


def pipe(fds: Descriptors) -> Ends:
    return fds.ends(*os.pipe())


def sockets(fds: Descriptors) -> Ends:
    return fds.ends(*(end.detach() for end in socket.socketpair()))


def terminal(fds: Descriptors) -> Ends:
    """A terminal, and the descriptor at which somebody types, without echo."""
    master, slave = pty.openpty()
    attributes = termios.tcgetattr(slave)
    attributes[3] &= ~termios.ECHO
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    return fds.ends(slave, master)


def screen(fds: Descriptors) -> Ends:
    """A terminal, and the descriptor that reads what is shown, byte for byte."""
    master, slave = pty.openpty()
    attributes = termios.tcgetattr(slave)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    return fds.ends(master, slave)


@pytest.fixture
def cannot_reopen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there is no /proc, or the pipe is another user's."""
    monkeypatch.setattr(stdio, "OWN_DESCRIPTORS", "/nonexistent")


@pytest.fixture
def cannot_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    monkeypatch.setattr(stdio, "CAN_WAIT", False)


def file(fds: Descriptors, path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    return fds.keep(os.open(path, flags, 0o600))


@asynccontextmanager
async def in_background(job: Callable[[], Awaitable[object]]) -> AsyncIterator[trio.CancelScope]:
    """Have `job` block, then run the block; leaving the block waits for its end."""
    with trio.fail_after(SOON):
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
    assert await trio.to_thread.run_sync(event.wait, SOON)


async def no_thread_left(stream: Input | Output) -> None:
    """Wait for a thread that was left behind: it shall not find its number to be a later test's."""

    def left() -> bool:
        if isinstance(stream, Output):
            return isinstance(stream._sink, stdio._ThreadSink) and stream._sink._working
        source = stream._source
        return isinstance(source, stdio._ThreadSource) and source._limiter.borrowed_tokens > 0

    with trio.fail_after(SOON):
        while left():
            await wait_all_tasks_blocked()


async def read_all(stream: Input) -> bytes:
    with trio.fail_after(SOON):
        return b"".join([piece async for piece in stream])


# What every kind of input can do. Files are left out: they never have a reader wait.

PIPES = [
    pytest.param(pipe, None, id="pipe"),
    pytest.param(pipe, "cannot_reopen", id="pipe-not-reopened"),
    pytest.param(pipe, "cannot_wait", id="pipe-in-thread"),
    pytest.param(sockets, None, id="socket"),
]
TERMINALS = [
    pytest.param(terminal, None, id="terminal"),
    pytest.param(terminal, "cannot_reopen", id="terminal-not-reopened"),
]
WAITING = PIPES + TERMINALS


@pytest.fixture
def ends(
    fds: Descriptors,
    make: Callable[[Descriptors], Ends],
    handicap: str | None,
    request: pytest.FixtureRequest,
) -> Ends:
    if handicap:
        request.getfixturevalue(handicap)
    return make(fds)


@pytest.mark.parametrize(("make", "handicap"), WAITING)
async def test_input_arrives_as_it_is_written(ends: Ends) -> None:
    """What is written is received, whether it was there before or is waited for."""
    async with await open_input(ends.read) as stream:
        os.write(ends.write, b"before\n")
        assert await stream.receive_some() == b"before\n"

        async def receive() -> None:
            assert await stream.receive_some() == b"waited for\n"

        async with in_background(receive):
            os.write(ends.write, b"waited for\n")


@pytest.mark.parametrize(("make", "handicap"), WAITING)
async def test_cancelled_input_loses_nothing(ends: Ends) -> None:
    """A cancelled `receive_some` returns at once; what comes afterwards goes to the next one."""
    async with await open_input(ends.read) as stream:
        async with in_background(stream.receive_some) as waiting:
            waiting.cancel()

        async def receive() -> None:
            assert await stream.receive_some(2) == b"he"
            assert await stream.receive_some() == b"llo\n"

        async with in_background(receive):
            os.write(ends.write, b"hello\n")


async def test_only_one_thread_reads(
    fds: Descriptors, cannot_wait: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a read is cancelled, one thread is left behind, and its bytes are not lost."""
    reads = []
    really = stdio._read_blocking

    def read(fd: int, size: int) -> bytes:
        reads.append(size)
        return really(fd, size)

    monkeypatch.setattr(stdio, "_read_blocking", read)
    ends = pipe(fds)
    async with await open_input(ends.read) as stream:
        for _ in range(3):
            async with in_background(stream.receive_some) as waiting:
                waiting.cancel()
        os.write(ends.write, b"hello")
        assert await stream.receive_some() == b"hello"
    assert len(reads) == 1


@pytest.mark.parametrize(("make", "handicap"), WAITING)
async def test_closing_wakes_who_waits_for_input(ends: Ends) -> None:
    """Closing the stream makes a waiting `receive_some` raise, and every later one."""
    stream = await open_input(ends.read)

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()

    async with in_background(receive):
        await stream.aclose()
    await stream.aclose()
    await receive()
    os.write(ends.write, b"\n")
    await no_thread_left(stream)


async def test_input_closed_just_before_it_is_ready(
    fds: Descriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that was woken, and finds the stream closed, does not read from the old number."""
    stream = await open_input(pipe(fds).read)

    async def wake(fd: int) -> None:
        await stream.aclose()

    monkeypatch.setattr(trio.lowlevel, "wait_readable", wake)
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()


async def test_output_closed_just_before_it_is_ready(
    fds: Descriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that was woken, and finds the stream closed, does not write to the old number."""
    stream = open_output(pipe(fds).write)

    async def wake(fd: int) -> None:
        await stream.aclose()

    monkeypatch.setattr(trio.lowlevel, "wait_writable", wake)
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(MUCH)


@pytest.mark.parametrize(("make", "handicap"), WAITING)
async def test_input_is_for_one_task_at_a_time(ends: Ends) -> None:
    """A second task that receives is told so and disturbs nothing."""
    async with await open_input(ends.read) as stream, in_background(stream.receive_some):
        with pytest.raises(trio.BusyResourceError):
            await stream.receive_some()
        os.write(ends.write, b"\n")


@pytest.mark.parametrize(("make", "handicap"), WAITING)
async def test_input_shares_no_change_with_others(ends: Ends) -> None:
    """Others who have the descriptor find it blocking during and after, and it stays open."""
    stream = await open_input(ends.read)
    async with in_background(stream.receive_some):
        assert os.get_blocking(ends.read)
        assert os.get_blocking(ends.write)
        os.write(ends.write, b"\n")
    await stream.aclose()
    assert os.get_blocking(ends.read)
    os.write(ends.write, b"ours again\n")
    assert os.read(ends.read, 100) == b"ours again\n"


@pytest.mark.parametrize("size", [0, -1])
async def test_max_bytes_is_positive(fds: Descriptors, size: int) -> None:
    """A read of no bytes could not be told from the end, so it is refused."""
    async with await open_input(pipe(fds).read) as stream:
        with pytest.raises(ValueError, match="at least 1"):
            await stream.receive_some(size)


# Files, and what is like a file


async def test_file_is_read_to_its_end(fds: Descriptors, tmp_path: Path) -> None:
    """A file comes whole, in pieces of bounded size, from where its offset is."""
    content = os.urandom(2 * FILE_PIECE + 100)
    (tmp_path / "in").write_bytes(b"skipped" + content)
    fd = file(fds, tmp_path / "in")
    os.lseek(fd, len("skipped"), os.SEEK_SET)
    async with await open_input(fd) as stream:
        assert stream.size == len(content)
        pieces = [piece async for piece in stream]
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) == FILE_PIECE
    assert os.lseek(fd, 0, os.SEEK_CUR) == len("skipped") + len(content)


@pytest.mark.parametrize("path", ["/dev/null", "/proc/self/status"])
async def test_size_is_none_where_nobody_knows_it(fds: Descriptors, path: str) -> None:
    """A device has no size, and a file of the kernel's that says 0 has another."""
    async with await open_input(file(fds, Path(path), os.O_RDONLY)) as stream:
        assert stream.size is None
        assert (await read_all(stream) == b"") is (path == "/dev/null")


async def test_directory_as_input(fds: Descriptors, tmp_path: Path) -> None:
    """A directory gives one sentence that names it for what it is."""
    async with await open_input(file(fds, tmp_path, os.O_RDONLY)) as stream:
        with pytest.raises(InputError) as caught:
            await stream.receive_some()
    assert caught.value.errno == errno.EISDIR
    assert str(caught.value).endswith("cannot be read: it is a directory; name a file instead")


# Ends of input


@pytest.mark.parametrize(("make", "handicap"), PIPES)
async def test_input_ends_when_its_writer_has_left(fds: Descriptors, ends: Ends) -> None:
    """What the writer left behind comes first, then the end."""
    os.write(ends.write, b"the last words")
    fds.close(ends.write)
    async with await open_input(ends.read) as stream:
        assert await read_all(stream) == b"the last words"


async def test_fifo_whose_writer_left_before(fds: Descriptors, tmp_path: Path) -> None:
    """A FIFO ends although its last writer left before it was opened again: epoll tells nothing."""
    os.mkfifo(tmp_path / "fifo")
    read = file(fds, tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(read, True)
    fds.close(file(fds, tmp_path / "fifo", os.O_WRONLY))
    async with await open_input(read) as stream:
        assert await read_all(stream) == b""


@pytest.mark.parametrize(("make", "handicap"), TERMINALS)
async def test_terminal_gives_lines_and_ends_by_ctrl_d(ends: Ends) -> None:
    """A terminal gives a line when it is whole, and Ctrl-D at an empty line is the end."""
    tty, keyboard = ends
    async with await open_input(tty) as stream:
        os.write(keyboard, b"hal")

        async def receive() -> None:
            assert await stream.receive_some() == b"half a line\n"

        async with in_background(receive):
            os.write(keyboard, b"f a line\n")
        os.write(keyboard, b"\x04")
        assert await read_all(stream) == b""


async def test_vanished_terminal(fds: Descriptors) -> None:
    """A terminal that is gone gives one sentence. (Its other side is the one that gets EIO.)"""
    tty, keyboard = terminal(fds)
    fds.close(tty)
    async with await open_input(keyboard) as stream:
        with pytest.raises(InputError, match="the terminal has gone") as caught:
            await stream.receive_some()
    assert caught.value.errno == errno.EIO


async def test_reset_socket(fds: Descriptors) -> None:
    """A connection that was reset is an error, not an end."""
    read, write = sockets(fds)
    os.write(read, b"never read")
    fds.close(write)
    async with await open_input(read) as stream:
        with pytest.raises(InputError, match="reset by peer"):
            await stream.receive_some()


async def test_closed_input_is_at_its_end(fds: Descriptors) -> None:
    """A descriptor that is not open is at its end, has no size, and can be closed."""
    read, _ = pipe(fds)
    fds.close(read)
    async with await open_input(read) as stream:
        assert stream.size is None
        assert await read_all(stream) == b""


async def test_input_closed_at_the_start_is_never_read(
    fds: Descriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the interpreter found closed stays closed, whatever has its number now."""
    read, write = pipe(fds)
    os.write(write, b"not for us")
    monkeypatch.setitem(stdio.FOUND_AT_START, read, None)
    async with await open_input(read) as stream:
        assert await read_all(stream) == b""
    assert os.read(read, 100) == b"not for us"


async def test_wrong_end_as_input(fds: Descriptors) -> None:
    """The writing end of a pipe is an error at once, neither turned round nor waited for."""
    async with await open_input(pipe(fds).write) as stream:
        with trio.fail_after(SOON), pytest.raises(InputError, match="other direction") as caught:
            await stream.receive_some()
    assert caught.value.errno == errno.EBADF


async def test_names(fds: Descriptors, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence begins with what people call the descriptor."""
    write = pipe(fds).write
    async with await open_input(write) as stream:
        with pytest.raises(InputError, match=f"^descriptor {write} cannot be read: "):
            await stream.receive_some()
        monkeypatch.setitem(stdio.NAMES, write, "standard input")
        with pytest.raises(InputError, match=r"^standard input cannot be read: "):
            await stream.receive_some()


async def test_somebody_elses_nonblocking_input(
    fds: Descriptors, cannot_wait: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only a thread can wait, it does so even if others have set O_NONBLOCK."""
    read, write = pipe(fds)
    os.set_blocking(read, False)
    waiting = threading.Event()
    really = select.select

    def wait_too(reading: list[int], writing: list[int], failing: list[int]) -> None:
        waiting.set()
        really(reading, writing, failing)

    monkeypatch.setattr(select, "select", wait_too)
    async with await open_input(read) as stream:

        async def receive() -> None:
            assert await stream.receive_some() == b"hello"

        async with in_background(receive):
            await wait(waiting)
            os.write(write, b"hello")


async def test_wide_pipe(fds: Descriptors) -> None:
    """A pipe holds more after it was opened, and never less."""
    fcntl = pytest.importorskip("fcntl")
    read, write = pipe(fds)
    async with await open_input(read), open_output(write):
        assert fcntl.fcntl(read, fcntl.F_GETPIPE_SZ) == PIPE_SIZE
        fcntl.fcntl(read, fcntl.F_SETPIPE_SZ, 2 * PIPE_SIZE)
    async with await open_input(read):
        assert fcntl.fcntl(read, fcntl.F_GETPIPE_SZ) == 2 * PIPE_SIZE


# Output

BLOCKING = [
    pytest.param(pipe, None, id="pipe"),
    pytest.param(sockets, None, id="socket"),
    pytest.param(pipe, "cannot_reopen", id="pipe-in-thread"),
    pytest.param(screen, None, id="terminal"),
]


@pytest.mark.parametrize(("make", "handicap"), BLOCKING)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_all_is_written(ends: Ends, kind: Callable[[bytes], stdio.Data]) -> None:
    """`send_all` writes everything, however little at a time the other side takes."""
    async with open_output(ends.write) as stream:

        async def send() -> None:
            await stream.send_all(b"")
            await stream.send_all(kind(MUCH))

        async with in_background(send):
            assert await drain(ends.read, len(MUCH)) == MUCH


@pytest.mark.parametrize(("make", "handicap"), BLOCKING)
async def test_blocked_output_can_be_cancelled(fds: Descriptors, ends: Ends) -> None:
    """Nobody reads: `send_all` can be cancelled nevertheless, and so can the closing."""
    stream = open_output(ends.write)
    async with in_background(partial(stream.send_all, MUCH)) as blocked:
        blocked.cancel()
    with trio.move_on_after(0):
        await stream.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"")
    fds.close(ends.read)
    await no_thread_left(stream)


@pytest.mark.parametrize(("make", "handicap"), BLOCKING)
async def test_closing_wakes_who_waits_for_output(fds: Descriptors, ends: Ends) -> None:
    """Closing the stream makes a `send_all` that waits raise."""
    stream = open_output(ends.write)

    async def send() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(MUCH)

    async with in_background(send):
        with pytest.raises(trio.BusyResourceError):
            await stream.wait_send_all_might_not_block()
        await stream.aclose()
        await stream.aclose()
    fds.close(ends.read)
    await no_thread_left(stream)


@pytest.mark.parametrize(("make", "handicap"), BLOCKING)
async def test_output_shares_no_change_with_others(ends: Ends) -> None:
    """Others who have the descriptor find it blocking and open."""
    async with open_output(ends.write) as stream:
        await stream.send_all(b"x")
        assert os.get_blocking(ends.write)
    assert os.get_blocking(ends.write)
    assert os.write(ends.write, b"y") == 1
    assert await drain(ends.read, 2) == b"xy"


@pytest.mark.parametrize(("make", "handicap"), BLOCKING[:3])
async def test_reader_that_has_left(fds: Descriptors, ends: Ends) -> None:
    """Whoever writes to a reader that has left is told so, each time, and can close in peace."""
    fds.close(ends.read)
    async with open_output(ends.write) as stream:
        for _ in range(2):
            with pytest.raises(OutputClosed, match="cannot be written: nobody reads it any more"):
                await stream.send_all(b"x")


async def test_reader_that_resets(fds: Descriptors) -> None:
    """A reset is the end of the reader, too."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        async with open_output(ours.fileno()) as stream:
            with pytest.raises(OutputClosed) as caught:
                await stream.send_all(b"x")
    assert caught.value.errno == errno.ECONNRESET


async def test_waiting_for_room(fds: Descriptors) -> None:
    """A full pipe is waited for until it is read from; an empty one is not."""
    read, write = pipe(fds)
    async with open_output(write) as stream:
        await stream.wait_send_all_might_not_block()
        await stream.send_all(bytes(PIPE_SIZE))
        async with in_background(stream.wait_send_all_might_not_block):
            os.read(read, PIPE_SIZE)


async def test_somebody_elses_nonblocking_output(fds: Descriptors, cannot_wait: None) -> None:
    """Where only a thread can wait, it does so even if others have set O_NONBLOCK."""
    read, write = pipe(fds)
    os.set_blocking(write, False)
    async with (
        open_output(write) as stream,
        in_background(partial(stream.send_all, MUCH)),
    ):
        assert await drain(read, len(MUCH)) == MUCH


async def test_full_disk(fds: Descriptors) -> None:
    """A full disk is one sentence, stays so, and closing does not say it again."""
    async with open_output(file(fds, Path("/dev/full"))) as stream:
        for _ in range(2):
            with pytest.raises(
                OutputError, match="cannot be written: the disk is full; "
            ) as caught:
                await stream.send_all(b"x")
            assert caught.value.errno == errno.ENOSPC
        assert not isinstance(caught.value, OutputClosed)
        with pytest.raises(OutputError, match="the disk is full"):
            await stream.wait_send_all_might_not_block()


async def test_closed_output(fds: Descriptors, monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed output is an error for who writes, not for who does not."""
    read, write = pipe(fds)
    monkeypatch.setitem(stdio.FOUND_AT_START, write, None)
    async with open_output(write) as stream:
        await stream.wait_send_all_might_not_block()
        await stream.send_all(b"")
    async with open_output(write) as stream:
        with pytest.raises(OutputError, match="it is closed") as caught:
            await stream.send_all(b"not for them")
    assert caught.value.errno == errno.EBADF
    fds.close(write)
    assert os.read(read, 100) == b""


async def test_wrong_end_as_output(fds: Descriptors) -> None:
    """The reading end of a pipe is an error, not turned round."""
    async with open_output(pipe(fds).read) as stream:
        with pytest.raises(OutputError, match="other direction"):
            await stream.send_all(b"x")


# Output to a file


async def test_file_is_whole_when_it_is_closed(fds: Descriptors, tmp_path: Path) -> None:
    """All pieces, small and large, are in the file in order; a buffer may be used again at once."""
    pieces = [os.urandom(size) for size in (1, 70_000, FILE_BEHIND + 1, 3, 2 * FILE_BEHIND)]
    async with open_output(file(fds, tmp_path / "out")) as stream:
        for piece in pieces:
            buffer = bytearray(piece)
            await stream.send_all(buffer)
            buffer[:] = bytes(len(buffer))
            await stream.wait_send_all_might_not_block()
    assert (tmp_path / "out").read_bytes() == b"".join(pieces)


async def test_file_that_may_not_grow(fds: Descriptors, tmp_path: Path) -> None:
    """What does not fit into a file is told, be it by `send_all` or by the closing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OutputError, match="cannot be written: File too large"):
            async with open_output(file(fds, tmp_path / "out")) as stream:
                await stream.send_all(bytes(1001))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "out").stat().st_size == 1000


async def test_error_of_a_file_system_at_the_close(
    fds: Descriptors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a network file system tells only when a descriptor is closed is told, too."""

    def fail(fd: int) -> None:
        raise OSError(errno.EDQUOT, "")

    stream = open_output(file(fds, tmp_path / "out"))
    await stream.send_all(b"x")
    monkeypatch.setattr(stdio, "_close_duplicate", fail)
    with pytest.raises(OutputError, match="your disk quota is used up; "):
        await stream.aclose()


class Disk:
    """Stands for what a thread writes to: slow until `go_on` is set, and full after `room` writes.

    `begun` is set when the thread writes, `ended` when it has nothing more to do.
    """

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.room = 100
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.ended = threading.Event()

    def write(self, fd: int, data: bytes) -> None:
        self.begun.set()
        assert self.go_on.wait(SOON)
        if len(self.written) == self.room:
            raise OSError(errno.ENOSPC, "")
        self.written.append(data)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    work = stdio._ThreadSink._work

    def work_and_tell(sink: stdio._ThreadSink, token: trio.lowlevel.TrioToken) -> None:
        work(sink, token)
        disk.ended.set()

    monkeypatch.setattr(stdio, "_write_blocking", disk.write)
    monkeypatch.setattr(stdio._ThreadSink, "_work", work_and_tell)
    yield disk
    disk.go_on.set()
    assert disk.ended.wait(SOON)


async def test_output_to_a_slow_disk_is_bounded(
    fds: Descriptors, tmp_path: Path, disk: Disk
) -> None:
    """`send_all` runs ahead of a slow disk as far as it may, and no further."""
    async with open_output(file(fds, tmp_path / "out")) as stream:
        with trio.fail_after(SOON):
            await stream.send_all(bytes(FILE_BEHIND - 1))
            await stream.send_all(b"x")
            await stream.wait_send_all_might_not_block()
        async with in_background(partial(stream.send_all, b"y")):
            assert not disk.written
            disk.go_on.set()
    assert b"".join(disk.written) == bytes(FILE_BEHIND - 1) + b"xy"


async def test_cancelled_closing_drops_what_is_not_begun(
    fds: Descriptors, tmp_path: Path, disk: Disk
) -> None:
    """Whoever does not wait for a slow disk gives up what it has not begun to write."""
    stream = open_output(file(fds, tmp_path / "out"))
    await stream.send_all(b"begun")
    await wait(disk.begun)
    await stream.send_all(b"not begun")
    async with in_background(stream.aclose) as closing:
        closing.cancel()
    disk.go_on.set()
    await wait(disk.ended)
    assert disk.written == [b"begun"]


async def test_late_error_told_by_the_closing(fds: Descriptors, tmp_path: Path, disk: Disk) -> None:
    """What fails after `send_all` has returned is told by the closing."""
    disk.room = 0
    stream = open_output(file(fds, tmp_path / "out"))
    await stream.send_all(b"lost")
    disk.go_on.set()
    with pytest.raises(OutputError, match="the disk is full"):
        await stream.aclose()


async def test_late_error_told_by_the_next_send_all(
    fds: Descriptors, tmp_path: Path, disk: Disk
) -> None:
    """What fails after `send_all` has returned is told by the next one, and not by the closing."""
    disk.room = 0
    async with open_output(file(fds, tmp_path / "out")) as stream:
        await stream.send_all(b"lost")
        disk.go_on.set()
        await wait(disk.ended)
        disk.room = 100
        with pytest.raises(OutputError, match="the disk is full"):
            await stream.send_all(b"would leave a gap")
        await no_thread_left(stream)
    assert disk.written == []


def test_thread_that_outlives_the_run(fds: Descriptors, tmp_path: Path, disk: Disk) -> None:
    """A stream that nobody closes is written to its end, also if Trio has ended by then."""

    async def leave() -> None:
        stream = open_output(file(fds, tmp_path / "out"))
        await stream.send_all(b"begun")
        await wait(disk.begun)
        async with in_background(partial(stream.send_all, bytes(FILE_BEHIND))) as waiting:
            waiting.cancel()

    trio.run(leave)
    disk.go_on.set()
    assert disk.ended.wait(SOON)
    assert disk.written == [b"begun", bytes(FILE_BEHIND)]


# Trio's own rules for streams


class Broken(trio.abc.SendStream):
    """An `Output` whose failures are `trio.BrokenResourceError`, as they are on purpose not."""

    def __init__(self, output: Output) -> None:
        self._output = output

    async def send_all(self, data: stdio.Data) -> None:
        try:
            await self._output.send_all(data)
        except OutputError as error:
            raise trio.BrokenResourceError from error

    async def wait_send_all_might_not_block(self) -> None:
        await self._output.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._output.aclose()


@pytest.mark.parametrize("make", [pipe, sockets])
async def test_rules_for_streams(make: Callable[[Descriptors], Ends]) -> None:
    """Pipes and sockets are streams as Trio wants them, but for the type of what is raised.

    In a thread they are not: the descriptor, which stays open, hides that a stream was closed, and
    a thread reads or writes on after its task was cancelled.
    """

    async def pair() -> tuple[trio.abc.SendStream, trio.abc.ReceiveStream]:
        fds = Descriptors()
        ends = make(fds)
        streams = Broken(open_output(ends.write)), await open_input(ends.read)
        fds.close_all()  # only what the streams have opened themselves is left
        return streams

    async def clogged() -> tuple[trio.abc.SendStream, trio.abc.ReceiveStream]:
        send, receive = await pair()
        with trio.CancelScope() as filling:
            async with in_background(partial(send.send_all, MUCH)):
                filling.cancel()
        return send, receive

    await check_one_way_stream(pair, clogged)


# The process's exit

LEAVE_INPUT = """
import trio
from trio_upper import stdio

async def main():
    source = await stdio.open_input()
    with trio.move_on_after(0.1):
        async for data in source:
            pass
        raise SystemExit("the input has ended")

trio.run(main)
print("left")
"""

LEAVE_OUTPUT = """
import sys, trio
from trio_upper import stdio

async def main():
    output = stdio.open_output()
    with trio.move_on_after(0.1):
        while True:
            await output.send_all(bytes(1000000))

trio.run(main)
sys.stderr.write("left")
"""

WITHOUT_REOPENING = "from trio_upper import stdio; stdio.OWN_DESCRIPTORS = '/nonexistent'\n"
WITHOUT_WAITING = "from trio_upper import stdio; stdio.CAN_WAIT = False\n"


def endless_file(fds: Descriptors) -> Ends:
    return fds.ends(os.open("/dev/zero", os.O_RDONLY), os.open("/dev/null", os.O_WRONLY))


@pytest.mark.parametrize(
    ("make", "before"),
    [
        pytest.param(endless_file, "", id="file"),
        pytest.param(pipe, "", id="pipe"),
        pytest.param(pipe, WITHOUT_REOPENING, id="pipe-not-reopened"),
        pytest.param(pipe, WITHOUT_WAITING, id="pipe-in-thread"),
        pytest.param(terminal, "", id="terminal"),
        pytest.param(terminal, WITHOUT_WAITING, id="terminal-in-thread"),
        pytest.param(sockets, "", id="socket"),
    ],
)
def test_exit_while_input_is_waited_for(
    fds: Descriptors, make: Callable[[Descriptors], Ends], before: str
) -> None:
    """A process that has cancelled its input exits at once, in order and without a word."""
    read, write = make(fds)
    os.write(write, b"half a line")
    exited = run(before + LEAVE_INPUT, stdin=read, stdout=subprocess.PIPE)
    assert (exited.returncode, exited.stdout, exited.stderr) == (0, "left\n", "")


@pytest.mark.parametrize(
    ("make", "before"),
    [
        pytest.param(pipe, "", id="pipe"),
        pytest.param(pipe, WITHOUT_REOPENING, id="pipe-in-thread"),
        pytest.param(screen, "", id="terminal"),
        pytest.param(sockets, "", id="socket"),
    ],
)
def test_exit_while_output_is_blocked(
    fds: Descriptors, make: Callable[[Descriptors], Ends], before: str
) -> None:
    """A process whose output nobody reads exits at once when it has cancelled it."""
    exited = run(before + LEAVE_OUTPUT, stdin=subprocess.DEVNULL, stdout=make(fds).write)
    assert (exited.returncode, exited.stderr) == (0, "left")


def run(program: str, *, stdin: int, stdout: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=SOON,
        check=False,
    )


def test_process_without_input_and_output() -> None:
    """`<&- >&-`: the input ends, writing fails, and what Trio has as 0 and 1 is let alone."""
    program = """
import sys, trio
from trio_upper import stdio

async def main():
    async with await stdio.open_input() as source, stdio.open_output() as output:
        assert [data async for data in source] == []
        try:
            await output.send_all(b"x")
        except stdio.OutputError as error:
            sys.stderr.write(str(error))

trio.run(main)
"""
    exited = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -c "$1" <&- >&-', sys.executable, program],
        stderr=subprocess.PIPE,
        text=True,
        timeout=SOON,
        check=False,
    )
    assert exited.returncode == 0
    assert exited.stderr == (
        "standard output cannot be written: it is closed, or open in the other direction only"
    )
