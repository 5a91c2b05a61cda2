"""The program on Windows, seen from Linux: as a server, as a client, and at a console.

Run by `python -m tests.windows`, which builds the machine that `MACHINE` names. What runs "there"
runs under Wine; "here" is this machine.
"""

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
import trio

from tests.helpers import program, terminals
from tests.helpers.certificates import ca_file, issue, pair_file
from tests.helpers.program import LOCALHOST, Ended, client, free_port, run, running, serving
from tests.helpers.streams import ask, receive_all
from tests.helpers.terminals import CTRL_C, CTRL_D, ENTER, terminal
from tests.windows.machine import Machine

MACHINE = "TESTED_MACHINE"

# What ended by Ctrl-C has as its exit code there; a Unix process sees the last byte.
CONTROL_C = 0x3A

# All bytes, ends of lines of each kind, and what ended a file on CP/M.
EVERY_BYTE = bytes(range(256)) + b"\r\n\n\r\x1a\x00" + "straße ǆ 🦉".encode()

# What stands before what is typed; Wine moves the cursor over spaces.
PROMPT = r":\d+>"

Side = Literal["here", "there"]


@pytest.fixture(scope="session")
def machine() -> Machine:
    """Give the machine that was built."""
    return Machine(Path(os.environ[MACHINE]))


class On:
    """Chooses where the next program runs; those that run already stay where they are."""

    def __init__(self, machine: Machine, patch: pytest.MonkeyPatch) -> None:
        self._machine = machine
        self._patch = patch
        # What a Unix process sends by default has no meaning there, and ends Wine.
        patch.setattr(program.Server.stop, "__defaults__", (signal.SIGINT,))
        self.here()

    def here(self) -> None:
        """Run programs on this machine."""
        self._command(sys.executable, "-m", "trio_upper")

    def there(self) -> None:
        """Run programs on the other one."""
        for name, value in self._machine.environment({"PYTHONPATH": r"C:\program"}).items():
            self._patch.setenv(name, value)
        self._command(*self._machine.command("-m", "trio_upper"))

    def side(self, side: Side) -> None:
        """Run programs `here` or `there`."""
        getattr(self, side)()

    def _command(self, *words: str) -> None:
        def command(*arguments: str, prefix: object = ()) -> list[str]:
            return [*words, *arguments]

        self._patch.setattr(program, "command", command)
        self._patch.setattr(terminals, "command", command)


@pytest.fixture
def on(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> On:
    """Give the choice of the machine, which is the other one at first."""
    on = On(machine, monkeypatch)
    on.there()
    return on


@pytest.fixture
def folder(machine: Machine) -> Iterator[Path]:
    """Give a folder that both machines see."""
    path = machine.folder("shared")
    path.mkdir()
    yield path
    shutil.rmtree(path)


def lines(ended: Ended) -> list[str]:
    """Return what a program wrote to standard error, with the ends of lines of this system."""
    return ended.stderr.decode().replace("\r\n", "\n").splitlines()


def there(path: Path) -> str:
    """Return how `path` in the shared folder is named there."""
    return rf"C:\shared\{path.name}"


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("serve", "--help")])
async def test_help_and_version(on: On, words: tuple[str, ...]) -> None:
    """The first that anybody tries."""
    ended = await run(*words)
    assert (ended.code, ended.stderr) == (0, b"")
    assert b"trio-upper" in ended.stdout or b"Usage" in ended.stdout


@pytest.mark.parametrize("server_side", ["here", "there"])
@pytest.mark.parametrize("client_side", ["here", "there"])
async def test_a_client_on_one_machine_and_a_server_on_the_other(
    on: On, server_side: Side, client_side: Side
) -> None:
    """All bytes come back as they must, in a pipe and by `-m`, and both sides end well."""
    text = EVERY_BYTE * 4096
    on.side(server_side)
    async with serving() as server:
        on.side(client_side)
        where = (LOCALHOST, str(server.port))
        assert await client(*where, stdin=text) == Ended(0, upper(text), b"")
        ended = await client(*where, "-m", "straße", "-m", "two")
        assert ended == Ended(0, b"STRASSE\nTWO\n", b"")
        assert await server.stop(signal.SIGINT) == 0


