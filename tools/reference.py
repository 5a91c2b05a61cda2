"""Writes what the program itself knows into its documentation: ``python -m tools.reference``.

``docs/reference.md`` as a whole: options, environment, exit codes, notices, events of the log and
fields of JSON. In ``docs/troubleshooting.md`` the table of causes, in ``docs/performance.md`` that
of the targets, some of whose rows are in the README.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from inspect import cleandoc
from pathlib import Path
from textwrap import indent

import click

from tools import ROOT
from tools.meanings import EVENTS, EXIT_CODES, FIELDS, ROUND_TRIP
from trio_upper import protocol
from trio_upper.cli.commands import cli
from trio_upper.client.failures import Cause

SOURCES = ROOT / "src" / "trio_upper"

CAUSES = re.compile(r"(\| it says \| check \|\n\|---\|---\|\n)(?:\|.*\n)*")

FIGURES = re.compile(r"^\| target \|.*\n(?:\|.*\n)+", re.MULTILINE)

# The rows of it that the README has: what matters most, and what is lost.
SHORT = (
    "| target |",
    "| --- |",
    "| 1. small messages, 1000 connections",
    "| 2. small messages, 1000 connections",
    "| 5. bulk: MB/s",
    "| 9. client",
    "| 13. TLS, small messages",
)

INTRODUCTION = """\
# Reference

<!-- Written by `python -m tools.reference`; change the program, or tools/meanings.py, instead. -->

