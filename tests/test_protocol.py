"""The wire: the transform in any split, and the notices."""

import sys
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_upper.protocol import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    Responder,
    Uppercaser,
    full_notice,
    idle_notice,
    read_notice,
    shutdown_notice,
)

KEYS = {4: "GHI", 6: "MNO", 7: "PQRS", 8: "TUV"}


def upper(data: bytes) -> bytes:
    """Say what the reply to `data` must be, the slow way: a code point at a time, by trial."""
    reply = bytearray()
    at = 0
    while at < len(data):
        for length in (1, 2, 3, 4):
            try:
                reply += data[at : at + length].decode().upper().encode()
            except UnicodeDecodeError:
                continue
            break
        else:
            length = 1
            reply += data[at : at + 1]
        at += length
    return bytes(reply)


def transform(pieces: list[bytes]) -> bytes:
    uppercaser = Uppercaser()
    return b"".join([*(uppercaser.feed(piece) for piece in pieces), uppercaser.finish()])


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


# All but surrogates, which UTF-8 does not have, private ones, and those without a character yet.
ASSIGNED = "".join(
    chr(point)
    for point in range(sys.maxunicode + 1)
    if unicodedata.category(chr(point)) not in {"Cs", "Co", "Cn"}
)

# Text, bytes that are not UTF-8, and the two glued together, which cuts code points in two.
messages = st.lists(
    st.one_of(st.text().map(str.encode), st.binary(), st.text().map(lambda text: text.encode()[1:]))
).map(b"".join)


def test_every_code_point_is_mapped_as_str_upper_maps_it() -> None:
    """The reply to all of Unicode is its upper case, whole and byte by byte."""
    data = ASSIGNED.encode()
    assert transform([data]) == ASSIGNED.upper().encode()
    assert transform(byte_by_byte(data)) == ASSIGNED.upper().encode()


def test_no_code_point_becomes_an_ascii_lower_case_letter() -> None:
    """A reply never contains an ASCII lower-case letter, which is what marks a notice."""
    assert not set(b"abcdefghijklmnopqrstuvwxyz") & set(transform([ASSIGNED.encode()]))


def test_no_mapping_makes_or_eats_a_newline() -> None:
    """One line in is one line out."""
    assert [char for char in ASSIGNED if b"\n" in transform([char.encode()])] == ["\n"]


@given(messages)
@example("Straße ŉ ΐ".encode())
@example(b"\xed\xa0\x80 a surrogate")
@example(b"\xf0\x9f\x98")
def test_bytes_that_are_not_utf8_pass_unchanged(data: bytes) -> None:
    """Any bytes are answered as the slow way has it; those that are not UTF-8 stay as they are."""
    assert transform([data]) == upper(data)


@given(messages, st.data())
def test_any_split_gives_the_same_bytes(data: bytes, draw: st.DataObject) -> None:
    """The reply does not depend on how the input was cut into pieces."""
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)))))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert transform(pieces) == transform([data])
    assert transform(byte_by_byte(data)) == transform([data])


@given(messages)
def test_at_most_three_bytes_are_held_back(data: bytes) -> None:
    """What is whole is answered at once; what is not is at most 3 bytes."""
    uppercaser = Uppercaser()
    answered = uppercaser.feed(data)
    held = uppercaser.finish()
    assert len(held) <= 3
    assert answered + held == upper(data)
    assert uppercaser.finish() == b""


def test_a_bytearray_is_as_good_as_bytes() -> None:
    """Both ways through the transform take what a stream may return."""
    assert Uppercaser().feed(bytearray(b"abc")) == b"ABC"
    assert Uppercaser().feed(bytearray("ä".encode())) == "Ä".encode()


@given(st.lists(messages))
def test_a_responder_answers_and_counts(pieces: list[bytes]) -> None:
    """Its replies are those of the transform, and its counts are theirs."""
    responder = Responder()
    reply = b"".join([*(responder.answer(piece) for piece in pieces), responder.finish()])
    assert reply == transform(pieces)
    assert (responder.received, responder.replied) == (sum(map(len, pieces)), len(reply))
    assert responder.line_open == (reply != b"" and not reply.endswith(b"\n"))


def test_a_line_stays_as_it_is_while_a_code_point_is_cut() -> None:
    """The bytes that are held back change nothing yet; at the end they open a line."""
    responder = Responder()
    assert responder.answer(b"x\n\xc3") == b"X\n"
    assert responder.answer(b"") == b""
    assert not responder.line_open
    assert responder.finish() == b"\xc3"
    assert responder.line_open


@pytest.mark.parametrize(
    ("notice", "text"),
    [
        (full_notice(5), "trio-upper: full, 5 clients are connected; try again later"),
        (idle_notice(600.0), "trio-upper: closing, no message for 600 s"),
        (idle_notice(0.5), "trio-upper: closing, no message for 0.5 s"),
        (idle_notice(1_000_000), "trio-upper: closing, no message for 1000000 s"),
        (idle_notice(100000.5), "trio-upper: closing, no message for 100000.5 s"),
        (shutdown_notice(), "trio-upper: closing, the server is shutting down"),
    ],
)
def test_a_notice_is_one_line_that_can_be_recognised(notice: bytes, text: str) -> None:
    """Each notice reads as the specification has it, also when the last reply left a line open."""
    assert notice == text.encode() + b"\n"
    assert read_notice(notice) == text
    assert read_notice(b"\n" + notice) == text
    assert read_notice(notice + b"more") == text


def test_a_damaged_notice_is_shown_as_far_as_it_can_be() -> None:
    """It is for a person, and no reason to fail."""
    assert read_notice(b"trio-upper: f\xffll\n") == "trio-upper: f\ufffdll"


def test_where_a_server_is_if_nobody_says_otherwise() -> None:
    """On this machine alone, at T-R-I-O on the keys of a telephone."""
    keys = {letter: str(key) for key, letters in KEYS.items() for letter in letters}
    assert str(DEFAULT_PORT) == "".join(keys[letter] for letter in "TRIO")
    assert DEFAULT_HOST == "127.0.0.1"


@pytest.mark.parametrize("words", [b"", b"\n", b"SSH-2.0-x\n", b"trio-upper", b"\n\ntrio-upper: x"])
def test_other_words_are_no_notice(words: bytes) -> None:
    """What does not begin like a notice is none."""
    assert read_notice(words) is None
