"""``check`` as a command: each line fails for its reason, against a peer that is wrong that way."""

import errno
import io
import json
import signal
import ssl
import sys
from collections.abc import Callable
from typing import Any

import pytest
import trio
from tests.helpers.commands import (
    ADDRESS,
    TARGET,
    HalfCloseable,
    Killed,
    Network,
    Output,
    Peer,
    bound_runs,
    cannot_connect,
    kill,
)
from tests.helpers.streams import Breaking, NoHalfClose
from trio.testing import lockstep_stream_pair

from trio_upper.cli import check
from trio_upper.cli.check import FOREIGN_HINT, HALF_CLOSE_HINT, MTU_HINT, Options
from trio_upper.client.addresses import resolve as real_resolve
from trio_upper.client.settings import ConnectSettings
from trio_upper.client.target import Target
from trio_upper.measure import checks
from trio_upper.measure.checks import DRAIN_SECONDS
from trio_upper.protocol import full_notice, shutdown_notice

# How long a reply takes.
DELAY = 1 / 1024

NUMERIC = Target(host=ADDRESS, port=80)

GOOD = {
    "name": f"{ADDRESS} is an address",
    "connect": f"{ADDRESS} in 0.4 ms",
    "server": "trio-upper, or another one that upper-cases",
    "round trip": "0.98 ms median of 20 (0.98 to 0.98)",
    "sizes": "right from 1 byte to 64 KiB",
    "half-close": "passes",
    "tls": "not asked for",
    "verdict": "these two machines can talk over IPv4",
}


def answering(reply: Callable[[bytes], bytes | None] = bytes.upper) -> Peer:
    """Return a peer that answers what comes by `reply`, all at once; None: no more."""

    async def peer(stream: HalfCloseable) -> None:
        async for data in stream:
            await trio.sleep(DELAY)
            answer = reply(bytes(data))
            if answer is None:
                await trio.sleep_forever()
            else:
                await stream.send_all(answer)

    return peer


right = answering()


async def silent(stream: HalfCloseable) -> None:
    await trio.sleep_forever()


async def closing(stream: HalfCloseable) -> None:
    await stream.receive_some()


async def half_closing(stream: HalfCloseable) -> None:
    await stream.send_eof()
    async for _ in stream:
        pass


async def proxy(stream: HalfCloseable) -> None:
    """A right peer behind one that ends both ways when one ends."""

    async def answer(data: bytes) -> None:
        await trio.sleep(DELAY)
        await stream.send_all(data.upper())

    async with trio.open_nursery() as nursery:
        async for data in stream:
            nursery.start_soon(answer, bytes(data))
        nursery.cancel_scope.cancel()


class World(Network):
    """The peers and standard output."""

    def __init__(self) -> None:
        super().__init__(right)
        self.pair = lockstep_stream_pair  # a bulk transfer must wait for its peer
        self.output = Output()

    @property
    def lines(self) -> dict[str, str]:
        """What is said to each question, and below it."""
        said: dict[str, str] = {}
        label = ""
        for line in self.output.lines:
            label = line[:12].strip() or label
            text = line[12:]
            said[label] = f"{said[label]}\n{text}" if label in said else text
        return said


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    bound_runs(monkeypatch)
    monkeypatch.setattr(checks, "open_connection", made.open_connection)
    monkeypatch.setattr(check, "open_output", lambda: made.output)
    monkeypatch.setattr("trio_upper.cli.run.end_with", kill)
    return made


def run(target: Target = NUMERIC, **options: Any) -> int:
    return check.run(target, Options(**options))


def said(world: World, **options: Any) -> dict[str, str]:
    """Return what is said of a check that finds something wrong, without what is right."""
    assert run(**options) == 1
    lines = world.lines
    return {label: text for label, text in lines.items() if text != GOOD.get(label)}


def skipped(*needs: tuple[str, str]) -> dict[str, str]:
    return {label: f"skipped: needs {need}" for label, need in needs}


# ------------------------------------------------------------------ all is well


