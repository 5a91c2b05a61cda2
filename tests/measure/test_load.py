"""Load on in-memory streams in virtual time, and once over real sockets."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest
import structlog
import trio
from structlog.testing import CapturingLogger
from tests.helpers.certificates import ca_file, issue, pair_file
from tests.helpers.commands import REFUSED, HalfCloseable, Network, Peer
from tests.helpers.streams import Breaking
from tests.helpers.waiting import TIMEOUT_SECONDS
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from trio_upper.client.connect import Retries, open_connection
from trio_upper.client.settings import ConnectSettings
from trio_upper.client.target import Target
from trio_upper.measure.exchange import CLOSE_SECONDS, Trouble
from trio_upper.measure.load import (
    CONNECTING_AT_ONCE,
    FEWEST_MESSAGES,
    LATE_SECONDS,
    MESSAGES,
    Load,
)
from trio_upper.measure.settings import LARGEST_AT_ONCE_BYTES, SMALLEST_BYTES, LoadSettings
from trio_upper.protocol import shutdown_notice
from trio_upper.server.server import Server
from trio_upper.server.settings import ServerSettings
from trio_upper.tls import client_context, server_context

REPLY_TIMEOUT = 30.0

# How long a reply takes in virtual time; IN_A_RUN of them fit into the 10 s of most runs here.
DELAY = 0.1
SECONDS = 10.0
IN_A_RUN = 100

# A deadline and a reply may meet in the same instant, and rounding decides which was first.
ROUNDED = 1


class World(Network):
    """Where clients connect to: to one of the peers each in turn."""

    def next_peer(self) -> Peer | Exception:
        return self.peers[(self.attempts - 1) % len(self.peers)]

    async def run(
        self,
        clients: int = 1,
        *,
        seconds: float = SECONDS,
        size: int = 32,
        pipeline: int = 1,
        reply_timeout: float = REPLY_TIMEOUT,
    ) -> Load:
        """Run the load; return it."""
        load = Load(
            self.connect,
            LoadSettings(
                clients=clients,
                seconds=seconds,
                size=size,
                pipeline=pipeline,
                reply_timeout=reply_timeout,
            ),
        )
        await load.run()
        assert self.attempts == clients
        assert load.ready == clients
        return load


async def lines_of(stream: HalfCloseable) -> AsyncGenerator[bytes]:
    unfinished = b""
    async for data in stream:
        *lines, unfinished = (unfinished + data).split(b"\n")
        for line in lines:
            yield line + b"\n"


def upper(delay: float = DELAY) -> Peer:
    """Return a right peer that takes `delay` seconds for what came at once."""

    async def peer(stream: HalfCloseable) -> None:
        async for data in stream:
            await trio.sleep(delay)
            await stream.send_all(bytes(data).upper())

    return peer


def failing(answer: Callable[[bytes], bytes | None], *, after: int) -> Peer:
    """Return a peer that after this many right replies gives `answer`; None: it says no more."""

    async def peer(stream: HalfCloseable) -> None:
        number = 0
        async with aclosing(lines_of(stream)) as lines:
            async for line in lines:
                await trio.sleep(DELAY)
                number += 1
                reply = line.upper() if number <= after else answer(line)
                if reply is None:
                    await trio.sleep_forever()
                elif not reply:
                    return
                else:
                    await stream.send_all(reply)

    return peer


echo = failing(lambda line: line, after=IN_A_RUN // 2)
vanish = failing(lambda _: b"", after=IN_A_RUN // 2)
hang = failing(lambda _: None, after=IN_A_RUN // 2)
stop = failing(lambda _: shutdown_notice(), after=IN_A_RUN // 2)


# ------------------------------------------------------------------ what is measured


@pytest.mark.parametrize("clients", [1, 7])
async def test_what_is_answered_is_counted(clients: int, autojump_clock: MockClock) -> None:
    """Messages, seconds, rate and latency are those of the clients together."""
    load = await World(upper()).run(clients)
    assert load.latency.count == pytest.approx(clients * IN_A_RUN, abs=clients * ROUNDED)
    assert load.seconds == pytest.approx(SECONDS, abs=DELAY)
    assert load.rate == pytest.approx(clients / DELAY, rel=0.02)
    assert load.latency.min == pytest.approx(DELAY)
    assert load.latency.max == pytest.approx(DELAY)
    assert (load.failures, load.wrong) == ([], 0)


@pytest.mark.parametrize("pipeline", [2, 10, 2 * MESSAGES])
async def test_messages_in_flight_are_answered_together(
    pipeline: int, autojump_clock: MockClock
) -> None:
    """As many as asked for are sent before the first reply comes."""
    load = await World(upper()).run(pipeline=pipeline)
    assert load.latency.count == pytest.approx(pipeline * IN_A_RUN, abs=pipeline * ROUNDED)
    assert load.latency.min == pytest.approx(DELAY)
    assert load.latency.max == pytest.approx(DELAY)
    assert not load.failures


async def test_no_more_are_in_flight_than_asked_for(autojump_clock: MockClock) -> None:
    """A reply makes room for one message, which is sent only then."""
    most = 0

    async def one_by_one(stream: HalfCloseable) -> None:
        nonlocal most
        waiting = b""
        while True:
            with trio.move_on_after(DELAY):
                while data := await stream.receive_some():
                    waiting += data
                return
            most = max(most, waiting.count(b"\n"))
            line, newline, waiting = waiting.partition(b"\n")
            await stream.send_all((line + newline).upper())

    load = await World(one_by_one).run(pipeline=3)
    assert most == 3
    assert load.latency.count == pytest.approx(IN_A_RUN, abs=3)
    assert load.latency.max == pytest.approx(3 * DELAY)
    assert not load.failures


@pytest.mark.parametrize("pipeline", [1, 3])
async def test_replies_byte_by_byte_are_right(pipeline: int, autojump_clock: MockClock) -> None:
    """How the network splits the stream does not matter."""

    class OneByOne(Breaking):
        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            return await super().receive_some(1)

    world = World(upper())
    world.wrap = OneByOne
    load = await world.run(pipeline=pipeline)
    assert load.latency.count >= IN_A_RUN - ROUNDED
    assert not load.failures


@pytest.mark.parametrize(
    "size", [SMALLEST_BYTES, LARGEST_AT_ONCE_BYTES, LARGEST_AT_ONCE_BYTES + 1, 2_000_000]
)
async def test_messages_of_any_size_are_answered(size: int, autojump_clock: MockClock) -> None:
    """Also those that must be received while being sent: nothing in between can hold them."""

    async def narrow(stream: HalfCloseable) -> None:
        while data := await stream.receive_some(LARGEST_AT_ONCE_BYTES):
            await trio.sleep(DELAY)
            await stream.send_all(bytes(data).upper())

    world = World(narrow)
    world.pair = lockstep_stream_pair if size > LARGEST_AT_ONCE_BYTES else memory_stream_pair
    load = await world.run(size=size, seconds=2 * SECONDS)
    assert load.latency.count >= 2 * SECONDS // (DELAY * (size / LARGEST_AT_ONCE_BYTES + 2))
    assert not load.failures


@pytest.mark.parametrize(("size", "different"), [(32, MESSAGES), (10**6, FEWEST_MESSAGES)])
def test_the_content_varies(size: int, different: int) -> None:
    """Between messages and between clients, so that a server that confuses them is noticed."""
    load = Load(World(upper()).connect, LoadSettings(size=size))
    assert len(set(load._messages)) == different
    assert all(message.isascii() for message, _ in load._messages)


async def test_replies_to_another_client_are_wrong(autojump_clock: MockClock) -> None:
    """A server that confuses its clients is noticed, for each sends something else."""
    first, second = trio.open_memory_channel[bytes](9), trio.open_memory_channel[bytes](9)

    def confused(
        hears: trio.MemorySendChannel[bytes], says: trio.MemoryReceiveChannel[bytes]
    ) -> Peer:
        async def peer(stream: HalfCloseable) -> None:
            greeting = await stream.receive_some()
            await stream.send_all(bytes(greeting).upper())
            async for message in stream:
                await hears.send(bytes(message).upper())
                await stream.send_all(await says.receive())

        return peer

    load = await World(confused(first[0], second[1]), confused(second[0], first[1])).run(2)
    assert load.wrong == 2


# ------------------------------------------------------------------ start and end


async def test_all_start_together(autojump_clock: MockClock) -> None:
    """When the last one has connected and its greeting was answered; that time does not count."""
    began: list[float] = []

    def late(seconds: float) -> Peer:
        async def peer(stream: HalfCloseable) -> None:
            await trio.sleep(seconds)
            await stream.send_all(bytes(await stream.receive_some()).upper())
            first = await stream.receive_some()
            began.append(trio.current_time())
            await stream.send_all(bytes(first).upper())
            await upper()(stream)

        return peer

    load = await World(late(0), late(3), late(7)).run(3)
    assert began == pytest.approx([7, 7, 7])
    assert trio.current_time() == pytest.approx(7 + SECONDS, abs=2 * DELAY)
    assert load.seconds == pytest.approx(SECONDS, abs=DELAY)
    assert load.latency.max < 1


async def test_they_do_not_connect_all_at_once(autojump_clock: MockClock) -> None:
    """A server's queue of connections is short, and a dropped connection costs a second."""
    now = most = 0

    async def peer(stream: HalfCloseable) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        greeting = await stream.receive_some()
        await trio.sleep(DELAY)
        now -= 1
        await stream.send_all(bytes(greeting).upper())
        await upper()(stream)

    await World(peer).run(3 * CONNECTING_AT_ONCE, seconds=1)
    assert most == CONNECTING_AT_ONCE


