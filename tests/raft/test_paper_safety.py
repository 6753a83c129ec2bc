"""The safety argument, statement by statement: section 5.4 of the paper, figures 3 and 8, and section 5.1's
promise that state is stable before it is spoken of."""

from __future__ import annotations

from dataclasses import replace

import pytest
from harness import MS, Cluster, Disk, configuration, lead, log_of, solo, terms_of

from lattice_core.raft.messages import (
    AppendEntries,
    AppendSuccess,
    Heartbeat,
    HeartbeatResponse,
    VoteRequest,
    VoteResponse,
)
from lattice_core.raft.types import HardState, RecoveredState, Role, SnapshotMeta


def disk_with(*terms: int, term: int, size: int = 5, voted_for: int | None = None) -> Disk:
    begin = SnapshotMeta(0, 0, configuration(range(1, size + 1)))
    return Disk(RecoveredState(HardState(term, voted_for), begin, log_of(*terms)))


def test_election_safety_two_candidates_cannot_both_win_a_term() -> None:
    """Figure 3, Election Safety: "at most one leader can be elected in a given term.\""""
    cluster = Cluster(5)
    for server in cluster:
        cluster.tick(server.id)  # all ask at once
    cluster.settle()
    cluster.run(5_000 * MS)
    assert cluster.watch.leaders
    assert cluster.leader is not None


def test_leader_append_only_a_leader_never_removes_or_overwrites_its_entries() -> None:
    """Figure 3, Leader Append-Only; section 5.3: "A leader never overwrites or deletes entries in its log.\""""
    server = lead(solo(log=log_of(1, 1, 2)))
    before = server.node.log.between(1, server.node.last_index)
    for message in (
        AppendEntries(2, 1, 2, 0, 0, log_of(2), 0, 1),  # an older leader, late
        Heartbeat(2, 1, 2, 3, 1),
        AppendSuccess(2, 1, 3, 1, 1),
    ):
        server.step(message)
    server.propose()
    assert server.node.log.between(1, len(before)) == before


@pytest.mark.parametrize(("last_index", "last_term"), [(1, 1), (5, 1), (2, 1)])
def test_leader_completeness_a_server_without_a_committed_entry_is_not_elected(last_index: int, last_term: int) -> None:
    """Section 5.4.1: "Raft uses the voting process to prevent a candidate from winning an election unless its log
    contains all committed entries." """
    voter = solo(log=log_of(1, 2), commit=2)
    voter.step(VoteRequest(2, 1, 3, last_index, last_term, False))
    assert voter.take() == [VoteResponse(1, 2, 3, False)]


def test_figure_8_an_entry_of_an_earlier_term_is_not_committed_by_counting_replicas() -> None:
    """Section 5.4.2: "Raft never commits log entries from previous terms by counting replicas." Figure 8 (c): n1
    leads term 4 and has the entry of term 2 on a majority; (d): n5 can still overwrite it."""
    disks = {
        1: disk_with(1, 2, term=3),
        2: disk_with(1, 2, term=3),
        3: disk_with(1, 2, term=3),
        4: disk_with(1, term=3),
        5: disk_with(1, 3, term=3),
    }
    cluster = Cluster(5, disks=disks)
    cluster.crash(5)
    # (c) n1 is elected in term 4 and learns that n2 and n3 have 2/2; its own no-op of term 4 reaches nobody.
    cluster.tick(1)
    for _ in range(100):
        for envelope in list(cluster.in_flight):
            message = envelope.message
            if isinstance(message, AppendEntries):
                envelope.message = replace(message, entries=())
        if not cluster.in_flight:
            break
        cluster.deliver(cluster.in_flight[0])
    leader = cluster[1]
    assert (leader.node.is_leader, leader.node.term) == (True, 4)
    assert leader.node.progress[2].match_index == leader.node.progress[3].match_index == 2, "a majority has 2/2"
    assert leader.node.commit_index == 0
    # (d) n1 crashes; n5 is elected and overwrites 2/2 everywhere: nothing acknowledged was lost.
    cluster.crash(1)
    cluster.restart(5)
    cluster.pass_time(600 * MS)
    for _ in range(5):
        if not cluster[5].node.is_leader:
            cluster.tick(5)
            cluster.settle()
    assert cluster[5].node.is_leader
    cluster.restart(1)
    cluster.run(1_000 * MS)
    assert [terms_of(server.node) for server in cluster] == [[1, 3, cluster[5].node.term]] * 5


