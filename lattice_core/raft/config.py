"""The core's settings. Times are nanoseconds of the monotonic clock that the driver passes in."""

from __future__ import annotations

from dataclasses import dataclass

MILLISECOND_NS = 1_000_000


@dataclass(frozen=True, slots=True)
class RaftConfig:
    """Settings of one node; every voter should have the same timeouts.

    Raises ValueError from :meth:`validate` with both values of a contradiction.
    """

    heartbeat_interval_ns: int = 100 * MILLISECOND_NS
    """A tenth to a fifth of the election timeout: several heartbeats may be lost before anybody stirs."""

    confirm_patience_ns: int = 2 * MILLISECOND_NS
    """How long a leader that has asked a bare quorum whether it still leads waits, at least, before it asks the other
    voters too. More where answers take longer, and a quarter of a heartbeat at most."""

    election_timeout_min_ns: int = 500 * MILLISECOND_NS
    election_timeout_max_ns: int = 1000 * MILLISECOND_NS
    """Each wait is drawn anew from [min, max) (section 5.2). The minimum is also how long a follower
    protects a leader it has heard from, and so the longest a lease can be."""

    clock_drift_ppm: int = 50_000
    """How much faster one node's monotonic clock may run than another's, in parts per million, for as
    long as a lease. Crystals are within 200; 5 % leaves room for sick virtual machines."""

    max_append_bytes: int = 1 << 20
    """Entries in one AppendEntries; a single larger entry still goes, alone. A gRPC message of 64 KiB costs
    little more than an empty one, one of 1 MiB keeps a loop busy for about a millisecond."""

    max_inflight_appends: int = 64
    max_inflight_bytes: int = 8 << 20
    """Per follower, sent and not yet answered. Enough to fill a fast link; bounded for a dead peer."""

    max_uncommitted_bytes: int = 64 << 20
    """A leader without a reachable majority stops accepting here, instead of filling memory."""

    max_pending_reads: int = 10_000
    """Reads that wait for a confirmation round; each is a few machine words."""

    def validate(self) -> None:
        if self.heartbeat_interval_ns <= 0:
            raise ValueError(f"heartbeat interval must be positive, not {self.heartbeat_interval_ns} ns")
        if self.election_timeout_min_ns < 2 * self.heartbeat_interval_ns:
            raise ValueError(
                f"election timeout minimum ({self.election_timeout_min_ns // MILLISECOND_NS} ms) must be at least "
                f"twice the heartbeat interval ({self.heartbeat_interval_ns // MILLISECOND_NS} ms)"
            )
        if self.election_timeout_max_ns <= self.election_timeout_min_ns:
            raise ValueError(
                f"election timeout maximum ({self.election_timeout_max_ns // MILLISECOND_NS} ms) must be above the "
                f"minimum ({self.election_timeout_min_ns // MILLISECOND_NS} ms)"
            )
        if not 0 <= self.clock_drift_ppm < 1_000_000:
            raise ValueError(f"clock drift must be 0 to 999,999 ppm, not {self.clock_drift_ppm}")
        for name in (
            "max_append_bytes",
            "max_inflight_appends",
            "max_inflight_bytes",
            "max_uncommitted_bytes",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")

    @property
    def lease_duration_ns(self) -> int:
        """From the start of a confirmed round; shorter than any follower's protection, drift included."""
        return self.election_timeout_min_ns * (1_000_000 - self.clock_drift_ppm) // 1_000_000
