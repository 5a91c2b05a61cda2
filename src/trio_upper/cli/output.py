"""What all commands share of saying something to a person."""

import contextlib
import sys
from typing import TextIO


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a standard stream, None if it is closed, is a terminal."""
    return stream is not None and stream.isatty()


def say(text: str) -> None:
    """Print a line of the program's own to standard error, if there is one and it is read."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(f"trio-upper: {text}", file=sys.stderr, flush=True)  # noqa: T201


def sole_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error in the nested `group`, of which the nurseries made it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
