"""Signals that stop a server: which, and what becomes of those that come early."""

import signal
from collections.abc import Iterator

import pytest

from trio_upper.cli.early import keeping_signals, kept_signals, stop_signals

STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def _restored() -> Iterator[None]:
    """What the test does to the signals is undone afterwards."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@pytest.mark.usefixtures("_restored")
def test_only_sigterm_stops_a_server_that_was_started_with_all_ignored() -> None:
    """A shell and `nohup` ignore the others on purpose; SIGTERM is ignored by accident."""
    assert stop_signals() == STOPPING
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    assert stop_signals() == [signal.SIGTERM]


@pytest.mark.usefixtures("_restored")
def test_early_signals_are_kept_for_whoever_receives_them_later() -> None:
    """In their order, also those that come before the handlers change."""
    before = [signal.getsignal(number) for number in STOPPING]
    with keeping_signals():
        kept = kept_signals()
        for number in reversed(STOPPING):
            signal.raise_signal(number)
        assert kept == [signal.SIGHUP, signal.SIGTERM, signal.SIGINT]
    assert [signal.getsignal(number) for number in STOPPING] == before
    assert kept_signals() == []


@pytest.mark.usefixtures("_restored")
def test_a_blocked_signal_is_received() -> None:
    """A mask is inherited by programs that know nothing of it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    with keeping_signals():
        signal.raise_signal(signal.SIGTERM)
        assert kept_signals() == [signal.SIGTERM]
