"""The server's side of one conversation, on in-memory streams and in virtual time."""

import math
import weakref
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import NoReturn

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.streams import AsClient, Breaking, receive_all
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from trio_upper.protocol import full_notice, idle_notice
from trio_upper.server.conversation import (
    DRAIN_HANDSHAKE_SECONDS,
    LINGER_SECONDS,
    Conversation,
    End,
    Limits,
    send_and_end,
)
from trio_upper.server.streams import Answer, Reply

TICK = 0.02
NOTICE = idle_notice(10)
LIMITS = Limits(quiet_seconds=10, stalled_seconds=5, end=End.IDLE, notice=NOTICE)
NO_LIMITS = Limits(quiet_seconds=math.inf, stalled_seconds=math.inf, end=End.IDLE, notice=NOTICE)


class Served:
    """A conversation that a nursery runs, and how it ended."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.limits = LIMITS
        self.end: End | None = None
        self.ended_at = math.nan

    async def run(self, stream: AsClient) -> None:
        self.end = await self.conversation.run()
        self.ended_at = trio.current_time()
        await stream.aclose()

    async def watch(self) -> None:
        while True:
            self.conversation.inspect(trio.current_time(), self.limits)
            await trio.sleep(TICK)


@asynccontextmanager
async def serving(stream: trio.abc.HalfCloseableStream) -> AsyncGenerator[Served]:
    """Serve on `stream` and inspect as a server would; at the end wait until it is over."""
    client = stream if isinstance(stream, AsClient) else AsClient(stream)
    served = Served(Conversation(client))
    async with trio.open_nursery() as watching:
        watching.start_soon(served.watch)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.run, client)
            yield served
        watching.cancel_scope.cancel()


@given(st.lists(st.binary(min_size=1) | st.text(min_size=1).map(str.encode)))
async def test_the_reply_stream_is_the_request_stream_in_upper_case(pieces: list[bytes]) -> None:
    """Any bytes in any pieces are answered whole, and then the server ends its side."""
    ours, theirs = memory_stream_pair()
    async with serving(theirs) as served:
        for piece in pieces:
            await ours.send_all(piece)
        await ours.send_eof()
        reply = await receive_all(ours)
    whole = b"".join(pieces)
    assert reply == whole.decode("utf-8", "surrogateescape").upper().encode(
        "utf-8", "surrogateescape"
    )
    assert served.end is End.EOF
    assert served.conversation.received == len(whole)
    assert served.conversation.sent == len(reply)


async def test_a_message_without_a_newline_is_answered_at_once(autojump_clock: MockClock) -> None:
    """What has arrived is answered; only an incomplete character is held back."""
    ours, theirs = memory_stream_pair()
    async with serving(theirs):
        await ours.send_all(b"hi \xc3")
        assert await ours.receive_some() == b"HI "
        await ours.send_all(b"\xa4!")
        assert await ours.receive_some() == "Ä!".encode()
        await ours.send_eof()
    assert trio.current_time() == 0


async def test_a_reset_is_an_end() -> None:
    """A stream that breaks ends the conversation without an exception."""
    for operation in ("sending", "receiving"):
        ours, theirs = memory_stream_pair()
        stream = Breaking(theirs)
        setattr(stream, operation, trio.BrokenResourceError("reset"))
        async with serving(stream) as served:
            await ours.send_all(b"hi")
        assert served.end is End.RESET


async def test_a_conversation_that_is_over_is_inspected_no_more() -> None:
    """Its stream may be closed by then, and could not say what it has delivered."""

    class Closed(AsClient):
        def delivered(self) -> NoReturn:
            raise ValueError

    ours, theirs = memory_stream_pair()
    stream = Breaking(theirs)
    stream.sending = trio.BrokenResourceError("reset")
    conversation = Conversation(Closed(stream))
    await ours.send_all(b"hi")
    assert await conversation.run() is End.RESET
    for now in (0, 100):
        conversation.inspect(now, LIMITS)


async def test_an_idle_client_gets_a_notice_and_an_end_of_stream(autojump_clock: MockClock) -> None:
    """After the idle timeout the client reads why, then the end; it does not have to act."""
    ours, theirs = memory_stream_pair()
    async with serving(theirs) as served:
        assert await receive_all(ours) == NOTICE
        assert trio.current_time() == pytest.approx(LIMITS.quiet_seconds, abs=2 * TICK)
    assert served.end is End.IDLE
    assert served.conversation.settled
    assert served.ended_at == pytest.approx(LIMITS.quiet_seconds + LINGER_SECONDS, abs=2 * TICK)


async def test_a_client_that_ends_after_its_notice_is_let_go_at_once(
    autojump_clock: MockClock,
) -> None:
    """The lingering lasts no longer than the client needs; what it still says is discarded."""
    ours, theirs = memory_stream_pair()
    async with serving(theirs) as served:
        assert await ours.receive_some() == NOTICE
        await ours.send_all(b"too late")
        await ours.send_eof()
        assert await receive_all(ours) == b""
    assert served.ended_at < LIMITS.quiet_seconds + LINGER_SECONDS / 2


async def test_a_notice_stands_on_a_line_of_its_own(autojump_clock: MockClock) -> None:
    """After a reply that did not end a line the notice begins with a newline, else it does not."""
    for sent, before in ((b"hi", b"HI\n"), (b"hi\n", b"HI\n")):
        ours, theirs = memory_stream_pair()
        async with serving(theirs):
            await ours.send_all(sent)
            assert await receive_all(ours) == before + NOTICE


async def test_every_byte_starts_the_idle_time_anew(autojump_clock: MockClock) -> None:
    """A client that says a byte now and then is not idle."""
    ours, theirs = memory_stream_pair()
    async with serving(theirs) as served:
        for _ in range(5):
            await trio.sleep(LIMITS.quiet_seconds - 1)
            await ours.send_all(b"x")
            assert await ours.receive_some() == b"X"
        await ours.send_eof()
    assert served.end is End.EOF


async def test_without_a_time_out_nothing_ends(autojump_clock: MockClock) -> None:
    """An infinite limit is none."""
    ours, theirs = memory_stream_pair()
    async with serving(theirs) as served:
        served.limits = NO_LIMITS
        await trio.sleep(100)
        await ours.send_all(b"hi")
        assert await ours.receive_some() == b"HI"
        await ours.send_eof()
    assert served.end is End.EOF


async def test_a_client_that_takes_nothing_is_cut(autojump_clock: MockClock) -> None:
    """The write timeout ends it without a notice, for it would not read that either."""
    ours, theirs = lockstep_stream_pair()
    async with serving(theirs) as served:
        await ours.send_all(b"hi")
    assert served.end is End.STALLED
    assert not served.conversation.settled
    assert served.ended_at == pytest.approx(LIMITS.stalled_seconds, abs=2 * TICK)


async def test_a_client_that_does_not_take_its_last_byte_is_cut(autojump_clock: MockClock) -> None:
    """That of a character which was not whole is a reply like any other."""
    ours, theirs = lockstep_stream_pair()
    async with serving(theirs) as served:
        await ours.send_all(b"\xc3")
        await ours.send_eof()
    assert served.end is End.STALLED


async def test_a_client_that_takes_a_little_is_served(autojump_clock: MockClock) -> None:
    """Progress in the middle of one long send, however slow, restarts the write timeout."""
    ours, theirs = lockstep_stream_pair()
    client = AsClient(theirs)
    async with serving(client) as served:
        await ours.send_all(b"hello")
        for _ in range(5):
            await trio.sleep(LIMITS.stalled_seconds - 1)
            client.taken += 1
        assert await ours.receive_some() == b"HELLO"
        await ours.send_eof()
    assert served.end is End.EOF


async def test_a_message_that_arrives_in_the_instant_of_the_notice_is_answered(
    autojump_clock: MockClock,
) -> None:
    """What has come in when the time is up is answered before the notice."""
    ours, theirs = memory_stream_pair()
    async with serving(theirs) as served:
        served.limits = NO_LIMITS
        await wait_all_tasks_blocked()
        # Both in one turn of the scheduler: the reader is woken with a message, then interrupted.
        await ours.send_all(b"hi")
        served.conversation.inspect(math.inf, LIMITS)
        assert await ours.receive_some() == b"HI"
        served.limits = LIMITS
        assert await receive_all(ours) == b"\n" + NOTICE
    assert served.end is End.IDLE


async def test_a_client_whose_message_lies_unread_is_not_quiet(autojump_clock: MockClock) -> None:
    """It is not interrupted: it is the server that is late."""
    ours, theirs = memory_stream_pair()
    client = AsClient(theirs)
    client.unread = True
    async with serving(client) as served:
        await trio.sleep(2 * LIMITS.quiet_seconds)
        await ours.send_all(b"hi\n")
        assert await ours.receive_some() == b"HI\n"
        client.unread = False
        assert await receive_all(ours) == NOTICE
    assert served.end is End.IDLE


class Late(AsClient):
    """A message, or the end, arrives between the interruption and the notice."""

    def has_unread(self) -> bool:
        self.unread = not self.unread
        return not self.unread


async def test_what_comes_between_the_interruption_and_the_notice_is_answered(
    autojump_clock: MockClock,
) -> None:
    """There is a last check of the socket, and nothing can come between it and the notice."""
    ours, theirs = memory_stream_pair()
    client = Late(theirs)
    async with serving(client) as served:
        served.limits = NO_LIMITS
        await wait_all_tasks_blocked()
        served.conversation.inspect(math.inf, LIMITS)
        await ours.send_all(b"hi\n")
        await wait_all_tasks_blocked()
        await ours.send_eof()
        assert await receive_all(ours) == b"HI\n"
    assert served.end is End.EOF


class Sluggish(AsClient):
    """Does not take a reply at once, and has its own way to write the last one."""

    def on_wire(self, reply: Reply) -> Reply:
        return bytes(reply).hex().encode()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        await super().send_all(data)


async def test_an_end_in_the_instant_of_the_notice_loses_no_part_of_a_character(
    autojump_clock: MockClock,
) -> None:
    """What was held back of it is sent, though the end came when the time was up."""
    ours, theirs = memory_stream_pair()
    async with serving(Sluggish(theirs)) as served:
        served.limits = NO_LIMITS
        await ours.send_all(b"a\xc3")
        await trio.sleep(2 * TICK)  # of virtual time: its progress is inspected
        # Both in one turn of the scheduler: the reader is woken with the end, then interrupted.
        ours.send_stream.close()
        served.conversation.inspect(math.inf, LIMITS)
        assert await receive_all(ours) == b"Ac3"
    assert served.end is End.EOF
    assert served.conversation.sent == served.conversation.received == 2


class Busy(AsClient):
    """Sends replies itself, as the poller does, and takes a while to return."""

    async def next_reply(self, answer: Answer) -> Reply | None:
        while data := await self.receive_some():
            reply = answer(data)
            if len(reply) > 1:
                return reply[1:]
            await self.send_all(reply)
        return None


async def test_a_client_that_the_stream_answers_itself_is_not_quiet(
    autojump_clock: MockClock,
) -> None:
    """The counts grow although the conversation's own task sleeps; they are right in the middle."""
    ours, theirs = memory_stream_pair()
    async with serving(Busy(theirs)) as served:
        for number in range(1, 5):
            await trio.sleep(LIMITS.quiet_seconds - 1)
            await ours.send_all(b"x")
            assert await ours.receive_some() == b"X"
            assert (served.conversation.received, served.conversation.sent) == (number, number)
        await ours.send_eof()
    assert served.end is End.EOF


