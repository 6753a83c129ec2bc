"""Taking snapshots of members, and saving one as a file that is whole or not there."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest
from fake import FakeCluster

from lattice_core.client import AsyncClient
from lattice_core.errors import InvalidRequest, StorageDamaged, StorageFailed, Unavailable
from lattice_core.raft.types import Configuration, Member, SnapshotMeta
from lattice_core.storage.filesystem import RealFileSystem
from lattice_core.storage.snapshots import SnapshotHeader, SnapshotWriter


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    meta = SnapshotMeta(9, 7, Configuration.of_voters([Member(1, "n1", "h:1")]))
    writer = SnapshotWriter(RealFileSystem(), str(tmp_path / "made"), SnapshotHeader(0xABC, meta))
    for _ in range(20):
        writer.write(b"x" * 90)
    return Path(writer.publish()).read_bytes()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def test_every_reachable_member_takes_one_and_the_others_are_named() -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1", "n2", "n3")) as client:
        await cluster.members["n2"].stop()
        first, second, third = await client.take_snapshot()
        assert [each.member for each in (first, second, third)] == ["n1", "n2", "n3"]
        assert (first.error, third.error, second.reachable) == (None, None, False)
        assert isinstance(second.error, Unavailable)
        (only,) = await client.take_snapshot("n3")
        assert (only.member, only.index) == ("n3", 9)
        with pytest.raises(InvalidRequest, match="no member is called 'n9'"):
            await client.take_snapshot("n9")


async def test_a_stream_that_is_cut_begins_again_at_another_member(tmp_path: Path, content: bytes) -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1", "n2")) as client:
        cut, whole = cluster.members["n1"], cluster.members["n2"]
        cut.snapshot, cut.snapshot_bytes = content[:700], len(content)
        whole.snapshot = content
        seen: list[tuple[int, int]] = []
        path = tmp_path / "saved.snap"
        saved = await client.save_snapshot(path, progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == content
    assert (saved.member, saved.index, saved.term, saved.size_bytes) == ("n2", 9, 7, len(content))
    assert seen[-1] == (len(content), len(content))


async def test_what_arrives_damaged_or_finds_its_name_taken_changes_nothing(tmp_path: Path, content: bytes) -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        cluster.members["n1"].snapshot = content[:500] + b"?" + content[501:]
        path = tmp_path / "saved.snap"
        with pytest.raises(StorageDamaged):
            await client.save_snapshot(path)
        assert names(tmp_path) == ["made"]
        path.write_bytes(b"mine")
        with pytest.raises(InvalidRequest, match="exists already"):
            await client.save_snapshot(path)
        assert path.read_bytes() == b"mine"


async def test_a_disk_that_fills_up_while_saving_costs_one_line_and_leaves_no_file(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        cluster.members["n1"].snapshot = content
        path = tmp_path / "saved.snap"
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StorageFailed, match=r"cannot be written: No space left on device$") as caught:
            await client.save_snapshot(path)
        assert caught.value.hint == "make room, or save it elsewhere"
        assert names(tmp_path) == ["made"]
        monkeypatch.undo()
        await client.save_snapshot(path)
        assert path.read_bytes() == content


async def test_what_a_killed_save_has_left_is_written_over_and_told(tmp_path: Path, content: bytes) -> None:
    part = tmp_path / "saved.snap.part"
    part.write_bytes(content * 3)
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        cluster.members["n1"].snapshot = content
        saved = await client.save_snapshot(tmp_path / "saved.snap")
        assert saved.replaced == str(part)
        assert (tmp_path / "saved.snap").read_bytes() == content
        assert names(tmp_path) == ["made", "saved.snap"]
        assert (await client.save_snapshot(tmp_path / "other.snap")).replaced is None


async def test_a_file_in_the_way_that_no_save_has_left_is_not_touched(tmp_path: Path, content: bytes) -> None:
    part = tmp_path / "saved.snap.part"
    part.write_bytes(b"somebody's own")
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        cluster.members["n1"].snapshot = content
        with pytest.raises(InvalidRequest, match="in the way"):
            await client.save_snapshot(tmp_path / "saved.snap")
    assert part.read_bytes() == b"somebody's own"
    assert names(tmp_path) == ["made", "saved.snap.part"]


async def test_two_saves_to_one_file_at_a_time_do_not_mix(tmp_path: Path, content: bytes) -> None:
    part = tmp_path / "saved.snap.part"
    with part.open("wb") as other:
        other.write(content[:100])
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
            cluster.members["n1"].snapshot = content
            with pytest.raises(InvalidRequest, match="another save"):
                await client.save_snapshot(tmp_path / "saved.snap")
        assert part.read_bytes() == content[:100]
