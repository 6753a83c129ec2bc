"""What members count, as clients see it: since the start of the member, so two readings make a rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lattice_core.histogram import HistogramReading
from lattice_core.rpc.pb import raft_pb2


@dataclass(frozen=True, slots=True)
class NodeCounters:
    """One member's, at one moment."""

    elections_started: int
    leader_changes: int
    write_operations: int
    """Executed for its clients, so counted by leaders only."""
    write_batches_failed: int
    linearizable_reads: int
    lease_reads: int
    stale_reads: int
    read_batches_failed: int
    held_up: int
    """How often the process was stopped or starved."""
    fsync: HistogramReading
    write_batches: HistogramReading
    read_batches: HistogramReading
    pending_write_bytes: int
    fsync_stalled_seconds: float
    disk_full: bool
    disk_free_bytes: int | None
    memory_bytes: int | None
    cpu_seconds: float
    not_ready: str
    """Why it should not be sent requests; empty: it is ready."""
    disk_used_bytes: int = 0
    disk_quota_bytes: int = 0
    no_room: str = ""
    """Why only deletes are taken; empty: everything is."""

    @property
    def read_operations(self) -> int:
        return self.linearizable_reads + self.lease_reads + self.stale_reads


@dataclass(frozen=True, slots=True)
class PeerProgress:
    """How far a leader knows another member to be."""

    node_id: int
    state: str
    """probe, replicate or snapshot"""
    match_index: int
    seconds_since_heard: float
    round_trip: HistogramReading | None
    """Of heartbeats since the leader was started; None: none was answered yet."""
    inflight_bytes: int


@dataclass(frozen=True, slots=True)
class CertificateDetails:
    """What a member shows at a port that speaks TLS. Times are since 1970."""

    port: str
    """client or peer"""
    path: str
    """Of its file, as the member was told."""
    not_before_seconds: float
    not_after_seconds: float


@dataclass(frozen=True, slots=True)
class NodeDetails:
    """How a member is set up and what it runs on. None: its system does not say."""

    wall_clock_seconds: float
    heartbeat_ms: int
    election_timeout_min_ms: int
    election_timeout_max_ms: int
    open_descriptors: int | None
    descriptor_limit: int | None
    disk_bytes: int | None
    data_dir: str
    snapshot_age_seconds: float | None
    snapshot_bytes: int | None
    snapshots_failed: int
    certificates: tuple[CertificateDetails, ...] = ()
    """In force when it answered; none where no port speaks TLS."""


def details_from_pb(details: raft_pb2.NodeDetails) -> NodeDetails:
    def known(name: str) -> Any:
        return getattr(details, name) if details.HasField(name) else None

    return NodeDetails(
        wall_clock_seconds=details.wall_clock_seconds,
        heartbeat_ms=details.heartbeat_ms,
        election_timeout_min_ms=details.election_timeout_min_ms,
        election_timeout_max_ms=details.election_timeout_max_ms,
        open_descriptors=known("open_descriptors"),
        descriptor_limit=known("descriptor_limit"),
        disk_bytes=known("disk_bytes"),
        data_dir=details.data_dir,
        snapshot_age_seconds=known("snapshot_age_seconds"),
        snapshot_bytes=known("snapshot_bytes"),
        snapshots_failed=details.snapshots_failed,
        certificates=tuple(
            CertificateDetails(each.port, each.path, each.not_before_seconds, each.not_after_seconds)
            for each in details.certificates
        ),
    )


def counters_from_pb(counters: raft_pb2.NodeCounters) -> NodeCounters:
    return NodeCounters(
        elections_started=counters.elections_started,
        leader_changes=counters.leader_changes,
        write_operations=counters.write_operations,
        write_batches_failed=counters.write_batches_failed,
        linearizable_reads=counters.linearizable_reads,
        lease_reads=counters.lease_reads,
        stale_reads=counters.stale_reads,
        read_batches_failed=counters.read_batches_failed,
        held_up=counters.held_up,
        fsync=histogram_from_pb(counters.fsync),
        write_batches=histogram_from_pb(counters.write_batches),
        read_batches=histogram_from_pb(counters.read_batches),
        pending_write_bytes=counters.pending_write_bytes,
        fsync_stalled_seconds=counters.fsync_stalled_seconds,
        disk_full=counters.disk_full,
        disk_free_bytes=counters.disk_free_bytes if counters.HasField("disk_free_bytes") else None,
        memory_bytes=counters.memory_bytes if counters.HasField("memory_bytes") else None,
        cpu_seconds=counters.cpu_seconds,
        not_ready=counters.not_ready,
        disk_used_bytes=counters.disk_used_bytes,
        disk_quota_bytes=counters.disk_quota_bytes,
        no_room=counters.no_room,
    )


def progress_from_pb(progress: raft_pb2.PeerProgress) -> PeerProgress:
    return PeerProgress(
        node_id=progress.node_id,
        state=progress.state,
        match_index=progress.match_index,
        seconds_since_heard=progress.seconds_since_heard,
        round_trip=histogram_from_pb(progress.round_trip) if progress.HasField("round_trip") else None,
        inflight_bytes=progress.inflight_bytes,
    )


def histogram_from_pb(histogram: raft_pb2.Histogram) -> HistogramReading:
    """Also of a member of another version, whose buckets may be others, or none."""
    bounds, counts = tuple(histogram.bounds), tuple(histogram.counts)
    if len(counts) != len(bounds) + 1:
        return HistogramReading((), (0,), 0.0)
    return HistogramReading(bounds, counts, histogram.total_seconds)
