"""The history: lines typed before, kept between runs in the user's state folder."""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path

import platformdirs
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

# Characters of one line in the editor and in its history: it draws all of them at every key.
LINE_CHARACTERS = 4096

# Lines that arrow-up goes back: twice bash's default (HISTSIZE is 500 there).
HISTORY_LINES = 1000

# Bytes of the history's file before its older half is dropped.
HISTORY_BYTES = 1024 * 1024

# What stands before each entry in the file, as `prompt_toolkit` writes it.
ENTRY = b"\n# "


def history_path() -> Path | None:
    """Return where what was typed is kept between runs; None if the user has no such folder."""
    folder = platformdirs.user_state_path("trio-upper", appauthor=False)
    return folder / "history" if folder.is_absolute() else None


def open_history(path: Path | None) -> History:
    """Return the history in the file `path`, made for the user alone; in memory if it cannot be."""
    if path is not None:
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _prepare(path):
                return BoundedHistory(path)
    return InMemoryHistory()


class BoundedHistory(FileHistory):
    """A file of lines typed before that is never a reason to fail, nor to take long."""

    def load_history_strings(self) -> Iterable[str]:
        """Return the newest lines, the newest first."""
        with suppress(OSError):
            lines = super().load_history_strings()
            return islice((line for line in lines if len(line) <= LINE_CHARACTERS), HISTORY_LINES)
        return []

    def append_string(self, string: str) -> None:
        """Add `string`, and forget the oldest in memory if there are too many."""
        super().append_string(string)
        del self._loaded_strings[HISTORY_LINES:]

    def store_string(self, string: str) -> None:
        """Append `string` to the file, if that can be done."""
        with suppress(OSError):
            super().store_string(string)


def _prepare(path: Path) -> bool:
    """Make the file private and drop its older half if it is full; False if it is no file.

    A FIFO of that name must not hold up the prompt (O_NONBLOCK), and a link to /dev/null, which
    people set to have no history, must not change the mode of the device.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    with os.fdopen(os.open(path, flags, 0o600), "r+b") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            return False
        path.chmod(0o600)
        if found.st_size > HISTORY_BYTES:
            file.seek(-HISTORY_BYTES // 2, os.SEEK_END)
            kept = b"".join(file.read().partition(ENTRY)[1:])
            file.seek(0)
            file.write(kept)
            file.truncate()
        return True
