"""An asyncio loop in a thread of its own, for a library that speaks asyncio."""

import asyncio
import queue
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from typing import Any, NoReturn, TypeVar, TypeVarTuple

import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# How long one thread may keep the interpreter to itself while another one wants it, in seconds.
# With Python's 5 ms, drawing the prompt anew after Enter counts into the round-trip time: 1.6 ms on
# a loopback that takes 0.4.
SWITCH_SECONDS = 0.0001


class Asyncio:
    """An asyncio loop in another thread, whose jobs Trio tasks start, await and cancel."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._hurrying = 0

    @property
    def hurried(self) -> bool:
        """Whether somebody waits for a job to end at once; for any thread."""
        return self._hurrying > 0

    async def run(self, function: Callable[[*Ts], Coroutine[Any, Any, T]], *args: *Ts) -> T:
        """Return what ``await function(*args)`` returns in the other thread.

        A cancellation goes to the job, and this returns when the job has ended: with Cancelled
        if the job ended by it, otherwise with what the job returned nevertheless.
        """
        waiting = trio.lowlevel.current_task()
        token = trio.lowlevel.current_trio_token()
        job: asyncio.Task[T]
        cancel: Callable[[], NoReturn] | None = None

        def start() -> None:
            nonlocal job
            job = self._loop.create_task(function(*args))
            job.add_done_callback(lambda _: token.run_sync_soon(trio.lowlevel.reschedule, waiting))

        def abort(raise_cancel: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
            nonlocal cancel
            cancel = raise_cancel
            self._hurrying += 1
            self._loop.call_soon_threadsafe(lambda: job.cancel())
            return trio.lowlevel.Abort.FAILED  # not yet: the job reschedules when it has ended

        self._loop.call_soon_threadsafe(start)
        await trio.lowlevel.wait_task_rescheduled(abort)
        if cancel is not None:
            self._hurrying -= 1
            if job.cancelled():
                cancel()
        return job.result()

    async def run_hurried(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run as `run` does, with nothing that may wait for long."""
        self._hurrying += 1
        try:
            return await self.run(function)
        finally:
            self._hurrying -= 1


@contextmanager
def open_asyncio() -> Iterator[Asyncio]:
    """Run an asyncio loop in a thread while the block lasts; the thread is joined at its end.

    Jobs must have ended by then: whoever started one waits for it, and is inside the block. The
    loop is made in its thread, or it would take the signals of the main one on some systems.
    """
    made: queue.SimpleQueue[asyncio.AbstractEventLoop] = queue.SimpleQueue()

    def run() -> None:
        with closing(asyncio.new_event_loop()) as loop:
            made.put(loop)
            loop.run_forever()

    thread = threading.Thread(target=run, name="asyncio", daemon=True)
    with switching_fast():
        thread.start()
        loop = made.get()
        try:
            yield Asyncio(loop)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


@contextmanager
def switching_fast() -> Iterator[None]:
    """Let this process's threads take turns after `SWITCH_SECONDS` inside the block."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
