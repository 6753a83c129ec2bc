"""A member's account of itself: for status tables, for joining servers, for ``lattice top`` and ``doctor``.

Counters are given as they stand since the start, histograms with all their buckets: whoever asks twice can subtract,
so nobody's interval is ours to keep. Making one costs the loop about a fifth of a millisecond.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from lattice_core.errors import StorageFailed
from lattice_core.histogram import HistogramReading
from lattice_core.rpc.codec import configuration_to_pb
from lattice_core.rpc.pb import raft_pb2
from lattice_core.server.clock import now_ns

if TYPE_CHECKING:
    from lattice_core.server.node import Node

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def member_status(node: Node) -> raft_pb2.MemberStatus:
    """As of now; the state hash is that of the applied index, so no entry may be half applied."""
    assert node.applier.between_entries or node.failed.done()
    core, machine, local, now = node.core, node.machine, node.peers.local, now_ns()
    status = raft_pb2.MemberStatus(
        cluster_id=local.cluster_id,
        node_id=local.node_id,
        name=local.name,
        client_addr=local.client_addr,
        peer_addr=local.peer_addr,
        role=node.role_name(),
        voter=core.configuration.is_voter(core.id),
        term=core.term,
        leader_id=core.leader_id,
        commit_index=core.commit_index,
        applied_index=machine.applied_index,
        last_index=core.last_index,
        snapshot_index=core.snapshot_index,
        version=local.version,
        revision=machine.revision,
        state_hash=machine.state_hash,
        incarnation=local.incarnation,
        configuration=configuration_to_pb(core.configuration),
        configuration_index=core.configuration_index,
        log_bytes=node.log_bytes(),
        keys=len(machine.store),
        sessions=len(machine.sessions),
        uptime_seconds=node.uptime_seconds(),
        counters=_counters(node),
    )
    round_trips = node.metrics.round_trip_seconds
    for peer, progress in core.progress.items():
        status.progress.add(
            node_id=peer,
            state=progress.state.value,
            match_index=progress.match_index,
            next_index=progress.next_index,
            seconds_since_heard=max(0, now - progress.last_heard_ns) / 1e9,
            round_trip=_to_pb(round_trips[peer].read()) if peer in round_trips else None,
            inflight_bytes=progress.inflight_bytes,
            **node.snapshots.sender.progress_of(peer),
        )
    return status


def _counters(node: Node) -> raft_pb2.NodeCounters:
    metrics = node.metrics
    reads = metrics.reads
    return raft_pb2.NodeCounters(
        elections_started=metrics.elections_started,
        leader_changes=metrics.leader_changes,
        write_operations=metrics.write_operations,
        write_batches_failed=metrics.write_batches_failed.total(),
        linearizable_reads=reads["linearizable"].operations,
        lease_reads=reads["lease"].operations,
        stale_reads=reads["stale"].operations,
        read_batches_failed=metrics.read_batches_failed.total(),
        held_up=metrics.held_up,
        fsync=_to_pb(metrics.fsync_seconds.read()),
        write_batches=_to_pb(metrics.write_seconds.read()),
        read_batches=_to_pb(_together(each.seconds.read() for each in reads.values())),
        pending_write_bytes=node.proposals.pending_bytes,
        fsync_stalled_seconds=metrics.fsync_stalled_seconds(),
        disk_full=node.proposals.disk_is_full,
        disk_free_bytes=_free_bytes(node),
        memory_bytes=memory_bytes(),
        cpu_seconds=time.process_time(),
        not_ready=node.readiness.reason() or "",
        disk_used_bytes=node.room.used_bytes,
        disk_quota_bytes=node.room.quota_bytes,
        no_room=node.room.reason or "",
    )


def _to_pb(reading: HistogramReading) -> raft_pb2.Histogram:
    return raft_pb2.Histogram(bounds=reading.bounds, counts=reading.counts, total_seconds=reading.total_seconds)


def _together(readings: Iterable[HistogramReading]) -> HistogramReading:
    """Several histograms with the same bounds as one."""
    first, *others = readings
    counts = tuple(map(sum, zip(first.counts, *(each.counts for each in others), strict=True)))
    return HistogramReading(first.bounds, counts, first.total_seconds + sum(each.total_seconds for each in others))


def _free_bytes(node: Node) -> int | None:
    try:
        return node.free_bytes()
    except (OSError, StorageFailed):
        return None


def memory_bytes() -> int | None:
    """This process's resident memory; None where the system does not say (other than Linux)."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except OSError:
        return None
