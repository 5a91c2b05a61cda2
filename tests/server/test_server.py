"""The server: admission, deadlines and drain, on in-memory clients in virtual time."""

import contextlib
import errno
import gc
import math
import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
import structlog
import trio
from structlog.testing import CapturingLogger
from tests.helpers.certificates import ca_file, issue, pair_file
from tests.helpers.streams import AsClient, Breaking, receive, receive_all
from tests.helpers.waiting import TIMEOUT_SECONDS
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from trio_upper.platform import READABLE
from trio_upper.protocol import full_notice, idle_notice, shutdown_notice
from trio_upper.server import server as server_module
from trio_upper.server.clients import (
    DRAIN_QUIET_SECONDS,
    HANDSHAKE_SECONDS,
    LINGERING,
)
from trio_upper.server.conversation import (
    DRAIN_HANDSHAKE_SECONDS,
    LINGER_SECONDS,
    Conversation,
    End,
)
from trio_upper.server.events import SilentLog
from trio_upper.server.listeners import CannotListen
from trio_upper.server.poller import Poller
from trio_upper.server.server import (
    ACCEPTED_AT_ONCE,
    DRAIN_TICK_SECONDS,
    LONGEST_TICK_SECONDS,
    Server,
    Totals,
)
from trio_upper.server.settings import ServerSettings
from trio_upper.server.streams import PlainStream, TLSStream
from trio_upper.tls import client_context, server_context

# What a test may be late by, in seconds: two ticks of the drain.
LATE = 0.05


