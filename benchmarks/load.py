"""Runs a load generator against a server, and measures that server meanwhile.

The contract of both generators, ``generator.c`` and ``generator.py``:

1. Arguments: port, connections, messages in flight on each, seconds to warm up, seconds to
   measure, seconds after which it kills itself, number of messages, the file of requests, the file
   of replies.
2. It opens the connections one after another, with one message there and back on each, warms up,
   and waits until nothing is owed. Then it prints ``ready`` and waits for a line.
3. It sends for the seconds to measure, waits until nothing is owed, and prints one JSON object:
   ``messages`` answered, ``seconds`` taken, ``cpu`` seconds of its own, and ``latency`` as pairs of
   a bucket (see ``figures.bucket``) and how many messages fell into it. It keeps its connections
   until it is ended, or is told another line.
4. Every byte of every reply is compared. At a wrong one, as at a connection lost, it ends with 1
   and a sentence. It does not look at a connection while nothing is owed on it: a server that is
   told to stop may say so, and end it.

The server is idle at both ends of 3, so its CPU time between them is what just these messages cost.
"""

import contextlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.figures import Histogram, percentile
from benchmarks.messages import LINES, PIECES, Messages
from benchmarks.processes import (
    Cores,
    child,
    cpu_seconds,
    memory_bytes,
    most_descriptors,
    open_descriptors,
    spent,
    wait_until,
)
from benchmarks.servers import Failed, Running, build_c

PYTHON_GENERATOR = (sys.executable, "-m", "benchmarks.generator")

# Of the seconds to measure: enough for buffers and caches to have grown.
WARM_UP_SHARE = 0.2

# For thousands of connections at a server that starts a thread for each.
CONNECT_SECONDS = 60

# For the last replies, beyond the time to measure.
DRAIN_SECONDS = 30

# Bulk connections beside the one whose latency is measured.
NEIGHBOURS = 10

# So that the neighbours are busy to the end of what is measured beside them.
NEIGHBOURS_LONGER_SECONDS = 0.1

# The neighbours' generator gives way: the server is to be late, not what measures it.
NEIGHBOURS_NICE = 19

# Of the same load, at a server that was just started.
WARM_SECONDS = 0.1

# Before idle memory is measured: what a server makes only once is made by then.
WARM_CONNECTIONS = 10

# For a server to notice that its clients have left.
LEAVE_SECONDS = 10.0

# What a server may have open besides its connections.
SPARE_DESCRIPTORS = 200

# Clients that connect at once, and how long all of them together have.
NEWCOMERS = 500
BURST_SECONDS = 20.0

MICROSECONDS_PER_SECOND = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """A load generator ready to be started, and what the page says of it."""

    description: str
    command: tuple[str, ...]
    folder: Path
    """Where the messages are kept for it."""
    cores: Cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is asked of a server: so many connections, and messages in flight on each."""

    messages: Messages
    connections: int
    in_flight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One round at one server. Times in seconds, memory in bytes."""

    messages: int
    seconds: float
    cpu: float
    """The server's own, user and system."""
    load_cpu: float
    """The generator's own: near `seconds`, it was not the server that was slow."""
    latency: Histogram = field(repr=False)
    grown: int = 0
    """How much more memory the server holds after it."""

    @property
    def cpu_us(self) -> float:
        """The server's CPU time a message, in microseconds."""
        return self.cpu / self.messages * MICROSECONDS_PER_SECOND if self.messages else math.nan

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds if self.messages else math.nan

    def latency_us(self, percent: float) -> float:
        """A percentile of the time from sending a message to having its reply, in microseconds."""
        return percentile(self.latency, percent) / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleSample:
    """What a server holds for so many clients that say nothing, in bytes."""

    connections: int
    before: int
    during: int
    after: int
    """When they have left. Most allocators keep for later what they do not need now."""
    again: int
    """With as many clients a second time: much more than `during` would be a leak."""

    @property
    def each(self) -> float:
        """For each client while they are there."""
        return (self.during - self.before) / self.connections

    @property
    def kept(self) -> float:
        """For each client when they have left."""
        return (self.after - self.before) / self.connections

    @property
    def each_again(self) -> float:
        """For each client of the second time."""
        return (self.again - self.before) / self.connections


def make_generator(folder: Path, cores: Cores, *, compiled: bool = True) -> Generator:
    """The one in C where it can be compiled (and `compiled` is true), else the one in Python."""
    program = folder / "generator"
    if compiled and not build_c(Path(__file__).with_name("generator.c"), program):
        return Generator(
            description="in C, on epoll", command=(str(program),), folder=folder, cores=cores
        )
    return Generator(
        description="in Python, on epoll (no C compiler; it may be what is slow)",
        command=PYTHON_GENERATOR,
        folder=folder,
        cores=cores,
    )


def over_tls(generator: Generator) -> Generator:
    """Return one that speaks TLS; it is slower, which the server's CPU time does not show."""
    return replace(
        generator, description="in Python, on epoll, over TLS", command=(*PYTHON_GENERATOR, "--tls")
    )


