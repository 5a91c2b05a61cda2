"""What a gate is, at what size it runs, and how: within a time limit, to one row of a table."""

import enum
import textwrap
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass

import trio

# Of what was seen: a few lines in the table. The whole is said beside it.
SHOWN_CHARACTERS = 400


# Ctrl-C at a terminal goes to all that was started, too. So what fails has no row before a signal
# to this process would have come, in seconds.
SIGNAL_SECONDS = 0.1


class Verdict(enum.StrEnum):
    """The result of a gate."""

    KEPT = "kept"
    BROKEN = "broken"
    SKIPPED = "skipped"


class Broken(Exception):
    """A promise is broken; the text says how."""


class Skipped(Exception):
    """A gate cannot be run here; the text names what is missing."""


def expect(holds: object, otherwise: str) -> None:
    """Raise `Broken` with the text `otherwise` unless `holds`."""
    if not holds:
        raise Broken(otherwise)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is done; every figure bounds the time that a gate takes. Times are in seconds."""

    clients: int
    """Connected at once."""
    frozen: int
    """Connected while the server stands still."""
    newcomers: int
    """In the queue of a server that is told to stop."""
    busy: int
    """Beside them, talking all the time."""
    stops: int
    """Of a server that has a queue."""
    repeats: int
    """Of what may go wrong once in a hundred times."""
    connects: int
    """Rude ones, one after the other or some at a time."""
    never_readers: int
    drippers: int
    write_timeout: float
    """That never-readers meet; drippers go on for longer than that."""
    measure: float
    """For each percentile of a neighbour's round trips, and each look at an idle processor."""
    megabytes: int
    """Of the endless message; 10**6 bytes each."""
    wanting: int
    """Clients that want in where there are few descriptors."""
    talkers: int
    """Under way when the server is told to stop, a worker dies or a server is restarted."""
    talk: float
    """How long they talk before that, and at most after it."""
    examples: int
    """Of broken text in pieces."""
    seconds: float
    """Of the soak."""
    souls: int
    """Clients at any time of the soak."""
    keys: float
    """Of random keys at the prompt."""
    seed: int
    """Of the random keys."""
    rounds: int
    """How often each case at a terminal is tried."""
    cut: float
    """The time-outs that a cut cable meets."""


FULL = Sizes(
    clients=10_000,
    frozen=2000,
    newcomers=300,
    busy=1000,
    stops=10,
    repeats=200,
    connects=100_000,
    never_readers=100,
    drippers=100,
    write_timeout=10.0,
    measure=2.0,
    megabytes=10_000,
    wanting=300,
    talkers=100,
    talk=5.0,
    examples=20_000,
    seconds=60.0,
    souls=50,
    keys=120.0,
    seed=17,
    rounds=5,
    cut=5.0,
)

SMALL = Sizes(
    clients=100,
    frozen=100,
    newcomers=30,
    busy=20,
    stops=1,
    repeats=20,
    connects=300,
    never_readers=5,
    drippers=5,
    write_timeout=1.0,
    measure=0.2,
    megabytes=100,
    wanting=80,
    talkers=10,
    talk=0.4,
    examples=150,
    seconds=3.0,
    souls=5,
    keys=4.0,
    seed=17,
    rounds=1,
    cut=0.6,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A promise, and the test of whether it is kept.

    `run` returns what it saw, or raises `Broken` or `Skipped`; whatever else it raises is a broken
    promise, too. `doing` says what is done, with the names of `Sizes` in braces. `limit` is how
    long it may take at most, in seconds: several times what it takes on a slow and busy machine.
    """

    number: int
    promise: str
    doing: str
    run: Callable[[Sizes], Awaitable[str]]
    limit: Callable[[Sizes], float]

    def done(self, sizes: Sizes) -> str:
        """Return what is done at these sizes."""
        return self.doing.format(**asdict(sizes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The result of one gate: `seen` for the table, `error` if something unforeseen went wrong."""

    gate: Gate
    verdict: Verdict
    seen: str
    seconds: float
    error: Exception | None = None


async def attempt(gate: Gate, sizes: Sizes) -> Row:
    """Run a gate for no longer than its limit.

    Error handling: only what is no `Exception` escapes, such as a cancellation from outside.
    """
    began, limit = trio.current_time(), gate.limit(sizes)
    verdict, error = Verdict.KEPT, None
    try:
        with trio.move_on_after(limit) as scope:
            seen = await gate.run(sizes)
        if scope.cancelled_caught:
            verdict, seen = Verdict.BROKEN, f"it did not end within {limit:.0f} s"
    except* Exception as failures:  # anything else, such as a cancellation, goes on
        verdict, seen, error = judge(failures)
        await trio.sleep(SIGNAL_SECONDS)
    seconds = trio.current_time() - began
    return Row(gate=gate, verdict=verdict, seen=seen, seconds=seconds, error=error)


def judge(failure: Exception) -> tuple[Verdict, str, Exception | None]:
    """Return the verdict, what to show, and the failure itself if it was unforeseen.

    Of several things that went wrong at once, what a gate has words for comes first: the others
    mostly follow from it.
    """
    known = sorted(leaves(failure), key=lambda leaf: not isinstance(leaf, Broken | Skipped))
    first = known[0]
    if isinstance(first, Skipped):
        return Verdict.SKIPPED, str(first), None
    if isinstance(first, Broken):
        return Verdict.BROKEN, str(first), None
    text = f"{type(first).__name__}: {first}"
    return Verdict.BROKEN, textwrap.shorten(text, SHOWN_CHARACTERS, placeholder=" …"), failure


def leaves(failure: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in `failure`, which may be a group."""
    if isinstance(failure, BaseExceptionGroup):
        for part in failure.exceptions:
            yield from leaves(part)
    else:
        yield failure
