"""A client's connection: what the server needs of it, as a plain TCP stream and as a TLS stream."""

import contextlib
import operator
import socket
import ssl
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import trio

from trio_upper.platform import unacknowledged_bytes

# Bytes that one read asks for: large enough for bulk at full speed, small enough that the reply,
# which may be three times as long, stays below 256 KiB for a client that takes nothing of it.
READ_BYTES = 80 * 1024

# Bytes of text in one record of TLS (RFC 8446, section 5.1); more cannot be decrypted at once.
RECORD_BYTES = 16 * 1024

# When the reply over TLS to what one read has brought is as long as this, it is sent before the
# rest of that is answered: both together, with what OpenSSL has, stay below 256 KiB.
ENOUGH_BYTES = 128 * 1024

# How long a TLS client has to answer our closing alert with its own.
CLOSE_ANSWER_SECONDS = 0.25

Reply = bytes | bytearray | memoryview

Result = TypeVar("Result")

# A piece of the request in, its reply out: `Responder.answer`.
Answer = Callable[[bytes | bytearray], Reply]


class ClientStream(trio.abc.HalfCloseableStream):
    """What the server needs of a client's stream, beside what Trio's streams have."""

    __slots__ = ()

    async def do_handshake(self) -> None:
        """Make the stream ready; `trio.BrokenResourceError` if the client is not up to it."""
        await trio.lowlevel.checkpoint_if_cancelled()

    async def next_reply(self, answer: Answer) -> Reply | None:
        """Wait for the client; return what has to be sent to it, or None when it has ended.

        `answer` makes the reply to a piece of the request. A stream may use it for any number of
        pieces and send the replies itself; what it returns is what it has not sent, as it is on the
        wire, for `send_reply`.
        """
        data = await self.receive_some()
        return answer(data) if data else None

    def on_wire(self, reply: Reply) -> Reply:
        """Return `reply` as it is on the wire, for `send_reply`."""
        return reply

    async def send_reply(self, reply: Reply) -> None:
        """Send what `next_reply` or `on_wire` returned."""
        await self.send_all(reply)

    @property
    @abstractmethod
    def received(self) -> int:
        """How many bytes `receive_some` has taken from the wire."""

    @abstractmethod
    def has_unread(self) -> bool:
        """Return whether the client has sent something that was not received yet."""

    @abstractmethod
    def delivered(self) -> int:
        """Return a number that grows whenever the client takes some of what is sent to it."""


def take_socket(stream: trio.SocketStream) -> socket.socket:
    """Return the socket of `stream`, which is of no use afterwards."""
    taken = stream.socket
    return socket.socket(taken.family, taken.type, taken.proto, fileno=taken.detach())


