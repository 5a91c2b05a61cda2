"""``bench`` as a command: what it prints and its exit code, in virtual time, in memory."""

import json
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
from tests.helpers.commands import (
    REFUSED,
    TARGET,
    HalfCloseable,
    Killed,
    Network,
    Output,
    Peer,
    bound_runs,
    kill,
)
from tests.helpers.screens import screen

from trio_upper.cli import bench, output
from trio_upper.cli.bench import Options
from trio_upper.cli.progress import REFRESH_SECONDS, bar
from trio_upper.client.settings import ConnectSettings

# How long a reply takes, in seconds: a power of two, so that sums of it are exact.
DELAY = 1 / 64


class World(Network):
    """The peers, standard output, and whether the descriptor limit was raised."""

    def __init__(self) -> None:
        super().__init__(right)
        self.output = Output()
        self.descriptors_raised = False

    def raise_descriptor_limit(self) -> None:
        self.descriptors_raised = True


def answering(reply: Callable[[bytes], bytes], *, times: float = float("inf")) -> Peer:
    """Return a peer that gives this many right replies, then one by `reply`, and leaves."""

    async def peer(stream: HalfCloseable) -> None:
        number = 0
        async for message in stream:
            number += 1
            await trio.sleep(DELAY)
            if number > times:
                await stream.send_all(reply(bytes(message)))
                return
            await stream.send_all(bytes(message).upper())

    return peer


right = answering(bytes.upper)


def raising(number: signal.Signals, *, times: int) -> Peer:
    """Return a peer that raises a signal after this many replies and says no more."""

    async def peer(stream: HalfCloseable) -> None:
        for _ in range(times):
            message = await stream.receive_some()
            await trio.sleep(DELAY)
            await stream.send_all(bytes(message).upper())
        await stream.receive_some()
        signal.raise_signal(number)
        await trio.sleep_forever()

    return peer


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    bound_runs(monkeypatch)
    monkeypatch.setattr(bench, "open_connection", made.open_connection)
    monkeypatch.setattr(bench, "open_output", lambda: made.output)
    monkeypatch.setattr("trio_upper.cli.run.end_with", kill)
    monkeypatch.setattr(bench, "raise_descriptor_limit", made.raise_descriptor_limit)
    return made


def run(**options: Any) -> int:
    return bench.run(TARGET, Options(**options))


# ------------------------------------------------------------------ the report


