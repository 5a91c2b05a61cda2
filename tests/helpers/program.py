"""The program as a process, for end-to-end tests: started, watched, and ended on every path.

`running` starts a server as it is told, `serving` one that is ready on a port that is known,
`run` and `client` run a command to its end. What a test needs to be a peer of a server stands here,
too.
"""

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import trio

from tests.helpers.streams import ask, upper
from tests.helpers.waiting import TIMEOUT_SECONDS

if sys.platform != "win32":
    from tests.helpers import starter

Found = TypeVar("Found")
Event = dict[str, Any]

# A neighbour's question is answered in so many seconds at most, and it rests for so many after it.
NEIGHBOUR_SECONDS = 5.0
NEIGHBOUR_REST_SECONDS = 0.005

LINGER_BY_RESET = struct.pack("ii", 1, 0)
LOCALHOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and what it wrote."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def lines(self) -> list[str]:
        """The lines on standard error."""
        return self.stderr.decode().splitlines()


async def run(
    *arguments: str,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> Ended:
    """Run ``python -m trio_upper`` with `arguments` until it ends.

    `environment` is added to this process's own. `prefix` is a command that runs another one, as in
    ``env`` or ``prlimit``.
    """
    async with running(*arguments, environment=environment, prefix=prefix) as program:
        await program.hears(stdin)
        return Ended(await program.ended(), program.stdout, program.stderr)


async def client(*arguments: str, stdin: bytes = b"") -> Ended:
    """Run the client with `arguments` on `stdin` until it ends."""
    return await run("client", *arguments, stdin=stdin)


def command(*arguments: str, prefix: Sequence[str] = ()) -> list[str]:
    """Return the words that run the program with this interpreter."""
    return [*prefix, sys.executable, "-m", "trio_upper", *arguments]


class Forked:
    """What `starter` has forked, with pipes as its standard streams: as a `trio.Process`."""

    pid = 0
    returncode: int | None = None

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        pipes = [os.pipe() for _ in range(3)]
        theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
        self.stdin = trio.lowlevel.FdStream(pipes[0][1])
        self.stdout = trio.lowlevel.FdStream(pipes[1][0])
        self.stderr = trio.lowlevel.FdStream(pipes[2][0])
        self._leader = starter.start(words, environment, theirs, terminal=False)
        self._waiting = trio.Lock()
        for fd in theirs:
            os.close(fd)

    async def started(self) -> Self:
        """Wait until the process id is known."""
        with trio.CancelScope(shield=True):
            await trio.lowlevel.wait_readable(self._leader)
        self.pid = int(self._leader.recv(starter.REPORT_BYTES))
        return self

    def poll(self) -> int | None:
        """Return how it has ended, None while it runs."""
        if self.returncode is None:
            with suppress(BlockingIOError):
                told = self._leader.recv(starter.REPORT_BYTES, socket.MSG_DONTWAIT)
                self.returncode = int(told)
                self._leader.close()
        return self.returncode

    async def wait(self) -> int:
        """Wait until it has ended, and return how."""
        async with self._waiting:
            while (code := self.poll()) is None:
                await trio.lowlevel.wait_readable(self._leader)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


async def start(words: Sequence[str], environment: Mapping[str, str]) -> trio.Process | Forked:
    """Start `words` with pipes as standard streams; `environment` is added to this process's."""
    if sys.platform != "win32" and not starter.needs_interpreter(words, environment):
        return await Forked(words, environment).started()
    pipe = subprocess.PIPE
    return await trio.lowlevel.open_process(
        list(words), stdin=pipe, stdout=pipe, stderr=pipe, env=os.environ | environment
    )


class Server:
    """A server that runs, what it has written up to now, and ways to connect to it."""

    def __init__(self, process: trio.Process | Forked) -> None:
        self._process = process
        self._news = trio.Event()
        self._readable = True
        self._reading_stderr = trio.CancelScope()
        #: Where it listens, when it is ready.
        self.port = 0
        self.stdout = b""
        self.stderr = b""
        #: What it logged as JSON.
        self.events: list[Event] = []

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def lines(self) -> list[str]:
        """The whole lines on standard error."""
        return self.stderr.decode().split("\n")[:-1]

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    async def hears(self, data: bytes) -> None:
        """Write all of `data` to standard input, unless nobody reads it, and close it."""
        assert self._process.stdin
        async with self._process.stdin as stdin:
            with suppress(trio.BrokenResourceError), trio.fail_after(TIMEOUT_SECONDS):
                await stdin.send_all(data)

    async def ended(self) -> int:
        """Return the exit code when the process has ended, and all that it wrote has come."""
        with trio.fail_after(TIMEOUT_SECONDS):
            code = await self._process.wait()
            while self._readable:
                await self._news.wait()
        return code

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal to stop and return the exit code, as `ended` does."""
        self.send(number)
        return await self.ended()

    async def until(self, find: Callable[[], Found | None]) -> Found:
        """Return what `find` returns, as soon as that is true, looking whenever something came."""
        with trio.move_on_after(TIMEOUT_SECONDS):
            while not (found := find()) and self._readable:
                await self._news.wait()
            if found:
                return found
        raise AssertionError(f"this did not come; it wrote: {self.stderr.decode()}")

    async def line(self, words: str) -> str:
        """Return the first line on standard error with `words` in it, as soon as there is one."""
        return (await self.until(lambda: [line for line in self.lines if words in line]))[0]

    async def event(self, name: str, **fields: object) -> Event:
        """Return the first logged event of this name with these fields, as soon as there is one."""
        return (await self.repeated(name, 1, **fields))[0]

    async def repeated(self, name: str, count: int, **fields: object) -> list[Event]:
        """Return the logged events of this name with these fields, as soon as they are `count`."""

        def enough() -> list[Event]:
            found = self.logged(name, **fields)
            return found if len(found) >= count else []

        return await self.until(enough)

    def logged(self, name: str, **fields: object) -> list[Event]:
        """Return the events of this name with these fields that were logged until now."""
        wanted = {"event": name, **fields}.items()
        return [event for event in self.events if wanted <= event.items()]

    async def ready(self) -> Self:
        """Wait until clients can connect; the port is known then."""
        found = await self.until(lambda: re.search(r"\bport\W{1,3}(\d+)\b", "\n".join(self.lines)))
        self.port = int(found[1])
        return self

    async def connect(
        self, *, host: str = LOCALHOST, receive_buffer: int | None = None
    ) -> trio.SocketStream:
        """Return a connection; `receive_buffer` in bytes bounds what it takes unread."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        connection = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            if receive_buffer is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            await connection.connect((host, self.port))
        except BaseException:
            connection.close()
            raise
        return trio.SocketStream(connection)

    def look_away(self) -> None:
        """Read no more of standard error."""
        self._reading_stderr.cancel()

    async def hang_up(self) -> None:
        """Read no more of standard error, and close this end of it."""
        assert self._process.stderr
        self.look_away()
        await self._process.stderr.aclose()

    def descriptors(self) -> int:
        """Return how many descriptors the process holds open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def memory(self) -> int:
        """Return the size in bytes of what the process holds in memory (proc_pid_statm(5))."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu(self) -> float:
        """Return the seconds of processor time that the process has used (proc_pid_stat(5))."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def _read(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_stdout)
            nursery.start_soon(self._read_stderr)
        self._readable = False
        self._tell()

    async def _read_stdout(self) -> None:
        assert self._process.stdout
        async for data in self._process.stdout:
            self.stdout += data

    async def _read_stderr(self) -> None:
        assert self._process.stderr
        begun = b""
        with self._reading_stderr:
            async for data in self._process.stderr:
                self.stderr += data
                *whole, begun = (begun + data).split(b"\n")
                self.events += [json.loads(line) for line in whole if line.startswith(b"{")]
                self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def _end(self) -> None:
        """See to it that the process has ended, whatever it takes."""
        if self._process.poll() is None:
            self.send(signal.SIGTERM)
            with trio.move_on_after(TIMEOUT_SECONDS / 2):
                await self._process.wait()
                return
            self.send(signal.SIGKILL)
        await self._process.wait()


@asynccontextmanager
async def running(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> AsyncGenerator[Server]:
    """Run ``python -m trio_upper`` with `arguments`, a server, while the block runs.

    `environment` and `prefix` are as in `run`.
    """
    async with trio.open_nursery() as nursery:
        server = Server(await start(command(*arguments, prefix=prefix), environment or {}))
        try:
            nursery.start_soon(server._read)
            yield server
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + TIMEOUT_SECONDS):
                await server._end()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def serving(
    *options: str,
    environment: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> AsyncGenerator[Server]:
    """Run a server on a port of the system's choice while the block runs; it logs as JSON.

    A test that does not stop the server itself has it stopped, and then that must go well.
    No test ever makes it write a traceback, or anything to standard output.
    """
    arguments = ("serve", "--port", "0", "--log-format", "json", *options)
    async with running(*arguments, environment=environment, prefix=prefix) as server:
        yield await server.ready()
        if server._process.poll() is None:
            assert await server.stop() == 0
        assert b"Traceback" not in server.stderr
        assert server.stdout == b""


def reset(stream: trio.SocketStream) -> None:
    """Close a connection by a reset (SO_LINGER of 0 s, socket(7))."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_BY_RESET)
    stream.socket.close()


@asynccontextmanager
async def neighbour(stream: trio.abc.Stream) -> AsyncGenerator[None]:
    """While the block runs, a client asks one question after the other and is answered each."""
    done = trio.Event()
    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(_ask_until, done, stream)
        yield
        done.set()


async def _ask_until(done: trio.Event, stream: trio.abc.Stream) -> None:
    question = b"Question 1"
    while not done.is_set():
        with trio.fail_after(NEIGHBOUR_SECONDS):
            assert await ask(stream, question) == upper(question)
        question = b"Question %d" % (int(question.split()[1]) + 1)
        await trio.sleep(NEIGHBOUR_REST_SECONDS)


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as one:
        one.bind((LOCALHOST, 0))
        port: int = one.getsockname()[1]
        return port


def one(found: Iterable[Found]) -> Found:
    """Return the only one that was found."""
    [only] = found
    return only
