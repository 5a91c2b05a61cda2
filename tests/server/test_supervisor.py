"""Inherited listeners, the line between a parent and its workers, and the supervisor of them."""

import errno
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

import pytest
import structlog
import trio
from structlog.testing import CapturingLogger
from tests.helpers.waiting import TIMEOUT_SECONDS
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_upper.protocol import full_notice
from trio_upper.server import server as server_module
from trio_upper.server.listeners import (
    KEEPALIVE_IDLE_SECONDS,
    OTHERS_FIRST,
    CannotListen,
    Shared,
)
from trio_upper.server.server import Server, ServerSettings, Totals
from trio_upper.server.supervisor import (
    FIRST_INHERITED,
    FIRST_PAUSE,
    LATEST,
    LONGEST_PAUSE,
    SETTLED,
    START_LIMIT,
    WORKER,
    CannotStart,
    Listeners,
    Order,
    Parent,
    Supervisor,
    WorkerProcess,
    inherited,
)

# All of 127.0.0.0/8 is this machine (RFC 1122), and at this address nobody else listens.
HERE = "127.87.48.1"

# Descriptors from here on are nobody's.
NUMBERS = 200

GRACE = 10.0
PLACE = ("127.0.0.1", 5000)


# ------------------------------------------------------------------ inherited listeners


@contextmanager
def passed(*sockets: socket.socket | int) -> Iterator[dict[str, str]]:
    """Have these sockets, or descriptors, as if they were inherited; give the environment."""
    numbers = range(NUMBERS, NUMBERS + len(sockets))
    for number, one in zip(numbers, sockets, strict=True):
        os.dup2(one if isinstance(one, int) else one.fileno(), number)
    try:
        yield {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(sockets))}
    finally:
        os.closerange(numbers.start, numbers.stop)


@contextmanager
def listening(*, family: int = socket.AF_INET, address: Any = (HERE, 0)) -> Iterator[socket.socket]:
    """Yield a socket that listens."""
    with socket.socket(family) as bound:
        bound.bind(address)
        bound.listen()
        yield bound


async def test_listeners_that_are_passed_are_adopted() -> None:
    """All of them, in their order; the variables that tell of them go, the others stay."""
    with listening() as one, listening() as other, passed(one, other) as environment:
        environment |= {"LISTEN_FDNAMES": "a:b", "HOME": "/"}
        adopted = inherited(environment, first=NUMBERS)
        names = [listener.socket.getsockname() for listener in adopted]
        assert names == [one.getsockname(), other.getsockname()]
        assert environment == {"HOME": "/"}
        for listener in adopted:
            assert not os.get_inheritable(listener.socket.fileno())
            async with await trio.open_tcp_stream(*listener.socket.getsockname()) as client:
                async with listener, await listener.accept() as accepted:
                    await accepted.send_all(b"x")
                assert await client.receive_some() == b"x"


@pytest.mark.parametrize("pid", ["1", "", None])
def test_what_was_passed_to_another_process_is_left_alone(pid: str | None) -> None:
    """A child of the process that it was for must not take it; the variables go all the same."""
    environment = {"LISTEN_FDS": "1"} | ({} if pid is None else {"LISTEN_PID": pid})
    assert inherited(environment, first=NUMBERS) == ()
    assert environment == {}


def test_nothing_passed_is_nothing_inherited() -> None:
    """The first number is the one that systemd begins with (sd_listen_fds(3))."""
    assert inherited({}) == ()
    assert FIRST_INHERITED == 3


@pytest.mark.parametrize("count", ["", "x", "-1", "²"])
def test_a_count_that_is_no_number_is_explained(count: str) -> None:
    """Whoever set it learns which variable it is."""
    environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count}
    with pytest.raises(CannotListen, match=f"^cannot .* LISTEN_FDS is {count!r}, .* no number$"):
        inherited(environment)


def complaint(*sockets: socket.socket | int) -> str:
    """Return why these cannot be inherited."""
    with passed(*sockets) as environment, pytest.raises(CannotListen) as caught:
        inherited(environment, first=NUMBERS)
    return str(caught.value)


