"""Gate 12: haproxy in front of two servers, one of which is restarted under load."""

import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import trio
from benchmarks.servers import free_port, serves

from tests.acceptance.clients import dice_of, in_time
from tests.acceptance.gate import Gate, Sizes, Skipped, expect
from tests.acceptance.servers import WatchedServer, expect_soon, hosting
from tests.acceptance.talkers import NOTICE, QUIET_SECONDS
from tests.helpers.program import LOCALHOST
from tests.helpers.streams import receive, receive_all, upper

CONFIGURATION = """
global
    maxconn 1000
    stats socket {admin} level admin
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option redispatch 1
frontend clients
    bind {host}:{port}
    default_backend servers
backend servers
    balance leastconn
    server first {host}:{first} check inter 200ms
    server second {host}:{second} check inter 200ms
"""
"""A small one. Health checks are no more than connections; the server logs them as clients.

Each connection takes two descriptors. Without `maxconn`, haproxy makes room for as many as it is
allowed, which is a thousand million on some machines.
"""

# Of one conversation; the next one may be with the other server.
MOST_LINES = 80

# Between two lines: less than the quiet after which a server that stops sends its notice.
MOST_REST_SECONDS = 0.02

# For haproxy to stop using a server, in seconds; what it has connected is accepted by then.
SETTLED_SECONDS = 0.2

SEED = 12


class Proxy:
    """A running haproxy, and the socket that it takes commands on."""

    def __init__(self, port: int, admin: Path) -> None:
        self.port = port
        self._admin = admin

    async def tell(self, command: str) -> None:
        """Give a command; any answer is an error (haproxy management guide, 9.3)."""
        async with await trio.open_unix_socket(self._admin) as stream:
            await stream.send_all(command.encode() + b"\n")
            answer = (await receive_all(stream)).decode().strip()
        expect(not answer, f"haproxy answers to {command!r}: {answer}")


@asynccontextmanager
async def haproxy(program: str, first: int, second: int) -> AsyncGenerator[Proxy]:
    """Run haproxy in front of the servers at these two ports while the block runs."""
    with TemporaryDirectory() as folder:
        file, admin, port = trio.Path(folder, "haproxy.cfg"), Path(folder, "admin"), free_port()
        text = CONFIGURATION.format(
            admin=admin, host=LOCALHOST, port=port, first=first, second=second
        )
        await file.write_text(text)
        command = [program, "-db", "-f", str(file)]
        start = partial(trio.run_process, command, stderr=subprocess.DEVNULL)
        async with trio.open_nursery() as nursery:
            await nursery.start(start)
            await expect_soon(lambda: serves(port), lambda: "haproxy does not start")
            yield Proxy(port, admin)
            nursery.cancel_scope.cancel()


class Crowd:
    """Clients of a proxy that have one conversation after the other."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = False
        self._dice = dice_of(SEED)
        self.conversations = 0
        self.lines = 0
        #: Lines that crossed the closing notice of a server, after a silence.
        self.missed = 0

    def stop(self) -> None:
        """Begin no more conversations."""
        self._over = True

    async def run(self, count: int) -> None:
        """Run so many clients until `stop` is called."""
        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(self._be_client, number)

    async def _be_client(self, number: int) -> None:
        while not self._over:
            with in_time("a conversation through haproxy did not end"):
                await self._converse(f"client {number}")
            self.conversations += 1

    async def _converse(self, name: str) -> None:
        last = trio.current_time()
        async with await trio.open_tcp_stream(LOCALHOST, self._port) as stream:
            for turn in range(self._dice.randint(1, MOST_LINES)):
                words = f"{name}, line {turn}: straße\n".encode()
                now = trio.current_time()
                await stream.send_all(words)
                answer = await receive(stream, len(upper(words)))
                if answer != upper(words):
                    expect_notice(answer, last, instead_of=f"an answer to {words!r}")
                    self.missed += 1
                    return
                last = now
                self.lines += 1
                await trio.sleep(self._dice.uniform(0, MOST_REST_SECONDS))
            await stream.send_eof()
            if more := await receive_all(stream):
                expect_notice(more, last, instead_of="the end")


def expect_notice(answer: bytes, last: float, *, instead_of: str) -> None:
    """Expect that `answer` is a notice of a server to which nothing was sent after the time `last`.

    It may close a client that is quiet, and the client's next line, or its end, crosses that.
    """
    quiet = trio.current_time() - last
    expect(
        quiet >= QUIET_SECONDS and NOTICE.startswith(answer),
        f"{quiet:.3f} s after what was said last there came {answer!r} instead of {instead_of}",
    )


def served(server: WatchedServer) -> int:
    """Return how many clients said something, as health checks do not."""
    return sum(event["received"] > 0 for event in server.logged("client gone"))


async def restart_first(proxy: Proxy, port: int, talk: float) -> int:
    """Have the server at `port` run, stop and run again, for `talk` seconds each.

    Returns how many clients the second one served.
    """
    async with hosting("--port", str(port)):
        await trio.sleep(talk)
        await proxy.tell("set server servers/first state drain")
        await trio.sleep(SETTLED_SECONDS)
    async with hosting("--port", str(port)) as successor:
        await proxy.tell("set server servers/first state ready")
        await expect_soon(
            lambda: served(successor) > 0, lambda: "the new server was given no clients"
        )
        await trio.sleep(talk)
        await proxy.tell("set server servers/first state drain")
        await trio.sleep(SETTLED_SECONDS)
    return served(successor)


async def run(sizes: Sizes) -> str:
    """Restart one of two servers while clients come and go; the other one serves them meanwhile."""
    program = shutil.which("haproxy")
    if program is None:
        raise Skipped("needs haproxy")
    port = free_port()
    async with hosting() as second, haproxy(program, port, second.port) as proxy:
        crowd = Crowd(proxy.port)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crowd.run, sizes.talkers)
            count = await restart_first(proxy, port, sizes.talk)
            crowd.stop()
    return (
        f"{crowd.lines} lines in {crowd.conversations} conversations, {count} of them with the "
        f"restarted server; nothing owed lost, {crowd.missed} crossed a closing notice"
    )


GATE = Gate(
    number=12,
    promise="Behind haproxy a server can be restarted without losing a reply.",
    doing="haproxy, two servers, {talkers} clients; one is taken out, stopped, and brought back",
    run=run,
    limit=lambda sizes: 120 + 3 * sizes.talk,
)
