"""The server's streams over real sockets: what Trio's rules for streams demand, and departures."""

import select
import socket
import ssl
import struct
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from tests.helpers.certificates import ca_file, issue, pair_file
from tests.helpers.waiting import TIMEOUT_SECONDS
from trio.testing import (
    MockClock,
    check_half_closeable_stream,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from trio_upper.server import poller as sockets
from trio_upper.server.poller import (
    CLOSE_ANSWER,
    READ_BYTES,
    Readiness,
    TLSServerStream,
    TunedStream,
)
from trio_upper.tls import client_context, server_context

# What makes a stream send bulk where a test needs many such reads of what has come in one packet.
PIECE = 16

# A server's end, a client's, and the client's bare transport.
TLSPair = tuple[TLSServerStream, trio.SSLStream[trio.abc.Stream], trio.abc.HalfCloseableStream]

# A server's and a client's.
Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


class Ruled(TunedStream):
    """A tuned stream with what it leaves out on purpose: checkpoints, and more than one task."""

    __slots__ = ("_busy",)

    def __init__(self, stream: trio.SocketStream, readiness: Readiness) -> None:
        super().__init__(stream, readiness)
        self._busy = False

    @asynccontextmanager
    async def _alone(self) -> AsyncGenerator[None]:
        if self._busy:
            raise trio.BusyResourceError("another task is sending")
        self._busy = True
        try:
            await trio.lowlevel.checkpoint()
            yield
        finally:
            self._busy = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        async with self._alone():
            await super().send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        async with self._alone():
            await super().wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        async with self._alone():
            await super().send_eof()


async def socket_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        here = await trio.open_tcp_stream(*listener.socket.getsockname())
        return here, await listener.accept()


@pytest.fixture(params=["for one", "for many"])
async def readiness(request: pytest.FixtureRequest) -> AsyncGenerator[Readiness]:
    """Give what wakes the streams, running, for no longer than `TIMEOUT_SECONDS`.

    There is another stream already, or not: the first one waits in another way than all others.
    """
    one = Readiness()
    with trio.fail_after(TIMEOUT_SECONDS):
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            nursery.start_soon(one.run)
            if request.param == "for many":
                await stack.enter_async_context(tuned(one))
            yield one
            nursery.cancel_scope.cancel()


class Looks(trio.abc.Instrument):
    """Counts how often Trio looks at the sockets."""

    count = 0

    def after_io_wait(self, timeout: float) -> None:
        self.count += 1


@pytest.fixture
def looks() -> Looks:
    return Looks()


class Reads:
    """Keeps the name of the stream for each read, and the number of looks before it."""

    def __init__(self, looks: Looks) -> None:
        self.all: list[tuple[int, str]] = []
        self._looks = looks
        self._more = trio.Event()

    async def read(self, stream: TunedStream, name: str) -> None:
        """Read in pieces that are just bulk, to the end of the stream."""
        while await stream.receive_some(PIECE):
            self.all.append((self._looks.count, name))
            self._more.set()

    async def wait_for(self, number: int, kind: str = "") -> None:
        """Wait until there are `number` reads from streams whose names begin with `kind`."""
        while len(self.names(kind)) < number:
            self._more = trio.Event()
            await self._more.wait()

    def names(self, kind: str = "") -> list[str]:
        return [name for _, name in self.all if name.startswith(kind)]

    def at(self, kind: str = "") -> list[int]:
        """Return the number of looks before each read."""
        return [look for look, name in self.all if name.startswith(kind)]


def clog(stream: TunedStream) -> int:
    """Fill the way out of `stream`, return how many bytes that took."""
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += stream._socket.send(bytes(READ_BYTES))
    return filled


@asynccontextmanager
async def both_tuned(readiness: Readiness) -> AsyncGenerator[tuple[TunedStream, TunedStream]]:
    """Give two tuned streams, each the other end of the other."""
    here, there = [TunedStream(end, readiness) for end in await socket_pair()]
    try:
        yield here, there
    finally:
        here.close()
        there.close()


@asynccontextmanager
async def bulk_ones(readiness: Readiness, number: int) -> AsyncGenerator[list[TunedStream]]:
    """Give streams of bulk, with more to read than a test reads, all of it there already."""
    async with AsyncExitStack() as stack:
        pairs = [await stack.enter_async_context(both_tuned(readiness)) for _ in range(number)]
        for stream, peer in pairs:
            await peer.send_all(bytes(100 * PIECE))
            assert len(await stream.receive_some(PIECE)) == PIECE
        yield [stream for stream, _ in pairs]


@asynccontextmanager
async def tuned(readiness: Readiness) -> AsyncGenerator[tuple[TunedStream, trio.SocketStream]]:
    """Give a tuned stream and what is at the other end."""
    here, there = await socket_pair()
    stream = TunedStream(here, readiness)
    async with there:
        try:
            yield stream, there
        finally:
            stream.close()


async def test_it_obeys_the_rules_for_streams_but_for_what_it_names(readiness: Readiness) -> None:
    """With checkpoints and guards added, it passes what Trio checks of every stream."""

    async def ruled_pair() -> tuple[Ruled, Ruled]:
        here, there = await socket_pair()
        return Ruled(here, readiness), Ruled(there, readiness)

    async def clogged_pair() -> tuple[Ruled, Ruled]:
        pair = await ruled_pair()
        for end in pair:
            clog(end)
        return pair

    await check_half_closeable_stream(ruled_pair, clogged_pair)


async def test_after_the_end_of_the_sending_side_nothing_can_be_sent(readiness: Readiness) -> None:
    """Neither sending nor waiting for room makes sense then."""
    async with tuned(readiness) as (stream, _peer):
        await stream.send_eof()
        for attempt in (stream.send_all(b"x"), stream.wait_send_all_might_not_block()):
            with pytest.raises(trio.ClosedResourceError, match="ended"):
                await attempt


async def test_sending_is_no_checkpoint_when_the_kernel_takes_all(readiness: Readiness) -> None:
    """A reply goes out at once, in the same turn of the scheduler."""
    async with tuned(readiness) as (stream, peer):
        with trio.testing.assert_no_checkpoints():
            await stream.send_all(b"reply")
        assert await peer.receive_some() == b"reply"


async def test_receiving_is_always_a_checkpoint(readiness: Readiness) -> None:
    """A loop of receiving and sending lets other tasks in and can be cancelled in each turn."""
    async with tuned(readiness) as (stream, peer):
        await peer.send_all(b"message")
        await trio.lowlevel.wait_readable(stream._socket)
        with trio.testing.assert_checkpoints():
            assert await stream.receive_some() == b"message"


async def test_the_end_that_comes_with_the_last_bytes_is_seen(readiness: Readiness) -> None:
    """One edge reports both; a read that empties the socket must not forget the end."""
    async with tuned(readiness) as (stream, peer):
        await peer.send_all(b"last")
        await peer.send_eof()
        await wait_all_tasks_blocked()
        assert await stream.receive_some() == b"last"
        assert await stream.receive_some() == b""
        assert await stream.receive_some() == b""


async def test_an_edge_without_bytes_is_waited_out(readiness: Readiness) -> None:
    """A stream that was told of bytes which it has read already goes on waiting."""
    async with tuned(readiness) as (stream, peer):
        stream.wake(select.EPOLLIN)
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                assert await stream.receive_some() == b"now"

            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            await peer.send_all(b"now")


async def test_a_cancelled_read_loses_nothing(readiness: Readiness) -> None:
    """What comes after it is there for the next read."""
    async with tuned(readiness) as (stream, peer):
        with trio.move_on_after(0.001) as scope:
            await stream.receive_some()
        assert scope.cancelled_caught
        await peer.send_all(b"later")
        assert await stream.receive_some() == b"later"


async def test_two_readers_at_once_are_refused(readiness: Readiness) -> None:
    """A stream is one task's; a second one is told so."""
    async with tuned(readiness) as (stream, _peer), trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive_some)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await stream.receive_some()
        nursery.cancel_scope.cancel()