def test_each_question_has_a_line(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard output, in plain text where that is not a terminal; exit code 0."""
    assert run(seconds=0.1) == 0
    lines = world.lines
    assert lines.pop("bulk").endswith(" Mbit/s) there and back, 0.1 s")
    assert lines == GOOD
    labels = [line[:12].strip() for line in world.output.lines]
    assert labels == [*[*GOOD][:6], "bulk", "tls", "verdict"]
    assert capsys.readouterr() == ("", "")


def test_one_object_on_one_line(world: World) -> None:
    """With ``--json``: a field for each line, with its status, its text and what was measured."""
    assert run(seconds=0.1, as_json=True) == 0
    [line] = world.output.lines
    told = json.loads(line)
    bulk = told.pop("bulk")
    assert bulk["status"] == "ok"
    assert bulk["megabits_per_s"] == pytest.approx(8 * bulk["megabytes_per_s"], abs=0.01)
    assert told == {
        "host": ADDRESS,
        "port": 80,
        "name": {
            "status": "ok",
            "text": GOOD["name"],
            "addresses": [ADDRESS],
            "lookup_ms": 0,
        },
        "connect": {
            "status": "ok",
            "text": GOOD["connect"],
            "addresses": [{"address": ADDRESS, "connect_ms": 0.4, "error": None}],
        },
        "server": {"status": "ok", "text": GOOD["server"]},
        "round_trip": {
            "status": "ok",
            "text": GOOD["round trip"],
            "count": 20,
            "min_ms": 0.9766,
            "median_ms": 0.9766,
            "max_ms": 0.9766,
        },
        "sizes": {
            "status": "ok",
            "text": GOOD["sizes"],
            "largest_right_bytes": 65536,
            "failed_at_bytes": None,
        },
        "half_close": {"status": "ok", "text": "passes"},
        "tls": {"status": "skipped", "text": "not asked for"},
        "verdict": {"status": "ok", "text": GOOD["verdict"]},
    }


def test_without_seconds_there_is_no_bulk_transfer(world: World) -> None:
    """Some links cost money; it says so."""
    assert run(seconds=0) == 0
    assert world.lines["bulk"] == "skipped: --seconds is 0"


def test_tls_has_no_half_close(world: World) -> None:
    """It cannot end one direction, and so there is nothing to try."""
    world.wrap = NoHalfClose
    assert run(seconds=0.1) == 0
    assert world.lines["half-close"] == "skipped: not over TLS"


def test_waiting_gives_a_server_time_to_start(world: World) -> None:
    """What hangs up before its first reply is tried again, as a proxy without its server does."""
    world.meets(right, right, closing, closing, right)
    assert run(seconds=0.1, connection=ConnectSettings(wait=10)) == 0
    world.meets(cannot_connect(), right, right)
    assert run(seconds=0.1, connection=ConnectSettings(wait=10)) == 0


# ------------------------------------------------------------------ each line failing


AFTER_SERVER = [
    ("round trip", "server"),
    ("sizes", "round trip"),
    ("half-close", "round trip"),
    ("bulk", "sizes"),
]


def test_nothing_there(world: World) -> None:
    """Why, what to do about it, and nothing that makes no sense after it."""
    world.meets(cannot_connect(address=ADDRESS))
    assert said(world) == {
        "connect": f"{ADDRESS}: refused\n{cannot_connect().hint}",
        "server": "skipped: needs connect",
        **skipped(*AFTER_SERVER),
        "tls": "skipped: needs connect",
        "verdict": "these two machines cannot talk: refused",
    }


def test_a_foreign_server(world: World) -> None:
    """It is quoted."""
    world.meets(answering(lambda _: b"SSH-2.0-x\r\n"))
    lines = said(world)
    assert lines.pop("server").splitlines() == [
        (
            "not one that upper-cases: 'SSH-2.0-x' came instead of "
            "'AAAAAA THE QUICK BROWN FOX JUMP', wrong from byte 1 on"
        ),
        FOREIGN_HINT,
    ]
    assert lines == {
        **skipped(*AFTER_SERVER),
        "verdict": "they can connect, but no server that upper-cases answers",
    }


@pytest.mark.parametrize(
    ("peer", "words"),
    [
        (silent, "no reply for 3 s"),
        (closing, "the server closed the connection"),
        (answering(lambda _: full_notice(7)), "full, 7 clients are connected; try again later"),
    ],
)
def test_a_server_that_does_not_answer(world: World, peer: Peer, words: str) -> None:
    """In the words that `ping` has for it."""
    world.meets(peer)
    lines = said(world)
    assert lines["server"] == words
    assert lines["verdict"] == "they can connect, but no server that upper-cases answers"


def test_a_connection_that_fails_after_all(world: World) -> None:
    """The one to find out about the address was made; the next one is not."""
    world.meets(right, cannot_connect())
    lines = said(world)
    assert lines["server"] == str(cannot_connect()).replace(f": {cannot_connect().hint}", "") + (
        f"\n{cannot_connect().hint}"
    )


def test_a_server_that_wants_tls(world: World) -> None:
    """The line about TLS says so, and what to do."""
    world.meets(answering(lambda _: b"\x15\x03\x03\x00\x02\x02\n"))
    assert said(world) == {
        "server": "skipped: needs tls",
        **skipped(*AFTER_SERVER),
        "tls": "the server wants TLS\nadd --tls",
        "verdict": "they can connect, but TLS stands in the way",
    }


def test_a_server_that_answers_for_a_while(world: World) -> None:
    """How often it was right, and what happened then."""
    left = [True] * 6 + [False]
    world.meets(answering(lambda data: data.upper() if left.pop(0) else None))
    lines = said(world)
    assert lines["round trip"] == "5 were right, then: no reply for 3 s"
    assert lines["verdict"] == "these two machines can talk, but not every reply comes and is right"


CLOSING = "closing, the server is shutting down"


def test_a_server_that_stops_after_a_reply(world: World) -> None:
    """The reply was right, and the notice with it is why the next message has none."""
    world.meets(right, answering(lambda data: data.upper() + shutdown_notice()), right)
    lines = said(world)
    assert lines["round trip"] == f"0 were right, then: {CLOSING}"
    assert "server" not in lines


def test_a_server_that_stops_after_the_half_close(world: World) -> None:
    """The reply to it came, and nothing more is asked over that connection."""
    world.meets(right, right, answering(lambda data: data.upper() + shutdown_notice()), right)
    assert run(seconds=0.1) == 0
    assert world.lines["half-close"] == "passes"


@pytest.mark.parametrize(
    ("seconds", "code", "words"),
    [(0.5, 1, f"after 0.3 MB: {CLOSING}"), (1.25, 0, "0.001 MB/s ")],
    ids=["in its time", "late"],
)
def test_a_server_that_stops_in_a_bulk_transfer(
    world: World, seconds: float, code: int, words: str
) -> None:
    """What came until then counts; once the time is up, the notice ends nothing."""

    class Slow(Breaking):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await super().send_all(data)
            await trio.sleep(1.5)

    async def stopping(stream: HalfCloseable) -> None:
        reply = bytes(await stream.receive_some()).upper()
        await trio.sleep(seconds)
        await stream.send_all(reply[:1000])
        await stream.send_all(reply[1000:] + shutdown_notice())

    world.wrap = lambda stream: Slow(stream) if len(world.streams) == 3 else stream
    world.meets(right, right, right, stopping)
    assert run(seconds=1) == code
    assert world.lines["bulk"].startswith(words)


def test_a_path_that_loses_large_messages(world: World) -> None:
    """From which size on, what that means and what to do; the half-close is tried all the same."""
    world.meets(answering(lambda data: data.upper() if len(data) < 1300 else None))
    assert said(world) == {
        "sizes": (
            f"right from 1 byte to 1,240 bytes; from 1,380 bytes on nothing comes back\n{MTU_HINT}"
        ),
        "bulk": "skipped: needs sizes",
        "verdict": "these two machines can talk, but large messages are lost",
    }


# What a slow link takes each second, and how much of a message comes at a time, as in a TLS record.
SLOW_BYTES_A_SECOND = 4000
RECORD_BYTES = 16384


async def slow(stream: HalfCloseable) -> None:
    """Answer right, each piece when all of it has crossed a slow link."""
    async for data in stream:
        for begin in range(0, len(data), RECORD_BYTES):
            piece = bytes(data[begin : begin + RECORD_BYTES])
            await trio.sleep(len(piece) / SLOW_BYTES_A_SECOND)
            await stream.send_all(piece.upper())


def test_a_slow_link_is_not_one_that_loses_messages(world: World) -> None:
    """A piece takes longer than a reply may keep us waiting, as smaller ones have foretold."""
    world.meets(slow)
    assert run(seconds=2, reply_timeout=3) == 0
    lines = world.lines
    assert lines.pop("round trip").startswith("8.00 ms")
    assert lines.pop("bulk").startswith("0.00")
    assert lines == {label: text for label, text in GOOD.items() if label != "round trip"}


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        (1, "at 1 byte: no reply for 3 s"),
        (256, "right from 1 byte to 16 bytes; at 256 bytes: no reply for 3 s"),
    ],
)
def test_a_small_message_is_not_lost_for_its_size(world: World, lost: int, words: str) -> None:
    """Larger ones had just passed, so no MTU is to blame, and no hint misleads."""
    world.meets(answering(lambda data: data.upper() if len(data) != lost else None))
    assert said(world) == {
        "sizes": words,
        "bulk": "skipped: needs sizes",
        "verdict": "these two machines can talk, but not every reply comes and is right",
    }


def test_a_wrong_reply_of_some_size(world: World) -> None:
    """At which size, and from which byte on."""

    def truncate(data: bytes) -> bytes:
        return data.upper() if len(data) < 4096 else data.upper()[:4000] + data[4000:]

    world.meets(answering(truncate))
    lines = said(world)
    assert lines["sizes"].startswith("right from 1 byte to 2 KiB; at 4 KiB: ")
    assert lines["sizes"].endswith("on")
    assert lines["verdict"] == "these two machines can talk, but not every reply comes and is right"


def test_a_proxy_that_does_not_pass_a_half_close(world: World) -> None:
    """A warning, for a client that waits for its replies can talk through it."""
    world.meets(right, right, proxy, right)
    assert run(seconds=0.1) == 0
    assert world.lines["half-close"] == (
        f"does not pass: the connection ended with it\n{HALF_CLOSE_HINT}"
    )
    assert world.lines["verdict"] == (
        "these two machines can talk over IPv4; a half-close does not pass"
    )


def test_a_half_close_after_which_nothing_comes(world: World) -> None:
    """The server may wait for an end that it does not get."""
    world.meets(right, right, silent, right)
    assert run(seconds=0.1) == 0
    assert world.lines["half-close"] == f"does not pass: no reply for 3 s\n{HALF_CLOSE_HINT}"


def test_a_wrong_reply_to_a_half_close(world: World) -> None:
    """A wrong reply is wrong at any time."""
    world.meets(right, right, answering(bytes), right)
    lines = said(world, seconds=0.1)
    assert lines["half-close"].startswith("does not pass: 'aaaaaa")


@pytest.mark.parametrize(
    ("peer", "words"),
    [
        (silent, "after 0.0 MB: no reply for 3 s"),
        (closing, "after 0.0 MB: the "),  # "server closed it" or "connection broke", as it happens
        (half_closing, "after 0.0 MB: the server closed the connection"),
        (answering(bytes), "after 0.0 MB: 'aaaaaa the quick"),
        (answering(lambda data: data.upper() + b"X"), "after 0."),
        (cannot_connect(), "after 0.0 MB: cannot connect"),
    ],
    ids=["silent", "closing", "half-closing", "echo", "too much", "refused"],
)
def test_a_bulk_transfer_that_fails(world: World, peer: Peer | Exception, words: str) -> None:
    """How far it came, and why it went no further."""
    world.meets(right, right, right, peer)
    lines = said(world, seconds=5)
    assert lines.pop("bulk").startswith(words)
    assert lines == {"verdict": "these two machines can talk, but a bulk transfer fails"}


def test_a_bulk_transfer_ends_in_time(world: World) -> None:
    """Also where the replies are far behind what was sent; what came until then counts."""
    ended: list[float] = []

    async def drip(stream: HalfCloseable) -> None:
        began = trio.current_time()
        try:
            async for data in stream:
                for byte in bytes(data).upper():
                    await trio.sleep(0.125)
                    await stream.send_all(bytes([byte]))
        finally:
            ended.append(trio.current_time() - began)

    world.meets(right, right, right, drip)
    assert run(seconds=2) == 0
    assert world.lines["bulk"] == "0.000 MB/s (0.000 Mbit/s) there and back, 2.0 s"
    assert ended[0] <= 2 + DRAIN_SECONDS + 0.125


def test_a_short_bulk_transfer_that_brings_nothing(world: World) -> None:
    """It waits for the first reply as long as for any."""
    world.meets(right, right, right, silent)
    assert said(world, seconds=0.1)["bulk"] == "after 0.0 MB: no reply for 3 s"


def test_a_short_bulk_transfer_over_a_slow_link(world: World) -> None:
    """What comes first counts, although the time was up."""

    async def late(stream: HalfCloseable) -> None:
        await trio.sleep(2)
        await right(stream)

    world.meets(right, right, right, late)
    assert run(seconds=0.1) == 0
    assert world.lines["bulk"].endswith("there and back, 2.0 s")


def test_a_bulk_transfer_that_cannot_be_sent(world: World) -> None:
    """The direction that breaks first says why."""

    def breaking(stream: HalfCloseable) -> trio.abc.Stream:
        broken = Breaking(stream)
        if len(world.streams) == 3:
            broken.sending = trio.BrokenResourceError("reset")
        return broken

    world.wrap = breaking
    assert said(world, seconds=0.1)["bulk"] == "after 0.0 MB: the connection broke"


def test_tls_is_not_judged_without_a_connection(world: World) -> None:
    """One that is refused says nothing about it."""
    world.meets(right, cannot_connect())
    settings = ConnectSettings(tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    assert said(world, connection=settings)["tls"] == "skipped: needs server"


# ------------------------------------------------------------------ several addresses


class Resolver(trio.abc.HostnameResolver):
    """Knows the addresses of the name; or none."""

    addresses: tuple[str, ...] = ("192.0.2.1", "2001:db8::1")

    async def getaddrinfo(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        await trio.lowlevel.checkpoint()
        if not self.addresses:
            raise trio.socket.gaierror(trio.socket.EAI_NONAME, "not known")
        families = {True: trio.socket.AF_INET6, False: trio.socket.AF_INET}
        return [
            (families[":" in address], trio.socket.SOCK_STREAM, 6, "", (address, port))
            for address in self.addresses
        ]

    async def getnameinfo(self, *args: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
def addresses(world: World, monkeypatch: pytest.MonkeyPatch) -> Resolver:
    """Have the name resolved by a `Resolver`, and IPv6 refused."""
    resolver = Resolver()

    async def resolve(*args: Any) -> Any:
        trio.socket.set_custom_hostname_resolver(resolver)
        return await real_resolve(*args)

    async def open_connection(target: Target, *args: Any) -> Any:
        if target.host in {"2001:db8::1", "192.0.2.9"}:
            raise cannot_connect(errno.ETIMEDOUT, address=target.host)
        return await world.open_connection(target, *args)

    monkeypatch.setattr(checks, "resolve", resolve)
    monkeypatch.setattr(checks, "open_connection", open_connection)
    return resolver


def test_a_dead_family(world: World, addresses: Resolver) -> None:
    """A warning: they can talk over the other one."""
    assert run(TARGET, seconds=0.1) == 0
    assert world.lines["name"] == "example.lan is 192.0.2.1 and 2001:db8::1 (0.0 ms)"
    assert world.lines["connect"] == "192.0.2.1 in 0.4 ms; 2001:db8::1: timed out"
    assert world.lines["verdict"] == "these two machines can talk over IPv4; IPv6 is broken"


def test_a_dead_address(world: World, addresses: Resolver) -> None:
    """Its family is not dead if another address of it is there."""
    addresses.addresses = ("192.0.2.1", "192.0.2.9")
    assert run(TARGET, seconds=0.1) == 0
    assert world.lines["verdict"] == (
        "these two machines can talk over IPv4; not every address can be reached"
    )


def test_a_name_that_leads_nowhere(world: World, addresses: Resolver) -> None:
    """Why, and what to do."""
    addresses.addresses = ()
    assert run(TARGET) == 1
    lines = world.lines
    assert lines["name"] == "example.lan: name not found\nis it spelled right?"
    assert lines["connect"] == "skipped: needs name"
    assert lines["verdict"] == "these two machines cannot talk: name not found"


def test_a_resolver_that_does_not_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the time to connect, and no more."""

    async def resolve(*args: Any) -> Any:
        await trio.sleep_forever()

    monkeypatch.setattr(checks, "resolve", resolve)
    assert run(TARGET) == 1
    assert world.lines["name"].startswith("example.lan: name server not reachable")


# ------------------------------------------------------------------ the terminal, and the end


class Terminal(io.StringIO):
    """Standard output at a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_has_colours(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong is red, what makes no sense is dim; unless colour is not wanted."""
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    world.meets(cannot_connect(address=ADDRESS))
    assert run() == 1
    assert f"\x1b[31m{ADDRESS}: refused\x1b[0m" in world.lines["connect"]
    assert world.lines["server"] == "\x1b[2mskipped: needs connect\x1b[0m"
    world.output.written = b""
    monkeypatch.setenv("NO_COLOR", "1")
    assert run() == 1
    assert world.lines["server"] == "skipped: needs connect"


def test_ctrl_c_ends_it(world: World) -> None:
    """By the signal, with what was said until then."""

    async def interrupted(stream: HalfCloseable) -> None:
        await stream.receive_some()
        signal.raise_signal(signal.SIGINT)
        await trio.sleep_forever()

    world.meets(right, interrupted)
    with pytest.raises(Killed) as killed:
        run()
    assert killed.value.number is signal.SIGINT
    assert [*world.lines] == ["name", "connect", "server"]


def test_seconds_below_0_make_no_sense() -> None:
    """As everywhere."""
    with pytest.raises(ValueError, match=r"^--seconds must not be negative$"):
        Options(seconds=-1)
