"""Trio-upper against naive, honest peers: ``python -m benchmarks.compare --quick``."""
