"""SAFETY.md, cases 32 to 38: membership (section 6 of the paper, chapter 4 of the thesis)."""

from __future__ import annotations

import itertools

import pytest
from harness import MS, Cluster, Disk, Server, configuration, lead, log_of, member, members, solo
from hypothesis import given, settings
from hypothesis import strategies as st

from lattice_core.raft import quorum
from lattice_core.raft.errors import Busy, Refused
from lattice_core.raft.membership import MembershipChange, leave_joint, next_configuration
from lattice_core.raft.messages import (
    AppendEntries,
    AppendSuccess,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    PreVoteRequest,
    PreVoteResponse,
    ReadIndexRequest,
    VoteRequest,
    VoteResponse,
)
from lattice_core.raft.ready import ConfigurationChanged
from lattice_core.raft.types import Configuration, Entry, HardState, Member, RecoveredState, Role, SnapshotMeta


def add(*ids: int) -> MembershipChange:
    return MembershipChange(add_voters=members(*ids))


def learn(*ids: int) -> MembershipChange:
    return MembershipChange(add_learners=members(*ids))


def remove(*ids: int) -> MembershipChange:
    return MembershipChange(remove=frozenset(ids))


def leading(voters: Configuration | range | tuple[int, ...] = (1, 2, 3)) -> Server:
    """A leader that has committed its no-op, index 1, with everybody's answer."""
    server = lead(solo(voters=voters))
    for peer in server.node.progress:
        server.step(AppendSuccess(peer, 1, 1, 1, 1))
    server.take()
    return server


def acknowledge(server: Server, *peers: int) -> None:
    for peer in peers:
        server.step(AppendSuccess(peer, server.id, server.node.term, server.node.last_index, 1))


# ---- 32: in force from append -----------------------------------------------------------------------


def test_safety_32_a_configuration_is_in_force_as_soon_as_it_is_appended() -> None:
    """Section 6: "a server always uses the latest configuration in its log, regardless of whether the entry is
    committed.\""""
    joint = configuration([1, 2, 3, 4], outgoing=[1, 2, 3])
    server = solo()
    server.step(AppendEntries(2, 1, 1, 0, 0, (Entry(1, 1, joint),), 0, 1))
    assert (server.node.commit_index, server.node.configuration) == (0, joint)
    assert server.events[-1] == ConfigurationChanged(1, joint)
    chief = leading()
    chief.change(add(4))
    assert chief.node.configuration == joint
    assert 4 in chief.node.progress


def test_safety_32_truncation_brings_back_the_one_before_across_several_entries() -> None:
    one, two, three = (configuration([1, 2, 3], learners=range(4, 4 + count)) for count in (1, 2, 3))
    server = solo()
    log = (Entry(1, 1, one), Entry(2, 1, b"x"), Entry(3, 1, two), Entry(4, 1, three))
    server.step(AppendEntries(2, 1, 1, 0, 0, log, 0, 1))
    assert server.node.configuration == three
    server.step(AppendEntries(3, 1, 2, 2, 1, log_of(2, after=2), 0, 1))
    assert (server.node.configuration, server.node.configuration_index) == (one, 1)
    server.step(AppendEntries(2, 1, 3, 0, 0, log_of(3), 0, 1))
    assert (server.node.configuration, server.node.configuration_index) == (configuration([1, 2, 3]), 0)
    assert isinstance(server.events[-1], ConfigurationChanged)


def test_safety_32_a_configuration_behind_a_compaction_is_still_the_one_to_go_back_to() -> None:
    one, two = configuration([1, 2, 3], learners=[4]), configuration([1, 2, 3], learners=[4, 5])
    server = solo()
    server.step(AppendEntries(2, 1, 1, 0, 0, (Entry(1, 1, one), Entry(2, 1, b"x"), Entry(3, 1, two)), 2, 1))
    assert server.compact().configuration == one
    server.step(AppendEntries(3, 1, 2, 2, 1, log_of(2, after=2), 2, 1))
    assert server.node.configuration == one


