"""From hosts to open listeners on one port, with the kernel and without it."""

import contextlib
import errno
import logging
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import structlog
import trio
from structlog.testing import CapturingLogger
from tests.helpers.waiting import TIMEOUT_SECONDS
from trio.testing import MockClock

from trio_upper.server import listeners as listening
from trio_upper.server.listeners import (
    ACCEPT_ERROR_SECONDS,
    KEEPALIVE_IDLE_SECONDS,
    KEEPALIVE_INTERVAL_SECONDS,
    PORT_TRIES,
    Backlog,
    CannotListen,
    ListenAddress,
    Serve,
    accept_errors_in,
    explain,
    listen,
    peer_name,
    resolve_hosts,
)

# All of 127.0.0.0/8 is this machine (RFC 1122), and nothing else listens on these addresses.
HERE = ListenAddress("127.87.46.1", "127.87.46.1")
HERE_TOO = ListenAddress("127.87.46.2", "127.87.46.2")
NO_FAMILY = OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
NO_ADDRESS = OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
IN_USE = OSError(errno.EADDRINUSE, "Address already in use")


async def close(stream: trio.SocketStream) -> None:
    await stream.aclose()


SERVE: Serve = partial(trio.serve_tcp, close)


class Fake:
    """`trio.serve_tcp`, but some addresses cannot be listened on.

    `errors` has them, with what they raise. The others lead to an IPv4 address, so that no IPv6 is
    needed; `asked` are the addresses and ports that were asked for.
    """

    def __init__(self, errors: dict[str, OSError]) -> None:
        self.errors = errors
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, port: int, *, host: str, **options: Any) -> None:
        self.asked.append((host, port))
        if host in self.errors:
            raise self.errors[host]
        await trio.serve_tcp(close, 0, host="127.87.46.1", **options)


@asynccontextmanager
async def listening_on(
    serve: Serve, addresses: list[ListenAddress], port: int = 0
) -> AsyncGenerator[Sequence[tuple[str, int]]]:
    """Listen inside the block; give the addresses and ports."""
    with trio.fail_after(TIMEOUT_SECONDS):
        async with trio.open_nursery() as nursery:
            yield await nursery.start(listen, serve, addresses, port)
            nursery.cancel_scope.cancel()


async def refusal(serve: Serve, addresses: list[ListenAddress], port: int = 0) -> str:
    """Return why `addresses` cannot be listened on."""
    with pytest.RaisesGroup(CannotListen, allow_unwrapped=True, flatten_subgroups=True) as caught:
        async with listening_on(serve, addresses, port):
            raise AssertionError("it listens")
    error: Exception = caught.value
    while isinstance(error, ExceptionGroup):
        [error] = error.exceptions
    return str(error)


@asynccontextmanager
async def occupied(address: str, port: int = 0) -> AsyncGenerator[int]:
    """Listen on `address` as another program; give the port."""
    [listener] = await trio.open_tcp_listeners(port, host=address)
    async with listener:
        yield listener.socket.getsockname()[1]


# ------------------------------------------------------------------ what is to be listened on


async def test_a_numeric_address_stays_as_it_is() -> None:
    """Only brackets, as in a URL, go."""
    assert await resolve_hosts(["127.87.46.1", "[127.87.46.2]"]) == [HERE, HERE_TOO]


async def test_each_address_is_listened_on_once() -> None:
    """Two names for the same address are one listener, by the first name."""
    assert await resolve_hosts(["127.87.46.1", "127.87.46.1"]) == [HERE]


