"""The table of the gates: a row at a time on a terminal, or as a page."""

from collections.abc import Sequence
from datetime import UTC, datetime

from benchmarks.machine import describe
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.acceptance.gate import Row, Sizes, Verdict

# Characters. What is not a terminal, or is a narrow one, is taken to be this wide.
NARROWEST = 100

# What the columns are called, and their shares of the width; 0: as wide as need be.
COLORS = {Verdict.KEPT: "green", Verdict.BROKEN: "bold red", Verdict.SKIPPED: "yellow"}

COLUMNS = (("", 0), ("promise", 5), ("done", 4), ("seen", 6))

# For the verdict, and for the seconds below it.
VERDICT_CHARACTERS = 9


def show(console: Console, row: Row, done: str, *, first: bool) -> None:
    """Print a row; the `first` one below the names of the columns."""
    table = Table(box=box.SIMPLE_HEAD, show_header=first, expand=True, show_edge=False)
    for name, share in COLUMNS:
        table.add_column(name, ratio=share or None, width=None if share else 2)
    table.add_column("", width=VERDICT_CHARACTERS)
    verdict = Text(f"{row.verdict}\n", style=COLORS[row.verdict]).append(f"{row.seconds:.0f} s", "")
    texts = (str(row.gate.number), row.gate.promise, done, row.seen)
    table.add_row(*map(Text, texts), verdict)
    console.print(table)


def make_console() -> Console:
    """Return what to print on: standard output, never too narrow for a row."""
    console = Console(highlight=False)
    console.width = max(console.width, NARROWEST)
    return console


def page(rows: Sequence[Row], sizes: Sizes) -> str:
    """Return the table in Markdown, with the machine and the date."""
    lines = [
        f"Run on {datetime.now(UTC):%d %B %Y}, on {describe()}\n",
        "| gate | promise | done | seen | |",
        "|---:|---|---|---|---|",
    ]
    for row in rows:
        gate = row.gate
        seen = " ".join(row.seen.split())
        verdict = f"{row.verdict}, {row.seconds:.0f} s"
        lines.append(
            f"| {gate.number} | {gate.promise} | {gate.done(sizes)} | {seen} | {verdict} |"
        )
    return "\n".join(lines) + "\n"
