"""``client`` in a pipe and with ``-m``: what goes where, and the exit code."""

import errno
import io
import signal
import ssl
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import trio
from tests.helpers.commands import (
    REFUSED,
    TARGET,
    Killed,
    Network,
    Output,
    Peer,
    bound_runs,
    kill,
    upper,
)
from tests.helpers.streams import NoHalfClose
from trio.testing import MemoryReceiveStream, wait_all_tasks_blocked

from trio_upper.cli import client, output
from trio_upper.cli.client import (
    AT_ONCE_SECONDS,
    CLOSE_SECONDS,
    HALF_CLOSE_HINT,
    SLOW_SECONDS,
    Options,
    explain,
)
from trio_upper.client.account import Mismatch
from trio_upper.client.connect import Retries
from trio_upper.client.converse import Ending, Outcome
from trio_upper.client.failures import Cause
from trio_upper.client.settings import ConnectSettings
from trio_upper.protocol import idle_notice, shutdown_notice
from trio_upper.stdio.streams import InputError, OutputClosed, OutputError
from trio_upper.terminal.escape import QUOTED_CHARACTERS, quote

BROKEN_PIPE = BrokenPipeError(errno.EPIPE, "Broken pipe")
DISK_FULL = OSError(errno.ENOSPC, "No space left on device")
HANGING_UP = OSError(errno.EIO, "Input/output error")
NO_SUCH_INPUT = OSError(errno.EBADF, "Bad file descriptor")


class Input(trio.abc.ReceiveStream):
    """Standard input, of which `size` bytes are left as far as one knows."""

    def __init__(self) -> None:
        self._stream = MemoryReceiveStream()
        self.put_data = self._stream.put_data
        self.put_eof = self._stream.put_eof
        self.size: int | None = None
        self.closed = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        self.closed = True
        await self._stream.aclose()


class World(Network):
    """All that surrounds a client: the peer, standard input and output, and what was opened."""

    def __init__(self) -> None:
        super().__init__(upper)
        self.input = Input()
        self.output = Output()
        self.opened: list[str] = []

    async def connect(self, retries: Retries | None = None) -> trio.abc.Stream:
        self.opened.append("connection")
        return await super().connect(retries)

    async def open_input(self) -> Input:
        await trio.lowlevel.checkpoint()
        self.opened.append("input")
        return self.input

    def open_output(self) -> Output:
        self.opened.append("output")
        return self.output


def saying(words: bytes) -> Peer:
    """Return a peer that says `words` and closes, having read what there was."""

    async def peer(stream: trio.abc.HalfCloseableStream) -> None:
        await stream.receive_some()
        await stream.send_all(words)

    return peer


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    bound_runs(monkeypatch)
    monkeypatch.setattr(client, "open_connection", made.open_connection)
    monkeypatch.setattr(client, "open_input", made.open_input)
    monkeypatch.setattr(client, "open_output", made.open_output)
    monkeypatch.setattr("trio_upper.cli.run.end_with", kill)
    return made


def run(messages: Sequence[str] = (), options: Options = Options()) -> int:  # noqa: B008 - frozen
    return client.run(TARGET, messages, options)


class Recorded(NoHalfClose):
    """A stream that knows whether it was closed."""

    closed = False

    async def aclose(self) -> None:
        self.closed = True
        await super().aclose()


# ------------------------------------------------------------------ ways in and out


