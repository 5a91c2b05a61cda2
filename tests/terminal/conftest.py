"""What holds for every test at a terminal: it can do everything, and shows no colour."""

import pytest

from trio_upper.platform import terminal


@pytest.fixture(autouse=True)
def _capable_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("PROMPT_TOOLKIT_NO_CPR", "1")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture(autouse=True)
def _own_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test stops the job that runs it."""
    for stopping in "stop_job", "signal_job":
        monkeypatch.setattr(terminal, stopping, lambda number, what=stopping: pytest.fail(what))
