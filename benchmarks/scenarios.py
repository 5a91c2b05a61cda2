"""What is measured: each scenario as cells for ``interleave``, and the results of all of them."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from benchmarks.clients import Timed, measure_bench, pipe_cells, startup_cells
from benchmarks.load import (
    ONE_BY_ONE,
    Generator,
    IdleSample,
    Sample,
    Work,
    measure,
    measure_beside_bulk,
    measure_burst,
    measure_idle,
    measure_warm,
    over_tls,
)
from benchmarks.messages import LINES, PIECES, TEXT_LINES, TEXT_PIECES, Messages
from benchmarks.processes import Cores, pinned
from benchmarks.rounds import Cell, Fleet, Grid, Say, interleave
from benchmarks.servers import C_EPOLL, MANY_CONNECTIONS, OURS, Running, Server, tls_identity

S = TypeVar("S")

# Lines in flight on one connection.
PIPELINED = 1000

# Pieces: 1 MiB, enough that neither side waits for the other.
BULK_IN_FLIGHT = 16

# Memory does not depend on what else the machine does.
IDLE_ROUNDS = 1

# Starting takes a fraction of a second, and varies more than the rest.
STARTS_A_ROUND = 3

ONE = "1 connection"
ALONE, BESIDE = "alone", "beside bulk"
ONE_WORKER, TWO_WORKERS = "--workers 1", "--workers 2"

# Of the rows that have one number of connections.
SOME_CONNECTIONS = 100

BARE = "bare decode-upper-encode"
BENCH, GENERATOR = "trio-upper bench", "the load generator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What the clients of a scenario send: `in_flight` messages on each connection at a time.

    `connections` None: as many as the settings say, one column each.
    """

    messages: Messages
    in_flight: int = 1
    connections: int | None = 1
    tls: bool = False

    @property
    def text(self) -> bool:
        return self.messages in (TEXT_LINES, TEXT_PIECES)


LOAD_SCENARIOS = {
    "small": Traffic(messages=LINES, connections=None),
    "small-text": Traffic(messages=TEXT_LINES, connections=SOME_CONNECTIONS),
    "small-tls": Traffic(messages=LINES, connections=SOME_CONNECTIONS, tls=True),
    "pipelined": Traffic(messages=LINES, in_flight=PIPELINED),
    "bulk": Traffic(messages=PIECES, in_flight=BULK_IN_FLIGHT),
    "bulk-text": Traffic(messages=TEXT_PIECES, in_flight=BULK_IN_FLIGHT),
    "bulk-tls": Traffic(messages=PIECES, in_flight=BULK_IN_FLIGHT, tls=True),
}

