"""The documentation says all that there is, and names what holds each promise."""

import ast
import functools
import re
import signal
import sys
from itertools import chain
from pathlib import Path

import click
import pytest
from click.core import ParameterSource
from tools import ROOT
from tools.meanings import EXIT_CODES
from tools.reference import SOURCES, events, generated

from tests.acceptance.__main__ import GATES
from trio_upper.cli.client import Options, explain
from trio_upper.cli.commands import cli
from trio_upper.client.converse import Ending, Outcome
from trio_upper.protocol import full_notice, idle_notice, shutdown_notice

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

GENERATED = generated(ROOT)

PARAMETERS = [
    (name, parameter)
    for name, command in cli.commands.items()
    for parameter in command.params
    if not getattr(parameter, "hidden", False)
]

OPTIONS = [(name, option) for name, option in PARAMETERS if isinstance(option, click.Option)]

# Values for the options that do not take "1".
VALUES = {"host": "::1", "log_format": "json", "log_level": "debug"}


def read(page: str) -> str:
    """Return the text of a page of the documentation."""
    return (ROOT / page).read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    r"""Return the cells of each row of the tables in `text`, whose bars are ``\|``."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


PROMISES = [row for row in rows(read("docs/promises.md")) if row[1] != "held by"]


@functools.cache
def names_of_tests(file: str) -> set[str]:
    """Return the names of the tests in a file of this folder."""
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, functions)}


def gates_in(text: str) -> set[int]:
    """Return the numbers of the gates that are named in `text`."""
    lists = re.findall(r"\bgates? (\d+(?:, \d+)*)", text)
    return {int(number) for numbers in lists for number in numbers.split(", ")}


@pytest.mark.parametrize("page", GENERATED)
def test_what_is_generated_is_current(page: Path) -> None:
    """Options, defaults, events, fields, causes: if it fails, run ``python -m tools.reference``."""
    assert page.read_text(encoding="utf-8") == GENERATED[page]


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_every_option_has_a_help(command: str, option: click.Option) -> None:
    """It is the row of the reference, and a sentence."""
    assert option.help, command
    assert option.help.endswith(".")


@pytest.mark.parametrize(("command", "option"), PARAMETERS)
def test_every_option_comes_from_the_environment(
    command: str, option: click.Parameter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And every argument, by the name that the reference has for its variable."""
    assert "`TRIO_UPPER_<COMMAND>_<OPTION>`" in read("docs/reference.md")
    name = f"TRIO_UPPER_{command}_{option.opts[-1].strip('-').replace('-', '_')}".upper()
    assert option.name
    monkeypatch.setenv(name, VALUES.get(option.name, "1"))
    program = cli.make_context("trio-upper", [command])
    given = ["localhost"] if command not in {"serve", "client"} and option.name != "host" else []
    context = cli.commands[command].make_context(command, given, parent=program)
    assert context.get_parameter_source(option.name) is ParameterSource.ENVIRONMENT


@pytest.mark.skipif(sys.platform == "win32", reason="signals have no such numbers there")
def test_the_exit_codes_are_those_of_the_program() -> None:
    """Those of a failure and of a usage error; beyond, 128 and the number of a named signal."""
    codes = [int(code) for row in EXIT_CODES for code in row.split(", ")]
    assert codes[:3] == [0, click.ClickException.exit_code, click.UsageError.exit_code]
    named = re.findall(r"SIG[A-Z0-9]+", " ".join(chain.from_iterable(EXIT_CODES.values())))
    assert set(codes[3:]) == {128 + signal.Signals[name] for name in named}


def test_there_are_events() -> None:
    """The table of events is not current because none is found."""
    assert {words for _, words, _ in events()} >= {"client connected", "client gone", "stopped"}


@pytest.mark.parametrize("notice", [full_notice(7), idle_notice(7), shutdown_notice()])
def test_every_notice_stands_in_the_protocol(notice: bytes) -> None:
    """Word for word, with N for the number."""
    assert f"`{notice.decode().strip().replace('7', 'N')}`" in read("docs/protocol.md")


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(ending=Ending.CLOSED, owed=14, unanswered=5),
        Outcome(ending=Ending.FOREIGN, owed=6, unanswered=6, words=b"SSH-2.0-OpenSSH_9.2\r\n"),
    ],
)
def test_what_the_client_says_stands_in_the_guide(outcome: Outcome) -> None:
    """The account as it is, and a peer that is something else as it is named."""
    [said] = explain(outcome, Options())
    assert f"`{said.removeprefix('the server closed the connection: ')}`" in read("docs/guide.md")


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
    promises = read("docs/promises.md")
    assert len(PROMISES) == promises.count("\n| ") - promises.count("\n## ")
    assert len(PROMISES) > len(GATES)


def test_every_room_stands_in_the_design() -> None:
    """Who opens the folder can say what each package is for."""
    tree = read("docs/design.md").split("```text")[1]
    rooms = {path.stem for path in SOURCES.iterdir() if path.suffix in {"", ".py"}}
    assert {room for room in rooms if not room.startswith("__") and room not in tree} == set()


def test_the_design_names_files_that_are_there() -> None:
    """Below the package, or from the project's folder."""
    for file in re.findall(r"`([\w/]+\.py)`", read("docs/design.md")):
        assert any((folder / file).exists() for folder in (ROOT, SOURCES)), file


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """To a file, and to a heading in it."""
    for link in re.findall(r"\]\(([^):]+)\)", page.read_text(encoding="utf-8")):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings in `text`, as they are made for a page."""
    headings = re.findall(r"^#+ (.+)", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_read_to_its_end() -> None:
    """It is short; all else stands in ``docs``."""
    assert read("README.md").count("\n") <= 150
