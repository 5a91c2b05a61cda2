"""The prompt: lines typed with editing and history, while replies appear above it.

prompt_toolkit speaks asyncio, so it lives on an asyncio loop in a thread of its own, for as long as
there is a prompt (`open_asyncio`). Trio tasks await and cancel what runs there; the thread is
always joined. All that reaches the screen is written from that loop, one piece after the other, so
that no prompt is lost to something printed in the middle of it.

Importing this takes a fifth of a second: do it only when there is a terminal to prompt at.
"""

import asyncio
import os
import select
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, TypeVar, TypeVarTuple, cast

import trio
from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.data_structures import Size
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPress, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.output.vt100 import Vt100_Output

from trio_upper.terminal.history import LONGEST_EDITED, FileHistory, encoded
from trio_upper.terminal.keyboard import Keyboard
from trio_upper.terminal.prompt import (
    HungUp,
    Interrupted,
    PlainConsole,
    Prompt,
    Talk,
    escape,
    saved_terminal,
    silence,
)

if TYPE_CHECKING:
    from prompt_toolkit.application import Application

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SWITCH_SECONDS = 0.0001
"""How long one thread may keep the interpreter to itself while another one wants it.

With Python's 5 ms, drawing the prompt anew after Enter counts into the round-trip time: 1.6 ms on a
loopback that takes 0.4.
"""

TICK_MS = 200
"""Milliseconds between two looks at whether to go on waiting for a terminal that takes nothing."""

STOP_SECONDS = 0.2
"""Seconds in which a stop signal surely stops the process; some are left over after it."""

WRITE_BYTES = 16384
"""Bytes given to the terminal at once: some 0.1 s of the slowest that is in use."""


class Asyncio:
    """An asyncio loop in another thread, whose jobs Trio tasks start, await and cancel."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._cancelled = 0

    @property
    def hurried(self) -> bool:
        """Whether a Trio task was cancelled and waits for its job to end; for any thread."""
        return self._cancelled > 0

    async def run(self, function: Callable[[*Ts], Coroutine[Any, Any, T]], *args: *Ts) -> T:
        """Return what ``await function(*args)`` returns in the other thread.

        A cancellation goes to the job, and this returns when the job has ended: with Cancelled
        if the job ended by it, otherwise with what the job gave nevertheless.
        """
        waiting = trio.lowlevel.current_task()
        token = trio.lowlevel.current_trio_token()
        job: asyncio.Task[T]
        cancel: Callable[[], NoReturn] | None = None

        def start() -> None:
            nonlocal job
            job = self._loop.create_task(function(*args))
            job.add_done_callback(lambda _: token.run_sync_soon(trio.lowlevel.reschedule, waiting))

        def abort(raise_cancel: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
            nonlocal cancel
            cancel = raise_cancel
            self._cancelled += 1
            self._loop.call_soon_threadsafe(lambda: job.cancel())
            return trio.lowlevel.Abort.FAILED  # not yet: the job reschedules when it has ended

        self._loop.call_soon_threadsafe(start)
        await trio.lowlevel.wait_task_rescheduled(abort)
        if cancel is not None:
            self._cancelled -= 1
            if job.cancelled():
                cancel()
        return job.result()


@asynccontextmanager
async def open_asyncio() -> AsyncIterator[Asyncio]:
    """Run an asyncio loop in a thread while the block lasts; the thread is joined at its end.

    Jobs must have ended by then: whoever started one waits for it, and is inside the block.
    """
    with closing(asyncio.new_event_loop()) as loop, switching_fast():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_run_forever, loop)
            try:
                yield Asyncio(loop)
            finally:
                loop.call_soon_threadsafe(loop.stop)


@contextmanager
def switching_fast() -> Iterator[None]:
    """Let this process's threads take turns after `SWITCH_SECONDS` inside the block."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


async def _run_forever(loop: asyncio.AbstractEventLoop) -> None:
    # Shielded, so that the thread starts even if everything is cancelled at once: a job waits for
    # a loop that runs. No deadline: the end of the block above stops the loop. The limiter is its
    # own, as name look-ups that hang may have used up the common one.
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(loop.run_forever, limiter=trio.CapacityLimiter(1))


