"""The descriptor limit of this process, which is put back afterwards."""

import resource
from collections.abc import Iterator

import pytest

from trio_upper.platform.descriptors import raise_descriptor_limit

Limits = tuple[int, int]


@pytest.fixture
def limits() -> Iterator[Limits]:
    """Give the limits as they are, soft and hard."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_descriptor_limit_is_raised_to_the_hard_one(limits: Limits) -> None:
    """What the administrator allows is used."""
    _, hard = limits
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    assert raise_descriptor_limit() == hard
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


def test_a_limit_that_cannot_be_raised_is_left_alone(
    limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the soft one is the hard one already, the system is not asked for more."""
    _, hard = limits
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def refuse(*_: object) -> None:
        pytest.fail("asked for more")

    with monkeypatch.context() as patched:
        patched.setattr(resource, "setrlimit", refuse)
        assert raise_descriptor_limit() == hard
