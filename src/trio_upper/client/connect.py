"""From a host and a port to a connected stream, or to `failures.CannotConnect`.

Happy Eyeballs (RFC 8305) in structured concurrency: the attempts are sibling tasks in one nursery,
and the first that connects cancels the others. Trio's own `trio.open_tcp_stream` does the same, but
does not tell which address failed in which way, and that is what its user needs to know here.
"""

from __future__ import annotations

import contextlib
import errno
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from trio_upper.client.addresses import Address, numeric, resolve
from trio_upper.client.failures import Attempt, BindFailed, CannotConnect, Cause
from trio_upper.client.settings import ConnectSettings

if TYPE_CHECKING:
    import ssl
    from typing import Literal

    from trio_upper.client.target import Target

# How long an address has to itself before the next one is tried beside it: the recommended value
# of RFC 8305 section 8.
STAGGER_SECONDS = 0.25

# How long to pause between two tries for a server that is still starting: short at first, for one
# that is nearly there, and doubled up to a pause that a person does not notice.
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 1.0

# How long to look for the names in a certificate that is for another one: enough for a server that
# has just answered, and short, because why there is no connection is known without them.
NAMES_SECONDS = 2.0

# How many bytes may wait in the kernel to be sent (tcp(7)). Trio allows 16 KiB, so that urgent data
# does not queue behind the rest; all that a client sends is alike, and a bulk transfer takes a
# third less CPU time this way.
UNSENT_BYTES = 1024 * 1024

