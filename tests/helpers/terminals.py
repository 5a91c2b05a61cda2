"""A person at a pseudo-terminal in front of the program, which a leader starts as a shell does."""

import os
import re
import signal
import socket
import termios
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import trio

from tests.helpers import starter
from tests.helpers.program import command
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


class Terminal:
    """What a person does and sees; `pid` is the program's."""

    def __init__(self, master: int, leader: socket.socket) -> None:
        self.pid = 0
        #: All that was ever written to the terminal.
        self.raw = bytearray()
        self._exit_code: int | None = None
        self._fd = master
        self._master = trio.lowlevel.FdStream(master)
        self._leader = trio.socket.from_stdlib_socket(leader)
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

    def takes_nothing(self) -> None:
        """Take nothing more of what is written, as after Ctrl-S, but from this instant on."""
        theirs = os.open(f"/proc/{self.pid}/fd/0", os.O_RDWR | os.O_NOCTTY)
        termios.tcflow(theirs, termios.TCOOFF)
        os.close(theirs)

    async def starts(self) -> None:
        """Wait until the program has been started."""
        self.pid = int(await self._report())

    async def ends(self) -> int:
        """Wait for the program's end; return its exit code, negative for a signal."""
        self._exit_code = int(await self._report())
        return self._exit_code

    async def stops(self) -> None:
        """Wait until the program is suspended."""
        assert await self._report() == starter.STOPPED

    async def report(self) -> int | None:
        """Wait, for as long as that takes, until the program stops (None) or ends (as `ends`)."""
        told = await self._leader.recv(starter.REPORT_BYTES)
        if told == starter.STOPPED:
            return None
        self._exit_code = int(told)
        return self._exit_code

    async def wakes(self) -> None:
        """Bring the suspended program to the foreground again, as the shell's ``fg``."""
        await self._leader.send(b"w")

    async def _report(self) -> bytes:
        with trio.fail_after(TIMEOUT_SECONDS):
            return await self._leader.recv(starter.REPORT_BYTES)

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
        self._leader.close()
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
    termios.tcsetwinsize(tty, size)
    person = Terminal(master, starter.start(words, environ, [tty] * 3, terminal=True))
    os.close(tty)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(person.watch)
            await person.starts()
            yield person
            nursery.cancel_scope.cancel()
    finally:
        person.close()