@pytest.mark.parametrize(
    ("hosts", "addresses"),
    [
        (["0.0.0.0", "127.87.46.1"], ["0.0.0.0"]),
        (["127.87.46.1", "0.0.0.0"], ["0.0.0.0"]),
        (["::", "::1", "fe80::1%lo"], ["::"]),
        (["127.87.46.1", "::"], ["127.87.46.1", "::"]),
        (["0.0.0.0", "::1"], ["0.0.0.0", "::1"]),
        (["0.0.0.0", "::", "127.87.46.1", "::1"], ["0.0.0.0", "::"]),
        (["0.0.0.0", "0.0.0.0", "0"], ["0.0.0.0"]),
    ],
)
async def test_a_wildcard_stands_for_the_addresses_of_its_family(
    hosts: list[str], addresses: list[str]
) -> None:
    """Both cannot be opened on one port, wherever they stand; the other family has its own."""
    assert [one.address for one in await resolve_hosts(hosts)] == addresses


class Resolver(trio.abc.HostnameResolver):
    """Knows one name, which has two addresses, and a link-local one with its scope."""

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002 - the name of the original
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        assert flags & socket.AI_PASSIVE
        assert type == socket.SOCK_STREAM
        if host != b"two.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        six = (socket.AF_INET6, socket.SOCK_STREAM, 6, "")
        return [
            (*six, ("::1", 0, 0, 0)),
            (*six, ("fe80::1", 0, 0, 1)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.87.46.1", 0)),
        ]

    async def getnameinfo(
        self, sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int
    ) -> tuple[str, str]:
        raise NotImplementedError


async def test_a_name_stands_for_each_of_its_addresses() -> None:
    """Each keeps the name, to tell whether it was asked for; a scope stays with its address."""
    trio.socket.set_custom_hostname_resolver(Resolver())
    loopback = socket.if_indextoname(1)
    assert await resolve_hosts(["two.example"]) == [
        ListenAddress("two.example", "::1"),
        ListenAddress("two.example", f"fe80::1%{loopback}"),
        ListenAddress("two.example", "127.87.46.1"),
    ]


@pytest.mark.parametrize("name", ["nosuch.example", "x" * 64 + ".example", ""])
async def test_a_name_that_cannot_be_resolved_is_explained(name: str) -> None:
    """Also one that is too long to ask for, or empty."""
    trio.socket.set_custom_hostname_resolver(Resolver())
    with pytest.raises(CannotListen) as caught:
        await resolve_hosts([name])
    assert str(caught.value) == (
        f"cannot listen on {name!r}: no such name or address; "
        "use an address of this machine, 0.0.0.0 for all IPv4 or :: for all IPv6"
    )


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "too many open files; raise `ulimit -n`"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Cannot allocate memory"),
    ],
)
async def test_what_hinders_resolving_is_not_blamed_on_the_name(
    monkeypatch: pytest.MonkeyPatch, error: OSError, why: str
) -> None:
    """The name may be right."""

    async def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(trio.socket, "getaddrinfo", fail)
    with pytest.raises(CannotListen) as caught:
        await resolve_hosts(["127.0.0.1"])
    assert str(caught.value) == f"cannot listen on '127.0.0.1': {why}"


# ------------------------------------------------------------------ with the kernel


async def test_the_port_that_was_asked_for() -> None:
    """Clients can connect to each address at the port when it is reported, and no more later."""
    async with occupied("127.87.46.1") as free:
        pass
    async with listening_on(SERVE, [HERE, HERE_TOO], free) as opened:
        assert opened == [("127.87.46.1", free), ("127.87.46.2", free)]
        for address, port in opened:
            async with await trio.open_tcp_stream(address, port) as client:
                assert await client.receive_some() == b""
    with pytest.raises(OSError, match="all attempts"):
        await trio.open_tcp_stream("127.87.46.1", free)


async def test_port_0_is_one_port_for_all_addresses() -> None:
    """The system chooses, and all addresses have what it chose."""
    async with listening_on(SERVE, [HERE, HERE_TOO]) as opened:
        [port] = {port for _, port in opened}
        assert [address for address, _ in opened] == ["127.87.46.1", "127.87.46.2"]
        assert port > 0