class Screen:
    """The terminal's output as prompt_toolkit writes to it: waits, but not while in a hurry.

    A terminal that takes nothing (a frozen window, a dead link) holds up its writer for ever. Here
    it holds up nobody who has been cancelled: what cannot be written then is dropped.
    """

    encoding = "utf-8"

    def __init__(self, fd: int, hurried: Callable[[], bool]) -> None:
        """Write to the non-blocking *fd*, which the caller closes."""
        self._fd = fd
        self._hurried = hurried
        self._stuck = False
        self._writable = select.poll()
        self._writable.register(fd, select.POLLOUT)

    def write(self, text: str) -> None:
        """Write *text*; in a hurry only what is short, such as the sequences that tidy up."""
        rest = memoryview(text.encode(errors="replace"))
        with suppress(OSError):  # hung up: nobody is left to read it, and the input ends too
            while rest and not (self._hurried() and len(rest) > WRITE_BYTES):
                try:
                    rest = rest[os.write(self._fd, rest[:WRITE_BYTES]) :]
                except BlockingIOError:
                    if not self._has_room():
                        return

    def _has_room(self) -> bool:
        """Wait until the terminal takes output; False if it does not and there is a hurry."""
        while not self._writable.poll(0 if self._stuck and self._hurried() else TICK_MS):
            self._stuck = True
            if self._hurried():
                return False
        self._stuck = False
        return True

    def flush(self) -> None:
        """Do nothing: nothing is buffered here."""


@contextmanager
def unblocked(fd: int) -> Iterator[int]:
    """Give a descriptor of the terminal *fd* whose writes do not block.

    A new description, because O_NONBLOCK on this one would hit every process that shares it. Where
    the terminal cannot be opened again (another user's, after ``su``), give *fd* itself.
    """
    flags = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        own = os.open(os.ttyname(fd), flags)
    except OSError:
        yield fd
        return
    try:
        yield own
    finally:
        os.close(own)


class Entry:
    """Messages as they are typed: each line is echoed above the prompt and handed over.

    The prompt stays up for the whole conversation instead of one prompt a line, so there is no
    moment in which a key could be lost or a reply could meet a prompt that is just starting.
    """

    def __init__(
        self, label: str, echo: Callable[[str], None], deliver: Callable[[bytes], None]
    ) -> None:
        self._label = label
        self._echo = echo
        self._deliver = deliver
        self._held: list[str] = []  # the start of a line that is too long for the editor

    def label(self) -> str:
        """Return what stands before the text in the editor."""
        held = sum(map(len, self._held))
        return f"{self._label}({held:,} characters) " if held else self._label

    def accept(self, buffer: Buffer) -> bool:
        """Hand over the line in *buffer*; False, so that the next one starts empty."""
        self._echo(f"{self.label()}{escape(encoded(buffer.text))}\n")
        line = self.line(buffer)
        if self._held:
            self._held.clear()
            buffer.reset()  # half a line is nothing for the history
        self._deliver(line + b"\n")
        return False

    def line(self, buffer: Buffer) -> bytes:
        """Return the line as it is now, with what is in *buffer*."""
        return encoded("".join(self._held) + buffer.text)

    def hold(self, buffer: Buffer) -> None:
        """Take what is before the cursor out of the editor, as the start of the line."""
        self._held.append(buffer.document.text_before_cursor)
        buffer.reset(Document(buffer.document.text_after_cursor, 0))


class Editor:
    """A `terminal.Console` with editing and history; at most one prompt is up at a time."""

    def __init__(
        self, asyncio_: Asyncio, keyboard: Keyboard, output: Vt100_Output, history: History
    ) -> None:
        self._asyncio = asyncio_
        self._keyboard = keyboard
        self._output = output
        self._history = history
        self._app: Application[str] | None = None

    async def print(self, text: str) -> None:
        """Print *text*, whole lines, above the prompt if one is up."""
        await self._asyncio.run(self._print, text)

    async def ask(self, question: str, *, fresh: bool) -> str:
        """Return the line typed after *question*; EOFError at Ctrl-D, `Interrupted` at Ctrl-C."""
        return await self._asyncio.run(self._ask, question, fresh)

    async def type(self, label: str, talk: Talk) -> None:
        """Keep the prompt up until Ctrl-D or cancelled, and have *talk* take what is typed."""
        token = trio.lowlevel.current_trio_token()
        entry = Entry(label, self._write, lambda line: token.run_sync_soon(talk.enter, line))
        with suppress(EOFError):
            await self._asyncio.run(self._edit, entry, talk)

    async def _edit(self, entry: Entry, talk: Talk) -> None:
        session = self._session(entry.label, self._history, entry.hold, erase_when_done=True)
        session.default_buffer.accept_handler = entry.accept
        try:
            await self._run(session)
        finally:
            talk.half_typed = entry.line(session.default_buffer)

    async def _ask(self, question: str, fresh: bool) -> str:
        if fresh:
            self._keyboard.forget()
        return await self._run(self._session(question, InMemoryHistory(), Buffer.reset))

    def _session(
        self,
        message: str | Callable[[], str],
        history: History,
        overflow: Callable[[Buffer], None],
        erase_when_done: bool = False,
    ) -> PromptSession[str]:
        return PromptSession(
            message,
            history=history,
            key_bindings=bindings_for(overflow),
            erase_when_done=erase_when_done,
            interrupt_exception=Interrupted,
            input=self._keyboard,
            output=self._output,
        )

    async def _run(self, session: PromptSession[str]) -> str:
        def fail(_: object, context: dict[str, Any]) -> None:
            error = context.get("exception") or RuntimeError(context["message"])
            session.app.exit(exception=error)

        # A bug in what a key does ends the prompt; asyncio would log it over the screen and go on.
        asyncio.get_running_loop().set_exception_handler(fail)
        self._app = session.app
        try:
            return await session.prompt_async(handle_sigint=False, set_exception_handler=False)
        except EOFError:
            if self._keyboard.closed:
                raise HungUp from None
            raise
        finally:
            self._app = None

    async def _print(self, text: str) -> None:
        self._write(text)

    def _write(self, text: str) -> None:
        if self._app is not None:
            self._app.renderer.erase()
        self._output.write_raw(text)
        self._output.flush()
        if self._app is not None:
            self._app.invalidate()


