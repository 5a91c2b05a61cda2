"""How the program is started: the commands that it prints, and those of its workers."""

import sys
from types import SimpleNamespace

import pytest

from trio_upper.cli import invocation
from trio_upper.cli.invocation import own_command, shown_command

MODULE = "/venv/lib/trio_upper/__main__.py"
SCRIPT = "/venv/bin/trio-upper"
ARCHIVE = "/home/alice/trio-upper.pyz"


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program is one file."""
    loader = SimpleNamespace(archive=ARCHIVE)
    monkeypatch.setattr(invocation, "__spec__", SimpleNamespace(loader=loader))


def start(monkeypatch: pytest.MonkeyPatch, script: str, python: str = "python3") -> None:
    """Let this process have been started by `python`, and `script` have been found by it."""
    monkeypatch.setattr(sys, "argv", [script, "serve"])
    monkeypatch.setattr(sys, "orig_argv", [python, "whatever", "serve"])


@pytest.mark.parametrize(
    ("script", "python", "shown"),
    [
        (MODULE, "python", ["python", "-m", "trio_upper"]),
        (MODULE, "/usr/bin/python3.12", ["python3.12", "-m", "trio_upper"]),
        (MODULE, "python.exe", ["python", "-m", "trio_upper"]),
        (SCRIPT, "/venv/bin/python", ["trio-upper"]),
        ("trio-upper.exe", "python.exe", ["trio-upper"]),
    ],
)
def test_the_command_is_shown_as_it_was_typed(
    monkeypatch: pytest.MonkeyPatch, script: str, python: str, shown: list[str]
) -> None:
    """Whoever copies it needs no other way to start the program than the one that works here."""
    start(monkeypatch, script, python)
    assert shown_command() == shown


@pytest.mark.usefixtures("archive")
def test_one_file_is_shown_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """On another machine it is in another folder."""
    start(monkeypatch, ARCHIVE)
    assert shown_command() == ["python3", "trio-upper.pyz"]


def test_the_program_starts_itself_as_a_module() -> None:
    """By the interpreter that has it."""
    assert own_command() == [sys.executable, "-m", "trio_upper"]


@pytest.mark.usefixtures("archive")
def test_one_file_starts_itself() -> None:
    """There is no module to start where nothing is installed."""
    assert own_command() == [sys.executable, ARCHIVE]
