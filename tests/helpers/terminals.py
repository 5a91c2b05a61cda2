"""A person at a pseudo-terminal in front of the program, under a leader of the session as a shell.

The program must not lead its session: when a leader ends, the kernel hangs the terminal up and sets
its attributes back (tty_io.c, __tty_hangup), and a terminal left raw would look sane.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import trio

from tests.helpers.program import command
from tests.helpers.streams import receive_line
from tests.helpers.waiting import TIMEOUT_SECONDS

ROWS, COLUMNS = 24, 80

PROMPT = "shell$ "

KEPT = 8 * 1024
"""Bytes of what was shown last that are searched: four screens."""

READ_BYTES = 65536

SANE = termios.ECHO | termios.ICANON

CTRL_C, CTRL_D, CTRL_Z, ENTER, UP = "\x03", "\x04", "\x1a", "\r", "\x1b[A"
PASTE_START, PASTE_END = "\x1b[200~", "\x1b[201~"  # bracketed paste, as xterm marks it

SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])")  # ECMA-48, 5.3 and 5.4

# Starts a job in the foreground as an interactive shell does, and takes the terminal back when it
# stops or ends (glibc manual, "Implementing a Shell"). Tells the job's process id, then "stopped"
# or its exit code (negative: the signal that ended it). A line from the other side wakes a stopped
# job; the end of it ends the leader.
LEADER = """
import fcntl, os, signal, sys, termios
control = os.fdopen(int(sys.argv[1]), "r+b", 0)
os.set_inheritable(control.fileno(), False)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
found = termios.tcgetattr(0)
ours = signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTOU
for number in ours:
    signal.signal(number, signal.SIG_IGN)
job = os.fork()
if job == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    for number in ours:
        signal.signal(number, signal.SIG_DFL)
    os.execvp(sys.argv[2], sys.argv[2:])
control.write(b"%d\\n" % job)
while os.WIFSTOPPED(status := os.waitpid(job, os.WUNTRACED)[1]):
    termios.tcsetattr(0, termios.TCSADRAIN, found)
    os.tcsetpgrp(0, os.getpid())
    control.write(b"stopped\\n")
    control.readline()
    os.tcsetpgrp(0, job)
    os.killpg(job, signal.SIGCONT)
control.write(b"%d\\n" % os.waitstatus_to_exitcode(status))
control.readline()
"""


class Terminal:
    """What a person does and sees; `pid` is the program's."""

    def __init__(self, master: int, control: socket.socket) -> None:
        self.pid = 0
        #: All that was ever written to the terminal.
        self.raw = bytearray()
        self._exit_code: int | None = None
        self._fd = master
        self._master = trio.lowlevel.FdStream(master)
        self._control = trio.SocketStream(trio.socket.from_stdlib_socket(control))
        self._unseen = b""
        self._more = trio.Event()

    async def watch(self) -> None:
        """Take what is written to the terminal, all the time, as a terminal does."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := bytes(await self._master.receive_some(READ_BYTES)):
                self.raw += data
                # A sequence may be cut in two: what is left of one is whole next time.
                self._unseen = SEQUENCE.sub(b"", self._unseen + data)[-KEPT:]
                self._more.set()
                self._more = trio.Event()

    async def sees(self, pattern: str) -> re.Match[str]:
        """Wait until `pattern` is shown after what was last seen; escape sequences do not count."""
        with trio.move_on_after(TIMEOUT_SECONDS):
            while True:
                text = self._unseen.decode(errors="surrogateescape")
                if found := re.search(pattern, text):
                    self._unseen = text[found.end() :].encode(errors="surrogateescape")
                    return found
                await self._more.wait()
        raise AssertionError(f"{pattern!r} is not shown, but {self._unseen[-2000:]!r}")

    async def types(self, *keys: str) -> None:
        """Type `keys`, or paste them, as fast as the terminal takes them."""
        with trio.fail_after(TIMEOUT_SECONDS):
            await self._master.send_all("".join(keys).encode(errors="surrogateescape"))

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the window."""
        termios.tcsetwinsize(self._fd, (rows, columns))

    async def starts(self) -> None:
        """Wait until the program has been started."""
        self.pid = int(await self._report())

    async def ends(self) -> int:
        """Wait for the program's end; return its exit code, negative for a signal."""
        self._exit_code = int(await self._report())
        return self._exit_code

    async def stops(self) -> None:
        """Wait until the program is suspended."""
        assert await self._report() == b"stopped\n"

    async def report(self) -> int | None:
        """Wait, for as long as that takes, until the program stops (None) or ends (as `ends`)."""
        told = await receive_line(self._control)
        if told == b"stopped\n":
            return None
        self._exit_code = int(told)
        return self._exit_code

    async def wakes(self) -> None:
        """Bring the suspended program to the foreground again, as the shell's ``fg``."""
        await self._control.send_all(b"\n")

    async def _report(self) -> bytes:
        with trio.fail_after(TIMEOUT_SECONDS):
            return await receive_line(self._control)

    def hang_up(self) -> None:
        """Close the terminal's window."""
        self._master.close()

    @property
    def job(self) -> int:
        """The process group in the foreground."""
        return os.tcgetpgrp(self._fd)

    @property
    def sane(self) -> bool:
        """Whether the terminal echoes and edits lines, as a shell expects it."""
        flags: int = termios.tcgetattr(self._fd)[3]  # of the other side (Linux, tty_mode_ioctl)
        return flags & SANE == SANE

    def close(self) -> None:
        """End the program if it runs still, and the leader with it; close the terminal."""
        if self.pid and self._exit_code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._control.socket.close()
        self._master.close()


@asynccontextmanager
async def terminal(
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    size: tuple[int, int] = (ROWS, COLUMNS),
) -> AsyncIterator[Terminal]:
    """Run ``trio-upper`` with `arguments` at a terminal of its own, for as long as the block lasts.

    `environ` comes on top of the environment of the tests. `prefix` is a command that becomes
    another one, as ``env`` does. `size` is that of the terminal, in rows and columns.
    """
    async with at_terminal(command(*arguments, prefix=prefix), environ or {}, size) as person:
        yield person


@asynccontextmanager
async def shell(words: Sequence[str], **environ: str) -> AsyncIterator[Terminal]:
    """Run an interactive shell at a terminal of its own, and see its first prompt."""
    async with at_terminal(words, {"PS1": PROMPT, **environ}, (ROWS, COLUMNS)) as person:
        await person.sees(re.escape(PROMPT))
        yield person


@asynccontextmanager
async def at_terminal(
    words: Sequence[str], environ: Mapping[str, str], size: tuple[int, int]
) -> AsyncIterator[Terminal]:
    """Run the command `words`."""
    master, tty = os.openpty()
    ours, theirs = socket.socketpair()
    person = Terminal(master, ours)
    with theirs:
        termios.tcsetwinsize(tty, size)
        leader = _start_leader(tty, theirs.fileno(), words, environ)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(person.watch)
            await person.starts()
            yield person
            nursery.cancel_scope.cancel()
    finally:
        person.close()
        leader.wait(TIMEOUT_SECONDS)


def _start_leader(
    tty: int, control: int, words: Sequence[str], environ: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start the leader at `tty`, which is its alone from now on; `words` are the program."""
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", LEADER, str(control), *words],
            stdin=tty,
            stdout=tty,
            stderr=tty,
            env={**os.environ, **environ},
            start_new_session=True,
            pass_fds=[control],
        )
    finally:
        os.close(tty)
