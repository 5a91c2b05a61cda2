"""What the README shows of real runs: ``python -m docs``, from the project's folder, renews it.

Server and client run on two hosts with a cable between them, which are network namespaces with
addresses for documentation. So each command stands in the README as it was run.
"""

from tests.acceptance import ROOT  # which makes the end-to-end tests' tools importable, too

__all__ = ["ROOT"]
