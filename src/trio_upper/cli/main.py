"""The program: runs a command, and makes a line and an exit code of what it was told wrong."""

import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NoReturn

import click

from trio_upper.cli.commands import cli
from trio_upper.cli.early import keeping_signals
from trio_upper.cli.jsonlines import JSONLines
from trio_upper.cli.output import say

ENVIRONMENT = click.core.ParameterSource.ENVIRONMENT


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
                stack.enter_context(contextlib.redirect_stderr(JSONLines(sys.stderr)))
        code = _run(words)
    sys.exit(code)


def _run(words: Sequence[str]) -> int:
    try:
        code: int = cli.main(args=words, obj=words, standalone_mode=False)
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
        from trio_upper.cli.signals import end_by

        end_by(signal.SIGINT)
    return code
