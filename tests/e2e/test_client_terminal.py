"""The client as a process at a pseudo-terminal: its prompt, its ends, and servers that go."""

import os
import re
import signal
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from tests.helpers import peers
from tests.helpers.peers import peer
from tests.helpers.program import LOCALHOST, serving
from tests.helpers.streams import receive, receive_all, receive_line
from tests.helpers.terminals import (
    CTRL_C,
    CTRL_D,
    CTRL_Z,
    ENTER,
    PASTE_END,
    PASTE_START,
    SEQUENCE,
    UP,
    Terminal,
    terminal,
)
from tests.helpers.waiting import AT_ONCE_SECONDS, eventually

# One line as it can be pasted by mistake: more than any buffer on its way holds, in bytes.
LONG_LINE = 2_000_000

TIME = r"\d+\.\d\d m?s"

OFFER = r"Enter connects again, Ctrl-D ends\."


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Give each test a terminal that can everything and a state folder of its own; return that."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


@asynccontextmanager
async def at_prompt(port: int, *options: str, **environ: str) -> AsyncIterator[Terminal]:
    """Somebody at the prompt of a client that is connected to `port`."""
    async with terminal("client", LOCALHOST, str(port), *options, environ=environ) as person:
        await person.sees(rf"connected to 127\.0\.0\.1 port {port} in \d+\.\d ms; Ctrl-D ends\s+")
        await person.sees(f"127.0.0.1:{port}>")
        yield person


async def converse(person: Terminal, message: str = "hello") -> None:
    """Send a message and see its reply."""
    await person.types(message, ENTER)
    await person.sees(rf"{message}\s")
    await person.sees(rf"{message.upper()} +{TIME}\s")


async def half_typed(person: Terminal) -> None:
    """Type half a line, and see it."""
    await person.types("half a line")
    await person.sees("half a line")


async def leaves(person: Terminal, code: int) -> None:
    """See the client end with `code`, and the terminal as it was."""
    with trio.fail_after(AT_ONCE_SECONDS):
        assert await person.ends() == code
    assert person.sane


# Where to


async def test_host_and_port_are_asked_for() -> None:
    """Defaults stand in brackets; what is wrong is explained, and it alone is asked for again."""
    with peers.closed_port() as closed:
        async with peer(peers.upper) as port, terminal("client") as person:
            await person.sees(r"Host \[127\.0\.0\.1\]:")
            await person.types("no host", ENTER)
            await person.sees("'no host' is not a valid host; give")
            await person.sees(r"Host \[127\.0\.0\.1\]:")
            await person.types("localhost", ENTER)
            await person.sees(r"Port \[8746\]:")
            await person.types("99999", ENTER)
            await person.sees(r"99999 is not a valid port; [^\n]+\nPort \[8746\]:")
            await person.types(str(closed), ENTER)
            await person.sees(f"cannot connect to localhost port {closed}: refused")
            await person.sees(r"Host \[localhost\]:")
            await person.types(ENTER)
            await person.sees(rf"Port \[{closed}\]:")
            await person.types(str(port), ENTER)
            await person.sees("connected to localhost")
            await converse(person)
            await person.types(CTRL_D)
            await leaves(person, 0)


async def test_only_the_port_is_asked_for() -> None:
    """A host of the command line is not asked for again."""
    async with peer(peers.upper) as port, terminal("client", "localhost") as person:
        await person.sees(r"^Port \[8746\]:")
        await person.types(str(port), ENTER)
        await person.sees(rf"connected to localhost \(127\.0\.0\.1\) port {port}")


async def test_nothing_is_asked_where_all_is_given() -> None:
    """A client that is told where to, and cannot connect, says so and ends."""
    with peers.closed_port() as closed:
        async with terminal("client", LOCALHOST, str(closed)) as person:
            await person.sees("trio-upper: cannot connect to .*: refused .*tried 127.0.0.1")
            await leaves(person, 1)


async def test_a_server_that_does_not_answer() -> None:
    """Soon it is said what takes so long; Ctrl-C ends it."""
    with peers.full_port() as port:
        async with terminal("client", LOCALHOST, str(port)) as person:
            await person.sees(rf"^trio-upper: connecting to 127\.0\.0\.1 port {port} …\s+$")
            await person.types(CTRL_C)
            await leaves(person, -signal.SIGINT)


