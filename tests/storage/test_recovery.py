"""What a crash leaves is cut; what was durable and is not as written refuses to start."""

from __future__ import annotations

import itertools
import random

import pytest
from crashfs import CrashFS, Died
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
    last_segment,
    put,
    reopen,
    snapshot,
    term,
)

from lattice_core.errors import Fatal, StorageDamaged
from lattice_core.raft.types import Entry, RecoveredState, SnapshotMeta
from lattice_core.storage import segments
from lattice_core.storage.filesystem import SECTOR_BYTES
from lattice_core.storage.wal import Wal


def overwrite(fs: CrashFS, path: str, offset: int, data: bytes) -> None:
    inode = fs.names[path]
    inode.content[offset : offset + len(data)] = data
    inode.sync()


def cut_to(fs: CrashFS, path: str, size: int) -> None:
    del fs.names[path].content[size:]
    fs.names[path].sync()


def last_frame(fs: CrashFS) -> tuple[str, int, int]:
    """Path, first byte and end of the used bytes of the last frame."""
    path = last_segment(fs)
    data = bytes(fs.names[path].content)
    scan = segments.scan_segment(data, segments.decode_header(data))
    return path, scan.frames[-1].offset, len(data.rstrip(b"\0"))


# ---- torn tails -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [60, 1500], ids=["in-one-sector", "over-sectors"])
def test_safety_16_a_record_torn_at_any_byte_of_the_end_is_cut_and_reported(size):
    fs = CrashFS()
    wal = create(fs, append(1, 3))
    before = reopen(fs.copy())[1].state
    put(wal, append(4, 5, size=size))
    path, start, end = last_frame(fs)
    for cut in range(start, end):
        torn = fs.copy()
        overwrite(torn, path, cut, bytes(end - cut))
        again, recovery = reopen(torn)
        assert recovery.state == before
        if cut == start:
            assert recovery.torn is None
        else:
            assert recovery.torn is not None
            assert (recovery.torn.path, recovery.torn.offset) == (path, start)
            assert 0 < recovery.torn.bytes_cut <= cut - start
        put(again, append(4, 4, size=size))
        again.close()
        _, recovery = reopen(torn)
        assert recovery.state.entries == (*entries(1, 3), *entries(4, 4, size=size))
        assert recovery.torn is None


def test_safety_16_any_subset_of_the_sectors_of_unsynced_writes_leaves_a_prefix():
    fs = CrashFS()
    wal = create(fs, append(1, 3))
    path, _, _ = last_frame(fs)
    wal.write([append(4, 5, size=700)])
    wal.write([append(6, 7, size=700)])
    (_, first, one), (_, second, two) = fs.names[path].pending
    prefixes = [entries(1, 3), (*entries(1, 3), *entries(4, 5, size=700))]
    prefixes.append((*prefixes[1], *entries(6, 7, size=700)))
    sectors = [
        (offset + at, data[at : at + SECTOR_BYTES])
        for offset, data in ((first, one), (second, two))
        for at in range(0, len(data), SECTOR_BYTES)
    ]
    count = len(one) // SECTOR_BYTES
    for kept in itertools.product((True, False), repeat=len(sectors)):
        torn = fs.copy()
        overwrite(torn, path, first, bytes(len(one) + len(two)))
        for (offset, data), keep in zip(sectors, kept, strict=True):
            if keep:
                overwrite(torn, path, offset, data)
        expected = prefixes[0 if not all(kept[:count]) else 1 if not all(kept[count:]) else 2]
        _, recovery = reopen(torn)
        assert recovery.state.entries == expected
        assert reopen(torn)[1].torn is None, "the tail was cut for good"


def test_a_leftover_of_a_torn_write_never_comes_back_after_later_writes():
    """The second frame of two arrives without the first; then a write of the first's length follows."""
    fs = CrashFS()
    wal = create(fs, append(1, 3))
    wal.write([append(4, 4)])
    wal.write([append(5, 5)])
    path = last_segment(fs)
    _, start, data = fs.names[path].pending[0]
    torn = fs.copy()
    overwrite(torn, path, start, bytes(len(data)))
    wal, recovery = reopen(torn)
    assert recovery.torn is not None
    put(wal, append(4, 4))
    assert reopen(torn)[1].state.entries == entries(1, 4)


