"""Addresses are raced, and every way of not connecting is reported as what it is."""

import contextlib
import dataclasses
import errno
import inspect
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from tests.helpers.certificates import ca_file, cert_file, issue, key_file, pair_file

from trio_upper.client.addresses import Address
from trio_upper.client.connect import (
    LONGEST_PAUSE_SECONDS,
    NAMES_SECONDS,
    STAGGER_SECONDS,
    Connection,
    Retries,
    connect,
    open_connection,
)
from trio_upper.client.failures import CannotConnect, Cause, broken
from trio_upper.client.settings import ConnectSettings
from trio_upper.client.target import Target
from trio_upper.protocol import Uppercaser
from trio_upper.tls import (
    alert_for,
    client_context,
    describe_handshake_failure,
    fingerprint,
    server_context,
)

TIMEOUT = 10.0
REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

# ------------------------------------------------------------------ a network without a wire


Behaviour = Callable[[], Awaitable[object]]


class FakeSocket(trio.socket.SocketType):
    """A socket that connects, or fails to, as its network has it."""

    def __init__(self, network: "FakeNetwork") -> None:
        self.network = network
        self.closed = False

    @property
    def type(self) -> socket.SocketKind:
        return socket.SOCK_STREAM

    def setsockopt(self, *option: object) -> None:
        """Take the options that a stream sets, to no effect."""

    async def connect(self, address: Any) -> None:
        host, port = address[:2]
        assert port == Target().port
        self.network.began[host] = trio.current_time() - self.network.born
        await self.network.behaviour[host]()

    def getsockname(self) -> Any:
        return self.network

    def getpeername(self) -> Any:
        return self.network if self.network.meets_itself else None

    def close(self) -> None:
        self.closed = True


class FakeNetwork(trio.abc.HostnameResolver, trio.abc.SocketFactory):
    """One name, "box", whose addresses behave as a test has it, in virtual time.

    An address may be given with an interface's number, as in ``fe80::1%1``.
    """

    def __init__(self, behaviour: dict[str, Behaviour], resolving: Behaviour | None = None) -> None:
        self.behaviour = {address.partition("%")[0]: does for address, does in behaviour.items()}
        self.resolving = resolving or trio.lowlevel.checkpoint
        self.sockaddrs = [_sockaddr(address) for address in behaviour]
        self.sockets: list[FakeSocket] = []
        self.began: dict[str, float] = {}
        self.born = trio.current_time()
        self.meets_itself = False
        self.full = False
        trio.socket.set_custom_hostname_resolver(self)
        trio.socket.set_custom_socket_factory(self)

    async def getaddrinfo(self, host: Any, *_: Any) -> Any:
        assert host.rstrip(b".") == b"box"
        await self.resolving()
        kind, protocol = trio.socket.SOCK_STREAM, trio.socket.IPPROTO_TCP
        return [
            (socket.AF_INET6 if ":" in address[0] else socket.AF_INET, kind, protocol, "", address)
            for address in self.sockaddrs
        ]

    async def getnameinfo(self, *_: Any) -> Any:
        raise NotImplementedError

    def socket(self, *_: Any) -> FakeSocket:
        if self.full:
            raise OSError(errno.EMFILE, "Too many open files")
        self.sockets.append(FakeSocket(self))
        return self.sockets[-1]

    def open_sockets(self) -> list[FakeSocket]:
        return [sock for sock in self.sockets if not sock.closed]


def _sockaddr(address: str) -> tuple[Any, ...]:
    host, _, scope_id = address.partition("%")
    port = Target().port
    return (host, port, 0, int(scope_id or 0)) if ":" in host else (host, port)


def after(seconds: float, error: Exception | None = None) -> Behaviour:
    """Return what an address does that connects, or fails, `seconds` later."""

    async def behave() -> None:
        await trio.sleep(seconds)
        if error is not None:
            raise error

    return behave


NEVER = trio.sleep_forever
BOX = Target(host="box")


async def failure_of(target: Target, **options: Any) -> CannotConnect:
    """Return why `target` cannot be connected to."""
    with pytest.raises(CannotConnect) as caught:
        await connect(target, **({"connect_timeout": TIMEOUT} | options))
    assert "\n" not in str(caught.value)
    return caught.value


def tried(failure: CannotConnect) -> list[str]:
    """Return the addresses that were tried."""
    return [attempt.address for attempt in failure.attempts]


async def test_families_take_turns(autojump_clock: trio.abc.Clock) -> None:
    """While nothing answers, an address is added every 250 ms, and the families take turns."""
    network = FakeNetwork(
        {"fd00::1": NEVER, "fd00::2": NEVER, "192.0.2.1": NEVER, "192.0.2.2": NEVER}
    )
    failure = await failure_of(BOX)
    assert network.began == {
        "fd00::1": 0,
        "192.0.2.1": STAGGER_SECONDS,
        "fd00::2": 2 * STAGGER_SECONDS,
        "192.0.2.2": 3 * STAGGER_SECONDS,
    }
    assert tried(failure) == list(network.began)
    assert failure.cause is Cause.TIMED_OUT
    assert failure.seconds == TIMEOUT
    assert not network.open_sockets()


