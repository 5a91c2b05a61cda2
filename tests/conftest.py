"""What holds for every test: Ctrl-C means what it says, and a busy machine is no failure."""

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import settings

from tests.helpers.descriptor_ends import Descriptors
from tests.windows import cannot_run

# Its deadline for an example would measure what else the machine does.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


collect_ignore = list(cannot_run.MODULES) if sys.platform == "win32" else []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On Windows, skip what cannot run there."""
    for item in items if sys.platform == "win32" else []:
        for part, reason in cannot_run.TESTS.items():
            if part in item.nodeid:
                item.add_marker(pytest.mark.skip(reason=reason))


# What a shell's ``&`` ignores, and nohup; Windows has one of them.
OFTEN_IGNORED = [
    getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGQUIT") if hasattr(signal, name)
]


@pytest.fixture(autouse=True, scope="session")
def _heeding_signals() -> Iterator[None]:
    """This process and those it starts heed the signals that whoever started it ignores."""
    with ExitStack() as before:
        for number in OFTEN_IGNORED:
            if signal.getsignal(number) is signal.SIG_IGN:
                is_interrupt = number is signal.SIGINT
                handler = signal.default_int_handler if is_interrupt else signal.SIG_DFL
                before.callback(signal.signal, number, signal.signal(number, handler))
        yield


# What a server ignores from its end on.
IGNORED_AT_LAST = [
    getattr(signal, name)
    for name in ("SIGHUP", "SIGINT", "SIGTERM", "SIGUSR1")
    if hasattr(signal, name)
]


@pytest.fixture(autouse=True)
def _outliving_signals() -> Iterator[None]:
    """A command may ignore signals until its process is gone, which here runs more tests."""
    before = {number: signal.getsignal(number) for number in IGNORED_AT_LAST}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def fds() -> Iterator[Descriptors]:
    """Descriptors that are closed after the test."""
    fds = Descriptors()
    yield fds
    fds.close_all()
