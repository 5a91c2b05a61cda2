"""Round trips on in-memory streams in virtual time, and once over a real socket."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
import trio
from structlog.testing import CapturingLogger
from tests.helpers.certificates import ca_file, issue, pair_file
from tests.helpers.commands import REFUSED, HalfCloseable, Network, Peer
from tests.helpers.streams import AsClient, Breaking
from tests.helpers.waiting import TIMEOUT_SECONDS
from trio.testing import MockClock, lockstep_stream_pair

from trio_upper.client.account import WORDS_BYTES
from trio_upper.client.connect import Retries, open_connection
from trio_upper.client.settings import ConnectSettings
from trio_upper.client.target import Target
from trio_upper.measure.exchange import (
    CLOSE_SECONDS,
    WORDS_SECONDS,
    Trouble,
    make_message,
)
from trio_upper.measure.pinger import (
    INTERRUPTED_SECONDS,
    OVERDUE_SECONDS,
    RETRY_SECONDS,
    Overdue,
    Pinger,
    RoundTrip,
)
from trio_upper.measure.settings import LARGEST_AT_ONCE_BYTES, SMALLEST_BYTES, PingSettings
from trio_upper.protocol import full_notice, idle_notice
from trio_upper.server.conversation import Conversation
from trio_upper.server.server import Server
from trio_upper.server.settings import ServerSettings
from trio_upper.tls import client_context, server_context

INTERVAL = 1.0
REPLY_TIMEOUT = 30.0


class World(Network):
    """Where a pinger connects to, and what it shows."""

    def __init__(self, *peers: Peer | Exception) -> None:
        super().__init__(*peers)
        self.shown: list[RoundTrip] = []
        self.shown_at: list[float] = []
        self.overdue: list[float] = []

    async def show(self, event: RoundTrip | Overdue) -> None:
        await trio.lowlevel.checkpoint()
        if isinstance(event, Overdue):
            self.overdue.append(event.seconds)
        else:
            self.shown.append(event)
            self.shown_at.append(trio.current_time())

    async def ping(
        self,
        count: int = 1,
        *,
        interval: float = INTERVAL,
        size: int = 32,
        reply_timeout: float = REPLY_TIMEOUT,
        wait: float = 0,
    ) -> Pinger:
        """Make `count` round trips; return who made them."""
        settings = PingSettings(
            count=count, interval=interval, size=size, reply_timeout=reply_timeout
        )
        pinger = Pinger(self.connect, settings, wait=wait)
        await pinger.run(self.show)
        assert pinger.sent == len(self.shown) == count
        assert [each.sequence for each in self.shown] == list(range(1, count + 1))
        return pinger

    @property
    def troubles(self) -> list[Trouble | None]:
        return [each.failed.trouble if each.failed else None for each in self.shown]


async def upper(stream: HalfCloseable) -> None:
    """A peer as it should be."""
    await Conversation(AsClient(stream)).run()


def replying(answer: Callable[[bytes], bytes], *, after: float = 0) -> Peer:
    """Return a peer that makes each reply by `answer`, `after` seconds later."""

    async def peer(stream: HalfCloseable) -> None:
        async for message in stream:
            await trio.sleep(after)
            await stream.send_all(answer(bytes(message)))

    return peer


def saying(words: bytes, *, closes: bool = True) -> Peer:
    """Return a peer that reads a message, says `words` instead of a reply, and may then close."""

    async def peer(stream: HalfCloseable) -> None:
        await stream.receive_some()
        for byte in words:
            await stream.send_all(bytes([byte]))
        if not closes:
            await trio.sleep_forever()

    return peer


async def deaf(stream: HalfCloseable) -> None:
    """A peer that reads nothing and says nothing."""
    await trio.sleep_forever()


# ------------------------------------------------------------------ round trips


async def test_every_reply_is_right_and_counted(autojump_clock: MockClock) -> None:
    """The time is that from message to reply, over one connection."""
    world = World(replying(lambda message: message.decode().upper().encode(), after=0.25))
    pinger = await world.ping(3)
    assert [each.seconds for each in world.shown] == pytest.approx([0.25] * 3)
    assert world.troubles == [None] * 3
    assert (pinger.answered, pinger.wrong, pinger.unanswered) == (3, 0, 0)
    assert pinger.latency.count == 3
    assert pinger.latency.max == pytest.approx(0.25)
    assert len(world.streams) == 1


async def test_the_content_varies_and_is_not_only_ascii() -> None:
    """The replies prove that the server upper-cases, not that it repeats itself."""
    seen: list[bytes] = []

    def note(message: bytes) -> bytes:
        seen.append(message)
        return message.decode().upper().encode()

    await World(replying(note)).ping(4, interval=0)
    assert len(set(seen)) == 4
    assert [message.isascii() for message in seen] == [True, False, True, False]
    assert {len(message) for message in seen} == {32}


async def test_one_begins_at_each_interval(autojump_clock: MockClock) -> None:
    """However long the reply takes, if it comes in time; and no wait after the last."""
    world = World(replying(bytes.upper, after=0.25))
    await world.ping(3, size=8)
    assert world.shown_at == pytest.approx([0.25, 1.25, 2.25])


async def test_a_reply_later_than_the_interval_delays_the_next(autojump_clock: MockClock) -> None:
    """They are made one at a time, and a missed one is not made up for."""
    world = World(replying(bytes.upper, after=2.5))
    await world.ping(3, size=8)
    assert world.shown_at == pytest.approx([2.5, 5, 7.5])


async def test_without_an_interval_one_follows_the_other(autojump_clock: MockClock) -> None:
    """0 means at once."""
    world = World(upper)
    await world.ping(100, interval=0)
    assert trio.current_time() == 0


@pytest.mark.parametrize("size", [SMALLEST_BYTES, 32, LARGEST_AT_ONCE_BYTES])
async def test_a_message_of_any_size_is_answered(size: int) -> None:
    """From one letter to as many as the buffers on the way hold."""
    assert (await World(upper).ping(2, interval=0, size=size)).answered == 2


async def test_replies_byte_by_byte_are_right() -> None:
    """How the network splits the stream does not matter."""
    world = World(upper)
    world.wrap = OneByOne
    assert (await world.ping(2, interval=0)).answered == 2


class OneByOne(Breaking):
    """A stream that is received one byte at a time."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await super().receive_some(1)