def test_safety_32_a_received_snapshot_brings_its_configuration_into_force() -> None:
    """Section 7: a snapshot includes "the latest configuration in the log as of last included index"."""
    newer = configuration([1, 2, 4])
    for log in ((), log_of(1, 1, 1, 1)):
        server = solo(log=log)
        server.archive.states[3, 1] = log_of(1, 1, 1)
        server.step(InstallSnapshot(2, 1, 1, SnapshotMeta(3, 1, newer), 1))
        assert (server.node.configuration, server.node.configuration_index) == (newer, 3)
        assert ConfigurationChanged(3, newer) in server.events
        server.crash()
        server.start(server.now_ns)
        assert server.node.configuration == newer


def test_safety_32_a_snapshot_keeps_the_configurations_that_come_after_it() -> None:
    later = configuration([1, 2, 3], learners=[4])
    server = solo()
    server.step(AppendEntries(2, 1, 1, 0, 0, (*log_of(1, 1), Entry(3, 1, later)), 0, 1))
    server.archive.states[2, 1] = log_of(1, 1)
    server.step(InstallSnapshot(2, 1, 1, SnapshotMeta(2, 1, configuration([1, 2, 3])), 1))
    assert (server.node.configuration, server.node.configuration_index) == (later, 3)


def test_safety_32_a_restart_finds_it_in_the_log_and_a_snapshot_carries_it() -> None:
    one = configuration([1, 2, 3], learners=[4])
    log = (Entry(1, 1, b"x"), Entry(2, 1, one), Entry(3, 1, b"y"))
    server = solo(log=log, commit=3)
    assert server.node.configuration == one
    meta = server.compact()
    assert meta == SnapshotMeta(3, 1, one)
    server.crash()
    server.start(server.now_ns)
    assert (server.node.configuration, server.node.configuration_index) == (one, 3)


def test_safety_25_a_server_that_joined_takes_no_snapshot_before_it_knows_the_membership() -> None:
    """It is given the log from its beginning, but the first configuration is in nobody's log: until the entry that
    added it, it cannot say who belonged to the cluster, and a snapshot has to."""
    server = Server(4, Disk(RecoveredState(snapshot=SnapshotMeta(0, 0, Configuration((), frozenset())))))
    added = configuration([1, 2, 3], learners=[4])
    server.step(AppendEntries(1, 4, 1, 0, 0, log_of(1, 1), 2, 1))
    assert (server.node.applied_index, server.node.may_snapshot(2)) == (2, False)
    server.disk.held = True
    server.step(AppendEntries(1, 4, 1, 2, 1, (Entry(3, 1, added),), 3, 1))
    assert (server.node.applied_index, server.node.may_snapshot(3)) == (3, False), "not durable here yet"
    server.release_disk()
    assert server.node.may_snapshot(3)
    assert not server.node.may_snapshot(2)
    assert server.compact().configuration == added


# ---- 33: one at a time, and none before a commit of the leader's own term ----------------------------


def test_safety_33_one_change_at_a_time() -> None:
    server = leading()
    server.change(add(4))
    with pytest.raises(Refused, match="under way"):
        server.change(add(5))
    acknowledge(server, 2, 3)  # the joint configuration commits, the final one is appended
    assert not server.node.configuration.is_joint
    with pytest.raises(Refused, match="under way"):
        server.change(add(5))
    acknowledge(server, 2, 3)
    server.change(add(5))


def test_safety_33_no_change_before_the_leader_has_committed_in_its_term() -> None:
    server = lead(solo())
    with pytest.raises(Refused, match="not committed anything in its term"):
        server.change(add(4))
    server.step(AppendSuccess(2, 1, 1, 1, 1))
    server.change(add(4))


