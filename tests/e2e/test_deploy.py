"""The files in ``examples/`` do what their text says, where the programs that read them are."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from shutil import which

import pytest
import trio
from tests.helpers.program import LOCALHOST, Server, free_port, reset, running, serving
from tests.helpers.streams import ask, receive, receive_all
from tests.helpers.waiting import CHECK_SECONDS, TIMEOUT_SECONDS, eventually

from trio_upper.cli.log import CLOSE_SECONDS
from trio_upper.server.supervisor import OVERDUE_SECONDS

EXAMPLES = Path(__file__).parents[2] / "examples"
UNITS = [EXAMPLES / "systemd" / f"trio-upper.{kind}" for kind in ("socket", "service")]
HAPROXY = EXAMPLES / "haproxy" / "haproxy.cfg"

# Behind haproxy the log of a server has no line for a client, so none for a health check.
QUIET = ("--log-level", "warning", "--grace", "60")

NOTICE = b"trio-upper: closing, the server is shutting down\n"

needs_systemd = pytest.mark.skipif(
    not (which("systemd-analyze") and which("systemd-socket-activate")),
    reason="needs systemd-analyze and systemd-socket-activate, of systemd",
)
needs_haproxy = pytest.mark.skipif(not which("haproxy"), reason="needs haproxy")


@needs_systemd
def test_the_units_are_accepted() -> None:
    """Without a warning, too, so that no setting of theirs is one that systemd does not know."""
    done = subprocess.run(
        ["systemd-analyze", "verify", *UNITS],
        capture_output=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    ours = [line for line in done.stderr.decode().splitlines() if "trio-upper" in line]
    assert (done.returncode, ours) == (0, [])


@needs_systemd
async def test_the_service_does_with_what_its_unit_leaves_it() -> None:
    """It has no network but its listeners, and may not open any socket but local ones.

    The words of ExecStart= run in a network of their own, under systemd-socket-activate.
    """
    unit = UNITS[1].read_text()
    assert "PrivateNetwork=yes\nRestrictAddressFamilies=AF_UNIX\n" in unit
    [command] = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    words = command.removeprefix("ExecStart=/usr/bin/env trio-upper ").split()
    if os.geteuid() or not which("unshare"):
        pytest.skip("needs root and unshare, to make a network")
    async with activated(*words, prefix=("unshare", "--net")) as server:
        async with await server.connect() as stream:
            assert await ask(stream, b"hi\n") == b"HI\n"
        server.send(signal.SIGTERM)
        assert await server.ended() == 0


# Stands for systemd: runs the server a second time, on the same listener, when it has ended and
# there is a certain file.
TWICE = """
sh -c 'LISTEN_PID=$$ exec "$@"' sh "$@"
echo "ended with $?" >&2
until [ -e "$GO" ]; do sleep 0.02; done
sh -c 'LISTEN_PID=$$ exec "$@"' sh "$@"
"""


@needs_systemd
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_restart_of_the_service_loses_no_client(workers: str, tmp_path: Path) -> None:
    """A client that connects meanwhile waits, and is then answered."""
    go = tmp_path / "go"
    options = ("serve", "--log-format", "json", "--workers", workers, "--grace", "60")
    twice = activated(*options, prefix=("env", f"GO={go}", "sh", "-c", TWICE, "sh"))
    async with twice as server, AsyncExitStack() as stack:
        first = await stack.enter_async_context(await server.connect())
        assert await ask(first, b"one\n") == b"ONE\n"
        os.kill(child(server.pid), signal.SIGTERM)
        assert await receive_all(first) == NOTICE
        await first.aclose()
        await server.line("ended with 0")
        waiting = [await stack.enter_async_context(await server.connect()) for _ in range(5)]
        for stream in waiting:
            await stream.send_all(b"two\n")
        go.touch()
        for stream in waiting:
            assert await receive(stream, 4) == b"TWO\n"
        os.kill(child(server.pid), signal.SIGTERM)
        assert await server.ended() == 0


def child(shell: int) -> int:
    """Return the id of the process that the shell has started (proc_tid_children(5))."""
    return int(Path(f"/proc/{shell}/task/{shell}/children").read_text().split()[0])


@asynccontextmanager
async def activated(*words: str, prefix: tuple[str, ...]) -> AsyncGenerator[Server]:
    """Run a server under systemd-socket-activate; `prefix` is in between."""
    port = free_port()
    kept = [f"--setenv={name}" for name in os.environ if name.startswith(("PYTHON", "COVERAGE"))]
    activate = ("systemd-socket-activate", "-l", f"{LOCALHOST}:{port}", *kept)
    async with running(*words, prefix=(*activate, *prefix)) as server:
        await server.line("Listening on")
        server.port = port
        yield server


# ------------------------------------------------------------------ haproxy


@needs_haproxy
def test_the_configuration_is_accepted() -> None:
    """As it stands."""
    subprocess.run(["haproxy", "-c", "-f", HAPROXY], timeout=TIMEOUT_SECONDS, check=True)


class Proxy:
    """haproxy before two servers, at `port`."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.ports = {"one": free_port(), "two": free_port()}
        self._folder = folder

    def configuration(self) -> str:
        """Return ours, with addresses of this machine, and with faster checks."""
        text = HAPROXY.read_text()
        for there, here in [
            ("/run/haproxy/admin.sock", str(self._folder / "admin.sock")),
            ("maxconn 20000", "maxconn 1000"),
            ("log /dev/log local0", "log stderr format raw local0"),
            ("bind :8746", f"bind {LOCALHOST}:{self.port}"),
            ("bind :::8746 v6only", ""),
            ("192.0.2.11:8746", f"{LOCALHOST}:{self.ports['one']}"),
            ("192.0.2.12:8746", f"{LOCALHOST}:{self.ports['two']}"),
            ("inter 2s", "inter 100ms"),
        ]:
            assert text.count(there) == 1
            text = text.replace(there, here)
        return text

    async def say(self, words: str) -> str:
        """Give a command to haproxy, as its operator does, and return the answer."""
        async with await trio.open_unix_socket(str(self._folder / "admin.sock")) as stream:
            await stream.send_all(words.encode() + b"\n")
            return (await receive_all(stream)).decode()

    async def wait_until(self, name: str, column: str, value: str) -> None:
        """Wait until haproxy has this value in its table (management guide, 9.1) for a server."""
        with trio.fail_after(TIMEOUT_SECONDS):
            while (await self.table())[name][column] != value:  # noqa: ASYNC110 - it cannot tell
                await trio.sleep(CHECK_SECONDS)

    async def table(self) -> dict[str, dict[str, str]]:
        """Return what haproxy knows of each server."""
        head, *lines = (await self.say("show stat")).removeprefix("# ").splitlines()
        rows = [dict(zip(head.split(","), line.split(","), strict=False)) for line in lines if line]
        return {row["svname"]: row for row in rows}

    async def connect(self) -> trio.SocketStream:
        """Return a connection through it."""
        return await trio.open_tcp_stream(LOCALHOST, self.port)


