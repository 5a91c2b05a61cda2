"""The account: which bytes are replies, whose words the others are, and whether all have come."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_upper.client.account import COMPARED_BYTES, WORDS_BYTES, Account
from trio_upper.protocol import Uppercaser, full_notice, shutdown_notice


def replies(data: bytes) -> bytes:
    uppercaser = Uppercaser()
    return bytes(uppercaser.feed(data)) + uppercaser.finish()


def account_of(data: bytes, *, ended: bool = True) -> Account:
    """Return the account after `data` was sent, and the input's end if it has `ended`."""
    account = Account()
    account.sent(data)
    if ended:
        account.end_input(half_closed=True)
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
    account.end_input(half_closed=True)
    reply = replies(b"".join(pieces))
    assert account.owed == len(reply)
    assert receive(account, reply, step=step) == reply
    assert account.settled
    assert not account.words


@given(st.binary(min_size=1), st.data())
def test_what_is_missing_is_counted_to_the_byte(data: bytes, draw: st.DataObject) -> None:
    """A reply that breaks off leaves exactly its rest unanswered."""
    account = account_of(data)
    reply = replies(data)
    came = draw.draw(st.integers(0, len(reply) - 1))
    assert receive(account, reply[:came]) == reply[:came]
    assert account.unanswered == len(reply) - came
    assert not account.settled


def test_what_is_sent_after_the_compared_bytes_is_owed_as_well() -> None:
    """The account goes on where the comparison ends."""
    account = account_of(b"x" * COMPARED_BYTES, ended=False)
    account.sent("ß".encode())
    assert account.owed == COMPARED_BYTES + 2


def test_nothing_is_settled_before_the_input_ends() -> None:
    """All answered is not the end as long as more may be sent."""
    account = account_of(b"hi", ended=False)
    receive(account, b"HI")
    assert not account.settled
    account.end_input(half_closed=True)
    assert account.settled


def test_a_character_cut_by_the_end_is_owed_only_where_the_peer_learns_of_the_end() -> None:
    """Without a half-close an incomplete last character stays unanswered; nobody waits for it."""
    told, untold = Account(), Account()
    for account in (told, untold):
        account.sent(b"a\xe2\x82")
    told.end_input(half_closed=True)
    untold.end_input(half_closed=False)
    for account in (told, untold):
        account.received(b"A")
        assert account.unanswered == 2
    assert not told.settled
    assert untold.settled


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


def test_beyond_the_compared_bytes_nothing_is_held_back() -> None:
    """A line of any length is shown as it comes."""
    account = account_of(b"x" * 3 * COMPARED_BYTES)
    assert account.received(b"X" * COMPARED_BYTES) == b"X" * COMPARED_BYTES
    assert account.received(b"X") == b"X"


@steps
@pytest.mark.parametrize(
    ("sent", "peer", "shown", "words"),
    [
        (b"hello\n", b"hello\n", b"", b"hello\n"),  # an echo
        (b"hello\nyou\n", b"HELLO\nyou\n", b"HELLO\n", b"you\n"),
        (b"hello\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"", b"SSH-2.0-OpenSSH_9.2\r\n"),
        (b"hello\n", b"GO AWAY\n", b"", b"GO AWAY\n"),
        (b"hello\n", b"HELP!\n", b"HEL", b"P!\n"),
        (b"", b"220 READY\r\n", b"", b"220 READY\r\n"),
        (b"hi", b"HI THERE", b"HI", b" THERE"),
        (b"hi\n", b"HI\n" + full_notice(5), b"HI\n", full_notice(5)),
        (b"hi", b"HI\n" + full_notice(5), b"HI", b"\n" + full_notice(5)),
        (b"hi\nyou\n", b"HI\n" + shutdown_notice(), b"HI\n", shutdown_notice()),
    ],
)
def test_words_begin_where_the_replies_end(
    sent: bytes, peer: bytes, shown: bytes, words: bytes, step: int | None
) -> None:
    """A peer's own words are told from replies, in any split, and nothing of them is shown."""
    account = account_of(sent)
    assert receive(account, peer, step=step) == shown
    assert account.words == words


def test_beyond_the_compared_bytes_a_lower_case_letter_unmasks_words() -> None:
    """Words after a long exchange begin with the line of their first lower-case letter."""
    account = account_of(b"x\n" * 2 * COMPARED_BYTES)
    reply = b"X\n" * COMPARED_BYTES
    assert receive(account, reply + b"X\nBroken pipe\nX") == reply + b"X\n"
    assert account.words == b"Broken pipe\nX"
    assert account.unanswered == 4 * COMPARED_BYTES - len(reply) - 2


@pytest.mark.parametrize("letter", string.ascii_lowercase)
def test_each_lower_case_letter_unmasks_words(letter: str) -> None:
    """Beyond the compared bytes nothing else does; no reply contains one."""
    account = account_of(b"x" * COMPARED_BYTES + b"\nyy\n")
    reply = b"X" * COMPARED_BYTES + b"\n"
    foreign = b"Y" + letter.encode() + b"\n"
    assert receive(account, reply + foreign) == reply
    assert account.words == foreign


def test_words_begin_with_the_first_line_that_has_a_lower_case_letter() -> None:
    """Whichever letters stand in the lines after it."""
    account = account_of(b"x\n" * 2 * COMPARED_BYTES)
    reply = b"X\n" * COMPARED_BYTES
    assert receive(account, reply + b"X\nZz\nX\nAa\nMm\n") == reply + b"X\n"
    assert account.words == b"Zz\nX\nAa\nMm\n"


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


def test_foreign_words_are_no_notice() -> None:
    """Only the server's own line counts as a notice."""
    account = account_of(b"")
    account.received(b"hello, trio-upper: no\n")
    assert account.notice is None
