"""A TCP server that answers in upper case, and a client that knows what it is owed."""

__version__ = "0.1.0"
