"""The lease of a terminal: whose modes it has, and when it is given back and taken again."""

import os
import select
import signal
import termios
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import pytest
import trio
from tests.helpers.person import TIMEOUT

from trio_upper.platform import terminal
from trio_upper.terminal.console import HungUp
from trio_upper.terminal.lease import BACKGROUND_SECONDS, TIDY, Lease, borrow


@pytest.fixture
def tty() -> Iterator[tuple[int, int]]:
    """A terminal and its other side."""
    master, tty = os.openpty()
    yield tty, master
    os.close(tty)
    os.close(master)


def fail_while_silent(tty: int, master: int) -> NoReturn:
    with borrow(tty) as lease:
        lease.use(terminal.silent)
        flags = termios.tcgetattr(tty)[3]
        assert not flags & (termios.ECHO | termios.ICANON)
        assert flags & termios.ISIG
        os.write(master, b"rm -r important\n")
        assert select.select([tty], [], [], TIMEOUT)[0]
        raise ZeroDivisionError


def test_a_terminal_is_left_as_it_was(tty: tuple[int, int]) -> None:
    """Silenced, it neither echoes nor keeps lines but still signals; afterwards it does all."""
    fd, master = tty
    before = termios.tcgetattr(fd)
    with pytest.raises(ZeroDivisionError):
        fail_while_silent(fd, master)
    assert termios.tcgetattr(fd) == before
    os.write(master, b"x\n")
    assert os.read(fd, 100) == b"x\n"


def test_a_terminal_that_hung_up_needs_no_restoring() -> None:
    """Nothing is raised when the terminal has gone, unless somebody is to be asked."""
    master, fd = os.openpty()
    with borrow(fd) as lease:
        lease.use(terminal.raw)
        os.close(master)
        with pytest.raises(HungUp):
            lease.discard_typed()
        with pytest.raises(HungUp):
            lease.read(100)
        lease.use(terminal.silent)
        assert not lease.give_back()
        assert not lease.take_again()
    os.close(fd)


