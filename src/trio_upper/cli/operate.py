"""A service, which is a server or a supervisor of several, under the signals of its operator."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import trio

from trio_upper.cli.announcement import announce, own_addresses
from trio_upper.cli.early import kept_signals, stop_signals
from trio_upper.cli.output import say
from trio_upper.platform import REPORT_SIGNAL

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


async def operate(
    service: Service,
    log: "FilteringBoundLogger",
    *,
    started: Started,
    report: Callable[[], None],
) -> None:
    """Run `service` until a signal stops it.

    `started` is told where it listens, when clients are served; `report` logs the totals.
    """
    early, asked = kept_signals(), stop_signals()
    if REPORT_SIGNAL:
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


def announcing(
    log: "FilteringBoundLogger", arguments: Sequence[str] | None, *, tls: bool
) -> Started:
    """Return what logs where a service listens, if anywhere, and announces it to a person.

    `arguments` are the words after ``serve``; None: there is no person. `tls` is whether clients
    need it.
    """

    async def started(listening: Addresses) -> None:
        for address, port in listening:
            log.info("listening", address=address, port=port)
        if arguments is not None and listening:
            for line in announce(listening, own_addresses(), arguments, tls=tls):
                say(line)

    return started