def upper(text: bytes) -> bytes:
    """Return what a server answers to `text`."""
    return text.decode("utf-8", "surrogateescape").upper().encode("utf-8", "surrogateescape")


async def test_a_server_listens_on_both_families_and_announces_itself(on: On) -> None:
    """With commands to copy, which work as they stand there."""
    async with running("serve", "--port", "0", "--host", "0.0.0.0", "--host", "::") as server:
        await server.ready()
        announced = await server.line("from this machine")
        assert f"client 127.0.0.1 {server.port}" in announced
        for host in (LOCALHOST, "::1"):
            async with await server.connect(host=host) as stream:
                assert await ask(stream, b"hello") == b"HELLO"
        assert await server.stop(signal.SIGINT) == 0
    assert b"Traceback" not in server.stderr


async def test_ctrl_c_drains(on: On) -> None:
    """A client that is there has its notice, and the exit code is 0."""
    async with serving() as server, await server.connect() as stream:
        assert await ask(stream, b"hello") == b"HELLO"
        server.send(signal.SIGINT)
        with trio.fail_after(10):
            assert b"shutting down" in await receive_all(stream)
        assert await server.ended() == 0


async def test_a_port_in_use(on: On) -> None:
    """One line that says what to do."""
    async with serving() as server:
        ended = await run("serve", "--port", str(server.port))
    assert ended.code == 1
    assert [line for line in lines(ended) if "the port is in use" in line]
    assert b"Traceback" not in ended.stderr


async def test_workers_are_refused(on: On) -> None:
    """Windows cannot share a listener between processes as it is done here."""
    for count in ("0", "2"):
        ended = await run("serve", "--port", "0", "--workers", count)
        assert ended.code == 2
        [line] = lines(ended)
        assert "--workers" in line


async def test_an_idle_client_is_told_and_closed(on: On) -> None:
    """Deadlines hold."""
    async with serving("--idle-timeout", "1") as server, await server.connect() as stream:
        with trio.fail_after(10):
            assert await receive_all(stream) == b"trio-upper: closing, no message for 1 s\n"


async def test_ping_and_bench(on: On) -> None:
    """Measurements, with times that are more than nothing."""
    on.here()
    async with serving() as server:
        on.there()
        where = (LOCALHOST, str(server.port))
        pinged = await run("ping", *where, "-c", "3", "-i", "0.01")
        assert (pinged.code, pinged.stderr) == (0, b"")
        assert b"3 sent" in pinged.stdout
        loaded = await run("bench", *where, "--seconds", "1", "--clients", "3", "--json")
        assert (loaded.code, loaded.stderr) == (0, b"")
        assert b'"clients": 3' in loaded.stdout


@pytest.mark.parametrize("server_side", ["here", "there"])
async def test_tls(on: On, folder: Path, server_side: Side) -> None:
    """Right with the CA; without it, and without TLS, the line that says why."""
    certificate = pair_file(folder, issue("localhost", LOCALHOST))
    ca = ca_file(folder)
    on.side(server_side)
    name = there(certificate) if server_side == "there" else str(certificate)
    async with serving("--tls-cert", name) as server:
        on.there()
        where = ("localhost", str(server.port))
        trusted = await client(*where, "--tls", "--tls-ca", there(ca), "-m", "straße")
        assert trusted == Ended(0, b"STRASSE\n", b"")
        strange = await client(*where, "--tls", "-m", "hello")
        assert strange.code == 1
        assert "not trusted" in "\n".join(lines(strange))
        plain = await client(*where, "-m", "hello")
        assert plain.code == 1
        assert "wants TLS" in "\n".join(lines(plain))


