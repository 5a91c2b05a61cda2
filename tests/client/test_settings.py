"""How to connect: which address of this machine goes with which IP version."""

from typing import Literal

import pytest

from trio_upper.client.settings import ConnectSettings


@pytest.mark.parametrize(
    ("ip_version", "bind", "only"),
    [
        (None, None, None),
        (4, None, 4),
        (6, None, 6),
        (None, "192.0.2.1", 4),
        (None, "::1", 6),
        (None, "fe80::1%eth0", 6),
        (6, "::1", 6),
    ],
)
def test_which_ip_version_can_be_used(
    ip_version: Literal[4, 6] | None, bind: str | None, only: int | None
) -> None:
    """From an address of this machine only addresses of its version can be reached."""
    assert ConnectSettings(ip_version=ip_version, bind=bind).only == only


@pytest.mark.parametrize(
    ("ip_version", "bind", "said"),
    [
        (None, "box", "'box' is not a valid address to connect from; give an IPv4 address"),
        (None, "", "'' is not a valid address"),
        (None, "127.1", "'127.1' is not a valid address"),
        (6, "192.0.2.1", "192.0.2.1 is an IPv4 address, which cannot be used with IPv6"),
        (4, "::1", "::1 is an IPv6 address, which cannot be used with IPv4"),
    ],
)
def test_an_address_that_cannot_be_used(
    ip_version: Literal[4, 6] | None, bind: str, said: str
) -> None:
    """What is not an address of this machine, or not of the version that was asked for."""
    with pytest.raises(ValueError, match=said):
        ConnectSettings(ip_version=ip_version, bind=bind)
