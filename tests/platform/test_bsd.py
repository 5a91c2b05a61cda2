"""What macOS and the BSDs have in a way of their own, as far as Linux can show it."""

import os
import socket

import pytest
from tests.helpers.descriptor_ends import Descriptors, pipe, terminal

from trio_upper.platform import bsd


def test_bytes_without_an_acknowledgement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux does not know that option; where it is known, its value is the answer."""
    with socket.socket() as sock:
        assert bsd.unacknowledged_bytes(sock) is None
        monkeypatch.setattr(bsd, "SO_NWRITE", socket.SO_TYPE)
        assert bsd.unacknowledged_bytes(sock) == socket.SOCK_STREAM


def test_a_terminal_is_opened_again_by_its_name(fds: Descriptors) -> None:
    """A pipe has none."""
    opened, master = terminal(fds)
    again = fds.keep(bsd.reopen(opened, os.O_WRONLY) or -1)
    assert not os.get_blocking(again)
    assert os.get_blocking(opened)
    assert bsd.reopen(pipe(fds)[0], os.O_RDONLY) is None
    assert bsd.reopen(fds.keep(os.open("/dev/null", os.O_RDWR)), os.O_RDONLY) is None
    assert bsd.reopen(master, os.O_RDONLY) is None  # it would be another terminal
