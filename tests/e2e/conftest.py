"""What holds for every end-to-end test: it ends in time."""

import inspect
from collections.abc import Awaitable, Callable
from functools import wraps

import pytest
import trio

# A test that takes longer hangs; every one takes a small part of it. In seconds.
LIMIT = 90.0


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Set a deadline to every test on Trio.

    A fixture cannot do it: what it opens does not surround the test (pytest-trio#55).
    """
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        item.obj = _within_limit(item.obj)


def _within_limit(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @wraps(test)
    async def limited(**fixtures: object) -> None:
        with trio.fail_after(LIMIT):
            await test(**fixtures)

    return limited