The commands and their options, [the environment](#environment), [exit codes](#exit-codes),
[notices](#notices), [the log](#the-log) and [JSON](#json). `python -m trio_upper COMMAND --help`
says the same of a command. How they are used stands in the [guide](guide.md).
"""

ENVIRONMENT = """\
Every option and argument can come from the environment, as `TRIO_UPPER_<COMMAND>_<OPTION>`, in
capitals and with `_` for `-`: `TRIO_UPPER_SERVE_MAX_CLIENTS=100`, `TRIO_UPPER_CLIENT_HOST=alpha`.
An option that may be repeated has its values separated by spaces there; a flag is `1` or `0`. What
is typed comes first, also a port within HOST, and of two options that exclude each other, as
`--host` and `--public`. Both from the environment are a usage error, as both typed are.
"""

NOTICES = """\
A server that closes a connection says why, in one line that begins with `trio-upper: `. No reply
can: it holds no lower-case letter of ASCII. The client shows it on standard error.

"""

LOG = """\
To standard error, as text or JSON (`--log-format`); one line an event, its fields in this order: as
text after the time and the level, as JSON before `event`, `level` and `timestamp`. What clients
send is never in it. The server does not wait for its reader: 50,000 lines are buffered, and the
first one after lines that were dropped counts them, as `lost`.

"""


def reference() -> str:
    """Return the text of ``docs/reference.md``."""
    chapters = {
        **{f"`{name}`": command(name) for name in cli.commands},
        "Options of all that connect": [*table(OPTION_HEADINGS, map(option_row, shared_options()))],
        "Environment": [ENVIRONMENT],
        "Exit codes": [*table(("code", "`serve`", other_commands()), exit_code_rows())],
        "Notices": [NOTICES, *table(("notice", "when"), notice_rows())],
        "The log": [LOG, *table(("event", "level", "fields", "meaning"), event_rows())],
        "JSON": [*json_tables()],
    }
    text = "".join(f"\n## {heading}\n\n{''.join(parts)}" for heading, parts in chapters.items())
    return INTRODUCTION + text


def causes(text: str) -> str:
    """Return `text` with its table of what stands in the way of a connection as it is now."""
    rows = (f"| {cause.words} | {cause.hint} |\n" for cause in Cause)
    lines = "".join(rows).replace("{detail}", "…").replace("{port}", f"{protocol.DEFAULT_PORT}")
    return CAUSES.sub(lambda found: found[1] + lines, text)


def figures(text: str, results: str, rows: str | tuple[str, ...] = "|") -> str:
    """Return `text` with the table of targets of the page of the benchmark, `results`.

    Only those rows of it that begin with one of `rows`.
    """
    found = FIGURES.search(results)
    lines = found[0].splitlines(keepends=True) if found else []
    shown = "".join(line for line in lines if line.startswith(rows))
    return FIGURES.sub(shown, text) if shown else text


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield the lines of a table."""
    headings = list(headings)
    yield f"| {' | '.join(headings)} |\n|{'---|' * len(headings)}\n"
    for cells in rows:
        yield f"| {' | '.join(cells)} |\n"


OPTION_HEADINGS = ("option", "default", "meaning")


def connecting() -> list[str]:
    """Return the names of the commands that connect."""
    return [name for name in cli.commands if name != "serve"]


def other_commands() -> str:
    """Return those names as a heading."""
    return ", ".join(f"`{name}`" for name in connecting())


def options(name: str) -> list[click.Option]:
    """Return the options of a command."""
    options = [option for option in cli.commands[name].params if isinstance(option, click.Option)]
    return [option for option in options if not option.hidden]


def shared_options() -> list[click.Option]:
    """Return those that every command which connects has, as `client` has them."""
    others = [{option.name for option in options(name)} for name in connecting()]
    return [option for option in options("client") if option.name in set.intersection(*others)]


def command(name: str) -> Iterator[str]:
    """Yield the usage of a command, what it does, and the options that it alone has."""
    one = cli.commands[name]
    program = click.Context(cli, info_name="python -m trio_upper", **cli.context_settings)
    context = click.Context(one, parent=program, info_name=name)
    yield f"    {one.get_usage(context).removeprefix('Usage: ')}\n\n"
    for paragraph in cleandoc(one.help or "").split("\n\n"):
        example = paragraph.removeprefix("\b\n")
        yield (paragraph if example == paragraph else indent(example, "    ")) + "\n\n"
    common = [option_row(option) for option in shared_options()] if name in connecting() else []
    rows = [row for row in map(option_row, options(name)) if row not in common]
    yield from table(OPTION_HEADINGS, rows)
    if common:
        yield "\nAnd the [options of all that connect](#options-of-all-that-connect).\n"


def option_row(option: click.Option) -> list[str]:
    """Return the row of an option: how it is written, its default, what it does."""
    names = ", ".join(f"`{name}`" for name in option.opts)
    values = option.make_metavar(click.Context(click.Command("")))
    if not option.is_flag:
        names = f"{names[:-1]} {values.strip('[]')}`"
    default = option.default
    if option.is_flag:
        shown = "off"
    elif isinstance(default, int | float | str):
        shown = f"`{default}`"
    else:
        shown = " ".join(f"`{one}`" for one in default) if isinstance(default, list) else "-"
    return [cell.replace("|", r"\|") for cell in (names, shown, option.help or "")]


def exit_code_rows() -> Iterator[list[str]]:
    """Yield a row for each exit code."""
    for code, (server, others) in EXIT_CODES.items():
        yield [code, server, others]


def notice_rows() -> Iterator[list[str]]:
    """Yield a row for each notice, with N for its number."""
    notices = {
        protocol.full_notice(7): "`--max-clients` are connected",
        protocol.idle_notice(7): "`--idle-timeout`",
        protocol.shutdown_notice(): "the server drains",
    }
    for notice, when in notices.items():
        yield [f"`{notice.decode().strip().replace('7', 'N')}`", when]


def event_rows() -> Iterator[list[str]]:
    """Yield a row for each event that the code logs."""
    levels = {words: level for level, words, _ in events()}
    if unknown := levels.keys() ^ EVENTS.keys():
        raise KeyError(f"tools/meanings.py and the code differ about events: {sorted(unknown)}")
    for level, words, names in events():
        if missing := set(names) - set(EVENTS[words][0]):
            raise KeyError(f"tools/meanings.py lacks fields of {words!r} ({level}): {missing}")
    for words, (fields, meaning) in EVENTS.items():
        shown = ", ".join(f"`{field}`" for field in fields) or "-"
        yield [f"`{words}`", levels[words], shown, meaning]


def events() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield the level, the words and the fields of each call of the code that logs."""
    for path in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(
                        value=ast.Name(id="log") | ast.Attribute(attr="_log" | "log"),
                        attr=level,
                    ),
                    args=[ast.Constant(value=str(words)), *_],
                    keywords=fields,
                ):
                    names = tuple(field.arg for field in fields if field.arg)
                    yield {"exception": "error"}.get(level, level), words, names


def json_tables() -> Iterator[str]:
    """Yield a table for each command that has ``--json``."""
    yield "With `--json` a command prints one object on one line and nothing else.\n"
    tables = {f"{name} --json": fields for name, fields in FIELDS.items()}
    for heading, fields in (tables | {"ping --jsonl": ROUND_TRIP}).items():
        yield f"\n### `{heading}`\n\n"
        rows = ([f"`{field}`", meaning or '"'] for field, meaning in fields.items())
        yield from table(("field", "meaning"), rows)


def generated(root: Path = ROOT) -> dict[Path, str]:
    """Return the text of each page below `root` that is generated, or has a part that is."""
    readme, docs = root / "README.md", root / "docs"
    troubleshooting, performance = docs / "troubleshooting.md", docs / "performance.md"
    results = (root / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    return {
        readme: figures(readme.read_text(encoding="utf-8"), results, SHORT),
        docs / "reference.md": reference(),
        troubleshooting: causes(troubleshooting.read_text(encoding="utf-8")),
        performance: figures(performance.read_text(encoding="utf-8"), results),
    }


if __name__ == "__main__":
    for page, text in generated().items():
        page.write_text(text, encoding="utf-8")
