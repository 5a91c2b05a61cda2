"""The house holds: which room may import which, and what is loaded when.

`ALLOWED` is the architecture. A new module needs a row, and a new arrow a reason.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

import trio_upper

TIMEOUT = 60
"""Seconds after which a test has failed; none is waited for."""

PACKAGE = "trio_upper"
ROOT = Path(trio_upper.__file__).parent

# What may be imported by whom; imports inside functions and under TYPE_CHECKING are imports, too.
# "" is the package itself, which holds the version.
ALLOWED = {
    "": set(),
    "__main__": {"cli"},
    # On the wire and in the books: no I/O.
    "protocol": set(),
    "account": {"protocol"},
    "failures": set(),
    "announce": {"protocol"},
    "latency": set(),
    # What a process may do.
    "descriptors": set(),
    "memory": set(),
    # The server's side.
    "connection": {"protocol"},
    "sockets": {"memory"},
    "tls": set(),
    "listening": set(),
    "server": {"connection", "descriptors", "listening", "protocol", "sockets", "tls"},
    "workers": {"listening"},
    # The client's side.
    "dial": {"failures", "protocol", "tls"},
    "client": {"account", "memory"},
    "ping": {"failures", "latency", "protocol"},
    "bench": {"latency", "ping"},
    # People, files and terminals.
    "descriptor_io": set(),
    "stdio": {"descriptor_io"},
    "terminal": set(),
    "keyboard": {"terminal"},
    "history": set(),
    "prompt": {"history", "keyboard", "terminal"},
    "log": set(),
    # The commands put the rooms together, and the command line reaches the commands.
    "commands": set(),
    "commands.signals": set(),
    "commands.progress": set(),
    "commands.serve": {
        "announce",
        "commands",
        "commands.signals",
        "listening",
        "server",
        "workers",
    },
    "commands.supervise": {
        "commands",
        "commands.serve",
        "commands.signals",
        "listening",
        "server",
        "workers",
    },
    "commands.client": {
        "client",
        "commands",
        "commands.progress",
        "commands.signals",
        "dial",
        "failures",
        "protocol",
        "stdio",
        "terminal",
    },
    "commands.dialogue": {
        "commands",
        "commands.client",
        "commands.signals",
        "dial",
        "failures",
        "history",
        "prompt",
        "terminal",
    },
    "commands.ping": {
        "commands",
        "commands.client",
        "commands.signals",
        "dial",
        "failures",
        "latency",
        "ping",
        "protocol",
        "stdio",
        "terminal",
    },
    "commands.bench": {
        "bench",
        "commands",
        "commands.ping",
        "commands.signals",
        "descriptors",
        "dial",
        "latency",
        "stdio",
    },
    "cli": {
        "",
        "commands",
        "commands.bench",
        "commands.client",
        "commands.dialogue",
        "commands.ping",
        "commands.serve",
        "commands.signals",
        "commands.supervise",
        "dial",
        "log",
        "protocol",
        "server",
        "tls",
        "workers",
    },
}

# Heavy libraries, and the only rooms that import them to use them (TYPE_CHECKING does not count).
USERS = {
    "asyncio": {"prompt"},
    "click": {"cli"},
    "ifaddr": {"announce"},
    "prompt_toolkit": {"history", "keyboard", "prompt"},
    "rich": {"commands.bench", "commands.progress"},
    "structlog": {"log"},
}

# What does I/O, or waits for it: the core takes bytes and returns bytes.
DOES_IO = {"asyncio", "fileinput", "io", "os", "pathlib", "select", "selectors", "shutil", "signal"}
DOES_IO |= {"socket", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "trio"}

HEAVY = ["asyncio", "ifaddr", "prompt_toolkit", "rich", "ssl", "structlog", "trio"]


def modules() -> dict[str, ast.Module]:
    """Return the syntax of each module of the package by its name in `ALLOWED`."""
    paths = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in _sources()}
    return {
        "" if name == "__init__" else name.removesuffix(".__init__"): ast.parse(path.read_text())
        for name, path in paths.items()
    }


def _sources() -> Iterator[Path]:
    return ROOT.rglob("*.py")


def imported(tree: ast.AST, *, at_run_time: bool = False) -> set[str]:
    """Return the full names of all that `tree` imports: ``a.b.c`` for ``from a.b import c``.

    `at_run_time` leaves out what only the type checker sees.
    """
    names: set[str] = set()
    for node in _nodes(tree, at_run_time):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), PACKAGE)
            names |= {f"{origin}.{alias.name}" for alias in node.names}
    return names


def _nodes(tree: ast.AST, at_run_time: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not (at_run_time and for_types):
            yield node
            yield from _nodes(node, at_run_time)


def rooms(names: set[str], known: set[str]) -> set[str]:
    """Return which of the package's own modules `names` lead to."""
    own = {name.removeprefix(PACKAGE).removeprefix(".") for name in names if _top(name) == PACKAGE}
    return {name if name in known else name.rpartition(".")[0] for name in own}


