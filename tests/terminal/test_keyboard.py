"""The keyboard: what is pressed and what is pasted, in whatever pieces it is read."""

import os
import termios
import time
from collections.abc import Iterator

import pytest
from prompt_toolkit.keys import Keys

from trio_upper.platform import terminal
from trio_upper.terminal.keyboard import REST_SECONDS, Keyboard
from trio_upper.terminal.lease import borrow

MARKED = "keys\x1b[200~a\r\nb\x1b[201~\x1b[A\x1b[38;5;1mx"


@pytest.fixture
def keys() -> Iterator[tuple[int, Keyboard]]:
    """A descriptor to type into and the keyboard that reads it."""
    typist, tty = os.openpty()
    with borrow(tty) as lease:
        lease.use(terminal.raw)
        yield typist, Keyboard(lease)
    os.close(tty)
    os.close(typist)


@pytest.mark.parametrize("cut", range(1, len(MARKED)))
def test_the_marks_of_a_paste_may_be_cut_anywhere(cut: int, keys: tuple[int, Keyboard]) -> None:
    """Wherever two reads meet, what is pasted is told from what is pressed; CRLF is one end."""
    typist, keyboard = keys
    pressed = []
    for piece in [MARKED[:cut], MARKED[cut:]]:
        os.write(typist, piece.encode())
        pressed += keyboard.read_keys()
    pasted = [key for key in pressed if key.key == Keys.BracketedPaste]
    assert "".join(key.data for key in pasted) == "a\nb"
    assert [key.key for key in pressed if key not in pasted] == [*"keys", Keys.Up, "x"]
    assert pressed.index(pasted[0]) == len("keys")


def test_escape_alone_is_a_key(keys: tuple[int, Keyboard]) -> None:
    """An Escape might begin a paste, so it waits; if nothing follows, it is what was pressed."""
    typist, keyboard = keys
    os.write(typist, b"\x1b")
    assert keyboard.read_keys() == []
    assert [key.key for key in keyboard.flush_keys()] == [Keys.Escape]


def test_a_pause_in_a_paste_does_not_end_it(keys: tuple[int, Keyboard]) -> None:
    """Half an end mark waits for its other half, however long."""
    typist, keyboard = keys
    os.write(typist, b"\x1b[200~a\x1b[2")
    assert [key.data for key in keyboard.read_keys()] == ["a"]
    assert keyboard.flush_keys() == []
    os.write(typist, b"01~b")
    assert [key.key for key in keyboard.read_keys()] == ["b"]


def test_a_sequence_of_which_the_rest_never_comes_is_what_was_pressed(
    keys: tuple[int, Keyboard],
) -> None:
    """Escape and a bracket may be two keys."""
    typist, keyboard = keys
    os.write(typist, b"\x1b[3")
    assert keyboard.read_keys() == []
    assert [key.key for key in keyboard.flush_keys()] == [Keys.Escape, "[", "3"]


def test_function_keys_of_the_linux_console(keys: tuple[int, Keyboard]) -> None:
    """Their sequences have a second bracket, with which others would be at their end."""
    typist, keyboard = keys
    os.write(typist, b"\x1b[[")
    assert keyboard.read_keys() == []
    os.write(typist, b"Ax")
    assert [key.key for key in keyboard.read_keys()] == [Keys.F1, "x"]


def test_ctrl_d_in_the_modes_of_somebody_else(keys: tuple[int, Keyboard]) -> None:
    """It comes as an end of file, which is no hang-up; and the modes are ours again."""
    typist, keyboard = keys
    ours = termios.tcgetattr(keyboard.fileno())
    theirs = termios.tcgetattr(keyboard.fileno())
    theirs[3] |= termios.ICANON
    termios.tcsetattr(keyboard.fileno(), termios.TCSANOW, theirs)
    os.write(typist, b"\x04")
    assert [key.key for key in keyboard.read_keys()] == [Keys.ControlD]
    assert not keyboard.closed
    assert not termios.tcgetattr(keyboard.fileno())[3] & termios.ICANON
    assert termios.tcgetattr(keyboard.fileno())[3] == ours[3]


def test_what_is_typed_for_a_shell_is_left_to_it(
    keys: tuple[int, Keyboard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the background nothing is read; the loop that asks does not spin meanwhile."""
    typist, keyboard = keys
    rests: list[float] = []
    monkeypatch.setattr(time, "sleep", rests.append)
    with monkeypatch.context() as background:
        background.setattr(terminal, "in_foreground", lambda _: False)
        os.write(typist, b"x")
        assert keyboard.read_keys() == []
    assert rests == [REST_SECONDS]
    assert [key.key for key in keyboard.read_keys()] == ["x"]


def test_nothing_to_read(keys: tuple[int, Keyboard]) -> None:
    """Somebody else may have read it."""
    _, keyboard = keys
    assert keyboard.read_keys() == []
    assert not keyboard.closed
