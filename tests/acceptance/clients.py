"""Clients that behave in many ways, each of which knows what it is owed, and their neighbour."""

import random
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import trio
from benchmarks.generator import Ring

from tests.acceptance.gate import Broken, expect
from tests.helpers.program import NEIGHBOUR_REST_SECONDS, NEIGHBOUR_SECONDS, Server, reset
from tests.helpers.streams import ask, receive, receive_all, upper
from tests.helpers.waiting import TIMEOUT_SECONDS

# More than one read of the server's.
GARBAGE_BYTES = 2000
BULK_BYTES = 200 * 1024

LONGEST_STALL_SECONDS = 2.0

# Between two looks at whether this process is late itself.
LOOK_SECONDS = 0.1

Manner = Callable[[trio.SocketStream, random.Random], Awaitable[None]]


@contextmanager
def in_time(what: str, seconds: float = TIMEOUT_SECONDS) -> Iterator[None]:
    """Raise `Broken` if the block takes longer; `what` says what did not happen."""
    with trio.move_on_after(seconds) as limit:
        yield
    if limit.cancelled_caught:
        raise Broken(f"{what} within {seconds:g} s")


async def speak(stream: trio.abc.Stream, words: bytes, *, within: float = TIMEOUT_SECONDS) -> None:
    """Send `words` and expect the right reply within so many seconds."""
    with in_time(f"{words[:50]!r} was not answered", within):
        answer = await ask(stream, words)
    expect(answer == upper(words), f"{words[:50]!r} was answered {answer[:50]!r}")


async def take_leave(stream: trio.SocketStream) -> None:
    """Half-close with nothing owed, and expect the server to end its side."""
    await stream.send_eof()
    with in_time("a half-close was not answered by one"):
        more = await receive_all(stream)
    expect(not more, f"after everything was answered there came {more[:50]!r}")


async def leaves(_stream: trio.SocketStream, _dice: random.Random) -> None:
    """Connect and close."""
    await trio.lowlevel.checkpoint()


async def leaves_in_the_middle(stream: trio.SocketStream, dice: random.Random) -> None:
    """Send half a message that ends inside a character, and close."""
    await stream.send_all("half a mess, ß".encode()[: -dice.randint(1, 9)])


async def sends_garbage(stream: trio.SocketStream, dice: random.Random) -> None:
    """Send random bytes, and close with the answer unread: a reset."""
    await stream.send_all(dice.randbytes(GARBAGE_BYTES))


async def sends_a_tls_hello(stream: trio.SocketStream, _dice: random.Random) -> None:
    """Mistake the server for one that speaks TLS; read some of its reply, and close."""
    await stream.send_all(TLS_HELLO)
    await stream.receive_some()


async def sends_much_and_resets(stream: trio.SocketStream, dice: random.Random) -> None:
    """Reset the connection amid bulk, once all is sent or the server takes no more."""
    with trio.move_on_after(dice.uniform(0, LONGEST_STALL_SECONDS)):
        await stream.send_all(dice.randbytes(BULK_BYTES))
    reset(stream)


async def resets(stream: trio.SocketStream, _dice: random.Random) -> None:
    """Reset the connection without having sent anything."""
    await trio.lowlevel.checkpoint()
    reset(stream)


async def sends_urgent_data(stream: trio.SocketStream, _dice: random.Random) -> None:
    """Exchange a line that has an urgent byte in it (MSG_OOB, send(2)), and half-close."""
    await stream.send_all(b"one ")
    await stream.socket.send(b"!", socket.MSG_OOB)
    await stream.send_all(b" two\n")
    with in_time("a line with an urgent byte was not answered in full"):
        answer = await receive(stream, len(b"ONE ! TWO\n"))
    expect(answer == b"ONE ! TWO\n", f"a line with an urgent byte was answered {answer!r}")
    await take_leave(stream)


async def is_polite(stream: trio.SocketStream, dice: random.Random) -> None:
    """Exchange a message, and half-close."""
    await speak(stream, f"{dice.random()}: straße\n".encode())
    await take_leave(stream)


MANNERS: tuple[Manner, ...] = (
    leaves,
    leaves_in_the_middle,
    resets,
    sends_garbage,
    sends_a_tls_hello,
    sends_much_and_resets,
    sends_urgent_data,
    is_polite,
)