@asynccontextmanager
async def proxied(folder: Path) -> AsyncGenerator[Proxy]:
    """Run haproxy while the block runs; the servers are for the test to start."""
    proxy = Proxy(folder)
    path = folder / "haproxy.cfg"
    path.write_text(proxy.configuration())
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(trio.run_process, ["haproxy", "-db", "-f", path], capture_stderr=True)
        )
        await eventually((folder / "admin.sock").exists)
        yield proxy
        process.send_signal(signal.SIGUSR1)  # when its last client has gone


@asynccontextmanager
async def two_servers(proxy: Proxy) -> AsyncGenerator[tuple[Server, Server]]:
    """Run both servers behind `proxy`."""
    one, two = (("serve", "--port", str(port), *QUIET) for port in proxy.ports.values())
    async with running(*one) as first, running(*two) as second:
        for name, server in (("one", first), ("two", second)):
            await server.ready()
            await proxy.wait_until(name, "status", "UP")
        yield first, second


@needs_haproxy
async def test_clients_are_spread_and_checks_are_not_logged(tmp_path: Path) -> None:
    """One goes here, one there; and after dozens of checks the servers have logged nothing."""
    async with proxied(tmp_path) as proxy, two_servers(proxy) as servers, AsyncExitStack() as stack:
        for _ in range(4):
            stream = await stack.enter_async_context(await proxy.connect())
            assert await ask(stream, b"hi\n") == b"HI\n"
        table = await proxy.table()
        assert [table[name]["scur"] for name in ("one", "two")] == ["2", "2"]
        for server in servers:
            assert all(line.startswith("trio-upper: ") for line in server.lines)


