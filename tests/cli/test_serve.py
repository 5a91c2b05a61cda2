"""``serve`` under the signals of its operator, with a server that does what it is told."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, cast

import pytest
import trio
from tests.helpers.commands import bound_runs
from trio.testing import wait_all_tasks_blocked

from trio_upper.cli import operate, serve
from trio_upper.cli.announcement import Announcement
from trio_upper.cli.early import keeping_signals
from trio_upper.server.listeners import CannotListen
from trio_upper.server.server import Totals
from trio_upper.server.settings import ServerSettings

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

LISTENING: list[tuple[str, int]] = [("127.0.0.1", 5000), ("192.168.1.7", 5000)]
TOTALS: dict[str, object] = {
    "served": 3,
    "refused": 0,
    "cut": 0,
    "bytes_in": 10,
    "bytes_out": 11,
}


class Log:
    """Keeps what is logged, and calls `then[event]` when that event is logged the first time."""

    def __init__(self, **then: Callable[[], object]) -> None:
        self.events: list[tuple[str, str, dict[str, object]]] = []
        self._then = then

    def info(self, event: str, **fields: object) -> None:
        self._log("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._log("warning", event, fields)

    def bind(self, **fields: object) -> "Log":
        return self

    def _log(self, level: str, event: str, fields: dict[str, object]) -> None:
        self.events.append((level, event, fields))
        self._then.pop(event, lambda: None)()


class Fake:
    """A server that listens at once and drains at once, unless told otherwise."""

    def __init__(self, *, busy: bool = False, cut: int = 0, error: Exception | None = None) -> None:
        self.settings: ServerSettings | None = None
        self.told: list[str] = []
        self.totals = Totals(served=3, bytes_in=10, bytes_out=11)
        self.listening = LISTENING
        self.listening_hook: Callable[[], object] = lambda: None
        self._busy = busy
        self._to_cut = cut
        self._error = error
        self._over = trio.Event()

    def make(self, settings: ServerSettings, log: object) -> "Fake":
        self.settings = settings
        return self

    async def run(self, *, task_status: trio.TaskStatus[Sequence[tuple[str, int]]]) -> None:
        if self._error:
            raise self._error
        task_status.started(self.listening)
        self.listening_hook()
        if self.listening:
            await self._over.wait()

    def drain(self) -> None:
        self.told.append("drain")
        if not self._busy:
            self._over.set()

    def cut(self) -> None:
        self.told.append("cut")
        self.totals.cut = self._to_cut
        self._over.set()


@pytest.fixture(autouse=True)
def _bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that does not end fails, and this machine's addresses are always the same."""

    bound_runs(monkeypatch, virtual=False)
    monkeypatch.setattr(operate, "own_addresses", lambda: [IPv4Address("192.168.1.7")])


def run(
    monkeypatch: pytest.MonkeyPatch,
    server: Fake,
    log: Log,
    *,
    announcement: Announcement | None = None,
) -> int:
    """Run ``serve`` with `server` for the real one."""
    monkeypatch.setattr(serve, "Server", server.make)
    return serve.run(ServerSettings(), cast("FilteringBoundLogger", log), announcement=announcement)


def raising(*numbers: signal.Signals) -> Callable[[], object]:
    """Return what raises these signals one after the other, each when the last one is obeyed."""

    async def raise_them() -> None:
        for number in numbers:
            await wait_all_tasks_blocked()
            signal.raise_signal(number)

    return lambda: trio.lowlevel.spawn_system_task(raise_them)


