"""``serve --workers`` under the signals of its operator, and a worker under its parent's orders."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
from tests.helpers.certificates import issue, pair_file
from tests.helpers.commands import bound_runs
from tests.helpers.waiting import TIMEOUT_SECONDS
from trio.testing import wait_all_tasks_blocked

from trio_upper.cli import operate, serve, supervise
from trio_upper.cli.announcement import Announcement
from trio_upper.cli.main import main
from trio_upper.cli.supervise import share_out, worker_command
from trio_upper.server.settings import ServerSettings
from trio_upper.server.workers import Order, Parent

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


class Log:
    """Keeps what is logged, and calls `then[event]` when that event is logged the first time."""

    def __init__(self, **then: Callable[[], object]) -> None:
        self.events: list[tuple[str, str, dict[str, object]]] = []
        self.bound: dict[str, object] = {}
        self._then = then

    def bind(self, **fields: object) -> "Log":
        self.bound |= fields
        return self

    def info(self, event: str, **fields: object) -> None:
        self.events.append(("info", event, fields))
        self._then.pop(event.replace(" ", "_"), lambda: None)()

    def warning(self, event: str, **fields: object) -> None:
        self.events.append(("warning", event, fields))

    def names(self) -> list[str]:
        return [event for _, event, _ in self.events]


@pytest.fixture(autouse=True)
def _bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that does not end fails."""
    bound_runs(monkeypatch, virtual=False)


def raising(*numbers: signal.Signals) -> Callable[[], object]:
    """Return what raises these signals one after the other, each when the last one is obeyed."""

    async def raise_them() -> None:
        for number in numbers:
            await wait_all_tasks_blocked()
            signal.raise_signal(number)

    return lambda: trio.lowlevel.spawn_system_task(raise_them)


class Fake:
    """A worker that serves at once and ends when it must, with `code`; if `dead`, it never was."""

    def __init__(self, orders: list[object], *, code: int, dead: bool) -> None:
        self.pid = 42
        self._orders = orders
        self._code = code
        self._over = trio.Event()
        self._dead = dead
        if dead:
            self._over.set()

    async def ready(self) -> bool:
        await trio.lowlevel.checkpoint()
        return not self._dead

    async def ended(self) -> int:
        await self._over.wait()
        return self._code

    def report(self) -> None:
        self._orders.append("report")

    def tell(self, order: Order) -> None:
        self._orders.append(order)
        if order is Order.CUT or not self._code:
            self._over.set()

    def kill(self) -> None:
        self._over.set()

    close = kill


class Making:
    """Makes fakes instead of processes; keeps what they were made of, and what they were told."""

    def __init__(self, *, code: int = 0, dead: bool = False) -> None:
        self.commands: list[list[str]] = []
        self.orders: list[object] = []
        self.addresses: list[object] = []
        self._code = code
        self._dead = dead

    async def start(
        self, command: list[str], listeners: list[trio.SocketListener], *, secret: bytes
    ) -> Fake:
        await trio.lowlevel.checkpoint()
        assert secret == b"secret"
        self.commands.append(command)
        self.addresses = [listener.socket.getsockname() for listener in listeners]
        return Fake(self.orders, code=self._code, dead=self._dead)


