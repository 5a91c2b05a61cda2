"""The command line: options, usage errors, exit codes; a command is imported when it runs."""

import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from trio_upper import __version__
from trio_upper.commands import is_terminal, say
from trio_upper.protocol import DEFAULT_HOST, DEFAULT_PORT

DEFAULT = click.core.ParameterSource.DEFAULT
ENVIRONMENT = click.core.ParameterSource.ENVIRONMENT

PEM = click.Path(path_type=Path)


class Seconds(click.ParamType[float]):
    """A time in seconds, 0 or more; NaN and infinity are none."""

    name = "seconds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the time, or fail with a usage error."""
        try:
            seconds = math.nan if "_" in str(value) else float(value)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds < math.inf:
            self.fail(f"{value!r} is no time: it is a number of seconds, 0 or more", param, ctx)
        return seconds


class ListeningPort(click.ParamType[int]):
    """A TCP port to listen on; 0 lets the system choose."""

    name = "port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the port, or fail with a usage error."""
        text = str(value)
        port = int(text) if text.isascii() and text.isdigit() else -1
        if not 0 <= port <= 65535:
            self.fail(f"{value!r} is no port: it is a number from 0 to 65535", param, ctx)
        return port


class Whole(click.IntRange):
    """A whole number of some least size; click would say of others that they are no "range"."""

    name = "integer"


