"""Makes one file of the program and all that it needs: ``python -m tools.onefile [FILE]``.

It is a zipapp (PEP 441) of what is installed here, so it needs no network. It runs with any Python
from 3.11 on, on Linux and macOS; on Windows Trio needs a package that is not pure Python.
"""

import shutil
import sys
import tomllib
import zipapp
from importlib.metadata import Distribution, distribution
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.requirements import Requirement

from tools import ROOT

MAIN = """\
import sys

if sys.version_info < (3, 11):
    sys.exit("trio-upper needs Python 3.11 or later")

from trio_upper.__main__ import main

main()
"""


def build(target: Path) -> None:
    """Write the one file to `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(ROOT / "src", root, dirs_exist_ok=True, ignore=no_cache)
        for needed in dependencies().values():
            copy(needed, root)
        (root / "__main__.py").write_text(MAIN, encoding="utf-8")
        zipapp.create_archive(root, target, interpreter="/usr/bin/env python3", compressed=True)


def no_cache(_folder: str, names: list[str]) -> set[str]:
    """Return which of `names` are compiled, for `shutil.copytree`."""
    return {"__pycache__"} & set(names)


def dependencies() -> dict[str, Distribution]:
    """Return the distributions that the program needs here, directly or not, by their names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, Distribution] = {}
    requirements: list[str] = project["dependencies"]
    while requirements:
        needed = Requirement(requirements.pop())
        if is_needed(needed) and needed.name not in found:
            found[needed.name] = distribution(needed.name)
            requirements += found[needed.name].requires or ()
    return found


def is_needed(requirement: Requirement) -> bool:
    """Tell whether a requirement counts on this system, without extras."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def copy(needed: Distribution, root: Path) -> None:
    """Copy the modules of a distribution, and its name and version, below `root`."""
    for path in needed.files or ():
        is_module = path.suffix == ".py" and "_tests" not in path.parts
        if is_module or path.name == "METADATA":
            copied = root / path
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(needed.locate_file(path), copied)  # type: ignore[arg-type] # a Path


if __name__ == "__main__":
    build(Path(*sys.argv[1:2] or ["dist", "trio-upper.pyz"]))
