"""The keyboard and the screen for an editor, as `prompt_toolkit` has them on each system."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TextIO, cast

from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import Input, create_input
from prompt_toolkit.input.typeahead import clear_typeahead
from prompt_toolkit.output import ColorDepth, Output, create_output
from prompt_toolkit.output.vt100 import Vt100_Output

from trio_upper.platform import terminal
from trio_upper.terminal.lease import Lease
from trio_upper.terminal.screen import Screen, unblocked


class Devices(NamedTuple):
    """What an editor reads and draws on; `forget` discards what was typed and not asked for."""

    keyboard: Input
    screen: Output
    forget: Callable[[], None]


@contextmanager
def open_devices(lease: Lease, output_fd: int, *, hurried: Callable[[], bool]) -> Iterator[Devices]:
    """Give the devices of the terminal on loan, and of `output_fd`, inside the block.

    `hurried` tells whether somebody waits for what is drawn.
    """
    if not terminal.HAS_SEQUENCES:
        yield _console(lease)
        return
    from trio_upper.terminal import keyboard as of_unix  # which is not for Windows

    with unblocked(output_fd) as fd:
        screen = Screen(fd, hurried=hurried, usable=lambda: lease.usable)
        output = Vt100_Output(
            cast("TextIO", screen),
            get_size=partial(_size, output_fd),
            term=os.environ.get("TERM"),
            default_color_depth=ColorDepth.from_env(),  # NO_COLOR
            enable_cpr=False,  # its answers would get lost among what is typed
        )
        keyboard = of_unix.Keyboard(lease)
        yield Devices(keyboard, output, keyboard.forget)


def _console(lease: Lease) -> Devices:
    """Return the console of this process, which `prompt_toolkit` drives without sequences."""
    keyboard = create_input()

    def forget() -> None:
        clear_typeahead(keyboard)
        lease.discard_typed()

    return Devices(keyboard, create_output(), forget)


def _size(fd: int) -> Size:
    """Return the size of the terminal; one that does not know it has the usual one."""
    try:
        size = os.get_terminal_size(fd)
    except OSError:  # hung up
        size = os.terminal_size((0, 0))
    return Size(rows=size.lines or 24, columns=size.columns or 80)
