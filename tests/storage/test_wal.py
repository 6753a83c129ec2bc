"""The log as its one user sees it: what goes in comes out, in one write and one sync."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from crashfs import CrashFS, Died, eio
from logs import (
    CLUSTER,
    CONFIG,
    DIR,
    NODE,
    SMALL,
    Batch,
    append,
    create,
    entries,
    entry,
    put,
    reopen,
    snapshot,
    term,
)

from lattice_core.errors import Fatal, IdentityMismatch, StorageDamaged, StorageFailed
from lattice_core.raft.types import Configuration, Entry, HardState, Member, RecoveredState, SnapshotMeta
from lattice_core.storage.errors import DiskFull
from lattice_core.storage.wal import ImpossibleRecord, Wal


def test_every_kind_of_record_survives_a_restart():
    fs = CrashFS()
    wal = create(fs)
    joint = Configuration(
        members=(Member(1, "a", "h:1"), Member(2, "b", "h:2"), Member(2**64 - 1, "ç", "h:3")),
        voters=frozenset({1, 2}),
        voters_outgoing=frozenset({1}),
        learners=frozenset({2**64 - 1}),
    )
    log = (Entry(1, 1, None), Entry(2, 1, b""), Entry(3, 1, b"\0" * 3000), Entry(4, 2, joint))
    put(wal, Batch(hard_state=HardState(2, 2**64 - 1), entries=log, commit_hint=3))
    wal.close()
    _, recovery = reopen(fs)
    assert recovery.state == RecoveredState(HardState(2, 2**64 - 1), None, log, 3)
    assert recovery.torn is None


def test_the_first_configuration_is_part_of_the_birth_of_a_log():
    fs = CrashFS()
    born = SnapshotMeta(0, 0, CONFIG)
    Wal.create(fs, DIR, CLUSTER, NODE, segment_bytes=SMALL, initial=Batch(snapshot=born)).close()
    wal, recovery = reopen(fs)
    assert recovery.state == RecoveredState(snapshot=born)
    put(wal, term(1), append(1, 300))
    wal.close()
    assert reopen(fs)[1].state.snapshot == born


def test_many_batches_are_one_write_and_one_sync():
    fs = CrashFS()
    wal = create(fs, segment_bytes=1 << 20)
    fs.calls.clear()
    wal.write([append(index, index) for index in range(1, 65)])
    wal.sync()
    wal.sync()
    assert [operation for operation, _ in fs.calls] == ["write", "datasync"]


def test_a_log_of_many_segments_comes_back_whole_and_goes_on():
    fs = CrashFS()
    wal = create(fs)
    for index in range(1, 101):
        put(wal, append(index, index, size=300))
    assert wal.segment_count > 5
    wal.close()
    wal, recovery = reopen(fs)
    assert recovery.state.entries == entries(1, 100, size=300)
    put(wal, append(101, 102))
    assert reopen(fs)[1].state.entries[-2:] == entries(101, 102)


def test_a_group_larger_than_a_segment_gets_a_segment_of_its_size():
    fs = CrashFS()
    wal = create(fs)
    put(wal, append(1, 3, size=50_000))
    put(wal, append(4, 4))
    assert reopen(fs)[1].state.entries == (*entries(1, 3, size=50_000), entry(4))


def test_conflicting_entries_are_truncated_by_a_record():
    fs = CrashFS()
    wal = create(fs, append(1, 10))
    put(wal, Batch(hard_state=HardState(2), truncate_from=6, entries=entries(6, 7, term=2)))
    assert reopen(fs)[1].state.entries == (*entries(1, 5), *entries(6, 7, term=2))


def test_an_entry_at_a_taken_index_replaces_it_and_what_follows():
    fs = CrashFS()
    wal = create(fs, append(1, 10))
    put(wal, Batch(hard_state=HardState(2), entries=entries(6, 7, term=2)))
    assert reopen(fs)[1].state.entries == (*entries(1, 5), *entries(6, 7, term=2))


def test_a_hint_alone_costs_no_write_and_goes_out_with_the_next_record():
    fs = CrashFS()
    wal = create(fs, append(1, 5))
    fs.calls.clear()
    put(wal, Batch(commit_hint=4))
    assert fs.calls == []
    put(wal, append(6, 6))
    assert reopen(fs)[1].state.commit_hint == 4


@pytest.mark.parametrize(
    "batch",
    [
        append(12, 12),
        append(11, 11, term=2),
        Batch(entries=entries(11, 11, term=0)),
        term(0),
        term(1, vote=3),
        term(1),
        Batch(truncate_from=4),
        Batch(truncate_from=3, entries=entries(3, 3)),
        Batch(snapshot=SnapshotMeta(20, 9, CONFIG)),
    ],
    ids=["gap", "above-term", "term-falls", "term-back", "vote-moves", "vote-lost", "committed", "both", "future"],
)
def test_what_raft_forbids_is_refused_and_nothing_is_written(batch):
    fs = CrashFS()
    wal = create(fs)
    put(wal, term(1, vote=2), append(1, 10), Batch(commit_hint=4))
    fs.calls.clear()
    with pytest.raises(ImpossibleRecord):
        wal.write([append(11, 11), batch] if batch.entries == () else [batch])
    assert fs.calls == []
    put(wal, append(11, 11))


def test_a_snapshot_keeps_the_entries_after_a_matching_boundary():
    fs = CrashFS()
    wal = create(fs, append(1, 10), snapshot(6))
    put(wal, append(11, 12))
    _, recovery = reopen(fs)
    assert recovery.state.snapshot == SnapshotMeta(6, 1, CONFIG)
    assert recovery.state.entries == entries(7, 12)
    assert recovery.retained == entries(1, 6)


@pytest.mark.parametrize("meta", [SnapshotMeta(20, 1, CONFIG), SnapshotMeta(6, 2, CONFIG)], ids=["ahead", "conflict"])
def test_safety_28_a_snapshot_without_its_boundary_restarts_the_log(meta):
    fs = CrashFS()
    wal = create(fs, append(1, 10), term(2))
    first = meta.last_included_index + 1
    put(wal, Batch(snapshot=meta, entries=entries(first, first + 1, term=2)))
    _, recovery = reopen(fs)
    assert recovery.state.entries == entries(first, first + 1, term=2)
    assert recovery.retained == ()


def test_entries_that_a_restart_of_the_log_covers_are_passed_over():
    fs = CrashFS()
    wal = create(fs, append(1, 4), term(2))
    batch = Batch(snapshot=SnapshotMeta(10, 2, CONFIG), truncate_from=3, entries=entries(3, 12, term=2))
    put(wal, batch)
    assert reopen(fs)[1].state.entries == entries(11, 12, term=2)


def test_a_boundary_that_the_core_truncated_restarts_the_log_even_if_the_disk_still_matches():
    fs = CrashFS()
    wal = create(fs, append(1, 12), term(2))
    put(wal, Batch(snapshot=SnapshotMeta(10, 1, CONFIG), truncate_from=5))
    assert wal.last_index == 10
    assert reopen(fs)[1].state.entries == ()


# ---- compaction -------------------------------------------------------------------------------------


def filled(fs: CrashFS, count: int = 60) -> Wal:
    wal = create(fs)
    for index in range(1, count + 1):
        put(wal, append(index, index, size=600))
    return wal


def test_compaction_deletes_only_whole_segments_under_a_durable_snapshot():
    fs = CrashFS()
    wal = filled(fs)
    before, size = wal.segment_count, wal.size_bytes
    assert wal.compact(60) == 0
    wal.write([snapshot(30)])
    assert wal.compact(60) == 0, "the mark is not durable yet"
    wal.sync()
    assert 0 < wal.compact(60) < before
    assert wal.size_bytes == size - (before - wal.segment_count) * SMALL
    _, recovery = reopen(fs)
    assert recovery.state.entries == entries(31, 60, size=600)
    assert recovery.state.hard_state == HardState(1)
    assert recovery.retained == entries(recovery.base_index + 1, 30, size=600)


def test_compaction_stops_at_the_index_it_is_given():
    fs = CrashFS()
    wal = filled(fs)
    put(wal, snapshot(50))
    wal.compact(20)
    assert reopen(fs)[1].base_index < 21


def test_the_log_goes_on_after_compaction_and_a_truncation_at_its_base():
    fs = CrashFS()
    wal = filled(fs)
    put(wal, snapshot(50))
    wal.compact(50)
    put(wal, Batch(hard_state=HardState(2), truncate_from=51, entries=entries(51, 52, term=2)))
    assert reopen(fs)[1].state.entries == entries(51, 52, term=2)


def test_a_crash_between_two_deletions_recovers():
    for steps in range(8):
        fs = CrashFS()
        wal = filled(fs)
        put(wal, snapshot(50))
        fs.die_after = steps
        with pytest.raises(Died):
            wal.compact(50)
        for seed in range(6):
            _, recovery = reopen(fs.crash(random.Random(seed)))
            assert recovery.state.entries == entries(51, 60, size=600)


# ---- failures ---------------------------------------------------------------------------------------


def test_safety_18_a_failed_fsync_is_final():
    fs = CrashFS()
    wal = create(fs, append(1, 3))
    wal.write([append(4, 4)])
    fs.fail["datasync"] = eio()
    with pytest.raises(StorageFailed, match="EIO"):
        wal.sync()
    fs.fail.clear()
    fs.calls.clear()
    for call in (wal.sync, lambda: wal.write([append(5, 5)]), lambda: wal.compact(1)):
        with pytest.raises(StorageFailed, match="earlier failure"):
            call()
    wal.close()
    assert fs.calls == [], "nothing is tried again, not even on close"


@pytest.mark.parametrize("error", [eio(), DiskFull("no space (ENOSPC)")], ids=["EIO", "ENOSPC"])
def test_safety_18_a_failed_write_is_final_even_if_it_says_the_disk_is_full(error):
    fs = CrashFS()
    wal = create(fs)
    fs.fail["write"] = error
    with pytest.raises(StorageFailed) as caught:
        wal.write([append(1, 1)])
    assert not isinstance(caught.value, DiskFull)
    fs.fail.clear()
    with pytest.raises(StorageFailed):
        wal.sync()


def until_full(wal: Wal, batch: Callable[[int], Batch], first: int) -> int:
    for number in range(first, 1000):
        try:
            put(wal, batch(number))
        except DiskFull:
            return number - 1
    raise AssertionError("the disk never filled up")


def test_safety_19_a_full_disk_takes_no_entries_but_terms_and_votes_and_recovers():
    fs = CrashFS()
    wal = create(fs)
    fs.room = 0
    written = until_full(wal, lambda index: append(index, index, size=100), first=1)
    assert written > 3
    assert fs.list_dir(DIR) == ["0000000000000001-0000000000000001.wal"]
    for number in range(2, 5):
        put(wal, term(number, vote=7))
    with pytest.raises(DiskFull):
        put(wal, append(written + 1, written + 1, term=4))
    _, recovery = reopen(fs.copy())
    assert recovery.state.hard_state == HardState(4, 7)
    assert recovery.state.entries == entries(1, written, size=100)
    fs.room = 1 << 20
    put(wal, append(written + 1, written + 50, term=4))
    assert len(reopen(fs)[1].state.entries) == written + 50


def test_safety_19_the_reserve_is_finite_and_says_so():
    fs = CrashFS()
    wal = create(fs)
    fs.room = 0
    last = until_full(wal, term, first=2)
    assert last > 3
    assert reopen(fs)[1].state.hard_state == HardState(last)


def test_safety_20_a_segment_is_fsynced_before_its_name_and_both_before_its_use():
    fs = CrashFS()
    wal = create(fs)
    put(wal, append(1, 20, size=100))
    wal.write([append(21, 22)])
    fs.calls.clear()
    put(wal, append(23, 100))
    old, new = (f"{DIR}/{name}" for name in fs.list_dir(DIR)[-2:])
    assert fs.calls == [
        ("datasync", old),
        ("create", new),
        ("allocate", new),
        ("datasync", new),
        ("write", new),
        ("datasync", new),
        ("sync_dir", DIR),
        ("write", old),
        ("datasync", old),
        ("write", new),
        ("datasync", new),
    ]


# ---- whose log --------------------------------------------------------------------------------------


def test_another_clusters_or_nodes_log_is_refused_with_both_values():
    fs = CrashFS()
    create(fs).close()
    with pytest.raises(IdentityMismatch, match=r"cluster 00000000000000c1.*cluster 0000000000000bad"):
        Wal.open(fs, DIR, 0xBAD, NODE)
    with pytest.raises(IdentityMismatch, match=r"node 00000000000000a1.*0000000000000bad"):
        Wal.open(fs, DIR, CLUSTER, 0xBAD)


def test_safety_22_a_missing_log_is_not_taken_for_a_new_one():
    fs = CrashFS()
    fs.make_dirs(DIR)
    with pytest.raises(StorageDamaged, match="missing") as caught:
        reopen(fs)
    assert "--reseed" in (caught.value.hint or "")


def test_a_second_log_is_not_made_over_the_first():
    fs = CrashFS()
    create(fs).close()
    with pytest.raises(Fatal, match="already"):
        create(fs)


def test_a_closed_log_refuses_writes():
    wal = create(CrashFS())
    wal.close()
    wal.close()
    with pytest.raises(StorageFailed, match="closed"):
        wal.write([term(2)])
