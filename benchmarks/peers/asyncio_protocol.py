"""asyncio Protocol, after https://docs.python.org/3/library/asyncio-protocol.html.

As there, nothing holds back a client that sends faster than it reads.
"""

import asyncio
from typing import cast

from benchmarks.peers.common import (
    BACKLOG,
    HOST,
    arguments,
    choose_transform,
    run_asyncio,
    tls_context,
)

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
    tls = tls_context(OPTIONS.tls_cert)
    server = await loop.create_server(
        UpperServerProtocol, HOST, OPTIONS.port, ssl=tls, backlog=BACKLOG
    )
    async with server:
        await server.serve_forever()


run_asyncio(main(), uvloop=OPTIONS.uvloop)
