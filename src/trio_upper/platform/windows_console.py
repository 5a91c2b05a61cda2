"""Calls of Windows for a console, by the number of its descriptor."""

import errno
import importlib
from typing import Any


def is_console(fd: int) -> bool:
    """Return whether `fd` is a console."""
    try:
        console_mode(fd)
    except OSError:
        return False
    return True


def console_mode(fd: int) -> int:
    """Return the modes of the console `fd`; OSError if it is none."""
    ctypes = importlib.import_module("ctypes")
    mode = ctypes.c_ulong()
    console_call("GetConsoleMode", fd, ctypes.byref(mode))
    value: int = mode.value
    return value


def console_call(name: str, fd: int, *arguments: Any) -> None:
    """Call a function of kernel32 for the console `fd`; OSError if that fails."""
    ctypes = importlib.import_module("ctypes")
    handle = importlib.import_module("msvcrt").get_osfhandle(fd)
    if not getattr(ctypes.WinDLL("kernel32"), name)(ctypes.c_void_p(handle), *arguments):
        raise OSError(errno.ENOTTY, "it is no console")
