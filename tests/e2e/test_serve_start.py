"""How a server starts: what it tells a person, where it listens, and why it does not start."""

import os
import shlex
import signal
import socket
import sys
from itertools import takewhile
from pathlib import Path

import pytest
import trio
from tests.helpers.certificates import cert_file, issue, key_file
from tests.helpers.program import LOCALHOST, Ended, Server, one, run, running, serving
from tests.helpers.streams import ask

EVERYWHERE = ("--host", "::", "--host", "0.0.0.0")

# An address that no machine has (RFC 5737), and a name that nobody has (RFC 6761).
NOBODYS_ADDRESS = "198.51.100.77"
NOBODYS_NAME = "nosuch.invalid"

# The administrator may use all ports (capabilities(7)), unless this is taken from him.
UNPRIVILEGED = ("setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service")

# A network of its own for one process, in which IPv6 is switched off, and only loopback exists.
WITHOUT_IPV6 = (
    *("unshare", "--map-root-user", "--net", "sh", "-c"),
    'echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 && ip link set lo up && exec "$@"',
    "sh",
)


def complaint(ended: Ended, code: int) -> str:
    """Return the one line in which a command said why it exited with `code`."""
    assert ended.code == code
    assert ended.stdout == b""
    line = one(ended.lines)
    assert line.startswith("trio-upper: ")
    return line.removeprefix("trio-upper: ")


async def commands(server: Server, place: str) -> list[list[str]]:
    """Return the arguments of the commands to copy, from the line that begins with `place` on."""
    server.send(signal.SIGUSR1)  # what this makes it write comes after all that it says at first
    await server.line("totals")
    lines = [line.removeprefix("trio-upper: ") for line in server.lines]
    begin = next(number for number, line in enumerate(lines) if line.startswith(place))
    more = takewhile(lambda line: line.startswith(" "), lines[begin + 1 :])
    copied = [line.partition(" -m trio_upper ")[2] for line in [lines[begin], *more]]
    return [shlex.split(arguments) for arguments in copied if arguments]


async def test_what_a_server_for_this_machine_says_can_be_copied() -> None:
    """The client's command gets an answer; the other one exposes the server, on all addresses."""
    async with serving("--log-format", "text") as server:
        asking = one(await commands(server, "from this machine"))
        assert str(server.port) in asking  # at the default one there may be another server
        assert await run(*asking, "-m", "straße") == Ended(0, b"STRASSE\n", b"")
        exposing = one(await commands(server, "from other machines"))
    async with running(*exposing) as exposed:
        await exposed.ready()
        assert await exposed.stop() == 0
    assert f"listening on 0.0.0.0 and ::, port {exposed.port}" in exposed.stderr.decode()
    assert "not reachable" not in exposed.stderr.decode()


async def test_from_nothing_to_tls_takes_two_commands() -> None:
    """The command that is announced trusts the certificate that the server has made."""
    async with serving("--log-format", "text", "--tls-self-signed") as server:
        asking = one(await commands(server, "from this machine"))
        assert await run(*asking, "-m", "straße") == Ended(0, b"STRASSE\n", b"")


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
async def test_an_exposed_server_names_a_command_for_each_address_of_the_machine() -> None:
    """Each of them gets an answer, over IPv4 and over IPv6, on the one port of both listeners."""
    async with serving("--log-format", "text", *EVERYWHERE) as server:
        [[_, here, port]] = await commands(server, "from this machine")
        assert (here, int(port)) == ("::1", server.port)
        for asking in await commands(server, "from other machines"):
            assert asking[2] == port
            assert await run(*asking, "-m", "hi") == Ended(0, b"HI\n", b"")
        assert "not reachable" not in server.stderr.decode()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
async def test_all_addresses_share_the_port_that_the_system_chose() -> None:
    """Port 0 is one port for ``::`` and ``0.0.0.0``, and both are answered on it."""
    async with serving(*EVERYWHERE) as server:
        listening = await server.repeated("listening", 2)
        assert [(event["address"], event["port"]) for event in listening] == [
            ("::", server.port),
            ("0.0.0.0", server.port),
        ]
        for host in (LOCALHOST, "::1"):
            async with await server.connect(host=host) as stream:
                assert await ask(stream, b"hi") == b"HI"


async def test_every_option_also_comes_from_the_environment() -> None:
    """A server that is told nothing on the command line does what its variables say."""
    told = {
        "HOST": "127.0.0.1 127.0.0.2",
        "PORT": "0",
        "MAX_CLIENTS": "1",
        "IDLE_TIMEOUT": "1",
        "LOG_FORMAT": "json",
    }
    environment = {f"TRIO_UPPER_SERVE_{name}": value for name, value in told.items()}
    async with running("serve", environment=environment) as server:
        first, second = await server.repeated("listening", 2)
        assert (first["address"], second["address"]) == (LOCALHOST, "127.0.0.2")
        await server.ready()
        async with await server.connect(), await server.connect(host="127.0.0.2"):
            await server.event("client refused", end="full")
            await server.event("client gone", end="idle")


