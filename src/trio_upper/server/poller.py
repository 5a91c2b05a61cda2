"""The server's byte streams: a TCP socket with fewer system calls, and TLS with an end of stream.

For each message, `trio.SocketStream` asks the kernel for bytes before there are any, arms Trio's
epoll for one wait, and passes the scheduler once more after it has sent. That is about half of what
a short message costs a server. Here a socket is registered once, waits first, and sends at once.
Whoever uses `TunedStream` knows what is different, see there.
"""

import contextlib
import operator
import select
import socket
from collections import deque
from typing import TYPE_CHECKING, NoReturn

import trio

from trio_upper.platform import reuse_large_blocks, unacknowledged_bytes

if TYPE_CHECKING:
    import ssl

# Bytes that one read asks for. Whoever fills the first size sends bulk, which is faster in large
# reads; but all short messages wait meanwhile, up to 0.4 ms. So the size grows slowly, and begins
# anew with each short message.
READ_BYTES = 32 * 1024
READ_GROWTH = 8 * 1024
MOST_READ_BYTES = 512 * 1024

# Of Trio's scheduler: one in which the stream reads and answers, one that begins with a look at the
# sockets and in which who has a message is woken, one in which those messages are answered.
PASSES_A_TURN = 3

# How long, in seconds, a TLS peer has to answer our closing alert with its own.
CLOSE_ANSWER = 0.25

# Whatever epoll reports beside it, the end or an error, leaves the socket readable for good.
_DATA_ONLY = select.EPOLLIN


