"""Breaks each promise in the code, and sees that the tests which hold it notice.

``python -m tools.broken_promises`` takes the breaks of ``broken_promises.toml`` one by one: a
change of a line or two in a copy of the project, and the tests and gates that must fail then. Words
as arguments choose the breaks in whose promise, file or tests they stand. It prints a table; the
exit code is 1 if something was not noticed. First all these tests run without a break, for what
fails then says nothing; ``--at-once`` leaves that out.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tools import ROOT

BREAKS = Path(__file__).with_suffix(".toml")

PROCESSES = 2

# A test that hangs has noticed; so long may one take, and all of them together without a break.
TEST_SECONDS, ALL_SECONDS = 180, 1800

GATE = "e2e/test_acceptance.py::test_a_small_form_of_each_gate[{}]"
"""The test that is the small form of a gate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """One change in `file` (below ``src/trio_upper``), and the tests in `red` that must fail.

    `also` is a second change, as file, old and new text, where two things keep the promise, each by
    itself. `promise` is how the row of ``docs/promises.md`` begins. A gate in `red` is ``gate 7``.
    """

    promise: str
    file: str
    old: str
    new: str
    red: tuple[str, ...]
    also: tuple[str, ...] = ()

    @property
    def tests(self) -> dict[str, str]:
        """The tests as pytest names them, below the folder of tests, by their names in `red`."""
        return {
            name: GATE.format(name.removeprefix("gate ")) if name.startswith("gate ") else name
            for name in self.red
        }

    @property
    def changes(self) -> list[tuple[str, ...]]:
        """The changes: file, old and new text of each."""
        return [(self.file, self.old, self.new), *([self.also] if self.also else [])]


def load() -> list[Break]:
    """Return all breaks."""
    rows = tomllib.loads(BREAKS.read_text(encoding="utf-8"))["break"]
    lists = ("red", "also")
    return [Break(**row | {name: tuple(row.get(name, ())) for name in lists}) for row in rows]


def broken(one: Break, root: Path = ROOT) -> dict[Path, str]:
    """Return what is in the changed files; ValueError unless there is one place for each change."""
    texts: dict[Path, str] = {}
    for file, old, new in one.changes:
        path = root / "src" / "trio_upper" / file
        text = texts.get(path) or path.read_text(encoding="utf-8")
        if text.count(old) != 1:
            raise ValueError(f"{file}: not one place for {old!r}")
        texts[path] = text.replace(old, new)
    return texts


def copy_project(folder: Path) -> Path:
    """Copy the project below `folder`, without what is hidden or made."""
    hidden = shutil.ignore_patterns(".*", "__pycache__", "dist")
    return shutil.copytree(ROOT, folder / "copy", ignore=hidden, symlinks=True)


def failing(root: Path, tests: Iterable[str], seconds: float) -> set[str]:
    """Run tests in a copy; return which fail (all, if they do not end in time)."""
    paths = [f"tests/{test}" for test in tests]
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider", *paths]
    environ = os.environ | {"PYTHONPATH": str(root / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ended = subprocess.run(
            command, cwd=root, env=environ, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return set(tests)
    finally:
        end_left_behind(root)
    failed = re.findall(r"^FAILED tests/(\S+)", ended.stdout, flags=re.MULTILINE)
    return {test for test in tests if any(names(test, each) for each in failed)}


def end_left_behind(root: Path) -> None:
    """End what still runs in a copy: broken, a server may outlive its test, and its workers it.

    They are known by their environment, which proc(5) shows; on other systems they stay.
    """
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or is not ours
            if f"PYTHONPATH={root / 'src'}\0".encode() in environ.read_bytes():
                os.kill(int(environ.parent.name), signal.SIGKILL)


def names(test: str, failed: str) -> bool:
    """Tell whether what failed is `test`, or one of its cases."""
    return failed == test or failed.startswith(f"{test}[")


def unnoticed(one: Break) -> list[str]:
    """Return which of the tests that must fail under this break do not."""
    with TemporaryDirectory() as folder:
        root = copy_project(Path(folder))
        for path, text in broken(one, root).items():
            path.write_text(text, encoding="utf-8")
        red = failing(root, one.tests.values(), TEST_SECONDS * len(one.red))
    return [name for name, test in one.tests.items() if test not in red]


def red_before(breaks: Iterable[Break]) -> set[str]:
    """Return which of the tests that must fail do so without a break."""
    tests = dict.fromkeys(test for one in breaks for test in one.tests.values())
    with TemporaryDirectory() as folder:
        return failing(copy_project(Path(folder)), tests, ALL_SECONDS)


def row(one: Break, green: Sequence[str]) -> str:
    """Return a row of the table."""
    seen = ", ".join(f"**not** {name}" if name in green else name for name in one.red)
    lines = [[" ".join(text.split()) or "nothing" for text in change] for change in one.changes]
    changes = "; ".join(f"{file}: `{old}` → `{new}`" for file, old, new in lines)
    bars = changes.replace("|", r"\|")
    return f"| {one.promise} … | {bars} | {seen} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.broken_promises", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="choose those in which one stands")
    parser.add_argument("--at-once", action="store_true", help="trust that the tests are green")
    options = parser.parse_args(arguments)
    words = options.words
    chosen = [one for one in load() if not words or any(word in str(one) for word in words)]
    if not options.at_once and (red := red_before(chosen)):
        print("without a break, these fail:", *sorted(red), sep="\n")
        return 1
    print("| promise | change | what went red |\n|---|---|---|", flush=True)
    missed = 0
    with ThreadPoolExecutor(PROCESSES) as pool:
        for one, green in zip(chosen, pool.map(unnoticed, chosen), strict=True):
            print(row(one, green), flush=True)
            missed += len(green)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
