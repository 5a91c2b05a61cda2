"""``serve``: one server, alone or as the worker of a parent."""

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

import trio

from trio_upper.cli.operate import announcing, operate
from trio_upper.cli.run import Ending, run_command
from trio_upper.server.inherited import adopt_listeners
from trio_upper.server.listeners import CannotListen
from trio_upper.server.server import Server, ServerSettings
from trio_upper.server.workers import Order, Parent

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


def run(
    settings: ServerSettings,
    log: "FilteringBoundLogger",
    *,
    arguments: Sequence[str] | None = None,
    worker: int | None = None,
) -> int:
    """Serve until a signal, or the parent of a worker, says stop.

    Returns the exit code: 0 after a clean drain, 1 when clients were cut or listening failed.
    `arguments` are the words after ``serve``, for the announcement to a person; None: nobody reads
    it, the log goes to a machine. `worker` is the number of this process if it is a worker.
    """
    job = partial(_serve, settings, log, arguments, worker)
    return run_command(job, failures=(CannotListen,))


async def _serve(
    settings: ServerSettings,
    log: "FilteringBoundLogger",
    arguments: Sequence[str] | None,
    worker: int | None,
) -> Ending:
    listeners = adopt_listeners(os.environ)
    if worker is not None:
        log = log.bind(worker=worker)
    server = Server(replace(settings, inherited=listeners), log)
    started = announcing(log, None if listeners else arguments, tls=settings.tls is not None)
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
