"""The clients of a server: admitted or refused, served, inspected, drained, counted."""

import contextlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from trio_upper import protocol
from trio_upper.server.conversation import (
    LINGER_SECONDS,
    Conversation,
    End,
    Limits,
    send_and_end,
)
from trio_upper.server.events import Log
from trio_upper.server.streams import ClientStream, SharedTLS, TLSStream

if TYPE_CHECKING:
    import ssl

# A client that sends nothing for this long while the server drains gets its notice: long enough for
# the next message of one that is talking, short enough for a quick restart.
DRAIN_QUIET_SECONDS = 0.1

# How long a client may take for the TLS handshake, in which it counts as connected already.
HANDSHAKE_SECONDS = 10.0

# An inspection of thousands of clients lets other tasks run after this many.
INSPECTED_AT_ONCE = 500

# Refused clients hold a descriptor until they have read why: this many at a time at most.
LINGERING = 32


@dataclass(slots=True, kw_only=True)
class Totals:
    """What a server has done: clients served, refused, and cut by its stop; bytes each way."""

    served: int = 0
    refused: int = 0
    cut: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class Clients:
    """Serves clients, each in a task that its caller starts."""

    def __init__(
        self,
        log: Log,
        *,
        capacity: int,
        idle_timeout: float,
        write_timeout: float,
        tls: "ssl.SSLContext | None",
    ) -> None:
        """Timeouts are in seconds, and 0 means never; `tls` None serves plain TCP."""
        self._log = log
        self._tls = SharedTLS(tls) if tls else None
        self._limits = Limits(
            quiet_seconds=idle_timeout or math.inf,
            stalled_seconds=write_timeout or math.inf,
            handshake_seconds=HANDSHAKE_SECONDS,
            end=End.IDLE,
            notice=protocol.idle_notice(idle_timeout),
        )
        self._conversations: dict[int, Conversation] = {}
        self._last_id = 0
        self._lingering = 0
        self._totals = Totals()
        #: How many may be connected; the next ones are refused.
        self.capacity = capacity
        #: How many of the refused may stay until they have read why.
        self.lingering_capacity = LINGERING

    def __len__(self) -> int:
        """How many are connected."""
        return len(self._conversations)

    @property
    def draining(self) -> bool:
        """Whether `drain` was called."""
        return self._limits.draining

    @property
    def totals(self) -> Totals:
        """What has been done until now, with what the present clients have sent and got."""
        present = self._conversations.values()
        return replace(
            self._totals,
            bytes_in=self._totals.bytes_in + sum(client.received for client in present),
            bytes_out=self._totals.bytes_out + sum(client.sent for client in present),
        )

    def drain(self, now: float) -> None:
        """Have `inspect` close every client that falls silent. `now` is of its clock."""
        self._limits = replace(
            self._limits,
            quiet_seconds=min(DRAIN_QUIET_SECONDS, self._limits.quiet_seconds),
            drain_began=min(now, self._limits.drain_began),
            end=End.SHUTDOWN,
            notice=protocol.shutdown_notice(),
        )

    async def inspect(self, now: float) -> None:
        """Interrupt the clients that have been quiet or stuck for too long.

        `now` is a time in seconds, of the caller's clock; call this again and again.
        """
        for number, conversation in enumerate(list(self._conversations.values()), start=1):
            conversation.inspect(now, self._limits)
            if number % INSPECTED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()

    def begin_anew(self) -> None:
        """Have the deadlines of all clients begin with the next inspection."""
        for conversation in self._conversations.values():
            conversation.begin_anew()

    async def serve(self, transport: ClientStream, peer: str) -> None:
        """Serve one client, from its admission to its end; what goes wrong with it ends it alone.

        `peer` names it in the log.

        Resource handling: the caller closes `transport`.
        """
        if len(self) >= self.capacity:
            await self._refuse(transport, peer)
            return
        self._last_id += 1
        client, arrived, end = self._last_id, trio.current_time(), None
        stream = self._secured(transport)
        conversation = self._conversations[client] = Conversation(stream)
        try:
            self._log_arrival(client, peer)
            end = await conversation.run()
            await self._end(stream, transport, conversation, client, peer)
        except Exception as error:
            end = End.ERROR
            self._log_failure(client, peer, error)
        finally:
            del self._conversations[client]
            self._count(conversation, end)
            conversation.failure = None  # its frames lead back here: a circle stays for long
            log = self._log.bind(client=client, peer=peer)
            log.info(
                "client gone",
                received=conversation.received,
                sent=conversation.sent,
                seconds=round(trio.current_time() - arrived, 3),
                end=end or End.SHUTDOWN,
            )

    def _secured(self, transport: ClientStream) -> ClientStream:
        return TLSStream(transport, self._tls) if self._tls else transport

    # Each line has its own bound logger: to keep one would cost an idle client half a KiB.

    def _log_arrival(self, client: int, peer: str) -> None:
        log = self._log.bind(client=client, peer=peer)
        log.info("client connected")

    def _log_failure(self, client: int, peer: str, error: Exception) -> None:
        """Log why a client could not be served; a bug is the one thing with a traceback."""
        log = self._log.bind(client=client, peer=peer)
        if isinstance(error, OSError):  # the system has no room to wait for one more
            log.warning("no room for client", why=str(error))
        else:
            log.exception("client failed")  # noqa: LOG004 - a handler of exceptions calls this

    async def _end(
        self,
        stream: ClientStream,
        transport: ClientStream,
        conversation: Conversation,
        client: int,
        peer: str,
    ) -> None:
        """Close what TLS has opened; a handshake that failed is answered and logged."""
        if failure := conversation.failure:
            from trio_upper.tls import alert_for, describe_handshake_failure

            log = self._log.bind(client=client, peer=peer)
            log.warning("handshake failed", reason=describe_handshake_failure(failure))
            with contextlib.suppress(trio.BrokenResourceError):  # it has gone
                await send_and_end(transport, alert_for(failure))
        elif not conversation.dropped:
            await stream.aclose()

    def _count(self, conversation: Conversation, end: End | None) -> None:
        """Add a finished conversation to the totals; `end` None: it was cancelled."""
        self._totals.served += 1
        self._totals.bytes_in += conversation.received
        self._totals.bytes_out += conversation.sent
        was_ended = end in {None, End.SHUTDOWN, End.STALLED}
        if was_ended and self.draining and not conversation.settled:
            self._totals.cut += 1

    async def _refuse(self, transport: ClientStream, peer: str) -> None:
        """Send a client the notice that the server is full; while many read theirs, just close."""
        self._totals.refused += 1
        self._log.info("client refused", peer=peer, end=End.FULL)
        if self._lingering >= self.lingering_capacity:
            return
        notice = protocol.full_notice(len(self))
        self._lingering += 1
        try:
            with trio.move_on_after(LINGER_SECONDS):
                stream = self._secured(transport)
                await stream.do_handshake()
                await send_and_end(stream, notice)
        except (trio.BrokenResourceError, OSError) as error:
            self._log.debug("client left before it read the refusal", peer=peer, why=str(error))
        finally:
            self._lingering -= 1
