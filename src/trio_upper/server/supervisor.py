"""Listeners from another process: inherited from systemd, or from a parent that supervises workers.

Both hand them over by the convention of systemd's socket activation (sd_listen_fds(3)), so that a
worker is a server like any other. All workers accept from the same queues, in which clients wait
while a process is started again.

A worker has one thing more, a line to its parent: a pair of sockets, of which the worker's end is
its standard input. On it the worker says that it serves, and hears orders. Signals would not do:
one that comes before the worker is prepared kills it, and one that somebody sends to both, as
systemd does with SIGTERM, would count twice. The line ends when the parent has gone, in whatever
way. (PR_SET_PDEATHSIG tells a worker when the *thread* that started it has gone, see prctl(2), and
Trio's do go.)
"""

import contextlib
import enum
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Protocol, Self

import trio

from trio_upper.server.listeners import CannotListen, address_of, listen, resolve_hosts

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

# The number of the first inherited descriptor: SD_LISTEN_FDS_START.
FIRST_INHERITED = 3

# In the environment of a worker, its number, from 1 on.
WORKER = "TRIO_UPPER_WORKER"

# What a worker says, once: clients are served from now on.
READY = b"ready"

# No word on the line has more bytes.
LONGEST_WORD = 16

# A worker that has not said that it serves within so many seconds never will: a start takes less
# than one, and some more on a machine where all of them start at once.
START_LIMIT = 30.0

# Between the end of a worker and the start of the next one, in seconds. The first pause keeps the
# outage short; it doubles each time up to the longest one, so that workers which cannot run cost a
# machine next to nothing. A worker that has run for so long as SETTLED has the first pause again.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0
SETTLED = 10.0

# A worker that has not ended by itself so many seconds after it had to is killed.
LATEST = 5.0

# What a worker's interpreter runs first, for only the process itself can tell its id. It moves the
# listeners to where they must be and becomes the program. Their numbers are 3 or more and ascend,
# so that none is overwritten before it was moved.
BECOME = f"""
import os, sys
numbers, *command = sys.argv[1:]
for target, number in enumerate(map(int, numbers.split(",")), start={FIRST_INHERITED}):
    if number != target:
        os.dup2(number, target)
        os.close(number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(command[0], command)
"""


Address = tuple[str, int]

# What has listeners open until it is cancelled, and reports where; `Listeners.hold` is one.
Hold = Callable[..., Awaitable[None]]


class Order(enum.StrEnum):
    """What a parent has its workers do."""

    DRAIN = "drain"
    CUT = "cut"
    TOTALS = "totals"


class CannotStart(Exception):
    """No worker can be started; the text says how the last one ended."""


# ------------------------------------------------------------------ inherited listeners


def are_inherited(environment: Mapping[str, str]) -> bool:
    """Return whether listeners were passed to this process, and not to one that it comes from."""
    return environment.get("LISTEN_PID") == str(os.getpid())


def inherited(
    environment: MutableMapping[str, str], *, first: int = FIRST_INHERITED
) -> tuple[trio.SocketListener, ...]:
    """Adopt the listeners that were passed to this process, if any.

    The variables are removed from `environment`, so that no child takes them for its own.

    Error handling: `CannotListen` for what is no number or no listening TCP socket.
    """
    ours = are_inherited(environment)
    count = environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_PID", None)
    environment.pop("LISTEN_FDNAMES", None)
    if not ours:
        return ()
    if not (count.isascii() and count.isdigit()):
        raise CannotListen(f"cannot inherit listeners: LISTEN_FDS is {count!r}, which is no number")
    return tuple(_adopt(number) for number in range(first, first + int(count)))


def _adopt(number: int) -> trio.SocketListener:
    why = "it is no socket"
    with contextlib.suppress(OSError):
        adopted = socket.socket(fileno=number)
        if _is_listener(adopted):
            adopted.set_inheritable(False)
            return trio.SocketListener(trio.socket.from_stdlib_socket(adopted))
        adopted.close()
        why = "it is no listening TCP socket; a socket unit needs ListenStream= and Accept=no"
    raise CannotListen(f"cannot inherit descriptor {number}: {why}")


