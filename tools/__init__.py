"""What the documentation shows of the program, and renews itself.

`tools.reference` writes the tables that the program knows. `tools` itself (``python -m tools``,
which is ``nox -s docs``) also runs the examples and draws the picture. For that server and client
run on two hosts with a cable between them, which are network namespaces with addresses for
documentation. So each command stands in the documentation as it was run.
"""

from pathlib import Path

ROOT = Path(__file__).parent.parent
