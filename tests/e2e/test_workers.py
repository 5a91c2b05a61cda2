"""Several processes on the same listeners, and what becomes of them and of their clients."""

import os
import signal
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from tests.helpers.certificates import issue, pair_file
from tests.helpers.program import LOCALHOST, Server, one, run, running, serving
from tests.helpers.streams import ask, receive_all
from tests.helpers.waiting import TIMEOUT_SECONDS, eventually

NOTICE = b"trio-upper: closing, the server is shutting down\n"

LONG_GRACE = ("--grace", "60")

TWO = ("--workers", "2", *LONG_GRACE)

# How long the clients of a load rest between two questions, in seconds.
REST = 0.002

# For which nothing is taken of a client once all buffers on the way are full.
STUCK_SECONDS = 0.3


async def both_serve(server: Server) -> dict[int, int]:
    """Return the process ids of both workers by their numbers, when they serve."""
    events = await server.repeated("worker started", 2)
    pids = {event["worker"]: event["pid"] for event in events}
    assert sorted(pids) == [1, 2]
    return pids


def has_ended(pid: int) -> bool:
    """Return whether a process has ended, waited for or not (proc_pid_stat(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


class Client:
    """One client of a load: it sends one message after another until its connection ends."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.peer = "{}:{}".format(*stream.socket.getsockname())
        self.answers = 0
        self.ended = False

    async def talk(self) -> None:
        with suppress(trio.BrokenResourceError):
            while (answer := await ask(self.stream, b"question\n")) == b"QUESTION\n":
                self.answers += 1
                await trio.sleep(REST)
            assert answer in {b"", NOTICE[:9]}
        self.ended = True


@asynccontextmanager
async def load(server: Server, count: int) -> AsyncGenerator[list[Client]]:
    """Have clients talk while the block runs."""
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        streams = [await stack.enter_async_context(await server.connect()) for _ in range(count)]
        clients = [Client(stream) for stream in streams]
        for client in clients:
            nursery.start_soon(client.talk)
        yield clients
        nursery.cancel_scope.cancel()


async def one_client_each(server: Server, stack: AsyncExitStack) -> dict[int, trio.SocketStream]:
    """Return a connection to each of the two workers, by its number."""
    found: dict[int, trio.SocketStream] = {}
    while len(found) < 2:
        stream = await stack.enter_async_context(await server.connect())
        assert await ask(stream, b"hi\n") == b"HI\n"
        peer = "{}:{}".format(*stream.socket.getsockname())
        found[(await server.event("client connected", peer=peer))["worker"]] = stream
    return found


# ------------------------------------------------------------------ serving


async def test_both_workers_answer() -> None:
    """Clients go to either, and the log tells which worker had which client."""
    async with serving(*TWO) as server, AsyncExitStack() as stack:
        await both_serve(server)
        streams = await one_client_each(server, stack)
        assert len(server.logged("listening")) == 1
        for stream in streams.values():
            assert await ask(stream, "straße\n".encode()) == b"STRASSE\n"
        server.send(signal.SIGUSR1)
        totals = await server.repeated("totals", 2)
        assert {event["worker"] for event in totals} == {1, 2}
        assert all(event["bytes_in"] >= 11 for event in totals)


async def test_text_carries_the_worker() -> None:
    """A person is told what to do next once, not once a worker."""
    async with running("serve", "--port", "0", *TWO) as server:
        await server.ready()
        async with await server.connect() as stream:
            assert await ask(stream, b"hi\n") == b"HI\n"
            assert "worker=" in await server.line("client connected")
            await server.line("from other machines")
        assert await server.stop() == 0
        assert len([line for line in server.lines if "from this machine" in line]) == 1


async def test_the_places_are_shared_out() -> None:
    """As many are served as the operator said, and the next one is refused, by whichever worker."""
    async with serving(*TWO, "--max-clients", "3") as server, AsyncExitStack() as stack:
        await both_serve(server)
        while len(server.logged("client connected")) < 3:
            # On a machine that is too busy, who has a place may be too late to accept.
            stream = await stack.enter_async_context(await server.connect())
            assert await ask(stream, b"hi\n") in {b"HI\n", b"tri"}
        async with await server.connect() as late:
            assert (await receive_all(late)).startswith(b"trio-upper: full, ")
        served = [event["worker"] for event in server.logged("client connected")]
        assert sorted(served) in ([1, 1, 2], [1, 2, 2])


