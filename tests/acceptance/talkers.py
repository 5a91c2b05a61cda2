"""Clients that talk all the time, and account for every byte of both directions."""

import codecs
import math
from collections.abc import Callable

import trio

from tests.acceptance.clients import peer_name
from tests.acceptance.gate import Broken, expect

READ_BYTES = 65536

NOTICE = b"trio-upper: closing, the server is shutting down\n"

QUIET_S = 0.1
"""Whoever sends nothing for so long may be seen off by a server that stops, says the README; what
it sends just then meets the goodbye on its way."""

REST_S = 0.01
"""Between two pieces of a client that does not wait for replies."""

LINES_A_PIECE = 100


def promised(data: bytes) -> bytes:
    """Return what is owed for `data` while more may come: all but a character cut in two."""
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    return decode(data).upper().encode("utf-8", "surrogateescape")


class Talker:
    """One such client: let it `chat` or `pour` once, then `settle` the account."""

    def __init__(self, stream: trio.SocketStream, name: str) -> None:
        self._stream = stream
        self._name = name
        #: How many lines it has sent.
        self.lines = 0
        self._last = -math.inf
        self._ended = False
        self._sent = bytearray()
        self._got = bytearray()
        #: By what name the server's log knows this client.
        self.peer = peer_name(stream)
        #: How long it had been quiet, in seconds, when it last sent something.
        self.pause = 0.0

    async def chat(self, enough: Callable[[], bool], rest: float = 0.0) -> None:
        """Say a line, have it answered, say the next one; then be quiet until the server ends.

        `rest` is what it waits in between, in seconds.
        """
        owed = 0
        while not enough() and not self._ended:
            owed += len(promised(await self._say(1)))
            while len(self._got) < owed and not self._ended:
                await self._hear()
            await trio.sleep(rest)
        await self._listen()

    async def pour(self, enough: Callable[[], bool]) -> None:
        """Say many lines without waiting for replies; then be quiet until the server ends."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen)
            while not enough() and not self._ended:
                await self._say(LINES_A_PIECE)
                await trio.sleep(REST_S)

    async def _say(self, lines: int) -> bytes:
        numbers = range(self.lines, self.lines + lines)
        words = "".join(f"{self._name}, line {number}: straße\n" for number in numbers).encode()
        now = trio.current_time()
        self.pause, self._last = now - self._last, now
        self.lines += lines
        self._sent += words
        await self._stream.send_all(words)
        return words

    async def _hear(self) -> None:
        data = await self._stream.receive_some(READ_BYTES)
        self._got += data
        self._ended = not data

    async def _listen(self) -> None:
        while not self._ended:
            await self._hear()

    def settle(self, received: int) -> int:
        """Compare all that came with what is owed for the first `received` bytes, and the notice.

        Returns how many bytes the server did not receive. They are no loss to it only if the client
        had been quiet before it sent them.
        """
        owed = promised(bytes(self._sent[:received]))
        newline = b"" if owed[-1:] in {b"", b"\n"} else b"\n"
        wanted, got = owed + newline + NOTICE, bytes(self._got)
        if got != wanted:
            pairs = enumerate(zip(got, wanted, strict=False))
            wrong = next((at for at, (has, should) in pairs if has != should), len(got))
            then = f"then {got[wrong:][:80]!r}"
            raise Broken(f"{self._name}: right up to byte {wrong} of {len(wanted)}, {then}")
        missed = len(self._sent) - received
        expect(
            not missed or self.pause >= QUIET_S,
            f"{self._name} lost {missed} bytes that it sent {self.pause:.3f} s after others",
        )
        return missed