async def test_an_option_counts_more_than_the_environment() -> None:
    """What stands on the command line was said last."""
    environment = {"TRIO_UPPER_SERVE_PORT": "nonsense", "TRIO_UPPER_SERVE_MAX_CLIENTS": "0"}
    async with (
        serving("--max-clients", "1", environment=environment) as server,
        await server.connect() as stream,
    ):
        assert await ask(stream, b"hi") == b"HI"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "http"], "'http' is not a valid port; use a number from 0 to 65535"),
        (["--port", "65536"], "'65536' is not a valid port"),
        (["--grace", "inf"], "'inf' is not a valid duration"),
        (["--tls-key", "key.pem"], "--tls-cert"),
    ],
)
async def test_a_wrong_option_is_a_usage_error(arguments: list[str], words: str) -> None:
    """One line says what is allowed, or where to read on; the exit code is 2."""
    assert words in complaint(await run("serve", *arguments), 2)


async def test_a_wrong_option_in_the_environment_is_a_usage_error() -> None:
    """It is explained as on the command line."""
    ended = await run("serve", environment={"TRIO_UPPER_SERVE_PORT": "http"})
    assert "'http' is not a valid port" in complaint(ended, 2)


async def test_a_port_in_use_is_explained() -> None:
    """A second server on the same port says so and ends with 1; the first one goes on."""
    async with serving() as server, await server.connect() as stream:
        why = complaint(await run("serve", "--port", str(server.port)), 1)
        assert f"{LOCALHOST} port {server.port}" in why
        assert "in use" in why
        assert "--port" in why
        assert await ask(stream, b"hi") == b"HI"


@pytest.mark.parametrize("host", [NOBODYS_ADDRESS, NOBODYS_NAME])
async def test_an_address_that_this_machine_does_not_have_is_explained(host: str) -> None:
    """So is an unknown name."""
    why = complaint(await run("serve", "--port", "0", "--host", host), 1)
    assert host in why
    assert "0.0.0.0" in why


@pytest.mark.parametrize("host", ["::1::", "1.2.3", "localhost:80", ""])
async def test_what_is_no_address_at_all_is_a_usage_error(host: str) -> None:
    """The old spellings of IPv4, which the system would take for another address, are none."""
    why = complaint(await run("serve", "--port", "0", "--host", host), 2)
    assert f"'{host}' is not a valid host" in why


async def test_one_wrong_address_among_others_is_an_error() -> None:
    """The operator asked for it: a server that listens on less than it was told would hide it."""
    ended = await run("serve", "--port", "0", "--host", LOCALHOST, "--host", NOBODYS_ADDRESS)
    assert NOBODYS_ADDRESS in complaint(ended, 1)


@pytest.mark.skipif(
    int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) < 1024,
    reason="on this machine everybody may listen below 1024",
)
async def test_a_privileged_port_is_explained() -> None:
    """A user who may not listen on a port below 1024 is told to choose a higher one."""
    prefix = () if os.geteuid() else UNPRIVILEGED
    why = complaint(await run("serve", "--port", "81", prefix=prefix), 1)
    assert "no permission" in why
    assert "1024" in why


async def test_a_machine_without_ipv6_serves_ipv4() -> None:
    """A name that has an IPv6 address, too, is served; that address by itself is an error."""
    probe = await trio.run_process([*WITHOUT_IPV6, "true"], check=False, capture_stderr=True)
    if probe.returncode:
        pytest.skip(f"no network without IPv6 can be made here: {probe.stderr.decode()}")
    async with serving("--host", "localhost", prefix=WITHOUT_IPV6) as server:
        assert one(server.logged("listening"))["address"] == LOCALHOST
    why = complaint(await run("serve", "--port", "0", "--host", "::1", prefix=WITHOUT_IPV6), 1)
    assert "::1" in why


async def test_certificates_that_cannot_be_used_are_explained(tmp_path: Path) -> None:
    """A file that is not there, one that holds something else, and a key of another certificate."""
    cert, key = cert_file(tmp_path, issue("localhost")), key_file(tmp_path, issue("elsewhere"))
    nothing = tmp_path / "nothing.pem"
    serve = ("serve", "--port", "0", "--tls-cert")
    for arguments, named, words in (
        ([nothing], nothing, "cannot read"),
        ([sys.executable], sys.executable, "no certificate"),
        ([cert], cert, "key"),
        ([cert, "--tls-key", key], key, "does not belong to"),
        ([cert, "--tls-client-ca", nothing], cert, "key"),
    ):
        why = complaint(await run(*serve, *map(str, arguments)), 1)
        assert str(named) in why
        assert words in why