OURS_ALONE = ("workers", "pipe", "bench")
SCENARIOS = (*LOAD_SCENARIOS, "latency", "accept", "idle", *OURS_ALONE, "startup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is measured. Everything in it bounds the time that a run takes."""

    rounds: int
    seconds: float
    """Of load, for each cell in each round."""
    connections: Sequence[int]
    """For the small messages."""
    busy: Sequence[int]
    """Clients beside which others connect."""
    idle: Sequence[int]
    """Clients that say nothing."""
    pipe_megabytes: int
    """Of the file for the clients in pipe mode; 10**6 bytes each."""
    scenarios: Sequence[str] = SCENARIOS


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What measuring needs. `folder` is temporary, and has room for two files for the pipe."""

    servers: Sequence[Server]
    generator: Generator
    server_cores: Cores
    load_cores: Cores
    folder: Path
    settings: Settings
    say: Say

    def servers_for(self, traffic: Traffic) -> list[Server]:
        """Return the servers that can do it, as they are started for it."""
        if traffic.tls:
            cert = tls_identity(self.folder)
            return [server.on_tls(cert) for server in self.servers if cert and server.speaks_tls]
        if traffic.text:
            return [one.on_text() for one in self.servers if one.text_options is not None]
        return list(self.servers)

    @property
    def ours(self) -> Server | None:
        """Our server; None if it is not one of those to measure."""
        return next((server for server in self.servers if server.name == OURS), None)


@dataclass(slots=True)
class Results:
    """By scenario; what was not asked for, or cannot be measured here, is not there."""

    load: dict[str, Grid[Sample]] = field(default_factory=dict)
    accept: Grid[float] = field(default_factory=lambda: Grid(()))
    idle: Grid[IdleSample] = field(default_factory=lambda: Grid(()))
    clients: dict[str, Grid[Timed]] = field(default_factory=dict)


def connections_label(number: int) -> str:
    return ONE if number == 1 else f"{number} connections"


def measure_bare(messages: Messages, cores: Cores, seconds: float) -> Sample:
    """Decode, upper-case and encode whole messages in this process, and nothing else."""
    count = 0
    with pinned(cores):
        start, cpu = time.monotonic(), time.process_time()
        while time.monotonic() < start + seconds:
            for request in messages.requests:
                request.decode().upper().encode()
            count += len(messages.requests)
        cpu, taken = time.process_time() - cpu, time.monotonic() - start
    return Sample(messages=count, seconds=taken, cpu=cpu, load_cpu=0.0, latency={})


def fleet_cells(
    servers: Sequence[Server],
    fleet: Fleet,
    columns: Mapping[str, Callable[[Running], S]],
    *,
    fresh: bool = False,
) -> dict[Cell, Callable[[], S]]:
    measured = fleet.measure_fresh if fresh else fleet.measure
    return {
        Cell(server.name, label): partial(measured, server, figure)
        for label, figure in columns.items()
        for server in servers
    }


def run_load(bench: Bench, scenario: str) -> Grid[Sample]:
    """Measure servers that are new in each round.

    Two of one kind can differ by a third, only by where their memory lies, as long as they live.
    """
    traffic, settings = LOAD_SCENARIOS[scenario], bench.settings
    columns: dict[str, Callable[[Running], Sample]] = {}
    for number in [traffic.connections] if traffic.connections else settings.connections:
        work = Work(messages=traffic.messages, connections=number, in_flight=traffic.in_flight)
        generator = over_tls(bench.generator) if traffic.tls else bench.generator
        columns[connections_label(number)] = partial(
            measure_warm, generator=generator, work=work, seconds=settings.seconds
        )
    with Fleet(bench.server_cores) as fleet:
        cells = fleet_cells(bench.servers_for(traffic), fleet, columns, fresh=True)
        if scenario == "bulk-text":
            cells[Cell(BARE, ONE)] = partial(
                measure_bare, traffic.messages, bench.server_cores, settings.seconds
            )
        return interleave(cells, settings.rounds, bench.say)


def run_latency(bench: Bench) -> Grid[Sample]:
    settings = bench.settings
    columns = {
        ALONE: partial(
            measure, generator=bench.generator, work=ONE_BY_ONE, seconds=settings.seconds
        ),
        BESIDE: partial(measure_beside_bulk, generator=bench.generator, seconds=settings.seconds),
    }
    with Fleet(bench.server_cores) as fleet:
        cells = fleet_cells(bench.servers, fleet, columns)
        return interleave(cells, settings.rounds, bench.say)


def run_accept(bench: Bench) -> Grid[float]:
    """Measure a burst of newcomers beside busy clients, at the servers that are made for many."""
    settings = bench.settings
    columns = {
        f"{number} busy clients": partial(measure_burst, generator=bench.generator, busy=number)
        for number in settings.busy
    }
    servers = [server for server in bench.servers if server.most_connections == MANY_CONNECTIONS]
    with Fleet(bench.server_cores) as fleet:
        cells = fleet_cells(servers, fleet, columns, fresh=True)
        return interleave(cells, settings.rounds, bench.say)


def run_workers(bench: Bench) -> Grid[Sample]:
    """Our server with one process and with two; they and the load have all cores in common."""
    everywhere = bench.server_cores | bench.load_cores
    servers = [
        Server(
            name=option,
            command=(sys.executable, "-m", "trio_upper", "serve", *option.split(), "--port"),
            text_options=(),
        )
        for option in (ONE_WORKER, TWO_WORKERS)
    ]
    figure = partial(
        measure,
        generator=replace(bench.generator, cores=everywhere),
        work=Work(messages=LINES, connections=SOME_CONNECTIONS, in_flight=1),
        seconds=bench.settings.seconds,
    )
    with Fleet(everywhere) as fleet:
        cells = fleet_cells(servers, fleet, {connections_label(SOME_CONNECTIONS): figure})
        return interleave(cells, bench.settings.rounds, bench.say)


def run_idle(bench: Bench) -> Grid[IdleSample]:
    with Fleet(bench.server_cores) as fleet:
        cells = {
            Cell(server.name, connections_label(number)): partial(
                fleet.measure_fresh,
                server,
                partial(measure_idle, generator=bench.generator, connections=number),
            )
            for number in bench.settings.idle
            for server in bench.servers
        }
        return interleave(cells, IDLE_ROUNDS, bench.say)


def run_pipe(bench: Bench) -> Grid[Timed]:
    """Measure clients in pipe mode, all with our server."""
    settings = bench.settings
    assert bench.ours
    clients = pipe_cells(bench.folder, bench.load_cores, settings.pipe_megabytes)
    with Fleet(bench.server_cores) as fleet:
        cells = {cell: partial(fleet.measure, bench.ours, run) for cell, run in clients.items()}
        return interleave(cells, settings.rounds, bench.say)


def run_bench(bench: Bench) -> Grid[Sample]:
    """Measure how much load ``bench`` can offer, beside the generator, both with a server in C."""
    work = Work(messages=LINES, connections=SOME_CONNECTIONS, in_flight=1)
    label, settings = connections_label(SOME_CONNECTIONS), bench.settings
    offers: dict[str, Callable[[Running], Sample]] = {
        BENCH: partial(measure_bench, cores=bench.load_cores, seconds=settings.seconds),
        GENERATOR: partial(measure, generator=bench.generator, work=work, seconds=settings.seconds),
    }
    in_c = [server for server in bench.servers if server.name == C_EPOLL]
    [server] = in_c or [server for server in bench.servers if server.name == OURS]
    with Fleet(bench.server_cores) as fleet:
        cells = {
            Cell(name, label): partial(fleet.measure, server, offer)
            for name, offer in offers.items()
        }
        return interleave(cells, settings.rounds, bench.say)


def run_startup(bench: Bench) -> Grid[Timed]:
    rounds = bench.settings.rounds * STARTS_A_ROUND
    return interleave(startup_cells(bench.load_cores), rounds, bench.say)


def run_all(bench: Bench) -> Results:
    """Measure the scenarios of the settings."""
    results = Results()
    load = {"latency": run_latency, "workers": run_workers, "bench": run_bench}
    for scenario in bench.settings.scenarios:
        bench.say(scenario)
        if scenario in OURS_ALONE and bench.ours is None:
            bench.say(f"{scenario}: skipped, {OURS} is not there")
        elif scenario in LOAD_SCENARIOS:
            results.load[scenario] = run_load(bench, scenario)
        elif scenario in load:
            results.load[scenario] = load[scenario](bench)
        elif scenario == "accept":
            results.accept = run_accept(bench)
        elif scenario == "idle":
            results.idle = run_idle(bench)
        elif scenario == "pipe":
            results.clients[scenario] = run_pipe(bench)
        else:
            results.clients[scenario] = run_startup(bench)
    return results
