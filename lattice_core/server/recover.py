"""``lattice recover``: a quorum is lost for good; what a survivor has becomes a new cluster of one member.

Theory
  * Of the survivors the one whose log is the most up to date (last term, then last index: section 5.4.1) has every
    committed entry that any of them has. That much follows from Leader Completeness, whoever is asked.
  * If those who are gone could not have decided anything by themselves (two of four, say), every acknowledged
    write is on a survivor, and so in that log. Otherwise acknowledged writes may have been on the dead alone.
    Nothing that is left can tell whether there were any.
  * Entries beyond what that log knows to be committed are kept: they may well have been acknowledged. They may as
    well never have been; a client that was told "unknown" can find its write there. Losing one that was promised
    is worse than keeping one that was not.
  * This is no step of Raft. Consensus ends here, and another one begins: with a new cluster id, so that whoever
    comes back from the dead is a stranger (SAFETY 47), and with counters far above the old ones (kv/successor.py).

What is done to directories
  * Looking changes nothing at all, not even a lock file's content; survivors may lie on a read-only disk.
  * With a place of its own (``into``) every survivor's directory stays as it is. In place, the chosen one's old
    parts are moved into a directory beside the new ones, and never removed (storage/making.py).
  * A survivor that is damaged before its end is named with file and offset, and left out: what it may have held
    beyond the others cannot be told from what has rotted. A torn tail is cut here as at any start.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lattice_core.config import DEFAULT_CLIENT_ADDR, NodeConfig
from lattice_core.errors import (
    ConfigurationError,
    Fatal,
    IdentityMismatch,
    InvalidRequest,
    LatticeError,
    NotAllowed,
    StorageDamaged,
    StorageFailed,
)
from lattice_core.kv import SessionLimits, StateMachine
from lattice_core.kv.successor import MAX_GENERATION, succeed
from lattice_core.raft.quorum import is_lost, is_quorum
from lattice_core.raft.types import Configuration, NodeId, RecoveredState
from lattice_core.server.bootstrap import cluster_id_of
from lattice_core.server.successor import NewMember, Progress, write_member
from lattice_core.storage.filesystem import Lock, OfflineFileSystem, join
from lattice_core.storage.identity import LOCK, REMOVED, SNAPSHOTS, WAL, Identity, read_identity, require_finished
from lattice_core.storage.making import (
    archive_for,
    begin_new_parts,
    change_over,
    discard_new_parts,
    finish_change,
    is_changing,
    making,
    require_empty,
)
from lattice_core.storage.recovery import TornTail
from lattice_core.storage.restart import Found, examine
from lattice_core.storage.snapshots import SnapshotReader
from lattice_core.storage.wal import DEFAULT_SEGMENT_BYTES

LAST_RESORT_HINT = "another survivor's directory, or the last backup: lattice snapshot restore FILE"


@dataclass(frozen=True, slots=True)
class LogFound:
    """What a survivor's disk holds. ``commit_index``: what is known to be committed there; it may be more."""

    term: int
    last_index: int
    last_term: int
    commit_index: int
    snapshot_index: int
    entries: int
    configuration: Configuration
    torn: TornTail | None
    damaged_snapshots: tuple[str, ...]

    @property
    def rank(self) -> tuple[int, int, int]:
        """Larger has more (section 5.4.1); of equal logs, the one that knows more."""
        return self.last_term, self.last_index, self.commit_index


@dataclass(frozen=True, slots=True)
class Survivor:
    """A directory that was given. Either ``log`` or ``unusable``, the reason why it is left out, is there."""

    data_dir: str
    identity: Identity | None
    log: LogFound | None = None
    unusable: LatticeError | None = None
    removed: bool = False
    """It had been removed from its cluster: what the others did since, it was not told."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for. ``into``: a directory of its own for the result, None: in place."""

    into: str | None = None
    name: str | None = None
    peer_addr: str | None = None
    client_addr: str | None = None
    generation: int = 1
    although_quorum: bool = False
    segment_bytes: int = DEFAULT_SEGMENT_BYTES


