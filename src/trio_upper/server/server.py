"""The server: listens, accepts with `trio.serve_tcp`, serves its clients, drains, and stops.

Three nurseries, one inside the other: the innermost holds the listeners, the one around it the
client tasks, the outermost the inspection and the poller. To stop accepting is to cancel the
innermost; the clients' then ends by itself as they are drained, or is cut; the outermost goes last.
"""

import contextlib
import math
import socket
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import trio

from trio_upper.platform import open_descriptors, open_edge_poller, raise_descriptor_limit
from trio_upper.server.clients import LINGERING, Clients, Totals
from trio_upper.server.events import Log, SilentLog
from trio_upper.server.listeners import (
    Backlog,
    ListenAddress,
    SharedListener,
    accept_errors_in,
    listen,
    peer_name,
    prepare,
    resolve_hosts,
)
from trio_upper.server.pauses import PAUSE_SECONDS
from trio_upper.server.poller import PolledStream, Poller
from trio_upper.server.settings import ServerSettings
from trio_upper.server.streams import PlainStream, take_socket

__all__ = ["Server", "Totals"]

# How often the clients are inspected: during the drain, and otherwise at most. In between it is a
# fraction of the shortest timeout, which is kept to within a tenth that way.
DRAIN_TICK_SECONDS = 0.02
LONGEST_TICK_SECONDS = 1.0
TICKS_PER_TIMEOUT = 20

# The inspection's clock advances by this many ticks at most from one inspection to the next: a busy
# server is late, and its clients are not to suffer for it. After a pause of the whole process all
# deadlines begin anew.
TICKS_AT_ONCE = 2

# How many connections are accepted at a time, so that connected clients are served in between; and
# how many at most when the server stops, more than any queue holds.
ACCEPTED_AT_ONCE = 64
ACCEPTED_AT_LAST = 65536

# Where descriptors are few, refused clients have one in LINGERING_SHARE. SPARE_DESCRIPTORS are kept
# for what a process opens now and then.
LINGERING_SHARE = 8
SPARE_DESCRIPTORS = 24


