"""The client's conversation on in-memory streams: every way in which it can end."""

import errno
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.streams import AsClient, Breaking, NoHalfClose, receive_all
from trio.testing import (
    MockClock,
    lockstep_stream_pair,
    memory_stream_pair,
    memory_stream_pump,
    wait_all_tasks_blocked,
)

from trio_upper.client.account import Mismatch
from trio_upper.client.converse import (
    HALF_CLOSE_SECONDS,
    LOOK_SECONDS,
    SURPLUS_SECONDS,
    WORDS_SECONDS,
    Ending,
    Outcome,
    converse,
)
from trio_upper.protocol import full_notice, shutdown_notice
from trio_upper.server.conversation import Conversation

Peer = Callable[[trio.StapledStream], Awaitable[object]]  # type: ignore[type-arg]

REPLY_TIMEOUT = 30.0


async def source_of(*pieces: bytes) -> AsyncGenerator[bytes]:
    for piece in pieces:
        await trio.lowlevel.checkpoint()
        yield piece


async def open_prompt() -> AsyncGenerator[bytes]:
    """A source at which somebody sits and types nothing more."""
    await trio.sleep_forever()
    yield b""


async def talk(
    peer: Peer,
    source: AsyncGenerator[bytes],
    *,
    reply_timeout: float = REPLY_TIMEOUT,
) -> tuple[Outcome, bytes]:
    """Have a conversation with `peer`; return how it ended and what was shown."""
    ours, theirs = memory_stream_pair()
    shown = bytearray()

    async def show(replies: bytes) -> None:
        await trio.lowlevel.checkpoint()
        shown.extend(replies)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer, theirs)
        async with aclosing(source):
            outcome = await converse(ours, source, show, reply_timeout=reply_timeout)
        nursery.cancel_scope.cancel()
    return outcome, bytes(shown)


async def server(stream: trio.abc.Stream) -> None:
    """A peer as it should be."""
    assert isinstance(stream, trio.abc.HalfCloseableStream)
    await Conversation(AsClient(stream)).run()
    await stream.aclose()


async def no_reply(replies: bytes) -> None:
    """A sink for a conversation in which nothing may be shown."""
    await trio.lowlevel.checkpoint()
    pytest.fail(f"shown: {replies!r}")


def says(words: bytes, *, after: bytes = b"") -> Peer:
    """Return a peer that says `words` and then keeps silent, having read `after` first."""

    async def peer(stream: trio.abc.Stream) -> None:
        read = b""
        while read != after:
            read += await stream.receive_some()
        await stream.send_all(words)
        await trio.sleep_forever()

    return peer


@given(st.lists(st.binary(min_size=1) | st.text(min_size=1).map(str.encode)))
async def test_every_reply_is_shown(pieces: list[bytes]) -> None:
    """What comes back is the upper case of all that was sent, and that is success."""
    outcome, shown = await talk(server, source_of(*pieces))
    whole = b"".join(pieces).decode("utf-8", "surrogateescape")
    assert shown == whole.upper().encode("utf-8", "surrogateescape")
    assert outcome == Outcome(ending=Ending.ANSWERED, owed=len(shown), unanswered=0)
    assert outcome.complete


async def test_replies_byte_by_byte_are_as_good(autojump_clock: MockClock) -> None:
    """A network that cuts everything to pieces changes nothing."""
    ours, theirs = memory_stream_pair()

    async def fragment() -> None:
        while memory_stream_pump(theirs.send_stream, ours.receive_stream, max_bytes=1):
            await wait_all_tasks_blocked()

    theirs.send_stream.send_all_hook = fragment
    shown: list[bytes] = []

    async def show(replies: bytes) -> None:
        await trio.lowlevel.checkpoint()
        shown.append(replies)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(server, theirs)
        outcome = await converse(ours, source_of(b"Stra\xc3", b"\x9fe\n"), show, reply_timeout=1)
    assert b"".join(shown) == b"STRASSE\n"
    assert outcome.complete


async def test_an_empty_input_is_a_success() -> None:
    """Nothing sent, nothing owed; the server saw a half-close."""
    outcome, shown = await talk(server, source_of())
    assert (outcome.complete, shown) == (True, b"")


