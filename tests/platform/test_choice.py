"""Which names hold on which system."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from trio_upper import platform
from trio_upper.platform import bsd, linux, portable, posix, windows


def chosen(system: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the platform room as it is imported on `system`."""
    spec = importlib.util.spec_from_file_location("chosen", Path(platform.__file__))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "platform", system)
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("system", "modules"),
    [
        ("linux", [linux, posix, portable]),
        ("darwin", [bsd, posix, portable]),
        ("freebsd14", [bsd, posix, portable]),
        ("win32", [windows, portable]),
    ],
)
def test_the_nearest_module_that_has_a_name_gives_it(
    system: str, modules: list[ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is forgotten in the choice, and each system has them all."""
    here = chosen(system, monkeypatch)
    for name in platform.__all__:
        nearest = next(module for module in modules if hasattr(module, name))
        assert getattr(here, name) == getattr(nearest, name), name


def test_the_contract_has_a_docstring_for_each_function() -> None:
    """What it does where nothing better is known, and for whom."""
    functions = [getattr(portable, name) for name in platform.__all__ if name.islower()]
    assert all(function.__doc__ for function in functions)


def test_whatever_a_module_defines_is_in_the_contract() -> None:
    """A public function of one system alone would be a difference that callers must know."""
    for module in (bsd, linux, posix, windows):
        own = {
            name
            for name, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", "") == module.__name__
        }
        assert {name for name in own if not name.startswith("_")} <= set(platform.__all__)
