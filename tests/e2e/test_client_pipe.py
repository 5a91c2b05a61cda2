"""The client as a process in a pipe: what comes out of it, how it ends, and what it says."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest
import trio
from tests.helpers import certificates, peers
from tests.helpers.peers import peer
from tests.helpers.program import Ended, client, command, run, serving
from tests.helpers.streams import receive, receive_all, upper
from tests.helpers.waiting import AT_ONCE_SECONDS, TIMEOUT_SECONDS, eventually

from trio_upper.client.failures import Cause

# A file that a client in constant memory cannot hold, and what it may hold in bytes at its peak:
# the interpreter with Trio and coverage is half of that.
LARGE_FILE = 128 * 1024 * 1024
PEAK_MEMORY = 96 * 1024 * 1024

ADDRESS = "[0-9a-f:.]+"

IPV6 = Path("/proc/net/if_inet6").exists()


@asynccontextmanager
async def talking(
    *arguments: str, stdin: int | IO[bytes] = subprocess.PIPE, stdout: int = subprocess.PIPE
) -> AsyncIterator[trio.Process]:
    """Run the client while the block lasts; its pipes are the test's."""
    process = await trio.lowlevel.open_process(
        command("client", *arguments), stdin=stdin, stdout=stdout, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        for pipe in process.stdin, process.stdout, process.stderr:
            if pipe:
                await trio.aclose_forcefully(pipe)


async def say(process: trio.Process, words: bytes) -> None:
    assert process.stdin
    with trio.fail_after(TIMEOUT_SECONDS):
        await process.stdin.send_all(words)


async def hear(process: trio.Process, words: bytes) -> None:
    """Take `words` from standard output; the next ones must be these."""
    assert process.stdout
    with trio.fail_after(TIMEOUT_SECONDS):
        assert await receive(process.stdout, len(words)) == words


async def ended(process: trio.Process, *, within: float = TIMEOUT_SECONDS) -> Ended:
    """Wait for the end; take what is left on the pipes that are still open."""
    assert process.stderr
    left = b""
    with trio.fail_after(within):
        words = await receive_all(process.stderr)
        code = await process.wait()
        if process.stdout:
            with suppress(trio.ClosedResourceError):  # by the test
                left = await receive_all(process.stdout)
    return Ended(code, left, words)


@contextmanager
def endless_input() -> Iterator[IO[bytes]]:
    """Yield a pipe that ``yes`` writes to, for as long as somebody reads it."""
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as yes:
        assert yes.stdout
        yield yes.stdout
    assert yes.returncode == -signal.SIGPIPE


def redirected(how: str) -> tuple[str, ...]:
    """Return the prefix of a command that is redirected as the shell does it."""
    return "sh", "-c", f'exec "$@" {how}', "sh"


def said(done: Ended) -> str:
    """Return the one line that a failed client said."""
    *before, line = done.lines
    assert all(line.startswith("trio-upper: connected to ") for line in before)
    assert line.startswith("trio-upper: ")
    assert done.code == 1
    return line.removeprefix("trio-upper: ")


def reason(done: Ended) -> str:
    """Return what a client that could not connect gives as cause and hint, without the numbers."""
    assert done.stdout == b""
    found = re.fullmatch(
        r"cannot connect to \S+ port \d+: (.+) "
        rf"\((?:tried {ADDRESS}(?:(?:, | and ){ADDRESS})*|no address tried), \d+\.\d\d s\)(: .+)",
        said(done),
    )
    assert found
    return found[1] + found[2]


# What the client is for


async def test_text_comes_back_in_upper_case() -> None:
    """Lines from a pipe are answered, whatever becomes longer by it; nothing else is said."""
    async with serving() as server:
        done = await client("127.0.0.1", str(server.port), stdin="hello\nStraße\nﬄ\n".encode())
    assert done == Ended(0, b"HELLO\nSTRASSE\nFFL\n", b"")


async def test_messages_of_the_command_line() -> None:
    """Each -m is a line: repeated, not ASCII, empty, with a line's end, and not even UTF-8."""
    messages = ["one", "größer", "", "two\nthree", os.fsdecode(b"\xff\xfe")]
    options = [word for message in messages for word in ("-m", message)]
    async with peer(peers.ours) as port:
        done = await client(f"localhost:{port}", *options)
    assert done == Ended(0, "ONE\nGRÖSSER\n\nTWO\nTHREE\n".encode() + b"\xff\xfe\n", b"")


async def test_a_file_byte_for_byte(tmp_path: Path) -> None:
    """A file of every byte, broken UTF-8 and a code point cut by its end comes back so."""
    text = bytes(range(256)) * 300 + "ßſ🎉".encode() * 300 + b"\xed\xa0\x80\xf0\x9f\x8e"
    given, got = tmp_path / "in", tmp_path / "out"
    given.write_bytes(text)
    async with serving() as server:
        files = redirected(f"< '{given}' > '{got}'")
        done = await run("client", "127.0.0.1", str(server.port), prefix=files)
    assert done == Ended(0, b"", b"")
    assert got.read_bytes() == upper(text)


async def test_a_large_file_in_constant_memory(tmp_path: Path) -> None:
    """A file larger than what the client may hold comes back right, all of it."""
    block = bytes(32 + number % 95 for number in range(1024 * 1024))
    given = tmp_path / "in"
    with given.open("wb") as file:
        for _ in range(LARGE_FILE // len(block)):
            file.write(block)
    async with serving() as server:
        with given.open("rb") as file:
            async with talking("127.0.0.1", str(server.port), stdin=file) as process:
                # As long as the last blocks are not taken, the client is there to be looked at.
                for _ in range(LARGE_FILE // len(block) - 8):
                    await hear(process, block.upper())
                peak = peak_memory(process.pid)
                for _ in range(8):
                    await hear(process, block.upper())
                assert await ended(process) == Ended(0, b"", b"")
    assert peak < PEAK_MEMORY


def peak_memory(pid: int) -> int:
    """Return how many bytes a process has had in memory at most (proc_pid_status(5))."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


async def test_replies_are_prompt() -> None:
    """What was sent is answered while the input goes on, with or without a newline."""
    async with peer(peers.ours) as port, talking(f"127.0.0.1:{port}") as process:
        await say(process, b"hello\n")
        await hear(process, b"HELLO\n")
        await say(process, b"no end")
        await hear(process, b"NO END")
        assert process.stdin
        await process.stdin.aclose()
        assert await ended(process) == Ended(0, b"", b"")


@pytest.mark.skipif(not IPV6, reason="no IPv6")
async def test_ipv6() -> None:
    """An IPv6 address needs brackets when it carries the port, and may go without otherwise."""
    async with peer(peers.upper, host="::1") as port:
        assert await client(f"[::1]:{port}", "-m", "hi") == Ended(0, b"HI\n", b"")
        assert await client("::1", str(port), "-m", "hi") == Ended(0, b"HI\n", b"")


# What standard input may be


@pytest.mark.parametrize("how", ["< /dev/null", "<&-"])
async def test_no_input(how: str) -> None:
    """With an empty input or a closed one nothing is owed, so nothing is wrong."""
    async with peer(peers.upper) as port:
        done = await run("client", "127.0.0.1", str(port), prefix=redirected(how))
    assert done == Ended(0, b"", b"")


async def test_a_socket_as_input() -> None:
    """A socket is read until its peer ends it."""
    ours, theirs = socket.socketpair()
    async with peer(peers.upper) as port:
        with ours, theirs:
            async with talking(f"127.0.0.1:{port}", stdin=theirs.fileno()) as process:
                ours.sendall(b"hello\n")
                await hear(process, b"HELLO\n")
                ours.shutdown(socket.SHUT_WR)
                assert await ended(process) == Ended(0, b"", b"")


async def test_a_directory_as_input() -> None:
    """A directory cannot be read; Python itself says so before the program starts."""
    async with peer(peers.upper) as port:
        done = await run("client", f"127.0.0.1:{port}", prefix=redirected("< /"))
    assert (done.code, done.stdout) == (1, b"")
    assert "Traceback" not in done.stderr.decode()


@asynccontextmanager
async def typing() -> AsyncIterator[tuple[trio.abc.SendStream, trio.Process]]:
    """Run the client for somebody who types at a terminal, and has its first reply in a pipe."""
    master, tty = os.openpty()
    async with (
        trio.lowlevel.FdStream(master) as person,
        peer(peers.upper) as port,
        talking(f"127.0.0.1:{port}", stdin=tty) as process,
    ):
        os.close(tty)
        await person.send_all(b"hello\n")
        await hear(process, b"HELLO\n")
        yield person, process


async def test_a_terminal_as_input_and_a_pipe_as_output() -> None:
    """Nothing is asked and no prompt is shown when replies go elsewhere; Ctrl-D ends."""
    async with typing() as (person, process):
        await person.send_all(b"\x04")
        assert await ended(process) == Ended(0, b"", b"")


async def test_the_window_is_closed_while_input_is_typed() -> None:
    """That is no end of the input: it ends by SIGHUP, although the signal itself does not come."""
    async with typing() as (person, process):
        await person.aclose()
        assert await ended(process, within=AT_ONCE_SECONDS) == Ended(-signal.SIGHUP, b"", b"")


# What standard output may be


async def test_nobody_reads_on() -> None:
    """With ``yes | client | head -1`` the client ends as ``yes`` does: by SIGPIPE, quietly."""
    with endless_input() as yes:
        async with peer(peers.ours) as port, talking(f"127.0.0.1:{port}", stdin=yes) as process:
            await hear(process, b"Y\n")
            assert process.stdout
            await process.stdout.aclose()
            assert await ended(process) == Ended(-signal.SIGPIPE, b"", b"")


@pytest.mark.parametrize(
    ("how", "why"), [("> /dev/full", "the disk is full"), (">&-", "it is closed")]
)
async def test_output_that_takes_nothing(how: str, why: str) -> None:
    """A full disk and a closed output are failures, said in one line, however much comes."""
    async with peer(peers.upper) as port:
        target = f"127.0.0.1:{port}"
        done = await run("client", target, stdin=b"y\n" * 1_000_000, prefix=redirected(how))
    assert done.stdout == b""
    assert said(done).startswith(f"cannot write to standard output: {why}")


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_while_nobody_takes_the_output(number: signal.Signals) -> None:
    """``yes | client`` that is stuck in its output ends by the signal itself, and quietly."""
    with endless_input() as yes:
        async with peer(peers.upper) as port, talking(f"127.0.0.1:{port}", stdin=yes) as process:
            await hear(process, b"Y\n")
            process.send_signal(number)
            with trio.fail_after(AT_ONCE_SECONDS):
                assert await process.wait() == -number
            assert (await ended(process)).stderr == b""


async def test_a_signal_while_there_is_no_input() -> None:
    """A client that waits for its input ends by the signal itself, and quietly."""
    async with peer(peers.upper) as port, talking(f"127.0.0.1:{port}") as process:
        await say(process, b"hello\n")
        await hear(process, b"HELLO\n")
        process.send_signal(signal.SIGHUP)
        assert await ended(process, within=AT_ONCE_SECONDS) == Ended(-signal.SIGHUP, b"", b"")


async def test_a_signal_while_connecting() -> None:
    """A client whose connection attempt has no answer ends by the signal itself, and quietly."""
    with peers.full_port() as port:
        others = connecting(port)
        options = ("--connect-timeout", str(2 * TIMEOUT_SECONDS), "-m", "hi")
        async with talking(f"127.0.0.1:{port}", *options) as process:
            await eventually(lambda: connecting(port) > others)
            process.send_signal(signal.SIGINT)
            assert await ended(process, within=AT_ONCE_SECONDS) == Ended(-signal.SIGINT, b"", b"")


def connecting(port: int) -> int:
    """Return how many connections to `port` wait for an answer (SYN_SENT, proc_pid_net(5))."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "02" for row in rows)


# Servers that are slow, or stop


async def test_a_slow_server() -> None:
    """As long as something comes in time, however little, the client is patient."""
    text = b"hello, " * 6  # takes 4 s
    async with peer(peers.drip) as port:
        done = await client(f"127.0.0.1:{port}", "--reply-timeout", "3", stdin=text)
    assert done == Ended(0, text.upper(), b"")


async def test_a_server_that_closes_early() -> None:
    """What came is on standard output, and what did not is counted."""
    script = peers.answering(b"ONE\n", then=peers.end)
    async with peer(script) as port:
        done = await client(f"127.0.0.1:{port}", "-m", "one", "-m", "two!")
    assert done.stdout == b"ONE\n"
    assert said(done) == "the server closed the connection: no reply to 5 of the 9 bytes sent"


async def test_a_server_that_closes_in_the_middle_of_much() -> None:
    """What came is on standard output to the byte, and what did not is counted."""

    async def half(stream: trio.abc.Stream) -> None:
        await stream.send_all((await receive(stream, 500_000)).upper())
        await peers.end(stream)

    text = b"0123456789abcde\n" * 65536
    async with peer(half) as port:
        done = await client(f"127.0.0.1:{port}", stdin=text)
    assert done.stdout == text[:500_000].upper()
    found = re.fullmatch(
        r"the server closed the connection: no reply to ([\d,]+) of the ([\d,]+) bytes sent",
        said(done),
    )
    assert found
    unanswered, owed = (int(number.replace(",", "")) for number in found.groups())
    assert owed - unanswered == 500_000


async def test_a_server_that_closes_while_nothing_is_owed() -> None:
    """The server's end before the input's is a failure, and ends the client at once."""
    closing = trio.Event()
    script = peers.answering(b"ONE\n", then=peers.when(closing, peers.end))
    async with peer(script) as port, talking(f"127.0.0.1:{port}") as process:
        await say(process, b"one\n")
        await hear(process, b"ONE\n")
        closing.set()
        assert (
            said(await ended(process, within=AT_ONCE_SECONDS)) == "the server closed the connection"
        )


async def test_a_server_that_resets() -> None:
    """A reset is named, and what came before it is on standard output."""
    resetting = trio.Event()
    script = peers.answering(b"ONE\n", then=peers.when(resetting, peers.reset))
    async with peer(script) as port, talking(f"127.0.0.1:{port}") as process:
        await say(process, b"one\ntwo!\n")
        await hear(process, b"ONE\n")
        resetting.set()
        done = await ended(process, within=AT_ONCE_SECONDS)
    assert said(done) == "the server reset the connection: no reply to 5 of the 9 bytes sent"


@pytest.mark.parametrize(
    ("manner", "words"), [(peers.end, "the server closed the connection"), (peers.reset, "reset")]
)
async def test_a_server_that_goes_at_once(manner: peers.Script, words: str) -> None:
    """A server that accepts and goes at once is told apart from one that is not there."""
    async with peer(manner) as port:
        done = await client(f"127.0.0.1:{port}", "-m", "hi")
    assert done.stdout == b""
    assert words in said(done)  # a reset may come so early that there is no connection


async def test_a_server_that_dies() -> None:
    """The end of a killed server is noticed at once, at an input that is open, too."""
    async with serving() as server, talking(f"127.0.0.1:{server.port}") as process:
        await say(process, b"hello\n")
        await hear(process, b"HELLO\n")
        assert await server.stop(signal.SIGKILL) == -signal.SIGKILL
        assert (
            said(await ended(process, within=AT_ONCE_SECONDS)) == "the server closed the connection"
        )


@pytest.mark.parametrize(
    ("manner", "text"), [(peers.silent, b"hello\n"), (peers.deaf, b"hello\n" * 1_000_000)]
)
async def test_a_server_that_never_answers(manner: peers.Script, text: bytes) -> None:
    """The timeout ends it, whether the server takes what is sent or does not."""
    async with peer(manner) as port:
        done = await client(f"127.0.0.1:{port}", "--reply-timeout", "0.3", stdin=text)
    assert done.stdout == b""
    assert re.fullmatch(
        r"the server sent nothing for 0\.3 s: no reply to the [\d,]+ bytes sent", said(done)
    )


# Boxes in between


def proxy(upstream: int) -> peers.Script:
    """Return a simple proxy to `upstream`: when one side ends, it ends both."""

    async def script(stream: trio.abc.Stream) -> None:
        async def pump(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
            async for data in source:
                await sink.send_all(data)
            nursery.cancel_scope.cancel()

        server = await trio.open_tcp_stream("127.0.0.1", upstream)
        async with server, trio.open_nursery() as nursery:
            nursery.start_soon(pump, stream, server)
            nursery.start_soon(pump, server, stream)

    return script


@pytest.mark.parametrize("text", [b"", b"hello", b"hello\n" * 200_000])
async def test_a_proxy_that_ends_both_ways(text: bytes) -> None:
    """Every reply arrives, for this side ends last."""
    async with serving() as server, peer(proxy(server.port)) as port:
        done = await client(f"127.0.0.1:{port}", stdin=text)
    assert done == Ended(0, text.upper(), b"")


async def test_a_server_that_answers_at_the_end_behind_such_a_proxy() -> None:
    """It gets no chance to; that the half-close is not passed on is said to be possible."""

    async def answer_at_the_end(stream: trio.abc.Stream) -> None:
        await stream.send_all((await receive_all(stream)).upper())

    async with peer(answer_at_the_end) as upstream, peer(proxy(upstream)) as port:
        done = await client(f"127.0.0.1:{port}", "-m", "hello")
    assert said(done).startswith("the server closed the connection: no reply to the 6 bytes sent; ")
    assert "half-close" in said(done)


async def test_a_proxy_whose_server_is_starting() -> None:
    """It accepts and hangs up, until its server is there: with --wait, messages are sent again."""
    visits = 0

    async def starting(stream: trio.abc.Stream) -> None:
        nonlocal visits
        visits += 1
        if visits > 2:
            await peers.upper(stream)

    async with peer(starting) as port:
        done = await client(f"127.0.0.1:{port}", "-m", "hello", "--wait", str(TIMEOUT_SECONDS))
        assert done == Ended(0, b"HELLO\n", b"")
        assert visits == 3
        visits = 0
        done = await client(f"127.0.0.1:{port}", "-m", "hello")
    assert "something accepted the connection and hung up" in said(done)


async def test_a_byte_that_is_wrong_in_the_middle_of_much() -> None:
    """What is right before it is on standard output, and where it is, is said."""
    text = b"0123456789abcdef" * 65536

    async def wrong(stream: trio.abc.Stream) -> None:
        reply = bytearray((await receive(stream, len(text))).upper())
        reply[200_000] ^= 1
        await stream.send_all(reply)
        await receive_all(stream)

    async with peer(wrong) as port:
        done = await client(f"127.0.0.1:{port}", stdin=text)
    assert done.stdout == text[:200_000].upper()
    assert said(done) == (
        "byte 200,001 of the replies is wrong: '1' (0x31) came, '0' (0x30) was owed"
    )


# Peers that are something else


@pytest.mark.parametrize(
    ("manner", "shown", "quoted"),
    [
        pytest.param(peers.echo, b"", "hello", id="echo"),
        pytest.param(
            peers.greeting(b"SSH-2.0-OpenSSH_9.6\r\n"), b"", "SSH-2.0-OpenSSH_9.6", id="ssh"
        ),
        pytest.param(
            peers.answering(b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n"),
            b"",
            "HTTP/1.1 400 Bad Request",
            id="http",
        ),
        pytest.param(peers.greeting(b"220 READY\r\n"), b"", "220 READY", id="capitals"),
        pytest.param(peers.answering(b"HELP!\n"), b"", "HELP!", id="wrong"),
        pytest.param(peers.answering(b"HELLO\n\nTWICE\n"), b"HELLO\n", "TWICE", id="too-much"),
        pytest.param(peers.answering(b"HELLO\nbut\n"), b"HELLO\n", "but", id="at-last"),
        pytest.param(
            peers.greeting(b"\x1b]0;mine\x07\x1b[2J\xff\r\n"),
            b"",
            r"\x1b]0;mine\x07\x1b[2J\xff",
            id="escapes",
        ),
    ],
)
async def test_a_foreign_peer(manner: peers.Script, shown: bytes, quoted: str) -> None:
    """It is named for its first line, harmlessly, and nothing of it is on standard output."""
    async with peer(manner) as port:
        done = await client(f"127.0.0.1:{port}", "-m", "hello")
    assert done.stdout == shown
    assert said(done) == f"this does not look like a trio-upper server; it said: '{quoted}'"


async def test_a_foreign_peer_ends_the_input() -> None:
    """A banner ends the client at once, although the input goes on."""
    connected = trio.Event()

    async def script(stream: trio.abc.Stream) -> None:
        connected.set()
        await peers.greeting(b"SSH-2.0-OpenSSH_9.6\r\n")(stream)

    async with peer(script) as port, talking(f"127.0.0.1:{port}") as process:
        await connected.wait()
        done = await ended(process, within=AT_ONCE_SECONDS)
    assert said(done).endswith("it said: 'SSH-2.0-OpenSSH_9.6'")


# Notices


async def test_a_server_that_is_full() -> None:
    """The notice is on standard error alone."""
    async with serving("--max-clients", "1") as server, await server.connect() as first:
        await first.send_all(b"hi")
        assert await receive(first, 2) == b"HI"
        done = await client(f"127.0.0.1:{server.port}", stdin=b"hello\n" * 100_000)
    assert done.stdout == b""
    assert said(done).startswith("full, 1 clients are connected; try again later")


async def test_a_server_that_times_out() -> None:
    """The notice is on standard error alone, after replies that are not a line, too."""
    async with (
        serving("--idle-timeout", "1") as server,
        talking(f"127.0.0.1:{server.port}") as process,
    ):
        await say(process, b"hello")
        await hear(process, b"HELLO")
        done = await ended(process)
    assert done.stdout == b""
    assert said(done) == "closing, no message for 1 s"


async def test_a_server_that_stops() -> None:
    """The notice is on standard error alone, and the server has nobody to cut."""
    async with serving() as server, talking(f"127.0.0.1:{server.port}") as process:
        await say(process, b"hello\n")
        await hear(process, b"HELLO\n")
        assert await server.stop() == 0
        done = await ended(process, within=AT_ONCE_SECONDS)
    assert done.stdout == b""
    assert said(done) == "closing, the server is shutting down"


# No connection


async def test_refused() -> None:
    """A closed port refuses."""
    with peers.closed_port() as port:
        done = await client("127.0.0.1", str(port), "-m", "hi")
    assert reason(done) == Cause.REFUSED_HERE.sentence


async def test_timed_out() -> None:
    """A server that never answers is given up in time."""
    with peers.full_port() as port:
        done = await client("127.0.0.1", str(port), "-m", "hi", "--connect-timeout", "0.3")
    assert reason(done) == Cause.TIMED_OUT.sentence.format(port=port)
    [seconds] = re.findall(r", (\d+\.\d\d) s\)", said(done))
    assert float(seconds) >= 0.3


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("255.255.255.255", r"no way there for TCP: this looks like a broadcast .*"),
        pytest.param(
            "fe80::1",
            r"the link-local address does not say on which network it is: .* fe80::1%eth0",
            marks=pytest.mark.skipif(not IPV6, reason="no IPv6"),
        ),
        (
            "nosuch.invalid",
            r"name not found: is it spelled right\?|name server not reachable: .* try the IP .*",
        ),
    ],
)
async def test_not_reachable(host: str, why: str) -> None:
    """No route, no scope, no such name: each has its own words."""
    assert re.fullmatch(why, reason(await client(host, "-m", "hi", "--connect-timeout", "5")))


async def test_a_server_that_is_still_starting() -> None:
    """With --wait the client tries again until somebody listens."""
    with peers.bound_socket() as bound:
        target = f"127.0.0.1:{bound.getsockname()[1]}"
        async with talking(target, "--wait", str(TIMEOUT_SECONDS), "-m", "hi") as process:
            # One that began later, and is not to wait, has been refused: so has the first.
            assert "refused" in said(await client(target, "-m", "hi"))
            bound.listen()
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(bound))
            async with await listener.accept() as stream:
                await peers.upper(stream)
            assert await ended(process) == Ended(0, b"HI\n", b"")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["127.0.0.1", "99999"], "99999 is not a valid port; use a number from 1 to 65535"),
        (["1.2.3"], "'1.2.3' is not a valid host"),
        (["a", "1", "b"], "unexpected extra argument"),
        (["--mesage", "hi"], "Did you mean '--message'?"),
    ],
)
async def test_usage(arguments: list[str], why: str) -> None:
    """What is wrong on the command line is said in one line, with where to read on; exit 2."""
    done = await client(*arguments)
    assert (done.code, done.stdout) == (2, b"")
    [line] = done.lines
    assert line.startswith("trio-upper: ")
    assert why in line
    assert line.endswith(" client --help")


