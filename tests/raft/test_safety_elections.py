"""SAFETY.md, cases 1 to 8: elections."""

from __future__ import annotations

import pytest
from harness import CONFIG, MS, Cluster, Disk, configuration, lead, log_of, solo

from lattice_core.raft.messages import (
    AppendEntries,
    Heartbeat,
    HeartbeatResponse,
    PreVoteRequest,
    PreVoteResponse,
    VoteRequest,
    VoteResponse,
)
from lattice_core.raft.ready import RoleChanged
from lattice_core.raft.types import HardState, RecoveredState, Role, SnapshotMeta


def test_safety_01_a_vote_is_sent_only_when_term_and_vote_are_on_disk_as_one_record() -> None:
    server = solo()
    server.disk.held = True
    server.step(VoteRequest(2, 1, 3, 0, 0, False))
    (persist,) = server.disk.pending
    assert persist.hard_state == HardState(3, 2), "one record"
    assert persist.messages == (VoteResponse(1, 2, 3, True),)
    assert server.take() == []
    server.release_disk()
    assert server.take() == [VoteResponse(1, 2, 3, True)]


def test_safety_01_a_candidate_asks_for_votes_only_when_its_own_is_on_disk_and_counts_it_only_then() -> None:
    server = solo(voters=(1, 2))
    server.time_out()
    server.take()
    server.disk.held = True
    server.step(PreVoteResponse(2, 1, 1, True))
    assert server.node.role is Role.CANDIDATE
    assert server.take() == []
    server.step(VoteResponse(2, 1, 1, True))  # it cannot know of the question yet; one of two all the same
    assert server.node.role is Role.CANDIDATE
    server.release_disk()
    assert server.node.is_leader
    assert server.disk.hard_state == HardState(1, 1)


def test_safety_01_an_earlier_write_that_completes_does_not_make_the_own_vote_count() -> None:
    server = solo(voters=(1, 2))
    server.disk.held = True
    server.step(AppendEntries(2, 1, 1, 0, 0, log_of(1), 0, 1))
    server.time_out()
    server.step(PreVoteResponse(2, 1, 2, True))
    assert (server.node.role, len(server.disk.pending)) == (Role.CANDIDATE, 2)
    server.release_disk(1)
    server.step(VoteResponse(2, 1, 2, True))
    assert server.node.role is Role.CANDIDATE
    server.release_disk()
    assert server.node.is_leader


def test_safety_01_the_only_voter_elects_itself_only_when_its_vote_is_on_disk() -> None:
    server = solo(voters=[1])
    server.disk.held = True
    server.time_out()
    assert server.node.role is Role.CANDIDATE
    server.release_disk()
    assert server.node.is_leader
    assert server.node.commit_index == 1


def test_safety_01_a_refused_pre_vote_carries_a_term_and_so_waits_until_that_is_on_disk() -> None:
    server = solo()
    server.disk.held = True
    server.step(Heartbeat(2, 1, 4, 0, 1))
    server.step(PreVoteRequest(3, 1, 2, 9, 9))
    assert server.take() == []
    server.release_disk()
    assert server.take() == [HeartbeatResponse(1, 2, 4, 1), PreVoteResponse(1, 3, 4, False)]


def test_safety_02_after_a_restart_only_the_same_candidate_may_get_that_terms_vote_again() -> None:
    server = solo()
    server.step(VoteRequest(2, 1, 3, 0, 0, False))
    server.crash()
    server.start(server.now_ns)
    server.tick(server.now_ns + CONFIG.election_timeout_min_ns)
    server.take()
    server.step(VoteRequest(3, 1, 3, 5, 2, False))
    server.step(VoteRequest(2, 1, 3, 0, 0, False))
    assert server.take(VoteResponse) == [VoteResponse(1, 3, 3, False), VoteResponse(1, 2, 3, True)]


def test_safety_02_a_vote_that_was_not_durable_was_never_given() -> None:
    server = solo()
    server.disk.held = True
    server.step(VoteRequest(2, 1, 3, 0, 0, False))
    server.crash()
    server.disk.held = False
    server.start(server.now_ns)
    assert server.take() == []
    server.step(VoteRequest(3, 1, 3, 0, 0, False))
    assert server.take() == [VoteResponse(1, 3, 3, True)]


