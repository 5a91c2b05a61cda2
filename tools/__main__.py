"""Renews the documentation: tables, examples and pictures; ``python -m tools``.

Needs root and ip(8) for the two hosts; without, only the tables are renewed; exit code 1.
"""

import os
import sys
from pathlib import Path
from unittest.mock import patch

import trio
from tests.acceptance.gate import Skipped

from tools import ROOT
from tools.examples import PAGES, renew_examples
from tools.picture import draw
from tools.reference import generated


def main(root: Path = ROOT) -> int:
    """Write README, ``docs`` and its pictures below `root` anew; return the exit code."""
    for page, text in generated(root).items():
        page.write_text(text, encoding="utf-8")
    pages = [root / page for page in PAGES]
    try:
        with patch.dict(os.environ, PATH=activated_path()):
            pictures = trio.run(draw)
            texts = trio.run(renew_examples, [page.read_text(encoding="utf-8") for page in pages])
    except* Skipped as skipped:
        sys.stderr.write(f"the examples and pictures stay as they are: {skipped.exceptions[0]}\n")
        return_code = 1
    else:
        for name, picture in pictures.items():
            (root / "docs" / name).write_text(picture, encoding="utf-8")
        for page, text in zip(pages, texts, strict=True):
            page.write_text(text, encoding="utf-8")
        return_code = 0
    return return_code


def activated_path() -> str:
    """Return the PATH of a reader, who has this environment activated: it finds this Python."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


if __name__ == "__main__":
    sys.exit(main())
