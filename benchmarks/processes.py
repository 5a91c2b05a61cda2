"""Child processes: started on chosen cores, measured from outside, always ended. Linux only."""

import contextlib
import ctypes
import os
import re
import resource
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

# Where children start, so that ``python -m benchmarks.…`` finds this package.
ROOT = Path(__file__).resolve().parent.parent

# For a child to end after SIGTERM; none has clients by then, so none has a reason to take long.
END_SECONDS = 5.0

# Between two looks at a condition that nothing announces.
POLL_SECONDS = 0.005

# More than any scenario needs; there are programs that walk through all that are allowed.
MOST_DESCRIPTORS = 65536

# What /proc says of a process that has ended, or waits for its parent to take notice.
GONE = (FileNotFoundError, ProcessLookupError, PermissionError)

# Of /proc/PID/stat, counted behind the command in parentheses; proc(5).
STATE_FIELD, SESSION_FIELD = 0, 3

# The state of a process that has ended, and that nobody has waited for.
ZOMBIE = "Z"

# The processor cores a child may use; empty leaves it to the system.
LIBC = ctypes.CDLL(None)

Cores = frozenset[int]


def choose_cores() -> tuple[Cores, Cores]:
    """One core for the server, all others for the load; both empty where there is only one."""
    server, *load = sorted(os.sched_getaffinity(0))
    return (Cores({server}), Cores(load)) if load else (Cores(), Cores())


@contextlib.contextmanager
def pinned(cores: Cores) -> Iterator[None]:
    """Inside, this process is on `cores`, and what it starts inherits them."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def child(
    command: Sequence[str],
    cores: Cores,
    *,
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | None = subprocess.DEVNULL,
    stderr: int | None = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own; on leaving, the whole session is ended and waited for."""
    with pinned(cores):
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    """End the process and all that it started; kill what has not gone in time."""
    try:
        signal_session(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
    finally:
        signal_session(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def has_ended(pid: int, limit_s: float) -> bool:
    """Whether a child ended within `limit_s`; returns in that moment.

    `Popen.wait` with a limit looks every 50 ms, which is half of what starting Python takes.
    """
    descriptor = os.pidfd_open(pid)
    try:
        ended, _, _ = select.select([descriptor], [], [], limit_s)
    finally:
        os.close(descriptor)
    return bool(ended)


def signal_session(leader: int, number: signal.Signals) -> None:
    """By process group: `leader` opened a session, and nobody in it opened another group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)


def members(leader: int) -> list[int]:
    """The living processes in the session that `leader` opened: itself and all that it started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(*GONE):
            fields = entry.read_text().rpartition(")")[2].split()
            if int(fields[SESSION_FIELD]) == leader and fields[STATE_FIELD] != ZOMBIE:
                found.append(int(entry.parent.name))
    return found


def cpu_seconds(leader: int) -> dict[int, float]:
    """User and system time so far of a server and of each process that it started, by pid.

    Threads that ended are included. From the process's CPU clock, which counts nanoseconds;
    /proc/PID/stat counts in ticks of 10 ms.
    """
    times = {}
    for pid in members(leader):
        clock = ctypes.c_int()
        with contextlib.suppress(OSError):  # It has ended since it was listed.
            if LIBC.clock_getcpuclockid(pid, ctypes.byref(clock)) == 0:
                times[pid] = time.clock_gettime(clock.value)
    return times


def spent(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """CPU seconds between the two, of the processes that were still there at the end.

    One that ended in between served a connection that had ended before.
    """
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def memory_bytes(leader: int) -> int:
    """The anonymous part of the proportional set size; proc(5).

    Pages shared after a fork are divided. The pages of program files are left out: how those are
    divided changes with every other Python that runs.
    """
    total = 0
    for pid in members(leader):
        with contextlib.suppress(*GONE):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            found = re.search(r"^Pss_Anon:\s+(\d+) kB$", rollup, re.MULTILINE)
            total += int(found[1]) * 1024 if found else 0
    return total


def raise_descriptor_limit() -> None:
    """For the thousands of connections of this process's children."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, MOST_DESCRIPTORS)), hard))


def most_descriptors() -> int:
    """How many a process started here may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def open_descriptors(leader: int) -> int:
    total = 0
    for pid in members(leader):
        with contextlib.suppress(*GONE):
            total += len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return total


def wait_until(condition: Callable[[], bool], limit_s: float) -> bool:
    """Whether the condition came to hold within `limit_s`."""
    end_at = time.monotonic() + limit_s
    while not (holds := condition()) and time.monotonic() < end_at:
        time.sleep(POLL_SECONDS)
    return holds
