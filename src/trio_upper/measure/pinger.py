"""Round trips one at a time, over a connection that is made again when it is lost.

A reply is compared with what it must be in every byte; `account.Account` compares the first ones
only, for it has to do with all that a client may send. Every message differs from the ones before
it, so that a reply that belongs to another message is found, and holds a lower-case letter, so that
an echo is.
"""

import contextlib
import enum
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from trio_upper.client.failures import CannotConnect
from trio_upper.measure.histogram import Histogram
from trio_upper.protocol import Uppercaser, read_notice

Connect = Callable[[], Awaitable[trio.abc.Stream]]
"""Returns a stream, which is the caller's to close; raises `CannotConnect`."""

# A message is a letter and a newline at least. Up to 64 KiB the buffers on the way hold a whole
# message and its reply; a larger one must be read while it is sent, or both sides wait for ever.
SMALLEST = 2
LARGEST_AT_ONCE = 64 * 1024

# A message begins with its number, in letters as digits: six of them differ for 300 million.
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LABEL_DIGITS = 6

# One to three bytes a letter, and one letter that becomes two. No letter changes its size in UTF-8,
# so a reply has the size of its message.
ASCII_TEXT = " the quick brown fox jumps over the lazy dog,"
OTHER_TEXT = " straße, καλημέρα, привет, 世界,"

# As for the client: how long, in seconds, to wait for the rest of a line of the peer's own words,
# and how many bytes of them are worth it.
HEARING_OUT = 1.0
WORDS_BYTES = 1024

# Closing may mean to wait for the peer (TLS); at most so many seconds.
CLOSE_TIMEOUT = 1.0

# After a failure the next try begins this long after the last one, in seconds, whatever the
# interval: a machine that refuses is not to be hammered.
RETRY_PAUSE = 0.1

# A round trip that is interrupted sooner, in seconds, counts for nothing: the reply may have been
# on its way. One that lasts for longer is what made the person lose patience.
PATIENCE = 1.0


class Trouble(enum.Enum):
    """Why a message has no right reply."""

    UNCONNECTED = "no connection came about"
    CLOSED = "the server closed the connection"
    BROKEN = "the connection broke"
    SILENT = "no reply came in time"
    NOTICE = "the server said why it closes"
    WRONG = "something else than the reply came"
    INTERRUPTED = "interrupted before a reply came"


class Failed(Exception):
    """A message has no right reply, and its connection is of no more use.

    `error` is what broke the connection, or the `CannotConnect`; else None. `words` is the line of
    the notice or of what came instead of the reply, else empty.
    """

    def __init__(
        self, trouble: Trouble, *, error: Exception | None = None, words: bytes = b""
    ) -> None:
        super().__init__(trouble.value)
        self.trouble = trouble
        self.error = error
        self.words = words


