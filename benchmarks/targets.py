"""The targets: what must be reached, and who is ahead."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.clients import HELP, IMPORTS, NC, Timed
from benchmarks.figures import ratio
from benchmarks.load import NEIGHBOURS, IdleSample, Sample
from benchmarks.messages import PIECE_BYTES
from benchmarks.rounds import Grid
from benchmarks.scenarios import (
    ALONE,
    BARE,
    BENCH,
    BESIDE,
    GENERATOR,
    ONE,
    ONE_WORKER,
    SOME_CONNECTIONS,
    TWO_WORKERS,
    Results,
    connections_label,
)
from benchmarks.servers import C_EPOLL, OURS, PROTOCOL, STREAMS, UVLOOP

# Figures are compared as they are printed; the third decimal is noise in any run.
DECIMALS = 2

KIB, MIB = 1024, 1024 * 1024
MEGABYTE = 1_000_000

# Rounded by an allocator, "no growth" is less than this.
NO_GROWTH_MIB = 1.0

# Of the memory that as many clients took the first time: a leak would double it.
SECOND_TIME = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One figure of ours, with the limit that it must keep.

    `theirs` is the figure of `peer` under the same load, and the limit is then one for the ratio of
    the two; without a `peer` it is one for the figure, in `unit`. `itself` is where the peer is our
    own program under another load. NaN is what was not measured; a limit of None makes it a figure
    that is only reported. `more_is_better` is for rates: the limit is then the least.
    """

    number: int
    what: str
    ours: float
    limit: float | None
    theirs: float = math.nan
    peer: str = ""
    itself: bool = False
    unit: str = ""
    more_is_better: bool = False

    @property
    def figure(self) -> float:
        """What is compared with the limit."""
        return ratio(self.ours, self.theirs) if self.peer else self.ours

    @property
    def limit_text(self) -> str:
        if self.limit is None:
            return "reported"
        bound = "at least" if self.more_is_better else "at most"
        return f"{bound} {self.limit:.{DECIMALS}f}{'x' if self.peer else f' {self.unit}'}"

    @property
    def verdict(self) -> str:
        """Whether the limit is kept, and whether the peer is ahead."""
        if math.isnan(self.figure):
            return "not measured"
        figure = round(self.figure, DECIMALS)
        limit = figure if self.limit is None else self.limit
        good = figure >= limit if self.more_is_better else figure <= limit
        words = [] if self.limit is None else ["reached" if good else "**missed**"]
        if self.peer and not self.itself and (figure < 1 if self.more_is_better else figure > 1):
            words.append(f"{self.peer} is ahead")
        return ", ".join(words)


Figure = Callable[[Sample], float]


def cpu_us(sample: Sample) -> float:
    return sample.cpu_us


def rate(sample: Sample) -> float:
    return sample.rate


def megabytes_per_second(sample: Sample) -> float:
    return sample.rate * PIECE_BYTES / MEGABYTE


def p99_us(sample: Sample) -> float:
    return sample.latency_us(99)


def seconds(sample: Timed) -> float:
    return sample.seconds


def peers_of(grid: Grid[Sample]) -> list[str]:
    return [row for row in grid.rows if row not in (OURS, BARE)]


def best_peer(
    grid: Grid[Sample], column: str, figure: Figure, best: Callable[[list[float]], float]
) -> str:
    """Return the peer whose median is the `best` (min or max); empty if none was measured."""
    medians = {peer: grid.median(peer, column, figure) for peer in peers_of(grid)}
    known = {value: peer for peer, value in medians.items() if not math.isnan(value)}
    return known[best(list(known))] if known else ""


class Comparison:
    """Targets of one scenario's grid, ours beside a peer under the same load."""

    def __init__(self, results: Results, scenario: str) -> None:
        self.grid: Grid[Sample] = results.load.get(scenario, Grid(()))

    def target(
        self,
        number: int,
        what: str,
        column: str,
        peer: str,
        limit: float,
        *,
        figure: Figure = cpu_us,
        unit: str = "µs",
        more_is_better: bool = False,
    ) -> Target:
        return Target(
            number=number,
            what=what,
            ours=self.grid.median(OURS, column, figure),
            theirs=self.grid.median(peer, column, figure),
            peer=peer or "the best peer",
            limit=limit,
            unit=unit,
            more_is_better=more_is_better,
        )


def small_targets(results: Results) -> Iterator[Target]:
    """1 to 4, and 8."""
    small = Comparison(results, "small")
    cpu = "small messages, {}: CPU a message"
    for count in (10, 100, 1000, 5000):
        label = connections_label(count)
        yield small.target(1, cpu.format(label), label, PROTOCOL, 1.0)
    for count, peer, limit in ((100, UVLOOP, 1.25), (1000, UVLOOP, 1.25), (1000, C_EPOLL, 1.9)):
        label = connections_label(count)
        yield small.target(1, cpu.format(label), label, peer, limit)
    for count in (100, 1000):
        label = connections_label(count)
        yield small.target(2, f"small messages, {label}: p99", label, PROTOCOL, 1.0, figure=p99_us)
    yield small.target(3, cpu.format(ONE), ONE, PROTOCOL, 1.2)
    label = connections_label(SOME_CONNECTIONS)
    text = Comparison(results, "small-text")
    yield text.target(
        4, f"small messages that are not ASCII, {label}: CPU a message", label, PROTOCOL, 1.0
    )
    few, many = (small.grid.median(OURS, connections_label(n), cpu_us) for n in (100, 5000))
    yield Target(
        number=8,
        what="growth: CPU a message with 5000 connections",
        ours=many,
        theirs=few,
        peer="100 connections",
        itself=True,
        limit=1.6,
        unit="µs",
    )


