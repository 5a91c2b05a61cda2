"""Durations in a histogram of fixed precision and constant memory, and its drawing; no I/O.

A list of all durations would be exact and would grow with the run. Here each is counted in one of a
fixed number of buckets, each at most 1/1024 as wide as the durations in it, so what is read from
the middle of a bucket is right to three digits. The idea is that of http://hdrhistogram.org.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress, pairwise

# Each power of two is cut into 2**10 buckets: three digits, in 430 KiB that do not grow.
FINE_BITS = 10

# The longest duration that has a bucket, in bits of nanoseconds: 584 years.
LONGEST_BITS = 64

NANOSECONDS_PER_SECOND = 1e9
NANOSECONDS_PER_MILLISECOND = 1e6

# Where the rows of a drawing begin, times a power of ten: the preferred numbers of IEC 60063, each
# about the same multiple of the one before it. The finest series that fits is taken.
SERIES = (
    (10, 12, 15, 18, 22, 27, 33, 39, 47, 56, 68, 82),
    (10, 15, 22, 33, 47, 68),
    (10, 22, 47),
    (10,),
)
MOST_ROWS = 20  # with the lines above them, they fit on a screen of 24 lines
BAR_COLUMNS = 40  # with labels and counts, a row fits into 80 columns


class Histogram:
    """How many durations there were of each length, in constant memory."""

    __slots__ = ("_counts", "_longest", "_shortest", "_total", "count")

    def __init__(self) -> None:
        self._counts = [0] * ((LONGEST_BITS - FINE_BITS + 1) << FINE_BITS)
        self._shortest = math.inf
        self._longest = 0.0
        self._total = 0.0
        #: How many durations have been recorded.
        self.count = 0

    def record(self, seconds: float) -> None:
        """Count one duration, which must not be negative."""
        nanoseconds = int(seconds * NANOSECONDS_PER_SECOND)
        # The leading 11 bits, and how many bits there are below them, choose the bucket.
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
        """The shortest duration in seconds, exactly; NaN if there is none."""
        return self._shortest if self.count else math.nan

    @property
    def max(self) -> float:
        """The longest duration in seconds, exactly; NaN if there is none."""
        return self._longest if self.count else math.nan

    @property
    def mean(self) -> float:
        """The arithmetic mean in seconds, exactly; NaN if there is none."""
        return self._total / self.count if self.count else math.nan

    def percentile(self, percent: float) -> float:
        """Return the shortest duration, in seconds, that `percent` of all do not exceed.

        This is the nearest rank; `percent` is above 0 and at most 100. NaN if there is none.
        """
        rank = math.ceil(self.count * percent / 100)
        for seconds, count in self.buckets():
            rank -= count
            if rank <= 0:
                return seconds
        return math.nan

    def buckets(self) -> Iterator[tuple[float, int]]:
        """Yield each bucket that is not empty: its seconds, ascending, and its count."""
        for index in compress(range(len(self._counts)), self._counts):
            # A middle never lies beyond what was recorded, and a single duration is exact.
            yield min(max(_middle(index), self._shortest), self._longest), self._counts[index]


def _middle(index: int) -> float:
    """Return the middle of a bucket in seconds."""
    below = max((index >> FINE_BITS) - 1, 0)
    begin = (index - (below << FINE_BITS)) << below
    return (begin + (1 << below) / 2) / NANOSECONDS_PER_SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a drawing: the count of at least `begin` and below `end` nanoseconds."""

    begin: int
    end: int
    count: int


def rows(histogram: Histogram) -> list[Row]:
    """Return the durations in at most `MOST_ROWS` rows on a logarithmic scale."""
    times = [(seconds * NANOSECONDS_PER_SECOND, count) for seconds, count in histogram.buckets()]
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
    """Return the edges of rows that hold all from `shortest` to `longest`, in nanoseconds."""
    decades = range(len(str(1 << LONGEST_BITS)))
    edges = [0, *(number * 10**decade for decade in decades for number in series)]
    return edges[bisect_right(edges, shortest) - 1 : bisect_right(edges, longest) + 1]


def draw(histogram: Histogram) -> list[str]:
    """Return the histogram as lines of plain ASCII text; the longest bar is the fullest row.

    A row with a single duration still has a bar: the rare slow ones are what people look for.
    """
    drawn = rows(histogram)
    edges = [
        (
            f"{row.begin / NANOSECONDS_PER_MILLISECOND:g}",
            f"{row.end / NANOSECONDS_PER_MILLISECOND:g}",
        )
        for row in drawn
    ]
    width = max((len(edge) for pair in edges for edge in pair), default=0)
    most = max((row.count for row in drawn), default=0)
    return [
        f"{begin:>{width}} to {end:>{width}} ms |"
        f"{'#' * math.ceil(row.count * BAR_COLUMNS / most):<{BAR_COLUMNS}}| {row.count:>9,}"
        for (begin, end), row in zip(edges, drawn, strict=True)
    ]


def in_milliseconds(times: dict[str, float]) -> dict[str, float | None]:
    """Return `times`, seconds by name, as JSON has them: ``min_ms``, None for NaN."""
    return {
        f"{name.replace('.', '_')}_ms": None if math.isnan(time) else round(time * 1e3, 4)
        for name, time in times.items()
    }
