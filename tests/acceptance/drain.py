"""Gate 6: the server is told to stop while many clients talk."""

import math
import signal
from collections.abc import Callable

import trio

from tests.acceptance.clients import dice_of
from tests.acceptance.gate import Gate, Sizes, expect
from tests.acceptance.servers import WatchedServer, hosting
from tests.acceptance.talkers import QUIET_SECONDS, Talker
from tests.helpers.program import one

# One client in so many does not wait for replies; one in so many rests between two lines, for less
# than what makes it quiet.
POURING, RESTING = 10, 3

# Longer than the clients talk: none has to be cut, even on the slowest machine.
MORE_GRACE_SECONDS = 20.0

SEED = 6


class Party:
    """The clients of one server, and when they stop talking: each some time after the stop."""

    def __init__(self, server: WatchedServer, longest: float) -> None:
        self._server = server
        self._longest = longest
        self._dice = dice_of(SEED)
        self._stopped = math.inf
        self.talkers: list[Talker] = []

    async def take_part(self, number: int) -> None:
        """Be one of the clients."""
        after = self._dice.uniform(0, self._longest)
        async with await self._server.connect() as stream:
            talker = Talker(stream, f"client {number}")
            self.talkers.append(talker)
            await self._talk(talker, number, lambda: trio.current_time() >= self._stopped + after)

    async def _talk(self, talker: Talker, number: int, enough: Callable[[], bool]) -> None:
        if number % POURING == 0:
            await talker.pour(enough)
            return
        await talker.chat(enough, rest=0.0 if number % RESTING else QUIET_SECONDS / 2)
        await talker.listen()

    def stop(self) -> None:
        """Tell the server to stop, while all talk."""
        self._server.send(signal.SIGTERM)
        self._stopped = trio.current_time()

    def settle(self) -> int:
        """Settle all accounts; return how many bytes crossed the closing notice."""
        missed = 0
        for talker in self.talkers:
            gone = one(self._server.logged("client gone", peer=talker.peer))
            expect(gone["end"] == "shutdown", f"{talker.peer} ended by {gone['end']}")
            missed += talker.settle(gone["received"])
        return missed


async def stop_under_load(sizes: Sizes, *options: str) -> str:
    """Stop a server, run with `options`, amid clients that talk on for a while."""
    async with hosting("--grace", str(sizes.talk + MORE_GRACE_SECONDS), *options) as server:
        party = Party(server, sizes.talk)
        async with trio.open_nursery() as nursery:
            for number in range(sizes.talkers):
                nursery.start_soon(party.take_part, number)
            await trio.sleep(sizes.talk)
            party.stop()
            stopped = trio.current_time()
        code = await server.ended()
        seconds = trio.current_time() - stopped
        expect(code == 0, f"the exit code was {code}")
        cut = sum(event.get("cut", 0) for event in server.logged("stopped"))
        expect(cut == 0, f"{cut} clients were cut")
        missed = party.settle()
    lines = sum(talker.lines for talker in party.talkers)
    return (
        f"{lines} lines answered, each client had the notice and an end, {missed} bytes met the "
        f"closing notice on the way; exit code 0 after {seconds:.1f} s"
    )


GATE = Gate(
    number=6,
    promise="SIGTERM loses no reply: what was received is answered, talking clients are not "
    "interrupted, then each gets a notice and a proper end; the exit code is 0.",
    doing="{talkers} clients talk all the time; SIGTERM; they go on for up to {talk:g} s",
    run=stop_under_load,
    limit=lambda sizes: 60 + 3 * sizes.talk + MORE_GRACE_SECONDS,
)
