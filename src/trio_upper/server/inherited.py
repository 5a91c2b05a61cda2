"""Listeners from another process, passed by the convention of systemd's socket activation.

See sd_listen_fds(3). A parent passes its listeners to its workers in the same way, so that a worker
is a server like any other.
"""

import contextlib
import os
import re
import socket
from collections.abc import Mapping, MutableMapping

import trio

from trio_upper.server.listeners import CannotListen

# The number of the first passed descriptor: SD_LISTEN_FDS_START.
FIRST_PASSED = 3


def are_passed(environment: Mapping[str, str]) -> bool:
    """Return whether listeners were passed to this very process."""
    return environment.get("LISTEN_PID") == str(os.getpid())


def adopt_listeners(
    environment: MutableMapping[str, str], *, first: int = FIRST_PASSED
) -> tuple[trio.SocketListener, ...]:
    """Return the listeners that were passed to this process, if any.

    The variables are removed from `environment`, so that no child takes them for its own.

    Error handling: `CannotListen` if one of them is not a listening TCP socket.
    """
    ours = are_passed(environment)
    count = environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_PID", None)
    environment.pop("LISTEN_FDNAMES", None)
    if not ours:
        return ()
    if not re.fullmatch("[0-9]{1,9}", count):  # thousands of digits are more than `int` takes
        raise CannotListen(f"cannot inherit listeners: LISTEN_FDS is {count!r}, not their number")
    return tuple(_adopt(number) for number in range(first, first + int(count)))


def _adopt(number: int) -> trio.SocketListener:
    why = "it is not a socket"
    with contextlib.suppress(OSError):
        adopted = socket.socket(fileno=number)
        if _is_listener(adopted):
            adopted.set_inheritable(False)
            return trio.SocketListener(trio.socket.from_stdlib_socket(adopted))
        adopted.close()
        why = "it is not a listening TCP socket; a socket unit needs ListenStream= and Accept=no"
    raise CannotListen(f"cannot inherit descriptor {number}: {why}")


def _is_listener(adopted: socket.socket) -> bool:
    return (
        adopted.family in {socket.AF_INET, socket.AF_INET6}
        and adopted.type == socket.SOCK_STREAM
        and bool(adopted.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    )
