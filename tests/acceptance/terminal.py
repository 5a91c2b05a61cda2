"""Gate 9: the client at a terminal, and every way in which it ends."""

import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from tempfile import TemporaryDirectory

import trio

from tests.acceptance.clients import in_time
from tests.acceptance.gate import Gate, Sizes, expect
from tests.acceptance.servers import hosting
from tests.helpers.program import LOCALHOST, Server
from tests.helpers.terminals import CTRL_C, CTRL_D, ENTER, Terminal, terminal

# For an end that follows at once, on a busy machine.
AT_ONCE_SECONDS = 5.0

OFFER = r"Enter connects again, Ctrl-D ends\."

Ending = Callable[[Terminal, Server], Awaitable[None]]


async def press(key: str, person: Terminal, _: Server) -> None:
    """Press a key at an empty line."""
    await person.types(key)


async def press_in_a_line(key: str, person: Terminal, _: Server) -> None:
    """Press a key with half a line typed."""
    await person.types("half a line")
    await person.sees("half a line")
    await person.types(key)


async def send_signal(number: signal.Signals, person: Terminal, _: Server) -> None:
    """Send a signal with half a line typed."""
    await person.types("half a line")
    await person.sees("half a line")
    os.kill(person.pid, number)


async def kill_server(person: Terminal, server: Server) -> None:
    """Kill the server with half a line typed, and decline to connect again."""
    await person.types("half a line")
    await person.sees("half a line")
    server.send(signal.SIGKILL)
    await person.sees("the server closed the connection")
    await person.sees(OFFER)
    await person.types(CTRL_D)


async def stop_server(person: Terminal, server: Server) -> None:
    """Stop the server, see its notice, and decline to connect again."""
    server.send(signal.SIGTERM)
    await person.sees("the server is shutting down")
    await person.sees(OFFER)
    await person.types(CTRL_D)


CLIENT_ENDS: dict[str, tuple[Ending, int]] = {
    "Ctrl-D": (partial(press, CTRL_D), 0),
    "Ctrl-C": (partial(press, CTRL_C), -signal.SIGINT),
    "Ctrl-C in a line": (partial(press_in_a_line, CTRL_C), -signal.SIGINT),
    "SIGTERM": (partial(send_signal, signal.SIGTERM), -signal.SIGTERM),
    "SIGHUP": (partial(send_signal, signal.SIGHUP), -signal.SIGHUP),
}
"""The ways in which the client ends first, and its exit codes (negative: the signal)."""

# The ways in which the server ends first, and its exit codes; the client's is 1.
SERVER_ENDS: dict[str, tuple[Ending, int]] = {
    "server stopped": (stop_server, 0),
    "server killed": (kill_server, -signal.SIGKILL),
}


async def try_one(name: str, ending: Ending, code: int, server: Server, folder: str) -> None:
    """Have a conversation at a terminal, end it, and look at the exit code and the terminal."""
    environ = {"TERM": "xterm-256color", "XDG_STATE_HOME": folder}
    async with terminal("client", LOCALHOST, str(server.port), environ=environ) as person:
        await person.sees(f"127.0.0.1:{server.port}>")
        await person.types("Straße", ENTER)
        await person.sees(r"STRASSE +\d+\.\d\d m?s")
        expect(not person.sane, f"{name}: there is no prompt that edits lines")
        with in_time(f"{name}: it did not end", AT_ONCE_SECONDS):
            await ending(person, server)
            ended = await person.ends()
        expect(ended == code, f"{name}: the exit code is {ended}, not {code}")
        expect(person.sane, f"{name}: the terminal was left raw")


async def try_all(folder: str) -> None:
    """Try each way to end once."""
    async with hosting() as server, trio.open_nursery() as nursery:
        for name, (ending, code) in CLIENT_ENDS.items():
            nursery.start_soon(try_one, name, ending, code, server, folder)
    for name, (ending, code) in SERVER_ENDS.items():
        async with hosting(code=code) as server:
            await try_one(name, ending, 1, server, folder)


async def run(sizes: Sizes) -> str:
    """Try all several times: what goes wrong here goes wrong now and then."""
    with TemporaryDirectory() as folder:
        for _ in range(sizes.rounds):
            await try_all(folder)
    names = ", ".join([*CLIENT_ENDS, *SERVER_ENDS])
    return f"{names}: right exit code and a sane terminal, {sizes.rounds}x each"


GATE = Gate(
    number=9,
    promise="However a conversation at a terminal ends, the terminal is left sane, and the exit "
    "code is right.",
    doing="the client in a pseudo-terminal, ended in each way, {rounds}x each",
    run=run,
    limit=lambda sizes: 60 + 60 * sizes.rounds,
)
