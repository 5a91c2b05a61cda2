"""The architecture: which room may import which, and what is loaded when.

A room is a package of `trio_upper`, or a module at its root. `ALLOWED` is the architecture: a new
room needs a row, and a new arrow a reason. Inside a room the modules must not form a circle.
"""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

import trio_upper
from tests.helpers.waiting import TIMEOUT_SECONDS

PACKAGE = "trio_upper"
ROOT = Path(trio_upper.__file__).parent

# Which room may import which; imports in functions and under TYPE_CHECKING count as well. A room
# is a package, or a module at the root; "" is `trio_upper` itself, the public names.
ALLOWED = {
    "": {"client", "protocol", "server"},
    "__main__": {"cli"},
    "protocol": set(),
    "platform": set(),
    "tls": set(),
    "server": {"platform", "protocol", "tls"},
    "client": {"platform", "protocol", "tls"},
    "measure": {"client", "protocol"},
    "stdio": {"platform"},
    "terminal": {"platform"},
    "cli": {
        "",
        "client",
        "measure",
        "platform",
        "protocol",
        "server",
        "stdio",
        "terminal",
        "tls",
    },
}

# Heavy libraries, and the only rooms that import them to use them (TYPE_CHECKING does not count).
USERS = {
    "asyncio": {"terminal.asyncio_thread", "terminal.editor"},
    "cryptography": {"server.certificates"},
    "click": {"cli.commands", "cli.main", "cli.options"},
    "ifaddr": {"cli.announcement"},
    "platformdirs": {"terminal.history"},
    "prompt_toolkit": {
        "terminal.devices",
        "terminal.editor",
        "terminal.history",
        "terminal.keyboard",
    },
    "structlog": {"cli.log"},
}

# What does I/O, or waits for it: the core takes bytes and returns bytes.
DOES_IO = {"asyncio", "fileinput", "io", "os", "pathlib", "select", "selectors", "shutil", "signal"}
DOES_IO |= {"socket", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "trio"}

HEAVY = ["asyncio", "ifaddr", "platformdirs", "prompt_toolkit", "ssl", "structlog", "trio"]


def modules() -> dict[str, ast.Module]:
    """Return the syntax of each module of the package by its name in `ALLOWED`."""
    paths = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in _sources()}
    return {
        "" if name == "__init__" else name.removesuffix(".__init__"): ast.parse(path.read_text())
        for name, path in paths.items()
    }


def _sources() -> Iterator[Path]:
    return ROOT.rglob("*.py")


@functools.cache
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


def own_modules(names: set[str], known: set[str]) -> set[str]:
    """Return which of the package's own modules `names` lead to."""
    own = {name.removeprefix(PACKAGE).removeprefix(".") for name in names if _top(name) == PACKAGE}
    return {name if name in known else name.rpartition(".")[0] for name in own}


def _top(name: str) -> str:
    return name.partition(".")[0]


MODULES = modules()
ARROWS = {name: own_modules(imported(tree), set(MODULES)) for name, tree in MODULES.items()}


def room(module: str) -> str:
    """Return the room that `module` is in."""
    return _top(module)


def test_every_room_has_a_row() -> None:
    """A room that is missing from the table has not been thought about; a row too many is old."""
    assert {room(name) for name in MODULES} == ALLOWED.keys()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_only_from_rooms_that_it_may(name: str) -> None:
    """Arrows point one way, as the table says."""
    outside = {room(other) for other in ARROWS[name]} - {room(name)}
    assert outside <= ALLOWED[room(name)]


def test_the_table_has_no_circle() -> None:
    """The rooms could be built one after the other, without those that come later."""
    order = list(TopologicalSorter(ALLOWED).static_order())
    assert order.index("protocol") < order.index("server") < order.index("cli")


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_the_modules_of_a_room_form_no_circle(name: str) -> None:
    """Each can be read after those that it imports."""
    inside = {module: ARROWS[module] for module in MODULES if room(module) == name}
    TopologicalSorter(
        {module: arrows & inside.keys() for module, arrows in inside.items()}
    ).prepare()


@pytest.mark.parametrize("name", ["protocol", "client.account"])
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


