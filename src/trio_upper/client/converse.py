"""The client's conversation: two sibling tasks, one sends the input and one shows the replies.

Either one's end ends the conversation in the right way. The input's end is a half-close, after
which every owed reply is still received; the server's end stops the input at once, wherever it is.
One task alone decides that the conversation is over, the one that receives, and only after it has
judged and shown what came: a sender that looked at the account could miss a banner on its way.
"""

import enum
import math
from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass

import trio

from trio_upper.client.account import Account
from trio_upper.client.settings import REPLY_TIMEOUT_SECONDS
from trio_upper.platform import reuse_large_blocks

# Large reads make a bulk transfer fast; a small message needs no more room for that.
RECEIVE_BYTES = 1024 * 1024

# When all is answered, a server of ours closes within a round trip. One that keeps silent gets this
# long, in seconds, to show by a word too many that it is something else.
LAST_LOOK = 0.1

# How long, in seconds, to wait for the rest of a line of the peer's own words.
HEARING_OUT = 1.0


class Ending(enum.Enum):
    """Why a conversation ended."""

    ANSWERED = "everything owed came, and the input had ended"
    CLOSED = "the server closed the connection before that"
    BROKEN = "the connection broke"
    SILENT = "a reply was owed and nothing came for too long"
    NOTICE = "the server said why it closes"
    FOREIGN = "the peer said something that is no reply"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a conversation ended, and the account of it.

    `unanswered` of the `owed` bytes of reply did not come. `words` is the notice or the foreign
    words, else empty. `error` is what broke the connection, else None.
    """

    ending: Ending
    owed: int
    unanswered: int
    words: bytes = b""
    error: Exception | None = None

    @property
    def complete(self) -> bool:
        """Whether every reply came and the server did not end before the input."""
        return self.ending is Ending.ANSWERED and not self.unanswered


async def converse(
    stream: trio.abc.Stream,
    source: AsyncIterable[bytes],
    sink: Callable[[bytes], Awaitable[object]],
    *,
    reply_timeout: float = REPLY_TIMEOUT_SECONDS,
) -> Outcome:
    """Send all that `source` yields, await `sink` with the replies as they come, in any split.

    `reply_timeout` is how long, in seconds, nothing may come while a reply is owed; 0: for ever.

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
        self._stream = stream
        self._source = source
        self._sink = sink
        self._reply_timeout = reply_timeout
        self._account = Account()
        self._listening = trio.CancelScope()
        self._ending = Ending.CLOSED
        self._error: Exception | None = None

    async def send(self) -> None:
        """Send the input and its end; on a broken connection stop, for the receiver tells why."""
        try:
            async for piece in self._source:
                self._account.sent(piece)
                self._expect()
                await self._stream.send_all(piece)
            half_closed = isinstance(self._stream, trio.abc.HalfCloseableStream)
            self._account.end_input(half_closed=half_closed)
            self._expect()
            if isinstance(self._stream, trio.abc.HalfCloseableStream):
                await self._stream.send_eof()
        except trio.BrokenResourceError as error:
            self._error = error

    async def receive(self, conversation: trio.CancelScope) -> None:
        """Receive, judge and show until the conversation is over; then end the sender, too."""
        try:
            while data := await self._receive_some():
                await self._show(self._account.received(data))
                if self._account.words:
                    await self._hear_out()
                    break
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
        """Return what comes next; nothing at the stream's end, or when nothing came in time."""
        with trio.CancelScope(deadline=self._deadline()) as self._listening:
            return bytes(await self._stream.receive_some(RECEIVE_BYTES))
        self._ending = Ending.SILENT
        return b""

    def _deadline(self) -> float:
        """Return until when to wait for the next bytes, from now on."""
        if self._account.settled:
            return trio.current_time() + LAST_LOOK
        if self._account.unanswered:
            return trio.current_time() + self._reply_timeout
        return math.inf

    def _expect(self) -> None:
        """Have the receiver wait for what was just sent, if nothing was owed before or all is."""
        if self._account.settled or self._listening.deadline == math.inf:
            self._listening.deadline = self._deadline()

    async def _hear_out(self) -> None:
        with trio.move_on_after(HEARING_OUT):
            while not self._account.words_complete:
                data = await self._stream.receive_some(RECEIVE_BYTES)
                if not data:
                    break
                self._account.received(bytes(data))

    def outcome(self) -> Outcome:
        """Sum up: call it when both tasks have ended."""
        account = self._account
        if account.words:
            ending = Ending.FOREIGN if account.notice is None else Ending.NOTICE
        elif account.settled:
            ending = Ending.ANSWERED
        else:
            ending = self._ending
        return Outcome(
            ending=ending,
            owed=account.owed,
            unanswered=account.unanswered,
            words=account.words,
            error=self._error,
        )
