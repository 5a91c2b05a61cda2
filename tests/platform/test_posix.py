"""What Linux, macOS and the BSDs have in common: limits, signals, descriptors."""

import os
import resource
import signal
import subprocess
import sys
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
        with pytest.raises(SystemExit) as caught:
            posix.end_with(signal.SIGUSR2)
        assert caught.value.code == 128 + signal.SIGUSR2
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


# Exits with 1 if a descriptor is locked by somebody else.
TRY_TO_LOCK = """if True:
    import fcntl, sys
    try:
        fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(1)
"""


def is_locked(fd: int) -> bool:
    """Tell whether this process keeps another one from writing to `fd`."""
    command = [sys.executable, "-ISc", TRY_TO_LOCK, str(fd)]
    return subprocess.run(command, pass_fds=[fd], check=False).returncode == 1


@pytest.mark.skipif(sys.platform != "linux", reason="others may have no lock for a pipe")
def test_a_pipe_can_be_had_for_oneself(fds: Descriptors) -> None:
    """By one process at a time, until it lets go."""
    write = pipe(fds)[1]
    with posix.exclusive(write):
        assert is_locked(write)
    assert not is_locked(write)


def test_a_file_is_not_locked(tmp_path: Path) -> None:
    """Its lock may be somebody else's, for something else; and one that is closed is nobody's."""
    with (tmp_path / "log").open("w") as file:
        with posix.exclusive(file.fileno()):
            assert not is_locked(file.fileno())
        closed = file.fileno()
    with posix.exclusive(closed):
        pass


def test_what_a_descriptor_is_open_for(fds: Descriptors) -> None:
    """An end of a pipe has one direction, a terminal both."""
    read, write = pipe(fds)
    assert posix.is_open_for(read, os.O_RDONLY)
    assert not posix.is_open_for(read, os.O_WRONLY)
    assert posix.is_open_for(write, os.O_WRONLY)
    assert not posix.is_open_for(write, os.O_RDONLY)


def test_exit_codes_are_kept_where_they_were_not_wanted() -> None:
    """With SIGCHLD ignored the system forgets a child when it ends (wait(2))."""
    before = signal.getsignal(signal.SIGCHLD)
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        for _ in range(2):
            posix.keep_exit_codes()
            assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGCHLD, before)
