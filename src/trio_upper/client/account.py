r"""What a client is owed, without any I/O: which bytes are replies, and whether all have come.

The client runs the server's own transform over what it sends, so it knows every byte that it is
owed. It keeps them until they come, which is as much as is in flight. What comes is:

- a reply: the bytes that are owed, in their order;
- a notice: the server's own line, see `trio_upper.protocol`;
- something wrong: a damaged reply, or the words of a foreign peer (SSH, HTTP, an echo).

The first wrong byte ends it: what the bytes after it answer cannot be known.
"""

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass

from trio_upper.protocol import Uppercaser, read_notice

# So far an unfinished line is held back until it is whole, so that nothing of a wrong line is
# shown: this is where the banner of another kind of server is seen.
BANNER_BYTES = 4096

# As much of a peer's own words as is worth quoting; a notice is far shorter.
WORDS_BYTES = 1024

# As much of what was right on the same line before them.
HEAD_BYTES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """The first byte that is wrong; `str()` of it is one line for a person.

    `position` counts the bytes of the replies from 1. `owed` is None if nothing was.
    """

    position: int
    came: int
    owed: int | None

    def __str__(self) -> str:
        """Return where it is, what came and what was owed."""
        if self.owed is None:
            return f"byte {self.position:,} of the replies, {_shown(self.came)}, is one too many"
        return (
            f"byte {self.position:,} of the replies is wrong: "
            f"{_shown(self.came)} came, {_shown(self.owed)} was owed"
        )


def find_mismatch(came: bytes | bytearray, owed: bytes, *, before: int = 0) -> Mismatch | None:
    """Return the first byte of `came` that is not the one of `owed`; None if there is none.

    `came` may be shorter: its rest has not come yet. `before` bytes of the replies came earlier.
    """
    at = _in_common(came, owed)
    if at == len(came):
        return None
    return Mismatch(
        position=before + at + 1, came=came[at], owed=owed[at] if at < len(owed) else None
    )


def is_whole(words: bytes | bytearray) -> bool:
    r"""Return whether a line of a peer's own `words`, or as much as is worth quoting, has come.

    They begin with the first wrong byte. A ``\n`` there is no end yet: a notice may follow it.
    """
    return len(words) >= WORDS_BYTES or words.find(b"\n", 1) >= 0


def _in_common(one: bytes | bytearray, other: bytes | bytearray) -> int:
    """Return how many bytes at the beginning of both are the same; as fast as the C library."""
    return bisect_left(range(len(one)), True, key=lambda at: one[: at + 1] != other[: at + 1])


def _shown(byte: int) -> str:
    character = chr(byte)
    printable = character.isascii() and character.isprintable()
    return f"{character!r} (0x{byte:02x})" if printable else f"0x{byte:02x}"


