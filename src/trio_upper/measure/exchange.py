"""One compared exchange: a message, the only right reply to it, and what can go wrong between them.

A reply is compared in every byte, at once, message by message; `client.account` compares a stream
that may be split anywhere. Each message differs from the ones before it, so a reply that belongs to
another message is found, and it holds a lower-case letter, so an echo is.
"""

import contextlib
import enum
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

import trio

from trio_upper.client.account import WORDS_BYTES, find_mismatch, is_whole
from trio_upper.client.connect import Retries
from trio_upper.client.failures import CannotConnect, looks_like_tls
from trio_upper.protocol import Uppercaser, read_notice

Connect = Callable[[Retries], Awaitable[trio.abc.Stream]]
"""Tries to connect as long as the retries allow; the stream is the caller's to close.

Raises `CannotConnect`.
"""

# A message begins with its number, in letters as digits: six of them differ for 300 million.
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LABEL_DIGITS = 6

# One to three bytes a letter, and one letter that becomes two. No letter changes its size in UTF-8,
# so a reply has the size of its message.
ASCII_TEXT = " the quick brown fox jumps over the lazy dog,"
OTHER_TEXT = " straße, καλημέρα, привет, 世界,"

# How long to wait for the rest of a line of the peer's own words.
WORDS_SECONDS = 1.0

# A line that is wrong no further behind its start is shown from its start.
NEAR_BYTES = 40

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
    the notice or of what came instead of the reply, else empty; `owed` is then what the reply is,
    and `position` the number of its first wrong byte, from 1 on. Of a long line that is wrong far
    behind its start, both begin at that byte. If the reply was right and more came, `words` is
    that, and `owed` is empty.
    """

    def __init__(
        self,
        trouble: Trouble,
        *,
        error: Exception | None = None,
        words: bytes = b"",
        owed: bytes = b"",
        position: int = 0,
    ) -> None:
        super().__init__(trouble.value)
        self.trouble = trouble
        self.error = error
        self.words = words
        self.owed = owed
        self.position = position

    @property
    def wants_tls(self) -> bool:
        """Whether the server answered in TLS, which this side does not speak."""
        return self.trouble is Trouble.WRONG and looks_like_tls(self.words)


# What a proxy does whose server is still starting.
HUNG_UP = {Trouble.CLOSED, Trouble.BROKEN}


class WrongReply(NamedTuple):
    """What was owed, and what came instead; both from the start of the message."""

    owed: bytes
    came: bytes

    @property
    def position(self) -> int:
        """The number of the first wrong byte, from 1 on."""
        mismatch = find_mismatch(self.came, self.owed)
        return mismatch.position if mismatch else len(self.came) + 1

    @property
    def surplus(self) -> bool:
        """Whether the reply was right, and more came than that."""
        return self.came.startswith(self.owed)


@dataclass(slots=True)
class Link:
    """A connection; `ended` is the server's notice, if that came with the last right reply."""

    stream: trio.abc.Stream
    ended: Failed | None = None


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


async def open_link(connect: Connect, retries: Retries) -> Link:
    """Connect, or raise `Failed`. The caller closes the stream."""
    try:
        return Link(await connect(retries))
    except CannotConnect as error:
        raise Failed(Trouble.UNCONNECTED, error=error) from error


async def close(stream: trio.abc.Stream) -> None:
    """Close `stream` properly if that takes no longer than `CLOSE_SECONDS`, else forcefully."""
    with trio.move_on_after(CLOSE_SECONDS):
        await stream.aclose()


async def first_exchange(
    connect: Connect, retries: Retries, message: bytes, reply: bytes, reply_timeout: float
) -> tuple[Link, float]:
    """Connect and have an `exchange`; return the link, which is the caller's, and the seconds.

    A connection that ends before its first reply is made again as long as `retries` allow: so does
    a proxy whose server is still starting.

    Error handling: as `exchange`; the stream is then closed.
    """
    while True:
        link = await open_link(connect, retries)
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(trio.aclose_forcefully, link.stream)
            try:
                seconds = await exchange(link, message, reply, reply_timeout)
            except Failed as error:
                if error.trouble not in HUNG_UP:
                    raise
                failed = error
            else:
                undo.pop_all()
                return link, seconds
        if not await retries.pause():
            raise failed


