"""Log replication, statement by statement: section 5.3 of the paper, figure 7 among it."""

from __future__ import annotations

import pytest
from harness import MS, Cluster, Disk, Server, configuration, lead, leader_of, log_of, solo, terms_of

from lattice_core.raft.config import RaftConfig
from lattice_core.raft.errors import InvariantViolation, NotLeader, Refused
from lattice_core.raft.messages import (
    AppendConflict,
    AppendEntries,
    AppendSuccess,
    Heartbeat,
    HeartbeatResponse,
)
from lattice_core.raft.progress import ProgressState
from lattice_core.raft.types import Entry, HardState, RecoveredState, SnapshotMeta


def ready_to_pipeline(server: Server, *peers: int) -> None:
    """These peers have acknowledged the no-op; what was sent is forgotten."""
    for peer in peers:
        server.step(AppendSuccess(peer, server.id, server.node.term, server.node.last_index, 1))
    server.take()


# ---- the leader -------------------------------------------------------------------------------------


def test_a_leader_appends_a_command_and_sends_it_to_all_others_at_once() -> None:
    """Section 5.3: "The leader appends the command to its log as a new entry, then issues AppendEntries RPCs in
    parallel to each of the other servers to replicate the entry." """
    server = lead(solo())
    ready_to_pipeline(server, 2, 3)
    assert server.propose(b"put") == 2
    new = (Entry(2, 1, b"put"),)
    sent = server.take()
    assert [(message.to, message.term) for message in sent] == [(2, 1), (3, 1)]
    for message in sent:
        assert isinstance(message, AppendEntries)
        assert (message.prev_log_index, message.prev_log_term, message.entries) == (1, 1, new)


def test_appends_name_the_entry_just_before_the_new_ones() -> None:
    """Section 5.3: "the leader includes the index and term of the entry in its log that immediately precedes
    the new entries." """
    server = lead(solo(log=log_of(1, 1, 4)))
    ready_to_pipeline(server, 2)
    server.propose()
    (message,) = [message for message in server.take(AppendEntries) if message.to == 2]
    assert isinstance(message, AppendEntries)
    assert (message.prev_log_index, message.prev_log_term) == (4, 5)


def test_only_a_leader_takes_commands_and_others_name_it() -> None:
    """Section 5.1 and 8: "if a client contacts a follower, the follower redirects it to the leader.\""""
    server = solo()
    with pytest.raises(NotLeader) as nobody:
        server.propose()
    server.step(Heartbeat(3, 1, 1, 0, 1))
    with pytest.raises(NotLeader) as somebody:
        server.propose()
    assert (nobody.value.leader_id, somebody.value.leader_id) == (None, 3)


@pytest.mark.parametrize(
    ("size", "acknowledging", "committed"),
    [(1, 0, True), (2, 0, False), (2, 1, True), (3, 1, True), (4, 1, False), (4, 2, True), (5, 1, False), (5, 2, True)],
)
def test_an_entry_is_committed_once_a_majority_has_it(size: int, acknowledging: int, committed: bool) -> None:
    """Section 5.3: "A log entry is committed once the leader that created the entry has replicated it on a
    majority of the servers." """
    server = lead(solo(voters=range(1, size + 1)))
    for peer in range(2, acknowledging + 2):
        server.step(AppendSuccess(peer, 1, 1, 1, 1))
    assert server.node.commit_index == int(committed)
    assert len(server.machine) == int(committed)


def test_a_leader_commits_what_precedes_with_it() -> None:
    """Section 5.3: "This also commits all preceding entries in the leader's log, including entries created by
    previous leaders." """
    for earlier in ((), (2,), (1, 2), (1, 1, 2)):
        server = lead(solo(log=log_of(*earlier)))
        server.step(AppendSuccess(2, 1, server.node.term, len(earlier) + 1, 1))
        assert [entry.term for entry in server.machine] == [*earlier, server.node.term]


