"""What a prompt needs of a terminal, and how a terminal ends one."""

from typing import Protocol


class Interrupted(Exception):
    """Ctrl-C was pressed at a prompt.

    The terminal hands the key over as a character, so there was no SIGINT: who catches this ends
    the program as SIGINT would.
    """


class HungUp(Exception):
    """The terminal has gone: its window was closed, or its line dropped.

    The kernel sends SIGHUP to the leader of the session alone, usually a shell, which passes it on;
    reading shows it earlier. Who catches this ends the program as SIGHUP would.
    """


class Typing(Protocol):
    """Where what is typed at a prompt goes."""

    #: The text of the line that is not finished: it stands in a prompt that opens, and is what was
    #: typed of the line when the prompt closes.
    unfinished: bytes

    def enter(self, typed: bytes) -> None:
        """Take `typed`: lines, or at a terminal without an editor what Ctrl-D sends of one."""


class Console(Protocol):
    """A screen and a keyboard; whatever reads raises `HungUp`."""

    async def print(self, text: str) -> None:
        """Print `text`, whole lines that are safe for a terminal, above what is being typed."""

    async def ask(self, question: str, *, fresh: bool) -> str:
        """Return the line typed after `question`; `fresh` discards what was typed before it.

        Raises EOFError at Ctrl-D and `Interrupted` at Ctrl-C.
        """

    async def type(self, label: str, typing: Typing) -> None:
        """Prompt with `label` until Ctrl-D, and give what is typed to `typing`.

        Raises `Interrupted` at Ctrl-C. The prompt closes when this is cancelled, too.
        """
