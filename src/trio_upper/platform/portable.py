"""The contract of the platform room: every name with what it does where nothing better is known.

The modules of the systems replace some of these names by what their system can do. What is here
works on any system that runs Python, perhaps more slowly.
"""

import os
import shlex
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TextIO

if TYPE_CHECKING:
    from trio.socket import SocketType

    Socket = socket.socket | SocketType

# ------------------------------------------------------------------ what a process may use

# Where the system sets no limit, or none that it tells.
UNLIMITED = sys.maxsize


def raise_descriptor_limit() -> int:
    """Raise the limit of open descriptors as far as this process may; return what it is then."""
    return UNLIMITED


def open_descriptors() -> int:
    """Return how many descriptors this process has open, those that it inherited included."""
    return 0


def usable_cores() -> int:
    """Return on how many cores this process may run, at least 1."""
    return os.cpu_count() or 1


def available_memory() -> int:
    """Return how many bytes of memory this process can still be given without swapping."""
    return UNLIMITED


def reuse_large_blocks(size: int) -> None:
    """Have the C library use freed blocks of up to `size` bytes again, from now on.

    That of GNU maps each block from 128 KiB on, and returns what is free at the end of the heap, to
    be given pages anew the next time: a fifth of the time of a bulk transfer. It does so no longer
    up to the size of a mapped block that was freed once (mallopt(3), M_MMAP_THRESHOLD), and then
    keeps twice as much. At most 32 MiB. In other C libraries this has no effect.
    """
    bytes(size)


# Whether a server can be several processes with the same listeners.
HAS_WORKERS = False


def passing(descriptors: Sequence[int]) -> dict[str, Any]:
    """Return the options for a new process that gets `descriptors`, and a session of its own.

    In that, Ctrl-C at our terminal is none of its business.
    """
    raise NotImplementedError(f"cannot pass {len(descriptors)} descriptors on this system")


# ------------------------------------------------------------------ sockets


def keep_alive(sock: "Socket", *, idle_seconds: int, interval_seconds: int) -> None:
    """Have the system find out when the peer of `sock` has vanished.

    It asks after `idle_seconds` of silence, and every `interval_seconds` from then on. On a
    listener this holds for all that it accepts. Where the system has no such times, its own hold.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    times = {
        "TCP_KEEPIDLE": idle_seconds,  # Linux, FreeBSD, Windows
        "TCP_KEEPALIVE": idle_seconds,  # the same on macOS
        "TCP_KEEPINTVL": interval_seconds,
    }
    for name, seconds in times.items():
        if (option := getattr(socket, name, None)) is not None:
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, option, seconds)


def unacknowledged_bytes(sock: socket.socket) -> int | None:  # noqa: ARG001 - the contract
    """Return how many bytes sent on `sock` the peer's system has not taken; None: nobody knows."""
    return None


# What `socket.socket.getpeername` returns, of an IPv4 and of an IPv6 socket.
PeerAddress = tuple[str, int] | tuple[str, int, int, int]


def peer_address(sock: socket.socket) -> PeerAddress | None:
    """Return the address of the peer of `sock`; None if the system has forgotten it."""
    try:
        address: PeerAddress = sock.getpeername()
    except OSError:
        return None
    return address


class EdgePoller(Protocol):
    """`select.epoll`, as far as it is used here."""

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""

    def fileno(self) -> int:
        """Return its descriptor, which is readable while `poll` has something to report."""

    def register(self, fd: int, eventmask: int = ...) -> None:
        """Watch `fd`."""

    def modify(self, fd: int, eventmask: int) -> None:
        """Report again what has happened to `fd`, which is watched already."""

    def unregister(self, fd: int) -> None:
        """Watch `fd` no more."""

    def poll(self, timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
        """Return pairs of a descriptor and what has happened to it."""

    def close(self) -> None:
        """Close it."""


# What an `EdgePoller` is to watch: what can be read, the peer's end, urgent data, each reported
# once. And what it reports if there is nothing but something to read.
EDGES = 0
READABLE = 0


def open_edge_poller() -> EdgePoller | None:
    """Return a new edge-triggered poller, or None where the system has none.

    Error handling: OSError escapes if this process may open no more descriptors.
    """
    return None


# ------------------------------------------------------------------ signals, and how to end

# Those by which a person or the system asks a program to end.
STOP_SIGNALS: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)

# Those that ask for a report: of a server its totals, of a measurement its summary so far.
REPORT_SIGNAL: signal.Signals | None = None
SUMMARY_SIGNAL: signal.Signals | None = None

# How a program ends whose reader has gone, and one whose terminal has gone; for `end_with`.
OUTPUT_CLOSED: int = 1
HUNG_UP: int = 1


def end_with(status: int) -> NoReturn:
    """End this process with the exit code `status`, or by it if it is a signal.

    So the shell sees what ended it.
    """
    sys.exit(status)


def unblock(*signals: signal.Signals) -> None:
    """Receive `signals` although whoever started this process had blocked them."""


def keep_exit_codes() -> None:
    """Have the exit codes of children, although whoever started this process did not want them."""


# ------------------------------------------------------------------ terminals


def is_terminal(stream: TextIO) -> bool:
    """Return whether a person sits at `stream`."""
    return stream.isatty()


# ------------------------------------------------------------------ descriptors and files

# Whether Trio can wait for any descriptor, and not for sockets only.
CAN_WAIT = False

# Bytes that are written to a pipe in one piece whoever else writes to it; a POSIX system's least.
PIPE_ATOMIC_BYTES = 512


def exclusive(fd: int) -> AbstractContextManager[None]:  # noqa: ARG001 - the contract
    """Return a context in which no other process writes to `fd`, of those that use one as well.

    Where the system has no such lock, what is longer than PIPE_ATOMIC_BYTES may mix with theirs.
    """
    return nullcontext()


# A flag with which a socket is received from and sent to without waiting, whatever it is set to.
DONT_WAIT = 0


def is_open_for(fd: int, access: int) -> bool:  # noqa: ARG001 - the contract
    """Return whether `fd` may be read (`access` is O_RDONLY) or written (O_WRONLY).

    To be known first: reopening can turn a pipe round, and who waits at its wrong end waits on.
    """
    return True


def read_descriptor(fd: int, max_bytes: int) -> bytes:
    """Return what comes next of `fd`, at most `max_bytes`; empty at its end. Waits for it."""
    return os.read(fd, max_bytes)


def write_descriptor(fd: int, data: bytes | memoryview) -> int:
    """Write some of `data` to `fd`, and return how many bytes. Waits for room."""
    return os.write(fd, data)


def reopen(fd: int, access: int) -> int | None:  # noqa: ARG001 - the contract
    """Open the pipe or terminal `fd` once more, non-blocking; None if that cannot be done.

    O_NONBLOCK belongs to the open description, which other processes share; this one is our own.
    """
    return None


def widen_pipe(fd: int, size: int) -> None:
    """Have the pipe `fd` hold `size` bytes, if it can."""


def quote_command(words: Sequence[str]) -> str:
    """Return `words` as a command for the shell that people have on this system."""
    return shlex.join(words)
