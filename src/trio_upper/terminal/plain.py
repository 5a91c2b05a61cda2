"""A prompt for a terminal that can only print (``TERM=dumb``)."""

import os
from collections.abc import Callable
from contextlib import suppress

import trio

from trio_upper.platform import terminal
from trio_upper.terminal.console import Typing
from trio_upper.terminal.escape import escape
from trio_upper.terminal.lease import BACKGROUND_SECONDS, Lease

# Bytes asked of the terminal at once; one line at most comes.
READ_BYTES = 65536

LINE_CUT = f"the terminal cut this line after {terminal.LINE_BYTES} bytes, the most it takes"


def is_cut(line: bytes) -> bool:
    """Tell whether a line that was read from a terminal may have been longer when it was typed."""
    return len(line) > terminal.LINE_BYTES


class PlainConsole:
    """A console without an editor of ours: the terminal edits lines itself and echoes.

    So Ctrl-C is SIGINT, and a line has `terminal.LINE_BYTES` at most.
    """

    def __init__(self, lease: Lease, output_fd: int) -> None:
        self._lease = lease
        self._output_fd = output_fd
        self._label = ""
        self._at_line_start = True

    async def print(self, text: str) -> None:
        """Print `text`, then the label again: what is half typed stays in the terminal."""
        await self._write(text, self._label)

    async def ask(self, question: str, *, fresh: bool) -> str:
        """Return the line typed after `question`; EOFError at Ctrl-D."""
        if fresh:
            self._lease.discard_typed()
        await self._write("", question)
        line = await self._read()
        if not line:
            raise EOFError
        return line.decode("utf-8", "replace").rstrip("\n")

    async def type(self, label: str, typing: Typing) -> None:
        """Prompt with `label` until Ctrl-D; what is half typed then stays on the screen.

        What is unfinished cannot be put into the terminal's line: it is shown, to be typed again.
        """
        self._label = label
        again = (
            f"trio-upper: not sent: '{escape(typing.unfinished)}'\n" if typing.unfinished else ""
        )
        typing.unfinished = b""
        await self._write(again, label)
        try:
            while typed := await self._read():
                typing.enter(typed)
        finally:
            self._label = ""

    async def leave(self, give_back: Callable[[], object]) -> None:
        """Put away nothing: the terminal is as it was found all the time."""
        await trio.lowlevel.checkpoint()
        give_back()

    async def resume(self, take_again: Callable[[], bool]) -> None:
        """Show the label again."""
        self._at_line_start = take_again()
        await self._write("", self._label)

    async def _read(self) -> bytes:
        """Return what was typed, one line at most; empty at Ctrl-D."""
        await trio.lowlevel.wait_readable(self._lease.fd)
        while (typed := self._lease.read(READ_BYTES)) is None:
            await trio.sleep(BACKGROUND_SECONDS)
            await trio.lowlevel.wait_readable(self._lease.fd)
        self._at_line_start = typed.endswith(b"\n")  # Ctrl-D is not echoed
        if is_cut(typed):
            await self.print(f"trio-upper: {LINE_CUT}\n")
        if not typed:
            self._label = ""
            await self._write("", "")
        return typed

    async def _write(self, text: str, label: str) -> None:
        start = "" if self._at_line_start else "\n"
        self._at_line_start = not label
        data = f"{start}{text}{label}".encode(errors="replace")
        # A terminal that nobody reads blocks for ever; the thread may be left behind with it.
        await trio.to_thread.run_sync(_write_all, self._output_fd, data, abandon_on_cancel=True)


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    with suppress(OSError):  # hung up: nobody is left to read it, and the input ends too
        while rest:
            rest = rest[os.write(fd, rest) :]
