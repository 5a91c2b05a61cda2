"""Time that does not pass while the whole process is paused."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

# What is later than this was held up by a pause of the whole process (a stop signal, a suspended
# machine), in which nobody could be heard.
PAUSE_SECONDS = 1.0

# How long a part of a countdown takes.
TICK_SECONDS = 0.25


class Countdown:
    """What is left of some time, to within a tick; a pause takes `PAUSE_SECONDS` of it at most."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    @contextmanager
    def tick(self) -> Iterator[None]:
        """Cancel the block when it takes longer than a tick; what it takes is counted down."""
        before = trio.current_time()
        with trio.move_on_after(TICK_SECONDS):
            yield
        self.left -= min(trio.current_time() - before, PAUSE_SECONDS)
