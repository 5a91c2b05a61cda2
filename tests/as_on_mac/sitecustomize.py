"""Hides from the program what only Linux has, as if this were a Mac: ``nox -s portable``.

A Python that has this folder on its path chooses, as `trio_upper.platform` is imported, what it
chooses on macOS. Nothing else of the program asks which system it runs on; tests and libraries see
Linux.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

PLATFORM = "trio_upper.platform"


class MacFinder(MetaPathFinder):
    """Finds the platform room, and has it see another system while it is imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != PLATFORM or (spec := PathFinder.find_spec(name, path, target)) is None:
            return None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_as_on_mac(module: ModuleType) -> None:
            real = sys.platform
            sys.platform = "darwin"
            try:
                execute(module)
            finally:
                sys.platform = real

        spec.loader.exec_module = execute_as_on_mac  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, MacFinder())
