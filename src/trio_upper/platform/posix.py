"""What Linux, macOS and the BSDs have in common; `portable` says what each name is."""

import fcntl
import os
import resource
import select
import signal
import socket
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from trio_upper.platform.portable import UNLIMITED

assert sys.platform != "win32"  # for the type checker

HAS_WORKERS = True
CAN_WAIT = True
PIPE_ATOMIC_BYTES = select.PIPE_BUF
DONT_WAIT = socket.MSG_DONTWAIT

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
REPORT_SIGNAL = signal.SIGUSR1
SUMMARY_SIGNAL = signal.SIGQUIT
OUTPUT_CLOSED = signal.SIGPIPE  # as other filters end when nobody reads on (`| head -1`)
HUNG_UP = signal.SIGHUP

# Where the system lists the descriptors of this process.
OPEN_DESCRIPTORS = Path("/dev/fd")

# Limits to try, from the highest on, where the one that the administrator allows is refused: Linux
# has another one (fs.nr_open), macOS says that there is none and refuses that.
LIMITS = (1_048_576, 524_288, 65_536, 10_240, 4_096)


def raise_descriptor_limit() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (hard, *LIMITS):
        if not _is_less(soft, limit) or _is_less(hard, limit):
            continue
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            break
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UNLIMITED if soft == resource.RLIM_INFINITY else soft


def _is_less(one: int, other: int) -> bool:
    """Compare two limits; that which stands for none may be -1."""
    if one == resource.RLIM_INFINITY:
        return False
    return other == resource.RLIM_INFINITY or one < other


def open_descriptors() -> int:
    try:
        return sum(1 for _ in OPEN_DESCRIPTORS.iterdir()) - 1  # without the one that lists them
    except OSError:
        return 0


def passing(descriptors: Sequence[int]) -> dict[str, Any]:
    return {"pass_fds": descriptors, "start_new_session": True}


def end_with(status: int) -> NoReturn:
    if isinstance(status, signal.Signals):
        signal.signal(status, signal.SIG_DFL)
        unblock(status)
        signal.raise_signal(status)
        status += 128  # process 1 of a container is still there: what a shell would say
    sys.exit(status)


def unblock(*signals: signal.Signals) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


def keep_exit_codes() -> None:
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:  # the system forgets them then, wait(2)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


@contextmanager
def exclusive(fd: int) -> Iterator[None]:
    """Lock `fd` itself, which all have from their parent; the system unlocks it if this one dies.

    A file takes each write in one piece, and whoever locks it may mean something else.
    """
    with ExitStack() as stack:
        with suppress(OSError):  # not every system can lock a pipe or a terminal
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                fcntl.lockf(fd, fcntl.LOCK_EX)
                stack.callback(fcntl.lockf, fd, fcntl.LOCK_UN)
        yield


def is_open_for(fd: int, access: int) -> bool:
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE in {access, os.O_RDWR}
