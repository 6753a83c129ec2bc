"""SAFETY.md, cases 9 to 15: replication; 27 and 28: snapshots; and what storage is handed."""

from __future__ import annotations

import pytest
from harness import (
    MS,
    Cluster,
    Disk,
    Server,
    configuration,
    lead,
    leader_of,
    log_of,
    solo,
    terms_of,
)

from lattice_core.raft.config import RaftConfig
from lattice_core.raft.errors import Busy, InvariantViolation
from lattice_core.raft.messages import (
    AppendConflict,
    AppendEntries,
    AppendSuccess,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
)
from lattice_core.raft.progress import ProgressState
from lattice_core.raft.types import Entry, HardState, RecoveredState, SnapshotMeta

FIRST = configuration([1, 2, 3])


def snapshot_at(server: Server, index: int, term: int) -> SnapshotMeta:
    """A snapshot that the server's driver can restore from."""
    server.archive.states[index, term] = log_of(*[term] * index)
    return SnapshotMeta(index, term, FIRST)


def test_safety_09_a_new_leader_first_commits_a_no_op_and_counts_only_its_own_term() -> None:
    """Figure 8 itself is in test_paper_safety.py; this is the rule."""
    server = lead(solo(log=log_of(1, 1)))
    assert server.node.log.entry(3) == Entry(3, 2, None)
    server.step(AppendSuccess(2, 1, 2, 2, 1))
    server.step(AppendSuccess(3, 1, 2, 2, 1))
    assert server.node.commit_index == 0, "all three have 1 and 2, of an older term"
    server.step(AppendSuccess(3, 1, 2, 3, 1))
    assert server.node.commit_index == 3


def test_safety_10_a_follower_commits_no_further_than_this_very_message_has_verified() -> None:
    """The log holds more, left over from another leader; the leader's commit index is beyond it."""
    server = solo(log=log_of(1, 1, 1, 1))
    server.step(AppendEntries(2, 1, 2, 1, 1, log_of(1, after=1), 4, 1))
    assert server.node.commit_index == 2
    server.step(AppendEntries(2, 1, 2, 2, 1, (), 4, 1))
    assert server.node.commit_index == 2
    assert server.take(AppendSuccess) == [AppendSuccess(1, 2, 2, 2, 1), AppendSuccess(1, 2, 2, 2, 1)]


def test_safety_10_a_heartbeat_commits_only_what_the_follower_is_known_to_have() -> None:
    server = lead(solo(voters=(1, 2, 3)))
    server.propose()
    server.step(AppendSuccess(2, 1, 1, 2, 1))
    assert server.node.commit_index == 2
    server.step(AppendSuccess(3, 1, 1, 1, 1))
    server.take()
    server.time_out()
    assert {message.to: message.commit for message in server.take(Heartbeat)} == {2: 2, 3: 1}  # type: ignore[attr-defined]


def test_safety_10_a_heartbeat_beyond_the_log_means_that_acknowledged_entries_are_gone() -> None:
    server = solo(log=log_of(1))
    with pytest.raises(InvariantViolation):
        server.step(Heartbeat(2, 1, 1, 5, 1))


def test_safety_11_a_late_or_duplicated_append_that_is_a_prefix_removes_nothing() -> None:
    server = solo()
    first = AppendEntries(2, 1, 1, 0, 0, log_of(1, 1), 0, 1)
    both = AppendEntries(2, 1, 1, 0, 0, log_of(1, 1, 1, 1), 2, 1)
    for message in (first, both, first, first, both):
        server.step(message)
    assert terms_of(server.node) == [1, 1, 1, 1]
    assert [message.match_index for message in server.take(AppendSuccess)] == [2, 4, 2, 2, 4]  # type: ignore[attr-defined]


def test_safety_11_overtaking_appends_lose_nothing() -> None:
    server = solo()
    second = AppendEntries(2, 1, 1, 2, 1, log_of(1, 1, after=2), 0, 1)
    first = AppendEntries(2, 1, 1, 0, 0, log_of(1, 1), 0, 1)
    for message in (second, first, second, first):
        server.step(message)
    assert terms_of(server.node) == [1, 1, 1, 1]


