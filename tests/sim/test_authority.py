"""The checks that know of configurations: what they work out, and what they see."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lattice_core.raft import quorum
from lattice_core.raft.log import RaftLog
from lattice_core.raft.ready import Persist
from lattice_core.raft.types import Configuration, Entry, HardState, SnapshotMeta
from lattice_core.sim.authority import always_meet, decides, describe, halves
from lattice_core.sim.durable import DurableLog
from lattice_core.sim.invariants import Invariants
from lattice_core.sim.operator import member
from lattice_core.sim.violation import Violation


def configuration(
    voters: set[int], outgoing: set[int] | None = None, learners: set[int] | None = None
) -> Configuration:
    outgoing, learners = outgoing or set(), learners or set()
    return Configuration(
        tuple(member(number) for number in sorted(voters | outgoing | learners)),
        frozenset(voters),
        frozenset(outgoing),
        frozenset(learners),
    )


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        (configuration({1, 2, 3}), configuration({1, 2, 3, 4}), True),
        (configuration({1, 2, 3}), configuration({1, 2, 3, 4, 5}), False),
        (configuration({1, 2, 3}), configuration({2, 3, 4}), False),
        (configuration({1, 2, 3}), configuration({4, 5, 6}), False),
        (configuration({1, 2, 3}), configuration({4, 5, 6}, {1, 2, 3}), True),
        (configuration({4, 5, 6}), configuration({4, 5, 6}, {1, 2, 3}), True),
        (configuration({7, 8, 9}, {4, 5, 6}), configuration({4, 5, 6}, {1, 2, 3}), True),
        (configuration({7, 8, 9}, {4, 5, 6}), configuration({1, 2, 3}), False),
        (configuration({1, 2}), configuration({1}), True),
    ],
)
def test_whether_two_configurations_could_decide_apart(one: Configuration, other: Configuration, meet: bool) -> None:
    assert always_meet(halves(one), halves(other)) is meet
    assert always_meet(halves(other), halves(one)) is meet


ids = st.frozensets(st.integers(1, 5), min_size=1)


@given(ids, ids, ids, ids, ids)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_the_checks_count_as_the_core_does_although_they_share_no_code(
    incoming: frozenset[int],
    outgoing: frozenset[int],
    other: frozenset[int],
    listening: frozenset[int],
    some: frozenset[int],
) -> None:
    joint = configuration(set(incoming), set(outgoing), set(listening - incoming))
    plain = configuration(set(other))
    for one in (joint, plain):
        assert decides(one, set(some)) == quorum.is_quorum(one, some)
    subsets = [frozenset(number for number in range(1, 6) if bits >> number & 1) for bits in range(0, 64, 2)]
    apart = any(
        quorum.is_quorum(joint, one) and quorum.is_quorum(plain, rest)
        for one in subsets
        for rest in subsets
        if not one & rest
    )
    assert always_meet(halves(joint), halves(plain)) is not apart


# ---- what they see ----------------------------------------------------------------------------------------


FIRST = configuration({1, 2, 3}, learners={4})


def entry(index: int, term: int = 1, payload: Configuration | bytes = b"x") -> Entry:
    return Entry(index, term, payload)


def observer(*entries: Entry, on: tuple[int, ...] = (1,)) -> Invariants:
    """Servers 1 to 6 with ``entries``, of term 1, on the disks of some."""
    found = Invariants(FIRST)
    for number in range(1, 7):
        disk = found.disks[number] = DurableLog()
        if number in on:
            disk.written([Persist(1, HardState(1, None), None, None, entries, None, ())])
            disk.synced()
    found.appended(1, entries, 0, 0)
    return found


def log_of(*entries: Entry) -> RaftLog:
    return RaftLog(SnapshotMeta(0, 0, FIRST), entries, 0)


@pytest.mark.parametrize(("on", "enough"), [((1,), False), ((1, 4), False), ((1, 2), True), ((1, 2, 4), True)])
def test_safety_36_a_commit_is_counted_on_the_disks_of_voters_only(on: tuple[int, ...], enough: bool) -> None:
    found = observer(entry(1), on=on)
    if enough:
        found.committed(1, 1, (entry(1),), (1, 1))
        return
    with pytest.raises(Violation, match=r"durability.*which only n1 of the voters"):
        found.committed(1, 1, (entry(1),), (1, 1))


@pytest.mark.parametrize(("on", "enough"), [((1, 2), False), ((4, 5), False), ((1, 2, 4), False), ((1, 2, 4, 5), True)])
def test_safety_37_a_commit_is_counted_in_both_halves(on: tuple[int, ...], enough: bool) -> None:
    joint = entry(1, 1, configuration({4, 5, 6}, {1, 2, 3}))
    found = observer(joint, entry(2), on=on)
    if enough:
        found.committed(1, 1, (joint, entry(2)), (2, 1))
        assert found.configurations[-1] == (1, joint.payload)
        return
    with pytest.raises(Violation, match="durability"):
        found.committed(1, 1, (joint, entry(2)), (2, 1))


def test_the_final_configuration_that_is_appended_with_the_commit_had_no_part_in_it() -> None:
    joint = entry(1, 1, configuration({4, 5, 6}, {1, 2, 3}))
    final = entry(2, 1, configuration({4, 5, 6}))
    found = observer(joint, on=(4, 5))
    found.appended(1, (final,), 1, 1)
    with pytest.raises(Violation, match="durability"):
        found.committed(1, 1, (joint,), (1, 1))
    found = observer(joint, on=(4, 5))
    found.appended(1, (final,), 1, 1)
    found.committed(1, 1, (joint,), (2, 1))  # by the final one it would be enough


@pytest.mark.parametrize(("votes", "enough"), [((1,), False), ((1, 4), False), ((1, 2), True)])
def test_safety_36_a_leader_needs_the_votes_of_voters(votes: tuple[int, ...], enough: bool) -> None:
    found = observer(entry(1))
    for voter in votes:
        found.voted(voter, 2, 1)
    if enough:
        found.leader_elected(1, 2, log_of(entry(1)))
        return
    with pytest.raises(Violation, match=r"election-safety.*by the votes of n1"):
        found.leader_elected(1, 2, log_of(entry(1)))


def test_safety_34_a_removed_leader_is_not_elected_by_its_own_vote() -> None:
    final = entry(1, 1, configuration({2, 3}))
    found = Invariants(configuration({2, 3}, {1, 2, 3}))
    found.disks[1] = DurableLog()
    found.disks[1].hard_state = HardState(2, 1)
    found.appended(1, (final,), 0, 0)
    found.voted(2, 2, 1)
    with pytest.raises(Violation, match="by the votes of n2"):
        found.leader_elected(1, 2, log_of(final))


def test_safety_32_a_leader_that_does_not_use_the_newest_configuration_in_its_log_is_seen() -> None:
    found = observer(entry(1, 1, configuration({1, 2, 3}, learners={4, 5})))
    with pytest.raises(Violation, match="the newest configuration in its log, of entry 1"):
        found.uses_newest(1, FIRST, log_of(entry(1)))


def test_safety_33_configurations_that_could_decide_apart_are_seen_when_they_are_appended() -> None:
    joint = entry(1, 1, configuration({4, 5, 6}, {1, 2, 3}))
    skips = entry(2, 1, configuration({7, 8, 9}, {4, 5, 6}))
    found = observer(joint)
    with pytest.raises(Violation, match=r"membership-authority.*entry 2.*of entry 0"):
        found.appended(1, (skips,), 1, 0)
    found = observer(joint)
    found.appended(1, (skips,), 1, 1)  # once its leader knows the joint one to be committed, nobody decides without it


def test_safety_25_a_snapshot_of_another_membership_is_seen() -> None:
    found = observer(entry(1), on=(1, 2))
    found.committed(1, 1, (entry(1),), (1, 1))
    found.snapshot_says(1, SnapshotMeta(1, 1, FIRST))
    with pytest.raises(Violation, match="says voters nobody; in force there were voters n1 n2 n3, learners n4"):
        found.snapshot_says(1, SnapshotMeta(1, 1, Configuration((), frozenset())))


def test_what_may_still_come_into_force_is_known_until_something_else_is_committed_there() -> None:
    joint = entry(1, 1, configuration({4, 5, 6}, {1, 2, 3}))
    found = observer(joint)
    assert found.possible_configurations() == [FIRST, joint.payload]
    other = entry(1, 2)
    found.appended(2, (other,), 0, 0)
    for number in (2, 3):
        found.disks[number].written([Persist(1, HardState(2, None), None, None, (other,), None, ())])
        found.disks[number].synced()
    found.committed(2, 2, (other,), (1, 2))
    assert found.possible_configurations() == [FIRST]


def test_a_configuration_in_words() -> None:
    joint = configuration({2, 3}, {1, 2, 3}, {4})
    assert describe(joint) == "voters n2 n3 together with n1 n2 n3, learners n4"
