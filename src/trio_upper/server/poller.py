"""The poller: answers the short messages of thousands of clients without waking their tasks.

A client's task waits nearly always, and to wake it for a message of 32 bytes costs more than to
answer it. So the task parks, and leaves its answering step with the poller: one task, which asks an
edge-triggered epoll of our own (epoll(7)) what has come, and receives, answers and sends itself. It
wakes the client's task only for what needs thought: the end, an error, a reply that the system did
not take as a whole. Everything else about a client stays with its task: deadlines, notices, the
end.

Trio lets no other task run meanwhile, so a batch of answers is bounded in number and in time. Those
who send bulk wait in a queue, and one of them has its turn after each round of short messages.

The way through Trio and back costs as much as answering two messages. So a batch does not end when
there is nothing to answer, but waits a moment for the next message, and lasts longer, as long as
Trio has nothing else to do and every client's task is parked.
"""

import contextlib
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import NoReturn

import outcome
import trio

from trio_upper.platform import EDGES, READABLE, EdgePoller, reuse_large_blocks
from trio_upper.server.streams import READ_BYTES, Answer, PlainStream, Reply

# Bytes of a message that is answered in its round; who sends as much in one piece sends bulk.
SHORT_BYTES = 8 * 1024

# Bytes asked of a client that has sent only short messages until now: with its header, such a piece
# is the largest that Python takes from its own memory (512 bytes), at a fraction of malloc's cost.
SMALL_BYTES = 512 - sys.getsizeof(b"")

# A batch ends after this many rounds or this much time, and a round has this many messages at most.
# Trio's other tasks wait for its end, and what Trio does between two batches costs as much as some
# messages: so a batch may be longer while all that could come is a client, a deadline or a signal.
BATCH_ROUNDS = 256
BATCH_SECONDS = 0.001
LONGER_BATCH_SECONDS = 0.004
ROUND_MESSAGES = 64

# How long a batch waits for one more message: the shortest time that epoll_wait(2) knows.
NEXT_MESSAGE_SECONDS = 0.001


class Poller(trio.abc.Instrument):
    """Answers parked clients; `run` it in the background."""

    def __init__(self, epoll: EdgePoller) -> None:
        """Take over `epoll`, which is closed when `run` ends."""
        self._epoll = epoll
        self._streams: dict[int, PolledStream] = {}
        self._queue: deque[PolledStream] = deque()
        self._trio_is_idle = False
        #: How many clients' tasks are not parked.
        self.awake = 0
        reuse_large_blocks(4 * READ_BYTES)

    async def run(self) -> NoReturn:
        """Answer parked clients until cancelled."""
        with contextlib.closing(self._epoll), self._observing_trio():
            while True:
                if self._queue:
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                self.answer_batch()

    @contextlib.contextmanager
    def _observing_trio(self) -> Iterator[None]:
        trio.lowlevel.add_instrument(self)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(self)

    def before_io_wait(self, timeout: float) -> None:
        """Note whether Trio has nothing to do but to wait, as it is about to."""
        self._trio_is_idle = timeout > 0

    def answer_batch(self) -> None:
        """Answer what has come."""
        began = time.perf_counter()
        wait_seconds = 0.0
        for _ in range(BATCH_ROUNDS):
            ready = self._epoll.poll(wait_seconds, ROUND_MESSAGES)
            for fd, events in ready:
                self._streams[fd].notice(events)
            if self._queue:
                self._queue.popleft().take_turn()
            elif not ready:
                break
            nobody_waits = self._trio_is_idle and not self.awake and not self._queue
            longest = LONGER_BATCH_SECONDS if nobody_waits else BATCH_SECONDS
            if time.perf_counter() - began >= longest:
                break
            wait_seconds = NEXT_MESSAGE_SECONDS if nobody_waits else 0.0

    def queue(self, stream: "PolledStream") -> None:
        """Give a stream with more to read a turn after those that have come before."""
        self._queue.append(stream)

    def watch(self, fd: int, stream: "PolledStream") -> None:
        """Report what `stream` has to read, now and from now on.

        Error handling: OSError escapes if the system has no room for one more.
        """
        if fd in self._streams:
            self._epoll.modify(fd, EDGES)  # what has come meanwhile is reported again
        else:
            self._epoll.register(fd, EDGES)
            self._streams[fd] = stream

    def forget(self, fd: int) -> None:
        """Watch `fd` no more; call this before it is closed."""
        if self._streams.pop(fd, None) and not self._epoll.closed:
            self._epoll.unregister(fd)


