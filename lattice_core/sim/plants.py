"""Planted bugs: what the simulator is worth is what it catches.

Each is a mistake that somebody has really made, switched on by name for the length of one run by patching
the product from here; there is no "if bug" in the product's own code. ``docs/planted-bugs.md`` says which
seed catches each, how soon, and which check saw it; a test keeps that true.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from lattice_core.errors import InvalidRequest, UnknownCommand
from lattice_core.kv.machine import StateMachine
from lattice_core.kv.sessions import SessionTable
from lattice_core.raft import quorum
from lattice_core.raft.durability import Durability
from lattice_core.raft.follower import Follower
from lattice_core.raft.leader import Leader
from lattice_core.raft.log import NO_CONFIGURATION, RaftLog
from lattice_core.raft.messages import AppendConflict, AppendEntries, AppendSuccess, Message, VoteResponse
from lattice_core.raft.node import RaftNode
from lattice_core.raft.progress import Progress
from lattice_core.raft.ready import Persist
from lattice_core.raft.types import HardState
from lattice_core.sim import membership_plants as membership
from lattice_core.storage import wal as wal_module
from lattice_core.storage.wal import Wal

Patch = tuple[Any, str, Any]


@dataclass(frozen=True, slots=True)
class Plant:
    """A planted bug: what it does, and the patches (owner, attribute, replacement) that do it."""

    description: str
    patches: Callable[[], list[Patch]]


def _vote_not_persisted() -> list[Patch]:
    write = Wal.write

    def forgetful(self: Wal, batches: Any) -> int:
        return write(self, [_without_vote(batch) for batch in batches])

    return [(Wal, "write", forgetful)]


def _without_vote(batch: Persist) -> Persist:
    if batch.hard_state is None or batch.hard_state.voted_for is None:
        return batch
    return Persist(
        batch.sequence,
        HardState(batch.hard_state.term, None),
        batch.snapshot,
        batch.truncate_from,
        batch.entries,
        batch.commit_hint,
        batch.messages,
    )


def _commit_old_term() -> list[Patch]:
    maybe_commit = Leader._maybe_commit

    def counts_any_term(self: Leader) -> None:
        # As if the term began right after what is committed; not at 0, so that a joint configuration is still left.
        start = self.term_start_index
        self.term_start_index = min(start, self.node.log.commit_index + 1)
        try:
            maybe_commit(self)
        finally:
            self.term_start_index = start

    return [(Leader, "_maybe_commit", counts_any_term)]


def _commit_own_last_index() -> list[Patch]:
    on_append = Follower.on_append_entries

    def commits_what_it_has(self: Follower, message: AppendEntries) -> None:
        on_append(self, message)
        self.node.log.commit_to(min(message.leader_commit, self.node.log.last_index))

    return [(Follower, "on_append_entries", commits_what_it_has)]


def _truncate_on_any_append() -> list[Patch]:
    on_append = Follower.on_append_entries

    def truncates_first(self: Follower, message: AppendEntries) -> None:
        log = self.node.log
        start = max(message.prev_log_index, log.commit_index) + 1
        if log.term_at(message.prev_log_index) == message.prev_log_term and start <= log.last_index:
            self.node.truncate_from(start)
        on_append(self, message)

    return [(Follower, "on_append_entries", truncates_first)]


def _majority_by_half() -> list[Patch]:
    return [(quorum, "majority", lambda count: (count + 1) // 2)]


def _ack_before_fsync() -> list[Patch]:
    send = RaftNode.send

    def at_once(self: RaftNode, message: Message, *, when_durable: bool = False) -> None:
        if type(message) is AppendSuccess:
            self._messages.append(message)
        else:
            send(self, message, when_durable=when_durable)

    return [(RaftNode, "send", at_once)]


def _own_copy_before_fsync() -> list[Patch]:
    match_of = Leader._match_of

    def counts_itself_early(self: Leader, node_id: int) -> int:
        return self.node.log.last_index if node_id == self.node.id else match_of(self, node_id)

    return [(Leader, "_match_of", counts_itself_early)]


def _lease_from_reply() -> list[Patch]:
    echoed = Leader._quorum_echoed

    def from_the_answer(self: Leader) -> None:
        before = self.reads.lease_from_ns
        echoed(self)
        if self.reads.lease_from_ns != before:
            self.reads.lease_from_ns = self.node.now_ns

    return [(Leader, "_quorum_echoed", from_the_answer)]


def _lease_kept_in_transfer() -> list[Patch]:
    timeout_now = Leader._maybe_send_timeout_now

    def keeps_the_lease(self: Leader) -> None:
        timeout_now(self)
        self._lease_given_up = False

    return [(Leader, "_maybe_send_timeout_now", keeps_the_lease)]


def _read_without_round() -> list[Patch]:
    def answers_at_once(self: Leader, request_id: int) -> None:
        self.node.confirmed_read(request_id, self.node.log.commit_index)

    return [(Leader, "read_index", answers_at_once)]


def _read_before_commit() -> list[Patch]:
    return [(Leader, "_knows_commit", lambda self: True)]


def _stale_vote_counted() -> list[Patch]:
    step = RaftNode.step

    def counts_old_votes(self: RaftNode, message: Message, now_ns: int) -> None:
        if type(message) is VoteResponse and message.term < self.term:
            message = VoteResponse(message.sender, message.to, self.term, message.granted)
        step(self, message, now_ns)

    return [(RaftNode, "step", counts_old_votes)]


def _match_index_lowered() -> list[Patch]:
    on_conflict = Leader.on_append_conflict

    def believes_late_rejections(self: Leader, message: AppendConflict) -> None:
        progress = self.progress.get(message.sender)
        if progress is not None and message.rejected_index <= progress.match_index:
            progress.match_index = max(0, message.rejected_index - 1)
        on_conflict(self, message)

    def any_answer(self: Progress, match_index: int, now_ns: int) -> bool:
        acknowledged = ACKNOWLEDGED(self, match_index, now_ns)
        self.match_index = match_index
        return acknowledged

    return [(Leader, "on_append_conflict", believes_late_rejections), (Progress, "acknowledged", any_answer)]


ACKNOWLEDGED: Final = Progress.acknowledged


def _torn_tail_kept() -> list[Patch]:
    return [(wal_module, "_zero", lambda file, offset, size: None)]


def _apply_skips_undecodable() -> list[Patch]:
    apply = StateMachine.apply

    def goes_on(self: StateMachine, index: int, term: int, payload: bytes, decoded: Any = None) -> Any:
        try:
            return apply(self, index, term, payload, decoded)
        except UnknownCommand:
            self.skip(index, term)
            return []

    return [(StateMachine, "apply", goes_on)]


def _stale_completion_counted() -> list[Patch]:
    def counts_any_completion(self: Durability, sequence: int) -> None:
        while self._in_flight and self._in_flight[0][0] <= sequence:
            _, _, self.durable_hard_state = self._in_flight.popleft()
        self.persisted_sequence = sequence
        self.durable_index = max(self.durable_index, self.handed_index)

    return [(Durability, "persisted", counts_any_completion)]


def _snapshot_drops_sessions() -> list[Patch]:
    capture = StateMachine.capture

    def forgets_sessions(self: StateMachine) -> Any:
        sessions, self.sessions = self.sessions, SessionTable(self.sessions.limits)
        self.sessions.next_id = sessions.next_id
        try:
            return capture(self)
        finally:
            self.sessions = sessions

    return [(StateMachine, "capture", forgets_sessions)]


def _snapshot_without_membership() -> list[Patch]:
    return [
        (RaftLog, "configuration_at", lambda self, index: NO_CONFIGURATION),
        (RaftNode, "may_snapshot", lambda self, index: index <= self.durability.durable_index),
    ]


PLANTS: Final[dict[str, Plant]] = {
    "vote-not-persisted": Plant("the vote is not in the record that is fsynced before it is sent", _vote_not_persisted),
    "commit-old-term": Plant("entries of earlier terms are committed by counting (Figure 8)", _commit_old_term),
    "commit-own-last-index": Plant("a follower commits up to its own last index", _commit_own_last_index),
    "truncate-on-any-append": Plant("every AppendEntries truncates what follows its entries", _truncate_on_any_append),
    "majority-by-half": Plant("half of an even number counts as a majority", _majority_by_half),
    "ack-before-fsync": Plant("a follower acknowledges entries before they are on disk", _ack_before_fsync),
    "own-copy-before-fsync": Plant("a leader counts its own copy before it is on disk", _own_copy_before_fsync),
    "lease-from-reply": Plant("the lease runs from the answer, not from the question", _lease_from_reply),
    "lease-kept-in-transfer": Plant("the lease is kept while leadership is handed over", _lease_kept_in_transfer),
    "read-without-round": Plant("a leader answers linearizable reads without asking anybody", _read_without_round),
    "read-before-commit": Plant("a new leader reads before it has committed in its term", _read_before_commit),
    "stale-vote-counted": Plant("votes of an earlier term are counted", _stale_vote_counted),
    "match-index-lowered": Plant("a late answer lowers the match index", _match_index_lowered),
    "torn-tail-kept": Plant("recovery leaves a torn tail in the file", _torn_tail_kept),
    "apply-skips-undecodable": Plant("a command that cannot be read is skipped", _apply_skips_undecodable),
    "snapshot-drops-sessions": Plant("a snapshot is taken without the sessions", _snapshot_drops_sessions),
    "snapshot-without-membership": Plant("a snapshot is taken without the membership", _snapshot_without_membership),
    "stale-completion-counted": Plant(
        "an fsync's completion vouches for whatever is in the log", _stale_completion_counted
    ),
    "membership-on-apply": Plant(
        "a configuration takes effect when it is applied, not when it is appended", membership.membership_on_apply
    ),
    "configuration-survives-truncation": Plant(
        "a configuration stays in force when its entry is truncated", membership.configuration_survives_truncation
    ),
    "learner-counted": Plant("a learner counts in quorums", membership.learner_counted),
    "joint-one-majority": Plant("a joint configuration asks the new voters only", membership.joint_one_majority),
    "second-change-at-once": Plant("a change begins while another is pending", membership.second_change_at_once),
    "removed-leader-counts-itself": Plant(
        "a leader that removed itself counts its own copy", membership.removed_leader_counts_itself
    ),
    "removed-server-heard": Plant(
        "nobody protects a leader that is heard, and there is no pre-vote", membership.removed_server_heard
    ),
    "joint-never-left": Plant(
        "a new leader does not finish the joint configuration it finds", membership.joint_never_left
    ),
}
"""Every planted bug by name."""


def require_known(name: str | None) -> None:
    """Raise InvalidRequest, one line, for a name that is no planted bug."""
    if name is None or name in PLANTS:
        return
    raise InvalidRequest(f"there is no planted bug {name!r}; known: {', '.join(PLANTS)}")


@contextlib.contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Run with the bug ``name`` switched on; None: with the product as it is."""
    require_known(name)
    undo: list[Patch] = []
    try:
        for owner, attribute, replacement in PLANTS[name].patches() if name is not None else []:
            undo.append((owner, attribute, owner.__dict__[attribute]))
            setattr(owner, attribute, replacement)
        yield
    finally:
        for owner, attribute, original in reversed(undo):
            setattr(owner, attribute, original)
