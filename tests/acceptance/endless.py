"""Gate 4: one message that does not end."""

import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import trio

from tests.acceptance.clients import Reply
from tests.acceptance.gate import Gate, Sizes, expect
from tests.acceptance.servers import KIB, MIB, hosting, resident
from tests.helpers.program import LOCALHOST, command
from tests.helpers.streams import upper

# 4 MiB without a newline. Reads end anywhere in it, also within the character of two bytes; most
# are ASCII, which is fast.
PIECE = "straße, ".encode() + b"the quick brown fox jumps over the lazy dog, " * 93_207

# What share of the message goes by before memory is measured: buffers have grown by then.
MEGABYTE = 1_000_000

WARM = 0.1

# Allowed from then on, in bytes: none but what an allocator rounds to.
MOST_GROWN = 4 * MIB

# Bytes to read from the client at a time.
PIPE_BYTES = 256 * KIB

# Between two samples of the memory, in seconds.
CHECK_SECONDS = 0.05


def most_in_flight() -> int:
    """Return how many bytes the system holds on the way there and back, at most (tcp(7)).

    The client keeps what it is owed for them, so that it can compare every byte.
    """
    buffers = (Path(f"/proc/sys/net/ipv4/tcp_{name}") for name in ("rmem", "wmem"))
    return 2 * sum(int(buffer.read_text().split()[-1]) for buffer in buffers)


class Growth:
    """By how much a process's memory has ever exceeded its first sample, in bytes."""

    def __init__(self, memory: Callable[[], int]) -> None:
        self._memory = memory
        self._first = 0
        self.most = 0

    def look(self) -> None:
        """Take a sample."""
        now = self._memory()
        self._first = self._first or now
        self.most = max(self.most, now - self._first)


async def watch(begin: trio.Event, growths: Sequence[Growth]) -> None:
    """Sample it again and again, from `begin` on."""
    await begin.wait()
    while True:
        for growth in growths:
            growth.look()
        await trio.sleep(CHECK_SECONDS)


class Conversation:
    """The client as a process in a pipe, between what is fed to it and what comes out."""

    def __init__(self, process: trio.Process, size: int) -> None:
        assert process.stdin
        assert process.stdout
        self._input, self._output = process.stdin, process.stdout
        self._size = size
        self._reply = Reply(PIECE)
        self.warm = trio.Event()

    async def feed(self) -> None:
        """Send the message piece by piece, then its end."""
        async with self._input:
            for _ in range(self._size // len(PIECE)):
                await self._input.send_all(PIECE)

    async def compare(self) -> None:
        """Compare what comes with what is owed, and expect all of it."""
        while data := await self._output.receive_some(PIPE_BYTES):
            self._reply.take(bytes(data))
            if self._reply.received > self._size * WARM:
                self.warm.set()
        owed = self._size // len(PIECE) * len(upper(PIECE)) - self._reply.received
        expect(owed == 0, f"{owed} bytes did not come")


async def converse(port: int, size: int, server: Growth) -> Growth:
    """Send so many bytes through the client and compare every reply; return its growth.

    It must end with 0 (`subprocess.CalledProcessError`).
    """
    program = command("client", LOCALHOST, str(port))
    start = partial(trio.run_process, program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    async with trio.open_nursery() as nursery:
        process = await nursery.start(start)
        talk, client = Conversation(process, size), Growth(partial(resident, process.pid))
        nursery.start_soon(talk.feed)
        async with trio.open_nursery() as watching:
            watching.start_soon(watch, talk.warm, [server, client])
            await talk.compare()
            watching.cancel_scope.cancel()
    return client


async def run(sizes: Sizes) -> str:
    """Send it, and watch the memory of both sides."""
    size = sizes.megabytes * MEGABYTE
    began = trio.current_time()
    async with hosting() as host:
        server = Growth(host.memory)
        client = await converse(host.port, size, server)
    rate = sizes.megabytes / (trio.current_time() - began)
    grown = f"{server.most / MIB:.1f} MiB, the client by {client.most / MIB:.1f}"
    kept = client.most <= MOST_GROWN + most_in_flight()
    expect(server.most <= MOST_GROWN and kept, f"the server grew by {grown}")
    return f"every byte right, {rate:.0f} MB/s through the pipe; the server grew by {grown}"


GATE = Gate(
    number=4,
    promise="A message may be endless: it is answered while it comes, in constant memory on both "
    "sides.",
    doing="{megabytes} MB without a newline, from a pipe through the client and back",
    run=run,
    limit=lambda sizes: 60 + sizes.megabytes / 20,
)
