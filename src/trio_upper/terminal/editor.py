"""The prompt: lines typed with editing and history, while replies appear above it.

prompt_toolkit speaks asyncio, so it lives on an asyncio loop in a thread of its own, for as long as
there is a prompt. Trio tasks await and cancel what runs there. All that reaches the screen is
written from that loop, one piece after the other, so that no prompt is lost to something printed in
the middle of it.

Importing this takes a fifth of a second: do it only when there is a terminal to prompt at.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPress, KeyPressEvent
from prompt_toolkit.keys import Keys

from trio_upper.platform import terminal
from trio_upper.terminal.asyncio_thread import Asyncio, open_asyncio
from trio_upper.terminal.console import HungUp, Interrupted, Typing
from trio_upper.terminal.devices import Devices, open_devices
from trio_upper.terminal.escape import escape
from trio_upper.terminal.history import LINE_CHARACTERS, open_history
from trio_upper.terminal.lease import Lease, borrow
from trio_upper.terminal.plain import PlainConsole
from trio_upper.terminal.prompt import Prompt
from trio_upper.terminal.screen import TICK_SECONDS

if TYPE_CHECKING:
    from prompt_toolkit.application import Application


class Entry:
    """Messages as they are typed: each line is echoed above the prompt and handed over.

    The prompt stays open for the whole conversation instead of one prompt a line, so there is no
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
        """Hand over the line in `buffer`; False, so that the next one starts empty."""
        self._echo(f"{self.label()}{escape(encoded(buffer.text))}\n")
        line = self.line(buffer)
        if self._held:
            self._held.clear()
            buffer.reset()  # half a line is nothing for the history
        self._deliver(line + b"\n")
        return False

    def line(self, buffer: Buffer) -> bytes:
        """Return the line as it is now, with what is in `buffer`."""
        return encoded("".join(self._held) + buffer.text)

    def hold(self, buffer: Buffer) -> None:
        """Take what is before the cursor out of the editor, as the start of the line."""
        self._held.append(buffer.document.text_before_cursor)
        buffer.reset(Document(buffer.document.text_after_cursor, 0))


class Editor:
    """A `console.Console` with editing and history; at most one prompt is open at a time."""

    def __init__(
        self,
        asyncio_: Asyncio,
        devices: Devices,
        history: History,
        lease: Lease,
    ) -> None:
        self._asyncio = asyncio_
        self._keyboard, self._output, self._forget = devices
        self._history = history
        self._lease = lease
        self._app: Application[str] | None = None

    async def print(self, text: str) -> None:
        """Print `text`, whole lines, above the prompt if one is open."""
        await self._asyncio.run(self._print, text)

    async def ask(self, question: str, *, fresh: bool) -> str:
        """Return the line typed after `question`; EOFError at Ctrl-D, `Interrupted` at Ctrl-C."""
        return await self._asyncio.run(self._ask, question, fresh)

    async def type(self, label: str, typing: Typing) -> None:
        """Keep the prompt open until Ctrl-D or cancelled, and give what is typed to `typing`."""
        token = trio.lowlevel.current_trio_token()
        entry = Entry(label, self._write, lambda line: token.run_sync_soon(typing.enter, line))
        with suppress(EOFError):
            await self._asyncio.run(self._edit, entry, typing)

    async def leave(self, give_back: Callable[[], object]) -> None:
        """Take the prompt off the screen and give the terminal back: the job is about to stop."""
        await self._asyncio.run_hurried(partial(self._erase, give_back))

    async def resume(self, take_again: Callable[[], bool]) -> None:
        """Take the terminal again, and draw the prompt where the cursor is."""
        await self._asyncio.run(self._redraw, take_again)

    async def _edit(self, entry: Entry, typing: Typing) -> None:
        session = self._session(entry.label, self._history, entry.hold, erase_when_done=True)
        session.default_buffer.accept_handler = entry.accept
        try:
            await self._run(session, decoded(typing.unfinished))
        finally:
            typing.unfinished = entry.line(session.default_buffer)

    async def _ask(self, question: str, fresh: bool) -> str:
        if fresh:
            self._forget()
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

    async def _run(self, session: PromptSession[str], text: str = "") -> str:
        def fail(_: object, context: dict[str, Any]) -> None:
            error = context.get("exception") or RuntimeError(context["message"])
            session.app.exit(exception=error)

        # A bug in what a key does ends the prompt; asyncio would log it over the screen and go on.
        asyncio.get_running_loop().set_exception_handler(fail)
        self._app = session.app
        try:
            return await session.prompt_async(
                default=text, handle_sigint=False, set_exception_handler=False
            )
        except EOFError:
            if self._keyboard.closed:
                raise HungUp from None
            raise
        finally:
            self._app = None

    async def _print(self, text: str) -> None:
        while not self._lease.usable:  # noqa: ASYNC110 - a shell tells nobody when it takes it back
            await asyncio.sleep(TICK_SECONDS)  # and nothing is lost
        self._write(text)

    def _write(self, text: str) -> None:
        if self._app is not None:
            self._app.renderer.erase()
        self._output.write_raw(text)
        self._output.flush()
        if self._app is not None:
            self._app.invalidate()

    async def _erase(self, give_back: Callable[[], object]) -> None:
        if self._app is not None:
            self._app.renderer.erase()
        give_back()

    async def _redraw(self, take_again: Callable[[], bool]) -> None:
        elsewhere = take_again()
        if self._app is not None:
            if elsewhere:
                self._app.renderer.reset()  # there is nothing of ours to erase
            else:
                self._app.renderer.erase()
            self._app.invalidate()