class Load:
    """A generator at work: `ready`, then `go`, then `result`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ready(self) -> None:
        self._line()

    def go(self) -> None:
        assert self.process.stdin is not None
        # A generator that has failed meanwhile says so where the result is read.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("go\n")
            self.process.stdin.flush()

    def result(self) -> tuple[int, float, float, Histogram]:
        """Messages, seconds, the generator's CPU seconds, latencies."""
        found = json.loads(self._line())
        return found["messages"], found["seconds"], found["cpu"], dict(found["latency"])

    def _line(self) -> str:
        """The next line; bounded, as the generator kills itself after its limit."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        line = self.process.stdout.readline()
        if not line:
            said = self.process.stderr.read().strip().removeprefix("generator: ")
            raise Failed(said or "no reply in time")
        return line


@contextlib.contextmanager
def load(
    server: Running,
    generator: Generator,
    work: Work,
    seconds: float,
    *,
    warm_up: float | None = None,
) -> Iterator[Load]:
    """Start the generator; it is ended on leaving, finished or not.

    `warm_up` is in seconds; None: a share of `seconds`.
    """
    most = min(server.most_connections, most_descriptors() - SPARE_DESCRIPTORS)
    if work.connections > most:
        raise Failed(f"not above {most} connections")
    limit = CONNECT_SECONDS + DRAIN_SECONDS + math.ceil(seconds)
    requests, replies = work.messages.store(generator.folder)
    arguments = [
        server.port,
        work.connections,
        work.in_flight,
        seconds * WARM_UP_SHARE if warm_up is None else warm_up,
        seconds,
        limit,
    ]
    files = [len(work.messages.requests), requests, replies]
    command = [*generator.command, *map(str, [*arguments, *files])]
    pipe = subprocess.PIPE
    with child(command, generator.cores, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        yield Load(process)


def measure(server: Running, generator: Generator, work: Work, seconds: float) -> Sample:
    """One round, to the moment when the server has seen the last client off."""
    descriptors = open_descriptors(server.pid)
    with load(server, generator, work, seconds) as at_work:
        at_work.ready()
        memory, before = memory_bytes(server.pid), cpu_seconds(server.pid)
        at_work.go()
        messages, taken, load_cpu, latency = at_work.result()
        cpu = spent(before, cpu_seconds(server.pid))
        grown = memory_bytes(server.pid) - memory
    see_off(server, descriptors)
    return Sample(
        messages=messages, seconds=taken, cpu=cpu, load_cpu=load_cpu, latency=latency, grown=grown
    )


def measure_warm(server: Running, generator: Generator, work: Work, seconds: float) -> Sample:
    """One round at a server that was just started: what it makes only once is made by then."""
    measure(server, generator, work, WARM_SECONDS)
    return measure(server, generator, work, seconds)


def see_off(server: Running, descriptors: int) -> None:
    """Wait until the server has no more than these: what it does until then disturbs others."""
    if not wait_until(lambda: open_descriptors(server.pid) <= descriptors, LEAVE_SECONDS):
        raise Failed("the server keeps connections whose clients have left")


ONE_BY_ONE = Work(messages=LINES, connections=1, in_flight=1)
BULK_NEIGHBOURS = Work(messages=PIECES, connections=NEIGHBOURS, in_flight=16)


def measure_beside_bulk(server: Running, generator: Generator, seconds: float) -> Sample:
    """One connection, one message in flight, while others send bulk; only the one is counted.

    The CPU time is the server's for all of them.
    """
    longer = seconds + NEIGHBOURS_LONGER_SECONDS
    descriptors = open_descriptors(server.pid)
    with load(server, generator, BULK_NEIGHBOURS, longer) as bulk:
        os.setpriority(os.PRIO_PROCESS, bulk.process.pid, NEIGHBOURS_NICE)
        bulk.ready()
        with load(server, generator, ONE_BY_ONE, seconds) as one:
            one.ready()
            bulk.go()
            before = cpu_seconds(server.pid)
            one.go()
            messages, taken, load_cpu, latency = one.result()
            cpu = spent(before, cpu_seconds(server.pid))
        bulk.result()
    see_off(server, descriptors)
    return Sample(messages=messages, seconds=taken, cpu=cpu, load_cpu=load_cpu, latency=latency)


def measure_burst(server: Running, generator: Generator, busy: int) -> float:
    """Return the seconds until the last of `NEWCOMERS` has its reply, beside `busy` clients."""
    work = Work(messages=LINES, connections=busy, in_flight=1)
    descriptors = open_descriptors(server.pid)
    command = [sys.executable, "-m", "benchmarks.burst"]
    arguments = map(str, [server.port, NEWCOMERS, BURST_SECONDS])
    pipe = subprocess.PIPE
    with load(server, generator, work, BURST_SECONDS, warm_up=WARM_SECONDS) as at_work:
        at_work.ready()
        at_work.go()
        with child([*command, *arguments], generator.cores, stdout=pipe, stderr=pipe) as burst:
            said, why = burst.communicate()
    if burst.returncode:
        raise Failed(why.strip())
    see_off(server, descriptors)
    return float(said)


def measure_idle(server: Running, generator: Generator, connections: int) -> IdleSample:
    """Connect clients that say one line each and then nothing, twice."""
    warm = Work(messages=LINES, connections=WARM_CONNECTIONS, in_flight=1)
    idle_bytes(server, generator, warm)
    before = memory_bytes(server.pid)
    work = Work(messages=LINES, connections=connections, in_flight=1)
    during = idle_bytes(server, generator, work)
    after = memory_bytes(server.pid)
    again = idle_bytes(server, generator, work)
    return IdleSample(
        connections=connections, before=before, during=during, after=after, again=again
    )


def idle_bytes(server: Running, generator: Generator, work: Work) -> int:
    """The server's memory with the clients of `work` connected and idle; they leave afterwards."""
    descriptors = open_descriptors(server.pid)
    with load(server, generator, work, seconds=0) as at_work:
        at_work.ready()
        memory = memory_bytes(server.pid)
        at_work.go()
        at_work.result()
    see_off(server, descriptors)
    return memory
