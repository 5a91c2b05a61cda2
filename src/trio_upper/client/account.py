r"""What a client is owed, without any I/O: which bytes are replies, and whether all have come.

The client runs the server's own transform over what it sends, so it knows to the byte how long the
replies must be, and for the first of them what they must be. What comes is one of three things:

- a reply: owed, without an ASCII lower-case letter, and right as far as it is compared;
- a notice: the server's own line, see `trio_upper.protocol`;
- foreign words: the peer is no server of ours (SSH, HTTP, an echo).

Notices and foreign words are *words*. They begin at the start of the line in which the first ASCII
lower-case letter stands, or with the first byte that is not owed; what follows them is no reply.
"""

from trio_upper.protocol import Uppercaser, read_notice

# Replies are compared byte for byte with what they must be up to here: enough to unmask a banner
# in capitals or a wrong transform, little enough to keep.
COMPARED_BYTES = 4096

# As much of a peer's own words as is worth quoting; a notice is far shorter.
WORDS_BYTES = 1024

LOWER = b"abcdefghijklmnopqrstuvwxyz"


class Account:
    """The account of one conversation.

    Call `sent` before the bytes go out (a reply may overtake the return of the call that sends),
    `received` with what comes, `end_input` when nothing more will be sent.
    """

    def __init__(self) -> None:
        self._transform = Uppercaser()
        self._expected = b""  # the first COMPARED_BYTES of the replies
        self._held = b""  # an unfinished line that may still turn out to be foreign
        self._words = bytearray()
        self._unanswerable = 0
        self.input_ended = False
        #: How many bytes of reply the peer has owed so far, answered or not.
        self.owed = 0
        #: How many of them came and were right.
        self.answered = 0

    def sent(self, data: bytes) -> None:
        """Owe the reply to `data`."""
        if len(self._expected) < COMPARED_BYTES:
            self._owe(self._transform.feed(data))
        else:
            self.owed += self._transform.measure(data)

    def end_input(self, *, half_closed: bool) -> None:
        """Nothing more will be sent.

        `half_closed` says whether the peer was told. If it was not (TLS), it cannot answer a code
        point that the input left incomplete: those bytes stay unanswered, and nobody waits for
        them.
        """
        tail = self._transform.finish()
        self._owe(tail)
        self._unanswerable = 0 if half_closed else len(tail)
        self.input_ended = True

    def _owe(self, reply: bytes | bytearray) -> None:
        self.owed += len(reply)
        self._expected += reply[: COMPARED_BYTES - len(self._expected)]

    @property
    def unanswered(self) -> int:
        """How many bytes are owed and have not come."""
        return self.owed - self.answered

    @property
    def settled(self) -> bool:
        """Whether the input has ended and all that can be answered has been."""
        return self.input_ended and self.unanswered == self._unanswerable

    def received(self, data: bytes) -> bytes:
        """Judge `data` and return what of it, and of what was held back before, is to be shown.

        Within the compared part an unfinished line whose rest is owed is held back until it is
        whole, so that nothing of a foreign line is shown because it came in two pieces.
        """
        if self._words:
            self._words += data[: WORDS_BYTES - len(self._words)]
            return b""
        begin = self.answered - len(self._held)
        line = self._held + data if self._held else data
        good = self._count_good(line, begin)
        self.answered = begin + good
        if good < len(line):
            self._words += line[good : good + WORDS_BYTES]
            line = line[:good]
        shown = len(line)
        if not self._words and self.unanswered and self.answered < COMPARED_BYTES:
            shown = line.rfind(b"\n") + 1
        self._held = line[shown:]
        return line[:shown]

    def flush(self) -> bytes:
        """Return what was held back: the conversation is over, and so far it was right."""
        held, self._held = self._held, b""
        return held

    def _count_good(self, line: bytes, begin: int) -> int:
        """Return how many bytes of `line`, which continues the replies at `begin`, are replies."""
        good = min(len(line), self.owed - begin)
        expected = self._expected[begin : begin + good]
        if not line.startswith(expected):
            good = next(i for i, byte in enumerate(expected) if line[i] != byte)
        # One scan for each letter (memchr) is many times as fast as one search for any of them.
        if any(letter in line for letter in LOWER):
            lower = min(at for letter in LOWER if (at := line.find(letter)) >= 0)
            good = min(good, line.rfind(b"\n", 0, lower) + 1)
        return good

    @property
    def words(self) -> bytes:
        """What the peer said that is no reply, at most `WORDS_BYTES` of it; empty if nothing."""
        return bytes(self._words)

    @property
    def words_complete(self) -> bool:
        """Whether a whole line of words, or as much as is kept of one, has come."""
        return len(self._words) >= WORDS_BYTES or b"\n" in self._words[1:]

    @property
    def notice(self) -> str | None:
        """The server's notice, or None if it gave none."""
        return read_notice(self.words)
