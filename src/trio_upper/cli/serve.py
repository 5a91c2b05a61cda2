"""``serve``: a server under the signals of its operator, or the orders of its parent."""

import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio

from trio_upper.cli.announcement import announce, own_addresses
from trio_upper.cli.output import say, sole_error
from trio_upper.cli.signals import not_ignored
from trio_upper.server.listeners import CannotListen
from trio_upper.server.server import Server, ServerSettings
from trio_upper.server.supervisor import Order, Parent, inherited

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


def run(
    settings: ServerSettings, log: "FilteringBoundLogger", *, arguments: Sequence[str] | None = None
) -> int:
    """Serve until a signal says stop.

    Returns the exit code: 0 after a clean drain, 1 when clients were cut or listening failed.
    `arguments` are the words after ``serve``, of which the announcement to a person is made; None:
    nobody reads it, the log goes to a machine. Nor is there one if the listeners are inherited:
    who opened them knows better.
    """
    if parent := Parent.find(os.environ):
        log = log.bind(worker=parent.number)
    try:
        if listeners := inherited(os.environ):
            settings, arguments = replace(settings, inherited=listeners), None
        server = Server(settings, log)
        trio.run(_serve, server, parent, log, arguments)
    except* CannotListen as failed:
        say(str(sole_error(failed)))
        return_code = 1
    else:
        return_code = 1 if server.totals.cut else 0
    return return_code


async def _serve(
    server: Server,
    parent: Parent | None,
    log: "FilteringBoundLogger",
    arguments: Sequence[str] | None,
) -> None:
    stop = not_ignored(signal.SIGINT, signal.SIGTERM)
    # Received from before the first listener opens, so that none lands in the middle of things.
    with trio.open_signal_receiver(*stop, signal.SIGUSR1) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(obey, signals, server, partial(_log_totals, server, log), log)
            if parent:
                nursery.start_soon(_obey_parent, parent, server, log)
            async with trio.open_nursery() as serving:
                listening = await serving.start(server.run)
                if parent:
                    await parent.tell_ready()
                else:
                    tell(listening, log, arguments, tls=server.speaks_tls)
            log.info("stopped", **asdict(server.totals))
            nursery.cancel_scope.cancel()


def tell(
    listening: Sequence[tuple[str, int]],
    log: "FilteringBoundLogger",
    arguments: Sequence[str] | None,
    *,
    tls: bool,
) -> None:
    """Log the addresses and ports listened on, if any, and announce them to a person.

    `arguments` are those of `run`; `tls` tells whether clients need it.
    """
    for address, port in listening:
        log.info("listening", address=address, port=port)
    if arguments is not None and listening:
        for line in announce(listening, own_addresses(), arguments, tls=tls):
            say(line)


class Stoppable(Protocol):
    """What can be stopped in two ways: a server, or a supervisor of several."""

    def drain(self) -> None:
        """Stop when the clients have what they are owed."""

    def cut(self) -> None:
        """Stop at once."""


async def obey(
    signals: AsyncIterator[int],
    service: Stoppable,
    report: Callable[[], None],
    log: "FilteringBoundLogger",
) -> None:
    """The first signal to stop drains, the second one cuts; SIGUSR1 calls `report`."""
    stopping = False
    async for number in signals:
        if number == signal.SIGUSR1:
            report()
        elif stopping:
            log.warning("stopping at once", signal=signal.Signals(number).name)
            service.cut()
        else:
            stopping = True
            log.info("stopping", signal=signal.Signals(number).name)
            service.drain()


async def _obey_parent(parent: Parent, server: Server, log: "FilteringBoundLogger") -> None:
    """Do what the parent of this worker says; drain if it has gone."""
    actions: dict[Order, Callable[[], None]] = {
        Order.DRAIN: server.drain,
        Order.CUT: server.cut,
        Order.TOTALS: partial(_log_totals, server, log),
    }
    while order := await parent.next_order():
        actions[order]()
    log.warning("parent gone")
    server.drain()


def _log_totals(server: Server, log: "FilteringBoundLogger") -> None:
    log.info("totals", **asdict(server.totals))
