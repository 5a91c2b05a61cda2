"""What has to be reached, each as one figure against its limit."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.clients import HELP, IMPORTS, NC, Timed
from benchmarks.figures import ratio
from benchmarks.load import IdleSample, Sample
from benchmarks.rounds import Grid
from benchmarks.scenarios import (
    ALONE,
    BARE,
    BESIDE,
    ONE,
    ONE_WORKER,
    TWO_WORKERS,
    Results,
    connections_label,
)
from benchmarks.servers import OURS, YARDSTICK

TARGET_CONNECTIONS = 100
"""Of the small messages' target."""

MOST_EACH_KIB = 6.0
"""Memory for an idle client."""

MOST_SECOND_TIME = 1.1
"""Of the memory that clients took the first time: a leak would double it."""

MOST_GROWN_MIB = 1.0
"""Memory after a stream of gigabytes; "none" up to what an allocator rounds to."""

DECIMALS = 2
"""Figures are compared as they are printed; the third decimal is noise in any run."""

KIB, MIB = 1024, 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One figure and its limit; a figure of NaN was not measured."""

    what: str
    figure: float
    limit: float
    at_least: bool = False
    unit: str = "x"

    @property
    def verdict(self) -> str:
        if math.isnan(self.figure):
            return "not measured"
        figure = round(self.figure, DECIMALS)
        good = figure >= self.limit if self.at_least else figure <= self.limit
        return "reached" if good else "**missed**"

    @property
    def limit_text(self) -> str:
        bound = "at least" if self.at_least else "at most"
        return f"{bound} {self.limit:.{DECIMALS}f}{self.unit}"


def cpu_us(sample: Sample) -> float:
    return sample.cpu_us


def rate(sample: Sample) -> float:
    return sample.rate


def p99_us(sample: Sample) -> float:
    return sample.latency_us(99)


def seconds(sample: Timed) -> float:
    return sample.seconds


def peers_of(grid: Grid[Sample]) -> list[str]:
    return [row for row in grid.rows if row not in (OURS, BARE)]


def best_peer(
    grid: Grid[Sample],
    column: str,
    figure: Callable[[Sample], float],
    best: Callable[[list[float]], float],
) -> float:
    """The `best` (min or max) of the peers' medians; NaN where no peer was measured."""
    medians = [grid.median(peer, column, figure) for peer in peers_of(grid)]
    known = [value for value in medians if not math.isnan(value)]
    return best(known) if known else math.nan


def to_yardstick(results: Results, scenario: str, column: str) -> float:
    grid = results.load.get(scenario, Grid(()))
    ours, yardstick = (grid.median(row, column, cpu_us) for row in (OURS, YARDSTICK))
    return ratio(ours, yardstick)


def load_targets(results: Results) -> list[Target]:
    column = connections_label(TARGET_CONNECTIONS)
    return [
        Target(
            what=f"small messages, {column}: CPU a message, to {YARDSTICK}",
            figure=to_yardstick(results, "small", column),
            limit=1.0,
        ),
        Target(
            what=f"pipelined lines: CPU a line, to {YARDSTICK}",
            figure=to_yardstick(results, "pipelined", ONE),
            limit=1.0,
        ),
    ]


def bulk_targets(results: Results) -> list[Target]:
    grid: Grid[Sample] = results.load.get("bulk", Grid(()))
    cpu, speed = grid.median(OURS, ONE, cpu_us), grid.median(OURS, ONE, rate)
    return [
        Target(
            what="bulk: MB/s, to the best peer",
            figure=ratio(speed, best_peer(grid, ONE, rate, max)),
            limit=1.0,
            at_least=True,
        ),
        Target(
            what="bulk: CPU a MiB, to the best peer",
            figure=ratio(cpu, best_peer(grid, ONE, cpu_us, min)),
            limit=1.0,
        ),
        Target(
            what="bulk: memory grown in the worst round",
            figure=grid.highest(OURS, ONE, lambda sample: sample.grown / MIB),
            limit=MOST_GROWN_MIB,
            unit=" MiB",
        ),
    ]


def latency_target(results: Results) -> Target:
    grid: Grid[Sample] = results.load.get("latency", Grid(()))
    alone, beside = (grid.median(OURS, column, p99_us) for column in (ALONE, BESIDE))
    return Target(
        what="latency beside 10 bulk connections: p99, to p99 alone",
        figure=ratio(beside, alone),
        limit=3.0,
    )


def workers_target(results: Results) -> Target:
    grid: Grid[Sample] = results.load.get("workers", Grid(()))
    column = grid.columns[0] if grid.columns else ""
    two, one = (grid.median(option, column, rate) for option in (TWO_WORKERS, ONE_WORKER))
    return Target(
        what=f"messages a second with {TWO_WORKERS}, to {ONE_WORKER}",
        figure=ratio(two, one),
        limit=1.0,
        at_least=True,
    )


def idle_targets(results: Results) -> list[Target]:
    grid: Grid[IdleSample] = results.idle.get("idle", Grid(()))
    column = grid.columns[-1] if grid.columns else ""
    each = grid.median(OURS, column, lambda sample: sample.each / KIB)
    again = grid.median(OURS, column, lambda sample: sample.each_again / KIB)
    return [
        Target(
            what=f"memory for an idle client, {column or 'many connections'}",
            figure=each,
            limit=MOST_EACH_KIB,
            unit=" KiB",
        ),
        Target(
            what="memory for as many clients a second time, to the first",
            figure=ratio(again, each),
            limit=MOST_SECOND_TIME,
        ),
    ]


def text_target(results: Results) -> Target:
    grid: Grid[Sample] = results.load.get("bulk-text", Grid(()))
    bare, ours = (grid.median(row, ONE, cpu_us) for row in (BARE, OURS))
    return Target(
        what="non-ASCII bulk: speed a CPU second, to the bare decode-upper-encode",
        figure=ratio(bare, ours),
        limit=0.8,
        at_least=True,
    )


def client_targets(results: Results) -> list[Target]:
    pipe: Grid[Timed] = results.clients.get("pipe", Grid(()))
    startup: Grid[Timed] = results.clients.get("startup", Grid(()))
    size = pipe.columns[0] if pipe.columns else ""
    ours, nc = (pipe.median(row, size, seconds) for row in (f"{OURS} client", NC))
    start = startup.columns[0] if startup.columns else ""
    whole, bare = (startup.median(row, start, seconds) for row in (HELP, IMPORTS))
    return [
        Target(
            what=f"client, {size or 'a file'} through a pipe: time, to {NC}",
            figure=ratio(ours, nc),
            limit=1.0,
        ),
        Target(
            what=f"start: time of `{HELP}`, to `{IMPORTS}`", figure=ratio(whole, bare), limit=1.5
        ),
    ]


def all_targets(results: Results) -> list[Target]:
    return [
        *load_targets(results),
        *bulk_targets(results),
        latency_target(results),
        workers_target(results),
        *idle_targets(results),
        text_target(results),
        *client_targets(results),
    ]