async def test_another_port_is_tried_if_the_second_address_has_it_in_use() -> None:
    """The system knows only of the first address whether the port is free; all begin anew."""
    async with occupied("127.87.46.2") as taken:
        unlucky = Unlucky(taken)
        async with listening_on(unlucky, [HERE, HERE_TOO]) as opened:
            [port] = {port for _, port in opened}
            assert port != taken
            async with await trio.open_tcp_stream("127.87.46.2", port) as client:
                assert await client.receive_some() == b""
            async with occupied("127.87.46.1", taken):  # the first try has let go of it
                pass
    assert unlucky.ports == [taken, taken, 0, port]


class Unlucky:
    """`trio.serve_tcp` on a system that chooses a port which the second address has in use."""

    def __init__(self, taken: int) -> None:
        self._chosen = taken
        self.ports: list[int] = []

    async def __call__(self, port: int, **options: Any) -> None:
        chosen, self._chosen = port or self._chosen, 0
        self.ports.append(chosen)
        await trio.serve_tcp(close, chosen, **options)


async def test_a_port_that_is_in_use_is_explained() -> None:
    """The most frequent mistake of all: a server is running already."""
    async with occupied("127.87.46.1") as port:
        assert await refusal(SERVE, [HERE], port) == (
            f"cannot listen on 127.87.46.1 port {port}: the port is in use; "
            "is a server running already? Choose another port with --port"
        )


@pytest.mark.parametrize("port", [8746, 0])
async def test_another_port_is_tried_only_where_that_can_help(port: int) -> None:
    """Not where the operator gave the port, nor where the system itself could find none."""
    fake = Fake({HERE.address: IN_USE})
    assert "the port is in use" in await refusal(fake, [HERE, HERE_TOO], port)
    assert fake.asked == [(HERE.address, port)]


async def test_an_address_of_another_machine_is_explained() -> None:
    """The operator meant one of this machine (192.0.2.0/24 is for documentation, RFC 5737)."""
    text = await refusal(SERVE, [ListenAddress("192.0.2.1", "192.0.2.1")])
    assert text == (
        "cannot listen on 192.0.2.1 port 0: this machine has no such address; "
        "use 0.0.0.0 for all IPv4 or :: for all IPv6"
    )


