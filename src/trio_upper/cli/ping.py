"""``ping``: a line for each round trip, then the summary, also after Ctrl-C and at total failure.

Ctrl-C is the usual way to end it, and SIGTERM is where a script does (`timeout 10 …`): both give
the summary, and the exit code tells how it went, not what ended it.
"""

import json
from dataclasses import dataclass, field, replace
from functools import partial

import trio

from trio_upper.cli.reasons import Reasons
from trio_upper.cli.run import Ending, run_command
from trio_upper.cli.signals import until_signal
from trio_upper.client.connect import open_connection
from trio_upper.client.settings import ConnectSettings
from trio_upper.client.target import Target
from trio_upper.measure.exchange import Trouble
from trio_upper.measure.histogram import in_milliseconds
from trio_upper.measure.pinger import Pinger, RoundTrip
from trio_upper.measure.settings import PingSettings
from trio_upper.platform import HUNG_UP
from trio_upper.stdio.streams import Output, open_output


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(PingSettings):
    """The options of ``ping``; times in seconds, 0 means no limit.

    `connection.wait` is for the first connection; a lost one is tried again once a round trip.
    """

    connection: ConnectSettings = field(default_factory=ConnectSettings)
    as_json: bool = False


def run(target: Target, options: Options) -> int:
    """Ping until `options.count` or a signal; return the exit code.

    That is 0 if every round trip, and at least one, had the right reply, else 1.
    """
    return run_command(_Ping(target, options).run)


class _Ping:
    def __init__(self, target: Target, options: Options) -> None:
        self._target = target
        self._options = options
        self._settings = options.connection
        self._pinger = Pinger(self._connect, options)
        self._reasons = Reasons(options.reply_timeout)

    async def run(self) -> Ending:
        async with open_output() as output:
            received = await until_signal(partial(self._pinger.run, partial(self._show, output)))
            if received == HUNG_UP:  # the terminal has gone, so nobody reads the summary
                return received
            # A second signal ends it, even while the output waits for a reader.
            received = await until_signal(partial(self._sum_up, output))
        pinger = self._pinger
        all_right = 0 < pinger.sent == pinger.answered
        return received or (0 if all_right else 1)

    async def _connect(self) -> trio.abc.Stream:
        settings, self._settings = self._settings, replace(self._settings, wait=0)
        return (await open_connection(self._target, settings)).stream

    async def _show(self, output: Output, round_trip: RoundTrip) -> None:
        line = self._line(round_trip)
        if not self._options.as_json:
            await output.send_all(line)

    def _line(self, round_trip: RoundTrip) -> bytes:
        failed = round_trip.failed
        if failed is None:
            text = f"{round_trip.seconds * 1e3:.3f} ms"
        else:
            verdict = "wrong" if failed.trouble is Trouble.WRONG else "not answered"
            text = f"{verdict}: {self._reasons.add(failed)}"
        return f"seq={round_trip.sequence} {text}\n".encode()

    async def _sum_up(self, output: Output) -> None:
        if last := self._pinger.give_up():
            await self._show(output, last)
        text = self._json() if self._options.as_json else "\n".join(self._summary())
        await output.send_all(f"{text}\n".encode())

    def _times(self) -> dict[str, float]:
        latency = self._pinger.latency
        return {
            "min": latency.min,
            "median": latency.percentile(50),
            "mean": latency.mean,
            "p99": latency.percentile(99),
            "max": latency.max,
        }

    def _summary(self) -> list[str]:
        pinger = self._pinger
        times = self._times()
        values = " / ".join(f"{time * 1e3:.3f}" for time in times.values())
        return [
            "",
            (
                f"{self._target.host} port {self._target.port}: {pinger.sent:,} sent, "
                f"{pinger.answered:,} answered, {pinger.wrong:,} wrong, "
                f"{pinger.unanswered:,} not answered"
            ),
            f"{' / '.join(times)}: {values} ms"
            if pinger.answered
            else "no timings: no reply was right",
            *self._reasons.lines(),
        ]

    def _json(self) -> str:
        pinger = self._pinger
        return json.dumps(
            {
                "host": self._target.host,
                "port": self._target.port,
                "size_bytes": self._options.size,
                "sent": pinger.sent,
                "answered": pinger.answered,
                "wrong": pinger.wrong,
                "unanswered": pinger.unanswered,
                **in_milliseconds(self._times()),
                "reasons": self._reasons.counts,
            }
        )
