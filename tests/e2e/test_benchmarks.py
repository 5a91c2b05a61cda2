"""The benchmark's own arithmetic, its peers, and a miniature round."""

import dataclasses
import io
import math
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
from benchmarks import compare, figures, messages, page, processes, servers
from benchmarks.clients import (
    HELP,
    IMPORTS,
    NC,
    Timed,
    nc_half_closes,
    pipe_cells,
    same_in_capitals,
    timed,
    write_input,
)
from benchmarks.load import (
    ONE_BY_ONE,
    Generator,
    IdleSample,
    Sample,
    Work,
    make_generator,
    measure,
    measure_beside_bulk,
    measure_burst,
    measure_idle,
    over_tls,
)
from benchmarks.processes import ROOT, Cores, child, cpu_seconds, members, spent, wait_until
from benchmarks.rounds import Cell, Fleet, Grid, interleave
from benchmarks.scenarios import (
    ALONE,
    BARE,
    BENCH,
    BESIDE,
    GENERATOR,
    ONE,
    ONE_WORKER,
    TWO_WORKERS,
    Results,
    measure_bare,
)
from benchmarks.servers import (
    C_EPOLL,
    OURS,
    PROTOCOL,
    STREAMS,
    Failed,
    Running,
    Server,
    free_port,
    running,
    tls_identity,
)
from benchmarks.targets import Target, all_targets, best_peer, cpu_us, rate
from tests.helpers.waiting import TIMEOUT_SECONDS

if sys.platform != "linux":
    pytest.skip("the benchmarks need Linux", allow_module_level=True)

ANYWHERE: Cores = frozenset()
BULK = ("bulk", "bulk-text", "bulk-tls")
SHORT_S = 0.05

NAMES = [
    "trio-upper",
    "asyncio-streams",
    "asyncio-protocol",
    "uvloop-protocol",
    "socketserver-threads",
    "trio-tutorial",
    "c-epoll",
    "go-goroutines",
]

SCRIPT = """
import socketserver, sys
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        {}
socketserver.TCPServer.allow_reuse_address = True
socketserver.TCPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

ONE_WRONG = """
        while data := self.request.recv(65536):
            self.request.sendall(data.upper().replace(b"7", b"8"))
"""
"""Right until a line's number has a 7 in it."""

TOO_MUCH = """
        while data := self.request.recv(65536):
            self.request.sendall(data.upper() + b"0")
"""
"""What nobody asked for, behind each reply."""

CLOSING = "self.request.recv(65536)"
"""Closes the connection at the first message."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmarks")


@pytest.fixture(scope="module")
def built(folder: Path) -> dict[str, Server]:
    return {server.name: server for server in servers.all_servers(folder)}


@pytest.fixture(scope="module", params=["compiled", "python"])
def generator(request: pytest.FixtureRequest, folder: Path) -> Generator:
    compiled = request.param == "compiled"
    made = make_generator(folder, ANYWHERE, compiled=compiled)
    if compiled and "in C" not in made.description:
        pytest.skip("no C compiler")
    return made


@pytest.fixture
def streams(built: dict[str, Server]) -> Iterator[Running]:
    with running(built[STREAMS], ANYWHERE) as server:
        yield server


def script_server(script: str) -> Server:
    return Server(name="script", command=(sys.executable, "-c", script))


def ask(port: int, request: bytes, size: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as client:
        client.sendall(request)
        return client.makefile("rb").read(size)


def sample(*, cpu: float = 1.0, seconds: float = 1.0, grown: int = 0) -> Sample:
    latency = {figures.bucket(1000): 100}
    return Sample(
        messages=100, seconds=seconds, cpu=cpu, load_cpu=0.5, latency=latency, grown=grown
    )


def one_column(column: str, rows: Mapping[str, Sample]) -> Grid[Sample]:
    cells = {Cell(row, column): [found] for row, found in rows.items()}
    return Grid(tuple(cells), cells)


# Pure functions


@pytest.mark.parametrize(
    "nanoseconds", [0, 1, 63, 64, 65, 127, 128, 1000, 12_345, 10**6, 10**9, 2**40 - 1]
)
def test_bucket_keeps_a_duration_within_its_precision(nanoseconds: int) -> None:
    """A bucket's middle is within 0.8 % of whatever fell into it."""
    middle = figures.bucket_middle(figures.bucket(nanoseconds))
    assert middle == pytest.approx(nanoseconds, rel=0.008)


