"""The nouns of consensus: members, configurations, log entries and what must be durable.

Everything here is immutable, hashable where that makes sense, and free of any encoding: the storage
package decides how these look on disk, the rpc package how they look on the wire.

Words are the Raft paper's (Ongaro and Ousterhout, 2014) and Ongaro's thesis: term, index,
configuration, voter, learner (the thesis' "non-voting server", section 4.2.1).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

NodeId: TypeAlias = int
"""A member's identity: a 64-bit number that is never used twice in a cluster, apart from any address."""

ENTRY_OVERHEAD_BYTES = 32
"""What an entry is charged beyond its payload wherever entries are bounded in bytes."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """What is meant to become of a learner when it has caught up: it votes, perhaps in place of another.

    The consensus core only carries it, in the log with the member, so that whoever leads next knows it too;
    to act on it is the driver's business.
    """

    replaces: NodeId | None = None
    """Who leaves in the same joint change that makes the learner a voter."""


@dataclass(frozen=True, slots=True)
class Member:
    """A server that takes part in the cluster, with what others need to reach it."""

    id: NodeId
    name: str
    peer_addr: str
    promotion: Promotion | None = None
    """Learners only. None: a voter, or a learner that stays one."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """Who votes, who only listens, and, while a change is under way, who voted before it.

    ``voters_outgoing`` is empty except in a joint configuration (thesis section 4.3), where every
    decision needs a majority of ``voters`` *and* of ``voters_outgoing``.

    Invariants, checked on construction:
      * a member is never voter (incoming) and learner at once;
      * every id in the three sets has its :class:`Member`, and no member is in none of them;
      * ids, names and peer addresses are unique;
      * only a learner waits to be promoted.
    """

    members: tuple[Member, ...]
    voters: frozenset[NodeId]
    voters_outgoing: frozenset[NodeId] = frozenset()
    learners: frozenset[NodeId] = frozenset()
    _by_id: dict[NodeId, Member] = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(sorted(self.members, key=lambda member: member.id)))
        by_id = {member.id: member for member in self.members}
        object.__setattr__(self, "_by_id", by_id)
        if len(by_id) != len(self.members):
            raise ValueError("two members have the same id")
        if len({member.name for member in self.members}) != len(self.members):
            raise ValueError("two members have the same name")
        if len({member.peer_addr for member in self.members}) != len(self.members):
            raise ValueError("two members have the same peer address")
        if self.voters & self.learners:
            raise ValueError("a member cannot be voter and learner at once")
        if self.voters | self.voters_outgoing | self.learners != by_id.keys():
            raise ValueError("members and voter/learner sets do not name the same ids")
        if any(member.promotion is not None and member.id not in self.learners for member in self.members):
            raise ValueError("only a learner can be waiting for its promotion")

    @classmethod
    def of_voters(cls, members: Iterable[Member]) -> Configuration:
        """A plain configuration in which every member votes."""
        members = tuple(members)
        return cls(members=members, voters=frozenset(member.id for member in members))

    @property
    def is_joint(self) -> bool:
        return bool(self.voters_outgoing)

    @property
    def all_voters(self) -> frozenset[NodeId]:
        """Everyone whose vote may count, in either half of a joint configuration."""
        return self.voters | self.voters_outgoing if self.voters_outgoing else self.voters

    def is_voter(self, node_id: NodeId) -> bool:
        return node_id in self.voters or node_id in self.voters_outgoing

    def member(self, node_id: NodeId) -> Member | None:
        return self._by_id.get(node_id)

    def member_named(self, name: str) -> Member | None:
        return next((member for member in self.members if member.name == name), None)

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._by_id


Payload: TypeAlias = "bytes | Configuration | None"
"""What an entry carries: a command's bytes, a configuration, or None for a leader's no-op."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One slot of the replicated log. Equal index and term mean equal payload (Log Matching, section 5.3)."""

    index: int
    term: int
    payload: Payload

    @property
    def size_bytes(self) -> int:
        payload = self.payload
        return ENTRY_OVERHEAD_BYTES + (len(payload) if isinstance(payload, bytes) else 0)


@dataclass(frozen=True, slots=True)
class HardState:
    """Term and vote: one record, durable before anything that depends on it leaves the node (section 5.1)."""

    term: int = 0
    voted_for: NodeId | None = None


@dataclass(frozen=True, slots=True)
class SnapshotMeta:
    """What a snapshot stands for: the log up to and including ``last_included_index`` (section 7)."""

    last_included_index: int
    last_included_term: int
    configuration: Configuration


class Role(enum.Enum):
    """What a node is at the moment; the values are the words that status tables show."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class RecoveredState:
    """What storage found on disk: the core starts from exactly this.

    ``commit_hint`` is a commit index known to be true at some earlier time; it may lag. Entries start
    right after ``snapshot`` (or at index 1 without one) and have no gap.
    """

    hard_state: HardState = HardState()
    snapshot: SnapshotMeta | None = None
    entries: tuple[Entry, ...] = ()
    commit_hint: int = 0