def test_safety_03_votes_that_arrive_after_the_term_changed_are_ignored() -> None:
    server = solo()
    server.time_out()
    server.step(PreVoteResponse(2, 1, 1, True))
    server.time_out()
    server.step(PreVoteResponse(2, 1, 2, True))
    assert (server.node.role, server.node.term) == (Role.CANDIDATE, 2)
    server.step(VoteResponse(2, 1, 1, True))
    server.step(VoteResponse(3, 1, 1, True))
    assert server.node.role is Role.CANDIDATE


def test_safety_03_votes_that_arrive_after_the_role_changed_are_ignored() -> None:
    server = solo()
    server.time_out()
    server.step(PreVoteResponse(2, 1, 1, True))
    server.step(Heartbeat(3, 1, 1, 0, 1))  # somebody else has won the term
    server.step(VoteResponse(2, 1, 1, True))
    server.step(VoteResponse(3, 1, 1, True))
    assert (server.node.role, server.node.leader_id) == (Role.FOLLOWER, 3)


def test_safety_03_the_votes_of_those_who_are_no_voters_do_not_count() -> None:
    server = solo(voters=configuration([1, 2, 3], learners=[4, 5]))
    server.time_out()
    server.step(PreVoteResponse(2, 1, 1, True))
    for stranger in (4, 5, 77):
        server.step(VoteResponse(stranger, 1, 1, True))
    assert server.node.role is Role.CANDIDATE


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE])
def test_safety_04_a_denied_vote_resets_no_timer(role: Role) -> None:
    server = solo(log=log_of(1, 1))
    if role is not Role.FOLLOWER:
        server.time_out()
    if role is Role.CANDIDATE:
        server.step(PreVoteResponse(2, 1, 2, True))
    assert server.node.role is role
    deadline = server.node.next_deadline_ns
    server.tick(server.now_ns + 100 * MS)
    server.step(VoteRequest(3, 1, 7, 1, 1, False))
    assert VoteResponse(1, 3, 7, False) in server.take()
    assert server.node.next_deadline_ns == deadline


def test_safety_04_a_granted_vote_resets_the_timer() -> None:
    server = solo()
    server.tick(server.node.next_deadline_ns - MS)
    server.step(VoteRequest(3, 1, 7, 1, 1, False))
    assert server.node.next_deadline_ns >= server.now_ns + CONFIG.election_timeout_min_ns


def test_safety_04_a_refused_candidate_waits_out_its_own_timeout() -> None:
    server = solo(voters=(1, 2, 3))
    server.time_out()
    deadline = server.node.next_deadline_ns
    server.tick(server.now_ns + MS)
    server.step(PreVoteResponse(2, 1, 0, False))
    server.step(PreVoteResponse(3, 1, 0, False))
    assert (server.node.role, server.node.next_deadline_ns) == (Role.FOLLOWER, deadline)


def test_safety_05_a_pre_vote_is_refused_while_a_leader_was_heard_from_recently() -> None:
    server = solo()
    server.step(AppendEntries(2, 1, 1, 0, 0, (), 0, 1))
    server.take()
    server.step(PreVoteRequest(3, 1, 2, 5, 1))
    assert server.take() == [PreVoteResponse(1, 3, 1, False)]


def test_safety_05_a_pre_vote_is_refused_to_a_log_that_lags() -> None:
    server = solo(log=log_of(1, 1))
    server.step(PreVoteRequest(3, 1, 2, 1, 1))
    assert server.take() == [PreVoteResponse(1, 3, 1, False)]


@pytest.mark.parametrize("seed", range(8))
def test_safety_06_longer_log_of_an_older_term_against_shorter_log_of_a_newer_one_does_not_wait_for_ever(
    seed: int,
) -> None:
    """etcd#8243: n1 has the longer log, of term 1, and n2 a shorter one of term 2; n3 is gone for good."""
    first = configuration([1, 2, 3])
    begin = SnapshotMeta(0, 0, first)
    disks = {
        1: Disk(RecoveredState(HardState(1, None), begin, log_of(1, 1, 1, 1, 1))),
        2: Disk(RecoveredState(HardState(3, 2), begin, log_of(1, 2))),
        3: Disk(RecoveredState(HardState(1, None), begin, log_of(1))),
    }
    cluster = Cluster(first=first, disks=disks, seed=seed)
    cluster.crash(3)
    assert cluster.run_until(lambda: cluster.leader is not None, 6_000 * MS)
    assert cluster.leader is cluster[2]


