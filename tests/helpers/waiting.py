"""How long tests wait, and how they wait for what nobody can signal."""

from collections.abc import Callable

import trio

# A test that waits longer has failed. Nothing takes a tenth of it, also on a slow and busy machine,
# and nothing is ever waited for by sleeping this long.
TIMEOUT_SECONDS = 30.0

# The same in virtual time, where waiting costs nothing.
VIRTUAL_TIMEOUT_SECONDS = 10_000.0

# What happens at once takes a tenth of a second, and on a busy machine some of them. Every timeout
# that a program under test could have waited for instead is longer than this.
AT_ONCE_SECONDS = 9.0

# Between two checks of a condition that cannot be waited for.
CHECK_SECONDS = 0.02


async def eventually(condition: Callable[[], bool], *, seconds: float = TIMEOUT_SECONDS) -> None:
    """Wait until `condition` holds, by checking it again and again.

    Error handling: raises `trio.TooSlowError` if it does not hold within `seconds`.
    """
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - nobody could set an event
            await trio.sleep(CHECK_SECONDS)
