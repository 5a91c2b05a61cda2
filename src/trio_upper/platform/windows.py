"""What Windows has in a way of its own; `portable` says what each name is."""

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn, TextIO

from trio_upper.platform.windows_console import is_console

# The exit code of a program that Ctrl-C has ended (ntstatus.h), as a signed number.
STATUS_CONTROL_C_EXIT = 0xC000013A - (1 << 32)

if sys.platform == "win32":
    STOP_SIGNALS = (signal.SIGINT, signal.SIGBREAK, signal.SIGTERM)
else:  # for its tests
    STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def end_with(status: int) -> NoReturn:
    sys.exit(STATUS_CONTROL_C_EXIT if isinstance(status, signal.Signals) else status)


def is_terminal(stream: TextIO) -> bool:
    """Ask for the console: NUL, the printer and a serial line say that they are terminals, too."""
    return stream.isatty() and is_console(stream.fileno())


def read_descriptor(fd: int, max_bytes: int) -> bytes:
    """Read; of a console UTF-8, whatever its code page."""
    if not is_console(fd):
        return os.read(fd, max_bytes)
    with open(fd, "rb", buffering=0, closefd=False) as console:  # io._WindowsConsoleIO
        return console.read(max_bytes) or b""


def write_descriptor(fd: int, data: bytes | memoryview) -> int:
    """Write; UTF-8 to a console, whatever its code page.

    A pipe whose reader has gone gives EINVAL (ERROR_NO_DATA, of which the C library knows nothing).
    """
    if is_console(fd):
        with open(fd, "wb", buffering=0, closefd=False) as console:
            return console.write(data) or 0
    try:
        return os.write(fd, data)
    except OSError as error:
        if error.errno == errno.EINVAL and stat.S_ISFIFO(os.fstat(fd).st_mode):
            raise BrokenPipeError(errno.EPIPE, "the pipe has no reader") from error
        raise


def quote_command(words: Sequence[str]) -> str:
    return subprocess.list2cmdline(words)
