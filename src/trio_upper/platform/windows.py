"""What Windows has in a way of its own; `portable` says what each name is."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn

# The exit code of a program that Ctrl-C has ended (ntstatus.h), as a signed number.
STATUS_CONTROL_C_EXIT = 0xC000013A - (1 << 32)

if sys.platform == "win32":
    STOP_SIGNALS = (signal.SIGINT, signal.SIGBREAK, signal.SIGTERM)
else:  # for its tests
    STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def end_with(status: int) -> NoReturn:
    sys.exit(STATUS_CONTROL_C_EXIT if isinstance(status, signal.Signals) else status)


def quote_command(words: Sequence[str]) -> str:
    return subprocess.list2cmdline(words)
