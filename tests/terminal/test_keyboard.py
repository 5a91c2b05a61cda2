"""The keyboard: what is pressed and what is pasted, in whatever pieces it is read."""

import os
from collections.abc import Iterator

import pytest
from prompt_toolkit.keys import Keys

from trio_upper.terminal.keyboard import Keyboard

MARKED = "keys\x1b[200~a\r\nb\x1b[201~\x1b[Ax"


@pytest.fixture
def keys() -> Iterator[tuple[int, Keyboard]]:
    """A descriptor to type into and the keyboard that reads it; a pipe, which delays nothing."""
    output, typist = os.pipe()
    yield typist, Keyboard(output)
    os.close(output)
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
