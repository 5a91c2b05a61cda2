"""Signals under Trio: which to receive, and what they cancel."""

import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from trio_upper.platform import STOP_SIGNALS

Result = TypeVar("Result")


def not_ignored(*signals: signal.Signals) -> list[signal.Signals]:
    """Return those of `signals` that whoever started this process did not have ignored.

    A shell ignores SIGINT for what it runs in the background, `nohup` ignores SIGHUP; to receive
    them all the same would undo what was asked for.
    """
    return [one for one in signals if signal.getsignal(one) is not signal.SIG_IGN]


async def until_signal(job: Callable[[], Awaitable[Result]]) -> Result | signal.Signals:
    """Return what `job` returns, or the one of `STOP_SIGNALS` that cancelled it."""
    received: signal.Signals | None = None
    stop = not_ignored(*STOP_SIGNALS)
    if not stop:
        return await job()
    with trio.open_signal_receiver(*stop) as signals:
        async with trio.open_nursery() as nursery:

            async def wait_for_signal() -> None:
                nonlocal received
                received = signal.Signals(await anext(signals))
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait_for_signal)
            result = await job()
            nursery.cancel_scope.cancel()
    return result if received is None else received
