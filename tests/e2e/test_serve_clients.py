"""What a server does for its clients, and what rude ones cannot do to the others."""

import random
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import TypeVar

import pytest
import trio
from tests.helpers.program import Ended, Server, client, neighbour, reset, run, serving
from tests.helpers.streams import ask, receive, receive_all, upper
from tests.helpers.waiting import eventually

KIB = 1024
MIB = 1024 * KIB

# What a client sends that is cut in the middle of anything.
BULK = b"the quick brown fox jumps over the lazy dog 0123456789\n" * 1200

# More than all buffers between a client that does not read and the server hold, in bytes.
MORE_THAN_BUFFERS = 8 * MIB

# A receive buffer that is small, in bytes, so that the window opens in small steps.
SMALL_BUFFER = 4 * KIB

# The write timeout under test, in seconds, and how long the slow clients are slow. It is far longer
# than `DRIP_INTERVAL`, so that a busy machine does not turn a slow client into a stopped one.
WRITE_TIMEOUT = 3.0
SLOW = 1.5 * WRITE_TIMEOUT

# A slow client takes or gives a little this often: seconds, bytes.
DRIP_INTERVAL = 0.1
DRIP = 512

Text = TypeVar("Text", str, bytes)
Rudeness = Callable[[trio.SocketStream, random.Random], Awaitable[None]]


def every_code_point() -> str:
    """Return the whole of Unicode; surrogates are no characters (RFC 3629, section 3)."""
    return "".join(map(chr, [*range(0xD800), *range(0xE000, sys.maxunicode + 1)]))


def in_pieces(data: Text, longest: int, dice: random.Random) -> Iterator[Text]:
    """Cut `data` into pieces of 1 to `longest` bytes or characters."""
    begin = 0
    while begin < len(data):
        end = begin + dice.randint(1, longest)
        yield data[begin:end]
        begin = end


