"""What a server needs of a log, and the log of one that has none."""

from typing import Any, Protocol, Self


class Log(Protocol):
    """What a server needs of a log: that of structlog, or one like it."""

    def bind(self, **fields: Any) -> "Log":
        """Return a log that adds `fields` to every event."""

    def debug(self, event: str, **fields: Any) -> object:
        """Log an event that helps to find a fault."""

    def info(self, event: str, **fields: Any) -> object:
        """Log an ordinary event."""

    def warning(self, event: str, **fields: Any) -> object:
        """Log an event that the operator should know of."""

    def exception(self, event: str, **fields: Any) -> object:
        """Log a bug, with the traceback of the exception at hand."""


class SilentLog:
    """A log that keeps nothing."""

    def bind(self, **_: Any) -> Self:
        """Return this one: no event has fields."""
        return self

    def debug(self, *_: Any, **__: Any) -> None:
        """Do nothing."""

    info = warning = exception = debug
