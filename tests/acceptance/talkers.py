"""Clients that talk all the time, and account for every byte of both directions."""

import codecs
import math
from collections.abc import Callable

import trio

from tests.acceptance.clients import peer_name
from tests.acceptance.gate import Broken, expect

READ_BYTES = 65536

# As much of what came last as is worth quoting.
READ_TAIL_BYTES = 100

NOTICE = b"trio-upper: closing, the server is shutting down\n"

# A server that stops may close a client that sends nothing for this long; what such a client
# sends just then crosses the closing notice.
QUIET_SECONDS = 0.1

# Between the look at the clock and the system call that sends, other programs may have the core.
SWITCH_SECONDS = 0.02

# Between two pieces of a client that does not wait for replies.
REST_SECONDS = 0.01

LINES_A_PIECE = 100


def promised(data: bytes) -> bytes:
    """Return what is owed for `data` while more may come: all but a character cut in two."""
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    return decode(data).upper().encode("utf-8", "surrogateescape")


class Talker:
    """One such client: let it `chat` and `listen`, or `pour`, then `settle` the account."""

    def __init__(self, stream: trio.SocketStream, name: str) -> None:
        self._stream = stream
        self._name = name
        #: How many lines it has sent.
        self.lines = 0
        self._last = -math.inf
        #: Whether the server has ended this conversation.
        self.ended = False
        self._begun = bytearray()
        self._sent = 0
        self._got = bytearray()
        #: Its name in the server's log.
        self.peer = peer_name(stream)
        #: For each time that it sent something: up to which byte, and how long it had been quiet.
        self._pauses: list[tuple[int, float]] = []

    def __str__(self) -> str:
        quiet = trio.current_time() - self._last
        words = bytes(self._got[-READ_TAIL_BYTES:])
        return f"{self._name}, {quiet:.1f} s after its last line, with {words!r}"

    @property
    def sent(self) -> int:
        """How many bytes the system has taken from it."""
        return self._sent

    async def chat(self, enough: Callable[[], bool], rest: float = 0.0) -> None:
        """Say a line, have it answered, say the next one, until it has said enough.

        `rest` is what it waits in between, in seconds.
        """
        owed = len(self._got)
        while not enough() and not self.ended:
            owed += len(promised(await self._say(1)))
            while len(self._got) < owed and not self.ended:
                await self._hear()
            await trio.sleep(rest)

    async def greet(self) -> None:
        """Say one line and have it answered."""
        await self.chat(lambda: self.lines > 0)

    async def pour(self, enough: Callable[[], bool]) -> None:
        """Say many lines without waiting for replies; then be quiet until the server ends."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.listen)
            while not enough() and not self.ended:
                await self._say(LINES_A_PIECE)
                await trio.sleep(REST_SECONDS)

    async def _say(self, lines: int) -> bytes:
        numbers = range(self.lines, self.lines + lines)
        words = "".join(f"{self._name}, line {number}: straße\n" for number in numbers).encode()
        now = trio.current_time()
        self.lines += lines
        self._begun += words
        self._pauses.append((len(self._begun), now - self._last))
        self._last = now
        await self._stream.send_all(words)
        self._sent = len(self._begun)
        return words

    async def _hear(self) -> None:
        data = await self._stream.receive_some(READ_BYTES)
        self._got += data
        self.ended = not data

    async def listen(self) -> None:
        """Be quiet until the server ends."""
        while not self.ended:
            await self._hear()

    def settle(self, received: int) -> int:
        """Compare all that came with what is owed for the first `received` bytes, and the notice.

        Returns how many bytes the server did not receive. They are no loss to it only if the client
        had been quiet before it sent them.
        """
        owed = promised(bytes(self._begun[:received]))
        newline = b"" if owed[-1:] in {b"", b"\n"} else b"\n"
        wanted, got = owed + newline + NOTICE, bytes(self._got)
        if got != wanted:
            pairs = enumerate(zip(got, wanted, strict=False))
            wrong = next((at for at, (has, should) in pairs if has != should), len(got))
            then = f"then {got[wrong:][:80]!r}"
            raise Broken(f"{self._name}: right up to byte {wrong} of {len(wanted)}, {then}")
        missed = len(self._begun) - received
        pause = next((pause for end, pause in self._pauses if end > received), math.inf)
        expect(
            not missed or pause >= QUIET_SECONDS - SWITCH_SECONDS,
            f"{self._name} lost {missed} bytes that it sent {pause:.3f} s after others",
        )
        return missed
