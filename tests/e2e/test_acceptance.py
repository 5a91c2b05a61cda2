"""A small form of each gate, and the driver of them all."""

import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from benchmarks.processes import wait_until
from tests.acceptance import __main__ as driver
from tests.acceptance import slow
from tests.acceptance.clients import Reply
from tests.acceptance.gate import (
    FULL,
    SMALL,
    Broken,
    Gate,
    Sizes,
    Skipped,
    Verdict,
    attempt,
    leaves,
)
from tests.acceptance.talkers import promised
from tests.acceptance.workers import lives
from tests.helpers.waiting import TIMEOUT_SECONDS

if sys.platform != "linux":
    pytest.skip("the gates need Linux", allow_module_level=True)

LIMIT = 5.0

# Gates whose small form takes many seconds; each of their cases has a test of its own, too.
SLOW = {3, 8, 9, 10, 11, 14, 15, 16, 18}


def make_gate(run: Callable[[Sizes], Awaitable[str]], number: int = 99) -> Gate:
    """Return a gate that does what `run` does, for `LIMIT` seconds at most."""
    return Gate(
        number=number,
        promise="This is promised.",
        doing="{clients} do something",
        run=run,
        limit=lambda _: LIMIT,
    )


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, marks=pytest.mark.slow if number in SLOW else ())
        for number in driver.GATES
    ],
)
async def test_a_small_form_of_each_gate(number: int) -> None:
    """The promise is kept, or there is a reason why it cannot be tested here."""
    row = await attempt(driver.GATES[number], SMALL)
    if row.verdict is Verdict.SKIPPED:
        pytest.skip(row.seen)
    if row.error:
        raise row.error
    assert row.verdict is Verdict.KEPT, row.seen


def test_the_gates_are_numbered() -> None:
    """They stand in order, and each says what it does at any size."""
    assert list(driver.GATES) == list(range(1, len(driver.MODULES) + 1))
    for gate in driver.GATES.values():
        assert "{" not in gate.done(SMALL)
        assert gate.promise.endswith(".")
        assert 0 < gate.limit(SMALL) <= gate.limit(FULL)


def test_the_help_says_what_is_done() -> None:
    """With the sizes that it has if nobody gives others; wherever its lines are broken."""
    said = "".join(driver.make_parser().format_help().split())
    assert all("".join(gate.done(FULL).split()) in said for gate in driver.GATES.values())


async def test_a_promise_that_is_kept() -> None:
    """What was seen stands in the row."""

    async def run(sizes: Sizes) -> str:
        await trio.lowlevel.checkpoint()
        return f"{sizes.clients} were seen"

    row = await attempt(make_gate(run), SMALL)
    assert (row.verdict, row.seen, row.error) == (Verdict.KEPT, "100 were seen", None)


@pytest.mark.parametrize(
    ("failure", "verdict", "seen"),
    [
        (Broken("it leaks"), Verdict.BROKEN, "it leaks"),
        (Skipped("needs root"), Verdict.SKIPPED, "needs root"),
        (ValueError("what?"), Verdict.BROKEN, "ValueError: what?"),
        (ExceptionGroup("", [OSError("so"), Broken("it leaks")]), Verdict.BROKEN, "it leaks"),
        (ExceptionGroup("", [Skipped("needs root")]), Verdict.SKIPPED, "needs root"),
    ],
)
async def test_a_gate_that_fails(failure: Exception, verdict: Verdict, seen: str) -> None:
    """The gate's own words come first; an unforeseen failure is kept, to be shown."""

    async def run(_: Sizes) -> str:
        await trio.lowlevel.checkpoint()
        raise failure

    row = await attempt(make_gate(run), SMALL)
    assert (row.verdict, row.seen) == (verdict, seen)
    unforeseen = list(leaves(row.error)) if row.error else []
    assert unforeseen == ([failure] if isinstance(failure, ValueError) else [])


async def test_a_gate_that_does_not_end(autojump_clock: trio.abc.Clock) -> None:
    """It is ended at its limit, and broken."""

    async def run(_: Sizes) -> str:
        await trio.sleep_forever()
        raise AssertionError

    row = await attempt(make_gate(run), SMALL)
    assert (row.verdict, row.seen) == (Verdict.BROKEN, "it did not end within 5 s")
    assert row.seconds == LIMIT


