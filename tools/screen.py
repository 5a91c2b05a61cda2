"""What a terminal shows after all that was written to it, as text and in colours."""

from itertools import groupby

import pyte
from pyte.screens import Char
from rich.style import Style
from rich.text import Text

FAINT, GREY = b"\x1b[2m", b"\x1b[90m"  # ECMA-48, 8.3.117, and aixterm: pyte knows only the second

COLORS = {"brown": "yellow", "brightblack": "bright_black"}
"""Colours that the program uses, whose names differ: pyte's to rich's."""


class Screen:
    """The screen of a terminal of `rows` and `columns`, to which `raw` was written."""

    def __init__(self, raw: bytes, rows: int, columns: int) -> None:
        self._screen = pyte.Screen(columns, rows)
        pyte.ByteStream(self._screen).feed(raw.replace(FAINT, GREY))

    @property
    def lines(self) -> list[str]:
        """What a person reads, down to the cursor's line, without the spaces at the ends."""
        shown: list[str] = self._screen.display[: self._screen.cursor.y + 1]
        return "\n".join(line.rstrip() for line in shown).rstrip().splitlines()

    def styled(self, *, cursor: bool) -> list[Text]:
        """The same in colours; `cursor` tells whether to draw that, too."""
        lines = [self._styled(row, len(line)) for row, line in enumerate(self.lines)]
        if cursor:
            at = self._screen.cursor
            lines[at.y].pad_right(at.x + 1 - len(lines[at.y]))
            lines[at.y].stylize("reverse", at.x, at.x + 1)
        return lines

    def _styled(self, row: int, length: int) -> Text:
        cells = [self._screen.buffer[row][column] for column in range(length)]
        runs = groupby(cells, style_of)
        return Text.assemble(*(("".join(cell.data for cell in run), style) for style, run in runs))


def style_of(cell: Char) -> Style:
    """Return the style of a character."""
    return Style(color=COLORS.get(cell.fg, cell.fg), bold=cell.bold)
