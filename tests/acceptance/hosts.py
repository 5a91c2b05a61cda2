"""Gate 10: two hosts with a cable between them, which is cut."""

import os
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import trio

from tests.acceptance.clients import in_time
from tests.acceptance.gate import Gate, Sizes, Skipped, expect
from tests.acceptance.servers import WatchedServer, hosting
from tests.helpers.program import command
from tests.helpers.program import run as run_program
from tests.helpers.streams import receive, receive_all

# The name of the cable's end on each host: the scope of a link-local address (RFC 4007).
END = "cable"

SERVER_IPV4, CLIENT_IPV4 = "192.0.2.1", "192.0.2.2"
SERVER_IPV6, CLIENT_IPV6 = "2001:db8::1", "2001:db8::2"
# Addresses for documentation (RFC 5737, RFC 3849) in a network of their own.
SERVER_LINK_LOCAL, CLIENT_LINK_LOCAL = "fe80::1", "fe80::2"

# For one command of ip(8), in seconds.
SCOPED = f"{SERVER_LINK_LOCAL}%{END}"

EVERYWHERE = ("--host", "0.0.0.0", "--host", "::")

COMMAND_SECONDS = 10.0

# Clients that are connected when the cable is cut; the server has no more places.
CLIENTS = 2

# Beyond a time-out, in seconds: an inspection, a notice that nobody receives, a busy machine.
SLACK_SECONDS = 5.0

BULK = b"the quick brown fox jumps over the lazy dog\n" * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A network namespace with one end of the cable."""

    namespace: str
    ipv4: str
    ipv6: tuple[str, ...]

    @property
    def prefix(self) -> tuple[str, ...]:
        """The command that runs another one on this host."""
        return ("ip", "netns", "exec", self.namespace)

    async def ip(self, *words: str) -> None:
        """Run ip(8) on this host."""
        await ip("-n", self.namespace, *words)

    async def plug_in(self) -> None:
        """Give this end of the cable its addresses; no other host can have them (nodad)."""
        await self.ip("link", "set", "lo", "up")
        await self.ip("link", "set", END, "addrgenmode", "none")
        await self.ip("address", "add", f"{self.ipv4}/24", "dev", END)
        for address in self.ipv6:
            await self.ip("address", "add", f"{address}/64", "dev", END, "nodad")
        await self.ip("link", "set", END, "up")


async def ip(*words: str) -> None:
    """Run ip(8); raise `Skipped` if it fails, for then this system does not allow it."""
    with trio.fail_after(COMMAND_SECONDS):
        done = await trio.run_process(["ip", *words], capture_stderr=True, check=False)
    if done.returncode:
        raise Skipped(f"ip {' '.join(words)}: {done.stderr.decode().strip()}")


@asynccontextmanager
async def two_hosts(name: str) -> AsyncGenerator[tuple[Host, Host]]:
    """Two hosts, the server's and the client's, joined by a cable while the block runs."""
    if os.geteuid():
        raise Skipped("needs root")
    if shutil.which("ip") is None:
        raise Skipped("needs ip of iproute2")
    server = Host(
        namespace=f"gates-{os.getpid()}-{name}-server",
        ipv4=SERVER_IPV4,
        ipv6=(SERVER_IPV6, SERVER_LINK_LOCAL),
    )
    client = Host(
        namespace=f"gates-{os.getpid()}-{name}-client",
        ipv4=CLIENT_IPV4,
        ipv6=(CLIENT_IPV6, CLIENT_LINK_LOCAL),
    )
    async with namespace(server.namespace), namespace(client.namespace):
        ends = ("netns", server.namespace, "type", "veth", "peer", END, "netns", client.namespace)
        await ip("link", "add", END, *ends)
        await server.plug_in()
        await client.plug_in()
        yield server, client


@asynccontextmanager
async def namespace(name: str) -> AsyncGenerator[None]:
    """A network namespace of this name, while the block runs."""
    with trio.CancelScope(shield=True):  # or nobody would know whether it is there
        await ip("netns", "add", name)
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            await ip("netns", "delete", name)


async def ask_from(host: Host, address: str, port: int, *, wait: float = 0) -> None:
    """Send one message from a client on `host`, which tries to connect for `wait` seconds."""
    words = ("client", address, str(port), "--wait", str(wait), "-m", "Straße")
    ended = await run_program(*words, prefix=host.prefix)
    expect(
        (ended.code, ended.stdout) == (0, b"STRASSE\n"),
        f"by {address} the client ended with {ended.code}: {ended.stderr.decode()}",
    )


async def reach(here: Host, there: Host) -> None:
    """Try each address, with a server that listens everywhere and one that does not."""
    async with hosting(*EVERYWHERE, prefix=here.prefix) as server:
        for address in (SERVER_IPV4, SERVER_IPV6, SCOPED):
            await ask_from(there, address, server.port)
    async with hosting("--host", SCOPED, prefix=here.prefix) as server:
        await ask_from(there, SCOPED, server.port)


@asynccontextmanager
async def client_on(
    host: Host, address: str, port: int, reply_timeout: float
) -> AsyncGenerator[trio.Process]:
    """Run a client on `host`, between pipes, while the block runs; the time-out is in seconds."""
    arguments = ("client", address, str(port), "--reply-timeout", str(reply_timeout))
    pipe = subprocess.PIPE
    process = await trio.lowlevel.open_process(
        command(*arguments, prefix=host.prefix), stdin=pipe, stdout=pipe, stderr=pipe
    )
    try:
        yield process
    finally:
        process.kill()
        with trio.move_on_after(COMMAND_SECONDS, shield=True):
            await process.wait()


async def send_bulk(process: trio.Process, flowing: trio.Event) -> None:
    """Feed a client until it ends, and take its replies; note when they come."""
    assert process.stdin
    assert process.stdout
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_take_all, process.stdout, flowing)
        with suppress(trio.BrokenResourceError):
            while True:
                await process.stdin.send_all(BULK)


async def _take_all(stream: trio.abc.ReceiveStream, flowing: trio.Event) -> None:
    async for _ in stream:
        flowing.set()


async def say(process: trio.Process, words: bytes) -> None:
    """Write words to a client's input."""
    assert process.stdin
    await process.stdin.send_all(words)


