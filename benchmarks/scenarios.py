"""What is measured: each scenario as cells for ``interleave``, and the results of all of them."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from benchmarks.clients import Timed, pipe_cells, startup_cells
from benchmarks.load import (
    ONE_BY_ONE,
    Generator,
    IdleSample,
    Sample,
    Work,
    measure,
    measure_beside_bulk,
    measure_idle,
    measure_warm,
)
from benchmarks.messages import LINES, PIECES, TEXT_LINES, TEXT_PIECES, Messages
from benchmarks.processes import Cores, pinned
from benchmarks.rounds import Cell, Fleet, Grid, Say, interleave
from benchmarks.servers import OURS, Running, Server

PIPELINED = 1000
"""Lines in flight on one connection."""

BULK_IN_FLIGHT = 16
"""Pieces: 1 MiB, enough that neither side waits for the other."""

IDLE_ROUNDS = 1
"""Memory does not depend on what else the machine does."""

STARTS_A_ROUND = 3
"""Starting takes a fraction of a second, and varies more than the rest."""

ONE = "1 connection"
ALONE, BESIDE = "alone", "beside bulk"
ONE_WORKER, TWO_WORKERS = "--workers 1", "--workers 2"
WORKERS_CONNECTIONS = 100
BARE = "bare decode-upper-encode"

LOAD_SCENARIOS = {
    "small": (LINES, 1),
    "small-text": (TEXT_LINES, 1),
    "pipelined": (LINES, PIPELINED),
    "pipelined-text": (TEXT_LINES, PIPELINED),
    "bulk": (PIECES, BULK_IN_FLIGHT),
    "bulk-text": (TEXT_PIECES, BULK_IN_FLIGHT),
}
"""What is sent, and how many messages are in flight on each connection."""

SCENARIOS = (*LOAD_SCENARIOS, "latency", "workers", "idle", "pipe", "startup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is measured. Everything in it bounds the time that a run takes."""

    rounds: int
    seconds: float
    """Of load, for each cell in each round."""
    connections: Sequence[int]
    """For the small messages."""
    idle: Sequence[int]
    """How many clients that say nothing."""
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

    def servers_for(self, *, text: bool) -> list[Server]:
        """The servers that upper-case ASCII (all), or UTF-8 text."""
        return [server for server in self.servers if not text or server.text_options is not None]


@dataclass(slots=True)
class Results:
    """By scenario; what was not asked for, or cannot be measured here, is not there."""

    load: dict[str, Grid[Sample]] = field(default_factory=dict)
    idle: dict[str, Grid[IdleSample]] = field(default_factory=dict)
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


Measure = Callable[[Running], Sample]


def fleet_cells(
    servers: Sequence[Server], fleet: Fleet, columns: Mapping[str, Measure], *, fresh: bool = False
) -> dict[Cell, Callable[[], Sample]]:
    measured = fleet.measure_fresh if fresh else fleet.measure
    return {
        Cell(server.name, label): partial(measured, server, figure)
        for label, figure in columns.items()
        for server in servers
    }


def run_load(bench: Bench, scenario: str) -> Grid[Sample]:
    """Each round has servers of its own: one may be a third faster than another one of its kind.

    Nothing but where their memory lies is different, and it stays so as long as they live.
    """
    messages, in_flight = LOAD_SCENARIOS[scenario]
    text = scenario.endswith("-text")
    settings = bench.settings
    columns: dict[str, Measure] = {}
    for number in settings.connections if in_flight == 1 else [1]:
        work = Work(messages=messages, connections=number, in_flight=in_flight)
        columns[connections_label(number)] = partial(
            measure_warm, generator=bench.generator, work=work, seconds=settings.seconds
        )
    with Fleet(bench.server_cores, text=text) as fleet:
        cells = fleet_cells(bench.servers_for(text=text), fleet, columns, fresh=True)
        if scenario == "bulk-text":
            cells[Cell(BARE, ONE)] = partial(
                measure_bare, messages, bench.server_cores, settings.seconds
            )
        return interleave(cells, settings.rounds, bench.say)


def run_latency(bench: Bench) -> Grid[Sample]:
    settings = bench.settings
    columns: dict[str, Measure] = {
        ALONE: partial(
            measure, generator=bench.generator, work=ONE_BY_ONE, seconds=settings.seconds
        ),
        BESIDE: partial(measure_beside_bulk, generator=bench.generator, seconds=settings.seconds),
    }
    with Fleet(bench.server_cores) as fleet:
        cells = fleet_cells(bench.servers, fleet, columns)
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
    figure: Measure = partial(
        measure,
        generator=replace(bench.generator, cores=everywhere),
        work=Work(messages=LINES, connections=WORKERS_CONNECTIONS, in_flight=1),
        seconds=bench.settings.seconds,
    )
    with Fleet(everywhere) as fleet:
        cells = fleet_cells(servers, fleet, {connections_label(WORKERS_CONNECTIONS): figure})
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
    ours = next(server for server in bench.servers if server.name == OURS)
    settings = bench.settings
    with Fleet(bench.server_cores) as fleet:
        cells = pipe_cells(bench.folder, bench.load_cores, settings.pipe_megabytes)
        at_ours = {cell: partial(fleet.measure, ours, client) for cell, client in cells.items()}
        return interleave(at_ours, settings.rounds, bench.say)


def run_startup(bench: Bench) -> Grid[Timed]:
    rounds = bench.settings.rounds * STARTS_A_ROUND
    return interleave(startup_cells(bench.load_cores), rounds, bench.say)


def run_all(bench: Bench) -> Results:
    """Measure the scenarios of the settings."""
    results = Results()
    ours = any(server.name == OURS for server in bench.servers)
    for scenario in bench.settings.scenarios:
        bench.say(scenario)
        if scenario in LOAD_SCENARIOS:
            results.load[scenario] = run_load(bench, scenario)
        elif scenario == "latency":
            results.load[scenario] = run_latency(bench)
        elif scenario == "idle":
            results.idle[scenario] = run_idle(bench)
        elif not ours:
            bench.say(f"{scenario}: skipped, {OURS} is not there")
        elif scenario == "workers":
            results.load[scenario] = run_workers(bench)
        elif scenario == "pipe":
            results.clients[scenario] = run_pipe(bench)
        else:
            results.clients[scenario] = run_startup(bench)
    return results
