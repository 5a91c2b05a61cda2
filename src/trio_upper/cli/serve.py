"""``serve``: one server, alone or as the worker of a parent."""

from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

import trio

from trio_upper.cli.announcement import Announcement
from trio_upper.cli.operate import announcing, operate, take_listeners
from trio_upper.cli.run import Ending, run_command
from trio_upper.server.listeners import CannotListen
from trio_upper.server.server import Server
from trio_upper.server.settings import ServerSettings
from trio_upper.server.workers import NotAWorker, Order, Parent

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


def run(
    settings: ServerSettings,
    log: "FilteringBoundLogger",
    *,
    announcement: Announcement | None = None,
    worker: int | None = None,
) -> int:
    """Serve until a signal, or the parent of a worker, says stop.

    Returns the exit code: 0 after a clean drain, 1 when clients were cut or listening failed.
    `announcement` is for a person; None: the log goes to a machine. `worker` is the number of this
    process if it is a worker.
    """
    job = partial(_serve, settings, log, announcement, worker)
    return run_command(job, failures=(CannotListen, NotAWorker))


async def _serve(
    settings: ServerSettings,
    log: "FilteringBoundLogger",
    announcement: Announcement | None,
    worker: int | None,
) -> Ending:
    if worker is not None:
        log = log.bind(worker=worker)
    listeners = take_listeners(log)
    server = Server(replace(settings, inherited=listeners), log)
    started = announcing(log, None if listeners else announcement)
    async with trio.open_nursery() as nursery:
        if worker is not None:
            parent = Parent.of_worker()
            nursery.start_soon(_obey_parent, parent, server, log)
            started = parent.tell_ready
        await operate(server, log, started=started, report=partial(_log_totals, server, log))
        nursery.cancel_scope.cancel()
    log.info("stopped", **asdict(server.totals))
    return 1 if server.totals.cut else 0


async def _obey_parent(parent: Parent, server: Server, log: "FilteringBoundLogger") -> None:
    """Do what the parent of this worker says; drain if it has gone."""
    while order := await parent.next_order():
        if order is Order.CUT:
            server.cut()
        else:
            server.drain()
    log.warning("parent gone")
    server.drain()


def _log_totals(server: Server, log: "FilteringBoundLogger") -> None:
    log.info("totals", **asdict(server.totals))