def test_each_message_is_sent_as_a_line(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """With ``-m`` standard input is not read; replies alone are on standard output."""
    assert run(["hello", "", "bye"]) == 0
    assert world.output.written == b"HELLO\n\nBYE\n"
    assert world.output.closed
    assert world.opened == ["output", "connection"]
    assert capsys.readouterr() == ("", "")


def test_a_message_that_is_not_utf8_goes_out_as_it_was_given(world: World) -> None:
    """The bytes on the command line are the bytes on the wire (PEP 383)."""
    assert run(["\udcff"]) == 0
    assert world.output.written == b"\xff\n"


def test_standard_input_goes_out_byte_for_byte(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without ``-m``, and with no newline added at its end."""
    world.input.put_data(b"hello\nthere")
    world.input.put_eof()
    assert run() == 0
    assert world.output.written == b"HELLO\nTHERE"
    assert world.input.closed
    assert capsys.readouterr() == ("", "")


def test_both_ends_are_open_before_anybody_is_connected_to(world: World) -> None:
    """If they cannot be opened no connection is made, and no socket can take the number of one."""
    world.input.put_eof()
    assert run() == 0
    assert world.opened == ["output", "input", "connection"]


def test_it_connects_as_the_options_have_it(world: World) -> None:
    """Each option reaches the dialling."""
    settings = ConnectSettings(connect_timeout=3, wait=60)
    run(["x"], Options(connection=settings))
    assert world.dialled == [(TARGET, settings)]


@pytest.mark.parametrize("messages", [["x"], []])
def test_no_connection_is_one_line_and_exit_code_1(
    world: World, capsys: pytest.CaptureFixture[str], messages: list[str]
) -> None:
    """What `failures` says of it, as the program's own line; nothing is read, written or left."""
    world.meets(REFUSED)
    world.input.put_data(b"hello\n")
    assert run(messages) == 1
    assert capsys.readouterr() == ("", f"trio-upper: {REFUSED}\n")
    assert world.output.written == b""
    assert world.output.closed
    assert world.input.closed is not bool(messages)


def test_a_reader_that_has_left_ends_it_as_sigpipe_does(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `| head -1` ends other filters: without a word."""
    world.output.error = OutputClosed(1, "write to", BROKEN_PIPE)
    with pytest.raises(Killed) as killed:
        run(["x"])
    assert killed.value.number is signal.SIGPIPE
    assert capsys.readouterr() == ("", "")


def test_output_that_cannot_be_written_is_one_line(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk is one line, not a traceback."""
    world.output.error = OutputError(1, "write to", DISK_FULL)
    assert run(["x"]) == 1
    _, err = capsys.readouterr()
    assert err.startswith("trio-upper: cannot write to standard output: the disk is full")
    assert err.count("\n") == 1


def test_output_that_proves_to_be_lost_at_the_end_is_no_success(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every reply came, and the disk is full all the same: the one thing that is said."""
    world.output.late_error = OutputError(1, "write to", DISK_FULL)
    assert run(["x"]) == 1
    _, err = capsys.readouterr()
    assert err.startswith("trio-upper: cannot write to standard output: the disk is full")
    assert err.count("\n") == 1


def test_input_that_cannot_be_read_is_one_line(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory or a descriptor of the wrong direction is one line, not a traceback."""

    async def fail(max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        raise InputError(0, "read", NO_SUCH_INPUT)

    monkeypatch.setattr(world.input, "receive_some", fail)
    assert run() == 1
    _, err = capsys.readouterr()
    assert err.startswith("trio-upper: cannot read standard input: it is closed")
    assert err.count("\n") == 1


def test_a_bug_is_not_explained_away(world: World) -> None:
    """Only what is known to go wrong becomes a line."""
    world.output.error = RuntimeError("a bug")
    with pytest.RaisesGroup(RuntimeError, flatten_subgroups=True):
        run(["x"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_by_itself(
    world: World, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the middle of waiting for input: no word, and the connection is closed first."""

    async def peer(stream: trio.abc.HalfCloseableStream) -> None:
        await wait_all_tasks_blocked()
        signal.raise_signal(number)
        await trio.sleep_forever()

    world.meets(peer)
    world.wrap = Recorded
    with pytest.raises(Killed) as killed:
        run()
    assert killed.value.number is number
    assert capsys.readouterr() == ("", "")
    assert world.output.closed
    [stream] = world.streams
    assert isinstance(stream, Recorded)
    assert stream.closed


class Keyboard(io.StringIO):
    """Standard input at a terminal, which hangs up when it is told to."""

    hung_up = False

    def isatty(self) -> bool:
        return not self.hung_up


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Keyboard:
    made = Keyboard()
    monkeypatch.setattr(sys, "stdin", made)
    return made


def test_a_terminal_may_end_the_input(world: World, keyboard: Keyboard) -> None:
    """Ctrl-D is an end as good as any."""
    world.input.put_data(b"hello\n")
    world.input.put_eof()
    assert run() == 0


@pytest.mark.parametrize("error", [None, InputError(0, "read", HANGING_UP)])
def test_a_terminal_that_hangs_up_is_no_end_of_the_input(
    world: World, keyboard: Keyboard, monkeypatch: pytest.MonkeyPatch, error: InputError | None
) -> None:
    """It reads like one, or fails, but it ends by SIGHUP, also if that itself comes later."""

    async def hang_up(max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        keyboard.hung_up = True
        if error:
            raise error
        return b""

    monkeypatch.setattr(world.input, "receive_some", hang_up)
    with pytest.raises(Killed) as killed:
        run()
    assert killed.value.number is signal.SIGHUP


def test_without_input_a_terminal_is_not_missed(world: World, keyboard: Keyboard) -> None:
    """With ``-m`` all is sent and answered, whatever becomes of standard input."""

    async def peer(stream: trio.abc.HalfCloseableStream) -> None:
        keyboard.hung_up = True
        await upper(stream)

    world.meets(peer)
    assert run(["hello"]) == 0


# ------------------------------------------------------------------ to whom, and how fast


def test_verbose_says_to_whom_and_how_fast(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error: the address, and the time of each reply that is a line."""

    async def slow(stream: trio.abc.HalfCloseableStream) -> None:
        async for data in stream:
            await trio.sleep(0.25)
            await stream.send_all(bytes(data).upper())

    world.meets(slow)
    assert run(["hello", "there"], Options(verbose=True)) == 0
    out, err = capsys.readouterr()
    assert world.output.written == b"HELLO\nTHERE\n"
    first, *replies = err.splitlines()
    assert first == f"trio-upper: {CONNECTED}"
    assert [line.rpartition(" in ")[0] for line in replies] == [
        "trio-upper: reply 1",
        "trio-upper: reply 2",
    ]
    assert replies[0].endswith(" 250.000 ms")
    assert out == ""


def test_a_terminal_that_takes_nothing_delays_no_transfer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of each reply is told when it goes on."""
    told: list[str] = []

    async def tell(line: str) -> None:
        while world.output.written != b"HELLO\nTHERE\n":  # noqa: ASYNC110 - takes nothing
            await trio.sleep(1)
        told.append(line)

    monkeypatch.setattr(client, "tell", tell)
    assert run(["hello", "there"], Options(verbose=True)) == 0
    assert [line.partition(" in ")[0] for line in told] == [
        CONNECTED.partition(" in ")[0],
        "reply 1",
        "reply 2",
    ]


def test_verbose_in_a_pipe(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """A line is a message there as well; a last one without its end has no time."""
    world.input.put_data(b"one\ntwo\nthr")
    world.input.put_eof()
    assert run([], Options(verbose=True)) == 0
    assert capsys.readouterr().err.count("trio-upper: reply ") == 2


def test_verbose_says_to_whom_once(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """A failure does not say it again."""
    world.meets(saying(b"NO\n"))
    assert run(["hello"], Options(verbose=True)) == 1
    assert capsys.readouterr().err.count(CONNECTED) == 1


def test_quiet_says_what_failed_alone(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """It was asked for errors only."""
    world.meets(saying(b"NO\n"))
    assert run(["hello"], Options(quiet=True)) == 1
    assert CONNECTED not in capsys.readouterr().err


@pytest.mark.parametrize("messages", [["hello"], []])
def test_a_host_that_was_not_given_is_said_to_be(
    world: World, capsys: pytest.CaptureFixture[str], messages: list[str]
) -> None:
    """Otherwise a user who forgot it would look for the fault on another machine."""
    world.meets(REFUSED)
    assert client.run(TARGET, messages, Options(), host_given=False) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"trio-upper: {REFUSED}",
        "trio-upper: no HOST was given, so it was example.lan",
    ]


# ------------------------------------------------------------------ a server that is starting


async def hang_up(stream: trio.abc.HalfCloseableStream) -> None:
    """Be a proxy whose server is not there."""
    await stream.receive_some()


WAITING = Options(connection=ConnectSettings(wait=60))


def test_messages_wait_for_the_server_behind_a_proxy(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """A connection that is closed before the first byte of a reply is tried again, with --wait."""
    world.meets(hang_up, hang_up, upper)
    assert run(["hello", "there"], WAITING) == 0
    assert world.output.written == b"HELLO\nTHERE\n"
    assert world.attempts == 3
    assert capsys.readouterr().err == ""


def test_a_proxy_whose_server_never_comes(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """The wait is one for all tries, and the last one's end is what is said."""
    world.meets(hang_up)
    assert run(["hello"], WAITING) == 1
    assert world.attempts > 10
    assert Cause.CLOSED.hint in capsys.readouterr().err


@pytest.mark.parametrize("options", [Options(), WAITING])
def test_what_was_answered_or_read_is_not_sent_again(world: World, options: Options) -> None:
    """Half a reply is the server's; standard input is gone when it has been read."""
    world.meets(saying(b"HEL"))
    assert run(["hello"], options) == 1
    assert world.attempts == 1
    world.meets(hang_up)
    world.input.put_data(b"hello\n")
    world.input.put_eof()
    assert run([], options) == 1
    assert world.attempts == 2


# ------------------------------------------------------------------ what takes long


class Screen(io.StringIO):
    """A terminal that keeps what is written."""

    def isatty(self) -> bool:
        return True


CONNECTING = "trio-upper: connecting to example.lan port 80"


@pytest.mark.parametrize(
    ("delay", "options", "said"),
    [
        (SLOW_SECONDS - 0.1, Options(), ""),
        (SLOW_SECONDS + 0.1, Options(), f"{CONNECTING} …\n"),
        (100, Options(connection=ConnectSettings(wait=120)), f"{CONNECTING}, trying for 120 s …\n"),
        (100, Options(quiet=True), ""),
    ],
)
def test_a_connection_that_takes_long_is_said_to_be_tried(
    world: World, monkeypatch: pytest.MonkeyPatch, delay: float, options: Options, said: str
) -> None:
    """Once, where somebody sees it and has not asked for quiet, whether it comes about or not."""

    async def tell_in_virtual_time(text: str) -> None:
        output.say(text)  # not in a thread: the clock would not wait for it

    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(client, "tell", tell_in_virtual_time)
    world.delay = delay
    assert run(["hello"], options) == 0
    assert screen.getvalue() == said
    world.meets(REFUSED)
    assert run(["hello"], options) == 1
    assert screen.getvalue() == f"{said}{said}trio-upper: {REFUSED}\n"


@pytest.mark.parametrize("closed", [False, True])
def test_a_script_is_not_told_that_it_takes_long(
    world: World,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    closed: bool,
) -> None:
    """A script gets what went wrong, and nothing else."""
    if closed:
        monkeypatch.setattr(sys, "stderr", None)
    world.delay = 100
    assert run(["hello"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_typed_line_that_the_terminal_cut_is_named(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal takes 4095 bytes of a line, and drops the rest in silence."""
    monkeypatch.setattr(sys, "stdin", Screen())
    world.input.put_data(b"x" * 4095 + b"\n")
    world.input.put_eof()
    assert run() == 0
    assert world.output.written == b"X" * 4095 + b"\n"
    assert "cut this line after 4095 bytes" in capsys.readouterr().err


# ------------------------------------------------------------------ the progress


class Meter:
    """Stands for the real one; keeps what it was made of, and when it was shown and taken away."""

    made: list[int | None]
    seen: list[str]

    def __init__(self, sink: Callable[[bytes], Awaitable[None]], size: int | None) -> None:
        self._sink = sink
        self.made.append(size)

    async def __call__(self, data: bytes) -> None:
        await self._sink(data)

    async def show(self) -> None:
        self.seen.append("shown")
        try:
            await trio.sleep_forever()
        finally:
            self.seen.append("taken away")


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> type[Meter]:
    Meter.made, Meter.seen = [], []
    monkeypatch.setattr(client, "Meter", Meter)
    return Meter


@pytest.mark.parametrize("size", [11, None])
def test_progress_is_shown_where_somebody_sees_it(
    world: World, meter: type[Meter], size: int | None
) -> None:
    """From the beginning to the end of the conversation, with the size of the input if known."""
    world.input.put_data(b"hello\nthere")
    world.input.put_eof()
    world.input.size = size
    assert run() == 0
    assert world.output.written == b"HELLO\nTHERE"
    assert meter.made == [size]
    assert meter.seen == ["shown", "taken away"]


def test_messages_have_progress_too(world: World, meter: type[Meter]) -> None:
    """There may be many, of unknown total size."""
    assert run(["hello"]) == 0
    assert world.output.written == b"HELLO\n"
    assert meter.made == [None]


def test_progress_is_taken_away_before_anything_is_said(
    world: World, meter: type[Meter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure is a line of its own."""
    monkeypatch.setattr(output, "say", meter.seen.append)
    world.meets(saying(b"HEL"))
    assert run(["hello"]) == 1
    assert meter.seen[:2] == ["shown", "taken away"]
    assert len(meter.seen) == 4


def test_quiet_has_no_progress(world: World, meter: type[Meter]) -> None:
    """Quiet means replies and errors only."""
    assert run(["hello"], Options(quiet=True)) == 0
    assert not meter.seen


# ------------------------------------------------------------------ how it went


def test_a_notice_goes_to_standard_error(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """In the server's words, and never to standard output."""
    world.meets(saying(b"HELLO\n" + shutdown_notice()))
    world.input.put_data(b"hello\n")
    assert run() == 1
    assert world.output.written == b"HELLO\n"
    assert capsys.readouterr() == (
        "",
        f"trio-upper: {CONNECTED}\ntrio-upper: closing, the server is shutting down\n",
    )


def test_a_server_that_closes_early_is_a_failure(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it owed is counted to the byte; the input, which has not ended, is not waited for."""
    world.meets(saying(b"HEL"))
    world.input.put_data(b"hello\n")
    assert run() == 1
    assert world.output.written == b"HEL"
    assert capsys.readouterr().err == (
        f"trio-upper: {CONNECTED}\n"
        "trio-upper: the server closed the connection: no reply to 3 of the 6 bytes sent\n"
    )


def test_a_silent_server_is_given_up_on(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """The reply time-out of the options is the one that holds."""

    async def silent(stream: trio.abc.HalfCloseableStream) -> None:
        await trio.sleep_forever()

    world.meets(silent)
    assert run(["hello"], Options(reply_timeout=2.5)) == 1
    assert capsys.readouterr().err == (
        f"trio-upper: {CONNECTED}\n"
        "trio-upper: the server sent nothing for 2.5 s: no reply to the 6 bytes sent\n"
    )


def test_a_close_that_waits_for_the_peer_has_a_deadline(world: World) -> None:
    """A TLS peer that never answers the closing alert delays the end by no more than that."""
    waited: list[float] = []

    class Stuck(NoHalfClose):
        async def aclose(self) -> None:
            began = trio.current_time()
            try:
                await trio.sleep_forever()
            finally:
                waited.append(trio.current_time() - began)
                await super().aclose()

    world.wrap = Stuck
    assert run(["hello"]) == 0
    assert world.output.written == b"HELLO\n"
    assert waited == [pytest.approx(CLOSE_SECONDS)]


def outcome(ending: Ending, owed: int = 0, unanswered: int = 0, **more: Any) -> Outcome:
    return Outcome(ending=ending, owed=owed, unanswered=unanswered, **more)


CONNECTED = "connected to example.lan (192.0.2.1) port 80 in 0.4 ms"
WRONG = "byte 5 of the replies is wrong: 'i' (0x69) came, 'L' (0x4c) was owed"
CUT = "the input ends inside a character, and TLS cannot say so to the server"
WANTED = trio.BrokenResourceError("x")
WANTED.__cause__ = ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] (_ssl.c:1)")
WANTED.__cause__.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
RESET = trio.BrokenResourceError("x")
RESET.__cause__ = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


@pytest.mark.parametrize(
    ("how", "lines"),
    [
        (outcome(Ending.ANSWERED, 6), []),
        (
            outcome(Ending.ANSWERED, 6, 1),
            [f"{CUT}: no reply to 1 of the 6 bytes sent"],
        ),
        (outcome(Ending.CLOSED), [f"the server closed the connection; {Cause.CLOSED.hint}"]),
        (outcome(Ending.CLOSED, seconds=AT_ONCE_SECONDS), ["the server closed the connection"]),
        (
            outcome(Ending.CLOSED, 6, 6, cut_by_half_close=True),
            [f"the server closed the connection: no reply to the 6 bytes sent; {HALF_CLOSE_HINT}"],
        ),
        (
            outcome(Ending.CLOSED, 6, 2),
            ["the server closed the connection: no reply to 2 of the 6 bytes sent"],
        ),
        (
            outcome(Ending.NOTICE, words=b"\n" + idle_notice(600)),
            ["closing, no message for 600 s"],
        ),
        (
            outcome(Ending.NOTICE, 6, 6, words=b"trio-upper: \x1b[2J\n"),
            [r"\x1b[2J: no reply to the 6 bytes sent"],
        ),
        (
            outcome(Ending.FOREIGN, 6, 6, words=b"SSH-2.0-x\r\n"),
            ["this does not look like a trio-upper server; it said: 'SSH-2.0-x'"],
        ),
        (
            outcome(Ending.FOREIGN, 6, 6, words=b"\x15\x03\x01\x00\x02\x02\x46"),
            [Cause.TLS_WANTED.sentence],
        ),
        (
            outcome(Ending.FOREIGN, 6, 6, words=b"\r\n"),
            ["this does not look like a trio-upper server; it said: an empty line"],
        ),
        (
            outcome(Ending.SILENT, 6, 6),
            ["the server sent nothing for 2.5 s: no reply to the 6 bytes sent"],
        ),
        (
            outcome(Ending.BROKEN, 6, 6, error=RESET),
            [f"the server reset the connection: no reply to the 6 bytes sent; {Cause.CLOSED.hint}"],
        ),
        (
            outcome(Ending.BROKEN, 6, 4, error=RESET),
            ["the server reset the connection: no reply to 4 of the 6 bytes sent"],
        ),
        (outcome(Ending.BROKEN), ["the connection broke"]),
        (
            outcome(Ending.BROKEN, 6, 6, error=WANTED),
            [f"{Cause.TLS_CERTIFICATE_WANTED.sentence}: no reply to the 6 bytes sent"],
        ),
        (
            outcome(Ending.WRONG, 6, 2, mismatch=Mismatch(position=5, came=0, owed=ord("L"))),
            [WRONG.replace("'i' (0x69)", "0x00")],
        ),
        (
            outcome(
                Ending.WRONG,
                6,
                2,
                words=b"Killed\n",
                mismatch=Mismatch(position=5, came=ord("i"), owed=ord("L")),
            ),
            [f"{WRONG}; it said: 'Killed'"],
        ),
    ],
)
def test_each_ending_has_its_words(how: Outcome, lines: list[str]) -> None:
    """Nothing if all is well; else why, and what is missing, in one line."""
    assert explain(how, Options(reply_timeout=2.5)) == lines


@pytest.mark.parametrize(
    ("words", "quoted"),
    [
        (b"SSH-2.0-x\r\nmore", "'SSH-2.0-x'"),
        (b"\r\n\nhello\n", "'hello'"),
        (b"\x1b[31mred\xff", r"'\x1b[31mred\xff'"),
        (b"", "''"),
        (b"x" * QUOTED_CHARACTERS, f"'{'x' * QUOTED_CHARACTERS}'"),
        (b"x" * (QUOTED_CHARACTERS + 1), f"'{'x' * QUOTED_CHARACTERS}…'"),
    ],
)
def test_a_quote_is_one_line_that_harms_no_terminal(words: bytes, quoted: str) -> None:
    """The first line that says something, escaped, and cut where it gets long."""
    assert quote(words) == quoted


def test_a_quote_may_be_shorter() -> None:
    """Where many stand on one line."""
    assert quote(b"hello", 5) == "'hello'"
    assert quote(b"hello", 4) == "'hell…'"
