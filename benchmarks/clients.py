"""Whole programs timed from start to end: our client in pipe mode against nc, and a bare start."""

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from benchmarks.load import Sample
from benchmarks.messages import PIECES
from benchmarks.processes import Cores, child, cpu_seconds, has_ended, spent
from benchmarks.rounds import Cell
from benchmarks.servers import HOST, OURS, Failed, Running

# For the whole file there and back, at less than a hundredth of what is usual.
CLIENT_SECONDS = 300.0

# For an interpreter to start and end.
START_SECONDS = 30.0

MEGABYTE = 1_000_000

BENCH_CLIENTS = 100

NC = "nc -N"
HELP = "python -m trio_upper --help"
IMPORTS = 'python -c "import trio, click"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One run of a program, in seconds."""

    seconds: float
    cpu: float


def timed(command: Sequence[str], cores: Cores, limit_s: float, source: int, sink: int) -> Timed:
    """Run a program to its end. Raises Failed if it fails or does not end."""
    before, start = children_cpu_seconds(), time.monotonic()
    with child(command, cores, stdin=source, stdout=sink) as process:
        if not has_ended(process.pid, limit_s):
            raise Failed(f"did not end within {limit_s:.0f} s")
        taken = time.monotonic() - start
        code = process.wait()
    if code:
        raise Failed(f"ended with {code}")
    return Timed(seconds=taken, cpu=children_cpu_seconds() - before)


def children_cpu_seconds() -> float:
    """User and system time of all children that have ended; the servers have not."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def write_input(path: Path, megabytes: int) -> None:
    """Numbered lines, 64 KiB at a time; the last one may be cut."""
    left = megabytes * MEGABYTE
    with path.open("wb") as file:
        while left:
            for piece in PIECES.requests:
                left -= file.write(piece[:left])


def same_in_capitals(source: IO[bytes], sink: IO[bytes]) -> bool:
    """Whether `sink` holds all of `source` (ASCII) in upper case, and nothing else."""
    while True:
        sent, answered = source.read(MEGABYTE), sink.read(MEGABYTE)
        if sent.upper() != answered:
            return False
        if not sent:
            return True


def through_pipe(server: Running, command: Sequence[str], source: Path, cores: Cores) -> Timed:
    """Send a file through a client program and compare all that comes back."""
    target = source.with_suffix(".out")
    whole = [*command, HOST, str(server.port)]
    with source.open("rb") as file, target.open("w+b") as out:
        target.unlink()
        taken = timed(whole, cores, CLIENT_SECONDS, file.fileno(), out.fileno())
        file.seek(0)
        out.seek(0)
        if not same_in_capitals(file, out):
            raise Failed("a wrong reply")
    return taken


def measure_bench(server: Running, cores: Cores, seconds: float) -> Sample:
    """Measure the load that our ``bench`` offers; the server must keep up with it."""
    words = ["bench", HOST, str(server.port), "--clients", str(BENCH_CLIENTS)]
    command = [sys.executable, "-m", "trio_upper", *words, "--seconds", str(seconds), "--json"]
    before, cpu = children_cpu_seconds(), cpu_seconds(server.pid)
    with child(command, cores, stdout=subprocess.PIPE) as process:
        said, _ = process.communicate(timeout=CLIENT_SECONDS)
    if process.returncode:
        raise Failed(f"ended with {process.returncode}")
    found = json.loads(said)
    return Sample(
        messages=found["messages"],
        seconds=found["seconds"],
        cpu=spent(cpu, cpu_seconds(server.pid)),
        load_cpu=children_cpu_seconds() - before,
        latency={},
    )


def nc_half_closes() -> bool:
    """Whether there is an nc with -N; other kinds of nc lack it and would wait for ever."""
    program = shutil.which("nc")
    if program is None:
        return False
    said = subprocess.run(
        [program, "-h"], stdin=subprocess.DEVNULL, capture_output=True, timeout=START_SECONDS
    )
    return b"-N" in said.stderr + said.stdout


def pipe_cells(
    folder: Path, cores: Cores, megabytes: int
) -> dict[Cell, Callable[[Running], Timed]]:
    """Our client, and nc where it is of use; both send the same file to the same server."""
    source = folder / "pipe.in"
    write_input(source, megabytes)
    commands = {f"{OURS} client": [sys.executable, "-m", "trio_upper", "client"]}
    if nc_half_closes():
        commands[NC] = ["nc", "-N"]
    label = f"{megabytes} MB"
    return {
        Cell(name, label): partial(through_pipe, command=command, source=source, cores=cores)
        for name, command in commands.items()
    }


def startup_cells(cores: Cores) -> dict[Cell, Callable[[], Timed]]:
    nothing = subprocess.DEVNULL
    commands = {
        HELP: [sys.executable, "-m", "trio_upper", "--help"],
        IMPORTS: [sys.executable, "-c", "import trio, click"],
    }
    return {
        Cell(name, "start to end"): partial(timed, command, cores, START_SECONDS, nothing, nothing)
        for name, command in commands.items()
    }
