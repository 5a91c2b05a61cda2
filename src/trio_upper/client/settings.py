"""What can be set for a client, with the defaults; importing it loads nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import ssl

# How long a reply may be owed without a byte of it coming.
REPLY_TIMEOUT_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectSettings:
    """How to connect.

    `connect_timeout` covers resolving, connecting and the TLS handshake, all addresses together, in
    seconds; 0: no limit. `wait` is how long to keep trying while that can help, in seconds; a try
    that began in time may last for `connect_timeout`. `tls` is a client's context; None: plain TCP.
    `ip_version` is 4 or 6 to use only that one. `bind` is the numeric address of this machine to
    connect from; None: the system chooses.

    Error handling: `ValueError`, with one clear sentence, for a `bind` that is not an address, or
    not one of `ip_version`.
    """

    connect_timeout: float = 10
    wait: float = 0
    tls: ssl.SSLContext | None = None
    ip_version: Literal[4, 6] | None = None
    bind: str | None = None

    def __post_init__(self) -> None:
        if self.bind is None:
            return
        version = _ip_version(self.bind)
        if version is None:
            raise ValueError(
                f"{self.bind!r} is not a valid address to connect from; "
                "give an IPv4 address or an IPv6 address of this machine"
            )
        if self.ip_version not in {None, version}:
            raise ValueError(
                f"{self.bind} is an IPv{version} address, which cannot be used with IPv"
                f"{self.ip_version}; leave out one of the two"
            )

    @property
    def only(self) -> Literal[4, 6] | None:
        """The one IP version that can be used, 4 or 6; None if both can."""
        return self.ip_version if self.bind is None else _ip_version(self.bind)


def _ip_version(address: str) -> Literal[4, 6] | None:
    from ipaddress import ip_address  # here, because few connect from an address of their choice

    try:
        return ip_address(address).version
    except ValueError:
        return None
