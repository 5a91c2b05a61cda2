"""``serve --workers``: a parent of servers under the signals of its operator."""

import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio

from trio_upper.cli.output import say, sole_error
from trio_upper.cli.serve import obey, tell
from trio_upper.cli.signals import not_ignored
from trio_upper.server.listeners import CannotListen
from trio_upper.server.server import ServerSettings
from trio_upper.server.supervisor import (
    CannotStart,
    Hold,
    Listeners,
    Supervisor,
    WorkerProcess,
    inherited,
)

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


def run(
    settings: ServerSettings,
    log: "FilteringBoundLogger",
    *,
    shares: Sequence[int],
    words: Sequence[str],
    arguments: Sequence[str] | None,
) -> int:
    """Have workers serve until a signal says stop, one for each of `shares`.

    These are the numbers of clients that each may have, see `share_out`. `words` are the command
    line, from which the workers have their options; `arguments` are as in `serve.run`.

    Returns the exit code: 0 after a clean drain, 1 when a worker had to cut clients or to be
    killed, when listening failed, or when no worker could be started.
    """
    try:
        listeners = Listeners(inherited(os.environ))
        if listeners.open:
            arguments = None

        async def start(number: int) -> WorkerProcess:
            command = worker_command(words, shares[number - 1])
            return await WorkerProcess.start(number, command, listeners.open)

        supervisor = Supervisor(start, log, count=len(shares), grace=settings.grace)
        hold = partial(listeners.hold, settings.hosts, settings.port)
        trio.run(_supervise, supervisor, hold, log, arguments, settings.tls is not None)
    except* (CannotListen, CannotStart) as failed:
        say(str(sole_error(failed)))
        return_code = 1
    else:
        return_code = 0 if supervisor.clean else 1
    return return_code


def share_out(max_clients: int, count: int) -> list[int]:
    """Return how many clients each of `count` workers may have, which together is `max_clients`.

    Raises `ValueError` if that leaves some without.
    """
    if max_clients < count:
        raise ValueError(f"--max-clients {max_clients} leaves some of {count} workers without any")
    share, rest = divmod(max_clients, count)
    return [share + 1] * rest + [share] * (count - rest)


def worker_command(words: Sequence[str], max_clients: int) -> list[str]:
    """Return the command of a worker: `words` with its share. The last of two options holds."""
    share = ["--workers", "1", "--max-clients", str(max_clients)]
    return [sys.executable, "-m", "trio_upper", *words, *share]


async def _supervise(
    supervisor: Supervisor,
    hold: Hold,
    log: "FilteringBoundLogger",
    arguments: Sequence[str] | None,
    tls: bool,
) -> None:
    stop = not_ignored(signal.SIGINT, signal.SIGTERM)
    with trio.open_signal_receiver(*stop, signal.SIGUSR1) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(obey, signals, supervisor, supervisor.report, log)
            async with trio.open_nursery() as supervising:
                tell(await supervising.start(supervisor.run, hold), log, arguments, tls=tls)
            log.info("stopped")
            nursery.cancel_scope.cancel()