def test_throughput_latency_and_the_histogram(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """In plain text on standard output; exit code 0, for no client failed."""
    assert run(clients=2, seconds=10, size=1000, pipeline=3) == 0
    assert world.output.lines == [
        "example.lan port 80: 2 clients, 3 in flight each, 1,000 bytes a message",
        "messages    3,840 answered in 10.00 s, 0 wrong; 0 clients failed",
        "throughput  384 messages/s   0.384 MB/s   3.072 Mbit/s",
        (
            "latency     min 15.625   p50 15.625   p90 15.625   p99 15.625   p99.9 15.625   "
            "max 15.625 ms"
        ),
        "",
        "15 to 18 ms |########################################|     3,840",
        "",
    ]
    assert world.output.closed
    assert capsys.readouterr() == ("", "")


def test_one_object_on_one_line(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """With ``--json``, and nothing else; the units are in the names."""
    assert run(clients=2, seconds=10, size=1000, pipeline=3, as_json=True) == 0
    [line] = world.output.lines
    assert json.loads(line) == {
        "host": "example.lan",
        "port": 80,
        "clients": 2,
        "pipeline": 3,
        "size_bytes": 1000,
        "seconds": 10,
        "messages": 3840,
        "wrong": 0,
        "failed_clients": 0,
        "messages_per_s": 384,
        "megabytes_per_s": 0.384,
        "megabits_per_s": 3.072,
        "min_ms": 15.625,
        "p50_ms": 15.625,
        "p90_ms": 15.625,
        "p99_ms": 15.625,
        "p99_9_ms": 15.625,
        "max_ms": 15.625,
        "reasons": {},
    }
    assert capsys.readouterr() == ("", "")


def test_a_server_that_answers_wrongly_makes_the_exit_code_1(world: World) -> None:
    """The report says how many were wrong, and what was measured until then."""
    world.meets(answering(bytes.lower, times=65))
    assert run(clients=3, seconds=10) == 1
    assert world.output.lines[:3] == [
        "example.lan port 80: 3 clients, 1 in flight each, 32 bytes a message",
        "messages    192 answered in 1.02 s, 3 wrong; 3 clients failed",
        "throughput  189 messages/s   0.006 MB/s   0.048 Mbit/s",
    ]
    assert world.output.lines[-1].startswith("3 x 'aaaa")


def test_a_server_that_vanishes_ends_it(world: World) -> None:
    """With the report of what was measured until then, and exit code 1."""
    world.meets(answering(lambda _: b"", times=65))
    assert run(clients=3, seconds=10) == 1
    assert world.output.lines[1] == "messages    192 answered in 1.02 s, 0 wrong; 3 clients failed"
    assert world.output.lines[-1] == "3 x the server closed the connection"


def test_what_cannot_connect_is_counted_by_its_sentence(world: World) -> None:
    """The others run; the exit code is 1."""
    world.meets(REFUSED, REFUSED, right)
    assert run(clients=3, seconds=1) == 1
    assert world.output.lines[1] == "messages    64 answered in 1.00 s, 0 wrong; 2 clients failed"
    assert world.output.lines[-1] == f"2 x {REFUSED}"


def test_without_any_answer_there_is_a_report(world: World) -> None:
    """No statistics, but why; exit code 1."""
    world.meets(REFUSED)
    assert run(clients=3) == 1
    assert world.output.lines == [
        "example.lan port 80: 3 clients, 1 in flight each, 32 bytes a message",
        "messages    0 answered in 0.00 s, 0 wrong; 3 clients failed",
        "nothing was measured: every client failed",
        f"3 x {REFUSED}",
    ]


def test_without_any_answer_json_has_no_timings(world: World) -> None:
    """Null is what JSON has for that; the reasons are counted."""
    world.meets(REFUSED)
    assert run(clients=3, as_json=True) == 1
    told = json.loads(world.output.written)
    assert [told[name] for name in ("messages", "seconds", "messages_per_s")] == [0, 0, 0]
    assert {told[f"{name}_ms"] for name in ("min", "p50", "p90", "p99", "p99_9", "max")} == {None}
    assert told["failed_clients"] == 3
    assert told["reasons"] == {str(REFUSED): 3}


def test_it_connects_as_the_options_have_it(world: World) -> None:
    """Each client in the same way, and the descriptor limit is raised first."""
    settings = ConnectSettings(connect_timeout=3, wait=60)
    run(clients=2, seconds=1, connection=settings)
    assert world.dialled == 2 * [(TARGET, settings)]
    assert world.descriptors_raised


# ------------------------------------------------------------------ how it ends


def test_a_signal_does_not_wait_for_a_terminal_that_takes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report is lost then; the exit code still tells how it went."""
    monkeypatch.setattr(output, "is_terminal", lambda _: True)
    world.output.blocks = int
    world.meets(raising(signal.SIGTERM, times=3))
    assert run(clients=1, seconds=100) == 0
    assert world.output.closed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_early_with_the_report(world: World, number: signal.Signals) -> None:
    """Of what was measured until then, and exit code 0 if all of that was right."""
    world.meets(raising(number, times=65))
    assert run(clients=1, seconds=100) == 0
    assert world.output.lines[1] == "messages    64 answered in 1.00 s, 0 wrong; 0 clients failed"


def test_a_signal_before_the_start_is_not_a_success(world: World) -> None:
    """Nothing was measured, and the report says why."""
    world.meets(raising(signal.SIGINT, times=0))
    assert run(clients=1) == 1
    assert world.output.lines[2:] == [
        "nothing was measured: it ended while only 0 of 1 clients were ready"
    ]


def test_a_run_that_is_shorter_than_a_round_trip_says_so(world: World) -> None:
    """Every reply came and was right, but too late to count."""
    assert run(clients=2, seconds=DELAY / 2) == 1
    assert world.output.lines[2:] == [
        "nothing was measured: no reply came within 0.0078125 s; --seconds may be too short"
    ]


def test_what_cannot_fit_in_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it starts, with the reason and what to change."""
    monkeypatch.setattr(bench, "available_memory", lambda: 4_000_000_000)
    Options(clients=10, pipeline=100_000, size=32)
    with pytest.raises(ValueError, match=r"would take 45\.6 GB of memory, and 4\.0 GB are"):
        Options(clients=10, pipeline=30_000_000, size=32)
    Options(clients=380_000)
    with pytest.raises(ValueError, match=r"^the clients and their messages would take 4\.2 GB of"):
        Options(clients=400_000)
    with pytest.raises(ValueError, match=r"lower --clients, --pipeline or --size"):
        Options(clients=10**4000, pipeline=10**4000)


def test_when_the_terminal_goes_nothing_more_is_printed(world: World) -> None:
    """SIGHUP ends the process as it ends others."""
    world.meets(raising(signal.SIGHUP, times=9))
    with pytest.raises(Killed) as killed:
        run()
    assert killed.value.number is signal.SIGHUP
    assert world.output.lines == []


def test_a_second_signal_ends_it_where_nobody_reads(world: World) -> None:
    """A report that cannot be written does not hold up the process."""
    world.output.blocks = partial(signal.raise_signal, signal.SIGTERM)
    with pytest.raises(Killed) as killed:
        run(seconds=1)
    assert killed.value.number is signal.SIGTERM
    assert world.output.closed


# ------------------------------------------------------------------ progress


def test_a_terminal_sees_the_progress(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many have connected, then how fast and how far they are; nothing on standard output."""

    async def slow_to_begin(stream: HalfCloseable) -> None:
        await trio.sleep(10 * REFRESH_SECONDS)
        await answering(bytes.upper)(stream)

    world.meets(slow_to_begin)
    with screen() as stderr:
        monkeypatch.setattr(sys, "stderr", stderr.stream)
        assert run(clients=2, seconds=10, as_json=True) == 0
        shown = stderr.shown
    assert "connecting" in shown
    assert "128 messages/s" in shown
    assert shown.index("connecting") < shown.index(bar(0.1)) < shown.index(bar(0.9))
    assert shown.endswith(" \r")  # the line is empty
    assert len(world.output.lines) == 1


def test_ctrl_c_takes_the_progress_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal is left as it was."""
    world.meets(raising(signal.SIGINT, times=65))
    with screen() as stderr:
        monkeypatch.setattr(sys, "stderr", stderr.stream)
        assert run(clients=1, seconds=100) == 0
        assert stderr.shown.endswith(" \r")


def test_without_standard_error_there_is_no_progress(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be closed."""
    monkeypatch.setattr(sys, "stderr", None)
    assert run(seconds=1) == 0
