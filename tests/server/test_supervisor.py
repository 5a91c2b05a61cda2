"""The supervisor, over workers that do as they are told and die when they should."""

import errno
import signal
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import trio
from structlog.testing import CapturingLogger
from tests.helpers.listening import HERE, listener_on, listening
from tests.helpers.waiting import TIMEOUT_SECONDS, VIRTUAL_TIMEOUT_SECONDS
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_upper.server.listeners import CannotListen
from trio_upper.server.pauses import PAUSE_SECONDS, TICK_SECONDS
from trio_upper.server.supervisor import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    OVERDUE_SECONDS,
    SETTLED_SECONDS,
    START_SECONDS,
    CannotStart,
    HeldListeners,
    Supervisor,
)
from trio_upper.server.workers import Order

GRACE = 10.0
ADDRESS = ("127.0.0.1", 5000)

# ------------------------------------------------------------------ the parent's listeners


@asynccontextmanager
async def holding(
    listeners: HeldListeners,
) -> AsyncGenerator[list[tuple[str, int]]]:
    """Hold listeners inside the block; yield the addresses and ports."""
    with trio.fail_after(TIMEOUT_SECONDS):
        async with trio.open_nursery() as nursery:
            yield await nursery.start(listeners.hold)
            nursery.cancel_scope.cancel()


async def test_a_parent_has_listeners_open_and_does_not_accept() -> None:
    """A client waits in the queue until a worker accepts it, or the listeners close."""
    listeners = HeldListeners([HERE, "127.87.48.2"], 0)
    async with holding(listeners) as opened:
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
    """Hosts and port do not matter then; at the end it closes its copies."""
    with listening() as bound:
        copy = listener_on(bound)
        async with holding(HeldListeners(["192.0.2.1"], 1, [copy])) as opened:
            assert opened == [bound.getsockname()]
        assert copy.socket.fileno() == -1


async def test_a_parent_that_cannot_listen_says_why() -> None:
    """As a server does."""
    with pytest.RaisesGroup(
        pytest.RaisesExc(CannotListen, match="no such address"), flatten_subgroups=True
    ):
        async with holding(HeldListeners(["192.0.2.1"], 0)):
            raise AssertionError("it listens")


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
        self.reports = 0
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
        self._end(self._drains, self._last)

    def report(self) -> None:
        self.reports += 1

    def kill(self) -> None:
        self._end(0, -signal.SIGKILL)

    def close(self) -> None:
        assert self._over.is_set()
        self.closed = True

    def end(self) -> None:
        """End by itself, at once."""
        self._end(0, self._last)

    def _end(self, seconds: float, code: int) -> None:
        self._life.deadline = min(self._life.deadline, trio.current_time() + seconds)
        self._code = code


class Unwatched(Fake):
    """A worker whose end cannot be waited for."""

    async def ended(self) -> int:
        raise RuntimeError("can't start new thread")

    def close(self) -> None:
        self.kill()
        self._over.set()
        super().close()


Make = Callable[[int, int], Fake]


