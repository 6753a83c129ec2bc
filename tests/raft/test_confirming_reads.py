"""Whom a leader asks whether it still leads (raft/leader.py): the quickest bare quorum, and the others if need be.

That a quorum has to answer at all is SAFETY 39, in test_safety_reads.py.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from harness import CONFIG, MS, Server, configuration, lead, leader_of, members, solo

from lattice_core.raft import quorum
from lattice_core.raft.membership import MembershipChange
from lattice_core.raft.messages import AppendSuccess, Heartbeat, HeartbeatResponse
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


def everybody(server: Server, *, late: dict[int, int] | None = None) -> None:
    """One heartbeat interval: everybody answers, some so many milliseconds later."""
    server.tick(server.now_ns + CONFIG.heartbeat_interval_ns)
    began, round_ = server.now_ns, leader_of(server).reads.round
    for after, peer in sorted(((late or {}).get(peer, 0), peer) for peer in server.node.progress):
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
    for _ in range(4):
        everybody(server, late={2: 3, 3: 1, 4: 2, 5: 9})
    server.read(7)
    assert asked(server) == {3, 4}


def test_who_has_become_slow_is_not_asked_for_long() -> None:
    server = leading(range(1, 4))
    for _ in range(4):
        everybody(server, late={2: 1, 3: 2})
    server.read(1)
    assert asked(server) == {2}
    answer(server, 2)
    for _ in range(3):
        everybody(server, late={2: 20, 3: 2})
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
    for _ in range(20):
        everybody(server, late={2: 4, 3: 5})
    server.read(7)
    assert asked(server) == {2}
    assert 10 * MS < server.node.next_deadline_ns - server.now_ns < 13 * MS
    answer(server, 2)
    for _ in range(20):
        everybody(server, late={2: 40, 3: 41})
    server.read(8)
    assert server.node.next_deadline_ns - server.now_ns == CONFIG.heartbeat_interval_ns // 4


def test_learners_are_not_asked() -> None:
    server = leading(configuration([1, 2], learners=[3]))
    server.read(7)
    assert asked(server) == {2}
    server.time_out()
    assert asked(server) <= {2}


def test_in_a_joint_configuration_both_majorities_are_asked() -> None:
    server = leading([1, 2, 3])
    server.change(MembershipChange(add_voters=members(4, 5), remove=frozenset([2, 3])))
    assert server.node.configuration.is_joint
    for _ in range(4):
        everybody(server, late={2: 1, 5: 2, 3: 3, 4: 4})
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
    progress.heartbeat_answered(1, 4)
    assert progress.expected_echo_ns(5) == 4
    progress.heartbeat_sent(2, 100)
    progress.heartbeat_sent(3, 200)
    assert progress.expected_echo_ns(300) == 200
    progress.heartbeat_answered(1, 310)
    assert progress.expected_echo_ns(320) == 220, "a late copy of an older answer ends nothing"
    progress.heartbeat_answered(3, 321)
    assert progress.expected_echo_ns(500) == 4 + (221 - 4) // 4
