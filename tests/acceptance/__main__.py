"""Runs the gates: ``python -m tests.acceptance``, from the project's root.

Linux, loopback and namespaces of its own only. At full size it takes several minutes, and wants a
machine that does little else. The exit code is 1 if a promise is broken.
"""

import argparse
import dataclasses
import math
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import trio
from benchmarks.processes import raise_descriptor_limit

from tests.acceptance import (
    churn,
    crowd,
    descriptors,
    drain,
    endless,
    hosts,
    keys,
    peers,
    pieces,
    proxy,
    queue,
    slow,
    soak,
    standstill,
    terminal,
    urgent,
    watches,
    workers,
)
from tests.acceptance.gate import FULL, SMALL, Gate, Row, Sizes, Verdict, attempt
from tests.acceptance.table import make_console, page, show
from trio_upper.cli.signals import until_signal
from trio_upper.platform import end_with

MODULES = (
    crowd,
    churn,
    slow,
    endless,
    descriptors,
    drain,
    pieces,
    soak,
    terminal,
    hosts,
    workers,
    proxy,
    watches,
    keys,
    standstill,
    queue,
    urgent,
    peers,
)

GATES: dict[int, Gate] = {module.GATE.number: module.GATE for module in MODULES}
NAMES: dict[str, Gate] = {module.__name__.rpartition(".")[2]: module.GATE for module in MODULES}


def gate(text: str) -> Gate:
    """Return a gate by its name or its number, for argparse."""
    found = NAMES.get(text) or (GATES.get(int(text)) if text.isdecimal() else None)
    if found is None:
        raise argparse.ArgumentTypeError(f"there is no gate {text!r}")
    return found


def above_zero(kind: type[int] | type[float]) -> Callable[[str], int | float]:
    """Return a parser of numbers of this kind, for argparse."""

    def number(text: str) -> int | float:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    return number


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line, with an option for each of the sizes."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.acceptance",
        description="See whether the program keeps its promises.",
        epilog="; ".join(f"{name}: {gate.done(FULL)}" for name, gate in NAMES.items()),
    )
    names = ", ".join(f"{gate.number} {name}" for name, gate in NAMES.items())
    parser.add_argument(
        "gates", nargs="*", type=gate, metavar="GATE", help=f"by name or number, of {names}"
    )
    parser.add_argument("--small", action="store_true", help="in a minute or two")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the table to it")
    for size in dataclasses.fields(Sizes):
        kind = type(getattr(FULL, size.name))
        parser.add_argument(
            "--" + size.name.replace("_", "-"),
            type=above_zero(kind),
            metavar="SECONDS" if kind is float else "N",
            help=f"{getattr(FULL, size.name):g}; small: {getattr(SMALL, size.name):g}",
        )
    return parser


def sizes_of(options: argparse.Namespace) -> Sizes:
    """Return what was given, over the defaults."""
    defaults = SMALL if options.small else FULL
    names = [size.name for size in dataclasses.fields(Sizes)]
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    return dataclasses.replace(defaults, **given)


async def try_all(gates: Iterable[Gate], sizes: Sizes) -> list[Row]:
    """Run one gate after another and print the result of each."""
    console = make_console()
    rows: list[Row] = []
    for gate in gates:
        done = gate.done(sizes)
        say(f"gate {gate.number}: {done}, within {gate.limit(sizes):.0f} s")
        row = await attempt(gate, sizes)
        show(console, row, done, first=not rows)
        if row.error:
            traceback.print_exception(row.error)
        rows.append(row)
    counts = (f"{sum(row.verdict is verdict for row in rows)} {verdict}" for verdict in Verdict)
    console.print(f"{', '.join(counts)}, in {sum(row.seconds for row in rows):.0f} s")
    return rows


def say(text: str) -> None:
    """Print a line for whoever is watching."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the gates that `arguments` ask for; return the exit code.

    SIGINT, SIGTERM and SIGHUP end this process after all that it started.
    """
    parser = make_parser()
    options = parser.parse_args(arguments)
    if sys.platform != "linux":
        parser.error("this needs Linux: /proc, prlimit, ip")
    raise_descriptor_limit()
    gates = options.gates or list(GATES.values())
    sizes = sizes_of(options)
    rows = trio.run(until_signal, partial(try_all, gates, sizes))
    if isinstance(rows, signal.Signals):
        end_with(rows)
    if options.output is not None:
        options.output.write_text(page(rows, sizes), encoding="utf-8")
    return int(any(row.verdict is Verdict.BROKEN for row in rows))


if __name__ == "__main__":
    sys.exit(main())
