"""What callers saw: latencies, errors, and the longest silence.

The longest gap is the longest time without any acknowledgement, the end of the measurement included: what a lost
leader costs, which a percentile hides when all callers stand still together. Of several processes it is the longest
stretch in which all were silent, so each keeps its silences, from SILENCE_NS on, as intervals.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Self

from lattice_cli.bench.histogram import Histogram

SILENCE_NS = 10_000_000
"""Shorter ones are too many to keep, and no lost leader's."""

Interval = tuple[int, int]


class Tally:
    """Counts what ends between ``start_ns`` and ``end_ns``. One process's, or several added up.

    Invariant: ``puts.count + gets.count`` is the number of operations that count.
    """

    def __init__(self, start_ns: int, end_ns: int) -> None:
        self.start_ns = start_ns
        self.end_ns = end_ns
        self.puts = Histogram()
        self.gets = Histogram()
        self.errors: Counter[str] = Counter()
        self.last_error = ""
        self.oldest_unanswered_ns = 0
        """How long the oldest operation without an answer had waited when the time was up."""
        self.cpu_seconds = 0.0
        """Of the processes of this benchmark, while it measured."""
        self.silences: list[Interval] = []
        self._longest_gap_ns = 0
        self._noticed_ns = 1
        """Shorter gaps change nothing: they are neither the longest yet nor silences."""
        self._last_ns = start_ns

    # -- while it runs ------------------------------------------------------------------------------

    def done(self, histogram: Histogram, began_ns: int, ended_ns: int) -> None:
        """An operation was answered; ``histogram`` is ``puts`` or ``gets``."""
        if self.start_ns <= ended_ns <= self.end_ns:
            histogram.record(ended_ns - began_ns)
            if ended_ns - self._last_ns >= self._noticed_ns:
                self._silent_until(ended_ns)
            self._last_ns = ended_ns

    def failed(self, error: BaseException, ended_ns: int) -> None:
        if self.start_ns <= ended_ns <= self.end_ns:
            self.errors[type(error).__name__] += 1
            self.last_error = str(error)

    def finish(self, now_ns: int, oldest_began_ns: int = 0) -> None:
        """The measurement is over, maybe before its time. ``oldest_began_ns``: when the oldest operation that has
        no answer yet began; 0: there is none."""
        self.end_ns = min(self.end_ns, max(now_ns, self.start_ns))
        self.oldest_unanswered_ns = max(0, self.end_ns - oldest_began_ns) if oldest_began_ns else 0
        self._silent_until(self.end_ns)

    def _silent_until(self, ended_ns: int) -> None:
        gap = ended_ns - self._last_ns
        self._longest_gap_ns = max(self._longest_gap_ns, gap)
        self._noticed_ns = min(self._longest_gap_ns + 1, SILENCE_NS)
        if gap >= SILENCE_NS:
            self.silences.append((self._last_ns, ended_ns))

    # -- afterwards ---------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        return self.puts.count + self.gets.count

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9

    @property
    def longest_gap_ns(self) -> int:
        return self._longest_gap_ns

    def latencies(self) -> Histogram:
        """Those of all operations together."""
        both = Histogram()
        both.add(self.puts)
        both.add(self.gets)
        return both

    def add(self, other: Tally) -> None:
        """Add what another process saw in the same time."""
        common = overlaps(self.silences, other.silences)
        # Where not all were silent for long at once, each one's own longest silence bounds that of all.
        short = min(self._longest_gap_ns, other._longest_gap_ns, SILENCE_NS)
        self._longest_gap_ns = max((until - since for since, until in common), default=short)
        self.silences = common
        self.puts.add(other.puts)
        self.gets.add(other.gets)
        self.errors += other.errors
        self.last_error = other.last_error or self.last_error
        self.oldest_unanswered_ns = max(self.oldest_unanswered_ns, other.oldest_unanswered_ns)
        self.cpu_seconds += other.cpu_seconds
        self.start_ns = min(self.start_ns, other.start_ns)
        self.end_ns = max(self.end_ns, other.end_ns)

    def to_json(self) -> dict[str, Any]:
        return {
            "start_ns": self.start_ns,
            "end_ns": self.end_ns,
            "puts": self.puts.to_json(),
            "gets": self.gets.to_json(),
            "errors": dict(self.errors),
            "last_error": self.last_error,
            "oldest_unanswered_ns": self.oldest_unanswered_ns,
            "cpu_seconds": self.cpu_seconds,
            "silences": self.silences,
            "longest_gap_ns": self._longest_gap_ns,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        tally = cls(document["start_ns"], document["end_ns"])
        tally.puts = Histogram.from_json(document["puts"])
        tally.gets = Histogram.from_json(document["gets"])
        tally.errors = Counter(document["errors"])
        tally.last_error = document["last_error"]
        tally.oldest_unanswered_ns = document["oldest_unanswered_ns"]
        tally.cpu_seconds = document["cpu_seconds"]
        tally.silences = [(since, until) for since, until in document["silences"]]
        tally._longest_gap_ns = document["longest_gap_ns"]
        return tally


def overlaps(first: list[Interval], second: list[Interval]) -> list[Interval]:
    """What two ordered lists of disjoint intervals have in common."""
    found: list[Interval] = []
    i = j = 0
    while i < len(first) and j < len(second):
        since, until = max(first[i][0], second[j][0]), min(first[i][1], second[j][1])
        if since < until:
            found.append((since, until))
        if first[i][1] < second[j][1]:
            i += 1
        else:
            j += 1
    return found