# What one system has and another one lacks is asked for in `platform` alone: modules, and names.
OF_ONE_SYSTEM = {"ctypes", "fcntl", "msvcrt", "resource", "termios", "tty", "winreg"}
NAMES_OF_ONE_SYSTEM = {
    *("sys.platform", "os.name", "sys.getwindowsversion"),
    *("select.epoll", "select.kqueue", "select.poll", "select.PIPE_BUF"),
    *("os.sched_getaffinity", "os.ttyname", "os.O_NONBLOCK", "os.O_NOCTTY", "os.fchmod"),
    *("os.kill", "os.killpg", "os.tcgetpgrp", "os.getpgrp", "os.set_blocking"),
    *("signal.SIGHUP", "signal.SIGPIPE", "signal.SIGUSR1", "signal.SIGQUIT", "signal.SIGBREAK"),
    *("signal.SIGTSTP", "signal.SIGCONT", "signal.SIGTTOU", "signal.SIGCHLD", "signal.SIGALRM"),
    *("signal.pthread_sigmask", "signal.set_wakeup_fd"),
    *("socket.AF_UNIX", "socket.SOCK_SEQPACKET", "socket.MSG_DONTWAIT", "socket.EAI_ADDRFAMILY"),
    *("socket.TCP_KEEPIDLE", "socket.TCP_KEEPALIVE", "socket.TCP_KEEPINTVL"),
}
FILES_OF_ONE_SYSTEM = ("/proc/", "/sys/", "/dev/")


def asked_of_one_system(tree: ast.Module) -> set[str]:
    """Return what `tree` names that not every system has.

    Words in docstrings do not count, nor does an assertion at the start of a module, which tells
    the type checker for which systems it is.
    """
    body = [node for node in tree.body if not isinstance(node, ast.Assert)]
    tree = ast.Module(body, [])
    found = {_top(name) for name in imported(tree)} & OF_ONE_SYSTEM
    found |= imported(tree) & NAMES_OF_ONE_SYSTEM
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found |= {ast.unparse(node)} & NAMES_OF_ONE_SYSTEM
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {file for file in FILES_OF_ONE_SYSTEM if node.value.startswith(file)}
    return found


@pytest.mark.parametrize("name", sorted(MODULES))
def test_what_one_system_has_is_asked_for_in_the_platform_room(name: str) -> None:
    """A difference between systems has one place, and all other code runs on each of them."""
    asked = asked_of_one_system(MODULES[name])
    assert room(name) == "platform" or not asked


def test_what_one_system_has_is_found_wherever_it_stands() -> None:
    """As a module, as a name that was imported or not, as the name of a file."""
    tree = ast.parse(
        '"""Reads /proc/ with fcntl."""\n'
        "def f():\n    import fcntl\n    from os import ttyname\n"
        "    return open('/proc/self/fd'), sys.platform, signal.SIGINT\n"
    )
    assert asked_of_one_system(tree) == {"fcntl", "os.ttyname", "/proc/", "sys.platform"}


def loaded_by(statement: str) -> set[str]:
    """Return the names of the modules that `statement` loads in a fresh interpreter."""
    program = f"""if True:
        import sys
        before = set(sys.modules)
        {statement}
        print(*set(sys.modules) - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, timeout=TIMEOUT_SECONDS, check=True
    )
    return set(done.stdout.decode().split())


@pytest.mark.parametrize(
    ("module", "unloaded"),
    [
        ("__main__", [*HEAVY, "click", "re", "socket", "typing", f"{PACKAGE}.platform"]),
        ("cli.main", HEAVY),
        ("client.account", [*HEAVY, "click", "socket", "select"]),
        ("cli.serve", ["asyncio", "prompt_toolkit", "ifaddr", "structlog"]),
        ("cli.supervise", ["asyncio", "prompt_toolkit", "ifaddr", "structlog"]),
        ("cli.client", ["asyncio", "prompt_toolkit", "ifaddr", "structlog"]),
        ("cli.ping", ["asyncio", "prompt_toolkit", "ifaddr", "structlog"]),
        ("cli.check", ["asyncio", "prompt_toolkit", "rich", "ifaddr", "structlog"]),
        ("cli.bench", ["asyncio", "prompt_toolkit", "ifaddr", "structlog"]),
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
    assert own_modules(imported(tree), {"", "e", "h", "i.j"}) == {"e", "h", "i.j"}
