"""One client's conversation: receive, upper-case, send, and how it ends.

The deadlines cost a message nothing. A conversation only counts bytes. Its owner calls
`Conversation.inspect` from time to time, which compares the counts with the last ones and, when a
client has been quiet or stuck for too long, interrupts the conversation through its cancel scope.
(A `trio.fail_after` around each read and write would cost as much as answering does.) The idle
timeout and the drain are the same mechanism with different limits.
"""

import enum
import math
from dataclasses import dataclass

import trio

from trio_upper.protocol import Responder
from trio_upper.server.streams import ClientStream, Reply

# What `Conversation` counts before its first inspection.
NOT_INSPECTED = -1

# How long a TLS handshake and the first message may take while the server drains: a few seconds,
# for a busy machine, and less than the grace period.
DRAIN_HANDSHAKE_SECONDS = 3.0

# How long a notice may take to go out, and the client to end its side after it.
LINGER_SECONDS = 1.0


class End(enum.StrEnum):
    """Why a conversation ended, in the words of the log."""

    EOF = "eof"
    IDLE = "idle"
    STALLED = "stalled"
    RESET = "reset"
    TLS = "tls"
    SHUTDOWN = "shutdown"
    FULL = "full"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a conversation may stand still; `math.inf` means for ever.

    A client that sent no byte for `quiet_seconds` gets `notice` and an end of stream, for the
    reason `end`. One that took no byte of its reply for `stalled_seconds` is cut. A handshake may
    take `handshake_seconds`. The server drains since `drain_began`.
    """

    quiet_seconds: float
    stalled_seconds: float
    handshake_seconds: float = math.inf
    drain_began: float = math.inf
    end: End
    notice: bytes

    @property
    def draining(self) -> bool:
        """Whether the server stops."""
        return self.drain_began < math.inf


class Conversation:
    """The server's side of one connection."""

    __slots__ = (
        "_began",
        "_end",
        "_in_handshake",
        "_interrupted",
        "_mark",
        "_notice",
        "_responder",
        "_scope",
        "_since",
        "_stream",
        "_unsent",
        "failure",
        "settled",
    )

    def __init__(self, stream: ClientStream) -> None:
        self._stream = stream
        self._responder = Responder()
        self._end = End.EOF
        self._notice = b""
        self._interrupted = False
        self._in_handshake = True
        self._unsent = 0
        self._mark = NOT_INSPECTED
        self._began = 0.0
        self._since = 0.0
        self._scope = trio.CancelScope()
        #: Why the handshake failed, if it has.
        self.failure: Exception | None = None
        #: Whether nothing is lost when the client is cut now: it has not begun, or has its notice.
        self.settled = True

    @property
    def dropped(self) -> bool:
        """Whether it was interrupted in its handshake."""
        return self._in_handshake

    @property
    def received(self) -> int:
        """Bytes that came from the client."""
        return self._responder.received

    @property
    def sent(self) -> int:
        """Bytes of reply that the stream took; of one that was interrupted, about."""
        return max(0, self._responder.replied - self._unsent)

    async def run(self) -> End:
        """Answer until the client ends its side, or has been quiet or stuck for too long.

        Resource handling: the stream stays open; the caller closes it.

        Error handling: a stream that breaks is an end like others, `End.RESET`, and so is a
        handshake that fails, `End.TLS`, with the reason in `failure`.
        """
        try:
            if await self._shake_hands():
                await self._converse()
                if self._notice:
                    await self._send_notice()
        except trio.BrokenResourceError as error:
            return self._end_of_broken(error)
        finally:
            self._interrupted = True  # from now on there is nothing to inspect
        return self._end

    async def _shake_hands(self) -> bool:
        """Return whether the conversation can begin; if not, `_end` says why."""
        with trio.CancelScope() as self._scope:
            await self._stream.do_handshake()
            self._in_handshake, self.settled, self.failure = False, False, None
        return not self._in_handshake

    def _end_of_broken(self, error: trio.BrokenResourceError) -> End:
        if not self._in_handshake:
            return End.RESET
        if not self._stream.received:  # a probe: it connects, and leaves without a byte
            return End.RESET if isinstance(error.__cause__, ConnectionError) else End.EOF
        self.failure = error
        return End.TLS

    def inspect(self, now: float, limits: Limits) -> None:
        """Interrupt the conversation if it has stood still for longer than `limits` allow.

        `now` is a time in seconds, of the caller's clock. The time that a conversation has stood
        still is counted from the first inspection that finds it so. A client whose bytes lie unread
        is not quiet.
        """
        if self._interrupted:
            return
        mark = self._progress()
        if self._mark == NOT_INSPECTED:
            self._began = now
        if mark != self._mark:
            self._mark, self._since = mark, now
        still_seconds = now - self._since
        if self._unsent:
            if still_seconds >= limits.stalled_seconds:
                self._interrupt(End.STALLED, b"")
        elif self._in_handshake:
            self._inspect_handshake(now, limits)
        elif still_seconds >= limits.quiet_seconds and not self._is_about_to_speak(now, limits):
            self._interrupt(limits.end, limits.notice)

    def begin_anew(self) -> None:
        """Have the deadlines begin with the next inspection."""
        self._mark = NOT_INSPECTED

    def _progress(self) -> int:
        """Return a number that grows with whatever the client does."""
        if self._in_handshake:
            return self._stream.received
        return self.received + self.sent + (self._stream.delivered() if self._unsent else 0)

    def _inspect_handshake(self, now: float, limits: Limits) -> None:
        """Drop a client that is late; while the server drains, also one that is silent."""
        is_silent = now - self._since >= limits.quiet_seconds
        is_late = now - limits.drain_began >= DRAIN_HANDSHAKE_SECONDS
        if is_late or (limits.draining and is_silent and not self._is_about_to_speak(now, limits)):
            self._interrupt(End.SHUTDOWN, b"")
        elif now - self._began >= limits.handshake_seconds:
            self.failure = trio.TooSlowError()
            self._interrupt(End.TLS, b"")

    def _is_about_to_speak(self, now: float, limits: Limits) -> bool:
        """Return whether a client that seems quiet is not.

        Its bytes lie unread. Or it has gone on with its handshake since the drain began, and has
        not come to its first message yet; so it has a short time for both.
        """
        begins = self._stream.received > 0 and not self.received
        in_time = limits.drain_began < self._since and now < (
            limits.drain_began + DRAIN_HANDSHAKE_SECONDS
        )
        return (begins and in_time) or self._stream.has_unread()

    def _interrupt(self, end: End, notice: bytes) -> None:
        self._end, self._notice = end, notice
        self._interrupted = True
        self._scope.cancel()

    async def _converse(self) -> None:
        """Answer until there is a reason to end, which `_end` and `_notice` have then."""
        reply: Reply | None = b""
        while reply is not None:
            with trio.CancelScope() as self._scope:
                reply = await self._answer(reply)
            if self._scope.cancelled_caught:
                # What came in this very moment is answered before the notice.
                goes_on = self._end is not End.STALLED and self._stream.has_unread()
                reply = b"" if goes_on else None

    async def _answer(self, reply: Reply | None) -> Reply | None:
        """Send `reply` and answer all that follows; None: the client has ended.

        What was held back of a last character goes back as it is, then the end is found again.
        Interrupted with a reply in hand, for its message came in the same instant, return it: it is
        sent under a new scope, for in a cancelled one it would be lost.
        """
        stream, answer = self._stream, self._responder.answer
        self._interrupted = False
        while True:
            if reply:
                self._unsent = len(reply)
                await stream.send_reply(reply)
                self._unsent = 0
            reply = None  # or it would stay in memory for as long as the client is silent
            reply = await stream.next_reply(answer)
            if reply is None:
                self._end, self._notice = End.EOF, b""
                reply = stream.on_wire(self._responder.finish())
                if not reply:
                    return None
            if self._interrupted:
                return reply

    async def _send_notice(self) -> None:
        with trio.move_on_after(LINGER_SECONDS):
            await self._stream.send_all(b"\n" * self._responder.line_open + self._notice)
            self.settled = True
            await end_and_discard(self._stream)


async def send_and_end(stream: trio.abc.HalfCloseableStream, words: bytes) -> None:
    """Send `words` and see that they survive the close, for at most `LINGER_SECONDS`.

    The stream stays open; the caller closes it. `trio.BrokenResourceError` escapes.
    """
    with trio.move_on_after(LINGER_SECONDS):
        await stream.send_all(words)
        await end_and_discard(stream)


async def end_and_discard(stream: trio.abc.HalfCloseableStream) -> None:
    """End the sending side, then read and discard until the client ends, too.

    A close with unread input is a reset, and a reset can destroy what was sent just before it
    (RFC 9112, section 9.6, tells the same story for HTTP). The caller sets the deadline.
    """
    await stream.send_eof()
    while await stream.receive_some():
        pass
