"""Runs the asyncio peers on asyncio's own loop or on uvloop's."""

import asyncio
import importlib
from collections.abc import Coroutine


def run(main: Coroutine[None, None, None], *, uvloop: bool) -> None:
    # By name: uvloop is optional, and type checkers need not have it.
    factory = importlib.import_module("uvloop").new_event_loop if uvloop else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)
