"""Small builders for the log tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crashfs import CrashFS

from lattice_core.raft.types import Configuration, Entry, HardState, Member, SnapshotMeta
from lattice_core.storage.filesystem import FileSystem
from lattice_core.storage.recovery import Recovery
from lattice_core.storage.wal import Wal

CLUSTER, NODE = 0xC1, 0xA1
DIR = "/data/wal"
SMALL = 8192

CONFIG = Configuration.of_voters([Member(1, "n1", "h:1"), Member(2, "n2", "h:2"), Member(3, "n3", "h:3")])


@dataclass(frozen=True)
class Batch:
    hard_state: HardState | None = None
    snapshot: SnapshotMeta | None = None
    truncate_from: int | None = None
    entries: Sequence[Entry] = ()
    commit_hint: int | None = None


def term(number: int, vote: int | None = None) -> Batch:
    return Batch(hard_state=HardState(number, vote))


def entry(index: int, term: int = 1, size: int = 40) -> Entry:
    text = f"entry {index} of term {term} ".encode()
    return Entry(index, term, (text * (size // len(text) + 1))[:size])


def entries(first: int, last: int, term: int = 1, size: int = 40) -> tuple[Entry, ...]:
    return tuple(entry(index, term, size) for index in range(first, last + 1))


def append(first: int, last: int, term: int = 1, size: int = 40) -> Batch:
    return Batch(entries=entries(first, last, term, size))


def snapshot(index: int, term: int = 1) -> Batch:
    return Batch(snapshot=SnapshotMeta(index, term, CONFIG))


def put(wal: Wal, *batches: Batch) -> None:
    wal.write(batches)
    wal.sync()


def create(fs: FileSystem | None = None, *batches: Batch, segment_bytes: int = SMALL) -> Wal:
    """A log in term 1; each batch is written and synced by itself."""
    wal = Wal.create(fs or CrashFS(), DIR, CLUSTER, NODE, segment_bytes=segment_bytes)
    put(wal, term(1))
    for batch in batches:
        put(wal, batch)
    return wal


def reopen(fs: FileSystem, *, segment_bytes: int = SMALL) -> tuple[Wal, Recovery]:
    return Wal.open(fs, DIR, CLUSTER, NODE, segment_bytes=segment_bytes)


def last_segment(fs: CrashFS) -> str:
    return f"{DIR}/{fs.list_dir(DIR)[-1]}"