def test_a_descriptor_that_is_no_socket_is_explained() -> None:
    """It is named by its number, whether it is a file or nothing at all."""
    with open(os.devnull) as file:  # noqa: PTH123 - its number is the point
        text = complaint(file.fileno())
    assert text == f"cannot inherit descriptor {NUMBERS}: it is no socket"
    with passed() as environment, pytest.raises(CannotListen, match="it is no socket"):
        inherited(environment | {"LISTEN_FDS": "1"}, first=NUMBERS)


@pytest.mark.parametrize("kind", ["connected", "datagrams", "local"])
def test_a_socket_that_does_not_listen_for_tcp_is_explained(kind: str) -> None:
    """An accepted connection (Accept=yes in a socket unit), UDP, and a socket of this machine."""
    with ExitStack() as stack:
        if kind == "connected":
            one = stack.enter_context(socket.socket())
        elif kind == "datagrams":
            one = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        else:
            one = stack.enter_context(listening(family=socket.AF_UNIX, address=""))
        assert complaint(one) == (
            f"cannot inherit descriptor {NUMBERS}: it is no listening TCP socket; "
            "a socket unit needs ListenStream= and Accept=no"
        )


# ------------------------------------------------------------------ a server on them


@asynccontextmanager
async def adopting(count: int = 1, **settings: Any) -> AsyncGenerator[list[Server]]:
    """Run `count` servers, as if each was a process, on the same listener, until the block ends."""
    servers: list[Server] = []
    with trio.fail_after(TIMEOUT_SECONDS), listening() as bound:
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                copy = trio.SocketListener(trio.socket.from_stdlib_socket(bound.dup()))
                log = structlog.wrap_logger(CapturingLogger(), processors=[])
                server = Server(ServerSettings(inherited=(copy,), **settings), log)
                assert await nursery.start(server.run) == [bound.getsockname()]
                servers.append(server)
            yield servers
            for server in servers:
                server.drain()


async def connect(server: Server) -> trio.SocketStream:
    """Return a connection to where `server` listens."""
    [listener] = server._settings.inherited
    return await trio.open_tcp_stream(*listener.socket.getsockname())