async def test_a_failure_lets_the_next_begin(autojump_clock: trio.abc.Clock) -> None:
    """An address that fails before its time is up is followed at once."""
    network = FakeNetwork({"fd00::1": after(0.1, REFUSED), "192.0.2.1": NEVER})
    failure = await failure_of(BOX)
    assert network.began == {"fd00::1": 0, "192.0.2.1": 0.1}
    assert failure.cause is Cause.REFUSED
    assert tried(failure) == ["fd00::1", "192.0.2.1"]


async def test_the_first_wins(autojump_clock: trio.abc.Clock) -> None:
    """The first that connects cancels the others, whose sockets are closed."""
    network = FakeNetwork({"fd00::1": NEVER, "192.0.2.1": after(0.1), "192.0.2.2": NEVER})
    stream = await connect(BOX, connect_timeout=TIMEOUT)
    assert trio.current_time() == STAGGER_SECONDS + 0.1 + network.born
    assert isinstance(stream, trio.SocketStream)
    assert network.open_sockets() == [stream.socket]
    assert list(network.began) == ["fd00::1", "192.0.2.1"]


async def test_a_dead_heat(nursery: trio.Nursery, autojump_clock: trio.abc.Clock) -> None:
    """Of two that connect in the same moment, one is closed."""
    finish = trio.Event()

    async def finish_later() -> None:
        await trio.sleep(2 * STAGGER_SECONDS)
        finish.set()

    nursery.start_soon(finish_later)
    network = FakeNetwork({"fd00::1": finish.wait, "192.0.2.1": finish.wait})
    stream = await connect(BOX, connect_timeout=TIMEOUT)
    assert isinstance(stream, trio.SocketStream)
    assert network.open_sockets() == [stream.socket]
    assert len(network.sockets) == 2


async def test_one_that_connects_too_late(autojump_clock: trio.abc.Clock) -> None:
    """It is closed, and is not called one that did not answer."""

    async def connect_all_the_same() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(STAGGER_SECONDS + 0.1)

    network = FakeNetwork({"fd00::1": connect_all_the_same, "192.0.2.1": trio.lowlevel.checkpoint})
    connection = await connected_to_box()
    assert (connection.address, connection.others) == ("192.0.2.1", ())
    assert len(network.sockets) == 2
    assert len(network.open_sockets()) == 1


@pytest.mark.parametrize(
    ("others", "seconds"), [([], STAGGER_SECONDS / 2), (["192.0.2.2"], TIMEOUT)]
)
async def test_one_that_connects_as_the_time_ends(
    autojump_clock: trio.abc.Clock, others: list[str], seconds: float
) -> None:
    """It is a connection, and nothing is said of TLS, for which nobody asked."""

    async def connect_all_the_same() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds + 0.1)

    network = FakeNetwork({"192.0.2.1": connect_all_the_same, **dict.fromkeys(others, NEVER)})
    stream = await connect(BOX, connect_timeout=seconds)
    assert isinstance(stream, trio.SocketStream)
    assert network.open_sockets() == [stream.socket]


async def test_addresses_are_tried_once(autojump_clock: trio.abc.Clock) -> None:
    """An address that the resolver gives twice is tried once."""
    network = FakeNetwork({"192.0.2.1": after(0, REFUSED)})
    network.sockaddrs *= 2
    assert tried(await failure_of(BOX)) == ["192.0.2.1"]
    assert len(network.sockets) == 1


async def test_addresses_that_were_not_reached(autojump_clock: trio.abc.Clock) -> None:
    """When time runs out, the addresses in progress are told, those never tried are not."""
    FakeNetwork({"192.0.2.1": NEVER, "192.0.2.2": NEVER, "192.0.2.3": NEVER})
    assert tried(await failure_of(BOX, connect_timeout=0.3)) == ["192.0.2.1", "192.0.2.2"]


async def test_interfaces_are_named(autojump_clock: trio.abc.Clock) -> None:
    """A link-local address is told with its interface, by number if it has no name."""
    FakeNetwork({"fe80::1%1": after(0, REFUSED), "fe80::2%4294967": after(0, REFUSED)})
    name = socket.if_indextoname(1)
    assert tried(await failure_of(BOX)) == [f"fe80::1%{name}", "fe80::2%4294967"]


async def test_a_name_server_that_is_silent(autojump_clock: trio.abc.Clock) -> None:
    """The time to resolve counts as well, and its end has a cause of its own."""
    FakeNetwork({}, resolving=NEVER)
    failure = await failure_of(BOX, connect_timeout=3)
    assert (failure.cause, failure.seconds) == (Cause.NAME_SERVER, 3)
    assert not failure.attempts


