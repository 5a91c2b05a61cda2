"""The README's examples: each command is run as it stands there, and what it prints put below."""

import re
import shlex
from itertools import takewhile

from tests.acceptance.hosts import Host, two_hosts
from tests.helpers.program import run, running
from tests.helpers.terminals import COLUMNS, CTRL_D, ENTER, ROWS

from tools.screen import Screen
from tools.stage import PROMPT, at_terminal, say, serving
from trio_upper.client.failures import Cause

EXAMPLE = re.compile(r"(```console\n\$ python -m trio_upper (.+)\n)(?:.*\n)*?(```\n)")

CAUSES = re.compile(r"(\| it says \| check \|\n\|---\|---\|\n)(?:\|.*\n)*")


def renew_causes(readme: str) -> str:
    """Return `readme` with the table of what stands in the way of a connection, as it is now."""
    rows = (f"| {cause.words} | {cause.hint} |\n" for cause in Cause)
    table = "".join(rows).replace("{detail}", "…")
    return CAUSES.sub(lambda found: found[1] + table, readme)


async def renew_examples(readme: str) -> str:
    """Return `readme` with what its examples print now.

    Error handling: `gates.gate.Skipped` escapes where there cannot be two hosts.
    """
    parts, end = [], 0
    async with two_hosts("examples") as (here, there):
        for found in EXAMPLE.finditer(readme):
            lines = await perform(shlex.split(found[2]), here, there)
            parts += [readme[end : found.start()], found[1], "".join(f"{one}\n" for one in lines)]
            end = found.start(3)
    return "".join([*parts, readme[end:]])


async def perform(words: list[str], here: Host, there: Host) -> list[str]:
    """Return what a command prints, a server's here, another one's there while one serves here."""
    match words:
        case ["serve", *_]:
            return await announce(words, here)
        case ["client", _, _]:
            return await converse(words, here, there)
    async with serving(here):
        ended = await run(*words, prefix=there.prefix)
    return (ended.stdout + ended.stderr).decode().rstrip().splitlines()


async def announce(words: list[str], here: Host) -> list[str]:
    """Return what a server says before it is told to stop."""
    async with running(*words, prefix=here.prefix) as server:
        await server.ready()
        await server.stop()
    return list(takewhile(lambda line: "stopping" not in line, server.lines))


async def converse(words: list[str], here: Host, there: Host) -> list[str]:
    """Return what a terminal shows of a conversation whose server stops, and comes back."""
    async with at_terminal(there, *words) as person:
        async with serving(here) as server:
            await person.sees(PROMPT)
            await say(person, "hello")
            await server.stop()
        await person.sees("Enter connects again")
        async with serving(here):
            await person.types(ENTER)
            await say(person, "Straße")
            await person.types(CTRL_D)
            await person.ends()
    return Screen(bytes(person.raw), ROWS, COLUMNS).lines
