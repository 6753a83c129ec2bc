"""A file system that keeps a copy of a directory as it was before each change: what kill -9 at that moment leaves.

(What a power failure leaves is another matter, with fsync in it: tests/storage/crashfs.py and the simulator.)
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lattice_core.storage.filesystem import File, Lock, RealFileSystem

T = TypeVar("T")


class StepByStep:
    """The real file system; while ``recording``, every change of anything under ``directory`` is a step."""

    def __init__(self, directory: Path, copies: Path) -> None:
        self._real = RealFileSystem()
        self._directory = directory
        self._copies = copies
        # Changes come from several threads; a copy must not be of a moment that never was.
        self._lock = threading.RLock()
        self.recording = False
        self.steps: list[tuple[str, Path]] = []
        self.at_step: Callable[[], None] = lambda: None
        """Called, under the lock, at each step."""

    def change(self, name: str, path: str, operation: Callable[[], T]) -> T:
        with self._lock:
            if self.recording:
                copy = self._copies / f"{len(self.steps):04d}"
                shutil.copytree(self._directory, copy)
                self.steps.append((f"{name} {Path(path).name}", copy))
                self.at_step()
            return operation()

    def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> File:
        def make() -> File:
            return self._real.open(path, create=create, exclusive=exclusive)

        file = self.change("create", path, make) if create else make()
        return _File(self, file, path)

    def open_read_only(self, path: str) -> File:
        return self._real.open_read_only(path)

    def exists(self, path: str) -> bool:
        return self._real.exists(path)

    def list_dir(self, path: str) -> list[str]:
        return self._real.list_dir(path)

    def make_dirs(self, path: str) -> None:
        self.change("make", path, lambda: self._real.make_dirs(path))

    def rename(self, src: str, dst: str) -> None:
        self.change("rename to", dst, lambda: self._real.rename(src, dst))

    def remove(self, path: str) -> None:
        self.change("remove", path, lambda: self._real.remove(path))

    def sync_dir(self, path: str) -> None:
        self._real.sync_dir(path)

    def lock(self, path: str) -> Lock:
        return self._real.lock(path)

    def free_bytes(self, path: str) -> int:
        return self._real.free_bytes(path)


class _File:
    def __init__(self, fs: StepByStep, file: File, path: str) -> None:
        self._fs, self._file, self._path = fs, file, path

    def write_at(self, offset: int, data: bytes) -> None:
        self._fs.change(f"write at {offset} of", self._path, lambda: self._file.write_at(offset, data))

    def read_at(self, offset: int, size: int) -> bytes:
        return self._file.read_at(offset, size)

    def datasync(self) -> None:
        self._file.datasync()

    def truncate(self, size: int) -> None:
        self._fs.change(f"truncate to {size}", self._path, lambda: self._file.truncate(size))

    def allocate(self, size: int) -> None:
        self._fs.change(f"allocate {size} for", self._path, lambda: self._file.allocate(size))

    def drop_cache(self) -> None:
        self._file.drop_cache()

    def size(self) -> int:
        return self._file.size()

    def close(self) -> None:
        self._file.close()