def test_buckets_are_in_the_order_of_durations() -> None:
    """A longer duration never falls into an earlier bucket, and no bucket is left out."""
    found = [figures.bucket(nanoseconds) for nanoseconds in range(5000)]
    assert found == sorted(found)
    assert set(found) == set(range(found[-1] + 1))


@pytest.mark.parametrize(("percent", "expected"), [(1, 1), (50, 2), (90, 2), (91, 3), (100, 3)])
def test_percentile_is_the_nearest_rank(percent: float, expected: int) -> None:
    """The sample is named below or at which the share of all samples lies."""
    assert figures.percentile({3: 1, 1: 4, 2: 5}, percent) == expected


def test_percentile_of_nothing_is_no_number() -> None:
    """Without samples there is no percentile."""
    assert math.isnan(figures.percentile({}, 50))


def test_median_leaves_out_what_is_unknown() -> None:
    """NaN does not take part in a median, and is the median of nothing."""
    assert figures.median([3.0, math.nan, 1.0, 2.0]) == 2.0
    assert math.isnan(figures.median([math.nan]))


def test_ratio_to_nothing_is_no_number() -> None:
    """A ratio is known only when both sides are, and the yardstick is not 0."""
    assert figures.ratio(3.0, 2.0) == 1.5
    assert math.isnan(figures.ratio(3.0, 0.0))
    assert math.isnan(figures.ratio(3.0, math.nan))


def test_spread_is_the_widest_distance_from_the_median() -> None:
    """The spread is a share of the median; of nothing it is not known."""
    assert figures.spread([9.0, 10.0, 14.0]) == pytest.approx(0.4)
    assert math.isnan(figures.spread([]))


def test_spent_counts_processes_that_are_there_at_the_end() -> None:
    """A process that ended meanwhile makes nothing negative; a new one counts whole."""
    assert spent({1: 1.0, 2: 5.0}, {1: 1.5, 3: 0.25}) == pytest.approx(0.75)


@pytest.mark.parametrize(
    "sent",
    [messages.LINES, messages.PIECES, messages.TEXT_LINES, messages.TEXT_PIECES],
    ids=lambda sent: sent.name,
)
def test_messages_differ_but_not_in_size(sent: messages.Messages) -> None:
    """Requests are all different, and requests and replies are of one size each."""
    replies = sent.replies
    assert len(set(replies)) == len(sent.requests)
    assert {len(request) for request in sent.requests} == {sent.request_bytes}
    assert len({len(reply) for reply in replies}) == 1


@pytest.mark.parametrize("size", range(20, 60))
def test_numbered_line_is_whole_utf8_of_its_size(size: int) -> None:
    """Wherever the words are cut, the line is UTF-8 of the size that was asked for."""
    line = messages.numbered_line(12, size, messages.OTHER_WORDS)
    assert len(line) == size
    assert line.decode().startswith("0012 ")
    assert line.endswith(b"\n")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(math.nan, "-"), (0.041, "0.04"), (1.006, "1.01"), (12.34, "12.3"), (1234.5, "1,234")],
)
def test_number_has_the_digits_that_count(value: float, expected: str) -> None:
    """Small numbers have decimals, large ones separators, unknown ones a dash."""
    assert page.number(value) == expected


def test_with_ratio_names_value_and_ratio() -> None:
    """A figure stands with its ratio; one without a yardstick has a dash for it."""
    assert page.with_ratio(3.0, 2.0) == "3.00 (1.50x)"
    assert page.with_ratio(3.0, math.nan) == "3.00 (-)"
    assert page.with_ratio(math.nan, 2.0) == "-"


def test_table_is_markdown() -> None:
    """A table has a header, a rule and its rows, figures to the right."""
    assert page.table(["a", "b"], [["x", "1"]]).splitlines() == [
        "| a | b |",
        "| --- | ---: |",
        "| x | 1 |",
    ]