@pytest.mark.parametrize("arguments", [["--help"], ["client", "--help"]])
async def test_help_is_light(arguments: list[str]) -> None:
    """What only tells about the program does not import what only running it needs."""
    main = "from trio_upper.cli.main import main"
    code = f"import sys\n{main}\ntry: main()\nfinally: print(*sys.modules)"
    done = await trio.run_process(
        [sys.executable, "-c", code, *arguments],
        capture_stdout=True,
        check=False,
        capture_stderr=True,
    )
    modules = set(done.stdout.split(b"\n")[-2].decode().split())
    assert "trio_upper.cli.main" in modules
    heavy = {"trio", "prompt_toolkit", "ssl", "_ssl", "structlog", "asyncio", "ifaddr"}
    assert not heavy & modules


# TLS


@pytest.fixture
def pair(tmp_path: Path) -> str:
    """A certificate for this machine, with its key."""
    leaf = certificates.issue("localhost", "127.0.0.1")
    return str(certificates.pair_file(tmp_path, leaf))


@pytest.fixture
def ca(tmp_path: Path) -> str:
    """The authority that signed it."""
    return str(certificates.ca_file(tmp_path))


async def test_much_text_over_tls(pair: str, ca: str) -> None:
    """6 MB that are not ASCII come back exactly, and the connection is closed properly."""
    text = "Straße, größer, ñandú, 日本語, ŉ, 🎉\n".encode()
    text *= 6_000_000 // len(text)
    async with serving("--tls-cert", pair) as server:
        done = await client("localhost", str(server.port), "--tls-ca", ca, stdin=text)
        assert (await server.event("client gone"))["end"] == "eof"
    assert (done.code, done.stderr) == (0, b"")
    assert done.stdout == upper(text)


