"""A leader: appends, replicates, commits, confirms reads, changes members, hands over (sections 5.3 to 6).

Commitment. An entry is committed when a quorum holds it durably *and* it is of this leader's term; earlier
ones are committed with it, never by counting (section 5.4.2, Figure 8; SAFETY 9). The leader's own copy
counts when its own disk has it, written in parallel with the sends (SAFETY 13; thesis section 10.2.1).

Sending is lazy: inputs only change state, and ``flush``, called when a Ready is built, sends what is due.
So all that was proposed in one turn of the driver's loop goes out in one AppendEntries.

Every heartbeat interval starts a new round (reads.py). A leader that no quorum has answered for a whole
election timeout steps down (check-quorum; thesis section 6.2, SAFETY 7): it could commit nothing anyway,
and whoever can reach a quorum should be free to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lattice_core.raft import quorum
from lattice_core.raft.errors import Busy, Refused
from lattice_core.raft.membership import MembershipChange, leave_joint, next_configuration
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
from lattice_core.raft.progress import Progress, ProgressState
from lattice_core.raft.reads import LeaderReads, PendingRead
from lattice_core.raft.ready import TransferEnded
from lattice_core.raft.role import RoleState
from lattice_core.raft.types import Entry, NodeId, Payload, Role

if TYPE_CHECKING:
    from lattice_core.raft.node import RaftNode


class Leader(RoleState):
    """The leader of ``node.term``. See the module's docstring."""

    role = Role.LEADER

    def __init__(self, node: RaftNode) -> None:
        super().__init__(node)
        self.progress: dict[NodeId, Progress] = {}
        self.reads = LeaderReads()
        self.term = node.term
        self.term_start_index = node.log.last_index + 1
        """Where this leader's no-op goes: once that is committed, so is everything before it."""
        self.uncommitted_bytes = sum(
            entry.size_bytes for entry in node.log.between(node.log.commit_index + 1, node.log.last_index)
        )
        self.transfer_target: NodeId | None = None
        self.transfer_deadline_ns = 0
        self._timeout_now_sent = False
        self._lease_given_up = False
        self._heartbeat_due_ns = node.now_ns
        self._announce_commit = False
        self._departed_until_ns = 0
        self._ask_others_ns: int | None = None
        """When voters that were not asked to confirm the present round of reads are asked as well."""

    def begin(self) -> None:
        """Just elected: a no-op of the new term, and heartbeats so that everyone knows (sections 5.4.2, 8)."""
        self.on_configuration_changed()
        self._append(None)
        self._heartbeat()

    # ---- time ---------------------------------------------------------------------------------------

    @property
    def deadline_ns(self) -> int:  # type: ignore[override]
        deadline_ns = self._heartbeat_due_ns
        if self.transfer_target is not None:
            deadline_ns = min(deadline_ns, self.transfer_deadline_ns)
        if self._ask_others_ns is not None:
            deadline_ns = min(deadline_ns, self._ask_others_ns)
        return deadline_ns

    def on_deadline(self) -> None:
        node = self.node
        if self.transfer_target is not None and node.now_ns >= self.transfer_deadline_ns:
            self._abort_transfer("it did not take over in time")
        if self._ask_others_ns is not None and node.now_ns >= self._ask_others_ns:
            self._ask_others_to_confirm()
        if node.now_ns < self._heartbeat_due_ns:
            return
        silent_since = node.now_ns - node.config.election_timeout_max_ns
        heard = {peer for peer, progress in self.progress.items() if progress.last_heard_ns > silent_since}
        heard.add(node.id)
        if not quorum.is_quorum(node.configuration, heard):
            node.become_follower(node.term, None, "no quorum answered for an election timeout")
            return
        self._heartbeat()

    def on_leave(self) -> None:
        for read in (*self.reads.waiting, *self.reads.confirming):
            if read.origin is None:
                self.node.refuse_read(read.request_id)
        if self.transfer_target is not None:
            taken_over = self.node.term > self.term
            self.node.event(TransferEnded(self.transfer_target, None if taken_over else "this server stopped leading"))
            self.transfer_target = None

    def _heartbeat(self) -> None:
        """Start a round and tell everyone."""
        self.reads.start_round(self.node.now_ns)
        self._heartbeat_due_ns = self.node.now_ns + self.node.config.heartbeat_interval_ns
        for peer in self.progress:
            self._send_heartbeat(peer)
        self._forget_departed()
        self._quorum_echoed()  # a leader that is the only voter has its quorum already

    def _send_heartbeat(self, peer: NodeId) -> None:
        node, progress = self.node, self.progress[peer]
        # Never more than the follower is known to hold, so that it needs no log check.
        commit = min(progress.match_index, node.log.commit_index)
        progress.sent_commit = max(progress.sent_commit, commit)
        progress.heartbeat_sent(self.reads.round, node.now_ns)
        node.send(Heartbeat(node.id, peer, node.term, commit, self.reads.round))

    # ---- proposing ----------------------------------------------------------------------------------

    def propose(self, payload: bytes) -> Entry:
        node = self.node
        if self.transfer_target is not None:
            raise Busy(f"leadership is being handed to {node.name(self.transfer_target)}")
        if self.uncommitted_bytes and self.uncommitted_bytes + len(payload) > node.config.max_uncommitted_bytes:
            raise Busy(
                f"{self.uncommitted_bytes} bytes wait for a majority; the bound is {node.config.max_uncommitted_bytes}"
            )
        return self._append(payload)

    def _append(self, payload: Payload) -> Entry:
        node = self.node
        entry = Entry(node.log.last_index + 1, node.term, payload)
        self.uncommitted_bytes += entry.size_bytes
        node.append((entry,))
        return entry

    # ---- sending ------------------------------------------------------------------------------------

    def flush(self) -> None:
        if self.reads.waiting and not self.reads.confirming and self._knows_commit():
            self._confirm_waiting_reads()
        for peer, progress in self.progress.items():
            self._send_due(peer, progress)
        if self._announce_commit:
            # A change of members ended: those who are about to leave should know, and waiting for the next
            # heartbeat would keep them guessing.
            self._announce_commit = False
            for peer, progress in self.progress.items():
                if progress.sent_commit < min(progress.match_index, self.node.log.commit_index):
                    self._send_heartbeat(peer)
            self._forget_departed()

    def _send_due(self, peer: NodeId, progress: Progress) -> None:
        log, config = self.node.log, self.node.config
        if progress.state is ProgressState.REPLICATE:
            while progress.next_index <= log.last_index:
                if progress.window_is_full(config.max_inflight_appends, config.max_inflight_bytes):
                    return
                if not self._send_append(peer, progress, config.max_append_bytes):
                    return
        elif progress.state is ProgressState.PROBE and not progress.probe_sent:
            self._send_append(peer, progress, config.max_append_bytes)
            progress.probed(self.node.now_ns + config.heartbeat_interval_ns)

    def _send_append(self, peer: NodeId, progress: Progress, max_bytes: int) -> bool:
        """Send what follows ``next_index``; False: it is compacted here, and a snapshot goes instead."""
        node, log = self.node, self.node.log
        previous = progress.next_index - 1
        previous_term = log.term_at(previous)
        if previous_term is None:
            assert log.snapshot is not None
            progress.become_snapshot(log.snapshot.last_included_index)
            node.send(InstallSnapshot(node.id, peer, node.term, log.snapshot, self.reads.round))
            return False
        entries = log.from_index(progress.next_index, max_bytes) if max_bytes else ()
        progress.sent_commit = max(progress.sent_commit, min(log.commit_index, previous + len(entries)))
        node.send(
            AppendEntries(
                node.id,
                peer,
                node.term,
                previous,
                previous_term,
                entries,
                log.commit_index,
                self.reads.round,
                progress.flight,
            )
        )
        if entries and progress.state is ProgressState.REPLICATE:
            progress.sent(entries[-1].index, sum(entry.size_bytes for entry in entries), node.now_ns)
        return True

    # ---- answers ------------------------------------------------------------------------------------

    def _heard(self, peer: NodeId, round_: int) -> Progress | None:
        progress = self.progress.get(peer)
        if progress is None:
            return None  # no longer, or not yet, a member: its answers decide nothing
        progress.last_heard_ns = self.node.now_ns
        if round_ > progress.acked_round:
            progress.acked_round = round_
            self._quorum_echoed()
        return progress

    def on_append_success(self, message: AppendSuccess) -> None:
        node = self.node
        if message.match_index > node.log.last_index:
            raise Refused(f"{node.name(message.sender)} acknowledges {message.match_index}, never sent")
        progress = self._heard(message.sender, message.round)
        if progress is None:
            return
        advanced = progress.acknowledged(message.match_index, node.now_ns)
        if progress.state is ProgressState.PROBE:
            # A late answer to something sent long before the probe does not answer the probe.
            if message.match_index >= progress.next_index - 1:
                progress.become_replicate()
        elif progress.state is ProgressState.SNAPSHOT and progress.match_index >= progress.pending_snapshot_index:
            progress.become_replicate()
        if advanced:
            self._maybe_commit()
            self._maybe_send_timeout_now()
            if progress.sent_commit < progress.wants_commit <= progress.match_index:
                self._send_heartbeat(message.sender)

    def on_append_conflict(self, message: AppendConflict) -> None:
        node = self.node
        if message.rejected_index > node.log.last_index:
            raise Refused(f"{node.name(message.sender)} rejects entry {message.rejected_index}, never sent")
        progress = self._heard(message.sender, message.round)
        if progress is None or message.rejected_index <= progress.match_index:
            return  # overtaken by an acknowledgement: it must not lower anything (SAFETY 14)
        if message.flight != progress.flight or progress.state is ProgressState.SNAPSHOT:
            return  # about what was sent before the last change of state
        agree = message.conflict_index
        if message.conflict_term is not None:
            last = self.node.log.last_index_of_term(message.conflict_term, message.rejected_index)
            if last is not None:
                agree = last + 1
        progress.become_probe(min(agree, message.rejected_index))

    def on_heartbeat_response(self, message: HeartbeatResponse) -> None:
        node = self.node
        progress = self._heard(message.sender, message.round)
        if progress is None:
            return
        progress.heartbeat_answered(message.round, node.now_ns, node.config.heartbeat_interval_ns)
        if progress.state is ProgressState.PROBE:
            if node.now_ns >= progress.probe_again_ns:
                progress.probe_sent = False  # the last probe or its answer may be lost; ask again
        elif progress.state is ProgressState.REPLICATE and progress.inflight_count:
            waited = node.now_ns - progress.last_ack_ns
            if waited > 2 * node.config.heartbeat_interval_ns:
                # It answers heartbeats but not appends: probably one was lost. An empty append at the end of
                # what was sent is acknowledged if all arrived, and rejected, so repaired, if not.
                progress.last_ack_ns = node.now_ns
                self._send_append(message.sender, progress, 0)

    def on_unreachable(self, peer: NodeId) -> None:
        progress = self.progress.get(peer)
        if progress is not None and progress.state is ProgressState.REPLICATE:
            progress.become_probe(progress.match_index + 1)
            progress.probe_sent = True  # wait for a heartbeat's answer

    def on_snapshot_report(self, peer: NodeId, delivered: bool) -> None:
        progress = self.progress.get(peer)
        if progress is None or progress.state is not ProgressState.SNAPSHOT:
            return
        progress.become_probe(progress.pending_snapshot_index + 1 if delivered else progress.match_index + 1)
        progress.probe_sent = True

    # ---- committing ---------------------------------------------------------------------------------

    def on_persisted(self) -> None:
        self._maybe_commit()

    def _match_of(self, node_id: NodeId) -> int:
        if node_id == self.node.id:
            return self.node.durability.durable_index
        progress = self.progress.get(node_id)
        return progress.match_index if progress is not None else 0

    def _maybe_commit(self) -> None:
        node, log = self.node, self.node.log
        index = quorum.quorum_value(node.configuration, self._match_of)
        # Only entries of this term are committed by counting (Figure 8). Terms never decrease along the
        # log, so it is enough to compare with where this term starts.
        if index <= log.commit_index or index < self.term_start_index:
            return
        self.uncommitted_bytes -= sum(entry.size_bytes for entry in log.between(log.commit_index + 1, index))
        before = log.commit_index
        log.commit_to(index)
        if before < log.configuration_index <= index:
            self._configuration_committed()
        elif before < self.term_start_index and log.configuration.is_joint:
            self._configuration_committed()  # found on election, committed with the no-op

    def _knows_commit(self) -> bool:
        """Whether an entry of this term is committed, and with it all that predecessors committed."""
        return self.node.log.commit_index >= self.term_start_index

    # ---- membership ---------------------------------------------------------------------------------

    def on_configuration_changed(self) -> None:
        node = self.node
        for configuration in node.log.configurations_in_doubt():
            for member in configuration.members:
                if member.id != node.id and member.id not in self.progress:
                    self.progress[member.id] = Progress(node.log.last_index + 1, node.now_ns)
        if self.transfer_target is not None and self.transfer_target not in node.configuration.voters:
            self._abort_transfer("it is no longer a voter")

    def propose_membership(self, change: MembershipChange) -> int:
        """SAFETY 33: one change at a time, and none before this term has committed (Ongaro, raft-dev 2015)."""
        node = self.node
        if self.transfer_target is not None:
            raise Busy(f"leadership is being handed to {node.name(self.transfer_target)}")
        if not self._knows_commit():
            raise Refused("this leader has not committed anything in its term yet; try again in a moment")
        if node.log.configuration_index > node.log.commit_index:
            raise Refused("a membership change is still under way; wait until it is finished")
        return self._append(next_configuration(node.configuration, change)).index

    def _forget_departed(self) -> None:
        """Who has left is served until it has been told so, or an election timeout has passed: else it could not
        know that it is no longer needed, and would go on asking for votes."""
        node = self.node
        in_doubt = node.log.configurations_in_doubt()
        for peer, progress in list(self.progress.items()):
            if any(peer in configuration for configuration in in_doubt):
                continue
            if progress.sent_commit >= node.log.configuration_index or node.now_ns >= self._departed_until_ns:
                del self.progress[peer]

    def _configuration_committed(self) -> None:
        node = self.node
        self._announce_commit = True
        self._departed_until_ns = node.now_ns + node.config.election_timeout_max_ns
        if node.configuration.is_joint:
            self._append(leave_joint(node.configuration))
        elif node.id not in node.configuration.voters:
            # It has led without counting itself (SAFETY 34); now the others can do without it. Whoever
            # is in the new configuration should hear of the commit from this leader, if it can.
            self.flush()
            node.become_follower(node.term, None, "no longer a voter")

    # ---- reads --------------------------------------------------------------------------------------

    def read_index(self, request_id: int) -> None:
        node = self.node
        if len(self.reads) + node.unapplied_reads >= node.config.max_pending_reads:
            raise Busy(f"{len(self.reads)} reads wait for a majority, {node.unapplied_reads} to be applied")
        self.reads.waiting.append(PendingRead(request_id, None))

    def on_read_index_request(self, message: ReadIndexRequest) -> None:
        if len(self.reads) < self.node.config.max_pending_reads:
            self.reads.waiting.append(PendingRead(message.request_id, message.sender))
        else:
            super().on_read_index_request(message)

    def _confirm_waiting_reads(self) -> None:
        """A round that starts now, for every read that has arrived; appends due anyway carry it.

        The quickest voters that make a quorum are asked, the others only if these do not answer soon: that more would
        know changes nothing, and of three members' work for a read it is a third.
        """
        node = self.node
        self.reads.start_round(node.now_ns)
        self.reads.begin_confirming(node.log.commit_index)
        asked = quorum.completing(node.configuration, node.id, self._voters_by_echo())
        for peer in asked:
            self._send_heartbeat(peer)
        if asked:
            usual_ns = max(self.progress[peer].usual_echo_ns for peer in asked)
            patience_ns = min(
                max(node.config.confirm_patience_ns, 3 * usual_ns), node.config.heartbeat_interval_ns // 4
            )
            self._ask_others_ns = node.now_ns + patience_ns
        self._quorum_echoed()

    def _voters_by_echo(self) -> list[NodeId]:
        """The other voters, those first that will probably answer first."""
        node, progress = self.node, self.progress
        voters = [peer for peer in progress if node.configuration.is_voter(peer)]
        return sorted(voters, key=lambda peer: progress[peer].promptness(node.now_ns))

    def _ask_others_to_confirm(self) -> None:
        self._ask_others_ns = None
        for peer, progress in self.progress.items():
            # An older one that was not answered does not matter: this is asked once for a round.
            if progress.acked_round < self.reads.confirming_round and self.node.configuration.is_voter(peer):
                self._send_heartbeat(peer)

    def _round_of(self, node_id: NodeId) -> int:
        if node_id == self.node.id:
            return self.reads.round
        progress = self.progress.get(node_id)
        return progress.acked_round if progress is not None else 0

    def _quorum_echoed(self) -> None:
        node = self.node
        index = self.reads.confirming_index
        confirmed = self.reads.quorum_echoed(quorum.quorum_value(node.configuration, self._round_of))
        if not self.reads.confirming:
            self._ask_others_ns = None
        for read in confirmed:
            if read.origin is None:
                node.confirmed_read(read.request_id, index)
                continue
            node.send(ReadIndexResponse(node.id, read.origin, node.term, read.request_id, index))
            progress = self.progress.get(read.origin)
            if progress is not None:
                # It can answer once it knows the commit index; now, or when it has what is committed.
                progress.wants_commit = index
                self._send_heartbeat(read.origin)

    def lease_read_index(self) -> int | None:
        node = self.node
        start = self.reads.lease_from_ns
        if start is None or self._lease_given_up or not self._knows_commit():
            return None
        return node.log.commit_index if node.now_ns < start + node.config.lease_duration_ns else None

    # ---- leadership transfer (thesis section 3.10) --------------------------------------------------

    def transfer_leader(self, target: NodeId | None) -> NodeId:
        node = self.node
        if self.transfer_target is not None:
            raise Refused(f"leadership is already being handed to {node.name(self.transfer_target)}")
        if target is None:
            target = self._best_placed_voter()
        if target == node.id:
            raise Refused(f"{node.name(target)} leads already")
        if target not in node.configuration.voters:
            what = "is a learner" if target in node.configuration.learners else "is not a member"
            raise Refused(f"{node.name(target)} {what} and cannot lead")
        self.transfer_target = target
        self.transfer_deadline_ns = node.now_ns + node.config.election_timeout_max_ns
        self._maybe_send_timeout_now()
        return target

    def _best_placed_voter(self) -> NodeId:
        node = self.node
        recently = node.now_ns - node.config.election_timeout_min_ns
        found = [
            (progress.match_index, progress.last_heard_ns, -peer)
            for peer, progress in self.progress.items()
            if peer in node.configuration.voters and progress.last_heard_ns > recently
        ]
        if not found:
            raise Refused("no other voter answers")
        return -max(found)[2]

    def _maybe_send_timeout_now(self) -> None:
        node, target = self.node, self.transfer_target
        if target is None or self._timeout_now_sent or target not in self.progress:
            return
        if self.progress[target].match_index < node.log.last_index:
            return  # it gets what it lacks by the ordinary way; proposals are paused
        self._lease_given_up = True  # before the message leaves, and for the rest of the term (SAFETY 42)
        self._timeout_now_sent = True
        node.send(TimeoutNow(node.id, target, node.term))

    def _abort_transfer(self, reason: str) -> None:
        """Serve again; the lease stays given up, since TimeoutNow may still be on its way."""
        assert self.transfer_target is not None
        self.node.event(TransferEnded(self.transfer_target, reason))
        self.transfer_target = None
        self._timeout_now_sent = False
