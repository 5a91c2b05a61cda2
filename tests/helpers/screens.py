"""A terminal as a standard stream of this process, and what was shown there."""

import os
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

READ_BYTES = 65536


class Screen:
    """`stream` writes to a terminal; `shown` is all that came there."""

    def __init__(self, master: int, stream: TextIO) -> None:
        self.master = master
        self.stream = stream
        self._shown = b""

    @property
    def shown(self) -> str:
        """All that was shown so far."""
        with suppress(BlockingIOError):
            while data := os.read(self.master, READ_BYTES):
                self._shown += data
        return self._shown.decode()

    def stop(self) -> None:
        """Take nothing more, as after Ctrl-S."""
        termios.tcflow(self.stream.fileno(), termios.TCOOFF)

    def go_on(self) -> None:
        """Take output again, as after Ctrl-Q."""
        termios.tcflow(self.stream.fileno(), termios.TCOON)


@contextmanager
def screen(columns: int = 80) -> Iterator[Screen]:
    """Give a terminal of 24 rows inside the block."""
    master, tty = os.openpty()
    termios.tcsetwinsize(tty, (24, columns))
    os.set_blocking(master, False)
    with os.fdopen(tty, "w") as stream:
        yield Screen(master, stream)
    os.close(master)
