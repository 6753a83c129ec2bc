"""Statuses with counters, as members would send them, for what watches a cluster."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from lattice_core.client import ClusterStatus, MemberReport, NodeCounters, NodeStatus, PeerProgress
from lattice_core.histogram import Histogram, HistogramReading

CLUSTER_ID = 0xF8721FD7386F22D0


def latencies(*seconds: float) -> HistogramReading:
    histogram = Histogram()
    for each in seconds:
        histogram.note(each)
    return histogram.read()


def counters(**changes: Any) -> NodeCounters:
    values: dict[str, Any] = {
        "elections_started": 0,
        "leader_changes": 1,
        "write_operations": 0,
        "write_batches_failed": 0,
        "linearizable_reads": 0,
        "lease_reads": 0,
        "stale_reads": 0,
        "read_batches_failed": 0,
        "held_up": 0,
        "fsync": latencies(),
        "write_batches": latencies(),
        "read_batches": latencies(),
        "pending_write_bytes": 0,
        "fsync_stalled_seconds": 0.0,
        "disk_full": False,
        "disk_free_bytes": 50 << 30,
        "memory_bytes": 61 << 20,
        "cpu_seconds": 0.0,
        "not_ready": "",
    }
    return NodeCounters(**{**values, **changes})


def node(name: str, role: str = "follower", *, uptime: float = 100.0, **changes: Any) -> NodeStatus:
    number = int(name[1:])
    counted = {key: changes.pop(key) for key in list(changes) if key in NodeCounters.__dataclass_fields__}
    values: dict[str, Any] = {
        "cluster_id": CLUSTER_ID,
        "node_id": number,
        "name": name,
        "client_addr": f"127.0.0.1:740{number}",
        "peer_addr": f"127.0.0.1:750{number}",
        "role": role,
        "voter": role != "learner",
        "term": 3,
        "leader_id": 1,
        "commit_index": 5000,
        "applied_index": 5000,
        "last_index": 5000,
        "snapshot_index": 4000,
        "version": "0.1.0",
        "revision": 77,
        "state_hash": 5,
        "keys": 2,
        "sessions": 1,
        "log_bytes": 1 << 24,
        "uptime_seconds": uptime,
        "counters": counters(**counted),
    }
    return NodeStatus(**{**values, **changes})


def away(name: str, seconds: float | None = 12.0) -> MemberReport:
    return replace(report(node(name)), reachable=False, status=None, unreachable_seconds=seconds)


def report(status: NodeStatus, **changes: Any) -> MemberReport:
    made = MemberReport(
        id=status.node_id,
        name=status.name,
        peer_addr=status.peer_addr,
        client_addr=status.client_addr,
        voter=status.voter,
        learner=status.role == "learner",
        reachable=True,
        unreachable_seconds=None,
        status=status,
    )
    return replace(made, **changes)


def cluster(*members: NodeStatus | MemberReport, leader: int | None = 1, term: int = 3) -> ClusterStatus:
    reports = tuple(each if isinstance(each, MemberReport) else report(each) for each in members)
    return ClusterStatus(CLUSTER_ID, leader, term, reports)


def trip(peer: int, reading: HistogramReading) -> PeerProgress:
    return PeerProgress(peer, "replicate", 5000, 0.1, reading, 0)


class Watched:
    """In place of StatusWatch: the answers given, one after the other; the last again and again."""

    def __init__(self, answers: Iterable[ClusterStatus | Exception]) -> None:
        self._answers = list(answers)
        self.asked = 0

    def __call__(self, _endpoints: str, **_: object) -> Watched:
        return self

    async def __aenter__(self) -> Watched:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def ask(self, _timeout: float = 5.0) -> ClusterStatus:
        answer = self._answers[min(self.asked, len(self._answers) - 1)]
        self.asked += 1
        if isinstance(answer, Exception):
            raise answer
        return answer
