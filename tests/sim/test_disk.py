"""The simulated disk: what is synced stays, what is not may be lost sector by sector, names in order."""

from __future__ import annotations

import random

import pytest

from lattice_core.errors import DirectoryInUse, StorageFailed
from lattice_core.sim.disk import SimFileSystem
from lattice_core.storage.errors import DiskFull

SECTOR = 512


def _fs(seed: int = 1) -> SimFileSystem:
    fs = SimFileSystem(random.Random(seed))
    fs.make_dirs("/data")
    return fs


def test_what_was_synced_is_there_after_every_crash() -> None:
    for seed in range(200):
        fs = _fs(seed)
        file = fs.open("/data/f", create=True)
        file.write_at(0, b"a" * 3 * SECTOR)
        file.datasync()
        fs.sync_dir("/data")
        fs.crash()
        assert fs.open("/data/f").read_at(0, 3 * SECTOR) == b"a" * 3 * SECTOR


def test_every_subset_of_the_unsynced_sectors_can_survive() -> None:
    seen = set()
    for seed in range(200):
        fs = _fs(seed)
        file = fs.open("/data/f", create=True)
        file.allocate(3 * SECTOR)
        file.datasync()
        fs.sync_dir("/data")
        file.write_at(0, b"x" * 3 * SECTOR)
        fs.crash()
        data = fs.open("/data/f").read_at(0, 3 * SECTOR)
        sectors = [data[at : at + SECTOR] for at in range(0, 3 * SECTOR, SECTOR)]
        assert all(sector in (b"x" * SECTOR, bytes(SECTOR)) for sector in sectors)
        seen.add(tuple(sector[:1] for sector in sectors))
    assert len(seen) == 8


def test_an_unsynced_sector_that_was_written_twice_has_one_of_its_versions() -> None:
    seen = set()
    for seed in range(100):
        fs = _fs(seed)
        file = fs.open("/data/f", create=True)
        file.write_at(0, b"0" * SECTOR)
        file.datasync()
        fs.sync_dir("/data")
        file.write_at(0, b"1" * SECTOR)
        file.write_at(0, b"2" * SECTOR)
        fs.crash()
        seen.add(fs.open("/data/f").read_at(0, 1))
    assert seen == {b"0", b"1", b"2"}


def test_names_survive_in_the_order_in_which_they_were_made() -> None:
    seen = set()
    for seed in range(100):
        fs = _fs(seed)
        fs.open("/data/a", create=True)
        fs.open("/data/b", create=True)
        fs.crash()
        seen.add(tuple(fs.list_dir("/data")))
    assert seen == {(), ("a",), ("a", "b")}


def test_a_rename_is_all_or_nothing() -> None:
    seen = set()
    for seed in range(100):
        fs = _fs(seed)
        for name, content in (("new", b"n"), ("old", b"o")):
            file = fs.open(f"/data/{name}", create=True)
            file.write_at(0, content)
            file.datasync()
        fs.sync_dir("/data")
        fs.rename("/data/new", "/data/old")
        fs.crash()
        seen.add((tuple(fs.list_dir("/data")), fs.open("/data/old").read_at(0, 1)))
    assert seen == {(("old",), b"n"), (("new", "old"), b"o")}


def test_a_removed_name_may_come_back_until_the_directory_is_synced() -> None:
    fs = _fs()
    fs.open("/data/f", create=True)
    fs.sync_dir("/data")
    fs.remove("/data/f")
    fs.sync_dir("/data")
    fs.crash()
    assert fs.list_dir("/data") == []


def test_a_killed_process_leaves_what_it_wrote_and_loses_its_locks() -> None:
    fs = _fs()
    file = fs.open("/data/f", create=True)
    file.write_at(0, b"x")
    fs.lock("/data/lock")
    with pytest.raises(DirectoryInUse):
        fs.lock("/data/lock")
    fs.stop()
    assert fs.open("/data/f").read_at(0, 1) == b"x"
    fs.lock("/data/lock")


def test_after_a_failed_fsync_nothing_more_is_written_and_the_pages_are_not_to_be_trusted() -> None:
    lost = 0
    for seed in range(40):
        fs = _fs(seed)
        file = fs.open("/data/f", create=True)
        file.allocate(SECTOR)
        file.datasync()
        fs.sync_dir("/data")
        file.write_at(0, b"x" * SECTOR)
        fs.fail_next_sync = True
        with pytest.raises(StorageFailed):
            file.datasync()
        with pytest.raises(StorageFailed):
            file.write_at(0, b"y")
        fs.stop()
        lost += fs.open("/data/f").read_at(0, 1) == b"\0"
    assert 0 < lost < 40


def test_a_full_disk_refuses_to_grow_and_still_takes_what_was_allocated() -> None:
    fs = _fs()
    file = fs.open("/data/f", create=True)
    file.allocate(SECTOR)
    fs.full = True
    file.write_at(0, b"x" * SECTOR)
    with pytest.raises(DiskFull):
        file.write_at(SECTOR, b"x")
    with pytest.raises(DiskFull):
        fs.open("/data/g", create=True)
