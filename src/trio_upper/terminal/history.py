"""The history: lines typed before, kept between runs in the user's state folder."""

import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from prompt_toolkit.history import History

LONGEST_EDITED = 4096
"""Characters of one line in the editor and in its history: it draws all of them at every key."""

HISTORY_ENTRIES = 1000
"""Lines that arrow-up goes back: bash's default (HISTSIZE is 500 there) twice."""

HISTORY_BYTES = 1024 * 1024
"""Bytes of the history's file before its older half is dropped."""


def history_path(environ: Mapping[str, str]) -> Path | None:
    """Return where what was typed is kept between runs; None if there is no place for it.

    The user's state folder: https://specifications.freedesktop.org/basedir-spec/latest/
    """
    state = Path(environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():  # the specification: a relative path is invalid, ignore it
        state = Path(environ.get("HOME", ""), ".local", "state")
    return state / "trio-upper" / "history" if state.is_absolute() else None


class FileHistory(History):
    """Lines typed before, one a line in a file for the user alone; never a reason to fail.

    A file that cannot be read or written is as good as none, and damage in it is text like any
    other. The file is opened anew for each line: two clients may share it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def append_string(self, string: str) -> None:
        """Add *string*, and forget the oldest in memory if there are too many."""
        super().append_string(string)
        del self._loaded_strings[HISTORY_ENTRIES:]

    def load_history_strings(self) -> Iterable[str]:
        """Return what the file holds, the newest first."""
        try:
            with self._open() as file:
                return reversed(_last_entries(file, HISTORY_BYTES))
        except OSError:
            return []

    def store_string(self, string: str) -> None:
        """Append *string* to the file; drop the older half first if it is full."""
        if len(string) > LONGEST_EDITED:
            return
        with suppress(OSError), self._open() as file:
            if file.seek(0, os.SEEK_END) > HISTORY_BYTES:
                kept = _last_entries(file, HISTORY_BYTES // 2)
                file.truncate(0)
                file.writelines(encoded(line) + b"\n" for line in kept)
            file.write(encoded(string) + b"\n")

    def _open(self) -> BinaryIO:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return open(self._path, "a+b", opener=_open_private)  # Path.open has no opener


def _open_private(path: str, flags: int) -> int:
    """Open a file for the user alone, even if it was there before with another mode.

    A FIFO of that name must not hold up the prompt (O_NONBLOCK), and a link to /dev/null, which
    people set to have no history, must not change the mode of the device.
    """
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY, 0o600)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        os.fchmod(fd, 0o600)
    return fd


def _last_entries(file: BinaryIO, limit: int) -> list[str]:
    """Return the entries in the last *limit* bytes, the oldest first."""
    start = max(0, file.seek(0, os.SEEK_END) - limit)
    file.seek(start)
    lines = file.read(limit).decode("utf-8", "surrogateescape").split("\n")
    whole = lines[1:] if start else lines
    return [line for line in whole if 0 < len(line) <= LONGEST_EDITED][-HISTORY_ENTRIES:]


def encoded(line: str) -> bytes:
    """Return the bytes that were typed for *line*, also those that are no UTF-8."""
    return line.encode("utf-8", "surrogateescape")