async def test_an_accepted_connection_is_kept_alive() -> None:
    """The connections inherit the options of their listener (tcp(7)); Trio adds TCP_NODELAY."""
    send, receive = trio.open_memory_channel[list[int]](1)

    async def look(stream: trio.SocketStream) -> None:
        async with stream:
            options = [
                (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
                (socket.IPPROTO_TCP, socket.TCP_NODELAY),
            ]
            await send.send([stream.socket.getsockopt(*option) for option in options])

    async with (
        listening_on(partial(trio.serve_tcp, look), [HERE]) as [address],
        await trio.open_tcp_stream(*address),
    ):
        assert await receive.receive() == [1, KEEPALIVE_IDLE_SECONDS, KEEPALIVE_INTERVAL_SECONDS, 1]


# ------------------------------------------------------------------ without it


async def test_a_port_that_is_never_free_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a number of tries it says what the last one met."""
    monkeypatch.setattr(listening, "PORT_TRIES", 3)
    fake = Fake({"127.87.46.2": IN_USE})
    text = await refusal(fake, [HERE, HERE_TOO])
    assert "cannot listen on 127.87.46.2 port" in text
    assert "the port is in use" in text
    assert [host for host, _ in fake.asked] == ["127.87.46.1", "127.87.46.2"] * 3
    assert PORT_TRIES > 3


@pytest.mark.parametrize("error", [NO_FAMILY, NO_ADDRESS], ids=["no family", "no address"])
@pytest.mark.parametrize("host", ["localhost", "::"])
async def test_ipv6_that_is_switched_off_is_no_error_unless_asked_for(
    error: OSError, host: str
) -> None:
    """An address that came with a name, or with the wildcard, is left out; the others serve."""
    gone = ListenAddress(host, "::1" if host == "localhost" else host)
    fake = Fake({gone.address: error})
    for addresses in ([HERE, gone], [gone, HERE]):
        async with listening_on(fake, addresses) as opened:
            assert [address for address, _ in opened] == ["127.87.46.1"]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (NO_FAMILY, "this machine has IPv6 switched off; use an IPv4 address"),
        (
            NO_ADDRESS,
            "this machine has no such address; use 0.0.0.0 for all IPv4 or :: for all IPv6",
        ),
    ],
)
async def test_ipv6_that_is_switched_off_is_an_error_where_it_was_asked_for_by_name(
    error: OSError, why: str
) -> None:
    """The operator asked for ::1, and would be surprised by a server that runs without it."""
    text = await refusal(Fake({"::1": error}), [HERE, ListenAddress("::1", "::1")], 8746)
    assert text.endswith(why)


async def test_with_nothing_to_listen_on_the_server_does_not_start() -> None:
    """What could have been left out beside another address is an error when it stands alone."""
    text = await refusal(Fake({"::": NO_FAMILY}), [ListenAddress("::", "::")], 8746)
    assert text == (
        "cannot listen on :: port 8746: this machine has IPv6 switched off; use an IPv4 address"
    )


async def test_another_error_is_an_error_whatever_the_address() -> None:
    """Only that IPv6 is switched off excuses an address."""
    fake = Fake({"::1": OSError(errno.EACCES, "Permission denied")})
    text = await refusal(fake, [HERE, ListenAddress("localhost", "::1")], 80)
    assert "no permission; ports below 1024 need an administrator" in text


async def test_an_ipv4_address_is_never_left_out() -> None:
    """Also not one that came with a name."""
    fake = Fake({"127.87.46.1": NO_ADDRESS})
    assert "no such address" in await refusal(fake, [ListenAddress("localhost", "127.87.46.1")])


@pytest.mark.parametrize(
    ("address", "error", "why"),
    [
        ("10.0.0.1", PermissionError(errno.EACCES, "x"), "no permission"),
        ("10.0.0.1", PermissionError(errno.EPERM, "x"), "no permission"),
        ("::1", OSError(errno.EPROTONOSUPPORT, "x"), "this machine has IPv6 switched off"),
        ("fe80::1", OSError(errno.EINVAL, "x"), "needs its interface, for example fe80::1%eth0"),
        ("10.0.0.1", OSError(errno.EMFILE, "x"), "8746: too many open files; raise `ulimit -n`"),
        ("10.0.0.1", OSError(errno.EINVAL, "Invalid argument"), "8746: Invalid argument"),
        ("10.0.0.1", OSError("its own words"), "8746: its own words"),
    ],
)
def test_what_goes_wrong_is_said_in_a_line(address: str, error: OSError, why: str) -> None:
    """What is known has its advice, and what is not has the system's words."""
    text = str(explain(ListenAddress(address, address), 8746, error))
    assert text.startswith(f"cannot listen on {address} port 8746: ")
    assert why in text
    assert "\n" not in text


# ------------------------------------------------------------------ those who connect


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (("127.0.0.1", 5000), "127.0.0.1:5000"),
        (("2001:db8::1", 5000, 0, 0), "[2001:db8::1]:5000"),
        (("::ffff:192.0.2.1", 5000, 0, 0), "192.0.2.1:5000"),
        (("fe80::1", 5000, 0, 1), f"[fe80::1%{socket.if_indextoname(1)}]:5000"),
        (None, "unknown"),
    ],
)
def test_a_peer_is_named_as_people_write_it(
    monkeypatch: pytest.MonkeyPatch, address: Any, name: str
) -> None:
    """Brackets and the scope for IPv6, and IPv4 stays IPv4 at a listener for both."""
    monkeypatch.setattr(listening, "peer_address", lambda _: address)
    with socket.socket() as any_one:
        assert peer_name(any_one) == name


def backlog_of(listener: trio.SocketListener) -> Backlog:
    return Backlog(listener, bool)


