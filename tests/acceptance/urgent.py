"""Gate 17: urgent data is data."""

import socket

import trio

from tests.acceptance.clients import dice_of, in_time, take_leave
from tests.acceptance.gate import Gate, Sizes, expect
from tests.acceptance.servers import WatchedServer, hosting
from tests.helpers.streams import receive

# Connections at a time.
AT_ONCE = 20

# Before the urgent byte, it, and behind it.
PIECES = (b"abc", b"!", b"def\n")
REPLY = b"ABC!DEF\n"

LONGEST_PAUSE_SECONDS = 0.002

SEED = 17


async def be_urgent(server: WatchedServer, pauses: tuple[float, float]) -> None:
    """Send a line with an urgent byte in its middle (MSG_OOB, send(2)), and have it answered."""
    before, urgent, behind = PIECES
    async with await server.connect() as stream:
        await stream.send_all(before)
        await trio.sleep(pauses[0])
        await stream.socket.send(urgent, socket.MSG_OOB)
        await trio.sleep(pauses[1])
        await stream.send_all(behind)
        with in_time("a line with an urgent byte was not answered in full"):
            reply = await receive(stream, len(REPLY))
        expect(reply == REPLY, f"a line with an urgent byte was answered {reply!r}")
        await take_leave(stream)


async def run(sizes: Sizes) -> str:
    """Send urgent bytes with and without pauses around them."""
    dice, at_once = dice_of(SEED), trio.CapacityLimiter(AT_ONCE)

    def pause() -> float:
        return dice.choice([0.0, dice.uniform(0, LONGEST_PAUSE_SECONDS)])

    async def one() -> None:
        async with at_once:
            await be_urgent(server, (pause(), pause()))

    async with hosting() as server, trio.open_nursery() as nursery:
        for _ in range(sizes.repeats):
            nursery.start_soon(one)
    return f"{sizes.repeats} of {sizes.repeats} answered whole, the urgent byte in its place"


GATE = Gate(
    number=17,
    promise="Urgent data is answered like other bytes, in its place, and delays nothing.",
    doing="`abc`, an urgent `!`, `def`, {repeats}x",
    run=run,
    limit=lambda sizes: 60 + sizes.repeats,
)
