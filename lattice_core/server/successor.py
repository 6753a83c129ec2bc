"""The data directory of a new cluster's member, made out of a state: the common part of restore and recover.

The state goes in as a snapshot at its own index and term, under the new cluster's id and with the new membership in
place of the old one; the log begins after it, in that term, with no vote given. So ``lattice start`` finds what a
member finds that has just compacted everything, and every member made out of the same state is at the same place.

Ids. A member of the old cluster that comes back knows another cluster id and is refused before consensus sees a
word of it (SAFETY 47), even where names and addresses are the same. Members that are made separately must
agree on the id without talking, and it must be none that exists: it is drawn from what was restored, the first
members and the generation (see kv/successor.py), none of which a plain bootstrap uses. A member's own id is drawn
from the cluster's and its name, as always.

A directory that is made *again* after its first one has served has the same ids, and has forgotten its votes; it
draws another incarnation and is refused by those who knew the first (SAFETY 22), for it introduces itself like any
member that has not met anybody yet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgpack

from lattice_core.errors import InvalidRequest
from lattice_core.kv import StateMachine
from lattice_core.raft.types import Configuration, HardState, SnapshotMeta
from lattice_core.server.bootstrap import canonical_cluster, first_configuration, node_id_of
from lattice_core.server.incarnations import Incarnations
from lattice_core.storage.filesystem import FileSystem, join
from lattice_core.storage.identity import SNAPSHOTS, WAL, Identity, write_identity
from lattice_core.storage.restart import SnapshotMarkBatch
from lattice_core.storage.snapshots import SnapshotHeader, SnapshotWriter
from lattice_core.storage.wal import Wal

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True, slots=True)
class NewMember:
    """Who the directory is for. ``members``: the first members of its cluster by name, with peer addresses."""

    cluster_id: int
    name: str
    peer_addr: str
    client_addr: str
    members: Mapping[str, str]

    @property
    def configuration(self) -> Configuration:
        return first_configuration(self.members, self.cluster_id)

    @property
    def identity(self) -> Identity:
        return Identity(
            self.cluster_id,
            node_id_of(self.cluster_id, self.name),
            self.name,
            self.peer_addr,
            self.client_addr,
            initial_cluster=canonical_cluster(self.members),
        )


def successor_cluster_id(
    content_digest: bytes, old_cluster_id: int, members: Mapping[str, str], generation: int
) -> int:
    """The same for everybody who restores this content with these first members; no other cluster's."""
    text = f"{content_digest.hex()}/{old_cluster_id:016x}/{generation}/{canonical_cluster(members)}"
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=b"lattice-restored").digest()
    return int.from_bytes(digest, "big") or 1


def write_member(
    fs: FileSystem,
    path: str,
    member: NewMember,
    machine: StateMachine,
    *,
    segment_bytes: int,
    progress: Progress | None = None,
) -> SnapshotMeta:
    """Write everything a member's directory holds to ``path``, the identity last, each part durable in its turn.

    ``machine`` must be what the new cluster starts from. Raises InvalidRequest if there is nothing in it, DiskFull,
    StorageFailed; what has been written by then is the caller's to remove.
    """
    meta = SnapshotMeta(machine.applied_index, machine.applied_term, member.configuration)
    if not meta.last_included_index or not meta.last_included_term:
        raise InvalidRequest("nothing was ever written there", hint="begin a new cluster: lattice start")
    capture = machine.capture()
    writer = SnapshotWriter(fs, join(path, SNAPSHOTS), SnapshotHeader(member.cluster_id, meta))
    try:
        written = 0
        for chunk in capture.to_chunks():
            writer.write(msgpack.packb(chunk))
            if chunk[0] == "keys" and progress is not None:
                written += len(chunk[1])
                progress("keys written", written, capture.key_count)
        writer.publish()
    except BaseException:
        capture.close()
        writer.abort()
        raise
    birth = SnapshotMarkBatch(meta, hard_state=HardState(meta.last_included_term))
    Wal.create(
        fs, join(path, WAL), member.cluster_id, member.identity.node_id, segment_bytes=segment_bytes, initial=birth
    ).close()
    Incarnations.create(fs, path)
    write_identity(fs, path, member.identity)
    return meta
