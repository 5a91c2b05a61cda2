"""Signals of a server whose parent has blocked or ignored them, and those that come early."""

import json
import os
import signal
import sys

import pytest
from tests.helpers.program import one, run, serving

PROLOGUE = "import os, signal, sys; {}; os.execv(sys.argv[1], sys.argv[1:])"


def after(statement: str) -> list[str]:
    """Return the words before a command that have it run after this statement of Python."""
    return [sys.executable, "-ISc", PROLOGUE.format(statement)]


BLOCKED = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])"
IGNORED = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


@pytest.mark.parametrize("statement", [BLOCKED, IGNORED])
async def test_sigterm_is_received_whatever_the_parent_did(statement: str) -> None:
    """It has no other way to be stopped in good manners."""
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
    """The system would forget them; and no worker would ever seem to have failed."""
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
