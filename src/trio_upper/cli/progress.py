"""How far a long transfer is: a line on standard error while it lasts, if somebody can see it."""

import sys
from collections.abc import AsyncIterator
from typing import Self

import trio

from trio_upper.cli.output import is_terminal

# A transfer is long, and worth a line, after so many seconds; the line is drawn anew so often.
LONG = 2.0
REFRESH = 0.25


def is_wanted() -> bool:
    """Whether standard error is a terminal, and the replies do not go to one as well."""
    return is_terminal(sys.stderr) and not is_terminal(sys.stdout)


class Meter:
    """A source that yields what `source` does, and counts it; `size` in bytes, None if unknown."""

    def __init__(self, source: AsyncIterator[bytes], size: int | None) -> None:
        self._source = source
        self._size = size
        self._sent = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = await anext(self._source)
        self._sent += len(piece)
        return piece

    async def show(self) -> None:
        """Draw bytes, rate, and the share if the size is known, until cancelled."""
        await trio.sleep(LONG)
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

        columns = [DownloadColumn(), TransferSpeedColumn()]
        with Progress(
            *([BarColumn(), *columns] if self._size else columns),
            console=Console(stderr=True),
            auto_refresh=False,  # it would be one more thread that wants the interpreter's lock
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        ) as progress:
            task = progress.add_task("", total=self._size)
            while True:
                progress.update(task, completed=self._sent, refresh=True)
                await trio.sleep(REFRESH)
