"""Gate 11: a worker is killed under load, and so is the parent of the workers."""

import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from tests.acceptance.clients import in_time, peer_name, speak
from tests.acceptance.drain import stop_under_load
from tests.acceptance.gate import Gate, Sizes, Skipped, expect
from tests.acceptance.servers import WatchedServer, expect_soon, hosting
from tests.helpers.program import run as run_program
from tests.helpers.streams import ask, upper

# For what follows at once, on a busy machine, in seconds.
WORKERS = 2
OPTIONS = ("--workers", str(WORKERS))

AT_ONCE_SECONDS = 5.0

# As many clients as asked for may be needed before one comes to the second worker: whoever is awake
# first accepts all that wait.
MOST_TIMES = 20

# For clients that talk on when the parent has gone, in seconds.
SHORT_GRACE = ("--grace", "0.3")

# Between two questions of a client.
REST_SECONDS = 0.005

# Of /proc/PID/stat, counted behind the command in parentheses; proc_pid_stat(5).
QUESTION = "straße\n".encode()

STATE_FIELD, ZOMBIE = 0, "Z"


class Caller:
    """A client that asks again and again; it must be answered right, up to the server's end."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.peer = peer_name(stream)
        self.answers = 0
        self.ended = trio.Event()

    async def ask_on(self) -> None:
        """Ask until the server ends, in whatever way."""
        wanted = upper(QUESTION)
        async with self._stream:
            with suppress(trio.BrokenResourceError):
                while answer := await ask(self._stream, QUESTION):
                    expect(wanted.startswith(answer), f"{QUESTION!r} was answered {answer!r}")
                    self.answers += 1
                    await trio.sleep(REST_SECONDS)
        self.ended.set()


@asynccontextmanager
async def callers(server: WatchedServer, count: int) -> AsyncGenerator[list[Caller]]:
    """While the block runs, so many clients ask; or more, so that each worker has one."""
    some: list[Caller] = []
    async with trio.open_nursery() as nursery:
        while len(some) < count or len(set(homes(server).values())) < WORKERS:
            expect(len(some) < MOST_TIMES * count, f"all of {len(some)} clients are one worker's")
            caller = Caller(await server.connect())
            nursery.start_soon(caller.ask_on)
            some.append(caller)
            await server.repeated("client connected", len(some))
        yield some
        nursery.cancel_scope.cancel()


def homes(server: WatchedServer) -> dict[str, int]:
    """Return the number of the worker that each client has, by the client's name in the log."""
    return {event["peer"]: event["worker"] for event in server.logged("client connected")}


async def workers(server: WatchedServer, count: int) -> dict[int, int]:
    """Return the process ids of the workers by their numbers, as soon as `count` have started."""
    started = await server.repeated("worker started", count)
    return {event["worker"]: event["pid"] for event in started}


def lives(pid: int) -> bool:
    """Tell whether there is such a process that has not ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[STATE_FIELD] != ZOMBIE


async def kill_worker(server: WatchedServer, pids: dict[int, int], some: list[Caller]) -> str:
    """Kill the first client's worker: its clients see the end, the others notice nothing."""
    home = homes(server)
    victim = home[some[0].peer]
    lost = [one for one in some if home[one.peer] == victim]
    others = [one for one in some if home[one.peer] != victim]
    os.kill(pids[victim], signal.SIGKILL)
    with in_time("the clients of a killed worker did not see the end", AT_ONCE_SECONDS):
        for one in lost:
            await one.ended.wait()
    answers = [one.answers for one in others]
    await expect_soon(
        lambda: all(one.answers > before for one, before in zip(others, answers, strict=True)),
        lambda: "the other worker's clients are not answered any more",
    )
    expect(not any(one.ended.is_set() for one in others), "other clients were lost, too")
    await expect_soon(
        lambda: len(server.logged("worker started")) > WORKERS,
        lambda: "no worker was started in its place",
    )
    again = await workers(server, WORKERS + 1)
    expect(again[victim] != pids[victim] and lives(again[victim]), "the new worker does not live")
    return f"{len(lost)} clients lost with it, {len(others)} others answered on, a new one came"


async def greet(server: WatchedServer, count: int) -> None:
    """Connect so many new clients, one after another."""
    for number in range(count):
        async with await server.connect() as stream:
            await speak(stream, b"new client %d\n" % number)


async def kill_parent(sizes: Sizes) -> None:
    """Kill the parent under load: no worker may be left."""
    pids: dict[int, int] = {}
    try:
        async with hosting(*OPTIONS, *SHORT_GRACE, code=-signal.SIGKILL) as server:
            pids = await workers(server, WORKERS)
            async with callers(server, sizes.talkers):
                server.send(signal.SIGKILL)
                await expect_soon(
                    lambda: not any(map(lives, pids.values())),
                    lambda: "a worker outlived its parent",
                )
    finally:
        for pid in filter(lives, pids.values()):
            os.kill(pid, signal.SIGKILL)


async def run(sizes: Sizes) -> str:
    """Kill a worker, stop all under load, kill the parent."""
    if b"--workers" not in (await run_program("serve", "--help")).stdout:
        raise Skipped("serve has no --workers")
    async with hosting(*OPTIONS) as server:
        pids = await workers(server, WORKERS)
        async with callers(server, sizes.talkers) as some:
            seen = await kill_worker(server, pids, some)
            await greet(server, sizes.talkers)
    drained = await stop_under_load(sizes, *OPTIONS)
    await kill_parent(sizes)
    return f"{seen}; SIGTERM to the parent: {drained}; SIGKILL to it left no process"


GATE = Gate(
    number=11,
    promise="A worker that dies takes only its own clients with it, and is started again; SIGTERM "
    "drains all workers, SIGKILL to their parent leaves none.",
    doing="--workers 2 under {talkers} clients: a worker is killed; SIGTERM; the parent is killed",
    run=run,
    limit=lambda sizes: 150 + 3 * sizes.talk,
)
