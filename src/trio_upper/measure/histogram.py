"""Times in a histogram of fixed precision, and what is drawn and said of them; no I/O, no Trio.

A list of all the times would be exact and would grow with the run. Here a time is counted in one of
a fixed number of buckets, each at most 1/1024 as wide as the times in it, so whatever is read from
a bucket's middle is right to three digits. It is the idea of http://hdrhistogram.org.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

# Each power of two is cut into 2**10 buckets: three digits, for 430 KiB that do not grow.
FINE_BITS = 10

# The longest time that there is a bucket for, in bits of nanoseconds: 584 years.
LONGEST_BITS = 64

NANOSECONDS = 1e9
"""In a second."""

MILLISECOND = 1e6
"""In nanoseconds."""

# What rows of a drawing begin at, times a power of ten: the preferred numbers of IEC 60063, of
# which each is about the same multiple of the one before it. The finest that fits is taken.
SERIES = (
    (10, 12, 15, 18, 22, 27, 33, 39, 47, 56, 68, 82),
    (10, 15, 22, 33, 47, 68),
    (10, 22, 47),
    (10,),
)
MOST_ROWS = 20  # with what stands above them, they fit on a screen of 24 lines
BAR_COLUMNS = 40  # with labels and counts, a row fits into 80 columns


class Histogram:
    """How many times there were of each length. Its memory does not grow with what is recorded."""

    __slots__ = ("_counts", "_longest", "_shortest", "_total", "count")

    def __init__(self) -> None:
        self._counts = [0] * ((LONGEST_BITS - FINE_BITS + 1) << FINE_BITS)
        self._shortest = math.inf
        self._longest = 0.0
        self._total = 0.0
        #: How many times have been recorded.
        self.count = 0

    def record(self, seconds: float) -> None:
        """Count one time; it is not negative."""
        nanoseconds = int(seconds * NANOSECONDS)
        # The leading 11 bits of a time choose its bucket, and so does how many there are below.
        below = max(nanoseconds.bit_length() - FINE_BITS - 1, 0)
        self._counts[(below << FINE_BITS) + (nanoseconds >> below)] += 1
        self.count += 1
        self._total += seconds
        if seconds < self._shortest:
            self._shortest = seconds
        if seconds > self._longest:
            self._longest = seconds

    @property
    def min(self) -> float:
        """The shortest time in seconds, exactly; NaN of none."""
        return self._shortest if self.count else math.nan

    @property
    def max(self) -> float:
        """The longest time in seconds, exactly; NaN of none."""
        return self._longest if self.count else math.nan

    @property
    def mean(self) -> float:
        """The arithmetic mean in seconds, exactly; NaN of none."""
        return self._total / self.count if self.count else math.nan

    def percentile(self, percent: float) -> float:
        """Return the shortest time, in seconds, that `percent` of all times do not exceed.

        The nearest rank, that is; `percent` is above 0, and at most 100. NaN of none.
        """
        rank = math.ceil(self.count * percent / 100)
        for seconds, count in self.buckets():
            rank -= count
            if rank <= 0:
                return seconds
        return math.nan

    def buckets(self) -> Iterator[tuple[float, int]]:
        """Yield what lies in each bucket that is not empty: seconds, ascending, and how often."""
        for index, count in enumerate(self._counts):
            if count:
                # A middle is not beyond what was recorded, and of one time all is exact.
                yield min(max(_middle(index), self._shortest), self._longest), count


def _middle(index: int) -> float:
    """Return the middle of a bucket in seconds."""
    below = max((index >> FINE_BITS) - 1, 0)
    begin = (index - (below << FINE_BITS)) << below
    return (begin + (1 << below) / 2) / NANOSECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a drawing: how many times were at least `begin` and below `end`, nanoseconds."""

    begin: int
    end: int
    count: int


def rows(histogram: Histogram) -> list[Row]:
    """Return the times in at most `MOST_ROWS` rows on a logarithmic scale; no row of none."""
    times = [(seconds * NANOSECONDS, count) for seconds, count in histogram.buckets()]
    if not times:
        return []
    all_edges = (_edges(series, times[0][0], times[-1][0]) for series in SERIES)
    edges = next(edges for edges in all_edges if len(edges) <= MOST_ROWS + 1)
    counts = [0] * (len(edges) - 1)
    for time, count in times:
        counts[bisect_right(edges, time) - 1] += count
    return [
        Row(begin=begin, end=end, count=count)
        for (begin, end), count in zip(pairwise(edges), counts, strict=True)
    ]


def _edges(series: tuple[int, ...], shortest: float, longest: float) -> list[int]:
    """Return where rows begin and end that hold all from `shortest` to `longest`, nanoseconds."""
    decades = range(len(str(1 << LONGEST_BITS)))
    edges = [0, *(number * 10**decade for decade in decades for number in series)]
    return edges[bisect_right(edges, shortest) - 1 : bisect_right(edges, longest) + 1]


def draw(histogram: Histogram) -> list[str]:
    """Return the histogram as lines of plain ASCII text; a bar's length is its share of all.

    What is there at all has a bar, be it ever so rare: the slow ones are what one looks for.
    """
    drawn = rows(histogram)
    edges = [(f"{row.begin / MILLISECOND:g}", f"{row.end / MILLISECOND:g}") for row in drawn]
    width = max((len(edge) for pair in edges for edge in pair), default=0)
    most = max((row.count for row in drawn), default=0)
    return [
        f"{begin:>{width}} to {end:>{width}} ms |"
        f"{'#' * math.ceil(row.count * BAR_COLUMNS / most):<{BAR_COLUMNS}}| {row.count:>9,}"
        for (begin, end), row in zip(edges, drawn, strict=True)
    ]


def in_milliseconds(times: dict[str, float]) -> dict[str, float | None]:
    """Return `times`, seconds by name, as they stand in JSON: ``min_ms``, None for NaN."""
    return {
        f"{name.replace('.', '_')}_ms": None if math.isnan(time) else round(time * 1e3, 4)
        for name, time in times.items()
    }
