"""Real signals, sent to this process while Trio runs, and one that ends another process."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import trio
from tests.helpers.waiting import TIMEOUT_SECONDS
from trio.testing import wait_all_tasks_blocked

from trio_upper.cli.signals import not_ignored, until_signal

STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def restored() -> Iterator[None]:
    """What the test does to the signals is undone afterwards."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ignore(*numbers: signal.Signals) -> None:
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


@pytest.mark.usefixtures("restored")
def test_a_signal_that_was_ignored_at_the_start_stays_ignored() -> None:
    """`nohup` and `&` ignore signals for a program, which does not undo that."""
    assert not_ignored(*STOPPING) == STOPPING
    ignore(signal.SIGHUP)
    assert not_ignored(*STOPPING) == [signal.SIGINT, signal.SIGTERM]


async def test_without_a_signal_the_job_returns_what_it_returns() -> None:
    """The result comes through, and nobody waits for a signal any more."""

    async def job() -> int:
        await trio.lowlevel.checkpoint()
        return 7

    assert await until_signal(job) == 7


@pytest.mark.parametrize("number", STOPPING)
async def test_a_signal_cancels_the_job_and_is_returned(number: signal.Signals) -> None:
    """The job is interrupted where it waits and may tidy up."""
    tidied = False

    async def job() -> None:
        nonlocal tidied
        signal.raise_signal(number)
        try:
            await trio.sleep_forever()
        finally:
            tidied = True

    with trio.fail_after(TIMEOUT_SECONDS):
        assert await until_signal(job) is number
    assert tidied


async def test_a_signal_counts_even_if_the_job_ends_all_the_same() -> None:
    """A job that could not be cancelled any more was interrupted nevertheless."""

    async def job() -> int:
        signal.raise_signal(signal.SIGTERM)
        with trio.CancelScope(shield=True):
            await wait_all_tasks_blocked()
        return 0

    with trio.fail_after(TIMEOUT_SECONDS):
        assert await until_signal(job) is signal.SIGTERM


async def test_what_the_job_raises_escapes() -> None:
    """In a group, as out of any nursery."""

    async def job() -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("a bug")

    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="a bug")):
        await until_signal(job)


@pytest.mark.usefixtures("restored")
async def test_an_ignored_signal_does_not_cancel() -> None:
    """The job goes on; one that is not ignored still ends it."""
    ignore(signal.SIGHUP)
    went_on = False

    async def job() -> None:
        nonlocal went_on
        signal.raise_signal(signal.SIGHUP)
        await wait_all_tasks_blocked()
        went_on = True
        signal.raise_signal(signal.SIGTERM)
        await trio.sleep_forever()

    with trio.fail_after(TIMEOUT_SECONDS):
        assert await until_signal(job) is signal.SIGTERM
    assert went_on


@pytest.mark.usefixtures("restored")
async def test_with_all_signals_ignored_the_job_runs_to_its_end() -> None:
    """`trap '' INT TERM HUP` in a shell script is no reason not to run."""
    ignore(*STOPPING)

    async def job() -> int:
        await trio.lowlevel.checkpoint()
        return 7

    assert await until_signal(job) == 7


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE])
def test_the_process_ends_by_the_signal_itself(number: signal.Signals) -> None:
    """Whoever waits for it sees the signal, not an exit code, and no traceback is printed.

    Python has a handler of its own for SIGINT, and ignores SIGPIPE.
    """
    program = f"""if True:
        import signal
        from trio_upper.platform import end_with
        end_with(signal.{number.name})
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert done.returncode == -number
    assert done.stderr == b""
