"""Data of an old cluster, as saved and as its members left it, for restore and recover."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack

from lattice_core.config import NodeConfig
from lattice_core.kv import ClientBatch, StateMachine, encode_batch, encode_payload, open_session, put
from lattice_core.raft.types import Configuration, Entry, HardState, SnapshotMeta
from lattice_core.server.bootstrap import cluster_id_of, first_configuration, node_id_of, open_node
from lattice_core.storage.filesystem import FileSystem
from lattice_core.storage.restart import SnapshotMarkBatch
from lattice_core.storage.snapshots import SnapshotHeader, SnapshotWriter

MEMBERS = {"n1": "h:7501", "n2": "h:7502", "n3": "h:7503"}
OLD_CLUSTER = cluster_id_of(MEMBERS)
OLD_CONFIGURATION = first_configuration(MEMBERS, OLD_CLUSTER)
SEGMENT_BYTES = 64 << 10


def config(name: str = "n1", data_dir: str | None = None, **changes: Any) -> NodeConfig:
    values: dict[str, Any] = {
        "name": name,
        "data_dir": data_dir or f"/data/{name}",
        "client_addr": f"h:740{name[1:]}",
        "peer_addr": MEMBERS[name],
        "initial_cluster": MEMBERS,
        "segment_bytes": SEGMENT_BYTES,
    }
    return NodeConfig(**{**values, **changes})


def alone(name: str = "n1", data_dir: str | None = None) -> NodeConfig:
    return replace(config(name, data_dir), initial_cluster={})


def payload(*ops: Any, session: int = 0, sequence: int = 0, time_ms: int = 5) -> bytes:
    return encode_payload(time_ms, [ClientBatch(session, sequence, 0, encode_batch(ops))])


def command(index: int, term: int = 1) -> Entry:
    """One put by session 1, which entry 1 opens."""
    if index == 1:
        return Entry(1, term, payload(open_session()))
    return Entry(index, term, payload(put(b"key%03d" % index, b"value"), session=1, sequence=index))


def state_at(index: int, term: int = 1) -> StateMachine:
    machine = StateMachine()
    for at in range(1, index + 1):
        entry = command(at, term)
        assert isinstance(entry.payload, bytes)
        machine.apply(at, term, entry.payload)
    return machine


def save(
    fs: FileSystem,
    directory: str,
    machine: StateMachine,
    configuration: Configuration = OLD_CONFIGURATION,
    max_items: int = 10,
) -> str:
    """A snapshot file of the old cluster; its path."""
    meta = SnapshotMeta(machine.applied_index, machine.applied_term, configuration)
    writer = SnapshotWriter(fs, directory, SnapshotHeader(OLD_CLUSTER, meta))
    for chunk in machine.capture().to_chunks(max_items=max_items):
        writer.write(msgpack.packb(chunk))
    return writer.publish()


def leave_member(
    fs: FileSystem,
    name: str,
    last: int,
    *,
    term: int = 1,
    last_term: int | None = None,
    commit: int | None = None,
    snapshot_at: int = 0,
    data_dir: str | None = None,
) -> str:
    """A stopped member's directory with entries 1 to ``last``, the last of them of ``last_term``; its path.

    ``commit`` is what it knows to be committed.
    """
    opened = open_node(config(name, data_dir), fs)
    entries = [command(index, term) for index in range(1, last)]
    entries += [command(last, last_term or term)] if last else []
    opened.wal.write([SnapshotMarkBatch(None, hard_state=HardState(last_term or term, None), entries=entries)])
    opened.wal.sync()
    if snapshot_at:
        path = opened.directory.snapshots_path
        save(fs, path, state_at(snapshot_at, term))
        meta = SnapshotMeta(snapshot_at, term, OLD_CONFIGURATION)
        opened.wal.write([SnapshotMarkBatch(meta)])
    if commit is not None:
        # A hint goes out beside something else, never alone.
        opened.wal.write(
            [SnapshotMarkBatch(None, hard_state=HardState((last_term or term) + 1, None), commit_hint=commit)]
        )
    opened.close()
    return opened.directory.path


def node_id(name: str) -> int:
    return node_id_of(OLD_CLUSTER, name)
