"""How a command runs: what its job returns or raises becomes an exit code, a signal or a line."""

import errno
import signal
import subprocess
import sys

import pytest
import trio
from tests.helpers.waiting import TIMEOUT_SECONDS

from trio_upper.cli.run import Ending, leave, run_command, run_job
from trio_upper.stdio.streams import OutputClosed, OutputError


class Expected(Exception):
    """A failure that a user can cause."""


async def returning(ending: Ending) -> Ending:
    await trio.lowlevel.checkpoint()
    return ending


async def raising(error: Exception) -> Ending:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        raise error


@pytest.mark.parametrize("ending", [0, 1, signal.SIGINT])
def test_the_result_of_the_job_is_returned(ending: Ending) -> None:
    """An exit code, or the signal that the process is to end by."""
    assert run_job(lambda: returning(ending)) is ending


def test_an_exit_code_leaves_the_process_running() -> None:
    """The caller exits with it."""
    assert run_command(lambda: returning(7)) == 7


def test_a_signal_ends_the_process() -> None:
    """By the signal itself, so that a shell sees it."""
    program = "import signal; from trio_upper.cli.run import leave; leave(signal.SIGTERM)"
    done = subprocess.run([sys.executable, "-c", program], timeout=TIMEOUT_SECONDS, check=False)
    assert done.returncode == -signal.SIGTERM


def test_a_closed_output_ends_by_sigpipe(capsys: pytest.CaptureFixture[str]) -> None:
    """As other filters end in `| head -1`: without a word."""
    error = OutputClosed(1, "write to", BrokenPipeError(errno.EPIPE, ""))
    assert run_job(lambda: raising(error)) is signal.SIGPIPE
    assert capsys.readouterr() == ("", "")


def test_an_output_that_cannot_be_written_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """And exit code 1."""
    error = OutputError(1, "write to", OSError(errno.ENOSPC, ""))
    assert run_job(lambda: raising(error)) == 1
    assert capsys.readouterr().err == f"trio-upper: {error}\n"


def test_an_expected_failure_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """And exit code 1."""
    assert run_command(lambda: raising(Expected("no luck")), failures=(Expected,)) == 1
    assert capsys.readouterr() == ("", "trio-upper: no luck\n")


def test_a_lack_of_descriptors_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether the job or Trio's own start meets it; and exit code 1."""
    said = ("", "trio-upper: too many open files; raise `ulimit -n`\n")
    full = OSError(errno.EMFILE, "Too many open files")
    assert run_job(lambda: raising(full)) == 1
    assert capsys.readouterr() == said

    def fail(_: object) -> None:
        raise full

    monkeypatch.setattr(trio, "run", fail)
    assert run_job(lambda: returning(0)) == 1
    assert capsys.readouterr() == said


def test_another_error_of_the_system_is_a_bug() -> None:
    """Whoever met it should have explained it."""
    with pytest.RaisesGroup(OSError, flatten_subgroups=True):
        run_job(lambda: raising(OSError(errno.EIO, "Input/output error")))


def test_a_bug_is_not_hidden() -> None:
    """Only expected failures become a line."""
    with pytest.RaisesGroup(Expected, flatten_subgroups=True):
        run_job(lambda: raising(Expected("a bug")))


def test_leaving_with_a_code_returns_it() -> None:
    """0 too."""
    assert leave(0) == 0
