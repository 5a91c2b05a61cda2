"""The proof of every promise, at full size: ``python -m tests.acceptance``, from the root.

Each module beside this one that is named for what it does to a server or a client holds one gate.
They start the real program as a process, the way the end-to-end tests do and with their tools.
"""

from pathlib import Path

# The project's folder.
ROOT = Path(__file__).resolve().parent.parent.parent
