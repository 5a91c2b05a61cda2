"""What is done where nothing better is known: it runs here as it runs everywhere."""

import socket
import sys

import pytest
from tests.helpers.descriptor_ends import Descriptors, pipe

from trio_upper.platform import portable


def test_nothing_that_the_system_does_not_tell_is_made_up() -> None:
    """No limit, no descriptors, no bytes on their way, no poller, no lock."""
    assert portable.raise_descriptor_limit() == portable.UNLIMITED
    assert portable.open_descriptors() == 0
    assert portable.usable_cores() >= 1
    assert portable.available_memory() == portable.UNLIMITED
    assert portable.open_edge_poller() is None
    with socket.socket() as sock, portable.exclusive(sock.fileno()):
        assert portable.unacknowledged_bytes(sock) is None
        assert portable.peer_address(sock) is None


def test_a_connected_socket_has_a_peer() -> None:
    """As getpeername(2) has it."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        assert portable.peer_address(client) == listener.getsockname()


@pytest.mark.parametrize(
    "missing", [(), ("TCP_KEEPIDLE",), ("TCP_KEEPIDLE", "TCP_KEEPALIVE", "TCP_KEEPINTVL")]
)
def test_keep_alive_sets_what_the_system_has(
    missing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of the times differ; where there are none, the system's own hold."""
    for name in missing:
        monkeypatch.delattr(socket, name, raising=False)
    with socket.socket() as sock:
        portable.keep_alive(sock, idle_seconds=300, interval_seconds=30)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if not missing:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 300


def test_keep_alive_goes_without_times_that_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system may know the name of an option, and not the option."""
    monkeypatch.setattr(socket, "TCP_KEEPIDLE", 99_999)
    with socket.socket() as sock:
        portable.keep_alive(sock, idle_seconds=300, interval_seconds=30)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_program_ends_with_its_exit_code() -> None:
    """Where nothing ends by a signal."""
    portable.unblock(*portable.STOP_SIGNALS)
    with pytest.raises(SystemExit) as caught:
        portable.end_with(portable.OUTPUT_CLOSED)
    assert caught.value.code == 1


def test_descriptors_are_used_as_they_are(fds: Descriptors) -> None:
    """Nothing is known of them, and none is opened again."""
    read, write = pipe(fds)
    portable.widen_pipe(write, 1 << 20)
    portable.keep_exit_codes()
    with open(read, closefd=False) as stream:
        assert not portable.is_terminal(stream)
    assert portable.is_open_for(read, 0)
    assert portable.reopen(read, 0) is None


def test_nothing_is_passed_to_other_processes() -> None:
    """So there are no workers, and whoever starts one all the same is told."""
    assert not portable.HAS_WORKERS
    with pytest.raises(NotImplementedError):
        portable.passing([3])


def test_a_command_is_quoted_for_a_shell() -> None:
    """What is copied and pasted must be what was meant."""
    assert portable.quote_command(["serve", "--tls-cert", "my cert.pem"]) == (
        "serve --tls-cert 'my cert.pem'"
    )
    assert sys.maxsize == portable.UNLIMITED
