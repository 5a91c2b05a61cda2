"""The dialogue at a terminal, with a console that has been told what the person answers."""

import re
import signal
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.helpers.commands import (
    REFUSED,
    Killed,
    Network,
    Peer,
    bound_runs,
    cannot_connect,
    kill,
    upper,
)
from trio.testing import wait_all_tasks_blocked

from trio_upper.cli import client, dialogue
from trio_upper.cli.client import SLOW_SECONDS, Options
from trio_upper.cli.dialogue import NAMED_MESSAGES, QUOTED_CHARACTERS
from trio_upper.client.failures import Cause
from trio_upper.client.settings import ConnectSettings
from trio_upper.client.target import Target
from trio_upper.protocol import shutdown_notice
from trio_upper.terminal.console import HungUp, Interrupted, Typing
from trio_upper.terminal.prompt import Prompt

EOT = b"\x04"
"""Ctrl-D as it is typed."""

WAITS = "the person types nothing more, and waits"
CTRL_C = Interrupted()
CTRL_D = EOFError()
GONE = "the server closed the connection"
AT_ONCE = f"{GONE}; {Cause.CLOSED.hint}"
AGAIN = "Enter connects again, Ctrl-D ends."


class Person:
    """Somebody at a console: `answers` and `offers` are what is answered, `talks` what is typed.

    Each talk ends with Ctrl-D, when all else has been answered.

    `screen` is all that was shown, line by line and without times, with the label where a
    conversation begins and `.` where its prompt has gone.
    """

    def __init__(self) -> None:
        self.answers: deque[str | Exception] = deque()
        self.offers: deque[str | Exception] = deque()
        self.talks: deque[tuple[bytes | str | Exception, ...]] = deque()
        self.unfinished = b""
        self.stood: list[bytes] = []  # in each prompt when it opened
        self.screen: list[str] = []
        self.history: Path | None = None

    async def print(self, text: str) -> None:
        await trio.lowlevel.checkpoint()
        for line in text.splitlines():
            self.screen.append(re.sub(r"   \d+\.\d\d m?s$", "", line).removeprefix("trio-upper: "))

    async def ask(self, question: str, *, fresh: bool) -> str:
        await trio.lowlevel.checkpoint()
        self.screen.append(question.rstrip(": "))
        answer = (self.offers if fresh else self.answers).popleft()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def type(self, label: str, typing: Typing) -> None:
        self.screen.append(label)
        self.stood.append(typing.unfinished)
        try:
            for what in (*self.talks.popleft(), EOT):
                await wait_all_tasks_blocked()  # so that what was typed before has been answered
                if isinstance(what, Exception):
                    raise what
                if isinstance(what, str):
                    await trio.sleep_forever()
                if line := what.removesuffix(EOT):
                    typing.enter(line)
                if what.endswith(EOT):
                    return
        finally:
            typing.unfinished = self.unfinished
            self.screen.append(".")


class World(Network):
    """The person and the network, whose peers come one after the other, each for one connection."""

    def __init__(self) -> None:
        super().__init__()
        self.person = Person()
        self.tidied = False

    def next_peer(self) -> Peer | Exception:
        return self.peers.popleft()

    @asynccontextmanager
    async def open_prompt(self, *, history: Path | None) -> AsyncGenerator[Prompt]:
        self.person.history = history
        try:
            yield Prompt(self.person)
        finally:
            self.tidied = True


def answering(words: bytes, *, after: int = 1) -> Peer:
    """Return a peer that reads `after` times, says `words` and closes."""

    async def peer(stream: trio.abc.HalfCloseableStream) -> None:
        for _ in range(after):
            await stream.receive_some()
        await stream.send_all(words)

    return peer


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    made = World()
    bound_runs(monkeypatch)
    monkeypatch.setattr(dialogue, "open_prompt", made.open_prompt)
    monkeypatch.setattr(client, "open_connection", made.open_connection)
    monkeypatch.setattr("trio_upper.cli.run.end_with", kill)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return made