def test_safety_21_a_truncation_cut_at_any_byte_is_there_or_not():
    fs = CrashFS()
    wal = create(fs, append(1, 6))
    before = reopen(fs.copy())[1].state
    put(wal, Batch(hard_state=term(2, 3).hard_state, truncate_from=3, entries=entries(3, 4, term=2)))
    after = reopen(fs.copy())[1].state
    assert after.entries == (*entries(1, 2), *entries(3, 4, term=2))
    path, start, end = last_frame(fs)
    for cut in range(start, end + 1):
        torn = fs.copy()
        overwrite(torn, path, cut, bytes(end - cut))
        assert reopen(torn)[1].state == (after if cut == end else before)


# ---- damage -----------------------------------------------------------------------------------------


def several_segments(close: bool) -> CrashFS:
    fs = CrashFS()
    wal = create(fs, segment_bytes=4096)
    put(wal, append(1, 4, size=200))
    put(wal, Batch(entries=entries(5, 6, size=900), commit_hint=4))
    put(wal, snapshot(3), term(2, vote=1))
    put(wal, Batch(truncate_from=6, entries=entries(6, 9, term=2, size=300)))
    put(wal, append(10, 10, term=2, size=20))
    assert wal.segment_count >= 3
    if close:
        wal.close()
    return fs


@pytest.mark.parametrize("close", [False, True], ids=["killed", "closed"])
def test_safety_17_a_flipped_bit_anywhere_refuses_or_loses_nothing(close):
    fs = several_segments(close)
    whole = reopen(fs.copy(), segment_bytes=4096)[1].state
    refusals: list[StorageDamaged] = []
    for path in list(fs.names):
        content = fs.names[path].content
        for offset in range(len(content)):
            if offset % 128 and not any(content[offset - offset % SECTOR_BYTES :][:SECTOR_BYTES]):
                continue  # of room not used yet, some bytes will do
            if close and offset % 3:
                continue  # the same but for its last frame
            rotten = fs.copy()
            overwrite(rotten, path, offset, bytes([rotten.names[path].content[offset] ^ (1 << offset % 8)]))
            try:
                _, recovery = reopen(rotten, segment_bytes=4096)
            except StorageDamaged as error:
                refusals.append(error)
            else:
                assert recovery.state == whole
    assert len(refusals) > (1000 if close else 3000)
    for refusal in refusals:
        assert refusal.path.startswith(DIR)
        assert f"{refusal.path} is damaged at offset {refusal.offset}" in str(refusal)
        assert "--reseed" in (refusal.hint or "")


@pytest.mark.parametrize("close", [False, True], ids=["killed", "closed"])
def test_safety_17_a_lost_sector_under_a_later_write_refuses(close):
    """Only the very last frame, with nothing after it, may lose a sector and be taken for a tear.

    (A lost seal is no loss while its successor is there, and is written again.)
    """
    fs = several_segments(close)
    whole = reopen(fs.copy(), segment_bytes=4096)[1].state
    last_path, start, _ = last_frame(fs)
    for path in list(fs.names):
        for offset in range(0, 4096, SECTOR_BYTES):
            if not any(fs.names[path].content[offset : offset + SECTOR_BYTES]):
                continue
            rotten = fs.copy()
            overwrite(rotten, path, offset, bytes(SECTOR_BYTES))
            if (path, offset) == (last_path, start):
                state = reopen(rotten, segment_bytes=4096)[1].state
                assert (state == whole) if close else (len(state.entries) == len(whole.entries) - 1)
            else:
                try:
                    state = reopen(rotten, segment_bytes=4096)[1].state
                except StorageDamaged:
                    continue
                assert state == whole
                assert seal_offset(fs.names[path].content) == offset


def seal_offset(content: bytearray) -> int | None:
    scan = segments.scan_segment(bytes(content), segments.decode_header(bytes(content)))
    return scan.end if scan.sealed else None


