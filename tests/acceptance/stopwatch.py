"""How long a client's round trips take: measured by the benchmark's load generator.

It is a process of its own, so that what else goes on in the gates' process is not measured.
"""

import json
import math
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio
from benchmarks.figures import Histogram, bucket_middle, percentile
from benchmarks.load import CONNECT_SECONDS, DRAIN_SECONDS, WARM_UP_SHARE, Generator, make_generator
from benchmarks.messages import LINES

from tests.acceptance import ROOT
from tests.acceptance.gate import Broken
from tests.helpers.streams import receive_all, receive_line

# What else goes on in the machine only ever adds to a round trip: the lowest has least of it.
PERCENT = 99.0

ROUNDS = 3

# In a millisecond.
NANOSECONDS = 1e6


def by_time(latency: Histogram) -> Histogram:
    """Weight each round trip by how long it took, in whole nanoseconds.

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

    def command(self, port: int, clients: int, seconds: float) -> list[str]:
        """Return the command of a load of so many clients with one message in flight each."""
        requests, replies = LINES.store(self.generator.folder)
        limit = math.ceil(seconds) + CONNECT_SECONDS + DRAIN_SECONDS
        times = [seconds * WARM_UP_SHARE, seconds, limit]
        command = [*self.generator.command, port, clients, 1, *times, len(LINES.requests)]
        return [str(word) for word in [*command, requests, replies]]

    async def _measure(self, port: int, seconds: float) -> float:
        done = await trio.run_process(
            self.command(port, 1, seconds),
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


class Load:
    """Clients that talk all the time, in a process of their own."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process

    async def ready(self) -> None:
        """Wait until all are connected and have been answered; then let them begin."""
        assert self._process.stdin
        await self._line()
        await self._process.stdin.send_all(b"go\n")

    async def result(self) -> None:
        """Wait until they have said all; raise `Broken` unless each reply was right."""
        await self._line()

    async def _line(self) -> bytes:
        assert self._process.stdout
        assert self._process.stderr
        line = await receive_line(self._process.stdout)
        if not line:
            said = (await receive_all(self._process.stderr)).decode().strip()
            raise Broken(f"busy clients ended: {said}")
        return line


@asynccontextmanager
async def load(watch: Stopwatch, port: int, clients: int, seconds: float) -> AsyncGenerator[Load]:
    """Have so many clients talk to the server while the block runs, for `seconds` at least."""
    command = watch.command(port, clients, seconds)
    pipe = subprocess.PIPE
    async with trio.open_nursery() as nursery:
        start = partial(
            trio.run_process,
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            check=False,
            cwd=ROOT,
        )
        process = await nursery.start(start)
        busy = Load(process)
        await busy.ready()
        yield busy
        process.kill()


async def make_stopwatch(folder: Path) -> Stopwatch:
    """Make one that keeps its files in `folder`; building it takes a moment once."""
    return Stopwatch(generator=await trio.to_thread.run_sync(make_generator, folder, frozenset()))
