"""Asyncio in a thread: jobs, their results and cancellations."""

import asyncio
import sys
from contextlib import suppress

import trio

from trio_upper.terminal.asyncio_thread import open_asyncio


def test_the_threads_take_turns_while_there_is_asyncio() -> None:
    """So that drawing it does not hold up a reply; afterwards all is as it was."""
    before = sys.getswitchinterval()
    with open_asyncio():
        assert sys.getswitchinterval() < before
    assert sys.getswitchinterval() == before


async def test_a_job_that_ends_in_spite_of_a_cancellation_gives_its_result() -> None:
    """Nothing that was done is lost: the cancellation waits for the next checkpoint."""

    token = trio.lowlevel.current_trio_token()
    results = []

    async def stubborn() -> str:
        token.run_sync_soon(scope.cancel)
        with suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
        return "done"

    with trio.CancelScope() as scope, open_asyncio() as loop:
        results.append(await loop.run(stubborn))
        assert not loop.hurried
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert results == ["done"]