async def test_a_backlog_is_accepted_in_batches() -> None:
    """Never more than asked for, and nothing is waited for when it is empty."""
    [listener] = await trio.open_tcp_listeners(0, host=HERE.address)
    async with listener:
        with contextlib.ExitStack() as stack:
            backlog = stack.enter_context(contextlib.closing(backlog_of(listener)))
            for _ in range(5):
                client = socket.create_connection(listener.socket.getsockname())
                stack.enter_context(client)
            for batch in (3, 2, 0):
                accepted = list(backlog.accept_waiting(3))
                assert len(accepted) == batch
                for one in accepted:
                    stack.enter_context(one)
                    assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                    assert not one.getblocking()


async def test_nothing_is_accepted_from_a_backlog_while_the_server_is_full() -> None:
    """It stays in the system's queue, where another process may accept it."""
    [listener] = await trio.open_tcp_listeners(0, host=HERE.address)
    async with listener:
        full = True
        with (
            contextlib.closing(Backlog(listener, lambda: full)) as backlog,
            socket.create_connection(listener.socket.getsockname()),
        ):
            assert list(backlog.accept_waiting(1)) == []
            full = False
            [accepted] = backlog.accept_waiting(1)
            accepted.close()


async def test_a_backlog_for_which_no_descriptor_is_free_is_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The listener itself may have had the last one."""

    def fail(*_: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    [listener] = await trio.open_tcp_listeners(0, host=HERE.address)
    async with listener:
        monkeypatch.setattr(socket, "fromfd", fail)
        with pytest.raises(CannotListen, match=r": too many open files; raise `ulimit -n`$"):
            backlog_of(listener)


async def test_a_backlog_outlives_its_listener() -> None:
    """What waits in it can be accepted when no client can connect any more."""
    [listener] = await trio.open_tcp_listeners(0, host=HERE.address)
    with (
        socket.create_connection(listener.socket.getsockname()),
        contextlib.closing(backlog_of(listener)) as backlog,
    ):
        await listener.aclose()
        [accepted] = backlog.accept_waiting(10)
        accepted.close()


class Aborting:
    """A listening socket whose first connections have gone before they are accepted."""

    def __init__(self, *results: OSError | socket.socket) -> None:
        self.results = list(results)

    def accept(self) -> tuple[socket.socket, None]:
        result = self.results.pop(0)
        if isinstance(result, OSError):
            raise result
        return result, None


async def test_an_aborted_connection_does_not_hide_the_next_one() -> None:
    """ECONNABORTED is about one of them; other errors end the batch, and Trio meets them too."""
    [listener] = await trio.open_tcp_listeners(0, host=HERE.address)
    async with listener:
        backlog = backlog_of(listener)
        backlog.close()
        full = OSError(errno.EMFILE, "Too many open files")
        with socket.socket() as one:
            backlog._socket = Aborting(ConnectionAbortedError(), one, full)  # type: ignore[assignment]
            assert list(backlog.accept_waiting(5)) == [one]
            assert list(backlog.accept_waiting(0)) == []


def complain(error: OSError) -> None:
    """Log as Trio does when accepting fails."""
    try:
        raise error
    except OSError:
        logging.getLogger("trio.serve_listeners").exception("accept returned %s", error.errno)


async def test_failing_to_accept_is_one_event(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Not a traceback ten times a second; after a time without it is news again."""
    events = CapturingLogger()
    full = OSError(errno.EMFILE, "Too many open files")
    with accept_errors_in(structlog.wrap_logger(events, processors=[])):
        for _ in range(20):
            complain(full)
            await trio.sleep(ACCEPT_ERROR_SECONDS / 10)
        await trio.sleep(ACCEPT_ERROR_SECONDS)
        complain(full)
    assert [call.kwargs for call in events.calls] == [
        {"event": "cannot accept", "why": "Too many open files"}
    ] * 2
    assert caplog.records == []
    complain(full)
    assert len(caplog.records) == 1
