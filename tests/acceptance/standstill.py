"""Gate 15: the server stands still for a while, as on a suspended laptop."""

import math

import trio

from tests.acceptance.clients import speak, take_leave
from tests.acceptance.drain import MORE_GRACE_SECONDS, Party
from tests.acceptance.gate import Gate, Sizes, expect
from tests.acceptance.servers import WatchedServer, frozen, hosting, need_descriptors
from tests.helpers.program import one
from tests.helpers.waiting import TIMEOUT_SECONDS

# Silence after which a client is closed: this, or more where this machine needs more to hear all
# clients once. The freeze is longer.
IDLE_SECONDS = 2.0
FREEZE_SHARE = 1.3

# While a server drains; several times the silence that ends a client then.
SHORT_FREEZE_SECONDS = 0.4

# Until the freeze each client says something so often in that time: none of them is idle before it.
OFTEN = 3

# One client in so many says nothing during the freeze, but right after it.
LATE = 4

# Connections that are being made at a time.
AT_ONCE = 200


class Audience:
    """Clients that talk until the server is about to freeze, and say one thing more then."""

    def __init__(self, server: WatchedServer, size: int, idle_seconds: float) -> None:
        self._server = server
        self._rest = idle_seconds / OFTEN
        self._freeze_seconds = FREEZE_SHARE * idle_seconds
        self._door = trio.CapacityLimiter(AT_ONCE)
        self._missing = size
        self.complete = trio.Event()
        self.hush = trio.Event()
        self.freeze = trio.Event()
        self.thaw = trio.Event()
        self._silent = size
        self.silent = trio.Event()

    async def attend(self, number: int) -> None:
        async with self._door:
            stream = await self._server.connect()
        async with stream:
            await speak(stream, b"client %d is here\n" % number)
            self._missing -= 1
            if not self._missing:
                self.complete.set()
            while not self.hush.is_set():
                with trio.move_on_after(self._rest):
                    await self.hush.wait()
                await speak(stream, b"client %d is awake\n" % number)
            self._silent -= 1
            if not self._silent:
                self.silent.set()
            await (self.freeze if number % LATE else self.thaw).wait()
            last = f"straße, says client {number}\n".encode()
            await speak(stream, last, within=TIMEOUT_SECONDS + self._freeze_seconds)
            await take_leave(stream)


async def measure_pace(clients: int) -> float:
    """Return how many seconds it takes so many clients to connect, and to have one reply each."""
    async with hosting("--idle-timeout", "0") as server:
        began = trio.current_time()
        audience = Audience(server, clients, math.inf)
        async with trio.open_nursery() as nursery:
            for number in range(clients):
                nursery.start_soon(audience.attend, number)
            await audience.complete.wait()
            nursery.cancel_scope.cancel()
        return trio.current_time() - began


async def freeze_idle(sizes: Sizes) -> str:
    """Freeze a server for longer than its clients may be idle; nobody is told that it was."""
    idle = max(IDLE_SECONDS, OFTEN * await measure_pace(sizes.frozen))
    async with hosting("--idle-timeout", f"{idle:.1f}") as server:
        audience = Audience(server, sizes.frozen, idle)
        async with trio.open_nursery() as nursery:
            for number in range(sizes.frozen):
                nursery.start_soon(audience.attend, number)
            await audience.complete.wait()
            audience.hush.set()
            await audience.silent.wait()
            async with frozen(server):
                audience.freeze.set()
                await trio.sleep(FREEZE_SHARE * idle)
            audience.thaw.set()
        closed = server.passed("client gone", "idle")
        expect(not closed, f"{closed} of {sizes.frozen} clients were closed as idle")
    return (
        f"{sizes.frozen} clients answered after {FREEZE_SHARE * idle:.1f} s at --idle-timeout "
        f"{idle:.1f}"
    )


async def freeze_draining(sizes: Sizes) -> str:
    """Freeze a server while it drains; what its kernel had by the thaw is answered."""
    grace = sizes.talk + SHORT_FREEZE_SECONDS + MORE_GRACE_SECONDS
    async with hosting("--grace", str(grace)) as server:
        party = Party(server, sizes.talk)
        async with trio.open_nursery() as nursery:
            for number in range(sizes.talkers):
                nursery.start_soon(party.take_part, number)
            await trio.sleep(sizes.talk)
            party.stop()
            await server.event("stopping")
            async with frozen(server):
                await trio.sleep(SHORT_FREEZE_SECONDS)
                owed = {talker.peer: talker.sent for talker in party.talkers}
        with trio.fail_after(TIMEOUT_SECONDS):
            code = await server.ended()
        expect(code == 0, f"the exit code was {code}")
        party.settle()
        for peer, sent in owed.items():
            received = one(server.logged("client gone", peer=peer))["received"]
            missing = sent - received
            expect(missing <= 0, f"{peer}: {missing} bytes were not read after the freeze")
    return f"frozen for {SHORT_FREEZE_SECONDS:g} s in a drain, it answered all it had"


async def run(sizes: Sizes) -> str:
    """Freeze one server that serves, and one that drains."""
    need_descriptors(sizes.frozen)
    return f"{await freeze_idle(sizes)}; {await freeze_draining(sizes)}"


GATE = Gate(
    number=15,
    promise="After a standstill of the whole process no client is called silent, and no drain is "
    "over, while a message lies unread in the kernel.",
    doing=f"{{frozen}} clients, SIGSTOP for longer than --idle-timeout of {IDLE_SECONDS:g} s; "
    f"{{talkers}} clients, SIGSTOP for {SHORT_FREEZE_SECONDS:g} s in a drain",
    run=run,
    limit=lambda sizes: 120 + sizes.frozen / 10 + 3 * sizes.talk,
)
