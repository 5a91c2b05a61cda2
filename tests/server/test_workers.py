"""A worker as a process, and the line between it and its parent."""

import errno
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio
from tests.helpers.listening import listener_on, listening
from tests.helpers.waiting import TIMEOUT_SECONDS

from trio_upper.server.workers import NotAWorker, Order, Parent, WorkerProcess, take_secret

# More orders than a line holds; see unix(7).
FLOOD = 2000


# ------------------------------------------------------------------ the line


@contextmanager
def line() -> Iterator[tuple[Parent, socket.socket]]:
    """Yield what a worker has of its parent, and the parent's end of the line."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Parent(theirs), ours


async def test_a_worker_receives_orders_until_its_parent_has_gone() -> None:
    """One after the other; the end of the line is the end of the parent."""
    with line() as (parent, ours):
        for order in (Order.DRAIN, Order.CUT):
            ours.send(order)
            assert await parent.next_order() is order
        ours.close()
        assert await parent.next_order() is None


async def test_of_orders_that_wait_together_the_strongest_is_obeyed() -> None:
    """However many wait before it."""
    with line() as (parent, ours):
        ours.send(Order.DRAIN * FLOOD + Order.CUT)
        assert await parent.next_order() is Order.CUT


async def test_a_parent_that_goes_with_words_unread_has_gone() -> None:
    """They make the end of the line a reset (unix(7)), which is an end, too."""
    with line() as (parent, ours):
        await parent.tell_ready()
        ours.close()
        assert await parent.next_order() is None
        await parent.tell_ready()  # to nobody


async def test_the_line_is_the_standard_input_of_a_worker() -> None:
    """Or another descriptor, of which the worker has its own duplicate."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        parent = Parent.of_worker(line=theirs.fileno())
        await parent.tell_ready()
        assert ours.recv(100) == b"r"
        ours.send(Order.DRAIN)
        assert await parent.next_order() is Order.DRAIN
        parent._line.close()


async def test_a_secret_comes_before_all_orders() -> None:
    """However many follow it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall((6).to_bytes(4) + b"secret" + Order.DRAIN)
        assert take_secret(line=theirs.fileno()) == b"secret"
        parent = Parent.of_worker(line=theirs.fileno())
        assert await parent.next_order() is Order.DRAIN
        parent._line.close()


@pytest.mark.parametrize("find", [take_secret, Parent.of_worker])
def test_a_process_that_is_not_a_worker_has_no_parent(find: Callable[..., object]) -> None:
    """Somebody has typed what a parent writes; it is explained."""
    with open(os.devnull) as file, pytest.raises(NotAWorker, match=r"^--worker is for "):  # noqa: PTH123
        find(line=file.fileno())


# ------------------------------------------------------------------ the process

# It writes what it was started with, says that it is ready, and ends when it has an order.
TELL = """if True:
    import json, os, socket, stat, sys
    line = socket.socket(fileno=0)
    sockets = [number for number in range(3, 100) if os.path.exists(f"/dev/fd/{number}")
               and stat.S_ISSOCK(os.stat(number).st_mode)]
    names = [socket.socket(fileno=number).getsockname() for number in sockets]
    right = os.environ["LISTEN_PID"] == str(os.getpid()), os.getsid(0) == os.getpid()
    with open(sys.argv[1], "w") as file:
        json.dump([sockets, names, os.environ["LISTEN_FDS"], right, sys.argv[2:]], file)
    line.send(b"r")
    sys.exit(3 if line.recv(100) == b"d" else 4)
"""

# It says that it is ready and ends with 5 when it is asked for its totals.
REPORT = """if True:
    import os, signal, socket, sys
    signal.signal(signal.SIGUSR1, lambda *_: sys.exit(5))
    line = socket.socket(fileno=0)
    line.send(b"r")
    line.recv(100)
"""

TELL_SECRET = """if True:
    import pathlib, sys
    from trio_upper.server.workers import take_secret
    pathlib.Path(sys.argv[1]).write_bytes(take_secret())
