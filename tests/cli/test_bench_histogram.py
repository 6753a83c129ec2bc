"""The histogram: every value counted, none known worse than to 0.8 %, and sums as good as the whole."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice_cli.bench.histogram import MAX_VALUE, Histogram, bounds_of, bucket_of

VALUES = st.lists(
    st.one_of(st.integers(0, 300), st.integers(0, 10**7), st.integers(0, MAX_VALUE)), min_size=1, max_size=200
)


def of(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(st.integers(0, MAX_VALUE))
def test_a_value_lies_within_its_bucket_and_the_bucket_is_narrow(value: int) -> None:
    low, high = bounds_of(bucket_of(value))
    assert low <= value < high
    assert high - low <= max(1, low / 128)


def test_buckets_follow_each_other_without_a_hole() -> None:
    last = bucket_of(MAX_VALUE)
    edges = [bounds_of(bucket) for bucket in range(last + 1)]
    assert edges[0][0] == 0
    assert all(before[1] == after[0] for before, after in itertools.pairwise(edges))
    assert edges[-1][1] == MAX_VALUE + 1
    assert [bucket_of(low) for low, _ in edges] == list(range(last + 1))


@given(VALUES, st.sampled_from([0.0, 1.0, 50.0, 90.0, 99.0, 99.9, 100.0]))
def test_a_percentile_is_that_of_the_sorted_values_to_within_a_bucket(values: list[int], percent: float) -> None:
    exact = sorted(values)[max(1, math.ceil(len(values) * percent / 100)) - 1]
    found = of(values).percentile(percent)
    assert abs(found - exact) <= max(1, exact / 128)
    assert min(values) <= found <= max(values)


@given(VALUES, VALUES)
def test_two_histograms_add_up_to_that_of_all_values_also_after_travelling(first: list[int], second: list[int]) -> None:
    both = of(first)
    both.add(Histogram.from_json(of(second).to_json()))
    assert both.to_json() == of(first + second).to_json()
    assert both.count == len(first) + len(second)


def test_what_is_out_of_range_counts_as_the_end_of_the_range() -> None:
    histogram = of([-5, MAX_VALUE * 3])
    assert (histogram.smallest, histogram.largest, histogram.count) == (0, MAX_VALUE, 2)


def test_nothing_recorded_is_nothing() -> None:
    histogram = Histogram()
    assert (histogram.percentile(99), histogram.mean, histogram.largest) == (0, 0.0, 0)


@given(VALUES, st.lists(st.integers(1, MAX_VALUE), max_size=5, unique=True).map(sorted))
def test_counts_between_edges_add_up_to_all(values: list[int], edges: list[int]) -> None:
    counts = of(values).counts_between(edges)
    assert len(counts) == len(edges) + 1
    assert sum(counts) == len(values)


@pytest.mark.parametrize("value", [5, 255, 1000, 10**9])
def test_a_value_falls_on_its_side_of_an_edge(value: int) -> None:
    assert of([value]).counts_between([value * 2 + 1]) == [1, 0]
    assert of([value]).counts_between([value // 2]) == [0, 1]
