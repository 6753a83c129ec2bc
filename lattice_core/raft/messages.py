"""What nodes say to each other: one frozen class per message, and no optional fields that only some use.

Every message names its ``sender``, its addressee ``to`` and a ``term``. Requests of a leader or
candidate carry its own term; answers carry the term of who answers, so that a stale leader or candidate
learns of the newer term. A message may be lost, duplicated, delayed or overtaken by another; nothing in
the core relies on order. (The transport keeps order because it is cheap and makes conflicts rare.)

Where we add to the paper's two RPCs, and why:

* pre-vote (thesis section 9.6): ask whether an election could be won before disturbing anybody;
* heartbeats apart from AppendEntries: a heartbeat is never behind a full window or a big batch;
* ``round``: both carry the leader's confirmation round, echoed in the answer. One quorum of echoes
  confirms leadership for every read that waited for that round (thesis section 6.4) and extends the
  lease from the time the round *started*;
* answers to AppendEntries are two classes, success(match) and conflict(hint), not a flag.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from lattice_core.raft.types import Entry, NodeId, SnapshotMeta


@dataclass(frozen=True, slots=True)
class PreVoteRequest:
    """Would you vote for me in ``term``? Changes nothing at the receiver (thesis section 9.6)."""

    sender: NodeId
    to: NodeId
    term: int
    """The term the sender *would* start: its current term plus one."""
    last_log_index: int
    last_log_term: int


@dataclass(frozen=True, slots=True)
class PreVoteResponse:
    sender: NodeId
    to: NodeId
    term: int
    """Granted: the proposed term, echoed. Refused: the responder's own term, so nobody waits for ever
    behind a shorter log of a newer term (etcd issue 8243)."""
    granted: bool


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """RequestVote (section 5.2)."""

    sender: NodeId
    to: NodeId
    term: int
    last_log_index: int
    last_log_term: int
    leadership_transfer: bool
    """The leader itself asked for this election, so voters do not protect it (thesis section 4.2.3)."""


@dataclass(frozen=True, slots=True)
class VoteResponse:
    sender: NodeId
    to: NodeId
    term: int
    granted: bool


@dataclass(frozen=True, slots=True)
class AppendEntries:
    """AppendEntries (section 5.3). Empty ``entries`` probe whether the logs agree at ``prev_log_index``."""

    sender: NodeId
    to: NodeId
    term: int
    prev_log_index: int
    prev_log_term: int
    entries: tuple[Entry, ...]
    leader_commit: int
    round: int
    flight: int = 0
    """Echoed by a conflict; see :class:`~lattice_core.raft.progress.Progress`."""

    def fault(self) -> str | None:
        """Why no correct leader can have sent this; None if one can."""
        index, term = self.prev_log_index, self.prev_log_term
        for entry in self.entries:
            if entry.index != index + 1:
                return f"entry {entry.index} cannot follow entry {index}"
            if entry.term < term:
                return f"entry {entry.index} of term {entry.term} cannot follow one of term {term}"
            index, term = entry.index, entry.term
        return f"entry {index} is of term {term}, later than its leader's, {self.term}" if term > self.term else None


@dataclass(frozen=True, slots=True)
class AppendSuccess:
    """The sender's log agrees with the leader's up to ``match_index``, durably."""

    sender: NodeId
    to: NodeId
    term: int
    match_index: int
    round: int


@dataclass(frozen=True, slots=True)
class AppendConflict:
    """The logs differ at ``rejected_index``, or the sender's term is newer than the leader's.

    ``conflict_term`` is the term of the sender's entry at ``rejected_index`` (None: the log is too short
    or that place is compacted), ``conflict_index`` the first index of that term in the sender's log, or
    one past its end: one round trip per conflicting term, not per entry (end of section 5.3).
    """

    sender: NodeId
    to: NodeId
    term: int
    rejected_index: int
    conflict_term: int | None
    conflict_index: int
    round: int
    flight: int = 0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """I lead. ``commit`` never exceeds what this follower is known to have, so no log check is needed."""

    sender: NodeId
    to: NodeId
    term: int
    commit: int
    round: int


@dataclass(frozen=True, slots=True)
class HeartbeatResponse:
    sender: NodeId
    to: NodeId
    term: int
    round: int


@dataclass(frozen=True, slots=True)
class InstallSnapshot:
    """A snapshot that has arrived whole (section 7).

    The core of a leader emits this to say "send this follower a snapshot at or above this index"; the
    driver streams the file beside the message flow. The follower's driver steps it into its own core
    only when every byte is there and the digest is right, with ``snapshot`` read from the file.
    """

    sender: NodeId
    to: NodeId
    term: int
    snapshot: SnapshotMeta
    round: int

    def fault(self) -> str | None:
        """Why no correct leader can have sent this; None if one can."""
        term = self.snapshot.last_included_term
        return f"a snapshot of term {term}, later than its leader's, {self.term}" if term > self.term else None


@dataclass(frozen=True, slots=True)
class TimeoutNow:
    """Start an election at once: leadership is being handed to you (thesis section 3.10)."""

    sender: NodeId
    to: NodeId
    term: int


@dataclass(frozen=True, slots=True)
class ReadIndexRequest:
    """A follower asks its leader for an index that a linearizable read has to wait for (thesis section 6.4)."""

    sender: NodeId
    to: NodeId
    term: int
    request_id: int


@dataclass(frozen=True, slots=True)
class ReadIndexResponse:
    """``read_index`` is None where the sender cannot say (it does not lead): ask the leader again."""

    sender: NodeId
    to: NodeId
    term: int
    request_id: int
    read_index: int | None


Message: TypeAlias = (
    PreVoteRequest
    | PreVoteResponse
    | VoteRequest
    | VoteResponse
    | AppendEntries
    | AppendSuccess
    | AppendConflict
    | Heartbeat
    | HeartbeatResponse
    | InstallSnapshot
    | TimeoutNow
    | ReadIndexRequest
    | ReadIndexResponse
)

RESPONSES = (
    PreVoteResponse,
    VoteResponse,
    AppendSuccess,
    AppendConflict,
    HeartbeatResponse,
    ReadIndexResponse,
)
"""Messages that answer another; a transport may send them back on the stream the question came by."""
