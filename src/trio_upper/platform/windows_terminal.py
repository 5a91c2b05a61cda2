"""The console of Windows: see `unix_terminal`, whose names these are.

A console has no job control, hands over keys and takes text by calls of its own, which
`prompt_toolkit` makes. What is left is its input modes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from trio_upper.platform.windows_console import console_call, console_mode

Modes = Any

HAS_SEQUENCES: Literal[False] = False
LINE_BYTES = 4095

# There are no jobs, and so none of these.
STOP = NEEDS_TERMINAL = CONTINUE = QUIT = 0

# From consoleapi.h: Ctrl-C signals, lines are edited, and what is typed is shown.
ENABLE_PROCESSED_INPUT = 0x1
ENABLE_LINE_INPUT = 0x2
ENABLE_ECHO_INPUT = 0x4


def ending_signals() -> list[int]:
    return []


def job_signals() -> list[int]:
    return []


def is_dumb() -> bool:
    return False


def read_modes(fd: int) -> Modes:
    return console_mode(fd)


def write_modes(fd: int, modes: Modes) -> None:
    console_call("SetConsoleMode", fd, modes)


def silent(modes: Modes) -> Modes:
    return modes & ~(ENABLE_LINE_INPUT | ENABLE_ECHO_INPUT)


def raw(modes: Modes) -> Modes:
    return silent(modes) & ~ENABLE_PROCESSED_INPUT


def is_canonical(fd: int) -> bool:
    return bool(read_modes(fd) & ENABLE_LINE_INPUT)


def discard_input(fd: int) -> None:
    console_call("FlushConsoleInputBuffer", fd)


def in_foreground(fd: int) -> bool:
    return os.isatty(fd)


def stop_job(number: int) -> None:
    """Do nothing."""


def request_stop() -> None:
    """Do nothing."""


def signal_job(number: int) -> None:
    """Do nothing."""


@contextmanager
def not_stopped() -> Iterator[None]:
    yield


def open_writer(fd: int) -> int | None:  # noqa: ARG001 - the contract
    """Return None: writing to a console always waits."""
    return None


def wait_writable(fd: int, seconds: float) -> bool:  # noqa: ARG001 - the contract
    return True


def is_readable(fd: int) -> bool:  # noqa: ARG001 - the contract
    """Return True: who reads a console waits, in a thread."""
    return True