def test_safety_11_nothing_at_or_below_the_commit_index_is_ever_removed() -> None:
    server = solo(log=log_of(1, 1, 1), commit=2)
    server.step(AppendEntries(2, 1, 2, 2, 1, log_of(2, after=2), 0, 1))
    assert terms_of(server.node) == [1, 1, 2]
    with pytest.raises(InvariantViolation):
        server.node.truncate_from(2)


def test_safety_12_an_fsync_made_stale_by_a_truncation_says_nothing_about_what_took_its_place() -> None:
    """Same index, other term: the completion of the first write must not count for the second."""
    server = solo(voters=(1, 2, 3))
    server.disk.held = True
    server.step(AppendEntries(2, 1, 1, 0, 0, log_of(1, 1, 1), 0, 1))
    server.step(AppendEntries(3, 1, 2, 1, 1, log_of(2, 2, after=1), 0, 1))
    assert [(persist.truncate_from, len(persist.entries)) for persist in server.disk.pending] == [(None, 3), (2, 2)]
    server.release_disk(1)
    assert server.node.durability.durable_index == 1, "entries 2 and 3 of term 1 are not what the log holds now"
    assert server.take() == [AppendSuccess(1, 2, 1, 3, 1)], "to the old leader: true when it was asked, harmless"
    server.release_disk()
    assert server.node.durability.durable_index == 3
    assert server.take() == [AppendSuccess(1, 3, 2, 3, 1)]


def test_safety_12_a_leader_does_not_commit_on_a_stale_completion_of_its_own() -> None:
    """As a follower it wrote 2/1 (in flight), truncated it, and now leads with another entry at 2."""
    server = solo(voters=(1, 2, 3))
    server.disk.held = True
    server.step(AppendEntries(2, 1, 1, 0, 0, log_of(1, 1), 0, 1))
    server.step(AppendEntries(3, 1, 2, 1, 1, (), 0, 1))
    server.step(AppendEntries(3, 1, 2, 1, 1, log_of(2, after=1), 0, 1))
    assert terms_of(server.node) == [1, 2]
    server.release_disk(1)
    assert server.node.durability.durable_index == 1


def test_safety_13_a_leader_counts_its_own_copy_only_when_that_is_on_its_disk() -> None:
    server = lead(solo(), own_disk=False)
    server.step(AppendSuccess(2, 1, 1, 1, 1))
    assert server.node.commit_index == 1
    server.propose()
    sent = server.take(AppendEntries)
    assert sent, "sent while it is being written"
    assert server.node.commit_index == 1
    server.release_disk()
    assert server.node.commit_index == 1, "one of three"
    server.step(AppendSuccess(2, 1, 1, 2, 1))
    assert server.node.commit_index == 2


def test_safety_13_followers_may_commit_what_the_leaders_own_disk_does_not_have_yet() -> None:
    server = lead(solo(), own_disk=False)
    server.propose()
    server.step(AppendSuccess(2, 1, 1, 2, 1))
    assert server.node.commit_index == 1, "itself not counted for 2"
    server.step(AppendSuccess(3, 1, 1, 2, 1))
    assert server.node.commit_index == 2
    assert server.disk.last_index == 1


def test_safety_13_the_only_voter_commits_when_its_disk_has_it() -> None:
    server = lead(solo(voters=[1]), own_disk=False)
    server.propose()
    assert server.node.commit_index == 1
    server.release_disk()
    assert server.node.commit_index == 2


@pytest.mark.parametrize("state", [ProgressState.PROBE, ProgressState.REPLICATE])
def test_safety_14_a_late_rejection_never_lowers_what_is_known(state: ProgressState) -> None:
    server = lead(solo(log=log_of(1, 1, 1)))
    server.step(AppendSuccess(2, 1, 2, 3, 1))
    if state is ProgressState.PROBE:
        server.node.report_unreachable(2, server.now_ns)
    progress = server.node.progress[2]
    assert (progress.state, progress.match_index) == (state, 3)
    next_index = progress.next_index
    for rejected in (1, 2, 3):
        server.step(AppendConflict(2, 1, 2, rejected, None, 1, 1, progress.flight))
    assert (progress.match_index, progress.next_index, progress.state) == (3, next_index, state)


