"""Latencies counted into fixed buckets: cheap to note, cheap to send, exact to subtract.

Theory. A histogram is a list of counts, one for each upper bound, and the sum of all that was noted. Noting
something is one bisection of a tuple and two additions, about a third of a microsecond, and needs no lock as long
as one thread at a time notes; whoever reads meanwhile may miss the very last one. Counts only grow, so the
difference of two readings is the histogram of what came between them, for any two: everybody who looks has a
window of their own, and the node keeps none.

Quantiles are interpolated within a bucket, as Prometheus does: with bounds of 1, 2 and 5 in each decade they
are right to about a quarter of their value, which is enough to tell a good disk from a bad one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

LATENCY_BOUNDS_SECONDS = (
    0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip
"""From an fsync that a disk's own memory answers to one that means a broken disk."""


@dataclass(frozen=True, slots=True)
class HistogramReading:
    """What a histogram held at one moment, or between two."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    """One for each bound, of what was above the bound before and at most this one; then one for all beyond."""
    total_seconds: float

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def cumulative(self) -> tuple[int, ...]:
        """How many were at most each bound; the last is all of them."""
        return tuple(accumulate(self.counts))

    def since(self, earlier: HistogramReading | None) -> HistogramReading:
        """What came after ``earlier``. All of it, if that is None or of another life of the node."""
        if earlier is None or earlier.bounds != self.bounds:
            return self
        counts = tuple(now - then for now, then in zip(self.counts, earlier.counts, strict=True))
        if min(counts) < 0:
            return self
        return HistogramReading(self.bounds, counts, max(0.0, self.total_seconds - earlier.total_seconds))

    def quantile(self, fraction: float) -> float | None:
        """The value that ``fraction`` of all were at most; None if there are none. At most the last bound."""
        total = self.count
        if not total:
            return None
        rank = fraction * total
        below = 0
        for position, count in enumerate(self.counts[:-1]):
            if count and below + count >= rank:
                lower = self.bounds[position - 1] if position else 0.0
                return lower + (self.bounds[position] - lower) * max(0.0, rank - below) / count
            below += count
        return self.bounds[-1]


class Histogram:
    """Counts what is noted. One writer at a time; see the module."""

    __slots__ = ("bounds", "counts", "total_seconds")

    def __init__(self, bounds: Sequence[float] = LATENCY_BOUNDS_SECONDS) -> None:
        assert list(bounds) == sorted(set(bounds)), "bounds must ascend"
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total_seconds = 0.0

    def note(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total_seconds += seconds

    def read(self) -> HistogramReading:
        return HistogramReading(self.bounds, tuple(self.counts), self.total_seconds)
