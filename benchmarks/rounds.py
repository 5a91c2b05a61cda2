"""Interleaved rounds: A B C, A B C, …, so that what disturbs the machine disturbs all alike."""

import contextlib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from benchmarks.figures import median
from benchmarks.processes import Cores
from benchmarks.servers import Failed, Running, Server, running

S = TypeVar("S")
T = TypeVar("T")

# Reports progress to whoever watches.
Say = Callable[[str], None]


class Cell(NamedTuple):
    """A cell of a table: who was measured (a row), and under what load (a column)."""

    row: str
    column: str


@dataclass(slots=True)
class Grid(Generic[S]):
    """The samples of all rounds. A cell that failed once has none, and a reason."""

    cells: tuple[Cell, ...]
    samples: dict[Cell, list[S]] = field(default_factory=dict)
    failures: dict[Cell, str] = field(default_factory=dict)

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(cell.row for cell in self.cells))

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(cell.column for cell in self.cells))

    def figures(self, row: str, column: str, figure: Callable[[S], float]) -> list[float]:
        """The figure in every round; empty where nothing was measured."""
        return [figure(sample) for sample in self.samples.get(Cell(row, column), [])]

    def median(self, row: str, column: str, figure: Callable[[S], float]) -> float:
        """The median over the rounds; NaN where nothing was measured."""
        return median(self.figures(row, column, figure))

    def highest(self, row: str, column: str, figure: Callable[[S], float]) -> float:
        """The highest of the rounds; NaN where nothing was measured."""
        return max(self.figures(row, column, figure), default=math.nan)

    def fail(self, cell: Cell, reason: str) -> None:
        self.samples.pop(cell, None)
        self.failures[cell] = reason


def interleave(cells: Mapping[Cell, Callable[[], S]], rounds: int, say: Say) -> Grid[S]:
    """Measure every cell once in each round.

    A cell that fails is reported, and left out of later rounds; the others go on.
    """
    grid: Grid[S] = Grid(tuple(cells))
    for number in range(rounds):
        for cell, measure in cells.items():
            if cell in grid.failures:
                continue
            say(f"round {number + 1} of {rounds}: {cell.column}: {cell.row}")
            try:
                grid.samples.setdefault(cell, []).append(measure())
            except (Failed, OSError) as error:
                say(f"{cell.row} could not be measured: {error}")
                grid.fail(cell, reason_of(error))
    return grid


def reason_of(error: Failed | OSError) -> str:
    """Return it for the page: without the paths that an OSError names."""
    return error.reason if isinstance(error, Failed) else os.strerror(error.errno or 0)


class Fleet(contextlib.ExitStack):
    """The servers of one scenario, each started at its first use and again after a failure.

    They run side by side; those that are not being measured are idle. Leaving ends them all.
    """

    def __init__(self, cores: Cores) -> None:
        super().__init__()
        self._cores = cores
        self._running: dict[str, tuple[contextlib.ExitStack, Running]] = {}

    def measure(self, server: Server, figure: Callable[[Running], T]) -> T:
        """Return what `figure` says of the running server, which is ended if that fails."""
        try:
            return figure(self._get(server))
        except BaseException:
            self.drop(server)
            raise

    def measure_fresh(self, server: Server, figure: Callable[[Running], T]) -> T:
        """Do the same with a server that has had no client yet."""
        self.drop(server)
        return self.measure(server, figure)

    def drop(self, server: Server) -> None:
        """End this server if it is running."""
        if server.name in self._running:
            stack, _ = self._running.pop(server.name)
            stack.close()

    def _get(self, server: Server) -> Running:
        if server.name not in self._running:
            stack = self.enter_context(contextlib.ExitStack())
            started = stack.enter_context(running(server, self._cores))
            self._running[server.name] = stack, started
        return self._running[server.name][1]
