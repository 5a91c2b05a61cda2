"""Sets logging up: one line for each event on standard error, text for people or JSON for machines.

The events and their fields stand in the README. Nothing that a client sent is ever among them.

Who reads standard error may be slow, stop reading (Ctrl-S at a terminal), or go. A server waits for
nobody of these: `Unhurried` takes each line at once, and a thread writes it.
"""

import contextlib
import io
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from trio_upper.platform import PIPE_ATOMIC_BYTES

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# How many lines may wait for their reader. More than there are when all the clients of a default
# server come, and go, at once; some 12 MB. Further ones are lost.
MOST_WAITING = 50_000

# How long, in seconds, lines gather before they are written together. Nobody who follows a log
# notices; and the thread that writes asks for the interpreter's lock no more often than that. With
# each line by itself, it and the event loop would cost each other more than the writing does.
GATHER = 0.01

# How long, in seconds, what still waits at the end may take to be written.
FAREWELL = 2.0


class Unhurried(io.FileIO):
    """Takes whatever is written to it, at once; a thread of its own writes that to `descriptor`.

    What does not fit, because `MOST_WAITING` lines wait already, is counted and lost. What cannot
    be written, because the reader has gone or the disk is full, is lost.

    Resource handling: to close it takes no longer than `FAREWELL`; the descriptor stays open.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._descriptor = descriptor  # which a thread that is late still needs
        self._lines: deque[bytes] = deque()
        self._news = threading.Event()
        self._closing = threading.Event()
        self._lost = 0
        # A daemon, so that a reader who has stopped does not keep the process from ending.
        self._thread = threading.Thread(target=self._write_on, name="log", daemon=True)
        self._thread.start()

    def write(self, line: "ReadableBuffer") -> int:
        """Take a line; always all of it."""
        taken = bytes(line)
        if len(self._lines) >= MOST_WAITING:
            self._lost += 1
        else:
            self._lines.append(taken)
            self._news.set()
        return len(taken)

    def take_lost(self) -> int:
        """Return how many lines did not fit since the last time, once the next one does."""
        if len(self._lines) >= MOST_WAITING:
            return 0
        lost, self._lost = self._lost, 0
        return lost

    def close(self) -> None:
        """Have what waits be written, if that is possible soon."""
        self._closing.set()
        self._news.set()
        self._thread.join(FAREWELL)
        super().close()

    def _write_on(self) -> None:
        while self._lines or not self._closing.is_set():
            self._news.wait()
            self._closing.wait(GATHER)
            self._news.clear()
            while self._lines:
                self._write_out(self._next_lines())

    def _next_lines(self) -> bytes:
        """Return as many lines as a pipe takes in one piece, for workers share it (pipe(7))."""
        lines = self._lines.popleft()
        while self._lines and len(lines) + len(self._lines[0]) <= PIPE_ATOMIC_BYTES:
            lines += self._lines.popleft()
        return lines

    def _write_out(self, data: bytes) -> None:
        # Not by the stream: its lock, if a thread has it at the end, aborts Python (cpython#86883).
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._descriptor, data) :]


@contextlib.contextmanager
def open_log(style: str, level: str) -> Iterator[FilteringBoundLogger]:
    """Yield a logger to standard error, as `make_logger` does, that never waits for its reader.

    While the block runs, all that is written to `sys.stderr` goes the same way, in order.
    """
    with contextlib.ExitStack() as stack:
        real = sys.stderr or stack.enter_context(Path(os.devnull).open("w"))
        unhurried = Unhurried(real.fileno())
        stream = io.TextIOWrapper(unhurried, real.encoding, "backslashreplace", write_through=True)
        stack.enter_context(stream)
        stack.enter_context(contextlib.redirect_stderr(stream))
        yield make_logger(style, level, stream, unhurried.take_lost)


def make_logger(
    style: str, level: str, output: TextIO, take_lost: Callable[[], int] = lambda: 0
) -> FilteringBoundLogger:
    """Return a logger that writes to `output` what is at least as grave as `level`, as ``info``.

    `style` is ``text`` or ``json``. `take_lost` returns how many lines before the next one were
    lost, which that one has as its field ``lost``.
    """
    processors: list[Processor] = [structlog.processors.add_log_level, _mentioning(take_lost)]
    if style == "json":
        processors += [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # No local variables: what a client sent may be among them.
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(),
        ]
    else:
        colors = output.isatty() and not os.environ.get("NO_COLOR")
        processors += [
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(
                colors=colors, exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    logger: FilteringBoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(output),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    return logger


def _mentioning(take_lost: Callable[[], int]) -> Processor:
    def mention_lost(_logger: object, _method: str, event: EventDict) -> EventDict:
        if lost := take_lost():
            event["lost"] = lost
        return event

    return mention_lost
