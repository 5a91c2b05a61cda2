"""Whether two machines can talk, as a list of questions, each answered by an experiment; no words.

One question after the other, from the name to a bulk transfer. One that fails makes those pointless
that need its answer, and they are skipped; the others are still asked. TLS is part of the first
exchange, and is only reported at the end.
"""

import enum
import math
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial

import trio

from trio_upper.client.addresses import resolve
from trio_upper.client.connect import Connection, Retries, open_connection
from trio_upper.client.failures import Attempt, CannotConnect
from trio_upper.client.settings import ConnectSettings
from trio_upper.client.target import Target
from trio_upper.measure.exchange import (
    Failed,
    Link,
    Trouble,
    WrongReply,
    close,
    exchange,
    first_exchange,
    make_message,
    open_link,
    receive_piece,
    receive_reply,
    watched,
)
from trio_upper.measure.histogram import Histogram
from trio_upper.measure.settings import CheckSettings

# How many round trips the median is of, and how large each is.
ROUND_TRIPS = 20
ROUND_TRIP_BYTES = 32

# Sizes of messages. Between 1 KiB and 4 KiB they are those at which packets of usual sizes are
# full: 1280 bytes is the smallest MTU of IPv6, 1420 that of WireGuard, 1500 that of Ethernet; 40
# of IPv4 and TCP, or more, come off each.
SIZES = (1, 2, 16, 256, 1024, 1200, 1240, 1380, 1460, 2048, 4096, 9000, 16384, 65536)

# What a bulk transfer repeats: lines that differ.
BULK_LINE_BYTES = 1024
BULK_LINES = 256
BULK_BYTES = BULK_LINE_BYTES * BULK_LINES

# How long to wait, after a bulk transfer, for the replies that are still on their way.
DRAIN_SECONDS = 1.0


class Question(enum.Enum):
    """What is asked, in this order, by the name that people see."""

    NAME = "name"
    CONNECT = "connect"
    SERVER = "server"
    ROUND_TRIP = "round trip"
    SIZES = "sizes"
    HALF_CLOSE = "half-close"
    BULK = "bulk"
    TLS = "tls"


class Status(enum.Enum):
    """How a question was answered."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The answer to a question."""

    question: Question
    status: Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped(Finding):
    """It was not asked: `needs` failed; None: it makes no sense here."""

    status: Status = Status.SKIPPED
    needs: Question | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved(Finding):
    """The addresses of the name, the time that took, and why there are none."""

    question: Question = Question.NAME
    addresses: tuple[str, ...]
    seconds: float
    error: CannotConnect | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """One address: the time it took to connect to it, or why that failed."""

    address: str
    seconds: float = math.nan
    attempt: Attempt | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected(Finding):
    """Which addresses can be connected to; `error` if none can."""

    question: Question = Question.CONNECT
    reached: tuple[Reached, ...]
    error: CannotConnect | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(Finding):
    """Whether there was a right reply, or several; `latency` is how long they took."""

    latency: Histogram
    failed: Failed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized(Finding):
    """The largest message with a right reply, and the size at which there was none."""

    question: Question = Question.SIZES
    largest: int
    failed_at: int = 0
    failed: Failed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfClosed(Finding):
    """Whether the reply came although this side had ended its own."""

    question: Question = Question.HALF_CLOSE
    failed: Failed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred(Finding):
    """How many bytes came back in how many seconds; as many went there."""

    question: Question = Question.BULK
    received: int
    seconds: float
    failed: Failed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Secured(Finding):
    """The version of TLS and how long its handshake took, or why there is no TLS, or no reply."""

    question: Question = Question.TLS
    version: str | None = None
    seconds: float = math.nan
    failed: Failed | None = None


Show = Callable[[Question | Finding], Awaitable[object]]


