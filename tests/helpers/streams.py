"""Streams for tests: in-memory ones that lack something, or break when they are told to."""

import trio


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