def test_safety_06_the_refusal_carries_the_term_and_the_asker_takes_it_over() -> None:
    server = solo(term=1, log=log_of(1, 1))
    server.time_out()
    server.step(PreVoteResponse(2, 1, 3, False))
    assert (server.node.role, server.node.term) == (Role.FOLLOWER, 3)


def test_safety_07_a_leader_that_no_quorum_answers_steps_down_and_stops_its_heartbeats() -> None:
    """The 2020 Cloudflare outage: n1 reaches only the bridge, n3; n3 reaches everybody."""
    cluster = Cluster(5)
    cluster.elect(1)
    cluster.replicate(b"a")
    cluster.cut((1, 2), (1, 4), (1, 5), (2, 4), (2, 5), (4, 5))
    begin = cluster.now_ns
    assert cluster.run_until(lambda: not cluster[1].node.is_leader, 3_000 * MS)
    assert cluster.now_ns - begin <= CONFIG.election_timeout_max_ns + 2 * CONFIG.heartbeat_interval_ns
    assert any(isinstance(event, RoleChanged) and "no quorum" in event.reason for event in cluster[1].events)
    # Only the bridge can be elected, and it is; it reaches all.
    assert cluster.run_until(lambda: cluster.leader is cluster[3], 10_000 * MS)
    cluster.replicate(b"b")
    cluster.run(500 * MS)
    assert {len(server.machine) for server in cluster} == {len(cluster[3].machine)}


def test_safety_07_a_bridge_between_two_others_keeps_one_leader() -> None:
    """Three servers, one link down: n1 - n2 - n3. The leader at one end keeps its quorum; the other end cannot
    disturb it, because the bridge protects the leader it hears."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.cut((1, 3))
    cluster.run(10_000 * MS)
    assert cluster[1].node.is_leader
    assert {server.node.term for server in cluster} == {1}


def test_safety_07_a_leader_that_hears_nobody_although_they_hear_it_steps_down() -> None:
    """One-way cuts: the followers go on following, so only the leader itself can end it."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.cut_one_way(2, 1)
    cluster.cut_one_way(3, 1)
    assert cluster.run_until(lambda: not cluster[1].node.is_leader, 3_000 * MS)
    assert cluster.run_until(lambda: cluster.leader is not None, 5_000 * MS)
    assert cluster.leader is not cluster[1]


def test_safety_08_an_isolated_node_that_comes_back_causes_no_election() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(3)
    cluster.run(30_000 * MS)
    assert cluster[3].node.term == 1, "pre-vote: it never won even one"
    cluster.heal()
    cluster.run(3_000 * MS)
    assert cluster[1].node.is_leader
    assert [server.node.term for server in cluster] == [1, 1, 1]
    assert cluster[3].node.leader_id == 1


def test_a_leader_alone_in_its_cluster_needs_nobodys_answer() -> None:
    """Check-quorum (case 7) with one voter, with learners that never answer beside it."""
    server = lead(solo(voters=configuration([1], learners=[2])))
    for _ in range(50):
        server.time_out()
    assert server.node.is_leader


def test_a_transferring_candidates_request_is_heard_although_a_leader_was() -> None:
    """Thesis section 4.2.3: "this is useful for leadership transfer": the leader itself asked for the election."""
    server = solo()
    server.step(Heartbeat(2, 1, 1, 0, 1))
    server.take()
    server.step(VoteRequest(3, 1, 2, 0, 0, True))
    assert server.take() == [VoteResponse(1, 3, 2, True)]


def test_whoever_does_not_vote_says_so_when_its_leader_falls_silent() -> None:
    """A learner does not campaign; status and clients must not be pointed at a dead leader all the same."""
    server = solo(voters=configuration([2, 3], learners=[1]))
    server.step(Heartbeat(2, 1, 1, 0, 1))
    server.events.clear()
    for _ in range(3):
        server.time_out()
    assert [(event.leader_id, event.role) for event in server.events if isinstance(event, RoleChanged)] == [
        (None, Role.FOLLOWER)
    ]


def test_two_candidates_in_a_row_each_take_their_own_time() -> None:
    """Section 5.2: each candidate "restarts its randomized election timeout at the start of an election.\""""
    waits = set()
    server = solo()
    for _ in range(20):
        before = server.now_ns
        server.time_out()
        waits.add(server.now_ns - before)
    assert len(waits) == 20
