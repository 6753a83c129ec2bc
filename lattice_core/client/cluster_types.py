"""What the client's methods say of members and of the cluster: small, immutable, and the same for both clients."""

from __future__ import annotations

from dataclasses import dataclass

from lattice_core.client.counters import NodeCounters, NodeDetails, PeerProgress
from lattice_core.errors import LatticeError


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What one member knows of itself. Ids are 64-bit numbers; people see them as 16 hex digits."""

    cluster_id: int
    node_id: int
    name: str
    client_addr: str
    peer_addr: str
    role: str
    """leader, follower, candidate, pre-candidate or learner"""
    voter: bool
    term: int
    leader_id: int | None
    commit_index: int
    applied_index: int
    last_index: int
    snapshot_index: int
    version: str
    revision: int
    state_hash: int
    """Of the store at ``applied_index``: members that applied the same must say the same."""
    keys: int
    sessions: int
    log_bytes: int
    uptime_seconds: float
    counters: NodeCounters | None = None
    """None: it is of a version that does not tell."""
    progress: tuple[PeerProgress, ...] = ()
    """A leader's view of the others."""
    details: NodeDetails | None = None
    """Only where they were asked for: :meth:`AsyncClient.examine`."""


@dataclass(frozen=True, slots=True)
class MemberReport:
    """One member of the cluster, as the member that answered could find out."""

    id: int
    name: str
    peer_addr: str
    client_addr: str
    """Last known; empty if it was never heard."""
    voter: bool
    learner: bool
    reachable: bool
    unreachable_seconds: float | None
    status: NodeStatus | None
    """None unless reachable."""
    promotes: bool = False
    """A learner that is to vote when it has caught up."""
    replaces: str | None = None
    """Who leaves when it does: a name."""
    lag: int | None = None
    """Entries that the leader has and does not know this member to have; None where the leader cannot be asked."""
    snapshot_sent_bytes: int | None = None
    """Of the snapshot that the leader is sending it just now, of ``snapshot_bytes``."""
    snapshot_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """Every member, asked by the one that answered."""

    cluster_id: int
    leader_id: int | None
    term: int
    members: tuple[MemberReport, ...]
    """Ordered by name."""
    joint: bool = False
    """A change of voters is under way, and both the old and the new majority decide."""
    pending: str | None = None
    """The change of members that is under way or waits for somebody to catch up, in words."""

    @property
    def leader(self) -> MemberReport | None:
        """The leader's report, if there is a leader and it is a member."""
        return next((member for member in self.members if member.id == self.leader_id), None)


@dataclass(frozen=True, slots=True)
class QuorumReport:
    """What a configuration means. Names are in order."""

    voters: tuple[str, ...]
    learners: tuple[str, ...]
    size: int
    """How many voters decide."""
    tolerates: int
    """How many voters may fail."""
    live: int
    """Voters that the leader hears just now."""


@dataclass(frozen=True, slots=True)
class MembershipChanged:
    """What a change of members came to, or (``dry_run``) would come to."""

    name: str
    """Whom it was about."""
    id: int
    peer_addr: str
    index: int
    """Where the configuration was committed; 0 in a dry run."""
    member: bool
    """It belongs to the cluster now."""
    voter: bool
    promotes: bool
    """It is a learner, and will vote when it has caught up."""
    replaces: str | None
    """Who leaves when it does."""
    before: QuorumReport
    after: QuorumReport
    """When everything has been done, a promotion included."""
    dry_run: bool
    refused: str | None = None
    """Dry run only: why it would be refused; ``hint``: what to do instead."""
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    """What became of one member's snapshot. With an ``error`` the numbers mean nothing."""

    member: str
    reachable: bool
    index: int = 0
    term: int = 0
    path: str = ""
    """On the member."""
    size_bytes: int = 0
    milliseconds: float = 0.0
    error: LatticeError | None = None


@dataclass(frozen=True, slots=True)
class SnapshotSaved:
    """A snapshot file that was fetched, checked as a whole, and is durable here."""

    path: str
    member: str
    index: int
    term: int
    size_bytes: int
    replaced: str | None = None
    """A half-written file that an earlier save to this name, killed, had left, and that is gone now."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A finished handover of leadership."""

    old_leader: str
    new_leader: str
    term: int
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Examined:
    """What one address has answered, asked from here a few times in a row."""

    address: str
    status: NodeStatus | None
    """The last answer; None: it did not answer, and ``error`` says why."""
    error: str | None
    round_trips: tuple[float, ...] = ()
    """Seconds; of a call that has the member write its whole status, so an upper bound for the network's."""
    clock_offset_seconds: float | None = None
    """How far its wall clock is ahead of this machine's, by the quickest answer."""
    clock_error_seconds: float | None = None
    """How wrong that may be, either way: half of that answer's round trip."""
