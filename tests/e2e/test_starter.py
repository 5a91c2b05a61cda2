"""What the other tests are told of the program when it is forked, and not started anew."""

import os
import signal
from pathlib import Path

import pytest
from tests.helpers.program import run, running, serving


@pytest.mark.parametrize("arguments", [["--version"], [], ["--nonsense"], ["serve", "--port", "x"]])
async def test_a_fork_does_what_an_interpreter_does(arguments: list[str]) -> None:
    """It writes the same, with the same words for the command, and ends with the same code."""
    assert await run(*arguments) == await run(*arguments, prefix=("env",))


async def test_a_fork_is_a_process_of_its_own() -> None:
    """With the id, the folder and the end that the test is told; nothing but its own is open."""
    async with serving() as forked, serving(prefix=("env",)) as executed:
        assert len({os.getpid(), forked.pid, executed.pid}) == 3
        assert folder_of(forked.pid) == folder_of(executed.pid)
        assert forked.descriptors() == executed.descriptors()
        assert await forked.stop(signal.SIGKILL) == await executed.stop(signal.SIGKILL) == -9


def folder_of(pid: int) -> Path:
    """Return the working directory of a process."""
    return Path(f"/proc/{pid}/cwd").readlink()


async def test_a_fork_has_the_environment_that_it_was_given() -> None:
    """And not the one of the process that it was forked from."""
    async with running("serve", environment={"TRIO_UPPER_SERVE_PORT": "0"}) as server:
        assert "TRIO_UPPER" not in " ".join((await server.ready()).lines)
        assert await server.stop() == 0
