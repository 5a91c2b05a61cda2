"""A process that has loaded the program, and forks for each start of it.

Starting an interpreter and loading Trio takes some tenths of a second of a core, and the end-to-end
tests would do it a thousand times; what is forked takes some hundredths from its start to its end.
It has its own process id, arguments, environment, working directory and standard streams, runs
``trio_upper.__main__``, and ends as an interpreter ends. What happens before that, the loading and
what an interpreter does with its environment, is missing: `needs_interpreter` tells what must be
started in the ordinary way. So is what a prefix starts (``sh -c``, ``prlimit``, a statement about
signals), and what the program starts itself.

Between this process and each job is a leader, which waits for the job as a shell does, and tells on
a line of its own what becomes of it.
"""

import atexit
import fcntl
import functools
import gc
import importlib
import io
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

Modes = list[Any] | None
"""What `termios.tcgetattr` returns; None where there is no terminal."""

PROGRAM = [sys.executable, "-m", "trio_upper"]

# What the commands import when they run.
LOADED = [f"trio_upper.cli.{name}" for name in ("main", "serve", "supervise", "client", "dialogue")]
LOADED += ["trio_upper.cli.ping", "trio_upper.cli.bench", "trio_upper.cli.check"]
LOADED += ["trio_upper.cli.log", "trio_upper.terminal.editor"]

# What an interpreter reads from the environment when it starts, or the C library for it.
READ_AT_START = ("PYTHON", "LANG", "LC_")

# A request is preceded by its size in so many bytes; a report has always the same size.
SIZE_BYTES = 4
REPORT_BYTES = 16
STOPPED = b"stopped".ljust(REPORT_BYTES)

# Signals of a terminal, which are for the job in the foreground and not for its leader.
OF_TERMINAL = signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTOU


def needs_interpreter(words: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Tell whether `words` are another command, or `environment` has variables for Python.

    It is always so where libraries of the system may not like a fork, as on macOS.
    """
    other = list(words[:3]) != PROGRAM or sys.platform != "linux"
    return other or any(name.startswith(READ_AT_START) for name in environment)


def start(
    words: Sequence[str], environment: Mapping[str, str], fds: Sequence[int], *, terminal: bool
) -> socket.socket:
    """Run `words` with `fds` as standard streams; return the line on which its leader reports.

    `environment` is added to this process's own. `terminal`: `fds` are a terminal, which becomes
    that of the leader's session. The leader is done when this end of the line is closed.
    """
    environ = dict(os.environ) | dict(environment)
    forks = not needs_interpreter(words, environment)
    request = json.dumps([list(words), environ, str(Path.cwd()), forks, terminal]).encode()
    ours, theirs = socket.socketpair()
    with theirs:
        size = len(request).to_bytes(SIZE_BYTES)
        socket.send_fds(_starter(), [size], [*fds, theirs.fileno()])
        _starter().sendall(request)
    return ours


@functools.cache
def _starter() -> socket.socket:
    """Start the process that forks, and return the line to it; its end is that of the line."""
    ours, theirs = socket.socketpair()
    with theirs:
        words = [sys.executable, "-m", "tests.helpers.starter", str(theirs.fileno())]
        root = Path(__file__).parents[2]
        process = subprocess.Popen(words, pass_fds=[theirs.fileno()], cwd=root)
    atexit.register(process.wait)
    atexit.register(ours.close)  # is called before
    return ours


def serve(requests: socket.socket) -> None:
    """Fork for each of `requests`; return only in a fork that is to run the program."""
    for name in LOADED:
        importlib.import_module(name)
    gc.freeze()  # a fork that collects garbage, or ends, would copy all that is loaded
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the tests receive it, and end their programs
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the leaders
    while True:
        size, fds, _, _ = socket.recv_fds(requests, SIZE_BYTES, 4)
        if not size:
            os._exit(0)
        request = requests.recv(int.from_bytes(size), socket.MSG_WAITALL)
        if os.fork() == 0:
            requests.close()
            words, environ, folder, forks, terminal = json.loads(request)
            lead(fds, terminal=terminal)
            return become(words, environ, folder, forks=forks)
        for fd in fds:
            os.close(fd)


def lead(fds: Sequence[int], *, terminal: bool) -> None:
    """Fork the job, and return there; tell here what becomes of it.

    At a terminal, this is the leader of the session, and does as an interactive shell (glibc
    manual, "Implementing a Shell"). The program must not be it: when a leader ends, the kernel
    hangs the terminal up and sets its attributes back (tty_io.c, __tty_hangup), and a terminal left
    raw would look sane.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, line = fds
    modes = termios.tcgetattr(streams[0]) if terminal else None
    if terminal:
        os.setsid()
        fcntl.ioctl(streams[0], termios.TIOCSCTTY, 0)
        for number in OF_TERMINAL:
            signal.signal(number, signal.SIG_IGN)
    if job := os.fork():
        tell(job, socket.socket(fileno=line), streams, modes)
    os.close(line)
    for target, fd in enumerate(streams):
        os.dup2(fd, target)
        os.close(fd)
    if terminal:
        os.setpgid(0, 0)
        os.tcsetpgrp(0, os.getpid())
    for number in OF_TERMINAL:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def tell(job: int, line: socket.socket, streams: Sequence[int], modes: Modes) -> NoReturn:
    """Tell on `line` what becomes of `job`; `modes` are those of its terminal if it has one.

    The reports: its process id; at a terminal `STOPPED`, as often as it is; its exit code
    (negative: the signal that ended it). A byte from the other side wakes a stopped job.
    """
    tty, *others = streams
    for fd in others if modes else streams:
        os.close(fd)
    line.sendall(report(job))
    while os.WIFSTOPPED(status := os.waitpid(job, os.WUNTRACED if modes else 0)[1]):
        assert modes
        termios.tcsetattr(tty, termios.TCSADRAIN, modes)
        os.tcsetpgrp(tty, os.getpid())
        line.sendall(STOPPED)
        line.recv(REPORT_BYTES)
        os.tcsetpgrp(tty, job)
        os.killpg(job, signal.SIGCONT)
    with suppress(OSError):  # nobody wants to know any more
        line.sendall(report(os.waitstatus_to_exitcode(status)))
        line.recv(REPORT_BYTES)
    os._exit(0)


def report(number: int) -> bytes:
    """Return the report that is a number."""
    return str(number).encode().ljust(REPORT_BYTES)


def become(words: list[str], environ: dict[str, str], folder: str, *, forks: bool) -> None:
    """Make of this process what `words` would have started as; execute them if it must be new."""
    os.chdir(folder)
    if not forks:
        os.execvpe(words[0], words, environ)
    os.environ.clear()
    os.environ.update(environ)
    sys.orig_argv, sys.argv = words, words[2:]
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_module(PROGRAM[-1], run_name="__main__", alter_sys=True)
