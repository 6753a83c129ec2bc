"""From what a data directory holds to what the core and the state machine start from.

Log and snapshots are written one after the other, so a crash leaves them in one of three ways:

* the log's mark is of the newest snapshot: the usual case;
* the newest snapshot is newer than the log's mark: the crash came between publishing the file and marking
  it (SAFETY 29). The snapshot wins, and the log is marked now, before anything is appended: an entry after
  the snapshot could not follow what the log holds before it;
* the newest snapshot is damaged: an older one will do only if the log reaches back to it (SAFETY 31); else the
  node refuses to start. Silence would lose acknowledged writes.

A file is read once: whoever makes the state out of it does so while it is being checked, and throws away what
was made should the check fail in the end. For a large state that is the longer part of a start.

:func:`restart` repairs on the way, and leaves a log open for appending. :func:`examine` comes to the same state and
touches nothing: it is for looking at the directory of a node that does not run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lattice_core.errors import Fatal, StorageDamaged
from lattice_core.raft.types import Entry, HardState, RecoveredState, SnapshotMeta
from lattice_core.storage.filesystem import FileSystem
from lattice_core.storage.recovery import DAMAGE_HINT, Recovery, TornTail, read_log, recovery_of
from lattice_core.storage.snapshots import SnapshotHeader, SnapshotReader, list_snapshots, remove_strays
from lattice_core.storage.wal import DEFAULT_SEGMENT_BYTES, Wal


@dataclass(frozen=True, slots=True)
class SnapshotMarkBatch:
    """A batch for the log that only marks a snapshot, which must be published already."""

    snapshot: SnapshotMeta | None
    truncate_from: int | None = None
    hard_state: HardState | None = None
    entries: Sequence[Entry] = ()
    commit_hint: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The state to start from. ``snapshot_path`` is the file that goes with it, ``loaded`` what ``load`` made of it;
    None where there is no snapshot but the first configuration."""

    state: RecoveredState
    snapshot_path: str | None
    loaded: object
    torn: TornTail | None
    damaged_snapshots: tuple[str, ...]
    """Newer files that were passed over; worth a line in the log."""
    newer_than_mark: bool
    """The log does not know of this snapshot yet (SAFETY 29)."""


@dataclass(frozen=True, slots=True)
class Restart:
    """A log open for appending, and what was :class:`Found`."""

    wal: Wal
    state: RecoveredState
    snapshot_path: str | None
    loaded: object
    torn: TornTail | None
    damaged_snapshots: tuple[str, ...]


def restart(
    fs: FileSystem,
    wal_directory: str,
    snapshot_directory: str,
    cluster_id: int,
    node_id: int,
    *,
    segment_bytes: int = DEFAULT_SEGMENT_BYTES,
    load: Callable[[SnapshotReader], object] = SnapshotReader.verify,
) -> Restart:
    """Recover log and snapshots; see the module. Reads every snapshot it considers in full.

    ``load`` must read the file to its end, so that it is checked as a whole, and must have no effects but what it
    returns: of a file that turns out damaged nothing is used.

    Raises StorageDamaged, IdentityMismatch, StorageFailed, DiskFull, Fatal (a newer format, or what ``load`` cannot
    make sense of in a file that is whole).
    """
    remove_strays(fs, snapshot_directory)
    wal, recovery = Wal.open(fs, wal_directory, cluster_id, node_id, segment_bytes=segment_bytes)
    try:
        found = _choose(fs, recovery, snapshot_directory, load)
        if found.newer_than_mark:
            _mark(wal, found.state)
    except BaseException:
        wal.close()
        raise
    return Restart(wal, found.state, found.snapshot_path, found.loaded, found.torn, found.damaged_snapshots)


def examine(
    fs: FileSystem,
    wal_directory: str,
    snapshot_directory: str,
    cluster_id: int,
    node_id: int,
    *,
    load: Callable[[SnapshotReader], object] = SnapshotReader.verify,
) -> Found:
    """What :func:`restart` would start from, changing nothing. Nobody else may write there meanwhile.

    Raises what :func:`restart` does.
    """
    recovery = recovery_of(read_log(fs, wal_directory, cluster_id, node_id))
    return _choose(fs, recovery, snapshot_directory, load)


def _choose(fs: FileSystem, recovery: Recovery, directory: str, load: Callable[[SnapshotReader], object]) -> Found:
    published = list_snapshots(fs, directory)
    marked = recovery.state.snapshot
    marked_index = marked.last_included_index if marked is not None else 0
    for position, path in enumerate(published):
        try:
            header, loaded = _read(fs, path, load)
        except StorageDamaged:
            continue
        state = recovery.starting_from(header.meta)
        if state is None:
            continue
        newer = header.meta.last_included_index > marked_index
        if newer:
            state = _catch_up_term(state, header.meta)
        return Found(state, path, loaded, recovery.torn, tuple(published[:position]), newer)
    if marked_index == 0:
        return Found(recovery.state, None, None, recovery.torn, tuple(published), False)
    raise StorageDamaged(
        f"{directory} has no whole snapshot that the log continues (the log needs one at {marked_index} or, "
        f"as far back as it reaches, at {recovery.base_index})",
        path=directory,
        offset=0,
        hint=DAMAGE_HINT,
    )


def _read(fs: FileSystem, path: str, load: Callable[[SnapshotReader], object]) -> tuple[SnapshotHeader, object]:
    """The file's header and what ``load`` makes of it. Raises StorageDamaged if the file is not whole."""
    with SnapshotReader(fs, path) as reader:
        try:
            return reader.header, load(reader)
        except StorageDamaged:
            raise
        except Fatal:
            # Is it the file, or is it this program? A chunk that is missing shows in the contents before the
            # digest at the end is reached.
            with SnapshotReader(fs, path) as whole:
                whole.verify()
            raise


def _catch_up_term(state: RecoveredState, meta: SnapshotMeta) -> RecoveredState:
    """A snapshot received in a newer term may be published before that term is in the log. Whoever holds it has
    seen that term; that no vote was given in it is certain, since none is answered before it is durable."""
    if meta.last_included_term <= state.hard_state.term:
        return state
    return dataclasses.replace(state, hard_state=HardState(meta.last_included_term, None))


def _mark(wal: Wal, state: RecoveredState) -> None:
    """Mark a snapshot that was published before a crash; what the log holds after it stays only if it continues."""
    meta = state.snapshot
    assert meta is not None
    cut = None if state.entries else meta.last_included_index + 1
    wal.write([SnapshotMarkBatch(meta, truncate_from=cut, hard_state=state.hard_state)])
    wal.sync()
