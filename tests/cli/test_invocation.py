"""How the program is started: the commands that it prints, and those of its workers."""

import sys
from pathlib import Path
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
    """On another machine, where it is in another folder."""
    start(monkeypatch, script, python)
    assert shown_command(elsewhere=True) == shown


@pytest.mark.parametrize("name", ["trio-upper", "python3"])
def test_what_the_shell_does_not_find_is_shown_with_its_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """What is shown works as it is: not with the program of another environment."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in here, there:
        folder.mkdir()
        for file in name, f"{name}.exe":  # the second on Windows
            (folder / file).touch(mode=0o755)
    typed = str(here / name)
    start(monkeypatch, typed if name == "trio-upper" else MODULE, typed)
    for path, word in [(here, name), (there, typed), (tmp_path, typed)]:
        monkeypatch.setenv("PATH", str(path))
        assert shown_command()[0] == word


def test_a_word_that_the_shell_has_found_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """It need not be on the PATH that this process has."""
    monkeypatch.setenv("PATH", "")
    start(monkeypatch, MODULE, "python")
    assert shown_command() == ["python", "-m", "trio_upper"]


@pytest.mark.usefixtures("archive")
def test_one_file_is_shown_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """And by its name for another machine, where it is in another folder."""
    start(monkeypatch, ARCHIVE)
    assert shown_command() == ["python3", ARCHIVE]
    assert shown_command(elsewhere=True) == ["python3", "trio-upper.pyz"]


def test_the_program_starts_itself_as_a_module() -> None:
    """By the interpreter that has it."""
    assert own_command() == [sys.executable, "-m", "trio_upper"]


@pytest.mark.usefixtures("archive")
def test_one_file_starts_itself() -> None:
    """There is no module to start where nothing is installed."""
    assert own_command() == [sys.executable, ARCHIVE]
