"""The command line in this process: what reaches the commands, usage errors, and exit codes."""

import errno
import io
import json
import os
import re
import runpy
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete
from tests.helpers.certificates import ca_file, cert_file, issue, key_file, pair_file
from tests.helpers.waiting import TIMEOUT_SECONDS

from trio_upper import __version__
from trio_upper.cli import bench, client, dialogue, ping, serve
from trio_upper.cli import output as commands
from trio_upper.cli.announcement import Announcement
from trio_upper.cli.client import Options
from trio_upper.cli.commands import cli
from trio_upper.cli.main import main
from trio_upper.cli.output import say
from trio_upper.client.settings import ConnectSettings
from trio_upper.client.target import Target
from trio_upper.protocol import DEFAULT_PORT
from trio_upper.server.settings import ServerSettings
from trio_upper.tls import fingerprint

CODE = 7
"""What each command returns here, and no usage error does."""


class Terminal(io.StringIO):
    """A standard stream that is a terminal."""

    def isatty(self) -> bool:
        return True


FINGERPRINT = f"SHA256:{'0a' * 32}"


class Called:
    """Stands for a command's `run`, and keeps what it was called with."""

    def __init__(self) -> None:
        self.arguments: tuple[Any, ...] = ()
        self.options: dict[str, Any] = {}
        self.times = 0
        #: What it does.
        self.then: Callable[[], object] = lambda: None

    def __call__(self, *arguments: Any, **options: Any) -> int:
        self.arguments, self.options = arguments, options
        self.times += 1
        self.then()
        return CODE


@pytest.fixture(autouse=True)
def _plain_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No terminal, unless a test has one, and words of the process that nobody asked for."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(sys, "argv", ["trio-upper", "serve", "--host", "::"])


def replaced(monkeypatch: pytest.MonkeyPatch, command: Any) -> Called:
    called = Called()
    monkeypatch.setattr(command, "run", called)
    return called


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Called:
    return replaced(monkeypatch, serve)


@pytest.fixture
def talking(monkeypatch: pytest.MonkeyPatch) -> Called:
    return replaced(monkeypatch, client)


@pytest.fixture
def prompting(monkeypatch: pytest.MonkeyPatch) -> Called:
    return replaced(monkeypatch, dialogue)


@pytest.fixture
def pinging(monkeypatch: pytest.MonkeyPatch) -> Called:
    return replaced(monkeypatch, ping)


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Called:
    return replaced(monkeypatch, bench)


def run(*arguments: str) -> object:
    """Return the exit code of the program."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """Return the one line that the program complains with, without its beginning."""
    assert run(*arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    beginning = "trio-upper: "
    assert line.startswith(beginning)
    return line.removeprefix(beginning)


# ------------------------------------------------------------------ the program


@pytest.mark.parametrize("word", ["-V", "--version"])
def test_the_version_is_the_one_of_the_package(
    capsys: pytest.CaptureFixture[str], word: str
) -> None:
    """It goes to standard output, with exit code 0."""
    assert run(word) == 0
    assert capsys.readouterr() == (f"trio-upper, version {__version__}\n", "")


@pytest.mark.parametrize("word", ["-h", "--help"])
@pytest.mark.parametrize("command", [(), ("serve",), ("client",), ("ping",), ("bench",)])
def test_help_goes_to_standard_output(
    capsys: pytest.CaptureFixture[str], command: Sequence[str], word: str
) -> None:
    """Somebody asked for it, so it is no error."""
    assert run(*command, word) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Usage: ")
    assert err == ""


def test_help_names_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody has to look into the code for them, nor for the variables."""
    run("serve", "--help")
    words = " ".join(capsys.readouterr().out.split())
    assert f"[env var: TRIO_UPPER_SERVE_PORT; default: {DEFAULT_PORT}]" in words
    assert "--worker " not in words


def test_without_a_command_it_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, for nothing was done: a usage error."""
    assert run() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert all(command in err for command in ("serve", "client", "ping", "bench"))


def test_a_command_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, that says where to look."""
    text = complaint(capsys, "sevre")
    assert "sevre" in text
    assert text.endswith(" --help")


def test_an_option_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """The help that is pointed to is that of the command."""
    text = complaint(capsys, "serve", "--prot", "80")
    assert "--prot" in text
    assert text.endswith(" serve --help")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["client", "-m"], "Option '-m' requires an argument; see "),
        (["client", "--tls=1"], "Option '--tls' does not take a value; see "),
        (["serve", "--grace"], "Option '--grace' requires an argument; see "),
        (["ping", "x", "-c"], "Option '-c' requires an argument; see "),
        (["bench", "x", "--size"], "Option '--size' requires an argument; see "),
        (["client", "--mesage", "x"], "No such option '--mesage'. Did you mean '--message'? See "),
    ],
)
def test_the_help_of_the_command_is_pointed_to(
    capsys: pytest.CaptureFixture[str], arguments: Sequence[str], said: str
) -> None:
    """Whatever is wrong, also where click itself does not say with which command."""
    text = complaint(capsys, *arguments)
    assert text.startswith(said)
    assert text.endswith(f" {arguments[0]} --help")