async def test_insecure() -> None:
    """A certificate that nobody vouches for is accepted on request, with a warning."""
    async with peer(peers.upper, tls=peers.identity("other.example")) as port:
        done = await client(f"127.0.0.1:{port}", "--insecure", "-m", "hi")
    assert (done.code, done.stdout) == (0, b"HI\n")
    [line] = done.lines
    assert line.startswith("trio-upper: --insecure: no certificate is verified")


async def test_mutual_tls(pair: str, ca: str) -> None:
    """A demand for a certificate is met, or is explained, although it comes late (TLS 1.3)."""
    async with serving("--tls-cert", pair, "--tls-client-ca", ca) as server:
        options = [f"127.0.0.1:{server.port}", "--tls-ca", ca, "-m", "hi"]
        assert await client(*options, "--tls-cert", pair) == Ended(0, b"HI\n", b"")
        done = await client(*options)
    assert done.stdout == b""
    assert said(done).startswith(
        "the server wants a TLS certificate from this client: "
        "give one with --tls-cert and --tls-key"
    )


async def test_another_authority(tmp_path: Path) -> None:
    """A certificate of an authority that is not trusted is refused, with the way to trust it."""
    theirs = str(certificates.ca_file(tmp_path, "theirs"))
    async with peer(peers.upper, tls=peers.identity("localhost")) as port:
        done = await client(f"localhost:{port}", "--tls-ca", theirs, "-m", "hi")
    assert reason(done) == (
        "the server's TLS certificate is not trusted: if this is the right server, "
        "name the CA that signed it with --tls-ca, or give the --tls-fingerprint that the "
        "server printed"
    )


