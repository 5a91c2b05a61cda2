"""``ping``: a line for each round trip, then the summary, also after Ctrl-C and at total failure.

Ctrl-C is the usual way to end it, and so is SIGTERM where a script does (`timeout 10 …`): both give
the summary, and the exit code tells how it went, not what ended it.
"""

import json
import signal
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial

import trio

from trio_upper.cli.client import quote
from trio_upper.cli.output import say, sole_error
from trio_upper.cli.signals import end_by, until_signal
from trio_upper.client.connect import open_connection
from trio_upper.client.failures import CannotConnect, Cause, broken, looks_like_tls
from trio_upper.client.settings import ConnectSettings
from trio_upper.client.target import Target
from trio_upper.measure.histogram import in_milliseconds
from trio_upper.measure.pinger import Failed, Pinger, RoundTrip, Settings, Trouble
from trio_upper.protocol import NOTICE_PREFIX, read_notice
from trio_upper.stdio.streams import Output, OutputClosed, OutputError, open_output
from trio_upper.terminal.prompt import escape


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(Settings):
    """The options of ``ping``; times in seconds, 0 means no limit.

    `connection.wait` is for the first connection; a lost one is tried again once a round trip.
    """

    connection: ConnectSettings = field(default_factory=ConnectSettings)
    as_json: bool = False


def run(target: Target, options: Options) -> int:
    """Ping until `options.count` or a signal; return the exit code.

    That is 0 if every round trip, and one at least, had the right reply, else 1.
    """
    code: int | signal.Signals = 1
    try:
        code = trio.run(_Ping(target, options).run)
    except* OutputClosed:
        code = signal.SIGPIPE
    except* OutputError as failed:
        say(str(sole_error(failed)))
    if isinstance(code, signal.Signals):
        end_by(code)
    return code


class Reasons:
    """Why messages were not answered, in words, and how often.

    Each kind is told in the words of its first case: those of others may differ in times and
    quotations, which nobody wants to read a thousand of.
    """

    def __init__(self, reply_timeout: float) -> None:
        self._reply_timeout = reply_timeout
        self._words: dict[Trouble | Cause | str, str] = {}
        #: How often, by the words.
        self.counts: Counter[str] = Counter()

    def add(self, failed: Failed) -> str:
        """Count a failure; return its own words."""
        words = explain(failed, self._reply_timeout)
        kind: Trouble | Cause | str = failed.trouble
        if isinstance(failed.error, CannotConnect):
            kind = failed.error.cause
        elif failed.trouble is Trouble.BROKEN:
            kind = words
        self.counts[self._words.setdefault(kind, words)] += 1
        return words

    def lines(self) -> list[str]:
        """Return a line for each kind, the most frequent first."""
        return [f"{count:,} x {words}" for words, count in self.counts.most_common()]


def explain(failed: Failed, reply_timeout: float) -> str:
    """Return in one line for a person, harmless to a terminal, why there is no right reply."""
    match failed.trouble:
        case Trouble.UNCONNECTED:
            return str(failed.error)
        case Trouble.BROKEN:
            return broken(failed.error or failed)
        case Trouble.SILENT:
            return f"no reply came for {reply_timeout:g} s"
        case Trouble.NOTICE:
            notice = read_notice(failed.words) or ""
            return escape(notice.removeprefix(NOTICE_PREFIX.decode()))
        case Trouble.WRONG if looks_like_tls(failed.words):
            return Cause.TLS_WANTED.sentence
        case Trouble.WRONG:
            return f"this is not the reply: {quote(failed.words)}"
        case _:
            return str(failed)


class _Ping:
    def __init__(self, target: Target, options: Options) -> None:
        self._target = target
        self._options = options
        self._settings = options.connection
        self._pinger = Pinger(self._connect, options)
        self._reasons = Reasons(options.reply_timeout)

    async def run(self) -> int | signal.Signals:
        async with open_output() as output:
            received = await until_signal(partial(self._pinger.run, partial(self._show, output)))
            if received is signal.SIGHUP:  # the terminal has gone, nobody is left to read
                return received
            # A second signal ends it, even where the output waits for a reader.
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
            f"{' / '.join(times)}: {values} ms" if pinger.answered else "no times: no right reply",
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
