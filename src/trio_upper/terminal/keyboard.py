"""The keyboard at the prompt: keys one by one, and what is pasted in large pieces."""

import sys

assert sys.platform != "win32"  # for the type checker: there is no Vt100Input

import codecs
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prompt_toolkit.input.ansi_escape_sequences import ANSI_SEQUENCES
from prompt_toolkit.input.typeahead import clear_typeahead
from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.key_binding import KeyPress
from prompt_toolkit.keys import Keys

from trio_upper.platform import terminal
from trio_upper.terminal.console import HungUp
from trio_upper.terminal.lease import Lease

# Bytes of a paste that are taken at once: each time the prompt is drawn anew.
READ_BYTES = 65536

# Characters that arrive at once and are no typing: even a held key comes one at a time.
BURST_CHARACTERS = 32

PASTE_START, PASTE_END = "\x1b[200~", "\x1b[201~"  # xterm's bracketed paste mode (2004)

# What is not taken key by key: a control sequence (ECMA-48, 5.4; the first form is of the Linux
# console), or text as it can be pasted, without control characters but tabs and ends of lines.
# And the beginning of a sequence, at the end of what was read.
TOKEN = re.compile(
    r"(\x1b\[(?:\[[A-E]|[0-?]*[ -/]*[@-~])"
    rf"|[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]{{{BURST_CHARACTERS},}})"
)
BEGINNING = re.compile(r"\x1b(?:\[(?:\[|[0-?]*[ -/]*))?\Z")

# Between two looks at a terminal that somebody else reads, in seconds.
REST_SECONDS = 0.02

CTRL_D = b"\x04"


class Keyboard(Vt100Input):
    """The terminal's input, in which pasted text stays in large pieces, bracketed or not.

    prompt_toolkit takes text apart into keys, some 0.5 ms each with the redrawing, and collects a
    bracketed paste by adding strings, in time that grows with its square: 2000 lines pasted without
    brackets take 47 s, here 2. Here a paste comes as `Keys.BracketedPaste` with each read, and a
    burst of text is a paste, too.

    Control sequences that are no key are dropped: prompt_toolkit takes some for reports of a mouse,
    fails at those that are none, and types the others into the line.
    """

    def __init__(self, lease: Lease) -> None:
        """Read the terminal on loan."""
        super().__init__(open(lease.fd, encoding="utf-8", closefd=False))  # noqa: SIM115 (closefd)
        clear_typeahead(self)  # of an earlier prompt on a descriptor of the same number
        self._lease = lease
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._gone = False
        self._pasting = False
        self._held = ""  # the end of what was read, if a sequence may begin there
        self._after_return = False

    @property
    def closed(self) -> bool:
        """Whether the terminal has gone."""
        return self._gone

    @contextmanager
    def raw_mode(self) -> Iterator[None]:
        """Have every key as a character inside the block."""
        self._lease.use(terminal.raw)
        try:
            yield
        finally:
            self._lease.use(terminal.silent)

    def read_keys(self) -> list[KeyPress]:
        """Return the keys that were pressed since the last time."""
        data = self._held + self._read()
        self._held = ""
        while data:
            text, mark, data = data.partition(PASTE_END if self._pasting else PASTE_START)
            if not mark:
                text = self._hold(text)
            self._take(text)
            if mark:
                self._pasting = not self._pasting
        keys, self._buffer = self._buffer, []
        return keys

    def _read(self) -> str:
        """Return all that was typed; a terminal hands out 4096 bytes at a time (termios(3))."""
        data = b""
        try:
            while len(data) < READ_BYTES and (typed := self._lease.read(READ_BYTES)) is not None:
                if not typed:  # Ctrl-D, while the terminal was in the modes of somebody else
                    self._lease.take_again()
                data += typed or CTRL_D
        except HungUp:
            self._gone = True
        if not (data or self._lease.usable):
            time.sleep(REST_SECONDS)
        return self._decoder.decode(data)

    def flush_keys(self) -> list[KeyPress]:
        """Return the keys of a sequence that was never finished, such as Escape alone."""
        if not self._pasting:
            self.vt100_parser.feed(self._held)
            self._held = ""
        return super().flush_keys()

    def forget(self) -> None:
        """Discard what was typed and not asked for."""
        self._pasting = False  # its end mark may be in what is discarded
        self._held = ""
        clear_typeahead(self)
        self._lease.discard_typed()

    def _hold(self, text: str) -> str:
        """Return `text` without the beginning of a sequence at its end, which is held back."""
        if self._pasting:
            sizes = range(len(PASTE_END) - 1, 0, -1)
            size = next((size for size in sizes if text.endswith(PASTE_END[:size])), 0)
            start = len(text) - size
        else:
            found = BEGINNING.search(text)
            start = found.start() if found else len(text)
        self._held = text[start:]
        return text[:start]

    def _take(self, text: str) -> None:
        if self._pasting:
            self._paste(text)
            return
        for number, piece in enumerate(TOKEN.split(text)):
            is_token = number % 2 == 1
            if is_token and not piece.startswith("\x1b"):
                self._paste(piece)
            elif not is_token or piece in ANSI_SEQUENCES:
                self._press(piece)

    def _press(self, keys: str) -> None:
        if keys:
            self._after_return = False
            self.vt100_parser.feed(keys)

    def _paste(self, text: str) -> None:
        if text:
            self._buffer.append(KeyPress(Keys.BracketedPaste, self._lines(text)))

    def _lines(self, text: str) -> str:
        """Return pasted `text` with newlines only; a CRLF may be cut between two pieces."""
        if self._after_return:
            text = text.removeprefix("\n")
        self._after_return = text.endswith("\r")
        return text.replace("\r\n", "\n").replace("\r", "\n")
