"""One client's conversation on any `trio.abc.Stream`: read, upper-case, send, and how it ends.

The deadlines cost a message nothing. A conversation only counts bytes. Whoever owns it calls
`Conversation.inspect` from time to time, which compares the counts with the last ones and, when a
client has been quiet or stuck for too long, interrupts the conversation through its cancel scope.
(A `trio.fail_after` around each read and write would cost as much as answering does.) The idle
time-out and the drain are the same mechanism with different patience.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass

import trio

from trio_upper.protocol import Responder

# How long, in seconds, a notice may take to go out and the client to end its side after it.
FAREWELL = 1.0

# Before a quiet client is told goodbye there is one more look at what has just come in, this long
# in seconds: enough to read what the kernel has, far less than a person notices.
LAST_LOOK = 0.01


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
class Patience:
    """For how long a conversation may stand still, in seconds; `math.inf` means for ever.

    A client that sent no byte for `quiet` gets `notice` and an end of stream, for the reason `end`.
    One that took no byte of its reply for `stalled` is cut.
    """

    quiet: float
    stalled: float
    end: End
    notice: bytes


class Conversation:
    """The server's side of one connection.

    `delivered` returns a number that changes whenever the client takes some of its reply in the
    middle of one `send_all`; a stream that cannot tell is as good as stuck until its call returns.
    """

    __slots__ = (
        "_delivered",
        "_end",
        "_interrupted",
        "_mark",
        "_notice",
        "_responder",
        "_scope",
        "_since",
        "_stream",
        "_writing",
        "noticed",
        "sent",
    )

    def __init__(
        self, stream: trio.abc.Stream, *, delivered: Callable[[], int] = lambda: 0
    ) -> None:
        self._stream = stream
        self._delivered = delivered
        self._responder = Responder()
        self._end = End.EOF
        self._notice = b""
        self._interrupted = False
        self._writing = False
        self._mark = 0
        self._since = trio.current_time()
        self._scope = trio.CancelScope()
        #: Bytes of reply that the stream took.
        self.sent = 0
        #: Whether the client was told goodbye: nothing is lost when it is cut now.
        self.noticed = False

    @property
    def received(self) -> int:
        """Bytes that came from the client."""
        return self._responder.received

    async def run(self) -> End:
        """Answer until the client ends its side, or until it has been quiet or stuck for too long.

        Resource handling: the stream stays open; the caller closes it.

        Error handling: a stream that breaks is an end like others, `End.RESET`.
        """
        try:
            await self._converse()
            if self._notice:
                await self._say_goodbye()
        except trio.BrokenResourceError:
            return End.RESET
        return self._end

    def inspect(self, now: float, patience: Patience) -> None:
        """Interrupt the conversation if it has stood still for longer than `patience` has it.

        `now` is Trio's time. The time that a conversation has stood still is counted from the
        first inspection that finds it so.
        """
        if self._interrupted:
            return
        mark = self.received + self.sent + (self._delivered() if self._writing else 0)
        if mark != self._mark:
            self._mark = mark
            self._since = now
        elif self._writing and now - self._since >= patience.stalled:
            self._interrupt(End.STALLED, b"")
        elif not self._writing and now - self._since >= patience.quiet:
            self._interrupt(patience.end, patience.notice)

    def _interrupt(self, end: End, notice: bytes) -> None:
        self._end, self._notice = end, notice
        self._interrupted = True
        self._scope.cancel()

    async def _converse(self) -> None:
        """Answer until there is a reason to end, which stands in `_end` and `_notice` then."""
        data: bytes | bytearray | None = b""
        while data is not None:
            with trio.CancelScope() as self._scope:
                data = await self._answer(data)
            if self._scope.cancelled_caught:
                data = None if self._end is End.STALLED else await self._look_once_more()

    async def _answer(self, data: bytes | bytearray) -> bytes | bytearray | None:
        """Answer `data` and all that follows it; None: the client has ended.

        Interrupted with a message in hand, for it came in the same instant, return the message: it
        is answered under a new scope, for in a cancelled one the reply would be lost.
        """
        stream, answer = self._stream, self._responder.answer
        self._interrupted = False
        while True:
            if reply := answer(data):
                self._writing = True
                await stream.send_all(reply)
                self._writing = False
                self.sent += len(reply)
            data = await stream.receive_some()
            if not data:
                await self._finish()
                return None
            if self._interrupted:
                return data

    async def _finish(self) -> None:
        """Answer the end: what was held back of a last character goes back as it is."""
        self._end, self._notice = End.EOF, b""
        tail = self._responder.finish()
        if tail:
            self._writing = True
            await self._stream.send_all(tail)
            self.sent += len(tail)

    async def _look_once_more(self) -> bytes | bytearray | None:
        with trio.move_on_after(LAST_LOOK):
            return await self._stream.receive_some()
        return None

    async def _say_goodbye(self) -> None:
        with trio.move_on_after(FAREWELL):
            await self._stream.send_all(b"\n" * self._responder.line_open + self._notice)
            self.noticed = True
            await end_and_discard(self._stream)


async def part(stream: trio.abc.Stream, last_words: bytes) -> None:
    """Send `last_words` and see that they survive the close, for at most `FAREWELL` seconds.

    The stream stays open; the caller closes it. `trio.BrokenResourceError` escapes.
    """
    with trio.move_on_after(FAREWELL):
        await stream.send_all(last_words)
        await end_and_discard(stream)


async def end_and_discard(stream: trio.abc.Stream) -> None:
    """End the sending side, then read and discard until the client ends, too.

    A close with unread input is a reset, and a reset can destroy what was sent just before it
    (RFC 9112, section 9.6, tells the same story for HTTP). The caller sets the deadline.
    """
    if isinstance(stream, trio.abc.HalfCloseableStream):
        await stream.send_eof()
    while await stream.receive_some():
        pass
