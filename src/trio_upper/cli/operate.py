"""A service, which is a server or a supervisor of several, under the signals of its operator."""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import trio

from trio_upper.cli.announcement import Announcement, own_addresses
from trio_upper.cli.early import kept_signals, stop_signals
from trio_upper.cli.output import say
from trio_upper.platform import REPORT_SIGNAL
from trio_upper.server.inherited import adopt_listeners, are_passed

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

Addresses = list[tuple[str, int]]
Started = Callable[[Addresses], Awaitable[None]]


class Service(Protocol):
    """What can be run, and stopped in two ways."""

    async def run(self, *, task_status: trio.TaskStatus[Addresses]) -> object:
        """Run until it is stopped; report where it listens when clients are served."""

    def drain(self) -> None:
        """Stop when the clients have what they are owed."""

    def cut(self) -> None:
        """Stop at once."""


def take_listeners(log: "FilteringBoundLogger") -> tuple[trio.SocketListener, ...]:
    """Return the listeners that were passed to this process, if any; `CannotListen` escapes.

    Those of another process are left to it, with a warning: this one listens by itself, and may
    find the port in use.
    """
    if "LISTEN_FDS" in os.environ and not are_passed(os.environ):
        for_whom = os.environ.get("LISTEN_PID")
        log.warning("listeners are for another process", listen_pid=for_whom, pid=os.getpid())
    return adopt_listeners(os.environ)


async def operate(
    service: Service,
    log: "FilteringBoundLogger",
    *,
    started: Started,
    report: Callable[[], None],
) -> None:
    """Run `service` until a signal stops it.

    `started` is told where it listens, when clients are served; `report` logs the totals. After it,
    the signal for these is ignored.
    """
    early, asked = kept_signals(), stop_signals()
    if REPORT_SIGNAL:
        # What is set before comes back afterwards, and its default would end this process.
        signal.signal(REPORT_SIGNAL, signal.SIG_IGN)
        asked.append(REPORT_SIGNAL)
    # Received from before the first listener opens, so that none lands in the middle of things.
    with trio.open_signal_receiver(*asked) as signals:
        for number in early:
            signal.raise_signal(number)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_obey, signals, service, report, log)
            async with trio.open_nursery() as running:
                await started(await running.start(service.run))
            nursery.cancel_scope.cancel()


async def _obey(
    signals: AsyncIterator[int],
    service: Service,
    report: Callable[[], None],
    log: "FilteringBoundLogger",
) -> None:
    """Drain at the first signal to stop, and cut at the second; call `report` at REPORT_SIGNAL."""
    stopping = False
    async for number in signals:
        if number == REPORT_SIGNAL:
            report()
        elif stopping:
            log.warning("stopping at once", signal=signal.Signals(number).name)
            service.cut()
        else:
            stopping = True
            log.info("stopping", signal=signal.Signals(number).name)
            service.drain()


def announcing(log: "FilteringBoundLogger", announcement: Announcement | None) -> Started:
    """Return what logs where a service listens, if anywhere, and announces it to a person.

    `announcement` None: there is no person. At a terminal nothing is said twice.
    """

    async def started(listening: Addresses) -> None:
        if not (announcement and announcement.at_terminal):
            for address, port in listening:
                log.info("listening", address=address, port=port)
        if announcement and listening:
            for line in announcement.lines(listening, own_addresses()):
                say(line)

    return started