async def test_one_port_for_all_addresses_of_all_workers() -> None:
    """The rules for listening are those of a single server."""
    addresses = ("127.87.49.1", "127.87.49.2")
    hosts = [word for address in addresses for word in ("--host", address)]
    async with serving(*TWO, *hosts) as server:
        for address in addresses:
            async with await server.connect(host=address) as stream:
                assert await ask(stream, b"hi\n") == b"HI\n"


async def test_without_standard_input_and_output() -> None:
    """Their numbers are free then, and nothing gets one of them that must not."""
    prefix = ("sh", "-c", 'exec "$@" <&- >&-', "sh")
    async with serving(*TWO, prefix=prefix) as server, AsyncExitStack() as stack:
        await both_serve(server)
        await one_client_each(server, stack)


# ------------------------------------------------------------------ dying


async def test_a_worker_killed_under_load() -> None:
    """Its clients see the end, the others nothing, new ones are served, a new worker appears."""
    async with serving(*TWO) as server, load(server, 20) as clients, AsyncExitStack() as stack:
        pids = await both_serve(server)
        idle = await one_client_each(server, stack)
        for client in clients:
            await server.event("client connected", peer=client.peer)
        of_victim = {event["peer"] for event in server.logged("client connected", worker=1)}
        its = [client for client in clients if client.peer in of_victim]
        others = [client for client in clients if client.peer not in of_victim]
        os.kill(pids[1], signal.SIGKILL)
        async with await server.connect() as new:
            assert await ask(new, b"hi\n") == b"HI\n"
        gone = await server.event("worker gone", worker=1)
        assert gone["how"] == "signal 9 (Killed)"
        again = (await server.repeated("worker started", 2, worker=1))[-1]
        assert again["pid"] not in pids.values()
        await one_client_each(server, stack)
        assert await receive_all(idle[1]) == b""
        assert await ask(idle[2], b"hi\n") == b"HI\n"
        await eventually(lambda: all(client.ended for client in its))
        before = [client.answers for client in others]
        await eventually(lambda: all(c.answers > b for c, b in zip(others, before, strict=True)))
        assert not any(client.ended for client in others)


async def test_a_worker_that_is_stopped_alone_is_replaced() -> None:
    """It drains as a server does: so workers can be renewed one after the other."""
    async with serving(*TWO) as server, AsyncExitStack() as stack:
        pids = await both_serve(server)
        streams = await one_client_each(server, stack)
        os.kill(pids[1], signal.SIGTERM)
        assert await receive_all(streams[1]) == NOTICE
        await streams[1].aclose()
        await server.repeated("worker started", 2, worker=1)
        assert one(server.logged("worker gone"))["how"] == "exit code 0"
        assert await ask(streams[2], b"hi\n") == b"HI\n"
        assert len(await one_client_each(server, stack)) == 2