class Load:
    """Clients that have short conversations, one after the other, each to its end."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.conversations = 0
        self._talking = 0
        self._over = False

    async def talk(self) -> None:
        """Have conversations until `finish`; fail if any byte that is owed does not come."""
        self._talking += 1
        while not self._over:
            async with await self.proxy.connect() as stream:
                for turn in range(5):
                    message = b"question %d\n" % turn
                    assert await ask(stream, message) == message.upper()
                await stream.send_eof()
                assert await receive_all(stream) == b""
            self.conversations += 1
        self._talking -= 1

    async def finish(self) -> None:
        """Wait until all have had their last conversation."""
        self._over = True
        await eventually(lambda: not self._talking)

    async def go_on(self) -> None:
        """Wait until there were some more."""
        enough = self.conversations + 50
        await eventually(lambda: self.conversations >= enough)


@needs_haproxy
async def test_a_server_is_restarted_and_no_reply_is_lost(tmp_path: Path) -> None:
    """Under load: taken out, it has its conversations to their end, stops, and comes back."""
    async with proxied(tmp_path) as proxy, two_servers(proxy) as (first, _):
        load = Load(proxy)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(load.talk)
            await load.go_on()
            await proxy.say("set server servers/one state drain")
            await proxy.wait_until("one", "scur", "0")
            assert await first.stop() == 0
            await load.go_on()
            async with running("serve", "--port", str(proxy.ports["one"]), *QUIET) as again:
                await again.ready()
                await proxy.say("set server servers/one state ready")
                await proxy.wait_until("one", "status", "UP")
                before = int((await proxy.table())["one"]["stot"])
                await load.go_on()
                assert int((await proxy.table())["one"]["stot"]) > before
                await load.finish()


@needs_haproxy
async def test_who_finds_its_server_gone_is_sent_to_another_one(tmp_path: Path) -> None:
    """Also before the checks have found out: a new client never notices."""
    async with proxied(tmp_path) as proxy, two_servers(proxy) as (first, _):
        assert await first.stop() == 0
        for _ in range(10):
            async with await proxy.connect() as stream:
                assert await ask(stream, b"hi\n") == b"HI\n"


def settings_of_service() -> dict[str, str]:
    """Return the settings of the unit, the last of each name."""
    lines = (line for line in UNITS[1].read_text().splitlines() if not line.startswith("#"))
    return {name: value for name, found, value in (line.partition("=") for line in lines) if found}


def test_the_service_has_time_to_drain() -> None:
    """Its parent ends before systemd kills it; nothing in the environment changes that."""
    settings = settings_of_service()
    words = settings["ExecStart"].split()
    grace = float(words[words.index("--grace") + 1])
    assert float(settings["TimeoutStopSec"]) > grace + OVERDUE_SECONDS + CLOSE_SECONDS


def test_the_limits_of_the_service_do_not_depend_on_the_cores() -> None:
    """A host of 200 cores has 200 workers, with a few threads each, and memory for them."""
    settings = settings_of_service()
    assert settings["MemoryMax"].endswith("%")
    assert int(settings["TasksMax"]) >= 200 * 10


@pytest.mark.parametrize("reads", [True, False])
async def test_a_health_check_leaves_no_line(reads: bool) -> None:
    """At the level that the text recommends, whether it asks or only connects."""
    async with serving("--log-format", "text", *QUIET) as server:
        for _ in range(5):
            stream = await server.connect()
            if reads:
                await stream.send_all(b"haproxy\n")
                assert await receive(stream, 8) == b"HAPROXY\n"
            reset(stream)
    assert all(line.startswith("trio-upper: ") for line in server.lines)


def test_python_runs_what_the_units_run() -> None:
    """The words of ExecStart= are options that there are."""
    [command] = [
        line for line in UNITS[1].read_text().splitlines() if line.startswith("ExecStart=")
    ]
    words = command.removeprefix("ExecStart=/usr/bin/env trio-upper ").split()
    done = subprocess.run(
        [sys.executable, "-m", "trio_upper", *words, "--help"], timeout=TIMEOUT_SECONDS, check=False
    )
    assert done.returncode == 0
