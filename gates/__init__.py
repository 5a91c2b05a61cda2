"""The proof of every promise, at full size: ``python -m gates``, from the project's folder.

Each module beside this one that is named for what it does to a server or a client holds one gate.
They start the real program as a process, the way the end-to-end tests do and with their tools.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The project's folder."""

# Where pytest finds what the end-to-end tests share (`pythonpath` in pyproject.toml).
if str(ROOT / "tests") not in sys.path:
    sys.path.append(str(ROOT / "tests"))
