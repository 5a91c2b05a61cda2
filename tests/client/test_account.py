"""The account: which bytes are replies, whose words the others are, and whether all have come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_upper.client.account import (
    BANNER_BYTES,
    HEAD_BYTES,
    WORDS_BYTES,
    Account,
    Mismatch,
    find_mismatch,
)
from trio_upper.protocol import Uppercaser, full_notice, shutdown_notice


def replies(data: bytes) -> bytes:
    uppercaser = Uppercaser()
    return bytes(uppercaser.feed(data)) + uppercaser.finish()


def account_of(data: bytes, *, ended: bool = True) -> Account:
    """Return the account after `data` was sent, and the input's end if it has `ended`."""
    account = Account()
    account.sent(data)
    if ended:
        account.end_input(half_closes=True)
    return account


def receive(account: Account, data: bytes, *, step: int | None = None) -> bytes:
    """Return what of `data` is shown in the end when it comes in pieces of `step` bytes."""
    pieces = [data[at : at + step] for at in range(0, len(data), step)] if step else [data]
    return b"".join(account.received(piece) for piece in pieces) + account.flush()


steps = pytest.mark.parametrize("step", [None, 1, 2, 7])


@given(st.lists(st.binary() | st.text().map(str.encode)), st.integers(1, 9))
def test_right_replies_settle_the_account(pieces: list[bytes], step: int) -> None:
    """Whatever was sent: its upper case, in any split, is all that is owed."""
    account = Account()
    for piece in pieces:
        account.sent(piece)
    account.end_input(half_closes=True)
    reply = replies(b"".join(pieces))
    assert account.owed == len(reply)
    assert receive(account, reply, step=step) == reply
    assert account.settled
    assert not account.words
    assert account.mismatch is None


@given(st.binary(min_size=1), st.data())
def test_what_is_missing_is_counted_to_the_byte(data: bytes, draw: st.DataObject) -> None:
    """A reply that breaks off leaves exactly its rest unanswered."""
    account = account_of(data)
    reply = replies(data)
    came = draw.draw(st.integers(0, len(reply) - 1))
    assert receive(account, reply[:came]) == reply[:came]
    assert account.unanswered == len(reply) - came
    assert not account.settled


@given(
    st.lists(st.binary(min_size=1, max_size=3 * BANNER_BYTES), min_size=1, max_size=4),
    st.integers(1, 5000),
    st.data(),
)
def test_every_byte_is_compared(pieces: list[bytes], step: int, draw: st.DataObject) -> None:
    """Wherever a byte is changed, it is found, and nothing from it on is shown."""
    account = Account()
    for piece in pieces:
        account.sent(piece)
    account.end_input(half_closes=True)
    reply = bytearray(replies(b"".join(pieces)))
    at = draw.draw(st.integers(0, len(reply) - 1))
    owed = reply[at]
    reply[at] ^= draw.draw(st.integers(1, 255))
    shown = receive(account, bytes(reply), step=step)
    assert account.mismatch == Mismatch(position=at + 1, came=reply[at], owed=owed)
    assert account.answered == at
    assert bytes(reply[:at]).startswith(shown)
    assert account.words
    if at >= BANNER_BYTES:
        assert len(shown) == at


def test_nothing_is_settled_before_the_input_ends() -> None:
    """All answered is not the end as long as more may be sent."""
    account = account_of(b"hi", ended=False)
    receive(account, b"HI")
    assert not account.settled
    account.end_input(half_closes=True)
    assert account.settled


def test_a_character_cut_by_the_end_is_owed_only_where_the_peer_learns_of_the_end() -> None:
    """Without a half-close an incomplete last character stays unanswered, and is not waited for."""
    told, untold = Account(), Account()
    for account in (told, untold):
        account.sent(b"a\xe2\x82")
        assert account.answerable == 1
    told.end_input(half_closes=True)
    untold.end_input(half_closes=False)
    for account in (told, untold):
        assert account.answerable == 1
        account.received(b"A")
        assert account.unanswered == 2
        assert account.answerable == 0
    assert not told.settled
    assert untold.settled
    told.received(b"\xe2\x82")
    assert told.settled
    assert told.answerable == 0


