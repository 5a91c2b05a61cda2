"""The client's conversation: two sibling tasks, one sends the input and one shows the replies.

Either one's end ends the conversation in the right way. After the input's end every owed reply is
still received; the server's end stops the input at once, wherever it is. One task alone decides
that the conversation is over, the one that receives, and only after it has compared and shown what
came: a sender that looked at the account could miss a banner on its way.

The half-close that tells the server of the input's end comes late: many proxies and port forwarders
end both ways when one ends, and replies that are still owed then would be lost in them.
"""

import enum
import math
from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass, field

import trio

from trio_upper.client.account import Account, Mismatch
from trio_upper.client.failures import was_reset
from trio_upper.client.settings import REPLY_TIMEOUT_SECONDS
from trio_upper.platform import reuse_large_blocks

# Large reads make a bulk transfer fast; a small message needs no more room for that.
RECEIVE_BYTES = 1024 * 1024

# When all is answered, a server of ours closes within a round trip. A silent one gets this long to
# show by one byte too many that it is something else.
SURPLUS_SECONDS = 0.1

# How long to wait for the rest of a line of the peer's own words.
WORDS_SECONDS = 1.0

# How long the server may be silent after the input's end before this side half-closes: some servers
# answer only then.
HALF_CLOSE_SECONDS = 1.0

# How long one more look takes at what may lie unread.
LOOK_SECONDS = 0.001