def bindings_for(overflow: Callable[[Buffer], None]) -> KeyBindings:
    """Return what our own keys do.

    Pasted lines stay apart, Tab is text, and what stops or quits a job at a terminal does it here.
    `overflow` makes room in a buffer that holds more than `LINE_CHARACTERS`.
    """
    bindings = KeyBindings()

    @bindings.add(Keys.BracketedPaste, filter=has_focus(DEFAULT_BUFFER))
    def paste(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        lines = event.data.replace("\r\n", "\n").replace("\r", "\n")  # as Windows has them
        text, newline, rest = lines.partition("\n")
        buffer.insert_text(text)
        if len(buffer.text) > LINE_CHARACTERS:
            overflow(buffer)
        if newline:
            buffer.validate_and_handle()
        if rest:  # for the next prompt, if this line has ended one
            event.key_processor.feed(KeyPress(Keys.BracketedPaste, rest), first=True)

    @bindings.add(Keys.Tab)
    def insert_tab(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\t")

    @bindings.add("c-z")
    def suspend(_: KeyPressEvent) -> None:
        terminal.request_stop()  # the lease stops the others, when all is put away

    @bindings.add("c-\\")
    def quit_(_: KeyPressEvent) -> None:
        terminal.signal_job(terminal.QUIT)

    return bindings


def encoded(line: str) -> bytes:
    """Return the bytes that were typed for `line`, also those that are not UTF-8."""
    return line.encode("utf-8", "surrogateescape")


def decoded(typed: bytes) -> str:
    """Return the text for the editor of bytes that were typed."""
    return typed.decode("utf-8", "surrogateescape")


@asynccontextmanager
async def open_prompt(
    *, history: Path | None = None, input_fd: int = 0, output_fd: int = 1
) -> AsyncIterator[Prompt]:
    """Talk to the person at the terminal inside the block; it is left as it was found.

    `history` is the file for what was typed, None for no file. Both descriptors must be terminals
    (OSError otherwise) and are not closed. ``TERM=dumb`` gives a prompt without editing,
    ``NO_COLOR`` one without dimmed times.

    Nothing else may print to the terminal inside the block: use `Prompt.notice`. An exception
    leaves the block in a group, as it does a nursery.
    """
    dumb = terminal.is_dumb()
    dim = not dumb and not os.environ.get("NO_COLOR")  # https://no-color.org
    with borrow(input_fd) as lease, _open_console(dumb, lease, history, output_fd) as console:
        async with trio.open_nursery() as nursery:
            await nursery.start(lease.watch, console)
            yield Prompt(console, dim=dim)
            nursery.cancel_scope.cancel()


@contextmanager
def _open_console(
    dumb: bool, lease: Lease, history: Path | None, output_fd: int
) -> Iterator[PlainConsole | Editor]:
    if dumb:
        yield PlainConsole(lease, output_fd)
        return
    lease.use(terminal.silent)  # until a prompt opens
    with (
        open_asyncio() as asyncio_,
        open_devices(lease, output_fd, hurried=lambda: asyncio_.hurried) as devices,
    ):
        yield Editor(asyncio_, devices, open_history(history), lease)
