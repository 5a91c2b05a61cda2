"""The commands and their options; what a command does is imported when it runs."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trio_upper import __version__
from trio_upper.cli.options import (
    COMMAND_LINE,
    DEFAULT,
    ENVIRONMENT,
    PEM,
    ListeningHost,
    ListeningPort,
    Seconds,
    Whole,
    checking,
    choose_typed,
    connection_options,
    connection_settings,
    failing,
)
from trio_upper.cli.output import is_terminal, say
from trio_upper.measure.settings import (
    CHECK_CONNECT_SECONDS,
    CheckSettings,
    LoadSettings,
    PingSettings,
)
from trio_upper.server.settings import ServerSettings

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from trio_upper.cli.announcement import Announcement
    from trio_upper.client.target import Target
    from trio_upper.server.certificates import ServerTLS

# What the variables of all options begin with.
PREFIX = "TRIO_UPPER"

# More than any machine has cores.
MOST_WORKERS = 10_000

# What --public stands for.
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - it is what the option is for

SERVE = ServerSettings()
PING = PingSettings()
LOAD = LoadSettings()
CHECK = CheckSettings()


class Command(click.Command):
    """A command that each of its usage errors names, so that its own help is pointed to.

    Click's parser has no context for some, such as an option without its value. Its help names the
    variable of each option. Its arguments have one, too, which click gives to options alone.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for parameter in self.params:
            if isinstance(parameter, click.Option):
                parameter.show_envvar = True
            else:
                parameter.envvar = f"{PREFIX}_{self.name}_{parameter.name}".upper()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and have what fails say where."""
        try:
            rest = super().parse_args(ctx, args)
            if not ctx.resilient_parsing:  # as for completion, while the line is being typed
                choose_typed(ctx)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise
        return rest


class Program(click.Group):
    """The group of the commands."""

    command_class = Command


@click.group(
    cls=Program,
    context_settings={
        "auto_envvar_prefix": PREFIX,
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "max_content_width": 100,
    },
)
@click.version_option(__version__, "-V", "--version", prog_name="trio-upper")
@click.pass_obj
def cli(words: Sequence[str] = ()) -> None:
    """Find out whether two machines can talk over TCP.

    The server sends every message back in upper case: an answer that no local echo can fake.
    """
    if "--worker" not in words and (unknown := unknown_variables(os.environ)):
        program = click.get_current_context().command_path
        say(
            f"warning: no option has the variable {' or '.join(unknown)}; "
            f"see {program} COMMAND --help"
        )


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return those of this program's variables that name no option of any command."""
    known = {
        f"{PREFIX}_{name}_{parameter.name}".upper()
        for name, command in cli.commands.items()
        for parameter in command.params
        if not getattr(parameter, "hidden", False)
    }
    ours = {name for name in environment if name.startswith(f"{PREFIX}_")}
    return sorted(ours - known)


