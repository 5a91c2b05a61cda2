"""Listeners that another process passed to this one, and a server on them."""

import errno
import os
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

import pytest
import structlog
import trio
from structlog.testing import CapturingLogger
from tests.helpers.listening import listener_on, listening
from tests.helpers.waiting import TIMEOUT_SECONDS
from trio.testing import MockClock

from trio_upper.protocol import full_notice
from trio_upper.server import listeners as listeners_module
from trio_upper.server import server as server_module
from trio_upper.server.inherited import FIRST_PASSED, adopt_listeners
from trio_upper.server.listeners import (
    KEEPALIVE_IDLE_SECONDS,
    YIELD_SECONDS,
    CannotListen,
    SharedListener,
)
from trio_upper.server.server import Server, Totals
from trio_upper.server.settings import ServerSettings

# Descriptors from here on are unused.
NUMBERS = 200


@contextmanager
def passed(*sockets: socket.socket | int) -> Iterator[dict[str, str]]:
    """Pass these sockets, or descriptors, to this process; yield the environment."""
    numbers = range(NUMBERS, NUMBERS + len(sockets))
    for number, one in zip(numbers, sockets, strict=True):
        os.dup2(one if isinstance(one, int) else one.fileno(), number)
    try:
        yield {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(sockets))}
    finally:
        os.closerange(numbers.start, numbers.stop)


async def test_listeners_that_are_passed_are_adopted() -> None:
    """All of them, in order; their variables are removed, the others stay."""
    with listening() as one, listening() as other, passed(one, other) as environment:
        environment |= {"LISTEN_FDNAMES": "a:b", "HOME": "/"}
        adopted = adopt_listeners(environment, first=NUMBERS)
        names = [listener.socket.getsockname() for listener in adopted]
        assert names == [one.getsockname(), other.getsockname()]
        assert environment == {"HOME": "/"}
        for listener in adopted:
            assert not os.get_inheritable(listener.socket.fileno())
            async with await trio.open_tcp_stream(*listener.socket.getsockname()) as client:
                async with listener, await listener.accept() as accepted:
                    await accepted.send_all(b"x")
                assert await client.receive_some() == b"x"


@pytest.mark.parametrize("pid", ["1", "", None])
def test_what_was_passed_to_another_process_is_left_alone(pid: str | None) -> None:
    """A child of the process that it was for must not take it; the variables are removed too."""
    environment = {"LISTEN_FDS": "1"} | ({} if pid is None else {"LISTEN_PID": pid})
    assert adopt_listeners(environment, first=NUMBERS) == ()
    assert environment == {}


def test_nothing_passed_is_nothing_inherited() -> None:
    """The first number is the one that systemd begins with (sd_listen_fds(3))."""
    assert adopt_listeners({}) == ()
    assert FIRST_PASSED == 3


@pytest.mark.parametrize("count", ["", "x", "-1", "²", pytest.param("1" * 5000, id="long")])
def test_a_count_that_is_not_a_number_is_explained(count: str) -> None:
    """Whoever set it learns which variable it is."""
    environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count}
    with pytest.raises(CannotListen, match=f"^cannot .*LISTEN_FDS is {count!r}, not their number$"):
        adopt_listeners(environment)


def complaint(*sockets: socket.socket | int) -> str:
    """Return why these cannot be inherited."""
    with passed(*sockets) as environment, pytest.raises(CannotListen) as caught:
        adopt_listeners(environment, first=NUMBERS)
    return str(caught.value)


def test_a_descriptor_that_is_not_a_socket_is_explained() -> None:
    """It is named by its number, whether it is a file or not open at all."""
    with open(os.devnull) as file:  # noqa: PTH123 - its number is the point
        text = complaint(file.fileno())
    assert text == f"cannot inherit descriptor {NUMBERS}: it is not a socket"
    with passed() as environment, pytest.raises(CannotListen, match="it is not a socket"):
        adopt_listeners(environment | {"LISTEN_FDS": "1"}, first=NUMBERS)


@pytest.mark.parametrize("kind", ["connected", "datagrams", "local"])
def test_a_socket_that_does_not_listen_for_tcp_is_explained(kind: str) -> None:
    """An accepted connection (Accept=yes in a socket unit), UDP, and a socket of this machine."""
    with ExitStack() as stack:
        if kind == "connected":
            one = stack.enter_context(socket.socket())
        elif kind == "datagrams":
            one = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        else:
            one = stack.enter_context(listening(family=socket.AF_UNIX, address=""))
        assert complaint(one) == (
            f"cannot inherit descriptor {NUMBERS}: it is not a listening TCP socket; "
            "a socket unit needs ListenStream= and Accept=no"
        )


# ------------------------------------------------------------------ a server on them


@asynccontextmanager
async def adopting(count: int = 1, **settings: Any) -> AsyncGenerator[list[Server]]:
    """Run `count` servers on one listener, as if each were a process, until the block ends."""
    servers: list[Server] = []
    with trio.fail_after(TIMEOUT_SECONDS), listening() as bound:
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                copy = listener_on(bound)
                log = structlog.wrap_logger(CapturingLogger(), processors=[])
                server = Server(ServerSettings(inherited=(copy,), **settings), log)
                assert await nursery.start(server.run) == [bound.getsockname()]
                servers.append(server)
            yield servers
            for server in servers:
                server.drain()


async def connect(server: Server) -> trio.SocketStream:
    """Return a connection to where `server` listens."""
    [listener] = server._settings.inherited
    return await trio.open_tcp_stream(*listener.socket.getsockname())