async def test_streams_with_bulk_take_turns_and_short_messages_do_not_wait(
    readiness: Readiness, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two looks at the sockets one bulk read is answered, and all short messages."""
    many, light = 4, 3
    monkeypatch.setattr(sockets, "READ_BYTES", PIECE)
    trio.lowlevel.add_instrument(looks)
    reads = Reads(looks)
    async with AsyncExitStack() as stack:
        bulk = await stack.enter_async_context(bulk_ones(readiness, many))
        short = [await stack.enter_async_context(both_tuned(readiness)) for _ in range(light)]
        async with trio.open_nursery() as nursery:
            for number, stream in enumerate(bulk):
                nursery.start_soon(reads.read, stream, f"bulk {number}")
                for _ in range(3):
                    stream.wake(select.EPOLLIN)  # more often than it has turns
            for number, (stream, _) in enumerate(short):
                nursery.start_soon(reads.read, stream, f"light {number}")
            await reads.wait_for(3 * many)
            sent = looks.count
            for _, peer in short:
                assert peer._socket.send(b"short") < PIECE  # all of them before the next look
            await reads.wait_for(light, "light")
            await reads.wait_for(5 * many, "bulk")
            nursery.cancel_scope.cancel()
    turns = reads.names("bulk")
    rounds = [turns[at : at + many] for at in range(len(turns) - many)]
    assert all(len(set(names)) == many for names in rounds)
    assert len(set(reads.at("bulk"))) == len(turns)
    [look] = set(reads.at("light"))
    turns_before = [at for at in reads.at("bulk") if sent < at < look]
    assert len(turns_before) <= 1


@pytest.mark.parametrize("readiness", ["for one"], indirect=True)
async def test_who_is_alone_waits_for_no_turn(
    readiness: Readiness, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read after each look at the sockets."""
    monkeypatch.setattr(sockets, "READ_BYTES", PIECE)
    trio.lowlevel.add_instrument(looks)
    reads = Reads(looks)
    async with tuned(readiness) as (stream, peer), trio.open_nursery() as nursery:
        await peer.send_all(bytes(100 * PIECE))
        nursery.start_soon(reads.read, stream, "bulk")
        await reads.wait_for(5)
        nursery.cancel_scope.cancel()
    first = reads.at()[0]
    assert reads.at()[:5] == [first, first + 1, first + 2, first + 3, first + 4]


async def test_reads_of_bulk_grow_until_somebody_sends_a_short_message(
    readiness: Readiness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large reads are fast, but all others wait meanwhile."""
    for name, size in (("READ_BYTES", 16), ("READ_GROWTH", 8), ("MOST_READ_BYTES", 40)):
        monkeypatch.setattr(sockets, name, size)
    readiness.bulk_bytes = 16
    async with (
        tuned(readiness) as (bulk, bulk_peer),
        tuned(readiness) as (light, light_peer),
    ):
        await bulk_peer.send_all(bytes(1000))
        assert [len(await bulk.receive_some()) for _ in range(5)] == [16, 24, 32, 40, 40]
        await light_peer.send_all(b"short")
        assert await light.receive_some() == b"short"
        assert [len(await bulk.receive_some()) for _ in range(2)] == [16, 24]


async def test_a_short_message_that_comes_in_a_turn_is_read_before_the_next_turn(
    readiness: Readiness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are with bulk, it waits for one of them at most."""
    monkeypatch.setattr(sockets, "READ_BYTES", PIECE)
    reads: list[str] = []
    async with (
        both_tuned(readiness) as (light, light_peer),
        bulk_ones(readiness, 2) as bulk,
        trio.open_nursery() as nursery,
    ):

        async def read_bulk(stream: TunedStream) -> None:
            for _ in range(40):
                assert len(await stream.receive_some(PIECE)) == PIECE
                reads.append("turn")
                light_peer._socket.send(b"short")

        async def read_light() -> None:
            for _ in range(80):
                assert await light.receive_some() == b"short"
                reads.append("message")

        nursery.start_soon(read_light)
        for stream in bulk:
            nursery.start_soon(read_bulk, stream)
    assert reads == ["turn", "message"] * 80


async def test_bulk_after_a_pause_waits_for_its_turn(
    readiness: Readiness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever way the stream waited, it is not read beside another one that has its turn."""
    queued: list[TunedStream] = []
    enqueue = readiness.enqueue

    def note(one: TunedStream) -> None:
        queued.append(one)
        enqueue(one)

    async with (
        tuned(readiness) as (stream, peer),
        tuned(readiness),
        trio.open_nursery() as nursery,
    ):
        await peer.send_all(bytes(2 * READ_BYTES))
        for _ in range(2):  # the second read asks for more, and so finds that this was all
            assert len(await stream.receive_some()) == READ_BYTES
        monkeypatch.setattr(readiness, "enqueue", note)
        nursery.start_soon(stream.receive_some)
        await wait_all_tasks_blocked()
        await peer.send_all(b"more")
    assert queued == [stream]


async def test_whoever_sends_a_short_message_takes_no_turns_any_more(readiness: Readiness) -> None:
    """A person may paste a page and go on typing."""
    async with tuned(readiness) as (stream, peer), tuned(readiness):
        for size, is_bulk in ((READ_BYTES, True), (1, False)):
            await peer.send_all(bytes(size))
            assert len(await stream.receive_some()) == size
            assert stream._is_bulk is is_bulk


async def test_streams_of_bulk_with_nothing_to_read_take_no_turns(readiness: Readiness) -> None:
    """They sleep like others until there is something, and so does the machine."""
    async with (
        tuned(readiness) as (first, peer),
        tuned(readiness) as (second, other_peer),
        trio.open_nursery() as nursery,
    ):
        for stream, each in ((first, peer), (second, other_peer)):
            await each.send_all(bytes(READ_BYTES))
            assert len(await stream.receive_some()) == READ_BYTES
            nursery.start_soon(stream.receive_some)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_closed_stream_is_forgotten(readiness: Readiness) -> None:
    """Its number soon belongs to another one."""
    others = list(readiness._streams.values())
    async with tuned(readiness) as (stream, _peer):
        assert list(readiness._streams.values()) == [*others, stream]
    assert list(readiness._streams.values()) == others


async def test_a_stream_can_be_closed_when_nobody_watches_any_more() -> None:
    """A server that falls over closes in any order."""
    one = Readiness()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        here, there = await socket_pair()
        stream = TunedStream(here, one)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert one._epoll.closed
    stream.close()
    async with there:
        assert await there.receive_some() == b""


async def test_a_stream_of_bulk_gets_its_turn_without_a_new_edge(readiness: Readiness) -> None:
    """What the kernel has already is read to its end, though nothing new comes to report."""
    sent = 4 * READ_BYTES
    async with tuned(readiness) as (first, peer), tuned(readiness) as (second, other_peer):
        for stream, each in ((first, peer), (second, other_peer)):
            await each.send_all(bytes(READ_BYTES))
            assert len(await stream.receive_some()) == READ_BYTES
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send_all, bytes(sent))
            received = 0
            while received < sent:
                received += len(await first.receive_some(READ_BYTES))


async def test_a_stream_that_is_cancelled_in_the_queue_leaves_it(
    readiness: Readiness,
) -> None:
    """Its turn passes without it, and it can be read again."""
    async with (
        tuned(readiness) as (first, peer),
        tuned(readiness) as (second, other_peer),
        trio.open_nursery() as nursery,
    ):
        for each in (peer, other_peer):
            nursery.start_soon(each.send_all, bytes(64 * READ_BYTES))
        for stream in (first, second):
            assert len(await stream.receive_some()) == READ_BYTES
        with trio.CancelScope() as scope:
            scope.cancel()
            await first.receive_some()
        assert scope.cancelled_caught
        assert len(await second.receive_some()) >= READ_BYTES
        assert len(await first.receive_some()) >= READ_BYTES
        nursery.cancel_scope.cancel()


async def test_a_blocked_send_goes_on_where_it_was(readiness: Readiness) -> None:
    """What the kernel does not take at once follows as the peer makes room, every byte in place."""
    data = bytes(range(256)) * (64 * READ_BYTES // 256)
    async with tuned(readiness) as (stream, peer):
        received = bytearray()

        async def send() -> None:
            await stream.send_all(data)
            await stream.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            async for piece in peer:
                received += piece
        assert received == data


async def test_a_reset_breaks_both_directions(readiness: Readiness) -> None:
    """What the kernel reports of a reset is a broken resource, with the reason."""
    async with tuned(readiness) as (stream, peer):
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.socket.close()
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await stream.receive_some()
        with pytest.raises(trio.BrokenResourceError, match="Broken pipe"):
            await stream.send_all(b"reply")
        with pytest.raises(trio.BrokenResourceError, match="not connected"):
            await stream.send_eof()


async def test_delivered_grows_when_the_peer_reads(readiness: Readiness) -> None:
    """It counts what has left this machine's queue, so that a slow reader is seen to read."""
    async with tuned(readiness) as (stream, peer):
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        filled = clog(stream)
        before = stream.delivered()
        assert before < filled
        read = 0
        while stream.delivered() == before:
            read += len(await peer.receive_some())
        assert 0 < read < filled


async def test_delivered_falls_back_on_what_the_kernel_took(
    readiness: Readiness,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the system does not tell its queue, what it took has to do."""

    async with tuned(readiness) as (stream, _peer):
        await stream.send_all(b"reply")
        monkeypatch.setattr(sockets, "unacknowledged_bytes", lambda _: None)
        assert stream.delivered() == len(b"reply")


@pytest.fixture
def contexts(tmp_path: Path) -> Contexts:
    server = server_context(cert=pair_file(tmp_path, issue("localhost")), key=None, client_ca=None)
    return server, client_context(ca=ca_file(tmp_path), insecure=False, cert=None, key=None)


@asynccontextmanager
async def tls(contexts: Contexts) -> AsyncGenerator[TLSPair]:
    """Give a server's and a client's end after the handshake, and the client's bare transport."""
    ours, theirs = memory_stream_pair()
    server = TLSServerStream(theirs, contexts[0])
    client: trio.SSLStream[trio.abc.Stream]
    client = trio.SSLStream(ours, contexts[1], server_hostname="localhost", https_compatible=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.do_handshake)
        await client.do_handshake()
    yield server, client, ours


async def test_tls_carries_bytes_both_ways(contexts: Contexts) -> None:
    """After the handshake it is a stream like others."""
    async with tls(contexts) as (server, client, _):
        await client.send_all(b"hi")
        assert await server.receive_some() == b"hi"
        await server.wait_send_all_might_not_block()
        await server.send_all(b"HI")
        assert await client.receive_some() == b"HI"


async def test_a_tls_client_that_ends_is_answered_in_kind(contexts: Contexts) -> None:
    """The client's closing alert is an end of stream, after which replies can still be sent."""
    async with tls(contexts) as (server, client, _):
        await client.send_all(b"hi")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.unwrap)
            assert await server.receive_some() == b"hi"
            assert await server.receive_some() == b""
            await server.aclose()


async def test_a_tls_goodbye_survives_messages_under_way(
    contexts: Contexts,
    autojump_clock: MockClock,
) -> None:
    """The peer reads the notice and the end of stream although it went on sending."""
    async with tls(contexts) as (server, client, ours):
        await client.send_all(b"under way")
        await server.send_all(b"goodbye")
        await server.send_eof()
        assert await client.receive_some() == b"goodbye"
        assert await client.receive_some() == b""
        await ours.send_eof()
        assert await server.receive_some() == b""
    assert trio.current_time() <= CLOSE_ANSWER


async def test_a_tls_peer_that_does_not_answer_the_end_is_not_waited_for(
    contexts: Contexts,
    autojump_clock: MockClock,
) -> None:
    """The closing alert is sent, its answer has a deadline."""
    async with tls(contexts) as (server, client, _):
        await server.aclose()
        assert trio.current_time() == CLOSE_ANSWER
        assert await client.receive_some() == b""


async def test_closing_tls_to_a_peer_that_has_left_is_quiet(contexts: Contexts) -> None:
    """A client that closed without waiting is the usual case, not an error."""
    async with tls(contexts) as (server, _, ours):
        await ours.aclose()
        await server.aclose()
        await server.aclose()
