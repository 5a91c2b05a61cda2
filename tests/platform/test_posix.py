"""What Linux, macOS and the BSDs have in common: limits, signals, terminals."""

import os
import pty
import resource
import signal
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.helpers.descriptor_ends import Descriptors, pipe

from trio_upper.platform import portable, posix

Limits = tuple[int, int]
INFINITY = resource.RLIM_INFINITY


class Kernel:
    """A system's descriptor limits: `most` is the highest one that it takes."""

    def __init__(self, soft: int, hard: int, most: int) -> None:
        self.limits = (soft, hard)
        self.most = most

    def get(self, _: int) -> Limits:
        return self.limits

    def set(self, _: int, limits: Limits) -> None:
        if limits[0] == INFINITY or limits[0] > self.most:
            raise ValueError("not allowed to raise maximum limit")
        self.limits = limits


@pytest.mark.parametrize(
    ("soft", "hard", "most", "raised"),
    [
        (1024, 4096, 1 << 30, 4096),
        (4096, 4096, 0, 4096),
        (1024, 1 << 30, 1_048_576, 1_048_576),  # above fs.nr_open
        (256, INFINITY, 10_240, 10_240),  # macOS, whose OPEN_MAX that is
        (256, INFINITY, 0, 256),
        (INFINITY, INFINITY, 0, portable.UNLIMITED),
    ],
)
def test_the_descriptor_limit_is_raised_as_far_as_it_can_be(
    soft: int, hard: int, most: int, raised: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the hard one, or to the highest that the system takes; at worst it stays."""
    kernel = Kernel(soft, hard, most)
    monkeypatch.setattr(resource, "getrlimit", kernel.get)
    monkeypatch.setattr(resource, "setrlimit", kernel.set)
    assert posix.raise_descriptor_limit() == raised


def test_open_descriptors_are_counted(
    fds: Descriptors, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Those that were inherited, too; none are known where the system does not list them."""
    before = posix.open_descriptors()
    pipe(fds)
    assert posix.open_descriptors() == before + 2
    monkeypatch.setattr(posix, "OPEN_DESCRIPTORS", tmp_path / "missing")
    assert posix.open_descriptors() == 0


def test_a_program_ends_by_a_signal_even_if_it_was_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its default action, whatever the handler was."""
    raised: list[signal.Signals] = []
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    before = signal.getsignal(signal.SIGUSR2)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        with pytest.raises(SystemExit):
            posix.end_with(signal.SIGUSR2)
        assert raised == [signal.SIGUSR2]
        assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
        assert signal.SIGUSR2 not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_program_ends_with_an_exit_code() -> None:
    """As any other."""
    with pytest.raises(SystemExit) as caught:
        posix.end_with(3)
    assert caught.value.code == 3


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Give the person's end and the program's end of a terminal."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def test_a_silent_terminal_echoes_nothing_and_gets_its_modes_back(
    terminal: tuple[int, int],
) -> None:
    """Ctrl-C still signals; a return is no newline; what is typed can be forgotten."""
    ours, theirs = terminal
    before = posix.terminal_modes(theirs)
    posix.silence_terminal(theirs)
    modes = termios.tcgetattr(theirs)
    assert not modes[3] & (termios.ECHO | termios.ICANON)
    assert modes[3] & termios.ISIG
    os.write(ours, b"a\rb")
    assert os.read(theirs, 9) == b"a\rb"
    os.write(ours, b"forgotten")
    posix.forget_typed(theirs)
    os.write(ours, b"!")
    assert os.read(theirs, 9) == b"!"
    posix.set_terminal_modes(theirs, before)
    assert posix.terminal_modes(theirs) == before


def test_no_terminal_is_an_error_of_the_system(fds: Descriptors) -> None:
    """termios has an error of its own, which callers would have to know."""
    read, _ = pipe(fds)
    for ask in (posix.terminal_modes, posix.silence_terminal, posix.forget_typed):
        with pytest.raises(OSError, match="Inappropriate ioctl"):
            ask(read)
    assert not posix.is_in_foreground(read)


def test_the_foreground_is_the_job_that_the_terminal_has(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job in the background must leave it alone."""
    monkeypatch.setattr(os, "tcgetpgrp", lambda _: os.getpgrp())
    assert posix.is_in_foreground(terminal[1])
    monkeypatch.setattr(os, "tcgetpgrp", lambda _: 1)
    assert not posix.is_in_foreground(terminal[1])


def test_the_whole_job_is_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrapper, too, for which the shell waits."""
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *args: killed.append(args))
    posix.suspend_job()
    assert killed == [(0, signal.SIGTSTP)]


def test_what_a_descriptor_is_open_for(fds: Descriptors) -> None:
    """An end of a pipe has one direction, a terminal both."""
    read, write = pipe(fds)
    assert posix.is_open_for(read, os.O_RDONLY)
    assert not posix.is_open_for(read, os.O_WRONLY)
    assert posix.is_open_for(write, os.O_WRONLY)
    assert not posix.is_open_for(write, os.O_RDONLY)


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"XDG_STATE_HOME": "/state", "HOME": "/home/ada"}, Path("/state")),
        ({"XDG_STATE_HOME": "state", "HOME": "/home/ada"}, Path("/home/ada/.local/state")),
        ({"HOME": "/home/ada"}, Path("/home/ada/.local/state")),
        ({}, None),
    ],
)
def test_the_state_folder(environ: dict[str, str], folder: Path | None) -> None:
    """As the XDG specification has it, by which a relative path is invalid."""
    assert posix.state_folder(environ) == folder
