"""The keyboard at the prompt: keys one by one, and what is pasted in large pieces."""

import re

from prompt_toolkit.input.typeahead import clear_typeahead
from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.key_binding import KeyPress
from prompt_toolkit.keys import Keys

from trio_upper.terminal.prompt import READ_BYTES, forget_typed

BURST_CHARACTERS = 32
"""Characters that arrive at once and are no typing: even a held key comes one at a time."""

PASTE_START, PASTE_END = "\x1b[200~", "\x1b[201~"  # xterm's bracketed paste mode (2004)

BURST = re.compile(rf"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]{{{BURST_CHARACTERS},}}")
"""Text as it can be pasted: no control characters but tabs and ends of lines."""


class Keyboard(Vt100Input):
    """The terminal's input, in which pasted text stays in large pieces, bracketed or not.

    prompt_toolkit takes text apart into keys, some 50 us each, and collects a bracketed paste by
    adding strings, in time that grows with its square. Here a paste comes as `Keys.BracketedPaste`
    with each read, and a burst of text is a paste too.
    """

    def __init__(self, fd: int) -> None:
        """Read the terminal *fd*, which the caller closes."""
        super().__init__(open(fd, encoding="utf-8", closefd=False))  # noqa: SIM115 (see closefd)
        clear_typeahead(self)  # of an earlier prompt on a descriptor of the same number
        self._pasting = False
        self._held = ""  # the end of what was read, if a mark may begin there
        self._after_return = False

    def read_keys(self) -> list[KeyPress]:
        """Return the keys that were pressed since the last time."""
        data = self._held + self.stdin_reader.read(READ_BYTES)
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

    def flush_keys(self) -> list[KeyPress]:
        """Return the keys of a sequence that was never finished, such as Escape alone."""
        if not self._pasting:
            self.vt100_parser.feed(self._held)
            self._held = ""
        return super().flush_keys()

    def forget(self) -> None:
        """Throw away what was typed and not asked for."""
        self._pasting = False  # its end mark may be in what is thrown away
        self._held = ""
        clear_typeahead(self)
        forget_typed(self.fileno())

    def _hold(self, text: str) -> str:
        """Return *text* without the beginning of a mark at its end, which is held back."""
        mark = PASTE_END if self._pasting else PASTE_START
        sizes = range(len(mark) - 1, 0, -1)
        size = next((size for size in sizes if text.endswith(mark[:size])), 0)
        self._held = text[len(text) - size :]
        return text[: len(text) - size]

    def _take(self, text: str) -> None:
        if text and (self._pasting or BURST.fullmatch(text)):
            self._buffer.append(KeyPress(Keys.BracketedPaste, self._lines(text)))
        else:
            self._after_return = False
            self.vt100_parser.feed(text)

    def _lines(self, text: str) -> str:
        """Return pasted *text* with newlines only; a CRLF may be cut between two pieces."""
        if self._after_return:
            text = text.removeprefix("\n")
        self._after_return = text.endswith("\r")
        return text.replace("\r\n", "\n").replace("\r", "\n")