def test_safety_33_ongaro_2015_two_leaders_with_pending_changes_cannot_commit_past_each_other() -> None:
    """Ongaro, raft-dev, 2015-07-10: a leader appends a change (D := {1,2,3,4,5}), and is deposed before anybody has
    it; the next one starts and commits another change; the first comes back and could commit with its own, smaller
    or larger, majority. A leader that must first commit an entry of its own term learns of the other change."""
    cluster = Cluster(4, spare=[5])
    cluster.elect(1)
    cluster.replicate(b"a")
    cluster.isolate(1)
    cluster[1].change(add(5))  # only n1 has it
    cluster.in_flight.clear()
    cluster.pass_time(600 * MS)
    cluster.elect(2)
    cluster[2].change(remove(1))
    cluster.run(300 * MS)
    assert cluster[2].node.configuration == configuration([2, 3, 4])
    assert cluster[2].node.commit_index == cluster[2].node.last_index
    # n1 is back, with n5, which it added, and n4; it must not win with what only it believes.
    cluster.crash(2)
    cluster.heal()
    cluster.in_flight.clear()
    cluster.run(5_000 * MS)
    assert not cluster[1].node.is_leader
    assert cluster.leader in (cluster[3], cluster[4])
    cluster.check_log_matching()


def test_safety_33_a_new_leader_that_wants_a_change_at_once_has_to_wait_for_its_no_op() -> None:
    """The same rule from the other side: the entry that Ongaro's message asks for is the no-op."""
    cluster = Cluster(4)
    cluster.tick(1)
    while not cluster[1].node.is_leader:
        cluster.deliver(cluster.in_flight[0])
    with pytest.raises(Refused):
        cluster[1].change(remove(4))
    cluster.settle()
    cluster[1].change(remove(4))


# ---- 34: a leader that removes itself ---------------------------------------------------------------


def test_safety_34_a_leader_that_removes_itself_does_not_count_itself_and_steps_down_at_commit() -> None:
    """Section 6: "the leader steps down once it has committed the C_new log entry"; "it replicates log entries but
    does not count itself in majorities.\""""
    server = leading(range(1, 5))
    server.change(remove(1))
    acknowledge(server, 2, 3)  # joint: three of {1,2,3,4} and two of {2,3,4}
    assert server.node.configuration == configuration([2, 3, 4])
    final = server.node.last_index
    server.step(AppendSuccess(2, 1, 1, final, 1))
    assert (server.node.is_leader, server.node.commit_index) == (True, final - 1), "itself and n2 are no majority"
    server.take()
    server.step(AppendSuccess(3, 1, 1, final, 1))
    assert (server.node.role, server.node.commit_index) == (Role.FOLLOWER, final)
    assert {message.commit for message in server.take(Heartbeat)} == {final}, "the others hear of it"  # type: ignore[attr-defined]
    for _ in range(5):
        server.time_out()
    assert server.node.role is Role.FOLLOWER, "and it never campaigns again"


def test_safety_34_the_rest_of_the_cluster_goes_on_without_the_removed_leader() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.replicate(b"a")
    cluster[1].change(remove(1))
    cluster.run(3_000 * MS)
    leader = cluster.leader
    assert leader is not None
    assert leader.id in (2, 3)
    cluster.replicate(b"b")
    assert cluster[2].machine == cluster[3].machine
    assert not cluster[1].node.is_leader


def test_safety_34_who_is_not_in_its_own_newest_configuration_still_campaigns_while_that_is_undecided() -> None:
    """Thesis section 4.2.2: "a server that is not part of its own latest configuration should still start new
    elections, as it might still be needed until the C_new entry is committed." Here n1 has the joint configuration
    committed and the final one, {2}, only in its own log when it crashes. n2, with the joint one, needs n1's vote
    and cannot get it: n1's log is longer. If n1 did not campaign, nobody ever could win."""
    cluster = Cluster(2)
    cluster.elect(1)
    cluster.replicate(b"a")
    joint = cluster[1].change(remove(1))
    cluster.deliver_first(AppendEntries, to=2)
    cluster.deliver_first(AppendSuccess, to=1)
    assert cluster[1].node.commit_index == joint
    cluster.in_flight.clear()
    cluster.crash(1)
    cluster.restart(1)
    assert (cluster[1].node.last_index, cluster[2].node.last_index) == (joint + 1, joint)
    assert cluster.run_until(lambda: cluster[2].node.is_leader, 20_000 * MS)
    assert cluster[2].node.configuration == configuration([2])


