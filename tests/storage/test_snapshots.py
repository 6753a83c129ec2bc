"""Snapshot files: whole or not there; and restarting from log and snapshots together."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import msgpack
import pytest

from lattice_core.errors import Fatal, StorageDamaged
from lattice_core.raft.types import Configuration, Entry, HardState, Member, SnapshotMeta
from lattice_core.sim.disk import SimFileSystem
from lattice_core.storage.restart import SnapshotMarkBatch, restart
from lattice_core.storage.snapshots import (
    SnapshotHeader,
    SnapshotReader,
    SnapshotReceiver,
    SnapshotWriter,
    list_snapshots,
    remove_strays,
    retain,
)
from lattice_core.storage.wal import Wal

CLUSTER, NODE = 77, 1
WAL, SNAPSHOTS = "/data/wal", "/data/snapshots"
CONFIGURATION = Configuration.of_voters([Member(1, "n1", "h:1"), Member(2, "n2", "h:2"), Member(3, "n3", "h:3")])


@dataclass(frozen=True)
class Batch:
    entries: tuple[Entry, ...] = ()
    hard_state: HardState | None = None
    snapshot: SnapshotMeta | None = None
    truncate_from: int | None = None
    commit_hint: int | None = None


def _fs(seed: int = 1) -> SimFileSystem:
    return SimFileSystem(random.Random(seed))


def _meta(index: int, term: int = 1) -> SnapshotMeta:
    return SnapshotMeta(index, term, CONFIGURATION)


def _write(fs: SimFileSystem, meta: SnapshotMeta, chunks: int = 3) -> str:
    writer = SnapshotWriter(fs, SNAPSHOTS, SnapshotHeader(CLUSTER, meta))
    for number in range(chunks):
        writer.write(msgpack.packb([meta.last_included_index, number, b"x" * 100]))
    return writer.publish()


def _log(fs: SimFileSystem, last: int, term: int = 1) -> None:
    wal = Wal.create(fs, WAL, CLUSTER, NODE, initial=SnapshotMarkBatch(_meta(0, 0)), segment_bytes=8192)
    wal.write([Batch(hard_state=HardState(term, 1), entries=_entries(1, last, term))])
    wal.sync()
    wal.close()


def _entries(first: int, last: int, term: int = 1) -> tuple[Entry, ...]:
    return tuple(Entry(index, term, b"payload") for index in range(first, last + 1))


def _restart(fs: SimFileSystem) -> Any:
    return restart(fs, WAL, SNAPSHOTS, CLUSTER, NODE, segment_bytes=8192)


def test_what_was_written_is_read_back_with_its_header() -> None:
    fs = _fs()
    path = _write(fs, _meta(10))
    with SnapshotReader(fs, path) as reader:
        assert reader.header == SnapshotHeader(CLUSTER, _meta(10))
        assert list(reader.objects()) == [(10, number, b"x" * 100) for number in range(3)]


def test_safety_20_a_published_snapshot_survives_a_crash_and_an_unpublished_one_leaves_nothing() -> None:
    for seed in range(50):
        fs = _fs(seed)
        path = _write(fs, _meta(10))
        half = SnapshotWriter(fs, SNAPSHOTS, SnapshotHeader(CLUSTER, _meta(20)))
        half.write(b"half of it")
        fs.crash()
        remove_strays(fs, SNAPSHOTS)
        assert list_snapshots(fs, SNAPSHOTS) == [path]
        assert len(fs.list_dir(SNAPSHOTS)) == 1
        SnapshotReader(fs, path).verify()


def test_safety_26_a_flip_of_any_bit_is_noticed_as_damage() -> None:
    """Found by the simulator: a flipped bit in the version was taken for a newer format, which nobody repairs."""
    fs = _fs()
    path = _write(fs, _meta(10), chunks=2)
    file = fs.open(path)
    whole = file.read_at(0, file.size())
    for offset in range(len(whole)):
        file.write_at(offset, bytes([whole[offset] ^ (1 << offset % 8)]))
        with pytest.raises(StorageDamaged) as caught:
            SnapshotReader(fs, path).verify()
        assert caught.value.path == path
        file.write_at(offset, whole[offset : offset + 1])
    SnapshotReader(fs, path).verify()


def test_safety_26_a_cut_at_any_byte_is_noticed_as_damage() -> None:
    fs = _fs()
    path = _write(fs, _meta(10), chunks=2)
    size = fs.open(path).size()
    for kept in range(size):
        fs = _fs()
        path = _write(fs, _meta(10), chunks=2)
        fs.open(path).truncate(kept)
        with pytest.raises(StorageDamaged):
            SnapshotReader(fs, path).verify()


def test_a_newer_format_is_said_to_be_one() -> None:
    import struct

    import google_crc32c

    fs = _fs()
    path = _write(fs, _meta(10))
    file = fs.open(path)
    magic, _, length, _ = struct.unpack("<8sIII", file.read_at(0, 20))
    packed = file.read_at(20, length)
    crc = google_crc32c.extend(google_crc32c.value(struct.pack("<II", 2, length)), packed)
    file.write_at(0, struct.pack("<8sIII", magic, 2, length, crc))
    with pytest.raises(Fatal, match="format 2") as caught:
        SnapshotReader(fs, path)
    assert not isinstance(caught.value, StorageDamaged)


def test_safety_26_a_received_file_counts_only_when_it_is_whole_and_can_be_resumed() -> None:
    source, target = _fs(), _fs(2)
    path = _write(source, _meta(30), chunks=20)
    file = source.open(path)
    name, size = path.rsplit("/", 1)[-1], file.size()
    receiver = SnapshotReceiver(target, SNAPSHOTS, name, size)
    receiver.write(0, file.read_at(0, 700))
    receiver.write(500, file.read_at(500, 300))  # a piece that came twice, in part
    with pytest.raises(ValueError, match="after 800"):
        receiver.write(900, b"gap")
    assert list_snapshots(target, SNAPSHOTS) == []
    receiver = SnapshotReceiver(target, SNAPSHOTS, name, size)  # a new stream goes on where the last was cut
    assert receiver.received_bytes == 800
    receiver.write(800, file.read_at(800, size))
    assert receiver.is_complete
    assert receiver.verify(CLUSTER) == _meta(30)
    assert SnapshotReader(target, receiver.publish()).verify().meta == _meta(30)


@pytest.mark.parametrize("cluster", [CLUSTER, CLUSTER + 1])
def test_a_received_file_that_is_damaged_or_of_another_cluster_is_removed(cluster: int) -> None:
    source, target = _fs(), _fs(2)
    path = _write(source, _meta(30))
    data = bytearray(source.open(path).read_at(0, source.open(path).size()))
    if cluster == CLUSTER:
        data[len(data) // 2] ^= 1
    receiver = SnapshotReceiver(target, SNAPSHOTS, path.rsplit("/", 1)[-1], len(data))
    receiver.write(0, bytes(data))
    with pytest.raises(StorageDamaged):
        receiver.verify(cluster)
    assert target.list_dir(SNAPSHOTS) == []


def test_safety_30_the_two_newest_are_kept_and_what_is_being_sent() -> None:
    fs = _fs()
    paths = [_write(fs, _meta(index)) for index in (10, 20, 30, 40)]
    retain(fs, SNAPSHOTS, in_use=frozenset({paths[0]}))
    assert list_snapshots(fs, SNAPSHOTS) == [paths[3], paths[2], paths[0]]
    retain(fs, SNAPSHOTS)
    assert list_snapshots(fs, SNAPSHOTS) == [paths[3], paths[2]]


def test_safety_31_a_snapshot_whose_damage_shows_first_in_its_contents_is_passed_over() -> None:
    """A chunk is gone, and every other chunk's CRC holds: what is made of the file while it is checked fails before
    the digest at the end is reached."""
    fs = _fs()
    _log(fs, last=30)
    older, newer = _write(fs, _meta(10)), _write(fs, _meta(20))
    with SnapshotReader(fs, newer) as reader:
        whole = fs.open(newer).read_at(0, reader.size_bytes)
        first = next(reader.chunks())
    at = whole.index(first) - 8  # its length and its CRC
    fs.remove(newer)
    fs.open(newer, create=True).write_at(0, whole[:at] + whole[at + 8 + len(first) :])

    def load(reader: SnapshotReader) -> list[int]:
        numbers: list[int] = []
        for _, number, _ in reader.objects():
            if number != len(numbers):
                raise Fatal("a chunk is missing")
            numbers.append(number)
        return numbers

    begun = restart(fs, WAL, SNAPSHOTS, CLUSTER, NODE, segment_bytes=8192, load=load)
    assert begun.snapshot_path == older
    assert begun.damaged_snapshots == (newer,)
    assert begun.loaded == [0, 1, 2]
    begun.wal.close()


def test_what_the_program_cannot_read_in_a_whole_snapshot_is_not_called_damage() -> None:
    """An older file in its place would hide that this version is too old for the cluster's state."""
    fs = _fs()
    _log(fs, last=30)
    _write(fs, _meta(10)), _write(fs, _meta(20))

    def load(reader: SnapshotReader) -> None:
        raise Fatal("version 7 of the contents")

    with pytest.raises(Fatal, match="version 7"):
        restart(fs, WAL, SNAPSHOTS, CLUSTER, NODE, segment_bytes=8192, load=load)