@pytest.mark.parametrize("server_side", ["here", "there"])
async def test_check(on: On, server_side: Side) -> None:
    """Every question has a good answer, from either system to the other, and to itself."""
    on.side(server_side)
    async with serving() as server:
        for choose in (on.here, on.there):
            choose()
            ended = await run("check", LOCALHOST, str(server.port), "--seconds", "0.5", "--json")
            assert (ended.code, ended.stderr) == (0, b"")
            found = json.loads(ended.stdout)
            assert found["verdict"]["text"] == "these two machines can talk over IPv4"
            assert found["sizes"]["status"] == found["half_close"]["status"] == "ok"


async def test_check_says_what_is_wrong(on: On) -> None:
    """Nobody listens there."""
    ended = await run("check", LOCALHOST, str(free_port()))
    assert (ended.code, ended.stderr) == (1, b"")
    assert b"these two machines cannot talk" in ended.stdout


@pytest.mark.parametrize("server_side", ["here", "there"])
async def test_a_fingerprint(on: On, folder: Path, server_side: Side) -> None:
    """That of the certificate is all that a client needs; another one is refused."""
    certificate = pair_file(folder, issue("elsewhere.lan"))
    on.side(server_side)
    name = there(certificate) if server_side == "there" else str(certificate)
    async with serving("--tls-cert", name) as server:
        fingerprint = (await server.event("certificate"))["fingerprint"]
        on.there()
        where = (LOCALHOST, str(server.port), "-m", "straße", "--tls-fingerprint")
        assert await client(*where, fingerprint) == Ended(0, b"STRASSE\n", b"")
        ended = await client(*where, "SHA256:" + ":".join(["00"] * 32))
        assert (ended.code, ended.stdout) == (1, b"")
        assert "fingerprint" in "\n".join(lines(ended))
        assert b"Traceback" not in ended.stderr


async def test_an_address_to_connect_from(on: On) -> None:
    """The server sees it; for one that is not this machine's there is one line."""
    on.here()
    async with serving() as server:
        on.there()
        where = (LOCALHOST, str(server.port), "-m", "hello", "--bind")
        assert await client(*where, "127.0.0.2") == Ended(0, b"HELLO\n", b"")
        assert (await server.event("client connected"))["peer"].startswith("127.0.0.2:")
        ended = await client(*where, "192.0.2.1")
        assert (ended.code, ended.stdout) == (1, b"")
        assert "does not have the address to connect from" in "\n".join(lines(ended))
        assert b"Traceback" not in ended.stderr


async def test_why_there_is_no_connection(on: On) -> None:
    """Refused, not found, no answer: one line for each, with its hint."""
    port = str(free_port())
    refused = await client(LOCALHOST, port, "-m", "hello")
    assert (refused.code, refused.stdout) == (1, b"")
    assert "is the server running" in "\n".join(lines(refused))
    unknown = await client("nosuch.invalid", port, "-m", "hello")
    assert unknown.code == 1
    assert "nosuch.invalid" in "\n".join(lines(unknown))
    for ended in (refused, unknown):
        assert b"Traceback" not in ended.stderr
        assert b"Error" not in ended.stderr


async def test_no_answer_to_a_connection(on: On) -> None:
    """It gives up when it was told to."""
    with full_listener() as port:
        ended = await client(LOCALHOST, str(port), "--connect-timeout", "1", "-m", "hello")
    assert ended.code == 1
    assert "no answer" in "\n".join(lines(ended))


@contextmanager
def full_listener() -> Iterator[int]:
    """Give a port of this machine at which connections are neither taken nor refused."""
    import socket

    with socket.socket() as listener:
        listener.bind((LOCALHOST, 0))
        listener.listen(0)
        with socket.create_connection(listener.getsockname()):
            yield listener.getsockname()[1]


