"""Turns what is printed into JSON, one object a line, beside a log in JSON."""

import io
import json
from datetime import UTC, datetime
from typing import Protocol


class TextOutput(Protocol):
    """What the log needs of a stream."""

    def write(self, text: str, /) -> int:
        """Write some text."""

    def flush(self) -> None:
        """Write what waits."""

    def isatty(self) -> bool:
        """Return whether it leads to a terminal."""

    def fileno(self) -> int:
        """Return its descriptor."""


class JSONLines(io.TextIOBase):
    """A stream of text, each line of which goes to `output` as an event of the log.

    It takes the place of standard error: what the program, Python or a library says there in words
    of its own is then JSON, too.
    """

    def __init__(self, output: TextOutput) -> None:
        self._output = output
        self._unfinished = ""

    def write(self, text: str) -> int:
        """Take some text; write the lines that it ends."""
        *lines, self._unfinished = (self._unfinished + text).split("\n")
        for line in filter(None, lines):
            event = line.removeprefix("trio-upper: ")
            moment = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
            level = "warning" if event.startswith("warning: ") else "error"
            fields = {"event": event.removeprefix("warning: "), "level": level, "timestamp": moment}
            self._output.write(json.dumps(fields) + "\n")
        return len(text)

    def flush(self) -> None:
        """Flush the output."""
        self._output.flush()

    def close(self) -> None:
        """Do nothing: the output is its owner's to flush and close, and may be closed by now."""

    def fileno(self) -> int:
        """Return the descriptor of the output."""
        return self._output.fileno()