def run(host: str | None = "example.lan", port: str | None = "80", **options: Any) -> int:
    return dialogue.run(host, port, Options(**options))


# ------------------------------------------------------------------ a conversation


def test_messages_and_replies(world: World, tmp_path: Path) -> None:
    """Ctrl-D after the last message ends it; with all answered that is exit code 0."""
    world.peers.append(upper)
    world.person.talks.append((b"hello\n", b"bye\n"))
    assert run() == 0
    assert world.person.screen == [
        "connected to example.lan (192.0.2.1) port 80 in 0.4 ms; Ctrl-D ends",
        "example.lan:80> ",
        "HELLO",
        "BYE",
        ".",
    ]
    assert world.person.history == tmp_path / "trio-upper" / "history"


def test_quiet_leaves_out_what_is_no_reply(world: World) -> None:
    """Nobody who asked for replies only is told that there is a connection."""
    world.peers.append(upper)
    world.person.talks.append((b"hello\n",))
    assert run(quiet=True) == 0
    assert world.person.screen == ["example.lan:80> ", "HELLO", "."]


def test_an_ipv6_address_is_in_brackets_at_the_prompt(world: World) -> None:
    """Where the port follows it; the words have no need of them."""
    world.peers.append(upper)
    world.person.talks.append(())
    assert run("[::1]", "80") == 0
    assert world.person.screen == [
        "connected to ::1 (192.0.2.1) port 80 in 0.4 ms; Ctrl-D ends",
        "[::1]:80> ",
        ".",
    ]


# ------------------------------------------------------------------ where to


def test_what_is_not_given_is_asked_for(world: World) -> None:
    """Host and port, with the defaults in brackets; Enter takes them."""
    world.peers.append(upper)
    world.person.talks.append(())
    world.person.answers += ["", ""]
    assert run(None, None) == 0
    assert world.person.screen[:2] == ["Host [127.0.0.1]", "Port [8746]"]
    assert world.targets == [Target(host="127.0.0.1", port=8746)]


def test_what_is_given_is_not_asked_for(world: World) -> None:
    """With a host, the port alone is."""
    world.peers.append(upper)
    world.person.talks.append(())
    world.person.answers += ["81"]
    assert run("example.lan", None) == 0
    assert world.person.screen[0] == "Port [8746]"
    assert world.targets == [Target(host="example.lan", port=81)]


@pytest.mark.parametrize(
    ("host", "port", "target"),
    [
        ("example.lan:81", None, Target(host="example.lan", port=81)),
        ("[::1]:81", None, Target(host="::1", port=81)),
        ("example.lan:81", "81", Target(host="example.lan", port=81)),
    ],
)
def test_a_host_that_carries_the_port_is_complete(
    world: World, host: str, port: str | None, target: Target
) -> None:
    """Nothing is asked for, and a failure is final, as where both are given."""
    world.peers += [upper, REFUSED]
    world.person.talks.append(())
    assert run(host, port) == 0
    assert (
        world.person.screen[0]
        == f"connected to {target.host} (192.0.2.1) port 81 in 0.4 ms; Ctrl-D ends"
    )
    del world.person.screen[:]
    assert run(host, port) == 1
    assert world.person.screen == [str(REFUSED)]
    assert world.targets == [target, target]


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_carries_no_port(world: World, host: str) -> None:
    """Not even one whose end looks like it."""
    world.peers.append(upper)
    world.person.talks.append(())
    world.person.answers += ["81"]
    assert run(host, None) == 0
    assert world.person.screen[0] == "Port [8746]"
    assert world.targets == [Target(host="::1", port=81)]


def test_an_answer_that_carries_the_port_is_complete(world: World) -> None:
    """The port is not asked for, but after a failure the host is, for that can help."""
    world.peers += [REFUSED, upper]
    world.person.talks.append(())
    world.person.answers += ["nowhere:81", "[::1]:82"]
    assert run(None, None) == 0
    assert world.person.screen[:3] == ["Host [127.0.0.1]", str(REFUSED), "Host [nowhere]"]
    assert world.targets == [Target(host="nowhere", port=81), Target(host="::1", port=82)]


