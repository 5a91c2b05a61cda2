"""The one file, as ``nox -s zipapp`` makes it, on a Python that has nothing installed."""

import subprocess
import sys
import venv
from collections.abc import Sequence

import pytest
from tests.helpers import program, terminals
from tests.helpers.program import LOCALHOST, Ended, run, serving
from tests.helpers.terminals import CTRL_D, ENTER, terminal
from tools.onefile import build


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words that run the file, by a Python without any package."""
    folder = tmp_path_factory.mktemp("onefile")
    file = folder / "trio-upper.pyz"
    build(file)
    windows = sys.platform == "win32"
    venv.create(folder / "bare", symlinks=not windows)
    return [str(folder / "bare" / ("Scripts" if windows else "bin") / "python"), str(file)]


@pytest.fixture(autouse=True)
def _run_the_file(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    """What runs the program in the other tests runs the file in these."""

    def command(*arguments: str, prefix: Sequence[str] = ()) -> list[str]:
        return [*prefix, *words, *arguments]

    for module in (program, terminals):
        monkeypatch.setattr(module, "command", command)


def test_nothing_is_installed(words: list[str]) -> None:
    """The other tests would say nothing otherwise."""
    found = subprocess.run([words[0], "-c", "import trio"], capture_output=True, check=False)
    assert b"ModuleNotFoundError" in found.stderr


async def test_workers_serve_and_clients_are_answered() -> None:
    """A worker starts from the file, too."""
    async with serving("--workers", "2") as server:
        port = str(server.port)
        talked = await run("client", LOCALHOST, port, "-m", "hello")
        measured = await run("ping", LOCALHOST, port, "-c", "1")
    assert talked == Ended(0, b"HELLO\n", b"")
    assert measured.code == 0


async def test_somebody_types_into_it() -> None:
    """The prompt, with editing, is in the file."""
    async with serving() as server, terminal("client", f"{LOCALHOST}:{server.port}") as person:
        await person.sees(f":{server.port}>")
        await person.types("hello", ENTER)
        await person.sees("HELLO")
        await person.types(CTRL_D)
        assert await person.ends() == 0