def test_a_value_from_the_environment_is_told_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads of an option that was not given knows where it stands."""
    monkeypatch.setenv("TRIO_UPPER_CLIENT_CONNECT_TIMEOUT", "soon")
    text = complaint(capsys, "client")
    assert " (from TRIO_UPPER_CLIENT_CONNECT_TIMEOUT); see " in text
    assert "from" not in complaint(capsys, "client", "--connect-timeout", "soon")


@pytest.mark.parametrize(
    ("command", "environment", "said", "variables"),
    [
        ("client x", {"PORT": "http"}, "'http' is not a valid port", "PORT"),
        ("client", {"HOST": "x y"}, "'x y' is not a valid host", "HOST"),
        ("client", {"HOST": "x:80", "PORT": "81"}, "has another port than", "HOST and {}PORT"),
        ("client x:80", {"PORT": "http"}, None, ""),
        ("client [x", {"PORT": "80"}, "brackets are for IPv6", ""),
        ("client", {"QUIET": "1", "VERBOSE": "1"}, "-q and -v exclude", "QUIET and {}VERBOSE"),
        ("client -v", {"QUIET": "1"}, None, ""),
        ("client", {"IPV4": "1", "IPV6": "1"}, "-4 and -6 exclude", "IPV4 and {}IPV6"),
        ("client", {"BIND": "x"}, "'x' is not a valid address to connect from", "BIND"),
        ("client -4", {"BIND": "::1"}, "cannot be used with IPv4", "BIND"),
        ("client --bind ::1", {"IPV4": "1", "IPV6": "0"}, "cannot be used with IPv4", "IPV4"),
        ("client --bind x", {"IPV4": "1"}, "'x' is not a valid address to connect from", ""),
        ("client", {"TLS_FINGERPRINT": "x"}, "not a valid fingerprint", "TLS_FINGERPRINT"),
        (
            "client",
            {"TLS_FINGERPRINT": "x", "INSECURE": "1"},
            "--tls-fingerprint trusts one certificate; leave out --insecure",
            "INSECURE and {}TLS_FINGERPRINT",
        ),
        ("client", {"TLS_KEY": "x"}, "--tls-key needs --tls-cert", "TLS_KEY"),
        ("ping x", {"JSON": "1", "JSONL": "1"}, "--json and --jsonl exclude", "JSON and {}JSONL"),
        ("ping x", {"COUNT": "0", "SIZE": "9"}, "--count must be at least 1", "COUNT"),
        ("bench x", {"SIZE": "1", "JSON": "1"}, "--size must be from 2 to", "SIZE"),
        ("serve --workers 3", {"MAX_CLIENTS": "2"}, "--max-clients 2 is less", "MAX_CLIENTS"),
        ("serve --max-clients 2", {"WORKERS": "3"}, "--max-clients 2 is less", "WORKERS"),
        ("serve", {"TLS_KEY": "x"}, "--tls-key needs --tls-cert", "TLS_KEY"),
        ("serve", {"TLS_CLIENT_CA": "x"}, "needs --tls-cert", "TLS_CLIENT_CA"),
        (
            "serve",
            {"TLS_CERT": "x", "TLS_SELF_SIGNED": "1"},
            "--tls-self-signed makes a certificate; leave out --tls-cert",
            "TLS_CERT and {}TLS_SELF_SIGNED",
        ),
        (
            "serve",
            {"HOST": "::1", "PUBLIC": "1"},
            "--public stands for all addresses; leave out --host",
            "HOST and {}PUBLIC",
        ),
    ],
)
def test_whatever_is_wrong_in_the_environment_is_told_so(
    talking: Called,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    environment: dict[str, str],
    said: str | None,
    variables: str,
) -> None:
    """Also where several options contradict each other; those of the command line are known."""
    words = command.split()
    prefix = f"TRIO_UPPER_{words[0].upper()}_"
    for name, value in environment.items():
        monkeypatch.setenv(prefix + name, value)
    if said is None:
        assert run(*words) == CODE
        return
    text = complaint(capsys, *words)
    assert said in text
    assert (f" (from {prefix}{variables.format(prefix)}); see " in text) is bool(variables)
    assert ("(from" in text) is bool(variables)


def test_a_usage_error_without_a_context_names_the_program(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where click does not know the command, the whole program's help is pointed to."""
    import click

    def fail(**_: object) -> None:
        raise click.UsageError("no.")

    monkeypatch.setattr(cli, "main", fail)
    assert complaint(capsys, "x") == "no; see trio-upper --help"


