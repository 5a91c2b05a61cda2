"""The ways of reading and writing: threads that are left behind, and streams closed meanwhile."""

import errno
import os
import select
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
from tests.helpers.descriptor_ends import (
    MUCH,
    Descriptors,
    drain,
    file,
    in_background,
    no_thread_left,
    pipe,
    sockets,
    wait,
)
from tests.helpers.waiting import TIMEOUT_SECONDS

from trio_upper.stdio import descriptors as descriptor_io
from trio_upper.stdio.descriptors import FILE_BEHIND_BYTES, ThreadSink, ThreadSource
from trio_upper.stdio.streams import OutputError, open_input, open_output


async def test_only_one_thread_reads(fds: Descriptors, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a read is cancelled, one thread is left behind, and its bytes are not lost."""
    reads = []
    really = descriptor_io._read_blocking

    def read(fd: int, size: int) -> bytes:
        reads.append(size)
        return really(fd, size)

    monkeypatch.setattr(descriptor_io, "_read_blocking", read)
    ends = pipe(fds)
    source = ThreadSource(ends.read)
    for _ in range(3):
        async with in_background(partial(source.read, 100)) as waiting:
            waiting.cancel()
    os.write(ends.write, b"hello")
    assert await source.read(100) == b"hello"
    assert len(reads) == 1


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
    stream = open_output(sockets(fds).write)

    async def wake(fd: int) -> None:
        await stream.aclose()

    monkeypatch.setattr(trio.lowlevel, "wait_writable", wake)
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(MUCH)


async def test_somebody_elses_nonblocking_input(
    fds: Descriptors, monkeypatch: pytest.MonkeyPatch
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

    async def receive() -> None:
        assert await ThreadSource(read).read(100) == b"hello"

    async with in_background(receive):
        await wait(waiting)
        os.write(write, b"hello")


async def test_somebody_elses_nonblocking_output(fds: Descriptors) -> None:
    """Where only a thread can wait, it does so even if others have set O_NONBLOCK."""
    read, write = pipe(fds)
    os.set_blocking(write, False)
    async with in_background(partial(ThreadSink(write).write, MUCH)):
        assert await drain(read, len(MUCH)) == MUCH


async def test_error_of_a_file_system_at_the_close(
    fds: Descriptors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a network file system tells only when a descriptor is closed is told, too."""

    def fail(fd: int) -> None:
        raise OSError(errno.EDQUOT, "")

    stream = open_output(file(fds, tmp_path / "out"))
    await stream.send_all(b"x")
    monkeypatch.setattr(descriptor_io, "_close_duplicate", fail)
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
        assert self.go_on.wait(TIMEOUT_SECONDS)
        if len(self.written) == self.room:
            raise OSError(errno.ENOSPC, "")
        self.written.append(data)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    work = ThreadSink._work

    def work_and_tell(sink: ThreadSink, token: trio.lowlevel.TrioToken) -> None:
        work(sink, token)
        disk.ended.set()

    monkeypatch.setattr(descriptor_io, "_write_blocking", disk.write)
    monkeypatch.setattr(ThreadSink, "_work", work_and_tell)
    yield disk
    disk.go_on.set()
    assert disk.ended.wait(TIMEOUT_SECONDS)


async def test_output_to_a_slow_disk_is_bounded(
    fds: Descriptors, tmp_path: Path, disk: Disk
) -> None:
    """`send_all` runs ahead of a slow disk as far as it may, and no further."""
    async with open_output(file(fds, tmp_path / "out")) as stream:
        with trio.fail_after(TIMEOUT_SECONDS):
            await stream.send_all(bytes(FILE_BEHIND_BYTES - 1))
            await stream.send_all(b"x")
            await stream.wait_send_all_might_not_block()
        async with in_background(partial(stream.send_all, b"y")):
            assert not disk.written
            disk.go_on.set()
    assert b"".join(disk.written) == bytes(FILE_BEHIND_BYTES - 1) + b"xy"


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
        async with in_background(partial(stream.send_all, bytes(FILE_BEHIND_BYTES))) as waiting:
            waiting.cancel()

    trio.run(leave)
    disk.go_on.set()
    assert disk.ended.wait(TIMEOUT_SECONDS)
    assert disk.written == [b"begun", bytes(FILE_BEHIND_BYTES)]
