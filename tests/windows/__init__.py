"""A Windows Python on a Linux machine, and what the program does there: ``nox -s windows``.

`build` makes the interpreter under Wine, `machine` runs programs on it, `end_to_end` has the tests
from the Linux side, and `python -m tests.windows` does it all and says what was seen.
Wine is no Windows. It finds what an import, a signal, a console or an error number does
differently, and `NOT_SHOWN` names what it cannot show.
"""