def test_safety_34_but_its_own_vote_does_not_count_then() -> None:
    """Thesis section 4.2.2: "It does not count its own vote in elections unless it is part of its latest
    configuration.\""""
    first = configuration([1, 2, 3, 4])
    final = configuration([2, 3, 4])
    begin = SnapshotMeta(0, 0, first)
    disk = Disk(RecoveredState(HardState(1, None), begin, (Entry(1, 1, final),)))
    server = Server(1, disk)
    server.time_out()
    assert {message.to for message in server.take(PreVoteRequest)} == {2, 3, 4}
    server.step(PreVoteResponse(2, 1, 2, True))
    assert server.node.role is Role.PRE_CANDIDATE, "itself and n2 are not two of {2, 3, 4}"
    server.step(PreVoteResponse(3, 1, 2, True))
    assert server.node.role is Role.CANDIDATE
    server.step(VoteResponse(2, 1, 2, True))
    assert server.node.role is Role.CANDIDATE
    server.step(VoteResponse(3, 1, 2, True))
    assert server.node.is_leader
    acknowledge(server, 2, 3)
    assert server.node.role is Role.FOLLOWER, "it has finished what it found, and goes"


# ---- 35: removed and stale servers ------------------------------------------------------------------


def test_safety_35_a_removed_server_that_never_heard_of_it_cannot_disrupt() -> None:
    """Section 6, the third issue: "servers not in C_new ... will time out and start new elections"."""
    cluster = Cluster(4)
    cluster.elect(1)
    cluster.replicate(b"a")
    cluster.isolate(4)
    cluster[1].change(remove(4))
    cluster.run(2_000 * MS)
    assert cluster[1].node.configuration == configuration([1, 2, 3])
    term = cluster[1].node.term
    cluster.heal()
    cluster.run(20_000 * MS)
    assert cluster[1].node.is_leader
    assert {server.node.term for server in cluster} == {term}


def test_safety_35_a_removed_follower_that_listens_hears_of_its_removal_and_falls_silent() -> None:
    cluster = Cluster(4)
    cluster.elect(1)
    cluster.replicate(b"a")
    cluster[1].change(remove(4))
    cluster.run(1_000 * MS)
    assert cluster[4].node.configuration == configuration([1, 2, 3])
    assert 4 not in cluster[1].node.progress, "and then it is forgotten"
    asked: list[object] = []
    cluster.observer = lambda what, message: (
        asked.append(message) if message.sender == 4 and isinstance(message, PreVoteRequest) else None
    )
    cluster.run(5_000 * MS)
    assert asked == []


def test_safety_35_a_removed_follower_that_does_not_answer_is_forgotten_all_the_same() -> None:
    server = leading(range(1, 5))
    server.change(remove(4))
    acknowledge(server, 2, 3)
    acknowledge(server, 2, 3)
    assert server.node.commit_index == server.node.last_index
    while 4 in server.node.progress:
        server.time_out()
        acknowledge(server, 2, 3)
        assert server.now_ns < 3_000 * MS


def test_safety_35_a_server_with_a_much_newer_term_does_not_depose_a_leader_that_is_heard() -> None:
    server = solo()
    server.step(Heartbeat(2, 1, 1, 0, 1))
    server.step(VoteRequest(4, 1, 50, 99, 49, False))
    assert (server.node.term, server.node.leader_id) == (1, 2)


# ---- 36: learners -----------------------------------------------------------------------------------


def test_safety_36_a_learner_never_counts_in_a_quorum() -> None:
    server = lead(solo(voters=configuration([1, 2, 3], learners=[4, 5])))
    for learner in (4, 5):
        server.step(AppendSuccess(learner, 1, 1, 1, 99))
        server.step(HeartbeatResponse(learner, 1, 1, 99))
    assert server.node.commit_index == 0
    server.read(1)
    for learner in (4, 5):
        server.step(HeartbeatResponse(learner, 1, 1, 99))
    assert (server.released, server.lease_read()) == ({}, None)
    server.step(AppendSuccess(2, 1, 1, 1, 1))
    assert server.node.commit_index == 1


