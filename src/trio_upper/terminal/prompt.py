"""What the client says to a person at a terminal, and hears from them.

Nothing here knows how lines are edited: that is `trio_upper.terminal.editor`, which imports a heavy
library and is imported only when there is somebody to prompt.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from trio_upper.terminal.console import Console
from trio_upper.terminal.conversation import Conversation
from trio_upper.terminal.escape import escape

DIM, PLAIN = "\x1b[2m", "\x1b[0m"  # ECMA-48, 8.3.117: SGR


class Prompt:
    """Notices, questions and conversations on a console; made by `editor.open_prompt`."""

    def __init__(self, console: Console, *, dim: bool = False) -> None:
        """Use `console`; `dim` the round-trip times."""
        self._console = console
        self._times = f"   {DIM}%s{PLAIN}\n" if dim else "   %s\n"

    @asynccontextmanager
    async def converse(self, label: str, unfinished: bytes = b"") -> AsyncIterator[Conversation]:
        """Prompt for messages inside the block, until Ctrl-D; `label` stands before them.

        `unfinished` stands in the prompt, ready to be edited. The prompt closes at once at the end
        of the block, also with a line half typed.

        Error handling: Ctrl-C raises `Interrupted` out of the block, and a terminal that goes
        `HungUp`, in an exception group as from a nursery.
        """
        conversation = Conversation(self._console, self._times, unfinished)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conversation.type, label)
            yield conversation
            nursery.cancel_scope.cancel()
        await conversation.show_rest()

    async def notice(self, text: str) -> None:
        """Print a line of our own above the prompt; foreign words in it are escaped."""
        await self._console.print(f"{escape(text)}\n")

    async def ask(self, question: str, default: str) -> str:
        """Return the answer to `question` without spaces around it; Enter alone is `default`.

        Raises EOFError at Ctrl-D, `Interrupted` at Ctrl-C, and `HungUp`.
        """
        answer = await self._console.ask(escape(f"{question} [{default}]: "), fresh=False)
        return answer.strip() or default

    async def offer(self, question: str) -> str | None:
        """Return what is typed after `question` when Enter accepts it; None if Ctrl-D declines.

        What was typed before the question cannot answer it. Raises `Interrupted` and `HungUp`.
        """
        try:
            return await self._console.ask(escape(f"{question} "), fresh=True)
        except EOFError:
            return None
