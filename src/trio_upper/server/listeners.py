"""Where to listen: from what the operator wrote to open listeners on one port, or why not."""

import errno
import os
import socket
from collections.abc import Awaitable, Callable, Container, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import trio

from trio_upper.platform import keep_alive

# With port 0 the system chooses one for the first address; it may be in use at the next one.
PORT_TRIES = 20

# A vanished peer (cable cut, power lost) is found although nothing is being sent to it: seconds of
# silence after which the kernel asks whether it is still there, and seconds between two questions.
KEEPALIVE_IDLE_SECONDS = 300
KEEPALIVE_INTERVAL_SECONDS = 30

# A process without a place for a client leaves it to others for so long, in seconds: enough for one
# that is busy, and it can still refuse twenty in a second. Then it has a glance at the queue, which
# is no longer than this: others may have emptied it.
OTHERS_FIRST = 0.05
GLANCE = 0.001

# What `bind` and `socket` say where IPv6 is switched off.
_NO_SUCH_FAMILY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}


class CannotListen(Exception):
    """An address cannot be listened on; the text says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """One address to listen on; `host` is what the operator wrote for it."""

    host: str
    address: str

    def dispensable(self, error: OSError) -> bool:
        """Whether to go on without it: IPv6 is switched off, and nobody asked for this address.

        ``::`` means all the IPv6 addresses that there are, so that a machine that has none has
        served the wish; another numeric address is meant by name.
        """
        asked_by_name = self.host == self.address and self.address != "::"
        return ":" in self.address and not asked_by_name and error.errno in _NO_SUCH_FAMILY


async def resolve_hosts(hosts: Iterable[str]) -> list[ListenAddress]:
    """Resolve `hosts`, names or addresses, to the places to listen on, each once.

    Raises `CannotListen` for a name that nobody knows.
    """
    places: dict[str, ListenAddress] = {}
    for host in hosts:
        bare = host.removeprefix("[").removesuffix("]")
        for address in await _resolve(bare):
            places.setdefault(address, ListenAddress(bare, address))
    return [place for place in places.values() if not _covered(place.address, places)]


def _covered(address: str, places: Container[str]) -> bool:
    """Whether a wildcard among `places` stands for `address`, so that both cannot be opened."""
    wildcard = "::" if ":" in address else "0.0.0.0"  # noqa: S104 - it compares
    return address != wildcard and wildcard in places


async def _resolve(host: str) -> list[str]:
    try:
        found = await trio.socket.getaddrinfo(
            host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise CannotListen(
            f"cannot listen on {host!r}: no such name or address; "
            "write an address of this machine, 0.0.0.0 for all IPv4 or :: for all IPv6"
        ) from error
    return [_numeric(sockaddr) for *_, sockaddr in found]


def _numeric(sockaddr: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]) -> str:
    """Return the address as text, with the scope of a link-local one (RFC 4007)."""
    return socket.getnameinfo(sockaddr, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]


class Serve(Protocol):
    """`trio.serve_tcp`, but for the address and the port."""

    def __call__(
        self, port: int, *, host: str, task_status: trio.TaskStatus[list[trio.SocketListener]]
    ) -> Awaitable[None]: ...


async def listen(
    serve: Serve,
    places: list[ListenAddress],
    port: int,
    *,
    task_status: trio.TaskStatus[list[tuple[str, int]]],
) -> None:
    """Run `serve` for each of `places`, all on one port, until cancelled.

    `port` 0 lets the system choose. Reports the addresses and ports when all of them are open.
    `CannotListen` escapes, in an `ExceptionGroup`. An IPv6 address that nobody asked for by name is
    left out where IPv6 is switched off.
    """
    tries_left = PORT_TRIES
    while True:
        async with trio.open_nursery() as nursery:
            try:
                task_status.started(await _open(nursery, serve, places, port))
            except _PortTaken as taken:
                tries_left -= 1
                if not tries_left:
                    raise taken.explanation from taken
                nursery.cancel_scope.cancel()


class _PortTaken(Exception):
    """The port that the system chose for the first address is in use at another one."""

    def __init__(self, explanation: CannotListen) -> None:
        self.explanation = explanation


async def _open(
    nursery: trio.Nursery, serve: Serve, places: list[ListenAddress], port: int
) -> list[tuple[str, int]]:
    opened: list[tuple[str, int]] = []
    left_out: list[CannotListen] = []
    chosen = port
    for place in places:
        try:
            [listener] = await nursery.start(partial(serve, chosen, host=place.address))
        except OSError as error:
            explanation = explain(place, chosen, error)
            if error.errno == errno.EADDRINUSE and chosen != port:
                raise _PortTaken(explanation) from error
            if not place.dispensable(error):
                raise explanation from error
            left_out.append(explanation)
            continue
        keep_alive(
            listener.socket,
            idle_seconds=KEEPALIVE_IDLE_SECONDS,
            interval_seconds=KEEPALIVE_INTERVAL_SECONDS,
        )
        chosen = listener.socket.getsockname()[1]
        opened.append((place.address, chosen))
    if not opened:
        raise left_out[0]
    return opened


def address_of(listener: trio.SocketListener) -> tuple[str, int]:
    """Return the address, with the scope of a link-local one, and the port listened on."""
    sockname = listener.socket.getsockname()
    return _numeric(sockname), sockname[1]


class Shared(trio.abc.Listener[trio.SocketStream]):
    """A listener from whose queue other processes accept, too.

    While `is_full` says that there is no place left here, it lets them go first. A client is so
    refused only if nobody has a place for it, or nobody else has the time to accept it.

    Resource handling: closing it closes `listener`, for this process.
    """

    def __init__(self, listener: trio.SocketListener, is_full: Callable[[], bool]) -> None:
        self._listener = listener
        self._is_full = is_full
        #: The address and port listened on.
        self.address = address_of(listener)
        keep_alive(
            listener.socket,
            idle_seconds=KEEPALIVE_IDLE_SECONDS,
            interval_seconds=KEEPALIVE_INTERVAL_SECONDS,
        )

    async def accept(self) -> trio.SocketStream:
        """Accept a connection, as `trio.SocketListener.accept` does."""
        while True:
            await trio.lowlevel.wait_readable(self._listener.socket)
            await trio.lowlevel.checkpoint()  # who was accepted last takes its place meanwhile
            if self._is_full():
                await trio.sleep(OTHERS_FIRST)
            with trio.move_on_after(GLANCE):
                return await self._listener.accept()

    async def aclose(self) -> None:
        """Close the listener."""
        await self._listener.aclose()


def explain(place: ListenAddress, port: int, error: OSError) -> CannotListen:
    """Return, for a person, why `place` cannot be listened on at `port`."""
    match error.errno:
        case errno.EADDRINUSE:
            why = "the port is in use; is a server running already? Choose another one with --port"
        case errno.EACCES | errno.EPERM:
            why = "no permission; ports below 1024 are the administrator's, choose a higher --port"
        case errno.EADDRNOTAVAIL:
            why = "this machine has no such address; 0.0.0.0 and :: stand for all that it has"
        case errno.EAFNOSUPPORT | errno.EPROTONOSUPPORT:
            why = "this machine has IPv6 switched off; use an IPv4 address"
        case errno.EINVAL if place.address.startswith("fe80"):
            why = "a link-local address needs its interface, as in fe80::1%eth0"
        case _:
            why = os.strerror(error.errno) if error.errno else str(error)
    return CannotListen(f"cannot listen on {place.address} port {port}: {why}")