async def send_pieces(stream: trio.SocketStream, pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        await stream.send_all(piece)
    await stream.send_eof()


@pytest.mark.parametrize("seed", [1, 2])
async def test_the_whole_of_unicode_and_broken_bytes_in_any_pieces(seed: int) -> None:
    """The answer to it is the upper case of the whole, with what is not UTF-8 in place."""
    dice = random.Random(seed)
    text = [piece.encode() for piece in in_pieces(every_code_point(), 10_000, dice)]
    broken = [dice.randbytes(dice.randint(1, 8)) for _ in range(500)]
    whole = b"".join(dice.sample(text + broken, len(text + broken))) + b"cut short \xf0\x9f\x98"
    async with (
        serving() as server,
        await server.connect() as stream,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(send_pieces, stream, in_pieces(whole, 64 * KIB, dice))
        assert await receive_all(stream) == upper(whole)


async def test_a_message_byte_by_byte_is_answered_character_by_character() -> None:
    """What is whole is answered before the next byte is sent, without any newline."""
    async with serving() as server, await server.connect() as stream:
        for character in "ß ŉ ﬃ ǰ ΐ İ ǅ 😀 𐐨\n":
            *begin, last = [bytes([byte]) for byte in character.encode()]
            for byte in begin:
                await stream.send_all(byte)
            assert await ask_bytes(stream, last, character.upper().encode())
        for byte in (b"\xff", b"\xc0", b"x"):
            assert await ask(stream, byte) == upper(byte)


async def ask_bytes(stream: trio.SocketStream, message: bytes, answer: bytes) -> bool:
    await stream.send_all(message)
    return await receive(stream, len(answer)) == answer


async def test_after_a_half_close_all_that_came_is_answered() -> None:
    """The client ends its side; it gets what it is owed, cut characters as they are, and an end."""
    async with serving() as server, await server.connect() as stream:
        await stream.send_all(BULK + b"the end \xe2\x82")
        await stream.send_eof()
        assert await receive_all(stream) == BULK.upper() + b"THE END \xe2\x82"
        gone = await server.event("client gone")
        assert (gone["end"], gone["received"], gone["sent"]) == (
            "eof",
            len(BULK) + 10,
            len(BULK) + 10,
        )


async def test_our_own_client_is_answered() -> None:
    """What a pipe sends comes back in upper case, and the client knows that it is all."""
    async with serving() as server:
        ended = await client("localhost", str(server.port), stdin="hello\nStraße\n".encode())
        assert ended == Ended(0, b"HELLO\nSTRASSE\n", b"")


async def test_the_locale_does_not_matter() -> None:
    """Text is UTF-8 on both sides, also where the locale has ASCII and Python is to keep to it."""
    ascii_alone = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    async with serving(environment=ascii_alone) as server:
        words = ("client", "localhost", str(server.port), "-m", "Straße ä")
        assert await run(*words, environment=ascii_alone) == Ended(0, "STRASSE Ä\n".encode(), b"")


async def test_each_of_200_clients_at_once_is_answered_right() -> None:
    """All are connected before the first one speaks, and each has its own words."""
    count = 200
    async with serving() as server:
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            streams = [
                await stack.enter_async_context(await server.connect()) for _ in range(count)
            ]
            for number, stream in enumerate(streams):
                nursery.start_soon(talk, stream, number)
        await server.repeated("client gone", count, end="eof")


async def talk(stream: trio.SocketStream, number: int) -> None:
    for turn in range(3):
        words = f"client {number}, turn {turn}: straße {'ŉ' * number}\n".encode()
        assert await ask(stream, words) == upper(words)
    await stream.send_eof()
    assert await receive_all(stream) == b""


async def leaves(stream: trio.SocketStream, dice: random.Random) -> None:
    pass


async def leaves_in_the_middle(stream: trio.SocketStream, dice: random.Random) -> None:
    await stream.send_all("half a mess, ß".encode()[: -dice.randint(1, 9)])


async def sends_garbage(stream: trio.SocketStream, dice: random.Random) -> None:
    garbage = dice.randbytes(2000)
    await stream.send_all(garbage)
    await stream.receive_some()


async def sends_a_tls_hello(stream: trio.SocketStream, dice: random.Random) -> None:
    hello = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    await stream.send_all(hello.read())
    await stream.receive_some()


async def sends_much_and_resets(stream: trio.SocketStream, dice: random.Random) -> None:
    await stream.send_all(dice.randbytes(200 * KIB))
    reset(stream)


RUDE: list[Rudeness] = [
    leaves,
    leaves_in_the_middle,
    sends_garbage,
    sends_a_tls_hello,
    sends_much_and_resets,
]


async def test_rude_clients_disturb_nobody_and_leave_nothing_behind() -> None:
    """A neighbour is answered throughout; afterwards no descriptor, task or traceback is left."""
    count = 400
    at_once = trio.CapacityLimiter(40)
    dice = random.Random(3)

    async def be_rude(rudeness: Rudeness) -> None:
        async with at_once, await server.connect() as stream:
            await rudeness(stream, dice)

    async with serving() as server, neighbour(await server.connect()):
        await server.event("client connected")
        before = server.descriptors()
        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(be_rude, RUDE[number % len(RUDE)])
        await server.repeated("client gone", count)
        await eventually(lambda: server.descriptors() == before)
        assert {event["end"] for event in server.logged("client gone")} == {"eof", "reset"}


async def never_read(server: Server) -> None:
    async with await server.connect(receive_buffer=SMALL_BUFFER) as stream:
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012 - which of them is the last?
            while True:
                await stream.send_all(BULK)


async def read_slowly(server: Server) -> None:
    """Send more than is read for a long time: the server waits for this client all the while."""
    async with await server.connect(receive_buffer=SMALL_BUFFER) as stream:
        sending = BULK * (MORE_THAN_BUFFERS // len(BULK))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_pieces, stream, iter([sending]))
            received = b""
            begin = trio.current_time()
            while trio.current_time() < begin + SLOW:
                received += await receive(stream, DRIP)
                await trio.sleep(DRIP_INTERVAL)
            assert nursery.child_tasks, "all was sent: it was not the server that waited"
            assert received + await receive_all(stream) == sending.upper()


async def write_slowly(server: Server) -> None:
    async with await server.connect() as stream:
        begin = trio.current_time()
        while trio.current_time() < begin + SLOW:
            assert await ask(stream, b"drip") == b"DRIP"
            await trio.sleep(DRIP_INTERVAL)
        await stream.send_eof()
        assert await receive_all(stream) == b""


async def test_who_never_reads_is_cut_and_who_is_slow_is_not() -> None:
    """The write time-out is for those who take nothing; any progress, however slow, resets it."""
    never, slow = 8, 4
    async with (
        serving("--write-timeout", str(WRITE_TIMEOUT)) as server,
        neighbour(await server.connect()),
    ):
        await server.event("client connected")
        before = server.memory()
        async with trio.open_nursery() as nursery:
            for task, count in ((never_read, never), (read_slowly, slow), (write_slowly, slow)):
                for _ in range(count):
                    nursery.start_soon(task, server)
            await server.repeated("client gone", never, end="stalled")
            assert server.memory() - before < (never + slow) * 2 * MIB
        await server.repeated("client gone", 2 * slow, end="eof")
        stalled = server.logged("client gone", end="stalled")
        assert len(stalled) == never
        assert all(event["seconds"] > WRITE_TIMEOUT for event in stalled)


async def test_an_endless_message_takes_no_memory() -> None:
    """A message without a newline is answered while it comes, however long it gets."""
    warm, size = 16 * MIB, 64 * MIB
    async with (
        serving() as server,
        await server.connect() as stream,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(send_pieces, stream, iter([b"a" * MIB] * (size // MIB)))
        assert await receive(stream, warm) == b"A" * warm
        before = server.memory()
        received = warm
        async for data in stream:
            assert not data.strip(b"A")
            received += len(data)
        assert received == size
        assert server.memory() - before < 4 * MIB


async def test_a_quiet_client_gets_a_notice_and_an_end() -> None:
    """It stands on a line of its own; who says something in time, however little, stays."""
    async with serving("--idle-timeout", "2") as server:
        async with await server.connect() as talking, trio.open_nursery() as nursery:
            nursery.start_soon(be_quiet, server, b"no newline", b"NO NEWLINE\n")
            nursery.start_soon(be_quiet, server, b"a line\n", b"A LINE\n")
            nursery.start_soon(be_quiet, server, b"", b"")
            while len(server.logged("client gone")) < 3:
                assert await ask(talking, b"x") == b"X"
                await trio.sleep(DRIP_INTERVAL)
        assert {event["end"] for event in server.logged("client gone")[:3]} == {"idle"}


async def be_quiet(server: Server, words: bytes, answer: bytes) -> None:
    async with await server.connect() as stream:
        await stream.send_all(words)
        notice = b"trio-upper: closing, no message for 2 s\n"
        assert await receive_all(stream) == answer + notice
