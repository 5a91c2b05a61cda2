"""Gate 8: a long time, with clients that die at random, freezes and restarts."""

import math
import random
import signal
import statistics
import subprocess
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from tests.acceptance.churn import come_and_go
from tests.acceptance.clients import (
    MANNERS,
    dice_of,
    in_time,
    is_polite_over_tls,
    neighbour,
    stalls_in_the_handshake,
)
from tests.acceptance.gate import Broken, Gate, Sizes, expect
from tests.acceptance.servers import (
    KIB,
    MIB,
    WatchedServer,
    expect_no_descriptor_left,
    frozen,
    hosting,
)
from tests.acceptance.talkers import Talker
from tests.helpers.certificates import issue, pair_file
from tests.helpers.program import LOCALHOST, Server, command, one
from tests.helpers.waiting import eventually

# Clients that are processes of the real program, and die by SIGKILL.
PROCESSES = 2

# Clients of the server that speaks TLS, which is run beside the other one.
TLS_CLIENTS = 4

# Of a client in this process, in seconds, and the rest between two of its lines.
LONGEST_LIFE_SECONDS = 1.0
LONGEST_REST_SECONDS = 0.05

# Of each manner before anything is measured, so that what each of them needs is there.
WARM_LIVES = 20

# Of the life of a server: within it the memory comes to where it stays.
WARM = 0.3

# At the memory, spread over the rest of that life.
LOOKS = 200

# In that rest, by the slope through all looks, in bytes: what a server has more of in one moment
# than in another. Two hundred bytes lost with each client are as much within a minute.
MOST_GROWN = 2 * MIB

# For a client's process to start, more or less.
START_SECONDS = 0.3

# What it is fed, and the pause between two portions.
LINES = b"the quick brown fox jumps over the lazy dog\n" * 100
MEAL_SECONDS = 0.05

# How long a freeze lasts, and how long the server runs between two of them. Some are longer than
# the server lets a client be idle.
IDLE_SECONDS = 2.0
LONGEST_FREEZE_SECONDS = 2.5
MOST_FREEZES_APART_SECONDS = 15.0

# The lives of the server: it is restarted twice. Nobody has to be cut on the way.
LIVES = 3
GRACE_SECONDS = 60.0

TLS_MANNERS = (is_polite_over_tls, stalls_in_the_handshake)

SEED = 8


@dataclass(slots=True)
class Tally:
    """What has happened up to now."""

    lives: int = 0
    killed: int = 0
    lines: int = 0
    freezes: int = 0
    restarts: int = 0
    tls: int = 0
    slowest: float = 0.0
    grown: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        grown = ", ".join(f"{size / KIB:+.0f} KiB" for size in self.grown)
        return (
            f"{self.lives} clients, {self.killed} more killed by SIGKILL, {self.tls} over TLS; "
            f"{self.lines} lines answered, none owed was lost; a neighbour's slowest answer came "
            f"after {self.slowest:.1f} s; {self.freezes} freezes, "
            f"{self.restarts} restarts; memory {grown} in the lives of the server; no descriptor "
            "left, every line of the logs JSON"
        )


class Souls:
    """The clients of one life of a server, each of which dies, and is followed by another."""

    def __init__(self, server: WatchedServer, tally: Tally, dice: random.Random) -> None:
        self._server = server
        self._tally = tally
        self._dice = dice
        self._last = False
        self._stopped = math.inf
        # Coming or going: a server that stops has nothing to drain for those.
        self._passing = 0
        self._living: list[Talker] = []

    async def wander(self) -> None:
        """Live again and again in this process, and die in some manner, or with the server."""
        while not self._last:
            self._passing += 1
            async with await self._server.connect() as stream:
                self._tally.lives += 1
                talker = Talker(stream, f"soul {self._tally.lives}")
                self._living.append(talker)
                await talker.greet()
                self._passing -= 1
                rest = self._dice.uniform(0, LONGEST_REST_SECONDS)
                await talker.chat(self._until_its_end(), rest=rest)
                if self._last:
                    await talker.listen()
                    return
                self._living.remove(talker)
                self._tally.lines += talker.lines
                wrong: Exception | None = None
                try:
                    expect(not talker.ended, "the server has ended the conversation")
                    await self._die(stream)
                except (Broken, OSError, trio.BrokenResourceError) as error:
                    wrong = error
                if wrong is not None:
                    account = await self._server.account_of(talker.peer)
                    raise Broken(f"{talker}: {wrong!r}; {account}") from wrong

    def _until_its_end(self) -> Callable[[], bool]:
        """Return whether a client has lived for long enough; the last ones survive the stop."""
        life = self._dice.uniform(0, LONGEST_LIFE_SECONDS)
        end = trio.current_time() + life
        return lambda: trio.current_time() >= (self._stopped + life if self._last else end)

    async def _die(self, stream: trio.SocketStream) -> None:
        self._passing += 1
        await self._dice.choice(MANNERS)(stream, self._dice)
        self._passing -= 1

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
                await trio.sleep(START_SECONDS + self._dice.uniform(0, LONGEST_LIFE_SECONDS))
                process.kill()
            ended = process.returncode
            expect(ended == -signal.SIGKILL, f"before it was killed a client ended with {ended}")
            self._tally.killed += 1

    async def stop(self) -> None:
        """Tell the server to stop; who is not about to die talks on for a while."""
        self._last = True
        await eventually(lambda: not self._passing)
        self._server.send(signal.SIGTERM)
        self._stopped = trio.current_time()

    def settle(self) -> None:
        """Settle the accounts of those who lived when the server ended."""
        for talker in self._living:
            # An earlier client may have had the same port, but did not live to see the stop.
            gone = self._server.logged("client gone", peer=talker.peer, end="shutdown")
            expect(gone, f"{talker.peer} was not drained")
            talker.settle(one(gone)["received"])
            self._tally.lines += talker.lines


