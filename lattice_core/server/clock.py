"""The two clocks of a node: the machine's, which only counts, and the cluster's, which is in the log.

Neither is a wall clock, so setting one changes nothing (SAFETY 50).
"""

from __future__ import annotations

import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now_ns() -> int:
    """Nanoseconds that never go back and, where the system can tell (Linux), go on while it is suspended.

    A lease must run out while its holder sleeps (SAFETY 41); CLOCK_MONOTONIC would stop.
    """
    return time.clock_gettime_ns(_CLOCK)


class ClusterClock:
    """The time that goes into the log: continued from the last logged time by this machine's clock.

    Every member observes what it applies, so that whoever becomes leader goes on from there, the time
    since then included. While the whole cluster is down, the time stands still.

    Invariant: ``read`` never returns less than before, nor less than anything observed.
    """

    def __init__(self, logged_ms: int, now: int) -> None:
        self._base_ms = logged_ms
        self._base_ns = now

    def observe(self, logged_ms: int, now: int) -> None:
        """An entry with this time was applied; adopt it if it is ahead of our own reckoning."""
        if logged_ms > self.read(now):
            self._base_ms = logged_ms
            self._base_ns = now

    def read(self, now: int) -> int:
        """Milliseconds of the cluster's time."""
        return self._base_ms + max(0, now - self._base_ns) // 1_000_000