async def test_without_a_count_it_goes_on(autojump_clock: MockClock) -> None:
    """Until it is cancelled; between two round trips that loses none."""
    world = World(replying(bytes.upper, after=0.25))
    pinger = Pinger(world.connect, PingSettings(size=8))
    with trio.move_on_after(9.5):
        await pinger.run(world.show)
    assert pinger.give_up() is None
    assert (pinger.sent, pinger.answered) == (10, 10)


@pytest.mark.parametrize(
    ("after", "counted"), [(INTERRUPTED_SECONDS / 2, False), (INTERRUPTED_SECONDS, True)]
)
async def test_an_interrupted_round_trip_counts_only_if_it_was_late(
    after: float, counted: bool, autojump_clock: MockClock
) -> None:
    """Ctrl-C may come while a reply is on its way, or because it does not come."""
    world = World(replying(bytes.upper, after=100))
    pinger = Pinger(world.connect, PingSettings(size=8))
    with trio.move_on_after(after):
        await pinger.run(world.show)
    given_up = pinger.give_up()
    assert pinger.sent == pinger.unanswered == counted
    if counted:
        assert given_up is not None
        assert given_up.failed is not None
        assert given_up.failed.trouble is Trouble.INTERRUPTED
        assert given_up.sequence == 1
    else:
        assert given_up is None


# ------------------------------------------------------------------ what goes wrong


async def test_an_echo_is_wrong() -> None:
    """It answers everything and proves nothing."""
    world = World(replying(bytes))
    pinger = await world.ping(3, interval=0)
    assert world.troubles == [Trouble.WRONG] * 3
    assert (pinger.answered, pinger.wrong, pinger.unanswered) == (0, 3, 0)
    assert math.isnan(pinger.latency.max)
    assert world.shown[0].failed is not None
    assert world.shown[0].failed.words == make_message(1, 32)[0]


@pytest.mark.parametrize(
    "answer",
    [
        lambda message: message.upper()[:-2] + b".\n",
        lambda message: message.upper() + b"\n",
        lambda message: message.upper()[1:],
        lambda message: make_message(2, 32)[1],
    ],
    ids=["one byte differs", "one too many", "one missing", "right for another message"],
)
async def test_one_wrong_byte_is_wrong(
    answer: Callable[[bytes], bytes], autojump_clock: MockClock
) -> None:
    """Every byte is compared."""
    world = World(replying(answer), upper)
    pinger = await world.ping(2, size=32, interval=0)
    assert world.troubles == [Trouble.WRONG, None]
    assert (pinger.answered, pinger.wrong) == (1, 1)
    assert len(world.streams) == 2