async def test_another_name(ca: str) -> None:
    """A certificate for another name is refused."""
    async with peer(peers.upper, tls=peers.identity("other.example")) as port:
        done = await client(f"localhost:{port}", "--tls-ca", ca, "-m", "hi")
    assert reason(done) == Cause.TLS_WRONG_NAME.sentence.format(detail="it lists other.example")


async def test_plain_against_tls(pair: str) -> None:
    """A server that wants TLS is recognised."""
    async with serving("--tls-cert", pair) as server:
        done = await client(f"localhost:{server.port}", "-m", "hi")
    assert done.stdout == b""
    assert said(done) == "the server wants TLS: add --tls"


@pytest.mark.parametrize(
    ("manner", "why"),
    [
        (peers.greeting(b"SSH-2.0-OpenSSH_9.6\r\n"), "the server does not speak TLS: "),
        (peers.end, "the server closed the connection during the TLS handshake: "),
        (peers.silent, "the server accepted the connection, but did not finish the TLS handshake"),
    ],
)
async def test_tls_against_plain(manner: peers.Script, why: str) -> None:
    """A server that speaks no TLS is told by what it does instead."""
    async with peer(manner) as port:
        done = await client(f"localhost:{port}", "--tls", "-m", "hi", "--connect-timeout", "3")
    assert reason(done).startswith(why)