def test_a_signal_that_came_early_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was kept while the program loaded."""
    server, log = Fake(), Log()
    with keeping_signals():
        signal.raise_signal(signal.SIGTERM)
        assert run(monkeypatch, server, log) == 0
    assert server.told == ["drain"]
    assert ("info", "stopping", {"signal": "SIGTERM"}) in log.events


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_drains(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """A clean drain is exit code 0, and the log has the start, the stop and the totals."""
    server, log = Fake(), Log(listening=raising(number))
    assert run(monkeypatch, server, log) == 0
    assert server.told == ["drain"]
    assert log.events == [
        ("info", "listening", {"address": "127.0.0.1", "port": 5000}),
        ("info", "listening", {"address": "192.168.1.7", "port": 5000}),
        ("info", "stopping", {"signal": number.name}),
        ("info", "stopped", TOTALS),
    ]


def test_the_second_signal_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever the two are; clients that were cut make the exit code 1."""
    server = Fake(busy=True, cut=2)
    log = Log(listening=raising(signal.SIGINT, signal.SIGTERM))
    assert run(monkeypatch, server, log) == 1
    assert server.told == ["drain", "cut"]
    assert log.events[2:] == [
        ("info", "stopping", {"signal": "SIGINT"}),
        ("warning", "stopping at once", {"signal": "SIGTERM"}),
        ("info", "stopped", TOTALS | {"cut": 2}),
    ]


def test_a_second_signal_that_finds_nobody_to_cut_is_a_clean_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The exit code tells whether clients were cut, not which signal came."""
    log = Log(listening=raising(signal.SIGTERM, signal.SIGTERM))
    assert run(monkeypatch, Fake(busy=True), log) == 0


def test_sigusr1_logs_the_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as it comes, and nothing stops by it."""
    server = Fake()
    log = Log(listening=raising(signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM))
    assert run(monkeypatch, server, log) == 0
    assert [event for event in log.events if event[1] == "totals"] == [
        ("info", "totals", TOTALS),
        ("info", "totals", TOTALS),
    ]
    assert server.told == ["drain"]


def test_sigusr1_never_ends_a_server_that_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even in the instant in which it is received no more: the exit code stays true."""
    handlers: list[object] = []
    set_handler = signal.signal

    def keep(number: signal.Signals, handler: "signal._HANDLER") -> "signal._HANDLER":
        if number == signal.SIGUSR1:
            handlers.append(handler)
        return set_handler(number, handler)

    monkeypatch.setattr(signal, "signal", keep)
    assert run(monkeypatch, Fake(), Log(listening=raising(signal.SIGTERM))) == 0
    assert signal.SIG_DFL not in handlers
    assert handlers[-1] is signal.SIG_IGN


def test_a_system_without_a_signal_for_it_logs_no_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has none; everything else is the same there."""
    monkeypatch.setattr(operate, "REPORT_SIGNAL", None)
    server, log = Fake(), Log(listening=raising(signal.SIGTERM))
    assert run(monkeypatch, server, log) == 0
    assert server.told == ["drain"]


def test_what_was_ignored_at_the_start_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server in the background of a script is not ended by the Ctrl-C for the script."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        server, log = Fake(), Log(listening=raising(signal.SIGINT, signal.SIGTERM))
        assert run(monkeypatch, server, log) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert ("info", "stopping", {"signal": "SIGTERM"}) in log.events


@pytest.mark.parametrize("pid", [None, "1"])
def test_listeners_for_another_process_are_a_warning(
    monkeypatch: pytest.MonkeyPatch, pid: str | None
) -> None:
    """A shell in between has them, and its port is in use; this server listens by itself."""
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.delenv("LISTEN_PID", raising=False)
    if pid:
        monkeypatch.setenv("LISTEN_PID", pid)
    log = Log(listening=raising(signal.SIGTERM))
    assert run(monkeypatch, Fake(), log) == 0
    fields = {"listen_pid": pid, "pid": os.getpid()}
    assert log.events[0] == ("warning", "listeners are for another process", fields)


def test_where_nothing_can_be_listened_on_it_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, exit code 1, and nothing in the log; the nurseries' groups are unpacked."""
    error = ExceptionGroup("", [ExceptionGroup("", [CannotListen("cannot listen on x: y")])])
    log = Log()
    assert run(monkeypatch, Fake(error=error), log) == 1
    assert capsys.readouterr() == ("", "trio-upper: cannot listen on x: y\n")
    assert not log.events