class Running:
    """A server that runs, its log, and clients in memory as they would come from its listeners."""

    def __init__(self, **settings: Any) -> None:
        self.events = CapturingLogger()
        log = structlog.wrap_logger(self.events, processors=[])
        self.server = Server(ServerSettings(port=0, **settings), log)
        self.addresses: list[tuple[str, int]] = []
        self.totals: Totals | None = None
        self.stopped_at: float | None = None

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            self.addresses = await nursery.start(self._run)
            task_status.started()

    async def _run(self, **status: Any) -> None:
        self.totals = await self.server.run(**status)
        self.stopped_at = trio.current_time()

    def connect(self, *, lockstep: bool = False) -> trio.abc.HalfCloseableStream:
        """Return a client's end of a connection that the server now has."""
        ours, theirs = lockstep_stream_pair() if lockstep else memory_stream_pair()
        self.serve(theirs)
        return ours

    def serve(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.server._tasks.start_soon(self._serve, stream)

    async def _serve(self, stream: trio.abc.HalfCloseableStream) -> None:
        try:
            await self.server._clients.serve(AsClient(stream), "peer")
        finally:
            await trio.aclose_forcefully(stream)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the fields of all events of that name."""
        calls = [dict(call.kwargs) for call in self.events.calls]
        return [fields for fields in calls if fields.pop("event") == event]

    async def gone(self) -> None:
        """Wait until a client has gone."""
        with trio.fail_after(TIMEOUT_SECONDS):
            while not self.ends():
                await wait_all_tasks_blocked(0.001)

    def ends(self) -> list[str]:
        return [str(fields["end"]) for fields in self.logged("client gone")]


@asynccontextmanager
async def running(**settings: Any) -> AsyncGenerator[Running]:
    """Run a server; at the end stop it, unless that was done, and wait until it has."""
    served = Running(**settings)
    async with trio.open_nursery() as nursery:
        await nursery.start(served.run)
        yield served
        served.server.drain()


async def ask(client: trio.abc.Stream, message: bytes) -> bytes:
    await client.send_all(message)
    return bytes(await client.receive_some())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"port": 65536}, "65536 is not a valid port"),
        ({"port": -1}, "-1 is not a valid port"),
        ({"max_clients": 0}, "must be at least 1"),
        ({"grace": -1}, "0 or more"),
        ({"idle_timeout": math.nan}, "0 or more"),
        ({"write_timeout": math.nan}, "0 or more"),
        ({"hosts": ()}, "at least one address"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    """ServerSettings are checked where they are made."""
    with pytest.raises(ValueError, match=words):
        ServerSettings(**settings)


@pytest.fixture(params=["with a poller", "without a poller"])
def _ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test in both ways: as on Linux, and as where there is nothing like epoll."""
    if request.param == "without a poller":
        monkeypatch.setattr(server_module, "open_edge_poller", lambda: None)


@pytest.mark.usefixtures("_ways")
async def test_it_answers_over_real_sockets_and_logs_both_ends_of_a_visit() -> None:
    """A client that connects to what was reported is answered, counted and logged."""
    with trio.fail_after(TIMEOUT_SECONDS):
        async with running() as served:
            [(host, port)] = served.addresses
            client = await trio.open_tcp_stream(host, port)
            here = "{}:{}".format(*client.socket.getsockname())
            async with client:
                assert await ask(client, "Straße".encode()) == b"STRASSE"
                await client.send_eof()
                assert await receive_all(client) == b""
            await served.gone()
    assert served.totals == Totals(served=1, bytes_in=7, bytes_out=7)
    assert served.logged("client connected") == [{"client": 1, "peer": here}]
    [gone] = served.logged("client gone")
    assert gone.pop("seconds") >= 0
    assert gone == {"client": 1, "peer": here, "end": End.EOF, "received": 7, "sent": 7}


async def test_without_a_log_it_is_silent() -> None:
    """A server inside somebody's program serves, and keeps its events to itself."""
    server = Server(ServerSettings(port=0, max_clients=1))
    with trio.fail_after(TIMEOUT_SECONDS):
        async with trio.open_nursery() as nursery:
            [address] = await nursery.start(server.run)
            async with await trio.open_tcp_stream(*address) as client:
                assert await ask(client, b"hi") == b"HI"
                async with await trio.open_tcp_stream(*address) as surplus:
                    assert await receive_all(surplus) == full_notice(1)
            server.drain()
    assert (server.totals.served, server.totals.refused) == (1, 1)


async def test_a_taken_port_cannot_be_listened_on() -> None:
    """The reason escapes to the caller."""
    async with running() as served:
        [(_, port)] = served.addresses
        second = Server(ServerSettings(port=port), structlog.wrap_logger(CapturingLogger()))
        with pytest.RaisesGroup(
            pytest.RaisesExc(CannotListen, match="in use"), flatten_subgroups=True
        ):
            await second.run()


async def test_the_client_beyond_the_last_place_is_told_so(autojump_clock: MockClock) -> None:
    """It reads the notice and the end of stream; capacity that becomes free is used at once."""
    async with running(max_clients=2) as served:
        first, second = served.connect(), served.connect()
        assert await ask(first, b"a") == b"A"
        third = served.connect()
        assert await receive_all(third) == full_notice(2)
        await third.send_eof()
        await first.send_eof()
        assert await receive_all(first) == b""
        await wait_all_tasks_blocked()
        fourth = served.connect()
        assert await ask(fourth, b"b") == b"B"
        assert await ask(second, b"c") == b"C"
    assert served.totals is not None
    assert (served.totals.served, served.totals.refused) == (3, 1)
    assert served.logged("client refused") == [{"peer": "peer", "end": End.FULL}]


async def test_few_refused_clients_linger(autojump_clock: MockClock) -> None:
    """Beyond a few dozen the refused are closed at once, without a word; the count is of all."""
    async with running(max_clients=1) as served:
        served.connect()
        await wait_all_tasks_blocked()
        refused = [served.connect() for _ in range(LINGERING + 5)]
        started = trio.current_time()
        words = [await receive_all(client) for client in refused]
        assert sorted(words) == [b""] * 5 + [full_notice(1)] * LINGERING
        assert trio.current_time() == started
        await trio.sleep(LINGER_SECONDS + LATE)
        late = served.connect()
        assert await receive_all(late) == full_notice(1)
    assert served.totals is not None
    assert served.totals.refused == LINGERING + 6


async def test_a_refused_client_that_has_left_is_no_trouble(autojump_clock: MockClock) -> None:
    """Its refusal cannot be told; that is worth a line for a debugger only."""
    async with running(max_clients=1) as served:
        served.connect()
        await wait_all_tasks_blocked()
        _, theirs = memory_stream_pair()
        stream = Breaking(theirs)
        stream.sending = trio.BrokenResourceError("reset")
        served.serve(stream)
        await wait_all_tasks_blocked()
        [left] = served.logged("client left before it read the refusal")
        assert left["why"] == "reset"


async def test_an_idle_client_is_closed_and_another_is_not(autojump_clock: MockClock) -> None:
    """Each client has its own time; the idle one gets the notice within a tenth of the timeout."""
    async with running(idle_timeout=10) as served:
        idle, lively = served.connect(), served.connect()
        for _ in range(4):
            await trio.sleep(4)
            assert await ask(lively, b"x") == b"X"
        assert await receive_all(idle) == idle_notice(10)
        assert served.ends() == ["idle"]
        [gone] = served.logged("client gone")
        assert 10 <= gone["seconds"] - LINGER_SECONDS <= 11


async def test_a_client_that_takes_nothing_is_cut(autojump_clock: MockClock) -> None:
    """The write timeout ends it, without a stop of the server."""
    async with running(write_timeout=5, idle_timeout=0) as served:
        stuck = served.connect(lockstep=True)
        await stuck.send_all(b"x")
        await trio.sleep(6)
        assert served.ends() == ["stalled"]
    assert served.totals is not None
    assert served.totals.cut == 0


async def test_without_timeouts_a_client_may_stay(autojump_clock: MockClock) -> None:
    """0 means never, for both."""
    async with running(write_timeout=0, idle_timeout=0) as served:
        idle, stuck = served.connect(), served.connect(lockstep=True)
        await stuck.send_all(b"x")
        await trio.sleep(500 * LONGEST_TICK_SECONDS)
        assert await stuck.receive_some() == b"X"
        assert await ask(idle, b"y") == b"Y"


async def test_a_drain_sees_idle_clients_off_at_once(autojump_clock: MockClock) -> None:
    """All of them get the notice and the end of stream; none is cut."""
    async with running() as served:
        clients = [served.connect() for _ in range(1000)]
        assert await ask(clients[0], b"x\n") == b"X\n"
        await trio.sleep(2)
        began = trio.current_time()
        served.server.drain()
        for client in clients:
            assert await receive_all(client) == shutdown_notice()
            await client.send_eof()
        assert trio.current_time() - began <= DRAIN_QUIET_SECONDS + LATE
    assert served.totals is not None
    assert served.totals.cut == 0
    assert set(served.ends()) == {"shutdown"}


async def test_a_drain_answers_what_is_in_flight(autojump_clock: MockClock) -> None:
    """A client that goes on talking is answered until it has been quiet for a moment."""
    async with running(grace=10) as served:
        client = served.connect()
        await wait_all_tasks_blocked()
        served.server.drain()
        for _ in range(50):
            assert await ask(client, b"x\n") == b"X\n"
            await trio.sleep(DRAIN_QUIET_SECONDS / 2)
        assert await receive_all(client) == shutdown_notice()
        await client.send_eof()
    assert served.totals is not None
    assert (served.totals.cut, served.totals.bytes_in) == (0, 100)


async def test_a_client_that_talks_on_is_cut_at_the_grace(autojump_clock: MockClock) -> None:
    """The drain ends, in any case; who had to be cut is counted."""
    async with running(grace=3) as served:
        talker, stuck = served.connect(), served.connect(lockstep=True)
        await stuck.send_all(b"x")
        await wait_all_tasks_blocked()
        began = trio.current_time()
        served.server.drain()
        with contextlib.suppress(trio.BrokenResourceError):
            while await ask(talker, b"x"):  # noqa: ASYNC110 - it talks, it does not wait
                await trio.sleep(DRAIN_QUIET_SECONDS / 2)
    assert served.stopped_at == pytest.approx(began + 3)
    assert served.totals is not None
    assert served.totals.cut == 2
    assert served.ends() == ["shutdown", "shutdown"]


async def test_a_client_that_has_its_notice_is_not_counted_as_cut(
    autojump_clock: MockClock,
) -> None:
    """Nothing is lost if it does not end its side in time."""
    async with running(grace=LINGER_SECONDS / 2) as served:
        client = served.connect()
        await wait_all_tasks_blocked()
        served.server.drain()
        assert await receive_all(client) == shutdown_notice()
    assert served.totals is not None
    assert served.totals.cut == 0


async def test_a_second_request_to_stop_cuts_at_once(autojump_clock: MockClock) -> None:
    """The second request does not wait for anything."""
    async with running() as served:
        stuck = served.connect(lockstep=True)
        await stuck.send_all(b"x")
        await wait_all_tasks_blocked()
        served.server.drain()
        await trio.sleep(1)
        began = trio.current_time()
        served.server.cut()
    assert served.stopped_at == began
    assert served.totals is not None
    assert served.totals.cut == 1


async def test_a_client_stuck_in_the_drain_counts_as_cut(autojump_clock: MockClock) -> None:
    """Its write timeout ends it before the grace does, and its reply is lost all the same."""
    async with running(write_timeout=1, grace=10) as served:
        stuck = served.connect(lockstep=True)
        await stuck.send_all(b"x")
        await wait_all_tasks_blocked()
        served.server.drain()
    assert served.ends() == ["stalled"]
    assert served.totals is not None
    assert served.totals.cut == 1


async def test_stopping_before_anybody_came_is_clean() -> None:
    """A server without clients stops at once, also one that is told to cut."""
    async with running() as served:
        served.server.cut()
    assert served.totals == Totals()


class Unhurried(trio.abc.HostnameResolver):
    """A name server that does not answer."""

    async def getaddrinfo(self, *_: Any) -> NoReturn:
        await trio.sleep_forever()

    async def getnameinfo(self, *_: Any) -> NoReturn:
        raise NotImplementedError


@pytest.mark.parametrize("stop", [Server.drain, Server.cut])
@pytest.mark.parametrize("when", ["before it runs", "while it looks a name up"])
async def test_a_server_that_is_stopped_before_it_listens_reports_no_address(
    stop: Callable[[Server], None], when: str
) -> None:
    """It returns at once, does not wait for the name server, and has nothing to say."""
    trio.socket.set_custom_hostname_resolver(Unhurried())
    events = CapturingLogger()
    settings = ServerSettings(hosts=("localhost",), port=0)
    server = Server(settings, structlog.wrap_logger(events, processors=[]))

    async def stop_it() -> None:
        await wait_all_tasks_blocked()
        stop(server)

    with trio.fail_after(TIMEOUT_SECONDS):
        async with trio.open_nursery() as nursery:
            if when == "before it runs":
                stop(server)
            else:
                nursery.start_soon(stop_it)
            assert await nursery.start(server.run) == []
    assert server.totals == Totals()
    assert events.calls == []


async def test_a_server_that_is_cut_while_it_opens_its_listeners_reports_no_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A second signal comes early, too."""
    events = CapturingLogger()
    server = Server(ServerSettings(port=0), structlog.wrap_logger(events, processors=[]))

    async def listen(*_: object, **__: object) -> None:
        server.cut()
        await trio.sleep_forever()

    monkeypatch.setattr("trio_upper.server.server.listen", listen)
    with trio.fail_after(TIMEOUT_SECONDS):
        async with trio.open_nursery() as nursery:
            assert await nursery.start(server.run) == []
    assert server.totals == Totals()
    assert events.calls == []


async def test_a_server_that_is_stopped_before_it_listens_returns_its_totals() -> None:
    """Like any other."""
    server = Server(ServerSettings(port=0), structlog.wrap_logger(CapturingLogger()))
    server.drain()
    with trio.fail_after(TIMEOUT_SECONDS):
        assert await server.run() == Totals()


async def test_a_bug_ends_one_client_alone(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """It is logged once, with its traceback and the client's number; a neighbour is answered."""
    run = Conversation.run

    async def buggy(self: Conversation) -> End:
        monkeypatch.setattr(Conversation, "run", run)
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    monkeypatch.setattr(Conversation, "run", buggy)
    async with running() as served:
        unlucky = served.connect()
        await wait_all_tasks_blocked()
        neighbour = served.connect()
        assert await receive_all(unlucky) == b""
        assert await ask(neighbour, b"x") == b"X"
        assert served.ends() == ["error"]
        [failure] = served.logged("client failed")
        assert failure == {"client": 1, "peer": "peer", "exc_info": True}


async def test_totals_count_the_present_clients_too() -> None:
    """They can be asked for at any time."""
    async with running() as served:
        client = served.connect()
        assert await ask(client, b"hi") == b"HI"
        await wait_all_tasks_blocked()
        assert served.server.totals == Totals(bytes_in=2, bytes_out=2)
        await client.aclose()


async def test_few_descriptors_mean_few_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cap is lowered to what the limit allows, with some in reserve, and the log says so."""
    for limit, capacity in ((64, 25), (16, 1)):
        monkeypatch.setattr(server_module, "raise_descriptor_limit", lambda limit=limit: limit)
        monkeypatch.setattr(server_module, "open_descriptors", lambda: 5)
        async with running() as served:
            assert served.server._clients.capacity == capacity
            [warning] = served.logged("client limit lowered")
            assert warning == {"max_clients": capacity, "asked": 10_000, "descriptors": limit}


@pytest.fixture
def secured(tmp_path: Path) -> ssl.SSLContext:
    pair = pair_file(tmp_path, issue("localhost"))
    return server_context(cert=pair, key=None, client_ca=None)


@pytest.fixture
def trusting(tmp_path: Path) -> ssl.SSLContext:
    return client_context(ca=ca_file(tmp_path), insecure=False, cert=None, key=None)


def over_tls(stream: trio.abc.Stream, context: ssl.SSLContext) -> trio.SSLStream[trio.abc.Stream]:
    return trio.SSLStream(stream, context, server_hostname="localhost", https_compatible=False)


async def test_a_client_over_tls_is_answered(
    secured: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    """The same conversation runs over TLS, to its closing alert."""
    async with running(tls=secured) as served:
        client = over_tls(served.connect(), trusting)
        assert await ask(client, b"hi") == b"HI"
        await client.aclose()
        await wait_all_tasks_blocked()
        assert served.ends() == ["eof"]


async def test_a_client_over_tls_gets_its_notice(
    secured: ssl.SSLContext, trusting: ssl.SSLContext, autojump_clock: MockClock
) -> None:
    """A drain tells TLS clients, too, and ends the stream by a closing alert."""
    async with running(tls=secured) as served:
        client = over_tls(served.connect(), trusting)
        assert await ask(client, b"hi\n") == b"HI\n"
        served.server.drain()
        assert await receive_all(client) == shutdown_notice()
    assert served.totals is not None
    assert served.totals.cut == 0


async def test_a_refused_tls_client_gets_its_notice(
    secured: ssl.SSLContext, trusting: ssl.SSLContext, autojump_clock: MockClock
) -> None:
    """A client beyond the capacity shakes hands to read why."""
    async with running(tls=secured, max_clients=1) as served:
        served.connect()
        await wait_all_tasks_blocked()
        refused = over_tls(served.connect(), trusting)
        assert await receive_all(refused) == full_notice(1)


async def test_clients_over_tls_leave_no_garbage(
    secured: ssl.SSLContext, trusting: ssl.SSLContext, nursery: trio.Nursery
) -> None:
    """A circle of references would keep for long what OpenSSL has for each of them."""
    server = Server(ServerSettings(port=0, tls=secured))
    [address] = await nursery.start(server.run)
    gc.collect()
    gc.disable()
    try:
        with trio.fail_after(TIMEOUT_SECONDS):
            async with over_tls(await trio.open_tcp_stream(*address), trusting) as polite:
                assert await ask(polite, b"x") == b"X"
            async with await trio.open_tcp_stream(*address) as plain:
                await plain.send_all(b"GET / HTTP/1.1\r\n\r\n")
                await plain.send_eof()
                await receive_all(plain)
            while server.totals.served < 2:
                await trio.lowlevel.checkpoint()
            await wait_all_tasks_blocked()
        kept = [one for one in gc.get_objects() if isinstance(one, Conversation | TLSStream)]
    finally:
        gc.enable()
        server.drain()
    assert kept == []


async def test_a_silent_tls_client_loses_its_place(
    secured: ssl.SSLContext, autojump_clock: MockClock
) -> None:
    """The handshake has a deadline, and counts as a client until then."""
    async with running(tls=secured, max_clients=1) as served:
        silent = served.connect()
        assert (await receive_all(silent))[:1] == b"\x15"
        late = trio.current_time() - HANDSHAKE_SECONDS
        assert 0 <= late <= LONGEST_TICK_SECONDS + LATE
        await silent.send_eof()
        [failed] = served.logged("handshake failed")
        assert failed["reason"] == "not finished in time"
        await wait_all_tasks_blocked()
        assert served.ends() == ["tls"]


async def test_plain_text_at_the_tls_port_is_refused(
    secured: ssl.SSLContext, trusting: ssl.SSLContext, autojump_clock: MockClock
) -> None:
    """A failed handshake is one line in the log, and other clients are answered."""
    async with running(tls=secured) as served:
        plain, neighbour = served.connect(), over_tls(served.connect(), trusting)
        await plain.send_all(b"GET / HTTP/1.1\r\n\r\n")
        await plain.send_eof()
        await receive_all(plain)
        assert await ask(neighbour, b"x") == b"X"
        [failed] = served.logged("handshake failed")
        assert failed["reason"] == "the client spoke no TLS, but HTTP"


async def test_a_tls_client_that_breaks_off_its_handshake_is_told_of_in_one_line(
    secured: ssl.SSLContext,
) -> None:
    """It has sent something, which was no handshake."""
    async with running(tls=secured) as served:
        ours, theirs = memory_stream_pair()
        stream = Breaking(theirs)
        stream.sending = trio.BrokenResourceError("reset")
        served.serve(stream)
        await ours.send_all(b"\x16\x03")
        await ours.send_eof()
        await served.gone()
        assert served.ends() == ["tls"]
        assert len(served.logged("handshake failed")) == 1


@pytest.mark.parametrize(("leaves", "end"), [("by an end", "eof"), ("by a reset", "reset")])
async def test_a_probe_is_no_warning(secured: ssl.SSLContext, leaves: str, end: str) -> None:
    """A health check connects and leaves without a byte, every other second."""
    async with running(tls=secured) as served:
        ours, theirs = memory_stream_pair()
        stream = Breaking(theirs)
        if leaves == "by a reset":
            stream.receiving = trio.BrokenResourceError("reset")
            stream.receiving.__cause__ = ConnectionResetError()
        served.serve(stream)
        await ours.send_eof()
        await served.gone()
        assert served.ends() == [end]
        assert served.logged("handshake failed") == []


async def test_a_drain_does_not_wait_for_handshakes(
    secured: ssl.SSLContext, autojump_clock: MockClock
) -> None:
    """Nothing is owed to a client that has not shaken hands: not a failure, and not cut."""
    async with running(tls=secured) as served:
        served.connect()
        await wait_all_tasks_blocked()
        served.server.drain()
    assert served.totals is not None
    assert served.totals.cut == 0
    assert served.stopped_at == pytest.approx(DRAIN_QUIET_SECONDS, abs=LATE)
    assert served.ends() == ["shutdown"]
    assert served.logged("handshake failed") == []


async def test_a_handshake_that_is_under_way_is_finished_in_the_drain(
    secured: ssl.SSLContext, trusting: ssl.SSLContext, autojump_clock: MockClock
) -> None:
    """A client whose bytes were there when the server was told to stop is answered."""
    async with running(tls=secured) as served:
        client = over_tls(served.connect(), trusting)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, b"hi\n")
            served.server.drain()
        assert await receive_all(client) == b"HI\n" + shutdown_notice()
    assert served.ends() == ["shutdown"]
    assert served.totals is not None
    assert served.totals.cut == 0


async def test_a_slow_handshake_is_finished_in_the_drain(
    secured: ssl.SSLContext, trusting: ssl.SSLContext, autojump_clock: MockClock
) -> None:
    """A client that has begun may take longer than one that has nothing to say."""
    async with running(tls=secured) as served:
        ours, theirs = memory_stream_pair()
        served.serve(theirs)
        client = over_tls(Slow(ours), trusting)
        await wait_all_tasks_blocked()
        served.server.drain()
        await client.do_handshake()
        await trio.sleep(3 * DRAIN_QUIET_SECONDS)
        assert await ask(client, b"hi\n") == b"HI\n"
    assert served.ends() == ["shutdown"]


class Slow(Breaking):
    """A stream of a client on a slow machine."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await super().receive_some(max_bytes)
        await trio.sleep(3 * DRAIN_QUIET_SECONDS)
        return data


async def test_a_handshake_that_never_ends_does_not_hold_the_drain(
    secured: ssl.SSLContext, autojump_clock: MockClock
) -> None:
    """A byte now and then is not silence; so it has a deadline, far below the grace period."""
    async with running(tls=secured, grace=60) as served:
        client = served.connect()
        served.server.drain()
        with contextlib.suppress(trio.BrokenResourceError):
            await client.send_all(b"\x16\x03\x01\x40\x00")
            while True:
                await client.send_all(b"x")
                await trio.sleep(DRAIN_QUIET_SECONDS / 2)
    assert served.ends() == ["shutdown"]
    assert served.stopped_at is not None
    assert served.stopped_at <= DRAIN_HANDSHAKE_SECONDS + LATE


# ------------------------------------------------------------------ pauses of the whole process


@pytest.fixture
def still_clock() -> MockClock:
    """Give a clock that a test moves itself: a jump is a pause in which nothing could run."""
    return MockClock()


async def ticks(count: int, clock: MockClock, seconds: float) -> None:
    """Let some time pass in which everything can run."""
    for _ in range(count):
        clock.jump(seconds)
        await wait_all_tasks_blocked()


async def test_a_pause_makes_no_client_idle(still_clock: MockClock) -> None:
    """The time in which the server could not hear a client does not count."""
    async with running(idle_timeout=10) as served:
        client = served.connect()
        await wait_all_tasks_blocked()
        await ticks(19, still_clock, 0.5)
        still_clock.jump(3600)
        await wait_all_tasks_blocked()
        await ticks(10, still_clock, 0.5)  # it has been silent for more than 10 s, but for a pause
        assert await ask(client, b"x\n") == b"X\n"
        await ticks(25, still_clock, 0.5)
        assert await client.receive_some() == idle_notice(10)
        await client.send_eof()
        await served.gone()
        assert served.ends() == ["idle"]


async def test_a_pause_in_the_drain_cuts_no_client(still_clock: MockClock) -> None:
    """Neither the time of silence nor the grace period passes while the process is paused."""
    async with running(grace=10) as served:
        client = served.connect()
        await wait_all_tasks_blocked()
        served.server.drain()
        await ticks(2, still_clock, DRAIN_TICK_SECONDS)
        still_clock.jump(3600)
        await wait_all_tasks_blocked()
        assert await ask(client, b"x\n") == b"X\n"
        await ticks(10, still_clock, DRAIN_TICK_SECONDS)
        assert await client.receive_some() == shutdown_notice()
        await client.send_eof()
    assert served.totals is not None
    assert served.totals.cut == 0


# ------------------------------------------------------------------ accepting


def connect_at_once(address: tuple[str, int], count: int, message: bytes) -> list[socket.socket]:
    """Connect and send, without letting the server run; return the clients."""
    clients = [socket.create_connection(address) for _ in range(count)]
    for client in clients:
        client.sendall(message)
    return clients


async def replies_to(clients: list[socket.socket]) -> list[bytes]:
    """Return all that each client receives, up to the end."""
    replies = []
    for client in clients:
        client.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(client))
        async with stream:
            await stream.send_eof()
            replies.append(await receive_all(stream))
    return replies


