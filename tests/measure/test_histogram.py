"""The histogram is right to three digits whatever is recorded, and its drawing shows it all."""

import math
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_upper.measure.histogram import (
    FINE_BITS,
    LONGEST_BITS,
    MOST_ROWS,
    Histogram,
    draw,
    in_milliseconds,
    rows,
)

PRECISION = 2**-FINE_BITS / 2 * 1.001  # half a bucket, as a share of the durations in it
NANOSECOND = 1e-9

# From zero to a century.
times = st.floats(min_value=0, max_value=3e9)


def histogram_of(*seconds: float) -> Histogram:
    histogram = Histogram()
    for each in seconds:
        histogram.record(each)
    return histogram


@given(st.lists(times, min_size=1), st.sampled_from([0.1, 1, 50, 90, 99, 99.9, 100]))
def test_a_percentile_is_right_to_three_digits(seconds: list[float], percent: float) -> None:
    """It is the nearest rank of the sorted list, which is never kept."""
    exact = sorted(seconds)[math.ceil(len(seconds) * percent / 100) - 1]
    found = histogram_of(*seconds).percentile(percent)
    assert found == pytest.approx(exact, rel=PRECISION, abs=NANOSECOND)


@given(st.lists(times, min_size=1))
def test_count_and_extremes_and_mean_are_exact(seconds: list[float]) -> None:
    """They do not come from the buckets."""
    histogram = histogram_of(*seconds)
    assert histogram.count == len(seconds)
    assert (histogram.min, histogram.max) == (min(seconds), max(seconds))
    assert histogram.mean == pytest.approx(sum(seconds) / len(seconds))


@given(times, st.sampled_from([1, 50, 99, 100]))
def test_a_single_time_is_exact(seconds: float, percent: float) -> None:
    """A median beyond the maximum would look like a mistake."""
    assert histogram_of(seconds).percentile(percent) == seconds


def test_a_rank_is_rounded_up() -> None:
    """The 99th percentile of ten times is the slowest, their median the fifth."""
    histogram = histogram_of(*range(1, 11))
    assert histogram.percentile(99) == 10
    assert histogram.percentile(50) == pytest.approx(5, rel=PRECISION)
    assert histogram.percentile(51) == pytest.approx(6, rel=PRECISION)
    assert histogram.percentile(10) == pytest.approx(1, rel=PRECISION)


def test_without_any_time_the_values_are_nan() -> None:
    """NaN cannot be mistaken for a time."""
    histogram = Histogram()
    for value in (histogram.min, histogram.max, histogram.mean, histogram.percentile(50)):
        assert math.isnan(value)
    assert list(histogram.buckets()) == []


@given(st.integers(min_value=2**FINE_BITS, max_value=2 ** (LONGEST_BITS - 1)))
def test_times_that_differ_in_the_third_digit_are_distinct(nanoseconds: int) -> None:
    """From a microsecond to centuries, and the shorter one comes first."""
    shorter, longer = nanoseconds * NANOSECOND, nanoseconds * NANOSECOND * 1.002
    found, counts = zip(*histogram_of(longer, shorter).buckets(), strict=True)
    assert found == pytest.approx((shorter, longer), rel=PRECISION)
    assert counts == (1, 1)


def test_memory_does_not_grow() -> None:
    """A run of days takes no more than one of seconds."""
    histogram = histogram_of(0.001, 2 ** (LONGEST_BITS - 1) * NANOSECOND)
    tracemalloc.start()
    for _ in range(10_000):
        histogram.record(0.001)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 1000


# ------------------------------------------------------------------ the drawing


@given(st.lists(times, min_size=1))
def test_the_rows_hold_all_times_without_a_gap(seconds: list[float]) -> None:
    """They fit on a screen, and neither the first nor the last is empty."""
    found = rows(histogram_of(*seconds))
    assert 1 <= len(found) <= MOST_ROWS
    assert sum(row.count for row in found) == len(seconds)
    assert found[0].count > 0
    assert found[-1].count > 0
    assert found[0].begin <= min(seconds) / NANOSECOND * (1 + PRECISION)
    assert found[-1].end >= max(seconds) / NANOSECOND * (1 - PRECISION)
    assert all(row.end == following.begin for row, following in pairwise(found))


@pytest.mark.parametrize(
    ("longest", "most_a_decade"), [(0.001, 12), (0.01, 12), (0.1, 6), (10, 3), (1e9, 1)]
)
def test_the_rows_are_as_fine_as_fits(longest: float, most_a_decade: int) -> None:
    """Times that differ little have many rows; otherwise rows are powers of ten."""
    found = rows(histogram_of(0.0005, longest))
    assert found[0].end / found[0].begin <= 10 ** (1 / most_a_decade) * 1.15


def test_a_drawing_is_plain_text() -> None:
    """The fullest row has the longest bar; a rare time still shows, and so does a gap."""
    histogram = histogram_of(*[0.0004] * 2000, *[0.0005] * 500, 0.0011)
    assert draw(histogram) == [
        "0.39 to 0.47 ms |########################################|     2,000",
        "0.47 to 0.56 ms |##########                              |       500",
        "0.56 to 0.68 ms |                                        |         0",
        "0.68 to 0.82 ms |                                        |         0",
        "0.82 to    1 ms |                                        |         0",
        "   1 to  1.2 ms |#                                       |         1",
    ]


@given(st.lists(times))
def test_a_drawing_fits_on_the_screen(seconds: list[float]) -> None:
    """80 columns, ASCII, one line a row; without any time there is nothing to draw."""
    histogram = histogram_of(*seconds)
    lines = draw(histogram)
    assert len(lines) == len(rows(histogram))
    assert all(len(line) <= 80 and line.isascii() for line in lines)
    assert bool(lines) is bool(seconds)


def test_times_in_json_have_their_unit_in_the_name() -> None:
    """No NaN, which JSON lacks, and no dot, which a path in jq would trip over."""
    assert in_milliseconds({"p99.9": 0.00123456, "max": math.nan}) == {
        "p99_9_ms": 1.2346,
        "max_ms": None,
    }