def run(
    monkeypatch: pytest.MonkeyPatch,
    making: Making,
    log: Log,
    *,
    announcement: Announcement | None = None,
    **settings: Any,
) -> int:
    """Run ``serve --workers 2`` with fakes."""
    monkeypatch.setattr(supervise, "WorkerProcess", making)
    return supervise.run(
        ServerSettings(port=0, **settings),
        cast("FilteringBoundLogger", log),
        shares=share_out(settings.get("max_clients", 1000), 2),
        words=["serve", "--port", "0"],
        announcement=announcement,
        pem=b"secret",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_drains_all(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """A clean drain is exit code 0; the log has the workers, the listeners and the stop."""
    making, log = Making(), Log(listening=raising(number))
    assert run(monkeypatch, making, log) == 0
    assert making.orders == [Order.DRAIN] * 2
    [(_, port)] = cast("list[tuple[str, int]]", making.addresses)
    assert ("info", "listening", {"address": "127.0.0.1", "port": port}) in log.events
    assert ("info", "worker started", {"pid": 42}) in log.events
    assert log.events[-2:] == [
        ("info", "stopping", {"signal": number.name}),
        ("info", "stopped", {}),
    ]


def test_the_second_signal_cuts_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that had clients to cut makes the exit code 1."""
    making, log = Making(code=1), Log(listening=raising(signal.SIGINT, signal.SIGTERM))
    assert run(monkeypatch, making, log) == 1
    assert making.orders.count(Order.CUT) == 2
    assert ("warning", "stopping at once", {"signal": "SIGTERM"}) in log.events


def test_sigusr1_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker logs its own totals."""
    making, log = Making(), Log(listening=raising(signal.SIGUSR1, signal.SIGTERM))
    assert run(monkeypatch, making, log) == 0
    assert making.orders == ["report"] * 2 + [Order.DRAIN] * 2


def test_a_person_is_told_what_to_do_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As by a server alone, with the arguments that it has."""
    log = Log(stopped=lambda: None, listening=raising(signal.SIGTERM))
    run(monkeypatch, Making(), log, announcement=Announcement(arguments=["--workers", "2"]))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("trio-upper: listening on 127.0.0.1, port ")
    assert "serve --workers 2 --public" in lines[-1]


def test_inherited_listeners_are_handed_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no announcement: whoever opened them knows where they are."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(bound.dup()))
        monkeypatch.setattr(operate, "adopt_listeners", lambda environment: (listener,))
        making = Making()
        assert (
            run(
                monkeypatch,
                making,
                Log(listening=raising(signal.SIGTERM)),
                announcement=Announcement(),
            )
            == 0
        )
        assert making.addresses == [bound.getsockname()]
    assert capsys.readouterr().err == ""


def test_where_nothing_can_be_listened_on_it_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, exit code 1, and no worker is started."""
    making, log = Making(), Log()
    assert run(monkeypatch, making, log, hosts=("192.0.2.1",)) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("trio-upper: cannot listen on 192.0.2.1 port 0: ")
    assert not making.commands
    assert not log.events


def test_where_no_worker_can_start_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, exit code 1."""
    assert run(monkeypatch, Making(code=3, dead=True), Log()) == 1
    assert capsys.readouterr().err == (
        "trio-upper: none of the 2 workers could start; the last one: exit code 3\n"
    )


def test_the_clients_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Together the workers have as many as the operator said; each serves alone."""
    making = Making()
    run(monkeypatch, making, Log(listening=raising(signal.SIGTERM)), max_clients=7)
    assert sorted(making.commands) == [
        worker_command(["serve", "--port", "0"], 1, 4),
        worker_command(["serve", "--port", "0"], 2, 3),
    ]
    assert share_out(7, 7) == [1] * 7
    assert sum(share_out(10_000, 64)) == 10_000


def test_more_workers_than_clients_are_refused() -> None:
    """One of them could not serve a single client."""
    with pytest.raises(ValueError, match="--max-clients 2 is less than one for each of 3 workers"):
        share_out(2, 3)


def test_a_worker_has_the_words_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for its share, and that it serves by itself, whatever the environment says."""
    called: list[tuple[ServerSettings, int]] = []
    monkeypatch.setenv("TRIO_UPPER_SERVE_WORKERS", "5")
    monkeypatch.setenv("TRIO_UPPER_SERVE_MAX_CLIENTS", "6")
    monkeypatch.setattr(
        serve, "run", lambda settings, *_, **options: called.append((settings, options["worker"]))
    )
    words = ["serve", "--workers", "2", "--max-clients=9", "--grace", "3"]
    command = worker_command(words, 3, 4)
    assert command[:3] == [sys.executable, "-m", "trio_upper"]
    with pytest.raises(SystemExit):
        main(command[3:])
    assert called == [(ServerSettings(max_clients=4, grace=3), 3)]


# ------------------------------------------------------------------ the command line


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the commands were called with."""
    calls: dict[str, Any] = {}

    def alone(settings: ServerSettings, _: object, **options: Any) -> int:
        calls.update(options, settings=settings, count=1)
        return 7

    def parent(settings: ServerSettings, _: object, **options: Any) -> int:
        calls.update(options, settings=settings, count=len(options["shares"]))
        return 8

    monkeypatch.setattr(serve, "run", alone)
    monkeypatch.setattr(supervise, "run", parent)
    monkeypatch.setattr("trio_upper.platform.usable_cores", lambda: 3)
    return calls


def exit_code(*arguments: str) -> object:
    """Return the exit code of the program."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


@pytest.mark.parametrize(
    ("arguments", "count", "code"),
    [([], 1, 7), (["--workers", "1"], 1, 7), (["--workers", "2"], 2, 8), (["--workers=0"], 3, 8)],
)
def test_the_number_of_workers(
    called: dict[str, Any], arguments: list[str], count: int, code: int
) -> None:
    """One is this process; 0 is one for each core that it may use."""
    assert exit_code("serve", *arguments) == code
    assert called["count"] == count
    assert called["announcement"].arguments == tuple(arguments)
    assert called.get("words", ["serve", *arguments]) == ["serve", *arguments]


def test_the_end_of_the_options_is_left_out(called: dict[str, Any]) -> None:
    """Workers, and the command that exposes the server, have more of them."""
    assert exit_code("serve", "--workers", "2", "--") == 8
    assert called["words"] == ["serve", "--workers", "2"]
    assert called["announcement"].arguments == ("--workers", "2")


def test_one_core_means_no_parent(called: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker alone has nothing to share."""
    monkeypatch.setattr("trio_upper.platform.usable_cores", lambda: 1)
    assert exit_code("serve", "--workers", "0") == 7


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--workers", "-1"], "-1"),
        (["--workers", "x"], "'x'"),
        (["--workers", "3", "--max-clients", "2"], "less than one for each of 3 workers"),
    ],
)
def test_workers_that_make_no_sense_are_a_usage_error(
    called: dict[str, Any], capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """In one line."""
    assert exit_code("serve", *arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
    assert not called


def test_a_typed_certificate_is_no_secret_between_parent_and_worker(
    called: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Workers read it from its file, though the environment asks for a self-made one."""
    monkeypatch.setenv("TRIO_UPPER_SERVE_TLS_SELF_SIGNED", "1")
    pair = pair_file(tmp_path, issue("localhost"))
    assert exit_code("serve", "--workers", "2", f"--tls-cert={pair}") == 8
    assert called["pem"] == b""


@pytest.fixture
def _activated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")


@pytest.mark.usefixtures("_activated")
@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--host", "127.0.0.1"], "--host"),
        (["--port", "8746"], "--port"),
        (["--port", "8746", "--host", "::1"], "--host and --port"),
    ],
)
def test_inherited_listeners_leave_no_say_to_host_and_port(
    called: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    options: str,
) -> None:
    """Also if they are the defaults: they were given."""
    assert exit_code("serve", *arguments) == 2
    assert capsys.readouterr().err.startswith(
        f"trio-upper: the listeners are inherited (LISTEN_FDS); leave out {options}; see "
    )
    assert not called


@pytest.mark.usefixtures("_activated")
def test_inherited_listeners_leave_no_say_to_the_environment_either(
    called: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is to be left out is named with its variable."""
    monkeypatch.setenv("TRIO_UPPER_SERVE_PORT", "8746")
    assert exit_code("serve", "--host", "::1") == 2
    said = capsys.readouterr().err
    assert "leave out --host and --port (from TRIO_UPPER_SERVE_PORT); see " in said
    assert not called


@pytest.mark.usefixtures("_activated")
def test_without_them_inherited_listeners_are_served_on(called: dict[str, Any]) -> None:
    """The command adopts them."""
    assert exit_code("serve", "--workers", "2") == 8


@pytest.mark.usefixtures("_activated")
def test_a_worker_may_have_been_given_host_and_port(called: dict[str, Any]) -> None:
    """They were for its parent, which has opened the listeners."""
    assert exit_code("serve", "--host", "::1", "--worker", "1") == 7


# ------------------------------------------------------------------ a worker


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The parent's end of the line to the worker that ``serve`` is now, which has a listener."""
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as bound:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(bound.dup()))
        monkeypatch.setattr(Parent, "of_worker", lambda: Parent(theirs))
        monkeypatch.setattr(operate, "adopt_listeners", lambda environment: (listener,))
        ours.settimeout(TIMEOUT_SECONDS)
        yield ours


def work(log: Log, tasks: Callable[[], object], *, worker: int | None = 3) -> int:
    """Be a worker, under whatever `tasks` starts; return the exit code."""

    async def start_tasks() -> None:
        await wait_all_tasks_blocked()
        tasks()

    plain = serve._serve

    async def serving(*arguments: Any) -> Any:
        trio.lowlevel.spawn_system_task(start_tasks)
        return await plain(*arguments)

    serve._serve = serving  # type: ignore[assignment]
    try:
        return serve.run(
            ServerSettings(),
            cast("FilteringBoundLogger", log),
            announcement=Announcement(),
            worker=worker,
        )
    finally:
        serve._serve = plain


def test_a_worker_tells_its_parent_and_nobody_else(
    line: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    """That it serves; its log carries its number; and it drains when it is told to."""
    log = Log()
    assert work(log, lambda: line.send(b"d")) == 0
    assert line.recv(100) == b"r"
    assert log.bound == {"worker": 3}
    assert log.names() == ["stopped"]
    assert capsys.readouterr() == ("", "")


def test_who_inherited_listeners_announces_nothing(
    line: socket.socket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also without a parent, under systemd: the log is enough."""
    log = Log()
    assert work(log, lambda: signal.raise_signal(signal.SIGTERM), worker=None) == 0
    assert log.names() == ["listening", "stopping", "stopped"]
    assert capsys.readouterr() == ("", "")


def test_a_worker_logs_its_totals_on_order(line: socket.socket) -> None:
    """By SIGUSR1, and goes on; a cut ends it at once."""
    log = Log()

    def give_orders() -> None:
        signal.raise_signal(signal.SIGUSR1)
        line.send(b"c")

    assert work(log, give_orders) == 0
    assert log.names() == ["totals", "stopped"]


def test_a_worker_whose_parent_has_gone_drains(line: socket.socket) -> None:
    """Nobody would start it again, or stop it; the log says why it stops."""
    log = Log()
    assert work(log, line.close) == 0
    assert log.names() == ["parent gone", "stopped"]


def test_a_worker_may_be_stopped_alone(line: socket.socket) -> None:
    """A signal to it alone is obeyed; the order of its parent beside it does not make it a cut."""
    log = Log()

    def stop() -> None:
        signal.raise_signal(signal.SIGTERM)
        line.send(b"d")

    assert work(log, stop) == 0
    assert log.names() == ["stopping", "stopped"]


def test_workers_are_refused_where_there_are_none(
    called: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line."""
    monkeypatch.setattr("trio_upper.platform.HAS_WORKERS", False)
    assert exit_code("serve", "--workers", "0") == 2
    assert "--workers must be 1" in capsys.readouterr().err