async def test_it_does_not_wait_for_the_server_to_close(autojump_clock: MockClock) -> None:
    """When all is answered and the input has ended the conversation is over."""
    outcome, shown = await talk(says(b"HI", after=b"hi"), source_of(b"hi"))
    assert (outcome.complete, shown) == (True, b"HI")
    assert trio.current_time() <= 2 * SURPLUS_SECONDS


async def test_an_input_that_ends_when_all_is_answered(autojump_clock: MockClock) -> None:
    """Then the conversation is over, too: the server need not close for that."""

    async def slow_typist() -> AsyncGenerator[bytes]:
        yield b"hi"
        await trio.sleep(10)

    outcome, shown = await talk(says(b"HI", after=b"hi"), slow_typist())
    assert (outcome.complete, shown) == (True, b"HI")
    assert trio.current_time() <= 10 + 2 * SURPLUS_SECONDS


async def test_a_long_silence_is_fine_while_nothing_is_owed(autojump_clock: MockClock) -> None:
    """The reply time-out counts only while a reply is owed."""

    async def slow_typist() -> AsyncGenerator[bytes]:
        yield b"one"
        await trio.sleep(10 * REPLY_TIMEOUT)
        yield b"two"

    outcome, shown = await talk(server, slow_typist())
    assert (outcome.complete, shown) == (True, b"ONETWO")


async def test_a_reply_that_does_not_come_is_an_error(autojump_clock: MockClock) -> None:
    """A silent server is given up after the reply time-out, with the account of what is missing."""
    outcome, shown = await talk(says(b"HEL", after=b"hello"), source_of(b"hello"))
    assert outcome == Outcome(ending=Ending.SILENT, owed=5, unanswered=2)
    assert not outcome.complete
    assert shown == b"HEL"
    assert trio.current_time() == pytest.approx(REPLY_TIMEOUT, abs=2 * LOOK_SECONDS)


async def test_each_byte_of_a_reply_starts_the_time_anew(autojump_clock: MockClock) -> None:
    """A slow server is not a silent one."""

    async def drip(stream: trio.abc.Stream) -> None:
        for byte in b"HELLO":
            await trio.sleep(REPLY_TIMEOUT - 1)
            await stream.send_all(bytes([byte]))

    outcome, shown = await talk(drip, source_of(b"hello"))
    assert (outcome.complete, shown) == (True, b"HELLO")


async def test_without_a_reply_timeout_it_waits_for_ever(autojump_clock: MockClock) -> None:
    """0 means no limit."""

    async def sleeper(stream: trio.abc.Stream) -> None:
        await trio.sleep(100 * REPLY_TIMEOUT)
        await stream.send_all(b"HI")

    outcome, _ = await talk(sleeper, source_of(b"hi"), reply_timeout=0)
    assert outcome.complete


async def test_the_time_in_which_the_replies_are_shown_does_not_count(
    autojump_clock: MockClock,
) -> None:
    """A slow reader of the output does not make the server silent."""
    ours, theirs = memory_stream_pair()

    async def pager(_: bytes) -> None:
        await trio.sleep(2 * REPLY_TIMEOUT)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(server, theirs)
        outcome = await converse(
            ours, source_of(b"one\n", b"two\n"), pager, reply_timeout=REPLY_TIMEOUT
        )
    assert outcome.complete


async def test_a_server_that_never_reads_is_given_up(autojump_clock: MockClock) -> None:
    """A send that blocks for ever is a reply that does not come."""
    ours, _theirs = lockstep_stream_pair()
    async with aclosing(source_of(b"hi")) as source:
        outcome = await converse(ours, source, no_reply, reply_timeout=REPLY_TIMEOUT)
    assert outcome == Outcome(ending=Ending.SILENT, owed=2, unanswered=2)
    assert trio.current_time() == pytest.approx(REPLY_TIMEOUT, abs=2 * LOOK_SECONDS)


async def test_the_servers_end_stops_the_input_at_once(autojump_clock: MockClock) -> None:
    """A prompt does not stay open when the server has gone, and that is a failure."""

    async def closes(stream: trio.abc.Stream) -> None:
        await stream.aclose()

    outcome, _ = await talk(closes, open_prompt())
    assert outcome == Outcome(ending=Ending.CLOSED, owed=0, unanswered=0)
    assert not outcome.complete
    assert trio.current_time() == 0


