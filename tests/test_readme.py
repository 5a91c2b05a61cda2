"""The README says all that there is, and what it promises is held by tests and gates."""

import ast
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.core import ParameterSource

from tests.acceptance.__main__ import GATES
from trio_upper import protocol
from trio_upper.cli.client import Options, explain
from trio_upper.cli.commands import cli
from trio_upper.client.converse import Ending, Outcome
from trio_upper.client.failures import Cause

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCES = sorted((ROOT / "src" / "trio_upper").rglob("*.py"))

OPTIONS = [
    (name, option)
    for name, command in cli.commands.items()
    for option in command.params
    if isinstance(option, click.Option)
]

# Where the options of a command stand; those of whoever connects stand with the client's.
SECTIONS = {
    "serve": "## The server",
    "client": "## The client",
    "ping": "## How well they talk",
    "bench": "## How well they talk",
}

# A value for each option that takes not every word.
VALUES = {"log_format": "json", "log_level": "debug"}

# Signals that are mentioned in the commands and that nobody ends by.
NOT_ENDING = {"SIGUSR1"}


def section(heading: str) -> str:
    """Return what stands below a heading, up to the next one of its rank."""
    return re.split(r"^## ", README.split(f"{heading}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    r"""Return the cells of each row of the tables in `text`, whose bars are ``\|``."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


PROMISES = [row for row in rows(section("## What it promises")) if row[1] != "held by"]


def events() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield the level, the words and the fields of every event that is logged."""
    for path in SOURCES:
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


def keys_in(tree: ast.Module, function: str) -> set[str]:
    """Return the keys that are written out in the dictionaries of a function."""
    [found] = (node for node in ast.walk(tree) if getattr(node, "name", "") == function)
    dictionaries = [node for node in ast.walk(found) if isinstance(node, ast.Dict)]
    keys = [key for dictionary in dictionaries for key in dictionary.keys]
    return {str(key.value) for key in keys if isinstance(key, ast.Constant)}


def names_of_tests(file: str) -> set[str]:
    """Return the names of the tests in a file of this folder."""
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, functions)}


def gates_in(text: str) -> set[int]:
    """Return the numbers of the gates that are named in `text`."""
    lists = re.findall(r"\bgates? (\d+(?:, \d+)*)", text)
    return {int(number) for numbers in lists for number in numbers.split(", ")}


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_every_option_stands_in_the_readme(command: str, option: click.Option) -> None:
    """With its default, if that is a number or a word, in the section of its command."""
    long = option.opts[-1]
    tables = rows(section(SECTIONS[command])) + rows(section(SECTIONS["client"]))
    row = next(row for row in tables if re.search(rf"\B{long}\b(?!-)", row[0]))
    if isinstance(option.default, int | float | str) and not option.is_flag:
        assert row[1].strip("`") == f"{option.default}"


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_every_option_comes_from_the_environment(
    command: str, option: click.Option, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name that the README has for its variable."""
    assert "`TRIO_UPPER_<COMMAND>_<OPTION>`" in README
    name = f"TRIO_UPPER_{command}_{option.opts[-1].strip('-').replace('-', '_')}".upper()
    assert option.name
    monkeypatch.setenv(name, VALUES.get(option.name, "1"))
    program = cli.make_context("trio-upper", [command])
    given = ["localhost"] if command in {"ping", "bench"} else []
    context = cli.commands[command].make_context(command, given, parent=program)
    assert context.get_parameter_source(option.name) is ParameterSource.ENVIRONMENT


@pytest.mark.parametrize("command", ["ping", "bench"])
def test_every_field_of_json_stands_in_the_readme(command: str) -> None:
    """With the command that has it, and the unit in its name where it is a time."""
    source = ROOT / "src" / "trio_upper" / "cli" / f"{command}.py"
    tree = ast.parse(source.read_text(encoding="utf-8"))
    fields, times = (keys_in(tree, function) for function in ("_json", "_times"))
    documented = "".join(
        row[0] for row in rows(section("## How well they talk")) if row[1] in {command, "both"}
    )
    assert {"host", "wrong"} < fields
    assert {"min", "max"} <= times
    for field in fields | {f"{time}_ms" for time in times}:
        assert f"`{field}`" in documented


def test_every_exit_code_stands_in_the_readme() -> None:
    """Those of a failure and of a usage error, and of each signal that a command ends by."""
    commands = "".join(path.read_text() for path in SOURCES if path.parent.name == "cli")
    named = set(re.findall(r"signal\.(SIG[A-Z0-9]+)\b", commands)) - NOT_ENDING
    signals = {128 + signal.Signals[name] for name in named}
    table = rows(section("## Everywhere").split("| exit code")[1])
    codes = [int(code) for row in table for code in row[0].split(", ")]
    assert codes[:3] == [0, click.ClickException.exit_code, click.UsageError.exit_code]
    assert set(codes[3:]) == signals
    for name in named:
        assert name in table[-1][2]


@pytest.mark.parametrize(("level", "words", "fields"), sorted(set(events())))
def test_every_event_stands_in_the_readme_with_its_level(
    level: str, words: str, fields: tuple[str, ...]
) -> None:
    """An operator finds each line of the log there, and what is in it."""
    [row] = [row for row in rows(section("## The server")) if f"`{words}`" in row[0]]
    assert row[1] == level
    for field in fields:
        assert f"`{field}`" in row[2]


def test_there_are_events() -> None:
    """The test above does not pass by finding nothing."""
    assert {words for _, words, _ in events()} >= {"client connected", "client gone", "stopped"}


@pytest.mark.parametrize(
    "notice",
    [
        protocol.full_notice(7).replace(b"7", b"N"),
        protocol.idle_notice(7).replace(b"7", b"N"),
        protocol.shutdown_notice(),
    ],
)
def test_every_notice_stands_in_the_readme(notice: bytes) -> None:
    """Word for word, with N for the number."""
    words = notice.removeprefix(protocol.NOTICE_PREFIX).decode().strip()
    assert f"`{words}`" in section("## What it promises")


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(ending=Ending.CLOSED, owed=14, unanswered=5),
        Outcome(ending=Ending.FOREIGN, owed=6, unanswered=6, words=b"SSH-2.0-OpenSSH_9.2\r\n"),
    ],
)
def test_what_the_client_says_stands_in_the_readme(outcome: Outcome) -> None:
    """The account as it is, and a peer that is something else as it is named."""
    [said] = explain(outcome, Options())
    words = said.removeprefix("the server closed the connection: ")
    assert f"`{words}`" in section("## The client")


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_stands_in_the_readme(cause: Cause) -> None:
    """With its hint; ``nox -s docs`` writes the table."""
    row = [cause.words.format(detail="…"), cause.hint]
    assert row in rows(section("## When they cannot talk"))


