"""What a power loss takes: everything that is not synced may go, and nothing that is."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from lattice_cli.chaos.power import Journal, JournalledFileSystem, lose_unsynced, read
from lattice_core.storage.descriptors import NoReserve
from lattice_core.storage.filesystem import SECTOR_BYTES

OLD, NEW = b"o" * 3 * SECTOR_BYTES, b"n" * 3 * SECTOR_BYTES


class Draw(random.Random):
    """All that can be lost is."""

    def choice(self, _seq: object) -> float:  # type: ignore[override]
        return 1.0


@pytest.fixture
def disk(tmp_path: Path) -> tuple[Callable[[], JournalledFileSystem], Path, str]:
    """Makes a process' filesystem; its journal; a file in which OLD is durable."""
    journal = tmp_path / "unsynced"

    def process() -> JournalledFileSystem:
        return JournalledFileSystem(NoReserve(), Journal(journal))

    path = str(tmp_path / "file")
    file = process().open(path, create=True)
    file.write_at(0, OLD)
    file.datasync()
    return process, journal, path


def content(path: str) -> bytes:
    return Path(path).read_bytes()


def test_what_was_not_synced_is_gone_and_what_was_is_there(
    disk: tuple[Callable[[], JournalledFileSystem], Path, str],
) -> None:
    process, journal, path = disk
    assert not read(journal)
    file = process().open(path)
    file.write_at(SECTOR_BYTES, NEW[:SECTOR_BYTES])
    file.datasync()
    file.write_at(0, NEW[:SECTOR_BYTES])
    assert lose_unsynced(journal, Draw()) == 1
    assert content(path) == OLD[:SECTOR_BYTES] + NEW[:SECTOR_BYTES] + OLD[2 * SECTOR_BYTES :]
    assert lose_unsynced(journal, Draw()) == 0


def test_sectors_are_lost_one_by_one_and_never_torn(disk: tuple[Callable[[], JournalledFileSystem], Path, str]) -> None:
    process, journal, path = disk
    outcomes = set()
    for seed in range(60):
        file = process().open(path)
        file.write_at(0, OLD)
        file.datasync()
        file.write_at(100, b"x" * len(OLD))  # over four sectors
        file.write_at(100, NEW)
        lose_unsynced(journal, random.Random(seed))
        found = content(path)
        sectors = [found[at : at + SECTOR_BYTES] for at in range(0, 3 * SECTOR_BYTES, SECTOR_BYTES)]
        for each in sectors[1:]:
            assert each in (OLD[:SECTOR_BYTES], NEW[:SECTOR_BYTES])
        outcomes.add(tuple(each[-1:] for each in sectors))
    assert len(outcomes) == 8, "every subset"


def test_what_a_killed_process_left_unsynced_can_be_lost_until_the_next_has_synced_it(
    disk: tuple[Callable[[], JournalledFileSystem], Path, str],
) -> None:
    process, journal, path = disk
    process().open(path).write_at(0, NEW)
    process().open(path)
    assert read(journal)
    process().open(path).datasync()
    assert not read(journal)
    assert lose_unsynced(journal, Draw()) == 0
    assert content(path) == NEW


def test_names_move_with_what_is_pending_under_them(
    tmp_path: Path, disk: tuple[Callable[[], JournalledFileSystem], Path, str]
) -> None:
    process, journal, path = disk
    fs = process()
    (tmp_path / "a").mkdir()
    moved = str(tmp_path / "a" / "file")
    fs.open(path).write_at(0, NEW)
    fs.rename(path, moved)
    fs.rename(str(tmp_path / "a"), str(tmp_path / "b"))
    assert list(read(journal)) == [str(tmp_path / "b" / "file")]
    lose_unsynced(journal, Draw())
    assert content(str(tmp_path / "b" / "file")) == OLD
    fs = process()
    fs.open(str(tmp_path / "b" / "file")).truncate(10)
    assert read(journal)
    fs.remove(str(tmp_path / "b" / "file"))
    assert not read(journal)