async def test_a_server_that_dies_leaves_the_account(autojump_clock: MockClock) -> None:
    """What came is shown, what is missing is counted."""

    async def dies(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"ONE\nTW")
        await stream.aclose()

    outcome, shown = await talk(dies, source_of(b"one\ntwo\n"))
    assert shown == b"ONE\nTW"
    assert outcome == Outcome(ending=Ending.CLOSED, owed=8, unanswered=2)


async def test_a_reset_is_told_apart_from_an_end() -> None:
    """The error that broke the connection is part of the outcome."""
    ours, _theirs = memory_stream_pair()
    stream = Breaking(ours)
    stream.receiving = trio.BrokenResourceError("reset")
    outcome = await converse(stream, source_of(b"hi"), no_reply, reply_timeout=1)
    assert outcome == Outcome(ending=Ending.BROKEN, owed=2, unanswered=2, error=stream.receiving)


async def test_a_reset_that_only_the_sender_saw_is_a_reset() -> None:
    """The kernel reports it once; what the receiver sees then looks like an end."""
    ours, theirs = memory_stream_pair()
    stream = Breaking(ours)
    stream.sending = trio.BrokenResourceError("reset")
    await theirs.aclose()
    outcome = await converse(stream, source_of(b"hi"), no_reply, reply_timeout=1)
    assert outcome == Outcome(ending=Ending.BROKEN, owed=2, unanswered=2, error=stream.sending)


async def test_a_silence_after_a_failed_send_is_a_silence(autojump_clock: MockClock) -> None:
    """What the sender saw is kept, but what ended the conversation is the time-out."""
    ours, _theirs = memory_stream_pair()
    stream = Breaking(ours)
    stream.sending = trio.BrokenResourceError("reset")
    outcome = await converse(stream, source_of(b"hi"), no_reply, reply_timeout=1)
    assert outcome == Outcome(ending=Ending.SILENT, owed=2, unanswered=2, error=stream.sending)


async def test_what_came_before_a_failed_send_is_still_received() -> None:
    """A server that closed early may have said why; the sender's failure does not hide it."""
    ours, theirs = memory_stream_pair()
    stream = Breaking(ours)
    stream.sending = trio.BrokenResourceError("broken pipe")
    await theirs.send_all(full_notice(5))
    await theirs.aclose()
    outcome = await converse(stream, source_of(b"hi"), no_reply, reply_timeout=1)
    assert outcome.ending is Ending.NOTICE
    assert outcome.words == full_notice(5)


async def test_a_reset_after_the_last_reply_is_no_failure() -> None:
    """All that was owed has come; how the server closes is its own affair."""
    ours, theirs = memory_stream_pair()
    stream = Breaking(ours)

    async def show(replies: bytes) -> None:
        await trio.lowlevel.checkpoint()
        assert replies == b"HI"
        stream.receiving = trio.BrokenResourceError("reset")

    await theirs.send_all(b"HI")
    assert (await converse(stream, source_of(b"hi"), show, reply_timeout=1)).complete


@pytest.mark.parametrize("source", [source_of, open_prompt])
async def test_a_notice_ends_the_conversation(
    source: Callable[[], AsyncGenerator[bytes]], autojump_clock: MockClock
) -> None:
    """The server's own line is not a reply, and is received whatever the client is doing."""
    outcome, shown = await talk(says(shutdown_notice()), source())
    assert outcome == Outcome(ending=Ending.NOTICE, owed=0, unanswered=0, words=shutdown_notice())
    assert shown == b""
    assert not outcome.complete


async def test_a_notice_in_pieces_is_heard_out(autojump_clock: MockClock) -> None:
    """A line of words that has begun is waited for, but not for ever."""

    async def stutters(stream: trio.abc.Stream) -> None:
        for byte in shutdown_notice():
            await trio.sleep(0.001)
            await stream.send_all(bytes([byte]))

    outcome, _ = await talk(stutters, open_prompt())
    assert outcome.words == shutdown_notice()
    assert trio.current_time() < WORDS_SECONDS


