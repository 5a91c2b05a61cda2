"""`check` and `ping` between two machines: a good link, one that loses large packets, a cut one."""

import json
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
from tests.acceptance.gate import Skipped
from tests.acceptance.hosts import END, SERVER_IPV4, SERVER_IPV6, Host, two_hosts
from tests.helpers.program import Server, command, run, serving
from tests.helpers.waiting import TIMEOUT_SECONDS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs network namespaces")

# The MTU of the path, in bytes, where both machines take it for that of Ethernet.
SMALL_MTU = 1300

# What Ethernet's MTU leaves for TCP over IPv4.
USUAL_SEGMENT = 1460


@asynccontextmanager
async def machines(name: str) -> AsyncGenerator[tuple[Host, Host, Server]]:
    """Two machines with a cable between them, and a server on the first."""
    try:
        async with (
            two_hosts(name) as (here, there),
            serving("--public", prefix=here.prefix) as server,
        ):
            yield here, there, server
    except Skipped as skipped:
        pytest.skip(str(skipped))


async def test_two_machines_that_can_talk() -> None:
    """Every question has its answer, by either protocol; the exit code is 0."""
    async with machines("check") as (_, there, server):
        for address, family in ((SERVER_IPV4, "IPv4"), (SERVER_IPV6, "IPv6")):
            words = ("check", address, str(server.port), "--seconds", "0.2", "--json")
            ended = await run(*words, prefix=there.prefix)
            assert ended.code == 0, ended.stdout
            told = json.loads(ended.stdout)
            assert told["sizes"]["largest_right_bytes"] == 65536
            assert told["half_close"]["status"] == "ok"
            assert told["bulk"]["megabits_per_s"] > 0
            assert told["verdict"]["text"] == f"these two machines can talk over {family}"


async def test_a_path_that_loses_large_packets() -> None:
    """Small messages pass, large ones are lost without a word; no ICMP says why."""
    async with machines("mtu") as (here, there, server):
        await here.ip("link", "set", END, "mtu", str(SMALL_MTU))
        route = ("192.0.2.0/24", "dev", END, "src", SERVER_IPV4)
        await here.ip("route", "replace", *route, "advmss", str(USUAL_SEGMENT))
        await there.ip("link", "set", END, "gso_max_segs", "1")  # each segment is a packet
        words = ("check", SERVER_IPV4, str(server.port), "--reply-timeout", "2")
        ended = await run(*words, prefix=there.prefix)
    lines = ended.stdout.decode().splitlines()
    assert ended.code == 1
    assert (
        "sizes       right from 1 byte to 1,240 bytes; from 1,380 bytes on nothing comes back"
        in lines
    )
    assert "half-close  passes" in lines
    assert "bulk        skipped: needs sizes" in lines
    assert lines[-1] == "verdict     these two machines can talk, but large messages are lost"


async def test_a_cable_that_is_pulled_and_put_back() -> None:
    """`ping` says at once that no answer comes, and for how long it was away; none is lost."""
    async with machines("ping") as (here, there, server):
        words = ("ping", SERVER_IPV4, str(server.port), "-i", "0.2")
        process = await trio.lowlevel.open_process(
            command(*words, prefix=there.prefix), stdout=subprocess.PIPE
        )
        try:
            output = Lines(process)
            await output.until("seq=3 ")
            await here.ip("link", "set", END, "down")
            await output.until("no answer for 2 s")
            await here.ip("link", "set", END, "up")
            away = await output.until("back after ")
            process.send_signal(signal.SIGINT)
            await output.until("outages: 1, longest ")
            assert await process.wait() == 0
        finally:
            process.kill()
            await process.wait()
    assert 2 <= float(away.split()[-2]) < TIMEOUT_SECONDS


class Lines:
    """What a process has written to standard output, line by line."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdout
        self._stream = process.stdout
        self._begun = b""
        self._lines: list[str] = []

    async def until(self, words: str) -> str:
        """Return the next line with these words; those before it are dropped."""
        with trio.fail_after(TIMEOUT_SECONDS):
            while True:
                while self._lines:
                    if words in (line := self._lines.pop(0)):
                        return line
                data = await self._stream.receive_some()
                assert data, f"it ended without {words!r}"
                *whole, self._begun = (self._begun + data).split(b"\n")
                self._lines += [line.decode() for line in whole]


async def test_a_process_with_few_descriptors_says_what_to_do() -> None:
    """Each client of `bench` is one."""
    async with serving() as server:
        words = ("bench", "127.0.0.1", str(server.port), "--clients", "100", "--seconds", "0.2")
        ended = await run(*words, prefix=("prlimit", "--nofile=60:60"))
    assert ended.code == 1
    assert "too many open files" in ended.stdout.decode()
    assert "raise `ulimit -n`, or use fewer --clients" in ended.stdout.decode()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_a_shell_can_complete_the_commands(shell: str) -> None:
    """Each is given its own script."""
    variables = {"_TRIO_UPPER_COMPLETE": f"{shell}_source"}
    program = "import sys; sys.argv = ['trio-upper']; from trio_upper.cli.main import main; main()"
    done = await trio.run_process(
        [sys.executable, "-c", program],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", **variables},
    )
    assert b"_TRIO_UPPER_COMPLETE" in done.stdout, done.stderr
