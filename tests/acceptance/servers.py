"""The servers of the gates: started, watched and ended as in the end-to-end tests."""

import json
import os
import signal
import subprocess
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import trio
from benchmarks.processes import most_descriptors

from tests.acceptance.gate import Broken, Skipped, expect
from tests.helpers.program import Event, Server, command
from tests.helpers.waiting import TIMEOUT_SECONDS, eventually

# What a server or this process has open or in reserve besides its connections.
KIB, MIB = 1024, 1024 * 1024

SPARE_DESCRIPTORS = 200

# Events of which each is kept. The comings and goings of more clients are only counted.
MOST_KEPT = 10_000

# Of the clients that came and went last, however many there were before.
LATEST = 1000

# The events of which there is one or more for every client.
PASSING = {"client connected", "client gone", "client refused"}


# A second one of these would cut what the first one has left.
STOPPING = {signal.SIGTERM, signal.SIGINT, signal.SIGKILL}

# The pages in memory among the fields of /proc/PID/statm.
STATM_RESIDENT = 1


class WatchedServer(Server):
    """A server whose log is read all the time, however long it gets."""

    def __init__(self, process: trio.Process) -> None:
        super().__init__(process)
        self._passed: Counter[tuple[str, str | None]] = Counter()
        self._latest: deque[Event] = deque(maxlen=LATEST)
        self._told_to_stop = False

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._told_to_stop |= number in STOPPING
        super().send(number)

    async def finish(self) -> int:
        """Tell it to stop, unless it has been told; return its exit code."""
        return await (self.ended() if self._told_to_stop else self.stop())

    def passed(self, event: str, end: str | None = None) -> int:
        """Return how often this happened to a client; `end` as the log has it, None: any."""
        counts = self._passed
        return sum(counts[key] for key in counts if key[0] == event and end in {None, key[1]})

    async def account_of(self, peer: str) -> str:
        """Return what the log says lately of a client that has gone, or is about to."""

        def told() -> list[Event]:
            return [event for event in self._latest if event.get("peer") == peer]

        with suppress(trio.TooSlowError):
            await eventually(lambda: any(event["event"] == "client gone" for event in told()))
        return f"the log of {peer} at {datetime.now(UTC):%T.%f}: {told()}"

    async def watch(self) -> None:
        """Read what it writes, until it ends."""
        await self._read()

    async def end(self) -> None:
        """Make sure that it has ended, whatever that takes.

        One whose log nobody reads any more would wait for that when it is told to stop.
        """
        await self.hang_up()
        await self._end()

    def check(self) -> None:
        """Raise `Broken` if it wrote what it never should."""
        strange = [line for line in self.stderr.splitlines() if not line.startswith(b"{")]
        expect(not strange, f"the log has {len(strange)} lines that are no JSON: {strange[:1]}")
        bugs = [event for event in self.events if event["level"] in {"error", "critical"}]
        expect(not bugs, f"the server had {len(bugs)} errors, the first: {bugs[:1]}")
        expect(b"Traceback" not in self.stderr, "the server wrote a traceback")
        expect(not self.stdout, "the server wrote to its standard output")

    async def _read_stderr(self) -> None:
        assert self._process.stderr
        begun = b""
        with self._reading_stderr:
            async for data in self._process.stderr:
                *whole, begun = (begun + data).split(b"\n")
                for line in whole:
                    self._note(line)
                self._tell()
        self.stderr += begun

    def _note(self, line: bytes) -> None:
        event: Event = json.loads(line) if line.startswith(b"{") else {}
        if event.get("event") in PASSING:
            end = event.get("end")
            self._passed[event["event"], end] += 1
            self._latest.append(event)
            if len(self.events) >= MOST_KEPT and end != "shutdown":
                return
        else:
            self.stderr += line + b"\n"
        if event:
            self.events.append(event)


@asynccontextmanager
async def hosting(
    *options: str, prefix: Sequence[str] = (), code: int = 0
) -> AsyncGenerator[WatchedServer]:
    """Run a server on a port of the system's choice while the block runs; it logs as JSON.

    It is stopped then, if it has not ended yet; it must have ended with `code`, and have had no
    bug. `prefix` is a command that runs another one, as ``prlimit`` does.
    """
    arguments = ("serve", "--port", "0", "--log-format", "json", *options)
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(
            command(*arguments, prefix=prefix),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        server = WatchedServer(process)
        try:
            nursery.start_soon(server.watch)
            yield await server.ready()
            ended = await server.finish()
            expect(ended == code, f"the server ended with {ended}, not {code}")
            server.check()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + TIMEOUT_SECONDS):
                await server.end()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def frozen(server: WatchedServer) -> AsyncGenerator[None]:
    """Freeze a server while the block runs."""
    server.send(signal.SIGSTOP)
    try:
        yield
    finally:
        server.send(signal.SIGCONT)


def need_descriptors(connections: int) -> None:
    """Raise `Skipped` unless this process, and what it starts, may have so many connections."""
    needed, allowed = connections + SPARE_DESCRIPTORS, most_descriptors()
    if needed > allowed:
        raise Skipped(f"needs {needed} descriptors, {allowed} are allowed")


async def expect_soon(condition: Callable[[], bool], otherwise: Callable[[], str]) -> None:
    """Wait until `condition` holds; raise `Broken` with the text of `otherwise` if it does not."""
    try:
        await eventually(condition)
    except trio.TooSlowError as error:
        raise Broken(otherwise()) from error


async def expect_no_descriptor_left(server: Server, before: int) -> None:
    """Wait until a server has no more descriptors than `before`; raise `Broken` if it keeps any."""
    await expect_soon(
        lambda: server.descriptors() <= before,
        lambda: f"{server.descriptors() - before} descriptors were left",
    )


def resident(pid: int) -> int:
    """Return the memory of a process in bytes; 0 when it has ended (proc_pid_statm(5))."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[STATM_RESIDENT]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