def _top(name: str) -> str:
    return name.partition(".")[0]


MODULES = modules()
ARROWS = {name: rooms(imported(tree), set(MODULES)) for name, tree in MODULES.items()}


def test_every_module_has_its_place() -> None:
    """A module that is missing from the table has not been thought about; a row too many is old."""
    assert MODULES.keys() == ALLOWED.keys()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_only_what_it_may(name: str) -> None:
    """Arrows point one way, the way that the table has them."""
    assert ARROWS[name] <= ALLOWED[name]


def test_every_arrow_of_the_table_is_there() -> None:
    """What nothing imports any more is allowed no more."""
    assert not {name for name, arrows in ARROWS.items() if ALLOWED[name] - arrows}


def test_the_table_itself_has_no_cycle() -> None:
    """The order in which the rooms could be built one after the other exists."""
    order = list(TopologicalSorter(ALLOWED).static_order())
    assert order.index("protocol") < order.index("account") < order.index("client")


def test_both_sides_keep_apart() -> None:
    """Neither of client and server reaches the other, directly or through a third."""
    clients = {"client", "dial", "ping", "bench"}
    assert not clients & (reached("server") | reached("workers"))
    assert not any({"server", "workers", "connection"} & reached(name) for name in clients)
    assert {"account", "protocol"} <= reached("client")  # so the search does find something


def reached(start: str) -> set[str]:
    """Return all modules that `start` imports, and those import, and so on."""
    found: set[str] = set()
    to_see = {start}
    while to_see:
        name = to_see.pop()
        found.add(name)
        to_see |= ARROWS[name] - found
    return found - {start}


def test_only_the_program_imports_the_command_line() -> None:
    """What parses, prints usage and exits stands above all."""
    assert {name for name, arrows in ARROWS.items() if "cli" in arrows} == {"__main__"}


@pytest.mark.parametrize("name", ["protocol", "account"])
def test_the_core_does_no_io(name: str) -> None:
    """The wire and the account are bytes in, bytes out, without Trio and without a system call."""
    assert not {_top(imported_name) for imported_name in imported(MODULES[name])} & DOES_IO


@pytest.mark.parametrize("library", sorted(USERS))
def test_a_library_has_one_room(library: str) -> None:
    """A heavy library can be exchanged where it stands here, in one file or a few."""
    users = {
        name
        for name, tree in MODULES.items()
        if library in {_top(imported_name) for imported_name in imported(tree, at_run_time=True)}
    }
    assert users == USERS[library]


def loaded_by(statement: str) -> set[str]:
    """Return the names of the modules that `statement` loads in a fresh interpreter."""
    program = f"""if True:
        import sys
        before = set(sys.modules)
        {statement}
        print(*set(sys.modules) - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, timeout=TIMEOUT, check=True
    )
    return set(done.stdout.decode().split())


@pytest.mark.parametrize(
    ("module", "unloaded"),
    [
        ("cli", HEAVY),
        ("account", [*HEAVY, "click", "socket", "select"]),
        ("commands.serve", ["asyncio", "prompt_toolkit", "rich", "ifaddr", "structlog"]),
        ("commands.supervise", ["asyncio", "prompt_toolkit", "rich", "ifaddr", "structlog"]),
        ("commands.client", ["asyncio", "prompt_toolkit", "rich", "ifaddr", "structlog"]),
        ("commands.ping", ["asyncio", "prompt_toolkit", "rich", "ifaddr", "structlog"]),
        ("commands.bench", ["asyncio", "prompt_toolkit", "rich", "ifaddr", "structlog"]),
    ],
)
def test_what_is_not_used_is_not_loaded(module: str, unloaded: list[str]) -> None:
    """`--help` answers at once, and a command loads what it needs and no more."""
    loaded = loaded_by(f"import {PACKAGE}.{module}")
    assert f"{PACKAGE}.{module}" in loaded
    assert not loaded & set(unloaded)


def test_imports_are_found_wherever_they_stand() -> None:
    """In a function, for the type checker only, relative: the search itself is searching."""
    tree = ast.parse(
        "import a.b\n"
        "from c import d\n"
        "def f():\n    from trio_upper.e import g\n    from . import h\n    from .i import j\n"
        "if TYPE_CHECKING:\n    from k import m\n"
    )
    at_run_time = {
        "a.b",
        "c.d",
        *(f"{PACKAGE}.{name}" for name in ("e.g", "h", "i.j")),
    }
    assert imported(tree, at_run_time=True) == at_run_time
    assert imported(tree) == at_run_time | {"k.m"}
    assert rooms(imported(tree), {"", "e", "h", "i.j"}) == {"e", "h", "i.j"}
