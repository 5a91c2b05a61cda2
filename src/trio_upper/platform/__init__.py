"""What differs between operating systems, and the only place that asks which one this is.

`portable` is the contract: every name with its docstring, and with what it does where nothing
better is known. `posix` has what Linux, macOS and the BSDs have in common, and `linux`, `bsd` and
`windows` what each has of its own. The last import of a name below is the one that holds.
`terminal`, which only `trio_upper.terminal` and what draws there need, is apart, and made in the
same way.
"""

import sys

from trio_upper.platform.portable import (
    CAN_WAIT,
    DONT_WAIT,
    EDGES,
    HAS_WORKERS,
    HUNG_UP,
    OUTPUT_CLOSED,
    PIPE_ATOMIC_BYTES,
    READABLE,
    REPORT_SIGNAL,
    STOP_SIGNALS,
    SUMMARY_SIGNAL,
    UNLIMITED,
    EdgePoller,
    available_memory,
    end_with,
    exclusive,
    is_open_for,
    is_terminal,
    keep_alive,
    keep_exit_codes,
    open_descriptors,
    open_edge_poller,
    passing,
    peer_address,
    quote_command,
    raise_descriptor_limit,
    read_descriptor,
    reopen,
    reuse_large_blocks,
    unacknowledged_bytes,
    unblock,
    usable_cores,
    widen_pipe,
    write_descriptor,
)

if sys.platform == "win32":
    from trio_upper.platform.windows import (
        STOP_SIGNALS,
        end_with,
        is_terminal,
        quote_command,
        read_descriptor,
        write_descriptor,
    )
else:
    from trio_upper.platform.posix import (
        CAN_WAIT,
        DONT_WAIT,
        HAS_WORKERS,
        HUNG_UP,
        OUTPUT_CLOSED,
        PIPE_ATOMIC_BYTES,
        REPORT_SIGNAL,
        STOP_SIGNALS,
        SUMMARY_SIGNAL,
        end_with,
        exclusive,
        is_open_for,
        keep_exit_codes,
        open_descriptors,
        passing,
        raise_descriptor_limit,
        unblock,
    )

    if sys.platform == "linux":
        from trio_upper.platform.linux import (
            EDGES,
            READABLE,
            available_memory,
            open_edge_poller,
            peer_address,
            reopen,
            unacknowledged_bytes,
            usable_cores,
            widen_pipe,
        )
    else:
        from trio_upper.platform.bsd import reopen, unacknowledged_bytes

__all__ = [
    "CAN_WAIT",
    "DONT_WAIT",
    "EDGES",
    "HAS_WORKERS",
    "HUNG_UP",
    "OUTPUT_CLOSED",
    "PIPE_ATOMIC_BYTES",
    "READABLE",
    "REPORT_SIGNAL",
    "STOP_SIGNALS",
    "SUMMARY_SIGNAL",
    "UNLIMITED",
    "EdgePoller",
    "available_memory",
    "end_with",
    "exclusive",
    "is_open_for",
    "is_terminal",
    "keep_alive",
    "keep_exit_codes",
    "open_descriptors",
    "open_edge_poller",
    "passing",
    "peer_address",
    "quote_command",
    "raise_descriptor_limit",
    "read_descriptor",
    "reopen",
    "reuse_large_blocks",
    "unacknowledged_bytes",
    "unblock",
    "usable_cores",
    "widen_pipe",
    "write_descriptor",
]
