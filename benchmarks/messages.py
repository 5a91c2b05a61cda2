"""What is sent, and the only right reply to it: numbered messages of one size, over and over.

Numbered, so that a reply lost, doubled or in the wrong place is found, not only a wrong letter.
"""

from dataclasses import dataclass
from pathlib import Path

# A short line, such as a person types.
LINE_BYTES = 32

# A piece of bulk data: what most programs read from a file or a socket at once.
PIECE_BYTES = 64 * 1024

# Small enough to stay in the processor's cache: the memory's speed is not being compared.
MOST_RING_BYTES = 1 << 20

# As many different short lines as are ever in flight on one connection, and some.
MOST_RING_MESSAGES = 4096

ASCII_WORDS = "the quick brown fox jumps over the lazy dog, "

# One to three bytes a code point, and one letter that becomes two.
OTHER_WORDS = "straße in köln, καλημέρα κόσμε, привет мир, 世界, "


@dataclass(frozen=True, slots=True, kw_only=True)
class Messages:
    """Different messages of one size, and their replies, also of one size."""

    name: str
    requests: tuple[bytes, ...]

    @property
    def request_bytes(self) -> int:
        return len(self.requests[0])

    @property
    def replies(self) -> tuple[bytes, ...]:
        return tuple(request.decode().upper().encode() for request in self.requests)

    def store(self, folder: Path) -> tuple[Path, Path]:
        """Write requests and replies for the load generator, once; their paths."""
        requests, replies = folder / f"{self.name}.requests", folder / f"{self.name}.replies"
        if not replies.exists():
            requests.write_bytes(b"".join(self.requests))
            replies.write_bytes(b"".join(self.replies))
        return requests, replies


def numbered_line(number: int, size: int, words: str) -> bytes:
    """One line of `size` bytes of UTF-8; `words` are cut between two code points."""
    start = f"{number:04d} ".encode()
    room = size - len(start) - len(b"\n")
    text = (words * (room // len(words) + 1)).encode()[:room].decode(errors="ignore").encode()
    return start + text.ljust(room, b".") + b"\n"


def make_messages(name: str, size: int, words: str) -> Messages:
    count = min(MOST_RING_BYTES // size, MOST_RING_MESSAGES)
    requests = tuple(numbered_line(number, size, words) for number in range(count))
    return Messages(name=name, requests=requests)


LINES = make_messages("lines", LINE_BYTES, ASCII_WORDS)
PIECES = make_messages("pieces", PIECE_BYTES, ASCII_WORDS)
TEXT_LINES = make_messages("text-lines", LINE_BYTES, OTHER_WORDS)
TEXT_PIECES = make_messages("text-pieces", PIECE_BYTES, OTHER_WORDS)