@pytest.mark.parametrize("closes", [True, False])
async def test_foreign_words_are_part_of_the_outcome(
    closes: bool, autojump_clock: MockClock
) -> None:
    """A foreign peer is quoted, whether its line ends or not."""

    async def banner(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"login: ")
        if closes:
            await stream.aclose()
        await trio.sleep_forever()

    outcome, shown = await talk(banner, source_of(b"hi"))
    assert outcome == Outcome(
        ending=Ending.FOREIGN,
        owed=2,
        unanswered=2,
        words=b"login: ",
        mismatch=Mismatch(position=1, came=ord("l"), owed=ord("H")),
    )
    assert shown == b""
    assert trio.current_time() == (0 if closes else WORDS_SECONDS)


async def test_a_banner_after_an_empty_input_is_seen(autojump_clock: MockClock) -> None:
    """All is done only after waiting for a byte too many: an SSH server is a failure."""
    outcome, _ = await talk(says(b"SSH-2.0-x\r\n"), source_of())
    assert outcome.ending is Ending.FOREIGN


async def test_an_echo_is_unmasked(autojump_clock: MockClock) -> None:
    """A peer that sends back what it got proves nothing."""

    async def echo(stream: trio.abc.Stream) -> None:
        await stream.send_all(await receive_all(stream))

    outcome, shown = await talk(echo, source_of(b"Hello\n"))
    assert (outcome.ending, outcome.words, shown) == (Ending.FOREIGN, b"Hello\n", b"")


@pytest.mark.parametrize(("sent", "unanswered"), [(b"hi\n", 0), (b"hi\xe2\x82", 2)])
async def test_without_half_close_the_account_tells_the_end(
    sent: bytes, unanswered: int, autojump_clock: MockClock
) -> None:
    """Over TLS the conversation ends when all is answered that can be."""
    ours, theirs = memory_stream_pair()

    async def show(replies: bytes) -> None:
        await trio.lowlevel.checkpoint()
        assert replies == b"HI\n"[: len(replies)]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(server, theirs)
        outcome = await converse(NoHalfClose(ours), source_of(sent), show, reply_timeout=9)
        nursery.cancel_scope.cancel()
    assert outcome == Outcome(ending=Ending.ANSWERED, owed=len(sent), unanswered=unanswered)
    assert outcome.complete is (unanswered == 0)
    assert trio.current_time() <= 2 * SURPLUS_SECONDS


async def test_what_the_source_raises_escapes() -> None:
    """A failing input ends both tasks and is the caller's to explain."""

    async def broken() -> AsyncGenerator[bytes]:
        yield b"hi"
        await trio.lowlevel.checkpoint()
        raise OSError("disk on fire")

    with pytest.RaisesGroup(
        pytest.RaisesExc(OSError, match="disk on fire"), flatten_subgroups=True
    ):
        await talk(server, broken())


async def test_what_the_sink_raises_escapes() -> None:
    """A failing output ends both tasks, also at an open prompt."""
    ours, theirs = memory_stream_pair()

    async def full(_: bytes) -> None:
        await trio.lowlevel.checkpoint()
        raise OSError("disk full")

    async def one_line() -> AsyncGenerator[bytes]:
        yield b"hi\n"
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(server, theirs)
        with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="disk full")):
            await converse(ours, one_line(), full, reply_timeout=1)
        await ours.aclose()


# The comparison


async def test_a_wrong_byte_ends_the_conversation(autojump_clock: MockClock) -> None:
    """Wherever it is; what was right before it is shown, and it is not a matter of time."""
    right = b"X" * 200_000
    outcome, shown = await talk(says(right + b"x" + right), source_of(b"x" * 500_000))
    assert outcome.ending is Ending.WRONG
    assert outcome.mismatch == Mismatch(position=200_001, came=ord("x"), owed=ord("X"))
    assert outcome.unanswered == 300_000
    assert shown == right
    assert not outcome.complete