async def test_one_time_for_all(autojump_clock: trio.abc.Clock) -> None:
    """Resolving and connecting have one deadline together."""
    FakeNetwork({"192.0.2.1": NEVER}, resolving=after(2))
    failure = await failure_of(BOX, connect_timeout=3)
    assert (failure.cause, failure.seconds) == (Cause.TIMED_OUT, 3)


async def test_no_limit(autojump_clock: trio.abc.Clock) -> None:
    """A time-out of 0 is none."""
    network = FakeNetwork({"192.0.2.1": after(1e6)})
    await connect(BOX, connect_timeout=0)
    assert len(network.open_sockets()) == 1


async def test_cancelled_at_the_finish(autojump_clock: trio.abc.Clock) -> None:
    """Who is cancelled in the moment of success leaves no socket open."""
    with trio.CancelScope() as scope:

        async def connect_and_cancel() -> None:
            await trio.sleep(0.1)
            scope.cancel()

        network = FakeNetwork({"192.0.2.1": NEVER, "192.0.2.2": connect_and_cancel})
        await connect(BOX, connect_timeout=TIMEOUT)
    assert scope.cancelled_caught
    assert len(network.sockets) == 2
    assert not network.open_sockets()


async def test_a_bug_is_no_failure_to_connect(autojump_clock: trio.abc.Clock) -> None:
    """A bug is not reported as a network failure; it closes all sockets too."""
    network = FakeNetwork({"192.0.2.1": NEVER, "192.0.2.2": after(0, ZeroDivisionError())})
    with pytest.RaisesGroup(ZeroDivisionError):
        await connect(BOX, connect_timeout=TIMEOUT)
    assert not network.open_sockets()


async def test_a_socket_that_met_itself(autojump_clock: trio.abc.Clock) -> None:
    """Dialling a free port of this machine may meet itself: nothing listens there."""
    network = FakeNetwork({"192.0.2.1": trio.lowlevel.checkpoint})
    network.meets_itself = True
    failure = await failure_of(BOX)
    assert failure.cause is Cause.REFUSED
    assert not network.open_sockets()


async def test_too_many_open_files(autojump_clock: trio.abc.Clock) -> None:
    """What this machine lacks is not the other one's fault."""
    network = FakeNetwork({"192.0.2.1": trio.lowlevel.checkpoint})
    network.full = True
    failure = await failure_of(BOX)
    assert failure.cause is Cause.TOO_MANY_FILES
    assert "ulimit -n" in str(failure)


def test_the_defaults_are_those_of_the_settings() -> None:
    """The public function and the command line do the same when nothing is asked for."""
    parameters = inspect.signature(connect).parameters
    for field in dataclasses.fields(ConnectSettings):
        assert parameters[field.name].default == field.default


# ------------------------------------------------------------------ to whom


async def connected_to_box(**settings: Any) -> Connection:
    return await open_connection(BOX, ConnectSettings(**settings))


async def test_how_it_came_about(autojump_clock: trio.abc.Clock) -> None:
    """The address, and the times of looking it up and of connecting."""
    await trio.sleep(5)
    FakeNetwork({"192.0.2.1": after(1.2345)}, resolving=after(1))
    connection = await connected_to_box()
    assert (connection.target, connection.address) == (BOX, "192.0.2.1")
    assert (connection.tls_version, connection.others) == (None, ())
    assert connection.lookup_seconds == pytest.approx(1)
    assert connection.seconds == pytest.approx(1.2345)
    assert str(connection) == "connected to box (192.0.2.1) port 8746 in 1234.5 ms"


async def test_which_addresses_were_no_good(autojump_clock: trio.abc.Clock) -> None:
    """Those that failed, and those that were tried first and did not answer."""
    refused = OSError(errno.ECONNREFUSED, "?")
    FakeNetwork(
        {
            "fd00::dead": NEVER,
            "192.0.2.1": after(0, refused),
            "fd00::2": after(STAGGER_SECONDS + 0.001),
            "192.0.2.2": NEVER,
        }
    )
    connection = await connected_to_box()
    assert connection.address == "fd00::2"
    assert str(connection).partition("; ")[2] == ("fd00::dead did not answer; 192.0.2.1: refused")


async def test_an_address_without_a_name_is_said_once(autojump_clock: trio.abc.Clock) -> None:
    """It is the host already."""
    network = FakeNetwork({"192.0.2.1": trio.lowlevel.checkpoint})
    connection = await open_connection(Target(host="192.0.2.1"), ConnectSettings())
    assert str(connection) == "connected to 192.0.2.1 port 8746 in 0.0 ms"
    assert network.open_sockets()


@pytest.mark.parametrize(
    ("ip_version", "tried_first"), [(4, "192.0.2.1"), (6, "fd00::1"), (None, "fd00::1")]
)
async def test_only_one_ip_version(
    autojump_clock: trio.abc.Clock, ip_version: int | None, tried_first: str
) -> None:
    """The addresses of the other one are not tried."""
    network = FakeNetwork({"fd00::1": after(0, REFUSED), "192.0.2.1": after(0, REFUSED)})
    failure = await failure_of(BOX, ip_version=ip_version)
    assert tried(failure)[0] == tried_first
    assert len(network.began) == (1 if ip_version else 2)