class Readiness:
    """Knows which of many sockets have something to read; `run` it in the background.

    Each socket is registered once, edge-triggered (epoll(7)), in one epoll of our own, and one task
    waits for that by Trio's means. An edge is reported once, so each stream remembers it until it
    has read its socket empty. A stream that has no other beside it when it comes waits by Trio's
    means itself: two epolls cost more than one registration a message when there is one client.

    Trio runs every task that can run, one after the other, before it looks at the sockets again, so
    that a short message would wait for all who send bulk. Those therefore read in turns: after each
    turn there is a look at the sockets, and before the next one every short message is answered.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._streams: dict[int, TunedStream] = {}
        self._queue: deque[TunedStream] = deque()
        self._no_queue = trio.lowlevel.ParkingLot()
        #: How many bytes a stream that sends bulk may read at a time.
        self.bulk_bytes = READ_BYTES
        reuse_large_blocks(2 * MOST_READ_BYTES)  # what is read, and the reply

    async def run(self) -> None:
        """Wake the streams that have something to read, until cancelled."""
        with self._epoll:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._wait)
                nursery.start_soon(self._give_turns)

    async def _wait(self) -> NoReturn:
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            while self._wake_streams():
                await trio.lowlevel.checkpoint()  # in which they answer; more may have come by then

    async def _give_turns(self) -> NoReturn:
        while True:
            while not self._queue:
                await self._no_queue.park()
            self._queue.popleft().resume()
            for _ in range(PASSES_A_TURN):
                await trio.lowlevel.checkpoint()

    def _wake_streams(self) -> bool:
        """Wake the streams that have something to read; return whether there were any."""
        ready = self._epoll.poll(0)
        for fd, events in ready:
            self._streams[fd].wake(events)
        return bool(ready)

    def enqueue(self, stream: "TunedStream") -> None:
        """Have a stream with bulk to read wait for its turn."""
        self._queue.append(stream)
        self._no_queue.unpark()

    def add(self, fd: int, stream: "TunedStream") -> bool:
        """Know a stream, and watch it; return False if it is the only one, and not watched."""
        watched = bool(self._streams)
        if watched:
            self._epoll.register(fd, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
        self._streams[fd] = stream
        return watched

    def remove(self, fd: int, *, watched: bool) -> None:
        """Forget a stream; call it before the descriptor is closed."""
        del self._streams[fd]
        if watched and not self._epoll.closed:
            self._epoll.unregister(fd)

    @property
    def has_many(self) -> bool:
        """Whether there is more than one stream."""
        return len(self._streams) > 1


class TunedStream(trio.abc.HalfCloseableStream):
    """A connected TCP socket as a Trio stream, for one task at a time.

    It departs from the rules of `trio.abc.Stream` in one point: `send_all` is a checkpoint only
    when the kernel does not take all at once. `receive_some` always is, so that a loop which
    receives and sends is fair to other tasks and can be cancelled in each turn.

    Resource handling: takes the socket out of `stream`, which is of no use afterwards.
    """

    __slots__ = (
        "_hung_up",
        "_is_bulk",
        "_queued",
        "_readable",
        "_reader",
        "_readiness",
        "_sending_ended",
        "_socket",
        "_taken",
        "_watched",
    )

    def __init__(self, stream: trio.SocketStream, readiness: Readiness) -> None:
        raw = stream.socket
        self._socket = socket.socket(raw.family, raw.type, raw.proto, fileno=raw.detach())
        self._sending_ended = False
        self._taken = 0
        self._reader: trio.lowlevel.Task | None = None
        self._readable = False
        self._hung_up = False
        self._is_bulk = False
        self._queued = False
        self._readiness = readiness
        self._watched = readiness.add(self._socket.fileno(), self)

    def wake(self, events: int) -> None:
        """Note what epoll reports; who waits for it goes on, now or at its turn."""
        self._readable = True
        if events != _DATA_ONLY:
            self._hung_up = True
        if self._is_bulk and self._readiness.has_many:
            self._queue_up()
        else:
            self.resume()

    def resume(self) -> None:
        """Have the task that waits to read, if there is one, go on."""
        self._queued = False
        reader, self._reader = self._reader, None
        if reader is not None:
            trio.lowlevel.reschedule(reader)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has come, at most `max_bytes` (None: as much as suits); empty at the end."""
        if max_bytes is not None and (max_bytes := operator.index(max_bytes)) < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._reader is not None:
            raise trio.BusyResourceError("another task is receiving")
        while True:
            takes_turns = self._is_bulk and self._readiness.has_many
            if self._readable and not takes_turns:
                await trio.lowlevel.checkpoint()
            elif self._readable or self._watched:
                if self._readable:
                    self._queue_up()
                self._reader = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._stop_waiting)
            else:
                await trio.lowlevel.wait_readable(self._socket)
                self._readable = True
                if takes_turns:
                    continue
            data = self._receive(max_bytes)
            if data is not None:
                return data

    def _queue_up(self) -> None:
        if not self._queued:
            self._queued = True
            self._readiness.enqueue(self)

    def _stop_waiting(self, _: object) -> trio.lowlevel.Abort:
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _receive(self, max_bytes: int | None) -> bytes | None:
        """Return what is there, or None; note whether there may be more, and whether it is bulk."""
        readiness = self._readiness
        size = max_bytes or (readiness.bulk_bytes if self._is_bulk else READ_BYTES)
        try:
            data = self._socket.recv(size)
        except BlockingIOError:
            self._readable = False
            return None
        except OSError as error:
            raise self._translated(error) from error
        # A short read has emptied the socket: the next byte is a new edge (epoll(7), Q9).
        if len(data) < size and not self._hung_up:
            self._readable = False
        if len(data) >= READ_BYTES:
            self._is_bulk = True
            readiness.bulk_bytes = min(readiness.bulk_bytes + READ_GROWTH, MOST_READ_BYTES)
        elif self._is_bulk:
            self._is_bulk = False
        else:
            readiness.bulk_bytes = READ_BYTES
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`; at once, without a checkpoint, if the kernel takes it."""
        if self._sending_ended:
            raise trio.ClosedResourceError("the sending side was ended")
        while True:
            try:
                taken = self._socket.send(data)
            except BlockingIOError:
                taken = 0
            except OSError as error:
                raise self._translated(error) from error
            self._taken += taken
            if taken == len(data):
                return
            data = memoryview(data)[taken:]
            await trio.lowlevel.wait_writable(self._socket)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel has room for more."""
        if self._sending_ended or self._socket.fileno() == -1:
            raise trio.ClosedResourceError("the sending side was ended")
        await trio.lowlevel.wait_writable(self._socket)

    async def send_eof(self) -> None:
        """End the sending side; the peer reads the end of the stream after all that was sent."""
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
        """Close the socket, without a checkpoint; whoever waits on it is told."""
        if self._socket.fileno() != -1:
            self._readiness.remove(self._socket.fileno(), watched=self._watched)
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
            self._readable = True
            self.resume()  # to learn that it is closed

    def delivered(self) -> int:
        """Return how many of the bytes sent the peer's system has acknowledged.

        Where the system does not tell, return how many our own has taken.
        """
        return self._taken - (unacknowledged_bytes(self._socket) or 0)

    def _translated(self, error: OSError) -> Exception:
        """Return what `trio.abc.Stream` has for an error of the socket."""
        if self._socket.fileno() == -1:
            return trio.ClosedResourceError("the socket was closed")
        return trio.BrokenResourceError(str(error))


class TLSServerStream(trio.abc.HalfCloseableStream):
    """The server's side of TLS over `transport`, with an end of stream that the peer can hear.

    TLS 1.3 lets each side end by itself (RFC 8446, section 6.1), but `trio.SSLStream` has no
    `send_eof` (trio#823). Here it is, for goodbyes: what the peer still sends after it is received
    as it is on the wire, good for nothing but to be discarded.

    Resource handling: closing this stream leaves `transport` to whoever made it.
    """

    def __init__(self, transport: trio.abc.HalfCloseableStream, context: "ssl.SSLContext") -> None:
        self._transport = transport
        self._tls = trio.SSLStream(transport, context, server_side=True, https_compatible=False)
        self._sending_ended = False

    async def do_handshake(self) -> None:
        """Shake hands; `trio.BrokenResourceError` if that fails. The caller sets the deadline."""
        await self._tls.do_handshake()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`, as `trio.SSLStream.send_all`."""
        await self._tls.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait as `trio.SSLStream.wait_send_all_might_not_block` does."""
        await self._tls.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Return what has come; empty when the peer has ended its side, by a closing alert."""
        if self._sending_ended:
            return await self._transport.receive_some(max_bytes)
        return await self._tls.receive_some(max_bytes)

    async def send_eof(self) -> None:
        """Send the closing alert, give the peer a moment to answer it, then end the transport."""
        with trio.move_on_after(CLOSE_ANSWER):
            # The peer's messages under way make this fail after the alert has gone out.
            with contextlib.suppress(trio.BrokenResourceError):
                await self._tls.unwrap()
        self._sending_ended = True
        await self._transport.send_eof()

    async def aclose(self) -> None:
        """End the sending side, unless that was done; a peer that has left does not matter."""
        if not self._sending_ended:
            with contextlib.suppress(trio.BrokenResourceError):
                await self.send_eof()