async def test_a_byte_too_many_is_wrong(autojump_clock: MockClock) -> None:
    """It is more than is owed, and so is all that follows it."""
    outcome, shown = await talk(says(b"HIHI", after=b"hi"), source_of(b"hi"))
    assert outcome.ending is Ending.FOREIGN
    assert outcome.mismatch == Mismatch(position=3, came=ord("H"), owed=None)
    assert shown == b"HI"


# The half-close


def closing_with_its_peer(*, after: int = 0, delay: float = 0.0) -> Peer:
    """Return a server behind a proxy that ends both ways when one ends.

    It answers each piece, also when that comes later by `delay`; of the first `after` bytes it
    waits for the end.
    """

    async def peer(stream: trio.StapledStream) -> None:  # type: ignore[type-arg]
        async def answer(data: bytes) -> None:
            await trio.sleep(delay)
            await stream.send_all(data.upper())

        held = b""
        async with trio.open_nursery() as nursery:
            while data := await stream.receive_some():
                held += data
                if len(held) >= after:
                    nursery.start_soon(answer, held)
                    held = b""
            nursery.cancel_scope.cancel()
        await stream.aclose()

    return peer


async def test_the_half_close_waits_for_the_replies(autojump_clock: MockClock) -> None:
    """A proxy that ends both ways when one ends has passed on everything by then."""
    outcome, shown = await talk(closing_with_its_peer(delay=0.9), source_of(b"hi\n"))
    assert outcome.complete
    assert shown == b"HI\n"


async def test_silence_before_the_end_of_the_input_is_none(autojump_clock: MockClock) -> None:
    """There was nothing to say; what is asked last is waited for like the rest."""

    async def source() -> AsyncGenerator[bytes]:
        yield b"one\n"
        await trio.sleep(5 * HALF_CLOSE_SECONDS)
        yield b"two\n"

    outcome, shown = await talk(closing_with_its_peer(delay=0.9), source())
    assert outcome.complete
    assert shown == b"ONE\nTWO\n"


async def test_each_reply_puts_the_half_close_off(autojump_clock: MockClock) -> None:
    """As long as something comes, something else may."""

    async def drip(stream: trio.StapledStream) -> None:  # type: ignore[type-arg]
        assert await stream.receive_some() == b"hello"
        for byte in b"HELLO":
            with trio.move_on_after(0.9):
                await stream.receive_some()
                pytest.fail("this side was ended")
            await stream.send_all(bytes([byte]))

    outcome, shown = await talk(drip, source_of(b"hello"))
    assert outcome.complete
    assert shown == b"HELLO"


async def test_what_lies_unread_puts_the_half_close_off(autojump_clock: MockClock) -> None:
    """As long as nobody takes what is shown (``| less``), the server is not silent."""
    ours, theirs = memory_stream_pair()
    shown: list[bytes] = []

    async def show_slowly(replies: bytes) -> None:
        await trio.sleep(3 * HALF_CLOSE_SECONDS)
        shown.append(replies)

    async def peer() -> None:
        assert await theirs.receive_some() == b"1\n2\n3\n"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ended)
            for number in b"123":
                await theirs.send_all(bytes([number, *b"\n"]))
                await trio.sleep(2 * HALF_CLOSE_SECONDS)
            nursery.cancel_scope.cancel()
        await theirs.aclose()

    async def ended() -> None:
        assert await theirs.receive_some() == b""
        pytest.fail("this side was ended")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer)
        outcome = await converse(ours, source_of(b"1\n2\n3\n"), show_slowly)
    assert outcome.complete
    assert b"".join(shown) == b"1\n2\n3\n"