class Server:
    """One server. `run` it once; `drain` and `cut` stop it, from any task."""

    def __init__(self, settings: ServerSettings, log: Log | None = None) -> None:
        """Without a `log`, the server is silent."""
        self._settings = settings
        self._log: Log = log or SilentLog()
        self._clients = Clients(
            self._log,
            capacity=settings.max_clients,
            idle_timeout=settings.idle_timeout,
            write_timeout=settings.write_timeout,
            tls=settings.tls,
        )
        self._clock = 0.0
        self._poller: Poller | None = None
        self._backlogs: list[Backlog] = []
        self._arriving = 0
        self._stopping = trio.Event()
        self._resolving = trio.CancelScope()
        self._cutting = trio.CancelScope()
        self._tasks: trio.Nursery

    def drain(self) -> None:
        """Stop accepting, answer what is in flight, then close; `run` returns after that."""
        self._clients.drain(self._clock)
        self._resolving.cancel()
        self._stopping.set()

    def cut(self) -> None:
        """Stop at once: clients that were not sent their notice are cut."""
        self.drain()
        self._cutting.cancel()

    @property
    def totals(self) -> Totals:
        """What the server has done until now, with what its present clients have sent and got."""
        return self._clients.totals

    async def run(
        self, *, task_status: trio.TaskStatus[list[tuple[str, int]]] = trio.TASK_STATUS_IGNORED
    ) -> Totals:
        """Serve until `drain` or `cut`; return what has been done.

        Reports the addresses and ports listened on when clients can connect; none if it was
        stopped before that.

        Error handling: `CannotListen` escapes, mostly in an `ExceptionGroup`. What goes wrong
        with one client is logged and ends that one alone.
        """
        with self._resolving:
            addresses = await self._resolve_hosts()
        if self._resolving.cancelled_caught:
            task_status.started([])
            return self.totals
        inherited = len(self._settings.inherited)  # open already, but for their backlogs
        self._limit_capacity(2 * len(addresses) + inherited)
        listening: list[tuple[str, int]] = []
        async with trio.open_nursery() as background:
            background.start_soon(self._inspect_clients)
            if edge_poller := open_edge_poller():
                self._poller = Poller(edge_poller)
                background.start_soon(self._poller.run)
            with self._cutting, accept_errors_in(self._log):
                async with trio.open_nursery() as self._tasks:
                    with self._serving_the_rest():
                        async with trio.open_nursery() as listeners:
                            listening = await self._listen(listeners, addresses)
                            task_status.started(listening)
                            await self._stopping.wait()
                            listeners.cancel_scope.cancel()
            if not listening:
                task_status.started([])
            background.cancel_scope.cancel()
        return self.totals

    # ------------------------------------------------------------------ accepting

    async def _resolve_hosts(self) -> list[ListenAddress]:
        return [] if self._settings.inherited else await resolve_hosts(self._settings.hosts)

    async def _listen(
        self, nursery: trio.Nursery, addresses: list[ListenAddress]
    ) -> list[tuple[str, int]]:
        if addresses:
            serve = partial(trio.serve_tcp, self._accept, handler_nursery=self._tasks)
            opened: list[tuple[str, int]]
            opened = await nursery.start(
                partial(listen, when_open=self._add_backlogs),
                serve,
                addresses,
                self._settings.port,
            )
            return opened
        shared = [SharedListener(listener, self._is_full) for listener in self._settings.inherited]
        nursery.start_soon(
            partial(trio.serve_listeners, self._accept, shared, handler_nursery=self._tasks)
        )
        self._add_backlogs(self._settings.inherited, is_full=self._is_full)
        return [listener.address for listener in shared]

    def _add_backlogs(
        self, listeners: Iterable[trio.SocketListener], is_full: Callable[[], bool] = bool
    ) -> None:
        self._backlogs += [Backlog(listener, is_full) for listener in listeners]

    @contextlib.contextmanager
    def _serving_the_rest(self) -> Iterator[None]:
        """When all listeners are closed, serve the clients that are left in their queues."""
        try:
            yield
        finally:
            for backlog in self._backlogs:
                with contextlib.closing(backlog):
                    if self._stopping.is_set():
                        self._accept_waiting(backlog, ACCEPTED_AT_LAST)

    async def _accept(self, accepted: trio.SocketStream) -> None:
        """Serve a client, and bring in those that wait behind it.

        `trio.serve_tcp` accepts one connection in each pass of the scheduler, which takes
        milliseconds when the server is busy.
        """
        self._arriving += 1
        for backlog in self._backlogs:
            self._accept_waiting(backlog, ACCEPTED_AT_ONCE)
        await self._serve_client(take_socket(accepted))

    def _accept_waiting(self, backlog: Backlog, most: int) -> None:
        for accepted in backlog.accept_waiting(most):
            self._arriving += 1
            self._tasks.start_soon(self._serve_client, accepted)

    async def _serve_client(self, accepted: socket.socket) -> None:
        """Serve a client; nothing that goes wrong with it leaves this task."""
        self._arriving -= 1
        if self._settings.inherited:  # who connected before the start has inherited no options
            with contextlib.suppress(OSError):  # it has gone
                prepare(accepted)
        try:
            with accepted, contextlib.closing(self._stream(accepted)) as stream:
                await self._clients.serve(stream, peer_name(accepted))
        except Exception:  # in admitting, refusing, closing, or in the log itself
            with contextlib.suppress(Exception):
                self._log.exception("client failed")

    def _stream(self, accepted: socket.socket) -> PlainStream:
        return PolledStream(accepted, self._poller) if self._poller else PlainStream(accepted)

    # ------------------------------------------------------------------ capacity

    def _is_full(self) -> bool:
        return len(self._clients) + self._arriving >= self._clients.capacity

    def _limit_capacity(self, needed: int) -> None:
        """Admit no more clients than there are descriptors beside `needed` and those open."""
        limit = raise_descriptor_limit()
        self._clients.lingering_capacity = min(LINGERING, limit // LINGERING_SHARE)
        used = open_descriptors() + needed
        room = limit - used - self._clients.lingering_capacity - SPARE_DESCRIPTORS
        if room < self._clients.capacity:
            self._clients.capacity = max(room, 1)
            self._log.warning(
                "client limit lowered",
                max_clients=self._clients.capacity,
                asked=self._settings.max_clients,
                descriptors=limit,
            )

    # ------------------------------------------------------------------ time

    async def _inspect_clients(self) -> None:
        """Inspect the clients again and again, and cut those left at the end of the grace period.

        The clock stands still while the whole process is paused, so that no client is judged by the
        time in which it could not be heard.
        """
        timeouts = (self._settings.idle_timeout, self._settings.write_timeout)
        shortest = min(filter(None, timeouts), default=math.inf)
        tick = min(LONGEST_TICK_SECONDS, max(DRAIN_TICK_SECONDS, shortest / TICKS_PER_TIMEOUT))
        grace_left = self._settings.grace
        last = trio.current_time()
        while grace_left >= 0:
            draining = self._stopping.is_set()
            if draining:
                tick = DRAIN_TICK_SECONDS
                await trio.sleep(tick)
            else:
                with trio.move_on_after(tick):
                    await self._stopping.wait()
            elapsed, last = trio.current_time() - last, trio.current_time()
            self._clock += min(elapsed, TICKS_AT_ONCE * tick)
            if elapsed >= tick + PAUSE_SECONDS:
                self._clients.begin_anew()
            await self._clients.inspect(self._clock)
            if draining:
                grace_left -= min(elapsed, PAUSE_SECONDS)
        self._cutting.cancel()