async def test_a_server_serves_on_inherited_listeners() -> None:
    """It reports them, looks after their connections, and closes them when it stops."""
    async with adopting() as [server]:
        [listener] = server._settings.inherited
        options = (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        assert listener.socket.getsockopt(*options) == KEEPALIVE_IDLE_SECONDS
        async with await connect(server) as client:
            await client.send_all(b"hi")
            assert await client.receive_some() == b"HI"
    assert server.totals == Totals(served=1, bytes_in=2, bytes_out=2)
    assert listener.socket.fileno() == -1


async def test_a_server_that_was_stopped_before_closes_them_too() -> None:
    """Nobody has to do it for it."""
    with listening() as bound:
        copy = trio.SocketListener(trio.socket.from_stdlib_socket(bound.dup()))
        log = structlog.wrap_logger(CapturingLogger(), processors=[])
        server = Server(ServerSettings(inherited=(copy,)), log)
        server.drain()
        assert await server.run() == Totals()
        assert copy.socket.fileno() == -1


async def test_a_process_without_a_place_leaves_clients_to_others() -> None:
    """As many clients as all together have places for are served, and the next one is refused."""
    places, count = 3, 4
    async with adopting(count, max_clients=places) as servers:
        clients = []
        for _ in range(places * count):
            clients.append(await connect(servers[0]))
            await clients[-1].send_all(b"hi")
            assert await clients[-1].receive_some() == b"HI"
        assert [len(server._conversations) for server in servers] == [places] * count
        async with await connect(servers[0]) as late:
            assert await late.receive_some() == full_notice(places)
        for client in clients:
            await client.aclose()
    assert sum(server.totals.refused for server in servers) == 1


@pytest.mark.parametrize("attempt", range(10))
async def test_who_was_accepted_last_counts(autojump_clock: MockClock, attempt: int) -> None:
    """In whatever order Trio runs the tasks: nobody takes one more than it has places for."""
    served: list[trio.SocketStream] = []

    async def serve(stream: trio.SocketStream) -> None:
        served.append(stream)
        async with stream:
            await trio.sleep_forever()

    with ExitStack() as stack:
        bound = stack.enter_context(listening())
        for _ in range(3):
            stack.enter_context(socket.create_connection(bound.getsockname()))
        copy = trio.SocketListener(trio.socket.from_stdlib_socket(bound.dup()))
        async with trio.open_nursery() as nursery:
            shared = Shared(copy, lambda: len(served) == 2)
            nursery.start_soon(trio.serve_listeners, serve, [shared])
            await trio.sleep(OTHERS_FIRST / 2)
            assert len(served) == 2
            nursery.cancel_scope.cancel()


async def test_inherited_listeners_are_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them leaves room for a client less, where descriptors are few."""
    monkeypatch.setattr(server_module, "raise_descriptor_limit", lambda: 64)
    async with adopting() as [server]:
        assert server._places == 31


async def test_who_finds_the_queue_empty_goes_on_waiting(autojump_clock: MockClock) -> None:
    """Somebody else was faster, while this one left it to others."""
    with listening() as bound:
        copy = trio.SocketListener(trio.socket.from_stdlib_socket(bound.dup()))
        shared = Shared(copy, lambda: True)
        async with shared, trio.open_nursery() as nursery:
            accepted: list[trio.SocketStream] = []

            async def accept() -> None:
                accepted.append(await shared.accept())

            nursery.start_soon(accept)
            for _ in range(2):
                with socket.create_connection(bound.getsockname()):
                    await trio.testing.wait_all_tasks_blocked()
                    bound.accept()[0].close()
                await trio.sleep(2 * OTHERS_FIRST)
                assert not accepted
            with socket.create_connection(bound.getsockname()) as client:
                await trio.sleep(2 * OTHERS_FIRST)
                [stream] = accepted
                assert stream.socket.getpeername() == client.getsockname()
                await stream.aclose()


# ------------------------------------------------------------------ what a parent holds


@asynccontextmanager
async def holding(
    listeners: Listeners, *hosts: str, port: int = 0
) -> AsyncGenerator[list[tuple[str, int]]]:
    """Hold listeners inside the block; give the addresses and ports."""
    with trio.fail_after(TIMEOUT_SECONDS):
        async with trio.open_nursery() as nursery:
            yield await nursery.start(listeners.hold, hosts, port)
            nursery.cancel_scope.cancel()


async def test_a_parent_has_listeners_open_and_accepts_nobody() -> None:
    """Who connects waits in the queue, until somebody accepts it, or the listeners close."""
    listeners = Listeners()
    async with holding(listeners, HERE, "127.87.48.2") as opened:
        [port] = {port for _, port in opened}
        assert opened == [(HERE, port), ("127.87.48.2", port)]
        assert [listener.socket.getsockname() for listener in listeners.open] == opened
        client = await trio.open_tcp_stream(HERE, port)
        await wait_all_tasks_blocked()
        async with await listeners.open[0].accept() as accepted:
            assert accepted.socket.getpeername() == client.socket.getsockname()
        await client.aclose()
    assert listeners.open == []
    with pytest.raises(OSError, match="all attempts"):
        await trio.open_tcp_stream(HERE, port)


async def test_a_parent_holds_what_it_inherited() -> None:
    """Then hosts and port have no say; at the end it closes what it has of them."""
    with listening() as bound:
        copy = trio.SocketListener(trio.socket.from_stdlib_socket(bound.dup()))
        async with holding(Listeners([copy]), "192.0.2.1", port=1) as opened:
            assert opened == [bound.getsockname()]
        assert copy.socket.fileno() == -1


async def test_a_parent_that_cannot_listen_says_why() -> None:
    """In the words of a server."""
    with pytest.RaisesGroup(
        pytest.RaisesExc(CannotListen, match="no such address"), flatten_subgroups=True
    ):
        async with holding(Listeners(), "192.0.2.1"):
            raise AssertionError("it listens")


# ------------------------------------------------------------------ the line between the two


@contextmanager
def line() -> Iterator[tuple[Parent, socket.socket]]:
    """Yield what a worker has of its parent, and the parent's end of the line."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield Parent(1, theirs), ours


async def test_a_worker_hears_orders_until_its_parent_has_gone() -> None:
    """Each for itself, however fast they come; the end of the line is the end of the parent."""
    with line() as (parent, ours):
        for order in (Order.TOTALS, Order.DRAIN, Order.CUT):
            ours.send(order.encode())
        assert [await parent.next_order() for _ in range(3)] == ["totals", "drain", "cut"]
        ours.close()
        assert await parent.next_order() is None


async def test_a_parent_that_goes_without_listening_has_gone() -> None:
    """What it has not read makes the end of the line a reset (unix(7)), which is an end, too."""
    with line() as (parent, ours):
        await parent.tell_ready()
        ours.close()
        assert await parent.next_order() is None
        await parent.tell_ready()  # to nobody


async def test_a_process_that_is_no_worker_has_no_parent() -> None:
    """Only the variable makes it one, and it is taken away; its standard input is the line."""
    assert Parent.find({}) is None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        environment = {WORKER: "7"}
        found = Parent.find(environment, line=theirs.fileno())
        assert found is not None
        assert found.number == 7
        assert not environment
        await found.tell_ready()
        assert ours.recv(100) == b"ready"
        ours.send(b"drain")
        assert await found.next_order() is Order.DRAIN
        found._line.close()


# ------------------------------------------------------------------ a worker as a process

# It tells what it was started with, says that it is ready, and ends when it has an order.
TELL = """if True:
    import json, os, socket, stat, sys
    line = socket.socket(fileno=0)
    sockets = [number for number in range(3, 100) if os.path.exists(f"/proc/self/fd/{number}")
               and stat.S_ISSOCK(os.stat(number).st_mode)]
    names = [socket.socket(fileno=number).getsockname() for number in sockets]
    environment = {name: os.environ[name] for name in ("LISTEN_FDS", "TRIO_UPPER_WORKER")}
    right = os.environ["LISTEN_PID"] == str(os.getpid()), os.getsid(0) == os.getpid()
    with open(sys.argv[1], "w") as file:
        json.dump([sockets, names, environment, right, sys.argv[2:]], file)
    line.send(b"ready")
    sys.exit(3 if line.recv(100) == b"drain" else 4)
"""


@asynccontextmanager
async def started(
    program: str, *arguments: str, listeners: list[trio.SocketListener]
) -> AsyncGenerator[WorkerProcess]:
    command = [sys.executable, "-ISc", program, *arguments]
    with trio.fail_after(TIMEOUT_SECONDS):
        worker = await WorkerProcess.start(2, command, listeners)
        try:
            yield worker
        finally:
            worker.close()
            with trio.CancelScope(shield=True):
                await worker.ended()


async def test_a_worker_inherits_by_the_convention(tmp_path: Any) -> None:
    """Its listeners are descriptors 3 and 4, and no others; the variables are as sd_listen_fds(3)
    has them; and it is in a session of its own.
    """
    import json

    path = tmp_path / "told"
    with listening() as one, listening() as other:
        sockets = [other.dup(), one.dup()]
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(s)) for s in sockets]
        async with started(TELL, str(path), "-x", "y z", listeners=listeners) as worker:
            assert await worker.ready()
            numbers, names, environment, right, arguments = json.loads(path.read_text())
            assert numbers == [3, 4]
            assert sorted(map(tuple, names)) == sorted([one.getsockname(), other.getsockname()])
            assert environment == {"LISTEN_FDS": "2", WORKER: "2"}
            assert right == [True, True]
            assert arguments == ["-x", "y z"]
            worker.tell(Order.DRAIN)
            assert await worker.ended() == 3
            worker.tell(Order.DRAIN)  # to nobody
        for listener in listeners:
            await listener.aclose()


