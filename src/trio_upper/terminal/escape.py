"""Text that others wrote, made safe to show: it can neither drive the terminal nor hide in it."""

import codecs
import re
import unicodedata

# Unicode general categories (UAX #44, table 12) that drive a terminal or cannot be seen: control
# and format characters, surrogates, line and paragraph separators.
UNSAFE_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}

# Persian words and emoji families are spelled with these format characters.
JOINERS = "\u200c\u200d"

# Letters by category, blank on the screen.
FILLERS = "\u115f\u1160\u3164\uffa0"

# Everything that may have to be escaped; `_visible` decides. Letters, digits, ASCII and newlines,
# which most text consists of, are passed over at the speed of the regular expression.
SUSPECT = re.compile(rf"[^\w -~\n]|[{FILLERS}]")

# How much of a foreign peer's first line is quoted, if nobody says otherwise.
QUOTED_CHARACTERS = 200


def escape(text: bytes | str) -> str:
    r"""Return `text` without anything that could drive a terminal or hide what it says.

    Such characters become ``\x1b`` or ``\u202e``, bytes that are not UTF-8 ``\xff``; newlines stay.
    A backslash stays as it is, so this is for reading and cannot be undone.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    return SUSPECT.sub(lambda found: _visible(found[0]), text)


def is_safe(character: str) -> bool:
    """Tell whether `character` may be shown as it is; a newline is told unsafe here."""
    unsafe = unicodedata.category(character) in UNSAFE_CATEGORIES or character in FILLERS
    return not unsafe or character in JOINERS


def _visible(character: str) -> str:
    if is_safe(character):
        return character
    if "\x80" <= character <= "\xff":  # "\x9b" is the byte; "\u009b" is the code point
        return f"\\u{ord(character):04x}"
    return character.encode("unicode_escape").decode("ascii")


class Escaper:
    """`escape` for a stream: any split of the bytes gives the same text, 3 bytes held at most."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def feed(self, data: bytes) -> str:
        """Return the text of `data`, without a code point that is not whole yet."""
        return escape(self._decoder.decode(data))

    def finish(self) -> str:
        """Return what was held back, escaped as the bytes that it is; start anew."""
        return escape(self._decoder.decode(b"", final=True))


def quote(words: bytes, longest: int = QUOTED_CHARACTERS) -> str:
    """Return the first line of a peer's words in quotation marks, harmless to a terminal.

    Of what is longer than `longest` characters, the beginning.
    """
    line = words.strip(b"\r\n").partition(b"\n")[0].rstrip(b"\r")
    text = escape(line)
    return f"'{text[:longest]}…'" if len(text) > longest else f"'{text}'"
