"""The servers that are compared: how each is started, and why one cannot run here."""

import contextlib
import importlib
import importlib.util
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.processes import ROOT, Cores, child, wait_until

HOST = "127.0.0.1"
OURS = "trio-upper"
# What most people would write first, and what somebody writes who wants speed.
STREAMS, PROTOCOL, UVLOOP = "asyncio-streams", "asyncio-protocol", "uvloop-protocol"
C_EPOLL = "c-epoll"

# For a server to accept connections; an interpreter on a busy core takes a second or two.
START_SECONDS = 15.0

# For a compiler; Go builds its standard library the first time.
BUILD_SECONDS = 120.0

# The most for a server that starts a thread for each client; more would freeze the machine.
THREAD_CONNECTIONS = 1000

# How many ports a server tries, and what one says in whatever language whose port was taken.
PORTS, PORT_TAKEN = 3, "in use"

# No limit of the server's own.
MANY_CONNECTIONS = 1_000_000

# Of a failed server's last words: a line or two.
QUOTED_BYTES = 300

PEERS = Path(__file__).parent / "peers"


class Failed(Exception):
    """Something could not be measured: `reason` goes to the page, `detail` to the terminal too."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One way to serve.

    It is run as `command`, its port, and `options`. `text_options` make it upper-case UTF-8 text;
    None if it knows ASCII only. `missing` says why it cannot be run here; empty when it can.
    """

    name: str
    command: tuple[str, ...]
    options: tuple[str, ...] = ()
    text_options: tuple[str, ...] | None = None
    speaks_tls: bool = False
    most_connections: int = MANY_CONNECTIONS
    missing: str = ""

    def on_text(self) -> "Server":
        """Return it as it upper-cases UTF-8 text."""
        return replace(self, options=self.text_options or ())

    def on_tls(self, cert: Path) -> "Server":
        """Return it as it speaks TLS with the key and the certificate in the file `cert`."""
        return replace(self, options=("--tls-cert", str(cert)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that accepts connections on `port`; `pid` leads its session."""

    pid: int
    port: int
    most_connections: int = MANY_CONNECTIONS


def lacking(module: str) -> str:
    """Return why a Python module cannot be used; empty when it can."""
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
        speaks_tls=module.startswith("asyncio"),
        most_connections=most_connections,
        missing=missing,
    )


def build(compiler: str, *arguments: str) -> str:
    """Run a compiler; return why it could not, or nothing."""
    program = shutil.which(compiler)
    if program is None:
        return f"{compiler} is not installed"
    done = subprocess.run(
        [program, *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=BUILD_SECONDS,
        check=False,
    )
    return f"{compiler} failed" if done.returncode else ""


def build_c(source: Path, target: Path) -> str:
    return build("cc", "-O2", "-o", str(target), str(source))


def c_peer(folder: Path) -> Server:
    program = folder / "epoll"
    missing = build_c(PEERS / "epoll.c", program)
    return Server(name=C_EPOLL, command=(str(program),), missing=missing)


def go_peer(folder: Path) -> Server:
    program = folder / "goroutines"
    missing = build("go", "build", "-o", str(program), str(PEERS / "goroutines.go"))
    return Server(name="go-goroutines", command=(str(program),), missing=missing)


def all_servers(folder: Path) -> list[Server]:
    """Return every server, ours first; those that need a compiler are built into `folder`."""
    ours = (sys.executable, "-m", "trio_upper", "serve", "--port")
    threads = "socketserver_threads"
    return [
        Server(
            name=OURS,
            command=ours,
            text_options=(),
            speaks_tls=True,
            missing=lacking("trio_upper.__main__"),
        ),
        python_peer(STREAMS, "asyncio_streams"),
        python_peer(PROTOCOL, "asyncio_protocol"),
        python_peer(UVLOOP, "asyncio_protocol", "--uvloop", missing=lacking("uvloop")),
        python_peer("socketserver-threads", threads, most_connections=THREAD_CONNECTIONS),
        python_peer("trio-tutorial", "trio_tutorial", missing=lacking("trio")),
        c_peer(folder),
        go_peer(folder),
    ]


def tls_identity(folder: Path) -> Path | None:
    """Return a PEM file with a key and a certificate for `HOST`; None without trustme."""
    if lacking("trustme"):
        return None
    path = folder / "identity.pem"
    if not path.exists():
        trustme = importlib.import_module("trustme")
        path.write_bytes(trustme.CA().issue_cert(HOST).private_key_and_cert_chain_pem.bytes())
    return path


def free_port() -> int:
    """Return a port that was free; another program may take it before a server does."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def serves(port: int) -> bool:
    """Whether a first client was served to its end: one that accepts may still be starting."""
    try:
        with socket.create_connection((HOST, port), timeout=START_SECONDS) as client:
            if client.getsockname() == client.getpeername():  # a free port met itself
                return False
            client.sendall(b"\n")
            client.shutdown(socket.SHUT_WR)
            while client.recv(1024):
                pass
    except (ConnectionRefusedError, ConnectionResetError):
        return False
    return True


@contextlib.contextmanager
def running(server: Server, cores: Cores) -> Iterator[Running]:
    """Run the server while the block runs; it has served a first client.

    Error handling: raises `Failed`, with the server's last words, if it does not start.
    """
    with contextlib.ExitStack() as stack:
        for more in reversed(range(PORTS)):
            try:
                started = stack.enter_context(_running_on(free_port(), server, cores))
                break
            except Failed as error:
                if not more or PORT_TAKEN not in str(error):
                    raise
        yield started


@contextlib.contextmanager
def _running_on(port: int, server: Server, cores: Cores) -> Iterator[Running]:
    command = [*server.command, str(port), *server.options]
    with (
        tempfile.TemporaryFile() as words,
        child(command, cores, stderr=words.fileno()) as process,
    ):
        settled = wait_until(lambda: process.poll() is not None or serves(port), START_SECONDS)
        if not settled or process.poll() is not None:
            words.seek(0)
            said = words.read()[-QUOTED_BYTES:].decode(errors="replace")
            raise Failed("did not start", " ".join(said.split()))
        yield Running(pid=process.pid, port=port, most_connections=server.most_connections)
