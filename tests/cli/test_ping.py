"""``ping`` as a command: what it prints and its exit code, in virtual time, in memory."""

import errno
import json
import re
import signal
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

import pytest
import trio
from tests.helpers.commands import (
    ADDRESS,
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

from trio_upper.cli import output, ping
from trio_upper.cli.ping import Options
from trio_upper.client.settings import ConnectSettings
from trio_upper.measure.pinger import INTERRUPTED_SECONDS
from trio_upper.platform import SUMMARY_SIGNAL


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

CONNECTED = f"connected to example.lan ({ADDRESS}) port 80 in 0.4 ms"
SUMMARY = f"example.lan ({ADDRESS}) port 80"
TIMINGS = (
    "min / median / mean / p99 / max: 0.500 / 0.500 / 0.500 / 0.500 / 0.500 ms; jitter 0.000 ms"
)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    bound_runs(monkeypatch)
    monkeypatch.setattr(ping, "open_connection", made.open_connection)
    monkeypatch.setattr(ping, "open_output", lambda: made.output)
    monkeypatch.setattr("trio_upper.cli.run.end_with", kill)
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
        CONNECTED,
        "seq=1 0.500 ms",
        "seq=2 0.500 ms",
        "seq=3 0.500 ms",
        "",
        f"{SUMMARY}: 3 sent, 3 answered, 0 wrong, 0 not answered",
        TIMINGS,
        "outages: none",
    ]
    assert world.output.closed
    assert capsys.readouterr() == ("", "")


