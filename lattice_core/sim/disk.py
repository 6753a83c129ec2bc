"""A filesystem that forgets what was not synced: the storage seam for simulations.

It keeps, for every file, the bytes as a running process sees them and what would bring back the bytes as the
device has them. A power loss (:meth:`SimFileSystem.crash`) keeps, of every 512-byte sector written since
the last ``datasync``, a random one of its versions; of the changes to names since the last ``sync_dir``
a random first part, as a journalling filesystem does. Everything else is lost.

Errors can be armed: the next ``datasync`` fails (EIO), allocating fails (ENOSPC), bits flip in what is at
rest. As on a real kernel after a failed fsync, pages may be gone: a failed ``datasync`` counts as a crash
of exactly that file's unsynced data when the process ends.

Nothing here reads a clock or draws chance of its own: a ``random.Random`` is passed in.
"""

from __future__ import annotations

import random

from lattice_core.errors import DirectoryInUse, StorageFailed
from lattice_core.storage.errors import DiskFull, SyncFailed
from lattice_core.storage.filesystem import SECTOR_BYTES, parent


class _Inode:
    """One file's contents. ``undo`` is what was there before each write since the last sync, oldest first."""

    __slots__ = ("data", "durable_size", "undo")

    def __init__(self) -> None:
        self.data = bytearray()
        self.undo: list[tuple[int, bytes, bytes]] = []  # (offset, before, after)
        self.durable_size = 0

    def write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        if end > len(self.data):
            self.data.extend(bytes(end - len(self.data)))
        self.undo.append((offset, bytes(self.data[offset:end]), data))
        self.data[offset:end] = data

    def resize(self, size: int) -> None:
        if size < len(self.data):
            # Undone by writing the tail back; the size itself is durable with the next sync.
            self.undo.append((size, bytes(self.data[size:]), b""))
            del self.data[size:]
        else:
            self.data.extend(bytes(size - len(self.data)))

    def synced(self) -> None:
        self.undo.clear()
        self.durable_size = len(self.data)

    def crash(self, chance: random.Random) -> int:
        """Keep a random version of every sector written since the last sync; returns how many were lost."""
        if not self.undo and len(self.data) == self.durable_size:
            return 0
        undo, self.undo = self.undo, []
        after = bytes(self.data)
        for offset, before, _ in reversed(undo):
            end = offset + len(before)
            if end > len(self.data):
                self.data.extend(bytes(end - len(self.data)))
            self.data[offset:end] = before
        touched: dict[int, list[tuple[int, bytes]]] = {}
        for offset, _, data in undo:
            for sector in range(offset // SECTOR_BYTES, (offset + max(1, len(data)) - 1) // SECTOR_BYTES + 1):
                touched.setdefault(sector, []).append((offset, data))
        lost = 0
        for sector in sorted(touched):
            writes = touched[sector]
            kept = chance.randint(0, len(writes))
            lost += kept < len(writes)
            first, last = sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES
            for offset, data in writes[:kept]:
                start, stop = max(first, offset), min(last, offset + len(data))
                if start < stop:
                    self.data[start:stop] = data[start - offset : stop - offset]
        # The size is metadata: it may have been written with the journal or not.
        size = len(after) if chance.random() < 0.5 else self.durable_size
        if size < len(self.data):
            del self.data[size:]
        else:
            self.data.extend(bytes(size - len(self.data)))
        self.durable_size = len(self.data)
        return lost


class SimFile:
    """See :class:`lattice_core.storage.filesystem.File`."""

    def __init__(self, fs: SimFileSystem, path: str, inode: _Inode) -> None:
        self._fs = fs
        self._path = path
        self._inode = inode

    def write_at(self, offset: int, data: bytes) -> None:
        self._fs.check_alive(self._path)
        if self._fs.full and offset + len(data) > len(self._inode.data):
            raise DiskFull(f"cannot write {self._path}: No space left on device (ENOSPC)")
        self._inode.write(offset, bytes(data))

    def read_at(self, offset: int, size: int) -> bytes:
        return bytes(self._inode.data[offset : offset + size])

    def datasync(self) -> None:
        self._fs.check_alive(self._path)
        if self._fs.fail_next_sync:
            self._fs.fail_next_sync = False
            self._fs.dead = True
            raise SyncFailed(f"cannot sync {self._path}: Input/output error (EIO)")
        self._inode.synced()

    def truncate(self, size: int) -> None:
        self._fs.check_alive(self._path)
        self._inode.resize(size)

    def allocate(self, size: int) -> None:
        self._fs.check_alive(self._path)
        if size > len(self._inode.data):
            if self._fs.full:
                raise DiskFull(f"cannot allocate {self._path}: No space left on device (ENOSPC)")
            self._inode.resize(size)

    def drop_cache(self) -> None:
        """Nothing is cached: after a crash only the device's bytes are left."""

    def size(self) -> int:
        return len(self._inode.data)

    def close(self) -> None:
        """Descriptors cost nothing here."""


class _SimLock:
    def __init__(self, held: set[str], path: str) -> None:
        self._held = held
        self._path = path
        held.add(path)

    def release(self) -> None:
        self._held.discard(self._path)


class SimFileSystem:
    """One machine's disk. See :class:`lattice_core.storage.filesystem.FileSystem`."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._files: dict[str, _Inode] = {}
        self._directories: set[str] = {"/"}
        # Changes to names not yet synced, in order: (path, inode before, inode after).
        self._pending: list[tuple[str, _Inode | None, _Inode | None]] = []
        self._locks: set[str] = set()
        self.fail_next_sync = False
        self.full = False
        self.dead = False
        """An fsync has failed: the process has to end; what it writes from now on is refused."""

    def check_alive(self, path: str) -> None:
        if self.dead:
            raise StorageFailed(f"cannot write {path}: Input/output error (EIO)")

    # ---- the seam -----------------------------------------------------------------------------------

    def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> SimFile:
        inode = self._files.get(path)
        if inode is not None and create and exclusive:
            raise FileExistsError(path)
        if inode is None:
            if not create:
                raise FileNotFoundError(path)
            self.check_alive(path)
            if self.full:
                raise DiskFull(f"cannot create {path}: No space left on device (ENOSPC)")
            inode = _Inode()
            self._set_name(path, inode)
        return SimFile(self, path, inode)

    def open_read_only(self, path: str) -> SimFile:
        return self.open(path)

    def exists(self, path: str) -> bool:
        return path in self._files or path.rstrip("/") in self._directories

    def list_dir(self, path: str) -> list[str]:
        directory = path.rstrip("/")
        if directory not in self._directories:
            raise FileNotFoundError(path)
        prefix = directory + "/"
        names = {found[len(prefix) :].split("/")[0] for found in self._files if found.startswith(prefix)}
        names |= {found[len(prefix) :].split("/")[0] for found in self._directories if found.startswith(prefix)}
        return sorted(names)

    def make_dirs(self, path: str) -> None:
        # Durable on return, by the seam's contract.
        parts = path.strip("/").split("/")
        for count in range(1, len(parts) + 1):
            self._directories.add("/" + "/".join(parts[:count]))

    def rename(self, src: str, dst: str) -> None:
        self.check_alive(src)
        inode = self._files.get(src)
        if inode is None:
            raise FileNotFoundError(src)
        # One journal entry: both names change or neither does.
        self._pending.append((dst, self._files.get(dst), inode))
        self._files[dst] = inode
        del self._files[src]
        self._pending[-1] = (f"{src}\0{dst}", self._pending[-1][1], inode)

    def remove(self, path: str) -> None:
        self.check_alive(path)
        if path not in self._files:
            raise FileNotFoundError(path)
        self._set_name(path, None)

    def sync_dir(self, path: str) -> None:
        self.check_alive(path)
        directory = path.rstrip("/") or "/"
        self._pending = [
            change for change in self._pending if (parent(change[0].split("\0")[-1]).rstrip("/") or "/") != directory
        ]

    def lock(self, path: str) -> _SimLock:
        if path in self._locks:
            raise DirectoryInUse(f"{path} is held by another process")
        return _SimLock(self._locks, path)

    def free_bytes(self, path: str) -> int:
        return 0 if self.full else 1 << 40

    def _set_name(self, path: str, inode: _Inode | None) -> None:
        self._pending.append((path, self._files.get(path), inode))
        if inode is None:
            self._files.pop(path, None)
        else:
            self._files[path] = inode

    # ---- what the world does to it ------------------------------------------------------------------

    def crash(self) -> int:
        """The machine loses power. Returns how many sectors and names were lost."""
        kept = self._chance.randint(0, len(self._pending))
        lost = len(self._pending) - kept
        for path, before, after in reversed(self._pending[kept:]):
            src, _, dst = path.rpartition("\0")
            if src:
                assert after is not None
                self._files[src] = after
            if before is None:
                self._files.pop(dst, None)
            else:
                self._files[dst] = before
        self._pending.clear()
        for path in sorted(self._files):
            lost += self._files[path].crash(self._chance)
        self._locks.clear()
        self.dead = self.fail_next_sync = False
        return lost

    def stop(self) -> None:
        """The process ends and the machine stays up: the kernel still has what was written, unless a sync
        failed, after which nobody knows what it has."""
        if self.dead:
            self.crash()
        self._locks.clear()
        self.dead = self.fail_next_sync = False

    def flip_bit(self, directory: str) -> str | None:
        """Flip one bit of something that was written, at rest; returns where, or None if there is nothing."""
        prefix = directory.rstrip("/") + "/"
        paths = [path for path in sorted(self._files) if path.startswith(prefix)]
        candidates = [(path, len(bytes(self._files[path].data).rstrip(b"\0"))) for path in paths]
        candidates = [(path, size) for path, size in candidates if size]
        if not candidates:
            return None
        path, size = self._chance.choice(candidates)
        offset, bit = self._chance.randrange(size), self._chance.randrange(8)
        self._files[path].data[offset] ^= 1 << bit
        return f"{path}:{offset} bit {bit}"
