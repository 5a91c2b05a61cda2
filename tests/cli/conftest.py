"""What the tests of the commands share."""

import pytest
from tests.helpers.waiting import TIMEOUT_SECONDS

from trio_upper.cli import log


@pytest.fixture(autouse=True)
def patient_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the last lines of a log are waited for, too."""
    monkeypatch.setattr(log, "CLOSE_SECONDS", TIMEOUT_SECONDS)