def test_safety_36_learners_do_not_keep_a_leader_in_office() -> None:
    server = lead(solo(voters=configuration([1, 2, 3], learners=[4, 5])))
    while server.node.is_leader:
        server.time_out()
        for learner in (4, 5):
            server.step(HeartbeatResponse(learner, 1, 1, 1))
        assert server.now_ns < 5_000 * MS


def test_safety_36_a_learner_receives_entries_and_never_campaigns() -> None:
    cluster = Cluster(3, learners=[4])
    cluster.elect(1)
    cluster.replicate(b"a")
    assert cluster[4].machine == cluster[1].machine
    cluster.crash(1, 2, 3)
    cluster.run(10_000 * MS)
    assert (cluster[4].node.role, cluster[4].node.term, cluster[4].node.leader_id) == (Role.FOLLOWER, 1, None)


def test_safety_36_a_learner_votes_if_a_candidate_believes_that_it_is_a_voter() -> None:
    """Thesis section 4.2.1 and 4.1: the candidate's configuration may be newer; refusing could block the cluster."""
    server = solo(voters=configuration([2, 3], learners=[1]))
    server.step(PreVoteRequest(2, 1, 1, 0, 0))
    server.step(VoteRequest(2, 1, 1, 0, 0, False))
    assert server.take() == [PreVoteResponse(1, 2, 1, True), VoteResponse(1, 2, 1, True)]


def test_safety_36_a_learner_is_added_in_one_step_catches_up_and_is_promoted() -> None:
    cluster = Cluster(3, spare=[4])
    leader = cluster.elect(1)
    for number in range(20):
        cluster.replicate(b"%d" % number)
    leader.compact()
    leader.change(learn(4))
    assert not leader.node.configuration.is_joint
    cluster.run(1_000 * MS)
    assert leader.node.progress[4].match_index == leader.node.last_index
    leader.change(add(4))
    cluster.run(1_000 * MS)
    assert {server.node.configuration for server in cluster} == {configuration([1, 2, 3, 4])}
    assert cluster[4].machine == leader.machine


def test_safety_36_a_server_that_knows_no_cluster_waits_to_be_contacted() -> None:
    server = Server(9, Disk(RecoveredState()))
    for _ in range(10):
        server.time_out()
    assert (server.node.role, server.node.term, server.take()) == (Role.FOLLOWER, 0, [])


# ---- 37: joint consensus ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("acknowledging", "committed"),
    [((2,), False), ((2, 3), False), ((4, 5), False), ((2, 4), True), ((3, 4, 5), True)],
)
def test_safety_37_a_joint_configuration_commits_with_both_majorities(
    acknowledging: tuple[int, ...], committed: bool
) -> None:
    """Section 6: "Agreement (for elections and entry commitment) requires separate majorities from both the old and
    new configurations." Here {1,2,3} to {1,4,5}."""
    server = leading()
    index = server.change(MembershipChange(add_voters=members(4, 5), remove=frozenset([2, 3])))
    for peer in acknowledging:
        server.step(AppendSuccess(peer, 1, 1, index, 1))
    assert (server.node.commit_index >= index) is committed


@pytest.mark.parametrize(
    ("granting", "wins"), [((2,), False), ((4, 5), False), ((2, 3), False), ((2, 4), True), ((3, 4, 5), True)]
)
def test_safety_37_a_joint_configuration_elects_with_both_majorities(granting: tuple[int, ...], wins: bool) -> None:
    joint = configuration([1, 4, 5], outgoing=[1, 2, 3])
    server = solo(log=(Entry(1, 1, joint),))
    server.time_out()
    assert {message.to for message in server.take(PreVoteRequest)} == {2, 3, 4, 5}
    for peer in granting:
        server.step(PreVoteResponse(peer, 1, 2, True))
    assert (server.node.role is Role.CANDIDATE) is wins
    for peer in granting:
        server.step(VoteResponse(peer, 1, 2, True))
    assert server.node.is_leader is wins


