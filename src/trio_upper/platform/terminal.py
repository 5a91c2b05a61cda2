"""The terminal as the system has it: its modes, who is in the foreground, and how a job stops.

Apart from the rest of this package, for only `trio_upper.terminal` and what draws need it.
`unix_terminal` is the contract, with the docstrings.
"""

import sys

if sys.platform == "win32":
    from trio_upper.platform.windows_terminal import (
        CONTINUE,
        HAS_SEQUENCES,
        LINE_BYTES,
        NEEDS_TERMINAL,
        QUIT,
        STOP,
        Modes,
        discard_input,
        ending_signals,
        in_foreground,
        is_canonical,
        is_dumb,
        is_readable,
        job_signals,
        not_stopped,
        open_writer,
        raw,
        read_modes,
        request_stop,
        signal_job,
        silent,
        stop_job,
        wait_writable,
        write_modes,
    )
else:
    from trio_upper.platform.unix_terminal import (
        CONTINUE,
        HAS_SEQUENCES,
        LINE_BYTES,
        NEEDS_TERMINAL,
        QUIT,
        STOP,
        Modes,
        discard_input,
        ending_signals,
        in_foreground,
        is_canonical,
        is_dumb,
        is_readable,
        job_signals,
        not_stopped,
        open_writer,
        raw,
        read_modes,
        request_stop,
        signal_job,
        silent,
        stop_job,
        wait_writable,
        write_modes,
    )

__all__ = [
    "CONTINUE",
    "HAS_SEQUENCES",
    "LINE_BYTES",
    "NEEDS_TERMINAL",
    "QUIT",
    "STOP",
    "Modes",
    "discard_input",
    "ending_signals",
    "in_foreground",
    "is_canonical",
    "is_dumb",
    "is_readable",
    "job_signals",
    "not_stopped",
    "open_writer",
    "raw",
    "read_modes",
    "request_stop",
    "signal_job",
    "silent",
    "stop_job",
    "wait_writable",
    "write_modes",
]
