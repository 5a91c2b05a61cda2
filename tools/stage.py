"""Where and how the program is run to be shown."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory

from tests.acceptance.hosts import Host
from tests.helpers.program import Server, running
from tests.helpers.terminals import COLUMNS, ENTER, ROWS, Terminal, terminal

PORT = "8746"
"""The default one."""

PROMPT = rf":{PORT}>"
"""The end of the client's prompt."""

TIME = r"\d m?s\s"
"""What stands at the end of a reply."""


@asynccontextmanager
async def serving(here: Host) -> AsyncGenerator[Server]:
    """Run a server that other hosts can reach while the block runs."""
    async with running("serve", "--host", here.ipv4, prefix=here.prefix) as server:
        yield await server.ready()


@asynccontextmanager
async def at_terminal(
    host: Host, *words: str, rows: int = ROWS, columns: int = COLUMNS
) -> AsyncGenerator[Terminal]:
    """Run the program at a full-featured terminal, with a person at it, while the block runs."""
    with TemporaryDirectory() as folder:
        environ = {"TERM": "xterm-256color", "NO_COLOR": "", "XDG_STATE_HOME": folder}
        size = (rows, columns)
        async with terminal(*words, environ=environ, prefix=host.prefix, size=size) as person:
            yield person


async def say(person: Terminal, message: str) -> None:
    """Send a message at the client's prompt, and see the reply and the prompt again."""
    await person.types(message, ENTER)
    await person.sees(TIME)
    await person.sees(PROMPT)