def test_safety_29_a_snapshot_published_but_not_marked_is_marked_by_the_restart() -> None:
    """Found by the simulator: the log went on from its own last entry, and the node could not append after the
    snapshot that it had restored."""
    fs = _fs()
    _log(fs, last=5)
    _write(fs, _meta(9))  # received from the leader; the crash came before the mark
    begun = _restart(fs)
    assert begun.state.snapshot == _meta(9)
    assert begun.state.entries == ()
    begun.wal.write([Batch(entries=_entries(10, 12))])
    begun.wal.sync()
    begun.wal.close()
    again = _restart(fs)
    assert again.state.snapshot == _meta(9)
    assert [entry.index for entry in again.state.entries] == [10, 11, 12]
    assert again.state.hard_state == HardState(1, 1)


def test_safety_29_what_the_log_has_beyond_an_unmarked_snapshot_stays_only_if_it_continues_it() -> None:
    for term, kept in ((1, [7, 8]), (2, [])):
        fs = _fs()
        _log(fs, last=8)
        _write(fs, _meta(6, term))
        assert [entry.index for entry in _restart(fs).state.entries] == kept
        assert [entry.index for entry in _restart(fs).state.entries] == kept


def test_safety_29_a_snapshot_of_a_term_that_the_log_has_not_seen_brings_the_term_along() -> None:
    """The file is published before the log's record of the new term, which travels with the mark."""
    fs = _fs()
    _log(fs, last=5)
    _write(fs, _meta(9, term=4))
    for _ in range(2):
        begun = _restart(fs)
        assert begun.state.hard_state == HardState(4, None)
        begun.wal.close()


def test_safety_31_an_older_snapshot_will_do_only_if_the_log_reaches_back_to_it() -> None:
    fs = _fs()
    _log(fs, last=30)
    older, newer = _write(fs, _meta(10)), _write(fs, _meta(20))
    begun = _restart(fs)
    assert begun.snapshot_path == newer
    begun.wal.close()
    fs.open(newer).write_at(60, b"\xff\xff\xff")
    begun = _restart(fs)
    assert begun.snapshot_path == older
    assert begun.damaged_snapshots == (newer,)
    assert [entry.index for entry in begun.state.entries] == list(range(11, 31))


def test_safety_31_without_any_whole_snapshot_that_the_log_reaches_the_node_refuses() -> None:
    fs = _fs()
    _log(fs, last=5)
    only = _write(fs, _meta(9))
    begun = _restart(fs)  # marks the log at 9, which restarts it there
    begun.wal.close()
    fs.open(only).write_at(60, b"\xff\xff\xff")
    with pytest.raises(StorageDamaged, match="no whole snapshot"):
        _restart(fs)
