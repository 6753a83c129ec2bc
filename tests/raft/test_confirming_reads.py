"""Whom a leader asks whether it still leads (raft/leader.py): the quickest bare quorum, and the others if need be.

That a quorum has to answer at all is SAFETY 39, in test_safety_reads.py.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from harness import CONFIG, MS, Server, configuration, lead, leader_of, members, solo

from lattice_core.raft import quorum
from lattice_core.raft.membership import MembershipChange
from lattice_core.raft.messages import AppendSuccess, Heartbeat, HeartbeatResponse, ReadIndexRequest
from lattice_core.raft.progress import Progress
from lattice_core.raft.types import Configuration

PATIENCE = CONFIG.confirm_patience_ns


def leading(voters: Configuration | Iterable[int]) -> Server:
    """A leader that has committed, and whose heartbeats have been answered at once."""
    server = lead(solo(voters=voters))
    for peer in server.node.progress:
        server.step(AppendSuccess(peer, 1, 1, 1, 1))
        answer(server, peer)
    server.take()
    return server


def everybody(server: Server, *, late: dict[int, int], times: int) -> None:
    """Some heartbeat intervals: everybody answers each time, so many milliseconds later."""
    for _ in range(times):
        server.tick(server.now_ns + CONFIG.heartbeat_interval_ns)
        began, round_ = server.now_ns, leader_of(server).reads.round
        for after, peer in sorted((late[peer], peer) for peer in server.node.progress):
            server.step(HeartbeatResponse(peer, server.id, server.node.term, round_), began + after * MS)
        server.take()


def answer(server: Server, peer: int) -> None:
    server.step(HeartbeatResponse(peer, server.id, server.node.term, leader_of(server).reads.round))


def asked(server: Server) -> set[int]:
    """Who has been sent a heartbeat since this was last looked at."""
    return {message.to for message in server.take(Heartbeat)}


@pytest.mark.parametrize(("voters", "count"), [(2, 1), (3, 1), (4, 2), (5, 2), (7, 3)])
def test_a_bare_quorum_is_asked(voters: int, count: int) -> None:
    server = leading(range(1, voters + 1))
    server.read(7)
    peers = asked(server)
    assert len(peers) == count
    for peer in peers:
        assert server.released == {}
        answer(server, peer)
    assert server.released == {7: 1}


def test_the_quickest_are_asked() -> None:
    server = leading(range(1, 6))
    everybody(server, late={2: 3, 3: 1, 4: 2, 5: 9}, times=4)
    server.read(7)
    assert asked(server) == {3, 4}


def test_who_has_become_slow_is_not_asked_for_long() -> None:
    server = leading(range(1, 4))
    everybody(server, late={2: 1, 3: 2}, times=4)
    server.read(1)
    assert asked(server) == {2}
    answer(server, 2)
    everybody(server, late={2: 20, 3: 2}, times=3)
    server.read(2)
    assert asked(server) == {3}


def test_the_others_are_asked_when_no_answer_comes_soon_and_may_confirm_it() -> None:
    server = leading(range(1, 4))
    server.read(7)
    (first,) = asked(server)
    other = 5 - first
    assert server.node.next_deadline_ns == server.now_ns + PATIENCE
    server.tick(server.now_ns + PATIENCE - 1)
    assert asked(server) == set()
    server.time_out()
    assert other in asked(server)
    answer(server, other)
    assert server.released == {7: 1}
    assert server.node.next_deadline_ns > server.now_ns + PATIENCE, "there is nobody left to ask"


def test_who_did_not_answer_is_not_asked_first_again() -> None:
    server = leading(range(1, 4))
    server.read(1)
    (silent,) = asked(server)
    server.time_out()
    answer(server, 5 - silent)
    server.take()
    for request_id in range(2, 6):
        server.tick(server.now_ns + 5 * MS)
        server.read(request_id)
        assert asked(server) == {5 - silent}
        answer(server, 5 - silent)


def test_an_answer_ends_the_wait() -> None:
    server = leading(range(1, 4))
    server.read(7)
    (first,) = asked(server)
    answer(server, first)
    server.tick(server.now_ns + PATIENCE)
    assert asked(server) == set()


def test_far_away_it_takes_longer_before_the_others_are_asked() -> None:
    server = leading(range(1, 4))
    everybody(server, late={2: 4, 3: 5}, times=20)
    server.read(7)
    assert asked(server) == {2}
    assert 10 * MS < server.node.next_deadline_ns - server.now_ns < 13 * MS
    answer(server, 2)
    everybody(server, late={2: 40, 3: 41}, times=20)
    server.read(8)
    assert server.node.next_deadline_ns - server.now_ns == CONFIG.heartbeat_interval_ns // 4


def test_learners_are_not_asked() -> None:
    server = leading(configuration([1, 2], learners=[3]))
    everybody(server, late={2: 5, 3: 1}, times=4)
    server.read(7)
    assert asked(server) == {2}
    server.time_out()
    assert asked(server) <= {2}


def test_the_others_are_those_who_have_not_answered_this_round() -> None:
    server = leading(range(1, 6))
    everybody(server, late={2: 1, 3: 2, 4: 3, 5: 4}, times=4)
    server.read(7)
    assert asked(server) == {2, 3}
    answer(server, 2)
    server.time_out()
    assert asked(server) == {3, 4, 5}


def test_the_slowest_of_those_who_are_asked_decides_how_long_is_waited() -> None:
    server = leading(range(1, 6))
    everybody(server, late={2: 1, 3: 6, 4: 9, 5: 9}, times=20)
    server.read(7)
    assert asked(server) == {2, 3}
    assert 15 * MS < server.node.next_deadline_ns - server.now_ns < 19 * MS


def test_a_heartbeat_that_is_due_before_does_not_end_the_wait() -> None:
    server = leading(range(1, 6))
    everybody(server, late={2: 4, 3: 5, 4: 9, 5: 9}, times=20)
    began = server.now_ns
    server.tick(leader_of(server).deadline_ns - 1 * MS)
    server.read(7)
    asked(server)
    server.time_out()  # the heartbeat
    assert server.now_ns > began
    assert asked(server) == {2, 3, 4, 5}
    waits_until = server.node.next_deadline_ns
    assert 10 * MS < waits_until - server.now_ns < 25 * MS
    server.time_out()
    assert asked(server) == {2, 3, 4, 5}, "nobody has answered anything"


def test_a_long_outage_is_soon_forgotten() -> None:
    server = leading([1, 2, 3])
    everybody(server, late={2: 1, 3: 2}, times=4)
    for _ in range(600):  # a minute without a word from 2
        server.tick(server.now_ns + CONFIG.heartbeat_interval_ns)
        answer(server, 3)
    everybody(server, late={2: 1, 3: 2}, times=20)
    server.read(7)
    assert asked(server) == {2}
    assert server.node.next_deadline_ns - server.now_ns < 10 * MS


def test_being_late_already_buys_no_more_patience() -> None:
    server = leading([1, 2, 3])
    everybody(server, late={2: 1, 3: 40}, times=12)
    server.tick(server.now_ns + CONFIG.heartbeat_interval_ns)
    server.take()
    server.tick(server.now_ns + 7 * MS)
    server.read(9)
    assert asked(server) == {2}
    assert server.node.next_deadline_ns - server.now_ns < 5 * MS


def test_who_has_never_answered_is_asked_last() -> None:
    server = leading([1, 2, 3])
    everybody(server, late={2: 9, 3: 9}, times=4)
    server.change(MembershipChange(add_voters=members(4, 5)))
    server.take()
    server.read(7)
    assert {2, 3} <= asked(server)


def test_a_leader_that_is_leaving_asks_a_majority_of_the_others() -> None:
    server = leading([1, 2, 3])
    server.change(MembershipChange(remove=frozenset([1])))
    server.take()
    server.read(7)
    assert asked(server) == {2, 3}
    answer(server, 2)
    assert server.released == {}
    answer(server, 3)
    assert server.released == {7: 1}


def test_a_follower_that_forwarded_a_read_hears_of_the_commit_when_it_has_the_entry() -> None:
    """It needs the commit index for its answer, and nobody may have sent it one: it was asked nothing meanwhile."""
    server = leading([1, 2, 3])
    index = server.propose()
    server.step(AppendSuccess(2, 1, 1, index, leader_of(server).reads.round))
    server.step(ReadIndexRequest(3, 1, 1, 5))
    answer(server, 2)
    server.take()
    server.step(AppendSuccess(3, 1, 1, index, leader_of(server).reads.round))
    (told,) = server.take(Heartbeat)
    assert isinstance(told, Heartbeat)
    assert (told.to, told.commit) == (3, index)
    server.step(HeartbeatResponse(3, 1, 1, leader_of(server).reads.round))
    assert server.take(Heartbeat) == []


def test_in_a_joint_configuration_both_majorities_are_asked() -> None:
    server = leading([1, 2, 3])
    server.change(MembershipChange(add_voters=members(4, 5), remove=frozenset([2, 3])))
    assert server.node.configuration.is_joint
    everybody(server, late={2: 1, 5: 2, 3: 3, 4: 4}, times=4)
    server.read(7)
    assert asked(server) == {2, 5}
    answer(server, 2)
    assert server.released == {}
    answer(server, 5)
    assert server.released == {7: 1}


def test_as_many_as_decide_are_taken_in_their_order() -> None:
    five = configuration([1, 2, 3, 4, 5])
    assert quorum.completing(five, 1, [4, 2, 3, 5]) == [4, 2]
    assert quorum.completing(five, 9, [4, 2, 3, 5]) == [4, 2, 3], "a leader that is no voter does not count itself"
    assert quorum.completing(five, 1, [4]) == [4]
    assert quorum.completing(configuration([1]), 1, [2]) == []


def test_a_heartbeat_that_is_lost_counts_until_a_later_one_is_answered() -> None:
    progress = Progress(1, 0)
    progress.heartbeat_sent(1, 0)
    progress.heartbeat_answered(1, 4, 1000)
    assert progress.promptness(5) == (False, 4)
    progress.heartbeat_sent(2, 100)
    progress.heartbeat_sent(3, 200)
    assert progress.promptness(300) == (False, 200)
    progress.heartbeat_answered(1, 310, 1000)
    assert progress.promptness(320) == (False, 220), "a late copy of an older answer ends nothing"
    progress.heartbeat_answered(3, 321, 1000)
    assert progress.promptness(500) == (False, 4 + (221 - 4) // 4)


def test_an_echo_is_told_once_and_only_of_the_heartbeat_that_was_timed() -> None:
    progress = Progress(1, 0)
    assert progress.take_echo_ns() is None
    progress.heartbeat_sent(7, 0)
    progress.heartbeat_sent(8, 1)  # one is timed already
    progress.heartbeat_answered(6, 2, 1000)
    assert progress.take_echo_ns() is None
    progress.heartbeat_answered(7, 3, 1000)
    assert (progress.take_echo_ns(), progress.take_echo_ns()) == (3, None)
    progress.heartbeat_answered(7, 4, 1000)
    assert progress.take_echo_ns() is None, "a duplicate"
    progress.heartbeat_sent(9, 10)
    progress.heartbeat_answered(40, 5000, 1000)
    assert progress.take_echo_ns() is None, "the one that was timed is lost"
    progress.heartbeat_sent(41, 6000)
    progress.heartbeat_answered(41, 9000, 1000)
    assert progress.take_echo_ns() == 3000, "as long as it took, whatever it counts for"