def test_the_driver(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It runs what is asked for, at the sizes that are asked for, and exits with 0."""
    page = tmp_path / "gates.md"
    assert driver.main(["pieces", "--small", "--examples", "5", "--output", str(page)]) == 0
    said = capsys.readouterr()
    assert "gate 7: 5 examples of random and broken UTF-8" in said.err
    assert "Any bytes in any pieces" in said.out
    assert "1 kept, 0 broken, 0 skipped" in said.out
    *_, row = page.read_text(encoding="utf-8").splitlines()
    assert row.startswith("| 7 | Any bytes in any pieces")
    assert "| 5 examples of random and broken UTF-8" in row
    assert "| kept, " in row


def test_the_driver_of_broken_promises(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They make the exit code 1; skipped ones do not; an unforeseen failure is shown."""

    async def broken(_: Sizes) -> str:
        await trio.lowlevel.checkpoint()
        raise ValueError("what?")

    async def skipped(_: Sizes) -> str:
        await trio.lowlevel.checkpoint()
        raise Skipped("needs root")

    gates = {1: make_gate(broken, 1), 2: make_gate(skipped, 2)}
    monkeypatch.setattr(driver, "GATES", gates)
    assert driver.main(["--small"]) == 1
    said = capsys.readouterr()
    assert "ValueError: what?" in said.out
    assert "needs root" in said.out
    assert "Traceback" in said.err
    assert "0 kept, 1 broken, 1 skipped" in said.out
    assert driver.main(["--small", "2"]) == 0


@pytest.mark.parametrize("words", [["99"], ["x"], ["--clients", "0"], ["--seconds", "inf"]])
def test_the_driver_is_told_nonsense(words: list[str]) -> None:
    """A usage error."""
    with pytest.raises(SystemExit) as ended:
        driver.main(words)
    assert ended.value.code == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_driver_is_stopped(number: signal.Signals) -> None:
    """It ends by the signal, and nothing that it started is left."""
    heeding = ["env", "--default-signal=INT"]  # which a shell's & would have ignored
    words = [*heeding, sys.executable, "-m", "tests.acceptance", "soak", "--souls", "2"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, start_new_session=True) as process:
        try:
            assert wait_until(lambda: len(children(process.pid)) > 1, TIMEOUT_SECONDS)
            started = children(process.pid)  # a server and a client
            process.send_signal(number)
            said, _ = process.communicate(timeout=TIMEOUT_SECONDS)
        finally:
            process.kill()
    assert process.returncode == -number
    assert not said
    assert wait_until(lambda: not any(map(lives, started)), TIMEOUT_SECONDS)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started (proc_pid_task(5))."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for text in lists for child in text.read_text().split()]


def test_a_wrong_reply_is_seen() -> None:
    """Wherever it is cut, and wherever it is wrong."""
    reply = Reply(b"abc")
    for data in (b"AB", b"CABCA", b"BC"):
        reply.take(data)
    assert reply.received == 9
    with pytest.raises(Broken, match="wrong after 9 bytes"):
        reply.take(b"ABD")


def test_what_is_owed_while_more_may_come() -> None:
    """All but a character that is cut in two."""
    text = "straße 日".encode()
    assert promised(text) == "STRASSE 日".encode()
    assert promised(text[:-1]) == b"STRASSE "
    assert promised(b"a\xff\xe6") == b"A\xff"


@pytest.mark.parametrize(
    ("times", "last", "otherwise"),
    [
        ([1.1] * 4, 1.1, "4 were cut, not 5"),
        ([1.1] * 6, 1.1, "6 were cut, not 5"),
        ([1.1, 1.1, 0.9, 1.1, 1.1], 1.1, "the first was cut 0.9 s after it came"),
        ([1.1] * 5, 9.0, "the last after 9.0 s of nothing taken"),
        ([9.0] * 5, 1.1, ""),
        ([1.1] * 5, 1.1, ""),
    ],
)
def test_never_readers_are_cut_in_time(times: list[float], last: float, otherwise: str) -> None:
    """Not one more or fewer, not sooner, and not much later than nothing was taken any more."""
    sizes = replace(SMALL, never_readers=5, write_timeout=1.0)
    stalled = [{"seconds": time} for time in times]
    waits = [1.0] * 4 + [last]
    if not otherwise:
        slow.judge_ends(stalled, waits, sizes)
        return
    with pytest.raises(Broken, match=otherwise):
        slow.judge_ends(stalled, waits, sizes)