async def test_tls_against_our_plain_server() -> None:
    """Our own server without TLS answers the hello, which no server with TLS does."""
    async with serving() as server:
        done = await client(f"localhost:{server.port}", "--tls", "-m", "hi")
    assert reason(done).startswith("the server does not speak TLS: ")


async def test_tls_that_is_cut(ca: str) -> None:
    """The connection's end without an end of TLS is told from a proper one, and noticed at once."""
    cutting = trio.Event()
    script = peers.answering(b"ONE\n", then=peers.when(cutting, peers.cut))
    async with (
        peer(script, tls=peers.identity("localhost")) as port,
        talking(f"localhost:{port}", "--tls-ca", ca) as process,
    ):
        await say(process, b"one\ntwo!\n")
        await hear(process, b"ONE\n")
        cutting.set()
        done = await ended(process, within=AT_ONCE_SECONDS)
    assert said(done) == (
        "the server cut the connection without ending TLS: no reply to 5 of the 9 bytes sent"
    )


async def test_an_incomplete_character_over_tls(ca: str) -> None:
    """TLS cannot end one direction, so the start of a character at the end stays unanswered."""
    script = peers.answering(b"HI\n")
    async with peer(script, tls=peers.identity("localhost")) as port:
        done = await client(f"localhost:{port}", "--tls-ca", ca, stdin=b"hi\n\xe2\x82")
    assert done.stdout == b"HI\n"
    assert said(done).endswith(": no reply to 2 of the 5 bytes sent")
