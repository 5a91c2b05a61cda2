"""What an editor reads and draws on, where terminals are driven by sequences and where not."""

import os
import pty
import termios
from pathlib import Path

import pytest
from prompt_toolkit.input import DummyInput, create_pipe_input
from prompt_toolkit.output import DummyOutput
from tests.helpers.descriptor_ends import Descriptors
from tests.helpers.descriptor_ends import terminal as open_terminal

from trio_upper.platform import terminal
from trio_upper.terminal import devices
from trio_upper.terminal.editor import open_prompt
from trio_upper.terminal.lease import Lease


def test_a_terminal_without_a_size_has_the_usual_one() -> None:
    """0 by 0 (a serial line) and a terminal that is gone count as 24 lines of 80."""
    master, tty = pty.openpty()
    assert devices._size(tty) == (24, 80)
    termios.tcsetwinsize(tty, (5, 40))
    assert devices._size(tty) == (5, 40)
    os.close(tty)
    os.close(master)
    assert devices._size(tty) == (24, 80)


@pytest.fixture
def _without_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a system whose console is driven by calls, and whose jobs nothing stops."""
    monkeypatch.setattr(terminal, "HAS_SEQUENCES", False)
    monkeypatch.setattr(terminal, "job_signals", list)
    monkeypatch.setattr(devices, "create_input", DummyInput)
    monkeypatch.setattr(devices, "create_output", DummyOutput)


@pytest.mark.usefixtures("_without_sequences")
def test_a_console_without_sequences_is_left_to_prompt_toolkit(fds: Descriptors) -> None:
    """What was typed before can be discarded there, too."""
    read, write = open_terminal(fds)
    lease = Lease(read)
    with devices.open_devices(lease, read, hurried=lambda: False) as (keyboard, screen, forget):
        assert isinstance(keyboard, DummyInput)
        assert isinstance(screen, DummyOutput)
        os.write(write, b"before\n")
        forget()
    assert not terminal.is_readable(read)


@pytest.mark.usefixtures("_without_sequences")
async def test_a_prompt_without_job_control(
    fds: Descriptors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is watched for."""
    read, _ = open_terminal(fds)
    with create_pipe_input() as keyboard:
        monkeypatch.setattr(devices, "create_input", lambda: keyboard)
        keyboard.send_text("alpha\r")
        async with open_prompt(
            history=tmp_path / "history", input_fd=read, output_fd=read
        ) as prompt:
            assert await prompt.ask("Host", "localhost") == "alpha"


@pytest.mark.usefixtures("_without_sequences")
async def test_lines_pasted_at_a_console_end_with_a_return(
    fds: Descriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is an answer of its own, as elsewhere."""
    read, _ = open_terminal(fds)
    with create_pipe_input() as keyboard:
        monkeypatch.setattr(devices, "create_input", lambda: keyboard)
        keyboard.send_text("\x1b[200~alpha\r\nbeta\rrest\x1b[201~\r")
        async with open_prompt(input_fd=read, output_fd=read) as prompt:
            answers = [await prompt.ask("Host", "localhost") for _ in range(3)]
    assert answers == ["alpha", "beta", "rest"]
