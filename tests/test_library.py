"""The library: its names, what importing it costs, and the programs in ``examples``."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio
from examples.starter import answer
from trio.testing import open_stream_to_socket_listener

import trio_upper
from tests.helpers.program import reset
from tests.helpers.streams import ask
from tests.helpers.waiting import TIMEOUT_SECONDS

EXAMPLES = Path(__file__).parent.parent / "examples"

PUBLIC = {
    "CannotConnect",
    "DEFAULT_PORT",
    "Outcome",
    "Server",
    "ServerSettings",
    "Target",
    "Uppercaser",
    "__version__",
    "connect",
    "converse",
}

# What the commands need and the library does not.
FOR_COMMANDS = {"click", "structlog", "prompt_toolkit"}


def python(*arguments: str) -> str:
    """Return what a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        timeout=TIMEOUT_SECONDS,
        check=True,
        encoding="utf-8",
    )
    return done.stdout


def test_these_names_are_public() -> None:
    """No name less, and none more that somebody could come to rely on."""
    assert set(trio_upper.__all__) == PUBLIC
    assert set(dir(trio_upper)) >= PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC - {"DEFAULT_PORT", "__version__"}))
def test_a_public_name_is_documented(name: str) -> None:
    """By a docstring of its own; a dataclass without one has a made one."""
    documented = getattr(trio_upper, name).__doc__
    assert documented
    assert not documented.startswith(f"{name}(")


def test_another_name_is_none_of_it() -> None:
    """It fails as it does for any module."""
    with pytest.raises(AttributeError, match="module 'trio_upper' has no attribute 'serve'"):
        trio_upper.serve  # type: ignore[attr-defined]  # noqa: B018


def test_importing_it_loads_nothing() -> None:
    """The help of the command line is quick because of that."""
    assert not {"trio", *FOR_COMMANDS} & set(loaded_by("import trio_upper"))


def test_using_it_loads_nothing_of_the_commands() -> None:
    """Whoever embeds the server does not pay for prompts, colours and logs."""
    loaded = loaded_by("from trio_upper import *")
    assert "trio" in loaded
    assert not FOR_COMMANDS & set(loaded)


def loaded_by(statement: str) -> list[str]:
    """Return the modules that are loaded after `statement` in a fresh interpreter."""
    return python("-c", f"{statement}\nimport sys\nprint(*sys.modules)").split()


def test_the_embedded_server_runs() -> None:
    """The example of the README, as a program of its own."""
    assert python("-X", "utf8", str(EXAMPLES / "embedded.py")).splitlines() == [
        "HELLO",
        "STRASSE",
        "ΚΑΛΗΜΈΡΑ",
        "complete: True; clients served: 1",
    ]


def test_the_readme_shows_the_embedded_server() -> None:
    """Line by line as it is run."""
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    shown = readme.split("```python\n")[1].split("```")[0].splitlines()
    program = (EXAMPLES / "embedded.py").read_text(encoding="utf-8").splitlines()
    assert [line.strip() for line in shown] == [
        line.strip() for line in program if line.strip() in {one.strip() for one in shown}
    ]


async def start(nursery: trio.Nursery) -> trio.SocketStream:
    """Return a connection to the server for beginners, which runs in `nursery`."""
    [listener] = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
    stream: trio.SocketStream = await open_stream_to_socket_listener(listener)
    return stream


async def test_the_server_for_beginners_works(nursery: trio.Nursery) -> None:
    """It is how to begin."""
    async with await start(nursery) as stream:
        assert await ask(stream, "Straße\n".encode()) == b"STRASSE\n"


@pytest.mark.parametrize(
    ("message", "error"), [(b"hello\n", trio.BrokenResourceError), (b"\xff", UnicodeDecodeError)]
)
async def test_one_client_ends_the_server_for_beginners(
    message: bytes, error: type[Exception]
) -> None:
    """By a reset, or by what is no text: what stands beside its lines is true."""
    with pytest.RaisesGroup(error, flatten_subgroups=True), trio.fail_after(TIMEOUT_SECONDS):
        async with trio.open_nursery() as nursery:
            stream = await start(nursery)
            await stream.send_all(message)
            reset(stream)
            await trio.sleep_forever()
