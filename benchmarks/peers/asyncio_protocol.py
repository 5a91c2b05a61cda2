"""asyncio Protocol, after https://docs.python.org/3/library/asyncio-protocol.html.

As there, nothing holds back a client that sends faster than it reads.
"""

import asyncio
from typing import cast

from benchmarks.peers.common import HOST, arguments, choose_transform
from benchmarks.peers.on_asyncio import run

OPTIONS = arguments()
new_transform = choose_transform(text=OPTIONS.text)


class UpperServerProtocol(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.upper = new_transform()

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.upper(data))


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(UpperServerProtocol, HOST, OPTIONS.port)
    async with server:
        await server.serve_forever()


run(main(), uvloop=OPTIONS.uvloop)
