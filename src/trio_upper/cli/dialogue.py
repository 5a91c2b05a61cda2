"""``client`` at a terminal: asks where to, then for messages, and connects again on request."""

import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import trio

from trio_upper.cli.client import Options, dial, explain, hold
from trio_upper.cli.run import Ending, run_command
from trio_upper.cli.signals import until_signal
from trio_upper.client.failures import CannotConnect
from trio_upper.client.target import Target, parse_target, split_host
from trio_upper.platform import HUNG_UP
from trio_upper.terminal.console import HungUp, Interrupted
from trio_upper.terminal.conversation import Conversation
from trio_upper.terminal.editor import open_prompt
from trio_upper.terminal.escape import quote
from trio_upper.terminal.history import history_path
from trio_upper.terminal.prompt import Prompt

T = TypeVar("T")

# How many of the messages without a reply are named one by one; the others are counted.
NAMED_MESSAGES = 3

# How much of each is quoted: all that are named fill two lines of most windows.
QUOTED_CHARACTERS = 40


def run(host: str | None, port: str | None, options: Options) -> int:
    """Talk to the person at the terminal; `host` and `port` are asked for if they are None.

    Returns the exit code. A signal, and Ctrl-C, end the process as that signal does.
    """
    return run_command(partial(_until_over, host, port, options))


async def _until_over(host: str | None, port: str | None, options: Options) -> Ending:
    ending: Ending = 1
    try:
        ending = await until_signal(partial(_run, host, port, options))
    except* Interrupted:  # Ctrl-C, which came as a key
        ending = signal.SIGINT
    except* HungUp:
        ending = HUNG_UP
    return ending


async def _run(host: str | None, port: str | None, options: Options) -> int:
    async with open_prompt(history=history_path()) as prompt:
        with suppress(EOFError):  # Ctrl-D at a question
            dialogue = _Dialogue(prompt, options)
            if host is not None and port is None:
                port = split_host(host)[1]
            target, stream = await dialogue.connect(host, port)
            while stream is not None:
                complete, ended = await dialogue.converse(target, stream)
                if ended:
                    return 0 if complete else 1
                stream = await dialogue.connect_again(target)
    return 1


class _Dialogue:
    """What is said to the person and asked of them before, in and after the conversations."""

    def __init__(self, prompt: Prompt, options: Options) -> None:
        self._prompt = prompt
        self._options = options
        self._default = Target()  # what Enter takes when asked
        self._unsent = ""  # typed when it was offered to connect again, for the next prompt
        self._connected = ""  # to whom, in words

    async def connect(
        self, host: str | None, port: str | None
    ) -> tuple[Target, trio.abc.Stream | None]:
        """Connect, asking for what is not given; where all is given, a failure is final."""
        while True:
            target = await self._ask_target(host) if port is None else parse_target(host, port)
            stream = await self._dial(target)
            if stream is not None or port is not None:
                return target, stream
            self._default = target

    async def connect_again(self, target: Target) -> trio.abc.Stream | None:
        """Offer to connect again until that succeeds, or until the person declines: None."""
        while (typed := await self._prompt.offer("Enter connects again, Ctrl-D ends.")) is not None:
            self._unsent = typed or self._unsent
            if stream := await self._dial(target):
                return stream
        return None

    async def _ask_target(self, host: str | None) -> Target:
        if host is None:
            host = await self._ask("Host", self._default.host, _checked_host)
        if split_host(host)[1] is not None:
            return parse_target(host, None)
        return await self._ask("Port", str(self._default.port), partial(parse_target, host))

    async def _ask(self, question: str, default: str, parse: Callable[[str], T]) -> T:
        """Return what `parse` makes of the answer; explain what it refuses, and ask again."""
        while True:
            answer = await self._prompt.ask(question, default)
            try:
                return parse(answer)
            except ValueError as error:
                await self._say(str(error))

    async def _dial(self, target: Target) -> trio.abc.Stream | None:
        stream = None
        try:
            connection = await dial(target, self._options, self._say)
            stream, self._connected = connection.stream, str(connection)
        except CannotConnect as error:
            await self._say(str(error))
        return stream

    async def converse(self, target: Target, stream: trio.abc.Stream) -> tuple[bool, bool]:
        """Have one conversation, and say how it ended and which messages were not answered.

        Returns whether all were answered, and whether it was the person who ended it.
        """
        if not self._options.quiet:
            await self._say(f"{self._connected}; Ctrl-D ends")
        where = f"[{target.host}]" if ":" in target.host else target.host
        label = f"{where}:{target.port}> "
        unsent, self._unsent = self._unsent.encode("utf-8", "surrogateescape"), ""
        async with self._prompt.converse(label, unsent) as conversation:
            outcome = await hold(stream, conversation, conversation.show, self._options)
        for line in [*explain(outcome, self._options), *_left(conversation)]:
            await self._say(line)
        return outcome.complete, conversation.ended

    async def _say(self, text: str) -> None:
        await self._prompt.notice(f"trio-upper: {text}")


def _checked_host(text: str) -> str:
    parse_target(text, None)
    return text


def _left(conversation: Conversation) -> list[str]:
    """Return what to say of messages without a reply, and of one not finished; a line each."""
    lines = []
    if messages := conversation.unanswered():
        more = len(messages) - NAMED_MESSAGES
        named = ", ".join(
            quote(message, QUOTED_CHARACTERS) for message in messages[:NAMED_MESSAGES]
        )
        lines.append(f"not answered: {named}" + (f" and {more} more" if more > 0 else ""))
    if conversation.unfinished:
        lines.append(f"not sent: {quote(conversation.unfinished, QUOTED_CHARACTERS)}")
    return lines
