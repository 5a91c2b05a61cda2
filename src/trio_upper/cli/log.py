"""The log: one line for each event on standard error, text for people or JSON for machines.

The events and their fields stand in docs/reference.md. What clients send is never among them.

Whoever reads standard error may be slow, stop reading (Ctrl-S at a terminal) or go. A server waits
for none of these: `BackgroundWriter` takes each line at once, and a thread writes it.
"""

import contextlib
import io
import logging
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO, cast

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from trio_upper.cli.jsonlines import JSONLines, TextOutput
from trio_upper.platform import PIPE_ATOMIC_BYTES, exclusive

# How many lines may wait to be written. More than there are when all the clients of a default
# server come and go at once; some 12 MB. Further ones are lost.
QUEUE_LINES = 50_000

# How long lines gather before they are written together. Nobody who follows a log notices, and the
# thread that writes asks for the interpreter's lock no more often than that. With each line by
# itself, it and the event loop would cost each other more than the writing does.
GATHER_SECONDS = 0.01

# How long what still waits at the end may take to be written.
CLOSE_SECONDS = 2.0

# What a library logs again within this time is dropped: Trio has ten tracebacks a second to offer
# when there are no descriptors for new clients.
REPEAT_SECONDS = 60.0

# What is to be written, and how many lines before it were lost, as it says.
Line = tuple[bytes, int]


class BackgroundWriter(io.TextIOBase):
    """Takes text at once; a thread writes it to `descriptor`, whole lines in their order.

    A line that does not fit, because `QUEUE_LINES` wait already, or that cannot be written, because
    the reader has gone or the disk is full, is lost and counted. One that was written in part is
    finished before the next one.

    Resource handling: closing takes at most `CLOSE_SECONDS`; the descriptor stays open.

    Error handling: where no thread can be started, lines are written at once, by whoever logs them.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._unfinished = ""
        self._lines: deque[Line] = deque()
        self._rest = b""
        self._losses: deque[int] = deque()
        self._mentioned = 0
        self._news = threading.Event()
        self._closing = threading.Event()
        # A daemon, so that a reader who has stopped does not keep the process from ending.
        self._thread: threading.Thread | None
        self._thread = threading.Thread(target=self._write_on, name="log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether lines go to a terminal."""
        return os.isatty(self._descriptor)

    def write(self, text: str) -> int:
        """Take some text; write the lines that it ends."""
        lines, newline, self._unfinished = (self._unfinished + text).rpartition("\n")
        if newline:
            mentioned, self._mentioned = self._mentioned, 0
            self._put(((lines + newline).encode(errors="backslashreplace"), mentioned))
        return len(text)

    def _put(self, line: Line) -> None:
        if len(self._lines) >= QUEUE_LINES:
            self._lose(line)
            return
        self._lines.append(line)
        self._news.set()
        if self._thread is None:
            self._write_queue()

    def take_lost(self) -> int:
        """Return how many lines were lost, for the next line to mention; then they are forgotten.

        0 while the next one would not fit. If it is lost itself, they are counted again.
        """
        if len(self._lines) < QUEUE_LINES:
            while self._losses:
                self._mentioned += self._losses.popleft()
        return self._mentioned

    def close(self) -> None:
        """Write what waits, if that can be done soon."""
        self._closing.set()
        self._news.set()
        if self._thread:
            self._thread.join(CLOSE_SECONDS)
        super().close()

    def _write_on(self) -> None:
        while self._lines or not self._closing.is_set():
            self._news.wait()
            self._closing.wait(GATHER_SECONDS)
            self._news.clear()
            self._write_queue()

    def _write_queue(self) -> None:
        while self._lines:
            self._write_lines(self._next_lines())

    def _next_lines(self) -> list[Line]:
        """Return as many lines as a pipe takes in one piece (pipe(7)), or one that is longer."""
        lines = [self._lines.popleft()]
        size = len(lines[0][0])
        while self._lines and size + len(self._lines[0][0]) <= PIPE_ATOMIC_BYTES:
            lines.append(self._lines.popleft())
            size += len(lines[-1][0])
        return lines

    def _write_lines(self, lines: list[Line]) -> None:
        data = self._rest + b"".join(text for text, _ in lines)
        # Workers share it. A line of more than a pipe takes in one piece would mix with theirs.
        alone = exclusive(self._descriptor) if self._thread else contextlib.nullcontext()
        with alone, contextlib.suppress(OSError):
            while data:
                data = data[self._write_some(data) :]
        left = len(data)
        for line in reversed(lines):
            if left < len(line[0]):  # it was written, perhaps in part
                break
            self._lose(line)
            left -= len(line[0])
        self._rest = data[:left]

    def _write_some(self, data: bytes) -> int:
        # Not by a stream: its lock, if a thread has it at the end, aborts Python (cpython#86883).
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:  # somebody who shares the pipe has made it non-blocking
                if self._thread is None:
                    raise
                select.select([], [self._descriptor], [])

    def _lose(self, line: Line) -> None:
        self._losses.append(1 + line[1])


class Forwarding(logging.Handler):
    """Logs what libraries log with the standard library, once in `REPEAT_SECONDS` each."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._silent_until: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record, unless it is a repetition."""
        event, now = record.getMessage(), time.monotonic()
        if now >= self._silent_until.get(event, 0.0):
            self._silent_until[event] = now + REPEAT_SECONDS
            details = {"logger": record.name, "exc_info": record.exc_info}
            self._log.log(record.levelno, event, **details)


@contextlib.contextmanager
def open_log(style: str, level: str) -> Iterator[FilteringBoundLogger]:
    """Yield a logger to standard error, as `make_logger` does, that never waits for its reader.

    While the block runs, all that is written to `sys.stderr` goes the same way, in order; with
    `style` ``json`` it becomes JSON. So it is for what libraries log.

    Error handling: an exception that leaves the block is a bug; it is logged, and the exit code 1.
    """
    with contextlib.ExitStack() as stack:
        real = sys.stderr or stack.enter_context(Path(os.devnull).open("w"))
        writer = stack.enter_context(BackgroundWriter(real.fileno()))
        printed = JSONLines(writer) if style == "json" else writer
        stack.enter_context(contextlib.redirect_stderr(printed))
        log = make_logger(style, level, writer, writer.take_lost)
        forwarding = Forwarding(log)
        logging.getLogger().addHandler(forwarding)
        stack.callback(logging.getLogger().removeHandler, forwarding)
        try:
            yield log
        except Exception:
            log.exception("crashed")
            raise SystemExit(1) from None


def make_logger(
    style: str, level: str, output: TextOutput, take_lost: Callable[[], int] = lambda: 0
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
                colors=colors,
                exception_formatter=structlog.dev.plain_traceback,
                sort_keys=False,
            ),
        ]
    logger: FilteringBoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(cast("TextIO", output)),
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
