"""The server: accepts with `trio.serve_tcp`, admits or refuses, inspects, drains, counts.

Three nurseries, one inside the other: the innermost holds the listeners, the one around it the
client tasks, the outermost the inspection and the poller. To stop accepting is to cancel the
innermost; the clients' then ends by itself as they are drained, or at its deadline.
"""

import contextlib
import math
import socket
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self

import trio

from trio_upper import protocol
from trio_upper.platform import open_edge_poller, raise_descriptor_limit
from trio_upper.server.conversation import (
    LINGER_SECONDS,
    Conversation,
    End,
    Limits,
    send_and_end,
)
from trio_upper.server.listeners import ListenAddress, SharedListener, listen, resolve_hosts
from trio_upper.server.poller import PolledStream, Poller
from trio_upper.server.streams import ClientStream, PlainStream, TLSStream, take_socket

if TYPE_CHECKING:
    import ssl

# A client that sends nothing for this long while the server drains gets its notice: long enough for
# the next message of one that is talking, short enough for a quick restart.
DRAIN_QUIET_SECONDS = 0.1

# How often the clients are inspected: during the drain, and otherwise at most. In between it is a
# fraction of the shortest timeout, which is kept to within a tenth that way.
DRAIN_TICK_SECONDS = 0.02
LONGEST_TICK_SECONDS = 1.0
TICKS_PER_TIMEOUT = 20

# An inspection of thousands of clients lets other tasks run after this many.
INSPECTED_AT_ONCE = 500

# How long a client may take for the TLS handshake, in which it counts as connected already.
HANDSHAKE_SECONDS = 10.0