async def test_no_address_of_that_ip_version(autojump_clock: trio.abc.Clock) -> None:
    """The host has others, and that is said."""
    FakeNetwork({"192.0.2.1": NEVER})
    failure = await failure_of(BOX, ip_version=6)
    assert failure.cause is Cause.NO_SUCH_VERSION
    assert "the host has no IPv6 address" in str(failure)


async def test_retries_of_the_caller(autojump_clock: trio.abc.Clock) -> None:
    """A caller that tries again itself shares one wait with the connection."""
    FakeNetwork({"192.0.2.1": after(0, REFUSED)})
    retries = Retries(1)
    assert await retries.pause()
    with pytest.raises(CannotConnect):
        await open_connection(BOX, ConnectSettings(wait=50), retries)
    assert trio.current_time() == pytest.approx(1)
    assert not await retries.pause()


# ------------------------------------------------------------------ trying again


async def test_wait_for_a_server(autojump_clock: trio.abc.Clock) -> None:
    """A server that is still starting is tried again and again, until it is there."""

    async def start_at_five() -> None:
        await trio.lowlevel.checkpoint()
        if trio.current_time() - network.born < 5:
            raise REFUSED

    network = FakeNetwork({"192.0.2.1": start_at_five})
    stream = await connect(BOX, connect_timeout=TIMEOUT, wait=60)
    assert 5 <= trio.current_time() - network.born <= 5 + LONGEST_PAUSE_SECONDS
    assert isinstance(stream, trio.SocketStream)
    assert network.open_sockets() == [stream.socket]
    assert 5 <= len(network.sockets) <= 12


async def test_the_pauses_grow(autojump_clock: trio.abc.Clock) -> None:
    """Each is twice as long as the one before, up to a second; the last is what is left."""
    retries, pauses = Retries(4), []
    began = trio.current_time()
    while await retries.pause():
        pauses.append(trio.current_time() - began)
        began = trio.current_time()
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1, 1, 0.5])


async def test_wait_in_vain(autojump_clock: trio.abc.Clock) -> None:
    """The last try is made when the wait is over, and the time told is that of all tries."""
    network = FakeNetwork({"192.0.2.1": after(0, REFUSED)})
    failure = await failure_of(BOX, wait=5)
    assert failure.seconds == network.began["192.0.2.1"] == 5
    assert tried(failure) == ["192.0.2.1"]


async def test_wait_is_bounded(autojump_clock: trio.abc.Clock) -> None:
    """A try that begins in time has its own time-out, and there is none after it."""
    FakeNetwork({"192.0.2.1": NEVER})
    failure = await failure_of(BOX, wait=12, connect_timeout=10)
    assert failure.seconds == 20 + 0.1  # the second try begins after the first pause


async def test_no_wait(autojump_clock: trio.abc.Clock) -> None:
    """Without a wait there is one try."""
    network = FakeNetwork({"192.0.2.1": after(0, REFUSED)})
    await failure_of(BOX)
    assert len(network.sockets) == 1


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OSError(errno.ECONNRESET, "?"), True),
        (OSError(errno.ETIMEDOUT, "?"), True),
        (OSError(errno.EHOSTUNREACH, "?"), True),
        (OSError(errno.EACCES, "?"), False),
        (OSError(errno.EMFILE, "?"), False),
    ],
)
async def test_where_waiting_helps(
    autojump_clock: trio.abc.Clock, error: Exception, again: bool
) -> None:
    """Only what may go away by itself is tried again."""
    network = FakeNetwork({"192.0.2.1": after(0, error)})
    await failure_of(BOX, wait=5)
    assert (len(network.sockets) > 1) is again


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (socket.gaierror(socket.EAI_AGAIN, "?"), True),
        (socket.gaierror(socket.EAI_NONAME, "?"), True),
        (UnicodeError("?"), False),
    ],
)
async def test_which_names_are_looked_up_again(
    autojump_clock: trio.abc.Clock, error: Exception, again: bool
) -> None:
    """A name server may come back, and a name may become known; a malformed one stays so."""
    network = FakeNetwork({}, resolving=after(0, error))
    await failure_of(BOX, wait=5)
    assert (trio.current_time() - network.born == 5) is again


