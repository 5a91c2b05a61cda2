"""Gate 18: what stands between a client and its replies: a proxy, and a server that is wrong."""

import re
from functools import partial

import trio

from tests.acceptance.gate import Gate, Sizes, expect
from tests.acceptance.servers import hosting
from tests.helpers.peers import peer
from tests.helpers.program import LOCALHOST, Ended
from tests.helpers.program import run as run_program
from tests.helpers.streams import upper

READ_BYTES = 65536

LINE = "the quick brown fox, straße, jumps over the lazy dog\n".encode()
LINES_AT_FULL_SIZE = 20_000

# Positions in the replies: the first one, within and at the edges of what is read at once, and far.
POSITIONS = (0, 1, 4095, 4096, 10_000, 65_535, 65_536, 200_000)


async def relay(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
    while data := await source.receive_some(READ_BYTES):
        await sink.send_all(data)


async def end_both_ways(client: trio.abc.Stream, *, port: int) -> None:
    """Be a proxy of the simple kind: when one side ends, both directions end."""
    async with (
        await trio.open_tcp_stream(LOCALHOST, port) as server,
        trio.open_nursery() as nursery,
    ):

        async def one_way(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
            await relay(source, sink)
            nursery.cancel_scope.cancel()

        nursery.start_soon(one_way, client, server)
        nursery.start_soon(one_way, server, client)


async def client(port: int, *words: str, stdin: bytes = b"") -> Ended:
    return await run_program("client", LOCALHOST, str(port), *words, stdin=stdin)


async def through_proxy(text: bytes) -> None:
    """Send text through such a proxy, from a pipe and as messages."""
    async with hosting() as server, peer(partial(end_both_ways, port=server.port)) as port:
        done = await client(port, stdin=text)
        expect(
            (done.code, done.stdout == upper(text)) == (0, True),
            f"behind a proxy that ends both ways {len(done.stdout)} of {len(upper(text))} bytes "
            f"came, the exit code is {done.code}: {done.stderr.decode()}",
        )
        done = await client(port, "-m", "one", "-m", "two")
        expect(
            (done.code, done.stdout) == (0, b"ONE\nTWO\n"),
            f"messages through such a proxy: {done}",
        )


async def change(stream: trio.abc.Stream, *, position: int) -> None:
    """Be a server whose replies have one wrong byte, a letter."""
    sent = 0
    while data := bytes(await stream.receive_some(READ_BYTES)):
        reply = bytearray(upper(data))
        if sent <= position < sent + len(reply):
            reply[position - sent] = ord("Y" if reply[position - sent] == ord("X") else "X")
        sent += len(reply)
        await stream.send_all(reply)


async def meet_wrong_server(position: int) -> None:
    """Expect the client to end at the first wrong byte, say where it is, and show no more."""
    text = b"abcdefghijklmnopqrstuvw\n" * (position // 24 + 10)
    async with peer(partial(change, position=position)) as port:
        done = await client(port, stdin=text)
    said = done.stderr.decode()
    expect(done.code == 1, f"byte {position} of a reply was wrong, the exit code is {done.code}")
    expect(
        done.stdout == upper(text)[: len(done.stdout)] and len(done.stdout) <= position,
        f"byte {position} of a reply was wrong, and it is shown",
    )
    numbers = {int(digits.replace(",", "")) for digits in re.findall(r"\d[\d,]*", said)}
    expect({position, position + 1} & numbers, f"byte {position} was wrong; it says {said!r}")


async def run(sizes: Sizes) -> str:
    """Meet both."""
    text = LINE * min(LINES_AT_FULL_SIZE, 100 * sizes.repeats)
    await through_proxy(text)
    for position in POSITIONS:
        await meet_wrong_server(position)
    return (
        f"all {len(text)} bytes through a proxy that ends both ways; wrong bytes found at "
        f"{', '.join(map(str, POSITIONS))}"
    )


GATE = Gate(
    number=18,
    promise="The client is true to every byte: a proxy that cannot half-close eats no reply, and a "
    "wrong byte is found and named wherever it is.",
    doing="a file through a proxy that ends both ways when one ends; servers that change one byte",
    run=run,
    limit=lambda sizes: 300,
)
