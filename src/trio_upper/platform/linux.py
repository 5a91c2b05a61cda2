"""What only Linux has; `portable` says what each name is."""

import fcntl
import os
import select
import socket
import struct
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from trio_upper.platform import portable
from trio_upper.platform.portable import UNLIMITED, EdgePoller, PeerAddress

assert sys.platform == "linux"  # for the type checker

READABLE = select.EPOLLIN
EDGES = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLET

# From the kernel's Documentation/admin-guide/devices.txt: to open this one makes a new terminal.
TERMINAL_MASTER = 5, 2

# From <asm-generic/socket.h>. Unlike getpeername(2), it knows a peer that has reset the connection.
SO_PEERNAME = 28

# The structures of <netinet/in.h>: family, port, address; family, port, flow, address, scope.
SOCKADDR_IN = struct.Struct("=HH4s8x")
SOCKADDR_IN6 = struct.Struct("=HHI16sI")

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
MEMORY = Path("/proc/meminfo")


def usable_cores() -> int:
    """Return the cores of the affinity, or fewer if a cgroup (v2) has a quota of CPU time."""
    cores: float = len(os.sched_getaffinity(0))
    for quota in _quotas():
        cores = min(cores, quota)
    return max(1, int(cores))


def _quotas() -> Iterator[float]:
    """Yield the quotas of this process, in cores."""
    for folder in _cgroups():
        with suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            yield int(quota) / int(period)  # "max" is not a number


def available_memory() -> int:
    """Return what the kernel says is available, or less if a cgroup (v2) has less left."""
    return min(_free_memory(), default=UNLIMITED)


def _free_memory() -> Iterator[int]:
    """Yield what is left of each limit, in bytes."""
    with suppress(OSError):
        for line in MEMORY.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024
    for folder in _cgroups():
        with suppress(OSError, ValueError):
            limit = int((folder / "memory.max").read_text())  # "max" is not a number
            yield limit - int((folder / "memory.current").read_text())


def _cgroups() -> Iterator[Path]:
    """Yield the folder of this process's cgroup and those above it, whose limits hold, too."""
    try:
        lines = OWN_CGROUP.read_text().splitlines()
    except OSError:
        return
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    yield from (CGROUPS / own, *(CGROUPS / own).parents)


def unacknowledged_bytes(sock: socket.socket) -> int | None:
    """Ask SIOCOUTQ, see tcp(7); sandboxes such as gVisor refuse it."""
    try:
        queued = fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4))
    except OSError:
        return None
    return int(struct.unpack("i", queued)[0])


def peer_address(sock: socket.socket) -> PeerAddress | None:
    """Ask also by SO_PEERNAME."""
    if address := portable.peer_address(sock):
        return address
    layout = SOCKADDR_IN6 if sock.family == socket.AF_INET6 else SOCKADDR_IN
    try:
        _, port, *rest = layout.unpack(sock.getsockopt(socket.SOL_SOCKET, SO_PEERNAME, layout.size))
    except OSError:
        return None
    if sock.family == socket.AF_INET6:
        flow, host, scope = rest
        return socket.inet_ntop(socket.AF_INET6, host), socket.ntohs(port), flow, scope
    return socket.inet_ntop(socket.AF_INET, rest[0]), socket.ntohs(port)


def open_edge_poller() -> EdgePoller | None:
    return select.epoll()


def reopen(fd: int, access: int) -> int | None:
    """Open it through /proc, which fails if it belongs to another user (sudo: EACCES)."""
    device = os.fstat(fd).st_rdev
    if (os.major(device), os.minor(device)) == TERMINAL_MASTER:
        return None
    try:
        return os.open(f"/proc/self/fd/{fd}", access | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return None


def widen_pipe(fd: int, size: int) -> None:
    """Widen it unless it is no pipe, or the user has too many of them (pipe(7))."""
    with suppress(OSError):
        if fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) < size:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