def questions(world: World) -> list[str]:
    """Return what was asked, and the beginning of what was said of an answer that is none."""
    shown = [line for line in world.person.screen if "[" in line or "is not" in line]
    return [line.partition(";")[0] for line in shown]


def test_a_wrong_answer_is_explained_and_asked_for_again(world: World) -> None:
    """It alone, and the default stays what it was: one that is wrong is of no use."""
    world.peers.append(upper)
    world.person.talks.append(())
    world.person.answers += ["ex ample", "example.lan:http", "example.lan", "http", "70000", "80"]
    assert run(None, None) == 0
    assert questions(world) == [
        "Host [127.0.0.1]",
        "'ex ample' is not a valid host",
        "Host [127.0.0.1]",
        "'http' is not a valid port",
        "Host [127.0.0.1]",
        "Port [8746]",
        "'http' is not a valid port",
        "Port [8746]",
        "70000 is not a valid port",
        "Port [8746]",
    ]
    assert world.targets == [Target(host="example.lan", port=80)]


def test_after_a_failed_connection_what_was_typed_is_the_default(world: World) -> None:
    """It is explained, and asked for again; Enter twice tries the same once more."""
    world.peers += [
        cannot_connect(host="nowhere"),
        cannot_connect(host="nowhere"),
        cannot_connect(host="nowhere"),
        upper,
    ]
    world.person.talks.append(())
    world.person.answers += ["nowhere", "80", "", "", "", "81", "example.lan", ""]
    assert run(None, None) == 0
    assert world.person.screen[2] == str(cannot_connect(host="nowhere"))
    assert questions(world) == [
        *("Host [127.0.0.1]", "Port [8746]"),
        *("Host [nowhere]", "Port [80]") * 2,
        *("Host [nowhere]", "Port [81]"),
    ]
    places = [(target.host, target.port) for target in world.targets]
    assert places == [("nowhere", 80), ("nowhere", 80), ("nowhere", 81), ("example.lan", 81)]


def test_after_a_failed_connection_only_what_was_not_given_is_asked_for(world: World) -> None:
    """The host stands, another port may help."""
    world.peers += [REFUSED, upper]
    world.person.talks.append(())
    world.person.answers += ["80", "81"]
    assert run("example.lan", None) == 0
    assert world.person.screen[:3] == ["Port [8746]", str(REFUSED), "Port [80]"]
    assert [target.port for target in world.targets] == [80, 81]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, ["connecting to example.lan port 80 …"]),
        (
            {"connection": ConnectSettings(wait=20)},
            ["connecting to example.lan port 80, trying for 20 s …"],
        ),
        ({"quiet": True}, []),
    ],
)
def test_a_connection_that_takes_long_is_said_to_be_tried(
    world: World, options: dict[str, Any], said: list[str]
) -> None:
    """Once each time, before it comes about or fails."""
    world.delay = SLOW_SECONDS + 0.1
    world.peers += [answering(b"", after=0), REFUSED]
    world.person.talks.append((WAITS,))
    world.person.offers += ["", CTRL_D]
    assert run(**options) == 1
    lines = [line for line in world.person.screen if not line.startswith("connected")]
    talk = ["example.lan:80> ", ".", AT_ONCE, AGAIN]
    assert lines == [*said, *talk, *said, str(REFUSED), AGAIN]


def test_a_connection_that_comes_soon_is_not_announced(world: World) -> None:
    """Only that it is there."""
    world.delay = SLOW_SECONDS - 0.1
    world.peers.append(upper)
    world.person.talks.append(())
    assert run() == 0
    assert (
        world.person.screen[0]
        == "connected to example.lan (192.0.2.1) port 80 in 0.4 ms; Ctrl-D ends"
    )