def test_safety_14_a_late_acknowledgement_never_lowers_what_is_known() -> None:
    server = lead(solo(log=log_of(1, 1, 1)))
    server.step(AppendSuccess(2, 1, 2, 4, 1))
    server.step(AppendSuccess(2, 1, 2, 1, 1))
    assert server.node.progress[2].match_index == 4
    assert server.node.commit_index == 4


def test_safety_14_a_rejection_that_is_not_late_goes_back_no_further_than_what_is_known() -> None:
    server = lead(solo(log=log_of(1, 1, 1)))
    server.step(AppendSuccess(2, 1, 2, 2, 1))
    progress = server.node.progress[2]
    server.step(AppendConflict(2, 1, 2, 4, None, 1, 1, progress.flight))
    assert (progress.match_index, progress.next_index) == (2, 5 if progress.state is ProgressState.REPLICATE else 3)


def test_safety_15_what_is_in_flight_to_a_silent_peer_is_bounded_and_others_go_on() -> None:
    config = RaftConfig(max_inflight_appends=4, max_append_bytes=2000, max_inflight_bytes=5000)
    server = lead(solo(config=config))
    for peer in (2, 3):
        server.step(AppendSuccess(peer, 1, 1, 1, 1))
    server.take()
    for _ in range(100):
        index = server.propose(bytes(1000))
        server.step(AppendSuccess(3, 1, 1, index, 1))
    sent = server.take(AppendEntries)
    silent = [message for message in sent if message.to == 2]
    assert len(silent) <= 4
    assert sum(len(entry.payload) for message in silent for entry in message.entries) <= 6000  # type: ignore[attr-defined]
    assert server.node.commit_index == 101
    server.time_out()
    assert [message.to for message in server.take(Heartbeat)] == [2, 3], "heartbeats go out all the same"
    # It answers: the window moves on.
    server.step(AppendSuccess(2, 1, 1, 2, 1))
    assert [message for message in server.take(AppendEntries) if message.to == 2]


def test_safety_15_one_lost_append_makes_one_new_start_however_many_rejections_follow() -> None:
    """Ten appends on their way, the first lost: nine rejections. Each that began anew would send all again."""
    server = lead(solo())
    server.step(AppendSuccess(2, 1, 1, 1, 1))
    for _ in range(10):
        server.propose()
    flight = server.node.progress[2].flight
    server.take()
    for rejected in range(2, 11):
        server.step(AppendConflict(2, 1, 1, rejected, None, 2, 1, flight))
    assert len([message for message in server.take(AppendEntries) if message.to == 2]) == 1
    server.step(AppendSuccess(2, 1, 1, 11, 1))
    assert server.node.progress[2].state is ProgressState.REPLICATE


def test_safety_15_a_leader_without_a_majority_stops_accepting_instead_of_filling_memory() -> None:
    server = lead(solo(config=RaftConfig(max_uncommitted_bytes=10_000)))
    while leader_of(server).uncommitted_bytes + 1000 <= 10_000:
        server.propose(bytes(1000))
    held = server.node.last_index
    assert 8 <= held <= 12
    with pytest.raises(Busy):
        server.propose(bytes(1000))
    assert server.node.last_index == held
    server.step(AppendSuccess(2, 1, 1, held, 1))
    assert server.propose(bytes(1000)) == held + 1


def test_safety_15_a_follower_that_comes_back_after_a_full_window_catches_up() -> None:
    cluster = Cluster(3, config=RaftConfig(max_inflight_appends=2, max_append_bytes=100))
    leader = cluster.elect(1)
    cluster.isolate(3)
    for number in range(50):
        leader.propose(b"%d" % number)
    cluster.run(2_000 * MS)
    cluster.heal()
    cluster.run(1_000 * MS)
    assert cluster[3].machine == leader.machine


