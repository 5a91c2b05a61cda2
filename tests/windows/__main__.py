"""Builds the machine, runs the unit tests there and the end-to-end tests from here.

python -m tests.windows [CACHE]
"""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.windows.build import CannotBuild, build, say
from tests.windows.end_to_end import MACHINE
from tests.windows.machine import Machine

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "trio-upper", "windows")

# The unit tests there take two minutes, those from here three; then something hangs.
UNIT_SECONDS = 900
END_TO_END_SECONDS = 900

NOT_SHOWN = """
What Wine cannot show, and nobody has seen yet on a Windows machine:
  times of TCP keep-alive (Wine refuses them); a connection that is reset (Wine reads an end)
  Windows Terminal, and any console that draws by escape sequences; code pages but that of the pty
  Ctrl-Break from outside, closing the window, Ctrl-C as a key in a console of cmd.exe
  the firewall's question; ports that another program holds exclusively
  real times: a refused connection takes Windows two seconds
"""


def requirements() -> list[str]:
    """Return what the program needs, and its tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return [*project["project"]["dependencies"], *project["dependency-groups"]["tests"]]


def copy_program(machine: Machine) -> None:
    """Give the machine the program and its tests as they are now."""
    shutil.rmtree(machine.folder("program"), ignore_errors=True)
    shutil.rmtree(machine.folder("shared"), ignore_errors=True)
    program = machine.folder("program")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src" / "trio_upper", program / "trio_upper", ignore=ignore)
    for folder in ("tests", "examples"):
        shutil.copytree(ROOT / folder, program / folder, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", program)


def run_unit_tests(machine: Machine) -> bool:
    """Run there what can run there; return whether all passed."""
    options = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist", "tests")
    words = machine.command("-X", "utf8", "-m", "pytest", *options)
    done = subprocess.run(
        # Its streams must be pipes; see `Machine`.
        ["bash", "-c", '"$@" 2>&1 < <(:) | cat; exit "${PIPESTATUS[0]}"', "bash", *words],
        cwd=machine.folder("program"),
        env=machine.environment({"PYTHONPATH": r"C:\program"}),
        timeout=UNIT_SECONDS,
        check=False,
    )
    return done.returncode == 0


def run_end_to_end_tests(machine: Machine) -> bool:
    """Run from here what needs both sides; return whether all passed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "tests/windows/end_to_end.py"],
        cwd=ROOT,
        env=os.environ | {MACHINE: str(machine.home)},
        timeout=END_TO_END_SECONDS,
        check=False,
    )
    return done.returncode == 0


def main(arguments: list[str]) -> int:
    """Do it all; return the exit code."""
    try:
        machine = build(Path(arguments[0]) if arguments else CACHE, requirements())
    except CannotBuild as error:
        say(str(error))
        return 1
    with machine:
        copy_program(machine)
        say("unit tests, on the other machine …")
        units = run_unit_tests(machine)
        say("end-to-end tests, from here …")
        ends = run_end_to_end_tests(machine)
    say(NOT_SHOWN)
    return 0 if units and ends else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