async def test_where_no_worker_can_start_it_gives_up(tmp_path: Path) -> None:
    """With a line that says so, and exit code 1."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n'--worker' in sys.orig_argv and os._exit(3)\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = await run("serve", "--port", "0", *TWO, environment={"PYTHONPATH": path})
    assert done.code == 1
    assert done.lines[-1] == (
        "trio-upper: none of the 2 workers could start; the last one: exit code 3"
    )
    assert b"Traceback" not in done.stderr


# ------------------------------------------------------------------ stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_the_parent_drains_all(number: signal.Signals) -> None:
    """Every client gets its notice, and every worker ends; the exit code is 0, and it is soon."""
    async with serving(*TWO) as server, AsyncExitStack() as stack:
        pids = await both_serve(server)
        streams = await one_client_each(server, stack)
        server.send(number)
        with trio.fail_after(TIMEOUT_SECONDS):
            for stream in streams.values():
                assert await receive_all(stream) == NOTICE
                await stream.aclose()
            assert await server.ended() == 0
        assert all(map(has_ended, pids.values()))
        stopped = server.logged("stopped")
        assert [event.get("worker") for event in stopped[2:]] == [None]
        assert {event.get("worker") for event in stopped[:2]} == {1, 2}
        assert len(server.logged("stopping")) == 1


async def test_while_it_drains_nobody_is_accepted() -> None:
    """The listeners are closed in every process, though a client is still being answered."""
    async with serving(*TWO) as server, load(server, 4) as clients:
        await both_serve(server)
        await eventually(lambda: all(client.answers for client in clients))
        server.send(signal.SIGTERM)
        await eventually(lambda: refuses(server.port))
        before = [client.answers for client in clients]
        await eventually(lambda: all(c.answers > b for c, b in zip(clients, before, strict=True)))
        server.send(signal.SIGTERM)
        with trio.fail_after(TIMEOUT_SECONDS):
            assert await server.ended() == 1


def refuses(port: int) -> bool:
    """Return whether connections to `port` are refused."""
    with socket.socket() as one:
        return one.connect_ex((LOCALHOST, port)) != 0


async def test_the_grace_is_one_for_all() -> None:
    """Clients that are owed something after it are cut, in each worker, and the exit code tells."""
    grace = 0.5
    options = ("--workers", "2", "--grace", str(grace))
    async with serving(*options) as server, AsyncExitStack() as stack:
        await both_serve(server)
        for stream in (await one_client_each(server, stack)).values():
            await fill(stream)
        began = trio.current_time()
        assert await server.stop() == 1
        assert grace <= trio.current_time() - began <= grace + TIMEOUT_SECONDS
        cut = [event["cut"] for event in server.logged("stopped") if "cut" in event]
        assert sum(cut) == 2


async def fill(stream: trio.SocketStream) -> None:
    """Send, and receive nothing, until nothing is taken any more: the server cannot go on."""
    while True:
        with trio.move_on_after(STUCK_SECONDS) as limit:
            await stream.socket.send(bytes(65536))
        if limit.cancelled_caught:
            return


async def test_signals_for_everybody_at_once_do_not_cut() -> None:
    """As systemd sends SIGTERM to all processes of a service, and no order of its is forgotten."""
    async with serving(*TWO) as server, AsyncExitStack() as stack:
        pids = await both_serve(server)
        streams = await one_client_each(server, stack)
        for pid in [server.pid, *pids.values()]:
            os.kill(pid, signal.SIGTERM)
        for stream in streams.values():
            assert await receive_all(stream) == NOTICE
            await stream.aclose()
        assert await server.ended() == 0
        assert sum(event.get("cut", 0) for event in server.logged("stopped")) == 0


async def test_ctrl_c_is_for_the_parent_alone() -> None:
    """At a terminal it goes to the process group, in which the workers are not."""
    async with serving(*TWO) as server:
        pids = await both_serve(server)
        assert all(os.getpgid(pid) == pid for pid in pids.values())
        assert server.pid not in pids.values()


async def test_a_killed_parent_leaves_no_process() -> None:
    """Its workers notice, drain their clients, and end."""
    async with running("serve", "--port", "0", "--log-format", "json", *TWO) as server:
        await server.ready()
        async with AsyncExitStack() as stack:
            pids = await both_serve(server)
            streams = await one_client_each(server, stack)
            server.send(signal.SIGKILL)
            for stream in streams.values():
                assert await receive_all(stream) == NOTICE
                await stream.aclose()
        await eventually(lambda: all(map(has_ended, pids.values())))
        assert await server.ended() == -signal.SIGKILL
        assert {event["worker"] for event in server.logged("parent gone")} == {1, 2}
        assert b"Traceback" not in server.stderr


# ------------------------------------------------------------------ passed sockets


async def test_a_descriptor_that_is_not_a_listener_is_one_line() -> None:
    """Exit code 1; it does not listen where it was not asked to."""
    prefix = ("sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3</dev/null', "sh")
    done = await run("serve", prefix=prefix)
    assert done.code == 1
    assert done.lines == ["trio-upper: cannot inherit descriptor 3: it is not a socket"]


# ------------------------------------------------------------------ a renewed certificate


async def test_a_renewed_certificate_is_taken_over_without_a_lost_client(tmp_path: Path) -> None:
    """SIGTERM to one worker after the other: each reads the files anew; no client is refused."""
    pair = pair_file(tmp_path, issue("localhost", LOCALHOST))
    async with serving("--tls-cert", str(pair), *TWO) as server:
        pids = await both_serve(server)
        old = await certificates(server)
        pair_file(tmp_path, issue("localhost", LOCALHOST, "renewed.example"))
        for turn, (number, pid) in enumerate(pids.items(), start=1):
            os.kill(pid, signal.SIGTERM)
            await certificates(server)
            await server.event("worker gone", worker=number, how="exit code 0")
            await server.repeated("worker started", 2 + turn)
        new = await certificates(server)
        assert len(old) == len(new) == 1
        assert old != new


async def certificates(server: Server) -> set[bytes]:
    """Return the certificates that some clients see, each of which is served."""
    seen: set[bytes] = set()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for _ in range(8):
        stream = trio.SSLStream(await server.connect(), context)
        assert await ask(stream, b"hi") == b"HI"
        seen.add(stream.getpeercert(binary_form=True))
        await stream.aclose()
    return seen