# ---- snapshots --------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [1, 2])
def test_safety_27_a_snapshot_at_or_below_the_commit_index_is_ignored(index: int) -> None:
    server = solo(log=log_of(1, 1, 1), commit=2)
    before = terms_of(server.node)
    server.step(InstallSnapshot(2, 1, 1, snapshot_at(server, index, 1), 3))
    assert (terms_of(server.node), server.node.commit_index, server.node.snapshot_index) == (before, 2, 0)
    assert server.take() == [AppendSuccess(1, 2, 1, 2, 3)], "what is committed is here, and that is the answer"


def test_safety_28_a_snapshot_whose_boundary_entry_matches_keeps_what_follows() -> None:
    server = solo(log=log_of(1, 1, 1, 1, 1))
    server.step(InstallSnapshot(2, 1, 1, snapshot_at(server, 3, 1), 1))
    assert (server.node.log.offset, server.node.last_index, server.node.commit_index) == (3, 5, 3)
    assert (server.disk.base_index, server.disk.last_index) == (3, 5), "they may be acknowledged: they stay on disk"
    assert server.take() == [AppendSuccess(1, 2, 1, 3, 1)]
    server.step(AppendEntries(2, 1, 1, 5, 1, (), 5, 1))
    assert server.node.commit_index == 5


@pytest.mark.parametrize("log", [log_of(1, 1, 2, 2, 2), log_of(1), ()], ids=["conflict", "too short", "empty"])
def test_safety_28_otherwise_the_log_is_dropped(log: tuple[Entry, ...]) -> None:
    server = solo(log=log, term=3)
    server.step(InstallSnapshot(2, 1, 3, snapshot_at(server, 3, 3), 1))
    assert (server.node.log.offset, server.node.last_index, server.node.log.last_term) == (3, 3, 3)
    assert (server.disk.base_index, server.disk.entries) == (3, [])
    server.step(AppendEntries(2, 1, 3, 3, 3, log_of(3, after=3), 4, 1))
    assert [entry.index for entry in server.disk.entries] == [4]
    assert len(server.machine) == 4


def test_safety_28_storage_is_told_which_of_the_two_it_is() -> None:
    """Beside a snapshot, ``truncate_from`` says that what the disk holds after it must go; else it must stay."""
    for log, truncate_from in ((log_of(1, 1, 1, 1), None), (log_of(1, 1, 2, 2), 4)):
        server = solo(log=log, term=3)
        server.disk.held = True
        server.step(InstallSnapshot(2, 1, 3, snapshot_at(server, 3, 1), 1))
        (persist,) = server.disk.pending
        assert (persist.truncate_from, persist.entries) == (truncate_from, ())


def test_safety_28_entries_that_storage_never_saw_leave_no_gap_after_the_snapshot() -> None:
    """Several messages in one turn of the driver: entries 1 to 9 arrive, and a snapshot at 4 that agrees with
    them, before any Ready is taken. Storage must get 5 to 9, neither less nor others."""
    server = solo()
    meta = snapshot_at(server, 4, 1)
    server.node.step(AppendEntries(2, 1, 1, 0, 0, log_of(*[1] * 9), 0, 1), 0)
    server.node.step(InstallSnapshot(2, 1, 1, meta, 1), 0)
    ready = server.node.ready()
    assert ready.persist is not None
    assert [entry.index for entry in ready.persist.entries] == [5, 6, 7, 8, 9]


def test_safety_28_a_truncation_that_storage_never_saw_is_not_forgotten_over_a_snapshot() -> None:
    """As before, with entries on disk that were truncated in this very turn: what the disk holds after the
    snapshot is of the old term and must go."""
    server = solo(log=log_of(1, 1, 1, 1, 1, 1, 1))
    server.archive.states[4, 2] = log_of(1, 1, 2, 2)
    server.node.step(AppendEntries(2, 1, 2, 2, 1, log_of(2, 2, 2, after=2), 0, 1), 0)
    server.node.step(InstallSnapshot(2, 1, 2, SnapshotMeta(4, 2, FIRST), 1), 0)
    server.disk.held = True
    server.pump()
    (persist,) = server.disk.pending
    assert persist.truncate_from == 5, "nothing at or below the snapshot is left to be truncated"
    server.release_disk()
    assert [(entry.index, entry.term) for entry in server.disk.entries] == [(5, 2)]
    assert server.disk.recovered().entries == server.node.log.between(5, server.node.last_index)