class Account:
    """The account of one conversation.

    Call `sent` before the bytes go out (a reply may overtake the return of the call that sends),
    `received` with what comes, `end_input` when nothing more will be sent.
    """

    def __init__(self) -> None:
        self._transform = Uppercaser()
        self._expected: deque[bytes | bytearray] = deque()  # replies that have not come
        self._matched = 0  # bytes of the first of them that have
        self._held = b""  # an unfinished line that may still prove to be wrong
        self._words = bytearray()
        self._wrong_at = 0  # where in these words the first wrong byte is
        self._in_first_line = False  # whether it is in the first line of all
        self._tail = 0  # bytes that the peer can answer only when it learns of the input's end
        self._unanswerable = 0
        self.input_ended = False
        #: The first byte that was wrong, None if all were right.
        self.mismatch: Mismatch | None = None
        #: How many bytes of reply the peer has owed so far, answered or not.
        self.owed = 0
        #: How many of them came and were right.
        self.answered = 0

    def sent(self, data: bytes) -> None:
        """Owe the reply to `data`."""
        self._owe(self._transform.feed(data))

    def end_input(self, *, half_closes: bool) -> None:
        """Nothing more will be sent.

        A code point that the input left incomplete is owed as it is; the peer answers it when it
        learns of the end. `half_closes` says whether it will. If not (TLS), these bytes stay
        unanswered, and are not waited for.
        """
        tail = self._transform.finish()
        self._owe(tail)
        self._tail = len(tail)
        self._unanswerable = 0 if half_closes else self._tail
        self.input_ended = True

    def _owe(self, reply: bytes | bytearray) -> None:
        if reply:
            self._expected.append(reply)
            self.owed += len(reply)

    @property
    def unanswered(self) -> int:
        """How many bytes are owed and have not come."""
        return self.owed - self.answered

    @property
    def answerable(self) -> int:
        """How many of them the peer can send before it learns that the input has ended."""
        return max(self.unanswered - self._tail, 0)

    @property
    def settled(self) -> bool:
        """Whether the input has ended and all that can be answered has been."""
        return self.input_ended and self.unanswered == self._unanswerable

    def received(self, data: bytes) -> bytes:
        """Compare `data` and return what of it, and of what was held back before, is to be shown.

        In the first `BANNER_BYTES` an unfinished line whose rest is owed is held back until it is
        whole, so that nothing of a wrong line is shown because it came in two pieces.
        """
        if self.mismatch:
            self._add_words(data)
            return b""
        right = self._match(data)
        if right < len(data):
            return self._part(data, right)
        if self._held:
            data = self._held + data
        whole = len(data)
        if self.unanswered and self.answered < BANNER_BYTES:
            whole = data.rfind(b"\n") + 1
        self._held = data[whole:]
        return data[:whole]

    def flush(self) -> bytes:
        """Return what was held back, now that the conversation is over, if it proved right."""
        held, self._held = self._held, b""
        return b"" if self.mismatch and self.notice is None else held

    def _match(self, data: bytes) -> int:
        """Return how many bytes of `data` are right, and count them as answered."""
        at = 0
        while at < len(data) and self._expected:
            owed = self._expected[0]
            size = min(len(data) - at, len(owed) - self._matched)
            part = memoryview(owed)[self._matched : self._matched + size]
            right = data.startswith(part, at)
            if not right:
                size = _in_common(data[at : at + size], bytes(part))
            at += size
            self._matched += size
            self.answered += size
            if not right:
                break
            if self._matched == len(owed):
                self._expected.popleft()
                self._matched = 0
        return at

    def _part(self, data: bytes, right: int) -> bytes:
        """Return what is to be shown of `data`, of which a byte after `right` ones is wrong."""
        owed = self._expected[0][self._matched] if self._expected else None
        self.mismatch = Mismatch(position=self.answered + 1, came=data[right], owed=owed)
        shown = self._held + data[:right]
        self._held = b""
        if owed is not None and self.answered < BANNER_BYTES:
            whole = shown.rfind(b"\n") + 1
            shown, self._held = shown[:whole], shown[whole:]
        self._in_first_line = len(self._held) == self.answered
        self._words += self._held[-HEAD_BYTES:]
        self._wrong_at = len(self._words)
        self._add_words(data[right:])
        return shown

    def _add_words(self, data: bytes) -> None:
        self._words += data[: self._wrong_at + WORDS_BYTES - len(self._words)]

    @property
    def words(self) -> bytes:
        """What the peer said instead of a reply, about `WORDS_BYTES` of it; else empty.

        It begins with the line in which the first wrong byte stands, as far as that was held back.
        A notice begins with the wrong byte itself: what came before it on its line were replies.
        """
        return bytes(self._words if self.notice is None else self._words[self._wrong_at :])

    @property
    def words_complete(self) -> bool:
        """Whether a whole line of words, or as much as is kept of one, has come."""
        return is_whole(self._words[self._wrong_at :])

    @property
    def notice(self) -> str | None:
        """The server's notice, or None if it gave none."""
        return read_notice(bytes(self._words[self._wrong_at :]))

    @property
    def foreign(self) -> bool:
        """Whether the peer is foreign: its first line is wrong, or more came than was owed."""
        if self.mismatch is None or self.notice is not None:
            return False
        return self._in_first_line or self.mismatch.owed is None
