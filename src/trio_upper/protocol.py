"""What is on the wire, without any I/O: the transform, the notices and the default address.

One connection carries one byte stream each way. The reply stream is the request stream in upper
case. Upper-casing maps each code point by itself, so ``upper(a + b) == upper(a) + upper(b)`` at any
code-point boundary, and a server needs no framing: the only state is a code point cut in two.
"""

import codecs

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8746  # T-R-I-O on a phone's keypad

# A reply never contains an ASCII lower-case letter (no code point maps to one), so a line that
# begins like this cannot be mistaken for a reply.
NOTICE_PREFIX = b"trio-upper: "

_NEWLINE = ord("\n")


class Uppercaser:
    """The transform: bytes in, their upper case out, the same for any split of the input.

    Text is UTF-8 and mapped as `str.upper` does, for every locale alike (``ß`` becomes ``SS``).
    Bytes that are not UTF-8 pass through unchanged, in place. A code point that is not whole yet
    is held back, at most 3 bytes of it.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes | bytearray) -> bytes | bytearray:
        """Return the upper case of all that is whole after `data`."""
        if not self._held and data.isascii():
            return data.upper()  # about ten times as fast as the way through `str`
        whole = self._held + data
        # surrogateescape (PEP 383) carries each byte that is not UTF-8 through `upper` unchanged.
        text, used = codecs.utf_8_decode(whole, "surrogateescape", False)
        self._held = bytes(whole[used:])
        return text.upper().encode("utf-8", "surrogateescape")

    def finish(self) -> bytes:
        """Return what is still held back, 0 to 3 bytes, as it is: the stream ended inside it."""
        held, self._held = self._held, b""
        return held


class Responder:
    """The server's half of the protocol: each piece of the request in, its reply out.

    It does no I/O, so that a task can call it as well as the poller.
    """

    __slots__ = ("_uppercaser", "line_open", "received", "replied")

    def __init__(self) -> None:
        self._uppercaser = Uppercaser()
        #: Bytes of request that were answered.
        self.received = 0
        #: Bytes of reply to them.
        self.replied = 0
        #: Whether the reply stream is in the middle of a line.
        self.line_open = False

    def answer(self, data: bytes | bytearray) -> bytes | bytearray:
        """Return the reply to `data`, which is empty while a code point is not whole."""
        self.received += len(data)
        reply = self._uppercaser.feed(data)
        if reply:
            self.replied += len(reply)
            self.line_open = reply[-1] != _NEWLINE
        return reply

    def finish(self) -> bytes:
        """Return the reply to the end of the request stream: what was held back, as it is."""
        tail = self._uppercaser.finish()
        self.replied += len(tail)
        self.line_open = self.line_open or bool(tail)
        return tail


def full_notice(clients: int) -> bytes:
    """Return the notice for a client that is refused because `clients` are connected."""
    return _notice(f"full, {clients} clients are connected; try again later")


def idle_notice(seconds: float) -> bytes:
    """Return the notice for a client that sent nothing for `seconds`."""
    digits = f"{seconds:.6f}".rstrip("0").rstrip(".")
    return _notice(f"closing, no message for {digits} s")


def shutdown_notice() -> bytes:
    """Return the notice for the clients of a server that stops."""
    return _notice("closing, the server is shutting down")


def _notice(text: str) -> bytes:
    return NOTICE_PREFIX + text.encode() + b"\n"


def read_notice(words: bytes) -> str | None:
    r"""Return the notice in `words` as text without its line end, or None if there is none.

    A server puts one ``\n`` before it when its last reply did not end a line. Bytes that are not
    UTF-8 come back as U+FFFD: the text is for a person.
    """
    line, _, _ = words.removeprefix(b"\n").partition(b"\n")
    if not line.startswith(NOTICE_PREFIX):
        return None
    return line.decode("utf-8", "replace")