@pytest.mark.parametrize(("echoing", "confirmed"), [((2, 3), False), ((4, 5), False), ((2, 4), True)])
def test_safety_37_a_joint_configuration_confirms_reads_and_leases_with_both_majorities(
    echoing: tuple[int, ...], confirmed: bool
) -> None:
    server = leading()
    server.change(MembershipChange(add_voters=members(4, 5), remove=frozenset([2, 3])))
    server.take()
    # Past any lease of before the change.
    for _ in range(6):
        server.time_out()
    server.read(1)
    round_ = max(message.round for message in server.take(Heartbeat))  # type: ignore[attr-defined]
    for peer in echoing:
        server.step(HeartbeatResponse(peer, 1, 1, round_))
    assert (1 in server.released) is confirmed
    assert (server.lease_read() is not None) is confirmed


def test_safety_37_both_majorities_keep_a_leader_in_office() -> None:
    server = leading()
    server.change(MembershipChange(add_voters=members(4, 5), remove=frozenset([2, 3])))
    while server.node.is_leader:
        server.time_out()
        for peer in (2, 3):
            server.step(HeartbeatResponse(peer, 1, 1, 1))
        assert server.now_ns < 5_000 * MS


@pytest.mark.parametrize("committed", [True, False])
def test_safety_37_a_new_leader_finishes_the_change_it_finds(committed: bool) -> None:
    """Section 6: C_new is what it ends with, whether the joint entry was committed when its leader died or not."""
    cluster = Cluster(3, spare=[4])
    cluster.elect(1)
    cluster.replicate(b"a")
    joint = cluster[1].change(add(4))
    for node_id in (2, 3, 4):
        if cluster.messages(AppendEntries, to=node_id):
            cluster.deliver_first(AppendEntries, to=node_id)
    cluster.crash(1)
    cluster.in_flight.clear()
    assert cluster[2].node.configuration.is_joint
    if committed:
        cluster[2].step(Heartbeat(1, 2, 1, joint, 9))
        cluster[3].step(Heartbeat(1, 3, 1, joint, 9))
        cluster.in_flight.clear()
    cluster.run(5_000 * MS)
    for node_id in (2, 3, 4):
        assert cluster[node_id].node.configuration == configuration([1, 2, 3, 4])
        assert cluster[node_id].node.configuration_index > joint


def test_safety_37_a_change_survives_the_loss_of_its_leader_at_every_message() -> None:
    """{1,2,3} to {3,4,5}, the leader crashing after each possible number of delivered messages: always one history,
    always an end of the joint configuration."""
    for delivered in itertools.count():
        cluster = Cluster(3, spare=[4, 5], seed=delivered)
        cluster.elect(1)
        cluster.replicate(b"a")
        cluster[1].change(MembershipChange(add_voters=members(4, 5), remove=frozenset([1, 2])))
        for _ in range(delivered):
            if not cluster.in_flight:
                return
            cluster.deliver(cluster.in_flight[0])
        cluster.crash(1)
        cluster.run(3_000 * MS)
        cluster.restart(1)
        cluster.run(3_000 * MS)
        assert cluster.leader is not None
        assert not cluster.leader.node.configuration.is_joint
        assert cluster.leader.node.commit_index == cluster.leader.node.last_index
        cluster.check_log_matching()


# ---- 38: sizes and refusals -------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)])
def test_safety_38_a_quorum_of_n_is_more_than_half(size: int, needed: int) -> None:
    group = configuration(range(1, size + 1))
    assert quorum.majority(size) == needed
    assert quorum.is_quorum(group, frozenset(range(1, needed + 1)))
    assert not quorum.is_quorum(group, frozenset(range(1, needed)))


CURRENT = configuration([1, 2, 3], learners=[4])