def test_followers_learn_the_commit_index_from_appends_and_from_heartbeats() -> None:
    """Section 5.3: "The leader keeps track of the highest index it knows to be committed, and it includes that
    index in future AppendEntries RPCs (including heartbeats)." """
    server = lead(solo())
    server.step(AppendSuccess(2, 1, 1, 1, 1))
    server.propose()
    assert {message.leader_commit for message in server.take(AppendEntries)} == {1}  # type: ignore[attr-defined]
    server.time_out()
    # A heartbeat never claims more than that follower is known to have: n3 has answered nothing yet.
    assert {message.to: message.commit for message in server.take(Heartbeat)} == {2: 1, 3: 0}  # type: ignore[attr-defined]


def test_a_lost_append_is_sent_again_until_it_is_answered() -> None:
    """Section 5.3: "the leader retries AppendEntries RPCs indefinitely until all followers eventually store all
    log entries.\""""
    cluster = Cluster()
    leader = cluster.elect(1)
    for _ in range(5):
        leader.propose()
        cluster.drop(AppendEntries, to=3)
        cluster.settle()
    assert cluster[3].node.last_index < leader.node.last_index
    cluster.run(1_000 * MS)
    assert cluster[3].machine == leader.machine
    assert len(leader.machine) == 6


def test_a_lost_answer_is_made_good() -> None:
    """Section 5.3: "Raft RPCs are idempotent" (section 5.5): what arrived is acknowledged again."""
    cluster = Cluster()
    leader = cluster.elect(1)
    leader.propose()
    cluster.deliver_first(AppendEntries, to=3)
    assert cluster.drop(AppendSuccess) == 1
    cluster.settle()
    cluster.run(1_000 * MS)
    assert leader.node.progress[3].match_index == leader.node.last_index
    assert leader.node.progress[3].inflight_count == 0


# ---- the follower -----------------------------------------------------------------------------------


@pytest.mark.parametrize("prev", [(0, 0), (1, 1), (2, 2)])
def test_a_follower_accepts_entries_where_the_logs_agree_just_before_them(prev: tuple[int, int]) -> None:
    """Section 5.3, the consistency check."""
    server = solo(log=log_of(1, 2))
    server.step(AppendEntries(2, 1, 2, *prev, (), 0, 4))
    assert server.take() == [AppendSuccess(1, 2, 2, prev[0], 4)]


@pytest.mark.parametrize(
    ("prev", "conflict_term", "conflict_index"),
    [((3, 3), None, 3), ((9, 2), None, 3), ((2, 3), 2, 2), ((1, 2), 1, 1)],
)
def test_a_follower_refuses_entries_where_the_logs_differ_and_says_where_to_look(
    prev: tuple[int, int], conflict_term: int | None, conflict_index: int
) -> None:
    """Section 5.3: "If the follower does not find an entry in its log with the same index and term, then it
    refuses the new entries"; its answer includes "the term of the conflicting entry and the first index it
    stores for that term." """
    server = solo(log=log_of(1, 2), term=3)
    server.step(AppendEntries(2, 1, 3, *prev, log_of(3, after=prev[0]), 0, 4))
    assert server.take() == [AppendConflict(1, 2, 3, prev[0], conflict_term, conflict_index, 4)]
    assert terms_of(server.node) == [1, 2]


@pytest.mark.parametrize(
    ("prev", "sent", "expected"),
    [
        ((2, 2), log_of(3, after=2), [1, 2, 3]),
        ((1, 1), log_of(3, 4, after=1), [1, 3, 4]),
        ((0, 0), log_of(1), [1, 2]),
        ((0, 0), log_of(3), [3]),
        ((1, 1), log_of(2, 3, after=1), [1, 2, 3]),
    ],
)
def test_a_follower_removes_conflicting_entries_and_appends_what_it_lacks(
    prev: tuple[int, int], sent: tuple[Entry, ...], expected: list[int]
) -> None:
    """Figure 2, AppendEntries 3 and 4: "If an existing entry conflicts with a new one (same index but different
    terms), delete the existing entry and all that follow it. Append any new entries not already in the log." """
    server = solo(log=log_of(1, 2), term=4)
    server.step(AppendEntries(2, 1, 4, *prev, sent, 0, 1))
    assert terms_of(server.node) == expected
    assert [entry.term for entry in server.disk.entries] == expected


