"""A terminal's output that holds up nobody who must not wait."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from trio_upper.platform import terminal

# Between two checks of whether to go on waiting for a terminal that takes nothing, in seconds.
TICK_SECONDS = 0.2

# Bytes given to the terminal at once: some 0.1 s of the slowest that is in use.
WRITE_BYTES = 16384


class Screen:
    """The terminal as an editor writes to it: waits for it, but not while hurried.

    A terminal that takes nothing (a frozen window, a dead link) holds up its writer for ever. Here
    it holds up nobody who has been cancelled: what cannot be written then is dropped. And so is all
    that is drawn while the terminal is not `usable`, because a shell has it.
    """

    encoding = "utf-8"

    def __init__(self, fd: int, *, hurried: Callable[[], bool], usable: Callable[[], bool]) -> None:
        """Write to the non-blocking `fd`, which the caller closes."""
        self._fd = fd
        self._hurried = hurried
        self._usable = usable
        self._stuck = False

    def write(self, text: str) -> None:
        """Write `text`; hurried only what is short, such as the sequences that tidy up."""
        rest = memoryview(text.encode(errors="replace"))
        if not self._usable():
            return
        with suppress(OSError):  # hung up: nobody is left to read it, and the input ends too
            while rest and not (self._hurried() and len(rest) > WRITE_BYTES):
                try:
                    rest = rest[os.write(self._fd, rest[:WRITE_BYTES]) :]
                except BlockingIOError:
                    if not self._has_room():
                        return

    def _has_room(self) -> bool:
        """Wait until the terminal takes output; False if it does not and somebody is in a hurry."""
        while not terminal.wait_writable(
            self._fd, 0 if self._stuck and self._hurried() else TICK_SECONDS
        ):
            self._stuck = True
            if self._hurried():
                return False
        self._stuck = False
        return True

    def flush(self) -> None:
        """Do nothing: nothing is buffered here."""


@contextmanager
def unblocked(fd: int) -> Iterator[int]:
    """Give a descriptor of the terminal `fd` whose writes do not block; else `fd` itself."""
    own = terminal.open_writer(fd)
    try:
        yield fd if own is None else own
    finally:
        if own is not None:
            os.close(own)
