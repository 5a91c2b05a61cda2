"""Signals that stop a server, from the first instant on: kept until Trio receives them.

A server takes some tenths of a second to load. A signal that arrives meanwhile would end it without
a word or, as process 1 of a container, be ignored.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from trio_upper.platform import STOP_SIGNALS, unblock


def stop_signals() -> list[signal.Signals]:
    """Return the signals that stop a server.

    SIGTERM is one even if whoever started this process ignored it. The others are left ignored: a
    shell does so with SIGINT for what it runs in the background, `nohup` with SIGHUP.
    """
    return [
        number
        for number in STOP_SIGNALS
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN
    ]


class Kept:
    """A signal handler that keeps what arrives."""

    def __init__(self) -> None:
        self.signals: list[int] = []

    def __call__(self, number: int, _: FrameType | None) -> None:
        """Keep a signal."""
        self.signals.append(number)


@contextmanager
def keeping_signals() -> Iterator[None]:
    """Keep the signals that stop a server; the handlers before are set again at the end.

    They are received although whoever started this process had blocked them.
    """
    kept = Kept()
    before = {number: signal.signal(number, kept) for number in stop_signals()}
    unblock(*STOP_SIGNALS)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def kept_signals() -> list[int]:
    """Return what `keeping_signals` has kept until now, and keeps until others receive it."""
    handler = signal.getsignal(signal.SIGTERM)
    return handler.signals if isinstance(handler, Kept) else []