@pytest.mark.parametrize("reply_timeout", [HALF_CLOSE_SECONDS / 2, REPLY_TIMEOUT])
async def test_after_a_stop_of_this_process_it_looks_before_it_speaks(
    reply_timeout: float, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait that is over when a stopped process goes on tells nothing of what came meanwhile."""
    ours, theirs = memory_stream_pair()
    receive, end = ours.receive_some, ours.send_eof
    stopped = False
    shown: list[bytes] = []

    async def receive_some(max_bytes: int | None = None) -> bytes | bytearray:
        nonlocal stopped
        if not stopped:
            stopped = True
            await trio.sleep_forever()
        return await receive(max_bytes)

    async def send_eof() -> None:
        assert shown
        await end()

    monkeypatch.setattr(ours, "receive_some", receive_some)
    monkeypatch.setattr(ours, "send_eof", send_eof)

    async def show(replies: bytes) -> None:
        await trio.lowlevel.checkpoint()
        shown.append(replies)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(closing_with_its_peer(), theirs)
        outcome = await converse(ours, source_of(b"hi\n"), show, reply_timeout=reply_timeout)
        nursery.cancel_scope.cancel()
    assert outcome.complete
    assert shown == [b"HI\n"]


async def test_a_server_that_answers_at_the_end_is_half_closed(autojump_clock: MockClock) -> None:
    """When nothing comes for a while, the half-close is what is waited for."""
    ours, theirs = memory_stream_pair()
    shown: list[bytes] = []

    async def show(replies: bytes) -> None:
        await trio.lowlevel.checkpoint()
        shown.append(replies)

    async def answer_at_the_end() -> None:
        await theirs.send_all((await receive_all(theirs)).upper())
        await theirs.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_at_the_end)
        outcome = await converse(ours, source_of(b"hi\n"), show)
    assert outcome.complete
    assert not outcome.cut_by_half_close
    assert shown == [b"HI\n"]
    assert trio.current_time() == pytest.approx(HALF_CLOSE_SECONDS, abs=2 * LOOK_SECONDS)


async def test_a_connection_that_ends_with_the_half_close(autojump_clock: MockClock) -> None:
    """What was owed is lost in something that ends both ways, and that is said."""
    outcome, _ = await talk(closing_with_its_peer(after=9), source_of(b"hi\n"))
    assert outcome.ending is Ending.CLOSED
    assert outcome.cut_by_half_close
    assert not outcome.hung_up


async def test_a_connection_that_ends_after_an_answer_to_the_half_close(
    autojump_clock: MockClock,
) -> None:
    """It was passed on; the end has another reason."""

    async def peer(stream: trio.StapledStream) -> None:  # type: ignore[type-arg]
        await receive_all(stream)
        await stream.send_all(b"H")
        await stream.aclose()

    outcome, _ = await talk(peer, source_of(b"hi\n"))
    assert outcome.ending is Ending.CLOSED
    assert not outcome.cut_by_half_close


async def test_a_character_cut_by_the_end_needs_the_half_close(autojump_clock: MockClock) -> None:
    """All that can be answered has been, so it comes at once."""
    outcome, shown = await talk(server, source_of(b"hi\xe2\x82"))
    assert outcome.complete
    assert shown == b"HI\xe2\x82"
    assert trio.current_time() < HALF_CLOSE_SECONDS


# A peer that hangs up


async def test_a_peer_that_answers_nothing_has_hung_up(autojump_clock: MockClock) -> None:
    """A proxy whose server is not there accepts, and closes; with a time to judge it by."""

    async def peer(stream: trio.StapledStream) -> None:  # type: ignore[type-arg]
        await trio.sleep(0.5)
        await stream.aclose()

    await trio.sleep(100)
    outcome, _ = await talk(peer, source_of(b"hi\n"))
    assert outcome.hung_up
    assert outcome.seconds == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("cause", "hung_up"), [(ConnectionResetError(errno.ECONNRESET, "?"), True), (None, False)]
)
async def test_a_peer_that_resets_has_hung_up(cause: OSError | None, hung_up: bool) -> None:
    """But not one to which the connection broke in another way."""
    ours, _theirs = memory_stream_pair()
    stream = Breaking(ours)
    stream.receiving = trio.BrokenResourceError("broken")
    stream.receiving.__cause__ = cause
    outcome = await converse(stream, source_of(b"hi"), no_reply, reply_timeout=1)
    assert outcome.hung_up is hung_up


async def test_a_peer_that_answers_something_has_not_hung_up(autojump_clock: MockClock) -> None:
    """One byte of a reply proves that there is a server."""

    async def peer(stream: trio.StapledStream) -> None:  # type: ignore[type-arg]
        await stream.receive_some()
        await stream.send_all(b"H")
        await stream.aclose()

    outcome, _ = await talk(peer, source_of(b"hi\n"))
    assert outcome.ending is Ending.CLOSED
    assert not outcome.hung_up
