"""``ping``: a line for each round trip, then the summary, also after Ctrl-C and at total failure.

Ctrl-C is the usual way to end it, and SIGTERM is where a script does (`timeout 10 …`): both give
the summary, and the exit code tells how it went, not what ended it.
"""

import json
import math
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime

import trio

from trio_upper.cli.output import Tell, behind, is_terminal, patience, tell
from trio_upper.cli.reasons import Reasons
from trio_upper.cli.run import Ending, run_command
from trio_upper.cli.signals import not_ignored, until_signal
from trio_upper.client.connect import Retries, open_connection
from trio_upper.client.settings import ConnectSettings
from trio_upper.client.target import Target
from trio_upper.measure.exchange import Trouble
from trio_upper.measure.histogram import in_milliseconds
from trio_upper.measure.pinger import Overdue, Pinger, RoundTrip
from trio_upper.measure.settings import PingSettings
from trio_upper.platform import HUNG_UP, SUMMARY_SIGNAL
from trio_upper.stdio.streams import open_output


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(PingSettings):
    """The options of ``ping``; times in seconds, 0 means no limit.

    `connection.wait` is for the first connection; a lost one is tried again once a round trip.
    `timestamps` puts the local time before each line. `as_json` prints one object at the end,
    `as_json_lines` also one for each round trip; they exclude each other.
    """

    connection: ConnectSettings = field(default_factory=ConnectSettings)
    timestamps: bool = False
    as_json: bool = False
    as_json_lines: bool = False


def run(target: Target, options: Options) -> int:
    """Ping until `options.count` or a signal; return the exit code.

    That is 0 if every round trip, and at least one, had the right reply, else 1.
    """
    return run_command(_Ping(target, options).run)