# Refused clients hold a descriptor until they have read why: this many at a time, and at most one
# in LINGERING_SHARE where descriptors are few. Some more are kept for what a process opens now and
# then.
LINGERING = 32
LINGERING_SHARE = 8
SPARE_DESCRIPTORS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How a server is to serve.

    `port` 0 lets the system choose one port for all of `hosts`. Timeouts are in seconds:
    `idle_timeout` without a byte from a client, `write_timeout` without a byte that it took (0:
    never, for both), `grace` for clients that still talk when the server stops (0: none).
    `tls` None serves plain TCP. `inherited` are listeners that are open already, to be used instead
    of `hosts` and `port`; the server closes them.

    Error handling: `ValueError` for what makes no sense.
    """

    hosts: tuple[str, ...] = (protocol.DEFAULT_HOST,)
    port: int = protocol.DEFAULT_PORT
    max_clients: int = 10_000
    idle_timeout: float = 600.0
    write_timeout: float = 30.0
    grace: float = 10.0
    tls: "ssl.SSLContext | None" = None
    inherited: tuple[trio.SocketListener, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"{self.port} is not a valid port; use a number from 0 to 65535")
        if self.max_clients < 1:
            raise ValueError("max_clients must be at least 1")
        if min(self.idle_timeout, self.write_timeout, self.grace) < 0:
            raise ValueError("timeouts must be 0 or more")


@dataclass(slots=True, kw_only=True)
class Totals:
    """What a server has done: clients served, refused, and cut by its stop; bytes each way."""

    served: int = 0
    refused: int = 0
    cut: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class Log(Protocol):
    """What a server needs of a log: that of structlog, or one like it."""

    def bind(self, **fields: Any) -> "Log":
        """Return a log that adds `fields` to every event."""

    def debug(self, event: str, **fields: Any) -> object:
        """Log an event that helps to find a fault."""

    def info(self, event: str, **fields: Any) -> object:
        """Log an ordinary event."""

    def warning(self, event: str, **fields: Any) -> object:
        """Log an event that the operator should know of."""

    def exception(self, event: str, **fields: Any) -> object:
        """Log a bug, with the traceback of the exception at hand."""


class SilentLog:
    """A log that keeps nothing."""

    def bind(self, **_: Any) -> Self:
        """Return this one: no event has fields."""
        return self

    def debug(self, *_: Any, **__: Any) -> None:
        """Do nothing."""

    info = warning = exception = debug


class Server:
    """One server. `run` it once; `drain` and `cut` stop it, from any task."""

    def __init__(self, settings: ServerSettings, log: Log | None = None) -> None:
        """Without a `log`, the server is silent."""
        self._settings = settings
        self._log: Log = log or SilentLog()
        self._capacity = settings.max_clients
        self._lingering_capacity = LINGERING
        self._poller: Poller | None = None
        self._conversations: dict[int, Conversation] = {}
        self._last_id = 0
        self._lingering = 0
        self._totals = Totals()
        self._stopping = trio.Event()
        self._resolving = trio.CancelScope()
        self._clients: trio.Nursery | None = None
        self._handshakes: set[trio.CancelScope] = set()
        self._limits = Limits(
            quiet_seconds=settings.idle_timeout or math.inf,
            stalled_seconds=settings.write_timeout or math.inf,
            end=End.IDLE,
            notice=protocol.idle_notice(settings.idle_timeout),
        )

    def drain(self) -> None:
        """Stop accepting, answer what is in flight, then close; `run` returns after that."""
        self._limits = replace(
            self._limits,
            quiet_seconds=min(DRAIN_QUIET_SECONDS, self._limits.quiet_seconds),
            end=End.SHUTDOWN,
            notice=protocol.shutdown_notice(),
        )
        self._resolving.cancel()
        for scope in self._handshakes:
            scope.cancel()
        self._stopping.set()

    def cut(self) -> None:
        """Stop at once: clients that were not sent their notice are cut."""
        self.drain()
        if self._clients is not None:
            self._clients.cancel_scope.cancel()

    @property
    def totals(self) -> Totals:
        """What the server has done until now, with what its present clients have sent and got."""
        now = self._conversations.values()
        return Totals(
            served=self._totals.served,
            refused=self._totals.refused,
            cut=self._totals.cut,
            bytes_in=self._totals.bytes_in + sum(client.received for client in now),
            bytes_out=self._totals.bytes_out + sum(client.sent for client in now),
        )

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
        self._limit_capacity(len(addresses) + len(self._settings.inherited))
        async with trio.open_nursery() as background:
            background.start_soon(self._inspect_clients)
            if edge_poller := open_edge_poller():
                self._poller = Poller(edge_poller)
                background.start_soon(self._poller.run)
            async with trio.open_nursery() as clients:
                self._clients = clients
                async with trio.open_nursery() as listeners:
                    task_status.started(await self._listen(listeners, clients, addresses))
                    await self._stopping.wait()
                    listeners.cancel_scope.cancel()
                clients.cancel_scope.deadline = trio.current_time() + self._settings.grace
            background.cancel_scope.cancel()
        return self.totals

    async def _resolve_hosts(self) -> list[ListenAddress]:
        return [] if self._settings.inherited else await resolve_hosts(self._settings.hosts)

    async def _listen(
        self, nursery: trio.Nursery, clients: trio.Nursery, addresses: list[ListenAddress]
    ) -> list[tuple[str, int]]:
        if addresses:
            serve = partial(trio.serve_tcp, self._accept, handler_nursery=clients)
            opened: list[tuple[str, int]]
            opened = await nursery.start(listen, serve, addresses, self._settings.port)
            return opened
        shared = [SharedListener(listener, self._is_full) for listener in self._settings.inherited]
        nursery.start_soon(
            partial(trio.serve_listeners, self._accept, shared, handler_nursery=clients)
        )
        return [listener.address for listener in shared]

    def _limit_capacity(self, listeners: int) -> None:
        """Admit no more clients than there are descriptors for."""
        limit = raise_descriptor_limit()
        self._lingering_capacity = min(LINGERING, limit // LINGERING_SHARE)
        room = limit - listeners - self._lingering_capacity - SPARE_DESCRIPTORS
        if room < self._capacity:
            self._capacity = max(room, 1)
            self._log.warning(
                "client limit lowered",
                max_clients=self._capacity,
                asked=self._settings.max_clients,
                descriptors=limit,
            )

    def _is_full(self) -> bool:
        return len(self._conversations) >= self._capacity

    async def _accept(self, accepted: trio.SocketStream) -> None:
        peer = peer_name(accepted)
        stream = self._plain_stream(take_socket(accepted))
        try:
            await self.handle(stream, peer)
        finally:
            stream.close()

    def _plain_stream(self, sock: socket.socket) -> PlainStream:
        return PolledStream(sock, self._poller) if self._poller else PlainStream(sock)

    async def handle(self, transport: ClientStream, peer: str) -> None:
        """Serve one client, from its admission to its end; what goes wrong with it ends it alone.

        `peer` names it in the log.

        Resource handling: the caller closes `transport`.
        """
        if self._is_full():
            await self._refuse(transport, peer)
            return
        self._last_id += 1
        client, arrived, end = self._last_id, trio.current_time(), None
        log = self._log.bind(client=client, peer=peer)
        log.info("client connected")
        stream = self._secured(transport)
        conversation = self._conversations[client] = Conversation(stream)
        try:
            end = await self._converse(stream, transport, conversation, log)
        except Exception:
            # A bug: it ends this client alone, and is the one thing logged with a traceback.
            end = End.ERROR
            log.exception("client failed")
        finally:
            del self._conversations[client]
            self._count(conversation, end)
            log.info(
                "client gone",
                received=conversation.received,
                sent=conversation.sent,
                seconds=round(trio.current_time() - arrived, 3),
                end=end or End.SHUTDOWN,
            )

    def _secured(self, transport: ClientStream) -> ClientStream:
        tls = self._settings.tls
        return TLSStream(transport, tls) if tls else transport

    async def _converse(
        self, stream: ClientStream, transport: ClientStream, conversation: Conversation, log: Log
    ) -> End:
        if not await self._shake_hands(stream, transport, log):
            return End.TLS
        end = await conversation.run()
        await stream.aclose()
        return end

    async def _shake_hands(self, stream: ClientStream, transport: ClientStream, log: Log) -> bool:
        """Return whether the client may go on; if not, it and the log have been told."""
        try:
            with trio.fail_after(HANDSHAKE_SECONDS) as scope:
                self._handshakes.add(scope)
                await stream.do_handshake()
        except (trio.BrokenResourceError, trio.TooSlowError) as error:
            from trio_upper.tls import alert_for, describe_handshake_failure

            log.warning("handshake failed", reason=describe_handshake_failure(error))
            with contextlib.suppress(trio.BrokenResourceError):  # it has gone
                await send_and_end(transport, alert_for(error))
            return False
        finally:
            self._handshakes.discard(scope)
        return True

    def _count(self, conversation: Conversation, end: End | None) -> None:
        """Add a finished conversation to the totals; `end` None: it was cancelled."""
        self._totals.served += 1
        self._totals.bytes_in += conversation.received
        self._totals.bytes_out += conversation.sent
        was_cut = end in {None, End.SHUTDOWN, End.STALLED} and not conversation.noticed
        if was_cut and self._stopping.is_set():
            self._totals.cut += 1

    async def _refuse(self, transport: ClientStream, peer: str) -> None:
        """Send a client the notice that the server is full; while many read theirs, just close."""
        self._totals.refused += 1
        self._log.info("client refused", peer=peer, end=End.FULL)
        if self._lingering >= self._lingering_capacity:
            return
        notice = protocol.full_notice(len(self._conversations))
        self._lingering += 1
        try:
            with trio.move_on_after(LINGER_SECONDS):
                stream = self._secured(transport)
                await stream.do_handshake()
                await send_and_end(stream, notice)
        except trio.BrokenResourceError as error:
            self._log.debug("client left before it read the refusal", peer=peer, why=str(error))
        finally:
            self._lingering -= 1

    async def _inspect_clients(self) -> None:
        """Inspect all conversations again and again, more often while the server drains."""
        shortest = min(self._limits.quiet_seconds, self._limits.stalled_seconds)
        tick = min(LONGEST_TICK_SECONDS, max(DRAIN_TICK_SECONDS, shortest / TICKS_PER_TIMEOUT))
        while not self._stopping.is_set():
            with trio.move_on_after(tick):
                await self._stopping.wait()
            await self._inspect_all()
        while True:
            await self._inspect_all()
            await trio.sleep(DRAIN_TICK_SECONDS)

    async def _inspect_all(self) -> None:
        for number, conversation in enumerate(list(self._conversations.values()), start=1):
            conversation.inspect(trio.current_time(), self._limits)
            if number % INSPECTED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()


def peer_name(stream: trio.SocketStream) -> str:
    """Return the address and port at the other end, for the log; "gone" if it has left already."""
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:
        return "gone"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