@cli.command()
@click.option(
    "--host",
    type=ListeningHost(),
    metavar="ADDRESS",
    multiple=True,
    default=list(SERVE.hosts),
    help="Address to listen on; may be repeated. 0.0.0.0 and :: expose the server.",
)
@click.option(
    "--public", is_flag=True, help="Listen on all addresses of this machine, IPv4 and IPv6."
)
@click.option(
    "--port",
    type=ListeningPort(),
    default=SERVE.port,
    help="Port to listen on; 0 lets the system choose one for all addresses.",
)
@click.option(
    "--max-clients",
    type=Whole(min=1),
    default=SERVE.max_clients,
    metavar="N",
    help="Clients served at once; the next one is told and closed.",
)
@click.option(
    "--idle-timeout",
    type=Seconds(),
    default=SERVE.idle_timeout,
    help="Close a client that sends nothing for this long; 0: never.",
)
@click.option(
    "--write-timeout",
    type=Seconds(),
    default=SERVE.write_timeout,
    help="Cut a client that takes nothing of its reply for this long; 0: never.",
)
@click.option(
    "--grace",
    type=Seconds(),
    default=SERVE.grace,
    help="When stopping, cut the clients that still talk after this long.",
)
@click.option(
    "--workers",
    type=Whole(min=0, max=MOST_WORKERS),
    default=1,
    metavar="N",
    help="Processes that share the listeners; 0: one per core.",
)
@click.option("--worker", type=Whole(min=1), hidden=True, allow_from_autoenv=False)
@click.option("--tls-cert", type=PEM, metavar="FILE", help="Serve TLS with this certificate.")
@click.option("--tls-key", type=PEM, metavar="FILE", help="Its key, if it is not in the same file.")
@click.option(
    "--tls-client-ca",
    type=PEM,
    metavar="FILE",
    help="Demand a client certificate signed by a CA in FILE.",
)
@click.option(
    "--tls-self-signed",
    is_flag=True,
    help="Serve TLS with a key and a certificate made at the start, in memory.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    help="For people or for machines; always to standard error.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    help="Leave out what is below.",
)
@click.pass_obj
def serve(
    words: Sequence[str],
    /,
    host: tuple[str, ...] | None,
    public: bool,
    workers: int,
    worker: int | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    tls_self_signed: bool,
    log_format: str,
    log_level: str,
    **settings: Any,
) -> int:
    """Serve: answer every client in upper case.

    \b
    python -m trio_upper serve                             for this machine alone
    python -m trio_upper serve --public                    for every machine that can reach it
    python -m trio_upper serve --public --tls-self-signed  the same, encrypted
    """  # noqa: D301 - click wants the character, not two
    from trio_upper.cli import serve as command
    from trio_upper.cli import supervise
    from trio_upper.cli.log import open_log

    if words[-1] == "--":  # it ends the options, and more are added
        words = words[:-1]
    if worker is None:  # its options are the words to its parent
        leave_listeners_alone("host", "port", "public")
    hosts = EVERYWHERE if public else host or SERVE.hosts
    tls = server_tls(tls_cert, tls_key, tls_client_ca, self_signed=tls_self_signed, worker=worker)
    told = ServerSettings(hosts=hosts, tls=tls.context if tls else None, **settings)
    with checking("max_clients", "workers"):
        shares = supervise.share_out(told.max_clients, choose_workers(workers))
    announcement = announce(words, tls) if log_format == "text" else None
    with open_log(log_format, log_level) as log:
        if tls and worker is None:
            log_certificate(tls, log, announced=bool(announcement and announcement.at_terminal))
        if len(shares) == 1:
            return command.run(told, log, announcement=announcement, worker=worker)
        pem = tls.pem if tls and tls_self_signed else b""
        return supervise.run(
            told, log, shares=shares, words=words, announcement=announcement, pem=pem
        )


def choose_workers(workers: int) -> int:
    """Return how many processes are to serve."""
    from trio_upper.platform import HAS_WORKERS, usable_cores

    if workers != 1 and not HAS_WORKERS:
        raise click.UsageError("--workers must be 1: processes cannot share a port on this system")
    return workers or usable_cores()


def server_tls(
    cert: Path | None,
    key: Path | None,
    client_ca: Path | None,
    *,
    self_signed: bool,
    worker: object,
) -> "ServerTLS | None":
    """Return what the options of TLS ask for; a worker has a self-made certificate of its parent.

    Error handling: what cannot be used ends the program, with a line that says why.
    """
    if key and not cert:
        raise click.UsageError("--tls-key needs --tls-cert")
    if client_ca and not (cert or self_signed):
        raise click.UsageError("--tls-client-ca needs --tls-cert or --tls-self-signed")
    if not (cert or self_signed):
        return None
    from trio_upper.cli.announcement import own_addresses
    from trio_upper.server.certificates import load, load_pem, make_self_signed
    from trio_upper.server.workers import take_secret

    with failing():
        if cert:
            return load(cert=cert, key=key, client_ca=client_ca)
        pem = take_secret() if worker else make_self_signed(own_addresses() or ())
        return load_pem(pem, client_ca=client_ca)