class PlainStream(ClientStream):
    """A connected TCP socket, non-blocking, as the stream of one task at a time.

    For each message, `trio.SocketStream` asks for bytes before there are any, and passes the
    scheduler once more after it has sent. This one waits first, and sends at once: `send_all` is a
    checkpoint only when the system does not take all of it. `receive_some` always is, so a loop
    that receives and sends is fair to other tasks and can be cancelled.

    Error handling: OSError escapes from waiting if the system has no room for one more to wait for.
    """

    __slots__ = ("_received", "_sending_ended", "_socket", "_taken")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._sending_ended = False
        self._received = 0
        self._taken = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has come, at most `max_bytes`; empty at the end of the stream."""
        size = READ_BYTES if max_bytes is None else operator.index(max_bytes)
        if size < 1:
            raise ValueError("max_bytes must be at least 1")
        while True:
            await self._wait(trio.lowlevel.wait_readable)
            try:
                data = self._socket.recv(size)
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._translated(error) from error
            self._received += len(data)
            return data

    async def send_all(self, data: Reply) -> None:
        """Send all of `data`; at once, without a checkpoint, if the system takes it."""
        if self._sending_ended:
            raise trio.ClosedResourceError("the sending side was ended")
        while rest := self._send_some(data):
            data = rest
            await self._wait(trio.lowlevel.wait_writable)

    def _send_some(self, data: Reply) -> Reply:
        """Send what the system takes at once, and return the rest."""
        try:
            taken = self._socket.send(data)
        except BlockingIOError:
            return data
        except OSError as error:
            raise self._translated(error) from error
        self._taken += taken
        return b"" if taken == len(data) else memoryview(data)[taken:]

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the system has room for more."""
        if self._sending_ended:
            raise trio.ClosedResourceError("the sending side was ended")
        await self._wait(trio.lowlevel.wait_writable)

    async def _wait(self, wait: Callable[[socket.socket], Awaitable[None]]) -> None:
        if self._socket.fileno() == -1:
            raise trio.ClosedResourceError("the socket was closed")
        await wait(self._socket)

    async def send_eof(self) -> None:
        """End the sending side; the client reads the end after all that was sent."""
        await trio.lowlevel.checkpoint()
        if self._sending_ended:
            return
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._translated(error) from error
        self._sending_ended = True

    async def aclose(self) -> None:
        """Close the socket; waits for nothing."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close the socket, without a checkpoint; a task that waits for it is told."""
        if self._socket.fileno() != -1:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    @property
    def received(self) -> int:
        """How many bytes `receive_some` has returned."""
        return self._received

    def has_unread(self) -> bool:
        """Ask the system whether there are bytes, or the end."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except OSError:
            return False
        return True

    def delivered(self) -> int:
        """Return how many bytes the client's system has taken; or ours, where it does not tell."""
        if self._socket.fileno() == -1:
            return self._taken
        return self._taken - (unacknowledged_bytes(self._socket) or 0)

    def _translated(self, error: OSError) -> Exception:
        """Return what `trio.abc.Stream` has for an error of the socket."""
        if self._socket.fileno() == -1:
            return trio.ClosedResourceError("the socket was closed")
        return trio.BrokenResourceError(str(error))