@pytest.mark.parametrize("unread", [False, True])
async def test_a_worker_that_ends_before_it_serves_never_was_ready(unread: bool) -> None:
    """Also if it ended with an order unread, which makes the end of the line a reset."""
    with listening() as bound:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(bound))
        program = "import select; select.select([0], [], [])" if unread else ""
        async with started(program, listeners=[listener]) as worker:
            if unread:
                worker.tell(Order.DRAIN)
            assert not await worker.ready()
            assert await worker.ended() == 0


async def test_a_worker_can_be_killed() -> None:
    """Whatever it does; and closing it does it, too, so that none is left behind."""
    with listening() as bound:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(bound))
        for end in (WorkerProcess.kill, WorkerProcess.close):
            async with started("import time; time.sleep(60)", listeners=[listener]) as worker:
                assert worker.pid != os.getpid()
                end(worker)
                assert await worker.ended() == -signal.SIGKILL


async def test_a_worker_that_hears_nothing_does_no_harm() -> None:
    """A line that is full takes no more orders, and nobody waits for that."""
    with listening() as bound:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(bound))
        async with started("import time; time.sleep(60)", listeners=[listener]) as worker:
            for _ in range(100_000):
                worker.tell(Order.TOTALS)


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
                await WorkerProcess.start(1, ["x"], listeners[::order])
            assert command[-2:] == [",".join(map(str, sorted(numbers))), "x"]
    assert [one.fileno() for one in opened] == [-1, -1]