def test_safety_17_a_file_cut_short_refuses_even_between_two_frames():
    fs = CrashFS()
    create(fs, append(1, 3), append(4, 6), append(7, 9))
    path, start, _ = last_frame(fs)
    for size in (0, 100, SECTOR_BYTES, start, start + 40, SMALL - 1):
        cut = fs.copy()
        cut_to(cut, path, size)
        with pytest.raises(StorageDamaged):
            reopen(cut)


def test_safety_17_a_missing_segment_refuses_wherever_it_was():
    fs = several_segments(close=True)
    names = list(fs.names)
    for path in names:
        gap = fs.copy()
        gap.remove(path)
        with pytest.raises(StorageDamaged):
            reopen(gap, segment_bytes=4096)


@pytest.mark.parametrize("size", [0, 300, SECTOR_BYTES, 4096], ids=["0", "300", "512", "zeros"])
def test_safety_17_a_newest_segment_that_was_emptied_refuses(size):
    fs = several_segments(close=False)
    path = last_segment(fs)
    cut_to(fs, path, min(size, SECTOR_BYTES))
    if size == 4096:
        overwrite(fs, path, 0, bytes(4096))
    with pytest.raises(StorageDamaged, match=r"the segment before it|the file ends here"):
        reopen(fs, segment_bytes=4096)


def test_safety_17_frames_in_the_wrong_place_are_noticed():
    """Two frames of equal length change places: each is whole, and neither is where it belongs."""
    fs = CrashFS()
    wal = create(fs)
    put(wal, append(1, 1))
    path, first, _ = last_frame(fs)
    put(wal, append(2, 2))
    _, second, _ = last_frame(fs)
    put(wal, append(3, 3))
    content = fs.names[path].content
    one, two = bytes(content[first:second]), bytes(content[second : second + second - first])
    overwrite(fs, path, first, two + one)
    with pytest.raises(StorageDamaged):
        reopen(fs)


def test_a_value_that_looks_like_a_frame_does_not_make_a_tear_into_damage():
    """Somebody stores, at its very offset, a frame of another node's log that vouches for what is before."""
    donor = CrashFS()
    create(donor, append(1, 3), append(4, 4))
    path, forged_at, _ = last_frame(donor)
    forged = bytes(donor.names[path].content[forged_at : forged_at + SECTOR_BYTES])

    fs = CrashFS()
    wal = Wal.create(fs, DIR, CLUSTER, NODE + 1, segment_bytes=SMALL)
    wal.write([term(1), Batch(entries=[Entry(1, 1, b"x" * 928 + forged)])])
    _, start, data = fs.names[path].pending[0]
    padding = forged_at - (start + data.index(forged))
    torn = CrashFS()
    wal = Wal.create(torn, DIR, CLUSTER, NODE + 1, segment_bytes=SMALL)
    wal.write([term(1), Batch(entries=[Entry(1, 1, b"x" * (928 + padding) + forged)])])
    assert torn.names[path].content[forged_at : forged_at + SECTOR_BYTES] == forged
    overwrite(torn, path, start, bytes(SECTOR_BYTES))
    _, recovery = Wal.open(torn, DIR, CLUSTER, NODE + 1, segment_bytes=SMALL)
    assert recovery.torn is not None
    assert recovery.state.entries == ()


def test_zero_sectors_in_a_value_are_counted_so_that_rot_beside_them_is_damage():
    fs = CrashFS()
    wal = create(fs)
    put(wal, Batch(entries=[Entry(1, 1, bytes(3000) + b"end" * 300)]))
    path, start, end = last_frame(fs)
    rotten = fs.copy()
    overwrite(rotten, path, end - 100, b"?")
    with pytest.raises(StorageDamaged):
        reopen(rotten)
    torn = fs.copy()
    overwrite(torn, path, start + 3072, bytes(SECTOR_BYTES))
    assert reopen(torn)[1].torn is not None


def test_an_unknown_format_version_is_named(monkeypatch):
    monkeypatch.setattr(segments, "FORMAT_VERSION", 7)
    fs = CrashFS()
    create(fs).close()
    monkeypatch.undo()
    with pytest.raises(Fatal, match="format version 7") as caught:
        reopen(fs)
    assert not isinstance(caught.value, StorageDamaged)


