"""The log: one line for each event, as text or as JSON, and nothing below its level."""

import errno
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from trio_upper.log import Lenient, open_log

COLOR = "\x1b["


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_text_is_a_line_with_time_level_event_and_fields() -> None:
    """A person reads when, how grave, what, and the fields as name=value."""
    output = io.StringIO()
    open_log("text", "info", output).info("client connected", client=1, peer="[::1]:5")
    [line] = output.getvalue().splitlines()
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[info +\] client connected ", line)
    assert line.split()[-2:] == ["client=1", "peer=[::1]:5"]


def test_json_is_an_object_a_line_with_the_time_in_utc() -> None:
    """A machine reads the same: the fields by their names, the time with its zone."""
    output = io.StringIO()
    open_log("json", "info", output).bind(client=1).warning("client gone", end="eof")
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
    log = open_log(style, level, output)
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
    log = open_log(style, "info", output)
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
        open_log("json", "info", output).exception("client failed")
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
        open_log("json", "info", output).exception("client failed")
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
    open_log("text", "info", output).info("event")
    assert (COLOR in output.getvalue()) is colored


def test_the_log_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output stays free, whatever is logged."""
    open_log("text", "info").info("event")
    out, err = capsys.readouterr()
    assert out == ""
    assert "event" in err


@pytest.mark.parametrize("style", ["text", "json"])
def test_without_standard_error_nothing_is_logged_and_nothing_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], style: str
) -> None:
    """A server that was started with standard error closed serves all the same."""
    monkeypatch.setattr(sys, "stderr", None)
    open_log(style, "info").info("event")
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def broken() -> Iterator[io.TextIOWrapper]:
    """A pipe that nobody reads any more."""
    reading, writing = os.pipe()
    os.close(reading)
    stream = open_pipe(writing)
    yield stream
    with pytest.raises(BrokenPipeError):  # which shows that it was told
        stream.close()


def open_pipe(writing: int) -> io.TextIOWrapper:
    """Return a stream that gathers what it writes to a pipe."""
    return io.TextIOWrapper(io.BufferedWriter(io.FileIO(writing, "w")))


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_reader_of_the_log_that_has_left_is_not_missed(
    broken: io.TextIOWrapper, style: str
) -> None:
    """A server outlives `serve 2>&1 | head`, however much it logs."""
    log = open_log(style, "info", broken)
    for length in [io.DEFAULT_BUFFER_SIZE] * 10 + [1] * 10:
        log.info("event", field="x" * length)


def test_a_log_is_written_line_by_line() -> None:
    """Who follows it through a pipe sees each event when it happens."""
    reading, writing = os.pipe()
    with open_pipe(writing) as stream, io.FileIO(reading) as pipe:
        os.set_blocking(reading, False)
        open_log("text", "info", stream).info("event")
        line = pipe.read(1000)
    assert line is not None
    assert line.endswith(b"event\n")


class Failing(io.StringIO):
    """A stream on which `flush`, and `write` unless it is to be spared, fail."""

    def __init__(self, error: Exception, *, writes: bool) -> None:
        super().__init__()
        self._error = error
        self._writes = writes

    def write(self, text: str) -> int:
        if not self._writes:
            raise self._error
        return super().write(text)

    def flush(self) -> None:
        raise self._error


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EPIPE, errno.EBADF, errno.EAGAIN])
@pytest.mark.parametrize("writes", [True, False])
def test_a_log_that_cannot_be_written_is_lost(code: int, writes: bool) -> None:
    """A full disk, a closed descriptor, a pipe that does not block: nothing of it stops a server.

    What could be written before is not.
    """
    output = Failing(OSError(code, ""), writes=writes)
    log = open_log("json", "info", output)
    log.info("one")
    log.info("two")
    assert re.findall("one|two", output.getvalue()) == (["one", "two"] if writes else [])


def test_a_bug_of_the_log_is_not_swallowed() -> None:
    """Only what the system cannot write is lost."""
    lenient = Lenient(Failing(RuntimeError("a bug"), writes=False))
    with pytest.raises(RuntimeError):
        lenient.write("x")
    with pytest.raises(RuntimeError):
        lenient.flush()
