"""Round trips one at a time, over a connection that is made again when it is lost.

A reply that does not come is reported while it is overdue, at growing intervals. An outage is a
time of `OVERDUE_SECONDS` or more from the sending of the first message without a reply to the next
reply, whatever happened in between.
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from trio_upper.client.connect import Retries
from trio_upper.measure.exchange import (
    ASCII_TEXT,
    OTHER_TEXT,
    Connect,
    Failed,
    Link,
    Trouble,
    close,
    exchange,
    first_exchange,
    make_message,
)
from trio_upper.measure.histogram import Histogram
from trio_upper.measure.settings import PingSettings

# After a failure the next attempt begins this long after the last one, whatever the interval, so
# that a machine that refuses is not flooded.
RETRY_SECONDS = 0.1

# A round trip that is interrupted sooner does not count: its reply may have been on its way. A
# longer one is probably why the person interrupted it.
INTERRUPTED_SECONDS = 1.0

# A reply that takes longer is overdue: people begin to wonder. Reported after this long, and then
# each time that the wait has doubled.
OVERDUE_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrip:
    """One round trip: its number from 1 on, and how many seconds it took or why it failed.

    `outage` is how many seconds there was no reply before this one; 0 if that was no outage.
    """

    sequence: int
    seconds: float = math.nan
    failed: Failed | None = None
    outage: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """A reply is overdue: there has been none for `seconds`."""

    seconds: float


class Outages:
    """When replies were due and did not come."""

    def __init__(self) -> None:
        self._began = math.inf  # the sending of the first message without a reply
        self._report_after = OVERDUE_SECONDS
        self._durations: list[float] = []

    def sent(self, now: float) -> None:
        """A message is being sent."""
        self._began = min(self._began, now)

    def answered(self, now: float) -> float:
        """A reply has come; return for how long there was none, or 0 if that was no outage."""
        seconds = now - self._began
        self._began, self._report_after = math.inf, OVERDUE_SECONDS
        if seconds < OVERDUE_SECONDS:
            return 0.0
        self._durations.append(seconds)
        return seconds

    def forget(self) -> None:
        """Nothing was due after all."""
        self._began = math.inf

    @property
    def report_at(self) -> float:
        """When to report next that there is no reply; infinite if none is due."""
        return self._began + self._report_after

    def report(self, now: float) -> Overdue:
        """Report now; the next time is when the wait has doubled."""
        seconds = now - self._began
        self._report_after = 2 * seconds
        return Overdue(seconds=seconds)

    def durations(self, now: float) -> list[float]:
        """Return how long each outage was, the one that still lasts included."""
        lasts = now - self._began
        return self._durations + ([lasts] if lasts >= OVERDUE_SECONDS else [])


Show = Callable[[RoundTrip | Overdue], Awaitable[object]]


class Pinger:
    """Makes round trips and counts them. `run` it once; read it at any time."""

    def __init__(self, connect: Connect, settings: PingSettings, *, wait: float = 0) -> None:
        self._connect = connect
        self._settings = settings
        self._wait = wait  # how long to keep trying for the first connection
        self._link: Link | None = None
        self._began = math.inf  # the round trip in progress
        self._last = math.nan
        self._differences = 0.0
        #: The times of the round trips whose reply was right.
        self.latency = Histogram()
        #: When there were no replies.
        self.outages = Outages()
        #: How many round trips are over, however they ended.
        self.sent = 0
        #: How many of them had a wrong reply.
        self.wrong = 0

    @property
    def answered(self) -> int:
        """How many round trips had the right reply."""
        return self.latency.count

    @property
    def unanswered(self) -> int:
        """How many round trips had no reply, or no connection."""
        return self.sent - self.answered - self.wrong

    @property
    def jitter(self) -> float:
        """The mean difference, in seconds, from one right reply's time to the next; or NaN."""
        return self._differences / (self.answered - 1) if self.answered > 1 else math.nan

    async def run(self, show: Show) -> None:
        """Make the round trips, and await `show` with each; a sibling task does with what is late.

        Error handling: what goes wrong with the connection becomes part of a `RoundTrip`; what
        `show` raises escapes, in a group. Cancel it to end it sooner, then call `give_up`.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._report_overdue, show)
                await self._make_round_trips(show)
                nursery.cancel_scope.cancel()
        finally:
            if self._link is not None:
                await close(self._link.stream)  # noqa: ASYNC102 - at once, if cancelled

    def give_up(self) -> RoundTrip | None:
        """Count the round trip that a cancelled `run` was at, if it took `INTERRUPTED_SECONDS`."""
        if trio.current_time() - self._began < INTERRUPTED_SECONDS:
            if not self.unanswered:
                self.outages.forget()
            return None
        return self._count(Failed(Trouble.INTERRUPTED))

    async def _make_round_trips(self, show: Show) -> None:
        begin = trio.current_time()
        while self.sent != self._settings.count:
            await trio.sleep_until(begin)
            round_trip = await self._make_round_trip()
            pause = RETRY_SECONDS if round_trip.failed else 0.0
            begin = self._began + max(self._settings.interval, pause)
            self._began = math.inf
            await show(round_trip)

    async def _report_overdue(self, show: Show) -> None:
        """Report a reply that is overdue, as long as its round trip is in progress.

        What begins while this sleeps is not overdue before it wakes up.
        """
        while True:
            due = max(self._began + OVERDUE_SECONDS, self.outages.report_at)
            now = trio.current_time()
            if due <= now:
                await show(self.outages.report(now))
            await trio.sleep_until(min(due, now + OVERDUE_SECONDS))

    async def _make_round_trip(self) -> RoundTrip:
        self._began = trio.current_time()
        self.outages.sent(self._began)
        try:
            seconds = await self._exchange()
        except Failed as failed:
            await self._drop_connection()
            return self._count(failed)
        self.sent += 1
        self.latency.record(seconds)
        if self.answered > 1:
            self._differences += abs(seconds - self._last)
        self._last = seconds
        outage = self.outages.answered(trio.current_time())
        return RoundTrip(sequence=self.sent, seconds=seconds, outage=outage)

    async def _exchange(self) -> float:
        number = self.sent + 1
        text = ASCII_TEXT if number % 2 else OTHER_TEXT
        message, reply = make_message(number, self._settings.size, text)
        timeout = self._settings.reply_timeout
        if self._link is not None:
            return await exchange(self._link, message, reply, timeout)
        retries, self._wait = Retries(self._wait), 0
        self._link, seconds = await first_exchange(self._connect, retries, message, reply, timeout)
        return seconds

    def _count(self, failed: Failed) -> RoundTrip:
        self.sent += 1
        outage = 0.0
        if failed.trouble is Trouble.WRONG:
            self.wrong += 1
            outage = self.outages.answered(trio.current_time())
        return RoundTrip(sequence=self.sent, failed=failed, outage=outage)

    async def _drop_connection(self) -> None:
        """Close a connection over which the reply may still come, too late."""
        link, self._link = self._link, None
        if link is not None:
            await trio.aclose_forcefully(link.stream)
