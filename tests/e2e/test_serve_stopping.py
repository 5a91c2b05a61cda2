"""How a server stops: cleanly, within its grace, or at once, and what its clients see."""

import signal
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from tests.helpers.program import Server, one, serving
from tests.helpers.streams import ask, receive, receive_all, upper
from tests.helpers.waiting import TIMEOUT_SECONDS

NOTICE = b"trio-upper: closing, the server is shutting down\n"

STOPPING = [signal.SIGTERM, signal.SIGINT]

LONG_GRACE = ("--grace", "60")

# The buffers are full when nothing was taken from a client for this long, in seconds.
STUCK = 0.5

# A client that talks pauses for this long, in seconds, after each of so many messages. A pause that
# took LONG_PAUSE is nearly the quiet that ends a client; there are so many tries without one.
PAUSE = 0.03
MESSAGES = 20
LONG_PAUSE = 0.09
TALKS = 5

PIECE = b"the quick brown fox jumps over the lazy dog 0123456789 \n" * 1000


async def never_read(server: Server, stuck: trio.Event) -> None:
    """Send until cut, and read nothing; set `stuck` once the server can send no more."""
    async with await server.connect() as stream:
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012 - which of them is the last?
            while True:
                with trio.move_on_after(STUCK) as sending:
                    await stream.send_all(PIECE)
                if sending.cancelled_caught:
                    stuck.set()


@asynccontextmanager
async def a_stuck_client(server: Server) -> AsyncGenerator[None]:
    """Have a client that does not read, while the block runs or until it is cut."""
    async with trio.open_nursery() as nursery:
        stuck = trio.Event()
        nursery.start_soon(never_read, server, stuck)
        await stuck.wait()
        yield


@pytest.mark.parametrize("number", STOPPING)
async def test_idle_clients_get_a_notice_and_an_end(number: signal.Signals) -> None:
    """All fifty of them, on a line of its own; then the exit code is 0, soon."""
    count = 50
    async with serving(*LONG_GRACE) as server, AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(await server.connect()) for _ in range(count)]
        for turn, stream in enumerate(streams):
            words = b"words\n"[: turn % 7]  # none, some without a newline, some with
            assert await ask(stream, words) == words.upper()
        server.send(number)
        with trio.fail_after(TIMEOUT_SECONDS):
            for turn, stream in enumerate(streams):
                newline = b"\n" if 0 < turn % 7 < 6 else b""
                assert await receive_all(stream) == newline + NOTICE
                if turn % 2:  # the others do not close: it is not waited for them for ever
                    await stream.aclose()
            assert await server.ended() == 0
        assert one(server.logged("stopping"))["signal"] == number.name
        assert len(server.logged("client gone", end="shutdown")) == count
        assert one(server.logged("stopped"))["cut"] == 0


async def test_nobody_there_means_that_it_ends_at_once() -> None:
    """It does not wait for the grace."""
    async with serving(*LONG_GRACE) as server:
        with trio.fail_after(TIMEOUT_SECONDS):
            assert await server.stop() == 0
        assert [event["event"] for event in server.events] == ["listening", "stopping", "stopped"]


@pytest.mark.parametrize("number", STOPPING)
async def test_messages_in_flight_are_answered(number: signal.Signals) -> None:
    """What was sent before the signal gets its answer before the notice, to the last byte."""
    count = 20
    async with serving(*LONG_GRACE) as server, AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(await server.connect()) for _ in range(count)]
        for stream in streams:
            assert await ask(stream, b"hi\n") == b"HI\n"
        messages = [f"message {turn}: straße\n".encode() * 100 * turn for turn in range(count)]
        for stream, message in zip(streams, messages, strict=True):
            await stream.send_all(message)
        server.send(number)
        for stream, message in zip(streams, messages, strict=True):
            assert await receive_all(stream) == upper(message) + NOTICE
            await stream.aclose()
        assert await server.ended() == 0


async def test_a_client_that_talks_is_not_interrupted() -> None:
    """It is answered as long as it talks, much longer than the silence that would end it.

    Meanwhile nobody else can connect: the listeners were closed at once.
    """
    longer = 1.0  # seconds, of which a tenth would do
    size = 400
    async with serving(*LONG_GRACE) as server, await server.connect() as stream:

        async def send() -> None:
            for _ in range(size):
                await stream.send_all(PIECE)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            assert await receive(stream, len(PIECE)) == PIECE.upper()
            server.send(signal.SIGTERM)
            await server.event("stopping")
            await trio.sleep(longer)
            with pytest.raises(OSError, match="refused"):
                await server.connect()
            assert not server.logged("client gone")
            rest = await receive_all(stream)
        assert rest == PIECE.upper() * (size - 1) + NOTICE
        await stream.aclose()
        assert await server.ended() == 0


async def test_a_client_that_pauses_for_a_moment_is_not_interrupted() -> None:
    """Messages that follow each other within a tenth of a second are talk, and are answered.

    A machine so busy that a pause got longer than that says nothing about the server; then once
    more.
    """
    for _ in range(TALKS):
        longest = await talk_on_while_it_stops()
        if longest < LONG_PAUSE:
            return
    pytest.skip(f"this machine is too busy: a pause took {longest:.3f} s")


async def talk_on_while_it_stops() -> float:
    """Return the longest time between two messages; if it is short, all of them were answered."""
    async with serving(*LONG_GRACE) as server, await server.connect() as stream:
        assert await ask(stream, b"hi\n") == b"HI\n"
        server.send(signal.SIGTERM)
        longest, said = 0.0, trio.current_time()
        for _ in range(MESSAGES):
            await trio.sleep(PAUSE)
            longest = max(longest, trio.current_time() - said)
            said = trio.current_time()
            answer = await ask(stream, b"and another thing\n")
            if answer != b"AND ANOTHER THING\n":
                assert longest >= LONG_PAUSE, answer
                return longest
        assert await receive_all(stream) == NOTICE
        await stream.aclose()
        assert await server.ended() == 0
        return longest


async def test_a_stuck_client_is_cut_when_the_grace_is_over() -> None:
    """It did not get its replies, so the exit code is 1; the others got their notice."""
    async with serving("--grace", "0.5") as server, a_stuck_client(server):
        async with await server.connect() as idle:
            assert await ask(idle, b"hi\n") == b"HI\n"
            server.send(signal.SIGTERM)
            assert await receive_all(idle) == NOTICE
        with trio.fail_after(TIMEOUT_SECONDS):
            assert await server.ended() == 1
        assert one(server.logged("stopped"))["cut"] == 1
        assert {event["end"] for event in server.logged("client gone")} == {"shutdown"}


@pytest.mark.parametrize("numbers", [STOPPING, STOPPING[:1] * 2])
async def test_a_second_signal_cuts_at_once(numbers: list[signal.Signals]) -> None:
    """Whatever the grace; the exit code is 1."""
    async with serving(*LONG_GRACE) as server, a_stuck_client(server):
        server.send(numbers[0])
        await server.event("stopping", signal=numbers[0].name)
        assert not server.logged("client gone")
        with trio.fail_after(TIMEOUT_SECONDS):
            assert await server.stop(numbers[1]) == 1
        assert one(server.logged("stopping at once", signal=numbers[1].name))
        assert one(server.logged("stopped"))["cut"] == 1


async def test_no_grace_cuts_who_has_not_got_its_notice() -> None:
    """With ``--grace 0`` the server waits for nobody."""
    async with serving("--grace", "0") as server, a_stuck_client(server):
        with trio.fail_after(TIMEOUT_SECONDS):
            assert await server.stop() == 1