@pytest.fixture
def background(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A terminal that a shell has taken back; the list is of signals sent to the whole job."""
    sent: list[int] = []
    monkeypatch.setattr(terminal, "in_foreground", lambda _: False)
    monkeypatch.setattr(terminal, "stop_job", sent.append)
    return sent


def test_modes_that_a_shell_has_set_stay(tty: tuple[int, int], background: list[int]) -> None:
    """A job that ends in the background leaves the terminal as whoever has it wants it."""
    fd, _ = tty
    with borrow(fd) as lease:
        lease.use(terminal.raw)
        theirs = termios.tcgetattr(fd)
        theirs[3] |= termios.ECHO
        termios.tcsetattr(fd, termios.TCSANOW, theirs)
    assert termios.tcgetattr(fd) == theirs
    assert background == [signal.SIGTTIN]  # who starts there waits for the foreground


def test_modes_that_nobody_has_set_since_are_restored(
    tty: tuple[int, int], background: list[int]
) -> None:
    """Not every shell has modes of its own: after `kill -STOP` some would be left raw."""
    fd, _ = tty
    before = termios.tcgetattr(fd)
    with borrow(fd) as lease:
        lease.use(terminal.raw)
    assert termios.tcgetattr(fd) == before


def test_a_terminal_that_was_stopped_is_taken_again(tty: tuple[int, int]) -> None:
    """In the modes that were asked for last, and what the shell has is what is found now."""
    fd, _ = tty
    with borrow(fd) as lease:
        lease.use(terminal.raw)
        ours = termios.tcgetattr(fd)
        assert not lease.take_again()  # nobody else had it
        assert lease.give_back()
        assert not lease.usable
        theirs = termios.tcgetattr(fd)
        theirs[3] &= ~termios.ECHOE
        termios.tcsetattr(fd, termios.TCSANOW, theirs)
        lease.use(terminal.silent)
        lease.use(terminal.raw)
        assert termios.tcgetattr(fd) == theirs
        assert lease.take_again()
        assert lease.usable
        assert termios.tcgetattr(fd)[3] == ours[3] & ~termios.ECHOE
    assert termios.tcgetattr(fd) == theirs


def test_only_what_is_for_us_is_read(tty: tuple[int, int], background: list[int]) -> None:
    """In the background what is typed is for the shell."""
    fd, master = tty
    with borrow(fd) as lease:
        os.write(master, b"ls\n")
        assert select.select([fd], [], [], TIMEOUT)[0]
        assert lease.read(100) is None
    assert os.read(fd, 100) == b"ls\n"


def test_there_is_not_always_something_to_read(tty: tuple[int, int]) -> None:
    """Somebody else may have read it, or discarded it."""
    fd, master = tty
    with borrow(fd) as lease:
        assert lease.read(100) is None
        os.write(master, b"a\n\x04")
        assert select.select([fd], [], [], TIMEOUT)[0]
        assert lease.read(100) == b"a\n"
        assert lease.read(100) == b""  # Ctrl-D at a canonical terminal


@pytest.mark.parametrize("taken", [False, True])
def test_reading_may_fail(
    tty: tuple[int, int], taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel gives EIO while it is about to hang up, and to a job in the background."""
    fd, master = tty

    def read(fd: int, max_bytes: int) -> NoReturn:
        monkeypatch.setattr(terminal, "in_foreground", lambda _: not taken)
        raise OSError

    with borrow(fd) as lease:
        os.write(master, b"a\n")
        assert select.select([fd], [], [], TIMEOUT)[0]
        monkeypatch.setattr(os, "read", read)
        if taken:
            assert lease.read(100) is None
        else:
            with pytest.raises(HungUp):
                lease.read(100)


class Screen:
    """A borrower that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.resumed = trio.Event()

    async def leave(self, give_back: Callable[[], object]) -> None:
        self.told.append("leave")
        give_back()

    async def resume(self, take_again: Callable[[], bool]) -> None:
        self.told.append("elsewhere" if take_again() else "here")
        self.resumed.set()


@asynccontextmanager
async def watched(fd: int) -> AsyncIterator[tuple[Lease, Screen]]:
    screen = Screen()
    with borrow(fd) as lease, trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as nursery:
            await nursery.start(lease.watch, screen)
            yield lease, screen
            nursery.cancel_scope.cancel()


async def test_a_stop_gives_the_terminal_back_until_it_goes_on(
    tty: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The screen is put away first; stopped, the terminal is as it was found."""
    fd, _ = tty
    found = termios.tcgetattr(fd)
    while_stopped: list[Any] = []
    monkeypatch.setattr(
        terminal, "stop_job", lambda sent: while_stopped.append((sent, termios.tcgetattr(fd)))
    )
    async with watched(fd) as (lease, screen):
        lease.use(terminal.raw)
        signal.raise_signal(signal.SIGTSTP)
        await screen.resumed.wait()
        assert while_stopped == [(signal.SIGTSTP, found)]
        assert screen.told == ["leave", "elsewhere"]
        assert lease.usable


async def test_what_is_continued_is_drawn_anew(tty: tuple[int, int]) -> None:
    """Nobody has noticed a SIGSTOP: the modes tell whether a shell had the terminal."""
    fd, _ = tty
    async with watched(fd) as (lease, screen):
        lease.use(terminal.raw)
        signal.raise_signal(signal.SIGCONT)
        await screen.resumed.wait()
        assert screen.told == ["here"]


async def test_a_job_that_goes_on_in_the_background_stops_there(
    tty: tuple[int, int], background: list[int], autojump_clock: object
) -> None:
    """Not at once: it may have been continued to be ended."""
    fd, _ = tty
    async with watched(fd) as (_, screen):
        signal.raise_signal(signal.SIGCONT)
        await trio.sleep(BACKGROUND_SECONDS - 0.01)
        assert background == [signal.SIGTTIN]  # of the start
        await trio.sleep(0.02)
        assert background == [signal.SIGTTIN] * 2
        assert screen.told == ["leave"]


async def test_a_job_that_is_in_front_in_time_goes_on(
    tty: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell may continue it first, and give it the terminal then."""
    async with watched(tty[0]) as (_, screen):
        in_foreground = iter([False])
        monkeypatch.setattr(terminal, "in_foreground", lambda _: next(in_foreground, True))
        signal.raise_signal(signal.SIGCONT)
        await screen.resumed.wait()
        assert screen.told == ["here"]


async def test_a_stop_that_is_ignored_on_purpose_stays_so(
    tty: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where whoever started this process has no job control."""
    before = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        async with watched(tty[0]) as (_, screen):
            signal.raise_signal(signal.SIGTSTP)
            signal.raise_signal(signal.SIGCONT)
            await screen.resumed.wait()
            assert screen.told == ["here"]
    finally:
        signal.signal(signal.SIGTSTP, before)


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGUSR1, signal.SIGALRM, signal.SIGXCPU])
def test_signals_that_end_a_process_leave_the_terminal_as_it_was(
    number: signal.Signals, tty: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would do so without a line of ours; here the terminal comes first."""
    fd, master = tty
    found = termios.tcgetattr(fd)
    ended: list[Any] = []
    raise_signal = signal.raise_signal
    with borrow(fd) as lease:
        lease.use(terminal.raw)
        monkeypatch.setattr(
            signal, "raise_signal", lambda sent: ended.append((sent, signal.getsignal(sent)))
        )
        raise_signal(number)
        assert termios.tcgetattr(fd) == found
        assert ended == [(number, signal.SIG_DFL)]
        assert os.read(master, 1000) == TIDY.replace(b"\n", b"\r\n")
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_signal_in_the_background_leaves_the_terminal_to_its_shell(
    tty: tuple[int, int], background: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its modes nor its screen are touched."""
    fd, master = tty
    ended: list[int] = []
    with borrow(fd) as lease:
        lease.use(terminal.raw)
        theirs = termios.tcgetattr(fd)
        theirs[3] |= termios.ECHO
        termios.tcsetattr(fd, termios.TCSANOW, theirs)
        monkeypatch.setattr(signal, "raise_signal", ended.append)
        lease.end_by(signal.SIGQUIT)
        assert termios.tcgetattr(fd) == theirs
        assert not select.select([master], [], [], 0)[0]
    assert ended == [signal.SIGQUIT]
    assert signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL
