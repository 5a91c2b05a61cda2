"""Signals that stop the program: which, and what becomes of those that come early, or late."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import NoReturn

import pytest
from tests.helpers.waiting import TIMEOUT_SECONDS

from trio_upper.cli.early import (
    Kept,
    end_at_once,
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
    """It has done nothing yet; without a signal it goes on, until one comes."""
    ended: list[signal.Signals] = []
    monkeypatch.setattr("trio_upper.platform.end_with", ended.append)
    before = [signal.getsignal(number) for number in STOPPING]
    end_by_first_signal()
    assert [signal.getsignal(number) for number in STOPPING] == before
    keep_first_signals()
    end_by_first_signal()
    assert ended == []
    assert signal.getsignal(signal.SIGTERM) is end_at_once
    signal.raise_signal(signal.SIGTERM)
    assert ended == [signal.SIGTERM]
    keep_first_signals()
    signal.raise_signal(signal.SIGINT)
    assert ended == [signal.SIGTERM]
    end_by_first_signal()
    assert ended == [signal.SIGTERM, signal.SIGINT]


def test_a_signal_raises_nothing_where_it_strikes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no process is ended by a signal, it ends there and then."""

    def exit_with(status: int) -> NoReturn:
        sys.exit(128 + status)

    codes: list[int] = []
    monkeypatch.setattr("trio_upper.platform.end_with", exit_with)
    monkeypatch.setattr(os, "_exit", codes.append)
    end_at_once(signal.SIGINT, None)
    assert codes == [128 + signal.SIGINT]


# Runs the program with two signals, one right after the other, at a certain point.
TWICE = """if True:
    import atexit, runpy, signal, sys
    def strike():
        for _ in range(2):
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                print("raised", file=sys.stderr)
                raise
    class Striking:
        def find_spec(self, name, *_):
            if name == "trio":
                strike()
    if {loading}:
        sys.meta_path.insert(0, Striking())
    else:
        atexit.register(strike)
    runpy.run_module("trio_upper", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("loading", "words", "code"),
    [
        (True, ["ping", "::1"], -signal.SIGINT),
        (False, ["client", "--help"], -signal.SIGINT),
        (False, ["serve", "--help"], 0),
    ],
)
def test_ctrl_c_while_the_program_loads_and_ends_shows_nothing(
    loading: bool, words: list[str], code: int
) -> None:
    """However often it is pressed: the first one ends the process; a server has ended by then."""
    done = subprocess.run(
        [sys.executable, "-c", TWICE.format(loading=loading), *words],
        capture_output=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, b"")


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