def bulk_targets(results: Results) -> Iterator[Target]:
    """5 to 7, without idle clients."""
    bulk = Comparison(results, "bulk")
    fastest = best_peer(bulk.grid, ONE, rate, max)
    cheapest = best_peer(bulk.grid, ONE, cpu_us, min)
    yield bulk.target(
        5,
        "bulk: MB/s",
        ONE,
        fastest,
        1.1,
        figure=megabytes_per_second,
        unit="MB/s",
        more_is_better=True,
    )
    yield bulk.target(5, "bulk: CPU a piece of 64 KiB", ONE, cheapest, 0.9)
    pipelined = Comparison(results, "pipelined")
    yield pipelined.target(5, "pipelined lines: CPU a line", ONE, STREAMS, 1.0)
    latency: Grid[Sample] = results.load.get("latency", Grid(()))
    alone, beside = (latency.median(OURS, column, p99_us) for column in (ALONE, BESIDE))
    yield Target(
        number=6,
        what=f"p99 of one connection beside {NEIGHBOURS} bulk connections",
        ours=beside,
        theirs=alone,
        peer="alone",
        itself=True,
        limit=3.0,
        unit="µs",
    )
    yield Target(
        number=7,
        what="endless message: memory grown in the worst round",
        ours=bulk.grid.highest(OURS, ONE, lambda sample: sample.grown / MIB),
        limit=NO_GROWTH_MIB,
        unit="MiB",
    )


def idle_targets(results: Results) -> Iterator[Target]:
    """7, of idle clients."""
    grid = results.idle
    column = grid.columns[-1] if grid.columns else ""

    def median(figure: Callable[[IdleSample], float]) -> float:
        return grid.median(OURS, column, figure)

    each = median(lambda sample: sample.each / KIB)
    yield Target(
        number=7,
        what=f"memory for an idle client, {column or 'many connections'}",
        ours=each,
        limit=6.0,
        unit="KiB",
    )
    yield Target(
        number=7,
        what="memory for an idle client, when all have left and as many come again",
        ours=median(lambda sample: sample.each_again / KIB),
        theirs=each,
        peer="the first time",
        itself=True,
        limit=SECOND_TIME,
        unit="KiB",
    )


def client_targets(results: Results) -> Iterator[Target]:
    """9 and 10."""
    pipe: Grid[Timed] = results.clients.get("pipe", Grid(()))
    startup: Grid[Timed] = results.clients.get("startup", Grid(()))
    for number, what, grid, row, peer, limit in (
        (9, "client in pipe mode: time for {}", pipe, f"{OURS} client", NC, 1.25),
        (10, f"`{HELP}`: time from {{}}", startup, HELP, IMPORTS, 0.5),
    ):
        column = grid.columns[0] if grid.columns else "a file"
        yield Target(
            number=number,
            what=what.format(column),
            ours=grid.median(row, column, seconds),
            theirs=grid.median(peer, column, seconds),
            peer=f"`{peer}`",
            limit=limit,
            unit="s",
        )


def server_targets(results: Results) -> Iterator[Target]:
    """11 to 13."""
    workers: Grid[Sample] = results.load.get("workers", Grid(()))
    column = connections_label(SOME_CONNECTIONS)
    yield Target(
        number=11,
        what=f"`{TWO_WORKERS}`: messages a second, the load on the same cores",
        ours=workers.median(TWO_WORKERS, column, rate),
        theirs=workers.median(ONE_WORKER, column, rate),
        peer=f"`{ONE_WORKER}`",
        itself=True,
        limit=1.0,
        more_is_better=True,
    )
    for beside in results.accept.columns or ["busy clients"]:
        yield Target(
            number=12,
            what=f"500 newcomers beside {beside}: slowest first reply",
            ours=results.accept.median(OURS, beside, float),
            theirs=results.accept.median(PROTOCOL, beside, float),
            peer=PROTOCOL,
            limit=3.0,
            unit="s",
        )
    tls = Comparison(results, "small-tls")
    yield tls.target(13, f"TLS, small messages, {column}: CPU a message", column, STREAMS, 1.0)
    bulk = Comparison(results, "bulk-tls")
    yield bulk.target(13, "TLS, bulk: CPU a piece of 64 KiB", ONE, STREAMS, 1.0)


def bench_target(results: Results) -> Target:
    """14."""
    grid: Grid[Sample] = results.load.get("bench", Grid(()))
    column = connections_label(SOME_CONNECTIONS)
    return Target(
        number=14,
        what=f"`{BENCH}`, {column}: messages a second that it can offer",
        ours=grid.median(BENCH, column, rate),
        theirs=grid.median(GENERATOR, column, rate),
        peer=GENERATOR,
        limit=None,
        more_is_better=True,
    )


def all_targets(results: Results) -> list[Target]:
    """Return the targets in the order of their numbers."""
    targets = [
        *small_targets(results),
        *bulk_targets(results),
        *idle_targets(results),
        *client_targets(results),
        *server_targets(results),
        bench_target(results),
    ]
    return sorted(targets, key=lambda target: target.number)