async def _feed(process: trio.Process) -> None:
    assert process.stdin
    with suppress(trio.BrokenResourceError):
        while True:
            await process.stdin.send_all(LINES)
            await trio.sleep(MEAL_SECONDS)


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


class Soak:
    """Lives of a server, one after the other on the same port."""

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self._seconds = sizes.seconds / LIVES
        self._dice = dice_of(SEED)
        self.tally = Tally()

    async def run(self) -> None:
        """Have one life after the other; at the end of each the clients talk on."""
        port = 0
        for life in range(LIVES):
            async with self._hosting(port) as server:
                port = server.port
                souls = Souls(server, self.tally, self._dice)
                async with trio.open_nursery() as freezing:
                    freezing.start_soon(self._freeze, server)
                    await self._live(server, souls, last=life == LIVES - 1)
                    with in_time("the server did not stop", GRACE_SECONDS):
                        await server.finish()
                    freezing.cancel_scope.cancel()
                if life < LIVES - 1:
                    souls.settle()
            self.tally.restarts += life > 0

    def _hosting(self, port: int) -> AbstractAsyncContextManager[WatchedServer]:
        idle, grace = str(IDLE_SECONDS), str(GRACE_SECONDS)
        return hosting("--port", str(port), "--idle-timeout", idle, "--grace", grace)

    async def _live(self, server: WatchedServer, souls: Souls, *, last: bool) -> None:
        """Let its clients live; all but the last life of the server end among them."""
        measured = self._seconds * (1 - WARM)
        before = server.descriptors()
        await warm_up(server, self._sizes.souls)
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as killed, neighbour(server) as answers:
                for _ in range(self._sizes.souls):
                    nursery.start_soon(souls.wander)
                for _ in range(PROCESSES):
                    killed.start_soon(souls.be_killed)
                await trio.sleep(self._seconds * WARM)
                self.tally.grown.append(measured * await slope(server, measured))
                self.tally.slowest = max(self.tally.slowest, answers.slowest)
                killed.cancel_scope.cancel()
            if last:
                nursery.cancel_scope.cancel()
            else:
                await souls.stop()
        if last:
            await expect_no_descriptor_left(server, before)

    async def _freeze(self, server: WatchedServer) -> None:
        apart = min(MOST_FREEZES_APART_SECONDS, self._seconds / 2)
        longest = min(LONGEST_FREEZE_SECONDS, self._seconds / 2)
        while True:
            await trio.sleep(self._dice.uniform(0, apart))
            async with frozen(server):
                await trio.sleep(self._dice.uniform(0, longest))
            self.tally.freezes += 1

    async def stall(self) -> None:
        """Beside it, let clients come and go at a server that speaks TLS; some of them stall."""
        with TemporaryDirectory() as name:
            cert = pair_file(Path(name), issue("localhost"))
            async with hosting("--tls-cert", str(cert)) as server:
                before = server.descriptors()
                async with trio.open_nursery() as nursery:
                    for _ in range(TLS_CLIENTS):
                        nursery.start_soon(self._come_over_tls, server)
                    await trio.sleep(self._sizes.seconds * WARM)
                    measured = self._sizes.seconds * (1 - WARM)
                    self.tally.grown.append(measured * await slope(server, measured))
                    nursery.cancel_scope.cancel()
                await expect_no_descriptor_left(server, before)

    async def _come_over_tls(self, server: WatchedServer) -> None:
        while True:
            async with await server.connect() as stream:
                await self._dice.choice(TLS_MANNERS)(stream, self._dice)
            self.tally.tls += 1


async def run(sizes: Sizes) -> str:
    """Let them live and die, and look at the memory meanwhile."""
    soak = Soak(sizes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(soak.stall)
        await soak.run()
    seen = str(soak.tally)
    expect(max(soak.tally.grown) <= MOST_GROWN, f"memory is lost: {seen}")
    return seen


GATE = Gate(
    number=8,
    promise="It can be left running: nothing owed is lost, and memory and descriptors do not grow, "
    "whatever becomes of its clients and of the machine.",
    doing="{souls} clients at a time live and die at random for {seconds:g} s: by resets, SIGKILL, "
    "urgent data, stalled TLS handshakes; freezes of the server, two restarts",
    run=run,
    limit=lambda sizes: 240 + 1.5 * sizes.seconds,
)
