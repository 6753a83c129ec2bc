"""Linearizable reads without the log: ReadIndex and the leader lease (thesis sections 6.4 and 6.4.1).

A read is linearizable if the answer comes from a state that includes every write acknowledged before
the read began. The leader knows such an index, its commit index, provided that (a) it has committed an
entry of its own term, so that it knows what its predecessors committed, and (b) it is still the leader
at some moment *after* the read arrived. (b) is shown by a confirmation round: heartbeats or appends sent
after the read arrived, echoed by a quorum (SAFETY 39). One round serves all reads that wait.

The lease replaces (b) by time: followers that echoed a round protect its leader for at least the minimum
election timeout from when they received it, so nobody else can be elected before ``round start + minimum
timeout - drift``. It is measured from when the round was *sent*, never from the answer (SAFETY 41), and is
given up for good in this term before leadership is handed over (SAFETY 42).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from lattice_core.raft.types import NodeId


@dataclass(frozen=True, slots=True)
class PendingRead:
    """A read that waits; ``origin`` is the follower that forwarded it, None for one of our own."""

    request_id: int
    origin: NodeId | None


@dataclass(slots=True)
class LeaderReads:
    """Rounds, the reads that wait for them, and the lease, for one term of one leader."""

    waiting: list[PendingRead] = field(default_factory=list)
    """Not yet in a round."""
    confirming: list[PendingRead] = field(default_factory=list)
    """In the round that is under way: they get ``confirming_index`` when a quorum echoes it."""
    confirming_round: int = 0
    confirming_index: int = 0
    round: int = 0
    """The newest round; every heartbeat and append carries it."""
    started: deque[tuple[int, int]] = field(default_factory=deque)
    """(round, start in ns) of rounds that no quorum has echoed yet, oldest first."""
    lease_from_ns: int | None = None
    """When the newest round that a quorum has echoed began."""

    def start_round(self, now_ns: int) -> int:
        self.round += 1
        self.started.append((self.round, now_ns))
        return self.round

    def begin_confirming(self, commit_index: int) -> None:
        """Put all that waits into the round just started."""
        self.confirming = self.waiting
        self.waiting = []
        self.confirming_round = self.round
        self.confirming_index = commit_index

    def quorum_echoed(self, round_: int) -> list[PendingRead]:
        """A quorum has echoed ``round_``: extend the lease, and return the reads that this confirms."""
        while self.started and self.started[0][0] <= round_:
            self.lease_from_ns = self.started.popleft()[1]
        if not self.confirming or round_ < self.confirming_round:
            return []
        confirmed, self.confirming = self.confirming, []
        return confirmed

    def __len__(self) -> int:
        return len(self.waiting) + len(self.confirming)
