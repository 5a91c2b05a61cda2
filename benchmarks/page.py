"""The results as a page of Markdown."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from benchmarks.clients import Timed
from benchmarks.figures import ratio, spread
from benchmarks.load import NEIGHBOURS, NEWCOMERS, IdleSample, Sample
from benchmarks.messages import LINE_BYTES, PIECE_BYTES
from benchmarks.rounds import Grid
from benchmarks.scenarios import (
    ALONE,
    BESIDE,
    BULK_IN_FLIGHT,
    GENERATOR,
    ONE,
    ONE_WORKER,
    PIPELINED,
    Results,
)
from benchmarks.servers import PROTOCOL
from benchmarks.targets import (
    KIB,
    MIB,
    Target,
    best_peer,
    cpu_us,
    megabytes_per_second,
    p99_us,
    rate,
    seconds,
)

UNKNOWN = "-"

SMALL = f"Small messages: {LINE_BYTES} bytes, one in flight on each connection"
BULK = f"Bulk: {PIECE_BYTES // KIB} KiB pieces, {BULK_IN_FLIGHT} in flight on one connection"

TITLES = {
    "small": SMALL,
    "small-text": f"{SMALL}, not ASCII",
    "small-tls": f"{SMALL}, over TLS",
    "pipelined": f"Pipelined lines: {LINE_BYTES} bytes, {PIPELINED} in flight on one connection",
    "bulk": BULK,
    "bulk-text": f"{BULK}, not ASCII",
    "bulk-tls": f"{BULK}, over TLS",
    "latency": f"One connection, alone and beside {NEIGHBOURS} bulk connections",
    "accept": f"{NEWCOMERS} newcomers at once: seconds until all have their first reply",
    "idle": "Memory of a client that says nothing",
    "workers": "Two processes; they and the load share all cores",
    "pipe": "The client in pipe mode",
    "bench": "The load that `bench` can offer",
    "startup": "Start",
}


def number(value: float) -> str:
    """Three digits that count, or the whole part of what is larger."""
    if math.isnan(value):
        return UNKNOWN
    size = abs(value)
    decimals = 0 if size >= 100 else 1 if size >= 10 else 2
    return f"{value:,.{decimals}f}"


def times(value: float, yardstick: float) -> str:
    """A ratio, as 0.97x."""
    found = ratio(value, yardstick)
    return UNKNOWN if math.isnan(found) else f"{found:.2f}x"


def with_ratio(value: float, yardstick: float) -> str:
    return UNKNOWN if math.isnan(value) else f"{number(value)} ({times(value, yardstick)})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Names to the left, figures to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])


def heading(scenario: str) -> str:
    return f"## {TITLES[scenario]}"


def not_measured(grid: Grid[Sample] | Grid[IdleSample] | Grid[Timed] | Grid[float]) -> list[str]:
    """One line for all that has no figure, by server and reason."""
    columns: dict[tuple[str, str], list[str]] = {}
    for cell, reason in grid.failures.items():
        columns.setdefault((cell.row, reason), []).append(cell.column)
    reasons = [f"{row} at {', '.join(at)}: {reason}" for (row, reason), at in columns.items()]
    return [f"Not measured: {'; '.join(reasons)}."] if reasons else []


def noise(grid: Grid[Sample]) -> list[str]:
    """How far apart the rounds were, and how busy the load generator was; nothing of no rounds."""
    if not grid.samples:
        return []
    apart = max(spread([found.cpu_us for found in cell]) for cell in grid.samples.values())
    busy = max(s.load_cpu / s.seconds for cell in grid.samples.values() for s in cell)
    told = f"The load generator was busy {busy:.0%} of the time at most."
    several = any(len(cell) > 1 for cell in grid.samples.values())
    rounds = f" Rounds differ from their median by {apart:.0%} in CPU a message at most."
    return [told + rounds * several]


def connections_table(
    grid: Grid[Sample], title: str, figure: Callable[[Sample], float], *, ratios: bool
) -> str:
    """Servers down, connections across."""
    rows = []
    for server in grid.rows:
        row = [server]
        for column in grid.columns:
            value = grid.median(server, column, figure)
            yardstick = grid.median(PROTOCOL, column, figure)
            row.append(with_ratio(value, yardstick) if ratios else number(value))
        rows.append(row)
    return table([title, *grid.columns], rows)


def small_section(scenario: str, grid: Grid[Sample]) -> list[str]:
    return [
        heading(scenario),
        connections_table(grid, f"CPU µs a message (to {PROTOCOL})", cpu_us, ratios=True),
        connections_table(grid, f"messages a second (to {PROTOCOL})", rate, ratios=True),
        connections_table(grid, "p50 µs", lambda s: s.latency_us(50), ratios=False),
        connections_table(grid, "p99 µs", p99_us, ratios=False),
        *noise(grid),
        *not_measured(grid),
    ]


def rate_section(scenario: str, grid: Grid[Sample], yardstick: str) -> list[str]:
    """One column of load: CPU, rate and latency, a server in each row."""
    [column] = grid.columns
    header = ["", "CPU µs a message", f"to {yardstick}", "messages a second", "p50 µs", "p99 µs"]
    figures = (cpu_us, rate, lambda s: s.latency_us(50), p99_us)
    rows = []
    for row in grid.rows:
        cpu, *others = (grid.median(row, column, figure) for figure in figures)
        ratio_text = times(cpu, grid.median(yardstick, column, cpu_us))
        rows.append([row, number(cpu), ratio_text, *map(number, others)])
    header[0] = column
    return [heading(scenario), table(header, rows), *noise(grid), *not_measured(grid)]


def bulk_section(scenario: str, grid: Grid[Sample]) -> list[str]:
    header = [
        "server",
        "CPU µs a piece",
        f"to {PROTOCOL}",
        "to the best peer",
        "MB/s",
        "to the best peer",
        "p99 ms",
        "grown MiB",
    ]
    best_cpu = grid.median(best_peer(grid, ONE, cpu_us, min), ONE, cpu_us)
    best_rate = grid.median(best_peer(grid, ONE, rate, max), ONE, rate)
    yardstick = grid.median(PROTOCOL, ONE, cpu_us)
    rows = []
    for server in grid.rows:
        cpu, speed = grid.median(server, ONE, cpu_us), grid.median(server, ONE, rate)
        last = grid.median(server, ONE, p99_us) / 1000
        grown = grid.highest(server, ONE, lambda s: s.grown / MIB)
        ratios = [times(cpu, yardstick), times(cpu, best_cpu)]
        megabytes = grid.median(server, ONE, megabytes_per_second)
        speeds = [number(megabytes), times(speed, best_rate)]
        rows.append([server, number(cpu), *ratios, *speeds, number(last), number(grown)])
    return [heading(scenario), table(header, rows), *noise(grid), *not_measured(grid)]


def latency_section(scenario: str, grid: Grid[Sample]) -> list[str]:
    header = ["server", "p50 µs alone", "p99 µs alone", "p50 µs beside", "p99 µs beside", "p99"]
    rows = []
    for server in grid.rows:
        figures = [
            grid.median(server, column, figure)
            for column in (ALONE, BESIDE)
            for figure in (lambda s: s.latency_us(50), p99_us)
        ]
        rows.append([server, *map(number, figures), times(figures[3], figures[1])])
    return [heading(scenario), table(header, rows), *not_measured(grid)]


def workers_section(scenario: str, grid: Grid[Sample]) -> list[str]:
    [column] = grid.columns
    one = grid.median(ONE_WORKER, column, rate)
    rows = []
    for option in grid.rows:
        speed, last = (grid.median(option, column, figure) for figure in (rate, p99_us))
        rows.append([f"`{option}`", number(speed), times(speed, one), number(last)])
    header = [column, "messages a second", f"to `{ONE_WORKER}`", "p99 µs"]
    return [heading(scenario), table(header, rows), *noise(grid), *not_measured(grid)]


def idle_section(grid: Grid[IdleSample]) -> list[str]:
    header = ["KiB a client (held when all have left; as many once more)", *grid.columns]
    rows = []
    for server in grid.rows:
        row = [server]
        for column in grid.columns:
            each = grid.median(server, column, lambda s: s.each / KIB)
            kept = grid.median(server, column, lambda s: s.kept / KIB)
            again = grid.median(server, column, lambda s: s.each_again / KIB)
            more = f" ({number(kept)}; {number(again)})"
            row.append(UNKNOWN if math.isnan(each) else f"{number(each)}{more}")
        rows.append(row)
    return [heading("idle"), table(header, rows), *not_measured(grid)]


def clients_section(scenario: str, grid: Grid[Timed]) -> list[str]:
    column = grid.columns[0]
    rows = []
    for program in grid.rows:
        taken = grid.median(program, column, seconds)
        cpu = grid.median(program, column, lambda run: run.cpu)
        rows.append([f"`{program}`", number(taken), number(cpu)])
    return [
        heading(scenario),
        table([column, "seconds", "of that, its own CPU"], rows),
        *not_measured(grid),
    ]


def accept_section(grid: Grid[float]) -> list[str]:
    rows = [
        [server, *(number(grid.median(server, column, float)) for column in grid.columns)]
        for server in grid.rows
    ]
    return [heading("accept"), table(["", *grid.columns], rows), *not_measured(grid)]


def targets_section(targets: Sequence[Target]) -> list[str]:
    """Wins and losses both: a row says so where a peer is ahead."""
    rows = []
    for target in targets:
        unit = f" {target.unit}" if target.unit else ""
        ours, theirs = (
            UNKNOWN if math.isnan(figure) else f"{number(figure)}{unit}"
            for figure in (target.ours, target.theirs)
        )
        peer = f"{theirs} ({target.peer})" if target.peer else ""
        compared = times(target.ours, target.theirs) if target.peer else ""
        rows.append(
            [
                f"{target.number}. {target.what}",
                ours,
                peer,
                compared,
                target.limit_text,
                target.verdict,
            ]
        )
    header = ["target", "trio-upper", "beside", "ratio", "limit", ""]
    return ["## Targets", table(header, rows)]


def load_section(scenario: str, grid: Grid[Sample]) -> list[str]:
    if scenario == "small":
        return small_section(scenario, grid)
    if scenario == "workers":
        return workers_section(scenario, grid)
    if scenario == "latency":
        return latency_section(scenario, grid)
    if scenario == "bench":
        return rate_section(scenario, grid, GENERATOR)
    if scenario.startswith("bulk"):
        return bulk_section(scenario, grid)
    return rate_section(scenario, grid, PROTOCOL)


def sections(results: Results) -> list[str]:
    parts: list[str] = []
    for scenario, grid in results.load.items():
        parts += load_section(scenario, grid)
    if results.accept.cells:
        parts += accept_section(results.accept)
    if results.idle.cells:
        parts += idle_section(results.idle)
    for scenario, clients in results.clients.items():
        parts += clients_section(scenario, clients)
    return parts


def page(
    results: Results, targets: Sequence[Target], about: Sequence[str], skipped: Mapping[str, str]
) -> str:
    """The whole page; `about` are sentences on the machine and the run."""
    absent = "; ".join(f"{name} ({why})" for name, why in skipped.items())
    paragraphs = [
        "# Trio-upper against naive peers",
        *about,
        *([f"Skipped: {absent}."] if skipped else []),
        *targets_section(targets),
        *sections(results),
    ]
    return "\n\n".join(paragraphs) + "\n"
