"""Sockets that listen, for what is passed from process to process."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio

# All of 127.0.0.0/8 is this machine (RFC 1122), and nobody else listens at this address.
HERE = "127.87.48.1"


@contextmanager
def listening(*, family: int = socket.AF_INET, address: Any = (HERE, 0)) -> Iterator[socket.socket]:
    """Yield a socket that listens."""
    with socket.socket(family) as bound:
        bound.bind(address)
        bound.listen()
        yield bound


def listener_on(bound: socket.socket) -> trio.SocketListener:
    """Return a listener on a duplicate of `bound`; whoever has it closes it."""
    return trio.SocketListener(trio.socket.from_stdlib_socket(bound.dup()))
