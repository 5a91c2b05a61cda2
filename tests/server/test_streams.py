"""The server's streams: what Trio demands of streams, and TLS with an end that can be heard."""

import ctypes
import errno
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from pathlib import Path

import pytest
import trio
from tests.helpers.certificates import ca_file, issue, pair_file
from tests.helpers.sockets import socket_pair
from tests.helpers.streams import AsClient, upper
from tests.helpers.waiting import TIMEOUT_SECONDS
from trio.testing import (
    MockClock,
    check_half_closeable_stream,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from trio_upper.platform import open_edge_poller, unacknowledged_bytes
from trio_upper.protocol import Responder
from trio_upper.server import streams as streams_module
from trio_upper.server.poller import PolledStream, Poller
from trio_upper.server.streams import (
    CLOSE_ANSWER_SECONDS,
    READ_BYTES,
    PlainStream,
    Reply,
    SharedTLS,
    TLSStream,
    take_socket,
)
from trio_upper.tls import client_context, server_context

# A server's end, a client's, and the client's bare transport.
TLSPair = tuple[TLSStream, trio.SSLStream[trio.abc.Stream], trio.abc.HalfCloseableStream]

# A server's and a client's.
Contexts = tuple[ssl.SSLContext, ssl.SSLContext]

# Makes the server's stream of one that was accepted.
Make = Callable[[trio.SocketStream], PlainStream]


@pytest.fixture(params=["with a poller", "without a poller"])
async def make(request: pytest.FixtureRequest) -> AsyncGenerator[Make]:
    """Give what makes a stream; a test that has it has `TIMEOUT_SECONDS` for all it does."""
    epoll = open_edge_poller() if request.param == "with a poller" else None
    with trio.fail_after(TIMEOUT_SECONDS):
        async with trio.open_nursery() as nursery:
            if epoll:
                poller = Poller(epoll)
                nursery.start_soon(poller.run)
                yield lambda stream: PolledStream(take_socket(stream), poller)
            else:
                yield lambda stream: PlainStream(take_socket(stream))
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def connected(make: Make) -> AsyncGenerator[tuple[PlainStream, trio.SocketStream]]:
    """Give a server's stream and what is at the other end."""
    here, there = await socket_pair()
    async with there:
        with closing(make(here)) as stream:
            yield stream, there


def clog(stream: PlainStream) -> int:
    """Fill the way out of `stream`, return how many bytes that took."""
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += stream._socket.send(bytes(READ_BYTES))
    return filled


def ruled(stream: PlainStream) -> trio.abc.HalfCloseableStream:
    """Return `stream` with what it leaves out on purpose: checkpoints, and more than one task."""
    busy = trio.Lock()
    send_all, wait, send_eof = (
        stream.send_all,
        stream.wait_send_all_might_not_block,
        stream.send_eof,
    )

    @asynccontextmanager
    async def alone() -> AsyncGenerator[None]:
        try:
            busy.acquire_nowait()
        except trio.WouldBlock:
            raise trio.BusyResourceError("another task is sending") from None
        try:
            await trio.lowlevel.checkpoint()
            yield
        finally:
            busy.release()

    class Ruled(AsClient):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            async with alone():
                await send_all(data)

        async def wait_send_all_might_not_block(self) -> None:
            async with alone():
                await wait()

        async def send_eof(self) -> None:
            async with alone():
                await send_eof()

    return Ruled(stream)


async def test_it_obeys_the_rules_for_streams_but_for_what_it_names(make: Make) -> None:
    """With checkpoints and guards added, it passes what Trio checks of every stream."""
    pairs: list[tuple[PlainStream, PlainStream]] = []

    async def ruled_pair() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        here, there = await socket_pair()
        pairs.append((make(here), make(there)))
        return ruled(pairs[-1][0]), ruled(pairs[-1][1])

    async def clogged_pair() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        pair = await ruled_pair()
        for end in pairs[-1]:
            clog(end)
        return pair

    await check_half_closeable_stream(ruled_pair, clogged_pair)


async def test_after_the_end_of_the_sending_side_nothing_can_be_sent(make: Make) -> None:
    """Neither sending nor waiting for room makes sense then."""
    async with connected(make) as (stream, _peer):
        await stream.send_eof()
        for attempt in (stream.send_all(b"x"), stream.wait_send_all_might_not_block()):
            with pytest.raises(trio.ClosedResourceError, match="ended"):
                await attempt


async def test_sending_is_no_checkpoint_when_the_system_takes_all(make: Make) -> None:
    """A reply goes out at once, in the same turn of the scheduler."""
    async with connected(make) as (stream, peer):
        with trio.testing.assert_no_checkpoints():
            await stream.send_all(b"reply")
        assert await peer.receive_some() == b"reply"


async def test_receiving_is_always_a_checkpoint(make: Make) -> None:
    """A loop of receiving and sending lets other tasks run and can be cancelled in each turn."""
    async with connected(make) as (stream, peer):
        await peer.send_all(b"message")
        await trio.lowlevel.wait_readable(stream._socket)
        with trio.testing.assert_checkpoints():
            assert await stream.receive_some() == b"message"


async def test_the_end_that_comes_with_the_last_bytes_is_received(make: Make) -> None:
    """First the bytes, then the end, as often as somebody asks."""
    async with connected(make) as (stream, peer):
        await peer.send_all(b"last")
        await peer.send_eof()
        await wait_all_tasks_blocked()
        assert await stream.receive_some() == b"last"
        assert await stream.receive_some() == b""
        assert await stream.receive_some() == b""


async def test_a_wait_that_was_in_vain_goes_on(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may say that there is something to read when there is nothing."""
    async with connected(make) as (stream, peer), trio.open_nursery() as nursery:
        wait_readable = trio.lowlevel.wait_readable

        async def wait_in_vain(sock: socket.socket) -> None:
            monkeypatch.setattr(trio.lowlevel, "wait_readable", wait_readable)
            nursery.start_soon(peer.send_all, b"now")
            await trio.lowlevel.checkpoint_if_cancelled()

        monkeypatch.setattr(trio.lowlevel, "wait_readable", wait_in_vain)
        assert await stream.receive_some() == b"now"


async def test_a_cancelled_receive_loses_nothing(make: Make) -> None:
    """What comes after it is there for the next one."""
    async with connected(make) as (stream, peer):
        with trio.move_on_after(0.001) as scope:
            await stream.receive_some()
        assert scope.cancelled_caught
        await peer.send_all(b"later")
        assert await stream.receive_some() == b"later"


async def test_a_blocked_send_goes_on_where_it_was(make: Make) -> None:
    """What the system does not take at once follows when there is room, in order."""
    data = bytes(range(256)) * (64 * READ_BYTES // 256)
    async with connected(make) as (stream, peer):
        received = bytearray()

        async def send() -> None:
            await stream.send_all(data)
            await stream.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            async for piece in peer:
                received += piece
        assert received == data


async def test_a_reset_breaks_both_directions(make: Make) -> None:
    """What the system reports of a reset is a broken resource, with the reason."""
    async with connected(make) as (stream, peer):
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.socket.close()
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await stream.receive_some()
        with pytest.raises(trio.BrokenResourceError, match="Broken pipe"):
            await stream.send_all(b"reply")
        with pytest.raises(trio.BrokenResourceError, match="not connected"):
            await stream.send_eof()


@pytest.mark.parametrize("wait", ["wait_readable", "wait_writable"])
async def test_a_system_without_room_to_wait_says_so(
    make: Make, monkeypatch: pytest.MonkeyPatch, wait: str
) -> None:
    """It ends this client; ENOSPC is what epoll says when the user has too many watches."""

    async def full(sock: socket.socket) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with connected(make) as (stream, _peer):
        monkeypatch.setattr(trio.lowlevel, wait, full)
        waiting: dict[str, Callable[[], Awaitable[object]]] = {
            "wait_readable": stream.receive_some,
            "wait_writable": stream.wait_send_all_might_not_block,
        }
        with pytest.raises(OSError, match="No space left"):
            await waiting[wait]()


async def test_what_lies_unread_is_known_without_receiving_it(make: Make) -> None:
    """Bytes are, and the end is; a reset is nothing to read."""
    async with connected(make) as (stream, peer):
        assert not stream.has_unread()
        assert stream.received == 0
        await peer.send_all(b"x")
        await trio.lowlevel.wait_readable(stream._socket)
        assert stream.has_unread()
        assert await stream.receive_some() == b"x"
        assert stream.received == 1
        assert not stream.has_unread()
        await peer.send_eof()
        await trio.lowlevel.wait_readable(stream._socket)
        assert stream.has_unread()


def tells_of_its_queue() -> bool:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        return unacknowledged_bytes(ours) is not None


@pytest.mark.skipif(not tells_of_its_queue(), reason="this system does not tell of its queue")
async def test_delivered_grows_when_the_client_receives(make: Make) -> None:
    """It counts what has left this machine's queue, so that a slow reader is seen to read."""
    async with connected(make) as (stream, peer):
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with suppress(BlockingIOError):
            while not stream._send_some(bytes(READ_BYTES)):
                pass
        before = stream.delivered()
        assert before < stream._taken
        read = 0
        while stream.delivered() == before:
            read += len(await peer.receive_some())
        assert 0 < read < stream._taken


async def test_delivered_falls_back_on_what_the_system_took(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it does not tell what is in its queue, what it took has to do."""
    async with connected(make) as (stream, _peer):
        await stream.send_all(b"reply")
        monkeypatch.setattr(streams_module, "unacknowledged_bytes", lambda _: None)
        assert stream.delivered() == len(b"reply")


async def test_a_closed_stream_delivers_no_more(make: Make) -> None:
    """Also when it is asked about a client that has just gone."""
    async with connected(make) as (stream, _peer):
        await stream.send_all(b"reply")
        stream.close()
        assert stream.delivered() == len(b"reply")


@pytest.fixture
def contexts(tmp_path: Path) -> Contexts:
    server = server_context(cert=pair_file(tmp_path, issue("localhost")), key=None, client_ca=None)
    return server, client_context(ca=ca_file(tmp_path), insecure=False, cert=None, key=None)


@asynccontextmanager
async def tls(contexts: Contexts) -> AsyncGenerator[TLSPair]:
    """Give a server's and a client's end after the handshake, and the client's bare transport."""
    ours, theirs = memory_stream_pair()
    transport = AsClient(theirs)
    server = TLSStream(transport, SharedTLS(contexts[0]))
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


async def test_a_tls_reply_can_be_encrypted_before_it_is_sent(contexts: Contexts) -> None:
    """The last one is, which nobody asks for; when there is none, it is no record either."""
    async with tls(contexts) as (server, client, _):
        reply = server.on_wire(b"\xc3")
        assert len(reply) > 1
        await server.send_reply(reply)
        assert await client.receive_some() == b"\xc3"
        assert server.on_wire(b"") == b""


async def test_tls_knows_what_its_transport_knows(contexts: Contexts) -> None:
    """What lies unread, and what was delivered, is a matter of the socket."""
    async with tls(contexts) as (server, _, _):
        transport = server._transport
        assert isinstance(transport, AsClient)
        transport.taken = 7
        assert server.delivered() == 7
        for unread in (False, True):
            transport.unread = unread
            assert server.has_unread() is unread


async def test_a_tls_client_that_ends_is_answered_in_kind(contexts: Contexts) -> None:
    """The client's closing alert is an end of stream, after which replies can still be sent."""
    async with tls(contexts) as (server, client, _):
        await client.send_all(b"hi")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.unwrap)
            assert await server.receive_some() == b"hi"
            assert await server.receive_some() == b""
            await server.aclose()


async def test_a_tls_notice_survives_messages_under_way(
    contexts: Contexts,
    autojump_clock: MockClock,
) -> None:
    """The peer reads the notice and the end of stream although it went on sending."""
    async with tls(contexts) as (server, client, ours):
        await client.send_all(b"under way")
        await server.send_all(b"notice")
        await server.send_eof()
        assert await client.receive_some() == b"notice"
        assert await client.receive_some() == b""
        await ours.send_eof()
        assert await server.receive_some() == b""
    assert trio.current_time() <= CLOSE_ANSWER_SECONDS


async def test_a_tls_client_that_has_sent_more_gets_the_closing_alert(contexts: Contexts) -> None:
    """As one that is refused: its first message came with the handshake, and nobody reads it."""
    async with tls(contexts) as (server, client, _):
        await client.send_all(b"read")
        await client.send_all(b"not read")
        assert await server.receive_some() == b"read"
        await server.send_eof()
        assert await client.receive_some() == b""


async def test_a_tls_peer_that_does_not_answer_the_end_is_not_waited_for(
    contexts: Contexts,
    autojump_clock: MockClock,
) -> None:
    """The closing alert is sent, its answer has a deadline."""
    async with tls(contexts) as (server, client, _):
        await server.aclose()
        assert trio.current_time() == CLOSE_ANSWER_SECONDS
        assert await client.receive_some() == b""


async def test_closing_tls_to_a_peer_that_has_left_is_quiet(contexts: Contexts) -> None:
    """A client that closed without waiting is the usual case, not an error."""
    async with tls(contexts) as (server, _, ours):
        await ours.aclose()
        await server.aclose()
        await server.aclose()


def in_upper_case(data: bytes | bytearray) -> Reply:
    return data.upper()


async def leave(client: trio.SSLStream[trio.abc.Stream]) -> None:
    """Send the closing alert; the client does not want to know of replies after it."""
    with suppress(trio.BrokenResourceError):
        await client.unwrap()


async def answer(server: TLSStream) -> None:
    """Answer as a conversation does, up to the client's end."""
    while (reply := await server.next_reply(in_upper_case)) is not None:
        await server.send_reply(reply)


async def test_tls_messages_are_answered_in_one_step(contexts: Contexts) -> None:
    """Of any length, which is many records; the client's closing alert is the end."""
    message = bytes(range(256)) * 300
    async with tls(contexts) as (server, client, _), trio.open_nursery() as nursery:
        nursery.start_soon(answer, server)
        await client.send_all(message)
        reply = b""
        while len(reply) < len(message):
            reply += await client.receive_some()
        assert reply == message.upper()
        nursery.start_soon(client.unwrap)
        await wait_all_tasks_blocked()
        await server.aclose()


async def test_a_tls_message_that_comes_with_the_end_is_answered(contexts: Contexts) -> None:
    """Both were received at once: first the reply, then the end, as often as somebody asks."""
    async with tls(contexts) as (server, client, _), trio.open_nursery() as nursery:
        await client.send_all(b"last")
        nursery.start_soon(leave, client)
        await wait_all_tasks_blocked()
        reply = await server.next_reply(in_upper_case)
        assert reply
        await server.send_reply(reply)
        for _ in range(2):
            assert await server.next_reply(in_upper_case) is None
        await server.aclose()


async def test_a_tls_message_that_comes_with_the_handshake_is_answered(contexts: Contexts) -> None:
    """What was received already does not wait for more."""
    async with tls(contexts) as (server, client, _):
        await client.send_all(b"early")
        server._unread += await server._transport.receive_some()
        reply = await server.next_reply(in_upper_case)
        assert reply
        await server.send_reply(reply)
        assert await client.receive_some() == b"EARLY"


class MallocInfo(ctypes.Structure):
    """What mallinfo2(3) returns."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )
    hblkhd: int
    uordblks: int


def allocated() -> int:
    """Return how many bytes are allocated, by OpenSSL too, of which tracemalloc knows nothing."""
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except (AttributeError, TypeError):
        pytest.skip("this C library does not tell what is allocated")
    mallinfo2.restype = MallocInfo
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)


class InPieces(AsClient):
    """Receives as much at once as a socket does."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await super().receive_some(max_bytes or READ_BYTES)


async def greeted(shared: SharedTLS, context: ssl.SSLContext) -> tuple[TLSStream, trio.abc.Stream]:
    """Return a server's and a client's end after the handshake, and one message."""
    ours, theirs = memory_stream_pair()
    server = TLSStream(InPieces(theirs), shared)
    client: trio.SSLStream[trio.abc.Stream]
    client = trio.SSLStream(ours, context, server_hostname="localhost", https_compatible=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.do_handshake)
        await client.do_handshake()
    await converse(server, client, b"x")
    return server, client


async def converse(server: TLSStream, client: trio.abc.Stream, message: bytes) -> None:
    """Send `message` as one piece, and receive its reply."""
    await client.send_all(message)
    responder, rest = Responder(), upper(message)
    while rest:
        if responder.received < len(message) and (
            reply := await server.next_reply(responder.answer)
        ):
            await server.send_reply(reply)
        received = await client.receive_some()
        assert rest.startswith(received)
        rest = rest[len(received) :]


@pytest.mark.parametrize("letter", ["x", "\u0390"])
async def test_an_idle_tls_client_costs_little_also_after_bulk(
    contexts: Contexts, letter: str
) -> None:
    """At most 30 KiB, whatever it sent before; the second letter triples."""
    shared = SharedTLS(contexts[0])
    pairs = [await greeted(shared, contexts[1]) for _ in range(8)]
    for server, client in pairs:
        await converse(server, client, letter.encode() * (READ_BYTES // len(letter.encode())))
    clients = [client for _, client in pairs]
    before = allocated()
    del server, pairs
    assert 4 * 1024 < (before - allocated()) / len(clients) <= 30 * 1024


@pytest.mark.parametrize("letter", ["x", "\u0390"])
async def test_a_tls_client_that_receives_nothing_pins_little_memory(
    contexts: Contexts, letter: str
) -> None:
    """At most 256 KiB, as without TLS, with all that OpenSSL has, half a record among it."""
    shared = SharedTLS(contexts[0])
    server, client = await greeted(shared, contexts[1])
    message = letter.encode() * (1024 // len(letter.encode()))
    await converse(server, client, message)
    for _ in range(READ_BYTES // len(message)):
        await client.send_all(message)
    reply = await server.next_reply(Responder().answer)
    assert reply
    assert len(reply) > READ_BYTES // 2
    before = allocated()
    del server, reply
    assert READ_BYTES // 2 < before - allocated() <= 256 * 1024


@pytest.mark.parametrize("ending", ["ends", "breaks"])
async def test_what_one_tls_client_leaves_does_not_come_to_another(
    contexts: Contexts, ending: str
) -> None:
    """They share how to OpenSSL: nothing is in it between two steps, nor after a bug in one."""

    def stumble(_: bytes | bytearray) -> Reply:
        raise ZeroDivisionError

    shared = SharedTLS(contexts[0])
    server, client = await greeted(shared, contexts[1])
    other = await greeted(shared, contexts[1])
    for _ in range(2):
        await client.send_all(b"message")
    if ending == "breaks":
        with pytest.raises(ZeroDivisionError):
            await server.next_reply(stumble)
    else:
        with trio.move_on_after(0):
            await server.receive_some(3)
    assert not shared.incoming.pending
    assert not shared.outgoing.pending
    await converse(*other, b"hi")


@pytest.mark.parametrize("receive", ["receive_some", "next_reply"])
async def test_what_is_no_tls_breaks_the_stream(contexts: Contexts, receive: str) -> None:
    """An end without a closing alert may have been forged, and so may other bytes."""
    for words, complaint in ((b"", "without a closing alert"), (b"garbage", "SSL")):
        async with tls(contexts) as (server, _, ours):
            if words:
                await ours.send_all(words)
            await ours.send_eof()
            attempts: dict[str, Callable[[], Awaitable[object]]] = {
                "receive_some": server.receive_some,
                "next_reply": partial(answer, server),
            }
            with pytest.raises(trio.BrokenResourceError, match=complaint):
                await attempts[receive]()


async def test_a_tls_message_that_comes_with_garbage_is_answered(contexts: Contexts) -> None:
    """Both were received at once: first the reply, and OpenSSL's alert; then the error."""
    async with tls(contexts) as (server, client, ours):
        await client.send_all(b"last")
        await ours.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
        reply = await server.next_reply(in_upper_case)
        assert reply
        await server.send_reply(reply)
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError, match="SSL"):
                await server.next_reply(in_upper_case)
        assert await client.receive_some() == b"LAST"
        with pytest.raises(trio.BrokenResourceError) as told:
            await client.receive_some()
        assert "ALERT_BAD_RECORD_MAC" in str(told.value.__cause__)


async def test_a_tls_client_that_ended_its_transport_is_not_waited_for(
    contexts: Contexts, autojump_clock: MockClock
) -> None:
    """It cannot answer the closing alert."""
    async with tls(contexts) as (server, _, ours):
        await ours.send_eof()
        await server.aclose()
    assert trio.current_time() == 0