class SharedTLS:
    """What the TLS streams of one server, in one thread, share: `context`, and how to OpenSSL.

    A memory BIO never shrinks. With two of its own a client would keep for life what its largest
    message took; so all have the same two, which are empty whenever another task may run.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()


class TLSStream(ClientStream):
    """The server's side of TLS over `transport`.

    Unlike `trio.SSLStream`, it has an answering step, which the transport's poller can call:
    decrypt, answer, encrypt. And it has an end of stream that the client can hear (trio#823): TLS
    1.3 lets each side end by itself (RFC 8446, section 6.1). What the client sends after that is
    received as it is on the wire, only to be discarded.

    Resource handling: closing this stream does not close `transport`.

    Error handling: what OpenSSL has against the client is a `trio.BrokenResourceError`.
    """

    __slots__ = (
        "_client_ended",
        "_failure",
        "_sending_ended",
        "_shared",
        "_tls",
        "_transport",
        "_unread",
        "_unsent",
    )

    def __init__(self, transport: ClientStream, shared: SharedTLS) -> None:
        self._transport = transport
        self._shared = shared
        self._tls = shared.context.wrap_bio(shared.incoming, shared.outgoing, server_side=True)
        self._unread = b""  # by OpenSSL
        self._unsent = b""
        self._client_ended = False
        self._failure = ""
        self._sending_ended = False

    async def do_handshake(self) -> None:
        """Shake hands; the caller sets the deadline."""
        while not self._is_done(self._tls.do_handshake):
            await self._send_unsent()
            if not (data := await self._transport.receive_some()):
                raise trio.BrokenResourceError("the connection ended") from _Closed()
            self._unread += data
        await self._send_unsent()

    def _use(self, operation: Callable[[], Result]) -> Result:
        """Have OpenSSL do `operation` on what is unread; what it has for the client is unsent."""
        incoming, outgoing = self._shared.incoming, self._shared.outgoing
        incoming.write(self._unread)
        try:
            return operation()
        finally:
            self._unread = incoming.read()
            self._unsent += outgoing.read()

    def _is_done(self, operation: Callable[[], object]) -> bool:
        """Go on with `operation`; return False if it needs more from the client."""
        try:
            self._use(operation)
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise trio.BrokenResourceError(str(error)) from error
        return True

    def _take_unsent(self) -> bytes:
        unsent, self._unsent = self._unsent, b""
        return unsent

    async def _send_unsent(self) -> None:
        if data := self._take_unsent():
            await self._transport.send_all(data)

    async def next_reply(self, answer: Answer) -> Reply | None:
        """Wait for the client, as `ClientStream.next_reply`; what it returns is encrypted.

        What came before a record that is broken is answered; the next call raises the error.
        """
        shared = self._shared

        def answer_unread() -> None:
            while (
                shared.incoming.pending
                and shared.outgoing.pending < ENOUGH_BYTES
                and (text := self._decrypt(RECORD_BYTES))
            ):
                self._encrypt(answer(text))

        def answer_encrypted(data: bytes | bytearray) -> Reply:
            self._unread += data
            try:
                self._use(answer_unread)
            except trio.BrokenResourceError as error:
                self._unread = b""
                self._failure = str(error)
            if self._unread or self._client_ended or self._failure:
                raise _NeedsThought
            return self._take_unsent()

        try:
            reply: Reply | None = answer_encrypted(b"")  # the rest of an earlier read
            if not reply:
                reply = await self._transport.next_reply(answer_encrypted)
        except _NeedsThought:
            reply = self._take_unsent() or None
            if reply is None and self._failure:
                raise trio.BrokenResourceError(self._failure) from None
            return reply
        if reply is None:
            raise trio.BrokenResourceError("the connection ended without a closing alert")
        return reply

    def on_wire(self, reply: Reply) -> Reply:
        """Return `reply` encrypted."""
        self._use(partial(self._encrypt, reply))
        return self._take_unsent()

    async def send_reply(self, reply: Reply) -> None:
        """Send what `next_reply` or `on_wire` returned."""
        await self._transport.send_all(reply)

    def _decrypt(self, max_bytes: int) -> bytes:
        """Return what has come; empty if that is nothing yet, or the closing alert.

        Called by an operation of `_use`.
        """
        try:
            text = self._tls.read(max_bytes)
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLError as error:
            raise trio.BrokenResourceError(str(error)) from error
        self._client_ended = not text
        return text

    def _encrypt(self, data: Reply) -> None:
        """Encrypt `data`; called by an operation of `_use`."""
        while data:
            data = memoryview(data)[self._tls.write(data) :]  # it takes one record at a time

    async def send_all(self, data: Reply) -> None:
        """Encrypt `data` and send it."""
        self._use(partial(self._encrypt, data))
        await self._send_unsent()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the transport has room for more."""
        await self._transport.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Return what has come; empty when the client has ended its side by a closing alert."""
        if self._sending_ended:
            return await self._transport.receive_some(max_bytes)
        size = max_bytes or RECORD_BYTES
        while not (text := self._use(partial(self._decrypt, size))) and not self._client_ended:
            await self._send_unsent()
            if not (data := await self._transport.receive_some()):
                raise trio.BrokenResourceError("the connection ended without a closing alert")
            self._unread += data
        return text

    @property
    def received(self) -> int:
        """How many bytes of the transport there were."""
        return self._transport.received

    def has_unread(self) -> bool:
        """Return whether the transport has."""
        return self._transport.has_unread()

    def delivered(self) -> int:
        """Return what the transport does: it grows with what is sent here."""
        return self._transport.delivered()

    async def send_eof(self) -> None:
        """Send the closing alert, give the client a moment to answer it, then end the transport."""
        with (
            trio.move_on_after(CLOSE_ANSWER_SECONDS),
            contextlib.suppress(trio.BrokenResourceError),
        ):
            # What the client still sends makes this fail, before the alert is out if it has come.
            with contextlib.suppress(trio.BrokenResourceError):
                while not self._is_done(self._tls.unwrap):
                    await self._send_unsent()
                    if not (data := await self._transport.receive_some()):
                        break
                    self._unread += data
            await self._send_unsent()
        self._sending_ended = True
        await self._transport.send_eof()

    async def aclose(self) -> None:
        """End the sending side, unless that was done; a client that has left does not matter."""
        if not self._sending_ended:
            with contextlib.suppress(trio.BrokenResourceError):
                await self.send_eof()


class _NeedsThought(Exception):
    """The answering step leaves a reply to its task: it was the last, or there is more to do."""


class _Closed(ssl.SSLEOFError):
    """The client has closed the connection in its handshake."""

    reason = "UNEXPECTED_EOF_WHILE_READING"