# ------------------------------------------------------------------ the supervisor


class Fake:
    """A worker that does what it was made for.

    All times in seconds: it serves `starts` after it was started, ends with `code` when it has
    lived for `lives`, and with `last` when it has been drained for `drains`.
    """

    def __init__(
        self,
        *,
        starts: float = 0.2,
        lives: float = 1e9,
        code: int = 1,
        drains: float = 0.0,
        last: int = 0,
    ) -> None:
        self.pid = 42
        self.orders: list[Order] = []
        self.closed = False
        self._starts = starts
        self._life = trio.CancelScope(deadline=trio.current_time() + lives)
        self._code = code
        self._drains = drains
        self._last = last
        self._serves = False
        self._turned = trio.Event()
        self._over = trio.Event()

    async def live(self) -> None:
        with self._life:
            await trio.sleep(self._starts)
            self._serves = True
            self._turned.set()
            await trio.sleep_forever()
        self._turned.set()
        self._over.set()

    async def ready(self) -> bool:
        await self._turned.wait()
        return self._serves

    async def ended(self) -> int:
        await self._over.wait()
        return self._code

    def tell(self, order: Order) -> None:
        self.orders.append(order)
        if order is not Order.TOTALS:
            self._end(self._drains, self._last)

    def kill(self) -> None:
        self._end(0, -signal.SIGKILL)

    def close(self) -> None:
        assert self._over.is_set()
        self.closed = True

    def _end(self, seconds: float, code: int) -> None:
        self._life.deadline = min(self._life.deadline, trio.current_time() + seconds)
        self._code = code


Make = Callable[[int, int], Fake]


