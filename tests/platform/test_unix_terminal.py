"""The terminal as the system has it: modes, foreground and stopping."""

import os
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress

import pytest
from tests.helpers.descriptor_ends import Descriptors, pipe

from trio_upper.platform import terminal


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    """Give the person's end and the program's end of a terminal."""
    ours, theirs = os.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def test_a_silent_terminal_echoes_nothing_and_gets_its_modes_back(ends: tuple[int, int]) -> None:
    """Ctrl-C still signals; a return is no newline; what is typed can be discarded."""
    ours, theirs = ends
    before = terminal.read_modes(theirs)
    assert terminal.is_canonical(theirs)
    terminal.write_modes(theirs, terminal.silent(before))
    modes = termios.tcgetattr(theirs)
    assert not modes[3] & (termios.ECHO | termios.ICANON)
    assert modes[3] & termios.ISIG
    assert not terminal.is_canonical(theirs)
    os.write(ours, b"a\rb")
    assert os.read(theirs, 9) == b"a\rb"
    os.write(ours, b"discarded")
    terminal.discard_input(theirs)
    assert not terminal.is_readable(theirs)
    os.write(ours, b"!")
    assert os.read(theirs, 9) == b"!"
    terminal.write_modes(theirs, before)
    assert terminal.read_modes(theirs) == before


def test_no_terminal_is_an_error_of_the_system(fds: Descriptors) -> None:
    """termios has an error of its own, which callers would have to know."""
    read, _ = pipe(fds)
    for ask in (terminal.read_modes, terminal.is_canonical, terminal.discard_input):
        with pytest.raises(OSError, match="Inappropriate ioctl"):
            ask(read)
    assert terminal.in_foreground(read)  # nobody else can have taken it
    assert terminal.open_writer(read) is None


def test_the_foreground_is_the_job_that_the_terminal_has(
    ends: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job in the background must leave it alone."""
    monkeypatch.setattr(os, "tcgetpgrp", lambda _: os.getpgrp())
    assert terminal.in_foreground(ends[1])
    monkeypatch.setattr(os, "tcgetpgrp", lambda _: 1)
    assert not terminal.in_foreground(ends[1])


def test_a_writer_of_its_own_does_not_block(ends: tuple[int, int]) -> None:
    """Whoever shares the terminal finds it as it was."""
    _, theirs = ends
    own = terminal.open_writer(theirs)
    assert own is not None
    assert terminal.wait_writable(own, 0)
    with suppress(BlockingIOError):
        while True:
            os.write(own, bytes(1000))
    assert not terminal.wait_writable(own, 0)
    assert os.get_blocking(theirs)
    os.close(own)


def test_a_job_is_stopped_as_a_whole_and_handlers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrapper, too, for which the shell waits, and all at once."""
    stopped: list[tuple[int, int, object]] = []
    monkeypatch.setattr(os, "kill", lambda *to: stopped.append((*to, signal.getsignal(to[1]))))
    before = signal.signal(signal.SIGTSTP, lambda *_: None)
    ours = signal.getsignal(signal.SIGTSTP)
    terminal.stop_job(signal.SIGTSTP)
    assert stopped == [(0, signal.SIGTSTP, signal.SIG_DFL)]
    assert signal.signal(signal.SIGTSTP, before) is ours


# Stops its job, and says when the system's call for that has returned, and when `stop_job` has.
STOPPING = """
import os, signal
from trio_upper.platform import terminal

kill = os.kill

def then_speak(*args):
    kill(*args)
    os.write(1, b"goes on\\n")

os.kill = then_speak
signal.signal(signal.SIGTSTP, lambda *_: None)
terminal.stop_job(signal.SIGTSTP)
os.write(1, b"ends\\n")
"""


def test_a_job_that_is_continued_at_once_goes_on() -> None:
    """It stops with the first of its job: the shell that saw that may continue it already."""
    with subprocess.Popen(
        [sys.executable, "-c", STOPPING], stdout=subprocess.PIPE, process_group=0
    ) as process:
        assert process.stdout is not None
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        assert select.select([process.stdout], [], [], 0)[0] == []
        os.killpg(process.pid, signal.SIGCONT)
        assert process.stdout.read() == b"goes on\nends\n"
        assert process.wait() == 0


def test_a_stop_that_is_ignored_on_purpose_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where whoever started this process has no job control."""
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("signalled"))
    before = signal.signal(signal.SIGTTIN, signal.SIG_IGN)
    terminal.stop_job(signal.SIGTTIN)
    assert signal.signal(signal.SIGTTIN, before) is signal.SIG_IGN


def test_in_the_background_this_thread_is_not_stopped() -> None:
    """Both signals are blocked inside, and as they were outside."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with terminal.not_stopped():
        assert {signal.SIGTTOU, signal.SIGTTIN} <= signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_signals_that_end_a_process() -> None:
    """Those that nobody handles, and that neither stop it nor mean a fault of its own."""
    ending = terminal.ending_signals()
    assert {signal.SIGQUIT, signal.SIGUSR1, signal.SIGALRM, signal.SIGABRT} <= set(ending)
    assert not {signal.SIGTSTP, signal.SIGWINCH, signal.SIGSEGV, signal.SIGKILL} & set(ending)
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    assert signal.SIGUSR1 not in terminal.ending_signals()
    signal.signal(signal.SIGUSR1, before)