def test_ctrl_c_outside_of_trio_is_no_traceback() -> None:
    """While the rooms are being imported the process ends by SIGINT, too, as ever."""
    program = """if True:
        import signal
        from trio_upper.cli import main as cli
        from trio_upper.cli import client
        client.run = lambda *_, **__: signal.raise_signal(signal.SIGINT)
        cli.main(["client", "-m", "x"])
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert b"Traceback" not in done.stderr
    assert done.returncode == -signal.SIGINT


def test_ctrl_c_outside_of_trio_is_the_signal_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Click makes an error of its own out of it; the shell is to see SIGINT."""
    raised: list[int] = []

    def interrupt(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    def raise_signal(number: int) -> None:
        raised.append(number)
        raise SystemExit

    monkeypatch.setattr(client, "run", interrupt)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(signal, "raise_signal", raise_signal)
    run("client", "-m", "x")
    assert raised == [signal.SIGINT]


@pytest.mark.parametrize(
    ("command", "ignores"), [("serve", True), ("client", False), ("ping", False)]
)
def test_from_its_exit_code_on_only_a_server_ignores_signals(
    serving: Called, talking: Called, pinging: Called, command: str, ignores: bool
) -> None:
    """Its exit code tells whether clients were cut; other commands end by a signal to the last."""
    before = signal.getsignal(signal.SIGTERM)
    assert run(command, "x") == (2 if command == "serve" else CODE)
    assert signal.getsignal(signal.SIGTERM) is (signal.SIG_IGN if ignores else before)


@pytest.mark.parametrize("name", ["__main__", "trio_upper.__main__"])
def test_the_module_is_the_program(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m trio_upper` does as the script does, with the arguments of the process."""
    monkeypatch.setattr(sys, "argv", ["trio_upper", "--version"])
    monkeypatch.setattr("trio_upper.cli.early.keep_first_signals", lambda: None)  # until it ends
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("trio_upper", run_name=name)["main"]()
    assert caught.value.code == 0
    assert __version__ in capsys.readouterr().out


# ------------------------------------------------------------------ what is said


def test_what_is_said_is_a_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """With the program's name, as a filter's words among those of others."""
    say("hello")
    assert capsys.readouterr() == ("", "trio-upper: hello\n")


def test_what_is_said_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where standard error is a pipe, which Python itself would fill first."""
    reading, writing = os.pipe()
    with open_pipe(writing) as stderr, io.FileIO(reading) as pipe:
        monkeypatch.setattr(sys, "stderr", stderr)
        say("hello")
        os.set_blocking(reading, False)
        assert pipe.read(100) == b"trio-upper: hello\n"


def open_pipe(writing: int) -> io.TextIOWrapper:
    """Return a stream that gathers what it writes to a pipe."""
    return io.TextIOWrapper(io.BufferedWriter(io.FileIO(writing, "w")))


def test_without_standard_error_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing fails, nor does it go anywhere else."""
    monkeypatch.setattr(sys, "stderr", None)
    say("hello")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("code", [errno.EPIPE, errno.ENOSPC, errno.EBADF, errno.EAGAIN])
def test_where_standard_error_cannot_be_written_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    """Whoever has left or filled the disk loses words, and changes nothing else."""

    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(code, "")

    monkeypatch.setattr(sys, "stderr", Broken())
    say("hello")
    assert capsys.readouterr() == ("", "")


def test_a_reader_of_standard_error_that_has_left_is_not_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel says so when the line is written out."""
    reading, writing = os.pipe()
    os.close(reading)
    stderr = open_pipe(writing)
    monkeypatch.setattr(sys, "stderr", stderr)
    say("hello")
    with pytest.raises(BrokenPipeError):
        stderr.close()  # which shows that it was told


def test_the_first_error_of_nested_groups() -> None:
    """What the nurseries wrapped is found, however deep."""
    first, second = ValueError(1), ValueError(2)
    group = BaseExceptionGroup("", [ExceptionGroup("", [first]), second])
    assert commands.sole_error(group) is first


# ------------------------------------------------------------------ serve


@pytest.mark.parametrize("command", ["serve", "client"])
def test_a_variable_that_names_no_option_is_named(
    serving: Called,
    talking: Called,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    """A typo must not be silent; variables of other commands and programs are none."""
    for name in ("TRIO_UPPER_WORKER", "TRIO_UPPER_SERVE_PROT", "TRIO_UPPER_PING_SIZE", "TRIO_X"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(sys, "argv", ["trio_upper/__main__.py"])
    monkeypatch.setattr(sys.modules["__main__"], "__package__", "trio_upper")
    run(command)
    assert capfd.readouterr().err == (
        "trio-upper: warning: no option has the variable "
        "TRIO_UPPER_SERVE_PROT or TRIO_UPPER_WORKER; "
        "see python -m trio_upper COMMAND --help\n"
    )


def test_a_worker_repeats_no_warning_of_its_parent(
    serving: Called, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its environment."""
    monkeypatch.setenv("TRIO_UPPER_SERVE_PROT", "1")
    run("serve", "--worker", "2")
    assert capfd.readouterr().err == ""
    assert serving.options["worker"] == 2


@pytest.mark.parametrize(
    "words", [["--log-format", "json", "--x"], ["--port=x", "--log-format=json"], ["--grace"]]
)
def test_why_a_server_cannot_start_is_json_where_the_log_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """Also what is wrong with the command line; the option says it, or its variable."""
    monkeypatch.setenv("TRIO_UPPER_SERVE_LOG_FORMAT", "json" if words == ["--grace"] else "text")
    before = sys.stderr
    assert run("serve", *words) == 2
    assert sys.stderr is before
    [line] = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"].endswith("serve --help")
    assert json.loads(line)["level"] == "error"


@pytest.mark.parametrize("hosts", ["", " ", "\t"])
def test_a_blank_list_of_addresses_is_the_default(
    serving: Called, monkeypatch: pytest.MonkeyPatch, hosts: str
) -> None:
    """A variable that a service file leaves empty is as good as none."""
    monkeypatch.setenv("TRIO_UPPER_SERVE_HOST", hosts)
    assert run("serve") == CODE
    assert serving.arguments[0] == ServerSettings()


def test_serve_has_defaults(serving: Called) -> None:
    """They are those of the settings: there is no second set of them."""
    assert run("serve") == CODE
    settings, _ = serving.arguments
    assert settings == ServerSettings()
    assert serving.options == {"announcement": Announcement(), "worker": None}


def test_serve_takes_every_option(serving: Called) -> None:
    """Addresses may be repeated; each setting gets its own value."""
    run(
        "serve",
        *("--host", "::1", "--host=localhost", "--port", "0", "--max-clients", "5"),
        *("--idle-timeout", "1.5", "--write-timeout", "2", "--grace", "0"),
    )
    assert serving.arguments[0] == ServerSettings(
        hosts=("::1", "localhost"),
        port=0,
        max_clients=5,
        idle_timeout=1.5,
        write_timeout=2,
        grace=0,
    )


def test_serve_takes_options_from_the_environment(
    serving: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the option's own name, several values with spaces; the command line comes first."""
    monkeypatch.setenv("TRIO_UPPER_SERVE_HOST", "::1 localhost")
    monkeypatch.setenv("TRIO_UPPER_SERVE_PORT", "5")
    monkeypatch.setenv("TRIO_UPPER_SERVE_IDLE_TIMEOUT", "7")
    run("serve", "--port", "6")
    assert serving.arguments[0] == ServerSettings(
        hosts=("::1", "localhost"), port=6, idle_timeout=7
    )


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--port", "65536", "'65536' is not a valid port; use a number from 0 to 65535"),
        pytest.param("--port", f"{1:05000}", "1' is not a valid port; use", id="long"),
        ("--port", "-1", "'-1' is not a valid port; use a number from 0 to 65535"),
        ("--port", "http", "'http' is not a valid port; use a number from 0 to 65535"),
        ("--port", "8_746", "'8_746' is not a valid port; use a number from 0 to 65535"),
        ("--port", "+80", "'+80' is not a valid port; use a number from 0 to 65535"),
        ("--port", " 80", "' 80' is not a valid port; use a number from 0 to 65535"),
        ("--port", "٨٠", "'٨٠' is not a valid port; use a number from 0 to 65535"),
        ("--port", "²", "'²' is not a valid port; use a number from 0 to 65535"),
        ("--port", "", "'' is not a valid port; use a number from 0 to 65535"),
        ("--grace", "-1", "'-1' is not a valid duration; give seconds, 0 or more"),
        ("--idle-timeout", "nan", "'nan' is not a valid duration; give seconds, 0 or more"),
        ("--write-timeout", "inf", "'inf' is not a valid duration; give seconds, 0 or more"),
        ("--write-timeout", "1_0", "'1_0' is not a valid duration; give seconds, 0 or more"),
        ("--write-timeout", "soon", "'soon' is not a valid duration; give seconds, 0 or more"),
        ("--max-clients", "0", "0 is too small; it must be at least 1"),
        ("--workers", "9" * 20, f"{'9' * 20} is too large; it must be at most 10000"),
        ("--host", "1.2.3", "'1.2.3' is not a valid host; give a name, an IPv4 address or"),
        ("--host", "::ffff:127.0.0.1", "stands for an IPv4 address; give 127.0.0.1"),
        ("--host", "255.255.255.255", "255.255.255.255 is no address of one machine; use"),
        ("--host", "ff02::1", "ff02::1 is no address of one machine; use 0.0.0.0 for all IPv4"),
        ("--host", "localhost:80", "'localhost:80' is not a valid host; give a name"),
        ("--max-clients", "few", "'few' is not a valid integer;"),
        ("--log-level", "loud", "'loud' is not one of"),
    ],
)
def test_a_value_that_is_none_is_explained(
    capsys: pytest.CaptureFixture[str], serving: Called, option: str, value: str, said: str
) -> None:
    """What is wrong with it, what is allowed, and for which option."""
    text = complaint(capsys, "serve", option, value)
    assert option in text
    assert said in text
    assert text.endswith(" serve --help")
    assert not serving.times


def test_a_log_in_text_is_for_a_person(serving: Called, capfd: pytest.CaptureFixture[str]) -> None:
    """Who gets the words as given, to see what would expose the server."""

    def log_both() -> None:
        serving.arguments[1].info("too little")
        serving.arguments[1].warning("event")

    serving.then = log_both
    run("serve", "--port", "0", "--log-level", "warning")
    err = capfd.readouterr().err
    assert " event" in err
    assert "too little" not in err
    assert serving.options == {
        "announcement": Announcement(arguments=("--port", "0", "--log-level", "warning")),
        "worker": None,
    }


def test_the_words_are_those_of_the_process_where_no_others_are_given(
    serving: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script calls the program without any."""
    monkeypatch.setattr(sys, "argv", ["trio-upper", "serve", "--port", "0"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == CODE
    assert serving.arguments[0] == ServerSettings(port=0)
    assert serving.options == {
        "announcement": Announcement(arguments=("--port", "0")),
        "worker": None,
    }


def test_a_log_in_json_is_for_a_machine(serving: Called, capfd: pytest.CaptureFixture[str]) -> None:
    """Which is told nothing else."""
    serving.then = lambda: serving.arguments[1].info("event")
    run("serve", "--log-format", "json")
    assert '"event": "event"' in capfd.readouterr().err
    assert serving.options == {"announcement": None, "worker": None}


def test_serve_with_a_certificate_speaks_tls(serving: Called, tmp_path: Path) -> None:
    """With the key in a file of its own, or in the same one."""
    leaf = issue("localhost")
    apart = [f"--tls-cert={cert_file(tmp_path, leaf)}", f"--tls-key={key_file(tmp_path, leaf)}"]
    for arguments in (apart, [f"--tls-cert={pair_file(tmp_path, leaf)}"]):
        assert run("serve", *arguments) == CODE
        assert serving.arguments[0].tls.verify_mode is ssl.CERT_NONE


def test_serve_with_a_ca_demands_certificates(serving: Called, tmp_path: Path) -> None:
    """Mutual TLS."""
    pair, ca = pair_file(tmp_path, issue("localhost")), ca_file(tmp_path)
    assert run("serve", f"--tls-cert={pair}", f"--tls-client-ca={ca}") == CODE
    assert serving.arguments[0].tls.verify_mode is ssl.CERT_REQUIRED


def test_a_certificate_that_cannot_be_used_is_one_line(
    capsys: pytest.CaptureFixture[str], serving: Called, tmp_path: Path
) -> None:
    """It is a failure, not a usage error: the same words would do with another file."""
    missing = tmp_path / "missing.pem"
    text = complaint(capsys, "serve", f"--tls-cert={missing}", code=1)
    assert text == f"cannot read '{missing}': No such file or directory"
    assert not serving.times


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        ("client -m x -v", "QUIET=1"),
        ("client -m x -4", "IPV6=1"),
        (f"client -m x --tls-fingerprint {FINGERPRINT}", "TLS_CA=missing.pem"),
        (f"client -m x --tls-fingerprint {FINGERPRINT}", "INSECURE=1"),
        ("client -m x --insecure", f"TLS_FINGERPRINT={FINGERPRINT}"),
        ("ping x --json", "JSONL=1"),
        ("ping x --jsonl", "JSON=1"),
    ],
)
def test_of_two_that_exclude_each_other_the_typed_one_holds(
    talking: Called,
    pinging: Called,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    environment: str,
) -> None:
    """As if the environment had nothing of the other."""
    called = {"client": talking, "ping": pinging}[words.split()[0]]

    def meant() -> list[str]:
        assert run(*words.split()) == CODE
        told = [*called.arguments, *called.options.values()]
        return [re.sub(" at [0-9A-Fa-fx]+", "", str(one)) for one in told]

    alone = meant()
    name, value = environment.split("=")
    monkeypatch.setenv(f"TRIO_UPPER_{words.split()[0].upper()}_{name}", value)
    assert meant() == alone


def test_a_line_that_is_being_typed_is_completed_whatever_it_says() -> None:
    """What is wrong is said when it is entered."""
    completion = ShellComplete(cli, {}, "trio-upper", "_TRIO_UPPER_COMPLETE")
    found = completion.get_completions(["client", "-4", "-6"], "--verb")
    assert [one.value for one in found] == ["--verbose"]


def test_serve_public_is_every_address(serving: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says."""
    monkeypatch.setenv("TRIO_UPPER_SERVE_HOST", "::1")
    run("serve", "--public")
    assert serving.arguments[0] == ServerSettings(hosts=("0.0.0.0", "::"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--public", "--host", "::1"], "--public stands for all addresses; leave out --host"),
        (
            ["--tls-self-signed", "--tls-cert", "x.pem"],
            "--tls-self-signed makes a certificate; leave out --tls-cert",
        ),
        (
            ["--tls-self-signed", "--tls-key", "x.pem"],
            "--tls-self-signed makes a key; leave out --tls-key",
        ),
        (["--tls-key", "x.pem"], "--tls-key needs --tls-cert"),
    ],
)
def test_options_of_serve_that_contradict_each_other(
    capsys: pytest.CaptureFixture[str], serving: Called, options: list[str], said: str
) -> None:
    """It is said which; a server that listens on more than was meant is none."""
    assert complaint(capsys, "serve", *options).startswith(said)
    assert not serving.times


def test_a_host_that_is_typed_is_the_only_one(
    serving: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the environment says."""
    monkeypatch.setenv("TRIO_UPPER_SERVE_PUBLIC", "1")
    run("serve", "--host", "127.0.0.1")
    assert serving.arguments[0] == ServerSettings(hosts=("127.0.0.1",))


def test_of_two_certificates_the_typed_one_is_used(
    serving: Called, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The environment's is left out, and with a file its key."""
    server = issue("localhost")
    own = fingerprint(ssl.PEM_cert_to_DER_cert(server.cert_chain_pems[0].bytes().decode()))
    monkeypatch.setenv("TRIO_UPPER_SERVE_TLS_SELF_SIGNED", "1")
    assert run("serve", f"--tls-cert={pair_file(tmp_path, server)}") == CODE
    assert serving.options["announcement"].fingerprint == own
    monkeypatch.delenv("TRIO_UPPER_SERVE_TLS_SELF_SIGNED")
    monkeypatch.setenv("TRIO_UPPER_SERVE_TLS_CERT", str(cert_file(tmp_path, server)))
    monkeypatch.setenv("TRIO_UPPER_SERVE_TLS_KEY", str(key_file(tmp_path, server)))
    assert run("serve", "--tls-self-signed") == CODE
    assert serving.options["announcement"].fingerprint != own


def test_a_key_that_is_typed_is_not_for_a_certificate_of_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, serving: Called
) -> None:
    """What is typed makes a certificate of its own, which needs no key."""
    monkeypatch.setenv("TRIO_UPPER_SERVE_TLS_CERT", "x.pem")
    said = complaint(capsys, "serve", "--tls-self-signed", "--tls-key", "x.pem")
    assert said.startswith("--tls-self-signed makes a key")
    assert not serving.times


def test_serve_makes_a_certificate(serving: Called, tmp_path: Path) -> None:
    """The announcement has its fingerprint; clients need one of their own only if asked for."""
    for options, needed in [([], False), ([f"--tls-client-ca={ca_file(tmp_path)}"], True)]:
        assert run("serve", "--tls-self-signed", *options) == CODE
        assert isinstance(serving.arguments[0].tls, ssl.SSLContext)
        announcement = serving.options["announcement"]
        assert announcement.tls
        assert announcement.fingerprint.startswith("SHA256:")
        assert announcement.client_certificate is needed


def test_a_worker_that_nobody_started_is_explained(
    capsys: pytest.CaptureFixture[str], serving: Called
) -> None:
    """It has no parent that could give it the certificate."""
    text = complaint(capsys, "serve", "--worker", "1", "--tls-self-signed", code=1)
    assert text == "--worker is for the processes that --workers starts"


def test_a_certificate_that_has_expired_is_a_warning(
    serving: Called, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """At the start, beside its fingerprint; a worker leaves that to its parent."""
    pair = pair_file(tmp_path, issue("localhost", expired=True))
    assert run("serve", f"--tls-cert={pair}") == CODE
    err = capfd.readouterr().err
    assert "warning" in err
    assert "the certificate expired on 2001-01-02 00:00 UTC" in err
    assert "fingerprint=SHA256:" in err
    run("serve", f"--tls-cert={pair}", "--worker", "1")
    assert capfd.readouterr().err == ""


def test_at_a_terminal_the_announcement_has_the_fingerprint(
    serving: Called, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is not logged as well."""
    monkeypatch.setattr("trio_upper.cli.commands.is_terminal", lambda _: True)
    assert run("serve", "--tls-self-signed") == CODE
    assert serving.options["announcement"].at_terminal
    assert "fingerprint" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("option", "needed"),
    [("--tls-key", "--tls-cert"), ("--tls-client-ca", "--tls-cert or --tls-self-signed")],
)
def test_tls_options_without_a_certificate_are_a_usage_error(
    capsys: pytest.CaptureFixture[str], serving: Called, option: str, needed: str
) -> None:
    """Whoever wants clients to be checked must not get a server that speaks plain text."""
    text = complaint(capsys, "serve", option, "x.pem")
    assert text.startswith(f"{option} needs {needed}; see ")
    assert not serving.times


# ------------------------------------------------------------------ client


def test_client_has_defaults(talking: Called) -> None:
    """In a pipe nothing is asked; the options are those of the command, no second set of them."""
    assert run("client") == CODE
    assert talking.arguments == (Target(), (), Options())


def test_client_takes_every_option(talking: Called) -> None:
    """Messages keep their order."""
    run(
        *("client", "example.lan", "80", "-m", "one", "--message", "two", "-v"),
        *("--connect-timeout", "1", "--reply-timeout", "0", "--wait", "2.5"),
    )
    assert talking.arguments == (
        Target(host="example.lan", port=80),
        ("one", "two"),
        Options(
            verbose=True,
            reply_timeout=0,
            connection=ConnectSettings(connect_timeout=1, wait=2.5),
        ),
    )


def test_quiet_and_verbose_exclude_each_other(
    talking: Called, capsys: pytest.CaptureFixture[str]
) -> None:
    """Either would be against the help of the other."""
    run("client", "-m", "x", "-q")
    assert talking.arguments[2] == Options(quiet=True)
    assert "-q and -v exclude each other" in complaint(capsys, "client", "-m", "x", "-q", "-v")


@pytest.mark.parametrize(
    ("typed", "target"),
    [
        ([], Target(host="alpha", port=9000)),
        (["beta"], Target(host="beta", port=9000)),
        (["beta:80"], Target(host="beta", port=80)),
        (["beta", "80"], Target(host="beta", port=80)),
    ],
)
def test_where_to_connect_to_comes_from_the_environment(
    talking: Called, monkeypatch: pytest.MonkeyPatch, typed: list[str], target: Target
) -> None:
    """What is typed comes first, also the port that a host carries."""
    monkeypatch.setenv("TRIO_UPPER_CLIENT_HOST", "alpha")
    monkeypatch.setenv("TRIO_UPPER_CLIENT_PORT", "9000")
    run("client", *typed, "-m", "x")
    assert talking.arguments[0] == target


def test_two_ports_in_the_environment_contradict_each_other(
    talking: Called, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they do where they are typed."""
    monkeypatch.setenv("TRIO_UPPER_CLIENT_HOST", "alpha:80")
    monkeypatch.setenv("TRIO_UPPER_CLIENT_PORT", "9000")
    said = complaint(capsys, "client", "-m", "x")
    assert "'alpha:80' has another port than 9000; give only one of them" in said


def test_a_host_that_was_not_given_is_known(talking: Called) -> None:
    """A failure says so; the port alone says nothing about the host."""
    run("client", "-m", "x")
    assert talking.options == {"host_given": False}
    run("client", "127.0.0.1", "-m", "x")
    assert talking.options == {"host_given": True}


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (["-4"], ConnectSettings(ip_version=4)),
        (["--ipv6"], ConnectSettings(ip_version=6)),
        (["--bind", "127.0.0.1"], ConnectSettings(bind="127.0.0.1")),
        (["-6", "--bind", "::1"], ConnectSettings(ip_version=6, bind="::1")),
    ],
)
def test_which_addresses_to_use(
    talking: Called, arguments: list[str], settings: ConnectSettings
) -> None:
    """One IP version, and an address of this machine, as they are given."""
    run("client", "-m", "x", *arguments)
    assert talking.arguments[2] == Options(connection=settings)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-4", "-6"], "-4 and -6 exclude each other"),
        (["--bind", "box"], "'box' is not a valid address to connect from"),
        (["-4", "--bind", "::1"], "::1 is an IPv6 address"),
        (["--tls-fingerprint", "abc"], "'abc' is not a valid fingerprint; give SHA256: and 64"),
        (["--tls-fingerprint", ""], "'' is not a valid fingerprint"),
        (["--tls-ca", ""], "the name of the file is empty"),
        (["--tls-fingerprint", FINGERPRINT, "--insecure"], "leave out --insecure"),
        (["--tls-fingerprint", FINGERPRINT, "--tls-ca", "x"], "leave out --tls-ca"),
    ],
)
def test_what_contradicts_itself_is_a_usage_error(
    talking: Called, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """Nobody is connected to in a way that was not asked for."""
    assert said in complaint(capsys, "client", "-m", "x", *arguments)
    assert not talking.times


def test_a_fingerprint_means_tls(talking: Called) -> None:
    """It is trusted in place of CAs and names."""
    run("client", "-m", "x", "--tls-fingerprint", FINGERPRINT)
    context = talking.arguments[2].connection.tls
    assert context.fingerprint == FINGERPRINT
    assert context.verify_mode is ssl.CERT_NONE


def test_client_takes_options_from_the_environment(
    talking: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like those of the server."""
    monkeypatch.setenv("TRIO_UPPER_CLIENT_WAIT", "3")
    monkeypatch.setenv("TRIO_UPPER_CLIENT_QUIET", "1")
    monkeypatch.setenv("TRIO_UPPER_CLIENT_MESSAGE", "hello")
    run("client")
    assert talking.arguments == (
        Target(),
        ("hello",),
        Options(quiet=True, connection=ConnectSettings(wait=3)),
    )


def test_the_host_may_carry_the_port(talking: Called) -> None:
    """As people copy it."""
    run("client", "[::1]:80", "-m", "x")
    assert talking.arguments[0] == Target(host="::1", port=80)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["example.lan", "0"], "0 is not a valid port"),
        (["example.lan", "http"], "'http' is not a valid port"),
        (["example.lan:80", "81"], "has another port than 81"),
        (["ex ample"], "'ex ample' is not a valid host"),
    ],
)
def test_a_place_that_is_none_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], talking: Called, arguments: list[str], said: str
) -> None:
    """What is allowed, in one line."""
    assert said in complaint(capsys, "client", *arguments)
    assert not talking.times


@pytest.mark.parametrize(
    ("stdin", "stdout", "asks"),
    [
        (Terminal, Terminal, True),
        (Terminal, io.StringIO, False),
        (io.StringIO, Terminal, False),
        (lambda: None, Terminal, False),
        (Terminal, lambda: None, False),
    ],
    ids=["terminal", "output to a pipe", "input from a pipe", "no input", "no output"],
)
def test_a_person_is_asked_only_where_both_ends_are_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
    talking: Called,
    prompting: Called,
    stdin: Callable[[], object],
    stdout: Callable[[], object],
    asks: bool,
) -> None:
    """The dialogue gets host and port as they were given; None is what it asks for."""
    monkeypatch.setattr(sys, "stdin", stdin())
    monkeypatch.setattr(sys, "stdout", stdout())
    assert run("client", "-q") == CODE
    assert (prompting.times, talking.times) == ((1, 0) if asks else (0, 1))
    if asks:
        assert prompting.arguments == (None, None, Options(quiet=True))


def test_messages_on_the_command_line_need_no_prompt(
    monkeypatch: pytest.MonkeyPatch, talking: Called, prompting: Called
) -> None:
    """Also at a terminal, and also if the only message is empty."""
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert run("client", "-m", "") == CODE
    assert talking.arguments == (Target(), ("",), Options())


def test_at_a_terminal_a_wrong_argument_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, prompting: Called, capsys: pytest.CaptureFixture[str]
) -> None:
    """The dialogue corrects what is typed into it, not the command line."""
    monkeypatch.setattr(sys, "stdin", Terminal())
    assert "is not a valid port" in complaint(capsys, "client", "example.lan", "http")
    assert not prompting.times


# ------------------------------------------------------------------ ping and bench


def test_ping_has_defaults(pinging: Called) -> None:
    """But for the host, which must be given; there is no second set of them."""
    assert run("ping", "example.lan") == CODE
    assert pinging.arguments == (Target(host="example.lan"), ping.Options())


def test_ping_takes_every_option(pinging: Called) -> None:
    """Each setting gets its own value."""
    run(
        *("ping", "example.lan", "80", "-c", "3", "-i", "0.5", "-s", "64", "--json"),
        *("--connect-timeout", "1", "--reply-timeout", "0", "--wait", "2.5"),
    )
    assert pinging.arguments == (
        Target(host="example.lan", port=80),
        ping.Options(
            count=3,
            interval=0.5,
            size=64,
            as_json=True,
            reply_timeout=0,
            connection=ConnectSettings(connect_timeout=1, wait=2.5),
        ),
    )


def test_bench_has_defaults(loading: Called) -> None:
    """But for the host, which must be given; there is no second set of them."""
    assert run("bench", "[::1]:80") == CODE
    assert loading.arguments == (Target(host="::1", port=80), bench.Options())


def test_bench_takes_every_option(loading: Called) -> None:
    """Each setting gets its own value."""
    run(
        *("bench", "example.lan", "80", "--clients", "3", "--seconds", "0.5", "--size", "64"),
        *("--pipeline", "4", "--json"),
        *("--connect-timeout", "1", "--reply-timeout", "0", "--wait", "2.5"),
    )
    assert loading.arguments == (
        Target(host="example.lan", port=80),
        bench.Options(
            clients=3,
            seconds=0.5,
            size=64,
            pipeline=4,
            as_json=True,
            reply_timeout=0,
            connection=ConnectSettings(connect_timeout=1, wait=2.5),
        ),
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing argument 'HOST'"),
        (["ex ample"], "'ex ample' is not a valid host"),
        (["x", "http"], "'http' is not a valid port"),
        (["x", "--size", "1"], "--size must be from 2 to "),
        (["x", "--connect-timeout", "-1"], "'-1' is not a valid duration"),
    ],
)
@pytest.mark.parametrize("command", ["ping", "bench"])
def test_what_cannot_be_measured_is_a_usage_error(
    pinging: Called,
    loading: Called,
    capsys: pytest.CaptureFixture[str],
    command: str,
    arguments: list[str],
    said: str,
) -> None:
    """What is wrong, in one line; nobody is connected to."""
    text = complaint(capsys, command, *arguments)
    assert said in text
    assert text.endswith(f" {command} --help")
    assert pinging.times == loading.times == 0


@pytest.mark.parametrize("command", ["ping", "bench"])
def test_who_measures_takes_the_options_of_tls(
    pinging: Called,
    loading: Called,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: str,
) -> None:
    """A context if there is one; a file that cannot be read is a failure, not a usage error."""
    called = {"ping": pinging, "bench": loading}[command]
    assert run(command, "localhost", f"--tls-ca={ca_file(tmp_path)}") == CODE
    assert called.arguments[1].connection.tls.verify_mode is ssl.CERT_REQUIRED
    missing = tmp_path / "missing.pem"
    text = complaint(capsys, command, "localhost", f"--tls-ca={missing}", code=1)
    assert text == f"cannot read '{missing}': No such file or directory"
    assert called.times == 1


# ------------------------------------------------------------------ TLS of who connects


@pytest.mark.parametrize(
    ("arguments", "verifies"),
    [
        (["--tls"], True),
        (["--tls-ca", "{ca}"], True),
        (["--tls-cert", "{pair}"], True),
        (["--tls-cert", "{cert}", "--tls-key", "{key}"], True),
        (["--insecure"], False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_any_tls_option_means_tls(
    talking: Called,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    verifies: bool,
) -> None:
    """Whoever asks for a part of it never talks plain text; not to verify is said aloud."""
    leaf = issue("localhost")
    files = {
        "ca": ca_file(tmp_path),
        "pair": pair_file(tmp_path, leaf),
        "cert": cert_file(tmp_path, leaf),
        "key": key_file(tmp_path, leaf),
    }
    assert run("client", "-m", "x", *(word.format_map(files) for word in arguments)) == CODE
    context = talking.arguments[2].connection.tls
    assert context.verify_mode is (ssl.CERT_REQUIRED if verifies else ssl.CERT_NONE)
    assert ("no certificate is verified" in capsys.readouterr().err) is not verifies


def test_a_ca_that_cannot_be_read_is_one_line(
    talking: Called, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Exit code 1, and nobody is connected to."""
    missing = tmp_path / "missing.pem"
    text = complaint(capsys, "client", f"--tls-ca={missing}", code=1)
    assert text == f"cannot read '{missing}': No such file or directory"
    assert not talking.times


def test_a_key_without_a_certificate_is_explained(
    talking: Called, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Rather than to connect without either."""
    assert "--tls-key needs --tls-cert" in complaint(capsys, "client", "--tls-key", "key.pem")
    assert not talking.times


class Unwritable(io.StringIO):
    """A standard stream that takes nothing."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["client", "--help"]])
@pytest.mark.parametrize(
    ("stdout", "why"), [(Unwritable(), "the disk is full"), (None, "it is closed")]
)
def test_help_that_cannot_be_written_is_one_line(
    arguments: list[str],
    stdout: io.StringIO | None,
    why: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And exit code 1: nobody has been helped."""
    monkeypatch.setattr(sys, "stdout", stdout)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 1
    err = capsys.readouterr().err
    assert err.startswith(f"trio-upper: cannot write to standard output: {why}")
    assert err.count("\n") == 1


def test_usage_that_cannot_be_written_has_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nowhere to say more."""
    monkeypatch.setattr(sys, "stderr", Unwritable())
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2


def test_an_error_of_the_system_in_a_command_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not taken for one of standard output."""

    def fail(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "a bug")

    monkeypatch.setattr("trio_upper.cli.client.run", fail)
    with pytest.raises(OSError, match="a bug"):
        main(["client", "example.lan", "80", "-m", "hello"])
