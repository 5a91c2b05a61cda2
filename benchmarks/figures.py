"""Histograms of fixed precision, medians and ratios; pure functions on numbers."""

import math
import statistics
from collections.abc import Iterable, Mapping

# Each power of two is cut into 2**6 buckets, so a percentile is right within 0.8 %.
FINE_BITS = 6

# How many samples fell into each bucket.
FINE = 1 << FINE_BITS

Histogram = Mapping[int, int]


def bucket(nanoseconds: int) -> int:
    """The bucket of a duration; ``generator.c`` counts in the same ones."""
    if nanoseconds < FINE:
        return nanoseconds
    shift = nanoseconds.bit_length() - 1 - FINE_BITS
    return (shift + 1) * FINE + ((nanoseconds >> shift) & (FINE - 1))


def bucket_middle(index: int) -> float:
    """The middle of a bucket, in nanoseconds."""
    if index < FINE:
        return float(index)
    shift = index // FINE - 1
    return float((FINE + index % FINE) << shift) + (1 << shift) / 2


def percentile(histogram: Histogram, percent: float) -> float:
    """The nearest-rank percentile in nanoseconds; NaN of no samples."""
    rank = math.ceil(sum(histogram.values()) * percent / 100)
    seen = 0
    for index in sorted(histogram):
        seen += histogram[index]
        if seen >= rank:
            return bucket_middle(index)
    return math.nan


def median(values: Iterable[float]) -> float:
    """The median of the values that are numbers; NaN if none is."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def ratio(value: float, yardstick: float) -> float:
    """How often `yardstick` goes into `value`; NaN when either is unknown or the yardstick is 0."""
    return value / yardstick if yardstick else math.nan


def spread(values: Iterable[float]) -> float:
    """The widest distance of a value from the median, as a share of the median; NaN of none."""
    known = list(values)
    middle = median(known)
    return ratio(max((abs(value - middle) for value in known), default=math.nan), middle)
