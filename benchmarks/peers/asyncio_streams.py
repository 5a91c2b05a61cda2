"""asyncio streams, after https://docs.python.org/3/library/asyncio-stream.html."""

import asyncio

from benchmarks.peers.common import HOST, READ_BYTES, arguments, choose_transform
from benchmarks.peers.on_asyncio import run

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
    server = await asyncio.start_server(handle, HOST, OPTIONS.port)
    async with server:
        await server.serve_forever()


run(main(), uvloop=OPTIONS.uvloop)
