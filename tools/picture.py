"""The pictures of terminals, from real runs: a conversation; a link that is tried, and fails."""

import io

from rich.console import Console
from rich.text import Text
from tests.acceptance.hosts import END, Host, two_hosts
from tests.helpers.terminals import CTRL_C

from tools.screen import Screen
from tools.stage import PORT, PROMPT, at_terminal, say

COLUMNS = 104
"""The summary of `ping` is the longest line."""

SIZE = {"rows": 24, "columns": COLUMNS}

SERVE = ("serve", "--public")

MESSAGES = ("hello", "Straße", "καλημέρα")
"""A plain one, one that gets longer, and one in another alphabet."""

GAP = 12
"""Between the windows, in the picture's units: a character is 20 of them high."""

WINDOW = """{width} {height}
<style>
.{unique_id}-matrix {{ font: {char_height}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", \
monospace; }}
.{unique_id}-title {{ font: bold 18px sans-serif; }}
{styles}
</style>
<clipPath id="{unique_id}-clip">
<rect width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
"""
"""rich's own format names a font that it loads from the network; a picture that stands in a page
must not. Here the width and height of the window come first, in a line of their own."""


async def draw() -> dict[str, str]:
    """Return each picture as SVG by the name of its file.

    Error handling: `tests.acceptance.gate.Skipped` escapes where there cannot be two hosts.
    """
    async with two_hosts("picture") as (here, there):
        first, second = f"one machine: {here.ipv4}", f"another machine: {there.ipv4}"
        server, client = await converse(here, there)
        talk = stack(window("server", first, server), window("client", second, client))
        link = stack(window("link", second, await check_and_ping(here, there)))
    return {"picture.svg": talk, "link.svg": link}


async def converse(here: Host, there: Host) -> tuple[list[Text], list[Text]]:
    """Return what the server's terminal shows, and the client's, in front of the next message."""
    words = ("client", here.ipv4, PORT)
    async with at_terminal(here, *SERVE, **SIZE) as operator:
        await operator.sees(r"other machines.*\n")
        async with at_terminal(there, *words, **SIZE) as person:
            await person.sees(PROMPT)
            for message in MESSAGES:
                await say(person, message)
            await operator.sees(r"client connected.*\n")
            server, client = (Screen(bytes(one.raw), **SIZE) for one in (operator, person))
    return (
        [typed(*SERVE), *server.styled(cursor=False)],
        [typed(*words), *client.styled(cursor=True)],
    )


async def check_and_ping(here: Host, there: Host) -> list[Text]:
    """Return what a terminal shows of `check`, and of `ping` while the cable is out for a while."""
    check, ping = ("check", here.ipv4), ("ping", here.ipv4)
    async with at_terminal(here, *SERVE, **SIZE) as operator:
        await operator.sees(r"other machines.*\n")
        async with at_terminal(there, *check, **SIZE) as person:
            await person.sees("verdict.*\n")
            await person.ends()
            checked = Screen(bytes(person.raw), **SIZE).styled(cursor=False)
        async with at_terminal(there, *ping, **SIZE) as person:
            await person.sees("seq=3 ")
            await here.ip("link", "set", END, "down")
            await person.sees("no answer for.*\n.*no answer for")
            await here.ip("link", "set", END, "up")
            await person.sees("back after")
            await person.sees("seq=5 .* ms")
            await person.types(CTRL_C)
            await person.ends()
            pinged = Screen(bytes(person.raw), **SIZE).styled(cursor=False)
    return [typed(*check), *checked, Text(), typed(*ping), *pinged]


def typed(*words: str) -> Text:
    """Return the line in which the program was started, as a shell shows it."""
    return Text(f"$ python -m trio_upper {' '.join(words)}", style="bold")


def window(name: str, title: str, lines: list[Text]) -> str:
    """Return a window with these lines, in the form of `WINDOW`."""
    console = Console(
        record=True,
        width=COLUMNS,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        no_color=False,
    )
    console.print(*lines, sep="\n", highlight=False, no_wrap=True, overflow="ignore", crop=False)
    return console.export_svg(title=title, code_format=WINDOW, unique_id=name)


def stack(*windows: str) -> str:
    """Return one SVG with the windows one below the other."""
    widest, height, parts = 0.0, 0.0, []
    for size, _, drawing in (one.partition("\n") for one in windows):
        wide, high = map(float, size.split())
        parts.append(f'<g transform="translate(0, {height:g})">\n{drawing}</g>\n')
        widest, height = max(widest, wide), height + high + GAP
    size = f'width="{widest:g}" height="{height - GAP:g}" viewBox="0 0 {widest:g} {height - GAP:g}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n{"".join(parts)}</svg>\n'
