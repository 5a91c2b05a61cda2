"""Options that several commands share: their types, and those of the commands that connect."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trio_upper.cli.output import say
from trio_upper.client.settings import REPLY_TIMEOUT_SECONDS, ConnectSettings

if TYPE_CHECKING:
    import ssl

CONNECT = ConnectSettings()

# Where the value of a parameter comes from.
COMMAND_LINE = click.core.ParameterSource.COMMANDLINE
DEFAULT = click.core.ParameterSource.DEFAULT
ENVIRONMENT = click.core.ParameterSource.ENVIRONMENT

EXCLUSIVE = {
    ("public", "host"): "--public stands for all addresses; leave out --host",
    ("tls_self_signed", "tls_cert"): "--tls-self-signed makes a certificate; leave out --tls-cert",
    ("tls_self_signed", "tls_key"): "--tls-self-signed makes a key; leave out --tls-key",
    ("tls_fingerprint", "tls_ca"): "--tls-fingerprint trusts one certificate; leave out --tls-ca",
    ("tls_fingerprint", "insecure"): (
        "--tls-fingerprint trusts one certificate; leave out --insecure"
    ),
    ("ipv4", "ipv6"): "-4 and -6 exclude each other; without them both are used",
    ("quiet", "verbose"): "-q and -v exclude each other",
    ("json", "jsonl"): "--json and --jsonl exclude each other",
}
"""Pairs of options of a command, and what is said if both are given."""


def choose_typed(context: click.Context) -> None:
    """Leave out of two options that exclude each other the one that is not typed.

    Error handling: `click.UsageError` if both are typed, or both come from the environment.
    """
    values, source = context.params, context.get_parameter_source
    for pair, why in EXCLUSIVE.items():
        if not all(is_given(name, context) for name in pair):
            continue
        not_typed = [name for name in pair if source(name) is not COMMAND_LINE]
        if len(not_typed) != 1:
            raise click.UsageError(why, context)
        [name] = not_typed
        values[name] = False if values[name] is True else None


def is_given(name: str, context: click.Context) -> bool:
    """Tell whether an option has a value that is not its default; a list may be blank."""
    is_default = context.get_parameter_source(name) is DEFAULT
    return not is_default and context.params.get(name) not in {None, False, ()}


class PEMFile(click.Path):
    """The name of a file in PEM; click would take an empty one for the current folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or fail with a usage error."""
        if value == "":
            self.fail("the name of the file is empty", param, ctx)
        return super().convert(value, param, ctx)


PEM = PEMFile()


class Seconds(click.ParamType[float]):
    """A duration in seconds, 0 or more, finite."""

    name = "seconds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the duration, or fail with a usage error."""
        try:
            seconds = math.nan if "_" in str(value) else float(value)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds < math.inf:
            self.fail(f"{value!r} is not a valid duration; give seconds, 0 or more", param, ctx)
        return seconds


class ListeningHost(click.ParamType[str]):
    """A name or an address to listen on, in a spelling that a client could use, too."""

    name = "host"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the host, or fail with a usage error."""
        from trio_upper.client.target import Target

        try:
            host = Target(host=str(value)).host
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if why := _no_listener(host):
            self.fail(f"{host} {why}", param, ctx)
        return host


def _no_listener(host: str) -> str:
    """Return why nobody could connect to `host` if it is such an address, and what to do."""
    from ipaddress import IPv6Address, ip_address

    try:
        address = ip_address(host)
    except ValueError:  # a name
        return ""
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return f"stands for an IPv4 address; give {address.ipv4_mapped}"
    if address.is_multicast or host == "255.255.255.255":
        return "is no address of one machine; use 0.0.0.0 for all IPv4 or :: for all IPv6"
    return ""


class ListeningPort(click.ParamType[int]):
    """A TCP port to listen on; 0 lets the system choose."""

    name = "port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the port, or fail with a usage error."""
        from trio_upper.client.target import MAX_PORT, PORT

        text = str(value)
        port = int(text) if PORT.fullmatch(text) else -1
        if not 0 <= port <= MAX_PORT:
            self.fail(f"{value!r} is not a valid port; use a number from 0 to 65535", param, ctx)
        return port


class Whole(click.IntRange):
    """A whole number with limits; click would call it a "range" in its messages."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, or fail with a usage error."""
        number: int = click.INT.convert(value, param, ctx)
        if self.min is not None and number < self.min:
            self.fail(f"{number} is too small; it must be at least {self.min}", param, ctx)
        if self.max is not None and number > self.max:
            self.fail(f"{value} is too large; it must be at most {self.max}", param, ctx)
        return number


