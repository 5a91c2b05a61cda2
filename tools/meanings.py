"""What the reference says that the code does not: events of the log, fields of JSON, exit codes.

`tools.reference` checks that nothing is missing here, and nothing is left over.
"""

# Each event of the log: its fields in their order, and when it is logged.
EVENTS: dict[str, tuple[list[str], str]] = {
    "listening": (
        ["address", "port"],
        "once for each address, as soon as it accepts; not as text at a terminal",
    ),
    "listeners are for another process": (
        ["listen_pid", "pid"],
        "`LISTEN_FDS` is set, but `LISTEN_PID` is not this process; start it without a shell",
    ),
    "certificate": (
        ["fingerprint"],
        "TLS; what a client can trust the server by; logged where `listening` is",
    ),
    "certificate is not in order": (
        ["why"],
        "it expired, expires within 14 days, or is not valid yet",
    ),
    "client connected": (["client", "peer"], "`client` is its number in this process"),
    "client gone": (
        ["client", "peer", "received", "sent", "seconds", "end"],
        (
            "bytes each way, how long it was connected, and why it ended: `eof` (it closed), "
            "`idle`, `stalled` (it took nothing of its reply), `reset`, `tls`, `shutdown`, `error`"
        ),
    ),
    "client refused": (["peer", "end"], "`--max-clients` are connected; `end` is `full`"),
    "client left before it read the refusal": (["peer", "why"], "a refused client hung up"),
    "handshake failed": (["client", "peer", "reason"], "TLS; the client was not served"),
    "client failed": (
        ["client", "peer"],
        "a bug, with its traceback; it ends this client alone",
    ),
    "no room for client": (
        ["client", "peer", "why"],
        "the system cannot watch one more socket; it ends this client alone",
    ),
    "cannot accept": (["why"], "out of descriptors or memory; once, until it is better"),
    "client limit lowered": (
        ["max_clients", "asked", "descriptors"],
        "the limit of open files does not allow `--max-clients`",
    ),
    "stopping": (["signal"], "the drain begins"),
    "stopping at once": (["signal"], "a second signal: clients are cut"),
    "stopped": (
        ["served", "refused", "cut", "bytes_in", "bytes_out"],
        "the last line; clients and bytes in all (a parent of workers: no fields)",
    ),
    "totals": (["served", "refused", "cut", "bytes_in", "bytes_out"], "on SIGUSR1"),
    "worker started": (["worker", "pid"], "`worker` is its number, also in its own lines"),
    "worker gone": (
        ["worker", "how", "again_in"],
        "a worker ended by itself; another starts after `again_in` seconds",
    ),
    "worker killed": (["worker", "why"], "a worker that did not start, or did not end, in time"),
    "crashed": ([], "a bug of the server itself, with its traceback; exit code 1"),
    "parent gone": ([], "a worker whose parent was killed; it drains"),
}

# Each field of the JSON that a command prints with --json, and what it means.
FIELDS: dict[str, dict[str, str]] = {
    "ping": {
        "host": "where to",
        "address": "the numeric address that it was connected to last; null if to none",
        "port": "where to",
        "size_bytes": "bytes of a message, with its newline",
        "sent": "round trips, also those that no connection could be made for",
        "answered": "right replies",
        "wrong": "wrong replies",
        "unanswered": "messages without a reply, and those that no connection could be made for",
        "min_ms": "milliseconds; null if nothing was answered, as for all times",
        "median_ms": "nearest rank, to 0.05 %, as for all percentiles",
        "mean_ms": "milliseconds",
        "p99_ms": "nearest rank",
        "max_ms": "milliseconds",
        "jitter_ms": (
            "the mean difference from one right reply's time to the next; null with fewer than two"
        ),
        "outages": "times of 2 s or more without a reply that was due",
        "longest_outage_s": "seconds",
        "total_outage_s": "seconds",
        "reasons": "what went wrong, in words, and how often",
    },
    "bench": {
        "host": "where to",
        "port": "where to",
        "clients": "connections",
        "pipeline": "messages in flight on each",
        "size_bytes": "bytes of a message, with its newline",
        "seconds": "time measured",
        "messages": "right replies in that time",
        "wrong": "clients that got a wrong reply",
        "failed_clients": "clients that stopped early",
        "messages_per_s": "right replies each second",
        "megabytes_per_s": "10^6 bytes of replies each second; as much goes the other way",
        "megabits_per_s": "the same in 10^6 bits",
        "min_ms": "milliseconds; null if nothing was answered, as for all times",
        "p50_ms": "nearest rank, to 0.05 %, as for all percentiles",
        "p90_ms": "",
        "p99_ms": "",
        "p99_9_ms": "",
        "max_ms": "milliseconds",
        "reasons": "what went wrong, in words, and how often",
    },
    "check": {
        "host": "where to",
        "port": "where to",
        "name": (
            "`status` (`ok`, `warning`, `failed` or `skipped`) and `text`, as every field from "
            "here on, and more where it was seen: `addresses`, `lookup_ms`"
        ),
        "connect": "`addresses`: of each its `address`, and `connect_ms` or `error`, else null",
        "server": "these two alone",
        "round_trip": "`count`, `min_ms`, `median_ms`, `max_ms`",
        "sizes": "`largest_right_bytes`; `failed_at_bytes`, null if all were right",
        "half_close": "these two alone",
        "bulk": "`seconds`, `megabytes_per_s`, `megabits_per_s`, each way",
        "tls": "`version`, `handshake_ms`",
        "verdict": "these two alone; the answer to it all",
    },
}

# Each field of the object that ``ping --jsonl`` prints for a round trip.
ROUND_TRIP = {
    "type": "`round_trip`; the last line is a `summary` with the fields of `ping --json`",
    "time": "the local time, in the format of ISO 8601",
    "sequence": "its number, from 1",
    "outcome": "`answered`, `wrong` or `not answered`",
    "reply_ms": "milliseconds; null if it was not answered",
    "reason": "what went wrong, in words; null if nothing did",
}

# Each exit code: what it means for `serve`, and for the commands that connect.
EXIT_CODES: dict[str, tuple[str, str]] = {
    "0": ("stopped, and no client was cut", "every reply came and was right"),
    "1": ("clients had to be cut, or it could not start", "anything else"),
    "2": ("usage error", "usage error"),
    "129, 130, 131, 141, 143": (
        "131 by SIGQUIT; the others before its first line",
        (
            "ended by the signal itself: SIGHUP, SIGINT, SIGQUIT, SIGPIPE (as filters end: "
            r"`\| head -1`), SIGTERM. `ping` and `bench` sum up at SIGINT and SIGTERM, and end "
            "with 0 or 1; `ping` also sums up at SIGQUIT, and goes on. On Windows Ctrl-C ends with "
            "STATUS_CONTROL_C_EXIT"
        ),
    ),
}