class Checker:
    """Asks the questions. `run` it once; `findings` has the answers so far."""

    def __init__(
        self, target: Target, settings: CheckSettings, connection: ConnectSettings
    ) -> None:
        self._target = target
        self._settings = settings
        self._connection = replace(connection, wait=0)
        self._wait = connection.wait
        self._addresses: tuple[str, ...] = ()
        self._link: Link | None = None
        self._answering: Link  # the one that the server has answered on
        self._opened: Connection | None = None  # the last one
        self._tls_failed: Failed | None = None
        self._largest = 0
        # How long a message takes, from the one before it: on a slow link that is no silence.
        self._expected_seconds = 0.0
        #: The answers so far.
        self.findings: dict[Question, Finding] = {}

    async def run(self, show: Show) -> None:
        """Ask the questions, and await `show` with each, and then with what was found.

        Error handling: what goes wrong with the network is what is found; what `show` raises
        escapes.
        """
        ask: dict[Question, tuple[Question | None, Callable[[], Awaitable[Finding]]]] = {
            Question.NAME: (None, self._resolve),
            Question.CONNECT: (Question.NAME, self._connect),
            Question.SERVER: (Question.CONNECT, self._ask_server),
            Question.ROUND_TRIP: (Question.SERVER, self._make_round_trips),
            Question.SIZES: (Question.ROUND_TRIP, self._try_sizes),
            Question.HALF_CLOSE: (Question.ROUND_TRIP, self._half_close),
            Question.BULK: (Question.SIZES, self._transfer),
            Question.TLS: (Question.CONNECT, self._secure),
        }
        try:
            for question, (needs, answer) in ask.items():
                await show(question)
                pointless = needs is not None and self._has_failed(needs)
                found = Skipped(question=question, needs=needs) if pointless else await answer()
                self.findings[question] = found
                await show(found)
        finally:
            await self._close()  # noqa: ASYNC102 - at once, if cancelled

    @property
    def right(self) -> bool:
        """Whether the machines can talk, and every reply came and was right."""
        statuses = {found.status for found in self.findings.values()}
        return len(self.findings) == len(Question) and Status.FAILED not in statuses

    def _has_failed(self, question: Question) -> bool:
        found = self.findings[question]
        return found.status is Status.FAILED or getattr(found, "needs", None) is not None

    # ------------------------------------------------------------------ reaching it

    async def _resolve(self) -> Finding:
        await self._wait_for_server()
        began = trio.current_time()
        error: Exception | None = trio.TooSlowError()
        addresses: tuple[str, ...] = ()
        with trio.move_on_after(self._connection.connect_timeout or math.inf):
            try:
                found = await resolve(self._target, self._connection.only)
                addresses, error = tuple(map(str, found)), None
            except (OSError, UnicodeError) as failed:
                error = failed
        seconds = trio.current_time() - began
        self._addresses = addresses
        if error is None:
            return Resolved(status=Status.OK, addresses=addresses, seconds=seconds)
        lookup_error = None if isinstance(error, trio.TooSlowError) else error
        why = self._cannot_connect((), seconds=seconds, lookup_error=lookup_error)
        return Resolved(status=Status.FAILED, addresses=(), seconds=seconds, error=why)

    async def _wait_for_server(self) -> None:
        """Give a server that is still starting its time; whether it has come up shows later."""
        self._retries = Retries(self._wait)
        if self._wait:
            plain = replace(self._connection, tls=None)
            try:
                await close((await open_connection(self._target, plain, self._retries)).stream)
            except CannotConnect:
                return

    def _cannot_connect(
        self,
        attempts: tuple[Attempt, ...],
        *,
        seconds: float,
        lookup_error: Exception | None = None,
    ) -> CannotConnect:
        target = self._target
        return CannotConnect(
            target.host, target.port, attempts=attempts, seconds=seconds, lookup_error=lookup_error
        )

    async def _connect(self) -> Finding:
        """Connect to each address, all at the same time, without TLS."""
        began = trio.current_time()
        reached: dict[str, Reached] = {}
        async with trio.open_nursery() as nursery:
            for address in self._addresses:
                nursery.start_soon(self._reach, address, reached)
        ordered = tuple(reached[address] for address in self._addresses)
        attempts = tuple(one.attempt for one in ordered if one.attempt)
        if len(attempts) < len(ordered):
            status = Status.WARNING if attempts else Status.OK
            return Connected(status=status, reached=ordered)
        error = self._cannot_connect(attempts, seconds=trio.current_time() - began)
        return Connected(status=Status.FAILED, reached=ordered, error=error)

    async def _reach(self, address: str, reached: dict[str, Reached]) -> None:
        target = Target(host=address, port=self._target.port)
        try:
            connection = await open_connection(target, replace(self._connection, tls=None))
        except CannotConnect as error:
            reached[address] = Reached(address=address, attempt=error.attempts[0])
            return
        reached[address] = Reached(address=address, seconds=connection.seconds)
        await close(connection.stream)

    # ------------------------------------------------------------------ talking to it

    async def _open(self, retries: Retries) -> trio.abc.Stream:
        self._opened = await open_connection(self._target, self._connection, retries)
        return self._opened.stream

    async def _ask_server(self) -> Finding:
        latency = Histogram()
        message = make_message(0, ROUND_TRIP_BYTES)
        timeout = self._settings.reply_timeout
        try:
            self._link, seconds = await first_exchange(self._open, self._retries, *message, timeout)
        except Failed as failed:
            if _is_about_tls(failed):
                self._tls_failed = failed
                return Skipped(question=Question.SERVER, needs=Question.TLS)
            return Answered(
                question=Question.SERVER, status=Status.FAILED, latency=latency, failed=failed
            )
        self._answering = self._link
        latency.record(seconds)
        return Answered(question=Question.SERVER, status=Status.OK, latency=latency)

    async def _make_round_trips(self) -> Finding:
        latency = Histogram()
        failed = None
        timeout = self._settings.reply_timeout
        try:
            for number in range(ROUND_TRIPS):
                message = make_message(number + 1, ROUND_TRIP_BYTES)
                latency.record(await exchange(self._answering, *message, timeout))
        except Failed as error:
            failed = error
        status = Status.FAILED if failed else Status.OK
        return Answered(question=Question.ROUND_TRIP, status=status, latency=latency, failed=failed)

    async def _try_sizes(self) -> Finding:
        """Send messages of growing sizes; the first without a right reply is the last one."""
        for number, size in enumerate(SIZES):
            # A line of one byte is its end.
            message = make_message(number, size) if size > 1 else (b"\n", b"\n")
            self._expected_seconds *= size / (self._largest or size)
            try:
                self._expected_seconds = await exchange(self._answering, *message, self._timeout)
            except Failed as failed:
                return Sized(
                    status=Status.FAILED, largest=self._largest, failed_at=size, failed=failed
                )
            self._largest = size
        return Sized(status=Status.OK, largest=self._largest)

    async def _close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await close(link.stream)

    async def _half_close(self) -> Finding:
        """End the sending side while a reply is owed, one as large as gets through."""
        await self._close()
        message, reply = make_message(0, max(self._largest, ROUND_TRIP_BYTES))
        try:
            link = self._link = await open_link(self._open, Retries(0))
            stream = link.stream
            if not isinstance(stream, trio.abc.HalfCloseableStream):  # as over TLS
                return Skipped(question=Question.HALF_CLOSE)
            await watched(link, partial(self._end_before_reply, stream, message, reply))
        except Failed as failed:
            wrong = failed.trouble is Trouble.WRONG
            return HalfClosed(status=Status.FAILED if wrong else Status.WARNING, failed=failed)
        finally:
            await self._close()  # noqa: ASYNC102 - at once, if cancelled
        return HalfClosed(status=Status.OK)

    async def _end_before_reply(
        self,
        stream: trio.abc.HalfCloseableStream,
        message: bytes,
        reply: bytes,
        scope: trio.CancelScope,
    ) -> WrongReply | None:
        def restart() -> None:
            scope.deadline = trio.current_time() + self._timeout

        restart()
        await stream.send_all(message)
        await stream.send_eof()
        return await receive_reply(stream, reply, restart)

    @property
    def _timeout(self) -> float:
        return (self._settings.reply_timeout or math.inf) + self._expected_seconds

    async def _transfer(self) -> Finding:
        """Send without a pause for some seconds, and count what comes back."""
        if not self._settings.seconds:
            return Skipped(question=Question.BULK)
        bulk = None
        failed = None
        try:
            link = self._link = await open_link(self._open, Retries(0))
            limit = max(self._settings.seconds, self._expected_seconds)
            bulk = _Bulk(link.stream, limit=limit, timeout=self._timeout)
            await watched(link, bulk.run)
            if trio.current_time() < bulk.end:
                failed = link.ended
        except Failed as error:
            failed = error
        finally:
            await self._close()  # noqa: ASYNC102 - at once, if cancelled
        return Transferred(
            status=Status.FAILED if failed else Status.OK,
            received=bulk.received if bulk else 0,
            seconds=bulk.seconds if bulk else 0.0,
            failed=failed,
        )

    # ------------------------------------------------------------------ TLS

    async def _secure(self) -> Finding:
        await trio.lowlevel.checkpoint()
        if self._tls_failed is not None:
            return Secured(status=Status.FAILED, failed=self._tls_failed)
        if self._connection.tls is None:
            return Skipped(question=Question.TLS)
        if self._opened is None:
            return Skipped(question=Question.TLS, needs=Question.SERVER)
        return Secured(
            status=Status.OK, version=self._opened.tls_version, seconds=self._opened.tls_seconds
        )


