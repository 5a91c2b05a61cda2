"""Signals that stop the program, from the first instant on: kept until somebody receives them.

It takes some tenths of a second to load. A signal that arrives meanwhile would end it without a
word, show where it was or, as process 1 of a container, be ignored. So this module is loaded before
all else, and loads next to nothing itself: even `trio_upper.platform` takes longer than Python.
"""

import os
import signal
from collections.abc import Iterable

# The `STOP_SIGNALS` of all systems, each of which has some.
STOP_SIGNAL_NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK")


class Kept:
    """A signal handler that keeps what arrives, until the handlers before it are set again."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self._before: dict[signal.Signals, object] = {}

    def __call__(self, number: int, _: object) -> None:
        """Keep a signal."""
        self.signals.append(number)

    def keep(self, *numbers: signal.Signals) -> None:
        """Keep these, too, from now on."""
        for number in numbers:
            if number not in self._before:
                self._before[number] = signal.signal(number, self)

    def restore(self) -> None:
        """Set the handlers before again."""
        while self._before:
            signal.signal(*self._before.popitem())  # type: ignore[arg-type] # a handler it is

    def __enter__(self) -> None:
        """Do nothing: it keeps signals already."""

    def __exit__(self, *_: object) -> None:
        """Ignore them from now on: how this process ends is settled.

        Python, when it ends, sets all handlers but this one to the default, by which they kill.
        """
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)


def _keeper() -> Kept | None:
    handler = signal.getsignal(signal.SIGTERM)
    return handler if isinstance(handler, Kept) else None


def end_at_once(number: int, _: object) -> None:
    """End this process by a signal, right where it is: a handler of signals.

    Nothing is raised, as Python's own handler of SIGINT does, for that shows wherever it strikes in
    what is loading or ending, and a second time in what the first one has begun.
    """
    from trio_upper.platform import end_with

    try:
        end_with(signal.Signals(number))
    except SystemExit as still_there:  # process 1 of a container, and Windows
        os._exit(still_there.code)  # type: ignore[arg-type] # a number it is


def keep_first_signals() -> None:
    """Keep those that stop a server, while it is not known yet whether this is to be one.

    When they are not kept any more, the first one ends this process at once.
    """
    there = [getattr(signal, name) for name in STOP_SIGNAL_NAMES if hasattr(signal, name)]
    heeded = _heeded(there)
    for number in heeded:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end_at_once)
    Kept().keep(*heeded)


def _heeded(numbers: Iterable[signal.Signals]) -> list[signal.Signals]:
    """Return those that stop a server, although whoever started this process may ignore them.

    That is SIGTERM. The others are left ignored: a shell does so with SIGINT for what it runs in
    the background, `nohup` with SIGHUP.
    """
    return [
        number
        for number in numbers
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN
    ]


def end_by_first_signal() -> None:
    """Keep no more; one that was kept ends this process, which is no server.

    What whoever started it ignores is ignored, SIGTERM too.
    """
    if keeper := _keeper():
        keeper.restore()
        for number in keeper.signals:
            if signal.getsignal(number) is not signal.SIG_IGN:
                end_at_once(number, None)


def stop_signals() -> list[signal.Signals]:
    """Return the signals that stop a server."""
    from trio_upper.platform import STOP_SIGNALS

    return _heeded(STOP_SIGNALS)


def keeping_signals() -> Kept:
    """Keep the signals that stop a server; at the end of a `with` block they are ignored.

    They are received although whoever started this process had blocked them.
    """
    from trio_upper.platform import STOP_SIGNALS, unblock

    keeper = _keeper() or Kept()
    keeper.keep(*stop_signals())
    unblock(*STOP_SIGNALS)
    return keeper


def kept_signals() -> list[int]:
    """Return what has been kept until now, and is until others receive it."""
    keeper = _keeper()
    return keeper.signals if keeper else []
