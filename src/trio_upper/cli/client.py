"""``client``: connects, has the conversation, and says in words and exit code how it went."""

import os
import sys
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from string import ascii_lowercase
from typing import Self

import trio

from trio_upper.cli.output import NamedCuts, Sink, Tell, behind, escaped, is_terminal, tell
from trio_upper.cli.progress import Meter
from trio_upper.cli.run import leave, run_job
from trio_upper.cli.signals import until_signal
from trio_upper.client.connect import Connection, Retries, open_connection
from trio_upper.client.converse import Ending, Outcome, converse
from trio_upper.client.failures import CannotConnect, Cause, broken, looks_like_tls
from trio_upper.client.settings import REPLY_TIMEOUT_SECONDS, ConnectSettings
from trio_upper.client.target import Target
from trio_upper.platform import HUNG_UP
from trio_upper.protocol import read_notice
from trio_upper.stdio.streams import InputError, open_input, open_output
from trio_upper.terminal.escape import escape, quote

# Closing over TLS waits for the peer, at most this long.
CLOSE_SECONDS = 1.0

HALF_CLOSE_HINT = (
    "that was after the end of the input: does a proxy or port forwarder in between end both ways "
    "when one ends (a half-close that it does not pass on)?"
)

# A connection that ends sooner without a reply was closed at once, by whatever accepted it.
AT_ONCE_SECONDS = 3.0

# A connection that takes longer makes people wonder whether anything happens.
SLOW_SECONDS = 1.0

