"""The command line of `ping` and `bench`: what becomes of their options."""

import runpy
import sys
from types import ModuleType

import pytest

from trio_upper.cli import bench, check, ping
from trio_upper.cli.main import main
from trio_upper.client.settings import ConnectSettings
from trio_upper.client.target import Target


class Called:
    """Stands for a command's `run`, and keeps what it was called with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, command: ModuleType) -> None:
        self.target: object = None
        self.options: object = None
        monkeypatch.setattr(command, "run", self)

    def __call__(self, target: object, options: object) -> int:
        self.target, self.options = target, options
        return 1


def run(*arguments: str) -> object:
    """Return the exit code of the program."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


def test_ping_takes_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them, and those of the connection; the exit code is the command's."""
    called = Called(monkeypatch, ping)
    assert run("ping", "h:9", "-c", "3", "-i", "0", "-s", "64", "--json", "--wait", "2") == 1
    assert called.target == Target(host="h", port=9)
    assert called.options == ping.Options(
        count=3, interval=0, size=64, as_json=True, connection=ConnectSettings(wait=2)
    )


def test_ping_has_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of its settings."""
    called = Called(monkeypatch, ping)
    run("ping", "h")
    assert called.target == Target(host="h")
    assert called.options == ping.Options()


def test_bench_takes_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them, and those of the connection."""
    called = Called(monkeypatch, bench)
    words = "bench h 9 --clients 7 --seconds 2 --size 99 --pipeline 5 --json --reply-timeout 1"
    assert run(*words.split()) == 1
    assert called.target == Target(host="h", port=9)
    assert called.options == bench.Options(
        clients=7, seconds=2, size=99, pipeline=5, as_json=True, reply_timeout=1
    )


def test_bench_has_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of its settings."""
    called = Called(monkeypatch, bench)
    run("bench", "h")
    assert called.options == bench.Options()


def test_ping_says_when_and_in_lines_of_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two more flags."""
    called = Called(monkeypatch, ping)
    run("ping", "h", "-D", "--jsonl")
    assert called.options == ping.Options(timestamps=True, as_json_lines=True)


def test_check_takes_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them, and those of the connection."""
    called = Called(monkeypatch, check)
    words = "check h 9 --seconds 7 --json --reply-timeout 1 --connect-timeout 2"
    assert run(*words.split()) == 1
    assert called.target == Target(host="h", port=9)
    assert called.options == check.Options(
        seconds=7, as_json=True, reply_timeout=1, connection=ConnectSettings(connect_timeout=2)
    )


def test_check_has_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of its settings; it waits for less long than others, for people wait for it."""
    called = Called(monkeypatch, check)
    run("check", "h")
    assert called.options == check.Options(connection=ConnectSettings(connect_timeout=5))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("ping", "Missing argument 'HOST'"),
        ("ping h -c 0", "--count must be at least 1"),
        ("ping h -s 1", "--size must be from 2 to 65536 bytes"),
        ("ping h:0", "0 is not a valid port"),
        ("ping h --json --jsonl", "--json and --jsonl exclude each other"),
        ("bench h --clients 0", "--clients must be at least 1"),
        ("bench h --seconds 0", "--seconds must be greater than 0"),
        ("bench h --size none", "not a valid integer"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that says what was wrong and where help is, exit code 2."""
    assert run(*words.split()) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
    assert line.endswith("--help")


def test_the_module_runs_the_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m trio_upper` is the command line."""
    monkeypatch.setattr(sys, "argv", ["trio_upper", "--version"])
    monkeypatch.setattr("trio_upper.cli.early.keep_first_signals", lambda: None)  # until it ends
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("trio_upper", run_name="__main__")
    assert caught.value.code == 0
    assert "version" in capsys.readouterr().out
