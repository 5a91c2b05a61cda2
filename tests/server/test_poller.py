"""The poller: parked clients are answered in bounded batches, and woken for what needs thought.

Most tests call `Poller.answer_batch` themselves, so that they see what one batch does.
"""

import errno
import math
import os
import select
import socket
import sys
import tracemalloc
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import TypeVar

import pytest
import trio
from tests.helpers.sockets import socket_pair
from tests.helpers.waiting import TIMEOUT_SECONDS
from trio.testing import wait_all_tasks_blocked

from trio_upper.platform import READABLE
from trio_upper.protocol import Responder
from trio_upper.server import poller as poller_module
from trio_upper.server.poller import (
    BATCH_ROUNDS,
    BATCH_SECONDS,
    LONGER_BATCH_SECONDS,
    NEXT_MESSAGE_SECONDS,
    ROUND_MESSAGES,
    SHORT_BYTES,
    SMALL_BYTES,
    PolledStream,
    Poller,
)
from trio_upper.server.streams import READ_BYTES, Reply, take_socket

pytestmark = pytest.mark.skipif(READABLE == 0, reason="this system has no edge-triggered poller")


class Client:
    """A client's task on the server's side, and the other end of its connection.

    `rests` is what the task was woken for: the rests of replies.
    """

    def __init__(self, stream: PolledStream, peer: trio.SocketStream) -> None:
        self.stream = stream
        self.peer = peer
        self.rests: list[bytes] = []
        self.pieces: list[int] = []
        self.ended: BaseException | bool = False

    async def run(self) -> None:
        try:
            while (rest := await self.stream.next_reply(self.answer)) is not None:
                self.rests.append(bytes(rest))
                await self.stream.send_all(rest)
            self.ended = True
        except Exception as error:
            self.ended = error

    def answer(self, data: bytes | bytearray) -> Reply:
        self.pieces.append(len(data))
        return data.upper()

    async def send(self, data: bytes) -> None:
        """Send `data`, which fits into the socket, and wait until it has arrived."""
        before = self.unread()
        await self.peer.send_all(data)
        while self.unread() < before + len(data):
            await trio.lowlevel.checkpoint()

    def unread(self) -> int:
        try:
            return len(self.stream._socket.recv(1 << 20, socket.MSG_PEEK))
        except BlockingIOError:
            return 0


Kind = TypeVar("Kind", bound=Client)


class Poll:
    """A poller that is called by hand, and clients that are parked with it."""

    def __init__(self, nursery: trio.Nursery, stack: AsyncExitStack, poller: Poller) -> None:
        self.poller = poller
        self._nursery = nursery
        self._stack = stack

    async def client(self) -> Client:
        """Return a parked client."""
        return await self.client_of(Client)

    async def client_of(self, kind: type[Kind]) -> Kind:
        """Return a parked client of that kind."""
        here, there = await socket_pair()
        await self._stack.enter_async_context(there)
        made = kind(PolledStream(take_socket(here), self.poller), there)
        self._stack.callback(made.stream.close)
        self._nursery.start_soon(made.run)
        await wait_all_tasks_blocked()
        return made


@pytest.fixture
async def poll() -> AsyncGenerator[Poll]:
    """Give a poller to call by hand; a test that has it has `TIMEOUT_SECONDS` for all it does."""
    with select.epoll() as epoll:
        with trio.fail_after(TIMEOUT_SECONDS):
            async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
                yield Poll(nursery, stack, Poller(epoll))
                nursery.cancel_scope.cancel()


@asynccontextmanager
async def running() -> AsyncGenerator[Poll]:
    """Give a poller that runs by itself."""
    with trio.fail_after(TIMEOUT_SECONDS):
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            poller = Poller(select.epoll())
            nursery.start_soon(poller.run)
            yield Poll(nursery, stack, poller)
            nursery.cancel_scope.cancel()


async def test_short_messages_are_answered_without_waking_a_task(poll: Poll) -> None:
    """All that wait, in one batch, in which no task can run."""
    clients = [await poll.client() for _ in range(5)]
    for client in clients:
        await client.send(b"hi")
    poll.poller.answer_batch()
    for client in clients:
        assert await client.peer.receive_some() == b"HI"
        assert client.pieces == [2]
        assert client.rests == []