async def test_a_server_that_is_still_starting() -> None:
    """With --wait it is said how long it is tried, and then that it is there."""
    with peers.bound_socket() as bound:
        port = bound.getsockname()[1]
        async with terminal("client", LOCALHOST, str(port), "--wait", "60") as person:
            await person.sees(
                rf"^trio-upper: connecting to 127\.0\.0\.1 port {port}, trying for 60 s …"
            )
            bound.listen()
            await person.sees(f"connected to 127.0.0.1 port {port}")


@pytest.mark.parametrize(("key", "code"), [(CTRL_C, -signal.SIGINT), (CTRL_D, 1)])
async def test_no_answer_to_a_question(key: str, code: int) -> None:
    """Ctrl-C and Ctrl-D end at a question, too."""
    async with terminal("client") as person:
        await person.sees(r"Host \[127\.0\.0\.1\]:")
        await person.types(key)
        await leaves(person, code)


# Messages


async def test_messages() -> None:
    """Each reply stands above the prompt, with its round-trip time; Ctrl-D ends with success."""
    async with serving() as server, at_prompt(server.port) as person:
        await converse(person)
        await person.types("Straße 日本 🎉", ENTER)
        await person.sees(rf"STRASSE 日本 🎉 +{TIME}\s")
        await person.types(ENTER)
        await person.sees(rf"\s +{TIME}\s")
        await person.types(CTRL_D)
        await leaves(person, 0)


async def test_history(state: Path) -> None:
    """Arrow-up brings back what was typed in the run before, which nobody else can read."""
    async with peer(peers.upper) as port:
        async with at_prompt(port) as person:
            await converse(person, "first")
            await converse(person, "second")
            await person.types(CTRL_D)
            await leaves(person, 0)
        async with at_prompt(port) as person:
            await person.types(UP)
            await person.sees("second")
            await person.types(UP)
            await person.sees("first")
            await person.types(ENTER)
            await person.sees("FIRST")
    history = state / "trio-upper" / "history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert stat.S_IMODE(history.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("marks", [(PASTE_START, PASTE_END), ("", "")])
async def test_300_pasted_lines(marks: tuple[str, str]) -> None:
    """All of them are answered, in order, whether the terminal marks a paste or does not."""
    lines = [f"line {number}" for number in range(300)]
    start, end = marks
    async with peer(peers.ours) as port, at_prompt(port) as person:
        await person.types(start, *(f"{line}\r" for line in lines), end)
        await person.sees("LINE 299 ")
        replies = re.findall(rb"LINE \d+", SEQUENCE.sub(b"", person.raw))
        assert [reply.decode() for reply in replies] == [line.upper() for line in lines]
        await person.types(CTRL_D)
        await leaves(person, 0)


async def test_a_very_long_line() -> None:
    """2 MB in one line, pasted, are answered to the last of them, and the prompt goes on."""
    async with peer(peers.ours) as port, at_prompt(port) as person:
        await person.types(PASTE_START, "x" * LONG_LINE, PASTE_END, ENTER)
        await person.sees(rf"X +{TIME}\s")
        await converse(person)
        assert SEQUENCE.sub(b"", person.raw).count(b"X") == LONG_LINE


async def test_quiet() -> None:
    """With -q nothing is shown but the prompt and replies."""
    async with peer(peers.upper) as port, terminal("client", LOCALHOST, str(port), "-q") as person:
        await person.sees(rf"^\s*127\.0\.0\.1:{port}>")
        await converse(person)


# The end