@pytest.mark.parametrize("pipeline", [1, 5])
async def test_what_is_owed_at_the_end_is_received_but_not_counted(
    pipeline: int, autojump_clock: MockClock
) -> None:
    """No client leaves while a reply is on its way; a late one is not measured."""
    load = await World(upper(4)).run(pipeline=pipeline)
    assert load.latency.count == 2 * pipeline
    assert load.seconds == SECONDS
    assert trio.current_time() == pytest.approx(16)  # the greeting's 4 s included
    assert not load.failures


@pytest.mark.parametrize("pipeline", [1, 5])
async def test_what_is_owed_at_the_end_is_compared(
    pipeline: int, autojump_clock: MockClock
) -> None:
    """A wrong reply is wrong at any time."""
    answered = 0

    async def peer(stream: HalfCloseable) -> None:
        nonlocal answered
        async for data in stream:
            await trio.sleep(4)
            answered += 1
            await stream.send_all(bytes(data).upper() if answered < 4 else bytes(data))

    load = await World(peer).run(pipeline=pipeline)
    assert load.wrong == 1
    assert load.latency.count == 2 * pipeline


async def test_after_a_cancellation_what_was_measured_stands(autojump_clock: MockClock) -> None:
    """Over the time until then; what was in flight is not a failure."""
    load = Load(World(upper()).connect, LoadSettings(clients=3))
    with trio.move_on_after(DELAY + 2):
        await load.run()
    await trio.sleep(100)
    assert load.seconds == pytest.approx(2)
    assert load.latency.count == pytest.approx(3 * 20, abs=3 * ROUNDED)
    assert not load.failures


