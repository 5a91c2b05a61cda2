"""What a server logs: a line for each event, in JSON or for people, and never a client's words."""

import json
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from tests.helpers.program import LOCALHOST, Server, neighbour, one, reset, running, serving
from tests.helpers.streams import ask, receive_all
from tests.helpers.waiting import TIMEOUT_SECONDS, eventually

SECRET = b"Sesame-Open-Thyself"

# What a pipe holds that nobody reads (pipe(7)), and less than a line of the log has.
PIPE_BYTES = 65536
LINE_BYTES = 100

# The state of a listening socket in /proc/net/tcp (linux/net/tcp_states.h).
LISTENING = "0A"

ALWAYS = {"event", "level", "timestamp"}
TOTALS = {"served", "refused", "cut", "bytes_in", "bytes_out"}
FIELDS = {
    "listening": {"address", "port"},
    "client connected": {"client", "peer"},
    "client gone": {"client", "peer", "end", "received", "sent", "seconds"},
    "client refused": {"peer", "end"},
    "totals": TOTALS,
    "stopping": {"signal"},
    "stopped": TOTALS,
}


async def say_all(server: Server) -> None:
    """Connect a client of each kind: one that ends, one that resets, one that is refused."""
    async with await server.connect() as stream:
        assert await ask(stream, SECRET) == SECRET.upper()
        async with await server.connect() as refused:
            await refused.send_all(SECRET)
            assert (await receive_all(refused)).startswith(b"trio-upper: full")
        await stream.send_eof()
        assert await receive_all(stream) == b""
    async with await server.connect() as stream:
        assert await ask(stream, SECRET) == SECRET.upper()
        reset(stream)
    await server.line("reset")


async def test_json_has_one_object_for_each_event() -> None:
    """Every line is one, with the fields of its event; the sums are right."""
    async with serving("--max-clients", "1") as server:
        await say_all(server)
        server.send(signal.SIGUSR1)
        await server.event("totals")
        assert await server.stop() == 0
        logged = [json.loads(line) for line in server.lines]
        assert logged == server.events
        assert {event["event"]: event.keys() - ALWAYS for event in logged} == FIELDS
        assert all(event.keys() >= ALWAYS for event in logged)
        [ended, broken] = server.logged("client gone")
        assert (ended["client"], ended["end"], ended["received"]) == (1, "eof", len(SECRET))
        assert (broken["client"], broken["end"], broken["sent"]) == (2, "reset", len(SECRET))
        assert 0 <= ended["seconds"] < TIMEOUT_SECONDS
        stopped = one(server.logged("stopped", served=2, refused=1, cut=0))
        assert stopped["bytes_in"] == stopped["bytes_out"] == 2 * len(SECRET)


async def test_an_end_names_the_client_that_came() -> None:
    """Its number and its address are those with which it was announced, over IPv6, too."""
    hosts = [LOCALHOST, "::1"] if socket.has_dualstack_ipv6() else [LOCALHOST]
    options = [word for host in hosts for word in ("--host", host)]
    async with serving(*options) as server:
        for number, host in enumerate(hosts, start=1):
            async with await server.connect(host=host) as stream:
                port = stream.socket.getsockname()[1]
            peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            await server.event("client connected", client=number, peer=peer)
            await server.event("client gone", client=number, peer=peer, end="eof")


async def test_text_has_a_line_for_each_event() -> None:
    """A person reads what came, from where, and how it ended, in plain text."""
    async with serving("--log-format", "text", "--max-clients", "1") as server:
        await say_all(server)
        assert await server.stop() == 0
        for words in ("client connected", "client gone", "client refused", "stopping", "stopped"):
            assert [line for line in server.lines if words in line]
        gone = next(line for line in server.lines if "client gone" in line)
        assert "end=eof" in gone
        assert f"peer={LOCALHOST}:" in gone
        assert f"received={len(SECRET)}" in gone
        assert "\x1b" not in server.stderr.decode()