Source = AsyncIterable[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of ``client``.

    `reply_timeout` is how long a reply may be owed without a byte of it coming, in seconds; 0: no
    limit. `quiet` shows replies and errors only, `verbose` also to whom it is connected, and the
    time of each reply.
    """

    connection: ConnectSettings = field(default_factory=ConnectSettings)
    reply_timeout: float = REPLY_TIMEOUT_SECONDS
    quiet: bool = False
    verbose: bool = False


def run(
    target: Target, messages: Sequence[str], options: Options, *, host_given: bool = True
) -> int:
    """Send `messages`, or else standard input, and print the replies; return the exit code.

    `host_given` False: the host of `target` is the default, and a failure says so.
    """
    typed = not messages and is_terminal(sys.stdin)
    job = partial(until_signal, partial(_talk, target, messages, options, host_given))
    ending = run_job(job, failures=(InputError, _Unconnected))
    if typed and not is_terminal(sys.stdin):
        ending = HUNG_UP  # its window was closed, which is not the end of the input
    return leave(ending)


class _Unconnected(Exception):
    """The connection failed; `str()` of it is what to say, in one or two lines."""


async def _talk(target: Target, messages: Sequence[str], options: Options, host_given: bool) -> int:
    # Closing the output may show that the disk is full: only after that is there a result to tell.
    async with (
        open_output() as output,
        escaped(output.send_all) as sink,
        await _open_source(messages) as source,
    ):
        if is_terminal(sys.stdin) and not messages:
            source = NamedCuts(source)
        retries = Retries(options.connection.wait)
        # Where replies are shown, they and their times keep their order.
        async with nullcontext(tell) if is_terminal(sys.stdout) else behind(tell) as note:
            while True:
                connection = await _connect(target, options, retries, host_given)
                if options.verbose:
                    await note(str(connection))
                outcome = await _transfer(connection.stream, source, sink, note, options)
                # Messages can be sent again, as none was answered; standard input cannot be read
                # again.
                if not (messages and outcome.hung_up and await retries.pause()):
                    break
                source = _Lines(messages)
    if not (outcome.complete or options.quiet or options.verbose):
        await tell(str(connection))
    for line in explain(outcome, options):
        await tell(line)
    return 0 if outcome.complete else 1


async def _connect(
    target: Target, options: Options, retries: Retries, host_given: bool
) -> Connection:
    try:
        return await dial(target, options, _tell, retries)
    except CannotConnect as error:
        words = str(error)
        if not host_given:
            words += f"\ntrio-upper: no HOST was given, so it was {target.host}"
        raise _Unconnected(words) from None


async def _transfer(
    stream: trio.abc.Stream, source: Source, sink: Sink, note: Tell, options: Options
) -> Outcome:
    """Have the conversation; show progress, and `note` the time of each reply if asked to."""
    size = getattr(source, "size", None)
    if options.verbose:
        timed = _Timed(aiter(source), sink, note)
        source, sink = timed, timed.show
    async with trio.open_nursery() as nursery:
        meter = Meter(sink, size)
        if not options.quiet:
            nursery.start_soon(meter.show)
        outcome = await hold(stream, source, meter, options)
        nursery.cancel_scope.cancel()
    return outcome


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


class _Timed:
    """A source that notes when each line was sent, and a sink that says when it was answered."""

    def __init__(self, source: AsyncIterator[bytes], sink: Sink, tell: Tell) -> None:
        self._source = source
        self._sink = sink
        self._tell = tell
        self._sent: deque[float] = deque()  # when the lines without a reply were sent
        self._replies = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = await anext(self._source)
        self._sent.extend([trio.current_time()] * piece.count(b"\n"))
        return piece

    async def show(self, replies: bytes) -> None:
        """Write `replies`, and tell the time of each that is whole."""
        await self._sink(replies)
        now = trio.current_time()
        for _ in range(replies.count(b"\n")):
            self._replies += 1
            await self._tell(
                f"reply {self._replies} in {(now - self._sent.popleft()) * 1e3:.3f} ms"
            )


async def _tell(text: str) -> None:
    if is_terminal(sys.stderr):
        await tell(text)


async def dial(
    target: Target, options: Options, tell: Tell, retries: Retries | None = None
) -> Connection:
    """Connect to `target` as `options` have it; `tell` the person if that takes long.

    Error handling: `CannotConnect`, not in a group.
    """
    result: Connection | CannotConnect
    async with trio.open_nursery() as nursery:
        if not options.quiet:
            nursery.start_soon(_tell_if_slow, target, options, tell)
        try:
            result = await open_connection(target, options.connection, retries)
        except CannotConnect as error:
            result = error
        nursery.cancel_scope.cancel()
    if isinstance(result, CannotConnect):
        raise result
    return result


async def _tell_if_slow(target: Target, options: Options, tell: Tell) -> None:
    await trio.sleep(SLOW_SECONDS)
    wait = options.connection.wait
    how = f", trying for {wait:g} s" if wait else ""
    await tell(f"connecting to {target.host} port {target.port}{how} …")


async def hold(stream: trio.abc.Stream, source: Source, sink: Sink, options: Options) -> Outcome:
    """Have the conversation on `stream`, and close it, whatever happens."""
    try:
        return await converse(stream, source, sink, reply_timeout=options.reply_timeout)
    finally:
        with trio.move_on_after(CLOSE_SECONDS):
            await stream.aclose()


def explain(outcome: Outcome, options: Options) -> list[str]:
    """Return what there is to say of a conversation's end, a line each; nothing if all is well."""
    why = _reason(outcome, options)
    if outcome.unanswered and outcome.ending not in {Ending.FOREIGN, Ending.WRONG}:
        some = f"{outcome.unanswered:,} of " if outcome.unanswered < outcome.owed else ""
        why += f": no reply to {some}the {outcome.owed:,} bytes sent"
    if outcome.hung_up and outcome.seconds < AT_ONCE_SECONDS:
        why += f"; {Cause.CLOSED.hint}"
    if outcome.cut_by_half_close:
        why += "; " + HALF_CLOSE_HINT
    return [why] if why else []


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
        case Ending.WRONG:
            return _wrong(outcome)
        case Ending.CLOSED:
            return "the server closed the connection"
        case Ending.SILENT:
            return f"the server sent nothing for {options.reply_timeout:g} s"
        case _:
            return broken(outcome.error or trio.BrokenResourceError())


def _wrong(outcome: Outcome) -> str:
    """Return where the first wrong byte is, and the line if somebody else may have written it."""
    mismatch = outcome.mismatch
    said = ""
    if mismatch and chr(mismatch.came) in ascii_lowercase:  # which no reply contains
        said = f"; it said: {quote(outcome.words)}"
    return f"{mismatch}{said}"