def make_message(number: int, size: int, text: str = ASCII_TEXT) -> tuple[bytes, bytes]:
    """Return a line of `size` bytes, UTF-8 with its newline, and the only right reply to it.

    `number` makes it differ from others. `text` fills it, cut between two code points.
    """
    room = size - len(b"\n")
    label = _label(number)[-room:].encode()
    room -= len(label)
    filler = (text * (room // len(text) + 1)).encode()[:room].decode(errors="ignore").encode()
    message = label + filler.ljust(room, b".") + b"\n"
    return message, bytes(Uppercaser().feed(message))


def _label(number: int) -> str:
    label = ""
    for _ in range(LABEL_DIGITS):
        number, digit = divmod(number, len(LETTERS))
        label = LETTERS[digit] + label
    return label


async def open_stream(connect: Connect) -> trio.abc.Stream:
    """Connect; `Failed` if that cannot be done. The caller closes the stream."""
    try:
        return await connect()
    except CannotConnect as error:
        raise Failed(Trouble.UNCONNECTED, error=error) from error


async def exchange(
    stream: trio.abc.Stream, message: bytes, reply: bytes, reply_timeout: float
) -> float:
    """Send `message`, at most `LARGEST_AT_ONCE` bytes, and await `reply`; return the seconds.

    `reply_timeout` is for all of it, in seconds; 0: no limit. `Failed` for all that can go wrong.
    """
    started = trio.current_time()

    async def talk(watch: trio.CancelScope) -> bytes:
        watch.deadline = started + (reply_timeout or math.inf)
        await stream.send_all(message)
        return await receive_reply(stream, reply)

    await watched(stream, talk)
    return trio.current_time() - started


async def receive_reply(stream: trio.abc.Stream, reply: bytes) -> bytes:
    """Receive `reply`, in any pieces; return what came instead, or nothing if it was right."""
    missing = reply
    while missing:
        piece = await receive_piece(stream)
        if not missing.startswith(piece):
            return reply[: len(reply) - len(missing)] + piece
        missing = missing[len(piece) :]
    return b""


async def receive_piece(stream: trio.abc.Stream) -> bytes | bytearray:
    """Receive what comes next; `Failed` at the stream's end, for something is owed."""
    piece = await stream.receive_some()
    if not piece:
        raise Failed(Trouble.CLOSED)
    return piece


async def watched(
    stream: trio.abc.Stream, talk: Callable[[trio.CancelScope], Awaitable[bytes]]
) -> None:
    """Await `talk`, which talks over `stream`, and make `Failed` of all that goes wrong in it.

    It is given the scope that it runs in, whose deadline it moves; when that passes, the server is
    silent. It returns what came instead of a reply, or nothing if all was right.
    """
    words = b""
    try:
        with trio.CancelScope() as scope:
            words = await talk(scope)
    except trio.BrokenResourceError as error:
        raise Failed(Trouble.BROKEN, error=error) from error
    if words:
        raise await _judged(stream, words)
    if scope.cancelled_caught:
        raise Failed(Trouble.SILENT)


async def _judged(stream: trio.abc.Stream, words: bytes) -> Failed:
    """Return what to raise about `words` that are no reply, when their line has been heard out."""
    with trio.move_on_after(HEARING_OUT), contextlib.suppress(trio.BrokenResourceError):
        while b"\n" not in words[1:] and len(words) < WORDS_BYTES:
            piece = await stream.receive_some()
            if not piece:
                break
            words += piece
    trouble = Trouble.WRONG if read_notice(words) is None else Trouble.NOTICE
    return Failed(trouble, words=words[:WORDS_BYTES])


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to ping.

    `count` round trips (None: for ever), one every `interval` seconds or as soon as the last one is
    over, of `size` bytes each. A reply that is not there after `reply_timeout` seconds is given up;
    0: never.
    """

    count: int | None = None
    interval: float = 1.0
    size: int = 32
    reply_timeout: float = 30.0

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise ValueError("there must be one round trip at least")
        if not SMALLEST <= self.size <= LARGEST_AT_ONCE:
            raise ValueError(f"a message has {SMALLEST} to {LARGEST_AT_ONCE} bytes")
        if min(self.interval, self.reply_timeout) < 0:
            raise ValueError("a time is not negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrip:
    """One round trip: its number from 1 on, and how many seconds it took or why it failed."""

    sequence: int
    seconds: float = math.nan
    failed: Failed | None = None


class Pinger:
    """Makes round trips and counts them. `run` it once; read it at any time."""

    def __init__(self, connect: Connect, settings: Settings) -> None:
        self._connect = connect
        self._settings = settings
        self._stream: trio.abc.Stream | None = None
        self._began = math.inf
        #: The times of the round trips whose reply was right.
        self.latency = Histogram()
        #: How many round trips are over, however they ended.
        self.sent = 0
        #: How many of them ended with something else than the reply.
        self.wrong = 0

    @property
    def answered(self) -> int:
        """How many round trips ended with the right reply."""
        return self.latency.count

    @property
    def unanswered(self) -> int:
        """How many round trips ended without a reply, because there was no connection or else."""
        return self.sent - self.answered - self.wrong

    async def run(self, show: Callable[[RoundTrip], Awaitable[object]]) -> None:
        """Make the round trips, and await `show` with each.

        Error handling: what goes wrong with the connection becomes part of a `RoundTrip`; what
        `show` raises escapes. Cancel it to end it sooner, then call `give_up`.
        """
        begin = trio.current_time()
        try:
            while self.sent != self._settings.count:
                await trio.sleep_until(begin)
                round_trip = await self._make_round_trip()
                pause = RETRY_PAUSE if round_trip.failed else 0.0
                begin = self._began + max(self._settings.interval, pause)
                self._began = math.inf
                await show(round_trip)
        finally:
            if self._stream is not None:
                with trio.move_on_after(CLOSE_TIMEOUT):
                    await self._stream.aclose()

    def give_up(self) -> RoundTrip | None:
        """Count the round trip that a cancelled `run` was at, if it had lasted for `PATIENCE`."""
        if trio.current_time() - self._began < PATIENCE:
            return None
        return self._count(Failed(Trouble.INTERRUPTED))

    async def _make_round_trip(self) -> RoundTrip:
        self._began = trio.current_time()
        number = self.sent + 1
        text = ASCII_TEXT if number % 2 else OTHER_TEXT
        message, reply = make_message(number, self._settings.size, text)
        try:
            if self._stream is None:
                self._stream = await open_stream(self._connect)
            seconds = await exchange(self._stream, message, reply, self._settings.reply_timeout)
        except Failed as failed:
            await self._hang_up()
            return self._count(failed)
        self.sent += 1
        self.latency.record(seconds)
        return RoundTrip(sequence=self.sent, seconds=seconds)

    def _count(self, failed: Failed) -> RoundTrip:
        self.sent += 1
        self.wrong += failed.trouble is Trouble.WRONG
        return RoundTrip(sequence=self.sent, failed=failed)

    async def _hang_up(self) -> None:
        """Part with a connection over which a reply may still come, too late."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await trio.aclose_forcefully(stream)