class Ending(enum.Enum):
    """Why a conversation ended."""

    ANSWERED = "everything owed came, and the input had ended"
    CLOSED = "the server closed the connection before that"
    BROKEN = "the connection broke"
    SILENT = "a reply was owed and nothing came for too long"
    NOTICE = "the server said why it closes"
    WRONG = "a byte of the replies was wrong"
    FOREIGN = "the peer is another kind of server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a conversation ended, and the account of it.

    `unanswered` of the `owed` bytes of reply did not come. `words` is the notice or what the peer
    said instead of a reply, else empty, and `mismatch` the first byte that was wrong. `error` is
    what broke the connection, else None. `cut_by_half_close` means that the connection ended after
    this side half-closed it, with a reply still owed and nothing received since: something in
    between may not pass a half-close. `seconds` is how long it lasted.
    """

    ending: Ending
    owed: int
    unanswered: int
    words: bytes = b""
    mismatch: Mismatch | None = None
    error: Exception | None = None
    cut_by_half_close: bool = False
    seconds: float = field(default=0.0, compare=False)

    @property
    def complete(self) -> bool:
        """Whether every reply came and the server did not end before the input."""
        return self.ending is Ending.ANSWERED and not self.unanswered

    @property
    def hung_up(self) -> bool:
        """Whether the peer closed the connection before it answered anything."""
        if self.unanswered < self.owed or self.cut_by_half_close:
            return False
        reset = self.ending is Ending.BROKEN and self.error is not None and was_reset(self.error)
        return reset or self.ending is Ending.CLOSED


async def converse(
    stream: trio.abc.Stream,
    source: AsyncIterable[bytes],
    sink: Callable[[bytes], Awaitable[object]],
    *,
    reply_timeout: float = REPLY_TIMEOUT_SECONDS,
) -> Outcome:
    """Send all that `source` yields; await `sink` with the replies as they come, in any split.

    `source` is any async iterable of bytes, `sink` any async callable. `reply_timeout` is how long
    a reply may be owed without a byte of it coming, in seconds; 0: no limit.

    Resource handling: the stream stays open; the caller closes it.

    Error handling: whatever happens to `stream` becomes part of the `Outcome`. What `source` and
    `sink` raise escapes, in an `ExceptionGroup`, and ends both tasks.
    """
    reuse_large_blocks(4 * RECEIVE_BYTES)  # what is sent is of twice that size, if it is a file
    conversation = _Conversation(stream, source, sink, reply_timeout or math.inf)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(conversation.send)
        nursery.start_soon(conversation.receive, nursery.cancel_scope)
    return conversation.outcome()


class _Conversation:
    def __init__(
        self,
        stream: trio.abc.Stream,
        source: AsyncIterable[bytes],
        sink: Callable[[bytes], Awaitable[object]],
        reply_timeout: float,
    ) -> None:
        self._began = trio.current_time()
        self._stream = stream
        self._source = source
        self._sink = sink
        self._reply_timeout = reply_timeout
        self._account = Account()
        self._listening = trio.CancelScope()
        self._give_up_at = math.inf  # while nothing comes
        self._half_close_at = math.inf  # likewise
        self._half_close_due = trio.Event()
        self._half_closed_at = -1  # how much was answered then
        self._ending = Ending.CLOSED
        self._error: Exception | None = None

    async def send(self) -> None:
        """Send the input and its end; on a broken connection stop: the receiver says why."""
        try:
            async for piece in self._source:
                self._account.sent(piece)
                self._expect()
                await self._stream.send_all(piece)
            half_closes = isinstance(self._stream, trio.abc.HalfCloseableStream)
            self._account.end_input(half_closes=half_closes)
            self._expect()
            if isinstance(self._stream, trio.abc.HalfCloseableStream):
                await self._half_close(self._stream)
        except trio.BrokenResourceError as error:
            self._error = error

    async def _half_close(self, stream: trio.abc.HalfCloseableStream) -> None:
        """End this side when all has come that can, or nothing comes any more."""
        if self._account.answerable:
            await self._half_close_due.wait()
        self._half_closed_at = self._account.answered
        await stream.send_eof()

    async def receive(self, conversation: trio.CancelScope) -> None:
        """Receive, compare and show until the conversation is over; then end the sender, too."""
        try:
            while data := await self._receive_some():
                await self._show(self._account.received(data))
                if self._account.mismatch:
                    await self._hear_out()
                    break
                if self._account.input_ended and not self._account.answerable:
                    self._half_close_due.set()
            else:
                self._note_reset()
        except trio.BrokenResourceError as error:
            self._ending = Ending.BROKEN
            self._error = error
        await self._show(self._account.flush())
        conversation.cancel()

    def _note_reset(self) -> None:
        """Tell a reset from an end: the kernel reports it once, and it may have been to `send`."""
        if self._error is not None and self._ending is Ending.CLOSED:
            self._ending = Ending.BROKEN

    async def _show(self, replies: bytes) -> None:
        if replies:
            await self._sink(replies)

    async def _receive_some(self) -> bytes:
        """Return what comes next; nothing at the stream's end, or when nothing came in time.

        Times run only while this listens: what lies unread, because nobody takes what is shown or
        this process was stopped, is no silence of the server.
        """
        self._give_up_at, self._half_close_at = self._until_silent(), self._until_half_close()
        while True:
            with trio.CancelScope(deadline=self._deadline()) as self._listening:
                return bytes(await self._stream.receive_some(RECEIVE_BYTES))
            # A wait that is over when a stopped process goes on reports nothing (PEP 475): look.
            with trio.move_on_after(LOOK_SECONDS):
                return bytes(await self._stream.receive_some(RECEIVE_BYTES))
            if self._give_up_at <= self._half_close_at:
                self._ending = Ending.SILENT
                return b""
            self._half_close_at = math.inf
            self._half_close_due.set()

    def _deadline(self) -> float:
        return min(self._give_up_at, self._half_close_at)

    def _until_silent(self) -> float:
        """Return until when to wait for the next bytes, from now on."""
        if self._account.settled:
            return trio.current_time() + SURPLUS_SECONDS
        if self._account.unanswered:
            return trio.current_time() + self._reply_timeout
        return math.inf

    def _until_half_close(self) -> float:
        """Return until when the half-close waits for the next bytes, from now on."""
        if self._account.input_ended and not self._half_close_due.is_set():
            return trio.current_time() + HALF_CLOSE_SECONDS
        return math.inf

    def _expect(self) -> None:
        """Have the receiver wait for what was just sent, if nothing was owed before or all is."""
        if self._account.settled or self._give_up_at == math.inf:
            self._give_up_at = self._until_silent()
        self._half_close_at = self._until_half_close()
        self._listening.deadline = self._deadline()

    async def _hear_out(self) -> None:
        with trio.move_on_after(WORDS_SECONDS):
            while not self._account.words_complete:
                data = await self._stream.receive_some(RECEIVE_BYTES)
                if not data:
                    break
                self._account.received(bytes(data))

    def outcome(self) -> Outcome:
        """Sum up: call it when both tasks have ended."""
        account = self._account
        ended = self._ending in {Ending.CLOSED, Ending.BROKEN} and not account.mismatch
        return Outcome(
            ending=self._judge(),
            owed=account.owed,
            unanswered=account.unanswered,
            words=account.words,
            mismatch=account.mismatch if account.notice is None else None,
            error=self._error,
            seconds=trio.current_time() - self._began,
            cut_by_half_close=ended and self._half_closed_at == account.answered < account.owed,
        )

    def _judge(self) -> Ending:
        account = self._account
        if account.notice is not None:
            return Ending.NOTICE
        if account.mismatch:
            return Ending.FOREIGN if account.foreign else Ending.WRONG
        return Ending.ANSWERED if account.settled else self._ending