@dataclass(frozen=True, slots=True)
class Plan:
    """What was found, and what comes of it. ``member.cluster_id`` is drawn anew each time."""

    survivors: tuple[Survivor, ...]
    chosen: Survivor
    log: LogFound
    member: NewMember
    data_dir: str
    archive: str | None
    """Where the old parts go, if the result takes their place."""
    segment_bytes: int
    keys: int
    old_revision: int
    revision: int

    @property
    def usable(self) -> frozenset[NodeId]:
        """The members whose logs could be read."""
        return frozenset(each.identity.node_id for each in self.survivors if each.log and each.identity)

    @property
    def commit_index(self) -> int:
        """What any survivor knows to be committed: the log that has the most has that much."""
        known = max(each.log.commit_index for each in self.survivors if each.log)
        return min(known, self.log.last_index)

    @property
    def uncommitted(self) -> int:
        """Entries that are kept although nobody knows them to be committed."""
        return self.log.last_index - self.commit_index

    @property
    def is_quorum(self) -> bool:
        """The survivors could go on by themselves."""
        return is_quorum(self.log.configuration, self.usable)

    @property
    def is_complete(self) -> bool:
        """Every acknowledged write is certain to be there."""
        return is_lost(self.log.configuration, self.usable)


@dataclass(frozen=True, slots=True)
class Finished:
    """A recovery that was cut short while it changed over has been brought to its end."""

    data_dir: str
    identity: Identity
    archive: str


def recover(
    fs: OfflineFileSystem,
    paths: Sequence[str],
    order: Order,
    *,
    consent: Callable[[Plan], bool],
    progress: Progress | None = None,
) -> Plan:
    """Find out what would be done; do it if ``consent`` says so of the plan.

    Raises ConfigurationError (not a data directory, an impossible target), IdentityMismatch (two clusters),
    DirectoryInUse (a node runs), NotAllowed (consented, but the survivors are a quorum), InvalidRequest (nothing in
    it), StorageDamaged or Fatal if no survivor can be used, DiskFull, StorageFailed.
    """
    if not 1 <= order.generation <= MAX_GENERATION:
        raise InvalidRequest(f"the generation must be 1 to {MAX_GENERATION}, not {order.generation}")
    with contextlib.ExitStack() as stack:
        locks = {path: stack.enter_context(_shared(fs, path)) for path in _distinct(fs, paths)}
        survivors = tuple(_survivor(fs, path) for path in locks)
        _require_one_cluster(survivors)
        chosen, log = _most_up_to_date(survivors)
        assert chosen.identity is not None
        plan = _plan(fs, survivors, chosen, log, order, progress)
        if not consent(plan[0]):
            return plan[0]
        if plan[0].is_quorum and not order.although_quorum:
            raise NotAllowed(
                f"{_names(plan[0])}: these are a quorum of their cluster and can go on without this, losing nothing",
                hint="lattice start, on each of them; --force if that can never be",
            )
        if order.into is not None:
            with making(fs, order.into):
                _write(fs, order.into, plan, progress)
            return plan[0]
        locks[chosen.data_dir].release()
        lock = fs.lock(join(chosen.data_dir, LOCK))
        stack.callback(lock.release)
        if _examine(fs, chosen.data_dir, chosen.identity)[0] != log:
            raise Fatal(f"{chosen.data_dir} has changed meanwhile", hint="stop what runs there, and run this again")
        _replace(fs, plan, progress)
        return plan[0]


def finish(fs: OfflineFileSystem, paths: Sequence[str]) -> Finished | None:
    """Bring a recovery to its end that was cut short while it changed over in one of these; None if none was."""
    for path in paths:
        if is_changing(fs, path):
            lock = fs.lock(join(path, LOCK))
            try:
                archive = finish_change(fs, path)
                identity = read_identity(fs, path)
            finally:
                lock.release()
            assert identity is not None
            return Finished(path, identity, archive)
    return None


# -- looking ------------------------------------------------------------------------------------------