async def test_a_server_serves_on_inherited_listeners() -> None:
    """It reports them, keeps their connections alive, and closes them when it stops."""
    async with adopting() as [server]:
        [listener] = server._settings.inherited
        options = (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        assert listener.socket.getsockopt(*options) == KEEPALIVE_IDLE_SECONDS
        async with await connect(server) as client:
            await client.send_all(b"hi")
            assert await client.receive_some() == b"HI"
    assert server.totals == Totals(served=1, bytes_in=2, bytes_out=2)
    assert listener.socket.fileno() == -1


async def test_who_connected_before_the_start_is_served_like_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Urgent bytes are answered in their place, and a peer that vanishes is found.

    Options of the listener are inherited by later connections only. Trio accepts the first of
    these, and the batch behind it the second.
    """
    idle_seconds: list[int] = []

    def note(accepted: socket.socket) -> str:
        idle_seconds.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE))
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        return "queued"

    monkeypatch.setattr(server_module, "peer_name", note)
    with trio.fail_after(TIMEOUT_SECONDS), listening() as bound, ExitStack() as stack:
        queued = []
        for _ in range(2):
            one = stack.enter_context(socket.create_connection(bound.getsockname()))
            one.sendall(b"abc")
            one.send(b"x", socket.MSG_OOB)
            one.sendall(b"def")
            one.shutdown(socket.SHUT_WR)
            queued.append(trio.SocketStream(trio.socket.from_stdlib_socket(one)))
        async with trio.open_nursery() as nursery:
            server = Server(ServerSettings(inherited=(listener_on(bound),)))
            await nursery.start(server.run)
            for client in queued:
                assert b"".join([bytes(reply) async for reply in client]) == b"ABCXDEF"
            server.drain()
    assert idle_seconds == [KEEPALIVE_IDLE_SECONDS] * 2


async def test_who_has_gone_before_its_options_are_set_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some systems refuse options of a connection that was reset; the others are served."""

    def refuse(_: socket.socket) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    async with adopting() as [server]:
        monkeypatch.setattr(server_module, "prepare", refuse)
        async with await connect(server) as client:
            await client.send_all(b"hi")
            assert await client.receive_some() == b"HI"


async def test_a_server_that_is_stopped_before_it_runs_closes_them_too() -> None:
    """Its caller need not."""
    with listening() as bound:
        copy = listener_on(bound)
        log = structlog.wrap_logger(CapturingLogger(), processors=[])
        server = Server(ServerSettings(inherited=(copy,)), log)
        server.drain()
        assert await server.run() == Totals()
        assert copy.socket.fileno() == -1


async def test_a_full_process_lets_others_accept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients are served up to the capacity of all; the next one is refused."""
    monkeypatch.setattr(listeners_module, "YIELD_SECONDS", 1.0)  # this machine may be busy
    capacity, count = 3, 4
    async with adopting(count, max_clients=capacity) as servers:
        clients = []
        for _ in range(capacity * count):
            clients.append(await connect(servers[0]))
            await clients[-1].send_all(b"hi")
            assert await clients[-1].receive_some() == b"HI"
        assert [len(server._clients) for server in servers] == [capacity] * count
        async with await connect(servers[0]) as late:
            assert await late.receive_some() == full_notice(capacity)
        for client in clients:
            await client.aclose()
    assert sum(server.totals.refused for server in servers) == 1


@pytest.mark.parametrize("attempt", range(10))
async def test_the_client_accepted_last_counts(autojump_clock: MockClock, attempt: int) -> None:
    """Whatever the order in which Trio runs the tasks: capacity is never exceeded."""
    served: list[trio.SocketStream] = []

    async def serve(stream: trio.SocketStream) -> None:
        served.append(stream)
        async with stream:
            await trio.sleep_forever()

    with ExitStack() as stack:
        bound = stack.enter_context(listening())
        for _ in range(3):
            stack.enter_context(socket.create_connection(bound.getsockname()))
        copy = listener_on(bound)
        async with trio.open_nursery() as nursery:
            shared = SharedListener(copy, lambda: len(served) == 2)
            nursery.start_soon(trio.serve_listeners, serve, [shared])
            await trio.sleep(YIELD_SECONDS / 2)
            assert len(served) == 2
            nursery.cancel_scope.cancel()


async def test_inherited_listeners_are_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where descriptors are few, each of them lowers the capacity by one."""
    monkeypatch.setattr(server_module, "raise_descriptor_limit", lambda: 64)
    monkeypatch.setattr(server_module, "open_descriptors", lambda: 5)
    async with adopting() as [server]:
        assert server._clients.capacity == 26


async def test_a_queue_that_others_have_emptied_is_waited_for_again(
    autojump_clock: MockClock,
) -> None:
    """Another process accepted while this one, which is full, waited."""
    with listening() as bound:
        copy = listener_on(bound)
        shared = SharedListener(copy, lambda: True)
        async with shared, trio.open_nursery() as nursery:
            accepted: list[trio.SocketStream] = []

            async def accept() -> None:
                accepted.append(await shared.accept())

            nursery.start_soon(accept)
            for _ in range(2):
                with socket.create_connection(bound.getsockname()):
                    await trio.testing.wait_all_tasks_blocked()
                    bound.accept()[0].close()
                await trio.sleep(2 * YIELD_SECONDS)
                assert not accepted
            with socket.create_connection(bound.getsockname()) as client:
                await trio.sleep(2 * YIELD_SECONDS)
                [stream] = accepted
                assert stream.socket.getpeername() == client.getsockname()
                await stream.aclose()
