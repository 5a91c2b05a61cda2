"""What can be set for a server, with the defaults; importing it loads no Trio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trio_upper.protocol import DEFAULT_HOST, DEFAULT_PORT

if TYPE_CHECKING:
    import ssl

    import trio


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How a server is to serve.

    `port` 0 lets the system choose one port for all of `hosts`. Timeouts are in seconds:
    `idle_timeout` without a byte from a client, `write_timeout` without a byte that it took (0:
    never, for both), `grace` for clients that still talk when the server stops (0: none).
    `tls` None serves plain TCP. `inherited` are listeners that are open already, to be used instead
    of `hosts` and `port`; the server closes them.

    Error handling: `ValueError` for what makes no sense.
    """

    hosts: tuple[str, ...] = (DEFAULT_HOST,)
    port: int = DEFAULT_PORT
    max_clients: int = 10_000
    idle_timeout: float = 600
    write_timeout: float = 30
    grace: float = 10
    tls: ssl.SSLContext | None = None
    inherited: tuple[trio.SocketListener, ...] = ()

    def __post_init__(self) -> None:
        if not (self.hosts or self.inherited):
            raise ValueError("hosts must name at least one address, unless listeners are inherited")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"{self.port} is not a valid port; use a number from 0 to 65535")
        if self.max_clients < 1:
            raise ValueError("max_clients must be at least 1")
        timeouts = (self.idle_timeout, self.write_timeout, self.grace)
        if not all(seconds >= 0 for seconds in timeouts):  # NaN is not
            raise ValueError("timeouts must be 0 or more")