@pytest.mark.parametrize(
    ("ours", "more_is_better", "verdict"),
    [
        (0.99, False, "reached"),
        (1.004, False, "reached"),
        (1.1, False, "reached, peer is ahead"),
        (1.21, False, "**missed**, peer is ahead"),
        (1.19, True, "**missed**"),
        (0.9, True, "**missed**, peer is ahead"),
        (1.3, True, "reached"),
        (math.nan, False, "not measured"),
        (math.nan, True, "not measured"),
    ],
)
def test_verdict_compares_what_is_printed(ours: float, more_is_better: bool, verdict: str) -> None:
    """A target is reached, missed or not measured, at two decimals; a peer may be ahead anyhow."""
    target = Target(
        number=1,
        what="",
        ours=ours,
        theirs=1.0,
        peer="peer",
        limit=1.2,
        more_is_better=more_is_better,
    )
    assert target.verdict == verdict


def test_a_figure_without_a_limit_is_reported() -> None:
    """It is neither reached nor missed; that of our own program under other load has no winner."""
    reported = Target(number=1, what="", ours=3.0, theirs=2.0, peer="peer", limit=None)
    assert (reported.limit_text, reported.verdict) == ("reported", "peer is ahead")
    itself = dataclasses.replace(reported, limit=2.0, itself=True)
    assert (itself.limit_text, itself.verdict) == ("at most 2.00x", "reached")
    alone = Target(number=1, what="", ours=3.0, limit=2.0, unit="KiB")
    assert (alone.limit_text, alone.verdict) == ("at most 2.00 KiB", "**missed**")


def test_best_peer_is_neither_ours_nor_the_bare_function() -> None:
    """The best peer is looked for among the peers that were measured."""
    slow = sample(cpu=3.0, seconds=4.0)
    grid = one_column(ONE, {OURS: sample(cpu=0.1), C_EPOLL: sample(cpu=2.0), "slow": slow})
    bare = Cell(BARE, ONE)
    grid = Grid((*grid.cells, bare), grid.samples | {bare: [sample(cpu=0.01)]})
    assert best_peer(grid, ONE, cpu_us, min) == C_EPOLL
    assert best_peer(grid, ONE, rate, max) == C_EPOLL
    assert best_peer(Grid(()), ONE, rate, max) == ""


def test_sample_of_no_messages_has_no_cost() -> None:
    """A round without an answer has neither a cost nor a rate."""
    empty = dataclasses.replace(sample(), messages=0)
    assert math.isnan(empty.cpu_us)
    assert math.isnan(empty.rate)


def beside(ours: Sample, theirs: Sample, *columns: str) -> Grid[Sample]:
    """Return a grid in which every peer has the same figures."""
    rows = dict.fromkeys((STREAMS, PROTOCOL, "uvloop-protocol", C_EPOLL), theirs) | {OURS: ours}
    cells = {Cell(row, column): [found] for column in columns for row, found in rows.items()}
    return Grid(tuple(cells), cells)


def full_results() -> Results:
    """Return results of every scenario, with twice the figures for the peers."""
    half, many = "100 connections", ("10 connections", "1000 connections", "5000 connections")
    ours, theirs = sample(cpu=0.5), sample()
    load = {name: beside(ours, theirs, ONE) for name in ("pipelined", *BULK)}
    load |= {name: beside(ours, theirs, half) for name in ("small-text", "small-tls")}
    load["small"] = beside(ours, theirs, ONE, half, *many)
    load["small"].fail(Cell(C_EPOLL, ONE), "was not there")
    load["latency"] = beside(ours, theirs, ALONE, BESIDE)
    workers = {ONE_WORKER: sample(), TWO_WORKERS: sample(seconds=0.8)}
    load["workers"] = one_column(half, workers)
    load["bench"] = one_column(half, {BENCH: sample(seconds=4.0), GENERATOR: sample()})
    busy = {Cell(OURS, "300 busy clients"): [0.2], Cell(PROTOCOL, "300 busy clients"): [0.1]}
    quiet = IdleSample(connections=1024, before=0, during=5 << 20, after=1, again=5 << 20)
    idle = Cell(OURS, "1024 connections")
    run = Timed(seconds=2.0, cpu=1.0)
    pipe = {Cell(f"{OURS} client", "1 MB"): [run], Cell(NC, "1 MB"): [run]}
    start = {Cell(name, "start to end"): [run] for name in (HELP, IMPORTS)}
    clients = {"pipe": Grid(tuple(pipe), pipe), "startup": Grid(tuple(start), start)}
    accept, idle_grid = Grid(tuple(busy), busy), Grid((idle,), {idle: [quiet]})
    return Results(load=load, accept=accept, idle=idle_grid, clients=clients)


