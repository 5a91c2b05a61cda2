"""Connected sockets on this machine."""

import trio

from tests.helpers.program import LOCALHOST


async def socket_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Return both ends of a TCP connection: the accepted one, and the other."""
    [listener] = await trio.open_tcp_listeners(0, host=LOCALHOST)
    async with listener:
        there = await trio.open_tcp_stream(*listener.socket.getsockname())
        return await listener.accept(), there
