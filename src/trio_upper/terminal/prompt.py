"""A person at a terminal: what reaches the screen, and what a conversation asks of a console.

Nothing in here knows how lines are edited: that is `trio_upper.terminal.editor`, which imports a
heavy library and is imported only when there is somebody to prompt.
"""

import codecs
import math
import os
import re
import termios
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Protocol, final

import trio

READ_BYTES = 65536
"""Bytes asked of the terminal at once; a line discipline hands out 4096 at most (termios(3))."""

LONGEST_UNSHOWN = 65536
"""Characters of a reply that may wait for the end of their line before they are shown."""

UNSAFE = re.compile(
    "["
    "\x00-\x09\x0b-\x1f\x7f-\x9f"  # control characters: C0 except the newline, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # they turn the direction of what is read
    "\xad\u180e\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb"  # they cannot be seen
    "\u2028\u2029"  # line and paragraph separators
    "\ud800-\udfff"  # surrogates, which no terminal can be sent
    "]"
)
"""What is shown escaped.

U+200C and U+200D are as invisible, but Persian words and emoji families are spelled with them.
"""

DIM, PLAIN = "\x1b[2m", "\x1b[0m"  # ECMA-48, 8.3.117: SGR


class Interrupted(Exception):
    """Ctrl-C was pressed at a prompt.

    The terminal hands the key over as a character, so there was no SIGINT: who catches this ends
    the program as SIGINT would.
    """


class HungUp(Exception):
    """The terminal has gone: its window was closed, or its line dropped.

    The kernel sends SIGHUP to the leader of the session alone, mostly a shell, which hands it on;
    reading shows it earlier. Who catches this ends the program as SIGHUP would.
    """


def escape(text: bytes | str) -> str:
    r"""Return *text* without anything that could drive a terminal or hide what it says.

    Control characters, direction overrides and invisible formats become ``\x1b`` or ``\u202e``,
    bytes that are not UTF-8 ``\xff``; newlines stay. A backslash stays as it is, so this is for
    eyes and cannot be undone.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    return UNSAFE.sub(lambda found: _visible(found[0]), text)


def _visible(character: str) -> str:
    if "\x80" <= character <= "\xff":  # "\x9b" is the byte; "\u009b" is the code point
        return f"\\u{ord(character):04x}"
    return character.encode("unicode_escape").decode("ascii")


class Escaper:
    """`escape` for a stream: any split of the bytes gives the same text, 3 bytes held at most."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def feed(self, data: bytes) -> str:
        """Return the text of *data*, without a code point that is not whole yet."""
        return escape(self._decoder.decode(data))

    def finish(self) -> str:
        """Return what was held back, escaped as the bytes that it is; start anew."""
        return escape(self._decoder.decode(b"", final=True))


@contextmanager
def saved_terminal(fd: int) -> Iterator[None]:
    """Leave the terminal *fd* with the attributes it had, whatever happens inside.

    What was typed and not read is thrown away: it was meant for the conversation, and the shell
    would run it as commands. Waits for nothing (TCSANOW), also if nobody reads the output.
    """
    saved = termios.tcgetattr(fd)
    try:
        yield
    finally:
        with suppress(termios.error):  # hung up: there is no terminal left to restore
            termios.tcflush(fd, termios.TCIFLUSH)
            termios.tcsetattr(fd, termios.TCSANOW, saved)


