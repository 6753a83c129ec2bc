"""From options and a data directory to a node that may start: identity, log, first configuration.

Every node of a static bootstrap computes the same ids from the same ``--initial-cluster``, so nothing has to
be agreed on before there is a cluster. A node without it is a cluster of its own, with a random id, so
that two such clusters never mistake each other for their own.

A restart takes everything from the directory. Options that say something else about who this node is are
an error which names both values; they are never silently one or the other.

Order of making a directory: lock, log (with the first configuration as a snapshot mark at index 0),
identity, incarnation. A crash in between leaves an unfinished creation, which the next start recognises
by its pristine log, and begins again.

A directory that joins a running cluster is made in another order: lock, incarnation, then (joining.py) the cluster is
asked, then log, identity. Its first configuration is empty: it knows of no voters, so it cannot campaign, until log
or snapshot bring it the cluster's own.

A directory whose member was removed holds a mark that says so (:func:`mark_removed`), and is refused from then on;
likewise one whose state was found not to be the others' (:func:`mark_diverged`). reseeding.py is the way back.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lattice_core.config import NodeConfig
from lattice_core.errors import ConfigurationError, IdentityMismatch, ServerRemoved, StorageDamaged
from lattice_core.kv import HistoryLimits, SessionLimits, StateMachine
from lattice_core.raft.log import NO_CONFIGURATION
from lattice_core.raft.ready import Persist
from lattice_core.raft.types import Configuration, HardState, Member, NodeId, RecoveredState, SnapshotMeta
from lattice_core.rpc.link import greet
from lattice_core.rpc.peers import PeerDirectory
from lattice_core.server.clock import now_ns
from lattice_core.server.incarnations import Incarnations, replace_file
from lattice_core.server.snapshot_files import Snapshot, set_aside
from lattice_core.storage.filesystem import FileSystem, join
from lattice_core.storage.identity import (
    DIVERGED,
    DIVERGED_ASIDE,
    REMOVED,
    REMOVED_ASIDE,
    DataDirectory,
    Identity,
)
from lattice_core.storage.recovery import DAMAGE_HINT
from lattice_core.storage.restart import restart
from lattice_core.storage.snapshots import SnapshotReader
from lattice_core.storage.wal import Wal

log = logging.getLogger("lattice.bootstrap")

PROBE_SECONDS = 1.0
"""How long a new member waits for the others to say whether they know it. Refused connections fail at once."""


@dataclass(frozen=True, slots=True)
class OpenedNode:
    """A data directory that is locked, checked and recovered."""

    directory: DataDirectory
    identity: Identity
    wal: Wal
    recovered: RecoveredState
    snapshot: Snapshot | None
    """The published snapshot that ``recovered`` begins with; None: there is none but the first configuration."""
    incarnations: Incarnations
    fresh: bool
    """This member has never spoken to anybody, as far as it knows."""
    fs: FileSystem
    machine: list[StateMachine]
    """One, as of the snapshot, or a new one; until :meth:`take_machine`."""
    locked_ns: int
    """Soon after the directory became this process's: what a former one promised (SAFETY 41), it promised before."""

    def take_machine(self) -> StateMachine:
        """The state machine, once: what is kept here would stay in memory after another has taken its place."""
        return self.machine.pop()

    def close(self) -> None:
        """Close the log and give the directory up. Raises StorageFailed if the log cannot be synced."""
        try:
            self.wal.close()
        finally:
            self.directory.close()


def _hash64(purpose: bytes, text: str) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=purpose).digest()
    return int.from_bytes(digest, "big") or 1  # 0 means "absent" on the wire


def canonical_cluster(members: Mapping[str, str]) -> str:
    """The same text on every node, whatever the order in which the option lists the members."""
    return ",".join(f"{name}={addr}" for name, addr in sorted(members.items()))


def cluster_id_of(members: Mapping[str, str], salt: str = "") -> int:
    return _hash64(b"lattice-cluster", canonical_cluster(members) + salt)


def node_id_of(cluster_id: int, name: str) -> NodeId:
    return _hash64(b"lattice-node", f"{cluster_id:016x}/{name}")


def first_configuration(members: Mapping[str, str], cluster_id: int) -> Configuration:
    """Everyone votes."""
    return Configuration.of_voters(Member(node_id_of(cluster_id, name), name, addr) for name, addr in members.items())


def open_node(config: NodeConfig, fs: FileSystem, *, before_making: Callable[[], None] | None = None) -> OpenedNode:
    """Open the data directory, or make it. Blocking; holds the directory's lock until closed.

    ``before_making`` is called before a new directory is made: from then on it belongs to its peer address, so
    an address that cannot be had must be noticed before.

    Raises DirectoryInUse, IdentityMismatch, ConfigurationError, StorageDamaged, StorageFailed.
    """
    directory = DataDirectory.open(fs, config.data_dir)
    try:
        return open_in(directory, config, fs, before_making=before_making)
    except BaseException:
        directory.close()
        raise


