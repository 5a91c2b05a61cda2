"""What Windows has in a way of its own, as far as another system can show it."""

import ctypes
import errno
import io
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.helpers.descriptor_ends import Descriptors, file, pipe

from trio_upper.platform import windows, windows_console, windows_terminal

CONSOLE = 100
"""What is added to the number of a descriptor for its handle."""


class Kernel:
    """The functions of kernel32, for which `consoles` are the descriptors that are one."""

    def __init__(self, *consoles: int) -> None:
        self.modes = dict.fromkeys((fd + CONSOLE for fd in consoles), 0x1F7)
        self.flushed: list[int] = []

    def get_mode(self, handle: Any, mode: Any) -> int:
        if handle.value not in self.modes:
            return 0
        mode._obj.value = self.modes[handle.value]
        return 1

    def set_mode(self, handle: Any, mode: int) -> int:
        self.modes[handle.value] = mode
        return 1

    def flush(self, handle: Any) -> int:
        self.flushed.append(handle.value - CONSOLE)
        return 1


def install(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    functions = SimpleNamespace(
        GetConsoleMode=kernel.get_mode,
        SetConsoleMode=kernel.set_mode,
        FlushConsoleInputBuffer=kernel.flush,
    )
    monkeypatch.setattr(ctypes, "WinDLL", lambda _: functions, raising=False)
    msvcrt = SimpleNamespace(get_osfhandle=lambda fd: fd + CONSOLE)
    monkeypatch.setitem(sys.modules, "msvcrt", msvcrt)


def test_ctrl_c_has_an_exit_code_of_its_own() -> None:
    """No signal ends a process there."""
    with pytest.raises(SystemExit) as caught:
        windows.end_with(signal.SIGINT)
    assert caught.value.code == windows.STATUS_CONTROL_C_EXIT == -1073741510
    with pytest.raises(SystemExit) as caught:
        windows.end_with(3)
    assert caught.value.code == 3


def test_a_command_is_quoted_as_windows_reads_it() -> None:
    """Single quotes mean nothing to cmd.exe."""
    assert windows.quote_command(["serve", "--tls-cert", "my cert.pem"]) == (
        'serve --tls-cert "my cert.pem"'
    )


def test_nul_is_no_terminal(fds: Descriptors, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that it is one; a console is known by its modes."""
    read, write = pipe(fds)
    install(Kernel(read), monkeypatch)
    for fd, there in ((read, True), (write, False)):
        stream = SimpleNamespace(isatty=lambda: True, fileno=lambda fd=fd: fd)
        assert windows.is_terminal(stream) is there  # type: ignore[arg-type]
    assert not windows.is_terminal(io.StringIO())


def test_a_descriptor_that_is_no_console_is_read_and_written_as_it_is(
    fds: Descriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte."""
    install(Kernel(), monkeypatch)
    read, write = pipe(fds)
    assert windows.write_descriptor(write, b"a\r\n\x1a") == 4
    assert windows.read_descriptor(read, 9) == b"a\r\n\x1a"


def test_a_console_is_read_and_written_as_utf_8(
    fds: Descriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a file object of Python's, which does not ask for the code page; it is left open."""
    read, write = pipe(fds)
    install(Kernel(read, write), monkeypatch)
    for _ in range(2):
        assert windows.write_descriptor(write, "ß".encode()) == 2
        assert windows.read_descriptor(read, 9) == "ß".encode()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSPC])
def test_a_pipe_without_a_reader_is_broken(
    number: int, fds: Descriptors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows says EINVAL, which of anything else means what it says."""
    install(Kernel(), monkeypatch)

    def fail(*_: object) -> int:
        raise OSError(number, "no")

    _, write = pipe(fds)
    other = file(fds, tmp_path / "file")
    monkeypatch.setattr(os, "write", fail)
    broken = BrokenPipeError if number == errno.EINVAL else OSError
    with pytest.raises(broken):
        windows.write_descriptor(write, b"a")
    with pytest.raises(OSError, match="no"):
        windows.write_descriptor(other, b"a")


def test_the_modes_of_a_console(fds: Descriptors, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are silenced and restored; what was typed can be discarded."""
    fd, other = pipe(fds)
    kernel = Kernel(fd)
    install(kernel, monkeypatch)
    before = windows_terminal.read_modes(fd)
    assert windows_terminal.is_canonical(fd)
    windows_terminal.write_modes(fd, windows_terminal.silent(before))
    assert windows_console.console_mode(fd) == 0x1F1
    windows_terminal.write_modes(fd, windows_terminal.raw(before))
    assert windows_console.console_mode(fd) == 0x1F0
    assert not windows_terminal.is_canonical(fd)
    windows_terminal.write_modes(fd, before)
    assert windows_terminal.read_modes(fd) == before
    windows_terminal.discard_input(fd)
    assert kernel.flushed == [fd]
    with pytest.raises(OSError, match="no console"):
        windows_terminal.read_modes(other)


def test_a_console_has_no_jobs(fds: Descriptors) -> None:
    """Nothing stops or continues them, and writing always waits."""
    fd, _ = pipe(fds)
    assert not windows_terminal.in_foreground(fd)  # it is no terminal
    assert not windows_terminal.is_dumb()
    assert windows_terminal.ending_signals() == []
    assert windows_terminal.job_signals() == []
    windows_terminal.stop_job(windows_terminal.STOP)
    windows_terminal.request_stop()
    windows_terminal.signal_job(windows_terminal.QUIT)
    with windows_terminal.not_stopped():
        assert windows_terminal.open_writer(fd) is None
        assert windows_terminal.wait_writable(fd, 0)
        assert windows_terminal.is_readable(fd)