class Passes(trio.abc.Instrument):
    """Counts the passes of Trio's scheduler."""

    count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


@pytest.mark.usefixtures("_ways")
async def test_those_who_wait_are_accepted_many_at_a_time() -> None:
    """Not one in each pass of the scheduler, which takes long when the server is busy."""
    count = 4 * ACCEPTED_AT_ONCE
    passes = Passes()
    with trio.fail_after(TIMEOUT_SECONDS):
        async with running() as served:
            clients = connect_at_once(served.addresses[0], count, b"hi")
            trio.lowlevel.add_instrument(passes)
            while len(served.server._clients) < count:
                await trio.lowlevel.checkpoint()
            trio.lowlevel.remove_instrument(passes)
            assert await replies_to(clients) == [b"HI"] * count
    assert passes.count < count / 4


@pytest.mark.usefixtures("_ways")
async def test_a_stop_serves_those_who_wait_in_the_queue() -> None:
    """All that had connected and sent are answered, though none was accepted yet."""
    with trio.fail_after(TIMEOUT_SECONDS):
        async with running() as served:
            clients = connect_at_once(served.addresses[0], 100, b"hi\n")
            served.server.drain()
            replies = await replies_to(clients)
    assert set(replies) <= {b"HI\n", b"HI\n" + shutdown_notice()}
    assert served.totals is not None
    assert (served.totals.served, served.totals.cut) == (100, 0)