async def test_a_lone_client_is_answered_over_and_over() -> None:
    """By a poller that runs by itself, in the same way as thousands."""
    async with running() as poll:
        client = await poll.client()
        for _ in range(10):
            await client.peer.send_all(b"hi")
            assert await client.peer.receive_some() == b"HI"
        await client.peer.send_eof()
        await wait_all_tasks_blocked()
        assert client.ended is True
        assert client.pieces == [2] * 10


async def test_a_reply_that_is_not_taken_at_once_wakes_its_task(poll: Poll) -> None:
    """It sends the rest, and then the poller goes on: no byte is lost."""
    client = await poll.client()
    client.stream._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client.peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sent = 0
    received = bytearray()

    async def receive_all() -> None:
        async for data in client.peer:
            received.extend(data)

    while not client.rests:
        await client.send(bytes(SHORT_BYTES))
        sent += SHORT_BYTES
        until_done(poll)
        await wait_all_tasks_blocked()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive_all)
        await client.peer.send_eof()
        while not client.ended:
            until_done(poll)
            await trio.lowlevel.checkpoint()
        await client.stream.send_eof()
    assert len(received) == sent


async def test_a_client_that_does_not_receive_is_not_read_from(poll: Poll) -> None:
    """While a reply waits to go out, messages stay with the system, and so with their sender."""
    client = await poll.client()
    client.stream._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client.peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    while not client.rests:
        await client.send(bytes(SHORT_BYTES))
        until_done(poll)
        await wait_all_tasks_blocked()
    answered = len(client.pieces)
    await client.peer.send_all(b"one more")
    for _ in range(3):
        poll.poller.answer_batch()
        await wait_all_tasks_blocked()
    assert len(client.pieces) == answered


