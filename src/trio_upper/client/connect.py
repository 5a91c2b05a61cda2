"""From a host and a port to a connected stream, or to `failures.CannotConnect`.

Happy Eyeballs (RFC 8305) in structured concurrency: the attempts are sibling tasks in one nursery,
and the first that connects cancels the others. Trio's own `trio.open_tcp_stream` does the same, but
does not tell which address failed in which way, and that is what its user needs to know here.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from trio_upper.client.failures import Attempt, CannotConnect, Cause
from trio_upper.protocol import DEFAULT_HOST, DEFAULT_PORT

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

# How long, in seconds, an address has to itself before the next one is tried beside it: the
# recommended value of RFC 8305 section 8.
STAGGER = 0.25

# How long, in seconds, to wait between two tries for a server that is still starting: short at
# first, for one that is nearly there, and doubled up to a pause that a person does not notice.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 1.0

MAX_PORT = 65535

# How many bytes may wait in the kernel for being sent (tcp(7)). Trio lets 16 KiB, so that what is
# urgent is not behind what is not; all that a client sends is alike, and a bulk transfer takes a
# third more CPU time that way.
MOST_UNSENT = 1024 * 1024

# Where trying again can help. A server that starts behind a proxy of its host shows as one that
# hangs up; a machine that starts has no route and no name server yet.
_WORTH_ANOTHER_TRY = frozenset(
    {
        Cause.REFUSED,
        Cause.RESET,
        Cause.TIMED_OUT,
        Cause.UNREACHABLE,
        Cause.NAME_SERVER,
        Cause.TLS_CLOSED,
        Cause.TLS_SILENT,
    }
)

_PORT = re.compile("0*[0-9]{1,5}")
_ALLOWED_HOSTS = (
    "allowed are a name, an IPv4 address and an IPv6 address, "
    "as in localhost, 192.168.1.7 and fe80::1%eth0"
)
_ALLOWED_PORTS = f"allowed is a number from 1 to {MAX_PORT}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to connect to: a name or numeric address, and a port from 1 to 65535.

    An IPv6 address may have a scope (RFC 4007 section 11), as in ``fe80::1%eth0``; it has no
    brackets. `ValueError`, with one clear sentence, for anything that is no host or no port.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT

    def __post_init__(self) -> None:
        _check_host(self.host)
        if not 1 <= self.port <= MAX_PORT:
            raise ValueError(f"the port {self.port} is out of range; {_ALLOWED_PORTS}")


def parse_target(host: str | None, port: str | int | None) -> Target:
    """Return the `Target` that a person meant.

    `host` may carry the port, as in ``host:8746`` or ``[::1]:8746``. None for either: its default.

    Error handling: `ValueError`, with one clear sentence, for what is malformed, and for two ports
    that contradict each other.
    """
    name, carried = (DEFAULT_HOST, None) if host is None else split_host(host.strip())
    numbers = {_port_number(text) for text in (carried, port) if text is not None}
    if len(numbers) > 1:
        raise ValueError(f"{host!r} carries another port than {port}; give only one of them")
    return Target(host=name, port=numbers.pop() if numbers else DEFAULT_PORT)


async def connect(
    target: Target,
    *,
    connect_timeout: float,
    wait: float = 0.0,
    tls: ssl.SSLContext | None = None,
) -> trio.abc.Stream:
    """Connect to `target` and return the stream, a `trio.SocketStream` or `trio.SSLStream`.

    `connect_timeout` is for resolving, connecting and the TLS handshake, all addresses together, in
    seconds; 0: no limit. `wait` is for how long to try again when that can help, in seconds; a try
    that began in time may go on for `connect_timeout`. `tls` is a client's context; None: plain.

    Resource handling: the caller closes the stream. No socket is left open on any other way out.

    Error handling: `CannotConnect`, with every address of the last try and the time of all tries.
    """
    started = trio.current_time()
    pause = FIRST_PAUSE
    while True:
        with (
            contextlib.closing(_Try(target, tls)) as this_try,
            trio.move_on_after(connect_timeout or math.inf),
        ):
            stream = await this_try.connect()
            if stream is not None:
                return stream
        failure = this_try.failure(seconds=trio.current_time() - started)
        left = started + wait - trio.current_time()
        if left <= 0 or failure.cause not in _WORTH_ANOTHER_TRY:
            raise failure
        await trio.sleep(min(pause, left))
        pause = min(2 * pause, LONGEST_PAUSE)


class _Try:
    """One try over all the addresses of a target, and what came of each.

    An address is noted from the moment its attempt begins, so that one in progress when time runs
    out is known too. Until the stream is handed over, `close` closes it.
    """

    def __init__(self, target: Target, tls: ssl.SSLContext | None) -> None:
        self._target = target
        self._tls = tls
        self._attempts: dict[str, Attempt] = {}
        self._lookup_error: Exception | None = None
        self._transport: trio.SocketStream | None = None
        self._address = ""  # of the transport

    async def connect(self) -> trio.abc.Stream | None:
        """Return the stream, which is the caller's from now on, or None when all failed."""
        await self._race(await self._resolve())
        if self._transport is None:
            return None
        stream = await self._secure(self._transport, self._tls) if self._tls else self._transport
        if stream is not None:
            self._transport = None
        return stream

    def failure(self, *, seconds: float) -> CannotConnect:
        return CannotConnect(
            self._target.host,
            self._target.port,
            attempts=tuple(self._attempts.values()),
            seconds=seconds,
            lookup_error=self._lookup_error,
        )

    def close(self) -> None:
        if self._transport is not None:
            self._transport.socket.close()

    async def _resolve(self) -> list[_Address]:
        try:
            found = await trio.socket.getaddrinfo(
                self._target.host,
                self._target.port,
                type=trio.socket.SOCK_STREAM,
                proto=trio.socket.IPPROTO_TCP,
            )
        except (OSError, UnicodeError) as error:
            self._lookup_error = error
            return []
        return _in_turns(dict.fromkeys(_Address(info[0], info[4]) for info in found))

    async def _race(self, addresses: list[_Address]) -> None:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(self._attempt, address, failed, nursery.cancel_scope)
                with trio.move_on_after(STAGGER):
                    await failed.wait()

    async def _attempt(
        self, address: _Address, failed: trio.Event, siblings: trio.CancelScope
    ) -> None:
        self._note(str(address), trio.TooSlowError())  # which stands if it gets no further
        try:
            transport = await _open_transport(address)
        except OSError as error:
            self._note(str(address), error)
            failed.set()
            return
        if self._transport is not None:  # two connected in the same pass of the scheduler
            transport.socket.close()
            return
        self._transport, self._address = transport, str(address)
        self._note(self._address, trio.TooSlowError(), connected=True)
        siblings.cancel()

    async def _secure(
        self, transport: trio.SocketStream, tls: ssl.SSLContext
    ) -> trio.SSLStream[trio.SocketStream] | None:
        # A certificate holds neither a scope (RFC 4007 section 11.2) nor the dot of a root.
        name = self._target.host.partition("%")[0].rstrip(".")
        try:
            stream = trio.SSLStream(transport, tls, server_hostname=name, https_compatible=False)
            await stream.do_handshake()
        except trio.BrokenResourceError as error:
            self._note(self._address, error, connected=True)
            await _say_why(transport, error)
            return None
        return stream

    def _note(self, address: str, error: Exception, *, connected: bool = False) -> None:
        self._attempts[address] = Attempt(address=address, error=error, connected=connected)