@pytest.mark.parametrize(("leader_commit", "committed"), [(0, 0), (1, 1), (2, 2), (3, 3), (99, 3)])
def test_a_follower_commits_in_order_up_to_what_the_leader_has_committed(leader_commit: int, committed: int) -> None:
    """Section 5.3: "Once a follower learns that a log entry is committed, it applies the entry to its local
    state machine (in log order).\""""
    server = solo()
    server.step(AppendEntries(2, 1, 1, 0, 0, log_of(1, 1, 1), leader_commit, 1))
    assert server.machine == list(log_of(1, 1, 1)[:committed])


def test_a_follower_answers_only_when_the_entries_are_on_its_disk() -> None:
    """Section 5.3 with figure 2: state is "updated on stable storage before responding to RPCs.\""""
    server = solo()
    server.disk.held = True
    server.step(AppendEntries(2, 1, 1, 0, 0, log_of(1, 1), 0, 1))
    assert server.take() == []
    server.release_disk()
    assert server.take() == [AppendSuccess(1, 2, 1, 2, 1)]
    assert (server.disk.hard_state, server.disk.last_index) == (HardState(1, None), 2)


@pytest.mark.parametrize(
    "entries",
    [log_of(2, after=1), (*log_of(1), *log_of(1, after=2)), log_of(2, 1), log_of(1, 1, 3)],
    ids=["not after the previous", "a gap inside", "terms that fall", "a term the leader has not reached"],
)
def test_entries_that_no_correct_leader_sends_are_refused_and_change_nothing(entries: tuple[Entry, ...]) -> None:
    """Figure 3, Log Matching, cannot be defended against a sender that ignores it: Refused, not even a new term."""
    server = solo(term=1)
    before = (server.node.hard_state, server.node.next_deadline_ns, server.node.leader_id)
    with pytest.raises(Refused):
        server.step(AppendEntries(2, 1, 2, 0, 0, entries, 9, 1))
    assert before == (server.node.hard_state, server.node.next_deadline_ns, server.node.leader_id)
    assert server.node.last_index == 0
    assert not server.node.has_ready()


def test_a_leader_that_contradicts_a_committed_entry_stops_the_node() -> None:
    """Figure 3, Leader Completeness: it cannot be; so if it is, an acknowledged write is about to be lost."""
    for message in (
        AppendEntries(2, 1, 5, 2, 3, (), 0, 1),  # names another entry at the commit index
        AppendEntries(2, 1, 5, 0, 0, log_of(1, 3, 3), 0, 1),  # carries another entry below it
    ):
        server = solo(log=log_of(1, 2, 2), commit=2)
        with pytest.raises(InvariantViolation):
            server.step(message)
        assert terms_of(server.node) == [1, 2, 2]


# ---- figure 7 ---------------------------------------------------------------------------------------