def open_in(
    directory: DataDirectory, config: NodeConfig, fs: FileSystem, *, before_making: Callable[[], None] | None = None
) -> OpenedNode:
    """The same for a directory that is locked already; on an error it stays so."""
    if directory.identity is not None:
        return _reopen(config, fs, directory, directory.identity)
    if Incarnations.load(fs, directory.path) is not None:
        raise ConfigurationError(
            f"{directory.path} was made to join a cluster and has not joined it yet",
            hint="start it with --join H:P once more, or use another data directory",
        )
    if before_making is not None:
        before_making()
    return _create(config, fs, directory)


@dataclass(frozen=True, slots=True)
class Admission:
    """What the cluster answers to a server that asks to join it."""

    cluster_id: int
    node_id: NodeId
    index: int
    """Of a committed configuration with that member."""
    configuration: Configuration


def incarnation_to_join(fs: FileSystem, directory: DataDirectory) -> Incarnations:
    """The number by which a directory without identity is known, drawn by the first attempt; durable on return."""
    return Incarnations.load(fs, directory.path) or Incarnations.create(fs, directory.path)


def create_joined(
    directory: DataDirectory,
    config: NodeConfig,
    fs: FileSystem,
    incarnations: Incarnations,
    admission: Admission,
    *,
    initial_cluster: str | None = None,
) -> OpenedNode:
    """Make the directory the member's that the cluster has just admitted. Blocking. Raises StorageFailed.

    ``initial_cluster``: of the member that this one is in the place of, whose options it may be started with."""
    others = (member for member in admission.configuration.members if member.id != admission.node_id)
    incarnations.meet(tuple(Member(member.id, member.name, member.peer_addr) for member in others))
    identity = Identity(
        admission.cluster_id,
        admission.node_id,
        config.name,
        config.peer_addr,
        config.client_addr,
        joined_index=admission.index,
        initial_cluster=initial_cluster,
    )
    wal = _make(directory, config, fs, identity, NO_CONFIGURATION)
    log.info(
        "new data directory %s: member %s (%016x), joining cluster %016x at index %d",
        directory.path,
        config.name,
        identity.node_id,
        identity.cluster_id,
        admission.index,
    )
    recovered = RecoveredState(snapshot=SnapshotMeta(0, 0, NO_CONFIGURATION))
    return OpenedNode(
        directory,
        identity,
        wal,
        recovered,
        None,
        incarnations,
        fresh=True,
        fs=fs,
        machine=[_new_machine(config)],
        locked_ns=now_ns(),
    )


def mark_removed(fs: FileSystem, path: str, name: str, reason: str) -> None:
    """Let no node start in this directory again; durable on return. Raises StorageFailed."""
    replace_file(fs, path, REMOVED, REMOVED_ASIDE, f"{name} was removed from its cluster: {reason}\n".encode())


def mark_diverged(fs: FileSystem, path: str, reason: str) -> None:
    """Let no node serve what is in this directory again; durable on return. Raises StorageFailed."""
    replace_file(fs, path, DIVERGED, DIVERGED_ASIDE, f"{reason}\n".encode())


def _refuse_removed(fs: FileSystem, directory: DataDirectory, identity: Identity) -> None:
    if fs.exists(join(directory.path, REMOVED)):
        raise removed_error(identity.node_name, f"{directory.path} is of no use any more")


def _refuse_diverged(fs: FileSystem, directory: DataDirectory) -> None:
    path = join(directory.path, DIVERGED)
    if fs.exists(path):
        file = fs.open_read_only(path)
        try:
            reason = file.read_at(0, file.size()).decode(errors="replace").strip()
        finally:
            file.close()
        raise StorageDamaged(
            f"{directory.path} holds a state that is not the other members': {reason}",
            path=path,
            offset=0,
            hint=DAMAGE_HINT,
        )


def removed_error(name: str, why: str) -> ServerRemoved:
    return ServerRemoved(
        f"{name} was removed from its cluster, for good: {why}",
        hint=f"lattice start --name {name} --data-dir NEW_DIRECTORY ... --join H:P, to join again as a new member",
    )


def _make(
    directory: DataDirectory, config: NodeConfig, fs: FileSystem, identity: Identity, first: Configuration
) -> Wal:
    """Log, then identity."""
    birth = Persist(
        sequence=1,
        hard_state=None,
        snapshot=SnapshotMeta(0, 0, first),
        truncate_from=None,
        entries=(),
        commit_hint=None,
        messages=(),
    )
    wal = Wal.create(
        fs,
        directory.wal_path,
        identity.cluster_id,
        identity.node_id,
        segment_bytes=config.segment_bytes,
        initial=birth,
    )
    try:
        directory.write_identity(identity)
    except BaseException:
        wal.close()
        raise
    return wal