"""

SLEEP = "import time; time.sleep(60)"


@asynccontextmanager
async def started(program: str, *arguments: str) -> AsyncGenerator[WorkerProcess]:
    """Start a worker that runs `program`, with one listener; kill it at the end of the block."""
    command = [sys.executable, "-ISc", program, *arguments]
    with trio.fail_after(TIMEOUT_SECONDS), listening() as bound:
        async with listener_on(bound) as listener:
            worker = await WorkerProcess.start(command, [listener])
            try:
                yield worker
            finally:
                worker.close()
                with trio.CancelScope(shield=True):
                    await worker.ended()


async def test_a_worker_inherits_by_the_convention(tmp_path: Path) -> None:
    """Its listeners are descriptors 3 and 4, and no others; the variables are as sd_listen_fds(3)
    has them; and it is in a session of its own.
    """
    path = tmp_path / "told"
    command = [sys.executable, "-ISc", TELL, str(path), "-x", "y z"]
    with trio.fail_after(TIMEOUT_SECONDS), listening() as one, listening() as other:
        async with listener_on(other) as first, listener_on(one) as second:
            worker = await WorkerProcess.start(command, [first, second])
            assert await worker.ready()
            numbers, names, count, right, arguments = json.loads(path.read_text())
            assert numbers == [3, 4]
            assert sorted(map(tuple, names)) == sorted([one.getsockname(), other.getsockname()])
            assert count == "2"
            assert right == [True, True]
            assert arguments == ["-x", "y z"]
            worker.tell(Order.DRAIN)
            assert await worker.ended() == 3
            worker.tell(Order.DRAIN)  # to nobody
            worker.close()


@pytest.mark.parametrize("unread", [False, True])
async def test_a_worker_that_ends_before_it_serves_never_was_ready(unread: bool) -> None:
    """Also if it ended with an order unread, which makes the end of the line a reset."""
    async with started("import select; select.select([0], [], [])" if unread else "") as worker:
        if unread:
            worker.tell(Order.DRAIN)
        assert not await worker.ready()
        assert await worker.ended() == 0


@pytest.mark.parametrize("end", [WorkerProcess.kill, WorkerProcess.close])
async def test_a_worker_can_be_killed(end: Callable[[WorkerProcess], None]) -> None:
    """Whatever it does; closing it kills it, too, so that no process is left."""
    async with started(SLEEP) as worker:
        assert worker.pid != os.getpid()
        end(worker)
        assert await worker.ended() == -signal.SIGKILL


async def test_an_order_is_not_lost_behind_others() -> None:
    """A worker that reads nothing for a while finds the order to drain when it does."""
    async with started(TELL, os.devnull) as worker:
        for _ in range(FLOOD):
            worker.report()  # it does not serve yet: nothing reaches it
            worker.tell(Order.DRAIN)
        assert await worker.ready()
        assert await worker.ended() in {3, 4}


async def test_a_worker_gets_its_secret(tmp_path: Path) -> None:
    """It is on the line before the program starts, and nowhere else."""
    path, secret = tmp_path / "told", b"secret" * 1000
    command = [sys.executable, "-c", TELL_SECRET, str(path)]
    with trio.fail_after(TIMEOUT_SECONDS), listening() as bound:
        async with listener_on(bound) as listener:
            worker = await WorkerProcess.start(command, [listener], secret=secret)
            assert await worker.ended() == 0
            worker.close()
    assert path.read_bytes() == secret


async def test_totals_are_asked_for_when_a_worker_serves() -> None:
    """Before that the signal would kill it."""
    async with started(REPORT) as worker:
        worker.report()
        assert await worker.ready()
        worker.report()
        assert await worker.ended() == 5
        worker.report()  # to nobody


async def test_a_worker_that_cannot_be_started_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the system has no room for a process, the line is closed again.

    The numbers of the listeners ascend, in whatever order these are: the other order could have one
    of them overwritten before it is moved.
    """

    async def refuse(words: list[str], *, stdin: socket.socket, **_: object) -> None:
        await trio.lowlevel.checkpoint()
        opened.append(stdin)
        command.extend(words)
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    opened: list[socket.socket] = []
    command: list[str] = []
    monkeypatch.setattr(trio.lowlevel, "open_process", refuse)
    with listening() as one, listening() as other:
        numbers = [one.fileno(), other.fileno()]
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(s)) for s in (one, other)]
        for order in (1, -1):
            with pytest.raises(BlockingIOError):
                await WorkerProcess.start(["x"], listeners[::order])
            assert command[-2:] == [",".join(map(str, sorted(numbers))), "x"]
    assert [one.fileno() for one in opened] == [-1, -1]
