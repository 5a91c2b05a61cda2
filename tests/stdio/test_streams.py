"""Standard input and output as streams: every kind of descriptor, its end, failure and leaving."""

import errno
import os
import resource
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio
from tests.helpers.descriptor_ends import (
    MUCH,
    Descriptors,
    Ends,
    drain,
    file,
    in_background,
    no_thread_left,
    pipe,
    screen,
    sockets,
    terminal,
)
from tests.helpers.waiting import TIMEOUT_SECONDS
from trio.testing import check_one_way_stream

from trio_upper import platform
from trio_upper.platform import portable
from trio_upper.stdio import streams as stdio
from trio_upper.stdio.descriptors import FILE_BEHIND_BYTES, FILE_PIECE_BYTES, PIPE_BYTES, Data
from trio_upper.stdio.streams import (
    Input,
    InputError,
    Output,
    OutputClosed,
    OutputError,
    open_input,
    open_output,
)

# Elsewhere a thread writes to them, and they keep their size.
where_pipes_are_opened_again = pytest.mark.skipif(
    platform.widen_pipe is portable.widen_pipe, reason="this system does not open a pipe again"
)


@pytest.fixture
def cannot_reopen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there is no /proc, or the pipe is another user's."""
    monkeypatch.setattr(platform, "reopen", lambda fd, access: None)


@pytest.fixture
def cannot_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    monkeypatch.setattr(platform, "CAN_WAIT", False)


async def read_all(stream: Input) -> bytes:
    with trio.fail_after(TIMEOUT_SECONDS):
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
    content = os.urandom(2 * FILE_PIECE_BYTES + 100)
    (tmp_path / "in").write_bytes(b"skipped" + content)
    fd = file(fds, tmp_path / "in")
    os.lseek(fd, len("skipped"), os.SEEK_SET)
    async with await open_input(fd) as stream:
        assert stream.size == len(content)
        pieces = [piece async for piece in stream]
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) == FILE_PIECE_BYTES
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
    assert str(caught.value).endswith(": it is a directory; name a file instead")


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
        with (
            trio.fail_after(TIMEOUT_SECONDS),
            pytest.raises(InputError, match="other direction") as caught,
        ):
            await stream.receive_some()
    assert caught.value.errno == errno.EBADF


async def test_names(fds: Descriptors, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence begins with what people call the descriptor."""
    write = pipe(fds).write
    async with await open_input(write) as stream:
        with pytest.raises(InputError, match=f"^cannot read descriptor {write}: "):
            await stream.receive_some()
        monkeypatch.setitem(stdio.NAMES, write, "standard input")
        with pytest.raises(InputError, match=r"^cannot read standard input: "):
            await stream.receive_some()


@where_pipes_are_opened_again
async def test_wide_pipe(fds: Descriptors) -> None:
    """A pipe holds more after it was opened, and never less."""
    fcntl = pytest.importorskip("fcntl")
    read, write = pipe(fds)
    async with await open_input(read), open_output(write):
        assert fcntl.fcntl(read, fcntl.F_GETPIPE_SZ) == PIPE_BYTES
        fcntl.fcntl(read, fcntl.F_SETPIPE_SZ, 2 * PIPE_BYTES)
    async with await open_input(read):
        assert fcntl.fcntl(read, fcntl.F_GETPIPE_SZ) == 2 * PIPE_BYTES


# Output

BLOCKING = [
    pytest.param(pipe, None, id="pipe"),
    pytest.param(sockets, None, id="socket"),
    pytest.param(pipe, "cannot_reopen", id="pipe-in-thread"),
    pytest.param(screen, None, id="terminal"),
]


@pytest.mark.parametrize(("make", "handicap"), BLOCKING)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_all_is_written(ends: Ends, kind: Callable[[bytes], Data]) -> None:
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
            with pytest.raises(OutputClosed, match=r"cannot write to .*: nobody reads it any more"):
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


@where_pipes_are_opened_again
async def test_waiting_for_room(fds: Descriptors) -> None:
    """A full pipe is waited for until it is read from; an empty one is not."""
    read, write = pipe(fds)
    async with open_output(write) as stream:
        await stream.wait_send_all_might_not_block()
        await stream.send_all(bytes(PIPE_BYTES))
        async with in_background(stream.wait_send_all_might_not_block):
            os.read(read, PIPE_BYTES)


async def test_full_disk(fds: Descriptors) -> None:
    """A full disk is one sentence, stays so, and closing does not say it again."""
    async with open_output(file(fds, Path("/dev/full"))) as stream:
        for _ in range(2):
            with pytest.raises(
                OutputError, match=r"cannot write to .*: the disk is full; "
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
    pieces = [
        os.urandom(size) for size in (1, 70_000, FILE_BEHIND_BYTES + 1, 3, 2 * FILE_BEHIND_BYTES)
    ]
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
        with pytest.raises(OutputError, match=r"cannot write to .*: File too large"):
            async with open_output(file(fds, tmp_path / "out")) as stream:
                await stream.send_all(bytes(1001))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "out").stat().st_size == 1000


# Trio's own rules for streams


class Broken(trio.abc.SendStream):
    """An `Output` whose failures are `trio.BrokenResourceError`, as they are on purpose not."""

    def __init__(self, output: Output) -> None:
        self._output = output

    async def send_all(self, data: Data) -> None:
        try:
            await self._output.send_all(data)
        except OutputError as error:
            raise trio.BrokenResourceError from error

    async def wait_send_all_might_not_block(self) -> None:
        await self._output.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._output.aclose()


@pytest.mark.parametrize("make", [pytest.param(pipe, marks=where_pipes_are_opened_again), sockets])
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
from trio_upper.stdio import streams as stdio

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
from trio_upper.stdio import streams as stdio

async def main():
    output = stdio.open_output()
    with trio.move_on_after(0.1):
        while True:
            await output.send_all(bytes(1000000))

trio.run(main)
sys.stderr.write("left")
"""

WITHOUT_REOPENING = "from trio_upper import platform; platform.reopen = lambda fd, way: None\n"
WITHOUT_WAITING = "from trio_upper import platform; platform.CAN_WAIT = False\n"


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
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def test_process_without_input_and_output() -> None:
    """`<&- >&-`: the input ends, writing fails, and what Trio has as 0 and 1 is let alone."""
    program = """
import sys, trio
from trio_upper.stdio import streams as stdio

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
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert exited.returncode == 0
    assert exited.stderr == (
        "cannot write to standard output: it is closed, or open in the other direction only"
    )
