"""Gate 3: clients that do not read, clients that hardly read, and their neighbour."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from tests.acceptance.clients import Reply
from tests.acceptance.gate import Broken, Gate, Sizes, expect
from tests.acceptance.servers import KIB, hosting
from tests.acceptance.stopwatch import ROUNDS, Stopwatch, make_stopwatch
from tests.helpers.program import Event, Server
from tests.helpers.streams import receive

# Of the neighbour's 99th percentile beside them to the one alone.
MOST_RATIO = 3.0

# Allowed beside that. Where other programs use all cores, whoever is woken may have to wait for one
# for a slice of each of two of them (3 ms by default, sched(7)), whatever the server does.
NOISE_MS = 6.0

# 64 KiB, of which more and more is sent until nothing is taken.
PIECE = b"the quick brown fox jumps over the lazy dog 0123456789\n" * 1200

# Bytes that a slow client's system takes for it: so the window opens in small steps.
SMALL_BUFFER = 4 * KIB

# Bytes that a dripper takes at a time, and seconds between two times. With less, its system would
# open the window so seldom (RFC 9293, section 3.8.6.2.2) that the server took it for stuck.
DRIP, DRIP_INTERVAL = 2 * KIB, 0.1

# Seconds of nothing taken, after which the buffers on the way are full.
STUCK = 0.3

# For how many write time-outs drippers go on, and some more.
SLOW = 1.5

# The server looks for stuck clients this often, or more often; in seconds.
INSPECTION_SECONDS = 1.0

# Memory for each of them, in bytes: one read and its reply, twice.
MOST_EACH = 512 * KIB

# Beyond the write time-out: for an inspection, and a busy machine.
SLACK_SECONDS = 4.0


class Slow:
    """A slow client: it sends more and more, and does not care whether it is answered."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._stop = False
        self.stuck = trio.Event()
        self.sent = 0
        self._last = trio.current_time()
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, SMALL_BUFFER)

    async def send_on(self) -> None:
        """Send until told to stop, then end; note when nothing is taken any more."""
        while not self._stop:
            with trio.move_on_after(STUCK) as limit:
                self.sent += await self._stream.socket.send(PIECE[self.sent % len(PIECE) :])
                self._last = trio.current_time()
            if limit.cancelled_caught:
                self.stuck.set()
        await self._stream.send_eof()

    def stop(self) -> None:
        """Have it send no more."""
        self._stop = True

    def stuck_for(self) -> float:
        """Return for how many seconds nothing was taken from it."""
        return trio.current_time() - self._last


class Crowd:
    """All the slow clients of one server: how many are stuck, and when they may stop."""

    def __init__(self, server: Server, size: int) -> None:
        self.server = server
        self._going = size
        self.stuck = trio.Event()
        self.may_stop = trio.Event()
        #: Of each that was cut: for how many seconds nothing had been taken from it.
        self.waits: list[float] = []

    def one_more_stuck(self) -> None:
        """Note that the server waits for one more of them."""
        self._going -= 1
        if not self._going:
            self.stuck.set()

    async def never_read(self) -> None:
        """Read nothing until the server has had time to cut the connection."""
        async with await self.server.connect(receive_buffer=SMALL_BUFFER) as stream:
            slow = Slow(stream)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_until_cut, slow)
                await slow.stuck.wait()
                self.one_more_stuck()
                await self.may_stop.wait()
                slow.stop()

    async def _send_until_cut(self, slow: Slow) -> None:
        with suppress(trio.BrokenResourceError, OSError):
            await slow.send_on()
        self.waits.append(slow.stuck_for())
        slow.stuck.set()

    async def drip(self) -> None:
        """Read a little at a time, in the end all that is owed."""
        async with await self.server.connect(receive_buffer=SMALL_BUFFER) as stream:
            try:
                await self._drip(stream)
            except* (trio.BrokenResourceError, OSError) as cut:
                raise Broken("a client that took a little all the time was cut") from cut

    async def _drip(self, stream: trio.SocketStream) -> None:
        slow, reply = Slow(stream), Reply(PIECE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow.send_on)
            nursery.start_soon(self._tell_when_stuck, slow)
            while not self.may_stop.is_set():
                reply.take(await receive(stream, DRIP))
                await trio.sleep(DRIP_INTERVAL)
            slow.stop()
            async for data in stream:
                reply.take(bytes(data))
        expect(reply.received == slow.sent, f"{slow.sent - reply.received} bytes did not come")

    async def _tell_when_stuck(self, slow: Slow) -> None:
        await slow.stuck.wait()
        self.one_more_stuck()


