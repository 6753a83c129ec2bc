"""A process that has run out of descriptors still has those that its storage needs (SAFETY 49)."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from logs import append, term

from lattice_core.errors import StorageFailed
from lattice_core.raft.types import Configuration, SnapshotMeta
from lattice_core.storage.descriptors import Reserve
from lattice_core.storage.filesystem import RealFileSystem
from lattice_core.storage.snapshots import SnapshotHeader, SnapshotReader, SnapshotWriter
from lattice_core.storage.wal import Wal


@contextlib.contextmanager
def none_left() -> Iterator[None]:
    """No descriptor can be had: the lowest free number is not below the limit."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir("/proc/self/fd")}
    probe = os.open(os.devnull, os.O_RDONLY)
    os.close(probe)
    lowest = next(number for number in itertools.count() if number not in used or number == probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            os.open(os.devnull, os.O_RDONLY)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")


def test_49_a_log_begins_new_segments_when_the_process_has_no_descriptor_left(tmp_path: Path) -> None:
    fs = RealFileSystem(Reserve())
    wal = Wal.create(fs, str(tmp_path / "wal"), 1, 2, segment_bytes=4096)
    with none_left():
        wal.write([term(1)])
        for index in range(1, 60):
            wal.write([append(index, index, size=300)])
            wal.sync()
    assert wal.segment_count > 5
    wal.close()
    again, recovery = Wal.open(fs, str(tmp_path / "wal"), 1, 2, segment_bytes=4096)
    again.close()
    assert recovery.state.entries[-1].index == 59


def test_49_a_snapshot_is_written_and_read_when_the_process_has_no_descriptor_left(tmp_path: Path) -> None:
    fs = RealFileSystem(Reserve())
    with none_left():
        for index in range(1, 6):
            meta = SnapshotMeta(index, 1, Configuration(members=(), voters=frozenset()))
            writer = SnapshotWriter(fs, str(tmp_path / "snapshots"), SnapshotHeader(7, meta))
            writer.write(b"\x01")
            path = writer.publish()
            with SnapshotReader(fs, path) as reader:
                assert reader.verify().meta == meta


def test_the_reserve_is_whole_again_after_it_was_used(tmp_path: Path) -> None:
    reserve = Reserve()
    fs = RealFileSystem(reserve)
    assert reserve.spare == reserve.size
    with none_left():
        for _ in range(3 * reserve.size):
            fs.open(str(tmp_path / "f"), create=True).close()
            fs.list_dir(str(tmp_path))
            fs.sync_dir(str(tmp_path))
        held = [fs.open(str(tmp_path / "f")) for _ in range(reserve.size)]
        assert reserve.spare == 0
        with pytest.raises(StorageFailed, match="EMFILE"):
            fs.open(str(tmp_path / "f"))
        for file in held:
            file.close()
        assert reserve.spare == reserve.size


def test_without_need_the_reserve_stays_and_descriptors_are_given_back(tmp_path: Path) -> None:
    reserve = Reserve()
    fs = RealFileSystem(reserve)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        fs.open(str(tmp_path / "f"), create=True).close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert reserve.spare == reserve.size


def test_a_file_that_cannot_become_part_of_the_reserve_is_closed(tmp_path: Path) -> None:
    """Its number is not below a limit that was lowered meanwhile: no copy can be put there, and it stayed open."""
    fs = RealFileSystem(Reserve())
    lower = os.open(os.devnull, os.O_RDONLY)
    file = fs.open(str(tmp_path / "higher"), create=True)
    os.close(lower)
    with none_left():
        other = fs.open(str(tmp_path / "other"), create=True)  # the reserve is short now
        file.close()
    ours, leaked = (os.stat(each).st_ino for each in (tmp_path / "other", tmp_path / "higher"))
    open_files = [os.stat(f"/proc/self/fd/{each}").st_ino for each in _numbers()]
    assert ours in open_files
    assert leaked not in open_files
    other.close()


def _numbers() -> list[int]:
    """Of the descriptors that are open."""
    with os.scandir("/proc/self/fd") as found:
        listing = [int(entry.name) for entry in found]
    return [each for each in listing if os.path.exists(f"/proc/self/fd/{each}")]
