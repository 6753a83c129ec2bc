"""One server's consensus: pure, deterministic, driven from outside.

Theory. Raft (Ongaro and Ousterhout 2014) keeps one log on every server. A leader, elected for a term by a
majority, appends; entries that a majority holds durably are committed and never change. This module
holds what survives a change of role (term, vote, log, what is durable) and the rules that every role
obeys about terms; the roles themselves are objects in ``follower.py``, ``candidate.py`` and ``leader.py``.

Purity. No clock, no randomness of its own, no I/O, no tasks. Every input carries ``now_ns``, a number
that never goes back; ``next_deadline_ns`` says when ``tick`` is wanted. A seeded ``random.Random`` is passed
in. The same inputs give the same outputs, byte for byte, in any process: nothing here iterates over a set.

Where we differ from the paper, docs/divergences.md says why. In short: pre-vote and leader protection
always; heartbeats apart from appends; a leader that hears from no quorum steps down; a leader's own
vote and own copy of an entry count only when durable.

Limits. A node trusts its members: Raft is not Byzantine. ``step`` checks what it must to stay consistent
and raises :class:`Refused` (nothing changed) on a message that no correct member can have sent, and
:class:`InvariantViolation` where going on could lose acknowledged writes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from lattice_core.raft.candidate import Candidate, PreCandidate
from lattice_core.raft.config import RaftConfig
from lattice_core.raft.durability import Durability
from lattice_core.raft.errors import InvariantViolation, NotLeader, Refused
from lattice_core.raft.follower import Follower
from lattice_core.raft.leader import Leader
from lattice_core.raft.log import RaftLog
from lattice_core.raft.membership import MembershipChange
from lattice_core.raft.messages import (
    AppendConflict,
    AppendEntries,
    AppendSuccess,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from lattice_core.raft.progress import Progress
from lattice_core.raft.ready import (
    ConfigurationChanged,
    Event,
    ReadRefused,
    ReadReleased,
    Ready,
    RoleChanged,
)
from lattice_core.raft.role import RoleState
from lattice_core.raft.types import (
    Configuration,
    Entry,
    HardState,
    NodeId,
    RecoveredState,
    Role,
    SnapshotMeta,
)

MAX_TERM = 1 << 62
"""Terms are counted one by one: no cluster ever gets near. Beyond it, disk and wire could not hold the next one."""

_FROM_A_LEADER = (AppendEntries, Heartbeat, InstallSnapshot, TimeoutNow)

_HANDLERS: dict[type, Callable[[RoleState, Any], None]] = {
    AppendEntries: lambda role, message: role.on_append_entries(message),
    AppendSuccess: lambda role, message: role.on_append_success(message),
    AppendConflict: lambda role, message: role.on_append_conflict(message),
    Heartbeat: lambda role, message: role.on_heartbeat(message),
    HeartbeatResponse: lambda role, message: role.on_heartbeat_response(message),
    InstallSnapshot: lambda role, message: role.on_install_snapshot(message),
    VoteResponse: lambda role, message: role.on_vote_response(message),
    TimeoutNow: lambda role, message: role.on_timeout_now(message),
    ReadIndexRequest: lambda role, message: role.on_read_index_request(message),
    ReadIndexResponse: lambda role, message: role.on_read_index_response(message),
}


class RaftNode:
    """The consensus core of one server. See the module's docstring, and ready.py for the driver's loop.

    Args:
        node_id: this server's id.
        config: timeouts and bounds.
        recovered: what storage found; the first configuration comes as a snapshot at index 0.
        random: a seeded source, for election timeouts only.
        now_ns: the driver's monotonic clock.

    Not thread-safe and not re-entrant: one caller at a time.
    """

    def __init__(
        self,
        node_id: NodeId,
        config: RaftConfig,
        recovered: RecoveredState,
        random: random.Random,
        now_ns: int,
    ) -> None:
        config.validate()
        self.id = node_id
        self.config = config
        self.now_ns = now_ns
        self.random = random
        self.term = recovered.hard_state.term
        self.voted_for = recovered.hard_state.voted_for
        self.leader_id: NodeId | None = None
        self.log = RaftLog(recovered.snapshot, recovered.entries, recovered.commit_hint)
        if self.log.last_term > self.term:
            raise InvariantViolation(f"the log's last term {self.log.last_term} is beyond the term {self.term} on disk")
        self.durability = Durability(recovered.hard_state, self.log)
        # Until then no vote is given to anybody: this server may have promised, before it was restarted,
        # to protect a leader whose lease still runs (SAFETY 41).
        self.protect_until_ns = now_ns + config.election_timeout_min_ns if self.term > 0 else now_ns
        # Ids of forwarded reads start at a random number, so that a late answer to a question asked
        # before a restart cannot be taken for the answer to a new one.
        self.next_forward_id = random.getrandbits(62)
        self._applying_index = self.log.offset  # handed out for applying; follows ``restore`` too
        self._restoring = False
        self._messages: list[Message] = []
        self._after_persist: list[Message] = []
        self._events: list[Event] = []
        self._reads: list[ReadReleased] = []
        self._refused_reads: list[ReadRefused] = []
        self._unapplied_reads: list[tuple[int, int]] = []  # (index, request id), confirmed, waiting for applied
        self.state: RoleState = Follower(self)
        if all(one.all_voters == {node_id} for one in self.log.configurations_in_doubt()):
            self.state.deadline_ns = now_ns  # nobody to wait for, nor any other's lease to respect (SAFETY 41)

    # ---- what others may read -----------------------------------------------------------------------

    @property
    def role(self) -> Role:
        return self.state.role

    @property
    def is_leader(self) -> bool:
        return isinstance(self.state, Leader)

    @property
    def next_deadline_ns(self) -> int:
        """When ``tick`` is wanted next, on the clock of ``now_ns``."""
        return self.state.deadline_ns

    @property
    def configuration(self) -> Configuration:
        return self.log.configuration

    @property
    def configuration_index(self) -> int:
        return self.log.configuration_index

    @property
    def committed_configuration(self) -> tuple[int, Configuration]:
        """The newest configuration known to be committed, and an index at which it is in force."""
        return self.log.committed_configuration

    @property
    def commit_index(self) -> int:
        return self.log.commit_index

    @property
    def applied_index(self) -> int:
        return self.log.applied_index

    @property
    def last_index(self) -> int:
        return self.log.last_index

    @property
    def first_index(self) -> int:
        return self.log.first_index

    @property
    def snapshot_index(self) -> int:
        return self.log.snapshot.last_included_index if self.log.snapshot is not None else 0

    @property
    def unapplied_reads(self) -> int:
        """How many reads are confirmed and wait until their index is applied here."""
        return len(self._unapplied_reads)

    @property
    def progress(self) -> Mapping[NodeId, Progress]:
        """The leader's view of the others; empty elsewhere."""
        return self.state.progress if isinstance(self.state, Leader) else {}

    @property
    def protects_leader(self) -> bool:
        """A leader was heard from so recently that nobody gets this server's vote (thesis section 4.2.3)."""
        return self.is_leader or self.now_ns < self.protect_until_ns

    @property
    def may_campaign(self) -> bool:
        """Whether this server votes in the newest configuration, or in one that this may give way to again.

        Who is not in its own newest configuration is still needed until that is committed: its log may be longer
        than that of all who could be elected without it (thesis section 4.2.2). Its own vote does not count then.
        """
        return any(configuration.is_voter(self.id) for configuration in self.log.configurations_in_doubt())

    def may_snapshot(self, index: int) -> bool:
        """Whether a snapshot of the state applied up to ``index`` may be taken and published.

        Not before the log up to it is durable here: after a crash it would be of a term that the disk does not
        know. And not before this server knows who belonged to the cluster at ``index``: one that joined and gets the
        log from its beginning is told only by the entry that made it a member. Nor where the log has left it behind: a
        snapshot from the leader is in force, and the state machine has yet to follow.
        """
        if index < self.log.offset:
            return False
        return index <= self.durability.durable_index and bool(self.log.configuration_at(index).members)

    # ---- inputs -------------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> None:
        """Time has passed. Cheap and harmless before ``next_deadline_ns``."""
        self._advance(now_ns)
        if self.now_ns >= self.state.deadline_ns:
            self.state.on_deadline()

    def step(self, message: Message, now_ns: int) -> None:
        """A message from a member has arrived; the transport has checked cluster and sender.

        Raises Refused (nothing changed) for what no correct member sends, InvariantViolation where the
        node must stop.
        """
        self._advance(now_ns)
        if message.to != self.id or message.sender == self.id:
            raise Refused(f"message from {message.sender:016x} to {message.to:016x} is not for {self.id:016x}")
        if message.term > MAX_TERM:
            raise Refused(f"message from {message.sender:016x} of term {message.term}, beyond {MAX_TERM}")
        kind = type(message)
        if kind is PreVoteRequest:
            self._on_pre_vote_request(message)  # type: ignore[arg-type]
            return
        if kind is PreVoteResponse:
            self._on_pre_vote_response(message)  # type: ignore[arg-type]
            return
        if kind is VoteRequest:
            self._on_vote_request(message)  # type: ignore[arg-type]
            return
        if kind is AppendEntries or kind is InstallSnapshot:
            fault = message.fault()  # type: ignore[union-attr]
            if fault is not None:
                raise Refused(f"{kind.__name__} from {self.name(message.sender)}: {fault}")
        if message.term > self.term:
            leader = message.sender if kind in _FROM_A_LEADER else None
            self.become_follower(message.term, leader, f"saw term {message.term} from {self.name(message.sender)}")
        elif message.term < self.term:
            if kind in _FROM_A_LEADER:
                # Tell a stale leader, or a server with a stale term that thinks so, of the newer term.
                self.send(HeartbeatResponse(self.id, message.sender, self.term, 0))
            return
        _HANDLERS[kind](self.state, message)

    def propose(self, payload: bytes, now_ns: int) -> tuple[int, int]:
        """Append a command to the log; returns its (index, term).

        It is decided once an entry is applied at that index: with that term it is this one, with another
        term it never happened and never will. Raises NotLeader, Busy; then nothing was appended.
        """
        self._advance(now_ns)
        entry = self._leader().propose(payload)
        return entry.index, entry.term

    def propose_membership(self, change: MembershipChange, now_ns: int) -> int:
        """Begin a change of members; returns the index of its first configuration entry.

        Raises NotLeader, Busy (leadership is being handed over), Refused with the rule that it breaks.
        """
        self._advance(now_ns)
        return self._leader().propose_membership(change)

    def read_index(self, request_id: int, now_ns: int) -> None:
        """Ask for a linearizable read; ``Ready.reads`` or ``Ready.refused_reads`` will name ``request_id``.

        Leader: one confirmation round for all that wait. Elsewhere: forwarded to the leader. Raises
        NotLeader(None) where no leader is known, Busy at the bound of waiting reads.
        """
        self._advance(now_ns)
        self.state.read_index(request_id)

    def lease_read_index(self, now_ns: int) -> int | None:
        """The index that a read under the leader's lease has to wait for; None: no lease, use ``read_index``."""
        self._advance(now_ns)
        return self.state.lease_read_index()

    def transfer_leader(self, target: NodeId | None, now_ns: int) -> NodeId:
        """Begin to hand leadership to ``target`` (None: the best-placed voter); returns whom.

        Proposals are refused with Busy until it took over or an election timeout has passed; then
        ``TransferEnded`` is among the events. Raises NotLeader, Refused with the reason.
        """
        self._advance(now_ns)
        return self._leader().transfer_leader(target)

    def persisted(self, sequence: int, now_ns: int) -> None:
        """Storage has every Persist up to ``sequence`` on disk. Its messages are the driver's to send."""
        self._advance(now_ns)
        self.durability.persisted(sequence)
        self.state.on_persisted()

    def applied(self, index: int, now_ns: int) -> None:
        """The state machine has applied everything up to ``index``, or was restored from a snapshot at it."""
        self._advance(now_ns)
        log = self.log
        if not log.applied_index <= index <= log.commit_index:
            raise InvariantViolation(f"applied {index}, but applied is {log.applied_index}, commit {log.commit_index}")
        log.applied_index = index
        if self._restoring and index >= log.offset:
            self._restoring = False
        if self._unapplied_reads:
            self._release_reads()

    def compacted(self, snapshot: SnapshotMeta, through: int, now_ns: int) -> None:
        """The driver has made ``snapshot`` durable; forget entries up to ``through``, keep those after it.

        Only where ``may_snapshot`` allowed one. One that was overtaken by a newer, received from the leader
        while it was written, says nothing new and is passed over.
        """
        self._advance(now_ns)
        if snapshot.last_included_index > self.snapshot_index:
            self.log.compact(snapshot, max(through, self.log.offset))

    def report_unreachable(self, peer: NodeId, now_ns: int) -> None:
        """Messages to ``peer`` were dropped on this side: probe before sending more."""
        self._advance(now_ns)
        self.state.on_unreachable(peer)

    def report_snapshot(self, peer: NodeId, delivered: bool, now_ns: int) -> None:
        """Sending a snapshot to ``peer`` has ended. Must follow every InstallSnapshot in Ready.messages."""
        self._advance(now_ns)
        self.state.on_snapshot_report(peer, delivered)

    # ---- output -------------------------------------------------------------------------------------

    def has_ready(self) -> bool:
        self.state.flush()
        return bool(
            self._messages
            or self._after_persist
            or self._reads
            or self._refused_reads
            or self._events
            or (self.log.commit_index > self._applying_index and not self._restoring)
            or self.durability.has_work(self.hard_state, self.log)
        )

    def ready(self) -> Ready:
        """All effects since the last call; the driver must carry out every one of them."""
        self.state.flush()
        durability = self.durability
        hard_state = self.hard_state
        persist = None
        if durability.has_work(hard_state, self.log) or (self._after_persist and not durability.is_idle):
            persist = durability.hand_over(hard_state, self.log, tuple(self._after_persist))
        else:
            self._messages += self._after_persist  # everything they depend on is durable already
        committed: tuple[Entry, ...] = ()
        if not self._restoring and self.log.commit_index > self._applying_index:
            committed = self.log.between(self._applying_index + 1, self.log.commit_index)
            self._applying_index = self.log.commit_index
        ready = Ready(
            messages=tuple(self._messages),
            persist=persist,
            committed=committed,
            reads=tuple(self._reads),
            refused_reads=tuple(self._refused_reads),
            events=tuple(self._events),
        )
        self._messages.clear()
        self._after_persist.clear()
        self._reads.clear()
        self._refused_reads.clear()
        self._events.clear()
        return ready

    # ---- for the roles ------------------------------------------------------------------------------

    @property
    def hard_state(self) -> HardState:
        durable = self.durability.durable_hard_state
        if durable.term == self.term and durable.voted_for == self.voted_for:
            return durable
        return HardState(self.term, self.voted_for)

    def send(self, message: Message, *, when_durable: bool = False) -> None:
        """Queue ``message``; ``when_durable`` holds it until everything appended so far is on disk.

        A message that carries a term which is not on disk yet always waits (SAFETY 1).
        """
        if when_durable or message.term > self.durability.durable_hard_state.term:
            self._after_persist.append(message)
        else:
            self._messages.append(message)

    def send_at_once(self, message: PreVoteRequest | PreVoteResponse) -> None:
        """Queue a message whose term is only proposed: nothing durable depends on it (thesis section 9.6)."""
        self._messages.append(message)

    def event(self, event: Event) -> None:
        self._events.append(event)

    def name(self, node_id: NodeId | None) -> str:
        """A member's name for a log line."""
        if node_id is None:
            return "nobody"
        member = self.log.configuration.member(node_id)
        return member.name if member is not None else f"{node_id:016x}"

    def draw_election_deadline(self) -> int:
        """A new random wait from now (section 5.2; SAFETY 4)."""
        config = self.config
        return self.now_ns + self.random.randrange(config.election_timeout_min_ns, config.election_timeout_max_ns)

    def become_follower(self, term: int, leader_id: NodeId | None, reason: str) -> None:
        """Enter ``term``, or give up a candidacy or leadership in it."""
        assert term >= self.term
        if term > self.term:
            self.term, self.voted_for = term, None
        # Who merely sees a newer term, or is refused, keeps its timer: only a granted vote or a leader's
        # message resets it (SAFETY 4).
        self._become(Follower(self, self.state.election_deadline()), leader_id, reason)

    def become_pre_candidate(self, reason: str) -> None:
        candidate = PreCandidate(self)
        self._become(candidate, None, reason)
        candidate.begin()

    def become_candidate(self, reason: str, *, leadership_transfer: bool = False) -> None:
        self.term += 1
        self.voted_for = self.id
        candidate = Candidate(self, leadership_transfer=leadership_transfer)
        self._become(candidate, None, reason)
        candidate.begin()

    def become_leader(self, reason: str) -> None:
        leader = Leader(self)
        self._become(leader, self.id, reason)
        leader.begin()

    def forget_leader(self, reason: str) -> None:
        """The leader is silent; this server, which does not campaign, stops pointing at it."""
        if self.leader_id is not None:
            self._become(self.state, None, reason)

    def set_leader(self, leader_id: NodeId) -> None:
        """A message of this term's leader has arrived at a follower."""
        if self.leader_id is None:
            self._become(self.state, leader_id, f"{self.name(leader_id)} leads")
        elif self.leader_id != leader_id:
            raise InvariantViolation(
                f"term {self.term} has two leaders: {self.name(self.leader_id)} and {self.name(leader_id)}"
            )

    def append(self, entries: list[Entry] | tuple[Entry, ...]) -> None:
        """Append to the log; a configuration among them is in force at once (SAFETY 32)."""
        before = len(self.log.configurations)
        self.log.append(entries)
        if len(self.log.configurations) != before:
            self._configuration_changed()

    def truncate_from(self, index: int) -> None:
        before = len(self.log.configurations)
        self.log.truncate_from(index)
        self.durability.truncated(index)
        if len(self.log.configurations) != before:
            self._configuration_changed()

    def restore(self, snapshot: SnapshotMeta) -> None:
        """Take over a snapshot that has arrived whole; the driver restores the state machine from it."""
        keep_suffix = self.log.restore(snapshot)
        self.durability.restored(snapshot, keep_suffix)
        self._applying_index = snapshot.last_included_index
        self._restoring = True
        self._configuration_changed()

    def confirmed_read(self, request_id: int, index: int) -> None:
        """A read of our own is confirmed at ``index``; it is released once that is applied."""
        if index <= self.log.applied_index:
            self._reads.append(ReadReleased(request_id, index))
        else:
            self._unapplied_reads.append((index, request_id))

    def refuse_read(self, request_id: int) -> None:
        self._refused_reads.append(ReadRefused(request_id, self.leader_id))

    # ---- inside -------------------------------------------------------------------------------------

    def _advance(self, now_ns: int) -> None:
        if now_ns > self.now_ns:
            self.now_ns = now_ns

    def _leader(self) -> Leader:
        if isinstance(self.state, Leader):
            return self.state
        raise NotLeader(self.leader_id)

    def _become(self, state: RoleState, leader_id: NodeId | None, reason: str) -> None:
        former, self.state = self.state, state
        self.leader_id = leader_id
        self.event(RoleChanged(state.role, self.term, leader_id, reason))
        if former is not state:
            former.on_leave()  # last: whom it turns away hears of the leader that is, not of the one that was

    def _configuration_changed(self) -> None:
        self.event(ConfigurationChanged(self.log.configuration_index, self.log.configuration))
        self.state.on_configuration_changed()

    def _release_reads(self) -> None:
        applied = self.log.applied_index
        waiting = []
        for index, request_id in self._unapplied_reads:
            if index <= applied:
                self._reads.append(ReadReleased(request_id, index))
            else:
                waiting.append((index, request_id))
        self._unapplied_reads = waiting

    def _on_pre_vote_request(self, message: PreVoteRequest) -> None:
        """Thesis section 9.6; SAFETY 5: looks at the log and at how recently a leader was heard; changes nothing."""
        granted = (
            message.term > self.term
            and not self.protects_leader
            and self.log.is_up_to_date(message.last_log_index, message.last_log_term)
        )
        if granted:
            self.send_at_once(PreVoteResponse(self.id, message.sender, message.term, True))
        else:
            # Our own term, which the receiver takes over: it waits until it is durable, like any other.
            self.send(PreVoteResponse(self.id, message.sender, self.term, False))

    def _on_pre_vote_response(self, message: PreVoteResponse) -> None:
        if not message.granted and message.term > self.term:
            self.become_follower(message.term, None, f"saw term {message.term} from {self.name(message.sender)}")
        else:
            self.state.on_pre_vote_response(message)

    def _on_vote_request(self, message: VoteRequest) -> None:
        """RequestVote (sections 5.2 and 5.4.1), with the leader's protection of thesis section 4.2.3."""
        protected = self.protects_leader and not message.leadership_transfer
        if message.term > self.term:
            if protected:
                return  # not even the term is taken over: a disruptive server is not heard (SAFETY 35)
            self.become_follower(
                message.term, None, f"{self.name(message.sender)} asks for votes in term {message.term}"
            )
        # The protection holds within our own term too: we may have learned of the term, without any vote,
        # from somebody else's answer while a leader of an earlier term relies on its lease (SAFETY 41).
        granted = (
            not protected
            and message.term == self.term
            and self.voted_for in (None, message.sender)
            and self.log.is_up_to_date(message.last_log_index, message.last_log_term)
        )
        if granted:
            self.voted_for = message.sender
            self.state.on_vote_granted()
        # The answer waits until the vote it reports is on disk; a refusal, until its term is.
        self.send(VoteResponse(self.id, message.sender, self.term, granted), when_durable=granted)
