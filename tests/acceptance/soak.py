"""Gate 8: a long time, with clients that die at random."""

import signal
import statistics
import subprocess
from contextlib import suppress
from functools import partial
from itertools import cycle, islice

import trio

from tests.acceptance.churn import come_and_go
from tests.acceptance.clients import MANNERS, dice_of, neighbour, speak
from tests.acceptance.gate import Gate, Sizes, expect
from tests.acceptance.servers import KIB, MIB, expect_soon, hosting
from tests.helpers.program import LOCALHOST, Server, command

PROCESSES = 2
"""Clients that are processes of the real program, and die by SIGKILL."""

LONGEST_LIFE_S = 1.0
"""Of a client; each dies at a random moment before that."""

MOST_WORDS = 20
"""That a client says in its life, with random pauses in between."""

WARM_LIVES = 20
"""Of each manner before anything else, so that what each of them needs is there."""

WARM = 0.3
"""Of the time: within it the memory comes to where it stays."""

LOOKS = 200
"""At the memory, spread over the rest of the time."""

MOST_GROWN = 2 * MIB
"""In that rest, by the slope through all looks, in bytes: what a server has more of in one moment
than in another. Two hundred bytes lost with each client are as much within a minute."""

START_S = 0.3
"""For a client's process to start, more or less."""

LINES = b"the quick brown fox jumps over the lazy dog\n" * 100
REST_S = 0.05
"""What it is fed, and the seconds between two times."""

SEED = 8


class Souls:
    """The clients of one server, each of which lives and dies, and is followed by another."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._dice = dice_of(SEED)
        self.lives = 0

    async def wander(self) -> None:
        """Live again and again as a client in this process, and die in some manner."""
        while True:
            async with await self._server.connect() as stream:
                self.lives += 1
                for _ in range(self._dice.randrange(MOST_WORDS)):
                    await speak(stream, self._dice.randbytes(10).hex().encode() + b" ...\n")
                    await trio.sleep(self._dice.uniform(0, LONGEST_LIFE_S / MOST_WORDS))
                await self._dice.choice(MANNERS)(stream, self._dice)

    async def be_killed(self) -> None:
        """Live again and again as a process, and be killed at any point of a conversation."""
        start = partial(
            trio.run_process,
            command("client", LOCALHOST, str(self._server.port)),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        while True:
            async with trio.open_nursery() as nursery:
                process = await nursery.start(start)
                nursery.start_soon(_feed, process)
                await trio.sleep(START_S + self._dice.uniform(0, LONGEST_LIFE_S))
                process.kill()
            ended = process.returncode
            expect(ended == -signal.SIGKILL, f"before it was killed a client ended with {ended}")
            self.lives += 1


async def _feed(process: trio.Process) -> None:
    assert process.stdin
    with suppress(trio.BrokenResourceError):
        while True:
            await process.stdin.send_all(LINES)
            await trio.sleep(REST_S)


async def slope(server: Server, seconds: float) -> float:
    """Return by how many bytes a second the server's memory grows."""
    times: list[float] = []
    sizes: list[int] = []
    while len(sizes) < LOOKS:
        times.append(trio.current_time())
        sizes.append(server.memory())
        await trio.sleep(seconds / LOOKS)
    return statistics.linear_regression(times, sizes).slope


async def warm_up(server: Server, at_once: int) -> None:
    """Have each manner of client, so many at once."""
    manners, dice = islice(cycle(MANNERS), WARM_LIVES * len(MANNERS)), dice_of(SEED)
    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(come_and_go, server, manners, dice)


async def run(sizes: Sizes) -> str:
    """Let them live and die, and look at the memory meanwhile."""
    measured = sizes.soak * (1 - WARM)
    async with hosting() as server, neighbour(server) as answers:
        before, souls = server.descriptors(), Souls(server)
        await warm_up(server, sizes.souls)
        async with trio.open_nursery() as nursery:
            for _ in range(sizes.souls):
                nursery.start_soon(souls.wander)
            for _ in range(PROCESSES):
                nursery.start_soon(souls.be_killed)
            await trio.sleep(sizes.soak * WARM)
            grown = measured * await slope(server, measured)
            nursery.cancel_scope.cancel()
        await expect_soon(
            lambda: server.descriptors() <= before,
            lambda: f"{server.descriptors() - before} descriptors were left",
        )
    seen = f"{souls.lives} lives; memory {grown / KIB:+.0f} KiB in {measured:g} s; {answers}"
    expect(grown <= MOST_GROWN, f"memory is lost: {seen}")
    return seen


GATE = Gate(
    number=8,
    promise="It can be left running: memory does not grow, whatever becomes of the clients.",
    doing="{souls} clients at a time live and die at random for {soak:g} s, some by SIGKILL",
    run=run,
    limit=lambda sizes: 60 + sizes.soak,
)