@pytest.mark.parametrize("letter", ["x", "\u0390"])
async def test_a_client_that_sends_bulk_and_receives_nothing_pins_little_memory(
    poll: Poll, letter: str
) -> None:
    """At most 256 KiB, also after bulk that it did receive; the second letter triples."""
    responder = Responder()

    class Upper(Client):
        answer = staticmethod(responder.answer)

    client = await poll.client_of(Upper)
    ours = client.stream._socket
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * READ_BYTES)
    await client.send(b"x" * SHORT_BYTES)
    until_done(poll)
    assert len(await client.peer.receive_some()) == SHORT_BYTES
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        await client.send(letter.encode() * (READ_BYTES // len(letter.encode())))
        until_done(poll)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert responder.received == SHORT_BYTES + READ_BYTES
    assert poll.poller.awake == 1
    assert READ_BYTES // 2 < after - before <= 256 * 1024


async def test_what_came_while_the_task_was_awake_is_answered_when_it_parks(poll: Poll) -> None:
    """The edge was reported when no task was parked; it is reported again."""

    class Thoughtful(Client):
        awake = trio.Event()

        async def run(self) -> None:
            await self.awake.wait()
            await super().run()

    client = await poll.client_of(Thoughtful)
    poll.poller.watch(client.stream._socket.fileno(), client.stream)
    await client.send(b"hi")
    poll.poller.answer_batch()
    assert client.pieces == []
    client.awake.set()
    await wait_all_tasks_blocked()
    poll.poller.answer_batch()
    assert await client.peer.receive_some() == b"HI"


class Noted(Client):
    """A client whose name goes to `order` with each piece that is answered."""

    def __init__(self, stream: PolledStream, peer: trio.SocketStream) -> None:
        super().__init__(stream, peer)
        self.name = ""
        self.order: list[str] = []
        self.then: Callable[[], object] = bool

    def answer(self, data: bytes | bytearray) -> Reply:
        self.order.append(self.name)
        self.then()
        return super().answer(data)


async def noted(poll: Poll, names: Iterable[str]) -> tuple[list[Noted], list[str]]:
    """Return clients of these names, and the list of who was answered."""
    clients = [await poll.client_of(Noted) for _ in names]
    order: list[str] = []
    for client, name in zip(clients, names, strict=True):
        client.name, client.order = name, order
    return clients, order


def until_done(poll: Poll) -> None:
    while poll.poller._queue or select.select([poll.poller._epoll], [], [], 0)[0]:
        poll.poller.answer_batch()


async def test_bulk_takes_turns_and_short_messages_do_not_wait(
    poll: Poll, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short messages are answered at once, and those who send bulk one after the other."""
    monkeypatch.setattr(poller_module, "SMALL_BYTES", 16)
    monkeypatch.setattr(poller_module, "SHORT_BYTES", 16)
    monkeypatch.setattr(poller_module, "READ_BYTES", 32)
    (*bulk, one, other), order = await noted(poll, ["a", "b", "c", "light", "light"])
    for client in bulk:
        await client.send(bytes(16 + 32 * 9))
    for client in (one, other):
        await client.send(b"x")
    until_done(poll)
    assert sorted(order[:5]) == ["a", "b", "c", "light", "light"]
    assert order[5:] == order[5:8] * 9
    assert sorted(order[5:8]) == ["a", "b", "c"]


async def test_a_message_that_comes_in_a_turn_is_answered_before_the_next_turn(
    poll: Poll, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short message waits for one turn of bulk, with any number of clients that send it."""
    monkeypatch.setattr(poller_module, "SMALL_BYTES", 16)
    monkeypatch.setattr(poller_module, "SHORT_BYTES", 16)
    monkeypatch.setattr(poller_module, "READ_BYTES", 16)
    (*bulk, light), order = await noted(poll, ["turn", "turn", "turn", "message"])

    with socket.socket(fileno=socket.dup(light.peer.socket.fileno())) as sender:
        for client in bulk:
            await client.send(bytes(16 * 20))
            client.then = partial(sender.send, b"x")
        until_done(poll)
    # The first pieces of all three were read before it was known that there is more.
    first = order.index("message")
    assert order[:first] == ["turn"] * 4
    assert order[first:] == ["message", *["turn", "message"] * (3 * 20 - 4)]


async def test_a_client_with_longer_messages_is_asked_for_more(poll: Poll) -> None:
    """Its first one is answered in two pieces, the next ones as a whole.

    The first piece is the largest that Python does not ask malloc for: 512 bytes with its header.
    """
    assert sys.getsizeof(bytes(SMALL_BYTES)) == 512
    client = await poll.client()
    for _ in range(2):
        await client.send(bytes(SMALL_BYTES + 1))
        until_done(poll)
    assert client.pieces == [SMALL_BYTES, 1, SMALL_BYTES + 1]


async def test_a_client_that_has_sent_bulk_is_answered_at_once_again(poll: Poll) -> None:
    """A person may paste a page and go on typing; only what follows the page waits for a turn."""
    client = await poll.client()
    await client.send(b"x")
    client.stream.notice(READABLE)
    assert client.pieces == [1]
    await client.send(bytes(SMALL_BYTES + SHORT_BYTES))
    until_done(poll)
    assert client.stream._is_bulk
    await client.send(b"x")
    client.stream.notice(READABLE)
    assert list(poll.poller._queue) == [client.stream]
    until_done(poll)
    assert not client.stream._is_bulk
    assert client.stream._taken == sum(client.pieces)


async def test_a_client_is_in_the_queue_once(poll: Poll) -> None:
    """More edges give it no more turns: the others have theirs in between."""
    client = await poll.client()
    await client.send(bytes(3 * SHORT_BYTES))
    client.stream.notice(READABLE)
    for _ in range(3):
        client.stream.notice(READABLE)
    assert list(poll.poller._queue) == [client.stream]


class Endless:
    """An epoll that has something to report whenever it is asked, for `rounds` times."""

    def __init__(self, rounds: float = math.inf) -> None:
        self.polls = 0
        self.timeouts: list[float | None] = []
        self._rounds = rounds
        self.closed = False
        self._ours, self._theirs = socket.socketpair()
        self._theirs.send(b"x")

    def fileno(self) -> int:
        return self._ours.fileno()

    def poll(self, timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
        self.polls += 1
        self.timeouts.append(timeout)
        assert maxevents == ROUND_MESSAGES
        return [(7, READABLE)] * maxevents if self.polls <= self._rounds else []

    def register(self, fd: int, eventmask: int = 0) -> None:
        raise NotImplementedError

    def modify(self, fd: int, eventmask: int) -> None:
        raise NotImplementedError

    def unregister(self, fd: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True
        self._ours.close()
        self._theirs.close()


class Quick(PolledStream):
    """A stream that is answered at once, or takes `seconds` of the clock `time`."""

    def __init__(self, seconds: float = 0) -> None:
        self.seconds = seconds
        self.time = 0.0
        self.noticed = 0

    def notice(self, events: int) -> None:
        self.noticed += 1
        self.time += self.seconds

    def take_turn(self) -> None:
        self.time += self.seconds


@contextmanager
def endless(
    seconds: float = 0, rounds: float = math.inf
) -> Iterator[tuple[Endless, Quick, Poller]]:
    """Give a poller that has messages for `rounds` rounds, each of which takes some time."""
    epoll, stream = Endless(rounds), Quick(seconds)
    poller = Poller(epoll)
    poller._streams[7] = stream
    try:
        yield epoll, stream, poller
    finally:
        epoll.close()


def test_a_batch_is_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trio's other tasks run after BATCH_ROUNDS rounds, even if there is more to answer."""
    with endless() as (epoll, stream, poller):
        monkeypatch.setattr("time.perf_counter", lambda: 0.0)
        poller.answer_batch()
        assert epoll.polls == BATCH_ROUNDS
        assert stream.noticed == BATCH_ROUNDS * ROUND_MESSAGES


def test_a_batch_is_bounded_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where answering takes long, they run after about a millisecond."""
    with endless(BATCH_SECONDS / ROUND_MESSAGES) as (epoll, stream, poller):
        monkeypatch.setattr("time.perf_counter", lambda: stream.time)
        poller.before_io_wait(0)
        poller.answer_batch()
        assert epoll.polls == 1
        poller.before_io_wait(1.0)
        poller.awake = 1
        poller.answer_batch()
        assert epoll.polls == 2


def test_a_batch_is_longer_while_nothing_else_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """But no longer than that."""
    rounds = int(LONGER_BATCH_SECONDS / BATCH_SECONDS)
    with endless(BATCH_SECONDS / ROUND_MESSAGES) as (epoll, stream, poller):
        monkeypatch.setattr("time.perf_counter", lambda: 100 + stream.time)
        poller.before_io_wait(1.0)
        poller.answer_batch()
        assert 1 < epoll.polls <= rounds + 1


def test_a_batch_waits_for_the_next_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """When Trio has nothing else to do: once for each round that brought something."""
    monkeypatch.setattr("time.perf_counter", lambda: 0.0)
    with endless(rounds=2) as (epoll, _, poller):
        poller.before_io_wait(1.0)
        poller.answer_batch()
        assert epoll.timeouts == [0, NEXT_MESSAGE_SECONDS, NEXT_MESSAGE_SECONDS]


def test_a_batch_waits_while_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when Trio has a task to run, when a client's task is awake, or when bulk has a turn."""
    monkeypatch.setattr("time.perf_counter", lambda: 0.0)
    with endless(rounds=2) as (epoll, _, poller):
        poller.before_io_wait(0)
        poller.answer_batch()
        assert epoll.timeouts == [0, 0, 0]
    with endless(rounds=2) as (epoll, _, poller):
        poller.before_io_wait(1.0)
        poller.awake = 1
        poller.answer_batch()
        assert epoll.timeouts == [0, 0, 0]
    with endless(rounds=0) as (epoll, stream, poller):
        poller.before_io_wait(1.0)
        for _ in range(3):
            poller.queue(stream)
        poller.answer_batch()
        assert epoll.timeouts == [0, 0, 0, NEXT_MESSAGE_SECONDS]


async def test_who_is_parked_is_not_awake(poll: Poll) -> None:
    """Each client's task is counted as long as the poller cannot answer for it."""
    assert poll.poller.awake == 0
    client, other = await poll.client(), await poll.client()
    assert poll.poller.awake == 0
    client.stream._socket.shutdown(socket.SHUT_WR)
    await client.send(b"hi")
    poll.poller.answer_batch()
    assert poll.poller.awake == 1  # it has to find out why its reply cannot be sent
    client.stream.close()
    other.stream.close()
    assert poll.poller.awake == 0
    await wait_all_tasks_blocked()
    assert poll.poller.awake == 0


async def test_a_cancelled_client_is_awake(poll: Poll) -> None:
    """Until it is closed."""
    here, there = await socket_pair()
    async with there:
        stream = PolledStream(take_socket(here), poll.poller)
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.next_reply(Responder().answer)
        assert poll.poller.awake == 1
        stream.close()
    assert poll.poller.awake == 0


async def test_the_poller_observes_whether_trio_is_idle() -> None:
    """By itself, and no longer than it runs."""
    here, there = await socket_pair()
    async with here, there:
        await there.send_all(b"x")
        async with running() as poll:
            await wait_all_tasks_blocked()
            poll.poller._trio_is_idle = False
            await trio.lowlevel.wait_readable(here.socket)
            assert poll.poller._trio_is_idle
            poll._nursery.cancel_scope.cancel()
        poll.poller._trio_is_idle = False
        await trio.lowlevel.wait_readable(here.socket)
        assert not poll.poller._trio_is_idle


@pytest.mark.parametrize("queued", [0, 100 * BATCH_ROUNDS])
async def test_other_tasks_run_between_two_batches(queued: int) -> None:
    """Also when there is always more to answer: the poller can be cancelled, and is."""
    with endless() as (epoll, stream, poller):
        for _ in range(queued):
            poller.queue(stream)
        with trio.fail_after(TIMEOUT_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(poller.run)
                for _ in range(10):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        assert epoll.closed
        assert epoll.polls <= 12 * BATCH_ROUNDS


def is_reset(error: BaseException | bool) -> bool:
    return isinstance(error, trio.BrokenResourceError) and "reset" in str(error)


async def test_an_error_in_a_step_ends_that_client_alone(poll: Poll) -> None:
    """It is raised in the client's own task; the others are answered in the same batch."""

    class Buggy(Client):
        def answer(self, data: bytes | bytearray) -> Reply:
            raise ZeroDivisionError

    buggy, other = await poll.client_of(Buggy), await poll.client()
    for client in (buggy, other):
        await client.send(b"hi")
    poll.poller.answer_batch()
    assert await other.peer.receive_some() == b"HI"
    await wait_all_tasks_blocked()
    assert isinstance(buggy.ended, ZeroDivisionError)
    assert not other.ended


async def test_a_reset_ends_that_client_alone(poll: Poll) -> None:
    """Its task is told why."""
    lost, other = await poll.client(), await poll.client()
    lost.peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    lost.peer.socket.close()
    await other.send(b"hi")
    poll.poller.answer_batch()
    assert await other.peer.receive_some() == b"HI"
    await wait_all_tasks_blocked()
    assert is_reset(lost.ended)


async def test_a_reply_that_cannot_be_sent_is_left_to_its_task(poll: Poll) -> None:
    """It finds out why, and counts the reply as not sent."""
    client = await poll.client()
    client.stream._socket.shutdown(socket.SHUT_WR)
    await client.send(b"hi")
    poll.poller.answer_batch()
    await wait_all_tasks_blocked()
    assert client.rests == [b"HI"]
    assert isinstance(client.ended, trio.BrokenResourceError)


async def test_the_end_that_comes_with_the_last_message_is_seen(poll: Poll) -> None:
    """One edge reports both."""
    client = await poll.client()
    await client.send(b"last")
    await client.peer.send_eof()
    while not client.ended:
        poll.poller.answer_batch()
        await wait_all_tasks_blocked()
    assert await client.peer.receive_some() == b"LAST"
    assert client.ended is True


async def test_urgent_data_is_read_past(poll: Poll) -> None:
    """A read stops before the urgent byte, though there is more: one edge, and all is answered."""
    client = await poll.client()
    client.stream._socket.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    with socket.socket(fileno=socket.dup(client.peer.socket.fileno())) as sender:
        sender.send(b"abc")
        sender.send(b"!", socket.MSG_OOB)
        sender.send(b"def\n")
    while client.unread() < 3:
        await trio.lowlevel.checkpoint()
    reply = b""
    while len(reply) < len(b"ABC!DEF\n"):
        poll.poller.answer_batch()
        reply += await client.peer.receive_some()
    assert reply == b"ABC!DEF\n"


class SignalPending(socket.socket):
    """A socket at whose first `recv` a signal arrives, with urgent data next (`tcp_recvmsg`)."""

    signals = 1

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        if self.signals:
            self.signals -= 1
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return super().recv(bufsize, flags)


async def test_a_signal_that_comes_at_urgent_data_leaves_nothing_unread(poll: Poll) -> None:
    """Linux says EAGAIN then as it does of an empty socket, and there is no other edge."""
    client = await poll.client()
    await client.send(b"hi")
    client.stream._socket = SignalPending(fileno=client.stream._socket.detach())
    client.stream.notice(READABLE | select.EPOLLPRI)
    assert client.pieces == []
    assert list(poll.poller._queue) == [client.stream]
    poll.poller._queue.popleft().take_turn()
    assert client.pieces == [2]
    assert not poll.poller._queue


async def test_an_edge_without_bytes_changes_nothing(poll: Poll) -> None:
    """It may report what was read already."""
    client = await poll.client()
    client.stream.notice(READABLE)
    client.stream.notice(READABLE | select.EPOLLPRI)
    assert client.pieces == []
    await client.send(b"hi")
    poll.poller.answer_batch()
    assert await client.peer.receive_some() == b"HI"


async def test_a_parked_client_that_is_cancelled_is_left_alone(poll: Poll) -> None:
    """Nothing is received for it; what has come is there for the next receive."""
    client = await poll.client()
    with trio.CancelScope() as scope:
        scope.cancel()
        await PolledStream.next_reply(client.stream, client.answer)
    client.stream.take_turn()
    await client.send(b"hi")
    poll.poller.answer_batch()
    assert client.pieces == []
    assert await client.stream.receive_some() == b"hi"


async def test_a_full_epoll_leaves_reading_to_the_task(
    poll: Poll, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC, for the user has too many watches: it costs more, and answers all the same."""

    def full(fd: int, stream: PolledStream) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(poll.poller, "watch", full)
    client = await poll.client()
    await client.peer.send_all(b"hi")
    assert await client.peer.receive_some() == b"HI"
    assert client.rests == [b"HI"]


async def test_a_parked_client_whose_stream_is_closed_is_told(poll: Poll) -> None:
    """And its descriptor, which soon belongs to another one, is forgotten."""
    client, other = await poll.client(), await poll.client()
    client.stream.close()
    client.stream.close()
    await wait_all_tasks_blocked()
    assert isinstance(client.ended, trio.ClosedResourceError)
    assert list(poll.poller._streams.values()) == [other.stream]
    assert poll.poller.awake == 0


async def test_a_closed_socket_is_not_watched(poll: Poll) -> None:
    """Though another process may still hold it open."""
    client = await poll.client()
    with socket.socket(fileno=socket.dup(client.stream._socket.fileno())) as held:
        client.stream.close()
        await client.peer.send_all(b"hi")
        await trio.lowlevel.wait_readable(held)
        assert poll.poller._epoll.poll(0, ROUND_MESSAGES) == []


async def test_a_stream_can_be_closed_after_its_poller() -> None:
    """A server that ends closes in any order."""
    async with running() as poll:
        client = await poll.client()
        poll._nursery.cancel_scope.cancel()
    assert poll.poller._epoll.closed
    client.stream.close()
    assert client.stream._socket.fileno() == -1