@pytest.mark.parametrize(
    ("current", "change", "message"),
    [
        (configuration([1]), remove(1), "last voter"),
        (CURRENT, remove(1, 2, 3), "last voter"),
        (CURRENT, remove(9), "not in the cluster"),
        (CURRENT, add(2), "nothing would change"),
        (CURRENT, learn(4), "nothing would change"),
        (CURRENT, MembershipChange(), "nothing would change"),
        (CURRENT, learn(2), "votes already"),
        (CURRENT, MembershipChange(add_voters=(Member(2, "other", "10.0.0.9:7500"),)), "already n2"),
        (CURRENT, MembershipChange(add_voters=(Member(9, "n2", "10.0.0.9:7500"),)), "name n2"),
        (CURRENT, MembershipChange(add_voters=(Member(9, "n9", "10.0.0.2:7500"),)), "address"),
        (CURRENT, MembershipChange(add_voters=(member(7), Member(8, "n7", "10.0.0.8:7500"))), "name n7"),
        (CURRENT, MembershipChange(add_voters=(member(7), member(7))), "twice"),
        (CURRENT, MembershipChange(add_voters=(member(7),), add_learners=(member(7),)), "twice"),
        (CURRENT, MembershipChange(add_voters=(member(4),), remove=frozenset([4])), "at once"),
        (CURRENT, MembershipChange(add_learners=(member(2),), remove=frozenset([2])), "at once"),
        # A voter that leaves keeps its name and address until the joint configuration is over.
        (CURRENT, MembershipChange(add_voters=(Member(9, "n2", "10.0.0.9:1"),), remove=frozenset([2])), "name n2"),
        (configuration([1, 2], outgoing=[1]), add(3), "under way"),
    ],
)
def test_safety_38_a_change_that_breaks_a_rule_is_refused(
    current: Configuration, change: MembershipChange, message: str
) -> None:
    with pytest.raises(Refused, match=message):
        next_configuration(current, change)


def test_safety_38_a_refused_change_leaves_the_leader_as_it_was() -> None:
    server = leading()
    with pytest.raises(Refused):
        server.node.propose_membership(remove(9), server.now_ns)
    assert not server.node.has_ready()
    server.change(add(4))


def test_a_learner_may_be_replaced_by_another_of_its_name_in_one_step() -> None:
    change = MembershipChange(add_learners=(Member(9, "n4", "10.0.0.9:7500"),), remove=frozenset([4]))
    found = next_configuration(CURRENT, change)
    assert (found.learners, found.is_joint, found.member(4)) == (frozenset([9]), False, None)


def test_no_change_of_members_while_leadership_is_being_handed_over() -> None:
    server = leading()
    server.propose()
    server.transfer(2)
    with pytest.raises(Busy):
        server.change(add(4))


ids = st.frozensets(st.integers(1, 6), min_size=1)


@given(ids, ids, ids)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_any_two_quorums_of_a_joint_configuration_meet_in_both_halves(
    incoming: frozenset[int], outgoing: frozenset[int], granted: frozenset[int]
) -> None:
    """Section 6, the reason for it all: no two disjoint decisions, whichever configuration makes them."""
    joint = configuration(incoming, outgoing=outgoing)
    old, new = configuration(outgoing), leave_joint(joint)
    rest = frozenset(range(1, 7)) - granted
    if quorum.is_quorum(joint, granted):
        for other in (joint, old, new):
            assert not quorum.is_quorum(other, rest)
        assert quorum.is_quorum(old, granted)
        assert quorum.is_quorum(new, granted)
    assert quorum.is_lost(joint, granted) == (not quorum.is_quorum(joint, joint.all_voters - granted))


@given(ids, st.frozensets(st.integers(1, 6)), st.dictionaries(st.integers(1, 6), st.integers(0, 9)))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_the_quorum_value_is_the_largest_that_a_quorum_has_reached(
    incoming: frozenset[int], outgoing: frozenset[int], values: dict[int, int]
) -> None:
    """Figure 2, the leader's last rule, against its own words: the largest N with a quorum of matchIndex >= N."""
    group = configuration(incoming, outgoing=outgoing)
    reached = [
        number
        for number in range(10)
        if quorum.is_quorum(group, {node_id for node_id in group.all_voters if values.get(node_id, 0) >= number})
    ]
    assert quorum.quorum_of(group, values) == max(reached)


def test_a_learner_can_read() -> None:
    """It forwards like any follower."""
    server = solo(voters=configuration([2, 3], learners=[1]))
    server.step(Heartbeat(2, 1, 1, 0, 1))
    server.take()
    server.read(1)
    assert [type(message) for message in server.take()] == [ReadIndexRequest]