async def test_a_reply_that_is_not_taken_as_a_whole_is_counted_as_far_as_it_was(
    autojump_clock: MockClock,
) -> None:
    """The stream has sent the first byte; the rest is stuck until the client is cut."""
    ours, theirs = lockstep_stream_pair()
    async with serving(Busy(theirs)) as served:
        await ours.send_all(b"hello")
    assert served.end is End.STALLED
    assert (served.conversation.received, served.conversation.sent) == (5, 1)


class Long(bytearray):
    """A reply of which can be seen that it is kept."""


class Replying(AsClient):
    """Has one reply to send, and waits for the client from then on."""

    kept: list[weakref.ref[Long]]

    async def next_reply(self, answer: Answer) -> Reply | None:
        if self.kept:
            return await super().next_reply(answer)
        reply = Long(answer(b"x"))
        self.kept.append(weakref.ref(reply))
        return reply


async def test_a_reply_that_was_sent_is_kept_no_longer() -> None:
    """A client may be silent for hours after a long one."""
    ours, theirs = memory_stream_pair()
    client = Replying(theirs)
    client.kept = []
    async with serving(client):
        assert await ours.receive_some() == b"X"
        await wait_all_tasks_blocked()
        assert [kept() for kept in client.kept] == [None]
        await ours.send_eof()


