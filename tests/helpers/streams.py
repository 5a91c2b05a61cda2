"""Streams for tests: what is said and heard on them, and some that lack something or break."""

import trio

from trio_upper.server.streams import ClientStream


def upper(data: bytes) -> bytes:
    """Return what must come back for `data`, sent whole."""
    return data.decode("utf-8", "surrogateescape").upper().encode("utf-8", "surrogateescape")


async def receive(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    """Return the next `count` bytes, fewer if the stream ends before them."""
    received = b""
    while len(received) < count:
        data = await stream.receive_some(count - len(received))
        if not data:
            break
        received += data
    return received


async def receive_line(stream: trio.abc.ReceiveStream) -> bytes:
    """Return the next line, or what there is of it at the end of the stream."""
    line = b""
    while not line.endswith(b"\n") and (byte := await stream.receive_some(1)):
        line += byte
    return line


async def receive_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Return all bytes up to the end of the stream; a reset escapes."""
    return b"".join([bytes(data) async for data in stream])


async def ask(stream: trio.abc.Stream, message: bytes) -> bytes:
    """Send `message` and return as many bytes as its reply must have."""
    await stream.send_all(message)
    return await receive(stream, len(upper(message)))


class NoHalfClose(trio.abc.Stream):
    """A stream as TLS gives one: it cannot end one direction."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.stream.aclose()


class Breaking(NoHalfClose, trio.abc.HalfCloseableStream):
    """A stream that raises what `sending` and `receiving` are set to, in these operations."""

    sending: Exception | None = None
    receiving: Exception | None = None

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        super().__init__(stream)
        self._whole = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.sending:
            raise self.sending
        await super().send_all(data)

    async def send_eof(self) -> None:
        await self._whole.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.receiving:
            await trio.testing.wait_all_tasks_blocked()
            raise self.receiving
        return await super().receive_some(max_bytes)


class AsClient(ClientStream):
    """Any stream as the server's end of a client's connection; closing it closes the stream.

    `unread` is what `has_unread` returns, and `taken` what `delivered` does.
    """

    unread = False
    taken = 0
    received = 0

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self.stream.receive_some(max_bytes)
        self.received += len(data)
        return data

    async def send_eof(self) -> None:
        await self.stream.send_eof()

    async def aclose(self) -> None:
        await self.stream.aclose()

    def has_unread(self) -> bool:
        return self.unread

    def delivered(self) -> int:
        return self.taken