def make_tls_hello() -> bytes:
    """Return the first message of a TLS client."""
    hello = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls = context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return hello.read()
    raise AssertionError("a handshake without a peer")


TLS_HELLO = make_tls_hello()


async def stalls_in_the_handshake(stream: trio.SocketStream, dice: random.Random) -> None:
    """Send nothing, or the start of a handshake; wait, then close."""
    await stream.send_all(TLS_HELLO[: dice.randrange(len(TLS_HELLO))])
    await trio.sleep(dice.uniform(0, LONGEST_STALL_SECONDS))


async def is_polite_over_tls(stream: trio.SocketStream, dice: random.Random) -> None:
    """Complete the handshake, exchange a message, and end TLS properly."""
    tls = trio.SSLStream(stream, insecure_tls(), https_compatible=False)
    with in_time("a TLS handshake was not finished"):
        await tls.do_handshake()
    await speak(tls, f"{dice.random()}: straße\n".encode())
    with in_time("a TLS connection was not ended"):
        await tls.aclose()


def insecure_tls() -> ssl.SSLContext:
    """Return the context of a client that trusts every server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@dataclass(slots=True)
class Answers:
    """What a neighbour received: how many replies, and how long the slowest took, in seconds."""

    count: int = 0
    slowest: float = 0.0
    #: When the question that is not answered yet was asked; None if there is none.
    asked: float | None = None
    #: By how many seconds this process itself was late at most, since the last question.
    late: float = 0.0

    def __str__(self) -> str:
        return f"a neighbour had {self.count} answers, the slowest after {self.slowest:.2f} s"

    def expect_in_time(self) -> None:
        """Raise `Broken` if the question asked last has had to wait for its answer."""
        if self.asked is not None:
            waited = trio.current_time() - self.asked
            self.slowest = max(self.slowest, waited)
            expect(
                waited <= NEIGHBOUR_SECONDS,
                f"the neighbour's question {self.count} waited for {waited:.1f} s, not "
                f"{NEIGHBOUR_SECONDS:g}; this process was late itself by {self.late:.1f} s at most",
            )


@asynccontextmanager
async def neighbour(server: Server) -> AsyncGenerator[Answers]:
    """While the block runs, send one message after another; each reply is right, and in time."""
    answers = Answers()
    async with await server.connect() as stream, trio.open_nursery() as nursery:
        await speak(stream, b"may I?")
        nursery.start_soon(_ask_on, stream, answers)
        nursery.start_soon(_observe_lateness, answers)
        yield answers
        nursery.cancel_scope.cancel()
    answers.expect_in_time()
    expect(answers.count, "the neighbour was not answered once")


async def _ask_on(stream: trio.SocketStream, answers: Answers) -> None:
    """Ask one question after another; one that waits is given time, which tells late from never."""
    while True:
        answers.asked, answers.late = trio.current_time(), 0.0
        await speak(stream, b"Question %d" % answers.count)
        answers.expect_in_time()
        answers.asked = None
        answers.count += 1
        await trio.sleep(NEIGHBOUR_REST_SECONDS)


async def _observe_lateness(answers: Answers) -> None:
    while True:
        due = trio.current_time() + LOOK_SECONDS
        await trio.sleep_until(due)
        answers.late = max(answers.late, trio.current_time() - due)


def peer_name(stream: trio.SocketStream) -> str:
    """Return how the server's log names the client at this end."""
    host, port = stream.socket.getsockname()[:2]
    return f"{host}:{port}"


def dice_of(seed: int) -> random.Random:
    """Return a random generator that is the same in every run."""
    return random.Random(seed)


class Reply:
    """The reply to a piece of text that is sent over and over."""

    def __init__(self, piece: bytes) -> None:
        self._ring = Ring(upper(piece), 1)
        #: How many bytes of it have come.
        self.received = 0

    def take(self, data: bytes) -> None:
        """Compare what came with what is owed next."""
        rest = memoryview(data)
        while rest:
            part = rest[: self._ring.up_to_end(self.received)]
            expect(self._ring.holds(part, self.received), f"wrong after {self.received} bytes")
            self.received += len(part)
            rest = rest[len(part) :]