@pytest.mark.parametrize("promise", PROMISES, ids=lambda row: row[0])
def test_what_holds_a_promise_is_there(promise: list[str]) -> None:
    """Each names tests and gates that there are, and one of them at least."""
    words, held_by = promise
    tests, gates = re.findall(r"`([\w/]+\.py)::(\w+)`", held_by), gates_in(held_by)
    assert words.endswith(".")
    assert tests or gates
    assert gates <= set(GATES)
    for file, test in tests:
        assert test in names_of_tests(file)


def test_every_gate_holds_a_promise() -> None:
    """None is tried for nothing."""
    assert gates_in("; ".join(held_by for _, held_by in PROMISES)) == set(GATES)


def test_there_are_promises() -> None:
    """The tests above do not pass by finding nothing, and no row of the tables is left out."""
    assert len(PROMISES) == section("## What it promises").count("\n| ") - 4
    assert len(PROMISES) > len(GATES)


def test_every_room_stands_in_the_design() -> None:
    """Who opens the folder can say what each module is for."""
    tree = section("## A service to learn from").split("```text")[1]
    rooms = {path.stem for path in SOURCES if path.parent.name == "trio_upper"}
    missing = {room for room in rooms if not room.startswith("__") and room not in tree}
    assert missing == set()


def test_what_is_pointed_to_is_there() -> None:
    """The files that answer the questions of production, and all that is linked to."""
    answers = re.findall(r"`([\w/]+\.py)`", section("## A service to learn from"))
    for file in answers:
        assert any((ROOT / folder / file).exists() for folder in ("", "src/trio_upper")), file
    for link in re.findall(r"\]\(([^):#]+)\)", README):
        assert (ROOT / link).exists(), link
    headings = re.findall(r"^#+ (.+)", README, flags=re.MULTILINE)
    for anchor in re.findall(r"\]\(#([^)]+)\)", README):
        assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


def test_the_figures_are_those_of_the_page() -> None:
    """What is said of speed was measured, in one run, by the command that stands beside it."""
    page = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    rows = [line for line in section("## How fast it is").splitlines() if line.startswith("|")]
    assert len(rows) > 2
    assert "\n".join(rows) in page