def test_targets_are_figures_of_the_results() -> None:
    """With everything measured every target has a figure, in the order of their numbers."""
    found = [(target.number, target.figure) for target in all_targets(full_results())]
    assert [number for number, _ in found] == [
        *(7 * [1]),
        *(2 * [2]),
        *(3, 4, 5, 5, 5, 6, 7, 7, 7, 8, 9, 10, 11, 12, 13, 13, 14),
    ]
    expected = {1: 0.5, 2: 1.0, 3: 0.5, 4: 0.5, 6: 1.0, 8: 1.0, 9: 1.0, 10: 1.0, 11: 1.25}
    for number, figure in found:
        assert figure == pytest.approx(expected.get(number, figure))
    assert [figure for number, figure in found if number in (5, 7, 12, 13, 14)] == pytest.approx(
        [1.0, 0.5, 0.5, 0.0, 5.0, 1.0, 2.0, 0.5, 0.5, 0.25]
    )


def test_targets_of_no_results_are_not_measured() -> None:
    """What was not measured is neither reached nor missed."""
    assert {target.verdict for target in all_targets(Results())} == {"not measured"}


def test_page_has_every_section() -> None:
    """The page begins with the machine and the targets; it names what was skipped."""
    results = full_results()
    text = page.page(results, all_targets(results), ["Measured on X."], {"go": "not installed"})
    assert "Measured on X." in text
    assert "Skipped: go (not installed)." in text
    assert "Not measured: c-epoll at 1 connection: was not there." in text
    assert "| trio-upper | 5,000 (0.50x) |" in text
    assert re.findall(r"^## (.*)$", text, flags=re.MULTILINE)[0] == "Targets"
    assert [title for title in page.TITLES.values() if f"## {title}\n" not in text] == []
    assert "nan" not in text.lower()


# Rounds


def test_rounds_are_interleaved() -> None:
    """Every cell is measured once before any is measured twice."""
    order: list[str] = []

    def turn(name: str) -> int:
        order.append(name)
        return len(order)

    cells = {Cell(name, ONE): partial(turn, name) for name in "AB"}
    grid = interleave(cells, 3, lambda _: None)
    assert order == list("ABABAB")
    assert grid.samples == {Cell("A", ONE): [1, 3, 5], Cell("B", ONE): [2, 4, 6]}
    assert grid.median("A", ONE, float) == 3.0
    assert grid.highest("B", ONE, float) == 6.0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Failed("did not start", "with its last words"), "did not start"),
        (FileNotFoundError(2, "gone", "/a/path"), "No such file or directory"),
    ],
)
def test_failed_cell_has_a_reason_and_no_figure(error: Exception, reason: str) -> None:
    """A cell that fails in a later round loses its samples, is not tried again, and stops none."""
    left = iter([1.0])

    def failing() -> float:
        for value in left:
            return value
        raise error

    cells = {Cell("A", ONE): failing, Cell("B", ONE): lambda: 2.0}
    grid = interleave(cells, 4, lambda _: None)
    assert grid.failures == {Cell("A", ONE): reason}
    assert math.isnan(grid.median("A", ONE, float))
    assert len(grid.samples[Cell("B", ONE)]) == 4


# Processes