async def test_a_server_that_crashes_resets_its_queue() -> None:
    """As any program does that crashes: the clients learn of it at once."""
    server = Server(ServerSettings(port=0))
    with trio.fail_after(TIMEOUT_SECONDS):
        async with trio.open_nursery() as nursery:
            [address] = await nursery.start(server.run)
            [client] = connect_at_once(address, 1, b"hi")
            nursery.cancel_scope.cancel()
    with client, pytest.raises(ConnectionResetError):
        client.recv(1)
    assert server.totals == Totals()


@pytest.mark.usefixtures("_ways")
async def test_urgent_data_is_a_byte_like_others() -> None:
    """It is answered in order, and what comes after it is answered too, every time."""
    with trio.fail_after(TIMEOUT_SECONDS):
        async with running() as served:
            for _ in range(200):
                [client] = connect_at_once(served.addresses[0], 1, b"abc")
                client.send(b"!", socket.MSG_OOB)
                client.send(b"def\n")
                client.setblocking(False)
                async with trio.SocketStream(trio.socket.from_stdlib_socket(client)) as stream:
                    assert await receive(stream, 8) == b"ABC!DEF\n"


# ------------------------------------------------------------------ what must not end the server


def out_of_watches(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_system_without_room_to_wait_ends_one_client_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another process of the same user may have used up `fs.epoll.max_user_watches`."""
    with trio.fail_after(TIMEOUT_SECONDS):
        async with running() as served:
            async with await trio.open_tcp_stream(*served.addresses[0]) as neighbour:
                assert await ask(neighbour, b"x") == b"X"
                with monkeypatch.context() as full:
                    full.setattr(Poller, "watch", out_of_watches)
                    full.setattr(PlainStream, "_wait", out_of_watches)
                    async with await trio.open_tcp_stream(*served.addresses[0]) as unlucky:
                        with contextlib.suppress(trio.BrokenResourceError):
                            assert await receive_all(unlucky) == b""
                assert await ask(neighbour, b"y") == b"Y"
            [failed] = served.logged("no room for client")
            assert failed["why"] == "[Errno 28] No space left on device"


@pytest.mark.parametrize(
    "at", ["peer_name", "Clients.serve", "PolledStream" if READABLE else "PlainStream"]
)
async def test_nothing_after_the_accept_ends_the_server(
    monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Whatever can raise while a client is set up, it ends that client alone, and is logged."""

    def raise_it(*_: object) -> NoReturn:
        raise MemoryError

    with trio.fail_after(TIMEOUT_SECONDS):
        async with running() as served:
            with monkeypatch.context() as broken:
                broken.setattr(f"trio_upper.server.server.{at}", raise_it)
                async with await trio.open_tcp_stream(*served.addresses[0]) as unlucky:
                    assert await receive_all(unlucky) == b""
            async with await trio.open_tcp_stream(*served.addresses[0]) as other:
                assert await ask(other, b"x") == b"X"
            assert len(served.logged("client failed")) == 1


class BrokenLog(SilentLog):
    """A log that cannot be written."""

    def debug(self, *_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.EIO, "Input/output error")

    info = warning = exception = debug


async def test_a_broken_log_does_not_end_the_server() -> None:
    """It costs the clients whose events it does not take."""
    server = Server(ServerSettings(port=0), BrokenLog())
    with trio.fail_after(TIMEOUT_SECONDS):
        async with trio.open_nursery() as nursery:
            [address] = await nursery.start(server.run)
            for _ in range(2):
                async with await trio.open_tcp_stream(*address) as client:
                    assert await receive_all(client) == b""
            server.drain()