# Where trying again can help. A server that is starting behind a proxy of its machine shows as one
# that hangs up; a machine that is starting has no route, no name server and no name yet.
_WORTH_ANOTHER_TRY = frozenset(
    {
        Cause.REFUSED,
        Cause.REFUSED_HERE,
        Cause.RESET,
        Cause.TIMED_OUT,
        Cause.NO_NEIGHBOUR,
        Cause.NO_ROUTE,
        Cause.NAME_NOT_FOUND,
        Cause.NAME_SERVER,
        Cause.TLS_CLOSED,
        Cause.TLS_SILENT,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A connection and how it came about; `str()` of it is one line for a person.

    `stream` is a `trio.SocketStream` or a `trio.SSLStream`. `address` is the numeric address that
    it is connected to. `lookup_seconds`, `seconds` and `tls_seconds` are the times of resolving,
    connecting and the TLS handshake. `tls_version` is as in "TLS 1.3"; None: plain TCP. `others`
    are the addresses that failed, or that had the first turn and did not answer.
    """

    stream: trio.abc.Stream
    target: Target
    address: str
    lookup_seconds: float
    seconds: float
    tls_seconds: float = 0.0
    tls_version: str | None = None
    others: tuple[Attempt, ...] = ()

    def __str__(self) -> str:
        """Return to whom it is connected, in which time, and which addresses were no good."""
        host = self.target.host
        shown = host if host == self.address else f"{host} ({self.address})"
        tls = f" with {self.tls_version}" if self.tls_version else ""
        line = f"connected to {shown} port {self.target.port} in {self.seconds * 1e3:.1f} ms{tls}"
        return "; ".join([line, *map(str, self.others)])


class Retries:
    """When to try again: after growing pauses, until `wait` seconds have passed."""

    def __init__(self, wait: float) -> None:
        self._until = trio.current_time() + wait
        self._pause = FIRST_PAUSE_SECONDS

    async def pause(self) -> bool:
        """Pause before another try and return True; False, at once, when the wait is over."""
        left = self._until - trio.current_time()
        if left <= 0:
            return False
        await trio.sleep(min(self._pause, left))
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        return True


async def connect(
    target: Target,
    *,
    connect_timeout: float = 10,
    wait: float = 0,
    tls: ssl.SSLContext | None = None,
    ip_version: Literal[4, 6] | None = None,
    bind: str | None = None,
) -> trio.abc.Stream:
    """Connect to `target` and return the stream, a `trio.SocketStream` or a `trio.SSLStream`.

    `connect_timeout` covers resolving, connecting and the TLS handshake, all addresses together, in
    seconds; 0: no limit. `wait` is how long to keep trying while that can help, in seconds; a try
    that began in time may last for `connect_timeout`. `tls` is a client's context; None: plain TCP.
    `ip_version` is 4 or 6 to use only that one. `bind` is the numeric address of this machine to
    connect from.

    Resource handling: the caller closes the stream. No socket is left open in any other case.

    Error handling: `CannotConnect`, with every address of the last try and the time of all tries;
    `ValueError` for a `bind` that is not a valid address.
    """
    settings = ConnectSettings(
        connect_timeout=connect_timeout, wait=wait, tls=tls, ip_version=ip_version, bind=bind
    )
    return (await open_connection(target, settings)).stream


async def open_connection(
    target: Target, settings: ConnectSettings, retries: Retries | None = None
) -> Connection:
    """Connect to `target` as `connect` does, and return how that came about.

    `retries` are those of a caller that tries again itself when the connection proves to be of no
    use; None: new ones of `settings.wait`.
    """
    started = trio.current_time()
    retries = retries or Retries(settings.wait)
    while True:
        with contextlib.closing(_Try(target, settings)) as this_try:
            with trio.move_on_after(settings.connect_timeout or math.inf):
                await this_try.connect()
            connection = this_try.take()  # also one that came at the very end of the time
            if connection is not None:
                return connection
        failure = this_try.failure(seconds=trio.current_time() - started)
        if failure.cause not in _WORTH_ANOTHER_TRY or not await retries.pause():
            raise failure


class _Try:
    """One try over all the addresses of a target, and the result of each.

    An address is noted from the moment when its attempt begins, so that one in progress when time
    runs out is known too. Until the stream is taken, `close` closes it.
    """

    def __init__(self, target: Target, settings: ConnectSettings) -> None:
        self._target = target
        self._settings = settings
        self._addresses: list[Address] = []
        self._attempts: dict[str, Attempt] = {}
        self._lookup_error: Exception | None = None
        self._lookup_seconds = 0.0
        self._transport: trio.SocketStream | None = None
        self._address = ""  # of the transport
        self._seconds = 0.0  # that it took to connect
        self._secured: trio.SSLStream[trio.SocketStream] | None = None
        self._tls_seconds = 0.0

    async def connect(self) -> None:
        """Connect, and shake hands if TLS is wanted."""
        self._addresses = await self._resolve()
        await self._race(self._addresses)
        if self._transport is not None and self._settings.tls is not None:
            await self._secure(self._transport, self._settings.tls)

    def take(self) -> Connection | None:
        """Return the connection, which is the caller's from now on; None if there is none."""
        stream = self._transport if self._settings.tls is None else self._secured
        if stream is None:
            return None
        self._transport = None
        return Connection(
            stream=stream,
            target=self._target,
            address=self._address,
            lookup_seconds=self._lookup_seconds,
            seconds=self._seconds,
            tls_seconds=self._tls_seconds,
            tls_version=str(self._secured.version()).replace("v", " ") if self._secured else None,
            others=self._others(),
        )

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

    def _others(self) -> tuple[Attempt, ...]:
        """Return the attempts that failed, or that began before the winner and had no answer."""
        begun = list(self._attempts)
        earlier = begun[: begun.index(self._address)]
        return tuple(
            attempt
            for attempt in self._attempts.values()
            if not attempt.connected and (attempt.address in earlier or not attempt.unanswered)
        )

    async def _resolve(self) -> list[Address]:
        began = trio.current_time()
        try:
            return await resolve(self._target, self._settings.only)
        except (OSError, UnicodeError) as error:
            self._lookup_error = error
            return []
        finally:
            self._lookup_seconds = trio.current_time() - began

    async def _race(self, addresses: list[Address]) -> None:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(self._attempt, address, failed, nursery.cancel_scope)
                with trio.move_on_after(STAGGER_SECONDS):
                    await failed.wait()

    async def _attempt(
        self, address: Address, failed: trio.Event, siblings: trio.CancelScope
    ) -> None:
        began = trio.current_time()
        self._note(address, trio.TooSlowError())  # which stands if it gets no further
        try:
            transport = await _open_transport(address, self._settings.bind)
        except OSError as error:
            own = isinstance(error, ConnectionRefusedError) and address.is_own()
            self._note(address, error, own=own)
            failed.set()
            return
        if self._transport is not None:  # two connected in the same pass of the scheduler
            transport.socket.close()
            del self._attempts[str(address)]
            return
        self._transport, self._address = transport, str(address)
        self._seconds = trio.current_time() - began
        self._note(address, trio.TooSlowError(), connected=True)
        siblings.cancel()

    async def _secure(self, transport: trio.SocketStream, tls: ssl.SSLContext) -> None:
        """Have TLS over `transport`, or note why there is none."""
        began = trio.current_time()
        # A certificate lists neither a scope (RFC 4007 section 11.2) nor the dot of a root.
        name = self._target.host.partition("%")[0].rstrip(".")
        try:
            stream = trio.SSLStream(transport, tls, server_hostname=name, https_compatible=False)
            await stream.do_handshake()
        except trio.BrokenResourceError as error:
            # Noted first, to be what is told if the time ends in what follows.
            attempt = self._note(self._address, error, connected=True)
            await _say_why(transport, error)
            if attempt.cause is Cause.TLS_WRONG_NAME:
                with trio.move_on_after(NAMES_SECONDS):
                    names = await self._certificate_names(tls, name)
                    self._attempts[self._address] = replace(attempt, names=names)
        else:
            self._secured = stream
            self._tls_seconds = trio.current_time() - began

    async def _certificate_names(self, tls: ssl.SSLContext, name: str) -> tuple[str, ...]:
        """Return the names in the server's certificate; none if it cannot be seen.

        OpenSSL shows no certificate that it has refused, so a second connection looks at it, which
        verifies all but the name, and over which nothing is sent.
        """
        from trio_upper.tls import names_in

        [address] = [one for one in self._addresses if str(one) == self._address]
        try:
            transport = await _open_transport(address, self._settings.bind)
        except OSError:
            return ()
        async with transport:
            tls.check_hostname = False  # which is for the one stream that is made here
            try:
                stream = trio.SSLStream(transport, tls, server_hostname=name)
            finally:
                tls.check_hostname = True
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.do_handshake()
                return tuple(names_in(stream))
        return ()

    def _note(
        self,
        address: Address | str,
        error: Exception,
        *,
        connected: bool = False,
        own: bool = False,
    ) -> Attempt:
        attempt = Attempt(address=str(address), error=error, connected=connected, own=own)
        self._attempts[attempt.address] = attempt
        return attempt


async def _say_why(transport: trio.SocketStream, error: trio.BrokenResourceError) -> None:
    """Tell a server, if it still listens, why this client ended the handshake."""
    from trio_upper.tls import unsent_alert

    with contextlib.suppress(trio.BrokenResourceError):
        await transport.send_all(unsent_alert(error))


async def _open_transport(address: Address, bind: str | None) -> trio.SocketStream:
    sock = trio.socket.socket(address.family, trio.socket.SOCK_STREAM)
    try:
        if bind is not None:
            await _bind(sock, bind)
        await sock.connect(address.sockaddr)
        if sock.getsockname() == sock.getpeername():  # a free port of this machine met itself
            raise ConnectionRefusedError(errno.ECONNREFUSED, "connected to itself")
    except BaseException:
        sock.close()
        raise
    stream = trio.SocketStream(sock)  # which sets TCP_NODELAY, and TCP_NOTSENT_LOWAT to 16 KiB
    with contextlib.suppress(OSError, AttributeError):  # where there is no such option
        stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    return stream


async def _bind(sock: trio.socket.SocketType, address: str) -> None:
    try:
        await sock.bind(numeric(address))
    except OSError as error:
        raise BindFailed(error.errno, error.strerror) from None
