"""What a simulated server does for clients: gathers proposals, remembers who waits for which entry, answers.

The counterpart of :mod:`lattice_core.server.proposals` and the client service. It lives as long as the process:
:meth:`~lattice_core.sim.node.SimNode.start` makes a new one, and who waited on the old one hears nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lattice_core.kv import BatchResult, BatchStatus, ClientBatch, encode_payload
from lattice_core.raft.config import MILLISECOND_NS
from lattice_core.raft.errors import Busy, NotLeader
from lattice_core.raft.node import RaftNode
from lattice_core.raft.ready import ReadRefused, ReadReleased
from lattice_core.raft.types import Entry, NodeId
from lattice_core.sim.violation import Violation

if TYPE_CHECKING:
    from lattice_core.sim.node import SimNode


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks of one node."""

    client: int
    attempt: int
    kind: str
    """open, write, read, lease or follower (a read, wherever it lands)."""
    key: bytes = b""
    batch: ClientBatch | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """``status``: ok; retry (not applied, ask ``leader``); unknown (may be applied); expired."""

    client: int
    attempt: int
    status: str
    leader: NodeId | None = None
    packed: bytes = b""
    value: bytes | None = None


class Service:
    """See the module's docstring."""

    def __init__(self, node: SimNode) -> None:
        self.node = node
        self._proposals: list[Request] = []
        self._gathering = False
        self._waiters: dict[int, tuple[int, list[Request]]] = {}
        self._reads: dict[int, Request] = {}
        self._next_read = 0
        self._lease_reads: list[tuple[int, Request]] = []
        self._lead_since_ns = 0
        self._lead_time_ms = 0

    # ---- what clients ask ---------------------------------------------------------------------------

    def request(self, request: Request) -> None:
        """A client's request has arrived."""
        node = self.node
        raft = node.raft
        assert raft is not None
        if request.kind in ("open", "write"):
            if not raft.is_leader:
                self._answer(request, "retry", raft.leader_id)
                return
            self._proposals.append(request)
            if not self._gathering:
                self._gathering = True
                node.world.later(node.world.plan.settings.gather_us * 1000, self._propose, node.incarnation)
            return
        if request.kind == "lease":
            index = raft.lease_read_index(node.clock_ns)
            if index is not None:
                node.world.count("lease reads")
                if index <= node.machine.applied_index:
                    self._answer_read(request)
                else:
                    self._lease_reads.append((index, request))
                return
        if request.kind != "follower" and not raft.is_leader:
            self._answer(request, "retry", raft.leader_id)
            return
        self._next_read += 1
        try:
            raft.read_index(self._next_read, node.clock_ns)
        except (NotLeader, Busy):
            self._answer(request, "retry", raft.leader_id)
            return
        self._reads[self._next_read] = request
        node.pump()

    def _propose(self, incarnation: int) -> None:
        node = self.node
        if incarnation != node.incarnation:
            return
        if node.paused_until_ns > node.world.now_ns:
            node.world.at(node.paused_until_ns, self._propose, incarnation)
            return
        raft = node.raft
        assert raft is not None
        requests, self._proposals = self._proposals, []
        self._gathering = False
        # The log's time goes on by this leader's monotonic clock, never by a wall clock (SAFETY 50).
        time_ms = max(self._lead_time_ms, 0) + (node.clock_ns - self._lead_since_ns) // MILLISECOND_NS
        batches = [request.batch for request in requests if request.batch is not None]
        try:
            index, term = raft.propose(encode_payload(time_ms, batches), node.clock_ns)
        except NotLeader as error:
            for request in requests:
                self._answer(request, "retry", error.leader_id)
            return
        except Busy:
            for request in requests:
                self._answer(request, "retry", None)
            return
        self._waiters[index] = (term, requests)
        node.pump()

    # ---- what becomes of it -------------------------------------------------------------------------

    def leads(self, time_ms: int) -> None:
        """This node was elected; ``time_ms`` is the log's time so far."""
        self._lead_since_ns = self.node.clock_ns
        self._lead_time_ms = time_ms

    def applied(self, raft: RaftNode, entry: Entry, results: list[BatchResult]) -> None:
        """``entry`` was applied; whoever waited for its index learns what became of it."""
        waiting = self._waiters.pop(entry.index, None)
        if waiting is None:
            return
        term, requests = waiting
        if term != entry.term:
            for request in requests:
                self._answer(request, "retry", raft.leader_id)
            return
        if len(results) != len(requests):
            text = f"n{self.node.id} has {len(results)} results of the {len(requests)} batches in entry {entry.index}"
            raise Violation("apply", text)
        for request, result in zip(requests, results, strict=True):
            if result.status is BatchStatus.OK:
                self._answer(request, "ok", packed=result.packed)
            elif result.status is BatchStatus.EXPIRED:
                self._answer(request, "expired")
            elif result.status is BatchStatus.WINDOW:
                self._answer(request, "retry", raft.leader_id)
            else:
                self._answer(request, "stale")

    def release_lease_reads(self) -> None:
        """More is applied: answer the lease reads that waited for it."""
        if not self._lease_reads:
            return
        applied = self.node.machine.applied_index
        due = [request for index, request in self._lease_reads if index <= applied]
        self._lease_reads = [item for item in self._lease_reads if item[0] > applied]
        for request in due:
            self._answer_read(request)

    def released(self, read: ReadReleased) -> None:
        request = self._reads.pop(read.request_id, None)
        if request is not None:
            self._answer_read(request)

    def refused(self, read: ReadRefused) -> None:
        request = self._reads.pop(read.request_id, None)
        if request is not None:
            self._answer(request, "retry", read.leader_id)

    def disappoint_waiters(self, leader: NodeId | None) -> None:
        """Leadership is lost: what was proposed may or may not be committed by the next leader."""
        for _, requests in self._waiters.values():
            for request in requests:
                self._answer(request, "unknown", leader)
        self._waiters.clear()

    def _answer_read(self, request: Request) -> None:
        found = self.node.machine.store.get(request.key)
        self._answer(request, "ok", value=None if found is None else found.value)

    def _answer(self, request: Request, status: str, leader: NodeId | None = None, **result: Any) -> None:
        self.node.world.links.answer(Answer(request.client, request.attempt, status, leader, **result))
