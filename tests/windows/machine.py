"""The machine under Wine: where its files are, and how a program is run on it."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# A command of Wine's own that takes longer, in seconds, has failed.
WINE_SECONDS = 120


class Machine:
    """A Windows machine below a folder of this one; `with` keeps it up for many programs.

    Its standard streams must be pipes or a terminal: Python cannot start there with a file of this
    machine, or /dev/null, as one of them.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        #: Drive C:.
        self.drive = home / "prefix" / "drive_c"
        #: The interpreter and its library.
        self.python = self.drive / "python"

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment for Wine's own commands, and for programs `more` of it."""
        ours = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "TRIO_UPPER_", "DISPLAY"))
        }
        wine = {"WINEPREFIX": str(self.home / "prefix"), "WINEDEBUG": "-all"}
        return ours | wine | dict(more or {})

    def command(self, *words: str) -> list[str]:
        """Return the command that runs Python there with `words`."""
        return ["wine", r"C:\python\python.exe", *words]

    def folder(self, name: str) -> Path:
        """Return a folder of this machine that is ``C:`` and `name` there."""
        return self.drive / name

    def run(
        self, words: Sequence[str], *, input_: bytes = b"", timeout: float, **more: Any
    ) -> "subprocess.CompletedProcess[bytes]":
        """Run Python there until it ends, with pipes."""
        return subprocess.run(
            self.command(*words),
            input=input_,
            capture_output=True,
            env=self.environment(more.pop("env", None)),
            timeout=timeout,
            check=False,
            **more,
        )

    def __enter__(self) -> "Machine":
        """Keep Wine's server up: a program then starts in a fifth of the time.

        Its services start with the first program, and would keep that one's pipes open.
        """
        self._server = subprocess.Popen(["wineserver", "-f", "-p"], **self._quietly())
        self.quietly("wine", "cmd", "/c", "exit")
        return self

    def __exit__(self, *_: object) -> None:
        """End all that runs there."""
        self.quietly("wineserver", "-k")
        self._server.wait(WINE_SECONDS)

    def quietly(self, *command: str) -> None:
        """Run one of Wine's own commands, and show nothing of it."""
        subprocess.run(command, timeout=WINE_SECONDS, check=True, **self._quietly())

    def _quietly(self) -> dict[str, Any]:
        nothing = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        return {"env": self.environment(), **nothing}
