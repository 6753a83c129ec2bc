"""SAFETY.md, cases 39 to 42 (reads and leases) and 46 (leadership transfer), as far as the core decides them."""

from __future__ import annotations

import pytest
from harness import CONFIG, MS, Cluster, Server, configuration, lead, leader_of, log_of, members, solo

from lattice_core.raft.config import RaftConfig
from lattice_core.raft.errors import Busy, NotLeader, Refused
from lattice_core.raft.membership import MembershipChange
from lattice_core.raft.messages import (
    AppendEntries,
    AppendSuccess,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    PreVoteResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from lattice_core.raft.ready import TransferEnded
from lattice_core.raft.types import Role, SnapshotMeta

MIN, MAX = CONFIG.election_timeout_min_ns, CONFIG.election_timeout_max_ns


def leading(size: int = 3, **options: object) -> Server:
    """A leader with its no-op, index 1, committed, and all rounds so far answered."""
    server = lead(solo(voters=range(1, size + 1), **options))  # type: ignore[arg-type]
    for peer in server.node.progress:
        server.step(AppendSuccess(peer, 1, 1, 1, 1))
    server.take()
    return server


def echo(server: Server, *peers: int, round_: int | None = None) -> None:
    """These answer the newest round."""
    number = leader_of(server).reads.round if round_ is None else round_
    for peer in peers:
        server.step(HeartbeatResponse(peer, server.id, server.node.term, number))


def ended(server: Server) -> list[TransferEnded]:
    return [event for event in server.events if isinstance(event, TransferEnded)]


# ---- 39: ReadIndex ----------------------------------------------------------------------------------


def test_safety_39_a_read_before_a_commit_of_the_leaders_own_term_waits_for_it() -> None:
    """Thesis section 6.4, step 1. The new leader may not know yet what its predecessor committed. [etcd#20418]"""
    server = lead(solo(log=log_of(1, 1)))
    server.read(7)
    server.time_out()
    echo(server, 2, 3)
    assert server.released == {}
    server.step(AppendSuccess(2, 1, 2, 3, 1))
    assert server.released == {}, "only now does its round begin"
    echo(server, 2)
    assert server.released == {7: 3}


def test_safety_39_only_a_round_that_began_after_the_read_confirms_it() -> None:
    """Thesis section 6.4, step 3: answers to heartbeats sent before the read arrived prove nothing."""
    server = leading()
    server.time_out()
    before = leader_of(server).reads.round
    server.read(7)
    echo(server, 2, 3, round_=before)
    assert server.released == {}
    echo(server, 2)
    assert server.released == {7: 1}


def test_safety_39_a_round_on_its_way_does_not_take_later_reads_along() -> None:
    server = leading()
    server.read(1)
    first = leader_of(server).reads.round
    server.read(2)
    echo(server, 2, round_=first)
    assert server.released == {1: 1}
    echo(server, 2)
    assert server.released == {1: 1, 2: 1}


def test_safety_39_a_read_is_released_at_the_commit_index_of_when_its_round_began_and_after_apply() -> None:
    server = leading()
    server.apply_held = True
    index = server.propose()
    server.step(AppendSuccess(2, 1, 1, index, 1))
    assert server.node.commit_index == index
    server.read(7)
    echo(server, 2)
    assert (server.released, server.node.applied_index) == ({}, 1)
    server.release_apply()
    assert server.released == {7: index}


def test_safety_39_a_lost_round_is_made_good_by_the_next_heartbeat() -> None:
    server = leading()
    server.read(7)
    server.take()
    server.time_out()
    echo(server, 3)
    assert server.released == {7: 1}


def test_safety_39_one_round_serves_all_reads_that_wait() -> None:
    server = leading()
    for request_id in range(100):
        server.node.read_index(request_id, server.now_ns)
    server.pump()
    assert len(server.take(Heartbeat)) == 1, "and of no more members than a quorum needs"
    echo(server, 2)
    assert len(server.released) == 100


def test_safety_39_the_only_voter_needs_no_round() -> None:
    server = leading(1)
    server.read(7)
    assert server.released == {7: 1}


def test_safety_39_a_follower_forwards_its_read_and_waits_until_it_has_applied() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    index = cluster[1].propose(b"a")
    cluster.deliver_first(AppendEntries, to=2)
    cluster.settle()
    assert cluster[1].node.commit_index == index
    assert cluster[3].node.commit_index < index
    cluster[3].read(7)
    cluster.settle()
    assert cluster[3].released == {7: index}, "the leader tells it of the commit index along with the answer"
    assert len(cluster[3].machine) == index


def test_safety_39_reads_wait_for_no_write_and_write_nothing() -> None:
    server = leading()
    server.disk.held = True
    server.read(7)
    assert len(server.take(Heartbeat)) == 1, "and of no more members than a quorum needs"
    echo(server, 3)
    assert server.released == {7: 1}
    assert not server.disk.pending


def test_safety_39_reads_confirmed_before_a_snapshot_took_the_logs_place_are_released_after_it() -> None:
    server = solo(log=log_of(1))
    server.step(Heartbeat(2, 1, 1, 1, 1))
    server.read(7)
    (request,) = server.take(ReadIndexRequest)
    assert isinstance(request, ReadIndexRequest)
    server.step(ReadIndexResponse(2, 1, 1, request.request_id, 3))
    assert server.released == {}
    server.archive.states[5, 1] = log_of(1, 1, 1, 1, 1)
    server.step(InstallSnapshot(2, 1, 1, SnapshotMeta(5, 1, configuration([1, 2, 3])), 1))
    assert server.released == {7: 3}


# ---- 40: no old data --------------------------------------------------------------------------------


def test_safety_40_a_partitioned_leader_refuses_reads_when_it_steps_down_and_never_releases_them() -> None:
    cluster = Cluster(3)
    old = cluster.elect(1)
    cluster.replicate(b"a")
    cluster.isolate(1)
    old.read(7)
    cluster.run(1_500 * MS)
    assert not old.node.is_leader
    assert (old.released, old.refused) == ({}, {7: None}), "an error, and no pointer back to itself"


def test_safety_40_a_deposed_leader_names_the_new_one_to_the_reads_it_refuses() -> None:
    server = leading()
    server.read(7)
    server.step(AppendEntries(3, 1, 2, 1, 1, (), 1, 1))
    assert server.refused == {7: 3}


def test_safety_40_a_forwarded_read_is_refused_when_the_leader_changes() -> None:
    server = solo()
    server.step(Heartbeat(2, 1, 1, 0, 1))
    server.read(7)
    (request,) = server.take(ReadIndexRequest)
    server.step(Heartbeat(3, 1, 2, 0, 1))
    assert server.refused == {7: 3}
    assert isinstance(request, ReadIndexRequest)
    server.step(ReadIndexResponse(3, 1, 2, request.request_id, 5))
    server.step(ReadIndexResponse(2, 1, 1, request.request_id, 5))
    assert server.released == {}


def test_safety_40_a_forwarded_read_that_nobody_answers_is_refused_in_time() -> None:
    server = solo()
    server.step(Heartbeat(2, 1, 1, 0, 1))
    server.read(7)
    asked = server.now_ns
    while not server.refused and server.now_ns - asked < 3 * MAX:
        server.tick(min(server.node.next_deadline_ns, server.now_ns + 50 * MS))
        server.step(Heartbeat(2, 1, 1, 0, 1))
    assert server.now_ns - asked <= MAX + 50 * MS


def test_safety_40_who_does_not_lead_says_so_to_forwarded_reads() -> None:
    server = solo()
    server.step(Heartbeat(2, 1, 1, 0, 1))
    server.take()
    server.step(ReadIndexRequest(3, 1, 1, 9))
    assert server.take() == [ReadIndexResponse(1, 3, 1, 9, None)]
    server.read(7)
    (request,) = server.take(ReadIndexRequest)
    assert isinstance(request, ReadIndexRequest)
    server.step(ReadIndexResponse(2, 1, 1, request.request_id, None))
    assert list(server.refused) == [7]


def test_safety_40_without_a_known_leader_a_read_is_an_error_at_once() -> None:
    server = solo()
    with pytest.raises(NotLeader):
        server.read(1)
    server.time_out()
    with pytest.raises(NotLeader):
        server.read(2)


def test_safety_40_waiting_reads_are_bounded_at_leader_and_follower() -> None:
    config = RaftConfig(max_pending_reads=3)
    chief = leading(config=config)
    chief.apply_held = True
    index = chief.propose()
    chief.step(AppendSuccess(2, 1, 1, index, 1))
    for request_id in range(3):
        chief.read(request_id)
    with pytest.raises(Busy):
        chief.read(3)
    echo(chief, 2)
    echo(chief, 2)
    with pytest.raises(Busy, match="to be applied"):
        chief.read(3)
    chief.release_apply()
    chief.read(3)
    follower = solo(config=config)
    follower.step(Heartbeat(2, 1, 1, 0, 1))
    for request_id in range(3):
        follower.read(request_id)
    for request in follower.take(ReadIndexRequest):
        assert isinstance(request, ReadIndexRequest)
        follower.step(ReadIndexResponse(2, 1, 1, request.request_id, 99))
    with pytest.raises(Busy, match="to be applied"):
        follower.read(3)


def test_safety_40_a_leader_with_too_many_reads_says_so_to_followers() -> None:
    server = leading(config=RaftConfig(max_pending_reads=1))
    server.read(1)
    server.take()
    server.step(ReadIndexRequest(2, 1, 1, 5))
    assert server.take() == [ReadIndexResponse(1, 2, 1, 5, None)]


# ---- 41: leases -------------------------------------------------------------------------------------


def test_safety_41_a_lease_runs_from_when_the_round_was_sent_not_from_the_answer() -> None:
    """Thesis section 6.4.1; the drift bound is taken off."""
    server = leading()
    server.time_out()
    sent = server.now_ns
    server.tick(server.now_ns + 90 * MS)  # the answers are slow
    echo(server, 2)
    assert server.lease_read() == 1
    assert CONFIG.lease_duration_ns == MIN * 95 // 100
    server.node.tick(sent + CONFIG.lease_duration_ns - 1)
    assert server.lease_read() == 1
    server.node.tick(sent + CONFIG.lease_duration_ns)
    assert server.lease_read() is None


def test_safety_41_a_lease_needs_a_quorum_of_the_same_round_and_a_commit_of_this_term() -> None:
    server = lead(solo(voters=range(1, 6), log=log_of(1)))
    assert server.lease_read() is None
    echo(server, 2)
    assert server.lease_read() is None
    echo(server, 3)
    assert server.lease_read() is None, "what its predecessor committed is not known yet"
    for peer in (2, 3):
        server.step(AppendSuccess(peer, 1, 2, 2, 1))
    assert server.lease_read() == 2


def test_safety_41_a_late_answer_to_an_old_round_extends_nothing() -> None:
    server = leading()
    for _ in range(6):
        server.time_out()
        echo(server, 3, round_=1)
        echo(server, 2, round_=1)
    assert server.lease_read() is None


def test_safety_41_voters_refuse_votes_for_as_long_as_a_lease_may_hold() -> None:
    """Whatever drift the configuration allows: a follower's protection, on a clock that runs fast by the bound,
    outlasts the lease, on a clock that runs slow."""
    protection_on_a_fast_clock = MIN * 1_000_000 // (1_000_000 + CONFIG.clock_drift_ppm)
    assert CONFIG.lease_duration_ns <= protection_on_a_fast_clock
    voter = solo()
    voter.step(AppendEntries(2, 1, 1, 0, 0, (), 0, 1))
    voter.tick(voter.now_ns + MIN - 1)
    voter.step(VoteRequest(3, 1, 2, 0, 0, False))
    assert voter.node.voted_for is None


def test_safety_41_a_restarted_voter_waits_before_it_votes() -> None:
    """It may have promised, before it was restarted, to protect a leader that reads under its lease."""
    voter = solo()
    voter.step(Heartbeat(2, 1, 1, 0, 1))
    voter.crash()
    voter.start(voter.now_ns)
    voter.take()
    voter.step(VoteRequest(3, 1, 2, 0, 0, False))
    assert (voter.node.term, voter.take()) == (1, [])
    assert voter.node.next_deadline_ns >= voter.now_ns + MIN, "nor does it vote for itself"
    voter.tick(voter.now_ns + MIN)
    voter.step(VoteRequest(3, 1, 2, 0, 0, False))
    assert VoteResponse(1, 3, 2, True) in voter.take()


def test_safety_41_who_is_left_alone_by_an_undecided_change_waits_like_any_restarted_voter() -> None:
    """n2 leads {1, 2} and removes itself. n1 has {1} in its log, and is restarted before n2 hears of that. The only
    voter of a cluster may campaign at once when it starts, but nobody has told n1 that {1} is committed: n2 leads
    under a lease that n1 has promised to respect."""
    cluster = Cluster(2)
    cluster.elect(2)
    cluster.replicate(b"a")
    cluster[2].change(MembershipChange(remove=frozenset([2])))
    cluster.deliver_first(AppendEntries, to=1)
    cluster.deliver_first(AppendSuccess, to=2)
    cluster.deliver_first(AppendEntries, to=1)
    cluster.drop()
    assert cluster[1].node.configuration == configuration([1])
    assert cluster[2].node.is_leader
    assert cluster[2].lease_read() is not None
    cluster.crash(1)
    cluster.restart(1)
    cluster.tick_due()
    assert not cluster[1].node.is_leader
    assert cluster[1].node.next_deadline_ns >= cluster.now_ns + MIN
    assert cluster.run_until(lambda: cluster[1].node.is_leader, 20_000 * MS)
    assert cluster[2].lease_read() is None


def test_safety_41_a_voter_keeps_its_promise_in_a_term_that_it_learned_of_from_an_answer() -> None:
    """n2 leads term 1 under a lease that n1 is part of. Then n1 hears of term 2 from a late answer, and only then a
    request for votes in that very term, from a candidate of before the lease. Not even that one gets its vote."""
    voter = solo(term=1)
    voter.step(Heartbeat(2, 1, 1, 0, 1))
    voter.step(VoteResponse(3, 1, 2, False))
    assert voter.node.term == 2
    voter.take()
    voter.step(VoteRequest(3, 1, 2, 5, 1, False))
    assert voter.node.voted_for is None
    assert voter.take() == [VoteResponse(1, 3, 2, False)]


def test_safety_41_a_waiting_read_does_not_shorten_the_wait_that_protects_the_leader() -> None:
    """A follower's forwarded read has a deadline of its own. When a newer term comes by, the election timer must
    stay what it was: shorter than the protection, this server would vote for itself under the leader's lease."""
    server = solo(term=1)
    server.step(Heartbeat(2, 1, 1, 0, 1))
    server.read(7)  # given up at MAX
    for _ in range(9):
        server.tick(server.now_ns + 100 * MS)
        server.step(Heartbeat(2, 1, 1, 0, 1))
    promised = server.now_ns + MIN
    assert server.node.next_deadline_ns < promised, "the read is what it waits for next"
    server.step(VoteResponse(3, 1, 2, False))
    assert server.node.term == 2
    assert server.node.next_deadline_ns >= promised


def test_safety_41_a_new_leader_has_no_lease_of_an_earlier_term() -> None:
    server = leading()
    server.time_out()
    echo(server, 2, 3)
    assert server.lease_read() is not None
    server.step(AppendEntries(3, 1, 2, 1, 1, (), 1, 1))
    assert server.lease_read() is None
    server.time_out()
    server.step(PreVoteResponse(2, 1, 3, True))
    server.step(VoteResponse(2, 1, 3, True))
    assert server.node.is_leader
    assert server.lease_read() is None


# ---- 42: the lease ends before leadership is handed over ---------------------------------------------


def test_safety_42_the_lease_is_given_up_before_timeout_now_leaves_and_for_the_rest_of_the_term() -> None:
    server = leading()
    server.time_out()
    echo(server, 2, 3)
    assert server.lease_read() is not None
    server.node.transfer_leader(2, server.now_ns)
    assert server.lease_read() is None, "before the Ready that sends it is even taken"
    server.pump()
    assert server.take(TimeoutNow) == [TimeoutNow(1, 2, 1)]
    for _ in range(20):  # it fails, and is given up
        server.time_out()
        echo(server, 3)
    assert ended(server)
    for _ in range(10):
        server.time_out()
        echo(server, 2, 3)
        assert server.lease_read() is None
    server.read(7)
    echo(server, 2)
    assert 7 in server.released, "reads go on by rounds"


def test_safety_42_a_transfer_that_still_waits_for_its_target_keeps_the_lease() -> None:
    """TimeoutNow is what ends the protection; before it nobody can be elected early."""
    server = leading()
    server.propose()
    server.step(AppendSuccess(3, 1, 1, 2, 1))
    server.time_out()
    echo(server, 2, 3)
    server.transfer(2)
    assert server.take(TimeoutNow) == []
    assert server.lease_read() is not None
    server.step(AppendSuccess(2, 1, 1, 2, 1))
    assert server.take(TimeoutNow) == [TimeoutNow(1, 2, 1)]
    assert server.lease_read() is None


# ---- 46: transfer -----------------------------------------------------------------------------------


def test_safety_46_leadership_is_handed_to_a_caught_up_voter_and_nothing_is_lost() -> None:
    """Thesis section 3.10, steps 1 to 3."""
    cluster = Cluster(3)
    old = cluster.elect(1)
    cluster.replicate(b"a")
    old.transfer(3)
    with pytest.raises(Busy):
        old.propose(b"too late")
    begin = cluster.now_ns
    assert cluster.run_until(lambda: cluster[3].node.is_leader, 1_000 * MS)
    assert cluster.now_ns - begin <= 10 * MS, "no election timeout is waited for"
    assert ended(old) == [TransferEnded(3, None)]
    cluster.replicate(b"b")
    assert [entry.payload for entry in cluster[1].machine if entry.payload] == [b"a", b"b"]


def test_safety_46_the_target_is_brought_up_to_date_first() -> None:
    cluster = Cluster(3)
    old = cluster.elect(1)
    cluster.isolate(3)
    for number in range(20):
        old.propose(b"%d" % number)
    cluster.run(300 * MS)
    cluster.heal()
    old.transfer(3)
    assert cluster.run_until(lambda: cluster[3].node.is_leader, 1_000 * MS)
    assert cluster[3].node.last_index >= 21


def test_safety_46_an_abort_at_the_deadline_resumes_proposals() -> None:
    """Thesis section 3.10: "If leadership transfer does not complete after about an election timeout, the prior
    leader aborts the transfer and resumes accepting client requests.\""""
    server = leading()
    server.transfer(2)
    with pytest.raises(Busy):
        server.propose()
    begin = server.now_ns
    for _ in range(20):
        if not ended(server):
            server.time_out()
            echo(server, 3)
    assert server.now_ns - begin == MAX
    assert ended(server) == [TransferEnded(2, "it did not take over in time")]
    server.propose()
    server.transfer(3)
    assert TimeoutNow(1, 3, 1) not in server.take(), "n3 lacks the newest entry"
    server.step(AppendSuccess(3, 1, 1, 2, 1))
    assert server.take(TimeoutNow) == [TimeoutNow(1, 3, 1)]


@pytest.mark.parametrize(("target", "message"), [(1, "leads already"), (4, "is a learner"), (9, "is not a member")])
def test_safety_46_only_another_voter_can_be_the_target(target: int, message: str) -> None:
    server = lead(solo(voters=configuration([1, 2, 3], learners=[4])))
    with pytest.raises(Refused, match=message):
        server.transfer(target)
    server.propose()


def test_safety_46_one_transfer_at_a_time() -> None:
    server = leading()
    server.transfer(2)
    with pytest.raises(Refused, match="already being handed"):
        server.transfer(3)


def test_safety_46_without_a_wish_the_best_placed_voter_that_answers_is_chosen() -> None:
    server = leading(5)
    index = server.propose()
    server.step(AppendSuccess(4, 1, 1, index, 1))
    assert server.transfer(None) == 4
    lonely = leading(3)
    for _ in range(6):
        lonely.time_out()
    with pytest.raises(Refused, match="no other voter answers"):
        lonely.transfer(None)


def test_safety_46_timeout_now_is_obeyed_only_from_the_leader_of_this_term_and_only_by_a_voter() -> None:
    server = solo(term=2)
    server.step(Heartbeat(2, 1, 2, 0, 1))
    server.take()
    server.step(TimeoutNow(3, 1, 2))
    server.step(TimeoutNow(2, 1, 1))
    assert (server.node.role, server.node.term) == (Role.FOLLOWER, 2)
    server.step(TimeoutNow(2, 1, 2))
    assert (server.node.role, server.node.term) == (Role.CANDIDATE, 3)
    assert all(message.leadership_transfer for message in server.take(VoteRequest))  # type: ignore[attr-defined]
    learner = solo(voters=configuration([2, 3], learners=[1]), term=2)
    learner.step(TimeoutNow(2, 1, 2))
    assert learner.node.role is Role.FOLLOWER


def test_safety_46_timeout_now_finds_its_target_even_while_that_asks_for_itself() -> None:
    """It was about to time out; its leader vouches for it all the same."""
    server = solo(term=1)
    server.step(Heartbeat(2, 1, 1, 0, 1))
    server.time_out()
    assert server.node.role is Role.PRE_CANDIDATE
    server.step(TimeoutNow(2, 1, 1))
    assert (server.node.role, server.node.term) == (Role.CANDIDATE, 2)


def test_safety_46_the_privilege_of_a_transfer_does_not_outlast_its_election() -> None:
    server = solo(term=1)
    server.step(TimeoutNow(2, 1, 1))
    server.take()
    server.time_out()
    server.step(PreVoteResponse(3, 1, 3, True))
    assert server.node.term == 3
    assert not any(message.leadership_transfer for message in server.take(VoteRequest))  # type: ignore[attr-defined]


def test_safety_46_a_dead_target_costs_one_election_timeout() -> None:
    cluster = Cluster(3)
    old = cluster.elect(1)
    cluster.replicate(b"a")
    cluster.crash(3)
    old.transfer(3)
    cluster.run(MAX + 200 * MS)
    assert old.node.is_leader
    assert [event.reason for event in ended(old)] == ["it did not take over in time"]
    old.propose(b"b")


def test_safety_46_a_target_that_is_removed_ends_the_transfer() -> None:
    server = leading()
    server.change(MembershipChange(add_voters=members(4), remove=frozenset([3])))
    leader_of(server).transfer_target = 3  # asked for just before the change took hold
    leader_of(server).on_configuration_changed()
    server.pump()
    assert ended(server) == [TransferEnded(3, "it is no longer a voter")]
    server.propose()


def test_safety_46_a_leader_that_steps_down_for_another_reason_does_not_claim_success() -> None:
    server = leading()
    server.propose()
    server.transfer(2)
    leader_of(server).transfer_deadline_ns = server.now_ns + 10 * MAX
    for _ in range(50):
        if server.node.is_leader:
            server.time_out()
    assert [event.reason for event in ended(server)] == ["this server stopped leading"]
    assert server.take(TimeoutNow) == []


def test_safety_46_a_leader_that_removed_itself_hands_nothing_over_after_it_stepped_down() -> None:
    """The commit that ends its leadership and the answer that completes a transfer are one and the same message."""
    server = leading(4)
    server.change(MembershipChange(remove=frozenset([1])))
    for peer in (2, 3):
        server.step(AppendSuccess(peer, 1, 1, 2, 1))
    server.step(AppendSuccess(3, 1, 1, 3, 1))
    server.transfer(2)
    server.take()
    server.step(AppendSuccess(2, 1, 1, 3, 1))
    assert server.node.role is Role.FOLLOWER
    assert server.take(TimeoutNow) == []
    assert [event.reason for event in ended(server)] == ["this server stopped leading"]
