"""Latencies counted, not kept: a histogram of constant relative error, after Gil Tene's HdrHistogram.

Values below 256 have a bucket each; above, every doubling is divided into 128 buckets of equal width. So a value is
known to within 1/128 of itself (0.8 %) from a nanosecond to an hour, in less than 5,000 counters, and recording is
two shifts and an addition: the benchmark shares its cores with what it measures. Histograms of several processes add
up to that of all their values. The extremes are kept exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

EXACT_BITS = 8
"""Values below ``1 << EXACT_BITS`` are counted exactly."""

_HALF_BITS = EXACT_BITS - 1

MAX_VALUE = (1 << 42) - 1
"""4,398 seconds in nanoseconds: longer than any operation may take. What is above counts as this."""

_BUCKETS = ((MAX_VALUE.bit_length() - EXACT_BITS) << _HALF_BITS) + (1 << EXACT_BITS)


def bucket_of(value: int) -> int:
    """The bucket that counts ``value``."""
    shift = value.bit_length() - EXACT_BITS
    return value if shift <= 0 else (shift << _HALF_BITS) + (value >> shift)


def bounds_of(bucket: int) -> tuple[int, int]:
    """The lowest value that a bucket counts, and the lowest that the next one does."""
    if bucket < 1 << EXACT_BITS:
        return bucket, bucket + 1
    shift = (bucket >> _HALF_BITS) - 1
    mantissa = bucket - (shift << _HALF_BITS)
    return mantissa << shift, (mantissa + 1) << shift


class Histogram:
    """Counts of whole numbers from 0 to MAX_VALUE; here, nanoseconds."""

    __slots__ = ("_counts", "count", "largest", "smallest", "total")

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.count = 0
        self.total = 0
        self.smallest: int | None = None
        self.largest = 0

    def record(self, value: int) -> None:
        """Count one value; what is out of range counts as the end of the range."""
        if value > MAX_VALUE:
            value = MAX_VALUE
        elif value < 0:
            value = 0
        shift = value.bit_length() - EXACT_BITS
        self._counts[value if shift <= 0 else (shift << _HALF_BITS) + (value >> shift)] += 1
        self.count += 1
        self.total += value
        if value > self.largest:
            self.largest = value
        if self.smallest is None or value < self.smallest:
            self.smallest = value

    def add(self, other: Histogram) -> None:
        """Count everything that ``other`` has counted as well."""
        counts = self._counts
        for bucket, count in other.buckets():
            counts[bucket] += count
        self.count += other.count
        self.total += other.total
        self.largest = max(self.largest, other.largest)
        if other.smallest is not None:
            self.smallest = other.smallest if self.smallest is None else min(self.smallest, other.smallest)

    def buckets(self) -> Iterator[tuple[int, int]]:
        """Each bucket that has counted something, with its count, in order."""
        return ((bucket, count) for bucket, count in enumerate(self._counts) if count)

    def percentile(self, percent: float) -> int:
        """The value that ``percent`` of all values do not exceed, to within a bucket's width; 0 without values.

        The middle of the bucket, but never outside of what was recorded.
        """
        if self.count == 0 or self.smallest is None:
            return 0
        rank = max(1, -(-self.count * percent // 100))
        seen = 0
        for bucket, count in self.buckets():
            seen += count
            if seen >= rank:
                low, high = bounds_of(bucket)
                return max(self.smallest, min((low + high - 1) // 2, self.largest))
        raise AssertionError("the counts do not add up to the count")

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    def counts_between(self, edges: list[int]) -> list[int]:
        """How many values fall between consecutive ``edges`` (each bucket by its middle), the ends open."""
        found = [0] * (len(edges) + 1)
        at = 0
        for bucket, count in self.buckets():
            low, high = bounds_of(bucket)
            middle = (low + high - 1) // 2
            while at < len(edges) and middle >= edges[at]:
                at += 1
            found[at] += count
        return found

    # -- between processes ----------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain data; sparse, for most buckets are empty."""
        return {
            "buckets": [list(pair) for pair in self.buckets()],
            "total": self.total,
            "smallest": self.smallest,
            "largest": self.largest,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        histogram = cls()
        for bucket, count in document["buckets"]:
            histogram._counts[bucket] = count
            histogram.count += count
        histogram.total = document["total"]
        histogram.smallest = document["smallest"]
        histogram.largest = document["largest"]
        return histogram