# ------------------------------------------------------------------ the table, for real


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Yield a loopback port that is taken, but not listened on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@pytest.fixture
def full_port() -> Iterator[int]:
    """Yield a loopback port whose backlog is full, so that it answers no more."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


async def test_connected(nursery: trio.Nursery) -> None:
    """A server on loopback is reached by name, and small messages to it are not held back."""
    port = await listening(nursery, uppercase)
    stream = await connect(Target(host="localhost", port=port), connect_timeout=TIMEOUT)
    async with stream:
        assert isinstance(stream, trio.SocketStream)
        assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await stream.send_all(b"hi")
        assert await stream.receive_some() == b"HI"


async def test_refused(closed_port: int) -> None:
    """A closed port refuses."""
    failure = await failure_of(Target(port=closed_port))
    assert failure.cause is Cause.REFUSED_HERE
    assert tried(failure) == ["127.0.0.1"]


async def test_timed_out(full_port: int) -> None:
    """A server that answers nothing is given up on in time."""
    failure = await failure_of(Target(port=full_port), connect_timeout=0.1)
    assert failure.cause is Cause.TIMED_OUT
    assert 0.1 <= failure.seconds < 1


async def test_unreachable() -> None:
    """Linux has no route for TCP to the broadcast address."""
    failure = await failure_of(Target(host="255.255.255.255"))
    assert failure.cause is Cause.NOT_ONE_MACHINE
    assert tried(failure) == ["255.255.255.255"]


async def test_name_not_found() -> None:
    """A name that is reserved for this (RFC 6761) is not found, or there is no name server."""
    failure = await failure_of(Target(host="nosuch.invalid"), connect_timeout=2)
    assert failure.cause in {Cause.NAME_NOT_FOUND, Cause.NAME_SERVER}
    assert not failure.attempts


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="IPv6 is switched off")
async def test_no_scope() -> None:
    """A link-local address without its interface leads nowhere."""
    failure = await failure_of(Target(host="fe80::1"))
    assert failure.cause is Cause.SCOPE_MISSING
    assert tried(failure) == ["fe80::1"]


async def test_unknown_scope() -> None:
    """An interface that is not there is told from a name that is not found."""
    assert (await failure_of(Target(host="fe80::1%nosuch0"))).cause is Cause.SCOPE_UNKNOWN


async def test_needless_scope() -> None:
    """An interface that is there is not said to be missing."""
    [(_, name), *_] = socket.if_nameindex()
    assert (await failure_of(Target(host=f"::1%{name}"))).cause is Cause.SCOPE_NEEDLESS


@pytest.mark.parametrize("host", ["a..b", ".localhost", "ä" * 80, "x" * 80 + ".example"])
async def test_names_that_no_name_server_is_asked_for(host: str) -> None:
    """A name that breaks the rules of names is malformed."""
    assert (await failure_of(Target(host=host))).cause in {
        Cause.NAME_MALFORMED,
        Cause.NAME_NOT_IDNA,
    }


async def test_from_an_address_of_this_machine(nursery: trio.Nursery) -> None:
    """The one that was asked for; where there are several, a firewall may know only one."""
    peers: list[str] = []

    async def note(stream: trio.SocketStream) -> None:
        await trio.lowlevel.checkpoint()
        peers.append(stream.socket.getpeername()[0])
        await stream.send_all(b"HI")

    port = await listening(nursery, note)
    stream = await connect(Target(host="127.0.0.1", port=port), bind="127.0.0.1")
    async with stream:
        assert await stream.receive_some() == b"HI"
    assert peers == ["127.0.0.1"]


async def test_from_an_address_that_this_machine_does_not_have() -> None:
    """It is named as what is wrong, and the other side is not blamed."""
    failure = await failure_of(Target(), bind="192.0.2.1")
    assert failure.cause is Cause.BIND


async def test_the_addresses_of_this_machine_are_known() -> None:
    """By trying to bind to them, which works for no other address."""
    assert Address(socket.AF_INET, ("127.0.0.1", 1)).is_own()
    assert not Address(socket.AF_INET, ("192.0.2.1", 1)).is_own()


# ------------------------------------------------------------------ TLS, for real


async def listening(
    nursery: trio.Nursery, handler: Callable[[trio.SocketStream], Awaitable[object]]
) -> int:
    """Serve on loopback, and return the port."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, handler, listeners)
    port: int = listeners[0].socket.getsockname()[1]
    return port


async def uppercase(stream: trio.abc.Stream) -> None:
    """Answer in upper case, as our server does without TLS."""
    transform = Uppercaser()
    async with stream:
        with contextlib.suppress(trio.BrokenResourceError):
            async for data in stream:
                await stream.send_all(transform.feed(data))


def over_tls(context: ssl.SSLContext) -> Callable[[trio.SocketStream], Awaitable[None]]:
    """Return a handler that answers in upper case over TLS, or says why it does not."""

    async def handle(transport: trio.SocketStream) -> None:
        stream = trio.SSLStream(transport, context, server_side=True)
        async with transport:
            try:
                await stream.do_handshake()
            except trio.BrokenResourceError as error:
                with contextlib.suppress(trio.BrokenResourceError):  # the client may have gone
                    await transport.send_all(alert_for(error))
                    await transport.receive_some()  # a reset would overtake the alert
            else:
                await uppercase(stream)

    return handle


