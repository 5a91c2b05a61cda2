"""The terminal is borrowed: jobs that are stopped, continued and ended, at shells with job control.

What is lent must come back: to a shell that sets modes of its own (bash), and to one that does not
(dash).
"""

import os
import shlex
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from tests.helpers import peers
from tests.helpers.peers import peer
from tests.helpers.program import LOCALHOST, command, serving
from tests.helpers.terminals import (
    CTRL_D,
    CTRL_Z,
    ENTER,
    Terminal,
    shell,
    terminal,
)
from tests.helpers.waiting import eventually

BASH = ["bash", "--norc", "--noprofile", "--noediting", "-i"]
DASH = ["dash", "-i"]
SHELLS = [pytest.param(BASH, id="bash"), pytest.param(DASH, id="dash")]

NEWLINE = "\n"  # Enter at a terminal in whatever modes: only a canonical one makes it of a return
AT_ONCE_SECONDS = 10.0

# Bash may miss that a job stops between two prompts; it learns so when it waits for a command.
JOBS = "env true; jobs"

CTRL_S, CTRL_Q, CTRL_BACKSLASH = "\x13", "\x11", "\x1c"


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def shell_command(*arguments: str) -> str:
    return shlex.join(command(*arguments))


@asynccontextmanager
async def at_prompt(words: list[str]) -> AsyncIterator[tuple[Terminal, str]]:
    """Somebody at the prompt of a client, with half a line typed, below a shell."""
    async with peer(peers.upper) as port, shell(words) as person:
        await person.types(shell_command("client", LOCALHOST, str(port)), NEWLINE)
        label = f"{LOCALHOST}:{port}>"
        await person.sees(label)
        await person.types("half")
        await person.sees("half")
        yield person, label


async def has_state(pid: int, *states: str) -> None:
    """Wait until a process has one of these states (proc_pid_stat(5)); X is that it has gone."""

    def state() -> str:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return "X"

    await eventually(lambda: state() in states)


async def at_shell(person: Terminal) -> None:
    """See the shell's prompt."""
    await person.sees(r"shell\$ ")


async def says(person: Terminal, line: str, pattern: str) -> None:
    """Type a line to the shell, see what it makes of it, and its next prompt."""
    await person.types(line, NEWLINE)
    await person.sees(pattern)
    await at_shell(person)


async def sends_half_a_line(person: Terminal, label: str) -> None:
    """See what was half typed again, finish it, and end the client by Ctrl-D."""
    await person.sees(rf"{label} *half")
    await ends_well(person, label)


async def ends_well(person: Terminal, label: str) -> None:
    """Send what was half typed, and end the client by Ctrl-D."""
    await person.types(" a line", ENTER)
    await person.sees("HALF A LINE ")
    await person.sees(label)
    await person.types(CTRL_D)
    await at_shell(person)
    assert person.sane
    await says(person, "echo status=$?", "status=0")


@pytest.mark.parametrize("words", SHELLS)
async def test_ctrl_z_and_fg(words: list[str]) -> None:
    """The shell has its terminal, and the prompt is there again afterwards."""
    async with at_prompt(words) as (person, label):
        await person.types(CTRL_Z)
        await at_shell(person)
        assert person.sane
        await says(person, "echo one=$((1))", "one=1")
        await person.types("fg", NEWLINE)
        await sends_half_a_line(person, label)


@pytest.mark.parametrize("words", SHELLS)
async def test_a_stop_from_outside_and_fg(words: list[str]) -> None:
    """Nobody can notice a SIGSTOP; at SIGCONT the modes are set and the prompt is drawn anew."""
    async with at_prompt(words) as (person, label):
        os.killpg(person.job, signal.SIGSTOP)
        await at_shell(person)
        await person.types("fg", NEWLINE)
        await sends_half_a_line(person, label)


@pytest.mark.parametrize("stop", [CTRL_Z, signal.SIGSTOP], ids=["ctrl-z", "from-outside"])
@pytest.mark.parametrize("words", SHELLS)
async def test_a_stopped_job_can_be_ended(words: list[str], stop: str | signal.Signals) -> None:
    """It is in the background then, where setting modes would stop it for ever."""
    async with at_prompt(words) as (person, _):
        job = person.job
        if isinstance(stop, str):
            await person.types(stop)
        else:
            os.killpg(job, stop)
        await at_shell(person)
        await person.types(f"kill -TERM {job}; kill -CONT {job}", NEWLINE)
        await has_state(job, "Z", "X")
        await at_shell(person)
        assert person.sane
        await says(person, "echo one=$((1))", "one=1")


