"""Keeps workers running: starts them, starts them again when they end, and stops them.

All workers accept from the same queues, in which clients wait while a worker is started again.
"""

import math
import signal
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import trio

from trio_upper.server.listeners import address_of, listen, resolve_hosts
from trio_upper.server.pauses import Countdown
from trio_upper.server.workers import START_ERRORS, Order, Worker

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

# A worker that does not serve after this time never will: a start takes less than a second, and
# some seconds on a machine where all of them start at once.
START_SECONDS = 30.0

# The pause between the end of a worker and the start of the next one. The first keeps the outage
# short; it doubles each time up to the longest one, so that workers which cannot run cost a machine
# next to nothing. A worker that has run for SETTLED_SECONDS has the first pause again.
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 30.0
SETTLED_SECONDS = 10.0

# A worker that has not ended this long after it should have is killed.
OVERDUE_SECONDS = 5.0

Address = tuple[str, int]


class CannotStart(Exception):
    """No worker can be started; the text says how the last one ended."""


class HeldListeners:
    """The listeners of a parent, which does not accept, but passes them to its workers."""

    def __init__(
        self, hosts: Iterable[str], port: int, inherited: Iterable[trio.SocketListener] = ()
    ) -> None:
        """Those on `hosts` and `port`, as `listeners.listen` has it, or the `inherited` ones."""
        self._hosts = hosts
        self._port = port
        #: Those that are open.
        self.open = list(inherited)

    async def hold(self, *, task_status: trio.TaskStatus[list[Address]]) -> None:
        """Have them open until cancelled, and close them then.

        Reports addresses and ports when all are open; `CannotListen` escapes.
        """
        if not self.open:
            addresses = await resolve_hosts(self._hosts)
            await listen(self._open, addresses, self._port, task_status=task_status)
        try:
            task_status.started([address_of(listener) for listener in self.open])
            await trio.sleep_forever()
        finally:
            for listener in self.open:
                listener.socket.close()

    async def _open(
        self, port: int, *, host: str, task_status: trio.TaskStatus[list[trio.SocketListener]]
    ) -> None:
        """Listen as `trio.serve_tcp` does, but do not accept."""
        [listener] = await trio.open_tcp_listeners(port, host=host)
        async with listener:
            self.open.append(listener)
            task_status.started([listener])
            try:
                await trio.sleep_forever()
            finally:
                self.open.remove(listener)


class Supervisor:
    """Keeps workers running. `run` it once; `drain` and `cut` stop it, from any task.

    Three nurseries, one inside the other, as in a server: the innermost holds the listeners, the
    one around it a task for each worker, the outermost the task that kills overdue workers. To stop
    is to cancel the innermost; the next one ends by itself as the workers do.
    """

    def __init__(
        self,
        listeners: HeldListeners,
        start: Callable[[int, Sequence[trio.SocketListener]], Awaitable[Worker]],
        log: "FilteringBoundLogger",
        *,
        count: int,
        grace: float,
    ) -> None:
        """`start` starts worker 1 to `count` on open listeners, or raises one of `START_ERRORS`.

        `grace`, in seconds, is how long they have to drain.
        """
        self._listeners = listeners
        self._start = start
        self._log = log
        self._count = count
        self._grace = grace
        self._running: dict[int, Worker] = {}
        self._never_served: set[int] = set()
        self._serving = trio.Event()
        self._stopping = trio.Event()
        self._listening = trio.CancelScope()
        self._time = Countdown(math.inf)
        #: Whether all workers that were told to stop have ended by themselves and cut no client.
        self.clean = True

    def drain(self) -> None:
        """Stop listening and have all workers drain; `run` returns when they have ended."""
        self._time.left = min(self._time.left, self._grace + OVERDUE_SECONDS)
        self._stopping.set()
        self._listening.cancel()
        self._tell(Order.DRAIN)

    def cut(self) -> None:
        """Have all workers stop at once."""
        self.drain()
        self._time.left = min(self._time.left, OVERDUE_SECONDS)
        self._tell(Order.CUT)

    def report(self) -> None:
        """Have each worker log its totals."""
        for worker in self._running.values():
            worker.report()

    def _tell(self, order: Order) -> None:
        for worker in self._running.values():
            worker.tell(order)

    async def run(
        self, *, task_status: trio.TaskStatus[list[Address]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run the workers until `drain` or `cut`.

        Reports the addresses and ports when the first worker serves; none if it was stopped before
        that.

        Error handling: `CannotListen` and `CannotStart` escape, mostly in an `ExceptionGroup`.
        """
        addresses: list[Address] = []
        async with trio.open_nursery() as background:
            background.start_soon(self._kill_overdue)
            async with trio.open_nursery() as keepers:
                with self._listening:
                    async with trio.open_nursery() as listeners:
                        opened = await listeners.start(self._listeners.hold)
                        for number in range(1, self._count + 1):
                            keepers.start_soon(self._keep, number)
                        await self._serving.wait()
                        addresses = opened
                        task_status.started(addresses)
                if not addresses:
                    task_status.started([])
            background.cancel_scope.cancel()

    async def _kill_overdue(self) -> None:
        await self._stopping.wait()
        while self._time.left > 0:
            with self._time.tick():
                await trio.sleep_forever()
        for number, worker in self._running.items():
            self._log.warning("worker killed", worker=number, why="it did not end")
            worker.kill()

    async def _keep(self, number: int) -> None:
        """Have worker `number` run; when it ends, start it again, unless all are stopping."""
        log = self._log.bind(worker=number)
        pause = FIRST_PAUSE_SECONDS
        while True:
            began = trio.current_time()
            how = await self._run_once(number, log)
            if self._stopping.is_set():
                return
            if trio.current_time() - began >= SETTLED_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            log.warning("worker gone", how=how, again_in=pause)
            with trio.move_on_after(pause):
                await self._stopping.wait()
                return
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _run_once(self, number: int, log: "FilteringBoundLogger") -> str:
        """Run worker `number` until it ends; return how it did."""
        try:
            worker = await self._start(number, self._listeners.open)
            return await self._attend(number, worker, log)
        except START_ERRORS as error:
            how = str(error) or type(error).__name__
            self._count_failure(number, how)
            return how

    async def _attend(self, number: int, worker: Worker, log: "FilteringBoundLogger") -> str:
        self._running[number] = worker
        try:
            if self._stopping.is_set():
                worker.tell(Order.DRAIN)
            served = await self._becomes_ready(worker, log)
            code = await worker.ended()
        finally:
            del self._running[number]
            worker.close()
        how = f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"
        if not served:
            self._count_failure(number, how)
        elif code and self._stopping.is_set():
            self.clean = False
        return how

    async def _becomes_ready(self, worker: Worker, log: "FilteringBoundLogger") -> bool:
        """Return whether `worker` came to serve; if that takes too long, kill it."""
        time = Countdown(START_SECONDS)
        while time.left > 0:
            with time.tick():
                served = await worker.ready()
                if served:
                    log.info("worker started", pid=worker.pid)
                    self._serving.set()
                return served
        log.warning("worker killed", why="it did not start")
        worker.kill()
        return False

    def _count_failure(self, number: int, how: str) -> None:
        """Give up, by `CannotStart`, if all have failed to start and none has ever served."""
        self._never_served.add(number)
        hopeless = len(self._never_served) == self._count and not self._serving.is_set()
        if hopeless and not self._stopping.is_set():
            raise CannotStart(f"none of the {self._count} workers could start; the last one: {how}")
