"""One conversation at a prompt: the messages that are typed, and the replies to them."""

import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import final

import trio

from trio_upper.terminal.console import Console
from trio_upper.terminal.escape import Escaper, escape

# Characters of a reply that may wait for the end of their line before they are shown.
UNSHOWN_CHARACTERS = 65536


@final
class Conversation(AsyncIterator[bytes]):
    r"""What is typed, and the replies to it.

    Each item is a line as UTF-8 with its ``\n``, and leaves for the server when it is taken: its
    round-trip time starts then. The items end at Ctrl-D.
    """

    def __init__(self, console: Console, times: str, unfinished: bytes = b"") -> None:
        """Show replies on `console`, with `times` to format the end of their lines.

        `unfinished` stands in the prompt when it opens.
        """
        self._console = console
        self._times = times
        # Unbounded: what waits here was typed or pasted by hand, and holding up the editor would
        # hold up Ctrl-C, too.
        self._entering, self._entered = trio.open_memory_channel[bytes](math.inf)
        self._sent: deque[tuple[bytes, float]] = deque()
        self._escaper = Escaper()
        self._unshown = ""
        #: Whether the person has ended it, by Ctrl-D.
        self.ended = False
        #: What is typed of the line that is not finished, while no prompt is open.
        self.unfinished = unfinished

    async def type(self, label: str) -> None:
        """Prompt with `label` for messages, until Ctrl-D or cancelled."""
        await self._console.type(escape(label), self)
        self.ended = True
        self._entering.close()

    def enter(self, typed: bytes) -> None:
        """Give `typed`, usually lines, to whoever iterates."""
        self._entering.send_nowait(typed)

    async def __anext__(self) -> bytes:
        return self._take(await anext(self._entered))

    def _take(self, typed: bytes) -> bytes:
        now = trio.current_time()
        self._sent.extend((line, now) for line in typed.split(b"\n")[:-1])
        return typed

    def unanswered(self) -> list[bytes]:
        """Return the messages without a reply, once the prompt has closed; some may be unsent."""
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                self._take(self._entered.receive_nowait())
        return [message for message, _ in self._sent]

    async def show(self, reply: bytes) -> None:
        """Print `reply`, a piece cut anywhere, above the prompt; return when it is printed.

        Reply line k answers message k (upper-casing neither makes nor removes a newline), so each
        line ends with the time since its message was taken. Text that is not a whole line waits
        until it is one, or is too long, or the conversation ends.
        """
        now = trio.current_time()
        text = self._unshown + self._escaper.feed(reply)
        *lines, self._unshown = text.split("\n")
        shown = [line + self._round_trip(now) for line in lines]
        if len(self._unshown) > UNSHOWN_CHARACTERS:
            shown.append(f"{self._unshown}\n")
            self._unshown = ""
        if shown:
            await self._console.print("".join(shown))
        else:
            await trio.lowlevel.checkpoint()

    def _round_trip(self, now: float) -> str:
        """Return the end of a reply line; without a time if no message was sent for it."""
        if not self._sent:
            return "\n"
        seconds = now - self._sent.popleft()[1]
        return self._times % (f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.2f} ms")

    async def show_rest(self) -> None:
        """Print what was kept of a reply: nothing more comes."""
        if rest := self._unshown + self._escaper.finish():
            await self._console.print(f"{rest}\n")
