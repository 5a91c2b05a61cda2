"""The log: one line for each event, as text or as JSON, and nothing below its level.

And it goes to whoever reads it, without ever waiting for that.
"""

import contextlib
import io
import json
import os
import re
import select
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest

from trio_upper.cli import log as module
from trio_upper.cli.log import Unhurried, make_logger, open_log

COLOR = "\x1b["


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_text_is_a_line_with_time_level_event_and_fields() -> None:
    """A person reads when, how grave, what, and the fields as name=value."""
    output = io.StringIO()
    make_logger("text", "info", output).info("client connected", client=1, peer="[::1]:5")
    [line] = output.getvalue().splitlines()
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[info +\] client connected ", line)
    assert line.split()[-2:] == ["client=1", "peer=[::1]:5"]


def test_json_is_an_object_a_line_with_the_time_in_utc() -> None:
    """A machine reads the same: the fields by their names, the time with its zone."""
    output = io.StringIO()
    make_logger("json", "info", output).bind(client=1).warning("client gone", end="eof")
    [line] = output.getvalue().splitlines()
    event = json.loads(line)
    moment = datetime.fromisoformat(event.pop("timestamp"))
    assert moment.utcoffset() == timedelta(0)
    assert event == {"client": 1, "event": "client gone", "end": "eof", "level": "warning"}


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize(
    ("level", "logged"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_what_is_below_the_level_is_not_logged(style: str, level: str, logged: list[str]) -> None:
    """The level is the least grave one that appears."""
    output = io.StringIO()
    log = make_logger(style, level, output)
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("event")
    assert re.findall("debug|info|warning|error", output.getvalue()) == logged


def fail(clients_text: bytes) -> None:
    """Fail with a client's text among the values of the frame."""
    if clients_text:
        raise RuntimeError("a bug")


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_bug_is_logged_with_its_traceback_and_without_what_a_client_sent(style: str) -> None:
    """The traceback names the error and where it came from; no frame's values are shown."""
    output = io.StringIO()
    log = make_logger(style, "info", output)
    secret = bytes.fromhex("736563726574")
    try:
        fail(secret)
    except RuntimeError:
        log.exception("client failed")
    logged = output.getvalue()
    assert "RuntimeError" in logged
    assert "a bug" in logged
    assert "test_log.py" in logged
    assert "clients_text" not in logged
    assert secret.decode() not in logged.replace("fail(secret)", "")


def test_json_has_the_frames_of_a_traceback_and_no_values() -> None:
    """File, line and function of each; neither locals nor what else structlog can tell."""
    output = io.StringIO()
    try:
        fail(b"x")
    except RuntimeError:
        make_logger("json", "info", output).exception("client failed")
    [error] = json.loads(output.getvalue())["exception"]
    assert (error["exc_type"], error["exc_value"]) == ("RuntimeError", "a bug")
    assert [frame["name"] for frame in error["frames"]][-1] == "fail"
    assert not any(frame.get("locals") for frame in error["frames"])


def test_an_exception_is_one_line_of_json() -> None:
    """A collector of logs takes each line for itself."""
    output = io.StringIO()
    try:
        fail(b"x")
    except RuntimeError:
        make_logger("json", "info", output).exception("client failed")
    [line] = output.getvalue().splitlines()
    assert json.loads(line)["exception"]


@pytest.mark.parametrize(
    ("output", "no_color", "colored"),
    [
        (Terminal(), None, True),
        (Terminal(), "1", False),
        (io.StringIO(), None, False),
    ],
)
def test_colors_are_for_a_terminal_whose_user_has_nothing_against_them(
    monkeypatch: pytest.MonkeyPatch, output: io.StringIO, no_color: str | None, colored: bool
) -> None:
    """A file gets none, and NO_COLOR is respected (https://no-color.org)."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", no_color)
    make_logger("text", "info", output).info("event")
    assert (COLOR in output.getvalue()) is colored


# ------------------------------------------------------------------ whoever reads it


def test_what_could_not_be_written_is_told_by_the_next_line() -> None:
    """As a number in its field, in text and in JSON; no line has one if nothing was lost."""
    losses = iter([0, 3, 0])
    output = io.StringIO()
    log = make_logger("json", "info", output, lambda: next(losses)).bind(worker=2)
    for name in ("one", "two", "three"):
        log.info(name)
    events = [json.loads(line) for line in output.getvalue().splitlines()]
    assert [event.get("lost") for event in events] == [None, 3, None]
    assert all(event["worker"] == 2 for event in events)
    make_logger("text", "info", output, lambda: 5).info("event")
    assert "lost=5" in output.getvalue()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's end to read and its end to write.

    Each read returns what one write wrote, O_DIRECT of pipe(2).
    """
    ends = os.pipe2(os.O_DIRECT)
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):  # closed by the test
            os.close(end)


def read_writes(reading: int) -> list[bytes]:
    """Return what each write up to the end wrote."""
    return list(iter(lambda: os.read(reading, 65536), b""))


def fill(writing: int) -> None:
    """Write as much as a pipe takes."""
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * select.PIPE_BUF)
    os.set_blocking(writing, True)


def numbered(count: int) -> list[bytes]:
    """Return so many lines that differ."""
    return [b"line %d\n" % number for number in range(count)]