def test_a_partial_reply_without_more_owed_is_shown_at_once() -> None:
    """A message needs no newline to be answered and shown."""
    account = account_of(b"hello", ended=False)
    assert account.received(b"HELLO") == b"HELLO"


def test_an_unfinished_line_whose_rest_is_owed_waits_for_it() -> None:
    """Whole lines are shown at once, the rest when it is whole or the conversation is over."""
    account = account_of(b"one\ntwo\nthree\n")
    assert account.received(b"ONE\nT") == b"ONE\n"
    assert account.received(b"WO\nTH") == b"TWO\n"
    assert account.unanswered == 4
    assert account.flush() == b"TH"
    assert account.flush() == b""


def test_beyond_the_first_bytes_nothing_is_held_back() -> None:
    """A line of any length is shown as it comes, once it is too long for a banner."""
    account = account_of(b"x" * 3 * BANNER_BYTES)
    assert account.received(b"X" * (BANNER_BYTES - 1)) == b""
    assert account.received(b"X") == b"X" * BANNER_BYTES
    assert account.received(b"X") == b"X"


@steps
@pytest.mark.parametrize(
    ("sent", "peer", "shown", "words"),
    [
        (b"hello\n", b"hello\n", b"", b"hello\n"),  # an echo
        (b"hello\nyou\n", b"HELLO\nyou\n", b"HELLO\n", b"you\n"),
        (b"hello\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"", b"SSH-2.0-OpenSSH_9.2\r\n"),
        (b"hello\n", b"GO AWAY\n", b"", b"GO AWAY\n"),
        (b"hello\n", b"HELP!\n", b"", b"HELP!\n"),
        (b"one\nhello\n", b"ONE\nHELP!\n", b"ONE\n", b"HELP!\n"),
        (b"", b"220 READY\r\n", b"", b"220 READY\r\n"),
        (b"hi", b"HI THERE", b"HI", b" THERE"),
        (b"hi\n", b"HI\n" + full_notice(5), b"HI\n", full_notice(5)),
        (b"hi", b"HI\n" + full_notice(5), b"HI", b"\n" + full_notice(5)),
        (b"hi\nyou\n", b"HI\n" + shutdown_notice(), b"HI\n", shutdown_notice()),
        (b"hi\nyou\n", b"HI\nYO\n" + shutdown_notice(), b"HI\nYO", b"\n" + shutdown_notice()),
    ],
)
def test_words_begin_where_the_replies_end(
    sent: bytes, peer: bytes, shown: bytes, words: bytes, step: int | None
) -> None:
    """A peer's own words are told from replies, in any split, and nothing of them is shown."""
    account = account_of(sent)
    assert receive(account, peer, step=step) == shown
    assert account.words == words


def test_beyond_the_first_bytes_all_that_is_right_is_shown() -> None:
    """Words after a long exchange begin with the byte that is wrong."""
    account = account_of(b"x\n" * 2 * BANNER_BYTES)
    reply = b"X\n" * BANNER_BYTES
    assert receive(account, reply + b"X\nXerror\nX") == reply + b"X\nX"
    assert account.words == b"error\nX"
    assert account.unanswered == 4 * BANNER_BYTES - len(reply) - 3
    assert not account.foreign


@pytest.mark.parametrize(
    ("sent", "peer", "foreign"),
    [
        (b"hello\n", b"hello\n", True),
        (b"hello\n", b"HELP!\n", True),
        (b"one\ntwo\n", b"ONE\nTWx\n", False),
        (b"one\n", b"ONE\nBYE\n", True),
        (b"one\n", b"ONE\n", False),
        (b"one\n", full_notice(5), False),
        (b"x" * 2 * BANNER_BYTES, b"X" * BANNER_BYTES + b"Y", False),
    ],
)
def test_a_peer_is_foreign_by_its_first_line_or_by_a_byte_too_many(
    sent: bytes, peer: bytes, foreign: bool
) -> None:
    """A peer that upper-cased a line correctly is a server that made a mistake."""
    account = account_of(sent)
    receive(account, peer)
    assert account.foreign is foreign


def test_of_a_long_line_the_end_is_quoted() -> None:
    """With a little of what was right before the wrong byte."""
    account = account_of(b"x" * 1000)
    assert receive(account, b"X" * 500 + b"y" * 500) == b""
    assert account.words == b"X" * HEAD_BYTES + b"y" * 500


def test_words_are_kept_as_far_as_they_are_worth_quoting() -> None:
    """A peer that never stops talking fills no memory."""
    account = account_of(b"")
    account.received(b"w" * 2 * WORDS_BYTES)
    assert account.received(b"w") == b""
    assert account.words == b"w" * WORDS_BYTES
    assert account.words_complete


def test_words_are_complete_with_their_line() -> None:
    """The newline before a notice is not the end of its line."""
    account = account_of(b"")
    account.received(b"\n")
    account.received(b"trio-upper: full")
    assert not account.words_complete
    account.received(b"\n")
    assert account.words_complete
    assert account.notice == "trio-upper: full"


def test_what_was_right_on_their_line_does_not_complete_the_words() -> None:
    """Neither by its length, nor do words end with the newline that they begin with."""
    account = account_of(b"x" * HEAD_BYTES)
    account.received(b"X" * (HEAD_BYTES - 1) + b"\n")
    account.received(b"w" * (WORDS_BYTES - 2))
    assert not account.words_complete
    account.received(b"w")
    assert account.words_complete


def test_the_shortest_line_of_words_is_complete() -> None:
    """It is one character."""
    account = account_of(b"")
    account.received(b"?\n")
    assert account.words_complete


def test_foreign_words_are_no_notice() -> None:
    """Only the server's own line counts as a notice."""
    account = account_of(b"")
    account.received(b"hello, trio-upper: no\n")
    assert account.notice is None


@pytest.mark.parametrize(
    ("sent", "came", "said"),
    [
        (
            b"hello",
            b"HElLO",
            "byte 3 of the replies is wrong: 'l' (0x6c) came, 'L' (0x4c) was owed",
        ),
        (b"hello", b"\x00ELLO", "byte 1 of the replies is wrong: 0x00 came, 'H' (0x48) was owed"),
        (b"'", b"\xff", """byte 1 of the replies is wrong: 0xff came, "'" (0x27) was owed"""),
        (b"hello", b"HELLO!", "byte 6 of the replies, '!' (0x21), is one too many"),
        (b"x" * 999, b"X" * 1000, "byte 1,000 of the replies, 'X' (0x58), is one too many"),
        (
            b"x" * 5000,
            b"X" * 4095 + b"Y",
            "byte 4,096 of the replies is wrong: 'Y' (0x59) came, 'X' (0x58) was owed",
        ),
    ],
)
def test_the_first_wrong_byte(sent: bytes, came: bytes, said: str) -> None:
    """Where it is, counted from 1, what came, and what was owed; no byte harms a terminal."""
    account = account_of(sent)
    account.received(came)
    assert str(account.mismatch) == said


@pytest.mark.parametrize(
    ("came", "mismatch"),
    [
        (b"", None),
        (b"HEL", None),
        (b"HELLO", None),
        (b"HELP", Mismatch(position=104, came=ord("P"), owed=ord("L"))),
        (b"HELLO!", Mismatch(position=106, came=ord("!"), owed=None)),
    ],
)
def test_where_a_reply_goes_wrong(came: bytes, mismatch: Mismatch | None) -> None:
    """For a reply that is known as a whole; what has not come yet is not wrong."""
    assert find_mismatch(came, b"HELLO", before=100) == mismatch


def test_without_bytes_before_it_a_reply_begins_the_count() -> None:
    """Its first byte is byte 1."""
    assert find_mismatch(b"h", b"H") == Mismatch(position=1, came=ord("h"), owed=ord("H"))
