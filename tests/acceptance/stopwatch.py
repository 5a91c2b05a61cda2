"""How long a client's round trips take: measured by the benchmark's load generator.

It is a process of its own, so that what else goes on in the gates' process is not measured.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import trio
from benchmarks.figures import Histogram, bucket_middle, percentile
from benchmarks.load import DRAIN_LIMIT_S, WARM_UP_SHARE, Generator, make_generator
from benchmarks.messages import LINES

from tests.acceptance import ROOT
from tests.acceptance.gate import Broken

PERCENT = 99.0

ROUNDS = 3
"""What else goes on in the machine only ever adds to a round trip: the lowest has least of it."""

NANOSECONDS = 1e6
"""In a millisecond."""


def by_time(latency: Histogram) -> Histogram:
    """Count each round trip for as long as it took, in whole nanoseconds.

    A client that waits for each answer asks seldom while the server is slow. Of a server that
    stands still half of the time only one answer in hundreds would be late.
    """
    return {index: round(count * bucket_middle(index)) for index, count in latency.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopwatch:
    """Measures one connection with one message in flight."""

    generator: Generator

    async def p99_ms(self, port: int, seconds: float) -> float:
        """Return the 99th percentile by time of its round trips, in milliseconds.

        At 99 of 100 moments the round trip under way takes no longer. Each answer is right.

        The lowest of several measurements, of so many seconds each.
        """
        return min([await self._measure(port, seconds) for _ in range(ROUNDS)])

    async def _measure(self, port: int, seconds: float) -> float:
        requests, replies = LINES.store(self.generator.folder)
        limit = math.ceil(seconds) + DRAIN_LIMIT_S
        times = [seconds * WARM_UP_SHARE, seconds, limit]
        command = [*self.generator.command, port, 1, 1, *times, len(LINES.requests)]
        done = await trio.run_process(
            [*map(str, command), requests, replies],
            stdin=b"go\n",
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=ROOT,
        )
        if done.returncode:
            raise Broken(f"a neighbour ended with {done.returncode}: {done.stderr.decode()}")
        latency = dict(json.loads(done.stdout.splitlines()[-1])["latency"])
        return percentile(by_time(latency), PERCENT) / NANOSECONDS


async def make_stopwatch(folder: Path) -> Stopwatch:
    """Make one that keeps its files in `folder`; building it takes a moment once."""
    return Stopwatch(generator=await trio.to_thread.run_sync(make_generator, folder, frozenset()))
