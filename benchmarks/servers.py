"""The servers that are compared: how each is started, and why one cannot run here."""

import contextlib
import importlib.util
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import ROOT, Cores, child, wait_until

HOST = "127.0.0.1"
OURS = "trio-upper"
YARDSTICK = "asyncio-streams"
"""The peer that ratios are taken to: what most people would write first."""

START_LIMIT_S = 15.0
"""For a server to accept; an interpreter on a busy core takes a second or two."""

BUILD_LIMIT_S = 120.0
"""For a compiler; Go builds its standard library the first time."""

PROCESS_A_CLIENT_CONNECTIONS = 10
"""Most for a server that starts two processes a client; more would measure fork()."""

THREAD_CONNECTIONS = 5000
"""Most for a server that starts a thread a client; with more, the whole machine stands still."""

MANY_CONNECTIONS = 1_000_000
"""No limit of the server's own."""

QUOTED_BYTES = 300
"""Of a failed server's last words: a line or two."""

PEERS = Path(__file__).parent / "peers"


class Failed(Exception):
    """Something could not be measured: `reason` for the page, `detail` for who is watching."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One way to serve. `missing` says why it cannot be run here; empty when it can."""

    name: str
    command: tuple[str, ...]
    """Its port comes behind."""
    text_options: tuple[str, ...] | None = None
    """What makes it upper-case UTF-8 text; None if it knows ASCII only."""
    most_connections: int = MANY_CONNECTIONS
    missing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that accepts on `port`; `pid` leads its session."""

    pid: int
    port: int
    most_connections: int = MANY_CONNECTIONS


def lacking(module: str) -> str:
    """Why a Python module cannot be used; empty when it can."""
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    return "" if found else f"{module.partition('.')[0]} is not installed"


def python_peer(
    name: str,
    module: str,
    *options: str,
    missing: str = "",
    most_connections: int = MANY_CONNECTIONS,
) -> Server:
    return Server(
        name=name,
        command=(sys.executable, "-m", f"benchmarks.peers.{module}", *options),
        text_options=("--text",),
        most_connections=most_connections,
        missing=missing,
    )


def build(compiler: str, *arguments: str) -> str:
    """Run a compiler; why it could not, or nothing."""
    program = shutil.which(compiler)
    if program is None:
        return f"{compiler} is not installed"
    done = subprocess.run(
        [program, *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=BUILD_LIMIT_S,
        check=False,
    )
    return f"{compiler} failed" if done.returncode else ""


def build_c(source: Path, target: Path) -> str:
    return build("cc", "-O2", "-o", str(target), str(source))


def c_peer(folder: Path) -> Server:
    program = folder / "epoll"
    missing = build_c(PEERS / "epoll.c", program)
    return Server(name="c-epoll", command=(str(program),), missing=missing)


def go_peer(folder: Path) -> Server:
    program = folder / "goroutines"
    missing = build("go", "build", "-o", str(program), str(PEERS / "goroutines.go"))
    return Server(name="go-goroutines", command=(str(program),), missing=missing)


def socat_peer() -> Server:
    """socat and tr, two processes a client. stdbuf: tr alone keeps short replies in its buffer."""
    needed = [tool for tool in ("socat", "tr", "stdbuf") if shutil.which(tool) is None]
    script = 'exec socat "TCP-LISTEN:$1,bind=127.0.0.1,reuseaddr,fork" "EXEC:stdbuf -o0 tr a-z A-Z"'
    return Server(
        name="socat-tr",
        command=("/bin/sh", "-c", script, "socat"),
        most_connections=PROCESS_A_CLIENT_CONNECTIONS,
        missing=f"{needed[0]} is not installed" if needed else "",
    )


def all_servers(folder: Path) -> list[Server]:
    """Every server, ours first; those that need a compiler are built into `folder`."""
    ours = (sys.executable, "-m", "trio_upper", "serve", "--port")
    uvloop = lacking("uvloop")
    return [
        Server(name=OURS, command=ours, text_options=(), missing=lacking("trio_upper.__main__")),
        python_peer(YARDSTICK, "asyncio_streams"),
        python_peer("asyncio-protocol", "asyncio_protocol"),
        python_peer("uvloop-streams", "asyncio_streams", "--uvloop", missing=uvloop),
        python_peer("uvloop-protocol", "asyncio_protocol", "--uvloop", missing=uvloop),
        python_peer(
            "socketserver-threads", "socketserver_threads", most_connections=THREAD_CONNECTIONS
        ),
        python_peer("trio-tutorial", "trio_tutorial", missing=lacking("trio")),
        c_peer(folder),
        go_peer(folder),
        socat_peer(),
    ]


def free_port() -> int:
    """A port that nobody had a moment ago; whoever takes it before the server makes that fail."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=START_LIMIT_S).close()
    except ConnectionRefusedError:
        return False
    return True


@contextlib.contextmanager
def running(server: Server, cores: Cores, *, text: bool) -> Iterator[Running]:
    """The server, accepting; ended on leaving. Raises Failed with its last words."""
    port = free_port()
    options = (server.text_options or ()) if text else ()
    with (
        tempfile.TemporaryFile() as words,
        child([*server.command, str(port), *options], cores, stderr=words.fileno()) as process,
    ):
        settled = wait_until(lambda: process.poll() is not None or accepts(port), START_LIMIT_S)
        if not settled or process.poll() is not None:
            words.seek(0)
            said = words.read()[-QUOTED_BYTES:].decode(errors="replace")
            raise Failed("did not start", " ".join(said.split()))
        yield Running(pid=process.pid, port=port, most_connections=server.most_connections)
