"""What a command meets that runs in this process: time, the network, standard output, a signal."""

import errno
import signal
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from tests.helpers.waiting import TIMEOUT_SECONDS, VIRTUAL_TIMEOUT_SECONDS
from trio_upper.client.connect import Connection, Retries
from trio_upper.client.failures import Attempt, CannotConnect
from trio_upper.client.settings import ConnectSettings
from trio_upper.client.target import Target

TARGET = Target(host="example.lan", port=80)
ADDRESS = "192.0.2.1"

HalfCloseable = trio.abc.HalfCloseableStream
Peer = Callable[[HalfCloseable], Awaitable[object]]


def cannot_connect(
    number: int = errno.ECONNREFUSED,
    *,
    host: str = TARGET.host,
    address: str = ADDRESS,
    seconds: float = 0.5,
) -> CannotConnect:
    """Return the failure of the one attempt at `host`, by default because it was refused."""
    attempt = Attempt(address=address, error=OSError(number, ""))
    return CannotConnect(host, TARGET.port, attempts=(attempt,), seconds=seconds)


REFUSED = cannot_connect()


class Killed(BaseException):
    """Stands for the end of this process by a signal."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number


def kill(number: signal.Signals) -> None:
    """Take the place of what ends this process by a signal."""
    raise Killed(number)


def bound_runs(monkeypatch: pytest.MonkeyPatch, *, virtual: bool = True) -> None:
    """Make every `trio.run` of the test fail when it takes too long; `virtual`: in virtual time."""
    run = trio.run
    seconds = VIRTUAL_TIMEOUT_SECONDS if virtual else TIMEOUT_SECONDS

    async def bounded(job: Callable[..., Any], *args: object) -> Any:
        with trio.fail_after(seconds):
            return await job(*args)

    def run_bounded(*job: Any) -> Any:
        return run(bounded, *job, clock=MockClock(autojump_threshold=0) if virtual else None)

    monkeypatch.setattr(trio, "run", run_bounded)


class Output:
    """Standard output in memory.

    It raises `error` when it is written to and `late_error` when it is closed. If it `blocks`, it
    calls that instead of writing, and never returns.
    """

    def __init__(self) -> None:
        self.written = b""
        self.error: Exception | None = None
        self.late_error: Exception | None = None
        self.blocks: Callable[[], object] | None = None
        self.closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.closed = True
        if self.late_error:
            raise self.late_error

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.error:
            raise self.error
        if self.blocks:
            self.blocks()
            await trio.sleep_forever()
        self.written += data

    @property
    def lines(self) -> list[str]:
        return self.written.decode().splitlines()


class Network:
    """Connections in memory.

    Each connection meets the next of `peers`, which may be the reason why there is none; the last
    one stays for all that follow. Connecting takes `delay` seconds.
    """

    def __init__(self, *peers: Peer | Exception) -> None:
        self.peers = deque(peers)
        self.delay = 0.0
        self.pair: Callable[[], tuple[HalfCloseable, HalfCloseable]] = memory_stream_pair
        self.wrap: Callable[[HalfCloseable], trio.abc.Stream] = lambda stream: stream
        #: How often it was connected to, or tried to.
        self.attempts = 0
        #: The target and the settings of each attempt.
        self.dialled: list[tuple[Target, ConnectSettings]] = []
        #: What was returned for those that succeeded.
        self.streams: list[trio.abc.Stream] = []

    async def open_connection(
        self, target: Target, settings: ConnectSettings, retries: Retries | None = None
    ) -> Connection:
        """Take the place of `trio_upper.client.connect.open_connection`."""
        self.dialled.append((target, settings))
        stream = await self.connect(retries)
        return Connection(
            stream=stream, target=target, address=ADDRESS, lookup_seconds=0.0012, seconds=0.0004
        )

    async def connect(self, retries: Retries | None = None) -> trio.abc.Stream:
        """Return a stream to the next peer, or raise the reason why there is none."""
        await trio.sleep(self.delay)
        self.attempts += 1
        peer = self.next_peer()
        if isinstance(peer, Exception):
            raise peer
        ours, theirs = self.pair()
        trio.lowlevel.spawn_system_task(self._serve, peer, theirs)
        self.streams.append(self.wrap(ours))
        return self.streams[-1]

    def meets(self, *peers: Peer | Exception) -> None:
        """Have these instead of all earlier `peers`."""
        self.peers = deque(peers)

    @property
    def targets(self) -> list[Target]:
        """The target of each attempt."""
        return [target for target, _ in self.dialled]

    def next_peer(self) -> Peer | Exception:
        return self.peers.popleft() if len(self.peers) > 1 else self.peers[0]

    async def _serve(self, peer: Peer, stream: HalfCloseable) -> None:
        with suppress(trio.BrokenResourceError):  # nobody waits for a reply any more
            await peer(stream)
        await stream.aclose()


async def upper(stream: HalfCloseable) -> None:
    """A peer that answers ASCII text as a server does."""
    async for data in stream:
        await stream.send_all(bytes(data).upper())
