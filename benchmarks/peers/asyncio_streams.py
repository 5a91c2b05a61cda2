"""asyncio streams, after https://docs.python.org/3/library/asyncio-stream.html."""

import asyncio

from benchmarks.peers.common import (
    BACKLOG,
    HOST,
    READ_BYTES,
    arguments,
    choose_transform,
    run_asyncio,
    tls_context,
)

OPTIONS = arguments()
new_transform = choose_transform(text=OPTIONS.text)


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    upper = new_transform()
    while data := await reader.read(READ_BYTES):
        writer.write(upper(data))
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def main() -> None:
    tls = tls_context(OPTIONS.tls_cert)
    server = await asyncio.start_server(handle, HOST, OPTIONS.port, ssl=tls, backlog=BACKLOG)
    async with server:
        await server.serve_forever()


run_asyncio(main(), uvloop=OPTIONS.uvloop)
