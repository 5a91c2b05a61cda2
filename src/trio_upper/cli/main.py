"""The program: runs a command, and makes a line and an exit code of what it was told wrong."""

import contextlib
import errno
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NoReturn

import click

from trio_upper.cli.commands import cli
from trio_upper.cli.early import end_by_first_signal, keeping_signals
from trio_upper.cli.invocation import shown_command
from trio_upper.cli.options import ENVIRONMENT
from trio_upper.cli.output import say
from trio_upper.platform import end_with

_OPTION = re.compile(r"(?<![\w-])--?[a-z0-9][a-z0-9-]*")


def explain(error: click.UsageError) -> str:
    """Return in one line what is wrong and where to read on.

    A value from the environment is named with its variable: it is not on the command line.
    """
    text = error.format_message().rstrip(".")
    context = error.ctx
    if context and (variables := _variables(error, context)):
        text += f" (from {' and '.join(variables)})"
    command = context.command_path if context else "trio-upper"
    return f"{text}{' See' if text.endswith('?') else '; see'} {command} --help"


def _variables(error: click.UsageError, context: click.Context) -> list[str]:
    """Return the variables that gave values to the parameters which `error` is about.

    These are the ones that it knows, and the options in its text.
    """
    names = {*getattr(error, "names", ()), getattr(getattr(error, "param", None), "name", None)}
    options = set(_OPTION.findall(error.message))
    return [
        f"{context.auto_envvar_prefix}_{parameter.name.upper()}"
        for parameter in context.command.params
        if parameter.name
        and (parameter.name in names or options & set(parameter.opts))
        and context.get_parameter_source(parameter.name) is ENVIRONMENT
        and context.params.get(parameter.name) is not False  # a flag that is not set
    ]


def wants_json(words: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Return whether `words` start a server that logs in JSON, right or wrong as they are."""
    asked = environment.get("TRIO_UPPER_SERVE_LOG_FORMAT")
    for word, following in pairwise([*words, ""]):
        name, _, value = word.partition("=")
        if name == "--log-format":
            asked = value or following
    return asked == "json"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program: with `arguments`, or with those of the process; exit with its code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with contextlib.ExitStack() as stack:
        if words[:1] == ["serve"]:
            stack.enter_context(keeping_signals())
            if sys.stderr and wants_json(words, os.environ):
                from trio_upper.cli.jsonlines import JSONLines

                stack.enter_context(contextlib.redirect_stderr(JSONLines(sys.stderr)))
        else:
            end_by_first_signal()
        if sys.stdout is None:
            stack.enter_context(contextlib.redirect_stdout(Closed()))
        try:
            code = _run(words)
        except OSError as error:
            if not _is_clicks(error):
                raise
            code = _unwritable(error)
    sys.exit(code)


class Closed(io.TextIOBase):
    """Standard output that was closed at the start (``>&-``): click says nothing of that itself."""

    def write(self, _: str) -> int:
        """Raise what the system would."""
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def _is_clicks(error: OSError) -> bool:
    """Tell whether click failed to write its help or version, which it leaves to its caller."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code is click.echo.__code__ for frame, _ in frames)


def _unwritable(error: OSError) -> int:
    """Say that standard output cannot be written, and return the exit code, as commands do."""
    from trio_upper.stdio.streams import output_error

    # What is left in its buffer would fail once more at the exit, with a code of the interpreter's.
    sys.stdout = None
    say(str(output_error(1, error)))
    return 1


def _run(words: Sequence[str]) -> int:
    try:
        name = " ".join(shown_command(elsewhere=True))
        code: int = cli.main(args=words, prog_name=name, obj=words, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        with contextlib.suppress(OSError):  # what shows it is standard error
            error.show()
        code = error.exit_code
    except click.UsageError as error:
        say(explain(error))
        code = error.exit_code
    except click.ClickException as error:
        say(error.format_message())
        code = error.exit_code
    except click.Abort:
        end_with(signal.SIGINT)  # Ctrl-C where no signal was kept from the start
    return code
