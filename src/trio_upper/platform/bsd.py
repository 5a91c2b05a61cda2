"""What macOS and the BSDs have in a way of their own; `portable` says what each name is."""

import os
import socket
import stat
import sys
from contextlib import suppress

assert sys.platform != "win32"  # for the type checker

# Bytes in the send buffer (sys/socket.h of macOS and FreeBSD); Python has no name for it.
SO_NWRITE = 0x1024


def unacknowledged_bytes(sock: socket.socket) -> int | None:
    try:
        return sock.getsockopt(socket.SOL_SOCKET, SO_NWRITE)
    except OSError:
        return None


def reopen(fd: int, access: int) -> int | None:
    """Open a terminal by its name; a pipe has none.

    That of a terminal's other end would make a new terminal (``/dev/ptmx``).
    """
    with suppress(OSError):
        if stat.S_ISCHR(os.fstat(fd).st_mode) and not (name := os.ttyname(fd)).endswith("ptmx"):
            return os.open(name, access | os.O_NONBLOCK | os.O_NOCTTY)
    return None