class Running:
    """A supervisor that runs, over workers that `make` makes: of their number and their turn.

    `make` may raise `OSError`: then the worker could not be started.
    """

    def __init__(self, make: Make, *, count: int = 2) -> None:
        self.events = CapturingLogger()
        log = structlog.wrap_logger(self.events, processors=[])
        self.supervisor = Supervisor(self._start, log, count=count, grace=GRACE)
        self.addresses: list[tuple[str, int]] = []
        self.listening = False
        self.holds: Callable[..., Awaitable[None]] = self._hold
        #: When each worker was started, by its number.
        self.starts: dict[int, list[float]] = {number: [] for number in range(1, count + 1)}
        self.workers: list[Fake] = []
        self._make = make
        self._lives: trio.Nursery | None = None

    async def _start(self, number: int) -> Fake:
        await trio.lowlevel.checkpoint()
        self.starts[number].append(trio.current_time())
        worker = self._make(number, len(self.starts[number]))
        assert self._lives
        self._lives.start_soon(worker.live)
        self.workers.append(worker)
        return worker

    async def _hold(self, *, task_status: trio.TaskStatus[list[tuple[str, int]]]) -> None:
        self.listening = True
        task_status.started([PLACE])
        try:
            await trio.sleep_forever()
        finally:
            self.listening = False

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as self._lives, trio.open_nursery() as nursery:
            self.addresses = await nursery.start(self.supervisor.run, self.holds)
            task_status.started()

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the fields of all events of that name."""
        calls = [dict(call.kwargs) for call in self.events.calls]
        return [fields for fields in calls if fields.pop("event") == event]


@asynccontextmanager
async def running(make: Make = lambda *_: Fake(), *, count: int = 2) -> AsyncGenerator[Running]:
    """Run a supervisor; at the end stop it, unless that was done, and wait until it has."""
    supervised = Running(make, count=count)
    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervised.run)
            yield supervised
            supervised.supervisor.drain()
    assert all(worker.closed for worker in supervised.workers)
    assert not supervised.listening


async def test_it_reports_when_the_first_worker_serves(autojump_clock: MockClock) -> None:
    """The addresses are those of its listeners, and each worker is logged when it serves."""
    async with running(lambda number, _: Fake(starts=number)) as supervised:
        assert trio.current_time() == 1
        assert supervised.addresses == [PLACE]
        assert supervised.logged("worker started") == [{"worker": 1, "pid": 42}]
        await trio.sleep(2)
        assert supervised.logged("worker started")[1:] == [{"worker": 2, "pid": 42}]
    assert supervised.supervisor.clean
    assert not supervised.logged("worker gone")


async def test_a_drain_is_for_all_and_waits_for_them(autojump_clock: MockClock) -> None:
    """The listeners close at once; it ends when the last worker has, and nothing was unclean."""
    async with running(lambda number, _: Fake(drains=number)) as supervised:
        await trio.sleep(1)
        began = trio.current_time()
        supervised.supervisor.drain()
        await wait_all_tasks_blocked()
        assert not supervised.listening
    assert trio.current_time() == began + 2
    assert {Order.DRAIN} == {order for worker in supervised.workers for order in worker.orders}
    assert supervised.supervisor.clean


async def test_a_worker_that_had_to_cut_makes_the_stop_unclean(autojump_clock: MockClock) -> None:
    """Its exit code tells, whatever the others say."""
    async with running(lambda number, _: Fake(last=number - 1)) as supervised:
        await trio.sleep(1)
    assert not supervised.supervisor.clean


async def test_a_cut_is_for_all(autojump_clock: MockClock) -> None:
    """Also without a drain before it."""
    async with running() as supervised:
        supervised.supervisor.cut()
        assert [worker.orders[:2] for worker in supervised.workers] == [["drain", "cut"]] * 2


async def test_totals_are_for_the_workers_to_log(autojump_clock: MockClock) -> None:
    """Each is told, and nothing ends by it."""
    async with running() as supervised:
        supervised.supervisor.report()
        assert [worker.orders for worker in supervised.workers] == [[Order.TOTALS]] * 2
        await trio.sleep(100)
        assert not supervised.logged("worker gone")


async def test_a_worker_that_dies_is_started_again(autojump_clock: MockClock) -> None:
    """Soon, and the log says how it ended; the others do not notice."""

    def make(number: int, turn: int) -> Fake:
        return Fake(lives=50, code=-signal.SIGKILL) if (number, turn) == (2, 1) else Fake()

    async with running(make) as supervised:
        await trio.sleep(100)
        assert supervised.starts == {1: [0], 2: [0, 50 + FIRST_PAUSE]}
        assert supervised.logged("worker gone") == [
            {"worker": 2, "how": "signal 9 (Killed)", "again_in": FIRST_PAUSE}
        ]
    assert supervised.supervisor.clean


async def test_a_worker_that_dies_again_and_again_has_growing_pauses(
    autojump_clock: MockClock,
) -> None:
    """They double up to the longest one, and begin anew when it has run for long enough."""
    short, long = 0.5, 2 * SETTLED

    def make(number: int, turn: int) -> Fake:
        return Fake(lives=long if turn == 12 else short) if number == 1 else Fake()

    async with running(make) as supervised:
        await trio.sleep(250)
        pauses = [gone["again_in"] for gone in supervised.logged("worker gone")]
        growing = [min(FIRST_PAUSE * 2**turn, LONGEST_PAUSE) for turn in range(11)]
        assert pauses[:14] == [*growing, FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
        assert pauses[10] == LONGEST_PAUSE
        starts = supervised.starts[1]
        lived = [short] * 11 + [long]
        for turn, (pause, seconds) in enumerate(zip(pauses, lived, strict=False)):
            assert starts[turn + 1] - starts[turn] == pytest.approx(seconds + pause)
        assert len(supervised.starts[2]) == 1


async def test_a_stop_does_not_wait_for_a_pause(autojump_clock: MockClock) -> None:
    """A worker that waits to be started again is not started any more."""
    async with running(lambda number, _: Fake(lives=0.5 if number == 1 else 1e9)) as supervised:
        await trio.sleep(100)
        before = len(supervised.starts[1])
        began = trio.current_time()
    assert trio.current_time() == began
    assert len(supervised.starts[1]) == before


async def test_a_worker_that_does_not_get_ready_is_killed(autojump_clock: MockClock) -> None:
    """And started again, like one that died; the log says that it was us."""

    def make(number: int, turn: int) -> Fake:
        return Fake(starts=1e9) if (number, turn) == (1, 1) else Fake()

    async with running(make) as supervised:
        await trio.sleep(START_LIMIT + 5)
        assert supervised.starts[1] == [0, START_LIMIT + FIRST_PAUSE]
        [killed] = supervised.logged("worker killed")
        assert killed == {"worker": 1, "why": "it did not start"}


async def test_where_none_can_start_it_gives_up(autojump_clock: MockClock) -> None:
    """All have failed, and none was ever ready: it would be the same again."""
    error = pytest.RaisesExc(
        CannotStart, match=r"^none of the 3 workers could start; the last one: exit code 1$"
    )
    with pytest.RaisesGroup(error, flatten_subgroups=True):
        async with running(lambda *_: Fake(starts=1, lives=0.5), count=3):
            raise AssertionError("it runs")
    assert trio.current_time() == 0.5


async def test_where_there_is_no_room_for_a_process_it_gives_up(autojump_clock: MockClock) -> None:
    """In the words of the system."""

    def make(*_: int) -> Fake:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    error = pytest.RaisesExc(CannotStart, match=r"the last one: .*Cannot allocate memory")
    with pytest.RaisesGroup(error, flatten_subgroups=True):
        async with running(make):
            raise AssertionError("it runs")


async def test_one_that_serves_is_reason_enough_to_go_on(autojump_clock: MockClock) -> None:
    """What cannot be started now may be started later, however often it fails."""

    def make(number: int, turn: int) -> Fake:
        if number == 1 and turn < 5:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        return Fake()

    async with running(make) as supervised:
        await trio.sleep(100)
        assert len(supervised.starts[1]) == 5
        assert len(supervised.logged("worker started")) == 2
        gone = supervised.logged("worker gone")[-1]
        assert "Resource temporarily unavailable" in gone["how"]


async def test_workers_that_served_once_are_never_given_up(autojump_clock: MockClock) -> None:
    """What made them all fail may pass, and until then clients wait in the queue."""

    def make(number: int, turn: int) -> Fake:
        return Fake(lives=0.5) if turn == 1 else Fake(starts=1, lives=0.5 if turn < 8 else 1e9)

    async with running(make) as supervised:
        await trio.sleep(100)
        assert [len(starts) for starts in supervised.starts.values()] == [8, 8]


async def test_one_that_fails_alone_is_not_all(autojump_clock: MockClock) -> None:
    """It may fail more often than there are workers while another one takes its time to start."""
    async with running(
        lambda number, _: Fake(starts=20) if number == 2 else Fake(starts=1, lives=0.5)
    ) as supervised:
        assert trio.current_time() == 20
        assert len(supervised.starts[1]) > 2


async def test_a_worker_that_does_not_end_is_killed(autojump_clock: MockClock) -> None:
    """The stop is bounded, by the grace of the workers and a moment; it was not clean."""
    async with running(lambda number, _: Fake(drains=1e9 if number == 1 else 0)) as supervised:
        await trio.sleep(1)
        began = trio.current_time()
    assert trio.current_time() == began + GRACE + LATEST
    assert supervised.logged("worker killed") == [{"worker": 1, "why": "it did not end"}]
    assert not supervised.supervisor.clean


async def test_a_cut_is_bounded_by_a_moment(autojump_clock: MockClock) -> None:
    """No grace is waited for then."""
    async with running(lambda *_: Fake(drains=1e9)) as supervised:
        await trio.sleep(1)
        supervised.supervisor.drain()
        await trio.sleep(1)
        began = trio.current_time()
        supervised.supervisor.cut()
        # `running` drains once more at the end of the block, which prolongs nothing.
    assert trio.current_time() == began + LATEST
    assert not supervised.supervisor.clean


async def test_a_worker_that_is_just_starting_is_drained_too(autojump_clock: MockClock) -> None:
    """It has served nobody, so that whatever it ends with is clean."""
    async with running(
        lambda number, _: Fake(starts=0 if number == 1 else 5, last=0 if number == 1 else -15)
    ) as supervised:
        began = trio.current_time()
    assert trio.current_time() == began
    assert supervised.supervisor.clean


async def test_a_worker_that_is_being_made_is_drained_when_it_is() -> None:
    """The system takes its time to make a process, and the stop comes meanwhile."""
    made = trio.Event()
    supervised = Running(lambda *_: Fake(starts=0), count=2)
    start = supervised.supervisor._start

    async def slow(number: int) -> Any:
        if number == 2:
            await made.wait()
        return await start(number)

    supervised.supervisor._start = slow
    with trio.fail_after(TIMEOUT_SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervised.run)
            supervised.supervisor.drain()
            await wait_all_tasks_blocked()
            made.set()
    assert [worker.orders for worker in supervised.workers] == [[Order.DRAIN]] * 2


async def test_no_process_for_a_worker_does_not_matter_in_a_stop() -> None:
    """It is not needed any more."""
    made = trio.Event()
    supervised = Running(lambda *_: Fake(), count=1)

    async def fail(number: int) -> Any:
        await made.wait()
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    supervised.supervisor._start = fail
    with trio.fail_after(TIMEOUT_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervised.supervisor.run, supervised.holds)
            await wait_all_tasks_blocked()
            supervised.supervisor.drain()
            made.set()
    assert supervised.supervisor.clean


@pytest.mark.parametrize("when", ["before it runs", "while it looks up names", "before any serves"])
async def test_a_stop_before_anybody_serves(autojump_clock: MockClock, when: str) -> None:
    """It reports nothing then, and is clean."""
    supervised = Running(lambda *_: Fake(starts=5))
    if when == "while it looks up names":
        supervised.holds = _never_open
    if when == "before it runs":
        supervised.supervisor.drain()
    with trio.fail_after(TIMEOUT_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nursery.start, supervised.run)
            await trio.sleep(1)
            supervised.supervisor.drain()
    assert supervised.addresses == []
    assert supervised.supervisor.clean
    assert bool(supervised.workers) is (when == "before any serves")


async def _never_open(**_: object) -> None:
    await trio.sleep_forever()
