"""``check``: one line for each question whether two machines can talk, and a verdict.

A line that fails says what that means, and on the next one what to do about it.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from trio_upper.cli.output import is_terminal
from trio_upper.cli.reasons import Reason, explain
from trio_upper.cli.run import Ending, run_command
from trio_upper.cli.signals import until_signal
from trio_upper.client.failures import CannotConnect
from trio_upper.client.settings import ConnectSettings
from trio_upper.client.target import Target
from trio_upper.measure.checks import (
    Answered,
    Checker,
    Connected,
    Finding,
    HalfClosed,
    Question,
    Reached,
    Resolved,
    Secured,
    Sized,
    Skipped,
    Status,
    Transferred,
)
from trio_upper.measure.exchange import Failed, Trouble
from trio_upper.measure.histogram import in_milliseconds
from trio_upper.measure.settings import CheckSettings
from trio_upper.stdio.streams import Output, open_output

Why = Callable[[Failed], Reason]

LABEL_COLUMNS = 12
VERDICT = "verdict"

MEGABYTE = 1_000_000
KIBIBYTE = 1024

# How terminals show a status (ECMA-48 section 8.3.117).
COLOURS = {Status.WARNING: "33", Status.FAILED: "31", Status.SKIPPED: "2", Status.OK: "32"}

# As much data fits into a packet of 576 bytes, the largest that each host must take, whatever its
# headers (RFC 791 section 3.1): no path loses smaller messages for their size.
SAFE_BYTES = 512

MTU_HINT = (
    "the path loses large packets: its MTU is smaller than this machine knows, and what would say "
    "so (ICMP) is dropped; let that through, or lower the MTU on one of the two machines, "
    "as with `ip link set dev eth0 mtu 1400`"
)
HALF_CLOSE_HINT = (
    "a proxy or port forwarder in between ends both ways when one ends; a client must not end its "
    "side before it has its replies (those of trio-upper wait for them)"
)
# Why a question makes no sense.
NOT_ASKED = {
    Question.HALF_CLOSE: "skipped: not over TLS",
    Question.BULK: "skipped: --seconds is 0",
    Question.TLS: "not asked for",
}

FOREIGN_HINT = "is it the right port? any server that upper-cases will do"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(CheckSettings):
    """The options of ``check``; times in seconds, 0 means no limit."""

    connection: ConnectSettings = field(default_factory=ConnectSettings)
    as_json: bool = False


def run(target: Target, options: Options) -> int:
    """Check; return the exit code.

    That is 0 if the machines can talk and every reply came and was right, else 1.
    """
    return run_command(partial(until_signal, _Check(target, options).run))


class _Check:
    def __init__(self, target: Target, options: Options) -> None:
        self._target = target
        self._options = options
        self._checker = Checker(target, options, options.connection)

    async def run(self) -> Ending:
        async with open_output() as output:
            await self._checker.run(partial(self._show, output))
            text, status = verdict(self._checker)
            if self._options.as_json:
                await output.send_all(f"{json.dumps(self._json(text, status))}\n".encode())
            else:
                await output.send_all(
                    f"{VERDICT:<{LABEL_COLUMNS}}{colour(text, status)}\n".encode()
                )
        return 0 if self._checker.right else 1

    async def _show(self, output: Output, event: Question | Finding) -> None:
        """Write the name of a question while it is being answered, then the answer."""
        if self._options.as_json:
            return
        if isinstance(event, Question):
            await output.send_all(f"{event.value:<{LABEL_COLUMNS}}".encode())
            return
        reason = self._describe(event)
        plain = event.status is Status.OK
        text = reason.words if plain else colour(reason.words, event.status)
        lines = [text, *([f"{'':<{LABEL_COLUMNS}}{reason.hint}"] if reason.hint else [])]
        await output.send_all(("\n".join(lines) + "\n").encode())

    def _describe(self, finding: Finding) -> Reason:
        return describe(finding, self._target.host, self._options.reply_timeout)

    def _json(self, text: str, status: Status) -> dict[str, object]:
        lines = {
            question.value.replace(" ", "_").replace("-", "_"): {
                "status": found.status.value,
                "text": str(self._describe(found)),
                **values(found),
            }
            for question, found in self._checker.findings.items()
        }
        return {
            "host": self._target.host,
            "port": self._target.port,
            **lines,
            VERDICT: {"status": status.value, "text": text},
        }


def colour(text: str, status: Status) -> str:
    """Return `text` in the colour of `status`, if standard output can show it."""
    dumb = os.environ.get("TERM", "dumb") == "dumb"
    if dumb or os.environ.get("NO_COLOR") or not is_terminal(sys.stdout):
        return text
    return f"\x1b[{COLOURS[status]}m{text}\x1b[0m"


# ---------------------------------------------------------------------- the words


def describe(finding: Finding, host: str, reply_timeout: float) -> Reason:
    """Return a finding in words, with what to do about it if something is wrong."""
    why: Why = partial(explain, reply_timeout=reply_timeout)
    match finding:
        case Resolved():
            return _name(finding, host)
        case Connected():
            return Reason("; ".join(map(_reached, finding.reached)), _hint(finding.error))
        case Answered(question=Question.SERVER):
            return _server(finding, why)
        case Answered():
            return _round_trips(finding, why)
        case Sized():
            return _sizes(finding, why)
        case HalfClosed():
            return _half_close(finding, why)
        case Transferred():
            return _bulk(finding, why)
        case Secured():
            return _tls(finding, why)
    return _skipped(finding)


def _skipped(found: Finding) -> Reason:
    if isinstance(found, Skipped) and found.needs is not None:
        return Reason(f"skipped: needs {found.needs.value}")
    return Reason(NOT_ASKED[found.question])


def _hint(error: CannotConnect | None) -> str:
    return error.hint if error else ""


def _name(found: Resolved, host: str) -> Reason:
    if found.error is not None:
        return Reason(f"{host}: {found.error.words}", found.error.hint)
    if found.addresses == (host,):
        return Reason(f"{host} is an address")
    return Reason(f"{host} is {_listed(found.addresses)} ({found.seconds * 1e3:.1f} ms)")


def _listed(words: tuple[str, ...]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _reached(one: Reached) -> str:
    return str(one.attempt) if one.attempt else f"{one.address} in {one.seconds * 1e3:.1f} ms"


def _server(found: Answered, why: Why) -> Reason:
    match found.failed:
        case None:
            return Reason("trio-upper, or another one that upper-cases")
        case Failed(trouble=Trouble.WRONG) as failed:
            return Reason(f"not one that upper-cases: {why(failed)}", FOREIGN_HINT)
        case failed:
            return why(failed)


def _round_trips(found: Answered, why: Why) -> Reason:
    times = found.latency
    if found.failed is not None:
        return Reason(f"{times.count:,} were right, then: {why(found.failed)}")
    median, least, most = (t * 1e3 for t in (times.percentile(50), times.min, times.max))
    return Reason(f"{median:.2f} ms median of {times.count} ({least:.2f} to {most:.2f})")


def _sizes(found: Sized, why: Why) -> Reason:
    right = f"right from 1 byte to {_size(found.largest)}"
    if found.failed is None:
        return Reason(right)
    if _loses_large(found):
        return Reason(f"{right}; from {_size(found.failed_at)} on nothing comes back", MTU_HINT)
    failed = f"at {_size(found.failed_at)}: {why(found.failed)}"
    return Reason(f"{right}; {failed}" if found.largest else failed)


def _loses_large(found: Sized) -> bool:
    """Tell whether messages are lost that may be lost for their size."""
    silent = found.failed is not None and found.failed.trouble is Trouble.SILENT
    return silent and found.failed_at > SAFE_BYTES


def _size(size: int) -> str:
    if size % KIBIBYTE == 0 and size:
        return f"{size // KIBIBYTE} KiB"
    return f"{size:,} bytes" if size != 1 else "1 byte"


def _half_close(found: HalfClosed, why: Why) -> Reason:
    match found.failed:
        case None:
            return Reason("passes")
        case Failed(trouble=Trouble.CLOSED | Trouble.BROKEN):
            return Reason("does not pass: the connection ended with it", HALF_CLOSE_HINT)
        case failed:
            return Reason(f"does not pass: {why(failed)}", HALF_CLOSE_HINT)


def _bulk(found: Transferred, why: Why) -> Reason:
    if found.failed is not None:
        return Reason(f"after {found.received / MEGABYTE:,.1f} MB: {why(found.failed)}")
    megabytes, megabits = (_three_digits(_rate(found) * bits) for bits in (1, 8))
    return Reason(f"{megabytes} MB/s ({megabits} Mbit/s) there and back, {found.seconds:.1f} s")


def _three_digits(value: float) -> str:
    decimals = next((places for places, least in enumerate((100, 10, 1)) if value >= least), 3)
    return f"{value:,.{decimals}f}"


def _tls(found: Secured, why: Why) -> Reason:
    if found.failed is not None:
        error = found.failed.error
        if isinstance(error, CannotConnect):
            return Reason(error.words, error.hint)
        return why(found.failed)
    return Reason(f"{found.version}, handshake in {found.seconds * 1e3:.1f} ms")


def _rate(found: Transferred) -> float:
    """Return the rate in MB/s; as much goes each way."""
    return found.received / MEGABYTE / found.seconds if found.seconds else 0.0


# ---------------------------------------------------------------------- the verdict


def verdict(checker: Checker) -> tuple[str, Status]:
    """Return the answer to it all, and its status."""
    findings = checker.findings
    if failed := next((one for one in findings.values() if one.status is Status.FAILED), None):
        return _why_not(failed), Status.FAILED
    problems = list(_problems(findings))
    talk = f"these two machines can talk over {_families(findings, reached=True)}"
    return "; ".join([talk, *problems]), Status.WARNING if problems else Status.OK


def _why_not(failed: Finding) -> str:
    match failed:
        case Resolved(error=CannotConnect() as error) | Connected(error=CannotConnect() as error):
            return f"these two machines cannot talk: {error.words}"
        case Answered(question=Question.SERVER):
            return "they can connect, but no server that upper-cases answers"
        case Secured():
            return "they can connect, but TLS stands in the way"
        case Sized() if _loses_large(failed):
            return "these two machines can talk, but large messages are lost"
        case Transferred():
            return "these two machines can talk, but a bulk transfer fails"
    return "these two machines can talk, but not every reply comes and is right"


def _problems(findings: dict[Question, Finding]) -> Iterator[str]:
    if broken := _families(findings, reached=False):
        yield f"{broken} is broken" if " and " not in broken else f"{broken} are broken"
    elif findings[Question.CONNECT].status is Status.WARNING:
        yield "not every address can be reached"
    if findings[Question.HALF_CLOSE].status is Status.WARNING:
        yield "a half-close does not pass"


def _families(findings: dict[Question, Finding], *, reached: bool) -> str:
    """Return the families of which an address can be `reached`, or of which none can."""
    connected = findings[Question.CONNECT]
    found = connected.reached if isinstance(connected, Connected) else ()
    families = {_family(one.address): False for one in found}
    for one in found:
        families[_family(one.address)] |= one.attempt is None
    return " and ".join(sorted(name for name, good in families.items() if good is reached))


def _family(address: str) -> str:
    return "IPv6" if ":" in address else "IPv4"


# ---------------------------------------------------------------------- JSON


def values(found: Finding) -> dict[str, object]:
    """Return what was measured, as JSON has it."""
    match found:
        case Resolved():
            return {
                "addresses": list(found.addresses),
                **in_milliseconds({"lookup": found.seconds}),
            }
        case Connected():
            return {"addresses": [_reached_json(one) for one in found.reached]}
        case Answered(question=Question.ROUND_TRIP):
            times = found.latency
            measured = {"min": times.min, "median": times.percentile(50), "max": times.max}
            return {"count": times.count, **in_milliseconds(measured)}
        case Sized():
            return {
                "largest_right_bytes": found.largest,
                "failed_at_bytes": found.failed_at or None,
            }
        case Transferred():
            rate = _rate(found)
            return {
                "seconds": round(found.seconds, 3),
                "megabytes_per_s": round(rate, 3),
                "megabits_per_s": round(rate * 8, 3),
            }
        case Secured():
            return {"version": found.version, **in_milliseconds({"handshake": found.seconds})}
    return {}


def _reached_json(one: Reached) -> dict[str, object]:
    return {
        "address": one.address,
        **in_milliseconds({"connect": one.seconds}),
        "error": str(one.attempt) if one.attempt else None,
    }