async def test_bash_continues_what_it_kills() -> None:
    """Its `kill %1` sends both signals, and they are received at once."""
    async with at_prompt(BASH) as (person, _):
        job = person.job
        await person.types(CTRL_Z)
        await at_shell(person)
        await person.types("kill %1", NEWLINE)
        await has_state(job, "Z", "X")
        await at_shell(person)
        assert person.sane
        # Bash is not asked how the job ended: what it saw at the wrong moment, it forgets untold.
        await says(person, "echo one=$((1))", "one=1")


@pytest.mark.parametrize("words", SHELLS)
async def test_a_prompt_that_goes_on_in_the_background_stops_and_draws_nothing(
    words: list[str],
) -> None:
    """A prompt has nothing to do without a keyboard; `fg` gives it back."""
    async with at_prompt(words) as (person, label):
        job = person.job
        await person.types(CTRL_Z)
        await at_shell(person)
        before = len(person.raw)
        os.killpg(job, signal.SIGCONT)
        await has_state(job, "S")
        await has_state(job, "T")
        await says(person, JOBS, "Stopped")
        assert label.encode() not in person.raw[before:]
        await person.types("fg", NEWLINE)
        await sends_half_a_line(person, label)


@pytest.mark.parametrize("words", SHELLS)
async def test_a_start_in_the_background_waits_for_the_foreground(words: list[str]) -> None:
    """As `cat &` does; what the shell has as modes meanwhile is nobody's business."""
    async with peer(peers.upper) as port, shell(words) as person:
        await person.types(shell_command("client", LOCALHOST, str(port)), " & echo pid=$!", NEWLINE)
        job = int((await person.sees(r"pid=(\d+)"))[1])
        await has_state(job, "T")
        await at_shell(person)
        await says(person, JOBS, "Stopped")
        await person.types("fg", NEWLINE)
        await person.sees(f"{LOCALHOST}:{port}>")
        await person.types("half")
        await ends_well(person, f"{LOCALHOST}:{port}>")


@pytest.mark.parametrize("words", SHELLS)
async def test_a_wrapper_is_stopped_too(words: list[str]) -> None:
    """A shell waits for all of a job, whoever else is in it."""
    async with peer(peers.upper) as port, shell(words) as person:
        inner = f"{shell_command('client', LOCALHOST, str(port))}; true"
        await person.types(shlex.join(["sh", "-c", inner]), NEWLINE)
        label = f"{LOCALHOST}:{port}>"
        await person.sees(label)
        await person.types("half")
        await person.sees("half")
        await person.types(CTRL_Z)
        await at_shell(person)
        assert person.sane
        await person.types("fg", NEWLINE)
        await sends_half_a_line(person, label)


# A pipe for input, a terminal for output


async def test_replies_at_a_terminal_are_escaped_also_from_a_pipe() -> None:
    """Title, clear screen, clipboard: nothing that a server says drives the terminal."""
    async with peer(peers.upper) as port, shell(DASH) as person:
        client = shell_command("client", LOCALHOST, str(port))
        typed = r"\033]0;\007\302\2332j\n"
        await person.types(f"printf '{typed}' | {client}; echo status=$?", NEWLINE)
        await person.sees(r"\\x1b\]0;\\x07\\u009b2J\s")
        await person.sees("status=0")
        assert b"\x1b]" not in person.raw


async def test_a_line_that_the_terminal_cut_is_named_in_a_pipe(tmp_path: Path) -> None:
    """With the output in a file the terminal edits lines itself, and drops what is too long."""
    replies = tmp_path / "replies"
    async with peer(peers.upper) as port, shell(DASH) as person:
        await person.types(f"{shell_command('client', LOCALHOST, str(port))} > {replies}", NEWLINE)
        await eventually(replies.exists)
        await person.types("x" * 5000, NEWLINE)
        await person.sees("the terminal cut this line after 4095 bytes")
        await person.types(CTRL_D)
        await at_shell(person)
    assert replies.read_bytes() == b"X" * 4095 + b"\n"


# Signals that end a process

