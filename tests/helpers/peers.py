"""Peers for a client to talk to, each with one manner: slow, silent, hostile, gone too early."""

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial

import trio

from tests.helpers import certificates, program
from tests.helpers.program import LOCALHOST
from tests.helpers.streams import AsClient, receive_all, receive_line
from trio_upper.server.conversation import Conversation

READ_BYTES = 65536

Script = Callable[[trio.abc.Stream], Awaitable[object]]

# Between two bytes of a peer that drips.
DRIP_SECONDS = 0.1

# How many connections fill a backlog of 0: Linux takes one more than asked for, and some to spare.
FILLERS = 3


@asynccontextmanager
async def peer(
    script: Script,
    *,
    tls: ssl.SSLContext | None = None,
    host: str = LOCALHOST,
    receive_buffer: int | None = None,
) -> AsyncIterator[int]:
    """Run `script` for each client of the port that this yields, while the block runs.

    The peer closes a connection when its script returns, and ignores a client that goes away.
    `receive_buffer` bounds, in bytes, what the system takes before the script does.
    """

    async def meet(transport: trio.SocketStream) -> None:
        stream: trio.abc.Stream = transport
        if tls:
            stream = trio.SSLStream(transport, tls, server_side=True)
        with suppress(trio.BrokenResourceError):
            await script(stream)
        await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, meet, 0, host=host))
        if receive_buffer is not None:  # connections have it from the listener (tcp(7))
            listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def identity(*names: str) -> ssl.SSLContext:
    """Return the TLS context of a peer that has a certificate for `names`, signed by ours."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates.issue(*names).configure_cert(context)
    return context


async def silent(stream: trio.abc.Stream) -> None:
    """Take everything, answer nothing, and do not close either."""
    await receive_all(stream)
    await trio.sleep_forever()


async def deaf(stream: trio.abc.Stream) -> None:
    """Take nothing, answer nothing, stay."""
    await trio.sleep_forever()


async def echo(stream: trio.abc.Stream) -> None:
    """Send everything back as it is (RFC 862)."""
    while data := await stream.receive_some(READ_BYTES):
        await stream.send_all(data)


async def upper(stream: trio.abc.Stream) -> None:
    """Answer ASCII text rightly."""
    while data := await stream.receive_some(READ_BYTES):
        await stream.send_all(bytes(data).upper())


async def ours(stream: trio.abc.Stream) -> None:
    """Have the conversation that our server has."""
    assert isinstance(stream, trio.abc.HalfCloseableStream)
    await Conversation(AsClient(stream)).run()


async def drip(stream: trio.abc.Stream) -> None:
    """Answer ASCII text correctly, byte by byte, each in a segment of its own."""
    while data := await stream.receive_some(READ_BYTES):
        for byte in bytes(data).upper():
            await stream.send_all(bytes([byte]))
            await trio.sleep(DRIP_SECONDS)


def greeting(words: bytes) -> Script:
    """Say `words` to whoever connects."""

    async def script(stream: trio.abc.Stream) -> None:
        await stream.send_all(words)
        await receive_all(stream)

    return script


def answering(words: bytes, *, then: Script = receive_all) -> Script:
    """Say `words` to the first line that comes, whatever it is; go on as `then` does."""

    async def script(stream: trio.abc.Stream) -> None:
        await receive_line(stream)
        await stream.send_all(words)
        await then(stream)

    return script


async def end(stream: trio.abc.Stream) -> None:
    """End the connection properly, and take what still comes."""
    assert isinstance(stream, trio.abc.HalfCloseableStream)
    await stream.send_eof()
    await receive_all(stream)


async def reset(stream: trio.abc.Stream) -> None:
    """End the connection with a reset."""
    transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    assert isinstance(transport, trio.SocketStream)
    program.reset(transport)
    await trio.lowlevel.checkpoint()


async def cut(stream: trio.abc.Stream) -> None:
    """End the connection, but not TLS on it, having taken all that has come."""
    assert isinstance(stream, trio.SSLStream)
    assert isinstance(stream.transport_stream, trio.SocketStream)
    await stream.transport_stream.send_eof()
    await receive_all(stream.transport_stream)


def when(event: trio.Event, script: Script) -> Script:
    """Wait for `event`, then do as `script` does."""

    async def later(stream: trio.abc.Stream) -> None:
        await event.wait()
        await script(stream)

    return later


@contextmanager
def bound_socket() -> Iterator[socket.socket]:
    """Yield a socket on a port that nobody listens on, and that nobody else gets meanwhile."""
    with socket.socket() as bound:
        bound.bind((LOCALHOST, 0))
        yield bound


@contextmanager
def closed_port() -> Iterator[int]:
    """Yield a port that refuses."""
    with bound_socket() as bound:
        yield bound.getsockname()[1]


@contextmanager
def full_port() -> Iterator[int]:
    """Yield a port whose backlog is full, so that it answers no more."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(bound_socket())
        listener.listen(0)
        for _ in range(FILLERS):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
