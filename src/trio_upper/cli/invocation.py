"""How this program is started: for a person to copy, and for the workers.

There are three ways: as a module (``python -m trio_upper``), as the script ``trio-upper``, and as
one file that holds it all (``python trio-upper.pyz``, see `zipapp`).
"""

import sys
from pathlib import Path

MODULE = "trio_upper"
SCRIPT = "trio-upper"


def own_command() -> list[str]:
    """Return the words that start this program once more, by this very interpreter."""
    archive = _archive()
    return [sys.executable, archive] if archive else [sys.executable, "-m", MODULE]


def shown_command() -> list[str]:
    """Return the words that a person types to start it, in the way that was chosen this time."""
    archive = _archive()
    if Path(sys.argv[0]).stem == SCRIPT and not archive:
        return [SCRIPT]
    python = Path(sys.orig_argv[0]).name.removesuffix(".exe")
    return [python, Path(archive).name] if archive else [python, "-m", MODULE]


def _archive() -> str:
    """Return the path of the one file that holds the program, if there is one."""
    archive: str = getattr(__spec__.loader, "archive", "")  # of a zipimport.zipimporter
    return archive