def test_a_failed_connection_is_final_where_all_was_given(world: World) -> None:
    """Exit code 1, and no question that a script could not answer."""
    world.peers.append(REFUSED)
    assert run() == 1
    assert world.person.screen == [str(REFUSED)]


@pytest.mark.parametrize("answers", [[CTRL_D], ["example.lan", CTRL_D]])
def test_ctrl_d_at_a_question_ends(world: World, answers: list[str | Exception]) -> None:
    """There was no conversation, so that is exit code 1."""
    world.person.answers += answers
    assert run(None, None) == 1
    assert not world.targets


# ------------------------------------------------------------------ ends


def test_when_the_server_goes_the_prompt_goes_and_the_way_back_is_offered(world: World) -> None:
    """With the reason; Enter connects to the same place again, as often as it takes."""
    world.peers += [answering(b"HELLO\n" + shutdown_notice()), REFUSED, upper]
    world.person.talks += [(b"hello\n", WAITS), (b"again\n",)]
    world.person.offers += ["", ""]
    assert run() == 0
    assert world.person.screen[1:] == [
        "example.lan:80> ",
        "HELLO",
        ".",
        "closing, the server is shutting down",
        AGAIN,
        str(REFUSED),
        AGAIN,
        "connected to example.lan (192.0.2.1) port 80 in 0.4 ms; Ctrl-D ends",
        "example.lan:80> ",
        "AGAIN",
        ".",
    ]
    assert len(set(world.targets)) == 1


def test_words_typed_at_the_offer_stand_in_the_new_prompt(world: World) -> None:
    """Enter connects again, in vain at first; what was typed is kept, and not sent."""
    sent: list[bytes] = []

    async def second(stream: trio.abc.HalfCloseableStream) -> None:
        sent.extend([bytes(data) async for data in stream])

    world.peers += [answering(b"", after=0), REFUSED, second]
    world.person.talks += [(WAITS,), ()]
    world.person.offers += ["words \udcff", ""]
    assert run() == 0
    assert world.person.stood == [b"", b"words \xff"]
    assert sent == []


def test_whoever_declines_the_way_back_ends(world: World) -> None:
    """Ctrl-D at the offer is exit code 1."""
    world.peers.append(answering(b"", after=0))
    world.person.talks.append((WAITS,))
    world.person.offers.append(CTRL_D)
    assert run() == 1
    assert world.person.screen[-3:] == [".", AT_ONCE, AGAIN]


def test_a_conversation_that_ended_with_replies_missing_is_no_success(world: World) -> None:
    """Also if the person had ended it: what is owed did not come. The end stands, all the same."""
    world.peers.append(answering(b"HEL"))
    world.person.talks.append((b"hello\n" + EOT,))
    assert run() == 1
    assert world.person.screen[-3:] == [
        "HEL",
        f"{GONE}: no reply to 3 of the 6 bytes sent",
        "not answered: 'hello'",
    ]


def test_messages_without_an_answer_are_named_and_not_sent_again(world: World) -> None:
    """The line that was half answered is among them, those that were answered are not."""
    sent: list[bytes] = []

    async def second(stream: trio.abc.HalfCloseableStream) -> None:
        sent.extend([bytes(data) async for data in stream])

    world.peers += [answering(b"ONE\nTW", after=2), second]
    world.person.talks += [(b"one\n", b"two\n\x1b[2J\n", WAITS), ()]
    world.person.offers.append("")
    assert run() == 0
    assert named(world) == [r"not answered: 'two', '\x1b[2J'"]
    assert sent == []


def named(world: World) -> list[str]:
    """Return what was said of messages that came to nothing."""
    return [line for line in world.person.screen if line.startswith("not ")]


def test_an_end_that_was_entered_when_the_server_went_is_an_end(world: World) -> None:
    """Nobody who pressed Ctrl-D is offered another connection."""
    world.peers.append(answering(b"ONE\n", after=2))
    world.person.talks.append((b"one\n", b"two\n" + EOT))
    assert run() == 1
    assert world.person.screen[-2:] == [
        f"{GONE}: no reply to 4 of the 8 bytes sent",
        "not answered: 'two'",
    ]


