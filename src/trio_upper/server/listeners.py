"""Listeners: from the hosts of the operator to open listeners on one port, or why that fails."""

import contextlib
import errno
import logging
import math
import socket
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import trio

from trio_upper.platform import keep_alive, peer_address
from trio_upper.server.events import Log

# With port 0 the system chooses one for the first address; it may be in use at the next one.
PORT_TRIES = 20

# A vanished peer (cable cut, power lost) is found although nothing is being sent to it: after this
# much silence the system asks whether it is still there, and then again and again.
KEEPALIVE_IDLE_SECONDS = 300
KEEPALIVE_INTERVAL_SECONDS = 30

# A full process lets others accept first: long enough for one that is busy, and it can still refuse
# twenty clients in a second. Then it tries to accept, and gives up soon: others may have emptied
# the queue.
YIELD_SECONDS = 0.05
TRY_SECONDS = 0.001

# Accepting that fails is tried again ten times a second; after this long without, it is news again.
ACCEPT_ERROR_SECONDS = 60.0

# What an IPv6 socket calls an IPv4 peer (RFC 4291, section 2.5.5.2).
IPV4_MAPPED = "::ffff:"

# What `bind` and `socket` say where IPv6 is switched off.
_NO_SUCH_FAMILY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}


class CannotListen(Exception):
    """An address cannot be listened on; the text says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """An address to listen on; `host` is what the operator wrote for it."""

    host: str
    address: str

    def can_be_left_out(self, error: OSError) -> bool:
        """Return whether to go on without it: IPv6 is off, and it was not asked for by name.

        ``::`` means all IPv6 addresses that this machine has, which may be none.
        """
        asked_by_name = self.host == self.address and self.address != "::"
        return ":" in self.address and not asked_by_name and error.errno in _NO_SUCH_FAMILY


async def resolve_hosts(hosts: Iterable[str]) -> list[ListenAddress]:
    """Resolve `hosts`, names or addresses, to the addresses to listen on, each once.

    Error handling: `CannotListen` for a name that cannot be resolved.
    """
    found: dict[str, ListenAddress] = {}
    for host in hosts:
        bare = host.removeprefix("[").removesuffix("]")
        for address in await _resolve(bare):
            found.setdefault(address, ListenAddress(bare, address))
    return [one for one in found.values() if not _is_covered(one.address, found)]


def _is_covered(address: str, addresses: Container[str]) -> bool:
    """Return whether a wildcard among `addresses` includes `address`: both cannot be opened."""
    wildcard = "::" if ":" in address else "0.0.0.0"  # noqa: S104 - it compares
    return address != wildcard and wildcard in addresses


async def _resolve(host: str) -> list[str]:
    try:
        found = await trio.socket.getaddrinfo(
            host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:
        raise CannotListen(
            f"cannot listen on {host!r}: no such name or address; "
            "use an address of this machine, 0.0.0.0 for all IPv4 or :: for all IPv6"
        ) from error
    except OSError as error:
        raise CannotListen(f"cannot listen on {host!r}: {_in_words(error)}") from error
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
    addresses: list[ListenAddress],
    port: int,
    *,
    when_open: Callable[[list[trio.SocketListener]], object] = list,
    task_status: trio.TaskStatus[list[tuple[str, int]]],
) -> None:
    """Run `serve` for each of `addresses`, all on one port, until cancelled.

    `port` 0 lets the system choose. Reports the addresses and ports when all of them are open, and
    calls `when_open` with their listeners. An IPv6 address that was not asked for by name is left
    out where IPv6 is switched off.

    Error handling: `CannotListen` escapes, in an `ExceptionGroup`.
    """
    tries_left = PORT_TRIES
    while True:
        async with trio.open_nursery() as nursery:
            try:
                listeners = await _open(nursery, serve, addresses, port)
                when_open(listeners)
                task_status.started([address_of(listener) for listener in listeners])
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
    nursery: trio.Nursery, serve: Serve, addresses: list[ListenAddress], port: int
) -> list[trio.SocketListener]:
    opened: list[trio.SocketListener] = []
    left_out: list[CannotListen] = []
    chosen = port
    for wanted in addresses:
        try:
            [listener] = await nursery.start(partial(serve, chosen, host=wanted.address))
        except OSError as error:
            explanation = explain(wanted, chosen, error)
            if error.errno == errno.EADDRINUSE and chosen != port:
                raise _PortTaken(explanation) from error
            if not wanted.can_be_left_out(error):
                raise explanation from error
            left_out.append(explanation)
            continue
        prepare(listener.socket)
        chosen = listener.socket.getsockname()[1]
        opened.append(listener)
    if not opened:
        raise left_out[0]
    return opened


def address_of(listener: trio.SocketListener) -> tuple[str, int]:
    """Return the address, with the scope of a link-local one, and the port listened on."""
    sockname = listener.socket.getsockname()
    return _numeric(sockname), sockname[1]


class Backlog:
    """The connections that wait in the system's queue of a listener, accepted many at a time.

    Resource handling: it has a descriptor of its own, so that the queue lives until `close`.
    """

    def __init__(self, listener: trio.SocketListener, is_full: Callable[[], bool]) -> None:
        """While `is_full` is true, nothing is accepted.

        Error handling: `CannotListen` if no descriptor is free.
        """
        shared = listener.socket
        try:
            self._socket = socket.fromfd(shared.fileno(), shared.family, shared.type, shared.proto)
        except OSError as error:
            address, port = address_of(listener)
            raise explain(ListenAddress(address, address), port, error) from error
        self._socket.setblocking(False)
        self._is_full = is_full

    def accept_waiting(self, most: int) -> Iterator[socket.socket]:
        """Yield at most `most` of the connections that wait; it does not wait for more."""
        for _ in range(most):
            if self._is_full():
                return
            try:
                accepted, _ = self._socket.accept()
            except ConnectionAbortedError:  # it has gone
                continue
            except OSError:  # the queue is empty, or the system has no room for one more
                return
            accepted.setblocking(False)
            with contextlib.suppress(OSError):  # it has gone
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield accepted

    def close(self) -> None:
        """Close the descriptor; if it is the last one, what waits is reset."""
        self._socket.close()


class SharedListener(trio.abc.Listener[trio.SocketStream]):
    """A listener from whose queue other processes accept, too.

    While `is_full` says that this process has no capacity left, it lets them accept first. So a
    client is refused only if all are full, or no other has the time to accept it.

    Resource handling: closing it closes `listener`, for this process.
    """

    def __init__(self, listener: trio.SocketListener, is_full: Callable[[], bool]) -> None:
        self._listener = listener
        self._is_full = is_full
        #: The socket that listens.
        self.socket = listener.socket
        #: The address and port listened on.
        self.address = address_of(listener)
        prepare(listener.socket)

    async def accept(self) -> trio.SocketStream:
        """Accept a connection, as `trio.SocketListener.accept` does."""
        while True:
            await trio.lowlevel.wait_readable(self.socket)
            await trio.lowlevel.checkpoint()  # who was accepted last is counted meanwhile
            if self._is_full():
                await trio.sleep(YIELD_SECONDS)
            with trio.move_on_after(TRY_SECONDS):
                return await self._listener.accept()

    async def aclose(self) -> None:
        """Close the listener."""
        await self._listener.aclose()


class _AcceptErrors(logging.Filter):
    """Takes what Trio logs when accepting fails, and logs it once as an event of ours."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log
        self._quiet_until = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        now = trio.current_time()
        if now >= self._quiet_until:
            _, error, _ = record.exc_info or (None, None, None)
            self._log.warning("cannot accept", why=getattr(error, "strerror", str(error)))
        self._quiet_until = now + ACCEPT_ERROR_SECONDS
        return False