FIGURE_7_LEADER = (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)
FIGURE_7 = {
    "a": (1, 1, 1, 4, 4, 5, 5, 6, 6),
    "b": (1, 1, 1, 4),
    "c": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
    "d": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
    "e": (1, 1, 1, 4, 4, 4, 4),
    "f": (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
}


@pytest.mark.parametrize("case", sorted(FIGURE_7))
def test_figure_7_every_follower_log_converges_on_the_leaders(case: str) -> None:
    """Figure 7: "When the leader at the top comes to power, it is possible that any of scenarios (a-f) could
    occur in follower logs"; section 5.3: "Eventually nextIndex will reach a point where the leader and follower
    logs match. When this happens, AppendEntries will succeed, which removes any conflicting entries in the
    follower's log and appends entries from the leader's log." """
    first = configuration([1, 2, 3])
    begin = SnapshotMeta(0, 0, first)
    disks = {
        1: Disk(RecoveredState(HardState(7, None), begin, log_of(*FIGURE_7_LEADER))),
        2: Disk(RecoveredState(HardState(7, None), begin, log_of(*FIGURE_7[case]))),
        3: Disk(RecoveredState(HardState(7, None), begin)),  # a majority without the follower looked at
    }
    cluster = Cluster(first=first, disks=disks)
    cluster.elect(1)
    expected = [*FIGURE_7_LEADER, 8]
    assert terms_of(cluster[2].node) == expected
    assert terms_of(cluster[3].node) == expected
    assert [entry.term for entry in cluster[2].disk.entries] == expected
    cluster.run(500 * MS)
    assert cluster[2].machine == cluster[1].machine
    assert len(cluster[2].machine) == 11


def test_a_conflict_costs_one_round_trip_for_each_conflicting_term_not_for_each_entry() -> None:
    """End of section 5.3: "one AppendEntries RPC will be required for each term with conflicting entries, rather
    than one RPC per entry." Two hundred entries of four terms that the leader never saw: at most five refusals."""
    first = configuration([1, 2, 3])
    begin = SnapshotMeta(0, 0, first)
    mine = log_of(1, *[6] * 300)
    theirs = log_of(1, *[2] * 50, *[3] * 50, *[4] * 50, *[5] * 50)
    disks = {
        1: Disk(RecoveredState(HardState(6, None), begin, mine)),
        2: Disk(RecoveredState(HardState(6, None), begin, theirs)),
        3: Disk(RecoveredState(HardState(6, None), begin, mine)),
    }
    cluster = Cluster(first=first, disks=disks)
    refusals: list[AppendConflict] = []
    cluster.observer = lambda what, message: (
        refusals.append(message) if what == "delivered" and isinstance(message, AppendConflict) else None
    )
    cluster.elect(1)
    assert terms_of(cluster[2].node) == [1, *[6] * 300, 7]
    # One for the length, one for each of the four terms.
    assert [message.conflict_term for message in refusals] == [None, 5, 4, 3, 2]


def test_a_term_that_both_logs_know_is_entered_at_its_end_in_the_leaders_log() -> None:
    """End of section 5.3: the leader finds its own last entry of the conflicting term and goes on after it."""
    server = lead(solo(log=log_of(1, 2, 2, 2, 5, 5)))
    server.step(AppendConflict(2, 1, 6, 6, 2, 2, 1))
    (probe,) = server.take(AppendEntries)
    assert isinstance(probe, AppendEntries)
    assert (probe.prev_log_index, probe.prev_log_term) == (4, 2)


# ---- flow -------------------------------------------------------------------------------------------


def test_after_the_first_success_appends_are_pipelined() -> None:
    """Section 10.2.1 of the thesis: the leader need not wait for one AppendEntries before the next."""
    server = lead(solo())
    ready_to_pipeline(server, 2)
    for _ in range(5):
        server.propose()
    sent = [message for message in server.take(AppendEntries) if message.to == 2]
    assert [message.prev_log_index for message in sent] == [1, 2, 3, 4, 5]  # type: ignore[attr-defined]
    assert server.node.progress[2].match_index == 1


def test_before_it_only_one_probe_is_on_its_way() -> None:
    """Thesis section 10.2.1: a leader that does not know where the logs agree sends one at a time."""
    server = lead(solo())
    for _ in range(5):
        server.propose()
    assert server.take(AppendEntries) == []
    server.step(AppendSuccess(2, 1, 1, 1, 1))
    (rest,) = server.take(AppendEntries)
    assert isinstance(rest, AppendEntries)
    assert len(rest.entries) == 5


def test_a_lost_probe_is_sent_again_after_a_heartbeats_answer() -> None:
    """Section 5.3, retries; paced by heartbeats rather than by a timer for each peer."""
    server = lead(solo())
    server.time_out()
    server.take()
    server.step(HeartbeatResponse(2, 1, 1, 2))
    (probe,) = server.take(AppendEntries)
    assert probe.to == 2


def test_probes_are_paced_by_time_however_many_heartbeats_are_answered() -> None:
    """Reads make heartbeats, a thousand a second; a follower with a slow disk must not be sent the same full
    append for each of them (SAFETY 15, 49)."""
    server = lead(solo())
    server.step(AppendSuccess(3, 1, 1, 1, 1))
    server.propose(bytes(100_000))
    server.take()
    for number in range(1000):
        server.read(number)
        server.tick(server.now_ns + MS // 10)
        server.step(HeartbeatResponse(2, 1, 1, leader_of(server).reads.round))
    probes = [message for message in server.take(AppendEntries) if message.to == 2]
    assert server.node.progress[2].state is ProgressState.PROBE
    assert len(probes) <= 2, f"{len(probes)} probes in 100 ms"


def test_a_hole_in_the_pipeline_is_noticed_and_filled() -> None:
    """Section 5.3: an append after a lost one is refused, and the leader goes back to where the logs agree."""
    cluster = Cluster()
    leader = cluster.elect(1)
    leader.propose(b"lost")
    cluster.drop(AppendEntries, to=2)
    leader.propose(b"arrives")
    cluster.settle()
    assert cluster[2].node.last_index == 3
    assert leader.node.progress[2].state is ProgressState.REPLICATE


def test_the_last_append_of_a_burst_being_lost_is_noticed_without_another() -> None:
    """Section 5.3, retries: nothing follows that could be refused, so the leader asks where the follower stands."""
    cluster = Cluster()
    leader = cluster.elect(1)
    leader.propose(b"lost")
    cluster.drop(AppendEntries, to=2)
    cluster.settle()
    cluster.run(500 * MS)
    assert cluster[2].node.last_index == 2


def test_an_append_carries_at_most_its_bound_in_bytes_and_one_big_entry_goes_alone() -> None:
    """A bound on every message: config.max_append_bytes."""
    server = lead(solo(config=RaftConfig(max_append_bytes=1000)))
    for payload in (bytes(10), bytes(5000), bytes(400), bytes(400), bytes(400)):
        server.propose(payload)
    server.step(AppendSuccess(2, 1, 1, 1, 1))
    sent = [message for message in server.take(AppendEntries) if message.to == 2]
    assert [len(message.entries) for message in sent] == [1, 1, 2, 1]  # type: ignore[attr-defined]


def test_an_unreachable_follower_is_probed_when_it_answers_again() -> None:
    """The driver says that it dropped messages: what was sent ahead is forgotten, nothing is sent blindly."""
    server = lead(solo())
    ready_to_pipeline(server, 2)
    server.propose()
    server.take()
    server.node.report_unreachable(2, server.now_ns)
    server.propose()
    assert [message.to for message in server.take(AppendEntries)] == []
    server.time_out()
    server.take()
    server.step(HeartbeatResponse(2, 1, 1, 2))
    (probe,) = server.take(AppendEntries)
    assert isinstance(probe, AppendEntries)
    assert (probe.prev_log_index, len(probe.entries)) == (1, 2)


def test_a_refusal_of_something_never_sent_is_refused_itself() -> None:
    """Figure 2: a follower can only refuse what it was sent; believing this would ask for a snapshot of nothing."""
    server = lead(solo())
    with pytest.raises(Refused):
        server.step(AppendConflict(2, 1, 1, 99, None, 5, 1))
    with pytest.raises(Refused):
        server.step(AppendSuccess(2, 1, 1, 99, 1))
    assert server.node.progress[2].match_index == 0
