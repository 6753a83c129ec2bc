"""A node's snapshot files: where they are, which of them are in use, and the thread that touches them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lattice_core.raft.types import SnapshotMeta
from lattice_core.server.worker import Worker
from lattice_core.storage.errors import DiskFull, SyncFailed
from lattice_core.storage.filesystem import File, FileSystem, join
from lattice_core.storage.snapshots import SnapshotReader, list_snapshots, retain, snapshot_name


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A published snapshot."""

    meta: SnapshotMeta
    path: str
    size_bytes: int

    @property
    def index(self) -> int:
        return self.meta.last_included_index


class SnapshotFiles:
    """One directory of snapshots. Lives on the loop; only ``worker`` touches the disk."""

    def __init__(
        self, fs: FileSystem, directory: str, cluster_id: int, on_sync_failed: Callable[[SyncFailed], None]
    ) -> None:
        self.fs = fs
        self.directory = directory
        self.cluster_id = cluster_id
        self.worker = Worker("lattice-snapshots", on_sync_failed)
        self._in_use: Counter[str] = Counter()

    def path_of(self, meta: SnapshotMeta) -> str:
        return join(self.directory, snapshot_name(meta))

    @contextlib.contextmanager
    def hold(self, path: str) -> Iterator[None]:
        """Within, the file is not removed, however many newer ones there are (SAFETY 30)."""
        self._in_use[path] += 1
        try:
            yield
        finally:
            self._in_use[path] -= 1
            if not self._in_use[path]:
                del self._in_use[path]

    async def retain(self) -> list[int]:
        """Remove what is neither among the two newest nor in use; the indices of what there is, newest first."""
        in_use = frozenset(self._in_use)

        def job() -> list[int]:
            retain(self.fs, self.directory, in_use=in_use)
            return [index_in(path) for path in list_snapshots(self.fs, self.directory)]

        return await self.worker.run(job)

    async def keep_only(self, snapshot: Snapshot) -> bool:
        """Remove the older ones that are not in use, if there are any and this one is whole; False: none went.

        A newer one stays: it may have come from the leader just now, and be what the log begins after already.
        Raises StorageDamaged, and nothing is removed.
        """
        in_use = frozenset(self._in_use)

        def job() -> bool:
            there = list_snapshots(self.fs, self.directory)
            older = [path for path in there if index_in(path) < snapshot.index and path not in in_use]
            if not older:
                return False
            with SnapshotReader(self.fs, snapshot.path) as reader:
                reader.verify()
            return retain(self.fs, self.directory, in_use=frozenset(there).difference(older), keep=0) > 0

        return await self.worker.run(job)

    async def verify(self, snapshot: Snapshot) -> None:
        """Read all of it. Raises StorageDamaged, StorageFailed."""

        def job() -> None:
            with SnapshotReader(self.fs, snapshot.path) as reader:
                reader.verify()

        await self.worker.run(job)

    def require_room(self, size_bytes: int) -> None:
        """On the worker thread: raise DiskFull, before anything is written, if there is no room for so much."""
        self.fs.make_dirs(self.directory)
        free = self.fs.free_bytes(self.directory)
        if free < size_bytes:
            raise DiskFull(f"{self.directory} has room for {free} bytes, and {size_bytes} are needed")

    def used_bytes(self) -> int:
        """On the worker thread: what all files of the directory take up, those that are being written included."""
        total = 0
        if self.fs.exists(self.directory):
            for name in self.fs.list_dir(self.directory):
                with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                    file = self.fs.open_read_only(join(self.directory, name))
                    try:
                        total += file.size()
                    finally:
                        file.close()
        return total

    async def open(self, path: str) -> tuple[File, int]:
        """The file, to be closed by the caller, and its size."""

        def job() -> tuple[File, int]:
            file = self.fs.open_read_only(path)
            return file, file.size()

        return await self.worker.run(job)

    async def read(self, file: File, offset: int, size: int) -> bytes:
        return await self.worker.run(lambda: file.read_at(offset, size))


def index_in(path: str) -> int:
    """The index that a snapshot's file name says."""
    return int(path.rsplit("/", 1)[-1].split("-")[0])


def set_aside(fs: FileSystem, paths: Sequence[str]) -> list[str]:
    """Give damaged files another name, so that they are neither offered, nor counted among those to keep."""
    renamed = []
    for path in paths:
        fs.rename(path, path + ".damaged")
        renamed.append(path + ".damaged")
    if renamed:
        fs.sync_dir(renamed[0].rsplit("/", 1)[0])
    return renamed
