"""``ping`` as a command: what it prints and its exit code, in virtual time, in memory."""

import errno
import json
import math
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
from tests.helpers.commands import (
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

from trio_upper.cli import ping
from trio_upper.cli.ping import Options
from trio_upper.client.settings import ConnectSettings
from trio_upper.measure.pinger import INTERRUPTED_SECONDS


class World(Network):
    """The peers and standard output."""

    def __init__(self) -> None:
        super().__init__(upper)
        self.output = Output()


def answering(
    reply: Callable[[bytes], bytes], *, after: float = 0.0005, then: Callable[[int], object] = int
) -> Peer:
    """Return a peer that answers by `reply`, `after` seconds later; `then` gets the number."""

    async def peer(stream: HalfCloseable) -> None:
        number = 0
        async for message in stream:
            await trio.sleep(after)
            await stream.send_all(reply(bytes(message)))
            number += 1
            then(number)

    return peer


def right(message: bytes) -> bytes:
    return message.decode().upper().encode()


upper = answering(right)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    bound_runs(monkeypatch)
    monkeypatch.setattr(ping, "open_connection", made.open_connection)
    monkeypatch.setattr(ping, "open_output", lambda: made.output)
    monkeypatch.setattr("trio_upper.cli.run.end_by", kill)
    return made


def run(**options: Any) -> int:
    return ping.run(TARGET, Options(**options))


def at(count: int, number: signal.Signals) -> Callable[[int], object]:
    """Return a function that raises a signal once this many round trips are over."""

    def then(over: int) -> None:
        if over == count:
            signal.raise_signal(number)

    return then


# ------------------------------------------------------------------ what is printed


def test_a_line_for_each_round_trip_and_the_summary(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard output; exit code 0, for all were answered and right."""
    assert run(count=3) == 0
    assert world.output.lines == [
        "seq=1 0.500 ms",
        "seq=2 0.500 ms",
        "seq=3 0.500 ms",
        "",
        "example.lan port 80: 3 sent, 3 answered, 0 wrong, 0 not answered",
        "min / median / mean / p99 / max: 0.500 / 0.500 / 0.500 / 0.500 / 0.500 ms",
    ]
    assert world.output.closed
    assert capsys.readouterr() == ("", "")


def test_one_object_on_one_line(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """With ``--json``, and nothing else; the units are in the names."""
    assert run(count=3, size=20, as_json=True) == 0
    [line] = world.output.lines
    assert json.loads(line) == {
        "host": "example.lan",
        "port": 80,
        "size_bytes": 20,
        "sent": 3,
        "answered": 3,
        "wrong": 0,
        "unanswered": 0,
        "min_ms": 0.5,
        "median_ms": 0.5,
        "mean_ms": 0.5,
        "p99_ms": 0.5,
        "max_ms": 0.5,
        "reasons": {},
    }
    assert capsys.readouterr() == ("", "")


def test_at_total_failure_there_is_a_summary_that_says_why(world: World) -> None:
    """No timings, and the reason once, in the words of its first case; exit code 1."""
    world.meets(cannot_connect(), cannot_connect(seconds=0.7), cannot_connect(), upper)
    assert run(count=3) == 1
    refused = [str(cannot_connect()), str(cannot_connect(seconds=0.7)), str(cannot_connect())]
    assert world.output.lines == [
        *(f"seq={number} not answered: {words}" for number, words in enumerate(refused, start=1)),
        "",
        "example.lan port 80: 3 sent, 0 answered, 0 wrong, 3 not answered",
        "no timings: no reply was right",
        f"3 x {refused[0]}",
    ]


def test_at_total_failure_json_has_no_timings(world: World) -> None:
    """Null is what JSON has for that; the reasons are counted."""
    world.meets(cannot_connect(), cannot_connect(errno.ENETUNREACH), cannot_connect(), upper)
    assert run(count=3, as_json=True) == 1
    told = json.loads(world.output.written)
    assert [told[name] for name in ("sent", "answered", "wrong", "unanswered")] == [3, 0, 0, 3]
    assert {told[f"{name}_ms"] for name in ("min", "median", "mean", "p99", "max")} == {None}
    assert told["reasons"] == {
        str(cannot_connect()): 2,
        str(cannot_connect(errno.ENETUNREACH)): 1,
    }


def test_a_wrong_reply_is_shown(world: World) -> None:
    """And makes the exit code 1, however many were right."""
    world.meets(answering(lambda message: message if b"aaaaab" in message else right(message)))
    assert run(count=2) == 1
    assert world.output.lines == [
        "seq=1 wrong: this is not the reply: 'aaaaab the quick brown fox jump'",
        "seq=2 0.500 ms",
        "",
        "example.lan port 80: 2 sent, 1 answered, 1 wrong, 0 not answered",
        "min / median / mean / p99 / max: 0.500 / 0.500 / 0.500 / 0.500 / 0.500 ms",
        "1 x this is not the reply: 'aaaaab the quick brown fox jump'",
    ]


def test_a_lost_connection_is_a_line_too(world: World) -> None:
    """It connects again, and the time for that is not part of the next round trip."""

    async def dies(stream: HalfCloseable) -> None:
        await stream.receive_some()
        world.meets(upper)

    world.meets(dies)
    assert run(count=2) == 1
    assert world.output.lines[:2] == [
        "seq=1 not answered: the server closed the connection",
        "seq=2 0.500 ms",
    ]
    assert len(world.dialled) == 2


def test_it_connects_as_the_options_have_it(world: World) -> None:
    """Waiting for a server that starts is for the first connection; later it is a failure."""
    settings = ConnectSettings(connect_timeout=3, wait=60)
    world.meets(cannot_connect(), upper)
    run(count=2, connection=settings)
    assert world.dialled == [
        (TARGET, settings),
        (TARGET, ConnectSettings(connect_timeout=3, wait=0)),
    ]


# ------------------------------------------------------------------ how it ends


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_gives_the_summary(world: World, number: signal.Signals) -> None:
    """Exit code 0 if all was right: that is how a ping ends."""
    world.meets(answering(right, then=at(5, number)))
    assert run() == 0
    assert world.output.lines[-2:] == [
        "example.lan port 80: 5 sent, 5 answered, 0 wrong, 0 not answered",
        "min / median / mean / p99 / max: 0.500 / 0.500 / 0.500 / 0.500 / 0.500 ms",
    ]


def test_a_signal_during_a_long_wait_counts_it_as_unanswered(world: World) -> None:
    """Ctrl-C because no reply comes gives a summary that says so."""

    async def silent(stream: HalfCloseable) -> None:
        await stream.receive_some()
        await trio.sleep(INTERRUPTED_SECONDS)
        signal.raise_signal(signal.SIGINT)
        await trio.sleep_forever()

    world.meets(silent)
    assert run() == 1
    assert world.output.lines == [
        "seq=1 not answered: interrupted before a reply came",
        "",
        "example.lan port 80: 1 sent, 0 answered, 0 wrong, 1 not answered",
        "no timings: no reply was right",
        "1 x interrupted before a reply came",
    ]


def test_a_signal_at_the_very_start_is_not_a_success(world: World) -> None:
    """Nothing was shown to be right."""

    async def silent(stream: HalfCloseable) -> None:
        await stream.receive_some()
        signal.raise_signal(signal.SIGINT)
        await trio.sleep_forever()

    world.meets(silent)
    assert run(as_json=True) == 1
    assert json.loads(world.output.written)["sent"] == 0


def test_when_the_terminal_goes_nothing_more_is_printed(world: World) -> None:
    """SIGHUP ends the process as it ends others."""
    world.meets(answering(right, then=at(2, signal.SIGHUP)))
    with pytest.raises(Killed) as killed:
        run()
    assert killed.value.number is signal.SIGHUP
    assert all(line.startswith("seq=") for line in world.output.lines)


def test_a_second_signal_ends_it_where_nobody_reads(world: World) -> None:
    """A summary that cannot be written does not hold up the process."""
    world.output.blocks = partial(signal.raise_signal, signal.SIGINT)
    with pytest.raises(Killed) as killed:
        run()
    assert killed.value.number is signal.SIGINT
    assert world.output.closed


def test_times_are_in_milliseconds_to_the_microsecond(world: World) -> None:
    """Never in another unit, so that a column of them can be compared."""
    world.meets(answering(right, after=12.3456789))
    assert run(count=1) == 0
    assert world.output.lines[0] == "seq=1 12345.679 ms"
    assert not math.isnan(float(world.output.lines[-1].split()[-2]))
