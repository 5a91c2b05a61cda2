"""The log: one line for each event, as text or as JSON, and nothing below its level.

And it goes to whoever reads it, without ever waiting for that.
"""

import contextlib
import errno
import io
import json
import logging
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from tests.helpers.waiting import TIMEOUT_SECONDS

from trio_upper.cli import log as module
from trio_upper.cli.log import REPEAT_SECONDS, BackgroundWriter, make_logger, open_log

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
    """A file gets no colors, and NO_COLOR is respected (https://no-color.org)."""
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


def numbered(count: int) -> list[str]:
    """Return `count` lines that differ."""
    return [f"line {number}\n" for number in range(count)]


def write_all(descriptor: int, lines: Iterable[str]) -> BackgroundWriter:
    """Write these lines; return the writer, which is closed, and has closed `descriptor`."""
    with BackgroundWriter(descriptor) as writer:
        for line in lines:
            assert writer.write(line) == len(line)
    os.close(descriptor)
    return writer


def test_lines_are_written_in_order_and_to_the_last_one(pipe: tuple[int, int]) -> None:
    """Whole, in pieces that no other process can divide: no more than PIPE_BUF (pipe(7))."""
    reading, writing = pipe
    lines = numbered(3000)
    write_all(writing, lines)
    writes = read_writes(reading)
    assert b"".join(writes).decode() == "".join(lines)
    assert all(len(write) <= select.PIPE_BUF and write.endswith(b"\n") for write in writes)
    assert len(writes) < len(lines) / 10


def test_a_line_that_comes_in_pieces_is_written_whole(pipe: tuple[int, int]) -> None:
    """As `print` writes it."""
    reading, writing = pipe
    write_all(writing, ["o", "ne", "\n", "two\nthr", "ee\n"])
    assert b"".join(read_writes(reading)) == b"one\ntwo\nthree\n"


def test_a_line_is_written_while_the_next_one_is_not_known(pipe: tuple[int, int]) -> None:
    """Whoever follows the log sees each event when it happens."""
    reading, writing = pipe
    with BackgroundWriter(writing) as writer:
        for line in numbered(3):
            writer.write(line)
            assert os.read(reading, 100).decode() == line


@contextlib.contextmanager
def reading_all(reading: int) -> Iterator[list[bytes]]:
    """Read in a thread, from now to the end; yield what each write wrote, known after the block."""
    read: list[bytes] = []
    thread = threading.Thread(target=lambda: read.extend(read_writes(reading)))
    thread.start()
    yield read
    thread.join(TIMEOUT_SECONDS)


def test_a_traceback_is_written_whole(pipe: tuple[int, int]) -> None:
    """However long, and between the lines before and after it."""
    reading, writing = pipe
    lines = ["before\n", "Traceback\n" * select.PIPE_BUF, "after\n"]
    with reading_all(reading) as read:
        write_all(writing, lines)
    assert b"".join(read).decode() == "".join(lines)


# Writes lines of one letter, each longer than a pipe holds, and says when they wait to be read.
LONG_LINES = """if True:
    import sys
    from trio_upper.cli import log
    log.CLOSE_SECONDS = 600
    with log.BackgroundWriter(2) as writer:
        for _ in range(100):
            writer.write(sys.argv[1] * 100_000 + "\\n")
        print(flush=True)
"""