async def test_a_late_reply_is_not_taken_for_the_next_one(autojump_clock: MockClock) -> None:
    """After a timeout it connects again; what comes over the old connection is not read."""
    world = World(replying(bytes.upper, after=REPLY_TIMEOUT + 1), upper)
    pinger = await world.ping(2)
    assert world.troubles == [Trouble.SILENT, None]
    assert (pinger.answered, pinger.unanswered) == (1, 1)
    assert world.shown_at == pytest.approx([REPLY_TIMEOUT, REPLY_TIMEOUT])
    assert len(world.streams) == 2


async def test_without_a_reply_timeout_it_waits_for_ever(autojump_clock: MockClock) -> None:
    """0 means no limit."""
    world = World(replying(bytes.upper, after=100 * REPLY_TIMEOUT))
    assert (await world.ping(reply_timeout=0)).answered == 1


async def test_a_server_that_does_not_read_is_silent(autojump_clock: MockClock) -> None:
    """The timeout holds for sending, too."""
    world = World(deaf)
    world.pair = lockstep_stream_pair
    await world.ping()
    assert world.troubles == [Trouble.SILENT]
    assert trio.current_time() == pytest.approx(REPLY_TIMEOUT)


async def test_it_connects_again_when_the_connection_is_lost(autojump_clock: MockClock) -> None:
    """The lost round trip counts, and the next one has a new connection at its usual time."""
    world = World(saying(b""), saying(b"AAA"), upper)
    pinger = await world.ping(3)
    assert world.troubles == [Trouble.CLOSED, Trouble.CLOSED, None]
    assert (pinger.answered, pinger.wrong, pinger.unanswered) == (1, 0, 2)
    assert world.shown_at == pytest.approx([0, 1, 2])


@pytest.mark.parametrize("way", ["sending", "receiving"])
async def test_a_connection_that_breaks_is_reported_with_its_error(way: str) -> None:
    """Whichever direction breaks first."""
    error = trio.BrokenResourceError("reset")

    def breaking(stream: HalfCloseable) -> trio.abc.Stream:
        broken = Breaking(stream)
        setattr(broken, way, error)
        return broken

    world = World(upper)
    world.wrap = breaking
    await world.ping()
    assert world.troubles == [Trouble.BROKEN]
    assert world.shown[0].failed is not None
    assert world.shown[0].failed.error is error


async def test_no_connection_is_no_answer(autojump_clock: MockClock) -> None:
    """Each round trip tries again and has the reason; there are no timings."""
    world = World(REFUSED)
    pinger = await world.ping(3)
    assert world.troubles == [Trouble.UNCONNECTED] * 3
    assert world.shown[0].failed is not None
    assert world.shown[0].failed.error is REFUSED
    assert (pinger.answered, pinger.wrong, pinger.unanswered) == (0, 0, 3)
    assert world.shown_at == pytest.approx([0, 1, 2])


async def test_a_machine_that_refuses_is_not_flooded(autojump_clock: MockClock) -> None:
    """Whatever the interval."""
    world = World(REFUSED)
    await world.ping(3, interval=0)
    assert world.shown_at == pytest.approx([0, RETRY_SECONDS, 2 * RETRY_SECONDS])


@pytest.mark.parametrize("notice", [full_notice(3), b"\n" + idle_notice(1)])
async def test_a_notice_is_not_a_wrong_reply(notice: bytes, autojump_clock: MockClock) -> None:
    """The server said why; that line is received to its end, in whatever pieces."""
    world = World(saying(notice))
    pinger = await world.ping()
    assert world.troubles == [Trouble.NOTICE]
    assert world.shown[0].failed is not None
    assert world.shown[0].failed.words == notice
    assert (pinger.wrong, pinger.unanswered) == (0, 1)


def sending(*pieces: bytes, apart: float = WORDS_SECONDS / 4) -> Peer:
    """Return a peer that answers a message with these pieces, seconds apart, and says no more."""

    async def peer(stream: HalfCloseable) -> None:
        await stream.receive_some()
        for piece in pieces:
            await stream.send_all(piece)
            await trio.sleep(apart)
        await trio.sleep_forever()

    return peer


