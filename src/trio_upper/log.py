"""Sets logging up: one line for each event on standard error, text for people or JSON for machines.

The events and their fields stand in the README. Nothing that a client sent is ever among them.
"""

import contextlib
import os
import sys
from typing import TextIO, cast

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import FilteringBoundLogger, Processor


class Lenient:
    """A text stream that never fails: a server outlives whoever reads its log.

    What cannot be written, because the pipe is broken, the disk full or there is no stream at all,
    is lost.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write `text`, if that is possible."""
        if self._stream is not None:
            with contextlib.suppress(OSError):
                self._stream.write(text)

    def flush(self) -> None:
        """Write what is buffered, if that is possible."""
        if self._stream is not None:
            with contextlib.suppress(OSError):
                self._stream.flush()


def open_log(style: str, level: str, output: TextIO | None = None) -> FilteringBoundLogger:
    """Return a logger that writes what is at least as grave as `level`, such as ``info``.

    `style` is ``text`` or ``json``. It writes to `output`; None: to standard error.
    """
    stream = output or sys.stderr
    processors: list[Processor] = [structlog.processors.add_log_level]
    if style == "json":
        processors += [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # No local variables: what a client sent may be among them.
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(),
        ]
    else:
        colors = stream is not None and stream.isatty() and not os.environ.get("NO_COLOR")
        processors += [
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(
                colors=colors, exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    logger: FilteringBoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(cast("TextIO", Lenient(stream))),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    return logger