class _Ping:
    def __init__(self, target: Target, options: Options) -> None:
        self._target = target
        self._options = options
        self._pinger = Pinger(self._connect, options, wait=options.connection.wait)
        self._reasons = Reasons(options.reply_timeout)
        self._address = ""

    async def run(self) -> Ending:
        # A second signal ends it, even while the output waits for a reader.
        return await until_signal(self._ping_and_sum_up)

    async def _ping_and_sum_up(self) -> Ending:
        with trio.CancelScope() as scope:
            async with self._open_output() as self._write:
                received = await until_signal(self._ping)
                scope.deadline = trio.current_time() + patience(received)
                await self._sum_up()
        pinger = self._pinger
        if received == HUNG_UP:
            return HUNG_UP
        return 0 if 0 < pinger.sent == pinger.answered else 1

    @asynccontextmanager
    async def _open_output(self) -> AsyncIterator[Tell]:
        """Give the way of writing to standard output, for several tasks at once."""
        writing = trio.Lock()
        async with open_output() as output:

            async def write(text: str) -> None:
                async with writing:
                    await output.send_all(f"{text}\n".encode())

            async with behind(write) if is_terminal(sys.stdout) else nullcontext(write) as put:
                yield put

    async def _ping(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sum_up_on_request)
            await self._pinger.run(self._show)
            nursery.cancel_scope.cancel()

    async def _connect(self, retries: Retries) -> trio.abc.Stream:
        connection = await open_connection(self._target, self._options.connection, retries)
        if connection.address != self._address:
            self._address = connection.address
            await self._print_lines(str(connection))
        return connection.stream

    # ------------------------------------------------------------------ while it runs

    async def _show(self, event: RoundTrip | Overdue) -> None:
        if isinstance(event, Overdue):
            await self._print_lines(f"no answer for {event.seconds:.0f} s")
            return
        reason = self._reasons.add(event.failed) if event.failed else None
        await self._print_lines(*_words(event, reason))
        if self._options.as_json_lines:
            await self._write(_round_trip_json(event, reason))

    async def _print_lines(self, *lines: str) -> None:
        """Print lines, each with the time if that is wanted; with JSON, nothing."""
        options = self._options
        if not (options.as_json or options.as_json_lines):
            stamp = f"{_local_time()} " if options.timestamps else ""
            await self._write("\n".join(stamp + line for line in lines))

    async def _sum_up_on_request(self) -> None:
        """Print the summary so far at each `SUMMARY_SIGNAL`; to standard error beside JSON."""
        numbers = not_ignored(*([SUMMARY_SIGNAL] if SUMMARY_SIGNAL else []))
        if not numbers:
            return
        with trio.open_signal_receiver(*numbers) as signals:
            async for _ in signals:
                if self._options.as_json or self._options.as_json_lines:
                    for line in self._summary():
                        await tell(line)
                else:
                    await self._write("\n".join(["", *self._summary(), ""]))

    # ------------------------------------------------------------------ the summary

    async def _sum_up(self) -> None:
        if last := self._pinger.give_up():
            await self._show(last)
        if self._options.as_json:
            await self._write(json.dumps(self._json()))
        elif self._options.as_json_lines:
            await self._write(json.dumps({"type": "summary", **self._json()}))
        else:
            await self._write("\n".join(["", *self._summary()]))

    def _summary(self) -> list[str]:
        pinger, target = self._pinger, self._target
        shown = self._address not in {"", target.host}
        host = f"{target.host} ({self._address})" if shown else target.host
        return [
            (
                f"{host} port {target.port}: {pinger.sent:,} sent, "
                f"{pinger.answered:,} answered, {pinger.wrong:,} wrong, "
                f"{pinger.unanswered:,} not answered"
            ),
            self._timings(),
            self._outages(),
            *self._reasons.lines(hints=False),
        ]

    def _timings(self) -> str:
        times = self._times()
        del times["jitter"]
        if not self._pinger.answered:
            return "no timings: no reply was right"
        values = " / ".join(f"{time * 1e3:.3f}" for time in times.values())
        jitter = self._pinger.jitter
        shown = "" if math.isnan(jitter) else f"; jitter {jitter * 1e3:.3f} ms"
        return f"{' / '.join(times)}: {values} ms{shown}"

    def _outages(self) -> str:
        outages = self._pinger.outages.durations(trio.current_time())
        if not outages:
            return "outages: none"
        longest, total = max(outages), sum(outages)
        return f"outages: {len(outages):,}, longest {longest:.1f} s, {total:.1f} s in total"

    def _times(self) -> dict[str, float]:
        latency = self._pinger.latency
        return {
            "min": latency.min,
            "median": latency.percentile(50),
            "mean": latency.mean,
            "p99": latency.percentile(99),
            "max": latency.max,
            "jitter": self._pinger.jitter,
        }

    def _json(self) -> dict[str, object]:
        pinger = self._pinger
        outages = pinger.outages.durations(trio.current_time())
        return {
            "host": self._target.host,
            "address": self._address or None,
            "port": self._target.port,
            "size_bytes": self._options.size,
            "sent": pinger.sent,
            "answered": pinger.answered,
            "wrong": pinger.wrong,
            "unanswered": pinger.unanswered,
            **in_milliseconds(self._times()),
            "outages": len(outages),
            "longest_outage_s": round(max(outages, default=0.0), 3),
            "total_outage_s": round(sum(outages), 3),
            "reasons": self._reasons.counts,
        }


def _words(round_trip: RoundTrip, reason: str | None) -> Iterator[str]:
    """Yield the lines for a round trip."""
    if round_trip.outage:
        yield f"back after {round_trip.outage:.1f} s"
    result = f"{round_trip.seconds * 1e3:.3f} ms" if reason is None else _result(round_trip, reason)
    yield f"seq={round_trip.sequence} {result}"


def _result(round_trip: RoundTrip, reason: str) -> str:
    return f"{_outcome(round_trip)}: {reason}"


def _outcome(round_trip: RoundTrip) -> str:
    if round_trip.failed is None:
        return "answered"
    return "wrong" if round_trip.failed.trouble is Trouble.WRONG else "not answered"


def _round_trip_json(round_trip: RoundTrip, reason: str | None) -> str:
    return json.dumps(
        {
            "type": "round_trip",
            "time": _local_time(),
            "sequence": round_trip.sequence,
            "outcome": _outcome(round_trip),
            **in_milliseconds({"reply": round_trip.seconds}),
            "reason": reason,
        }
    )


def _local_time() -> str:
    """Return the local time in the format of ISO 8601, with milliseconds."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