@contextlib.contextmanager
def accept_errors_in(log: Log) -> Iterator[None]:
    """Have `log` told, once, when the system has no room for new connections.

    Trio tries again ten times a second, with a traceback each time in a log of its own.
    """
    logger, errors = logging.getLogger("trio.serve_listeners"), _AcceptErrors(log)
    logger.addFilter(errors)
    try:
        yield
    finally:
        logger.removeFilter(errors)


def peer_name(accepted: socket.socket) -> str:
    """Return the address and port at the other end of a connection, for the log."""
    address = peer_address(accepted)
    if address is None:
        return "unknown"
    host = _numeric(address).removeprefix(IPV4_MAPPED)
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"


def prepare(sock: socket.socket | trio.socket.SocketType) -> None:
    """Set the options of a connection, or those that the connections of a listener inherit.

    Urgent data is a byte like others, in its place.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    keep_alive(
        sock,
        idle_seconds=KEEPALIVE_IDLE_SECONDS,
        interval_seconds=KEEPALIVE_INTERVAL_SECONDS,
    )


def explain(wanted: ListenAddress, port: int, error: OSError) -> CannotListen:
    """Return, for a person, why `wanted` cannot be listened on at `port`."""
    match error.errno:
        case errno.EADDRINUSE:
            why = "the port is in use; is a server running already? Choose another port with --port"
        case errno.EACCES | errno.EPERM:
            why = "no permission; ports below 1024 need an administrator, choose another --port"
        case errno.EADDRNOTAVAIL:
            why = "this machine has no such address; use 0.0.0.0 for all IPv4 or :: for all IPv6"
        case errno.EAFNOSUPPORT | errno.EPROTONOSUPPORT:
            why = "this machine has IPv6 switched off; use an IPv4 address"
        case errno.EINVAL if wanted.address.startswith("fe80"):
            why = "a link-local address needs its interface, for example fe80::1%eth0"
        case _:
            why = _in_words(error)
    return CannotListen(f"cannot listen on {wanted.address} port {port}: {why}")


def _in_words(error: OSError) -> str:
    if error.errno == errno.EMFILE:
        return "too many open files; raise `ulimit -n`"
    return error.strerror or str(error)