class Command(click.Command):
    """A command that each of its usage errors names, so that its own help is pointed to.

    Click's parser has no context for some, such as an option without its value.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and have what fails say where."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise


class Program(click.Group):
    """The group of the commands."""

    command_class = Command


def connection_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options of whoever connects: time-outs and TLS. `connection_settings` takes them."""
    options = [
        click.option(
            "--connect-timeout",
            type=Seconds(),
            default=10,
            help="For resolving and connecting, all addresses together; 0: no limit.",
        ),
        click.option(
            "--reply-timeout",
            type=Seconds(),
            default=30,
            help="A reply is owed and nothing has come for so long; 0: no limit.",
        ),
        click.option(
            "--wait",
            type=Seconds(),
            default=0,
            help="Keep trying to connect for so long, to a server that is still starting.",
        ),
        click.option("--tls", is_flag=True, help="Speak TLS; the options below imply it."),
        click.option(
            "--tls-ca", type=PEM, metavar="FILE", help="Trust the CAs in FILE, not the system's."
        ),
        click.option(
            "--insecure", is_flag=True, help="Verify nothing: anybody may be at the other end."
        ),
        click.option("--tls-cert", type=PEM, metavar="FILE", help="Client certificate."),
        click.option(
            "--tls-key", type=PEM, metavar="FILE", help="Its key, if it is not in the same file."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def connection_settings(
    *,
    tls: bool,
    tls_ca: Path | None,
    insecure: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    **others: Any,
) -> dict[str, Any]:
    """Return what `connection_options` and `others` give, with a TLS context or None."""
    context = None
    if tls or tls_ca or insecure or tls_cert or tls_key:
        from trio_upper.tls import client_context

        with failing():
            context = client_context(ca=tls_ca, insecure=insecure, cert=tls_cert, key=tls_key)
    if insecure:
        say("--insecure: no certificate is verified, anybody may be at the other end")
    return {"tls": context, **others}


@click.group(
    cls=Program,
    context_settings={
        "auto_envvar_prefix": "TRIO_UPPER",
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "max_content_width": 100,
    },
)
@click.version_option(__version__, prog_name="trio-upper")
def cli() -> None:
    """Find out whether two machines can talk over TCP.

    The server sends every message back in upper case: an answer that no local echo can fake.
    """


@cli.command()
@click.option(
    "--host",
    metavar="ADDRESS",
    multiple=True,
    default=[DEFAULT_HOST],
    help="Address to listen on; may be repeated. 0.0.0.0 and :: expose the server.",
)
@click.option(
    "--port",
    type=ListeningPort(),
    default=DEFAULT_PORT,
    help="Port to listen on; 0 lets the system choose one for all addresses.",
)
@click.option(
    "--max-clients",
    type=Whole(min=1),
    default=10_000,
    metavar="N",
    help="Clients served at once; the next one is told so and closed.",
)
@click.option(
    "--idle-timeout",
    type=Seconds(),
    default=600,
    help="Close a client that sends nothing for so long; 0: never.",
)
@click.option(
    "--write-timeout",
    type=Seconds(),
    default=30,
    help="Cut a client that takes nothing of its reply for so long; 0: never.",
)
@click.option(
    "--grace",
    type=Seconds(),
    default=10,
    help="When stopping, cut the clients that still talk after so long.",
)
@click.option(
    "--workers",
    type=Whole(min=0),
    default=1,
    metavar="N",
    help="Processes that serve, which share the clients; 0: one per core.",
)
@click.option("--tls-cert", type=PEM, metavar="FILE", help="Serve TLS with this certificate.")
@click.option("--tls-key", type=PEM, metavar="FILE", help="Its key, if it is not in the same file.")
@click.option(
    "--tls-client-ca",
    type=PEM,
    metavar="FILE",
    help="Demand a client certificate signed by a CA in FILE.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info"
)
@click.pass_obj
def serve(
    words: Sequence[str],
    /,
    host: tuple[str, ...],
    workers: int,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    log_format: str,
    log_level: str,
    **settings: Any,
) -> int:
    """Serve: answer every client in upper case.

    \b
    python -m trio_upper serve                           for this machine alone
    python -m trio_upper serve --host 0.0.0.0 --host ::  for every machine that can reach it
    """  # noqa: D301 - click wants the character, not two
    from trio_upper.commands import serve as command
    from trio_upper.log import open_log
    from trio_upper.server import Settings

    tls = None
    if tls_cert:
        from trio_upper.tls import server_context

        with failing():
            tls = server_context(cert=tls_cert, key=tls_key, client_ca=tls_client_ca)
    elif tls_key or tls_client_ca:
        raise click.UsageError("--tls-key and --tls-client-ca need --tls-cert")
    leave_listeners_alone("host", "port")
    told = Settings(hosts=host, tls=tls, **settings)
    arguments = words[words.index("serve") + 1 :] if log_format == "text" else None
    if (count := workers or len(os.sched_getaffinity(0))) == 1:
        with open_log(log_format, log_level) as log:
            return command.run(told, log, arguments=arguments)
    from trio_upper.commands import supervise

    with failing(click.UsageError):
        shares = supervise.share_out(told.max_clients, count)
    with open_log(log_format, log_level) as log:
        return supervise.run(told, log, shares=shares, words=words, arguments=arguments)


def leave_listeners_alone(*options: str) -> None:
    """Refuse `options` that were given although the listeners are inherited.

    To ignore them could expose a server that its operator wanted for this machine alone. A worker
    may have them: they are the words to its parent.
    """
    from trio_upper.workers import WORKER, are_inherited

    context = click.get_current_context()
    given = [one for one in options if context.get_parameter_source(one) is not DEFAULT]
    if given and are_inherited(os.environ) and WORKER not in os.environ:
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
@connection_options
def client(host: str | None, port: str | None, message: tuple[str, ...], **options: Any) -> int:
    """Connect, send messages, show the replies.

    \b
    python -m trio_upper client                          asks where to, then for messages
    python -m trio_upper client 192.168.1.7 -m hello     one message
    python -m trio_upper client 192.168.1.7 < in > out   a file, or a pipe, byte for byte

    HOST may carry the port: example.lan:8746, [::1]:8746. At a terminal, what is missing is asked
    for; otherwise HOST is 127.0.0.1 and PORT 8746.
    """  # noqa: D301
    from trio_upper.commands import client as command
    from trio_upper.dial import parse_target

    with failing(click.UsageError):
        target = parse_target(host, port)
    settings = command.Options(**connection_settings(**options))
    if message or not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        return command.run(target, message, settings)
    from trio_upper.commands import dialogue

    return dialogue.run(host, port, settings)


@cli.command()
@click.argument("host")
@click.argument("port", required=False)
@click.option("-c", "--count", type=int, metavar="COUNT", help="Stop after so many round trips.")
@click.option(
    "-i", "--interval", type=Seconds(), default=1, help="From one round trip to the next."
)
@click.option("-s", "--size", type=int, default=32, metavar="BYTES", help="Size of a message.")
@click.option("--json", is_flag=True, help="One JSON object instead of lines.")
@connection_options
def ping(host: str, port: str | None, **options: Any) -> int:
    """Time round trips, one after the other; Ctrl-C gives the summary.

    \b
    python -m trio_upper ping 192.168.1.7              until Ctrl-C, one a second
    python -m trio_upper ping 192.168.1.7 -c 10 -i 0   ten, as fast as they go
    python -m trio_upper ping 192.168.1.7 -c 10 --json

    Works with any server that upper-cases. Exit code 0 only if every reply came and was right.
    """  # noqa: D301
    from trio_upper.commands import ping as command

    return measure(command, host, port, options)


@cli.command()
@click.argument("host")
@click.argument("port", required=False)
@click.option("--clients", type=int, default=10, metavar="N", help="Connections at once.")
@click.option("--seconds", type=Seconds(), default=5, help="How long to measure.")
@click.option("--size", type=int, default=32, metavar="BYTES", help="Size of a message.")
@click.option(
    "--pipeline", type=int, default=1, metavar="N", help="Messages in flight on a connection."
)
@click.option("--json", is_flag=True, help="One JSON object instead of text.")
@connection_options
def bench(host: str, port: str | None, **options: Any) -> int:
    """Measure throughput and latency under load; every reply is checked.

    \b
    python -m trio_upper bench 192.168.1.7                              10 clients, 5 seconds
    python -m trio_upper bench 192.168.1.7 --clients 100 --seconds 10
    python -m trio_upper bench 192.168.1.7 --size 65536 --pipeline 16   bulk

    Works with any server that upper-cases, and so compares them. A wrong reply makes exit code 1.
    """  # noqa: D301
    from trio_upper.commands import bench as command

    return measure(command, host, port, options)


def measure(command: Any, host: str, port: str | None, options: dict[str, Any]) -> int:
    """Run `command`, the module of ``ping`` or ``bench``, with what the command line says."""
    from trio_upper.dial import parse_target

    with failing(click.UsageError):
        target = parse_target(host, port)
    settings = connection_settings(as_json=options.pop("json"), **options)
    with failing(click.UsageError):
        checked = command.Options(**settings)
    code: int = command.run(target, checked)
    return code


@contextmanager
def failing(kind: type[click.ClickException] = click.ClickException) -> Iterator[None]:
    """Make a `ValueError` a line for the user, and the exit code of `kind`: 1, or 2 for usage."""
    try:
        yield
    except ValueError as error:
        raise kind(str(error)) from error


def explain(error: click.UsageError) -> str:
    """Return in one line what is wrong and where to read on.

    A value that comes from the environment is told so: nobody finds it on the command line.
    """
    text = error.format_message().rstrip(".")
    context, option = error.ctx, getattr(error, "param", None)
    if context and option and context.get_parameter_source(option.name) is ENVIRONMENT:
        text += f" (from {context.auto_envvar_prefix}_{option.name.upper()})"
    command = context.command_path if context else "trio-upper"
    return f"{text}{' See' if text.endswith('?') else '; see'} {command} --help"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program: with `arguments`, or with those of the process; exit with its code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = cli.main(args=words, obj=words, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = error.exit_code
    except click.UsageError as error:
        say(explain(error))
        code = error.exit_code
    except click.ClickException as error:
        say(error.format_message())
        code = error.exit_code
    except click.Abort:
        # Ctrl-C while Trio did not run yet, or not any more.
        from trio_upper.commands.signals import end_by

        end_by(signal.SIGINT)
    sys.exit(code)