def _is_about_tls(failed: Failed) -> bool:
    """Tell whether TLS is why there is no reply, or the lack of it."""
    if isinstance(failed.error, CannotConnect):
        return failed.error.cause.name.startswith("TLS_")
    cause: BaseException | None = failed.error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__
    return cause is not None or failed.wants_tls


class _Bulk:
    """Messages without a pause for `limit` seconds, whose replies are compared as they come.

    It fails when nothing comes for `timeout` seconds. After the time is up it waits for what is
    still owed for `DRAIN_SECONDS` at most, so that the connection can end properly; if nothing has
    come until then, for the first piece, which counts.
    """

    def __init__(self, stream: trio.abc.Stream, *, limit: float, timeout: float) -> None:
        self._stream = stream
        self._timeout = timeout
        lines = [make_message(number, BULK_LINE_BYTES) for number in range(BULK_LINES)]
        self._block = b"".join(message for message, _ in lines)
        self._replies = b"".join(reply for _, reply in lines) * 2  # a piece may go over the end
        self._owed = 0  # bytes of reply to what was sent, right ones that came subtracted
        self._sending = True
        self._mismatch: WrongReply | None = None
        self._error: Exception | None = None
        self._began = trio.current_time()
        self._draining = trio.CancelScope()
        #: When to stop sending, in Trio's time.
        self.end = self._began + limit
        #: How many right bytes came back before the time was up, and when the last one came.
        self.received = 0
        self.seconds = 0.0

    async def run(self, scope: trio.CancelScope) -> WrongReply | None:
        """Send and receive; return what came instead of a reply, None if all was right."""
        scope.deadline = self._began + self._timeout
        with self._draining:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send)
                nursery.start_soon(self._receive, scope, nursery.cancel_scope)
        if self._error is not None:
            raise self._error
        return self._mismatch

    async def _send(self) -> None:
        """Send until the time is up; on a broken connection stop, for the receiver tells why."""
        try:
            while self._sending:
                self._owed += len(self._block)
                await self._stream.send_all(self._block)
                self._sending = trio.current_time() < self.end
        except trio.BrokenResourceError as error:
            self._error = error
            self._draining.deadline = trio.current_time() + DRAIN_SECONDS
        self._sending = False

    async def _receive(self, scope: trio.CancelScope, siblings: trio.CancelScope) -> None:
        """Receive and compare until nothing more is owed; then stop the sender."""
        position = 0
        try:
            while self._sending or self._owed:
                piece = await receive_piece(self._stream, BULK_BYTES)
                if len(piece) > self._owed or not self._replies.startswith(piece, position):
                    line = self._replies.rfind(b"\n", 0, position) + 1
                    end = position + min(len(piece), self._owed)
                    came = self._replies[line:position] + piece
                    self._mismatch = WrongReply(self._replies[line:end], came)
                    if self._mismatch.surplus:
                        self._count(self._owed, scope)
                    break
                position = (position + len(piece)) % BULK_BYTES
                self._owed -= len(piece)
                self._count(len(piece), scope)
        except (trio.BrokenResourceError, Failed) as error:
            self._error = self._error or error
        siblings.cancel()

    def _count(self, received: int, scope: trio.CancelScope) -> None:
        now = trio.current_time()
        if now <= self.end or not self.received:
            self.received += received
            self.seconds = now - self._began
        self._draining.deadline = self.end + DRAIN_SECONDS
        scope.deadline = now + self._timeout