async def test_ctrl_c() -> None:
    """Ctrl-C with half a line typed ends by SIGINT."""
    async with peer(peers.upper) as port, at_prompt(port) as person:
        await half_typed(person)
        await person.types(CTRL_C)
        await leaves(person, -signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
async def test_a_signal(number: signal.Signals) -> None:
    """A signal with half a line typed ends by itself, and leaves the terminal sane."""
    async with peer(peers.upper) as port, at_prompt(port) as person:
        await half_typed(person)
        assert not person.sane
        os.kill(person.pid, number)
        await leaves(person, -number)


async def test_the_window_is_closed() -> None:
    """When the terminal goes the client ends by SIGHUP, also if the signal itself does not come."""
    async with peer(peers.upper) as port, at_prompt(port) as person:
        await half_typed(person)
        person.hang_up()  # the leader of the session gets the signal, and does not hand it on
        with trio.fail_after(AT_ONCE_SECONDS):
            assert await person.ends() == -signal.SIGHUP


@pytest.mark.parametrize("term", ["xterm", "dumb"])
async def test_the_window_is_closed_at_the_offer(term: str) -> None:
    """That is no Ctrl-D either."""
    async with (
        peer(peers.end) as port,
        terminal("client", LOCALHOST, str(port), environ={"TERM": term}) as person,
    ):
        await person.sees(OFFER)
        person.hang_up()
        with trio.fail_after(AT_ONCE_SECONDS):
            assert await person.ends() == -signal.SIGHUP


async def test_suspended() -> None:
    """Ctrl-Z leaves a sane terminal to the shell, and fg brings the prompt back as it was."""
    async with peer(peers.upper) as port, at_prompt(port) as person:
        await half_typed(person)
        await person.types(CTRL_Z)
        await person.stops()
        assert person.sane
        await person.wakes()
        await person.sees(f"127.0.0.1:{port}> *half a line")
        await eventually(lambda: not person.sane)
        await person.types(", whole", ENTER)
        await person.sees("HALF A LINE, WHOLE")


# Servers that go


async def test_the_server_is_killed() -> None:
    """With half a line typed it is noticed at once and said; Ctrl-D at the offer is a failure."""
    async with serving() as server, at_prompt(server.port) as person:
        await converse(person)
        await half_typed(person)
        with trio.fail_after(AT_ONCE_SECONDS):
            assert await server.stop(signal.SIGKILL) == -signal.SIGKILL
            await person.sees(r"trio-upper: the server closed the connection\s")
            await person.sees(r"trio-upper: not sent: 'half a line'\s")
            await person.sees(OFFER)
        await person.types(CTRL_D)
        await leaves(person, 1)


async def test_the_server_stops_and_comes_back() -> None:
    """The notice is shown; Enter connects again, in vain at first, and the conversation goes on."""
    async with serving() as server, at_prompt(server.port) as person:
        await half_typed(person)
        assert await server.stop() == 0
        await person.sees(r"trio-upper: closing, the server is shutting down\s")
        await person.sees(OFFER)
        await person.types(ENTER)
        await person.sees("refused")
        await person.sees(OFFER)
        async with serving("--port", str(server.port)):
            await person.types(ENTER)
            await person.sees(f"connected to 127.0.0.1 port {server.port}")
            await converse(person)
            await person.types(CTRL_D)
            await leaves(person, 0)


async def test_words_typed_at_the_offer() -> None:
    """Enter connects again, and they stand in the new prompt, to be edited and sent."""
    first = trio.Event()

    async def script(stream: trio.abc.Stream) -> None:
        if first.is_set():
            await peers.upper(stream)
        first.set()

    async with peer(script) as port, terminal("client", LOCALHOST, str(port)) as person:
        await person.sees(OFFER)
        await person.types("hello", ENTER)
        await person.sees(f"127.0.0.1:{port}> *hello")
        await person.types(" again", ENTER)
        await person.sees(rf"HELLO AGAIN +{TIME}")


async def test_unanswered_messages() -> None:
    """They are counted and named, the first ones each, and are not sent again."""
    later = trio.Event()
    received: list[bytes] = []

    async def script(stream: trio.abc.Stream) -> None:
        if later.is_set():
            received.append(await receive_line(stream))
            await stream.send_all(received[-1].upper())
            await receive_all(stream)
        else:
            await stream.send_all((await receive(stream, 48))[:6].upper())
            await peers.end(stream)

    async with peer(script) as port, at_prompt(port) as person:
        await person.types(*(f"no {number}!\r" for number in range(8)))
        await person.sees("NO 0!")
        await person.sees("the server closed the connection: no reply to 42 of the 48 bytes sent")
        await person.sees(r"not answered: 'no 1!', 'no 2!', 'no 3!' and 4 more\s")
        await person.sees(OFFER)
        later.set()
        await person.types(ENTER)
        await person.sees("connected to")
        await converse(person, "something else")
        assert received == [b"something else\n"]


async def test_messages_that_could_not_even_be_sent() -> None:
    """What was entered while the server took nothing is named, too, when the server goes."""
    resetting = trio.Event()
    script = peers.when(resetting, peers.reset)
    async with peer(script, receive_buffer=4096) as port, at_prompt(port) as person:
        await person.types(*[f"{'x' * 4000}\r"] * 300, "the last one", ENTER)
        await person.sees("the last one\r\n")
        resetting.set()
        await person.sees(OFFER)
        assert b" and 298 more\r\n" in person.raw


async def test_a_server_that_is_full() -> None:
    """The notice is shown, and the offer to try again."""
    async with (
        serving("--max-clients", "1") as server,
        at_prompt(server.port) as first,
        terminal("client", LOCALHOST, str(server.port)) as second,
    ):
        await converse(first)
        await second.sees("trio-upper: full, 1 clients are connected; try again later")
        await second.sees(OFFER)
        await second.types(CTRL_D)
        await leaves(second, 1)


# Peers that mean no good


async def test_escape_sequences_in_a_reply() -> None:
    """A reply that is right cannot drive the terminal, nor can its echo, whatever is in it."""
    evil = "\x1b]0;mine\x07\x1b[2j\u009b2j\u202e\U000e0041\u3164"
    async with peer(peers.ours) as port, at_prompt(port) as person:
        await person.types(PASTE_START, evil, PASTE_END, ENTER)
        shown = r"\\x1b\]0;MINE\\x07\\x1b\[2J\\u009b2J\\u202e\\U000e0041\\u3164"
        await person.sees(f"(?i){shown}")
        await person.sees(rf"{shown} +\d")
    for driving in (
        "\x1b]",
        "\x07",
        "\x1b[2j",
        "\x1b[2J",
        "\u009b2",
        "\u202e",
        "\U000e0041",
        "\u3164",
    ):
        assert driving.encode() not in person.raw


async def test_escape_sequences_in_a_banner() -> None:
    """What a foreign peer says is quoted harmlessly, and only the beginning of it."""
    banner = b"\x1b]0;mine\x07" + b"x" * LONG_LINE
    async with (
        peer(peers.greeting(banner)) as port,
        terminal("client", LOCALHOST, str(port)) as person,
    ):
        await person.sees(r"not look like a trio-upper server; it said: '\\x1b\]0;mine\\x07x+")
        await person.sees(OFFER)
        assert len(person.raw) < len(banner) / 1000
    assert b"\x1b]" not in person.raw
    assert b"\x07" not in person.raw


# Terminals that can less


async def test_no_colour() -> None:
    """Where NO_COLOR is set, nothing is dimmed; elsewhere the times are."""
    async with peer(peers.upper) as port:
        async with at_prompt(port) as person:
            await converse(person)
            assert b"\x1b[2m" in person.raw
        async with at_prompt(port, NO_COLOR="1") as person:
            await converse(person)
            assert not re.search(rb"\x1b\[0*[1-9][0-9;]*m", person.raw)


async def test_a_dumb_terminal() -> None:
    """It is sent no escape sequence; signals and servers that go are noticed all the same."""
    async with serving() as server, at_prompt(server.port, TERM="dumb") as person:
        await converse(person)
        await half_typed(person)
        assert await server.stop() == 0
        await person.sees("the server is shutting down")
        await person.sees(OFFER)
        os.kill(person.pid, signal.SIGTERM)
        await leaves(person, -signal.SIGTERM)
        assert b"\x1b" not in person.raw


async def test_ctrl_d_at_a_dumb_terminal() -> None:
    """Ctrl-D ends with success there, too, on a line of its own for what comes next."""
    async with peer(peers.upper) as port, at_prompt(port, TERM="dumb") as person:
        await converse(person)
        await person.types(CTRL_D)
        await person.sees(rf"127\.0\.0\.1:{port}> \r\n$")
        await leaves(person, 0)