async def test_no_reply(on: On) -> None:
    """A peer that never answers is given up."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, silent, 0)
        port = listeners[0].socket.getsockname()[1]
        ended = await client(LOCALHOST, str(port), "--reply-timeout", "1", "-m", "hello")
        nursery.cancel_scope.cancel()
    assert ended.code == 1
    assert "no reply" in "\n".join(lines(ended))


async def silent(stream: trio.SocketStream) -> None:
    """Never answer."""
    async for _ in stream:
        pass


async def test_ctrl_c_ends_a_client_that_waits_for_its_input(on: On) -> None:
    """At once, though a thread reads the pipe, and with the exit code that Windows has for it."""
    on.here()
    async with serving() as server:
        on.there()
        async with running("client", LOCALHOST, str(server.port)) as waiting:
            await server.event("client connected")
            with trio.fail_after(10):
                assert await waiting.stop(signal.SIGINT) == CONTROL_C


async def test_nobody_reads_the_output(on: On) -> None:
    """It ends, and says nothing, as with `| head -1`."""
    on.here()
    async with serving() as server:
        on.there()
        words = program.command("client", LOCALHOST, str(server.port))
        pipeline = f"yes hello | head -c 20000000 | {' '.join(map(quote, words))} | head -1"
        with trio.fail_after(60):
            done = await trio.run_process(
                ["bash", "-c", f"{pipeline}; exit ${{PIPESTATUS[2]}}"],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        assert done.stdout == b"HELLO\n"
        assert done.stderr == b""
        assert done.returncode == 1


def quote(word: str) -> str:
    """Return a word for bash."""
    return "'" + word + "'"


@pytest.mark.parametrize("source", ["NUL", r"C:\shared\in.txt"])
async def test_input_from_a_file(on: On, folder: Path, source: str) -> None:
    """Or from nothing, which cmd.exe calls NUL."""
    text = EVERY_BYTE * 1000
    (folder / "in.txt").write_bytes(text)
    on.here()
    async with serving() as server:
        on.there()
        script = folder / "run.bat"
        python = r"C:\python\python.exe -m trio_upper client"
        script.write_text(
            f"@{python} {LOCALHOST} {server.port} < {source} > C:\\shared\\out.txt\r\n"
        )
        with trio.fail_after(60):
            done = await trio.run_process(
                ["wine", "cmd", "/c", there(script)],
                stdin=b"",
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        assert (done.returncode, done.stderr) == (0, b"")
        assert (folder / "out.txt").read_bytes() == (b"" if source == "NUL" else upper(text))


async def test_the_dialogue_at_a_console(on: On) -> None:
    """Asked for nothing but messages; umlauts are typed and shown; Ctrl-D ends it."""
    on.here()
    async with serving() as server:
        on.there()
        async with terminal("client", LOCALHOST, str(server.port)) as person:
            await person.sees(PROMPT)
            await person.types("hello", ENTER)
            await person.sees("HELLO")
            await person.types("grün", ENTER)
            await person.sees("GRÜN|GR.N")
            await person.types(CTRL_D, ENTER)
            assert await person.ends() == 0


async def test_ctrl_c_at_the_prompt(on: On) -> None:
    """Ends it at once."""
    on.here()
    async with serving() as server:
        on.there()
        async with terminal("client", LOCALHOST, str(server.port)) as person:
            await person.sees(PROMPT)
            await person.types(CTRL_C)
            assert await person.ends() == CONTROL_C


async def test_the_server_goes_while_somebody_types(on: On) -> None:
    """The prompt goes with it, and Enter connects again."""
    on.here()
    async with serving() as server:
        on.there()
        async with terminal("client", LOCALHOST, str(server.port)) as person:
            await person.sees(PROMPT)
            await person.types("half")
            assert await server.stop() == 0
            await person.sees(re.escape("Enter"))
            await person.types(CTRL_D, ENTER)
            assert await person.ends() == 1