def server_for(directory: Path, *names: str, expired: bool = False) -> ssl.SSLContext:
    """Return a server's context with a certificate for `names`."""
    pair = pair_file(directory, issue(*names, expired=expired))
    return server_context(cert=pair, key=None, client_ca=None)


def trusting(directory: Path, ca: str = "ours", **options: Any) -> ssl.SSLContext:
    """Return a client's context that trusts this CA."""
    settings = {"insecure": False, "cert": None, "key": None} | options
    return client_context(ca=ca_file(directory, ca), **settings)


async def tls_failure(
    port: int, context: ssl.SSLContext, *, host: str = "localhost", timeout: float = TIMEOUT
) -> CannotConnect:
    """Return why a TLS connection to loopback cannot be had."""
    return await failure_of(Target(host=host, port=port), tls=context, connect_timeout=timeout)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_tls(nursery: trio.Nursery, tmp_path: Path, host: str) -> None:
    """A certificate is accepted for the name or for the address that was asked for."""
    port = await listening(nursery, over_tls(server_for(tmp_path, host)))
    stream = await connect(
        Target(host=host, port=port), connect_timeout=TIMEOUT, tls=trusting(tmp_path)
    )
    await stream.send_all(b"hi")
    assert await stream.receive_some() == b"HI"
    await trio.aclose_forcefully(stream)


async def test_not_trusted(nursery: trio.Nursery, tmp_path: Path) -> None:
    """A certificate of another CA is not trusted."""
    port = await listening(nursery, over_tls(server_for(tmp_path, "localhost")))
    failure = await tls_failure(port, trusting(tmp_path, ca="theirs"))
    assert failure.cause is Cause.TLS_UNTRUSTED
    assert "127.0.0.1" in tried(failure)


async def test_a_server_hears_why_it_is_not_trusted(nursery: trio.Nursery, tmp_path: Path) -> None:
    """As an alert, which is what its log can quote."""
    context = server_for(tmp_path, "localhost")
    send_heard, heard = trio.open_memory_channel[str](1)

    async def refused(transport: trio.SocketStream) -> None:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await trio.SSLStream(transport, context, server_side=True).do_handshake()
        await send_heard.send(describe_handshake_failure(caught.value))

    port = await listening(nursery, refused)
    await tls_failure(port, trusting(tmp_path, ca="theirs"))
    assert (await heard.receive()).endswith("not accept this server's certificate: unknown CA")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_wrong_name(nursery: trio.Nursery, tmp_path: Path, host: str) -> None:
    """A certificate for another name is not accepted, for a name or for an address."""
    port = await listening(nursery, over_tls(server_for(tmp_path, "other.example")))
    failure = await tls_failure(port, trusting(tmp_path), host=host)
    assert failure.cause is Cause.TLS_WRONG_NAME


