"""``lattice snapshot restore``: a snapshot file into the data directory of one member of a new cluster.

Every member of the new cluster is made by itself, from the same file with the same first members. What it becomes is
a function of these (see successor.py), so that nothing has to be agreed on and all of them start with one state.

The file is read once, to its last byte, before anything is written: a damaged one leaves no trace. The state is held
in memory once, as the member will hold it anyway.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lattice_core.config import NodeConfig
from lattice_core.errors import Fatal, InvalidRequest, LatticeError, StorageDamaged
from lattice_core.kv import StateMachine
from lattice_core.kv.successor import MAX_GENERATION, succeed
from lattice_core.raft.types import SnapshotMeta
from lattice_core.server.bootstrap import cluster_id_of
from lattice_core.server.successor import NewMember, Progress, successor_cluster_id, write_member
from lattice_core.storage.filesystem import OfflineFileSystem
from lattice_core.storage.making import making, require_empty
from lattice_core.storage.snapshots import SnapshotReader

NOT_WHOLE_HINT = "another snapshot; lattice snapshot inspect FILE checks one"


@dataclass(frozen=True, slots=True)
class Restored:
    """What was made."""

    member: NewMember
    data_dir: str
    old_cluster_id: int
    meta: SnapshotMeta
    keys: int
    old_revision: int
    revision: int
    """The first write's is the next one."""
    state_hash: int


def restore_snapshot(
    fs: OfflineFileSystem,
    file: str,
    config: NodeConfig,
    *,
    generation: int = 1,
    progress: Progress | None = None,
) -> Restored:
    """Make ``config.data_dir`` a member's of the new cluster that begins with what is in ``file``.

    ``config`` is validated already. Raises InvalidRequest (no such file, an impossible generation), ConfigurationError
    (the directory is not empty), StorageDamaged with path and offset, Fatal for what is no state of this version of
    Lattice, DirectoryInUse, DiskFull, StorageFailed.
    """
    if not 1 <= generation <= MAX_GENERATION:
        raise InvalidRequest(f"the generation must be 1 to {MAX_GENERATION}, not {generation}")
    require_empty(fs, config.data_dir)
    try:
        reader = SnapshotReader(fs, file)
    except FileNotFoundError:
        raise InvalidRequest(f"{file} does not exist", hint="lattice snapshot save FILE") from None
    except StorageDamaged as error:
        error.hint = NOT_WHOLE_HINT
        raise
    with reader:
        machine = _read(fs, reader, progress)
        digest, old_cluster_id = reader.content_digest, reader.header.cluster_id
    assert digest is not None
    members = config.initial_cluster or {config.name: config.peer_addr}
    if config.initial_cluster:
        cluster_id = successor_cluster_id(digest, old_cluster_id, members, generation)
    else:
        cluster_id = cluster_id_of(members, f"#{secrets.token_hex(16)}")
    member = NewMember(cluster_id, config.name, config.peer_addr, config.client_addr, members)
    old_revision = machine.revision
    succeed(machine, generation)
    with making(fs, config.data_dir):
        meta = write_member(fs, config.data_dir, member, machine, segment_bytes=config.segment_bytes, progress=progress)
    return Restored(
        member,
        config.data_dir,
        old_cluster_id,
        meta,
        len(machine.store),
        old_revision,
        machine.revision,
        machine.state_hash,
    )


def _read(fs: OfflineFileSystem, reader: SnapshotReader, progress: Progress | None) -> StateMachine:
    """The state in the file, which is checked in full. The error names it, whatever is wrong."""

    def objects() -> Iterator[Any]:
        for each in reader.objects():
            if progress is not None:
                progress("bytes read", reader.read_bytes, reader.size_bytes)
            yield each

    try:
        machine = StateMachine.from_chunks(objects())
    except StorageDamaged as error:
        error.hint = NOT_WHOLE_HINT
        raise
    except Fatal as error:
        _require_whole(fs, reader.path)
        raise _named(reader.path, error) from error
    meta = reader.header.meta
    if (machine.applied_index, machine.applied_term) != (meta.last_included_index, meta.last_included_term):
        raise Fatal(
            f"{reader.path}: its header says index {meta.last_included_index} of term {meta.last_included_term}, its"
            f" state index {machine.applied_index} of term {machine.applied_term}",
            hint=NOT_WHOLE_HINT,
        )
    return machine


def _require_whole(fs: OfflineFileSystem, path: str) -> None:
    """Is it the file, or this program? A chunk that is missing shows in the state before it does in the digest."""
    with SnapshotReader(fs, path) as again:
        try:
            again.verify()
        except StorageDamaged as error:
            error.hint = NOT_WHOLE_HINT
            raise


def _named(path: str, error: LatticeError) -> LatticeError:
    error.message = f"{path}: {error.message}"
    error.args = (error.message,)
    error.hint = error.hint or NOT_WHOLE_HINT
    return error
