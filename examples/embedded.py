"""A server inside a program of one's own, and a client that talks to it: ``python embedded.py``."""

import trio

import trio_upper

WORDS = ("hello", "Straße", "καλημέρα")


def lines() -> trio.MemoryReceiveChannel[bytes]:
    """Return what to send, a line for each word; any async iterable of bytes will do."""
    send, receive = trio.open_memory_channel[bytes](len(WORDS))
    with send:
        for word in WORDS:
            send.send_nowait(f"{word}\n".encode())
    return receive


async def show(replies: bytes) -> None:
    """Take what comes back, in any split; any async callable will do."""
    print(replies.decode(), end="")


async def main() -> None:
    """Start a server, talk to it, stop it."""
    source, sink = lines(), show
    async with trio.open_nursery() as nursery:
        server = trio_upper.Server(trio_upper.ServerSettings(port=0))
        [(host, port)] = await nursery.start(server.run)
        async with await trio_upper.connect(trio_upper.Target(host=host, port=port)) as stream:
            outcome = await trio_upper.converse(stream, source, sink)
        server.drain()
    print(f"complete: {outcome.complete}; clients served: {server.totals.served}")


if __name__ == "__main__":
    trio.run(main)
