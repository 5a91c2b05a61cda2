"""Round trips one at a time, over a connection that is made again when it is lost."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from trio_upper.measure.exchange import (
    ASCII_TEXT,
    OTHER_TEXT,
    Connect,
    Failed,
    Trouble,
    close,
    exchange,
    make_message,
    open_stream,
)
from trio_upper.measure.histogram import Histogram
from trio_upper.measure.settings import PingSettings

# After a failure the next attempt begins this long after the last one, whatever the interval, so
# that a machine that refuses is not flooded.
RETRY_SECONDS = 0.1

# A round trip that is interrupted sooner does not count: its reply may have been on its way. A
# longer one is probably why the person interrupted it.
INTERRUPTED_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrip:
    """One round trip: its number from 1 on, and how many seconds it took or why it failed."""

    sequence: int
    seconds: float = math.nan
    failed: Failed | None = None


class Pinger:
    """Makes round trips and counts them. `run` it once; read it at any time."""

    def __init__(self, connect: Connect, settings: PingSettings) -> None:
        self._connect = connect
        self._settings = settings
        self._stream: trio.abc.Stream | None = None
        self._began = math.inf
        #: The times of the round trips whose reply was right.
        self.latency = Histogram()
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
                pause = RETRY_SECONDS if round_trip.failed else 0.0
                begin = self._began + max(self._settings.interval, pause)
                self._began = math.inf
                await show(round_trip)
        finally:
            if self._stream is not None:
                await close(self._stream)

    def give_up(self) -> RoundTrip | None:
        """Count the round trip that a cancelled `run` was at, if it took `INTERRUPTED_SECONDS`."""
        if trio.current_time() - self._began < INTERRUPTED_SECONDS:
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
            await self._drop_connection()
            return self._count(failed)
        self.sent += 1
        self.latency.record(seconds)
        return RoundTrip(sequence=self.sent, seconds=seconds)

    def _count(self, failed: Failed) -> RoundTrip:
        self.sent += 1
        self.wrong += failed.trouble is Trouble.WRONG
        return RoundTrip(sequence=self.sent, failed=failed)

    async def _drop_connection(self) -> None:
        """Close a connection over which the reply may still come, too late."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await trio.aclose_forcefully(stream)
