"""Gate 2: a great many rude clients."""

import random
from collections.abc import Iterator
from itertools import cycle, islice

import trio

from tests.acceptance.clients import MANNERS, Manner, dice_of, neighbour
from tests.acceptance.gate import Gate, Sizes
from tests.acceptance.servers import expect_no_descriptor_left, expect_soon, hosting
from tests.helpers.program import Server

# Rude clients at a time.
AT_ONCE = 64

SEED = 2


async def come_and_go(server: Server, manners: Iterator[Manner], dice: random.Random) -> None:
    """Play one manner of client after another until none is left."""
    for manner in manners:
        async with await server.connect() as stream:
            await manner(stream, dice)


async def run(sizes: Sizes) -> str:
    """Run them all, a limited number at a time."""
    manners, dice = islice(cycle(MANNERS), sizes.connects), dice_of(SEED)
    async with hosting() as server, neighbour(server) as answers:
        before = server.descriptors()
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(come_and_go, server, manners, dice)
        await expect_soon(
            lambda: server.passed("client gone") == sizes.connects,
            lambda: (
                f"of {sizes.connects} clients {server.passed('client gone')} were logged as gone"
            ),
        )
        await expect_no_descriptor_left(server, before)
        ends = {end: server.passed("client gone", end) for end in ("eof", "reset")}
    return (
        f"{ends['eof']} ended, {ends['reset']} were reset, no traceback, no descriptor left; "
        f"{answers}"
    )


GATE = Gate(
    number=2,
    promise="Rude clients disturb nobody and leave nothing behind.",
    doing="{connects} connect and close: at once, by resets, in half messages, with random bytes, "
    "TLS hellos, bulk",
    run=run,
    limit=lambda sizes: 60 + sizes.connects / 100,
)
