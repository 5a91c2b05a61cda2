"""Signals of a program whose parent has blocked or ignored them, and those that come early."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from shutil import which

import pytest
import trio
from tests.helpers.program import LOCALHOST, one, run, serving
from tests.helpers.waiting import TIMEOUT_SECONDS

PROLOGUE = "import os, signal, sys; {}; os.execv(sys.argv[1], sys.argv[1:])"


def after(statement: str) -> list[str]:
    """Return the words before a command that have it run after this statement of Python."""
    return [sys.executable, "-ISc", PROLOGUE.format(statement)]


BLOCKED = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])"
IGNORED = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


@pytest.mark.parametrize("statement", [BLOCKED, IGNORED])
async def test_sigterm_is_received_whatever_the_parent_did(statement: str) -> None:
    """There is no other way to stop it cleanly."""
    async with serving(prefix=after(statement)) as server:
        assert await server.stop() == 0
        assert one(server.logged("stopping"))["signal"] == "SIGTERM"


async def test_a_signal_before_the_server_is_loaded_stops_it() -> None:
    """As it does later, with exit code 0; process 1 of a container would ignore it otherwise."""
    early = f"{BLOCKED}; os.kill(os.getpid(), signal.SIGTERM)"
    done = await run("serve", "--port", "0", "--log-format", "json", prefix=after(early))
    assert done.code == 0
    events = [json.loads(line)["event"] for line in done.lines]
    assert events[-1] == "stopped"
    assert "stopping" in events


# Runs the program, and sends it a signal at the very start of what it loads.
INTERRUPTED = """if True:
    import os, runpy, sys
    class Interrupting:
        def find_spec(self, name, *_):
            if name in ("click", "trio_upper.cli.main"):
                os.kill(os.getpid(), {number})
    sys.meta_path.insert(0, Interrupting())
    runpy.run_module("trio_upper", run_name="__main__", alter_sys=True)
"""

# Runs a command as process 1 of a namespace, where a signal without a handler is ignored.
AS_PROCESS_1 = ["unshare", "--pid", "--fork", "--kill-child"]


async def interrupted(
    number: signal.Signals,
    *arguments: str,
    process_1: bool = False,
    prefix: Sequence[str] = (),
) -> subprocess.CompletedProcess[bytes]:
    """Run the program with `arguments`, to which the signal comes while it loads."""
    if process_1 and (os.geteuid() or not which("unshare")):
        pytest.skip("needs root and unshare, to make a process 1")
    program = [sys.executable, "-c", INTERRUPTED.format(number=int(number)), *arguments]
    command = [*AS_PROCESS_1, *program] if process_1 else [*prefix, *program]
    with trio.fail_after(TIMEOUT_SECONDS):
        return await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False
        )


@pytest.mark.parametrize("process_1", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_while_the_program_loads_stops_a_server(
    number: signal.Signals, process_1: bool
) -> None:
    """As it does later, without a traceback."""
    done = await interrupted(number, "serve", "--port", "0", process_1=process_1)
    assert done.returncode == 0
    assert b" stopping " in done.stderr
    assert b"Traceback" not in done.stderr


async def test_a_sigterm_that_was_ignored_stops_a_server_that_loads() -> None:
    """As it does later; another command goes on, for which it stays ignored."""
    done = await interrupted(signal.SIGTERM, "serve", "--port", "0", prefix=after(IGNORED))
    assert done.returncode == 0
    assert b" stopping " in done.stderr
    done = await interrupted(signal.SIGTERM, "ping", "--help", prefix=after(IGNORED))
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_while_the_program_loads_ends_another_command(
    number: signal.Signals,
) -> None:
    """By the signal itself and silently, as a shell expects; process 1 has its exit code."""
    done = await interrupted(number, "ping", LOCALHOST)
    assert (done.returncode, done.stderr) == (-number, b"")
    done = await interrupted(number, "ping", LOCALHOST, process_1=True)
    assert (done.returncode, done.stderr) == (128 + number, b"")


# Runs the program as INTERRUPTED does, and sends it a signal when it ends: as Python begins to, and
# as the last thing that runs, when there are no handlers any more.
INTERRUPTED_AT_LAST = """if True:
    import atexit, os
    class Last:
        def __del__(self, kill=os.kill, process=os.getpid()):
            kill(process, {late})
    last = Last()
    atexit.register(os.kill, os.getpid(), {late})
"""


@pytest.mark.parametrize(
    "late", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1], ids=lambda one: one.name
)
async def test_a_signal_while_a_server_ends_changes_no_exit_code(late: signal.Signals) -> None:
    """It tells whether clients were cut: an impatient second Ctrl-C cuts nobody then."""
    program = INTERRUPTED_AT_LAST.format(late=int(late)) + INTERRUPTED.format(number=15)
    words = [sys.executable, "-c", program, "serve", "--port", "0"]
    with trio.fail_after(TIMEOUT_SECONDS):
        done = await trio.run_process(words, capture_stderr=True, check=False)
    assert b" stopped " in done.stderr
    assert done.returncode == 0


async def test_sighup_drains() -> None:
    """The terminal in which the server was started has been closed."""
    async with serving() as server:
        server.send(signal.SIGHUP)
        assert await server.ended() == 0
        assert one(server.logged("stopping"))["signal"] == "SIGHUP"


async def test_sighup_is_ignored_after_nohup() -> None:
    """Which was asked for."""
    ignored = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    async with serving(prefix=after(ignored)) as server:
        server.send(signal.SIGHUP)
        assert await server.stop() == 0
        assert one(server.logged("stopping"))["signal"] == "SIGTERM"


async def test_exit_codes_of_workers_are_true_where_sigchld_is_ignored() -> None:
    """The system would discard them, and no worker would ever seem to have failed."""
    ignored = "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
    async with serving("--workers", "2", prefix=after(ignored)) as server:
        started = await server.event("worker started", worker=1)
        os.kill(started["pid"], signal.SIGKILL)
        gone = await server.event("worker gone", worker=1)
        assert gone["how"] == "signal 9 (Killed)"


async def test_why_it_cannot_start_is_json_where_the_log_is() -> None:
    """One object a line, like all that it says."""
    async with serving() as server:
        port = str(server.port)
        done = await run("serve", "--port", port, "--log-format", "json")
        assert done.code == 1
        event = json.loads(one(done.lines))
        assert "in use" in event["event"]
        assert event["level"] == "error"