ENDING = [
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGABRT,
    signal.SIGXCPU,
    signal.SIGVTALRM,
]


@pytest.mark.parametrize("number", ENDING)
async def test_a_signal_that_ends_a_process_leaves_echo_and_lines(number: signal.Signals) -> None:
    """Nobody handles these but to give the terminal back."""
    async with peer(peers.upper) as port, terminal("client", LOCALHOST, str(port)) as person:
        await person.sees(f"{LOCALHOST}:{port}>")
        os.kill(person.pid, number)
        assert await person.ends() == -number
        assert person.sane


async def test_ctrl_backslash_at_a_prompt() -> None:
    """It quits, as at any terminal."""
    async with peer(peers.upper) as port, terminal("client", LOCALHOST, str(port)) as person:
        await person.sees(f"{LOCALHOST}:{port}>")
        await person.types(CTRL_BACKSLASH)
        assert await person.ends() == -signal.SIGQUIT
        assert person.sane


async def test_ctrl_backslash_while_connecting() -> None:
    """There is no prompt, but the terminal is silent."""
    with peers.full_port() as port:
        async with terminal("client", LOCALHOST, str(port)) as person:
            await person.sees("connecting to")
            await person.types(CTRL_BACKSLASH)
            assert await person.ends() == -signal.SIGQUIT
            assert person.sane


# Progress


@pytest.mark.parametrize("words", SHELLS)
async def test_progress_that_is_stopped_and_goes_on_in_the_background(words: list[str]) -> None:
    """The cursor stays visible, and nothing is drawn over what the shell says."""
    async with serving() as server, shell(words) as person:
        bench = shell_command("bench", LOCALHOST, str(server.port), "--clients", "1")
        await person.types(f"{bench} --seconds 1 --json > /dev/null", NEWLINE)
        await person.sees("messages/s")
        await person.types(CTRL_Z)
        await at_shell(person)
        before = len(person.raw)
        # In one line, for a shell forgets at its prompt what has ended.
        await says(person, "bg; wait %1; echo status=$?", "status=0")
        assert b"messages/s" not in person.raw[before:]
        assert b"\x1b[?25l" not in person.raw


async def test_a_terminal_that_takes_nothing_delays_no_measurement() -> None:
    """After Ctrl-S the bench goes on, and ends as if nothing had happened."""
    async with serving() as server, shell(BASH) as person:
        bench = shell_command("bench", LOCALHOST, str(server.port), "--clients", "1")
        await person.types(f"{bench} --seconds 1 --json > /dev/null", NEWLINE)
        await person.sees("messages/s")
        job = person.job
        await person.types(CTRL_S)
        await eventually(lambda: person.job != job)
        await person.types(CTRL_Q)
        await at_shell(person)
        await says(person, "echo status=$?", "status=0")


async def test_a_terminal_that_takes_nothing_delays_no_round_trip() -> None:
    """Nor the signal of ``timeout 10 … ping``, which comes once."""
    answered = 0

    async def count(stream: trio.abc.Stream) -> None:
        nonlocal answered
        async for message in stream:
            answered += 1
            await stream.send_all(bytes(message).decode().upper().encode())

    async with (
        peer(count) as port,
        terminal("ping", LOCALHOST, str(port), "--interval", "0.05") as person,
    ):
        await person.sees("seq=1 ")
        person.takes_nothing()
        before = answered
        await eventually(lambda: answered > before + 20)
        os.kill(person.pid, signal.SIGTERM)
        with trio.fail_after(AT_ONCE_SECONDS):
            assert await person.ends() in {0, 1}  # 1: with a round trip under way


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_terminal_that_takes_nothing_delays_no_signal(number: signal.Signals) -> None:
    """Also while something long is shown there."""
    async with (
        serving() as server,
        terminal("bench", LOCALHOST, str(server.port), "--seconds", "60", "--json") as person,
    ):
        await person.sees("messages/s")
        person.takes_nothing()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sends, person, number)
            with trio.fail_after(AT_ONCE_SECONDS):
                assert await person.ends() == -number
            nursery.cancel_scope.cancel()


async def sends(person: Terminal, number: signal.Signals) -> None:
    """Send the signal more than once: the first one has the report made, which nobody takes."""
    with suppress(ProcessLookupError):
        while True:
            os.kill(person.pid, number)
            await trio.sleep(0.1)