async def exchange(link: Link, message: bytes, reply: bytes, reply_timeout: float) -> float:
    """Send `message`, at most `LARGEST_AT_ONCE_BYTES`, and await `reply`; return the seconds.

    `reply_timeout` is how long nothing of the reply may come, in seconds; 0: no limit.

    Error handling: `Failed` for everything that goes wrong with the connection or the reply.
    """
    started = trio.current_time()
    seconds = 0.0

    async def talk(scope: trio.CancelScope) -> WrongReply | None:
        nonlocal seconds

        def restart() -> None:
            scope.deadline = trio.current_time() + (reply_timeout or math.inf)

        restart()
        await link.stream.send_all(message)
        mismatch = await receive_reply(link.stream, reply, restart)
        seconds = trio.current_time() - started
        return mismatch

    await watched(link, talk)
    return seconds


async def receive_reply(
    stream: trio.abc.Stream, reply: bytes, progress: Callable[[], object] = int
) -> WrongReply | None:
    """Receive `reply`, in any pieces; return what came instead, or None if it was right.

    More than the reply is wrong, too, and is its surplus. `progress` is called after each piece.
    """
    missing = reply
    while missing:
        piece = await receive_piece(stream)
        if not missing.startswith(piece):
            return WrongReply(reply, reply[: len(reply) - len(missing)] + piece)
        missing = missing[len(piece) :]
        progress()
    return None


async def receive_piece(stream: trio.abc.Stream, max_bytes: int | None = None) -> bytes | bytearray:
    """Receive what comes next; `Failed` at the end of the stream, for a reply is still owed."""
    piece = await stream.receive_some(max_bytes)
    if not piece:
        raise Failed(Trouble.CLOSED)
    return piece


async def watched(
    link: Link, talk: Callable[[trio.CancelScope], Awaitable[WrongReply | None]]
) -> None:
    """Await `talk`, which talks over `link`, and raise `Failed` for whatever goes wrong in it.

    It is given the scope that it runs in and moves its deadline; when that passes, the server is
    silent. It returns what came instead of a reply, or None if all was right. A notice behind right
    replies is none of its failures: it sets `link.ended`, with which the next talk fails.
    """
    if link.ended is not None:
        raise link.ended
    mismatch = None
    try:
        with trio.CancelScope() as scope:
            mismatch = await talk(scope)
    except trio.BrokenResourceError as error:
        raise Failed(Trouble.BROKEN, error=error) from error
    if mismatch:
        failed = await _judge(link.stream, mismatch)
        if failed.trouble is not Trouble.NOTICE or not mismatch.surplus:
            raise failed
        link.ended = failed
    if scope.cancelled_caught:
        raise Failed(Trouble.SILENT)


async def _judge(stream: trio.abc.Stream, mismatch: WrongReply) -> Failed:
    """Return what to raise about `mismatch`, once the line that came has been received."""
    position = mismatch.position
    wrong = position - 1
    words = mismatch.came
    with trio.move_on_after(WORDS_SECONDS), contextlib.suppress(trio.BrokenResourceError):
        while not is_whole(words[wrong:]):
            piece = await stream.receive_some()
            if not piece:
                break
            words += piece
    trouble = Trouble.WRONG if read_notice(words[wrong:]) is None else Trouble.NOTICE
    # What was right before a notice, or before more than was owed, was a reply.
    own_line = trouble is Trouble.NOTICE or mismatch.surplus
    begin = wrong if own_line or position > NEAR_BYTES else 0
    kept = slice(begin, begin + WORDS_BYTES)
    return Failed(trouble, words=words[kept], owed=mismatch.owed[kept], position=position)
