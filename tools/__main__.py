"""Renews the README's examples, its table of causes, and the picture: ``python -m docs``.

Needs root and ip(8) for the two hosts; without, only the table is renewed, and the exit code is 1.
"""

import sys
from pathlib import Path

import trio
from tests.acceptance.gate import Skipped

from tools import ROOT
from tools.examples import renew_causes, renew_examples
from tools.picture import draw


def main(root: Path = ROOT) -> int:
    """Write ``README.md`` and ``docs/picture.svg`` in `root` anew; return the exit code."""
    readme = root / "README.md"
    readme.write_text(renew_causes(readme.read_text(encoding="utf-8")), encoding="utf-8")
    try:
        picture = trio.run(draw)
        examples = trio.run(renew_examples, readme.read_text(encoding="utf-8"))
    except* Skipped as skipped:
        sys.stderr.write(
            f"the examples and the picture stay as they are: {skipped.exceptions[0]}\n"
        )
        return_code = 1
    else:
        (root / "docs" / "picture.svg").write_text(picture, encoding="utf-8")
        readme.write_text(examples, encoding="utf-8")
        return_code = 0
    return return_code


if __name__ == "__main__":
    sys.exit(main())