def _distinct(fs: OfflineFileSystem, paths: Sequence[str]) -> list[str]:
    if not paths:
        raise InvalidRequest("no data directory was given")
    known: dict[str, str] = {}
    for path in (each.rstrip("/") or "/" for each in paths):
        try:
            fs.list_dir(path)
        except (FileNotFoundError, StorageFailed) as error:
            reason = str(error) if isinstance(error, StorageFailed) else f"{path} does not exist"
            raise ConfigurationError(reason, hint="give survivors' data directories") from None
        real = os.path.realpath(path)
        if real in known:
            raise ConfigurationError(f"{known[real]} and {path} are the same directory", hint="give each once")
        known[real] = path
    return list(known.values())


@contextlib.contextmanager
def _shared(fs: OfflineFileSystem, path: str) -> Iterator[Lock]:
    lock = fs.lock_shared(join(path, LOCK))
    try:
        yield lock
    finally:
        lock.release()


def _survivor(fs: OfflineFileSystem, path: str) -> Survivor:
    require_finished(fs, path)
    identity: Identity | None = None
    try:
        identity = read_identity(fs, path)
        if identity is None:
            _require_traces(fs, path)
            raise StorageDamaged(f"{path} has lost its identity file", path=path, offset=0)
        return Survivor(path, identity, log=_examine(fs, path, identity)[0], removed=fs.exists(join(path, REMOVED)))
    except (StorageDamaged, StorageFailed, IdentityMismatch) as error:
        return Survivor(path, identity, unusable=error)


def _require_traces(fs: OfflineFileSystem, path: str) -> None:
    """Raise ConfigurationError if nothing here looks like a member's data."""
    try:
        found = [part for part in (WAL, SNAPSHOTS) if fs.exists(join(path, part)) and fs.list_dir(join(path, part))]
    except FileNotFoundError:
        found = []
    if not found:
        raise ConfigurationError(
            f"{path} is not a data directory: there is no identity in it",
            hint="give survivors' data directories, as given to lattice start",
        )


def _examine(
    fs: OfflineFileSystem,
    path: str,
    identity: Identity,
    load: Callable[[SnapshotReader], object] = SnapshotReader.verify,
) -> tuple[LogFound, Found]:
    found = examine(fs, join(path, WAL), join(path, SNAPSHOTS), identity.cluster_id, identity.node_id, load=load)
    state = found.state
    snapshot = state.snapshot
    snapshot_index = snapshot.last_included_index if snapshot is not None else 0
    snapshot_term = snapshot.last_included_term if snapshot is not None else 0
    last_index = state.entries[-1].index if state.entries else snapshot_index
    log = LogFound(
        term=state.hard_state.term,
        last_index=last_index,
        last_term=state.entries[-1].term if state.entries else snapshot_term,
        commit_index=min(max(state.commit_hint, snapshot_index), last_index),
        snapshot_index=snapshot_index,
        entries=len(state.entries),
        configuration=_configuration(state, path),
        torn=found.torn,
        damaged_snapshots=found.damaged_snapshots,
    )
    return log, found


def _configuration(state: RecoveredState, path: str) -> Configuration:
    """The newest in the log: in force from append."""
    for entry in reversed(state.entries):
        if isinstance(entry.payload, Configuration):
            return entry.payload
    if state.snapshot is None:
        raise StorageDamaged(f"{path} does not know any members", path=path, offset=0)
    return state.snapshot.configuration


def _require_one_cluster(survivors: Sequence[Survivor]) -> None:
    known = [each for each in survivors if each.identity is not None]
    for each in known[1:]:
        first = known[0]
        assert first.identity is not None
        assert each.identity is not None
        if each.identity.cluster_id != first.identity.cluster_id:
            raise IdentityMismatch(
                f"{first.data_dir} belongs to cluster {first.identity.cluster_id:016x}, "
                f"{each.data_dir} to {each.identity.cluster_id:016x}",
                hint="recover one cluster at a time",
            )