async def test_wrong_name_lists_the_right_ones(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Those that the certificate is for, so that one of them can be used."""
    names = ["one.example", "192.0.2.7", *(f"{number}.example" for number in range(9))]
    port = await listening(nursery, over_tls(server_for(tmp_path, *names)))
    context = trusting(tmp_path)
    failure = await tls_failure(port, context)
    assert "for another name: it lists one.example, 192.0.2.7, " in str(failure)
    assert " and 6 more " in str(failure)
    assert context.check_hostname


@pytest.mark.parametrize("second", ["hangs up", "is not there"])
async def test_wrong_name_of_which_no_more_can_be_seen(
    nursery: trio.Nursery, tmp_path: Path, second: str
) -> None:
    """Without a second connection OpenSSL's own words have to do."""
    context = server_for(tmp_path, "other.example")
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    served: list[trio.SocketStream] = []

    async def serve_once(stream: trio.SocketStream) -> None:
        served.append(stream)
        if second == "is not there":
            open_for_one.cancel()
        if len(served) == 1:
            await over_tls(context)(stream)

    async def listen() -> None:
        with open_for_one:
            await trio.serve_listeners(serve_once, listeners, handler_nursery=nursery)

    open_for_one = trio.CancelScope()
    nursery.start_soon(listen)
    port: int = listeners[0].socket.getsockname()[1]
    failure = await tls_failure(port, trusting(tmp_path), host="127.0.0.1")
    assert failure.cause is Cause.TLS_WRONG_NAME
    assert "not valid for '127.0.0.1'" in str(failure)


class TalkingSocket(FakeSocket):
    """A socket at whose other end, in memory, its network's server is."""

    def __init__(self, network: "TalkingNetwork") -> None:
        super().__init__(network)
        self.stream, theirs = trio.testing.memory_stream_pair()
        self.serve = partial(network.server, theirs, len(network.sockets))

    async def connect(self, address: Any) -> None:
        await super().connect(address)
        assert isinstance(self.network, TalkingNetwork)
        self.network.nursery.start_soon(self.serve)

    @property
    def did_shutdown_SHUT_WR(self) -> bool:  # noqa: N802 - Trio's name
        return False

    async def send(self, data: Any, flags: int = 0) -> int:
        await self.stream.send_all(bytes(data))
        return len(data)

    async def recv(self, max_bytes: int, flags: int = 0) -> bytes:
        return bytes(await self.stream.receive_some(max_bytes))

    def close(self) -> None:
        super().close()
        self.stream.send_stream.close()
        self.stream.receive_stream.close()


class TalkingNetwork(FakeNetwork):
    """A network whose one address has a `server`, called with a stream and the number before it."""

    def __init__(
        self, nursery: trio.Nursery, server: Callable[[trio.abc.Stream, int], Awaitable[object]]
    ) -> None:
        super().__init__({"192.0.2.1": trio.lowlevel.checkpoint})
        self.nursery = nursery
        self.server = server

    def socket(self, *_: Any) -> FakeSocket:
        self.sockets.append(TalkingSocket(self))
        return self.sockets[-1]


@pytest.mark.parametrize(("timeout", "seconds"), [(TIMEOUT, NAMES_SECONDS), (1, 1)])
async def test_wrong_name_of_a_server_that_leaves_the_next_one_waiting(
    nursery: trio.Nursery,
    autojump_clock: trio.abc.Clock,
    tmp_path: Path,
    timeout: float,
    seconds: float,
) -> None:
    """The names are not waited for, and why there is no connection is told without them."""
    context = server_for(tmp_path, "other.example")

    async def serve(stream: trio.abc.Stream, number: int) -> None:
        if number == 0:
            with pytest.raises(trio.BrokenResourceError):
                await trio.SSLStream(stream, context, server_side=True).do_handshake()
        else:
            await trio.sleep_forever()

    network = TalkingNetwork(nursery, serve)
    failure = await tls_failure(Target().port, trusting(tmp_path), host="box", timeout=timeout)
    assert failure.cause is Cause.TLS_WRONG_NAME
    assert "not valid for 'box'" in str(failure)
    assert failure.seconds == pytest.approx(seconds)
    assert len(network.sockets) == 2
    assert not network.open_sockets()
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("expired", [False, True])
async def test_the_one_certificate(nursery: trio.Nursery, tmp_path: Path, expired: bool) -> None:
    """A certificate with the right fingerprint is trusted, whatever its CA, names and dates."""
    leaf = issue("other.example", by="theirs", expired=expired)
    context = server_context(cert=pair_file(tmp_path, leaf), key=None, client_ca=None)
    port = await listening(nursery, over_tls(context))
    connection = await open_connection(
        Target(port=port), ConnectSettings(tls=client_context(trusted=fingerprint_of(leaf)))
    )
    assert connection.tls_version == "TLS 1.3"
    assert 0 < connection.tls_seconds < TIMEOUT
    assert str(connection).endswith(" with TLS 1.3")
    await connection.stream.send_all(b"hi")
    assert await connection.stream.receive_some() == b"HI"
    await trio.aclose_forcefully(connection.stream)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_another_certificate(
    nursery: trio.Nursery, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """One with another fingerprint is not, even of a CA that is trusted; both are said."""
    leaf, other = issue("localhost"), issue("other.example")
    theirs = server_context(cert=pair_file(tmp_path, leaf), key=None, client_ca=None)
    port = await listening(nursery, over_tls(theirs))
    context = client_context(trusted=fingerprint_of(other))
    context.maximum_version = version
    failure = await tls_failure(port, context)
    assert failure.cause is Cause.TLS_WRONG_FINGERPRINT
    assert f"it is {fingerprint_of(leaf)}, not {fingerprint_of(other)}" in str(failure)


def fingerprint_of(leaf: trustme.LeafCert) -> str:
    return fingerprint(ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode()))


async def test_expired(nursery: trio.Nursery, tmp_path: Path) -> None:
    """A certificate that has expired is told from one that is not trusted."""
    context = server_for(tmp_path, "localhost", expired=True)
    port = await listening(nursery, over_tls(context))
    failure = await tls_failure(port, trusting(tmp_path))
    assert failure.cause is Cause.TLS_EXPIRED


async def test_no_version_in_common(nursery: trio.Nursery, tmp_path: Path) -> None:
    """A server that speaks other versions of TLS is told."""
    context = server_for(tmp_path, "localhost")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    old = trusting(tmp_path)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    port = await listening(nursery, over_tls(context))
    assert (await tls_failure(port, old)).cause is Cause.TLS_VERSION


@pytest.mark.parametrize("banner", [b"SSH-2.0-OpenSSH_9.2\r\n", b"trio-upper: full, 5 clients\n"])
async def test_no_tls_spoken(nursery: trio.Nursery, tmp_path: Path, banner: bytes) -> None:
    """A server that greets in plain text speaks no TLS."""

    async def greet(stream: trio.SocketStream) -> None:
        await stream.send_all(banner)
        await stream.receive_some()

    port = await listening(nursery, greet)
    assert (await tls_failure(port, trusting(tmp_path))).cause is Cause.TLS_NOT_SPOKEN


async def test_our_server_without_tls(nursery: trio.Nursery, tmp_path: Path) -> None:
    """A server that answers the hello in upper case speaks no TLS, and no time-out is needed."""
    port = await listening(nursery, uppercase)
    assert (await tls_failure(port, trusting(tmp_path))).cause is Cause.TLS_NOT_SPOKEN


async def test_silence(nursery: trio.Nursery, tmp_path: Path) -> None:
    """A server that says nothing is given up on in time, and told from one that is not there."""

    async def listen_only(stream: trio.SocketStream) -> None:
        async for _ in stream:
            pass

    port = await listening(nursery, listen_only)
    failure = await tls_failure(port, trusting(tmp_path), timeout=0.1)
    assert failure.cause is Cause.TLS_SILENT


@pytest.mark.parametrize("linger", [None, b"\1\0\0\0\0\0\0\0"])
async def test_hung_up(nursery: trio.Nursery, tmp_path: Path, linger: bytes | None) -> None:
    """A server that ends or resets the connection in the handshake is told."""

    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        if linger:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    port = await listening(nursery, hang_up)
    assert (await tls_failure(port, trusting(tmp_path))).cause is Cause.TLS_CLOSED


async def test_a_cut_is_not_an_end(nursery: trio.Nursery, tmp_path: Path) -> None:
    """TLS says when it ends; a stream that is cut before may lack something."""
    context = server_for(tmp_path, "localhost")

    async def cut(transport: trio.SocketStream) -> None:
        async with transport:
            await trio.SSLStream(transport, context, server_side=True).do_handshake()

    target = Target(host="localhost", port=await listening(nursery, cut))
    stream = await connect(target, connect_timeout=TIMEOUT, tls=trusting(tmp_path))
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    await trio.aclose_forcefully(stream)


class OnlyListening(ssl.SSLContext):
    """A context that notes which name a certificate would have to hold, and goes no further."""

    asked_for: str | bytes | None = None

    def wrap_bio(self, *args: Any, server_hostname: str | bytes | None = None, **_: Any) -> Any:
        self.asked_for = server_hostname
        raise NotImplementedError


@pytest.mark.parametrize(
    ("host", "name"), [("box.", "box"), ("fe80::1%1", "fe80::1"), ("192.0.2.1", "192.0.2.1")]
)
async def test_which_name_a_certificate_must_hold(host: str, name: str) -> None:
    """The root's dot and the scope of an address are not part of a certificate's name."""
    network = FakeNetwork({"fe80::1%1": trio.lowlevel.checkpoint})
    network.behaviour["192.0.2.1"] = trio.lowlevel.checkpoint
    context = OnlyListening(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(NotImplementedError):
        await connect(Target(host=host), connect_timeout=TIMEOUT, tls=context)
    assert context.asked_for == name.encode()  # which Trio does, by IDNA 2008
    assert not network.open_sockets()


@pytest.mark.parametrize(
    ("version", "cause"),
    [
        (ssl.TLSVersion.TLSv1_2, Cause.TLS_REFUSED),
        (ssl.TLSVersion.TLSv1_3, Cause.TLS_CERTIFICATE_WANTED),
    ],
)
async def test_client_certificate_wanted(
    nursery: trio.Nursery, tmp_path: Path, version: ssl.TLSVersion, cause: Cause
) -> None:
    """A client without the certificate that is wanted hears it, with TLS 1.3 when it receives."""
    context = trusting(tmp_path)
    context.maximum_version = version
    port = await listening(nursery, over_tls(demanding(tmp_path)))
    assert cause.hint in await refusal(port, context)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_client_certificate_rejected(
    nursery: trio.Nursery, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """A client with a certificate of a foreign CA hears that it is not accepted."""
    leaf = issue("me@example.org", by="theirs")
    cert, key = cert_file(tmp_path, leaf), key_file(tmp_path, leaf)
    context = trusting(tmp_path, cert=cert, key=key)
    context.maximum_version = version
    port = await listening(nursery, over_tls(demanding(tmp_path)))
    assert Cause.TLS_CERTIFICATE_REJECTED.hint in await refusal(port, context)


def demanding(directory: Path) -> ssl.SSLContext:
    """Return the context of a server that demands a client certificate of our CA."""
    pair = pair_file(directory, issue("localhost"))
    return server_context(cert=pair, key=None, client_ca=ca_file(directory))


async def refusal(port: int, context: ssl.SSLContext) -> str:
    """Return in which words a client is refused, while it connects or after it."""
    target = Target(host="localhost", port=port)
    try:
        stream = await connect(target, connect_timeout=TIMEOUT, tls=context)
    except CannotConnect as failure:
        return str(failure)
    with pytest.raises(trio.BrokenResourceError) as caught:
        await stream.receive_some()
    await trio.aclose_forcefully(stream)
    return broken(caught.value)