def test_safety_28_nothing_is_applied_between_taking_a_snapshot_over_and_restoring_from_it() -> None:
    server = solo()
    server.disk.held = True
    server.step(InstallSnapshot(2, 1, 1, snapshot_at(server, 3, 1), 1))
    server.step(AppendEntries(2, 1, 1, 3, 1, log_of(1, 1, after=3), 5, 1))
    assert (server.node.commit_index, len(server.machine)) == (5, 0)
    server.release_disk()
    assert len(server.machine) == 5


def test_a_follower_whose_entries_are_compacted_gets_a_snapshot_and_then_the_rest() -> None:
    """Section 7: "the leader must occasionally send snapshots to followers that lag behind.\""""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.isolate(3)
    for number in range(10):
        cluster.replicate(b"%d" % number)
    leader.compact()
    leader.propose(b"after")
    cluster.heal()
    cluster.run(1_000 * MS)
    assert cluster[3].machine == leader.machine
    assert cluster[3].node.snapshot_index == 11
    assert leader.node.progress[3].state is ProgressState.REPLICATE


def test_while_a_snapshot_is_on_its_way_nothing_else_is_sent_but_heartbeats() -> None:
    server = lead(solo(log=log_of(1, 1, 1)))
    server.step(AppendSuccess(2, 1, 2, 4, 1))
    server.compact()
    server.step(AppendConflict(3, 1, 2, 3, None, 1, 1))
    (install,) = server.take(InstallSnapshot)
    assert isinstance(install, InstallSnapshot)
    assert install.snapshot.last_included_index == 4
    server.propose()
    server.time_out()
    server.step(HeartbeatResponse(3, 1, 2, 2))
    assert {type(message) for message in server.take() if message.to == 3} == {Heartbeat}
    server.node.report_snapshot(3, False, server.now_ns)
    server.step(HeartbeatResponse(3, 1, 2, 2))
    assert len(server.take(InstallSnapshot)) == 1, "it failed: sent again when the peer answers"
    server.step(AppendSuccess(3, 1, 2, 4, 1))
    (rest,) = server.take(AppendEntries)
    assert isinstance(rest, AppendEntries)
    assert (rest.prev_log_index, len(rest.entries)) == (4, 1)


def test_our_own_snapshot_that_was_overtaken_by_one_from_the_leader_is_passed_over() -> None:
    """It was being written while a newer one arrived; that is a race, not a broken driver."""
    server = solo(log=log_of(1, 1, 1), commit=2)
    ours = SnapshotMeta(2, 1, FIRST)
    server.step(InstallSnapshot(2, 1, 1, snapshot_at(server, 3, 1), 1))
    server.node.compacted(ours, 2, server.now_ns)
    assert (server.node.snapshot_index, server.node.log.offset) == (3, 3)


def test_compaction_keeps_a_tail_for_slow_followers() -> None:
    server = lead(solo(log=log_of(1, 1, 1)))
    server.step(AppendSuccess(2, 1, 2, 4, 1))
    server.compact(keep=2)
    assert (server.node.snapshot_index, server.node.first_index) == (4, 3)
    server.step(AppendConflict(3, 1, 2, 3, None, 3, 1))
    (probe,) = server.take(AppendEntries)
    assert isinstance(probe, AppendEntries)
    assert (probe.prev_log_index, probe.prev_log_term) == (2, 1)


def test_a_restart_goes_on_from_snapshot_log_and_commit_hint() -> None:
    first = SnapshotMeta(2, 1, FIRST)
    server = solo(log=log_of(1, 1, after=2), snapshot=first, term=1, commit=3)
    assert (server.node.first_index, server.node.last_index, server.node.commit_index) == (3, 4, 3)
    assert len(server.machine) == 3
    disk = Disk(RecoveredState(HardState(1), first, log_of(1, 1, after=2), 99))
    assert Server(1, disk, archive=server.archive).node.commit_index == 4, "a hint beyond the log is only a hint"
