"""Loss of power, for a process: what it wrote and never synced is gone afterwards, by sectors, as the drawing has it.

``kill -9`` takes nothing from the page cache, so a node that acknowledges before it has synced survives every one of
them. Here each node runs on a filesystem (the seam that the simulator's is behind as well) which keeps a *journal*
beside the data directory: before something is overwritten, what was there; after a sync has returned, that it has.
After a kill :func:`lose_unsynced` reads it and puts back what was there, for any subset of the 512-byte sectors
written since: just what the contract of lattice_core/storage/filesystem.py allows a power loss to do with contents.

The journal outlives a process: what a killed one never synced can still be lost after the next was killed too, unless
that one has synced it (SAFETY 24). A kill may come between journal and write, or between sync and journal: then
something is put back that was not there to be lost, or not to be promised yet.

Limits: contents only. Names, and the size of a file that grew, stay; the simulator loses those.
"""

from __future__ import annotations

import os
import random
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import msgpack

from lattice_core.storage.filesystem import SECTOR_BYTES, RealFile, RealFileSystem

JOURNAL_VARIABLE: Final = "CHAOS_UNSYNCED"
"""Names the journal to the node's process."""

_WROTE, _SYNCED, _RENAMED, _REMOVED = range(4)

Write = tuple[int, bytes]
"""Offset, and what was there before."""


class Journal:
    """Append-only, shared by the node's threads; emptied whenever nothing is unsynced."""

    def __init__(self, path: Path) -> None:
        self._pending = read(path)
        self._lock = threading.Lock()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def wrote(self, path: str, offset: int, before: bytes) -> None:
        with self._lock:
            self._pending[path].append((offset, b""))
            self._append([_WROTE, path, offset, before])

    def synced(self, path: str, writes: int) -> None:
        """The first ``writes`` of those that are pending are on the disk."""
        with self._lock:
            pending = self._pending.get(path)
            if pending is None:
                return
            del pending[:writes]
            if not pending:
                del self._pending[path]
            if self._pending:
                self._append([_SYNCED, path, writes])
            else:
                os.ftruncate(self._descriptor, 0)

    def pending(self, path: str) -> int:
        with self._lock:
            return len(self._pending.get(path, ()))

    def renamed(self, source: str, target: str) -> None:
        with self._lock:
            if _rename(self._pending, source, target):
                self._append([_RENAMED, source, target])

    def removed(self, path: str) -> None:
        with self._lock:
            if _forget(self._pending, path):
                self._append([_REMOVED, path])

    def _append(self, record: list[Any]) -> None:
        os.write(self._descriptor, msgpack.packb(record))


def read(path: Path) -> defaultdict[str, list[Write]]:
    """What was written and not synced, in order, by file."""
    pending: defaultdict[str, list[Write]] = defaultdict(list)
    if not path.exists():
        return pending
    unpacker = msgpack.Unpacker(max_buffer_size=1 << 30)
    unpacker.feed(path.read_bytes())
    for record in unpacker:  # a record that was torn by the kill is the last, and its write never came
        if record[0] == _WROTE:
            pending[record[1]].append((record[2], record[3]))
        elif record[0] == _SYNCED:
            del pending[record[1]][: record[2]]
            if not pending[record[1]]:
                del pending[record[1]]
        elif record[0] == _RENAMED:
            _rename(pending, record[1], record[2])
        else:
            _forget(pending, record[1])
    return pending


def _rename(pending: defaultdict[str, list[Write]], source: str, target: str) -> bool:
    """A file, or a directory with all in it. Whether anything was pending there."""
    found = _forget(pending, target)
    for path in [path for path in pending if path == source or path.startswith(f"{source}/")]:
        pending[target + path[len(source) :]] = pending.pop(path)
        found = True
    return found


def _forget(pending: defaultdict[str, list[Write]], name: str) -> bool:
    gone = [path for path in pending if path == name or path.startswith(f"{name}/")]
    for path in gone:
        del pending[path]
    return bool(gone)


def lose_unsynced(journal: Path, draw: random.Random) -> int:
    """The power has failed, and no process uses the files: how many sectors are as they were before."""
    lost = 0
    share = draw.choice((0.0, 0.2, 0.5, 0.8, 1.0))
    for path, writes in read(journal).items():
        if not os.path.exists(path):
            continue
        # One decision for each sector: it is as it was before the first write that is pending, or after the last.
        fate: dict[int, bool] = {}
        with open(path, "r+b") as file:
            for offset, before in reversed(writes):
                at = 0
                while at < len(before):
                    sector = (offset + at) // SECTOR_BYTES
                    stop = min(len(before), (sector + 1) * SECTOR_BYTES - offset)
                    if sector not in fate:
                        fate[sector] = draw.random() < share
                        lost += fate[sector]
                    if fate[sector]:
                        file.seek(offset + at)
                        file.write(before[at:stop])
                    at = stop
    journal.unlink(missing_ok=True)
    return lost


class _File(RealFile):
    """Tells the journal."""

    journal: Journal
    name: str

    def write_at(self, offset: int, data: bytes) -> None:
        before = super().read_at(offset, len(data))
        self.journal.wrote(self.name, offset, before.ljust(len(data), b"\0"))
        super().write_at(offset, data)

    def truncate(self, size: int) -> None:
        have = super().size()
        if size < have:
            self.journal.wrote(self.name, size, super().read_at(size, have - size))
        super().truncate(size)

    def datasync(self) -> None:
        writes = self.journal.pending(self.name)
        super().datasync()
        self.journal.synced(self.name, writes)


class JournalledFileSystem(RealFileSystem):
    """The real one, with a journal."""

    def __init__(self, reserve: Any, journal: Journal) -> None:
        super().__init__(reserve)
        self._journal = journal

    def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> RealFile:
        file = super().open(path, create=create, exclusive=exclusive)
        file.__class__ = _File
        assert isinstance(file, _File)
        file.journal, file.name = self._journal, path
        return file

    def rename(self, src: str, dst: str) -> None:
        super().rename(src, dst)
        self._journal.renamed(src, dst)

    def remove(self, path: str) -> None:
        super().remove(path)
        self._journal.removed(path)


def main() -> None:
    """``lattice`` with such a filesystem under the node: ``python -m lattice_cli.chaos.power start ...``."""
    from lattice_cli.entry import main as lattice
    from lattice_core.server import run

    journal = Journal(Path(os.environ[JOURNAL_VARIABLE]))
    vars(run)["RealFileSystem"] = lambda reserve=None: JournalledFileSystem(reserve, journal)
    lattice()


if __name__ == "__main__":
    main()