class Hesitating(AsClient):
    """A client that begins its handshake, and goes no further."""

    async def do_handshake(self) -> None:
        await trio.sleep_forever()


@asynccontextmanager
async def hesitating() -> AsyncGenerator[tuple[Conversation, Hesitating, list[End]]]:
    """Give a conversation in its handshake, its client, and how it ended."""
    _ours, theirs = memory_stream_pair()
    client = Hesitating(theirs)
    conversation = Conversation(client)
    ends: list[End] = []

    async def run() -> None:
        ends.append(await conversation.run())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        yield conversation, client, ends


async def test_a_handshake_has_its_time_from_the_first_inspection() -> None:
    """And anew from the first one after a standstill."""
    limits = replace(NO_LIMITS, handshake_seconds=10)
    async with hesitating() as (conversation, _, ends):
        for now in (1000.0, 1009.0):
            conversation.inspect(now, limits)
        conversation.begin_anew()
        for now in (1015.0, 1024.0):
            conversation.inspect(now, limits)
        await wait_all_tasks_blocked()
        assert ends == []
        conversation.inspect(1025.0, limits)
    assert ends == [End.TLS]
    assert isinstance(conversation.failure, trio.TooSlowError)


async def test_a_handshake_that_has_just_gone_on_is_not_dropped_as_silent() -> None:
    """The drain waits as long for it as for a message; then it is dropped."""
    async with hesitating() as (conversation, client, ends):
        client.received = 1
        conversation.inspect(100.0, LIMITS)
        draining = replace(LIMITS, quiet_seconds=0.1, drain_began=100.05, end=End.SHUTDOWN)
        conversation.inspect(100.06, draining)
        await wait_all_tasks_blocked()
        assert ends == []
        conversation.inspect(100.11, draining)
    assert ends == [End.SHUTDOWN]
    assert conversation.dropped


