"""What a node counts about itself, as plain numbers: the one source of /metrics, ``lattice top`` and ``doctor``.

Knows nothing of Prometheus or of the wire. Counting is always on, because it costs next to nothing: an addition or
a bisection for each client batch, fsync and heartbeat, none for each operation or entry. What the core, the
queues and the state machine know anyway (term, indices, bytes that wait) is not counted here but read from them
when somebody asks.

All of it belongs to the event loop but ``fsync_seconds`` and what stands beside it, which belong to whoever makes
the fsync: the storage thread or the loop, never both at once.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict

from lattice_core.histogram import Histogram
from lattice_core.raft.ready import RoleChanged
from lattice_core.raft.types import NodeId, Role
from lattice_core.rpc.pb import kv_pb2

CONSISTENCIES: dict[int, str] = {
    kv_pb2.CONSISTENCY_UNSPECIFIED: "linearizable",
    kv_pb2.CONSISTENCY_LINEARIZABLE: "linearizable",
    kv_pb2.CONSISTENCY_LEASE: "lease",
    kv_pb2.CONSISTENCY_STALE: "stale",
}
"""Of requests, by the name that people use."""


class ReadMetrics:
    """Reads of one consistency that were answered."""

    __slots__ = ("operations", "seconds")

    def __init__(self) -> None:
        self.operations = 0
        self.seconds = Histogram()
        """Of whole batches, from arrival to answer."""


class CallMetrics:
    """Calls of one RPC."""

    __slots__ = ("errors", "seconds", "streams_open", "streams_total")

    def __init__(self) -> None:
        self.seconds = Histogram()
        """Unary calls, from handler to answer, those that failed included."""
        self.errors: Counter[str] = Counter()
        """By the name of the gRPC status code."""
        self.streams_open = 0
        self.streams_total = 0


class NodeMetrics:
    """One node's counters; see the module. Everything only grows, but for what is ``open``."""

    def __init__(self) -> None:
        # Elections.
        self.elections_started = 0
        """Candidacies: this node asked for votes."""
        self.pre_votes_started = 0
        self.leader_changes = 0
        """Leaders this node has come to know, itself included, one for each term."""
        self.role_changes = 0
        # Writes.
        self.write_operations = 0
        """In batches that were answered with their results; a retry that is answered from memory counts again."""
        self.write_seconds = Histogram()
        """Of executed batches, from arrival to the reply."""
        self.write_batches_failed: Counter[str] = Counter()
        """By kv.proto's ErrorCode."""
        self.entries_proposed = 0
        self.bytes_proposed = 0
        # Reads.
        self.reads = {name: ReadMetrics() for name in ("linearizable", "lease", "stale")}
        self.read_batches_failed: Counter[str] = Counter()
        # The state, against the other members'.
        self.states_compared = 0
        self.states_differed = 0
        # The disk.
        self.fsync_seconds = Histogram()
        self.fsync_began: float | None = None
        """When the fsync under way began (perf_counter); None: none is."""
        # Peers.
        self.round_trip_seconds: defaultdict[NodeId, Histogram] = defaultdict(Histogram)
        # Snapshots.
        self.snapshots_taken = 0
        self.snapshots_failed = 0
        self.snapshot_seconds = Histogram()
        """Of taking one, published and marked."""
        self.snapshots_sent = 0
        self.snapshots_send_failed = 0
        self.snapshots_installed = 0
        # The loop.
        self.held_up = 0
        """How often the timer came so late that the process must have been stopped or starved."""
        # Calls, by "Service/Method".
        self.calls: defaultdict[str, CallMetrics] = defaultdict(CallMetrics)
        self._role: Role | None = None
        self._leader: tuple[int, NodeId] | None = None

    def role_changed(self, event: RoleChanged) -> None:
        """The core has a new role, term or leader."""
        if event.role is Role.CANDIDATE:
            self.elections_started += 1
        elif event.role is Role.PRE_CANDIDATE:
            self.pre_votes_started += 1
        if event.role is not self._role:
            self._role = event.role
            self.role_changes += 1
        if event.leader_id is not None and (event.term, event.leader_id) != self._leader:
            self._leader = (event.term, event.leader_id)
            self.leader_changes += 1

    def wrote(self, operations: int, began: float) -> None:
        """A batch that arrived at ``began`` was executed."""
        self.write_operations += operations
        self.write_seconds.note(time.perf_counter() - began)

    def write_failed(self, detail: kv_pb2.ErrorDetail) -> None:
        self.write_batches_failed[_code(detail)] += 1

    def have_read(self, consistency: int, operations: int, began: float) -> None:
        """A batch of reads that arrived at ``began`` is answered."""
        reads = self.reads[CONSISTENCIES.get(consistency, "linearizable")]
        reads.operations += operations
        reads.seconds.note(time.perf_counter() - began)

    def read_failed(self, detail: kv_pb2.ErrorDetail) -> None:
        self.read_batches_failed[_code(detail)] += 1

    def fsync_stalled_seconds(self) -> float:
        """How long the fsync under way has been waited for; a disk that hangs shows nowhere else."""
        began = self.fsync_began
        return 0.0 if began is None else time.perf_counter() - began


def _code(detail: kv_pb2.ErrorDetail) -> str:
    """``not_leader``, ``busy``, ...; a number for what this version does not know."""
    try:
        return kv_pb2.ErrorCode.Name(detail.code).removeprefix("ERROR_CODE_").lower()
    except ValueError:
        return str(int(detail.code))
