"""What can be set for a measurement: the defaults are valid, and what makes no sense is refused."""

import subprocess
import sys

import pytest
from tests.helpers.waiting import TIMEOUT_SECONDS

from trio_upper.measure.settings import (
    LARGEST_AT_ONCE_BYTES,
    LARGEST_BYTES,
    SMALLEST_BYTES,
    LoadSettings,
    PingSettings,
)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"count": 0}, "--count must be at least 1"),
        ({"size": SMALLEST_BYTES - 1}, "--size must be from 2 to 65536 bytes"),
        ({"size": LARGEST_AT_ONCE_BYTES + 1}, "--size must be from 2 to 65536 bytes"),
        ({"interval": -1}, "--interval must not be negative"),
        ({"reply_timeout": -1}, "--reply-timeout must not be negative"),
    ],
)
def test_a_ping_that_makes_no_sense_is_refused(settings: dict[str, int], said: str) -> None:
    """In a sentence that names the option."""
    with pytest.raises(ValueError, match=f"^{said}$"):
        PingSettings(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"clients": 0}, "--clients must be at least 1"),
        ({"pipeline": 0}, "--pipeline must be at least 1"),
        ({"size": SMALLEST_BYTES - 1}, "--size must be from 2 to 16777216 bytes"),
        ({"size": LARGEST_BYTES + 1}, "--size must be from 2 to 16777216 bytes"),
        ({"seconds": 0}, "--seconds must be greater than 0"),
        ({"reply_timeout": -1}, "--reply-timeout must not be negative"),
    ],
)
def test_a_load_that_makes_no_sense_is_refused(settings: dict[str, int], said: str) -> None:
    """In a sentence that names the option."""
    with pytest.raises(ValueError, match=f"^{said}$"):
        LoadSettings(**settings)


def test_the_defaults_load_nothing() -> None:
    """The command line shows them in its help, which must not load Trio."""
    program = "import sys, trio_upper.measure.settings; print('trio' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, timeout=TIMEOUT_SECONDS, check=True
    )
    assert done.stdout == b"False\n"
