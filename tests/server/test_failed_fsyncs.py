"""SAFETY 18: an fsync that fails ends the node at once, whatever file it was of; nothing is tried again."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from crashfs import CrashFS
from server_harness import cluster, configs, eventually, get, run
from test_install import behind, fill, same_state

from lattice_core.errors import LatticeError, StorageFailed
from lattice_core.server.incarnations import Incarnations
from lattice_core.storage import filesystem
from lattice_core.storage.errors import DiskFull, SyncFailed
from lattice_core.storage.filesystem import RealFile, RealFileSystem


class Disk:
    """Has the ``at``-th fsync beneath a directory fail, and notes what is done there from then on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self._beneath = "\0"
        self._left = -1
        self.failed = ""
        self.after: list[str] = []
        for owner, names in ((RealFile, ("datasync", "write_at")), (RealFileSystem, ("sync_dir", "rename", "remove"))):
            for name in names:
                self._watch(owner, name)

    def arm(self, beneath: str, at: int) -> None:
        self._beneath, self._left, self.failed, self.after = beneath, at, "", []

    def _watch(self, owner: type, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def watched(it: Any, *arguments: Any) -> Any:
            path = it._path if owner is RealFile else arguments[0]
            if path.startswith(self._beneath):
                if self.failed:
                    self.after.append(f"{name} {path}")
                elif name in ("datasync", "sync_dir"):
                    self._left -= 1
                    if self._left < 0:
                        self.failed = f"{name} {path}"
                        raise SyncFailed(f"cannot fsync {path}: Input/output error (EIO)")
            return original(it, *arguments)

        self._patch.setattr(owner, name, watched)


@pytest.mark.parametrize("at", [0, 1], ids=["of the file that came", "of the directory it is published in"])
def test_18_an_fsync_that_fails_while_a_snapshot_is_received_ends_the_node_and_a_restart_receives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    async def scenario() -> None:
        disk = Disk(monkeypatch)
        async with behind(tmp_path) as (running, leader, away):
            disk.arm(str(tmp_path / away / "snapshots"), at)
            await running.start(away)
            back = running.nodes[away].node
            error = await asyncio.wait_for(asyncio.shield(back.failed), 15)
            assert isinstance(error, SyncFailed), error
            assert disk.failed.startswith("datasync" if at == 0 else "sync_dir"), disk.failed
            assert back.loop.stopped
            await running.kill(away)
            assert disk.after == [], "nothing was tried again, nor cleaned up on such a disk"
            assert leader.core.is_leader

            disk.arm("\0", 0)
            await running.start(away)
            await same_state(running)

    run(scenario())


@pytest.mark.parametrize("at", [0, 1], ids=["of the file", "of its directory"])
def test_18_an_fsync_that_fails_while_a_snapshot_is_taken_ends_the_node_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    async def scenario() -> None:
        disk = Disk(monkeypatch)
        [config] = configs(tmp_path, 1)
        async with cluster([config]) as running:
            await fill(config.client_addr, range(20))
            node = running.nodes["n1"].node
            disk.arm(str(tmp_path / "n1" / "snapshots"), at)
            with suppress(LatticeError):
                await node.snapshots.take()
            error = await asyncio.wait_for(asyncio.shield(node.failed), 8)
            assert isinstance(error, SyncFailed), error
            await running.kill("n1")
            assert disk.after == []

            disk.arm("\0", 0)
            await running.start("n1")
            assert await get(config.client_addr, b"key000019") == b"v" * 200

    run(scenario())


def test_18_an_fsync_that_fails_while_a_members_directory_is_noted_ends_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        disk = Disk(monkeypatch)
        [config] = configs(tmp_path, 1)
        async with cluster([config]) as running:
            node = running.nodes["n1"].node
            disk.arm(str(tmp_path / "n1" / "peers"), 0)
            with pytest.raises(SyncFailed):
                await node.peers.bind(4711, 1)
            await eventually(node.failed.done)
            assert isinstance(node.failed.result(), SyncFailed)

    run(scenario())


class _SlowBook(CrashFS):
    """Renames when it is let to, and counts how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.begun = 0
        self.fails: SyncFailed | None = None

    def rename(self, src: str, dst: str) -> None:
        self.begun += 1
        assert self.go_on.wait(10)
        if self.fails is not None:
            raise self.fails
        super().rename(src, dst)


async def _hang_up(task: asyncio.Task[None]) -> None:
    """As gRPC does with a stream's handler when the peer is gone."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_18_an_fsync_that_fails_after_the_peer_hung_up_ends_the_node_and_nothing_is_written_after_it() -> None:
    async def scenario() -> None:
        fs = _SlowBook()
        fs.make_dirs("/data")
        told: list[SyncFailed] = []
        book = Incarnations(fs, "/data", 1, {})
        book.on_sync_failed = told.append
        fs.fails = SyncFailed("cannot fsync: Input/output error (EIO)")
        cancelled = asyncio.create_task(book.bind({2: 20}))
        await eventually(lambda: fs.begun)
        waiting = asyncio.create_task(book.bind({3: 30}))
        await _hang_up(cancelled)
        fs.go_on.set()
        await eventually(lambda: told)
        with pytest.raises(SyncFailed):
            await waiting
        assert told == [fs.fails]
        assert fs.begun == 1, "nothing is tried again"
        assert dict(book.known()) == {}

    run(scenario())


def test_20_a_members_directory_is_noted_to_the_end_although_the_peer_hung_up_and_closing_waits_for_it() -> None:
    async def scenario() -> None:
        fs = _SlowBook()
        fs.make_dirs("/data")
        book = Incarnations(fs, "/data", 1, {})
        cancelled = asyncio.create_task(book.bind({2: 20}))
        await eventually(lambda: fs.begun)
        await _hang_up(cancelled)
        other = asyncio.create_task(book.bind({3: 30}))
        closing = asyncio.create_task(book.close())
        await asyncio.sleep(0.1)
        assert fs.begun == 1, "no two write the file at once"
        assert not closing.done()
        fs.go_on.set()
        await closing
        await other
        assert dict(book.known()) == {2: 20, 3: 30}
        found = Incarnations.load(fs, "/data")
        assert found is not None
        assert dict(found.known()) == {2: 20, 3: 30}

    run(scenario())


def test_20_a_node_ends_when_the_directory_is_noted_that_it_was_noting(tmp_path: Path) -> None:
    async def scenario() -> None:
        [config] = configs(tmp_path, 1)
        async with cluster([config]) as running:
            node = running.nodes["n1"].node
            book = node._opened.incarnations
            write, begun, go_on = book._write, threading.Event(), threading.Event()

            def slowly(known: Mapping[int, int]) -> None:
                begun.set()
                assert go_on.wait(10)
                write(known)

            book._write = slowly  # type: ignore[method-assign]
            binding = asyncio.create_task(node.peers.bind(4711, 1))
            await eventually(begun.is_set)
            await _hang_up(binding)
            killing = asyncio.create_task(running.kill("n1"))
            done, _ = await asyncio.wait((killing,), timeout=0.5)
            go_on.set()
            assert not done
            await killing
            found = Incarnations.load(RealFileSystem(), str(tmp_path / "n1"))
            assert found is not None
            assert found.known()[4711] == 1

    run(scenario())


def test_19_a_disk_that_is_full_when_a_snapshot_is_synced_costs_the_snapshot_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that finds room only when it writes back says ENOSPC there: that file goes, all else stays."""

    async def scenario() -> None:
        [config] = configs(tmp_path, 1)
        original = RealFile.datasync

        def full(file: RealFile) -> None:
            if file._path.endswith(".snap.part"):
                raise DiskFull(f"cannot fsync {file._path}: No space left on device (ENOSPC)")
            original(file)

        monkeypatch.setattr(RealFile, "datasync", full)
        async with cluster([config]) as running:
            await fill(config.client_addr, range(5))
            node = running.nodes["n1"].node
            with pytest.raises(LatticeError, match="ENOSPC"):
                await node.snapshots.take()
            await fill(config.client_addr, range(5))
            assert not node.failed.done()
            directory = tmp_path / "n1" / "snapshots"
            await eventually(lambda: not [path for path in directory.iterdir() if path.suffix == ".part"])

    run(scenario())


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EIO, SyncFailed), (errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull)]
)
def test_a_failed_fsync_is_told_from_a_full_disk_and_from_other_refusals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StorageFailed]
) -> None:
    fs = RealFileSystem()
    file = fs.open(str(tmp_path / "file"), create=True)

    def refuse(_: int) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(filesystem, "_datasync", refuse)
    monkeypatch.setattr(filesystem.os, "fsync", refuse)
    for sync in (file.datasync, lambda: fs.sync_dir(str(tmp_path))):
        with pytest.raises(StorageFailed, match="cannot fsync") as caught:
            sync()
        assert type(caught.value) is kind
    with pytest.raises(StorageFailed) as caught:
        fs.open(str(tmp_path), create=True)
    assert type(caught.value) is StorageFailed
    file.close()