async def test_before_the_start_nothing_is_measured(autojump_clock: MockClock) -> None:
    """A run that is cancelled while its clients connect has no time and no rate."""
    load = Load(World(upper(), upper(1e6)).connect, LoadSettings(clients=2, reply_timeout=0))
    with trio.move_on_after(DELAY + 2):
        await load.run()
    assert not load.started
    assert load.ready == 1
    assert (load.seconds, load.rate, load.latency.count) == (0, 0, 0)


# ------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("pipeline", [1, 5])
@pytest.mark.parametrize(
    ("peer", "trouble"),
    [(echo, Trouble.WRONG), (vanish, Trouble.CLOSED), (stop, Trouble.NOTICE)],
    ids=["wrong", "closed", "notice"],
)
async def test_a_client_that_fails_stops_and_the_others_go_on(
    peer: Peer, trouble: Trouble, pipeline: int, autojump_clock: MockClock
) -> None:
    """Its failure counts once, and what was answered until then counts."""
    load = await World(peer, upper()).run(2, pipeline=pipeline)
    assert [failed.trouble for failed in load.failures] == [trouble]
    assert load.wrong == (trouble is Trouble.WRONG)
    right = IN_A_RUN // 2 - 1 + pipeline * IN_A_RUN
    assert load.latency.count == pytest.approx(right, abs=2 * pipeline)
    assert load.seconds == pytest.approx(SECONDS, abs=DELAY)


