"""Every metric a node exposes, in one table: name, kind, help, labels, and where the figure is read.

Names follow Prometheus' conventions: base units, ``_total`` for what only grows, one prefix. A family is there from
the start, empty or zero, so that dashboards and alerts see its name before its first event. Reading is pure and
quick, and happens on the event loop, so that all figures of a scrape are of one moment.

docs/observability.md lists the same table, and a test compares the two.

Labels are few and bounded: peers are the members of the configuration, RPCs those that exist, consistencies three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from lattice_core.errors import StorageFailed
from lattice_core.histogram import HistogramReading
from lattice_core.raft.progress import Progress
from lattice_core.server.metrics import NodeMetrics

if TYPE_CHECKING:
    from lattice_core.server.node import Node

Value: TypeAlias = float | HistogramReading
Sample: TypeAlias = tuple[tuple[str, ...], Value]

ROLES = ("follower", "learner", "pre-candidate", "candidate", "leader")


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: a sample for each combination of its labels."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    help: str
    read: Callable[[Node], Iterable[Sample]]
    labels: tuple[str, ...] = ()


def _one(read: Callable[[Node], Value]) -> Callable[[Node], Iterable[Sample]]:
    return lambda node: (((), read(node)),)


def _count(read: Callable[[NodeMetrics], Value]) -> Callable[[Node], Iterable[Sample]]:
    return lambda node: (((), read(node.metrics)),)


def _gauge(name: str, text: str, read: Callable[[Node], float]) -> Family:
    return Family(f"lattice_{name}", "gauge", text, _one(read))


def _counter(name: str, text: str, read: Callable[[NodeMetrics], float]) -> Family:
    return Family(f"lattice_{name}_total", "counter", text, _count(read))


def _info(node: Node) -> Iterable[Sample]:
    local = node.peers.local
    yield (f"{local.cluster_id:016x}", f"{local.node_id:016x}", local.name, local.version), 1


def _roles(node: Node) -> Iterable[Sample]:
    role = node.role_name()
    for name in ROLES:
        yield (name,), int(name == role)


def _followers(read: Callable[[Node, Progress], float]) -> Callable[[Node], Iterable[Sample]]:
    """A leader's figure for each other member; nothing elsewhere."""

    def samples(node: Node) -> Iterable[Sample]:
        for peer, progress in node.core.progress.items():
            yield (node.peers.name_of(peer),), read(node, progress)

    return samples


def _peers(read: Callable[[Node, int], Value]) -> Callable[[Node], Iterable[Sample]]:
    """A figure for each other member of the configuration."""

    def samples(node: Node) -> Iterable[Sample]:
        for member in node.core.configuration.members:
            if member.id != node.core.id:
                yield (member.name,), read(node, member.id)

    return samples


def _round_trips(node: Node) -> Iterable[Sample]:
    for member in node.core.configuration.members:
        seconds = node.metrics.round_trip_seconds.get(member.id)
        if seconds is not None:
            yield (member.name,), seconds.read()


def _failures(read: Callable[[NodeMetrics], dict[str, int]]) -> Callable[[Node], Iterable[Sample]]:
    return lambda node: (((reason,), count) for reason, count in sorted(read(node.metrics).items()))


def _call_seconds(node: Node) -> Iterable[Sample]:
    for name, call in sorted(node.metrics.calls.items()):
        if not call.streams_total:
            yield (name,), call.seconds.read()


def _call_errors(node: Node) -> Iterable[Sample]:
    for name, call in sorted(node.metrics.calls.items()):
        for code, count in sorted(call.errors.items()):
            yield (name, code), count


def _streams(node: Node, *, total: bool) -> Iterable[Sample]:
    for name, call in sorted(node.metrics.calls.items()):
        if call.streams_total:
            yield (name,), call.streams_total if total else call.streams_open


def _certificates(node: Node) -> Iterable[Sample]:
    for listener in node.tls.listeners:
        yield (listener.port,), listener.certificate.not_after.timestamp()


def _disk_free(node: Node) -> float:
    try:
        return node.free_bytes()
    except (OSError, StorageFailed):
        return float("nan")