def log_certificate(tls: "ServerTLS", log: "FilteringBoundLogger", *, announced: bool) -> None:
    """Log what clients can trust the server by, unless `announced`, and what is wrong with it."""
    from datetime import UTC, datetime

    if not announced:
        log.info("certificate", fingerprint=tls.fingerprint)
    if why := tls.warning(datetime.now(UTC)):
        log.warning("certificate is not in order", why=why)


def announce(words: Sequence[str], tls: "ServerTLS | None") -> "Announcement":
    """Return what a person is told about the server that `words` start."""
    from trio_upper.cli.announcement import Announcement

    return Announcement(
        arguments=tuple(words[words.index("serve") + 1 :]),
        tls=tls is not None,
        fingerprint=tls.fingerprint if tls else None,
        client_certificate=tls.needs_client_certificate if tls else False,
        at_terminal=is_terminal(sys.stderr),
    )


def leave_listeners_alone(*options: str) -> None:
    """Refuse `options` that were given although the listeners are inherited.

    To ignore them could expose a server that its operator wanted for this machine alone.
    """
    from trio_upper.server.inherited import are_passed

    context = click.get_current_context()
    given = [one for one in options if context.get_parameter_source(one) is not DEFAULT]
    if given and are_passed(os.environ):
        raise click.UsageError(
            f"the listeners are inherited (LISTEN_FDS); leave out --{' and --'.join(given)}"
        )


@cli.command()
@click.argument("host", required=False)
@click.argument("port", required=False)
@click.option(
    "-m",
    "--message",
    metavar="MESSAGE",
    multiple=True,
    help="Send this message and show the reply; may be repeated.",
)
@click.option("-q", "--quiet", is_flag=True, help="Nothing but replies and errors.")
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="To whom it is connected, and the time of each reply, on standard error.",
)
@connection_options()
def client(host: str | None, port: str | None, message: tuple[str, ...], **options: Any) -> int:
    """Connect, send messages, show the replies.

    \b
    python -m trio_upper client                          asks where to, then for messages
    python -m trio_upper client 192.168.1.7 -m hello     one message
    python -m trio_upper client 192.168.1.7 < in > out   a file, or a pipe, byte for byte

    HOST may carry the port: example.lan:8746, [::1]:8746. At a terminal, what is missing is asked
    for; otherwise HOST is 127.0.0.1 and PORT 8746.
    """  # noqa: D301
    from trio_upper.cli import client as command

    port = chosen_port(host, port)
    target = chosen_target(host, port)
    settings = command.Options(**connection_settings(**options))
    if message or not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        return command.run(target, message, settings, host_given=host is not None)
    from trio_upper.cli import dialogue

    return dialogue.run(host, port, settings)


@cli.command(short_help="Time round trips, one after the other.")
@click.argument("host")
@click.argument("port", required=False)
@click.option("-c", "--count", type=int, metavar="COUNT", help="Stop after this many round trips.")
@click.option(
    "-i",
    "--interval",
    type=Seconds(),
    default=PING.interval,
    help="From the start of one round trip to the next.",
)
@click.option(
    "-s", "--size", type=int, default=PING.size, metavar="BYTES", help="Size of a message."
)
@click.option(
    "-D",
    "--timestamps",
    is_flag=True,
    help="Put the local time before each line but the summary's.",
)
@click.option("--json", is_flag=True, help="One JSON object instead of lines.")
@click.option("--jsonl", is_flag=True, help="One JSON object for each round trip, then a summary.")
@connection_options()
def ping(host: str, port: str | None, **options: Any) -> int:
    """Time round trips, one after the other; Ctrl-C gives the summary, Ctrl-\\ the one so far.

    \b
    python -m trio_upper ping 192.168.1.7              until Ctrl-C, one a second
    python -m trio_upper ping 192.168.1.7 -c 10 -i 0   ten, as fast as they go
    python -m trio_upper ping 192.168.1.7 -c 10 --json

    Works with any server that upper-cases. Exit code 0 only if every reply came and was right.
    """  # noqa: D301
    from trio_upper.cli import ping as command

    return measure(command, host, port, {"as_json_lines": options.pop("jsonl"), **options})


