"""Planted bugs of membership changes; see plants.py for what they are for and how they are switched on."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any

from lattice_core.raft import quorum
from lattice_core.raft.leader import Leader
from lattice_core.raft.log import RaftLog
from lattice_core.raft.membership import MembershipChange, leave_joint, next_configuration
from lattice_core.raft.node import RaftNode
from lattice_core.raft.types import Configuration, NodeId

Patch = tuple[Any, str, Any]


def membership_on_apply() -> list[Patch]:
    """Everything that follows from a configuration happens when it is applied, the end of a joint one included."""
    applied = RaftNode.applied
    maybe_commit = Leader._maybe_commit

    def newest_applied(self: RaftLog) -> tuple[int, Configuration]:
        return next(
            (item for item in reversed(self.configurations) if item[0] <= self.applied_index), self.configurations[0]
        )

    def takes_effect_now(self: RaftNode, index: int, now_ns: int) -> None:
        before = newest_applied(self.log)[0]
        applied(self, index, now_ns)
        at, configuration = newest_applied(self.log)
        if at == before:
            return
        self._configuration_changed()
        if isinstance(self.state, Leader):
            self.state._departed_until_ns = self.now_ns + self.config.election_timeout_max_ns
            if configuration.is_joint:
                self.state._append(leave_joint(configuration))
            elif self.id not in configuration.voters:
                self.become_follower(self.term, None, "no longer a voter")

    def only_commits(self: Leader) -> None:
        committed = Leader._configuration_committed
        Leader._configuration_committed = lambda self: None  # type: ignore[method-assign]
        try:
            maybe_commit(self)
        finally:
            Leader._configuration_committed = committed  # type: ignore[method-assign]

    return [
        (RaftLog, "configuration", property(lambda self: newest_applied(self)[1])),
        (RaftNode, "applied", takes_effect_now),
        (Leader, "_maybe_commit", only_commits),
    ]


def configuration_survives_truncation() -> list[Patch]:
    """A configuration stays in force although its entry was truncated."""
    truncate_from = RaftLog.truncate_from

    def keeps_them(self: RaftLog, index: int) -> None:
        configurations = list(self.configurations)
        truncate_from(self, index)
        self.configurations = configurations

    return [(RaftLog, "truncate_from", keeps_them)]


def learner_counted() -> list[Patch]:
    """Who only listens is taken for one of those who decide."""

    def is_quorum(configuration: Configuration, granted: AbstractSet[NodeId]) -> bool:
        learners = configuration.learners
        return bool(configuration.voters) and all(
            len((half | learners) & granted) >= quorum.majority(len(half)) for half in _halves(configuration)
        )

    def value(configuration: Configuration, value_of: Callable[[NodeId], int]) -> int:
        reached = []
        for half in _halves(configuration):
            values = sorted(map(value_of, half | configuration.learners), reverse=True)
            reached.append(values[quorum.majority(len(half)) - 1])
        return min(reached)

    return [(quorum, "is_quorum", is_quorum), (quorum, "quorum_value", value)]


def joint_one_majority() -> list[Patch]:
    """In a joint configuration only the new voters are asked."""
    is_quorum, value = quorum.is_quorum, quorum.quorum_value
    return [
        (quorum, "is_quorum", lambda configuration, granted: is_quorum(_incoming(configuration), granted)),
        (quorum, "quorum_value", lambda configuration, value_of: value(_incoming(configuration), value_of)),
    ]


def second_change_at_once() -> list[Patch]:
    """A change begins while another is pending, and before the leader has committed anything in its term; where the
    pending configuration is joint, the new one is joint with its incoming half."""

    def begins_at_once(self: Leader, change: MembershipChange) -> int:
        current = self.node.configuration
        if current.is_joint:
            current = leave_joint(current)
        return self._append(next_configuration(current, change)).index

    return [(Leader, "propose_membership", begins_at_once)]


def removed_leader_counts_itself() -> list[Patch]:
    """A leader that has removed itself goes on counting its own copy."""
    maybe_commit = Leader._maybe_commit
    value = quorum.quorum_value

    def counts_itself(self: Leader) -> None:
        own = self.node.id

        def with_itself(configuration: Configuration, value_of: Callable[[NodeId], int]) -> int:
            if configuration.is_joint or own in configuration.voters:
                return value(configuration, value_of)
            values = sorted(map(value_of, configuration.voters | {own}), reverse=True)
            return values[quorum.majority(len(configuration.voters)) - 1]

        quorum.quorum_value = with_itself
        try:
            maybe_commit(self)
        finally:
            quorum.quorum_value = value

    return [(Leader, "_maybe_commit", counts_itself)]


def joint_never_left() -> list[Patch]:
    """A new leader does not finish the joint configuration that it finds, only those that it began."""
    committed = Leader._configuration_committed

    def only_its_own(self: Leader) -> None:
        if self.node.configuration.is_joint and self.node.configuration_index < self.term_start_index:
            return
        committed(self)

    return [(Leader, "_configuration_committed", only_its_own)]


def removed_server_heard() -> list[Patch]:
    """The paper without the end of its section 6, and without pre-vote: who hears nothing raises the term, and
    whoever hears of that follows, leader or not."""

    def asks_for_real(self: RaftNode, reason: str) -> None:
        self.become_candidate(reason)

    return [
        (RaftNode, "protects_leader", property(lambda self: False)),
        (RaftNode, "become_pre_candidate", asks_for_real),
    ]


def _halves(configuration: Configuration) -> list[frozenset[NodeId]]:
    outgoing = configuration.voters_outgoing
    return [configuration.voters, outgoing] if outgoing else [configuration.voters]


def _incoming(configuration: Configuration) -> Configuration:
    return leave_joint(configuration) if configuration.is_joint else configuration