@pytest.mark.parametrize("style", ["json", "text"])
async def test_what_a_client_says_is_in_no_log(style: str) -> None:
    """Not at the most verbose level, and not in capitals either."""
    options = ("--log-level", "debug", "--log-format", style, "--max-clients", "1")
    async with serving(*options) as server:
        await say_all(server)
        assert await server.stop() == 0
        assert SECRET.lower() not in server.stderr.lower()


async def test_a_higher_level_logs_less() -> None:
    """Clients that come and go are not warnings; the announcement is not part of the log."""
    options = ("--log-level", "warning", "--log-format", "text", "--max-clients", "1")
    async with serving(*options) as server:
        async with await server.connect() as stream:
            assert await ask(stream, b"hi") == b"HI"
        assert await server.stop() == 0
        assert all(line.startswith("trio-upper: ") for line in server.lines)


async def test_sigusr1_logs_the_totals_and_changes_nothing() -> None:
    """What the present clients have sent and got is in them."""
    async with serving() as server, await server.connect() as stream:
        for turn in range(1, 4):
            assert await ask(stream, "ΐ".encode()) == "ΐ".upper().encode()
            server.send(signal.SIGUSR1)
            totals = (await server.repeated("totals", turn))[-1]
            assert (totals["bytes_in"], totals["bytes_out"]) == (2 * turn, 6 * turn)
        assert not server.logged("stopping")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
@pytest.mark.parametrize("style", ["json", "text"])
async def test_a_log_that_cannot_be_written_does_no_harm(redirection: str, style: str) -> None:
    """Without standard error, or with a full disk behind it, a server serves and stops as ever."""
    prefix = ("sh", "-c", f'exec "$@" {redirection}', "sh")
    arguments = ("serve", "--port", "0", "--log-format", style)
    async with running(*arguments, prefix=prefix) as server:
        await eventually(lambda: bool(listening_ports(server.pid)))
        server.port = one(listening_ports(server.pid))
        for _ in range(3):
            async with await server.connect() as stream:
                await stream.send_all(SECRET)
                await stream.send_eof()
                assert await receive_all(stream) == SECRET.upper()
        assert await server.stop() == 0


def listening_ports(pid: int) -> list[int]:
    """Return the TCP ports on which a process listens over IPv4 (proc_pid_net(5))."""
    own = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed in the meantime
            own.add(str(descriptor.readlink()))
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    return [
        int(fields[1].rpartition(":")[2], 16)
        for fields in map(str.split, lines)
        if fields[3] == LISTENING and f"socket:[{fields[9]}]" in own
    ]


@pytest.mark.parametrize("style", ["json", "text"])
async def test_a_reader_of_the_log_that_goes_does_no_harm(style: str) -> None:
    """A server whose log is not read any more goes on, and stops as usual."""
    async with serving("--log-format", style) as server:
        async with neighbour(await server.connect()):
            await server.line("client connected")
            await server.hang_up()
            for _ in range(3):
                async with await server.connect() as stream:
                    await stream.send_all(SECRET)
                    await stream.send_eof()
                    assert await receive_all(stream) == SECRET.upper()
            server.send(signal.SIGUSR1)
        assert await server.stop() == 0


@pytest.mark.parametrize("options", [(), ("--log-format", "text"), ("--workers", "2")])
async def test_a_reader_of_the_log_that_stops_does_no_harm(options: Sequence[str]) -> None:
    """As by Ctrl-S at a terminal: the pipe is full, and hundreds of clients are answered.

    Nor does the server wait for it when it stops, as long as clients may still talk.
    """
    async with serving("--grace", "60", *options) as server:
        server.look_away()
        for _ in range(2 * PIPE_BYTES // LINE_BYTES):
            async with await server.connect() as stream:
                assert await ask(stream, SECRET) == SECRET.upper()
        with trio.fail_after(TIMEOUT_SECONDS):
            assert await server.stop() == 0
