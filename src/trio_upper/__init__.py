"""A TCP server that answers in upper case, and a client that knows what it is owed.

The names in `__all__` are the library; all else may change. Each is imported when it is first used,
so that ``import trio_upper`` costs nothing.
"""

import importlib

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_PORT",
    "CannotConnect",
    "Outcome",
    "Server",
    "ServerSettings",
    "Target",
    "Uppercaser",
    "__version__",
    "connect",
    "converse",
]

# For type checkers it is true. (`typing` is not light.)
TYPE_CHECKING = False

if TYPE_CHECKING:
    from trio_upper.client.connect import connect
    from trio_upper.client.converse import Outcome, converse
    from trio_upper.client.failures import CannotConnect
    from trio_upper.client.target import Target
    from trio_upper.protocol import DEFAULT_PORT, Uppercaser
    from trio_upper.server.server import Server
    from trio_upper.server.settings import ServerSettings
else:
    # Where each name comes from, as above for type checkers.
    _MODULES = {
        "CannotConnect": "trio_upper.client.failures",
        "DEFAULT_PORT": "trio_upper.protocol",
        "Outcome": "trio_upper.client.converse",
        "Server": "trio_upper.server.server",
        "ServerSettings": "trio_upper.server.settings",
        "Target": "trio_upper.client.target",
        "Uppercaser": "trio_upper.protocol",
        "connect": "trio_upper.client.connect",
        "converse": "trio_upper.client.converse",
    }

    def __getattr__(name):
        """Import a public name when it is used (PEP 562)."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value = getattr(importlib.import_module(_MODULES[name]), name)
        return value

    def __dir__():
        return sorted({*globals(), *__all__})
