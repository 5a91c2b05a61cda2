"""Compares our server with the peers: ``python -m benchmarks.compare``, from the project's folder.

Linux, loopback only. ``--quick`` tries everything, small, in a minute or two; without options it
takes under 25 minutes, and wants a machine that does nothing else.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.load import make_generator
from benchmarks.machine import describe
from benchmarks.page import page
from benchmarks.processes import choose_cores, pinned, raise_descriptor_limit
from benchmarks.scenarios import SCENARIOS, Bench, Settings, run_all
from benchmarks.servers import Server, all_servers
from benchmarks.targets import all_targets

# Bounds of the options: whatever is asked for, it ends.
FULL = Settings(
    rounds=5,
    seconds=0.8,
    connections=(1, 10, 100, 1000, 5000),
    busy=(300, 1000),
    idle=(10_000,),
    pipe_megabytes=1000,
)

QUICK = Settings(
    rounds=1, seconds=0.1, connections=(1, 100), busy=(30,), idle=(1000,), pipe_megabytes=20
)

ENDING = (signal.SIGINT, signal.SIGTERM)

MOST_ROUNDS = 100
MOST_SECONDS = 60.0
MOST_CONNECTIONS = 20000
MOST_MEGABYTES = 100_000


def between(lowest: int, highest: int) -> Callable[[str], int]:
    """A whole number for argparse."""

    def whole_number(text: str) -> int:
        if not lowest <= (value := int(text)) <= highest:
            raise argparse.ArgumentTypeError(f"{text} is not between {lowest} and {highest}")
        return value

    return whole_number


def duration(text: str) -> float:
    if not 0 < (value := float(text)) <= MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most {MOST_SECONDS:.0f}")
    return value


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description="Compare trio-upper with naive peers."
    )
    clients = between(1, MOST_CONNECTIONS)
    add = parser.add_argument
    add("--quick", action="store_true", help="everything, small: a minute or two")
    add("--rounds", type=between(1, MOST_ROUNDS), help="of which medians are taken")
    add("--seconds", type=duration, help="of load for each server in each round")
    add("--connections", type=clients, nargs="+", help="for the small messages")
    add("--busy", type=clients, nargs="+", help="clients beside which newcomers connect")
    add("--idle", type=clients, nargs="+", help="clients that say nothing")
    add("--pipe-megabytes", type=between(1, MOST_MEGABYTES), help="the size of the client's file")
    add("--scenario", dest="scenarios", nargs="+", choices=SCENARIOS, help="only these")
    add("--server", dest="servers", nargs="+", metavar="NAME", help="only these")
    add("--output", type=Path, help="also write the page to this file")
    return parser


def settings_of(options: argparse.Namespace) -> Settings:
    """What was given, over the defaults."""
    defaults = QUICK if options.quick else FULL
    given = {name: getattr(options, name) or getattr(defaults, name) for name in Settings.__slots__}
    return Settings(**given)


def choose(servers: Sequence[Server], names: Sequence[str] | None) -> list[Server]:
    """Raises ValueError at a name that there is not."""
    known = [server.name for server in servers]
    for name in names or ():
        if name not in known:
            raise ValueError(f"there is no server {name!r}; there are {', '.join(known)}")
    return [server for server in servers if names is None or server.name in names]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def exit_on_signal(number: int, _: object) -> None:
    """End the children on the way out, which a second signal must not stop."""
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def about(bench: Bench) -> list[str]:
    settings = bench.settings
    where = (
        "The server is pinned to one core, the load generator to the others."
        if bench.server_cores
        else "Nothing is pinned: there is only one core."
    )
    method = [
        where,
        f"Medians of interleaved rounds of {settings.seconds:g} s; rounds: {settings.rounds}.",
        f"The load generator is written {bench.generator.description}; every byte is compared.",
        "CPU is the server's own, user and system; MB are 10^6 bytes, KiB and MiB 2^10 and 2^20.",
    ]
    return [f"Measured on {describe()}", " ".join(method)]


def compare(options: argparse.Namespace, folder: Path) -> str:
    """Measure, and return the page."""
    server_cores, load_cores = choose_cores()
    chosen = choose(all_servers(folder), options.servers)
    bench = Bench(
        servers=[server for server in chosen if not server.missing],
        generator=make_generator(folder, load_cores),
        server_cores=server_cores,
        load_cores=load_cores,
        folder=folder,
        settings=settings_of(options),
        say=say,
    )
    skipped = {server.name: server.missing for server in chosen if server.missing}
    for name, why in skipped.items():
        say(f"{name}: skipped, {why}")
    with pinned(load_cores):
        results = run_all(bench)
    return page(results, all_targets(results), about(bench), skipped)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser()
    options = parser.parse_args(arguments)
    if sys.platform != "linux":
        parser.error("this needs Linux: /proc, and processes pinned to cores")
    raise_descriptor_limit()
    with tempfile.TemporaryDirectory() as folder:
        try:
            text = compare(options, Path(folder))
        except ValueError as error:
            parser.error(str(error))
    if options.output is not None:
        options.output.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    for ending in ENDING:
        signal.signal(ending, exit_on_signal)
    main()
