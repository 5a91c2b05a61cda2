"""The project's checks: ``nox`` runs those that must be green; ``nox -l`` lists them all."""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import nox

nox.needs_version = ">=2026.10"  # sessions in parallel
nox.options.default_venv_backend = "uv|virtualenv"
# The longest first, one for each core at a time.
nox.options.sessions = ["e2e", "tests", "types", "lint"]
nox.options.allow_parallel = True
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
# The Python that runs nox, and measures the coverage.
OURS = f"{sys.version_info.major}.{sys.version_info.minor}"

# Where the program runs, and the tests mostly do not.
OTHER_SYSTEMS = ["darwin", "win32"]

CODE = ["src", "tests", "benchmarks", "tools", "examples", "noxfile.py"]

# What flake8-async finds and ruff does not know; ASYNC900 is for a product, not for its tests.
MISSING_IN_RUFF = "ASYNC101,ASYNC102,ASYNC103,ASYNC104,ASYNC113,ASYNC120,ASYNC900"
# All of these are about generators, handlers of exceptions and `__aenter__`.
JUDGED = re.compile(r"\b(yield|except|finally|__aenter__)\b")
# It takes 2 ms a line, so it sees what is imported by others, and no tests.
LIBRARIES = ["src", "tests/helpers", "tests/acceptance", "benchmarks", "tools", "examples"]


def find_pythons_of_pyenv() -> None:
    """Put the Pythons that pyenv has on the PATH: its shims hide all but those that are chosen."""
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    bins = [str(found) for version in PYTHONS for found in versions.glob(f"{version}.*[0-9]/bin")]
    os.environ["PATH"] = os.pathsep.join([*bins, os.environ["PATH"]])


def find_uv() -> None:
    """Put uv on the PATH of the sessions that run in parallel: pip takes minutes longer for them.

    Where it cannot be had, or reaches no index (it does not read what pip is configured with), they
    do without it.
    """
    if shutil.which("uv"):
        return
    folder = Path(".nox", "uv").absolute()
    uv = folder / ("Scripts" if sys.platform == "win32" else "bin") / "uv"
    to_folder = ["pip", "install", "--quiet", "--target", str(folder)]
    with suppress(OSError, subprocess.CalledProcessError):
        if not folder.exists():
            subprocess.run([sys.executable, "-m", *to_folder, "uv"], check=True)
        subprocess.run([str(uv), *to_folder, "--dry-run", "hatchling"], check=True)
        os.environ["PATH"] += os.pathsep + str(uv.parent)


find_pythons_of_pyenv()
if len(sys.argv) == 1:  # ``nox`` alone; what one session says can be read while it runs
    nox.options.parallel = os.cpu_count() or 1
    find_uv()
# Without it the sessions would compile, at each start of a Python, all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def install_group(session: nox.Session, group: str, *more: str) -> None:
    session.install(*nox.project.dependency_groups(PYPROJECT, group), *more)


def files_with_trio() -> list[str]:
    """Return the paths of the modules that flake8-async may find something in."""
    paths = [path for folder in LIBRARIES for path in sorted(Path(folder).rglob("*.py"))]
    texts = {str(path): path.read_text(encoding="utf-8") for path in paths}
    return [path for path, text in texts.items() if "import trio" in text and JUDGED.search(text)]


@nox.session
def lint(session: nox.Session) -> None:
    """Check format and rules: ruff, and flake8-async for what ruff does not know."""
    install_group(session, "lint")
    session.run("ruff", "format", "--check", *CODE)
    session.run("ruff", "check", *CODE)
    files, cores = files_with_trio(), os.cpu_count() or 1
    with ThreadPoolExecutor() as pool:
        shares = [files[first::cores] for first in range(cores)]
        check = ("flake8-async", f"--enable={MISSING_IN_RUFF}")
        session.log(f"{' '.join(check)} ({len(files)} files, {cores} processes)")
        list(pool.map(lambda share: session.run(*check, *share, log=False), shares))


@nox.session(name="format")
def format_(session: nox.Session) -> None:
    """Format the code, and repair what ruff can repair."""
    install_group(session, "lint")
    session.run("ruff", "check", "--fix", *CODE)
    session.run("ruff", "format", *CODE)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of everything, and of the program once more for each other system."""
    install_group(session, "types", *PYPROJECT["project"]["dependencies"])
    session.run("mypy")
    for system in OTHER_SYSTEMS:
        session.run("mypy", "--platform", system, "src")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Test each room in this process, on every Python that is here; on ours, all must be run.

    That is measured unless `posargs` choose some of the tests.
    """
    install_group(session, "tests", ".")
    measured = session.python == OURS and not session.posargs
    # Beside other sessions, one core is what it has.
    workers = "0" if session.parallel else "2"
    session.run(
        *("pytest", "-n", workers, "--ignore", "tests/e2e", *session.posargs),
        *(("--cov", "--cov-report=term") if measured else ()),
    )


@nox.session
def e2e(session: nox.Session) -> None:
    """Test the program as a process, with real sockets, terminals and signals."""
    install_group(session, "tests", ".")
    # More workers than cores: most of the time they wait for a socket, a terminal or a process.
    session.run("pytest", "-n", "4", "-m", "not slow", "tests/e2e", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """Run the end-to-end tests that take long: small forms of gates, the benchmark, examples."""
    install_group(session, "tests", ".")
    session.run("pytest", "-n", "2", "-m", "slow", "tests/e2e", *session.posargs)


@nox.session
def portable(session: nox.Session) -> None:
    """Test each room once more with everything Linux-only hidden, as if this were a Mac."""
    install_group(session, "tests", ".")
    as_on_mac = {"PYTHONPATH": "tests/as_on_mac"}
    session.run("pytest", "-n", "2", "--ignore", "tests/e2e", *session.posargs, env=as_on_mac)


@nox.session
def windows(session: nox.Session) -> None:
    """Test on a Windows Python under Wine, which is built first; takes minutes, and 2 GB."""
    install_group(session, "tests", ".", "pip")
    session.run("python", "-m", "tests.windows", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Compare with naive peers; those that are not here are skipped by name."""
    session.install(".", "trustme")  # for the rows over TLS
    session.install("uvloop; sys_platform != 'win32'", success_codes=[0, 1, 2])  # where it can be
    session.run("python", "-m", "benchmarks.compare", *session.posargs)


@nox.session
def gates(session: nox.Session) -> None:
    """Put every promise to the proof, at full size."""
    install_group(session, "tests", ".")
    session.run("python", "-m", "tests.acceptance", *session.posargs)


@nox.session
def proof(session: nox.Session) -> None:
    """See that the tests notice what is broken: each promise, and the core in every place."""
    install_group(session, "tests", ".")
    session.run("python", "-m", "tools.broken_promises")
    session.run("python", "-m", "tools.mutants")


@nox.session
def zipapp(session: nox.Session) -> None:
    """Make dist/trio-upper.pyz: one file that runs where nothing is installed but Python."""
    session.install(".", "packaging")
    session.run("python", "-m", "tools.onefile", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Renew the documentation's tables, examples and picture; needs root and ip(8)."""
    install_group(session, "tests", ".")
    session.run("python", "-m", "tools")
