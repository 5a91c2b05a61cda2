"""Gate 14: a cat on the keyboard, and a machine that is no better."""

import os
import random
import re
import signal
from tempfile import TemporaryDirectory

import trio

from tests.acceptance.clients import dice_of, in_time
from tests.acceptance.gate import Broken, Gate, Sizes, expect
from tests.helpers.program import LOCALHOST, serving
from tests.helpers.terminals import ENTER, PASTE_END, PASTE_START, Terminal, terminal

# What is done at the prompt of one client before it is ended, and the longest pause in between.
ACTIONS = 40
LONGEST_PAUSE_SECONDS = 0.1

# No terminal is that small or large, but the kernel allows it.
SIZES = ((24, 80), (1, 1), (2, 5), (50, 200), (200, 500), (24, 10))

SEQUENCES = (
    "\x1b",
    "\x1b[A",
    "\x1b[31m",  # a colour, pasted without brackets
    "\x1b[<0;1m",  # mouse reports, cut short and wrong
    "\x1b[M",
    "\x1b[M !!",
    "\x1b[<0;10;10M",
    "\x1b[200~",  # a paste that does not end
    "\x1b[201~",
    "\x1b[1;5R",  # a cursor position that nobody asked for
    "\x1b]0;title\x07",
    "\x1b[999999999999C",
    "\x1b[?1;2c",
    "\x1bOP",
)

TEXTS = ("hello", "straße", "日本語", "🎉", "e\u0301", "\u202e", "key\tvalue", "x" * 5000)

# Ctrl-C, Ctrl-D and Ctrl-\\ end a client: of few of the random bytes, or none would live long.
LAST_KEYS, LAST_KEYS_SHARE = b"\x03\x04\x1c", 0.1

# Signals that a client must survive, and those by which it may be ended.
HARMLESS = (signal.SIGWINCH, signal.SIGCONT)
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

# How a client may have ended: by Ctrl-D, by Ctrl-D at the offer to connect again, by a signal.
CODES = {0, 1, *(-number for number in ENDING)}

CURSOR = re.compile(rb"\x1b\[\?25([hl])")
PASTE_MODE = re.compile(rb"\x1b\[\?2004([hl])")


