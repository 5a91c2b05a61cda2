"""Why a message was not answered: one line for each kind, harmless to a terminal."""

import errno

import pytest
import trio
from tests.helpers.commands import cannot_connect

from trio_upper.cli.reasons import Reasons, explain
from trio_upper.client.failures import Cause
from trio_upper.measure.exchange import Failed, Trouble
from trio_upper.protocol import full_notice, idle_notice, shutdown_notice

REPLY_TIMEOUT = 30.0


def reset(number: int = errno.ECONNRESET) -> trio.BrokenResourceError:
    error = trio.BrokenResourceError()
    error.__cause__ = OSError(number, "")
    return error


@pytest.mark.parametrize(
    ("failed", "words"),
    [
        (Failed(Trouble.UNCONNECTED, error=cannot_connect()), str(cannot_connect())),
        (Failed(Trouble.CLOSED), "the server closed the connection"),
        (Failed(Trouble.BROKEN, error=reset()), "the server reset the connection"),
        (Failed(Trouble.SILENT), "no reply for 30 s"),
        (
            Failed(Trouble.NOTICE, words=b"\n" + full_notice(7)),
            "full, 7 clients are connected; try again later",
        ),
        (Failed(Trouble.NOTICE, words=b"trio-upper: \x1b[2J"), "\\x1b[2J"),
        (
            Failed(Trouble.WRONG, words=b"SSH-2.0-x\r\n", owed=b"AAAAAB\n", position=1),
            "'SSH-2.0-x' came instead of 'AAAAAB', wrong from byte 1 on",
        ),
        (
            Failed(Trouble.WRONG, words=b"\x1b[2J", owed=b"A\n", position=4000),
            "'\\x1b[2J' came instead of 'A', wrong from byte 4,000 on",
        ),
        (
            Failed(Trouble.WRONG, words=b"MORE", position=33),
            "more came than was owed: 'MORE'",
        ),
        (Failed(Trouble.WRONG, words=b"\x15\x03\x03\0\2\2\n"), Cause.TLS_WANTED.sentence),
        (Failed(Trouble.INTERRUPTED), "interrupted before a reply came"),
    ],
    ids=[
        "unconnected",
        "closed",
        "broken",
        "silent",
        "notice",
        "hostile notice",
        "foreign",
        "hostile",
        "more",
        "TLS",
        "interrupted",
    ],
)
def test_each_trouble_is_one_line(failed: Failed, words: str) -> None:
    """In plain words, with nothing that a terminal would obey."""
    assert str(explain(failed, REPLY_TIMEOUT)) == words


def wrong(words: bytes) -> Failed:
    return Failed(Trouble.WRONG, words=words, owed=b"A\n", position=1)


def test_like_reasons_are_counted_together() -> None:
    """Under the words of the first one; the most frequent come first."""
    reasons = Reasons(REPLY_TIMEOUT)
    reasons.add(Failed(Trouble.NOTICE, words=idle_notice(1)))
    for words in (b"one", b"two", b"three"):
        assert words.decode() in reasons.add(wrong(words))
    for seconds in (1, 2):
        reasons.add(Failed(Trouble.UNCONNECTED, error=cannot_connect(seconds=seconds)))
    reasons.add(Failed(Trouble.NOTICE, words=shutdown_notice()))
    reasons.add(Failed(Trouble.BROKEN, error=reset()))
    reasons.add(Failed(Trouble.BROKEN, error=reset(errno.ETIMEDOUT)))
    lines = reasons.lines()
    assert lines == [
        "3 x 'one' came instead of 'A', wrong from byte 1 on",
        "2 x closing, no message for 1 s",
        f"2 x {cannot_connect(seconds=1)}",
        "1 x the server reset the connection",
        "1 x the server's machine no longer answers",
    ]
    assert [f"{count} x {words}" for words, count in reasons.counts.items()] != lines
    assert sorted(f"{count} x {words}" for words, count in reasons.counts.items()) == sorted(lines)


def test_a_hint_stands_once() -> None:
    """With the first failure of its kind; after that it would only be in the way."""
    reasons = Reasons(REPLY_TIMEOUT)
    first, second = (
        reasons.add(Failed(Trouble.UNCONNECTED, error=cannot_connect(seconds=seconds)))
        for seconds in (1, 2)
    )
    assert first == str(cannot_connect(seconds=1))
    hint = f": {cannot_connect().hint}"
    assert f"{second}{hint}" == str(cannot_connect(seconds=2))
    assert reasons.lines(hints=False) == [f"2 x {first.removesuffix(hint)}"]