def test_long_lines_of_workers_do_not_mix() -> None:
    """They share a pipe, which takes such lines piece by piece."""
    reading, writing = os.pipe()
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", LONG_LINES, letter], stdout=subprocess.PIPE, stderr=writing
        )
        for letter in "ab"
    ]
    os.close(writing)
    for worker in workers:
        assert worker.stdout
        assert worker.stdout.readline()
        worker.stdout.close()
    with io.FileIO(reading) as log:
        lines = b"".join(iter(lambda: log.read(4096), b"")).split(b"\n")
    assert [worker.wait(TIMEOUT_SECONDS) for worker in workers] == [0, 0]
    assert sorted(lines) == [b"", *[b"a" * 100_000] * 100, *[b"b" * 100_000] * 100]


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_an_output_that_does_not_block_is_waited_for(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever shares it may have made it so; no line is lost, or torn, by that."""
    if kind == "pipe":
        reading, writing = os.pipe()
    else:
        reading, writing = (end.detach() for end in socket.socketpair())
    fill(writing)
    os.set_blocking(writing, False)
    waits = threading.Event()

    def select_and_tell(reads: list[int], writes: list[int], others: list[int]) -> object:
        waits.set()
        return select.select(reads, writes, others)

    monkeypatch.setattr(module, "select", SimpleNamespace(select=select_and_tell))
    lines = [f"{number} {'x' * 200}\n" for number in range(3000)]  # more than either holds
    with BackgroundWriter(writing) as writer:
        for line in lines:
            writer.write(line)
        assert waits.wait(TIMEOUT_SECONDS)
        with reading_all(reading) as read:
            writer.close()
            os.close(writing)
    assert b"".join(read).decode().lstrip("x") == "".join(lines)
    assert writer.take_lost() == 0
    os.close(reading)


def test_what_waits_is_written_when_the_reader_goes_on(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next line is told once how many did not fit, which were the last ones."""
    monkeypatch.setattr(module, "QUEUE_LINES", 10)
    reading, writing = pipe
    fill(writing)
    lines = numbered(100)
    with BackgroundWriter(writing) as writer:
        for line in lines:
            writer.write(line)
        assert writer.take_lost() == 0  # for one more would not fit either
        with reading_all(reading) as read:
            writer.close()
            os.close(writing)
    came = b"".join(read).decode().lstrip("x").splitlines(keepends=True)
    assert 10 <= len(came) < 100
    assert came == lines[: len(came)]
    assert writer.take_lost() == 100 - len(came)


def test_a_reader_who_has_stopped_delays_no_end(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What he does not read is lost."""
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.05)
    reading, writing = pipe
    fill(writing)
    with BackgroundWriter(writing) as writer:
        writer.write("line\n")
    assert writer._thread is not None
    assert writer._thread.is_alive()
    assert writer._thread.daemon
    os.close(reading)
    writer._thread.join(TIMEOUT_SECONDS)


def without_a_reader() -> int:
    """Return the end of a pipe whose other end is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def with_a_full_disk() -> int:
    """Return a descriptor that takes nothing (full(4))."""
    return os.open("/dev/full", os.O_WRONLY)


@pytest.mark.parametrize("opened", [without_a_reader, with_a_full_disk])
def test_a_log_that_cannot_be_written_is_lost_and_counted(opened: Callable[[], int]) -> None:
    """A server outlives `serve 2>&1 | head`, however much it logs."""
    descriptor = opened()
    with pytest.raises(OSError, match=r"Broken pipe|No space"):
        os.write(descriptor, b"x")
    writer = write_all(descriptor, numbered(1000))
    assert writer._thread is not None
    assert not writer._thread.is_alive()
    assert writer.take_lost() == 1000


class Disk:
    """Takes the place of `os.write`: a disk that has `room` for some more bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.text = ""

    def write(self, _: int, data: bytes) -> int:
        taken = data[: self.room]
        if not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(taken)
        self.text += taken.decode()
        return len(taken)


def test_a_line_that_a_full_disk_has_cut_is_finished_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When there is room again; the lines behind it are counted, also the count itself."""
    disk = Disk(8)
    monkeypatch.setattr(os, "write", disk.write)
    monkeypatch.setattr(threading.Thread, "start", refuse_to_start)
    writer = BackgroundWriter(2)
    writer._lines.extend([(b"first\n", 0), (b"second\n", 0), (b"third\n", 0)])
    writer.write("fourth\n")
    assert disk.text == "first\nse"
    assert writer.take_lost() == 2
    writer.write("fifth, which says so\n")
    assert writer.take_lost() == 3
    disk.room = 1000
    writer.write("sixth\n")
    assert disk.text == "first\nsecond\nsixth\n"
    assert writer.take_lost() == 0


def refuse_to_start(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_without_a_thread_lines_are_written_where_they_are_logged(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of processes ends no server; what a reader does not take at once is lost then."""
    monkeypatch.setattr(threading.Thread, "start", refuse_to_start)
    reading, writing = pipe
    os.set_blocking(writing, False)
    with BackgroundWriter(writing) as writer:
        writer.write("line\n")
        assert os.read(reading, 100) == b"line\n"
        fill(writing)
        os.set_blocking(writing, False)
        writer.write("line\n")
        assert writer.take_lost() == 1


def test_a_terminal_is_one(pipe: tuple[int, int]) -> None:
    """As far as colors are concerned; a pipe is not."""
    for descriptor, is_one in [(os.openpty()[1], True), (pipe[1], False)]:
        with BackgroundWriter(descriptor) as writer:
            assert writer.isatty() is is_one
            assert writer.fileno() == descriptor


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
    assert err.count("\\u00df" if style == "json" else "ß") == 100
    assert style == "text" or all(map(json.loads, err.splitlines()))


@pytest.mark.parametrize("style", ["text", "json"])
def test_what_libraries_log_is_logged_once(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, style: str
) -> None:
    """With its traceback, as an event; the same again only after a while, other things at once."""
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    library = logging.getLogger("trio.serve_listeners")
    with open_log(style, "info"):
        for _ in range(10):
            library.error("%s, will try again", "EMFILE", exc_info=OSError(errno.EMFILE, "?"))
        library.warning("another one: 100 %")
        clock += REPEAT_SECONDS
        library.error("%s, will try again", "EMFILE")
    err = capfd.readouterr().err
    assert re.findall("EMFILE, will|another one: 100 %", err) == [
        "EMFILE, will",
        "another one: 100 %",
        "EMFILE, will",
    ]
    assert err.count("OSError") in {1, 2}
    assert style == "text" or all(map(json.loads, err.splitlines()))
    library.error("nobody")  # its last resort is not ours any more
    assert "nobody" not in capfd.readouterr().out


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_bug_of_the_server_is_logged(capfd: pytest.CaptureFixture[str], style: str) -> None:
    """Once, with its traceback; the exit code is 1."""
    with pytest.raises(SystemExit) as ended, open_log(style, "info"):
        fail(b"x")
    assert ended.value.code == 1
    err = capfd.readouterr().err
    assert "crashed" in err
    assert "RuntimeError" in err
    assert style == "text" or all(map(json.loads, err.splitlines()))


def test_the_log_tells_of_its_losses(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the next line that is written."""
    with open_log("json", "info") as log:
        monkeypatch.setattr(module, "QUEUE_LINES", 0)
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
