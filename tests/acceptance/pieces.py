"""Gate 7: any bytes, in any pieces."""

import random
import sys
from collections.abc import Callable, Iterator, Sequence

import trio

from tests.acceptance.clients import dice_of, in_time
from tests.acceptance.gate import Gate, Sizes, expect
from tests.acceptance.servers import WatchedServer, hosting
from tests.acceptance.talkers import promised
from tests.helpers.streams import receive, receive_all, upper
from trio_upper.protocol import Uppercaser

# Connections at a time.
AT_ONCE = 20

# Of an example: small, so that most cuts are within a character, and what is wrong can be read.
MOST_PARTS, MOST_CHARACTERS, MOST_PIECES = 8, 12, 12

# No characters; in UTF-8 they are as wrong as any other bytes (RFC 3629, section 3).
SURROGATES = range(0xD800, 0xE000)

# Characters that get longer or shorter, or have a case of their own; and of each length.
SEED = 7

SPECIAL = ("ß", "ŉ", "ﬃ", "ΐ", "İ", "ǆ", "ς", "\n", "\0", "é", "日", "😀", "𐐨")

BROKEN = (
    b"\xc0\xaf",  # "/", longer than need be
    b"\xed\xa0\x80",  # half of a surrogate pair
    b"\xf4\x90\x80\x80",  # beyond Unicode
    b"\x80",  # a continuation of nothing
    b"\xe2\x82",  # cut short
    b"\xf0\x9f\x98",  # cut short
    b"\xff",
    b"a\xccb",
)

Part = Callable[[random.Random], bytes]


def characters(dice: random.Random) -> bytes:
    """Any characters of all Unicode."""
    codes = (dice.randint(0, sys.maxunicode) for _ in range(dice.randint(1, MOST_CHARACTERS)))
    return "".join(chr(code) for code in codes if code not in SURROGATES).encode()


def latin(dice: random.Random) -> bytes:
    """Letters and others of one byte each."""
    return bytes(dice.randint(0, 0x7F) for _ in range(dice.randint(1, MOST_CHARACTERS)))


PARTS: tuple[Part, ...] = (
    characters,
    latin,
    lambda dice: dice.choice(SPECIAL).encode(),
    lambda dice: dice.choice(BROKEN),
    lambda dice: dice.randbytes(dice.randint(1, MOST_CHARACTERS)),
    lambda dice: dice.choice(SPECIAL).encode()[: dice.randint(1, 3)],
)


def example(dice: random.Random) -> list[bytes]:
    """Return some bytes, in pieces."""
    whole = b"".join(dice.choice(PARTS)(dice) for _ in range(dice.randint(1, MOST_PARTS)))
    cuts = sorted(dice.randint(0, len(whole)) for _ in range(dice.randint(0, MOST_PIECES)))
    pieces = [whole[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    return [piece for piece in pieces if piece]


def transform(pieces: Sequence[bytes]) -> None:
    """Feed an example to the transform; each piece must yield all that is complete by then."""
    transform, sent, got = Uppercaser(), b"", b""
    for piece in pieces:
        sent, got = sent + piece, got + transform.feed(piece)
        expect(got == promised(sent), f"{sent!r}, of {list(pieces)!r}, gave {got!r}")
    got += transform.finish()
    expect(got == upper(sent), f"{list(pieces)!r} gave {got!r}")


async def converse(server: WatchedServer, pieces: Sequence[bytes]) -> None:
    """Send an example to the server; after each piece expect all that is complete by then."""
    sent = got = b""
    async with await server.connect() as stream:
        with in_time(f"{list(pieces)!r} was not answered in full"):
            for piece in pieces:
                await stream.send_all(piece)
                sent += piece
                got += await receive(stream, len(promised(sent)) - len(got))
            await stream.send_eof()
            got += await receive_all(stream)
    expect(got == upper(sent), f"{list(pieces)!r} was answered {got!r}")


async def run(sizes: Sizes) -> str:
    """Try the same examples on the transform and over real connections."""
    dice = dice_of(SEED)
    examples = [example(dice) for _ in range(sizes.examples)]
    for pieces in examples:
        transform(pieces)
        await trio.lowlevel.checkpoint()
    left = iter(examples)
    async with hosting() as server, trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(_converse_all, server, left)
    size = sum(len(piece) for pieces in examples for piece in pieces)
    return f"{size} bytes in {sum(map(len, examples))} pieces, each as the whole in upper case"


async def _converse_all(server: WatchedServer, examples: Iterator[Sequence[bytes]]) -> None:
    for pieces in examples:
        await converse(server, pieces)


GATE = Gate(
    number=7,
    promise="Any bytes in any pieces are answered as the whole in upper case, at once; what is not "
    "UTF-8 comes back as it is.",
    doing="{examples} examples of random and broken UTF-8, to the transform and over connections",
    run=run,
    limit=lambda sizes: 60 + sizes.examples / 20,
)
