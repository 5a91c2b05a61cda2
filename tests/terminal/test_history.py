"""The history in a file: its place, its secrecy, its damage and its size."""

import os
import stat
from pathlib import Path

import pytest

from trio_upper.terminal import history as history_room
from trio_upper.terminal.history import LONGEST_EDITED, FileHistory, history_path


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"XDG_STATE_HOME": "/state", "HOME": "/home/u"}, "/state/trio-upper/history"),
        ({"XDG_STATE_HOME": "", "HOME": "/home/u"}, "/home/u/.local/state/trio-upper/history"),
        ({"XDG_STATE_HOME": "rel", "HOME": "/home/u"}, "/home/u/.local/state/trio-upper/history"),
        ({"HOME": "/home/u"}, "/home/u/.local/state/trio-upper/history"),
        ({}, None),
    ],
)
def test_the_history_is_in_the_state_folder(environ: dict[str, str], path: str | None) -> None:
    """XDG's folder if it is absolute, else the default below the home, else none."""
    assert history_path(environ) == (path and Path(path))


def newest(path: Path) -> list[str]:
    return list(FileHistory(path).load_history_strings())


def test_a_history_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    """An existing file with a wider mode becomes the user's alone."""
    path = tmp_path / "history"
    path.touch(0o644)
    FileHistory(path).append_string("secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_damaged_history_is_read_for_what_it_is(tmp_path: Path) -> None:
    """Broken bytes, empty lines, a missing end and lines of a megabyte are no errors."""
    path = tmp_path / "history"
    path.write_bytes(b"\xff\x00\n\n" + b"x" * 500_000 + b"\nlast")
    assert newest(path) == ["last", "\udcff\0"]


@pytest.mark.parametrize("obstacle", ["directory", "fifo", "file-as-folder", "full"])
def test_a_history_that_cannot_be_is_none(
    tmp_path: Path, obstacle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands in its place, prompting goes on, and what was typed is still in memory."""
    monkeypatch.setattr(os, "fchmod", lambda fd, mode: None)  # spare the device if this fails
    path = tmp_path / "history"
    if obstacle == "directory":
        path.mkdir()
    elif obstacle == "fifo":
        os.mkfifo(path)
    elif obstacle == "file-as-folder":
        path.touch()
        path /= "history"
    else:
        path.symlink_to("/dev/full")
    history = FileHistory(path)
    assert list(history.load_history_strings()) == []
    history.append_string("typed")
    assert history.get_strings() == ["typed"]


def test_a_history_linked_to_null_spares_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to /dev/null means no history; the mode of the device is left alone."""
    changed: list[int] = []
    monkeypatch.setattr(os, "fchmod", lambda fd, mode: changed.append(fd))
    path = tmp_path / "history"
    path.symlink_to(os.devnull)
    FileHistory(path).append_string("typed")
    assert newest(path) == []
    assert changed == []


def test_the_history_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory and in the file the oldest go first, and what is too long never comes."""
    monkeypatch.setattr(history_room, "HISTORY_ENTRIES", 20)
    monkeypatch.setattr(history_room, "HISTORY_BYTES", 100)
    path = tmp_path / "history"
    history = FileHistory(path)
    for n in range(1000):
        history.append_string(f"{n:04}")
        assert path.stat().st_size <= 100 + len("0000\n")
    history.append_string("x" * (LONGEST_EDITED + 1))
    assert len(history.get_strings()) == 20
    assert newest(path)[:2] == ["0999", "0998"]
    path.write_text("".join(f"{n:04}\n" for n in range(30)))
    assert newest(path) == [f"{n:04}" for n in range(29, 10, -1)]  # the last 100 bytes' whole lines
