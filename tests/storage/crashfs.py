"""A filesystem in memory that knows what is durable, and forgets the rest on a crash.

Follows the contract in lattice_core/storage/filesystem.py to the letter, and no further: of each unsynced
write any subset of 512-byte sectors survives, each of the unsynced changes of names may vanish, and the
size set by truncate or allocate may too.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from lattice_core.errors import DirectoryInUse, StorageFailed
from lattice_core.storage.errors import DiskFull
from lattice_core.storage.filesystem import SECTOR_BYTES, parent


@dataclass
class Inode:
    content: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    pending: list[tuple[str, int, bytes]] = field(default_factory=list)

    def resize(self, content: bytearray, size: int) -> None:
        del content[size:]
        content.extend(bytes(size - len(content)))

    def write(self, content: bytearray, offset: int, data: bytes) -> None:
        if len(content) < offset + len(data):
            self.resize(content, offset + len(data))
        content[offset : offset + len(data)] = data

    def sync(self) -> None:
        self.durable = bytes(self.content)
        self.pending.clear()

    def after_crash(self, rng: random.Random) -> Inode:
        content = bytearray(self.durable)
        keep = rng.choice((0.0, 0.2, 0.5, 0.8, 1.0))
        for kind, offset, data in self.pending:
            if kind == "size":
                if rng.random() < keep:
                    self.resize(content, offset)
                continue
            at = 0
            while at < len(data):
                stop = min(len(data), at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES)
                if rng.random() < keep:
                    self.write(content, offset + at, data[at:stop])
                at = stop
        return Inode(content, bytes(content))


class CrashFile:
    def __init__(self, fs: CrashFS, path: str, inode: Inode) -> None:
        self._fs, self._path, self._inode = fs, path, inode

    def write_at(self, offset: int, data: bytes) -> None:
        self._fs.called("write", self._path)
        self._inode.write(self._inode.content, offset, data)
        self._inode.pending.append(("write", offset, bytes(data)))

    def read_at(self, offset: int, size: int) -> bytes:
        return bytes(self._inode.content[offset : offset + size])

    def datasync(self) -> None:
        self._fs.called("datasync", self._path)
        self._inode.sync()

    def truncate(self, size: int) -> None:
        self._fs.called("truncate", self._path)
        self._inode.resize(self._inode.content, size)
        self._inode.pending.append(("size", size, b""))

    def allocate(self, size: int) -> None:
        self._fs.called("allocate", self._path)
        have = len(self._inode.content)
        if size > have:
            if size - have > self._fs.room:
                raise DiskFull(f"cannot allocate room for {self._path}: no space (ENOSPC)")
            self._fs.room -= size - have
            self._inode.resize(self._inode.content, size)
            self._inode.pending.append(("size", size, b""))

    def drop_cache(self) -> None:
        pass

    def size(self) -> int:
        return len(self._inode.content)

    def close(self) -> None:
        pass


class CrashLock:
    def __init__(self, fs: CrashFS, path: str) -> None:
        self._fs, self._path = fs, path

    def release(self) -> None:
        self._fs.locks.discard(self._path)


class CrashFS:
    """``calls`` lists every (operation, path); ``fail`` maps an operation to the error it raises."""

    def __init__(self) -> None:
        self.names: dict[str, Inode] = {}
        self.durable_names: dict[str, Inode] = {}
        self.pending_names: list[tuple[str, dict[str, Inode | None], dict[str, bool]]] = []
        self.dirs: set[str] = {"/"}
        self.durable_dirs: set[str] = {"/"}
        self.locks: set[str] = set()
        self.room = 1 << 40
        self.calls: list[tuple[str, str]] = []
        self.fail: dict[str, Exception] = {}
        self.die_after: int | None = None

    def called(self, operation: str, path: str) -> None:
        if self.die_after is not None:
            if self.die_after == 0:
                raise Died
            self.die_after -= 1
        self.calls.append((operation, path))
        if operation in self.fail:
            raise self.fail[operation]

    # ---- the contract -------------------------------------------------------------------------------

    def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> CrashFile:
        if path in self.names:
            if create and exclusive:
                raise FileExistsError(path)
            return CrashFile(self, path, self.names[path])
        if not create:
            raise FileNotFoundError(path)
        self.called("create", path)
        self._change(parent(path), {path: Inode()})
        return CrashFile(self, path, self.names[path])

    def open_read_only(self, path: str) -> CrashFile:
        return self.open(path)

    def exists(self, path: str) -> bool:
        return path in self.names or path in self.dirs

    def list_dir(self, path: str) -> list[str]:
        if path not in self.dirs:
            raise FileNotFoundError(path)
        return sorted(
            name.rsplit("/", 1)[1] for name in (*self.names, *self.dirs) if name != "/" and parent(name) == path
        )

    def make_dirs(self, path: str) -> None:
        while path not in self.dirs:
            self.called("mkdir", path)
            self.dirs.add(path)
            self.durable_dirs.add(path)
            path = parent(path)

    def rename(self, src: str, dst: str) -> None:
        self.called("rename", dst)
        if src in self.dirs:
            assert not self.exists(dst), "only an empty directory may be replaced, and nobody should try"
            names: dict[str, Inode | None] = {}
            for path, inode in self.names.items():
                if path.startswith(src + "/"):
                    names |= {path: None, dst + path[len(src) :]: inode}
            dirs: dict[str, bool] = {}
            for path in self.dirs:
                if path == src or path.startswith(src + "/"):
                    dirs |= {path: False, dst + path[len(src) :]: True}
            self._change(parent(dst), names, dirs)
        else:
            assert dst not in self.dirs
            self._change(parent(dst), {src: None, dst: self.names[src]})

    def remove_dir(self, path: str) -> None:
        self.called("rmdir", path)
        if path not in self.dirs:
            raise FileNotFoundError(path)
        if self.list_dir(path):
            raise StorageFailed(f"cannot remove directory {path}: directory not empty (ENOTEMPTY)")
        self._change(parent(path), {}, {path: False})

    def remove(self, path: str) -> None:
        self.called("remove", path)
        if path not in self.names:
            raise FileNotFoundError(path)
        self._change(parent(path), {path: None})

    def sync_dir(self, path: str) -> None:
        self.called("sync_dir", path)
        kept = []
        for directory, change, dirs in self.pending_names:
            if directory == path:
                apply(self.durable_names, change)
                apply_dirs(self.durable_dirs, dirs)
            else:
                kept.append((directory, change, dirs))
        self.pending_names = kept

    def lock(self, path: str) -> CrashLock:
        if path in self.locks:
            raise DirectoryInUse(f"{parent(path)} is in use")
        self.locks.add(path)
        if path not in self.names:
            self._change(parent(path), {path: Inode()})
        return CrashLock(self, path)

    def lock_shared(self, path: str) -> CrashLock:
        if path in self.locks:
            raise DirectoryInUse(f"{parent(path)} is in use")
        return CrashLock(self, "nobody's")

    def free_bytes(self, path: str) -> int:
        return self.room

    # ---- what tests do to it ------------------------------------------------------------------------

    def crash(self, rng: random.Random) -> CrashFS:
        """The filesystem as the next boot finds it after the power went."""
        after = CrashFS()
        names, dirs = dict(self.durable_names), set(self.durable_dirs)
        keep = rng.choice((0.0, 0.5, 1.0))
        for _, change, dir_change in self.pending_names:
            if rng.random() < keep:
                apply(names, change)
                apply_dirs(dirs, dir_change)
        after.dirs, after.durable_dirs = dirs, set(dirs)
        # A change that took the directory of a later one with it takes that one too.
        names = {path: inode for path, inode in names.items() if parent(path) in dirs}
        inodes: dict[int, Inode] = {}
        for path, inode in names.items():
            if id(inode) not in inodes:
                inodes[id(inode)] = inode.after_crash(rng)
            after.names[path] = inodes[id(inode)]
        after.durable_names = dict(after.names)
        return after

    def copy(self) -> CrashFS:
        """The same files, all durable, to be damaged at will."""
        other = CrashFS()
        other.dirs, other.durable_dirs = set(self.dirs), set(self.dirs)
        for path, inode in self.names.items():
            other.names[path] = Inode(bytearray(inode.content), bytes(inode.content))
        other.durable_names = dict(other.names)
        return other

    def _change(self, directory: str, change: dict[str, Inode | None], dirs: dict[str, bool] | None = None) -> None:
        apply(self.names, change)
        apply_dirs(self.dirs, dirs or {})
        self.pending_names.append((directory, change, dirs or {}))


class Died(BaseException):
    """The process was killed here; nothing may catch it."""


def apply(names: dict[str, Inode], change: dict[str, Inode | None]) -> None:
    for path, inode in change.items():
        if inode is None:
            names.pop(path, None)
        else:
            names[path] = inode


def apply_dirs(dirs: set[str], change: dict[str, bool]) -> None:
    for path, exists in change.items():
        dirs.add(path) if exists else dirs.discard(path)


def eio() -> StorageFailed:
    return StorageFailed("cannot fsync: input/output error (EIO)")
