"""How every command runs: under Trio, to an exit code or to the signal that ends the process.

A failure that a user can cause is one line, never a traceback. A bug is one.
"""

import errno
import signal
from collections.abc import Awaitable, Callable

import trio

from trio_upper.cli.output import say, sole_error
from trio_upper.platform import OUTPUT_CLOSED, end_with
from trio_upper.stdio.streams import OutputClosed, OutputError

Ending = int | signal.Signals
"""An exit code, or the signal that this process is to end by."""


def run_command(
    job: Callable[[], Awaitable[Ending]], *, failures: tuple[type[Exception], ...] = ()
) -> int:
    """Run `job` and return its exit code, or end by its signal; see `run_job`."""
    return leave(run_job(job, failures=failures))


def run_job(
    job: Callable[[], Awaitable[Ending]], *, failures: tuple[type[Exception], ...] = ()
) -> Ending:
    """Run `job` under Trio; return what it returns, or what stands for what it raises.

    `failures` are the exceptions, bare or in groups, whose text is a line for the user; the exit
    code is then 1. So it is for an output that cannot be written, and where descriptors are so few
    that nothing can run. An output that nobody reads any more (`| head -1`) gives `OUTPUT_CLOSED`,
    which is SIGPIPE, as in other filters.

    Error handling: every other exception is a bug, and escapes.
    """
    ending: Ending = 1
    explained: tuple[type[Exception], ...] = (OutputError, _NoDescriptor, *failures)
    try:
        ending = _run(job)
    except* OutputClosed:
        ending = OUTPUT_CLOSED
    except* explained as failed:
        say(str(sole_error(failed)))
    return ending


class _NoDescriptor(Exception):
    """No descriptor is left that this process may open."""


def _run(job: Callable[[], Awaitable[Ending]]) -> Ending:
    """Run `job` under Trio, which itself needs some descriptors."""
    try:
        return trio.run(job)
    except (OSError, ExceptionGroup) as error:
        if getattr(sole_error(error), "errno", None) == errno.EMFILE:
            raise _NoDescriptor("too many open files; raise `ulimit -n`") from error
        raise


def leave(ending: Ending) -> int:
    """Return an exit code as it is; a signal ends this process."""
    if isinstance(ending, signal.Signals):
        end_with(ending)
    return ending
