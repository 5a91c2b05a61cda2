"""Trio, after the echo server of https://trio.readthedocs.io/en/stable/tutorial.html."""

from functools import partial

import trio

from benchmarks.peers.common import HOST, arguments, choose_transform

OPTIONS = arguments()
new_transform = choose_transform(text=OPTIONS.text)


async def handle(stream: trio.SocketStream) -> None:
    upper = new_transform()
    async for data in stream:
        await stream.send_all(upper(data))  # type: ignore[arg-type]  # a socket gives bytes


trio.run(partial(trio.serve_tcp, handle, OPTIONS.port, host=HOST))