@dataclass(slots=True)
class Found:
    """What was measured beside the crowd: milliseconds, bytes."""

    beside: float = 0.0
    memory: int = 0


async def beside(crowd: Crowd, watch: Stopwatch, sizes: Sizes) -> Found:
    """Measure the neighbour while all are stuck; see who is cut, and let the others finish."""
    server, found = crowd.server, Found()
    before = server.memory()
    async with trio.open_nursery() as nursery:
        for _ in range(sizes.never_readers):
            nursery.start_soon(crowd.never_read)
        for _ in range(sizes.drippers):
            nursery.start_soon(crowd.drip)
        await crowd.stuck.wait()
        long_enough = trio.current_time() + SLOW * sizes.write_timeout + INSPECTION_SECONDS
        found.memory = server.memory() - before
        found.beside = await watch.p99_ms(server.port, sizes.measure)
        await trio.sleep_until(long_enough)
        crowd.may_stop.set()
    return found


def judge_ends(stalled: Sequence[Event], waits: Sequence[float], sizes: Sizes) -> None:
    """Expect that the never-readers were cut in time, and no one else."""
    cut = len(stalled)
    expect(cut == sizes.never_readers, f"{cut} were cut, not {sizes.never_readers}")
    first, last = min(event["seconds"] for event in stalled), max(waits)
    expect(
        sizes.write_timeout <= first and last <= sizes.write_timeout + SLACK_SECONDS,
        f"the first was cut {first:.1f} s after it came, the last after {last:.1f} s of nothing "
        f"taken, at a time-out of {sizes.write_timeout:g} s",
    )


async def run(sizes: Sizes) -> str:
    """Measure a neighbour alone, beside them, and alone again."""
    number = sizes.never_readers + sizes.drippers
    with TemporaryDirectory() as folder:
        watch = await make_stopwatch(Path(folder))
        async with hosting("--write-timeout", str(sizes.write_timeout)) as server:
            before = await watch.p99_ms(server.port, sizes.measure)
            crowd = Crowd(server, number)
            found = await beside(crowd, watch, sizes)
            after = await watch.p99_ms(server.port, sizes.measure)
            judge_ends(server.logged("client gone", end="stalled"), crowd.waits, sizes)
    alone = max(before, after)
    seen = (
        f"p99 {alone:.2f} ms alone, {found.beside:.2f} beside them "
        f"({found.beside / alone:.1f}x); {found.memory / number / KIB:.0f} KiB each; "
        "never-readers were cut in time, drippers had all their replies"
    )
    expect(found.memory <= number * MOST_EACH, f"too much memory: {seen}")
    expect(found.beside <= alone * MOST_RATIO + NOISE_MS, f"the neighbour waits: {seen}")
    return seen


GATE = Gate(
    number=3,
    promise="A client that does not read holds nobody else up: it is cut when it has taken "
    "nothing for --write-timeout; any progress, however slow, is served.",
    doing="{never_readers} never read, {drippers} take 20 KB/s, --write-timeout {write_timeout:g}; "
    f"a neighbour's p99, the best of {ROUNDS} times {{measure:g}} s",
    run=run,
    limit=lambda sizes: 60 + 15 * sizes.measure + 4 * sizes.write_timeout,
)
