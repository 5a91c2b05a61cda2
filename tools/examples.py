"""The documentation's examples: each command is run as it stands there, its output put below it."""

import re
import shlex
from itertools import takewhile

from tests.acceptance.hosts import Host, two_hosts
from tests.helpers.program import run
from tests.helpers.terminals import COLUMNS, CTRL_C, CTRL_D, ENTER, ROWS

from tools.screen import Screen
from tools.stage import PROMPT, at_terminal, say, serving

PAGES = ("README.md", "docs/guide.md", "docs/troubleshooting.md")
"""Where the examples are, from the project's folder."""

WIDE = 200
"""The columns of a terminal on which no line is too long."""

EXAMPLE = re.compile(r"(```console\n\$ python -m trio_upper (.+)\n)(?:.*\n)*?(```\n)")


async def renew_examples(texts: list[str]) -> list[str]:
    """Return each of `texts` with what its examples print now.

    Error handling: `tests.acceptance.gate.Skipped` escapes where there cannot be two hosts.
    """
    async with two_hosts("examples") as (here, there):
        return [await _renew(text, here, there) for text in texts]


async def _renew(text: str, here: Host, there: Host) -> str:
    parts, end = [], 0
    for found in EXAMPLE.finditer(text):
        lines = await perform(shlex.split(found[2]), here, there)
        parts += [text[end : found.start()], found[1], "".join(f"{one}\n" for one in lines)]
        end = found.start(3)
    return "".join([*parts, text[end:]])


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
    """Return what a server says at a terminal before it is stopped."""
    async with at_terminal(here, *words, columns=WIDE) as operator:
        await operator.sees(r"other machines.*\n.*\n")
        await operator.types(CTRL_C)
        await operator.ends()
    lines = Screen(bytes(operator.raw), ROWS, WIDE).lines
    return list(takewhile(lambda line: "stopping" not in line, lines))


async def converse(words: list[str], here: Host, there: Host) -> list[str]:
    """Return what a terminal shows of a conversation whose server stops, and comes back."""
    async with serving(here) as server, at_terminal(there, *words) as person:
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
