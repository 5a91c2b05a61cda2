"""What only Linux has, asked of the system itself."""

import fcntl
import os
import select
import socket
import struct
import sys
from pathlib import Path

import pytest
from tests.helpers.descriptor_ends import Descriptors, pipe, terminal
from tests.helpers.waiting import TIMEOUT_SECONDS

from trio_upper.platform import UNLIMITED, linux

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has it")


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty tree of cgroups, in which this process is in ``/a/b``."""
    own = tmp_path / "cgroup"
    own.write_text("1:name=systemd:/x\n0::/a/b\n")
    monkeypatch.setattr(linux, "OWN_CGROUP", own)
    monkeypatch.setattr(linux, "CGROUPS", tmp_path / "fs")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    (tmp_path / "fs" / "a" / "b").mkdir(parents=True)
    return tmp_path / "fs"


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"a/b": "max 100000"}, 8),
        ({"a/b": "350000 100000"}, 3),
        ({"a": "200000 100000", "a/b": "400000 100000"}, 2),
        ({"": "50000 100000"}, 1),
        ({"a/b": "1600000 100000"}, 8),
    ],
)
def test_usable_cores_are_those_that_there_is_time_for(
    cgroups: Path, files: dict[str, str], cores: int
) -> None:
    """A quota of a cgroup, or of one above it, may be less than the affinity allows."""
    for folder, text in files.items():
        (cgroups / folder / "cpu.max").write_text(text + "\n")
    assert linux.usable_cores() == cores


def test_usable_cores_without_cgroups(cgroups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the affinity says it alone."""
    monkeypatch.setattr(linux, "OWN_CGROUP", cgroups / "missing")
    assert linux.usable_cores() == 8


@pytest.mark.parametrize(
    ("limits", "available"),
    [
        ({}, 3_000 * 1024),
        ({"a/b": ("max", "5000")}, 3_000 * 1024),
        ({"a/b": ("9000", "5000")}, 4_000),
        ({"a": ("6000", "5000"), "a/b": ("9000", "5000")}, 1_000),
    ],
)
def test_available_memory_is_what_every_limit_leaves(
    cgroups: Path,
    monkeypatch: pytest.MonkeyPatch,
    limits: dict[str, tuple[str, str]],
    available: int,
) -> None:
    """That of the machine, of a cgroup, and of those above it."""
    meminfo = cgroups / "meminfo"
    meminfo.write_text("MemTotal:  9000 kB\nMemAvailable:  3000 kB\nBuffers:  1 kB\n")
    monkeypatch.setattr(linux, "MEMORY", meminfo)
    for folder, (limit, current) in limits.items():
        (cgroups / folder / "memory.max").write_text(limit + "\n")
        (cgroups / folder / "memory.current").write_text(current + "\n")
    assert linux.available_memory() == available


def test_available_memory_is_unlimited_where_nothing_is_known(
    cgroups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a sandbox without ``/proc``."""
    monkeypatch.setattr(linux, "MEMORY", cgroups / "missing")
    monkeypatch.setattr(linux, "OWN_CGROUP", cgroups / "missing")
    assert linux.available_memory() == UNLIMITED


def test_bytes_without_an_acknowledgement_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """All is acknowledged at once on the loopback; what the peer has no room for is not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as ours, listener.accept()[0]:
            ours.setblocking(False)
            sent = 0
            try:
                while True:
                    sent += ours.send(bytes(100_000))
            except BlockingIOError:
                pass
            assert 0 < (linux.unacknowledged_bytes(ours) or 0) < sent
        assert linux.unacknowledged_bytes(listener) is None  # EINVAL


def test_an_edge_is_reported_once(fds: Descriptors) -> None:
    """Until there are new bytes."""
    read, write = pipe(fds)
    poller = linux.open_edge_poller()
    assert poller is not None
    poller.register(read, linux.EDGES)
    os.write(write, b"a")
    assert poller.poll(0) == [(read, linux.READABLE)]
    assert poller.poll(0) == []
    poller.close()


def test_a_reopened_pipe_shares_no_flag(fds: Descriptors) -> None:
    """The other holders of the description would be non-blocking, too."""
    read, write = pipe(fds)
    again = fds.keep(linux.reopen(read, os.O_RDONLY) or -1)
    assert not os.get_blocking(again)
    assert os.get_blocking(read)
    os.write(write, b"a")
    assert os.read(again, 9) == b"a"


def test_what_cannot_be_reopened(fds: Descriptors, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket has no name; a terminal's master would become another terminal."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert linux.reopen(ours.fileno(), os.O_RDONLY) is None
    _, master = terminal(fds)
    assert linux.reopen(master, os.O_RDONLY) is None


def test_a_pipe_is_widened_and_never_narrowed(fds: Descriptors) -> None:
    """What is no pipe is left as it is."""
    read, write = pipe(fds)
    linux.widen_pipe(write, 1 << 18)
    linux.widen_pipe(write, 1 << 12)
    assert fcntl.fcntl(read, fcntl.F_GETPIPE_SZ) == 1 << 18
    linux.widen_pipe(fds.keep(os.open("/dev/null", os.O_RDWR)), 1 << 18)


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_peer_that_has_reset_is_still_known(family: socket.AddressFamily, host: str) -> None:
    """By the address that accept(2) gave, in the same form."""
    with socket.create_server((host, 0), family=family) as listener:
        client = socket.create_connection(listener.getsockname()[:2])
        accepted, address = listener.accept()
        with accepted:
            assert linux.peer_address(accepted) == address
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            assert select.select([accepted], [], [], TIMEOUT_SECONDS)[0]
            with pytest.raises(OSError, match="not connected"):
                accepted.getpeername()
            assert linux.peer_address(accepted) == address


def test_a_socket_that_was_never_connected_has_no_peer() -> None:
    """Nobody knows one."""
    with socket.socket() as sock:
        assert linux.peer_address(sock) is None