# ---- rolling ----------------------------------------------------------------------------------------


def test_a_crash_at_any_step_of_rolling_loses_nothing_that_was_synced():
    for steps in range(10):
        for seed in range(12):
            fs = CrashFS()
            wal = create(fs, append(1, 5), append(6, 30, size=100))
            before = (*entries(1, 5), *entries(6, 30, size=100))
            more = append(31, 70, size=100)
            fs.die_after = steps
            try:
                put(wal, more)
                acknowledged = True
            except Died:
                acknowledged = False
            crashed = fs.crash(random.Random(seed))
            again, recovery = reopen(crashed)
            if recovery.state.entries == before:
                assert not acknowledged
                put(again, more)
                again.close()
                recovery = reopen(crashed)[1]
            assert recovery.state.entries == (*before, *more.entries)


def test_a_restart_is_not_torn_by_a_segment_that_was_never_finished():
    fs = CrashFS()
    create(fs, append(1, 5))
    path = f"{DIR}/{segments.segment_name(2, 6)}"
    fs.open(path, create=True)
    wal, recovery = reopen(fs)
    assert recovery.torn is not None
    assert recovery.torn.path == path
    assert not fs.exists(path)
    put(wal, append(6, 90))
    assert reopen(fs)[1].state.entries == entries(1, 90)


# ---- snapshots --------------------------------------------------------------------------------------


def recovered_with_marks():
    fs = CrashFS()
    wal = create(fs, append(1, 10), term(2), append(11, 14, term=2))
    put(wal, snapshot(6))
    return reopen(fs)[1]


def test_safety_29_a_published_snapshot_that_the_log_does_not_know_yet_wins():
    recovery = recovered_with_marks()
    newer = SnapshotMeta(12, 2, CONFIG)
    assert recovery.starting_from(newer) == RecoveredState(
        recovery.state.hard_state, newer, entries(13, 14, term=2), 12
    )
    received = SnapshotMeta(40, 2, CONFIG)
    assert recovery.starting_from(received) == RecoveredState(recovery.state.hard_state, received, (), 40)


def test_safety_31_an_older_snapshot_serves_only_if_the_log_covers_the_gap():
    recovery = recovered_with_marks()
    older = SnapshotMeta(4, 1, CONFIG)
    state = recovery.starting_from(older)
    assert state is not None
    assert state.entries == (*entries(5, 10), *entries(11, 14, term=2))
    assert recovery.starting_from(None) is not None

    fs = CrashFS()
    wal = create(fs)
    for index in range(1, 60):
        put(wal, append(index, index, size=600))
    put(wal, snapshot(40))
    wal.compact(40)
    recovery = reopen(fs)[1]
    assert recovery.base_index > 4
    assert recovery.starting_from(older) is None
    assert recovery.starting_from(None) is None
    assert recovery.starting_from(SnapshotMeta(recovery.base_index, 1, CONFIG)) is not None


# ---- killed, then powered off -----------------------------------------------------------------------


def test_safety_24_what_a_killed_process_left_unsynced_is_durable_once_it_was_recovered():
    fs = CrashFS()
    wal = create(fs, append(1, 3))
    wal.write([append(4, 6, size=600)])
    _, recovery = reopen(fs)
    assert recovery.state.entries[-1].index == 6
    for seed in range(8):
        assert reopen(fs.crash(random.Random(seed)))[1].state == recovery.state


def test_safety_17_a_vote_lost_at_the_end_of_an_earlier_segment_refuses():
    """The next segment restates the vote, but its header knows that something is missing here."""
    fs = CrashFS()
    wal = create(fs, append(1, 20, size=200), term(2, vote=3))
    path, start, _ = last_frame(fs)
    put(wal, append(21, 60, term=2, size=200))
    assert last_segment(fs) != path
    overwrite(fs, path, start, bytes(SMALL - start))
    with pytest.raises(StorageDamaged) as caught:
        reopen(fs)
    assert (caught.value.path, caught.value.offset) == (path, start)