async def _say_why(transport: trio.SocketStream, error: trio.BrokenResourceError) -> None:
    """Tell a server, if it still listens, why this client ended the handshake."""
    from trio_upper.tls import unsent_alert

    with contextlib.suppress(trio.BrokenResourceError):
        await transport.send_all(unsent_alert(error))


async def _open_transport(address: _Address) -> trio.SocketStream:
    sock = trio.socket.socket(address.family, trio.socket.SOCK_STREAM)
    try:
        await sock.connect(address.sockaddr)
    except BaseException:
        sock.close()
        raise
    stream = trio.SocketStream(sock)  # which sets TCP_NODELAY, and TCP_NOTSENT_LOWAT to 16 KiB
    with contextlib.suppress(OSError, AttributeError):  # where there is no such option
        stream.setsockopt(socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, MOST_UNSENT)
    return stream


@dataclass(frozen=True, slots=True)
class _Address:
    family: int
    sockaddr: tuple[Any, ...]

    def __str__(self) -> str:
        """Return the numeric address, with its scope if it has one."""
        host, _, *rest = self.sockaddr
        scope_id = rest[1] if rest else 0
        return f"{host}%{_interface(scope_id)}" if scope_id else str(host)


def _interface(scope_id: int) -> str:
    try:
        return socket.if_indextoname(scope_id)
    except OSError:  # a scope may be given as the number of an interface that is not there
        return str(scope_id)


def _in_turns(addresses: Iterable[_Address]) -> list[_Address]:
    """Return `addresses` with their families taking turns, the first one's first.

    RFC 8305 section 4: one family that is broken then costs one `STAGGER`, not one an address.
    """
    families: dict[int, list[_Address]] = {}
    for address in addresses:
        families.setdefault(address.family, []).append(address)
    turns = itertools.zip_longest(*families.values())
    return [address for turn in turns for address in turn if address is not None]


def split_host(host: str) -> tuple[str, str | None]:
    """Return a host and the port that it carries, if any; neither is checked yet."""
    if host.startswith("["):
        name, closed, rest = host[1:].partition("]")
        if not closed or ":" not in name or (rest and not rest.startswith(":")):
            raise ValueError(f"{host!r} is no host; brackets are for IPv6, as in [::1]:8746")
        return name, rest[1:] if rest else None
    if host.count(":") == 1:
        name, _, port = host.partition(":")
        return name, port
    return host, None


def _port_number(port: str | int) -> int:
    if isinstance(port, int):
        return port
    if not _PORT.fullmatch(port.strip()):
        raise ValueError(f"{port!r} is no port; {_ALLOWED_PORTS}")
    return int(port)


def _check_host(host: str) -> None:
    address, percent, scope = host.partition("%")
    if ":" in address or percent:
        fine = _is_numeric(socket.AF_INET6, address) and (not percent or _is_scope(scope))
    elif host.rpartition(".")[2].isdigit():  # no name ends like this (RFC 1123 section 2.1)
        fine = _is_numeric(socket.AF_INET, host)
    else:
        fine = bool(host.strip(".")) and all(_may_be_in_name(character) for character in host)
    if not fine:
        raise ValueError(f"{host!r} is no host; {_ALLOWED_HOSTS}")


def _is_numeric(family: int, address: str) -> bool:
    try:
        socket.inet_pton(family, address)
    except (OSError, ValueError):
        return False
    return True


def _is_scope(scope: str) -> bool:
    """Tell whether an interface may have this name (Linux, dev_valid_name), or this number."""
    return bool(scope) and scope.isprintable() and not set(scope) & set(" /:%")


def _may_be_in_name(character: str) -> bool:
    """Tell whether a name may hold this; the resolver judges the rest, and beyond ASCII, IDNA."""
    if character.isascii():
        return character.isalnum() or character in "-._"
    return character.isprintable()
