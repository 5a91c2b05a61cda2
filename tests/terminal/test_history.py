"""The history in a file: where it is, who may read it, and what may be wrong with it."""

import os
import stat
from pathlib import Path

import platformdirs
import pytest
from prompt_toolkit.history import InMemoryHistory

from trio_upper.terminal import history as history_module
from trio_upper.terminal.history import LINE_CHARACTERS, history_path, open_history


@pytest.mark.parametrize(
    ("state", "path"),
    [
        ("/state", "/state/trio-upper/history"),
        ("", "/home/u/.local/state/trio-upper/history"),
        (None, "/home/u/.local/state/trio-upper/history"),
    ],
)
def test_the_history_is_in_the_state_folder(
    state: str | None, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XDG's folder if there is one, else the default below the home."""
    monkeypatch.setenv("HOME", "/home/u")
    if state is None:
        monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    else:
        monkeypatch.setenv("XDG_STATE_HOME", state)
    assert history_path() == Path(path)


def test_a_user_without_a_home_has_no_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that is not absolute would be one in whatever folder the command is run."""
    monkeypatch.setattr(platformdirs, "user_state_path", lambda *_, **__: Path("~"))
    assert history_path() is None
    assert isinstance(open_history(None), InMemoryHistory)


def newest(path: Path) -> list[str]:
    return list(open_history(path).load_history_strings())


def test_a_history_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    """An existing file with a wider mode becomes the user's alone."""
    path = tmp_path / "history"
    path.touch(0o644)
    open_history(path).append_string("secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert newest(path) == ["secret"]


def test_a_damaged_history_is_read_for_what_it_is(tmp_path: Path) -> None:
    """Broken bytes, lines of no entry, a missing end and lines of a megabyte are no errors."""
    path = tmp_path / "history"
    path.write_bytes(b"+\xff\0\n\nolder format\n+" + b"x" * 500_000 + b"\n\n+last\n")
    assert newest(path) == ["last", "\ufffd\0"]


@pytest.mark.parametrize("obstacle", ["directory", "fifo", "file-as-folder", "full"])
def test_a_history_that_cannot_be_is_in_memory(
    tmp_path: Path, obstacle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands in its place, prompting goes on, and what was typed is still known."""
    monkeypatch.setattr(Path, "chmod", lambda path, mode: None)  # spare the device if this fails
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
    history = open_history(path)
    assert list(history.load_history_strings()) == []
    history.append_string("typed")
    assert history.get_strings() == ["typed"]


def test_a_history_that_fails_later_is_no_reason_to_fail(tmp_path: Path) -> None:
    """Something else may take its place while the client runs."""
    path = tmp_path / "history"
    history = open_history(path)
    path.unlink()
    path.mkdir()
    assert list(history.load_history_strings()) == []
    history.append_string("typed")
    assert history.get_strings() == ["typed"]


def test_a_history_linked_to_null_spares_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to /dev/null means no history; the mode of the device is left alone."""
    changed: list[Path] = []
    monkeypatch.setattr(Path, "chmod", lambda path, mode: changed.append(path))
    path = tmp_path / "history"
    path.symlink_to(os.devnull)
    open_history(path).append_string("typed")
    assert newest(path) == []
    assert changed == []


def test_the_history_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory the oldest go first; a file that is full loses its older half when it is opened."""
    monkeypatch.setattr(history_module, "HISTORY_LINES", 20)
    monkeypatch.setattr(history_module, "HISTORY_BYTES", 1000)
    path = tmp_path / "history"
    history = open_history(path)
    for n in range(100):
        history.append_string(f"{n:04}")
    assert len(history.get_strings()) == 20
    assert path.stat().st_size > 1000
    kept = newest(path)
    assert kept[:2] == ["0099", "0098"]
    assert len(kept) < 20
    assert path.stat().st_size <= 500
    assert path.read_bytes().startswith(b"\n# ")
    history = open_history(path)
    for n in range(25):
        history.append_string(f"{n:04}")
    assert newest(path)[:2] == ["0024", "0023"]
    history.append_string("x" * (LINE_CHARACTERS + 1))
    assert newest(path) == []  # the newest line alone is more than is kept
