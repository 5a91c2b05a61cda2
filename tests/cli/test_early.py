"""Signals that stop a server: which, and what becomes of those that come early."""

import signal
from collections.abc import Iterator

import pytest

from trio_upper.cli.early import (
    Kept,
    end_by_first_signal,
    keep_first_signals,
    keeping_signals,
    kept_signals,
    stop_signals,
)

STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def _restored() -> Iterator[None]:
    """What the test does to the mask of signals is undone afterwards."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    yield
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
    with keeping_signals():
        kept = kept_signals()
        for number in reversed(STOPPING):
            signal.raise_signal(number)
        assert kept == [signal.SIGHUP, signal.SIGTERM, signal.SIGINT]
    assert kept_signals() == []


@pytest.mark.usefixtures("_restored")
def test_when_a_server_has_its_exit_code_signals_are_ignored() -> None:
    """They were received until then; the process is gone soon, and not by one of them."""
    with keeping_signals():
        pass
    assert [signal.getsignal(number) for number in STOPPING] == [signal.SIG_IGN] * 3


@pytest.mark.usefixtures("_restored")
def test_a_server_has_the_signals_from_before_it_was_known_to_be_one() -> None:
    """In their order, whichever of those that stop a server they are."""
    keep_first_signals()
    assert all(isinstance(signal.getsignal(number), Kept) for number in STOPPING)
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGHUP)
    with keeping_signals():
        signal.raise_signal(signal.SIGINT)
        assert kept_signals() == [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]


@pytest.mark.usefixtures("_restored")
def test_a_server_has_an_ignored_sigterm_from_the_first_instant_on() -> None:
    """There is no other way to stop it cleanly."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    keep_first_signals()
    signal.raise_signal(signal.SIGTERM)
    with keeping_signals():
        assert kept_signals() == [signal.SIGTERM]


@pytest.mark.usefixtures("_restored")
def test_another_command_leaves_sigterm_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that came while it was not known what the program is to do is dropped."""
    ended: list[signal.Signals] = []
    monkeypatch.setattr("trio_upper.platform.end_with", ended.append)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    keep_first_signals()
    signal.raise_signal(signal.SIGTERM)
    end_by_first_signal()
    assert ended == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


@pytest.mark.usefixtures("_restored")
def test_another_command_ends_by_the_first_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has done nothing yet; without a signal it goes on, with the handlers that were there."""
    ended: list[signal.Signals] = []
    monkeypatch.setattr("trio_upper.platform.end_with", ended.append)
    before = [signal.getsignal(number) for number in STOPPING]
    end_by_first_signal()
    keep_first_signals()
    end_by_first_signal()
    assert ended == []
    keep_first_signals()
    signal.raise_signal(signal.SIGINT)
    end_by_first_signal()
    assert ended == [signal.SIGINT]
    assert [signal.getsignal(number) for number in STOPPING] == before


@pytest.mark.usefixtures("_restored")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_is_ignored_stays_so_while_the_program_loads(number: signal.Signals) -> None:
    """It was asked for, by a shell or by nohup."""
    signal.signal(number, signal.SIG_IGN)
    keep_first_signals()
    assert signal.getsignal(number) is signal.SIG_IGN
    end_by_first_signal()


@pytest.mark.usefixtures("_restored")
def test_a_blocked_signal_is_received() -> None:
    """A mask is inherited by programs that know nothing of it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    with keeping_signals():
        signal.raise_signal(signal.SIGTERM)
        assert kept_signals() == [signal.SIGTERM]
