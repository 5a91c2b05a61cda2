"""``bench``: load from many clients, and the report; after Ctrl-C, of what there was until then."""

import json
import signal
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import trio

from trio_upper.cli.output import is_terminal, say, sole_error
from trio_upper.cli.ping import Reasons
from trio_upper.cli.signals import end_by, until_signal
from trio_upper.client.connect import open_connection
from trio_upper.client.settings import ConnectSettings
from trio_upper.client.target import Target
from trio_upper.measure.histogram import draw, in_milliseconds
from trio_upper.measure.load import Bench, Settings
from trio_upper.platform import raise_descriptor_limit
from trio_upper.stdio.streams import Output, OutputClosed, OutputError, open_output

if TYPE_CHECKING:
    from rich.progress import Progress

# How often the progress is drawn, in seconds: often enough to look alive, and at some 2 ms a time
# too seldom to be felt by the clients.
REFRESH = 0.25

MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(Settings):
    """The options of ``bench``; times in seconds, 0 means no limit."""

    connection: ConnectSettings = field(default_factory=ConnectSettings)
    as_json: bool = False


def run(target: Target, options: Options) -> int:
    """Run the load and report; return the exit code.

    That is 0 if no client failed and one message at least was answered, else 1.
    """
    code: int | signal.Signals = 1
    raise_descriptor_limit()  # each client is one, and the usual limit is 1024
    try:
        code = trio.run(_run, target, options)
    except* OutputClosed:
        code = signal.SIGPIPE
    except* OutputError as failed:
        say(str(sole_error(failed)))
    if isinstance(code, signal.Signals):
        end_by(code)
    return code


async def _run(target: Target, options: Options) -> int | signal.Signals:
    async def dial() -> trio.abc.Stream:
        return (await open_connection(target, options.connection)).stream

    bench = Bench(dial, options)
    received = await until_signal(partial(_run_shown, bench))
    if received is signal.SIGHUP:  # the terminal has gone, nobody is left to read
        return received
    async with open_output() as output:
        # A second signal ends it even where nobody reads.
        received = await until_signal(partial(_report, output, target, bench, options.as_json))
    all_right = bench.latency.count and not bench.failures
    return received or (0 if all_right else 1)


async def _run_shown(bench: Bench) -> None:
    """Run the load, with its progress on standard error if that is a terminal."""
    with _open_progress() if is_terminal(sys.stderr) else nullcontext() as progress:
        async with trio.open_nursery() as nursery:
            if progress is not None:
                nursery.start_soon(_show_progress, bench, progress)
            await bench.run()
            nursery.cancel_scope.cancel()


def _open_progress() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        console=Console(stderr=True),
        auto_refresh=False,  # it would be a thread, and the clients want the interpreter's lock
        transient=True,
    )


async def _show_progress(bench: Bench, progress: "Progress") -> None:
    load = bench.settings
    task = progress.add_task("")
    while True:
        text, done, total = "connecting", float(bench.joined), float(load.clients)
        if bench.started:
            text, done, total = f"{bench.rate:,.0f} messages/s", bench.seconds, load.seconds
        progress.update(task, description=text, completed=done, total=total, refresh=True)
        await trio.sleep(REFRESH)


async def _report(output: Output, target: Target, bench: Bench, as_json: bool) -> None:
    reasons = Reasons(bench.settings.reply_timeout)
    for failed in bench.failures:
        reasons.add(failed)
    text = _json(target, bench, reasons) if as_json else "\n".join(_lines(target, bench, reasons))
    await output.send_all(f"{text}\n".encode())


def _times(bench: Bench) -> dict[str, float]:
    latency = bench.latency
    percentiles = {f"p{percent:g}": latency.percentile(percent) for percent in (50, 90, 99, 99.9)}
    return {"min": latency.min, **percentiles, "max": latency.max}


def _lines(target: Target, bench: Bench, reasons: Reasons) -> list[str]:
    load = bench.settings
    failed = len(bench.failures)
    return [
        (
            f"{target.host} port {target.port}: {load.clients:,} clients, "
            f"{load.pipeline:,} in flight each, {load.size:,} bytes a message"
        ),
        (
            f"messages    {bench.latency.count:,} answered in {bench.seconds:.2f} s, "
            f"{bench.wrong:,} wrong; {failed:,} clients failed"
        ),
        *_measured(bench),
        *reasons.lines(),
    ]


def _measured(bench: Bench) -> list[str]:
    if not bench.latency.count:
        return ["nothing was measured"]
    times = "   ".join(f"{name} {time * 1e3:.3f}" for name, time in _times(bench).items())
    return [
        f"throughput  {bench.rate:,.0f} messages/s   {_megabytes(bench):,.3f} MB/s",
        f"latency     {times} ms",
        "",
        *draw(bench.latency),
        "",
    ]


def _megabytes(bench: Bench) -> float:
    """Return the throughput of replies in MB/s; that of messages is the same."""
    return bench.rate * bench.settings.size / MEGABYTE


def _json(target: Target, bench: Bench, reasons: Reasons) -> str:
    load = bench.settings
    return json.dumps(
        {
            "host": target.host,
            "port": target.port,
            "clients": load.clients,
            "pipeline": load.pipeline,
            "size_bytes": load.size,
            "seconds": round(bench.seconds, 3),
            "messages": bench.latency.count,
            "wrong": bench.wrong,
            "failed_clients": len(bench.failures),
            "messages_per_s": round(bench.rate, 1),
            "megabytes_per_s": round(_megabytes(bench), 3),
            **in_milliseconds(_times(bench)),
            "reasons": reasons.counts,
        }
    )