@pytest.mark.parametrize("pipeline", [1, 5])
async def test_when_the_server_vanishes_the_run_is_over(
    pipeline: int, autojump_clock: MockClock
) -> None:
    """At once, with what was measured until then."""
    load = await World(vanish).run(4, pipeline=pipeline)
    assert [failed.trouble for failed in load.failures] == [Trouble.CLOSED] * 4
    assert load.latency.count == 4 * (IN_A_RUN // 2 - 1)
    assert load.seconds == pytest.approx(SECONDS / 2)


@pytest.mark.parametrize("pipeline", [1, 5])
async def test_a_server_that_falls_silent_is_given_up(
    pipeline: int, autojump_clock: MockClock
) -> None:
    """After the reply timeout, or slightly later."""
    load = await World(hang).run(4, pipeline=pipeline)
    assert [failed.trouble for failed in load.failures] == [Trouble.SILENT] * 4
    silent = trio.current_time() - SECONDS / 2
    assert REPLY_TIMEOUT <= silent <= REPLY_TIMEOUT + LATE_SECONDS + DELAY
    assert load.seconds == SECONDS


@pytest.mark.parametrize("pipeline", [1, 5])
async def test_a_slow_server_is_not_silent(pipeline: int, autojump_clock: MockClock) -> None:
    """Each reply restarts the timeout; and 0 means no limit."""
    load = await World(upper(2)).run(pipeline=pipeline, seconds=60, reply_timeout=2.1)
    assert not load.failures
    load = await World(upper(1e6)).run(pipeline=pipeline, seconds=3e6, reply_timeout=0)
    assert not load.failures
    assert load.latency.count > 0


@pytest.mark.parametrize("pipeline", [1, 5])
@pytest.mark.parametrize("way", ["sending", "receiving"])
async def test_a_connection_that_breaks_is_reported_with_its_error(
    way: str, pipeline: int, autojump_clock: MockClock
) -> None:
    """Whichever direction breaks, and though the other one may only end."""
    error = trio.BrokenResourceError("reset")
    streams: list[Breaking] = []

    def breaking(stream: HalfCloseable) -> trio.abc.Stream:
        streams.append(Breaking(stream))
        return streams[-1]

    async def reset(stream: HalfCloseable) -> None:
        await stream.send_all(bytes(await stream.receive_some()).upper())
        setattr(streams[0], way, error)
        with trio.move_on_after(DELAY):
            await stream.receive_some()

    world = World(reset)
    world.wrap = breaking
    load = await world.run(pipeline=pipeline)
    assert [(failed.trouble, failed.error) for failed in load.failures] == [(Trouble.BROKEN, error)]


@pytest.mark.parametrize("pipeline", [1, 5])
@pytest.mark.parametrize(
    "answer",
    [
        lambda line: line.upper()[:-2] + b".\n",
        lambda line: line.upper() * (1 + 5),
        lambda line: line.upper()[1:],
    ],
    ids=["one byte differs", "too much", "one byte missing"],
)
async def test_every_byte_is_compared(
    answer: Callable[[bytes], bytes], pipeline: int, autojump_clock: MockClock
) -> None:
    """Whether there are too many, too few, or others."""
    load = await World(failing(answer, after=3)).run(pipeline=pipeline)
    assert load.wrong == 1
    assert load.latency.count <= 3


async def test_a_byte_that_is_not_owed_is_wrong(autojump_clock: MockClock) -> None:
    """After the last reply nothing more may come."""

    async def peer(stream: HalfCloseable) -> None:
        await stream.send_all(bytes(await stream.receive_some()).upper())
        await stream.send_all(bytes(await stream.receive_some()).upper() + b"X\n")

    load = await World(peer).run(pipeline=5)
    assert [failed.words for failed in load.failures] == [b"X\n"]
    assert load.wrong == 1
    assert load.latency.count == 5


@pytest.mark.parametrize("pipeline", [1, 5])
@pytest.mark.parametrize(
    ("delays", "troubles", "replies"),
    [
        ([0], [Trouble.NOTICE], 0),
        ([0, 1], [Trouble.NOTICE], 1),
        ([0, 1, SECONDS], [], 1),
    ],
    ids=["greeting", "in the run", "after it"],
)
async def test_a_notice_behind_the_last_reply(
    delays: list[float],
    troubles: list[Trouble],
    replies: int,
    pipeline: int,
    autojump_clock: MockClock,
) -> None:
    """The reply counts; the notice ends what was still to be sent, if anything was."""

    async def peer(stream: HalfCloseable) -> None:
        for number, delay in enumerate(delays, 1):
            data = bytes(await stream.receive_some())
            await trio.sleep(delay)
            notice = shutdown_notice() if number == len(delays) else b""
            await stream.send_all(data.upper() + notice)

    load = await World(peer).run(pipeline=pipeline)
    assert [failed.trouble for failed in load.failures] == troubles
    assert [failed.words for failed in load.failures] == [shutdown_notice()] * len(troubles)
    assert load.latency.count == replies * pipeline


@pytest.mark.parametrize("pipeline", [1, 5])
async def test_what_is_quoted_begins_with_the_line(
    pipeline: int, autojump_clock: MockClock
) -> None:
    """Also where the first wrong byte comes late, and in a piece of its own."""
    said = b""

    async def peer(stream: HalfCloseable) -> None:
        nonlocal said
        await stream.send_all(bytes(await stream.receive_some()).upper())
        first = bytes(await stream.receive_some()).partition(b"\n")[0]
        said = first.upper() + b"!\n"
        await stream.send_all(said[:-2])
        await trio.sleep(DELAY)
        await stream.send_all(said[-2:])

    load = await World(peer).run(pipeline=pipeline)
    assert [failed.words for failed in load.failures] == [said]


async def test_replies_may_come_before_sending_returns(autojump_clock: MockClock) -> None:
    """A sender that is still sending does not wait for replies that have already come."""

    class Slow(Breaking):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await super().send_all(data)
            await trio.sleep(2 * DELAY)

    world = World(upper())
    world.wrap = Slow
    load = await world.run(pipeline=5)
    assert load.latency.count == pytest.approx(5 * IN_A_RUN / 2, abs=5 * ROUNDED)
    assert not load.failures


async def test_the_last_of_many_replies_is_waited_for(autojump_clock: MockClock) -> None:
    """After the time is up they may still come one by one, and be wrong."""

    async def peer(stream: HalfCloseable) -> None:
        number = 0
        async with aclosing(lines_of(stream)) as lines:
            async for line in lines:
                await trio.sleep(4)
                number += 1
                await stream.send_all(line.upper() if number < 6 else line)

    load = await World(peer).run(pipeline=3)
    assert trio.current_time() == pytest.approx(6 * 4)
    assert load.wrong == 1
    assert load.latency.count == 2


async def test_connections_are_closed(autojump_clock: MockClock) -> None:
    """A peer sees the end of its client; one that does not close delays ours only a little."""
    ended = 0

    async def peer(stream: HalfCloseable) -> None:
        nonlocal ended
        await upper()(stream)
        ended += 1

    class Sticky(Breaking):
        async def aclose(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                await super().aclose()

    world = World(peer)
    world.wrap = Sticky
    await world.run(3)
    await wait_all_tasks_blocked()
    assert ended == 3
    assert trio.current_time() == pytest.approx(DELAY + SECONDS + CLOSE_SECONDS, abs=2 * DELAY)


async def test_a_client_that_cannot_connect_delays_no_other(autojump_clock: MockClock) -> None:
    """The others start without it, and it is one of the failures."""
    load = await World(upper(), REFUSED, REFUSED).run(3)
    assert [failed.trouble for failed in load.failures] == [Trouble.UNCONNECTED] * 2
    assert load.failures[0].error is REFUSED
    assert load.latency.count == pytest.approx(IN_A_RUN, abs=ROUNDED)


async def test_when_no_client_can_connect_the_run_is_over(autojump_clock: MockClock) -> None:
    """There was no start, and nothing was measured."""
    load = await World(REFUSED).run(3)
    assert len(load.failures) == 3
    assert not load.started
    assert (trio.current_time(), load.seconds, load.rate) == (0, 0, 0)


# ------------------------------------------------------------------ the real server


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_the_real_server_answers(secure: bool, nursery: trio.Nursery, tmp_path: Path) -> None:
    """Over real sockets, in each of the ways to send, with TLS and without."""
    ours = theirs = None
    if secure:
        cert = pair_file(tmp_path, issue("127.0.0.1"))
        theirs = server_context(cert=cert, key=None, client_ca=None)
        ours = client_context(ca=ca_file(tmp_path), insecure=False, cert=None, key=None)
    log = structlog.wrap_logger(CapturingLogger(), processors=[])
    server = Server(ServerSettings(port=0, tls=theirs), log)
    [(host, port)] = await nursery.start(server.run)
    target, how = Target(host=host, port=port), ConnectSettings(tls=ours)

    async def connect(retries: Retries) -> trio.abc.Stream:
        return (await open_connection(target, how, retries)).stream

    for pipeline, size in (
        (1, 32),
        (100, 32),
        (4, LARGEST_AT_ONCE_BYTES),
        (1, 4 * LARGEST_AT_ONCE_BYTES),
    ):
        seconds, answered = 0.25, 0
        with trio.fail_after(TIMEOUT_SECONDS):
            while not answered:  # a slow machine may have no reply in that time
                seconds *= 2
                settings = LoadSettings(clients=5, seconds=seconds, pipeline=pipeline, size=size)
                load = Load(connect, settings)
                await load.run()
                assert not load.failures
                assert load.seconds == pytest.approx(seconds)
                answered = load.latency.count
    server.drain()