async def test_a_handshake_that_goes_on_in_the_drain_has_some_time() -> None:
    """It may be silent for longer than others."""
    draining = replace(LIMITS, quiet_seconds=0.1, drain_began=100.0, end=End.SHUTDOWN)
    async with hesitating() as (conversation, client, ends):
        conversation.inspect(99.0, LIMITS)
        client.received = 1
        for now in (100.05, 100.2):
            conversation.inspect(now, draining)
        await wait_all_tasks_blocked()
        assert ends == []
        conversation.inspect(100.0 + DRAIN_HANDSHAKE_SECONDS, draining)
    assert ends == [End.SHUTDOWN]


async def test_who_connects_in_the_drain_and_begins_no_handshake_is_dropped_as_silent() -> None:
    """A newcomer alone is no sign that something comes."""
    draining = replace(LIMITS, quiet_seconds=0.1, drain_began=100.0, end=End.SHUTDOWN)
    async with hesitating() as (conversation, _, ends):
        for now in (100.05, 100.2):
            conversation.inspect(now, draining)
    assert ends == [End.SHUTDOWN]


async def test_a_notice_that_is_not_taken_is_given_up(autojump_clock: MockClock) -> None:
    """A client that neither speaks nor reads does not keep the server."""
    _ours, theirs = lockstep_stream_pair()
    async with serving(theirs) as served:
        pass
    assert served.end is End.IDLE
    assert not served.conversation.settled
    assert served.ended_at == pytest.approx(LIMITS.quiet_seconds + LINGER_SECONDS, abs=3 * TICK)


async def test_a_refused_client_reads_why(autojump_clock: MockClock) -> None:
    """The notice comes, then the end of the stream, and the refusal ends with the client's end."""
    ours, theirs = memory_stream_pair()
    await ours.send_all(b"unread")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_and_end, theirs, full_notice(5))
        assert await receive_all(ours) == full_notice(5)
        await ours.send_eof()
    assert trio.current_time() < LINGER_SECONDS


async def test_a_refused_client_that_stays_is_left(autojump_clock: MockClock) -> None:
    """The lingering is bounded."""
    _ours, theirs = memory_stream_pair()
    await send_and_end(theirs, full_notice(5))
    assert trio.current_time() == LINGER_SECONDS
