"""How this program is started: for a person to copy, and for the workers.

There are three ways: as a module (``python -m trio_upper``), as the script ``trio-upper``, and as
one file that holds it all (``python trio-upper.pyz``, see `zipapp`).
"""

import os
import sys
from pathlib import Path

MODULE = "trio_upper"
SCRIPT = "trio-upper"


def own_command() -> list[str]:
    """Return the words that start this program once more, by this very interpreter."""
    archive = _archive()
    return [sys.executable, archive] if archive else [sys.executable, "-m", MODULE]


def shown_command(*, elsewhere: bool = False) -> list[str]:
    """Return the words that a person types to start it, in the way that was chosen this time.

    On this machine they work as they are: what the shell does not find by its name has its path.
    `elsewhere` is on another one, where it is in another folder.
    """
    archive = _archive()
    program = _name if elsewhere else _word
    if _name(sys.argv[0]) == SCRIPT and not archive:
        return [program(sys.argv[0])]
    python = program(sys.orig_argv[0])
    if archive:
        return [python, Path(archive).name if elsewhere else archive]
    return [python, "-m", MODULE]


def _name(path: str) -> str:
    return Path(path).name.removesuffix(".exe")


def _word(path: str) -> str:
    """Return the name of a program if the shell finds this very one by it, else its path."""
    import shutil

    name = _name(path)
    is_found = _comparable(shutil.which(name) or "") == _comparable(path)
    return name if is_found or path == Path(path).name else str(Path(path).absolute())


def _comparable(path: str) -> str:
    """Return the path of a program as others on Windows can be written, too."""
    return os.path.normcase(Path(path).absolute()).removesuffix(".exe")


def _archive() -> str:
    """Return the path of the one file that holds the program, if there is one."""
    archive: str = getattr(__spec__.loader, "archive", "")  # of a zipimport.zipimporter
    return archive