def _create(config: NodeConfig, fs: FileSystem, directory: DataDirectory) -> OpenedNode:
    members = config.initial_cluster or {config.name: config.peer_addr}
    salt = "" if len(members) > 1 else f"#{secrets.token_hex(16)}"
    cluster_id = cluster_id_of(members, salt)
    node_id = node_id_of(cluster_id, config.name)
    mark = SnapshotMeta(0, 0, first_configuration(members, cluster_id))
    first = canonical_cluster(members)
    identity = Identity(cluster_id, node_id, config.name, config.peer_addr, config.client_addr, initial_cluster=first)
    wal = _make(directory, config, fs, identity, mark.configuration)
    try:
        incarnations = Incarnations.create(fs, directory.path)
    except BaseException:
        wal.close()
        raise
    log.info(
        "new data directory %s: member %s (%016x) of cluster %016x: %s",
        directory.path,
        config.name,
        node_id,
        cluster_id,
        first,
    )
    recovered = RecoveredState(hard_state=HardState(), snapshot=mark)
    return OpenedNode(
        directory,
        identity,
        wal,
        recovered,
        None,
        incarnations,
        fresh=True,
        fs=fs,
        machine=[_new_machine(config)],
        locked_ns=now_ns(),
    )


def _history(config: NodeConfig) -> HistoryLimits:
    return HistoryLimits(config.history_revisions, config.history_bytes)


def _new_machine(config: NodeConfig) -> StateMachine:
    # Limits of sessions decide what is executed, so they are the same everywhere, not configured.
    return StateMachine(history=_history(config), session_limits=SessionLimits())


def _reopen(config: NodeConfig, fs: FileSystem, directory: DataDirectory, identity: Identity) -> OpenedNode:
    locked_ns = now_ns()
    _refuse_removed(fs, directory, identity)
    _refuse_diverged(fs, directory)
    identity.require(directory.path, node_name=config.name, peer_addr=config.peer_addr)
    _require_same_first_members(config, directory, identity)
    begun = restart(
        fs,
        directory.wal_path,
        directory.snapshots_path,
        identity.cluster_id,
        identity.node_id,
        segment_bytes=config.segment_bytes,
        load=lambda reader: StateMachine.from_chunks(reader.objects(), history=_history(config)),
    )
    wal, state = begun.wal, begun.state
    try:
        if begun.torn is not None:
            torn = begun.torn
            log.warning(
                "cut a torn tail of %d bytes at offset %d of %s: %s; nothing in it was acknowledged",
                torn.bytes_cut,
                torn.offset,
                torn.path,
                torn.reason,
            )
        for path in set_aside(fs, begun.damaged_snapshots):
            log.warning("a damaged snapshot was passed over; it is kept as %s, for you to look at or remove", path)
        snapshot, machine = None, _new_machine(config)
        if begun.snapshot_path is not None:
            assert state.snapshot is not None
            assert isinstance(begun.loaded, StateMachine)
            machine = begun.loaded
            with SnapshotReader(fs, begun.snapshot_path) as reader:
                snapshot = Snapshot(state.snapshot, begun.snapshot_path, reader.size_bytes)
        never_spoke = state.hard_state == HardState() and not state.entries and snapshot is None
        incarnations = Incarnations.load(fs, directory.path)
        if incarnations is None:
            if not never_spoke:
                path = join(directory.path, "peers")
                raise StorageDamaged(
                    f"{path} is missing: without its incarnation the other members will not know this one",
                    path=path,
                    offset=0,
                    hint=DAMAGE_HINT,
                )
            incarnations = Incarnations.create(fs, directory.path)
    except BaseException:
        wal.close()
        raise
    log.info(
        "recovered %s: term %d, snapshot at index %d, entries up to %d, known committed up to %d",
        directory.path,
        state.hard_state.term,
        snapshot.index if snapshot is not None else 0,
        wal.last_index,
        state.commit_hint,
    )
    return OpenedNode(
        directory,
        identity,
        wal,
        state,
        snapshot,
        incarnations,
        # A restored member has a past, and has not met anybody either.
        fresh=never_spoke or not incarnations.known(),
        fs=fs,
        machine=[machine],
        locked_ns=locked_ns,
    )


def _require_same_first_members(config: NodeConfig, directory: DataDirectory, identity: Identity) -> None:
    """A repeated --initial-cluster must be the one the directory was made with. Members are compared, not ids: the
    id of a cluster that was restored or recovered is drawn from more than its members."""
    if len(config.initial_cluster) < 2:
        return
    asked, made = canonical_cluster(config.initial_cluster), identity.initial_cluster
    if made is None:  # an older directory; its id was drawn from the members alone
        same, knows = cluster_id_of(config.initial_cluster) == identity.cluster_id, "other members"
    else:
        same, knows = asked == made, made
    if not same:
        raise IdentityMismatch(
            f"the data directory {directory.path} belongs to cluster {identity.cluster_id:016x}, which began with "
            f"{knows}, but --initial-cluster says {asked}",
            hint="start it with the --initial-cluster it was made with (or none), or use another data directory",
        )


async def introduce(peers: PeerDirectory, configuration: Configuration) -> None:
    """Say hello to every other member that can be reached, before a new member takes part in anything.

    Whoever knows another incarnation of this member says so, and the directory's ``on_disowned`` is called
    (SAFETY 22). Those who cannot be reached within PROBE_SECONDS are met later.
    """
    others = [member for member in configuration.members if member.id != peers.local.node_id]
    await asyncio.gather(*(greet(member.id, peers.dial_addr_of(member), peers, PROBE_SECONDS) for member in others))
