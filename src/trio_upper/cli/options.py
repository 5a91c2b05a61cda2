"""Options that several commands share: their types, and those of whoever connects."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from trio_upper.cli.output import say

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


@contextmanager
def failing(kind: type[click.ClickException] = click.ClickException) -> Iterator[None]:
    """Make a `ValueError` a line for the user, and the exit code of `kind`: 1, or 2 for usage."""
    try:
        yield
    except ValueError as error:
        raise kind(str(error)) from error