def _is_listener(adopted: socket.socket) -> bool:
    return (
        adopted.family in {socket.AF_INET, socket.AF_INET6}
        and adopted.type == socket.SOCK_STREAM
        and bool(adopted.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    )


# ------------------------------------------------------------------ a worker's side of the line


class Parent:
    """What a worker knows of its parent."""

    def __init__(self, number: int, line: socket.socket) -> None:
        #: The worker's own number.
        self.number = number
        self._line = trio.socket.from_stdlib_socket(line)

    @classmethod
    def find(cls, environment: MutableMapping[str, str], *, line: int = 0) -> Self | None:
        """Return the parent of this process, if it is a worker, to which descriptor `line` leads.

        The variable that tells is removed from `environment`, so that no child takes it for its.
        """
        number = environment.pop(WORKER, None)
        if number is None:
            return None
        return cls(int(number), socket.fromfd(line, socket.AF_UNIX, socket.SOCK_SEQPACKET))

    async def tell_ready(self) -> None:
        """Say that clients are served from now on."""
        with contextlib.suppress(BrokenPipeError):  # `next_order` will tell
            await self._line.send(READY)

    async def next_order(self) -> Order | None:
        """Wait for an order, and return it; None: the parent has gone."""
        try:
            word = await self._line.recv(LONGEST_WORD)
        except ConnectionResetError:  # gone before it read that we are ready
            return None
        return Order(word.decode()) if word else None


# ------------------------------------------------------------------ the parent's side


class Worker(Protocol):
    """A process that serves, as its parent has it."""

    @property
    def pid(self) -> int:
        """Its process id."""

    async def ready(self) -> bool:
        """Wait until it serves; False: it has ended, and never did."""

    async def ended(self) -> int:
        """Wait until it has ended; return its exit code, or minus the signal that killed it."""

    def tell(self, order: Order) -> None:
        """Give it an order, which is lost if it has ended."""

    def kill(self) -> None:
        """See to it that it ends, at once."""

    def close(self) -> None:
        """Forget it; call this when it has ended. If it has not, it ends then."""


class WorkerProcess:
    """A worker as a process; `start` makes one."""

    def __init__(self, process: trio.Process, line: socket.socket) -> None:
        self._process = process
        self._line = line
        line.setblocking(False)

    @classmethod
    async def start(
        cls, number: int, command: Sequence[str], listeners: Iterable[trio.SocketListener]
    ) -> Self:
        """Start `command`, which makes a server of its inherited `listeners`, as worker `number`.

        It has a session of its own: Ctrl-C at a terminal is for the parent alone.

        Error handling: `OSError` escapes if the system has no room for a process.
        """
        numbers = sorted(listener.socket.fileno() for listener in listeners)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.ExitStack() as undo, theirs:
            undo.enter_context(ours)
            process = await trio.lowlevel.open_process(
                [sys.executable, "-ISc", BECOME, ",".join(map(str, numbers)), *command],
                stdin=theirs,
                pass_fds=numbers,
                env=os.environ | {WORKER: str(number), "LISTEN_FDS": str(len(numbers))},
                start_new_session=True,
            )
            undo.pop_all()
        return cls(process, ours)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ready(self) -> bool:
        """Wait until it serves; False: it has ended, and never did."""
        await trio.lowlevel.wait_readable(self._line)
        try:
            return self._line.recv(LONGEST_WORD) == READY
        except ConnectionResetError:  # ended before it read an order
            return False

    async def ended(self) -> int:
        """Wait until it has ended; return its exit code, or minus the signal that killed it."""
        return await self._process.wait()

    def tell(self, order: Order) -> None:
        """Give it an order, which is lost if it has ended, or has not heard the last dozens."""
        with contextlib.suppress(OSError):
            self._line.send(order.encode())

    def kill(self) -> None:
        """See to it that it ends, at once."""
        self._process.kill()

    def close(self) -> None:
        """Forget it; call this when it has ended. If it has not, it ends then."""
        self._process.kill()
        self._line.close()


class Listeners:
    """The listeners of a parent, which accepts nobody: it hands them over."""

    def __init__(self, inherited: Iterable[trio.SocketListener] = ()) -> None:
        #: Those that are open.
        self.open = list(inherited)

    async def hold(
        self, hosts: Iterable[str], port: int, *, task_status: trio.TaskStatus[list[Address]]
    ) -> None:
        """Have listeners open until cancelled, and close them then.

        Those that were inherited; if there are none, on `hosts` and `port`, as `listening.listen`
        has it. Reports addresses and ports when all are open; `CannotListen` escapes.
        """
        if not self.open:
            await listen(self._open, await resolve_hosts(hosts), port, task_status=task_status)
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


# ------------------------------------------------------------------ the supervisor


class Supervisor:
    """Keeps workers running. `run` it once; `drain` and `cut` stop it, from any task.

    Three nurseries, one inside the other, as in a server: the innermost holds the listeners, the
    one around it a task for each worker, the outermost the task that kills who is late. To stop is
    to cancel the innermost; the next one ends by itself as the workers do.
    """

    def __init__(
        self,
        start: Callable[[int], Awaitable[Worker]],
        log: "FilteringBoundLogger",
        *,
        count: int,
        grace: float,
    ) -> None:
        """`start` starts worker 1 to `count`, or raises `OSError`; `grace` in seconds is theirs."""
        self._start = start
        self._log = log
        self._count = count
        self._grace = grace
        self._running: dict[int, Worker] = {}
        self._never_served: set[int] = set()
        self._serving = trio.Event()
        self._stopping = trio.Event()
        self._listening = trio.CancelScope()
        self._patience = trio.CancelScope()
        #: Whether all that were told to stop have ended by themselves, and cut no client.
        self.clean = True

    def drain(self) -> None:
        """Stop listening and have all workers drain; `run` returns when they have ended."""
        self._end_within(self._grace + LATEST)
        self._stopping.set()
        self._listening.cancel()
        self._tell(Order.DRAIN)

    def cut(self) -> None:
        """Have all workers stop at once."""
        self.drain()
        self._end_within(LATEST)
        self._tell(Order.CUT)

    def report(self) -> None:
        """Have each worker log its totals."""
        self._tell(Order.TOTALS)

    def _end_within(self, seconds: float) -> None:
        deadline = trio.current_time() + seconds
        self._patience.deadline = min(self._patience.deadline, deadline)

    def _tell(self, order: Order) -> None:
        for worker in self._running.values():
            worker.tell(order)

    async def run(
        self,
        hold: Hold,
        *,
        task_status: trio.TaskStatus[list[Address]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run the workers until `drain` or `cut`.

        `hold` has the listeners open. Reports the addresses and ports when
        the first worker serves; none if it was stopped before that.

        Error handling: `CannotListen` and `CannotStart` escape, mostly in an `ExceptionGroup`.
        """
        addresses: list[Address] = []
        async with trio.open_nursery() as background:
            background.start_soon(self._kill_the_late)
            async with trio.open_nursery() as keepers:
                with self._listening:
                    async with trio.open_nursery() as listeners:
                        opened = await listeners.start(hold)
                        for number in range(1, self._count + 1):
                            keepers.start_soon(self._keep, number)
                        await self._serving.wait()
                        addresses = opened
                        task_status.started(addresses)
                if not addresses:
                    task_status.started([])
            background.cancel_scope.cancel()

    async def _kill_the_late(self) -> None:
        with self._patience:
            await trio.sleep_forever()
        for number, worker in self._running.items():
            self._log.warning("worker killed", worker=number, why="it did not end")
            worker.kill()

    async def _keep(self, number: int) -> None:
        """Have worker `number` run until it is told to stop: when it ends, start it again."""
        log = self._log.bind(worker=number)
        pause = FIRST_PAUSE
        while True:
            began = trio.current_time()
            how = await self._run_once(number, log)
            if self._stopping.is_set():
                return
            if trio.current_time() - began >= SETTLED:
                pause = FIRST_PAUSE
            log.warning("worker gone", how=how, again_in=pause)
            with trio.move_on_after(pause):
                await self._stopping.wait()
                return
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _run_once(self, number: int, log: "FilteringBoundLogger") -> str:
        """Run worker `number` until it ends; return how it did."""
        try:
            worker = await self._start(number)
        except OSError as error:
            self._count_failure(number, str(error))
            return str(error)
        self._running[number] = worker
        try:
            if self._stopping.is_set():
                worker.tell(Order.DRAIN)
            served = await self._has_served(worker, log)
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

    async def _has_served(self, worker: Worker, log: "FilteringBoundLogger") -> bool:
        """Return whether `worker` got as far as to serve; if that takes too long, kill it."""
        with trio.move_on_after(START_LIMIT):
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