class PolledStream(PlainStream):
    """A TCP stream whose parked task is not woken for what `poller` can answer.

    What an edge reports while no task is parked is not remembered: the next one to park has the
    system report it again. A read that was short has emptied the socket, and the next byte is a new
    edge, unless there is urgent data, at which a read stops, or the end: then it is read until it
    is seen to be empty.
    """

    __slots__ = (
        "_answer",
        "_is_bulk",
        "_is_queued",
        "_parked",
        "_poller",
        "_short_bytes",
        "_until_empty",
    )

    def __init__(self, sock: socket.socket, poller: Poller) -> None:
        super().__init__(sock)
        self._poller = poller
        poller.awake += 1
        self._parked: trio.lowlevel.Task | None = None
        self._answer: Answer  # of the parked task
        self._short_bytes = SMALL_BYTES
        self._is_bulk = False
        self._is_queued = False
        self._until_empty = False

    async def next_reply(self, answer: Answer) -> Reply | None:
        """Have messages answered by the poller until there is something for this task to do.

        Returns the rest of a reply that the system did not take, or None when the client has ended.
        What `answer` raises escapes.
        """
        try:
            self._poller.watch(self._socket.fileno(), self)
        except OSError:  # no room in the epoll: this task reads by itself
            return await super().next_reply(answer)
        self._answer = answer
        self._parked = trio.lowlevel.current_task()
        self._poller.awake -= 1
        try:
            rest: Reply | None = await trio.lowlevel.wait_task_rescheduled(self._unpark)
        finally:
            del self._answer  # that of TLS refers to this stream: a circle stays in memory for long
        return rest

    def _unpark(self, _: object) -> trio.lowlevel.Abort:
        self._parked = None
        self._poller.awake += 1
        return trio.lowlevel.Abort.SUCCEEDED

    def _wake(self, result: outcome.Outcome[Reply | None]) -> None:
        task, self._parked = self._parked, None
        if task is not None:
            self._poller.awake += 1
            trio.lowlevel.reschedule(task, result)

    def notice(self, events: int) -> None:
        """Note what the epoll reports, and answer it if that is done quickly."""
        if self._parked is None:
            return
        if events != READABLE:
            self._until_empty = True
        if self._is_bulk or self._is_queued:
            self._queue()
        else:
            self._answer_one(self._short_bytes)

    def take_turn(self) -> None:
        """Answer one piece of bulk, or what else there is."""
        self._is_queued = False
        if self._parked is not None:
            self._answer_one(READ_BYTES)

    def _queue(self) -> None:
        if not self._is_queued:
            self._is_queued = True
            self._poller.queue(self)

    def _answer_one(self, size: int) -> None:
        """Receive at most `size` bytes for the parked task, answer them, and send the reply."""
        try:
            data = self._socket.recv(size)
            reply = self._answer(data) if data else b""
            if data and not (rest := self._send_now(reply)):
                self._is_bulk = len(data) >= SHORT_BYTES
                if len(data) == size:
                    self._short_bytes = SHORT_BYTES
                    self._queue()
                elif self._until_empty:
                    self._queue()
                return
        except BlockingIOError:
            # Empty; but at urgent data Linux fails like this for a signal, too (tcp_recvmsg).
            if self._until_empty:
                self._until_empty = False
                self._queue()
        except OSError as error:
            self._wake(outcome.Error(self._translated(error)))
        except Exception as error:  # in this client's step: it ends this client alone
            self._wake(outcome.Error(error))
        else:
            self._wake(outcome.Value(rest if data else None))

    def _send_now(self, reply: Reply) -> Reply:
        """Send what the system takes of `reply`, and return the rest."""
        try:
            taken = self._socket.send(reply)
        except OSError:  # no room, or the client has gone: the task finds out, and counts right
            return reply
        self._taken += taken
        return b"" if taken == len(reply) else memoryview(reply)[taken:]

    def close(self) -> None:
        """Close the socket; a parked task is told."""
        if self._socket.fileno() != -1:
            self._poller.forget(self._socket.fileno())
            self._poller.awake -= 1
        super().close()
        self._wake(outcome.Error(trio.ClosedResourceError("the socket was closed")))
