"""A follower: takes what the leader of its term sends, and waits for silence (section 5.2).

An AppendEntries is accepted only where the logs agree just before its entries; then only entries that
really conflict are removed, so that an old or duplicated message, being a prefix, removes nothing
(section 5.3, SAFETY 11). What it acknowledges, and commits, never goes beyond what this very message has
shown to agree (SAFETY 10): the log may hold more, left over from another leader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lattice_core.raft.errors import Busy, InvariantViolation, NotLeader
from lattice_core.raft.messages import (
    AppendConflict,
    AppendEntries,
    AppendSuccess,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
)
from lattice_core.raft.role import RoleState
from lattice_core.raft.types import NodeId, Role

if TYPE_CHECKING:
    from lattice_core.raft.node import RaftNode


class Follower(RoleState):
    """See the module's docstring. Learners are followers too: they only never campaign."""

    role = Role.FOLLOWER

    def __init__(self, node: RaftNode, election_deadline_ns: int | None = None) -> None:
        super().__init__(node)
        self.election_deadline_ns = (
            election_deadline_ns if election_deadline_ns is not None else node.draw_election_deadline()
        )
        # Forwarded reads: id on the wire -> (the driver's request id, when to give up).
        self._forwarded: dict[int, tuple[int, int]] = {}

    @property
    def deadline_ns(self) -> int:
        if self._forwarded:
            _, oldest = next(iter(self._forwarded.values()))
            return min(oldest, self.election_deadline_ns)
        return self.election_deadline_ns

    @deadline_ns.setter
    def deadline_ns(self, value: int) -> None:
        self.election_deadline_ns = value

    def election_deadline(self) -> int:
        return self.election_deadline_ns  # not ``deadline_ns``: a waiting read must not hasten an election

    def on_deadline(self) -> None:
        node = self.node
        self._give_up_old_reads()
        if node.now_ns < self.election_deadline_ns:
            return
        self.election_deadline_ns = node.draw_election_deadline()
        reason = f"heard nothing from {node.name(node.leader_id)}" if node.leader_id is not None else "no leader heard"
        if node.may_campaign:
            node.become_pre_candidate(reason)
        else:
            node.forget_leader(reason)

    def on_leave(self) -> None:
        for request_id, _ in self._forwarded.values():
            self.node.refuse_read(request_id)
        self._forwarded.clear()

    def on_vote_granted(self) -> None:
        self.election_deadline_ns = self.node.draw_election_deadline()

    # ---- the leader's messages ----------------------------------------------------------------------

    def _hear(self, sender: NodeId) -> None:
        node = self.node
        node.set_leader(sender)
        self.election_deadline_ns = node.draw_election_deadline()
        node.protect_until_ns = node.now_ns + node.config.election_timeout_min_ns

    def on_append_entries(self, message: AppendEntries) -> None:
        node, log = self.node, self.node.log
        entries = message.entries
        previous, previous_term = message.prev_log_index, message.prev_log_term
        self._hear(message.sender)
        if previous < log.commit_index:
            # Committed entries agree with every later leader's log (Leader Completeness), so whatever of
            # this message lies at or below the commit index is here already, if perhaps compacted.
            known = entries[: log.commit_index - previous]
            if known:
                previous, previous_term = known[-1].index, known[-1].term
            self._require_agreement(message, previous, previous_term)
            entries = entries[len(known) :]
            previous = log.commit_index
        elif log.term_at(previous) != previous_term:
            if previous == log.commit_index:
                self._require_agreement(message, previous, previous_term)
            self._send_conflict(message)
            return
        for position, entry in enumerate(entries):
            term = log.term_at(entry.index)
            if term == entry.term:
                continue
            if term is not None:
                node.truncate_from(entry.index)
            node.append(entries[position:])
            break
        match = previous + len(entries)
        log.commit_to(min(message.leader_commit, match))
        # "Durably": the answer leaves only when all that this node has appended so far is on disk.
        node.send(AppendSuccess(node.id, message.sender, node.term, match, message.round), when_durable=True)

    def _require_agreement(self, message: AppendEntries, index: int, term: int) -> None:
        """Going on with a leader that has another entry where we have committed would lose an acknowledged one."""
        ours = self.node.log.term_at(index)
        if ours is not None and ours != term:
            raise InvariantViolation(
                f"{self.node.name(message.sender)} leads term {message.term} with an entry {index} of term {term}; "
                f"the one committed here is of term {ours}"
            )

    def _send_conflict(self, message: AppendEntries) -> None:
        node, log = self.node, self.node.log
        rejected = message.prev_log_index
        term = log.term_at(rejected)
        # rejected >= commit >= offset, so a missing term means that the log is too short.
        index = (
            log.last_index + 1 if term is None else max(log.first_index_of_term(term, rejected), log.commit_index + 1)
        )
        node.send(
            AppendConflict(node.id, message.sender, node.term, rejected, term, index, message.round, message.flight)
        )

    def on_heartbeat(self, message: Heartbeat) -> None:
        node = self.node
        self._hear(message.sender)
        if message.commit > node.log.last_index:
            raise InvariantViolation(
                f"the leader knows {message.commit} to be on this node's disk, the log here ends at "
                f"{node.log.last_index}: acknowledged entries are missing"
            )
        node.log.commit_to(message.commit)
        node.send(HeartbeatResponse(node.id, message.sender, node.term, message.round))

    def on_install_snapshot(self, message: InstallSnapshot) -> None:
        node, snapshot = self.node, message.snapshot
        self._hear(message.sender)
        if snapshot.last_included_index > node.log.commit_index:
            node.restore(snapshot)
        # At or below the commit index it brings nothing new (SAFETY 27), and what is committed is here.
        match = max(snapshot.last_included_index, node.log.commit_index)
        node.send(AppendSuccess(node.id, message.sender, node.term, match, message.round), when_durable=True)

    def on_timeout_now(self, message: TimeoutNow) -> None:
        """Thesis section 3.10; SAFETY 46: only from the leader of this very term, and only if we vote."""
        node = self.node
        if node.leader_id not in (None, message.sender) or not node.configuration.is_voter(node.id):
            return
        node.become_candidate(f"{node.name(message.sender)} hands leadership over", leadership_transfer=True)

    # ---- reads --------------------------------------------------------------------------------------

    def read_index(self, request_id: int) -> None:
        node = self.node
        if node.leader_id is None:
            raise NotLeader(None)
        if len(self._forwarded) + node.unapplied_reads >= node.config.max_pending_reads:
            raise Busy(f"{len(self._forwarded)} reads wait for the leader, {node.unapplied_reads} to be applied")
        node.next_forward_id += 1
        self._forwarded[node.next_forward_id] = (
            request_id,
            node.now_ns + node.config.election_timeout_max_ns,
        )
        node.send(ReadIndexRequest(node.id, node.leader_id, node.term, node.next_forward_id))

    def on_read_index_response(self, message: ReadIndexResponse) -> None:
        found = self._forwarded.pop(message.request_id, None)
        if found is None:
            return
        if message.read_index is None:
            self.node.refuse_read(found[0])
        else:
            self.node.confirmed_read(found[0], message.read_index)

    def _give_up_old_reads(self) -> None:
        for wire_id, (request_id, give_up_ns) in list(self._forwarded.items()):
            if give_up_ns > self.node.now_ns:
                break
            del self._forwarded[wire_id]
            self.node.refuse_read(request_id)