def test_lines_are_written_in_order_and_to_the_last_one(pipe: tuple[int, int]) -> None:
    """Whole ones, in pieces that no other process can divide: no more than PIPE_BUF (pipe(7))."""
    reading, writing = pipe
    lines = numbered(3000)
    with Unhurried(writing) as unhurried:
        for line in lines:
            assert unhurried.write(line) == len(line)
    os.close(writing)
    writes = read_writes(reading)
    assert b"".join(writes) == b"".join(lines)
    assert all(len(write) <= select.PIPE_BUF and write.endswith(b"\n") for write in writes)
    assert len(writes) < len(lines) / 10


def test_a_line_is_written_while_the_next_one_is_not_known(pipe: tuple[int, int]) -> None:
    """Who follows the log sees each event when it happens."""
    reading, writing = pipe
    with Unhurried(writing) as unhurried:
        for line in numbered(3):
            unhurried.write(line)
            assert os.read(reading, 100) == line


def test_a_traceback_is_written_whole(pipe: tuple[int, int]) -> None:
    """However long, and between the lines before and after it."""
    reading, writing = pipe
    lines = [b"before\n", b"Traceback\n" * select.PIPE_BUF, b"after\n"]
    read: list[bytes] = []
    thread = threading.Thread(target=lambda: read.extend(read_writes(reading)))
    thread.start()
    with Unhurried(writing) as unhurried:
        for line in lines:
            unhurried.write(line)
    os.close(writing)
    thread.join()
    assert b"".join(read) == b"".join(lines)


def test_what_waits_comes_when_the_reader_goes_on(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And who asks then is told once how many lines did not fit, which were the last ones."""
    monkeypatch.setattr(module, "MOST_WAITING", 10)
    reading, writing = pipe
    fill(writing)
    lines, read = numbered(100), list[bytes]()
    with Unhurried(writing) as unhurried:
        for line in lines:
            unhurried.write(line)
        assert unhurried.take_lost() == 0  # for one more would not fit either
        thread = threading.Thread(target=lambda: read.extend(read_writes(reading)))
        thread.start()
    os.close(writing)
    thread.join()
    came = [line for write in read for line in write.splitlines(keepends=True) if b"x" not in line]
    assert 10 <= len(came) < 100
    assert came == lines[: len(came)]
    assert [unhurried.take_lost() for _ in range(2)] == [100 - len(came), 0]


def test_a_reader_who_has_stopped_holds_up_no_end(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What he does not read is lost."""
    monkeypatch.setattr(module, "FAREWELL", 0.05)
    reading, writing = pipe
    fill(writing)
    with Unhurried(writing) as unhurried:
        unhurried.write(b"line\n")
    assert unhurried._thread.is_alive()
    assert unhurried._thread.daemon
    os.close(reading)
    unhurried._thread.join()


def without_a_reader() -> int:
    """Return the end of a pipe whose other end is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def with_a_full_disk() -> int:
    """Return a descriptor that takes nothing (full(4))."""
    return os.open("/dev/full", os.O_WRONLY)


@pytest.mark.parametrize("opened", [without_a_reader, with_a_full_disk])
def test_a_log_that_cannot_be_written_is_lost(opened: Callable[[], int]) -> None:
    """A server outlives `serve 2>&1 | head`, however much it logs."""
    descriptor = opened()
    with pytest.raises(OSError, match=r"Broken pipe|No space"):
        os.write(descriptor, b"x")
    with Unhurried(descriptor) as unhurried:
        for line in numbered(1000):
            unhurried.write(line)
    assert not unhurried._thread.is_alive()
    os.close(descriptor)


def test_a_terminal_is_one(pipe: tuple[int, int]) -> None:
    """As far as colors are concerned; a pipe is none."""
    for descriptor, is_one in [(os.openpty()[1], True), (pipe[1], False)]:
        with Unhurried(descriptor) as unhurried:
            assert unhurried.isatty() is is_one


@pytest.mark.parametrize("style", ["text", "json"])
def test_the_log_goes_to_standard_error(capfd: pytest.CaptureFixture[str], style: str) -> None:
    """In one order with what is printed there, all of it; standard output stays free."""
    before = sys.stderr
    with open_log(style, "info") as log:
        for number in range(100):
            log.info(f"event {number}")
            sys.stderr.write(f"word {number}, ß \udcff\n")
    assert sys.stderr is before
    out, err = capfd.readouterr()
    assert out == ""
    found = re.findall(r"(event|word) (\d+)", err)
    assert found == [(kind, str(number)) for number in range(100) for kind in ("event", "word")]
    assert err.count("ß") == 100


def test_the_log_tells_of_its_losses(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the next line that is written."""
    with open_log("json", "info") as log:
        monkeypatch.setattr(module, "MOST_WAITING", 0)
        log.info("one")
        log.info("two")
        monkeypatch.undo()
        log.info("three")
    [line] = capfd.readouterr().err.splitlines()
    assert (json.loads(line)["event"], json.loads(line)["lost"]) == ("three", 2)


@pytest.mark.parametrize("style", ["text", "json"])
def test_without_standard_error_nothing_is_logged_and_nothing_fails(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], style: str
) -> None:
    """A server that was started with standard error closed serves all the same."""
    monkeypatch.setattr(sys, "stderr", None)
    with open_log(style, "info") as log:
        log.info("event")
        sys.stderr.write("ß \udcff\n")
    assert sys.stderr is None
    assert capfd.readouterr() == ("", "")