async def hear(process: trio.Process, words: bytes) -> None:
    """Expect these words from a client."""
    assert process.stdout
    with in_time(f"{words!r} was not heard"):
        heard = await receive(process.stdout, len(words))
    expect(heard == words, f"{heard!r} was heard, not {words!r}")


async def notices(process: trio.Process, within: float) -> None:
    """Expect a client to end within so many seconds, saying that it had no reply."""
    assert process.stderr
    with in_time("a client did not notice that the cable was cut", within):
        code = await process.wait()
        said = (await receive_all(process.stderr)).decode().strip()
    expect(code == 1 and "no reply to" in said, f"a client ended with {code}: {said}")


async def cut(server: WatchedServer, there: Host, at: Host, address: str, limit: float) -> None:
    """Cut the cable at one of the hosts while two clients talk by `address`, one of them bulk."""
    flowing = trio.Event()
    async with (
        client_on(there, address, server.port, limit) as bulk,
        client_on(there, address, server.port, limit) as quiet,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(send_bulk, bulk, flowing)
        await flowing.wait()
        await say(quiet, b"hello\n")
        await hear(quiet, b"HELLO\n")
        await at.ip("link", "set", END, "down")
        began = trio.current_time()
        await say(quiet, b"are you there?\n")
        for client in (quiet, bulk):
            await notices(client, began + limit + SLACK_SECONDS - trio.current_time())
    with in_time("the server did not free the places", limit + SLACK_SECONDS):
        await server.repeated("client gone", CLIENTS)
    ends = {event["end"] for event in server.logged("client gone")}
    expect(ends <= {"idle", "stalled"}, f"the clients ended by {ends}")


async def cut_and_mend(here: Host, there: Host, at: Host, address: str, limit: float) -> None:
    """Cut the cable at one of the hosts; once it is mended, a client finds a place again."""
    text = str(limit)
    times = ("--idle-timeout", text, "--write-timeout", text, "--max-clients", str(CLIENTS))
    async with hosting(*EVERYWHERE, *times, prefix=here.prefix) as server:
        await cut(server, there, at, address, limit)
        await at.ip("link", "set", END, "up")
        # The system may be about to give up on a neighbour that it asked for before (arp(7)).
        await ask_from(there, SERVER_IPV4, server.port, wait=SLACK_SECONDS)


async def run(sizes: Sizes) -> str:
    """Reach the server by each address, and cut the cable at each end, on three pairs of hosts."""
    async with (
        two_hosts("reach") as (here, there),
        two_hosts("cut-here") as near,
        two_hosts("cut-there") as far,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(reach, here, there)
        nursery.start_soon(cut_and_mend, *near, near[0], SERVER_IPV4, sizes.cut)
        nursery.start_soon(cut_and_mend, *far, far[1], SERVER_IPV6, sizes.cut)
    return "answered by IPv4, IPv6 and link-local; both cuts were noticed on both sides in time"


GATE = Gate(
    number=10,
    promise="It works across machines by IPv4 and IPv6; when the cable is cut, the client says so "
    "within --reply-timeout, and the server gives the place to others.",
    doing="two network namespaces, all addresses; the link goes down under load and in silence, at "
    "either end, with time-outs of {cut:g} s",
    run=run,
    limit=lambda sizes: 120 + 8 * sizes.cut,
)