def silence(fd: int) -> None:
    """Stop the terminal *fd* from echoing and from changing what is typed; Ctrl-C still signals.

    For the time between two prompts: with echo, typing would land in the middle of replies, and
    a canonical terminal would eat a Ctrl-D that came too early, or make two lines' ends of a CRLF.
    """
    attributes = termios.tcgetattr(fd)
    attributes[0] &= ~(termios.ICRNL | termios.INLCR | termios.IGNCR | termios.IXON)
    attributes[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(fd, termios.TCSANOW, attributes)


def forget_typed(fd: int) -> None:
    """Throw away what was typed at the terminal *fd* and is not read; raises `HungUp`."""
    try:
        termios.tcflush(fd, termios.TCIFLUSH)
    except termios.error as error:
        raise HungUp from error


class Console(Protocol):
    """A screen and a keyboard, as `Prompt` needs them; reading raises `HungUp`."""

    async def print(self, text: str) -> None:
        """Print *text*, whole lines that are safe for a terminal, above what is being typed."""

    async def ask(self, question: str, *, fresh: bool) -> str:
        """Return the line typed after *question*; *fresh* forgets what was typed before it.

        Raises EOFError at Ctrl-D and `Interrupted` at Ctrl-C.
        """

    async def type(self, label: str, talk: "Talk") -> None:
        """Prompt with *label* until Ctrl-D, and have *talk* take what is typed.

        Raises `Interrupted` at Ctrl-C. The prompt goes when this is cancelled, too.
        """


@final
class Talk(AsyncIterator[bytes]):
    r"""One conversation at a prompt: what is typed, and the replies to it.

    Each item is a line as UTF-8 with its ``\n``, and leaves for the server when it is taken: its
    round-trip time starts then. The items end at Ctrl-D.
    """

    def __init__(self, console: Console, times: str) -> None:
        """Show replies on *console*, with *times* to format the end of their lines."""
        self._console = console
        self._times = times
        # No bound: what waits here was typed or pasted by hand, and holding up the editor would
        # hold up Ctrl-C too.
        self._entering, self._entered = trio.open_memory_channel[bytes](math.inf)
        self._sent: deque[tuple[bytes, float]] = deque()
        self._escaper = Escaper()
        self._unfinished = ""
        #: Whether the person has ended it, by Ctrl-D.
        self.ended = False
        #: The line that was half typed when the prompt went.
        self.half_typed = b""

    async def type(self, label: str) -> None:
        """Prompt with *label* for what is typed, until Ctrl-D or cancelled."""
        await self._console.type(escape(label), self)
        self.ended = True
        self._entering.close()

    def enter(self, typed: bytes) -> None:
        """Give *typed*, lines mostly, to whoever iterates."""
        self._entering.send_nowait(typed)

    async def __anext__(self) -> bytes:
        return self._take(await anext(self._entered))

    def _take(self, typed: bytes) -> bytes:
        now = trio.current_time()
        self._sent.extend((line, now) for line in typed.split(b"\n")[:-1])
        return typed

    def unanswered(self) -> list[bytes]:
        """Return the messages without a reply, once the prompt has gone; some may not be sent."""
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                self._take(self._entered.receive_nowait())
        return [message for message, _ in self._sent]

    async def show(self, reply: bytes) -> None:
        """Print *reply*, a piece cut anywhere, above the prompt; it returns when it is printed.

        Reply line k answers message k (no upper-casing makes or eats a newline), so each line
        ends with the time since its message was taken. Text that is not a whole line is kept
        until it is one, or too long, or the conversation ends.
        """
        now = trio.current_time()
        text = self._unfinished + self._escaper.feed(reply)
        *lines, self._unfinished = text.split("\n")
        shown = [line + self._round_trip(now) for line in lines]
        if len(self._unfinished) > LONGEST_UNSHOWN:
            shown.append(f"{self._unfinished}\n")
            self._unfinished = ""
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
        if rest := self._unfinished + self._escaper.finish():
            await self._console.print(f"{rest}\n")


class Prompt:
    """What the client says to a person and hears from them; made by `prompt.open_prompt`."""

    def __init__(self, console: Console, *, dim: bool = False) -> None:
        """Talk on *console*; *dim* the round-trip times."""
        self._console = console
        self._times = f"   {DIM}%s{PLAIN}\n" if dim else "   %s\n"

    @asynccontextmanager
    async def talk(self, label: str) -> AsyncIterator[Talk]:
        """Prompt for messages inside the block, until Ctrl-D; *label* stands before them.

        The prompt goes at the end of the block at once, also with a line half typed.

        Ctrl-C raises `Interrupted` out of the block, and a terminal that goes `HungUp`, in an
        exception group as a nursery does.
        """
        talk = Talk(self._console, self._times)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.type, label)
            yield talk
            nursery.cancel_scope.cancel()
        await talk.show_rest()

    async def notice(self, text: str) -> None:
        """Print a line of our own above the prompt; foreign words in it are escaped."""
        await self._console.print(f"{escape(text)}\n")

    async def ask(self, question: str, default: str) -> str:
        """Return the answer to *question* without spaces around it; Enter alone is *default*.

        Raises EOFError at Ctrl-D, `Interrupted` at Ctrl-C and `HungUp`.
        """
        answer = await self._console.ask(escape(f"{question} [{default}]: "), fresh=False)
        return answer.strip() or default

    async def offer(self, question: str) -> bool:
        """Ask for Enter, which is True, or Ctrl-D, which is False.

        What was typed before the question cannot answer it, and words are no answer. Raises
        `Interrupted` and `HungUp`.
        """
        try:
            while await self._console.ask(escape(f"{question} "), fresh=True):
                pass
        except EOFError:
            return False
        return True


class PlainConsole:
    """A terminal that can only print (``TERM=dumb``): no editing but its own, no cursor moved.

    It stays canonical and echoes, so Ctrl-C is SIGINT and a line has 4095 bytes at most.
    """

    def __init__(self, input_fd: int, output_fd: int) -> None:
        self._input_fd = input_fd
        self._output_fd = output_fd
        self._label = ""
        self._at_line_start = True

    async def print(self, text: str) -> None:
        """Print *text*, then the label again: what is half typed stays in the terminal."""
        await self._write(text, self._label)

    async def ask(self, question: str, *, fresh: bool) -> str:
        """Return the line typed after *question*; EOFError at Ctrl-D."""
        if fresh:
            forget_typed(self._input_fd)
        await self._write("", question)
        line = await self._read()
        if not line:
            raise EOFError
        return line.decode("utf-8", "replace").rstrip("\n")

    async def type(self, label: str, talk: Talk) -> None:
        """Prompt with *label* until Ctrl-D; what is half typed then stays on the screen."""
        self._label = label
        await self._write("", label)
        try:
            while typed := await self._read():
                talk.enter(typed)
        finally:
            self._label = ""

    async def _read(self) -> bytes:
        """Return what was typed; empty at Ctrl-D. A canonical terminal gives a line at a time."""
        await trio.lowlevel.wait_readable(self._input_fd)
        try:
            typed = os.read(self._input_fd, READ_BYTES)
        except OSError as error:  # EIO
            raise HungUp from error
        if not typed and not os.isatty(self._input_fd):
            raise HungUp
        self._at_line_start = typed.endswith(b"\n")  # Ctrl-D is not echoed
        if not typed:
            self._label = ""
            await self._write("", "")
        return typed

    async def _write(self, text: str, label: str) -> None:
        start = "" if self._at_line_start else "\n"
        self._at_line_start = not label
        data = f"{start}{text}{label}".encode(errors="replace")
        # A terminal that nobody reads blocks for ever; a thread may be left behind with it.
        await trio.to_thread.run_sync(_write_all, self._output_fd, data, abandon_on_cancel=True)


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    with suppress(OSError):  # hung up: nobody is left to read it, and the input ends too
        while rest:
            rest = rest[os.write(fd, rest) :]
