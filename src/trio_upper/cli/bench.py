"""``bench``: load from many clients, and the report; after Ctrl-C, of what was measured so far."""

import json
import sys
from dataclasses import dataclass, field
from functools import partial

import trio

from trio_upper.cli.output import patience
from trio_upper.cli.progress import bar, open_status
from trio_upper.cli.reasons import Reasons
from trio_upper.cli.run import Ending, run_command
from trio_upper.cli.signals import until_signal
from trio_upper.client.connect import Retries, open_connection
from trio_upper.client.settings import ConnectSettings
from trio_upper.client.target import Target
from trio_upper.measure.histogram import draw, in_milliseconds
from trio_upper.measure.load import Load
from trio_upper.measure.settings import LoadSettings
from trio_upper.platform import HUNG_UP, available_memory, raise_descriptor_limit
from trio_upper.stdio.streams import open_output

MEGABYTE = 1_000_000
GIGABYTE = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(LoadSettings):
    """The options of ``bench``; times in seconds, 0 means no limit."""

    connection: ConnectSettings = field(default_factory=ConnectSettings)
    as_json: bool = False

    def __post_init__(self) -> None:
        LoadSettings.__post_init__(self)
        if self.memory_bytes > (available := available_memory()):
            bounded = min(self.memory_bytes, sys.maxsize)  # the largest numbers fit in no float
            raise ValueError(
                f"the clients and their messages would take {bounded / GIGABYTE:,.1f} GB "
                f"of memory, and {available / GIGABYTE:,.1f} GB are available; "
                "lower --clients, --pipeline or --size"
            )


def run(target: Target, options: Options) -> int:
    """Run the load and report; return the exit code.

    That is 0 if no client failed and at least one message was answered, else 1.
    """
    raise_descriptor_limit()  # each client is one, and the usual limit is 1024
    return run_command(partial(_run, target, options))


async def _run(target: Target, options: Options) -> Ending:
    async def connect(retries: Retries) -> trio.abc.Stream:
        return (await open_connection(target, options.connection, retries)).stream

    load = Load(connect, options, wait=options.connection.wait)
    received = await until_signal(partial(_run_shown, load))
    if received == HUNG_UP:
        return received
    second: Ending | None = None  # ends it, even while the output waits for a reader
    with trio.move_on_after(patience(received)):
        second = await until_signal(partial(_report, target, load, options.as_json))
    all_right = load.latency.count and not load.failures
    return second or (0 if all_right else 1)


async def _run_shown(load: Load) -> None:
    """Run the load, with its progress on standard error if that is a terminal."""
    with open_status() as status:
        async with trio.open_nursery() as nursery:
            if status is not None:
                nursery.start_soon(status.show, partial(_describe, load))
            await load.run()
            nursery.cancel_scope.cancel()


def _describe(load: Load) -> str:
    settings = load.settings
    if load.started:
        return f"{bar(load.seconds / settings.seconds)}  {load.rate:,.0f} messages/s"
    return f"{bar(load.ready / settings.clients)}  connecting"


async def _report(target: Target, load: Load, as_json: bool) -> None:
    reasons = Reasons(load.settings.reply_timeout)
    for failed in load.failures:
        reasons.add(failed)
    text = _json(target, load, reasons) if as_json else "\n".join(_lines(target, load, reasons))
    async with open_output() as output:
        await output.send_all(f"{text}\n".encode())


def _times(load: Load) -> dict[str, float]:
    latency = load.latency
    percentiles = {f"p{percent:g}": latency.percentile(percent) for percent in (50, 90, 99, 99.9)}
    return {"min": latency.min, **percentiles, "max": latency.max}


def _lines(target: Target, load: Load, reasons: Reasons) -> list[str]:
    settings = load.settings
    failed = len(load.failures)
    return [
        (
            f"{target.host} port {target.port}: {settings.clients:,} clients, "
            f"{settings.pipeline:,} in flight each, {settings.size:,} bytes a message"
        ),
        (
            f"messages    {load.latency.count:,} answered in {load.seconds:.2f} s, "
            f"{load.wrong:,} wrong; {failed:,} clients failed"
        ),
        *_measured(load),
        *reasons.lines(),
    ]


def _measured(load: Load) -> list[str]:
    if not load.latency.count:
        return [f"nothing was measured: {_why_nothing(load)}"]
    times = "   ".join(f"{name} {time * 1e3:.3f}" for name, time in _times(load).items())
    return [
        (
            f"throughput  {load.rate:,.0f} messages/s   {_megabytes(load):,.3f} MB/s   "
            f"{_megabytes(load) * 8:,.3f} Mbit/s"
        ),
        f"latency     {times} ms",
        "",
        *draw(load.latency),
        "",
    ]


def _why_nothing(load: Load) -> str:
    settings = load.settings
    if len(load.failures) == settings.clients:
        return "every client failed"
    if not load.started:
        return f"it ended while only {load.ready:,} of {settings.clients:,} clients were ready"
    return f"no reply came within {load.seconds:g} s; --seconds may be too short"


def _megabytes(load: Load) -> float:
    """Return the throughput of replies in MB/s; that of messages is the same."""
    return load.rate * load.settings.size / MEGABYTE


def _json(target: Target, load: Load, reasons: Reasons) -> str:
    settings = load.settings
    return json.dumps(
        {
            "host": target.host,
            "port": target.port,
            "clients": settings.clients,
            "pipeline": settings.pipeline,
            "size_bytes": settings.size,
            "seconds": round(load.seconds, 3),
            "messages": load.latency.count,
            "wrong": load.wrong,
            "failed_clients": len(load.failures),
            "messages_per_s": round(load.rate, 1),
            "megabytes_per_s": round(_megabytes(load), 3),
            "megabits_per_s": round(_megabytes(load) * 8, 3),
            **in_milliseconds(_times(load)),
            "reasons": reasons.counts,
        }
    )
