"""Counts in buckets: nothing is lost, differences are exact, quantiles stay within their bucket."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice_core.histogram import LATENCY_BOUNDS_SECONDS, Histogram

seconds = st.lists(st.floats(min_value=0.0, max_value=20.0), max_size=60)


def filled(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.note(value)
    return histogram


@given(seconds)
def test_every_value_is_counted_once_at_the_first_bound_that_it_does_not_exceed(values: list[float]) -> None:
    reading = filled(values).read()
    assert reading.count == len(values)
    assert reading.total_seconds == pytest.approx(sum(values))
    for bound, cumulative in zip(reading.bounds, reading.cumulative, strict=False):
        assert cumulative == sum(value <= bound for value in values)
    assert reading.cumulative[-1] == len(values)


@given(seconds, seconds)
def test_the_difference_of_two_readings_is_the_histogram_of_what_came_between(
    before: list[float], after: list[float]
) -> None:
    histogram = filled(before)
    earlier = histogram.read()
    for value in after:
        histogram.note(value)
    between = histogram.read().since(earlier)
    assert between.counts == filled(after).read().counts
    assert between.total_seconds == pytest.approx(sum(after), abs=1e-6)


@given(seconds.filter(bool), st.floats(min_value=0.01, max_value=1.0))
def test_a_quantile_lies_in_the_bucket_of_the_value_that_it_stands_for(values: list[float], fraction: float) -> None:
    found = filled(values).read().quantile(fraction)
    assert found is not None
    rank = max(1, -(-int(fraction * len(values) * 1e9) // 10**9))  # ceil, as far as floats can tell
    exact = sorted(values)[min(rank, len(values)) - 1]
    bounds = LATENCY_BOUNDS_SECONDS
    if exact > bounds[-1]:
        assert found == bounds[-1]
    else:
        place = bisect_left(bounds, exact)
        lower = bounds[place - 1] if place else 0.0
        assert lower <= found <= bounds[place]


def test_nothing_has_no_quantile() -> None:
    assert Histogram().read().quantile(0.5) is None


def test_a_reading_of_another_life_is_not_subtracted() -> None:
    """A node that was restarted counts from nothing: what it has is what came since."""
    reading = filled([0.001]).read()
    assert reading.since(filled([0.001] * 5).read()) is reading
    assert reading.since(Histogram((1.0, 2.0)).read()) is reading
    assert reading.since(None) is reading
