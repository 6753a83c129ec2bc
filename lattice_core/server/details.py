"""What a member tells of its surroundings when somebody looks for trouble (``lattice doctor``): never unasked.

Listing descriptors and asking the file system may take milliseconds on a member in trouble, which is when they are
asked for; so they are looked up on a thread, and the loop goes on.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from lattice_core.rpc.pb import raft_pb2

if TYPE_CHECKING:
    from lattice_core.server.node import Node


async def node_details(node: Node) -> raft_pb2.NodeDetails:
    """All but the wall clock, which only means something just before the answer is sent."""
    config, newest = node.config, node.snapshots.newest
    details = raft_pb2.NodeDetails(
        heartbeat_ms=config.heartbeat_ms,
        election_timeout_min_ms=config.election_timeout_min_ms,
        election_timeout_max_ms=config.election_timeout_max_ms,
        data_dir=node.data_dir,
        snapshot_bytes=newest.size_bytes if newest is not None else None,
        snapshots_failed=node.metrics.snapshots_failed,
        certificates=[
            raft_pb2.CertificateDetails(
                port=listener.port,
                path=listener.current().cert_path,
                not_before_seconds=listener.certificate.not_before.timestamp(),
                not_after_seconds=listener.certificate.not_after.timestamp(),
            )
            for listener in node.tls.listeners
        ],
    )
    await asyncio.to_thread(_look, details, newest.path if newest is not None else None)
    return details


def _look(details: raft_pb2.NodeDetails, snapshot: str | None) -> None:
    """Fill in what the system says; what it does not say stays absent."""
    details.data_dir = os.path.abspath(details.data_dir)
    limits = descriptors()
    if limits is not None:
        details.open_descriptors, details.descriptor_limit = limits
    try:
        disk = os.statvfs(details.data_dir)
        details.disk_bytes = disk.f_blocks * disk.f_frsize
        if snapshot is not None:
            details.snapshot_age_seconds = max(0.0, time.time() - os.stat(snapshot).st_mtime)
    except OSError:
        pass  # the directory is gone, or replaced by a newer snapshot just now


def descriptors() -> tuple[int, int] | None:
    """How many descriptors this process has open, and may have; None where the system does not say."""
    import resource

    try:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return len(os.listdir("/dev/fd")), limit
    except OSError:
        return None
