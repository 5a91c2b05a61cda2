"""Signals that stop the program, from the first instant on: kept until somebody receives them.

It takes some tenths of a second to load. A signal that arrives meanwhile would end it without a
word, show where it was or, as process 1 of a container, be ignored. So this module is loaded before
all else, and loads next to nothing itself: even `trio_upper.platform` takes longer than Python.
"""

import signal


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


def keep_first_signals() -> None:
    """Keep those that every system has, while it is not known yet what the program is to do."""
    both = (signal.SIGINT, signal.SIGTERM)
    Kept().keep(*(one for one in both if signal.getsignal(one) is not signal.SIG_IGN))


def end_by_first_signal() -> None:
    """Keep no more; one that was kept ends this process, which is no server."""
    from trio_upper.platform import end_with

    if keeper := _keeper():
        keeper.restore()
        for number in keeper.signals:
            end_with(signal.Signals(number))


def stop_signals() -> list[signal.Signals]:
    """Return the signals that stop a server.

    SIGTERM is one even if whoever started this process ignored it. The others are left ignored: a
    shell does so with SIGINT for what it runs in the background, `nohup` with SIGHUP.
    """
    from trio_upper.platform import STOP_SIGNALS

    return [
        number
        for number in STOP_SIGNALS
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN
    ]


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
