"""``serve --workers``: a parent of servers under the signals of its operator."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio

from trio_upper.cli.announcement import Announcement
from trio_upper.cli.invocation import own_command
from trio_upper.cli.operate import announcing, operate, take_listeners
from trio_upper.cli.run import Ending, run_command
from trio_upper.platform import keep_exit_codes
from trio_upper.server.listeners import CannotListen
from trio_upper.server.settings import ServerSettings
from trio_upper.server.supervisor import CannotStart, HeldListeners, Supervisor
from trio_upper.server.workers import WorkerProcess

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


def run(
    settings: ServerSettings,
    log: "FilteringBoundLogger",
    *,
    shares: Sequence[int],
    words: Sequence[str],
    announcement: Announcement | None,
    pem: bytes = b"",
) -> int:
    """Have workers serve until a signal says stop, one for each of `shares`.

    A share is the number of clients that a worker may have, see `share_out`. `words` are the
    command line, from which the workers have their options; `announcement` is as in `serve.run`.
    `pem` is the key and certificate that they share, if they have none in a file.

    Returns the exit code: 0 after a clean drain, 1 when a worker cut clients or was killed, when
    listening failed, or when no worker could be started.
    """
    job = partial(_supervise, settings, log, shares, words, announcement, pem)
    return run_command(job, failures=(CannotListen, CannotStart))


async def _supervise(
    settings: ServerSettings,
    log: "FilteringBoundLogger",
    shares: Sequence[int],
    words: Sequence[str],
    announcement: Announcement | None,
    pem: bytes,
) -> Ending:
    keep_exit_codes()
    inherited = take_listeners(log)

    async def start(number: int, listeners: Sequence[trio.SocketListener]) -> WorkerProcess:
        command = worker_command(words, number, shares[number - 1])
        return await WorkerProcess.start(command, listeners, secret=pem)

    supervisor = Supervisor(
        HeldListeners(settings.hosts, settings.port, inherited),
        start,
        log,
        count=len(shares),
        grace=settings.grace,
    )
    started = announcing(log, None if inherited else announcement)
    await operate(supervisor, log, started=started, report=supervisor.report)
    log.info("stopped")
    return 0 if supervisor.clean else 1


def share_out(max_clients: int, count: int) -> list[int]:
    """Return how many clients each of `count` workers may have, in all `max_clients`.

    Raises `ValueError` if some would have none.
    """
    if max_clients < count:
        raise ValueError(
            f"--max-clients {max_clients} is less than one for each of {count} workers"
        )
    share, rest = divmod(max_clients, count)
    return [share + 1] * rest + [share] * (count - rest)


def worker_command(words: Sequence[str], number: int, max_clients: int) -> list[str]:
    """Return the command of worker `number`: `words` and its own, for the last option holds."""
    own = ["--worker", str(number), "--workers", "1", "--max-clients", str(max_clients)]
    return [*own_command(), *words, *own]
