"""The terminal is borrowed: whoever has it next finds it as we did."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, final

import trio

from trio_upper.platform import terminal
from trio_upper.terminal.console import HungUp

Change = Callable[[terminal.Modes], terminal.Modes]

# How long to be in the background before the job stops itself, in seconds. One that is continued
# only to be ended (``kill %1`` of a shell) has received that signal, too, by then.
BACKGROUND_SECONDS = 0.2

# Ends what an editor may have switched on (ECMA-48 SGR; xterm's modes): attributes, no wrapping, a
# hidden cursor, bracketed paste. Then a new line, for whoever comes next.
TIDY = b"\x1b[0m\x1b[?7h\x1b[?25h\x1b[?2004l\n"


class Borrower(Protocol):
    """What uses a borrowed terminal."""

    async def leave(self, give_back: Callable[[], object]) -> None:
        """Put away what is on the screen and `give_back` the terminal: the job is about to stop.

        Nothing is drawn in between, or it would stay there.
        """

    async def resume(self, take_again: Callable[[], bool]) -> None:
        """Do `take_again`, and draw what there is to see, nothing else in between.

        It tells whether somebody else has moved the cursor.
        """


@final
class Lease:
    """The terminal `fd` on loan, with the modes that it was found in.

    Modes are set by `use`, from any thread; while the terminal is given back they wait.
    """

    def __init__(self, fd: int) -> None:
        """Borrow the terminal; OSError if it is none."""
        self.fd = fd
        self._lock = threading.RLock()  # a signal handler may come while its own thread holds it
        self._found = self._ours = terminal.read_modes(fd)
        self._change: Change = list
        self._held = True

    @property
    def usable(self) -> bool:
        """Whether the terminal is ours to draw on and to read from."""
        return self._held and terminal.in_foreground(self.fd)

    def use(self, change: Change) -> None:
        """Have the terminal in the modes that `change` makes of those in which it was found."""
        with self._lock:
            self._change = change
            if self._held:
                self._set()

    def give_back(self) -> bool:
        """Set the modes that were found, unless somebody else has set theirs; tell which.

        A shell that takes the terminal from a job that was stopped may set its own, and a job in
        the background must not change them.
        """
        with self._lock, suppress(OSError):  # hung up: there is no terminal left
            self._held = False
            ours = terminal.read_modes(self.fd) == self._ours
            if ours or terminal.in_foreground(self.fd):
                terminal.write_modes(self.fd, self._found)
                return True
        return False

    def take_again(self) -> bool:
        """Set our modes again; tell whether somebody else has had the terminal meanwhile.

        Their modes are what is found now.
        """
        with self._lock, suppress(OSError):
            modes = terminal.read_modes(self.fd)
            elsewhere = not self._held or modes != self._ours
            self._held = True
            if elsewhere:
                self._found = modes
            self._set()
            return elsewhere
        return False

    def _set(self) -> None:
        with suppress(OSError):
            terminal.write_modes(self.fd, self._change(self._found))
            self._ours = terminal.read_modes(self.fd)  # as the terminal understood them

    def read(self, max_bytes: int) -> bytes | None:
        """Return what was typed; None if nothing was, or it is for somebody else.

        That is empty at Ctrl-D if the terminal is canonical. Raises `HungUp`.
        """
        if not (self.usable and terminal.is_readable(self.fd)):
            return None
        try:
            with terminal.not_stopped():
                typed = os.read(self.fd, max_bytes)
        except OSError as error:  # EIO: in the background, or gone
            if self.usable:
                raise HungUp from error
            return None
        if not typed and not os.isatty(self.fd):
            raise HungUp
        return typed

    def discard_typed(self) -> None:
        """Discard what was typed and not read; raises `HungUp`."""
        try:
            if self.usable:
                terminal.discard_input(self.fd)
        except OSError as error:
            raise HungUp from error

    async def watch(
        self,
        borrower: Borrower,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Stop and continue as the shell wants it, until cancelled.

        A job that is continued in the background stops there: a prompt has nothing to do without a
        keyboard.
        """
        if not (wanted := terminal.job_signals()):
            task_status.started()
            return
        with trio.open_signal_receiver(*wanted) as signals:
            task_status.started()
            async for number in signals:
                if number == terminal.STOP:
                    await self._stop(borrower, number)
                while not terminal.in_foreground(self.fd):
                    await trio.sleep(BACKGROUND_SECONDS)
                    if not terminal.in_foreground(self.fd):
                        await self._stop(borrower, terminal.NEEDS_TERMINAL)
                await borrower.resume(self.take_again)

    async def _stop(self, borrower: Borrower, number: int) -> None:
        await borrower.leave(self.give_back)
        terminal.stop_job(number)

    def end_by(self, number: int, _: object = None) -> None:
        """Give the terminal back and end by the signal, at once: a signal handler."""
        if self.give_back() and (fd := terminal.open_writer(self.fd)) is not None:
            with suppress(OSError):
                os.write(fd, TIDY)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


@contextmanager
def borrow(fd: int) -> Iterator[Lease]:
    """Borrow the terminal `fd` inside the block; OSError if it is none.

    However the block or the process ends (but for SIGKILL), the terminal is left as it was found.
    What was typed and not read is discarded at the end: it was meant for the conversation, and a
    shell would run it as commands. For the main thread.
    """
    if not terminal.in_foreground(fd):
        terminal.stop_job(terminal.NEEDS_TERMINAL)  # as does whoever reads it there
    lease = Lease(fd)
    before = {number: signal.signal(number, lease.end_by) for number in terminal.ending_signals()}
    try:
        yield lease
    finally:
        with suppress(HungUp):
            lease.discard_typed()
        lease.give_back()
        for number, handler in before.items():
            signal.signal(number, handler)
