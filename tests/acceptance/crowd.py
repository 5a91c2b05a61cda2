"""Gate 1: a great many clients at once."""

import trio

from tests.acceptance.clients import speak, take_leave
from tests.acceptance.gate import Gate, Sizes, expect
from tests.acceptance.servers import KIB, MIB, expect_no_descriptor_left, hosting, need_descriptors
from tests.helpers.program import Server

# Connections being made at a time: far fewer than fill a backlog.
AT_ONCE = 200

# Clients before anything is measured, so that what a server allocates once is there.
WARM = 100

# Memory for a client, in bytes.
MOST_EACH = 6 * KIB

# Of the memory that they took the first time: what an allocator keeps is used again, and a leak
# would double it.
MOST_SECOND_TIME = 1.1

# What an allocator rounds to, in bytes; negligible with thousands of clients.
SLACK = 2 * MIB


class Party:
    """Clients that wait for each other: none goes on before all are connected."""

    def __init__(self, guests: int) -> None:
        self._missing = guests
        self.complete = trio.Event()
        self.begins = trio.Event()

    def arrive(self) -> None:
        """Count one more as connected."""
        self._missing -= 1
        if not self._missing:
            self.complete.set()


async def attend(server: Server, number: int, door: trio.CapacityLimiter, party: Party) -> None:
    """Connect, exchange a message, wait for the others, exchange another, and leave."""
    async with door:
        stream = await server.connect()
    async with stream:
        await speak(stream, f"client {number} is here: {'ŉ' * (number % 50)}\n".encode())
        party.arrive()
        await party.begins.wait()
        await speak(stream, f"client {number} says: straße 日本 {number * number}\n".encode())
        await take_leave(stream)


async def visit(server: Server, clients: int) -> int:
    """Connect so many clients at once; return the server's memory meanwhile, in bytes."""
    door, party = trio.CapacityLimiter(AT_ONCE), Party(clients)
    before = server.descriptors()
    async with trio.open_nursery() as nursery:
        for number in range(clients):
            nursery.start_soon(attend, server, number, door, party)
        await party.complete.wait()
        memory = server.memory()
        party.begins.set()
    await expect_no_descriptor_left(server, before)
    return memory


async def run(sizes: Sizes) -> str:
    """Connect the crowd twice."""
    need_descriptors(sizes.clients)
    places = str(max(sizes.clients, WARM))
    async with hosting("--max-clients", places) as server:
        await visit(server, WARM)
        before = server.memory()
        first = await visit(server, sizes.clients) - before
        kept = server.memory() - before
        again = await visit(server, sizes.clients) - before
    each = first / sizes.clients
    seen = (
        f"each right, twice; {each / KIB:.1f} KiB each, {again / sizes.clients / KIB:.1f} the "
        f"second time; no descriptor left, {kept / MIB:.1f} of {first / MIB:.1f} MiB kept for the "
        "next ones"
    )
    expect(each <= MOST_EACH + SLACK / sizes.clients, f"too much memory: {seen}")
    expect(again <= first * MOST_SECOND_TIME + SLACK, f"memory was lost: {seen}")
    return seen


GATE = Gate(
    number=1,
    promise="Thousands of clients are served at once, each its own words, in at most 6 KiB each, "
    "and leave nothing behind.",
    doing="{clients} clients connect and stay, all speak, all leave; then as many again",
    run=run,
    limit=lambda sizes: 60 + sizes.clients / 50,
)