Command = Callable[..., int]
Decorator = Callable[[Command], Command]

# How to connect, whatever the command is for.
_ROUTE: list[Decorator] = [
    click.option("-4", "--ipv4", is_flag=True, help="Use IPv4 only."),
    click.option("-6", "--ipv6", is_flag=True, help="Use IPv6 only."),
    click.option("--bind", metavar="ADDRESS", help="Connect from this address of this machine."),
    click.option("--tls", is_flag=True, help="Speak TLS; the options below imply it."),
    click.option(
        "--tls-ca", type=PEM, metavar="FILE", help="Trust the CAs in FILE, not the system's."
    ),
    click.option(
        "--insecure", is_flag=True, help="Verify nothing: anyone may be at the other end."
    ),
    click.option(
        "--tls-fingerprint",
        metavar="SHA256:HEX",
        help="Trust the one certificate that has this fingerprint, and no other.",
    ),
    click.option("--tls-cert", type=PEM, metavar="FILE", help="Client certificate."),
    click.option(
        "--tls-key", type=PEM, metavar="FILE", help="Its key, if it is not in the same file."
    ),
]


def connection_options(
    *,
    connect_timeout: float = CONNECT.connect_timeout,
    reply_timeout: float = REPLY_TIMEOUT_SECONDS,
) -> Decorator:
    """Return what adds the options of the commands that connect, with these defaults.

    They are those of `ConnectSettings`, and ``--reply-timeout``; `connection_settings` takes them.
    """
    limits: list[Decorator] = [
        click.option(
            "--connect-timeout",
            type=Seconds(),
            default=connect_timeout,
            help="Limit for resolving and connecting, all addresses together; 0: no limit.",
        ),
        click.option(
            "--reply-timeout",
            type=Seconds(),
            default=reply_timeout,
            help="Give up when no reply arrives for this long; 0: no limit.",
        ),
        click.option(
            "--wait",
            type=Seconds(),
            default=CONNECT.wait,
            help="Keep trying to connect for this long, to a server that is still starting.",
        ),
    ]
    return lambda command: reduce(lambda made, add: add(made), [*limits, *_ROUTE][::-1], command)


def connection_settings(
    *,
    connect_timeout: float,
    wait: float,
    ipv4: bool,
    ipv6: bool,
    bind: str | None,
    tls: bool,
    tls_ca: Path | None,
    insecure: bool,
    tls_fingerprint: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    **others: Any,
) -> dict[str, Any]:
    """Return `others`, and as `connection` what `connection_options` say of connecting."""
    if tls_key and not tls_cert:
        raise click.UsageError("--tls-key needs --tls-cert")
    context = None
    if tls or tls_ca or insecure or tls_fingerprint is not None or tls_cert:
        context = _tls(tls_ca, insecure, tls_fingerprint, tls_cert, tls_key)
    with checking("bind"):
        ConnectSettings(bind=bind)
    with checking("bind", "ipv4", "ipv6"):
        connection = ConnectSettings(
            connect_timeout=connect_timeout,
            wait=wait,
            tls=context,
            ip_version=4 if ipv4 else 6 if ipv6 else None,
            bind=bind,
        )
    return {"connection": connection, **others}


def _tls(
    ca: Path | None,
    insecure: bool,
    fingerprint: str | None,
    cert: Path | None,
    key: Path | None,
) -> "ssl.SSLContext":
    from trio_upper.tls import client_context, parse_fingerprint

    with checking("tls_fingerprint"):
        trusted = None if fingerprint is None else parse_fingerprint(fingerprint)
    with failing():
        context = client_context(ca=ca, insecure=insecure, trusted=trusted, cert=cert, key=key)
    if insecure:
        say("--insecure: no certificate is verified, anyone may be at the other end")
    return context


class WrongValue(click.UsageError):
    """A usage error about the values of the parameters that are called `names`."""

    def __init__(self, message: str, names: tuple[str, ...]) -> None:
        super().__init__(message)
        self.names = names


@contextmanager
def checking(*names: str) -> Iterator[None]:
    """Make a `ValueError` a usage error about these parameters.

    Options that its text names need not be given.
    """
    try:
        yield
    except ValueError as error:
        raise WrongValue(str(error), names) from error


@contextmanager
def failing() -> Iterator[None]:
    """Make a `ValueError` a line for the user, and exit code 1."""
    try:
        yield
    except ValueError as error:
        raise click.ClickException(str(error)) from error
