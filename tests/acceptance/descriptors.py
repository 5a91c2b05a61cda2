"""Gate 5: far more clients than descriptors."""

import shutil
from contextlib import AsyncExitStack

import trio

from tests.acceptance.clients import speak, take_leave
from tests.acceptance.gate import Gate, Sizes, Skipped, expect
from tests.acceptance.servers import WatchedServer, expect_soon, hosting

# Descriptors that the server may have open (RLIMIT_NOFILE).
LIMIT = 64

# So many of these must be clients, or the reserve is too large.
FEWEST_SERVED = 16

# How often every place is filled: what the first round leaks is missing in the second.
TURNS = 2

# The share of a core that it may use then; a busy loop uses all of it.
MOST_BUSY = 0.3


async def enter(
    server: WatchedServer, stack: AsyncExitStack, count: int
) -> list[trio.SocketStream]:
    """Connect so many clients, which stay until `stack` closes them, whatever they are told."""
    return [await stack.enter_async_context(await server.connect()) for _ in range(count)]


async def busy(server: WatchedServer, seconds: float) -> float:
    """Return the share of a core that the server uses while it is asked nothing."""
    before = server.cpu()
    await trio.sleep(seconds)
    return (server.cpu() - before) / seconds


async def fill_once(server: WatchedServer, places: int, sizes: Sizes) -> float:
    """Fill every place, bring a crowd, let all leave; return how busy the server was."""
    refused = server.passed("client refused") + sizes.wanting
    async with AsyncExitStack() as house:
        inside = await enter(server, house, places)
        for number, stream in enumerate(inside):
            await speak(stream, b"client %d is inside\n" % number)
        async with AsyncExitStack() as street:
            await enter(server, street, sizes.wanting)
            await expect_soon(
                lambda: server.passed("client refused") == refused,
                lambda: f"{refused - server.passed('client refused')} were not even refused",
            )
            share = await busy(server, sizes.measure)
            for number, stream in enumerate(inside):
                await speak(stream, b"client %d is still inside\n" % number)
        for stream in inside:
            await take_leave(stream)
    return share


async def run(sizes: Sizes) -> str:
    """Fill every place, several times."""
    prlimit = shutil.which("prlimit")
    if prlimit is None:
        raise Skipped("needs prlimit")
    async with hosting(prefix=(prlimit, f"--nofile={LIMIT}:{LIMIT}")) as server:
        places = (await server.event("client limit lowered"))["max_clients"]
        expect(FEWEST_SERVED <= places < LIMIT, f"{places} places with {LIMIT} descriptors")
        shares = [await fill_once(server, places, sizes) for _ in range(TURNS)]
    seen = f"{places} were served, twice; {max(shares):.0%} of a processor while full"
    expect(max(shares) <= MOST_BUSY, f"it spins: {seen}")
    return seen


GATE = Gate(
    number=5,
    promise="Running out of descriptors hurts nobody: fewer clients are served, the others are "
    "refused, and the processor rests.",
    doing=f"RLIMIT_NOFILE {LIMIT}; {{wanting}} want in beside those who fill it, twice",
    run=run,
    limit=lambda sizes: 60 + sizes.wanting / 10 + TURNS * sizes.measure,
)