def test_a_bug_is_not_explained_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is known to go wrong becomes a line."""
    with pytest.RaisesGroup(RuntimeError, flatten_subgroups=True):
        run(monkeypatch, Fake(error=RuntimeError("a bug")), Log())


def test_a_person_is_told_what_to_do_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of it on standard error, each line as one of the program's own."""
    monkeypatch.setattr(sys, "orig_argv", ["python"])
    log = Log(listening=raising(signal.SIGTERM))
    run(monkeypatch, Fake(), log, announcement=Announcement())
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "trio-upper: listening on 127.0.0.1 and 192.168.1.7, port 5000; Ctrl-C stops",
        "trio-upper: from this machine:    python -m trio_upper client 127.0.0.1 5000",
        "trio-upper: from other machines:  python -m trio_upper client 192.168.1.7 5000",
    ]


def test_the_command_that_exposes_has_the_arguments(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are handed through."""
    server, log = Fake(), Log(listening=raising(signal.SIGTERM))
    server.listening = LISTENING[:1]
    announcement = Announcement(arguments=["--port", "0", "--host", "127.0.0.1"])
    run(monkeypatch, server, log, announcement=announcement)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith(" serve --port 0 --public")


def test_clients_of_a_server_with_tls_are_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their commands work as they are copied."""
    server, log = Fake(), Log(listening=raising(signal.SIGTERM))
    run(monkeypatch, server, log, announcement=Announcement(tls=True))
    _, *clients = capsys.readouterr().err.splitlines()
    assert [line.endswith(" 5000 --tls") for line in clients] == [True, True]


def test_a_server_that_was_stopped_before_it_listened_announces_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no address to log either; that is a clean stop."""
    server, log = Fake(), Log()
    server.listening = []
    assert run(monkeypatch, server, log, announcement=Announcement()) == 0
    assert capsys.readouterr() == ("", "")
    assert log.events == [("info", "stopped", TOTALS)]


def test_a_real_server_is_stopped_while_it_looks_a_name_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the first signal, at once, however long the name server takes."""
    monkeypatch.setattr(trio.socket, "getaddrinfo", look_up_for_ever)
    log = Log()
    settings = ServerSettings(hosts=("example.lan",), port=0)
    assert serve.run(settings, cast("FilteringBoundLogger", log), announcement=Announcement()) == 0
    assert capsys.readouterr() == ("", "")
    assert [event for _, event, _ in log.events] == ["stopping", "stopped"]


async def look_up_for_ever(*_: object, **__: object) -> None:
    raising(signal.SIGTERM)()
    await trio.sleep_forever()


def test_at_a_terminal_nothing_is_said_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever reads the announcement there need not read it in the log."""
    server, log = Fake(), Log()
    server.listening_hook = raising(signal.SIGTERM)
    run(monkeypatch, server, log, announcement=Announcement(at_terminal=True))
    assert "listening on 127.0.0.1" in capsys.readouterr().err
    assert [event for _, event, _ in log.events] == ["stopping", "stopped"]


def test_where_a_machine_reads_the_log_nobody_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard error holds the log alone then."""
    run(monkeypatch, Fake(), Log(listening=raising(signal.SIGTERM)))
    assert capsys.readouterr() == ("", "")


def test_a_real_server_serves_until_it_is_told_to_stop() -> None:
    """The fake above does as the real one does: it answers, drains and counts."""
    replies: list[bytes] = []

    async def talk() -> None:
        port = cast("int", log.events[0][2]["port"])
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"hi")
            await stream.send_eof()
            replies.extend([bytes(reply) async for reply in stream])
        signal.raise_signal(signal.SIGTERM)

    log = Log(listening=lambda: trio.lowlevel.spawn_system_task(talk))
    assert serve.run(ServerSettings(port=0), cast("FilteringBoundLogger", log)) == 0
    assert b"".join(replies) == b"HI"
    assert log.events[-1] == (
        "info",
        "stopped",
        {"served": 1, "refused": 0, "cut": 0, "bytes_in": 2, "bytes_out": 2},
    )
