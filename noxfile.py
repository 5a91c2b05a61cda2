"""The project's checks: ``nox`` runs lint, types and tests; ``nox -l`` lists them all."""

import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "tests", "e2e"]
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
# The Python that runs nox, and measures the coverage.
OURS = f"{sys.version_info.major}.{sys.version_info.minor}"

# What flake8-async finds and ruff does not know.
MISSING_IN_RUFF = "ASYNC101,ASYNC102,ASYNC103,ASYNC104,ASYNC113,ASYNC120"
CODE = ["src", "tests", "benchmarks", "tools", "noxfile.py"]


def install_group(session: nox.Session, group: str, *more: str) -> None:
    session.install(*nox.project.dependency_groups(PYPROJECT, group), *more)


def python_files(*folders: str) -> list[str]:
    return [str(path) for folder in folders for path in sorted(Path(folder).rglob("*.py"))]


@nox.session
def lint(session: nox.Session) -> None:
    install_group(session, "lint")
    session.run("ruff", "format", "--check", *CODE)
    session.run("ruff", "check", *CODE)
    session.run("flake8-async", f"--enable={MISSING_IN_RUFF},ASYNC900", *python_files("src"))
    session.run("flake8-async", f"--enable={MISSING_IN_RUFF}", *python_files(*CODE))


@nox.session(name="format")
def format_(session: nox.Session) -> None:
    install_group(session, "lint")
    session.run("ruff", "check", "--fix", *CODE)
    session.run("ruff", "format", *CODE)


@nox.session
def types(session: nox.Session) -> None:
    install_group(session, "types", ".")
    session.run("mypy")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Test each room in this process, on every Python that is here; measure coverage on ours."""
    install_group(session, "tests", ".")
    tests_of_rooms = ["pytest", "--ignore", "tests/e2e", *session.posargs]
    if session.python == OURS:
        session.run("coverage", "run", "-m", *tests_of_rooms)
        session.notify("coverage")
    else:
        session.run(*tests_of_rooms, "-n", "2")


@nox.session
def e2e(session: nox.Session) -> None:
    """Test the program as a process, with real sockets, terminals and signals."""
    install_group(session, "tests", ".")
    # More workers than cores: most of the time they wait for a socket, a terminal or a process.
    session.run("pytest", "-n", "4", "tests/e2e", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Compare with naive peers; needs nothing that is not here, names those that it skips."""
    session.install(".")
    session.run("python", "-m", "benchmarks.compare", *session.posargs)


@nox.session
def gates(session: nox.Session) -> None:
    """Put every promise of the README to the proof, at full size."""
    install_group(session, "tests", ".")
    session.run("python", "-m", "tests.acceptance", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Run the README's examples anew, and draw its picture; needs root and ip(8)."""
    install_group(session, "tests", ".")
    session.run("python", "-m", "tools")


@nox.session
def coverage(session: nox.Session) -> None:
    install_group(session, "tests")
    session.run("coverage", "combine")
    session.run("coverage", "report")
