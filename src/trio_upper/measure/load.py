"""Load from many clients at once: each a task in one nursery, each reply compared in every byte.

The clients connect, have one message answered each, and then start together. Each sends until the
time is up and then receives what it is still owed, which is compared but not counted. A client that
fails stops, for after a wrong byte nobody can say where the next reply begins; the others go on, so
that the report tells how many failed. When all have failed the run is over.
"""

import math
from collections import deque
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from itertools import cycle, islice

import trio

from trio_upper.client.connect import Retries
from trio_upper.measure.exchange import (
    Connect,
    Failed,
    Link,
    Trouble,
    WrongReply,
    close,
    first_exchange,
    make_message,
    receive_piece,
    receive_reply,
    watched,
)
from trio_upper.measure.histogram import Histogram
from trio_upper.measure.settings import LARGEST_AT_ONCE_BYTES, LoadSettings

# How many clients connect at the same time. A server's queue of connections to accept may be as
# short as 128 (listen(2)), and a connection that finds it full is tried again a second later.
CONNECTING_AT_ONCE = 50

# The message that each has answered before the start: it shows that the server has accepted.
GREETING_BYTES = 32

# The messages are made before the run and sent over and over: this many different ones, or as many
# as fit into this many bytes, which stay in the processor's cache; but never fewer than four, so
# that a reply in the wrong place shows.
MESSAGES = 1024
MESSAGES_BYTES = 1024 * 1024
FEWEST_MESSAGES = 4

# A reply timeout may pass by up to this much: moving a deadline costs a tenth of a message (2 µs),
# so it is moved twice a second instead of at each reply.
LATE_SECONDS = 0.5


class Load:
    """One run. `run` it once; read it at any time."""

    def __init__(self, connect: Connect, settings: LoadSettings, *, wait: float = 0) -> None:
        self.settings = settings
        self._connect = connect
        self._wait = wait  # how long each client may keep trying to connect
        self._messages = _make_messages(settings.size)
        self._connecting = trio.CapacityLimiter(CONNECTING_AT_ONCE)
        self._not_ready = set(range(settings.clients))
        self._start = trio.Event()
        self._began = math.inf
        self._ended: float | None = None
        #: When to stop sending, in Trio's time; infinite before the start.
        self.end = math.inf
        #: The times from sending a message to having its reply, within the time measured.
        self.latency = Histogram()
        #: Why clients stopped before the time was up, one for each that did.
        self.failures: list[Failed] = []

    @property
    def ready(self) -> int:
        """How many clients are ready to start, or have failed."""
        return self.settings.clients - len(self._not_ready)

    @property
    def started(self) -> bool:
        """Whether the clients have started to send."""
        return self._start.is_set()

    @property
    def seconds(self) -> float:
        """How long was measured: from the start until the last client stopped."""
        now = trio.current_time() if self._ended is None else self._ended
        return max(min(now, self.end) - self._began, 0.0)

    @property
    def rate(self) -> float:
        """Messages answered a second; 0 before the start."""
        return self.latency.count / self.seconds if self.seconds else 0.0

    @property
    def wrong(self) -> int:
        """How many clients had a wrong reply."""
        return sum(failed.trouble is Trouble.WRONG for failed in self.failures)

    async def run(self) -> None:
        """Run the load.

        Error handling: what goes wrong with a connection becomes one of the `failures`. Cancel it
        to end it sooner: what was measured until then stands.
        """
        async with trio.open_nursery() as nursery:
            for number in range(self.settings.clients):
                nursery.start_soon(self._run_client, number)

    async def _run_client(self, number: int) -> None:
        # Each starts at another message, so that a server that confuses its clients is noticed.
        messages = islice(cycle(self._messages), number % len(self._messages), None)
        try:
            async with AsyncExitStack() as connection:
                async with self._connecting:
                    link = await self._connect_client(number)
                    connection.push_async_callback(close, link.stream)
                self._note_ready(number)
                await self._start.wait()
                try:
                    await self._send(link, messages)
                finally:
                    self._ended = trio.current_time()  # the last one's stands
        except Failed as failed:
            self.failures.append(failed)
            self._note_ready(number)  # the others do not wait for it

    async def _connect_client(self, number: int) -> Link:
        greeting = make_message(number, GREETING_BYTES)
        retries = Retries(self._wait)
        timeout = self.settings.reply_timeout
        link, _ = await first_exchange(self._connect, retries, *greeting, timeout)
        return link

    def _note_ready(self, number: int) -> None:
        self._not_ready.discard(number)
        if not self._not_ready and not self.started and len(self.failures) < self.settings.clients:
            self._began = trio.current_time()
            self.end = self._began + self.settings.seconds
            self._start.set()

    async def _send(self, link: Link, messages: Iterator[tuple[bytes, bytes]]) -> None:
        if self.settings.pipeline == 1 and self.settings.size <= LARGEST_AT_ONCE_BYTES:
            await watched(link, partial(self._send_one_by_one, link.stream, messages))
        else:
            await watched(link, _Pipeline(self, link.stream, messages).run)
        if link.ended is not None and trio.current_time() < self.end:
            raise link.ended

    async def _send_one_by_one(
        self,
        stream: trio.abc.Stream,
        messages: Iterator[tuple[bytes, bytes]],
        scope: trio.CancelScope,
    ) -> WrongReply | None:
        timeout = _ReplyTimeout(scope, self.settings.reply_timeout)
        now = trio.current_time()
        mismatch = None
        while now < self.end and mismatch is None:
            message, reply = next(messages)
            timeout.restart(now)
            await stream.send_all(message)
            mismatch = await receive_reply(stream, reply)
            begun, now = now, trio.current_time()
            if now <= self.end and (mismatch is None or mismatch.surplus):
                self.latency.record(now - begun)
        return mismatch