def test_figure_8_an_entry_of_the_leaders_own_term_commits_the_earlier_ones_with_it() -> None:
    """Section 5.4.2 and figure 8 (e): "once an entry from the current term has been committed in this way, then
    all prior entries are committed indirectly.\""""
    disks = {node_id: disk_with(1, 2, term=3) if node_id < 4 else disk_with(1, term=3) for node_id in range(1, 6)}
    cluster = Cluster(5, disks=disks)
    cluster.crash(4, 5)
    leader = cluster.elect(1)
    assert leader.node.commit_index == 3
    # Whoever lacks it cannot be elected any more.
    cluster.crash(1)
    cluster.restart(4, 5)
    cluster.pass_time(1_000 * MS)
    cluster.tick(5)
    cluster.settle()
    assert not cluster[5].node.is_leader


@pytest.mark.parametrize(("match", "committed"), [(1, 0), (2, 0), (3, 3), (4, 4)])
def test_a_leader_counts_replicas_only_for_entries_of_its_own_term(match: int, committed: int) -> None:
    """Section 5.4.2, as arithmetic (etcd's TestLeaderOnlyCommitsLogFromCurrentTerm)."""
    server = lead(solo(log=log_of(1, 2)))
    server.propose()
    server.step(AppendSuccess(2, 1, 3, match, 1))
    assert server.node.commit_index == committed


def test_state_machine_safety_servers_apply_the_same_entries_in_the_same_order() -> None:
    """Figure 3, State Machine Safety, over a change of leader with an uncommitted tail."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.replicate(b"a")
    cluster.isolate(1)
    cluster[1].propose(b"never")
    cluster.in_flight.clear()
    assert cluster.run_until(lambda: cluster.leader is not None and cluster.leader.id != 1, 5_000 * MS)
    cluster.leader.propose(b"b")  # type: ignore[union-attr]
    cluster.run(200 * MS)
    cluster.heal()
    cluster.run(2_000 * MS)
    machines = [[entry.payload for entry in server.machine if entry.payload] for server in cluster]
    assert machines == [[b"a", b"b"]] * 3


def test_a_crashed_leader_comes_back_as_a_follower_with_what_was_durable() -> None:
    """Section 5.5 and figure 2: only term, vote and log survive."""
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.replicate(b"kept")
    leader.disk.held = True
    leader.propose(b"lost with the power")
    cluster.in_flight.clear()
    leader.crash()
    leader.disk.held = False
    cluster.restart(1)
    assert (leader.node.role, leader.node.term, leader.node.voted_for) == (Role.FOLLOWER, 1, 1)
    assert [entry.payload for entry in leader.node.log.between(1, leader.node.last_index)] == [None, b"kept"]


def test_no_answer_leaves_before_the_term_it_carries_is_durable() -> None:
    """Figure 2: currentTerm is "updated on stable storage before responding to RPCs": refusals and heartbeats too."""
    server = solo(term=1, log=log_of(1))
    server.disk.held = True
    server.step(VoteRequest(2, 1, 4, 0, 0, False))
    server.step(Heartbeat(3, 1, 5, 0, 1))
    assert server.take() == []
    server.release_disk(1)
    assert server.take() == [VoteResponse(1, 2, 4, False)]
    server.release_disk()
    assert server.take() == [HeartbeatResponse(1, 3, 5, 1)]


def test_timing_is_not_needed_for_safety() -> None:
    """Section 5.6: "safety must not depend on timing: the system must not produce incorrect results just because
    some event happens more quickly or slowly than expected": clocks that differ by a third, messages held."""
    cluster = Cluster(5, drift_ppm={1: 300_000, 2: -300_000, 4: 100_000})
    for number in range(10):
        cluster.held_links = {(number % 5 + 1, (number + 2) % 5 + 1), ((number + 1) % 5 + 1, number % 5 + 1)}
        cluster.run(700 * MS)
        if cluster.leader is not None:
            cluster.leader.propose(b"%d" % number)
    cluster.held_links.clear()
    cluster.run(5_000 * MS)
    cluster.check_log_matching()
    assert len({tuple(server.machine) for server in cluster}) == 1
