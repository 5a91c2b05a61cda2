"""Which names hold on which system."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from trio_upper import platform
from trio_upper.platform import bsd, linux, portable, posix, terminal, windows


def chosen(
    system: str, monkeypatch: pytest.MonkeyPatch, choice: ModuleType = platform
) -> ModuleType:
    """Return the platform room, or another module that chooses, as it is imported on `system`."""
    assert choice.__file__ is not None
    spec = importlib.util.spec_from_file_location("chosen", Path(choice.__file__))
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


@pytest.mark.parametrize(("system", "module"), [("linux", "unix"), ("win32", "windows")])
def test_the_terminal_is_chosen_in_the_same_way(
    system: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each name of its contract is there on each system."""
    here = chosen(system, monkeypatch, terminal)
    nearest = importlib.import_module(f"trio_upper.platform.{module}_terminal")
    for name in terminal.__all__:
        assert getattr(here, name) == getattr(nearest, name), name
