"""One compared exchange: a message, the only right reply to it, and what can go wrong between them.

A reply is compared in every byte, at once, message by message; `client.account` compares a stream
that may be split anywhere. Each message differs from the ones before it, so a reply that belongs to
another message is found, and it holds a lower-case letter, so an echo is.
"""

import contextlib
import enum
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from trio_upper.client.failures import CannotConnect
from trio_upper.protocol import Uppercaser, read_notice

Connect = Callable[[], Awaitable[trio.abc.Stream]]
"""Returns a stream, which is the caller's to close; raises `CannotConnect`."""

# A message begins with its number, in letters as digits: six of them differ for 300 million.
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LABEL_DIGITS = 6

# One to three bytes a letter, and one letter that becomes two. No letter changes its size in UTF-8,
# so a reply has the size of its message.
ASCII_TEXT = " the quick brown fox jumps over the lazy dog,"
OTHER_TEXT = " straße, καλημέρα, привет, 世界,"

# How long to wait for the rest of a line of the peer's own words, and how much of it to keep.
WORDS_SECONDS = 1.0
WORDS_BYTES = 1024

# Closing may mean waiting for the peer (TLS).
CLOSE_SECONDS = 1.0


class Trouble(enum.Enum):
    """Why a message has no right reply."""

    UNCONNECTED = "no connection"
    CLOSED = "the server closed the connection"
    BROKEN = "the connection broke"
    SILENT = "no reply came in time"
    NOTICE = "the server said why it closes"
    WRONG = "the reply is wrong"
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
    """Connect, or raise `Failed`. The caller closes the stream."""
    try:
        return await connect()
    except CannotConnect as error:
        raise Failed(Trouble.UNCONNECTED, error=error) from error


@asynccontextmanager
async def connected(connect: Connect) -> AsyncIterator[trio.abc.Stream]:
    """Connect, or raise `Failed`; close the stream at the end, for `CLOSE_SECONDS` at most."""
    stream = await open_stream(connect)
    try:
        yield stream
    finally:
        await close(stream)


async def close(stream: trio.abc.Stream) -> None:
    """Close `stream` properly if that takes no longer than `CLOSE_SECONDS`, else forcefully."""
    with trio.move_on_after(CLOSE_SECONDS):
        await stream.aclose()


async def exchange(
    stream: trio.abc.Stream, message: bytes, reply: bytes, reply_timeout: float
) -> float:
    """Send `message`, at most `LARGEST_AT_ONCE_BYTES`, and await `reply`; return the seconds.

    `reply_timeout` is for all of it, in seconds; 0: no limit.

    Error handling: `Failed` for everything that goes wrong with the connection or the reply.
    """
    started = trio.current_time()

    async def talk(scope: trio.CancelScope) -> bytes:
        scope.deadline = started + (reply_timeout or math.inf)
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
    """Receive what comes next; `Failed` at the end of the stream, for a reply is still owed."""
    piece = await stream.receive_some()
    if not piece:
        raise Failed(Trouble.CLOSED)
    return piece


async def watched(
    stream: trio.abc.Stream, talk: Callable[[trio.CancelScope], Awaitable[bytes]]
) -> None:
    """Await `talk`, which talks over `stream`, and raise `Failed` for whatever goes wrong in it.

    It is given the scope that it runs in and moves its deadline; when that passes, the server is
    silent. It returns what came instead of a reply, or nothing if all was right.
    """
    words = b""
    try:
        with trio.CancelScope() as scope:
            words = await talk(scope)
    except trio.BrokenResourceError as error:
        raise Failed(Trouble.BROKEN, error=error) from error
    if words:
        raise await _judge(stream, words)
    if scope.cancelled_caught:
        raise Failed(Trouble.SILENT)


async def _judge(stream: trio.abc.Stream, words: bytes) -> Failed:
    """Return what to raise about `words` that are no reply, once their line has been received."""
    with trio.move_on_after(WORDS_SECONDS), contextlib.suppress(trio.BrokenResourceError):
        while b"\n" not in words[1:] and len(words) < WORDS_BYTES:
            piece = await stream.receive_some()
            if not piece:
                break
            words += piece
    trouble = Trouble.WRONG if read_notice(words) is None else Trouble.NOTICE
    return Failed(trouble, words=words[:WORDS_BYTES])
