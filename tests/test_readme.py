"""The README says all that there is: options, exit codes, events, notices, rooms."""

import ast
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from trio_upper import protocol
from trio_upper.cli import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCES = sorted((ROOT / "src" / "trio_upper").rglob("*.py"))

OPTIONS = [
    (name, option)
    for name, command in cli.commands.items()
    for parameter in command.params
    if isinstance(parameter, click.Option)
    for option in parameter.opts
    if option.startswith("--")
]


def events() -> Iterator[tuple[str, str]]:
    """Yield the level and the words of every event that is logged."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(
                        value=ast.Name(id="log") | ast.Attribute(attr="_log" | "log"),
                        attr=level,
                    ),
                    args=[ast.Constant(value=str(words)), *_],
                ):
                    yield {"exception": "error"}.get(level, level), words


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_every_option_stands_in_the_readme(command: str, option: str) -> None:
    """Also those that two commands share, once."""
    assert f"{option}" in README, command


@pytest.mark.parametrize(("level", "words"), sorted(set(events())))
def test_every_event_stands_in_the_readme_with_its_level(level: str, words: str) -> None:
    """An operator finds each line of the log there."""
    [row] = [line for line in README.splitlines() if line.startswith("|") and f"`{words}`" in line]
    assert row.split("|")[2].strip() == level


def test_there_are_events() -> None:
    """The test above does not pass by finding nothing."""
    assert {words for _, words in events()} >= {"client connected", "client gone", "stopped"}


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
    assert notice.removeprefix(protocol.NOTICE_PREFIX).decode().strip() in " ".join(README.split())


def test_every_room_stands_in_the_design() -> None:
    """Who opens the folder can say what each module is for."""
    design = README[README.index("## Design") : README.index("## Development")]
    rooms = {path.stem for path in SOURCES if path.parent.name == "trio_upper"}
    missing = {room for room in rooms if not room.startswith("__") and room not in design}
    assert missing == set()


def test_the_environment_stands_in_the_readme() -> None:
    """The prefix is what makes a variable of an option's name."""
    assert f"{cli.context_settings['auto_envvar_prefix']}_SERVE_PORT" in README