REPLY = make_message(1, 32)[1]


@pytest.mark.parametrize(
    ("pieces", "notice"),
    [
        ((REPLY + full_notice(3),), full_notice(3)),
        ((REPLY + b"\n" + full_notice(3),), b"\n" + full_notice(3)),
        ((REPLY[:9], REPLY[9:] + b"trio", b"-upper: bye", b"\n"), b"trio-upper: bye\n"),
        ((REPLY + b"\n", full_notice(3)), b"\n" + full_notice(3)),
        ((REPLY + b"trio-upper: by",), b"trio-upper: by"),
    ],
    ids=["at once", "newline", "in pieces", "newline alone", "never whole"],
)
async def test_a_notice_behind_a_right_reply_ends_the_next_round_trip(
    pieces: tuple[bytes, ...], notice: bytes, autojump_clock: MockClock
) -> None:
    """The reply counts, with its own time; the notice is why the next one has none."""
    world = World(sending(*pieces), upper)
    pinger = await world.ping(3)
    assert world.troubles == [None, Trouble.NOTICE, None]
    assert world.shown[0].seconds <= WORDS_SECONDS / 4
    assert world.shown[1].failed is not None
    assert world.shown[1].failed.words == notice
    assert (pinger.answered, pinger.wrong, pinger.unanswered) == (2, 0, 1)
    assert len(world.streams) == 2


@pytest.mark.parametrize(
    "pieces",
    [
        (REPLY[:9] + b"\n" + full_notice(3),),
        (REPLY[:9], b"\n" + full_notice(3)),
        (REPLY[:9] + b"\n", full_notice(3)),
    ],
)
async def test_a_notice_in_the_middle_of_a_reply(
    pieces: tuple[bytes, ...], autojump_clock: MockClock
) -> None:
    """It begins with the first wrong byte, not with the line."""
    world = World(sending(*pieces))
    pinger = await world.ping()
    assert world.troubles == [Trouble.NOTICE]
    assert world.shown[0].failed is not None
    assert world.shown[0].failed.words == b"\n" + full_notice(3)
    assert (pinger.wrong, pinger.unanswered) == (0, 1)


@pytest.mark.parametrize("more", [b"X", b"MORE\n", b"\n", b"trio-up"])
async def test_more_than_the_reply_is_wrong(more: bytes, autojump_clock: MockClock) -> None:
    """Only that is quoted, for the reply itself was right."""
    world = World(sending(REPLY + more))
    pinger = await world.ping()
    failed = world.shown[0].failed
    assert failed is not None
    assert failed.trouble is Trouble.WRONG
    assert (failed.words, failed.owed, failed.position) == (more, b"", len(REPLY) + 1)
    assert (pinger.answered, pinger.wrong) == (0, 1)


@pytest.mark.parametrize(
    ("words", "closes", "received", "seconds"),
    [
        (b"SSH-2.0-x\r\n", False, b"SSH-2.0-x\r\n", 0),
        (b"login: ", False, b"login: ", WORDS_SECONDS),
        (b"login: ", True, b"login: ", 0),
        (b"x" * 2 * WORDS_BYTES, False, b"x" * WORDS_BYTES, 0),
    ],
)
async def test_foreign_words_are_received_to_the_end_of_their_line(
    words: bytes, closes: bool, received: bytes, seconds: float, autojump_clock: MockClock
) -> None:
    """But within a bounded time and a bounded number of bytes."""
    world = World(saying(words, closes=closes))
    await world.ping()
    assert world.troubles == [Trouble.WRONG]
    assert world.shown[0].failed is not None
    assert world.shown[0].failed.words == received
    assert trio.current_time() == pytest.approx(seconds)


async def test_of_many_words_at_once_the_first_are_kept() -> None:
    """A peer that keeps talking is quoted, not stored."""
    world = World(replying(lambda _: b"x" * 2 * WORDS_BYTES))
    await world.ping()
    assert world.shown[0].failed is not None
    assert world.shown[0].failed.words == b"x" * WORDS_BYTES


async def test_what_is_quoted_begins_with_the_line() -> None:
    """Also where the first wrong byte comes late, and in a piece of its own."""
    wrong = make_message(1, 32)[1][:-2] + b"!\n"
    world = World(saying(wrong, closes=False))
    await world.ping()
    assert world.shown[0].failed is not None
    assert world.shown[0].failed.words == wrong


