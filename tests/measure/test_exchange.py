"""The messages of a measurement: each has one right reply, and no other one."""

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from trio_upper.client.connect import Retries
from trio_upper.measure.exchange import ASCII_TEXT, OTHER_TEXT, first_exchange, make_message
from trio_upper.measure.settings import SMALLEST_BYTES


@given(
    number=st.integers(min_value=0, max_value=10**12),
    size=st.integers(min_value=SMALLEST_BYTES, max_value=300),
    text=st.sampled_from([ASCII_TEXT, OTHER_TEXT]),
)
def test_a_message_is_a_line_that_no_echo_answers(number: int, size: int, text: str) -> None:
    """Its size is kept to the byte, also where a letter of two bytes would have been cut."""
    message, reply = make_message(number, size, text)
    assert len(message) == len(reply) == size
    assert message.index(b"\n") == size - 1
    assert reply == message.decode().upper().encode() != message


@given(
    number=st.integers(min_value=0),
    size=st.integers(min_value=SMALLEST_BYTES, max_value=SMALLEST_BYTES + 20),
)
def test_a_message_differs_from_those_around_it(number: int, size: int) -> None:
    """So a reply that is one late, or 25 late, is a wrong one."""
    around = {make_message(near, size)[1] for near in range(number, number + 26)}
    assert len(around) == 26


def test_a_message_may_hold_more_than_ascii() -> None:
    """Its letters have one to three bytes."""
    assert make_message(1, 40, OTHER_TEXT)[1].decode() == "AAAAAB STRASSE, ΚΑΛΗΜΈΡΑ, ПР.\n"
    assert make_message(1, 20)[1] == b"AAAAAB THE QUICK BR\n"


async def test_a_cancelled_exchange_closes_its_connection() -> None:
    """Nobody else knows of it yet."""
    ours, theirs = memory_stream_pair()

    async def connect(_: Retries) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return ours

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first_exchange, connect, Retries(0), b"a\n", b"A\n", 0)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert await theirs.receive_some() == b"a\n"
    assert await theirs.receive_some() == b""
