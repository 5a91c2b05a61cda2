"""``client``: connects, has the conversation, and says in words and exit code how it went."""

import os
import sys
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Self

import trio

from trio_upper.cli.output import is_terminal, say
from trio_upper.cli.progress import Meter
from trio_upper.cli.run import leave, run_job
from trio_upper.cli.signals import until_signal
from trio_upper.client.connect import open_connection
from trio_upper.client.converse import Ending, Outcome, converse
from trio_upper.client.failures import CannotConnect, Cause, broken, looks_like_tls
from trio_upper.client.settings import REPLY_TIMEOUT_SECONDS, ConnectSettings
from trio_upper.client.target import Target
from trio_upper.platform import HUNG_UP
from trio_upper.protocol import read_notice
from trio_upper.stdio.streams import InputError, open_input, open_output
from trio_upper.terminal.escape import escape

# Closing may mean to wait for the peer (TLS); at most so many seconds.
CLOSE_TIMEOUT = 1.0

# So much of a foreign peer's first line is quoted, in characters.
QUOTED = 200

# A connection that takes longer, in seconds, makes people wonder whether anything happens.
SLOW = 1.0

Source = AsyncIterable[bytes]
Sink = Callable[[bytes], Awaitable[object]]
Tell = Callable[[str], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of ``client``.

    `reply_timeout` is how long a reply may be owed without a byte of it coming, in seconds; 0: no
    limit. `quiet` shows replies and errors only.
    """

    connection: ConnectSettings = field(default_factory=ConnectSettings)
    reply_timeout: float = REPLY_TIMEOUT_SECONDS
    quiet: bool = False


def run(target: Target, messages: Sequence[str], options: Options) -> int:
    """Send `messages`, or else standard input, and print the replies; return the exit code."""
    typed = not messages and is_terminal(sys.stdin)
    job = partial(until_signal, partial(_talk, target, messages, options))
    ending = run_job(job, failures=(CannotConnect, InputError))
    if typed and not is_terminal(sys.stdin):
        ending = HUNG_UP  # its window was closed, which is not the end of the input
    return leave(ending)


async def _talk(target: Target, messages: Sequence[str], options: Options) -> int:
    # Closing the output may show that the disk is full: after that only is there a result to tell.
    async with open_output() as output, await _open_source(messages) as source:
        stream = await dial(target, options, _tell)
        async with trio.open_nursery() as nursery:
            sink = Meter(output.send_all, getattr(source, "size", None))
            if not options.quiet:
                nursery.start_soon(sink.show)
            outcome = await hold(stream, source, sink, options)
            nursery.cancel_scope.cancel()
    for line in explain(outcome, options):
        say(line)
    return 0 if outcome.complete else 1


async def _open_source(messages: Sequence[str]) -> AbstractAsyncContextManager[Source]:
    return nullcontext(_Lines(messages)) if messages else await open_input()


class _Lines:
    """The messages of the command line as a source, each as a line."""

    def __init__(self, messages: Sequence[str]) -> None:
        self._messages = iter(messages)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        for message in self._messages:
            return os.fsencode(message) + b"\n"
        raise StopAsyncIteration


async def _tell(text: str) -> None:
    if is_terminal(sys.stderr):
        say(text)
    await trio.lowlevel.checkpoint()


async def dial(target: Target, options: Options, tell: Tell) -> trio.abc.Stream:
    """Connect to `target` as `options` have it; `tell` the person if that takes long.

    `CannotConnect` escapes in a group, as from a nursery.
    """
    async with trio.open_nursery() as nursery:
        if not options.quiet:
            nursery.start_soon(_tell_if_slow, target, options, tell)
        connection = await open_connection(target, options.connection)
        nursery.cancel_scope.cancel()
    return connection.stream


async def _tell_if_slow(target: Target, options: Options, tell: Tell) -> None:
    await trio.sleep(SLOW)
    how = f", trying for {options.connection.wait:g} s" if options.connection.wait else ""
    await tell(f"connecting to {target.host} port {target.port}{how} …")


async def hold(stream: trio.abc.Stream, source: Source, sink: Sink, options: Options) -> Outcome:
    """Have the conversation on `stream`, and close it, whatever happens."""
    try:
        return await converse(stream, source, sink, reply_timeout=options.reply_timeout)
    finally:
        with trio.move_on_after(CLOSE_TIMEOUT):
            await stream.aclose()


def explain(outcome: Outcome, options: Options) -> list[str]:
    """Return what there is to say of a conversation's end, a line each; nothing if all is well."""
    why = _reason(outcome, options)
    if outcome.ending is Ending.FOREIGN or not outcome.unanswered:
        return [why] if why else []
    return [f"{why}: {outcome.unanswered} of {outcome.owed} bytes were not answered"]


def _reason(outcome: Outcome, options: Options) -> str:
    match outcome.ending:
        case Ending.ANSWERED if not outcome.unanswered:
            return ""
        case Ending.ANSWERED:
            return "the input ends inside a character, and TLS cannot say so to the server"
        case Ending.NOTICE:
            return escape((read_notice(outcome.words) or "").removeprefix("trio-upper: "))
        case Ending.FOREIGN if looks_like_tls(outcome.words):
            return Cause.TLS_WANTED.sentence
        case Ending.FOREIGN:
            said = quote(outcome.words) if outcome.words.strip() else "an empty line"
            return f"this does not look like a trio-upper server; it said: {said}"
        case Ending.CLOSED:
            return "the server closed the connection"
        case Ending.SILENT:
            return f"no reply came for {options.reply_timeout:g} s"
        case _:
            return broken(outcome.error or trio.BrokenResourceError())


def quote(words: bytes, longest: int = QUOTED) -> str:
    """Return the first line of a peer's words in quotation marks, harmless to a terminal.

    Of what is longer than `longest` characters, the beginning.
    """
    line = words.strip(b"\r\n").partition(b"\n")[0].rstrip(b"\r")
    text = escape(line)
    return f"'{text[:longest]}…'" if len(text) > longest else f"'{text}'"