class _ReplyTimeout:
    """A reply timeout in seconds, 0 for none, that is cheap to restart."""

    def __init__(self, scope: trio.CancelScope, reply_timeout: float) -> None:
        self._scope = scope
        self._timeout = reply_timeout or math.inf
        self._deadline = -math.inf

    def restart(self, now: float) -> None:
        """Wait for the next reply for the timeout from `now`, or up to `LATE_SECONDS` longer."""
        if self._deadline < now + self._timeout:
            self._deadline = self._scope.deadline = now + self._timeout + LATE_SECONDS


class _Pipeline:
    """Several messages in flight: one task sends them, and its sibling receives the replies."""

    def __init__(
        self, load: Load, stream: trio.abc.Stream, messages: Iterator[tuple[bytes, bytes]]
    ) -> None:
        self._load = load
        self._stream = stream
        self._messages = messages
        self._owed: deque[tuple[bytes, float]] = (
            deque()
        )  # replies, and when their messages were sent
        self._received = 0  # bytes of the first reply owed
        self._answered = trio.Event()
        self._over = False
        self._mismatch: WrongReply | None = None
        self._error: Exception | None = None

    async def run(self, scope: trio.CancelScope) -> WrongReply | None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send)
            nursery.start_soon(self._receive, scope, nursery.cancel_scope)
        if self._error:
            raise self._error
        return self._mismatch

    async def _send(self) -> None:
        """Keep the pipeline full; on a broken connection stop, for the receiver tells why.

        What is sent before the receiver says that it is over will be answered, so the receiver,
        which waits for that, is the one to see the end.
        """
        try:
            while not self._over:
                await self._send_batch()
                self._answered = trio.Event()
                if len(self._owed) == self._load.settings.pipeline:
                    await self._answered.wait()
        except trio.BrokenResourceError as error:
            self._error = error

    async def _send_batch(self) -> None:
        room = self._load.settings.pipeline - len(self._owed)
        batch = list(islice(self._messages, room))
        now = trio.current_time()
        self._owed.extend((reply, now) for _, reply in batch)
        await self._stream.send_all(b"".join([message for message, _ in batch]))

    async def _receive(self, scope: trio.CancelScope, siblings: trio.CancelScope) -> None:
        """Receive and compare until the run is over and nothing is owed; then stop the sender."""
        timeout = _ReplyTimeout(scope, self._load.settings.reply_timeout)
        now = trio.current_time()
        try:
            while (self._owed or not self._over) and self._mismatch is None:
                timeout.restart(now)
                piece = await receive_piece(self._stream)
                now = trio.current_time()
                self._over = now >= self._load.end
                self._mismatch = self._settle(piece, now)
                self._answered.set()
        except (trio.BrokenResourceError, Failed) as error:
            self._error = self._error or error
        siblings.cancel()

    def _settle(self, piece: bytes | bytearray, now: float) -> WrongReply | None:
        """Compare `piece` with what is owed; return what came instead, None if all is right."""
        begin = 0
        while begin < len(piece):
            reply, sent = self._owed[0] if self._owed else (b"", now)
            part = piece[begin : begin + len(reply) - self._received]
            if not part or not reply.startswith(part, self._received):
                return WrongReply(reply, reply[: self._received] + piece[begin:])
            begin += len(part)
            self._received += len(part)
            if self._received == len(reply):
                self._owed.popleft()
                self._received = 0
                if now <= self._load.end:
                    self._load.latency.record(now - sent)
        return None


def _make_messages(size: int) -> list[tuple[bytes, bytes]]:
    """Return messages of `size` bytes with their replies, in ASCII.

    A server that upper-cases only ASCII can be measured, too.
    """
    number = max(min(MESSAGES, MESSAGES_BYTES // size), FEWEST_MESSAGES)
    return [make_message(each, size) for each in range(number)]