def test_child_is_ended_with_its_own_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving ends a whole session, also one that ignores SIGTERM."""
    monkeypatch.setattr(processes, "END_SECONDS", 0.01)
    script = "trap '' TERM; sleep 60 & echo started; wait; sleep 60"
    with child(["/bin/sh", "-c", script], ANYWHERE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        assert len(members(process.pid)) == 2
    assert process.returncode == -signal.SIGKILL
    assert wait_until(lambda: not members(process.pid), TIMEOUT_SECONDS)


def test_cpu_seconds_see_a_busy_process() -> None:
    """A process that computes spends CPU time, and one that waits none."""
    script = "print(flush=True); input(); print(sum(range(3_000_000)), flush=True); input()"
    pipe = subprocess.PIPE
    with child([sys.executable, "-c", script], ANYWHERE, stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        start = cpu_seconds(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        busy = cpu_seconds(process.pid)
        assert spent(start, busy) > 0.005
        assert spent(busy, cpu_seconds(process.pid)) < 0.005


# Peers


def test_every_server_is_known(built: dict[str, Server]) -> None:
    """The servers are those that these tests try."""
    assert list(built) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_server_answers_in_capitals(built: dict[str, Server], name: str) -> None:
    """Each server that is installed answers a message right, with nothing more."""
    server = built[name]
    if server.missing:
        pytest.skip(server.missing)
    with running(server, ANYWHERE) as at_work:
        assert ask(at_work.port, b"hello, 1 World\n", 15) == b"HELLO, 1 WORLD\n"


@pytest.mark.parametrize("name", NAMES)
def test_server_answers_text(built: dict[str, Server], name: str) -> None:
    """Each server that knows text upper-cases it, and one letter may become two."""
    server = built[name]
    if server.missing or server.text_options is None:
        pytest.skip(server.missing or "ASCII only")
    with running(server.on_text(), ANYWHERE) as at_work:
        assert ask(at_work.port, "größe\n".encode(), 8).decode() == "GRÖSSE\n"


def test_server_that_cannot_start_says_why() -> None:
    """The last words of a server that ended are told to who is watching."""
    script = script_server("raise SystemExit('no such luck')")
    with pytest.raises(Failed, match="did not start: no such luck") as caught:
        running(script, ANYWHERE).__enter__()
    assert caught.value.reason == "did not start"


def test_server_whose_port_was_taken_has_another(
    built: dict[str, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the moment when a port is found free and the server's start anybody may take it."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        ports = iter([other.getsockname()[1], free_port()])
        monkeypatch.setattr(servers, "free_port", lambda: next(ports))
        with running(built[STREAMS], ANYWHERE) as server:
            assert server.port != other.getsockname()[1]


def test_port_that_meets_itself_serves_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """One who connects to a free port of this machine may be given that very port."""

    def meet_itself(address: tuple[str, int], timeout: float) -> socket.socket:
        met = socket.socket()
        met.settimeout(timeout)
        met.bind(address)
        met.connect(address)
        return met

    monkeypatch.setattr(socket, "create_connection", meet_itself)
    assert not servers.serves(free_port())


def test_missing_module_and_compiler_are_named(tmp_path: Path) -> None:
    """What is not installed is named; what does not compile is said to have failed."""
    assert servers.lacking("no_such_module.inside") == "no_such_module is not installed"
    assert servers.lacking("asyncio") == ""
    assert servers.build("no-such-compiler") == "no-such-compiler is not installed"
    assert servers.build("false") == "false failed"


def test_fleet_starts_a_server_again_after_a_failure(built: dict[str, Server]) -> None:
    """A server is kept from one measuring to the next, unless it failed or must be fresh."""

    def pid_of(server: Running) -> int:
        return server.pid

    def failing(server: Running) -> int:
        raise Failed("on purpose")

    server = built[STREAMS]
    with Fleet(ANYWHERE) as fleet:
        first = fleet.measure(server, pid_of)
        assert fleet.measure(server, pid_of) == first
        with pytest.raises(Failed):
            fleet.measure(server, failing)
        second = fleet.measure(server, pid_of)
        third = fleet.measure_fresh(server, pid_of)
        assert len({first, second, third}) == 3
    assert not members(third)


# The load generators


@pytest.mark.parametrize(
    "work",
    [
        ONE_BY_ONE,
        Work(messages=messages.LINES, connections=20, in_flight=1),
        Work(messages=messages.LINES, connections=1, in_flight=1000),
        Work(messages=messages.PIECES, connections=2, in_flight=16),
    ],
    ids=["one by one", "many connections", "pipelined", "bulk"],
)
def test_measure_counts_answered_messages(
    generator: Generator, streams: Running, work: Work
) -> None:
    """A round counts every message once, with its latency, and what it cost the server."""
    found = measure(streams, generator, work, SHORT_S)
    assert found.messages > work.connections
    assert sum(found.latency.values()) == found.messages
    assert SHORT_S <= found.seconds < TIMEOUT_SECONDS
    assert 0 < found.cpu < TIMEOUT_SECONDS
    assert 0 < found.load_cpu <= found.seconds * 1.1
    assert 0 < found.latency_us(50) <= found.latency_us(99) < TIMEOUT_SECONDS * 1e6


def test_measure_text(generator: Generator, built: dict[str, Server]) -> None:
    """Replies that are longer than their requests are followed to the byte."""
    work = Work(messages=messages.TEXT_PIECES, connections=2, in_flight=4)
    with running(built[STREAMS].on_text(), ANYWHERE) as server:
        assert measure(server, generator, work, SHORT_S).messages > 0


def test_measure_over_tls(generator: Generator, built: dict[str, Server], folder: Path) -> None:
    """Small messages and bulk, each byte compared."""
    cert = tls_identity(folder)
    assert cert
    with running(built[STREAMS].on_tls(cert), ANYWHERE) as server:
        for sent, in_flight in ((messages.LINES, 1), (messages.PIECES, 4)):
            work = Work(messages=sent, connections=2, in_flight=in_flight)
            assert measure(server, over_tls(generator), work, SHORT_S).messages > 0


def test_newcomers_beside_busy_clients(generator: Generator, streams: Running) -> None:
    """Each of them is answered, and the last one says how long that took."""
    assert 0 < measure_burst(streams, generator, 5) < TIMEOUT_SECONDS


def test_newcomers_at_a_wrong_server(generator: Generator) -> None:
    """A wrong reply is no reply."""
    with (
        running(script_server(SCRIPT.format(CLOSING)), ANYWHERE) as server,
        pytest.raises(Failed),
    ):
        measure_burst(server, generator, 1)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (ONE_WRONG, "a wrong reply"),
        (TOO_MUCH, "a wrong reply"),
        (CLOSING, "the server closed a connection"),
    ],
    ids=["one wrong", "too much", "closing"],
)
def test_measure_finds_wrong_servers(generator: Generator, script: str, reason: str) -> None:
    """A wrong byte in any reply, or a connection that is closed, fails the round."""
    with (
        running(script_server(SCRIPT.format(script)), ANYWHERE) as server,
        pytest.raises(Failed, match=reason),
    ):
        measure(server, generator, ONE_BY_ONE, SHORT_S)


def test_measure_does_not_ask_too_much(generator: Generator, streams: Running) -> None:
    """More connections than a server is made for are not tried."""
    small = dataclasses.replace(streams, most_connections=1)
    work = Work(messages=messages.LINES, connections=2, in_flight=1)
    with pytest.raises(Failed, match="not above 1 connections"):
        measure(small, generator, work, SHORT_S)


def test_latency_beside_bulk_counts_the_one_connection(
    generator: Generator, streams: Running
) -> None:
    """Beside bulk, only the messages of the one connection are counted."""
    found = measure_beside_bulk(streams, generator, SHORT_S)
    assert 0 < found.messages == sum(found.latency.values()) < 10_000


def test_idle_memory_is_told_for_each_client(generator: Generator, streams: Running) -> None:
    """Idle clients take some memory of a server, less than a thread's stack would."""
    found = measure_idle(streams, generator, 100)
    assert 0.5 < found.each / 1024 < 64
    assert found.before <= found.again
    assert found.kept * 100 == pytest.approx(found.after - found.before)