def bindings_for(overflow: Callable[[Buffer], None]) -> KeyBindings:
    """Return what our own keys do: pasted lines stay apart, Ctrl-Z suspends.

    *overflow* makes room in a buffer that holds more than `LONGEST_EDITED` characters.
    """
    bindings = KeyBindings()

    @bindings.add(Keys.BracketedPaste, filter=has_focus(DEFAULT_BUFFER))
    def paste(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        text, newline, rest = event.data.partition("\n")
        buffer.insert_text(text)
        if len(buffer.text) > LONGEST_EDITED:
            overflow(buffer)
        if newline:
            buffer.validate_and_handle()
        if rest:  # for the next prompt, if this line has ended one
            event.key_processor.feed(KeyPress(Keys.BracketedPaste, rest), first=True)

    @bindings.add("c-z")
    def suspend(_: KeyPressEvent) -> None:
        run_in_terminal(_stop)

    return bindings


def _stop() -> None:
    """Stop this job until the shell continues it; return then.

    Not `Application.suspend_to_background`: another thread may take the signal, and this one would
    draw the prompt again before the process stops.
    """
    os.kill(0, signal.SIGTSTP)  # the whole group, or the shell goes on waiting for a wrapper
    time.sleep(STOP_SECONDS)


@asynccontextmanager
async def open_prompt(
    *, history: Path | None = None, input_fd: int = 0, output_fd: int = 1
) -> AsyncIterator[Prompt]:
    """Talk to the person at the terminal inside the block; it is left as it was found.

    *history* is the file for what was typed, None for no file. Both descriptors must be terminals
    (termios.error otherwise) and are not closed. ``TERM=dumb`` gives a prompt without editing,
    ``NO_COLOR`` one without dimmed times.

    Nothing else may print to the terminal inside the block: use `Prompt.notice`. An exception
    leaves the block in a group, as it does a nursery.
    """
    dumb = os.environ.get("TERM", "").lower() in {"dumb", "unknown"}
    dim = not dumb and not os.environ.get("NO_COLOR")  # https://no-color.org
    with saved_terminal(input_fd):
        if dumb:
            yield Prompt(PlainConsole(input_fd, output_fd))
            return
        async with open_editor(history, input_fd, output_fd) as editor:
            yield Prompt(editor, dim=dim)


@asynccontextmanager
async def open_editor(history: Path | None, input_fd: int, output_fd: int) -> AsyncIterator[Editor]:
    """Edit lines at a terminal inside the block; the terminal is left silent, see `silence`."""
    silence(input_fd)
    async with open_asyncio() as asyncio_:
        with unblocked(output_fd) as fd:
            screen = Screen(fd, lambda: asyncio_.hurried)
            output = Vt100_Output(
                cast("TextIO", screen),
                get_size=partial(_size, output_fd),
                term=os.environ.get("TERM"),
                default_color_depth=ColorDepth.from_env(),  # NO_COLOR
                enable_cpr=False,  # its answers would get lost among what is typed
            )
            past = InMemoryHistory() if history is None else FileHistory(history)
            yield Editor(asyncio_, Keyboard(input_fd), output, past)


def _size(fd: int) -> Size:
    """Return the size of the terminal; one that does not know it has the usual one."""
    try:
        size = os.get_terminal_size(fd)
    except OSError:  # hung up
        size = os.terminal_size((0, 0))
    return Size(rows=size.lines or 24, columns=size.columns or 80)