async def test_foreign_words_that_come_late_are_not_cut_off(autojump_clock: MockClock) -> None:
    """The reply timeout is for the reply, not for the words that came instead."""
    world = World(saying(b"login: ", closes=False))
    await world.ping(reply_timeout=WORDS_SECONDS / 2)
    assert world.troubles == [Trouble.WRONG]


async def test_words_before_a_reset_are_words(autojump_clock: MockClock) -> None:
    """A peer that resets after its banner has still said it."""

    class ResetLater(Breaking):
        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            words = await super().receive_some(max_bytes)
            self.receiving = trio.BrokenResourceError("reset")
            return words

    world = World(replying(lambda _: b"login: "))
    world.wrap = ResetLater
    await world.ping()
    assert world.troubles == [Trouble.WRONG]


async def test_what_show_raises_escapes_and_the_connection_is_closed() -> None:
    """A failing output is not a failure of the server."""

    async def full(_: RoundTrip | Overdue) -> None:
        await trio.lowlevel.checkpoint()
        raise OSError("disk full")

    world = World(upper)
    pinger = Pinger(world.connect, PingSettings())
    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="disk full")):
        await pinger.run(full)
    with pytest.raises(trio.ClosedResourceError):
        await world.streams[0].send_all(b"")


async def test_a_peer_that_does_not_close_delays_the_end_a_little(
    autojump_clock: MockClock,
) -> None:
    """Over TLS a close may wait for the peer, but not for long."""

    class Sticky(Breaking):
        async def aclose(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                await super().aclose()

    world = World(upper)
    world.wrap = Sticky
    await world.ping()
    assert trio.current_time() == pytest.approx(CLOSE_SECONDS)


# ------------------------------------------------------------------ a link that fails


def slow(*delays: float) -> Peer:
    """Return a right peer that takes the next of `delays` for each reply, and none after them."""
    left = list(delays)

    async def peer(stream: HalfCloseable) -> None:
        async for message in stream:
            await trio.sleep(left.pop(0) if left else 0)
            await stream.send_all(bytes(message).decode().upper().encode())

    return peer


async def test_a_reply_is_reported_while_it_is_overdue(autojump_clock: MockClock) -> None:
    """At once, and then each time that the wait has doubled; how long it lasted comes with it."""
    world = World(slow(0, 9))
    pinger = await world.ping(3)
    assert world.overdue == pytest.approx([2, 4, 8])
    assert [each.outage for each in world.shown] == pytest.approx([0, 9, 0])
    assert pinger.outages.durations(trio.current_time()) == pytest.approx([9])


async def test_a_reply_in_time_is_not_an_outage(autojump_clock: MockClock) -> None:
    """However short before."""
    world = World(slow(*[OVERDUE_SECONDS - 0.01] * 3))
    pinger = await world.ping(3)
    assert world.overdue == []
    assert pinger.outages.durations(trio.current_time()) == []


async def test_each_outage_is_reported_from_its_beginning(autojump_clock: MockClock) -> None:
    """The intervals grow within one, not from one to the next."""
    world = World(slow(5, 0, 3))
    pinger = await world.ping(4)
    assert world.overdue == pytest.approx([2, 4, 2])
    assert pinger.outages.durations(trio.current_time()) == pytest.approx([5, 3])


async def test_an_outage_lasts_over_several_round_trips(autojump_clock: MockClock) -> None:
    """From the sending of the first message without a reply, however the later ones fail."""
    world = World(deaf, REFUSED, REFUSED, upper)
    pinger = await world.ping(4, reply_timeout=5)
    assert world.troubles == [Trouble.SILENT, Trouble.UNCONNECTED, Trouble.UNCONNECTED, None]
    assert world.overdue == pytest.approx([2, 4])
    assert world.shown[-1].outage == pytest.approx(7)
    assert pinger.outages.durations(trio.current_time()) == pytest.approx([7])


async def test_what_fails_at_once_is_not_reported_as_overdue(autojump_clock: MockClock) -> None:
    """Each has its own line, which says more; it is an outage all the same, which still lasts."""
    world = World(REFUSED)
    pinger = await world.ping(8)
    assert world.overdue == []
    assert pinger.outages.durations(trio.current_time()) == pytest.approx([7])


async def test_silence_after_failures_is_reported_in_total(autojump_clock: MockClock) -> None:
    """Not from its own beginning: for that long there was no reply."""
    world = World(*[REFUSED] * 5, slow(4))
    await world.ping(6)
    assert world.overdue == pytest.approx([7])


async def test_a_wrong_reply_ends_an_outage(autojump_clock: MockClock) -> None:
    """The link is there."""
    world = World(replying(lambda _: b"x\n", after=3), upper)
    pinger = await world.ping(2)
    assert world.shown[0].outage == pytest.approx(3)
    assert pinger.outages.durations(trio.current_time()) == pytest.approx([3])


async def test_an_outage_that_still_lasts_counts(autojump_clock: MockClock) -> None:
    """Ctrl-C during one gives a summary with it; a short wait is not one."""
    world = World(slow(0, 100))
    pinger = Pinger(world.connect, PingSettings())
    with trio.move_on_after(6.5):
        await pinger.run(world.show)
    assert pinger.give_up() is not None
    assert pinger.outages.durations(trio.current_time()) == pytest.approx([5.5])


async def test_after_the_end_no_outage_grows(autojump_clock: MockClock) -> None:
    """A reply that was only just due was not missing."""
    world = World(slow(0, 100))
    pinger = Pinger(world.connect, PingSettings())
    with trio.move_on_after(1.5):
        await pinger.run(world.show)
    assert pinger.give_up() is None
    await trio.sleep(100)
    assert pinger.outages.durations(trio.current_time()) == []


async def test_an_outage_that_began_earlier_still_lasts(autojump_clock: MockClock) -> None:
    """The interrupted round trip does not count, but the failures before it do."""
    world = World(*[REFUSED] * 4, slow(100))
    pinger = Pinger(world.connect, PingSettings())
    with trio.move_on_after(4.5):
        await pinger.run(world.show)
    assert pinger.give_up() is None
    assert pinger.outages.durations(trio.current_time()) == pytest.approx([4.5])


async def test_jitter_is_the_mean_difference(autojump_clock: MockClock) -> None:
    """From one right reply to the next; of fewer than two there is none."""
    pinger = await World(slow(0.1, 0.4, 0.2)).ping(3)
    assert pinger.jitter == pytest.approx((0.3 + 0.2) / 2)
    assert math.isnan((await World(upper).ping()).jitter)


async def test_a_first_connection_that_is_hung_up_is_waited_for(autojump_clock: MockClock) -> None:
    """A proxy whose server is still starting; later, that is a failure."""

    async def hang_up(_: HalfCloseable) -> None:
        await trio.lowlevel.checkpoint()

    async def once(stream: HalfCloseable) -> None:
        message = bytes(await stream.receive_some())
        await stream.send_all(message.decode().upper().encode())

    world = World(hang_up, hang_up, once, upper)
    await world.ping(3, wait=10)
    assert world.troubles == [None, Trouble.BROKEN, None]
    assert world.shown_at[0] == pytest.approx(0.1 + 0.2)


# ------------------------------------------------------------------ the real server


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_the_real_server_answers(secure: bool, nursery: trio.Nursery, tmp_path: Path) -> None:
    """Over a real socket, with messages from the smallest to the largest, with TLS and without."""
    ours = theirs = None
    if secure:
        cert = pair_file(tmp_path, issue("127.0.0.1"))
        theirs = server_context(cert=cert, key=None, client_ca=None)
        ours = client_context(ca=ca_file(tmp_path), insecure=False, cert=None, key=None)
    log = structlog.wrap_logger(CapturingLogger(), processors=[])
    server = Server(ServerSettings(port=0, tls=theirs), log)
    [(host, port)] = await nursery.start(server.run)
    target, settings = Target(host=host, port=port), ConnectSettings(tls=ours)

    async def connect(retries: Retries) -> trio.abc.Stream:
        return (await open_connection(target, settings, retries)).stream

    for size in (SMALLEST_BYTES, 32, LARGEST_AT_ONCE_BYTES):
        world = World()
        pinger = Pinger(connect, PingSettings(count=20, interval=0, size=size))
        with trio.fail_after(TIMEOUT_SECONDS):
            await pinger.run(world.show)
        assert world.troubles == [None] * 20
        assert 0 < pinger.latency.min <= pinger.latency.percentile(50) <= pinger.latency.max
    server.drain()
