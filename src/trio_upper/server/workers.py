"""A worker as a process, and the line between it and its parent.

The line is a pair of sockets; the worker's end is its standard input. The worker says on it that it
serves, and receives orders to stop. It ends when the parent has gone, in whatever way.
(PR_SET_PDEATHSIG tells a worker when the *thread* that started it has gone, see prctl(2), and
Trio's threads come and go.)

Signals would not do for stopping: one that arrives before the worker is prepared kills it, and one
that somebody sends to both processes, as systemd does with SIGTERM, would count twice. For totals
they are right: one that arrives while another is pending is the same request.
"""

import contextlib
import enum
import os
import socket
import sys
from collections.abc import Iterable, Sequence
from typing import Protocol, Self

import trio

from trio_upper.platform import REPORT_SIGNAL, passing
from trio_upper.server.inherited import FIRST_PASSED

# What a worker says, once: clients are served from now on.
READY = b"r"

# What precedes a secret on the line: its size. It is the first thing there.
SIZE_BYTES = 4

# What starting a worker raises when there is no process, no thread or no memory for it.
START_ERRORS = (OSError, RuntimeError, MemoryError)

# What a worker's interpreter runs first, for only the process itself can tell its id. It moves the
# listeners to where they must be and becomes the program. Their numbers are 3 or more and ascend,
# so that none is overwritten before it was moved.
BECOME = f"""
import os, sys
numbers, *command = sys.argv[1:]
for target, number in enumerate(map(int, numbers.split(",")), start={FIRST_PASSED}):
    if number != target:
        os.dup2(number, target)
        os.close(number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(command[0], command)
"""


class Order(bytes, enum.Enum):
    """What a parent has its workers do, as a byte on the line.

    An order to stop cannot be lost: it is never taken back, one more of its kind adds nothing, and
    there is room on the line for one of each.
    """

    DRAIN = b"d"
    CUT = b"c"


class NotAWorker(ValueError):
    """A process has no parent that it works for; the text says so to a person."""


def _line_to_parent(descriptor: int) -> socket.socket:
    with contextlib.suppress(OSError):
        return socket.socket(fileno=os.dup(descriptor))
    raise NotAWorker("--worker is for the processes that --workers starts")


def take_secret(*, line: int = 0) -> bytes:
    """Wait for the secret that the parent of this worker has for it, and return it.

    It is on the line before all else: neither a command line nor an environment hides it, and no
    file of it is left.

    Error handling: `NotAWorker` if `line` does not lead to a parent.
    """
    with _line_to_parent(line) as duplicate:
        size = int.from_bytes(duplicate.recv(SIZE_BYTES, socket.MSG_WAITALL))
        return duplicate.recv(size, socket.MSG_WAITALL)


class Parent:
    """What a worker knows of its parent: the other end of `line`."""

    def __init__(self, line: socket.socket) -> None:
        self._line = trio.socket.from_stdlib_socket(line)

    @classmethod
    def of_worker(cls, *, line: int = 0) -> Self:
        """Return the parent of this process, which is a worker: descriptor `line` leads to it.

        Error handling: `NotAWorker` if it does not.
        """
        return cls(_line_to_parent(line))

    async def tell_ready(self, listening: object = None) -> None:  # noqa: ARG002 - it knows where
        """Say that clients are served from now on."""
        with contextlib.suppress(BrokenPipeError):  # `next_order` reports it
            await self._line.send(READY)

    async def next_order(self) -> Order | None:
        """Wait for an order and return it, the strongest one if there are several.

        None: the parent has gone.
        """
        try:
            orders = await self._line.recv(4096)
        except ConnectionResetError:  # it has gone without reading that we are ready
            return None
        if not orders:
            return None
        return Order.CUT if Order.CUT.value in orders else Order.DRAIN


class Worker(Protocol):
    """A process that serves, as its parent sees it."""

    @property
    def pid(self) -> int:
        """Its process id."""

    async def ready(self) -> bool:
        """Wait until it serves; False: it has ended and never did."""

    async def ended(self) -> int:
        """Wait until it has ended; return its exit code, or minus the signal that killed it."""

    def tell(self, order: Order) -> None:
        """Give it an order; this does nothing if it has ended."""

    def report(self) -> None:
        """Have it log its totals, if it serves."""

    def kill(self) -> None:
        """End it, at once."""

    def close(self) -> None:
        """Release what belongs to it. If it has not ended, it is killed."""


class WorkerProcess:
    """A worker as a process; `start` makes one."""

    def __init__(self, process: trio.Process, line: socket.socket) -> None:
        self._process = process
        self._line = line
        self._serves = False
        line.setblocking(False)

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        listeners: Iterable[trio.SocketListener],
        *,
        secret: bytes = b"",
    ) -> Self:
        """Start `command`, a server that adopts `listeners`, and takes `secret`.

        It has a session of its own: Ctrl-C at a terminal is for the parent alone.

        Error handling: one of `START_ERRORS` escapes if the system has no room for a process.
        """
        numbers = sorted(listener.socket.fileno() for listener in listeners)
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as undo, theirs:
            undo.enter_context(ours)
            if secret:
                ours.sendall(len(secret).to_bytes(SIZE_BYTES) + secret)
            process = await trio.lowlevel.open_process(
                [sys.executable, "-ISc", BECOME, ",".join(map(str, numbers)), *command],
                stdin=theirs,
                env=os.environ | {"LISTEN_FDS": str(len(numbers))},
                **passing(numbers),
            )
            undo.pop_all()
        return cls(process, ours)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ready(self) -> bool:
        """Wait until it serves; False: it has ended and never did."""
        await trio.lowlevel.wait_readable(self._line)
        with contextlib.suppress(ConnectionResetError):  # it has ended before it read an order
            self._serves = self._line.recv(1) == READY
        return self._serves

    async def ended(self) -> int:
        """Wait until it has ended; return its exit code, or minus the signal that killed it."""
        return await self._process.wait()

    def tell(self, order: Order) -> None:
        """Give it an order; this does nothing if it has ended."""
        with contextlib.suppress(OSError):  # it has ended, or has more of the same to read
            self._line.send(order)

    def report(self) -> None:
        """Have it log its totals, if it serves."""
        if self._serves and REPORT_SIGNAL:
            self._process.send_signal(REPORT_SIGNAL)

    def kill(self) -> None:
        """End it, at once."""
        self._process.kill()

    def close(self) -> None:
        """Release what belongs to it. If it has not ended, it is killed."""
        self._process.kill()
        self._line.close()