class Running:
    """A supervisor that runs, over workers that `make` makes: of their number and their turn.

    `make` may raise `OSError`: then the worker could not be started.
    """

    def __init__(self, make: Make, *, count: int = 2) -> None:
        self.events = CapturingLogger()
        log = structlog.wrap_logger(self.events, processors=[])
        held: Any = self
        self.supervisor = Supervisor(held, self._start, log, count=count, grace=GRACE)
        self.addresses: list[tuple[str, int]] = []
        self.listening = False
        self.open: list[trio.SocketListener] = []
        #: When each worker was started, by its number.
        self.starts: dict[int, list[float]] = {number: [] for number in range(1, count + 1)}
        self.workers: list[Fake] = []
        self._make = make
        self._lives: trio.Nursery | None = None

    async def _start(self, number: int, _: Sequence[trio.SocketListener]) -> Fake:
        await trio.lowlevel.checkpoint()
        self.starts[number].append(trio.current_time())
        worker = self._make(number, len(self.starts[number]))
        assert self._lives
        self._lives.start_soon(worker.live)
        self.workers.append(worker)
        return worker

    async def hold(self, *, task_status: trio.TaskStatus[list[tuple[str, int]]]) -> None:
        self.listening = True
        task_status.started([ADDRESS])
        try:
            await trio.sleep_forever()
        finally:
            self.listening = False

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as self._lives, trio.open_nursery() as nursery:
            self.addresses = await nursery.start(self.supervisor.run)
            task_status.started()

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the fields of all events of that name."""
        calls = [dict(call.kwargs) for call in self.events.calls]
        return [fields for fields in calls if fields.pop("event") == event]


@asynccontextmanager
async def running(make: Make = lambda *_: Fake(), *, count: int = 2) -> AsyncGenerator[Running]:
    """Run a supervisor; at the end stop it, unless that was done, and wait until it has."""
    supervised = Running(make, count=count)
    with trio.fail_after(VIRTUAL_TIMEOUT_SECONDS):
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
        assert supervised.addresses == [ADDRESS]
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
        assert [worker.orders[:2] for worker in supervised.workers] == [
            [Order.DRAIN, Order.CUT]
        ] * 2


async def test_totals_are_for_the_workers_to_log(autojump_clock: MockClock) -> None:
    """Each is told, and nothing ends by it."""
    async with running() as supervised:
        supervised.supervisor.report()
        assert [worker.reports for worker in supervised.workers] == [1, 1]
        await trio.sleep(100)
        assert not supervised.logged("worker gone")


async def test_a_worker_that_dies_is_started_again(autojump_clock: MockClock) -> None:
    """Soon, and the log says how it ended; the others do not notice."""

    def make(number: int, turn: int) -> Fake:
        return Fake(lives=50, code=-signal.SIGKILL) if (number, turn) == (2, 1) else Fake()

    async with running(make) as supervised:
        await trio.sleep(100)
        assert supervised.starts == {1: [0], 2: [0, 50 + FIRST_PAUSE_SECONDS]}
        assert supervised.logged("worker gone") == [
            {"worker": 2, "how": "signal 9 (Killed)", "again_in": FIRST_PAUSE_SECONDS}
        ]
    assert supervised.supervisor.clean


async def test_a_worker_that_dies_again_and_again_has_growing_pauses(
    autojump_clock: MockClock,
) -> None:
    """They double up to the longest one, and begin anew when it has run for long enough."""
    short, long = 0.5, 2 * SETTLED_SECONDS

    def make(number: int, turn: int) -> Fake:
        return Fake(lives=long if turn == 12 else short) if number == 1 else Fake()

    async with running(make) as supervised:
        await trio.sleep(250)
        pauses = [gone["again_in"] for gone in supervised.logged("worker gone")]
        growing = [min(FIRST_PAUSE_SECONDS * 2**turn, LONGEST_PAUSE_SECONDS) for turn in range(11)]
        assert pauses[:14] == [
            *growing,
            FIRST_PAUSE_SECONDS,
            2 * FIRST_PAUSE_SECONDS,
            4 * FIRST_PAUSE_SECONDS,
        ]
        assert pauses[10] == LONGEST_PAUSE_SECONDS
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
        await trio.sleep(START_SECONDS + 5)
        assert supervised.starts[1] == [0, START_SECONDS + FIRST_PAUSE_SECONDS]
        [killed] = supervised.logged("worker killed")
        assert killed == {"worker": 1, "why": "it did not start"}


async def test_where_none_can_start_it_gives_up(autojump_clock: MockClock) -> None:
    """All have failed and no worker was ever ready: it would be the same again."""
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


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EAGAIN, "Resource temporarily unavailable"),
        RuntimeError("can't start new thread"),
        MemoryError(),
    ],
)
async def test_one_that_serves_is_reason_enough_to_go_on(
    autojump_clock: MockClock, error: Exception
) -> None:
    """What cannot be started now may be started later, however often it fails."""

    def make(number: int, turn: int) -> Fake:
        if number == 1 and turn < 5:
            raise error
        return Fake()

    async with running(make) as supervised:
        await trio.sleep(100)
        assert len(supervised.starts[1]) == 5
        assert len(supervised.logged("worker started")) == 2
        gone = supervised.logged("worker gone")[-1]
        assert gone["how"] == (str(error) or "MemoryError")
        assert [gone["again_in"] for gone in supervised.logged("worker gone")] == [
            FIRST_PAUSE_SECONDS * 2**turn for turn in range(4)
        ]


async def test_a_worker_that_cannot_be_waited_for_is_killed_and_started_again(
    autojump_clock: MockClock,
) -> None:
    """Where waiting takes a thread, and no thread can be started."""

    def make(number: int, turn: int) -> Fake:
        return Unwatched() if (number, turn) == (2, 1) else Fake()

    async with running(make) as supervised:
        await trio.sleep(10)
        assert supervised.logged("worker gone") == [
            {"worker": 2, "how": "can't start new thread", "again_in": FIRST_PAUSE_SECONDS}
        ]
        assert len(supervised.starts[2]) == 2


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
    assert trio.current_time() == pytest.approx(began + GRACE + OVERDUE_SECONDS, abs=TICK_SECONDS)
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
    assert trio.current_time() == pytest.approx(began + OVERDUE_SECONDS, abs=TICK_SECONDS)
    assert not supervised.supervisor.clean


@pytest.fixture
def still_clock() -> MockClock:
    """Give a clock that a test moves itself: a jump is a pause in which nothing could run."""
    return MockClock()


async def pass_time(clock: MockClock, seconds: float) -> None:
    """Let some time pass in which everything can run."""
    for _ in range(round(seconds / TICK_SECONDS)):
        clock.jump(TICK_SECONDS)
        await wait_all_tasks_blocked()


async def pause(clock: MockClock, seconds: float) -> None:
    """Let some time pass in which nothing can run."""
    clock.jump(seconds)
    await wait_all_tasks_blocked()


@pytest.mark.parametrize("cuts", [False, True])
async def test_a_pause_of_all_in_a_stop_kills_no_worker(still_clock: MockClock, cuts: bool) -> None:
    """Their own grace stands still meanwhile: the clients are answered, and the stop is clean."""
    async with running(lambda *_: Fake(starts=0, drains=1e9), count=1) as supervised:
        await pass_time(still_clock, 1)
        supervised.supervisor.drain()
        if cuts:
            supervised.supervisor.cut()
        await wait_all_tasks_blocked()
        await pause(still_clock, 3600)
        left = OVERDUE_SECONDS if cuts else GRACE + OVERDUE_SECONDS
        await pass_time(still_clock, left - PAUSE_SECONDS - TICK_SECONDS)
        assert not supervised.logged("worker killed")
        supervised.workers[0].end()
    assert supervised.supervisor.clean


async def test_after_a_pause_an_overdue_worker_is_killed(still_clock: MockClock) -> None:
    """The stop is still bounded, by the time in which it could run."""
    async with running(lambda *_: Fake(starts=0, drains=1e9), count=1) as supervised:
        await pass_time(still_clock, 1)
        supervised.supervisor.drain()
        await wait_all_tasks_blocked()
        await pause(still_clock, 3600)
        await pass_time(still_clock, GRACE + OVERDUE_SECONDS)
        assert supervised.logged("worker killed") == [{"worker": 1, "why": "it did not end"}]
    assert not supervised.supervisor.clean


async def test_a_pause_of_all_in_a_start_kills_no_worker(still_clock: MockClock) -> None:
    """It goes on where it was."""
    supervised = Running(lambda *_: Fake(starts=3601), count=1)
    with trio.fail_after(VIRTUAL_TIMEOUT_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nursery.start, supervised.run)
            await wait_all_tasks_blocked()
            await pause(still_clock, 3600)
            await pass_time(still_clock, 2)
            assert supervised.addresses == [ADDRESS]
            assert not supervised.logged("worker killed")
            supervised.supervisor.drain()


async def test_a_worker_that_is_just_starting_is_drained_too(autojump_clock: MockClock) -> None:
    """It has served no client, so that any exit code is clean."""
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

    async def slow(number: int, listeners: Any) -> Any:
        if number == 2:
            await made.wait()
        return await start(number, listeners)

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

    async def fail(number: int, listeners: Any) -> Any:
        await made.wait()
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    supervised.supervisor._start = fail
    with trio.fail_after(TIMEOUT_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervised.supervisor.run)
            await wait_all_tasks_blocked()
            supervised.supervisor.drain()
            made.set()
    assert supervised.supervisor.clean


@pytest.mark.parametrize("when", ["before it runs", "while it looks up names", "before any serves"])
async def test_a_stop_before_anybody_serves(autojump_clock: MockClock, when: str) -> None:
    """It reports nothing then, and is clean."""
    supervised = Running(lambda *_: Fake(starts=5))
    if when == "while it looks up names":
        supervised.hold = _never_open  # type: ignore[method-assign]
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