def _most_up_to_date(survivors: Sequence[Survivor]) -> tuple[Survivor, LogFound]:
    """The first of those that have the most. Raises the reason if none can be used."""
    best: tuple[Survivor, LogFound] | None = None
    for each in survivors:
        if each.log is not None and (best is None or each.log.rank > best[1].rank):
            best = each, each.log
    if best is not None:
        return best
    if len(survivors) == 1:
        (only,) = survivors
        assert only.unusable is not None
        only.unusable.hint = LAST_RESORT_HINT
        raise only.unusable
    reasons = "; ".join(str(each.unusable) for each in survivors)
    raise Fatal(f"none of the {len(survivors)} directories can be used: {reasons}", hint=LAST_RESORT_HINT)


# -- what comes of it ---------------------------------------------------------------------------------


def _plan(
    fs: OfflineFileSystem,
    survivors: tuple[Survivor, ...],
    chosen: Survivor,
    log: LogFound,
    order: Order,
    progress: Progress | None,
) -> tuple[Plan, StateMachine]:
    """The plan, tried out as far as that changes nothing; and the state to be written."""
    old = chosen.identity
    assert old is not None
    config = NodeConfig(
        name=order.name or old.node_name,
        peer_addr=order.peer_addr or old.peer_addr,
        client_addr=order.client_addr or old.client_addr or DEFAULT_CLIENT_ADDR,
        data_dir=order.into or chosen.data_dir,
        segment_bytes=order.segment_bytes,
    )
    config.validate()
    if order.into is not None:
        require_empty(fs, order.into)
    if not log.last_index:
        raise InvalidRequest(f"nothing was ever written to {chosen.data_dir}", hint="begin anew: lattice start")
    members = {config.name: config.peer_addr}
    machine = _state(fs, chosen.data_dir, old, progress)
    old_revision = machine.revision
    succeed(machine, order.generation)
    plan = Plan(
        survivors=survivors,
        chosen=chosen,
        log=log,
        member=NewMember(
            cluster_id_of(members, f"#{secrets.token_hex(16)}"),
            config.name,
            config.peer_addr,
            config.client_addr,
            members,
        ),
        data_dir=config.data_dir,
        archive=None if order.into is not None else archive_for(fs, chosen.data_dir, old.cluster_id),
        segment_bytes=config.segment_bytes,
        keys=len(machine.store),
        old_revision=old_revision,
        revision=machine.revision,
    )
    return plan, machine


def _state(fs: OfflineFileSystem, path: str, identity: Identity, progress: Progress | None) -> StateMachine:
    """The newest snapshot with every entry after it applied, as at a start."""
    _, found = _examine(fs, path, identity, lambda reader: StateMachine.from_chunks(reader.objects()))
    machine = found.loaded if isinstance(found.loaded, StateMachine) else StateMachine(session_limits=SessionLimits())
    entries = found.state.entries
    for count, entry in enumerate(entries, start=1):
        if isinstance(entry.payload, bytes):
            machine.apply(entry.index, entry.term, entry.payload)
        else:
            machine.skip(entry.index, entry.term)
        if progress is not None:
            progress("entries applied", count, len(entries))
    return machine


# -- doing it -----------------------------------------------------------------------------------------


def _write(fs: OfflineFileSystem, path: str, prepared: tuple[Plan, StateMachine], progress: Progress | None) -> None:
    plan, machine = prepared
    write_member(fs, path, plan.member, machine, segment_bytes=plan.segment_bytes, progress=progress)


def _replace(fs: OfflineFileSystem, prepared: tuple[Plan, StateMachine], progress: Progress | None) -> None:
    """In place. Until the change is begun, an error leaves the old member as it was."""
    plan = prepared[0]
    assert plan.archive is not None
    new = begin_new_parts(fs, plan.data_dir)
    try:
        _write(fs, new, prepared, progress)
    except BaseException:
        with contextlib.suppress(StorageFailed):
            discard_new_parts(fs, plan.data_dir)
        raise
    change_over(fs, plan.data_dir, plan.archive)


def _names(plan: Plan) -> str:
    names = sorted({each.identity.node_name for each in plan.survivors if each.log and each.identity})
    return ", ".join(names)