def test_bare_measure_counts_whole_messages() -> None:
    """The in-process yardstick counts messages and this process's CPU time."""
    while not (found := measure_bare(messages.TEXT_LINES, ANYWHERE, 0.01)).messages:
        pass  # others had the processor all the time
    assert found.messages % len(messages.TEXT_LINES.requests) == 0
    assert 0 < found.cpu_us < 1000


# Clients


def test_input_file_is_as_large_as_asked_for(tmp_path: Path) -> None:
    """The file has its size to the byte, and begins with the first line."""
    write_input(tmp_path / "in", 2)
    data = (tmp_path / "in").read_bytes()
    assert len(data) == 2_000_000
    assert data.startswith(b"0000 the quick")


@pytest.mark.parametrize(
    ("answer", "same"), [(b"A1\n", True), (b"A1", False), (b"A1\n\n", False), (b"a1\n", False)]
)
def test_same_in_capitals_looks_at_every_byte(answer: bytes, same: bool) -> None:
    """Too little, too much or other letters are not the same."""
    assert same_in_capitals(io.BytesIO(b"a1\n"), io.BytesIO(answer)) is same


def test_timed_program_must_end_well() -> None:
    """A program that fails, or does not end in time, has no time."""
    nothing = subprocess.DEVNULL
    assert timed(["true"], ANYWHERE, TIMEOUT_SECONDS, nothing, nothing).seconds < TIMEOUT_SECONDS
    with pytest.raises(Failed, match="ended with 1"):
        timed(["false"], ANYWHERE, TIMEOUT_SECONDS, nothing, nothing)
    with pytest.raises(Failed, match="did not end within"):
        timed(["sleep", "60"], ANYWHERE, 0.01, nothing, nothing)


