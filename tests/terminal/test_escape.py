"""Escaping: what may be shown as it is, and what is spelled out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_upper.terminal.escape import Escaper, escape, is_safe


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", r"\x1b[31m"),
        ("a\tb\rc\0\x7f", r"a\tb\rc\x00\x7f"),
        ("\x9b2J", r"\u009b2J"),
        (b"\x9b2J \xff", r"\x9b2J \xff"),
        (b"\xe2\x82", r"\xe2\x82"),
        ("\u202egpj.exe\u2066", r"\u202egpj.exe\u2066"),
        ("\u200b\ufeff\xad\u2028", r"\u200b\ufeff\u00ad\u2028"),
        ("\U000e0041\U0001d173", r"\U000e0041\U0001d173"),
        ("\u3164\u115f\u1160\uffa0", r"\u3164\u115f\u1160\uffa0"),
        ("\u2066\u061c\u180e", r"\u2066\u061c\u180e"),
        ("\udcff", r"\udcff"),
        ("two\nlines", "two\nlines"),
        ("STRASSE \\ 日本 👩\u200d🚀 \ue000", "STRASSE \\ 日本 👩\u200d🚀 \ue000"),
        ("\u0645\u06cc\u200c\u062e \u0308 €½\xa0", "\u0645\u06cc\u200c\u062e \u0308 €½\xa0"),
    ],
)
def test_escape_shows_what_could_drive_a_terminal(text: str | bytes, shown: str) -> None:
    """Control characters, direction overrides and broken bytes are spelled out; text stays."""
    assert escape(text) == shown


SHARDS = [b"\xf0", b"\x9f", b"\x9a", b"\x80", b"\xe2", b"\x82", b"\xac", b"\xed", b"\x1b", b"\n"]


@given(st.lists(st.sampled_from(SHARDS) | st.text().map(str.encode)))
def test_escaping_does_not_depend_on_the_split(pieces: list[bytes]) -> None:
    """A stream cut anywhere is escaped as if it had come whole, and nothing unsafe is left."""
    escaper = Escaper()
    shown = "".join(map(escaper.feed, pieces)) + escaper.finish()
    assert shown == escape(b"".join(pieces))
    assert all(is_safe(character) or character == "\n" for character in shown)


def test_an_escaper_holds_back_only_a_code_point_that_is_cut() -> None:
    """Three of the four bytes of a code point wait; the letter before them does not."""
    escaper = Escaper()
    assert escaper.feed(b"A\xf0\x9f\x9a") == "A"
    assert escaper.feed(b"\x80") == "🚀"
    assert escaper.finish() == ""