def test_one_object_on_one_line(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """With ``--json``, and nothing else; the units are in the names."""
    assert run(count=3, size=20, as_json=True) == 0
    [line] = world.output.lines
    assert json.loads(line) == {
        "host": "example.lan",
        "address": ADDRESS,
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
        "jitter_ms": 0,
        "outages": 0,
        "longest_outage_s": 0,
        "total_outage_s": 0,
        "reasons": {},
    }
    assert capsys.readouterr() == ("", "")


def test_at_total_failure_there_is_a_summary_that_says_why(world: World) -> None:
    """No timings, and the reason and its hint once, in the words of its first case; exit code 1."""
    world.meets(cannot_connect(), cannot_connect(seconds=0.7), cannot_connect(), upper)
    assert run(count=3) == 1
    refused = "cannot connect to example.lan port 80: refused (tried 192.0.2.1, 0.50 s)"
    assert world.output.lines == [
        f"seq=1 not answered: {cannot_connect()}",
        f"seq=2 not answered: {refused.replace('0.50', '0.70')}",
        f"seq=3 not answered: {refused}",
        "",
        "example.lan port 80: 3 sent, 0 answered, 0 wrong, 3 not answered",
        "no timings: no reply was right",
        "outages: 1, longest 2.0 s, 2.0 s in total",
        f"3 x {refused}",
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
    wrong = (
        "'aaaaab the quick brown fox jump' came instead of "
        "'AAAAAB THE QUICK BROWN FOX JUMP', wrong from byte 1 on"
    )
    assert world.output.lines == [
        CONNECTED,
        f"seq=1 wrong: {wrong}",
        "seq=2 0.500 ms",
        "",
        f"{SUMMARY}: 2 sent, 1 answered, 1 wrong, 0 not answered",
        TIMINGS.partition(";")[0],
        "outages: none",
        f"1 x {wrong}",
    ]


def test_a_lost_connection_is_a_line_too(world: World) -> None:
    """It connects again, and the time for that is not part of the next round trip."""

    async def dies(stream: HalfCloseable) -> None:
        await stream.receive_some()
        world.meets(upper)

    world.meets(dies)
    assert run(count=2) == 1
    assert world.output.lines[:3] == [
        CONNECTED,
        "seq=1 not answered: the server closed the connection",
        "seq=2 0.500 ms",
    ]
    assert len(world.dialled) == 2


def test_it_connects_as_the_options_have_it(world: World) -> None:
    """Each time that it does."""
    settings = ConnectSettings(connect_timeout=3, wait=60)
    world.meets(cannot_connect(), upper)
    run(count=2, connection=settings)
    assert world.dialled == 2 * [(TARGET, settings)]


# ------------------------------------------------------------------ how it ends


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_gives_the_summary(world: World, number: signal.Signals) -> None:
    """Exit code 0 if all was right: that is how a ping ends."""
    world.meets(answering(right, then=at(5, number)))
    assert run() == 0
    assert world.output.lines[-3:] == [
        f"{SUMMARY}: 5 sent, 5 answered, 0 wrong, 0 not answered",
        TIMINGS,
        "outages: none",
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
        CONNECTED,
        "seq=1 not answered: interrupted before a reply came",
        "",
        f"{SUMMARY}: 1 sent, 0 answered, 0 wrong, 1 not answered",
        "no timings: no reply was right",
        "outages: none",
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
    assert world.output.lines == [CONNECTED, "seq=1 0.500 ms"]


def test_a_second_signal_ends_it_where_nobody_reads(world: World) -> None:
    """A summary that cannot be written does not hold up the process."""
    world.output.blocks = partial(signal.raise_signal, signal.SIGINT)
    with pytest.raises(Killed) as killed:
        run()
    assert killed.value.number is signal.SIGINT
    assert world.output.closed


def test_a_terminal_that_takes_nothing_delays_no_round_trip(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one signal is enough to end it; the exit code still tells how it went."""
    for module in ping, output:
        monkeypatch.setattr(module, "is_terminal", lambda _: True)
    world.output.blocks = int
    world.meets(answering(right, then=at(9, signal.SIGTERM)))
    assert run() == 0
    assert world.output.closed


def test_a_terminal_has_it_all_in_order(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it takes what is printed."""
    monkeypatch.setattr(ping, "is_terminal", lambda _: True)
    assert run(count=2) == 0
    assert world.output.lines[:4] == [CONNECTED, "seq=1 0.500 ms", "seq=2 0.500 ms", ""]


def test_times_are_in_milliseconds_to_the_microsecond(world: World) -> None:
    """Never in another unit, so that a column of them can be compared."""
    world.meets(answering(right, after=12.3456789))
    assert run(count=1) == 0
    assert world.output.lines[-5:] == [
        "seq=1 12345.679 ms",
        "",
        f"{SUMMARY}: 1 sent, 1 answered, 0 wrong, 0 not answered",
        TIMINGS.partition(";")[0].replace("0.500", "12345.679"),
        "outages: 1, longest 12.3 s, 12.3 s in total",
    ]


# ------------------------------------------------------------------ a link that fails


def after(*delays: float) -> Peer:
    """Return a right peer that takes the next of `delays` for each reply, and stays away then."""

    async def peer(stream: HalfCloseable) -> None:
        for delay in delays:
            message = bytes(await stream.receive_some())
            await trio.sleep(delay)
            await stream.send_all(right(message))
        await trio.sleep_forever()

    return peer


def test_a_reply_that_does_not_come_is_said_at_once(world: World) -> None:
    """After 2 s, and at growing intervals; and for how long it was away."""
    world.meets(after(0.0005, 8, 0.0005))
    assert run(count=3) == 0
    assert world.output.lines == [
        CONNECTED,
        "seq=1 0.500 ms",
        "no answer for 2 s",
        "no answer for 4 s",
        "no answer for 8 s",
        "back after 8.0 s",
        "seq=2 8000.000 ms",
        "seq=3 0.500 ms",
        "",
        f"{SUMMARY}: 3 sent, 3 answered, 0 wrong, 0 not answered",
        (
            "min / median / mean / p99 / max: 0.500 / 0.500 / 2667.000 / 8000.000 / 8000.000 ms; "
            "jitter 7999.500 ms"
        ),
        "outages: 1, longest 8.0 s, 8.0 s in total",
    ]


def test_outages_in_json(world: World) -> None:
    """Their number, the longest, and how long they were in total."""
    world.meets(after(0, 8, 0, 3))
    assert run(count=4, as_json=True) == 0
    [line] = world.output.lines
    told = json.loads(line)
    names = ("outages", "longest_outage_s", "total_outage_s", "jitter_ms")
    assert [told[name] for name in names] == [2, 8, 11, pytest.approx(19000 / 3)]


def test_an_object_for_each_round_trip_and_one_for_the_summary(world: World) -> None:
    """With ``--jsonl``, each on a line, and nothing else."""
    world.meets(answering(lambda message: message if b"aaaaab" in message else right(message)))
    assert run(count=2, as_json_lines=True) == 1
    wrong, answered, summary = map(json.loads, world.output.lines)
    assert datetime.fromisoformat(wrong.pop("time")).tzinfo is not None
    assert wrong.pop("reason").startswith("'aaaaab the")
    assert wrong == {"type": "round_trip", "sequence": 1, "outcome": "wrong", "reply_ms": None}
    assert datetime.fromisoformat(answered.pop("time")).tzinfo is not None
    assert answered == {
        "type": "round_trip",
        "sequence": 2,
        "outcome": "answered",
        "reply_ms": 0.5,
        "reason": None,
    }
    assert summary["type"] == "summary"
    assert (summary["sent"], summary["answered"], summary["wrong"]) == (2, 1, 1)


def test_the_local_time_stands_before_each_line(world: World) -> None:
    """With milliseconds and the offset from UTC, in the format of ISO 8601; not in the summary."""
    world.meets(after(3))
    assert run(count=1, timestamps=True) == 0
    empty = world.output.lines.index("")
    stamps, texts = zip(*(line.split(" ", 1) for line in world.output.lines[:empty]), strict=True)
    assert texts == (CONNECTED, "no answer for 2 s", "back after 3.0 s", "seq=1 3000.000 ms")
    for stamp in stamps:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", stamp)
    assert world.output.lines[empty + 1].startswith("example.lan")


@pytest.mark.skipif(SUMMARY_SIGNAL is None, reason="this system has no such signal")
def test_a_signal_asks_for_the_summary_so_far(world: World) -> None:
    """Ctrl-\\; it goes on after it."""
    assert SUMMARY_SIGNAL is not None
    world.meets(answering(right, then=at(2, SUMMARY_SIGNAL)))
    assert run(count=3) == 0
    assert world.output.lines == [
        CONNECTED,
        "seq=1 0.500 ms",
        "seq=2 0.500 ms",
        "",
        f"{SUMMARY}: 2 sent, 2 answered, 0 wrong, 0 not answered",
        TIMINGS,
        "outages: none",
        "",
        "seq=3 0.500 ms",
        "",
        f"{SUMMARY}: 3 sent, 3 answered, 0 wrong, 0 not answered",
        TIMINGS,
        "outages: none",
    ]


@pytest.mark.skipif(SUMMARY_SIGNAL is None, reason="this system has no such signal")
def test_beside_json_the_summary_so_far_goes_to_standard_error(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard output is for the reader of JSON."""
    assert SUMMARY_SIGNAL is not None
    world.meets(answering(right, then=at(2, SUMMARY_SIGNAL)))
    assert run(count=3, as_json=True) == 0
    assert len(world.output.lines) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"trio-upper: {SUMMARY}: 2 sent, 2 answered, 0 wrong, 0 not answered"


def test_where_there_is_no_such_signal_it_pings_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows, or where whoever started it had the signal ignored."""
    monkeypatch.setattr(ping, "SUMMARY_SIGNAL", None)
    assert run(count=2) == 0