@pytest.mark.parametrize(
    ("count", "more"),
    [
        (NAMED_MESSAGES, ""),
        (NAMED_MESSAGES + 1, " and 1 more"),
        (1000, f" and {1000 - NAMED_MESSAGES} more"),
    ],
)
def test_only_the_first_messages_are_named(world: World, count: int, more: str) -> None:
    """A long paste does not fill the screen twice; what is left is counted."""
    world.peers.append(answering(b""))
    world.person.talks.append((b"".join(b"%d\n" % i for i in range(count)), WAITS))
    world.person.offers.append(CTRL_D)
    run()
    first = ", ".join(f"'{i}'" for i in range(NAMED_MESSAGES))
    assert named(world) == [f"not answered: {first}{more}"]


def test_a_line_unfinished_when_the_server_went_is_named_too(world: World) -> None:
    """With the prompt it is gone from the screen. What is long is cut, what is evil escaped."""
    world.peers.append(answering(b""))
    world.person.talks.append((b"x" * 10 * QUOTED_CHARACTERS + b"\n", WAITS))
    world.person.unfinished = b"\x1b" + b"y" * QUOTED_CHARACTERS
    world.person.offers.append(CTRL_D)
    assert run() == 1
    assert world.person.screen[-4:] == [
        f"{GONE}: no reply to the 401 bytes sent; {Cause.CLOSED.hint}",
        f"not answered: '{'x' * QUOTED_CHARACTERS}…'",
        rf"not sent: '\x1b{'y' * (QUOTED_CHARACTERS - 4)}…'",
        AGAIN,
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_by_itself(world: World, number: signal.Signals) -> None:
    """In the middle of a conversation, and only after the prompt has tidied up the terminal."""

    async def peer(stream: trio.abc.HalfCloseableStream) -> None:
        await wait_all_tasks_blocked()
        signal.raise_signal(number)
        await trio.sleep_forever()

    world.peers.append(peer)
    world.person.talks.append((WAITS,))
    with pytest.raises(Killed) as killed:
        run()
    assert killed.value.number is number
    assert world.tidied


def test_ctrl_c_in_a_conversation_ends_it_as_sigint(world: World) -> None:
    """It came as a key, inside the groups of the nurseries."""
    world.peers.append(upper)
    world.person.talks.append((b"hello\n", CTRL_C))
    with pytest.raises(Killed) as killed:
        run()
    assert killed.value.number is signal.SIGINT


def test_ctrl_c_at_a_question_ends_it_as_sigint(world: World) -> None:
    """At the first question, and at the offer to connect again."""
    world.person.answers.append(CTRL_C)
    with pytest.raises(Killed) as at_question:
        run(None, None)
    world.peers.append(answering(b"", after=0))
    world.person.talks.append((WAITS,))
    world.person.offers.append(CTRL_C)
    with pytest.raises(Killed) as at_offer:
        run()
    assert at_question.value.number is at_offer.value.number is signal.SIGINT


def test_a_terminal_that_goes_ends_it_as_sighup(world: World) -> None:
    """In a conversation and at a question: no exit code, which a script could take for an end."""
    world.person.answers.append(HungUp())
    with pytest.raises(Killed) as at_question:
        run(None, None)
    world.peers.append(upper)
    world.person.talks.append((b"hello\n", HungUp()))
    with pytest.raises(Killed) as in_conversation:
        run()
    assert at_question.value.number is in_conversation.value.number is signal.SIGHUP


def test_a_bug_is_not_explained_away(world: World) -> None:
    """Only what is known to happen becomes words."""
    world.peers.append(upper)
    world.person.talks.append((RuntimeError("a bug"),))
    with pytest.RaisesGroup(RuntimeError, flatten_subgroups=True):
        run()
