"""The terminal of Linux, macOS and the BSDs: see `terminal`, whose contract this is."""

import os
import select
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

assert sys.platform != "win32"  # for the type checker

# The modes of a terminal, as `read_modes` returns them: compare them, do not look inside.
Modes = Any

# Whether a terminal is driven by sequences of characters, and not by calls.
HAS_SEQUENCES = True

# Bytes of the longest line that a terminal edits itself; it drops what is typed beyond
# (termios(3), "Canonical and noncanonical mode").
LINE_BYTES = 4095

# A person stops a job, a job in the background needs the terminal, and a job goes on; a person has
# a job quit.
STOP, NEEDS_TERMINAL, CONTINUE = signal.SIGTSTP, signal.SIGTTIN, signal.SIGCONT
QUIT = signal.SIGQUIT

# These do not end a process by default, cannot be handled, or come from a fault of its own after
# which no handler may run (signal(7)).
_NOT_ENDING = {
    signal.SIGKILL,
    signal.SIGSTOP,
    STOP,
    CONTINUE,
    NEEDS_TERMINAL,
    signal.SIGTTOU,
    signal.SIGCHLD,
    signal.SIGURG,
    signal.SIGWINCH,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGILL,
    signal.SIGFPE,
}


def ending_signals() -> list[int]:
    """Return the signals that would end this process, as things are, without a line of Python."""
    return [
        number
        for number in signal.valid_signals() - _NOT_ENDING
        if signal.getsignal(number) is signal.SIG_DFL
    ]


def job_signals() -> list[int]:
    """Return the signals that stop and continue a job, but for one ignored on purpose."""
    ignored = signal.getsignal(STOP) is signal.SIG_IGN
    return [CONTINUE] if ignored else [STOP, CONTINUE]


def is_dumb() -> bool:
    """Tell whether the terminal can only print, and move no cursor: ``TERM=dumb``."""
    return os.environ.get("TERM", "").lower() in {"dumb", "unknown"}


def read_modes(fd: int) -> Modes:
    """Return the modes of the terminal `fd`; OSError if it is none, or gone."""
    with _errors():
        return termios.tcgetattr(fd)


def write_modes(fd: int, modes: Modes) -> None:
    """Set the modes of the terminal `fd`, also from the background; OSError if it has gone.

    Waits for nothing, also if nobody reads the output.
    """
    with _errors(), not_stopped():
        termios.tcsetattr(fd, termios.TCSANOW, modes)


def silent(modes: Modes) -> Modes:
    """Return `modes` without echo and without changing what is typed; Ctrl-C still signals.

    For the time between two prompts: with echo, typing would land in the middle of replies, and
    a canonical terminal would eat a Ctrl-D that came too early, or make two lines' ends of a CRLF.
    """
    changed = [*modes[:6], list(modes[6])]
    changed[0] &= ~(termios.ICRNL | termios.INLCR | termios.IGNCR | termios.IXON)
    changed[3] &= ~(termios.ECHO | termios.ICANON)
    changed[6][termios.VMIN], changed[6][termios.VTIME] = 1, 0
    return changed


def raw(modes: Modes) -> Modes:
    """Return `modes` such that every key is a character: for while a prompt is open."""
    changed = silent(modes)
    changed[3] &= ~(termios.IEXTEN | termios.ISIG)
    return changed


def is_canonical(fd: int) -> bool:
    """Tell whether the terminal `fd` hands over whole lines, which it edits itself."""
    lflag: int = read_modes(fd)[3]
    return bool(lflag & termios.ICANON)


def discard_input(fd: int) -> None:
    """Discard what was typed at the terminal `fd` and is not read; OSError if it has gone."""
    with _errors(), not_stopped():
        termios.tcflush(fd, termios.TCIFLUSH)


def in_foreground(fd: int) -> bool:
    """Tell whether the terminal `fd` is this job's now, or is not the one that controls jobs."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:  # ENOTTY
        return True


def stop_job(number: int) -> None:
    """Stop this whole job by the signal `number`, as if nobody handled it; return when continued.

    All of the job, for a shell goes on waiting for a wrapper that runs. Returns at once where there
    is nobody to continue it (an orphaned process group, setpgid(2)), and where whoever started this
    process had the signal ignored. For the main thread.
    """
    before = signal.signal(number, signal.SIG_DFL)
    if before is not signal.SIG_IGN:
        # All at once: a shell may continue the job when the first of it has stopped, and what
        # stopped after that would stay so. This thread does nothing more: kill(2) returns when
        # continued.
        signal_job(number)
    signal.signal(number, before)


def request_stop() -> None:
    """Send this process what Ctrl-Z sends a job; whoever handles it stops the others."""
    os.kill(os.getpid(), STOP)


def signal_job(number: int) -> None:
    """Send the signal to every process of this job."""
    os.kill(0, number)


@contextmanager
def not_stopped() -> Iterator[None]:
    """Keep the terminal from stopping this thread for using it in the background.

    Reading fails with EIO there instead; writing and setting modes works.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU, signal.SIGTTIN])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def open_writer(fd: int) -> int | None:
    """Open the terminal `fd` once more, for writing that does not block; None if it cannot be.

    A description of its own, because O_NONBLOCK on this one would hit every process that shares it.
    It cannot be opened when it is another user's (after ``su``).
    """
    try:
        return os.open(os.ttyname(fd), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return None


def wait_writable(fd: int, seconds: float) -> bool:
    """Wait until the terminal `fd` takes output, at most `seconds`; tell whether it does."""
    return bool(select.select([], [fd], [], seconds)[1])  # macOS has no poll for terminals


def is_readable(fd: int) -> bool:
    """Tell whether there is something to read at the terminal `fd`, be it its end."""
    return bool(select.select([fd], [], [], 0)[0])


@contextmanager
def _errors() -> Iterator[None]:
    """Raise OSError for what `termios` raises, which is none."""
    try:
        yield
    except termios.error as error:
        raise OSError(*error.args) from error