@cli.command()
@click.argument("host")
@click.argument("port", required=False)
@click.option("--clients", type=int, default=LOAD.clients, metavar="N", help="Connections at once.")
@click.option("--seconds", type=Seconds(), default=LOAD.seconds, help="How long to measure.")
@click.option("--size", type=int, default=LOAD.size, metavar="BYTES", help="Size of a message.")
@click.option(
    "--pipeline",
    type=int,
    default=LOAD.pipeline,
    metavar="N",
    help="Messages in flight on each connection.",
)
@click.option("--json", is_flag=True, help="One JSON object instead of text.")
@connection_options()
def bench(host: str, port: str | None, **options: Any) -> int:
    """Measure throughput and latency under load; every reply is checked.

    \b
    python -m trio_upper bench 192.168.1.7                              10 clients, 5 seconds
    python -m trio_upper bench 192.168.1.7 --clients 100 --seconds 10
    python -m trio_upper bench 192.168.1.7 --size 65536 --pipeline 16   bulk

    Works with any server that upper-cases, and so compares them. A wrong reply makes exit code 1.
    """  # noqa: D301
    from trio_upper.cli import bench as command

    return measure(command, host, port, options)


@cli.command(short_help="Find out whether two machines can talk, and what is in the way.")
@click.argument("host")
@click.argument("port", required=False)
@click.option(
    "--seconds",
    type=Seconds(),
    default=CHECK.seconds,
    help="How long the bulk transfer takes; 0: none.",
)
@click.option("--json", is_flag=True, help="One JSON object instead of lines.")
@connection_options(connect_timeout=CHECK_CONNECT_SECONDS, reply_timeout=CHECK.reply_timeout)
def check(host: str, port: str | None, **options: Any) -> int:
    """Find out whether this machine and another can talk, and what is in the way.

    \b
    python -m trio_upper check 192.168.1.7             the name, connecting, replies, sizes, …
    python -m trio_upper check 192.168.1.7 --seconds 10
    python -m trio_upper check 192.168.1.7 --json

    Works with any server that upper-cases. Exit code 0 if they can talk, and every reply came and
    was right.
    """  # noqa: D301
    from trio_upper.cli import check as command

    return measure(command, host, port, options)


def chosen_port(host: str | None, port: str | None) -> str | None:
    """Return `port`; None where the environment has it and the HOST that was typed carries one."""
    from trio_upper.client.target import split_host

    source = click.get_current_context().get_parameter_source
    if host and source("port") is ENVIRONMENT and source("host") is COMMAND_LINE:
        with checking("host"):
            return None if split_host(host.strip())[1] else port
    return port


def chosen_target(host: str | None, port: str | None) -> "Target":
    """Return where to connect to; each of the two is checked by itself, to tell which is wrong."""
    from trio_upper.client.target import parse_target

    with checking("host"):
        parse_target(host, None)
    with checking("port"):
        parse_target(None, port)
    with checking("host", "port"):
        return parse_target(host, port)


def measure(command: Any, host: str, port: str | None, options: dict[str, Any]) -> int:
    """Run `command`, the module of a measurement, with what the command line says."""
    target = chosen_target(host, chosen_port(host, port))
    settings = connection_settings(as_json=options.pop("json"), **options)
    with checking():
        checked = command.Options(**settings)
    code: int = command.run(target, checked)
    return code