FAMILIES: tuple[Family, ...] = (
    # -- who and what ---------------------------------------------------------------------------------
    Family("lattice_node_info", "gauge", "1, with the identity of this member as labels.", _info,
           ("cluster_id", "node_id", "node", "version")),
    _gauge("uptime_seconds", "Since this node was started.", lambda node: node.uptime_seconds()),
    _gauge("ready", "1 if /readyz says so: a leader is known and the state has caught up with what was known "
           "to be committed at the start.", lambda node: int(node.readiness.reason() is None)),
    # -- consensus ------------------------------------------------------------------------------------
    Family("lattice_role", "gauge", "1 for the role this member has now, 0 for the others.", _roles, ("role",)),
    _gauge("has_leader", "1 if this member knows a leader.", lambda node: int(node.core.leader_id is not None)),
    _gauge("term", "The current term.", lambda node: node.core.term),
    _counter("leader_changes", "Leaders this member has come to know, itself included.", lambda m: m.leader_changes),
    _counter("elections_started", "Elections in which this member asked for votes.", lambda m: m.elections_started),
    _counter("pre_votes_started", "Rounds in which this member asked whether it would get votes.",
             lambda m: m.pre_votes_started),
    _counter("role_changes", "Changes of this member's role.", lambda m: m.role_changes),
    _gauge("voters", "Members that vote.", lambda node: len(node.core.configuration.voters)),
    _gauge("learners", "Members that do not vote.", lambda node: len(node.core.configuration.learners)),
    # -- the log --------------------------------------------------------------------------------------
    _gauge("commit_index", "The last entry known to be committed.", lambda node: node.core.commit_index),
    _gauge("applied_index", "The last entry applied to the state.", lambda node: node.machine.applied_index),
    _gauge("last_index", "The last entry in the log.", lambda node: node.core.last_index),
    _gauge("snapshot_index", "The last entry covered by the newest snapshot.", lambda node: node.core.snapshot_index),
    _gauge("log_bytes", "What the log takes up on the disk.", lambda node: node.log_bytes()),
    _counter("entries_proposed", "Entries appended by this member as the leader; one holds all batches that waited.",
             lambda m: m.entries_proposed),
    _counter("proposed_bytes", "Their size.", lambda m: m.bytes_proposed),
    # -- the disk -------------------------------------------------------------------------------------
    Family("lattice_fsync_seconds", "histogram", "Each fsync of the log.", _count(lambda m: m.fsync_seconds.read())),
    _gauge("fsync_stalled_seconds", "How long the fsync under way has taken so far.",
           lambda node: node.metrics.fsync_stalled_seconds()),
    _gauge("disk_free_bytes", "Room left on the disk of the data directory.", _disk_free),
    _gauge("disk_full", "1 while writes are refused because the disk is full.",
           lambda node: int(node.proposals.disk_is_full)),
    _gauge("disk_used_bytes", "What the log and the snapshots take up.", lambda node: node.room.used_bytes),
    _gauge("disk_quota_bytes", "What they may take up; 0: there is no quota.", lambda node: node.room.quota_bytes),
    _gauge("no_room", "1 while only deletes are taken, because room on the disk is short.",
           lambda node: int(node.room.reason is not None)),
    # -- peers ----------------------------------------------------------------------------------------
    Family("lattice_peer_lag_entries", "gauge", "Leader only: entries that this member is not known to have.",
           _followers(lambda node, progress: node.core.last_index - progress.match_index), ("peer",)),
    Family("lattice_peer_inflight_bytes", "gauge", "Leader only: sent to this member and not acknowledged.",
           _followers(lambda node, progress: progress.inflight_bytes), ("peer",)),
    Family("lattice_peer_silent_seconds", "gauge", "Leader only: since this member was last heard from.",
           _followers(lambda node, progress: node.seconds_since(progress.last_heard_ns)), ("peer",)),
    Family("lattice_peer_connected", "gauge", "1 if a stream with this member is up.",
           _peers(lambda node, peer: int(node.transport.connected(peer))), ("peer",)),
    Family("lattice_peer_queue_bytes", "gauge", "Entries that wait to be sent to this member.",
           _peers(lambda node, peer: node.transport.queued_bytes(peer)), ("peer",)),
    Family("lattice_peer_round_trip_seconds", "histogram", "Heartbeats to this member, until the answer is here "
           "(measured while leading).", _round_trips, ("peer",)),
    # -- writes ---------------------------------------------------------------------------------------
    _counter("write_operations", "Operations in the write batches answered with their results.",
             lambda m: m.write_operations),
    Family("lattice_write_batch_seconds", "histogram", "Write batches from arrival to their results.",
           _count(lambda m: m.write_seconds.read())),
    Family("lattice_write_batches_failed_total", "counter", "Write batches answered with an error.",
           _failures(lambda m: m.write_batches_failed), ("reason",)),
    _gauge("pending_write_bytes", "Write batches accepted and not yet answered.",
           lambda node: node.proposals.pending_bytes),
    _gauge("storage_queue_units", "Units of the log that wait to be durable.", lambda node: node.storage.queued),
    _gauge("apply_queue_entries", "Entries committed and not yet applied here.",
           lambda node: max(0, node.core.commit_index - node.machine.applied_index)),
    # -- reads ----------------------------------------------------------------------------------------
    Family("lattice_read_operations_total", "counter", "Reads answered, by the consistency asked for.",
           lambda node: (((name,), reads.operations) for name, reads in node.metrics.reads.items()),
           ("consistency",)),
    Family("lattice_read_batch_seconds", "histogram", "Read batches from arrival to their answers.",
           lambda node: (((name,), reads.seconds.read()) for name, reads in node.metrics.reads.items()),
           ("consistency",)),
    Family("lattice_read_batches_failed_total", "counter", "Read batches answered with an error.",
           _failures(lambda m: m.read_batches_failed), ("reason",)),
    _gauge("pending_read_batches", "Read batches that wait.", lambda node: node.reads.pending),
    # -- calls ----------------------------------------------------------------------------------------
    Family("lattice_rpc_seconds", "histogram", "Unary calls on the client port.", _call_seconds, ("rpc",)),
    Family("lattice_rpc_errors_total", "counter", "Calls on the client port that ended with an error.", _call_errors,
           ("rpc", "code")),
    Family("lattice_open_streams", "gauge", "Streams open on the client port.",
           lambda node: _streams(node, total=False), ("rpc",)),
    Family("lattice_streams_opened_total", "counter", "Streams opened on the client port so far.",
           lambda node: _streams(node, total=True), ("rpc",)),
    # -- state ----------------------------------------------------------------------------------------
    _gauge("keys", "Keys in the store.", lambda node: len(node.machine.store)),
    _gauge("revision", "The store's revision: one for each write.", lambda node: node.machine.revision),
    _gauge("sessions", "Client sessions.", lambda node: len(node.machine.sessions)),
    # -- snapshots ------------------------------------------------------------------------------------
    _counter("snapshots_taken", "Snapshots taken here.", lambda m: m.snapshots_taken),
    _counter("snapshots_failed", "Snapshots that could not be written.", lambda m: m.snapshots_failed),
    Family("lattice_snapshot_seconds", "histogram", "How long taking a snapshot took.",
           _count(lambda m: m.snapshot_seconds.read())),
    _gauge("snapshot_bytes", "Size of the newest snapshot; 0: there is none.",
           lambda node: node.snapshots.newest.size_bytes if node.snapshots.newest is not None else 0),
    _counter("snapshots_sent", "Snapshots that a follower has taken in.", lambda m: m.snapshots_sent),
    _counter("snapshot_sends_failed", "Attempts to send a snapshot that failed or were cut.",
             lambda m: m.snapshots_send_failed),
    _gauge("snapshot_sends", "Followers that are being sent a snapshot now.",
           lambda node: node.snapshots.sender.under_way),
    _counter("snapshots_installed", "Snapshots received and made this member's state.",
             lambda m: m.snapshots_installed),
    # -- certificates ---------------------------------------------------------------------------------
    Family("lattice_tls_certificate_expiry_timestamp_seconds", "gauge", "When the certificate of this port ends, in "
           "seconds since 1970; only of ports with TLS.", _certificates, ("port",)),
    # -- the process ----------------------------------------------------------------------------------
    _counter("states_compared", "Comparisons of this member's state with the leader's after the same entry.",
             lambda m: m.states_compared),
    _counter("states_differed", "Comparisons in which another member's state was not this one's: look at once.",
             lambda m: m.states_differed),
    _counter("held_up", "How often the event loop's timer came so late that the process must have been stopped or "
             "starved.", lambda m: m.held_up),
)  # fmt: skip
"""In the order of docs/observability.md. Beside them are the usual ``process_*`` metrics (memory, CPU, descriptors)."""
