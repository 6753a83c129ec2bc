"""What is meant to become of a learner is data in the configuration: it travels, changes and ends with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from harness import member, members

from lattice_core.raft.errors import Refused
from lattice_core.raft.log import RaftLog
from lattice_core.raft.membership import MembershipChange, leave_joint, next_configuration
from lattice_core.raft.types import Configuration, Entry, Promotion, SnapshotMeta


def test_a_learners_intent_travels_in_the_configuration_and_ends_when_it_votes() -> None:
    current = Configuration.of_voters(members(1, 2, 3))
    learner = replace(member(4), promotion=Promotion(replaces=2))
    with_learner = next_configuration(current, MembershipChange(add_learners=(learner,)))
    assert with_learner.member(4) == learner
    joint = next_configuration(with_learner, MembershipChange(add_voters=(learner,), remove=frozenset({2})))
    final = leave_joint(joint)
    assert (joint.voters_outgoing, final.voters) == ({1, 2, 3}, {1, 3, 4})
    assert final.member(4) == member(4), "what was intended is done"


def test_a_learners_intent_can_be_changed_in_one_step_and_the_same_again_is_no_change() -> None:
    current = next_configuration(Configuration.of_voters(members(1, 2, 3)), MembershipChange(add_learners=(member(4),)))
    meant = replace(member(4), promotion=Promotion())
    changed = next_configuration(current, MembershipChange(add_learners=(meant,)))
    assert (changed.member(4), changed.is_joint) == (meant, False)
    with pytest.raises(Refused, match="nothing would change"):
        next_configuration(changed, MembershipChange(add_learners=(meant,)))


def test_a_voter_cannot_be_waiting_for_its_promotion() -> None:
    with pytest.raises(ValueError, match="only a learner"):
        Configuration.of_voters([replace(member(1), promotion=Promotion())])


def test_the_committed_configuration_is_the_newest_at_or_below_the_commit_index() -> None:
    first = Configuration.of_voters(members(1))
    second = next_configuration(first, MembershipChange(add_learners=(member(2),)))
    log = RaftLog(SnapshotMeta(0, 0, first), [Entry(1, 1, None), Entry(2, 1, second)], commit_hint=1)
    assert (log.configuration, log.committed_configuration) == (second, (0, first))
    log.commit_to(2)
    assert log.committed_configuration == (2, second)