def test_file_through_nc_comes_back_in_capitals(streams: Running, tmp_path: Path) -> None:
    """A file goes through nc and the server, and is compared; the copy does not stay."""
    if not nc_half_closes():
        pytest.skip("no nc with -N")
    through = pipe_cells(tmp_path, ANYWHERE, 1)[Cell(NC, "1 MB")]
    assert 0 < through(streams).seconds < TIMEOUT_SECONDS
    assert [path.name for path in tmp_path.iterdir()] == ["pipe.in"]


# The driver


def test_quick_and_given_settings() -> None:
    """What is given goes over the defaults, which --quick makes small."""
    parse = compare.make_parser().parse_args
    assert compare.settings_of(parse([])) == compare.FULL
    assert compare.settings_of(parse(["--quick"])) == compare.QUICK
    given = compare.settings_of(parse(["--quick", "--rounds", "2", "--connections", "3", "4"]))
    assert given == dataclasses.replace(compare.QUICK, rounds=2, connections=[3, 4])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rounds", "0"],
        ["--seconds", "61"],
        ["--connections", "x"],
        ["--scenario", "none"],
        ["--server", "none"],
    ],
    ids=" ".join,
)
def test_wrong_options_are_usage_errors(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """An option out of its bounds, or a name that there is not, ends with 2."""
    with pytest.raises(SystemExit) as caught:
        compare.main(arguments)
    assert caught.value.code == 2
    assert arguments[1] in capsys.readouterr().err


@pytest.mark.slow
def test_a_quick_run_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The driver measures every scenario, prints the page and writes the same to the file."""
    output = tmp_path / "page.md"
    what = ["--quick", "--server", OURS, PROTOCOL, STREAMS, "--connections", "2"]
    size = ["--seconds", "0.05", "--busy", "3", "--idle", "20", "--pipe-megabytes", "2"]
    compare.main([*what, *size, "--output", str(output)])
    text = output.read_text()
    assert capsys.readouterr().out == text
    assert all(f"## {title}\n" in text for title in page.TITLES.values())
    assert "(1.00x)" in text
    assert "Not measured" not in text
    assert str(ROOT) not in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_all_children(number: signal.Signals) -> None:
    """Interrupted in the middle of a round, the driver leaves no process behind."""
    command = [sys.executable, "-m", "benchmarks.compare", "--seconds", "30"]
    options = ["--server", "asyncio-streams", "--scenario", "small"]
    with subprocess.Popen(
        [*command, *options], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as driver:
        assert wait_until(lambda: len(children(driver.pid)) == 2, TIMEOUT_SECONDS)
        started = children(driver.pid)
        driver.send_signal(number)
        assert driver.stderr is not None
        assert b"Traceback" not in driver.stderr.read()
    assert driver.returncode == 128 + number
    assert wait_until(lambda: not any(members(pid) for pid in started), TIMEOUT_SECONDS)


def children(parent: int) -> list[int]:
    tasks = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def test_free_port_is_free() -> None:
    """The port that is found can be listened on."""
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as listener:
        assert listener.getsockname()[1] == port