class House:
    """A server that is restarted on its port on request."""

    def __init__(self) -> None:
        self.port = 0
        self._number = signal.SIGTERM
        self._stop = trio.Event()
        self._ready = trio.Event()

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Run one server after another."""
        first = True
        while True:
            async with serving("--port", str(self.port)) as server:
                self.port = server.port
                self._stop = trio.Event()
                self._ready.set()
                if first:
                    task_status.started()
                    first = False
                await self._stop.wait()
                await server.stop(self._number)

    async def restart(self, number: signal.Signals) -> None:
        """End the server by a signal, and wait until the next one is ready."""
        self._number = number
        self._ready = trio.Event()
        self._stop.set()
        await self._ready.wait()


class Desk:
    """A terminal with the client, the server that it talks to, and whoever mishandles both."""

    def __init__(self, person: Terminal, house: "House", dice: random.Random) -> None:
        self._person = person
        self._house = house
        self._dice = dice
        self.code: int | None = None
        self.ended = trio.Event()

    async def watch(self) -> None:
        """Bring the client to the foreground whenever it was stopped, until it has ended."""
        while (code := await self._person.report()) is None:
            await trio.sleep(self._dice.uniform(0, LONGEST_PAUSE_SECONDS))
            await self._person.wakes()
        self.code = code
        self.ended.set()

    async def mishandle(self) -> None:
        """Do one thing after another, until the client is to end."""
        actions = [self._type_text, self._type_bytes, self._type_sequence, self._paste, self._enter]
        rare = [self._resize, self._signal, self._stop, self._restart]
        for _ in range(ACTIONS):
            if self.code is not None:
                return
            await self._dice.choice([*(4 * actions), *rare])()
            if self._dice.random() < 1 / 2:
                await trio.sleep(self._dice.uniform(0, LONGEST_PAUSE_SECONDS))

    def end(self) -> None:
        """End the client, in one of the ways in which it must end."""
        if self.code is None:
            self._kill(self._dice.choice(ENDING))

    async def _type_text(self) -> None:
        await self._person.types(self._dice.choice(TEXTS))

    async def _type_bytes(self) -> None:
        data = self._dice.randbytes(self._dice.randint(1, 20))
        if self._dice.random() > LAST_KEYS_SHARE:
            data = data.translate(None, LAST_KEYS)
        await self._person.types(data.decode(errors="surrogateescape"))

    async def _type_sequence(self) -> None:
        await self._person.types(self._dice.choice(SEQUENCES))

    async def _paste(self) -> None:
        lines = "".join(f"line {number}\r" for number in range(self._dice.randint(1, 100)))
        marks = self._dice.choice([(PASTE_START, PASTE_END), ("", "")])
        await self._person.types(marks[0], lines, marks[1])

    async def _enter(self) -> None:
        await self._person.types(ENTER)

    async def _resize(self) -> None:
        self._person.resize(*self._dice.choice(SIZES))
        await trio.lowlevel.checkpoint()

    async def _signal(self) -> None:
        self._kill(self._dice.choice(HARMLESS))
        await trio.lowlevel.checkpoint()

    async def _stop(self) -> None:
        self._kill(self._dice.choice([signal.SIGTSTP, signal.SIGSTOP]))
        await trio.sleep(self._dice.uniform(0, LONGEST_PAUSE_SECONDS))

    async def _restart(self) -> None:
        await self._house.restart(self._dice.choice([signal.SIGTERM, signal.SIGKILL]))

    def _kill(self, number: signal.Signals) -> None:
        if self.code is None:
            os.kill(self._person.pid, number)


async def sit_down(house: House, dice: random.Random, folder: str) -> None:
    """Mishandle one client until it ends; expect no traceback, and a sane terminal."""
    environ = {"TERM": dice.choice(["xterm-256color", "dumb"]), "XDG_STATE_HOME": folder}
    async with terminal("client", LOCALHOST, str(house.port), environ=environ) as person:
        desk = Desk(person, house, dice)
        await person.sees(f"127.0.0.1:{house.port}>")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.watch)
            await desk.mishandle()
            desk.end()
            with in_time("the client did not end"):
                await desk.ended.wait()
        judge(desk.code, person)


def judge(code: int | None, person: Terminal) -> None:
    """Raise `Broken` unless the client ended as it may, and the terminal is as it was."""
    shown = bytes(person.raw)
    expect(b"Traceback" not in shown, f"it says {shown[-1000:].decode(errors='replace')!r}")
    expect(code in CODES, f"the exit code is {code}: {shown[-300:]!r}")
    expect(person.sane, f"the terminal was left raw, after the exit code {code}")
    for mode, last, what in ((CURSOR, b"h", "the cursor"), (PASTE_MODE, b"l", "bracketed paste")):
        found = mode.findall(shown)
        expect(found[-1:] in ([], [last]), f"{what} was left {found[-1:]}, after exit code {code}")


async def run(sizes: Sizes) -> str:
    """Mishandle one client after another, for so many seconds."""
    house, sessions = House(), 0
    with TemporaryDirectory() as folder:
        async with trio.open_nursery() as nursery:
            await nursery.start(house.run)
            end = trio.current_time() + sizes.keys
            while trio.current_time() < end:
                try:
                    await sit_down(house, dice_of(sizes.seed + sessions), folder)
                except Exception as failure:
                    raise Broken(f"--seed {sizes.seed + sessions}: {failure}") from failure
                sessions += 1
            nursery.cancel_scope.cancel()
    return f"{sessions} clients, seeds from {sizes.seed}: no traceback, each left the terminal sane"


GATE = Gate(
    number=14,
    promise="No key, paste, resize, signal or end of the server crashes the prompt, and each end "
    "leaves the terminal sane.",
    doing="random keys, pastes, resizes, signals and restarts of the server for {keys:g} s, from "
    "the seed {seed}",
    run=run,
    limit=lambda sizes: 120 + 2 * sizes.keys,
)
