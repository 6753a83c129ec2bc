"""Client batches on their way into the log, and the callers that wait for what becomes of them.

All batches that wait when the loop comes round become one entry (bounded in bytes, so that applying it
stays short); a lone batch leaves in the same turn it came. There is no timer: under load the turns get
longer and the entries bigger by themselves.

Whoever submitted a batch gets exactly one reply:

* its result, when an entry applied at the index it got has the term it got;
* NOT_LEADER or NO_LEADER, when it never entered the log, or when another entry was applied in its place:
  known not to have happened;
* BUSY, when a bound is reached: nothing was proposed;
* OUTCOME_UNKNOWN, when leadership was lost with the entry in the log undecided. A batch under a session is
  told so at once, for its client retries elsewhere and the session makes that safe. One without a session
  must not be retried blindly, so it waits a little longer for the new leader to decide it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Protocol

from lattice_core.errors import Busy
from lattice_core.kv import BatchResult, BatchStatus, ClientBatch, Payload, encode_payload, frees
from lattice_core.raft import errors as raft_errors
from lattice_core.raft.types import NodeId
from lattice_core.rpc.pb import kv_pb2
from lattice_core.server.clock import ClusterClock
from lattice_core.server.hints import Hints
from lattice_core.server.metrics import NodeMetrics
from lattice_core.server.tracing import NodeTracer

BATCH_OVERHEAD_BYTES = 512
"""What a waiting batch is charged beyond its commands: its objects here, its frame in the entry."""

DECISION_WAIT_SECONDS = 2.0
"""How long a batch without a session waits for a new leader to decide it: an election and a bit."""

Outcome = BatchResult | kv_pb2.ErrorDetail
Reply = Callable[[Outcome], None]


class Core(Protocol):
    """What is needed of the consensus core here."""

    @property
    def is_leader(self) -> bool: ...

    @property
    def leader_id(self) -> NodeId | None: ...

    def propose(self, payload: bytes, now_ns: int) -> tuple[int, int]: ...


class Proposal:
    """One client batch and who waits for it."""

    __slots__ = ("batch", "began", "reply", "size")

    def __init__(self, batch: ClientBatch, reply: Reply) -> None:
        self.batch = batch
        self.reply = reply
        self.size = len(batch.commands) + BATCH_OVERHEAD_BYTES
        self.began = time.perf_counter()


class _Undecided:
    """An entry in the log: what it carries, and the callers of its batches, in order."""

    __slots__ = ("payload", "proposals", "term")

    def __init__(self, term: int, payload: Payload, proposals: list[Proposal]) -> None:
        self.term = term
        self.payload = payload
        self.proposals = proposals


class Proposals:
    """Lives on the loop; ``flush`` is called once per pass of the Ready loop."""

    def __init__(
        self,
        core: Core,
        clock: ClusterClock,
        hints: Hints,
        kick: Callable[[], None],
        *,
        max_pending_bytes: int,
        max_entry_bytes: int,
        metrics: NodeMetrics | None = None,
        tracer: NodeTracer | None = None,
    ) -> None:
        self._core = core
        self._clock = clock
        self._hints = hints
        self._kick = kick
        self._max_pending_bytes = max_pending_bytes
        self._max_entry_bytes = max_entry_bytes
        self._metrics = metrics if metrics is not None else NodeMetrics()
        self._tracer = tracer
        self._waiting: list[Proposal] = []
        self._undecided: dict[int, _Undecided] = {}
        # Invariant: the sizes of all proposals that have not had their reply.
        self.pending_bytes = 0
        self.disk_is_full = False
        self.no_room: str | None = None
        """Why only what frees room is taken (``room.py``); None: everything is."""
        self.room_left = math.inf
        """Bytes that may be proposed before anybody looks again."""
        self._give_up: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Nobody waits for anything."""
        return not self._waiting and not self._undecided

    def submit(self, batch: ClientBatch, reply: Reply) -> None:
        """Take a validated batch (``ops`` decoded). Replies later, or at once with the reason why not."""
        core = self._core
        if not core.is_leader:
            self._refuse(self._hints.not_leader(core.leader_id), reply)
            return
        proposal = Proposal(batch, reply)
        if self.pending_bytes + proposal.size > self._max_pending_bytes:
            busy = Busy(
                f"{self.pending_bytes} bytes of writes wait, and with {proposal.size} more it would be above "
                f"{self._max_pending_bytes} (max_pending_bytes)",
                hint="write more slowly; lattice top shows what the leader waits for",
            )
            self._refuse(self._hints.error(busy), reply)
            return
        if self.disk_is_full:
            full = Busy("the leader's disk is full: nothing can be written until there is room")
            self._refuse(self._hints.error(full), reply)
            return
        if self.no_room is not None and not frees(batch.ops or ()):
            short = Busy(self.no_room, hint="delete keys, which goes through, or give it more room: docs/limits.md")
            self._refuse(self._hints.error(short), reply)
            return
        self.pending_bytes += proposal.size
        self._waiting.append(proposal)
        self._kick()

    def _refuse(self, detail: kv_pb2.ErrorDetail, reply: Reply) -> None:
        self._metrics.write_failed(detail)
        reply(detail)

    def flush(self, now_ns: int) -> None:
        """Propose all that waits, as few entries."""
        waiting = self._waiting
        if not waiting:
            return
        self._waiting = []
        group: list[Proposal] = []
        size = 0
        for proposal in waiting:
            if group and size + proposal.size > self._max_entry_bytes:
                self._propose(group, now_ns)
                group, size = [], 0
            group.append(proposal)
            size += proposal.size
        self._propose(group, now_ns)

    def _propose(self, group: list[Proposal], now_ns: int) -> None:
        payload = Payload(self._clock.read(now_ns), [proposal.batch for proposal in group])
        encoded = encode_payload(payload.time_ms, payload.batches)
        try:
            index, term = self._core.propose(encoded, now_ns)
        except raft_errors.NotLeader as error:
            self._answer_all(group, self._hints.not_leader(error.leader_id))
        except raft_errors.Busy as error:
            self._answer_all(group, self._hints.error(Busy(str(error))))
        else:
            replaced = self._undecided.get(index)
            if replaced is not None:
                # Ours of an earlier term, truncated since; until this one is committed, it may come back.
                self._answer_all(replaced.proposals, self._hints.outcome_unknown(None))
            self._undecided[index] = _Undecided(term, payload, group)
            self.room_left -= len(encoded)
            if self.room_left < 0 and self.no_room is None:
                self.no_room = "the room on the disk that there was a moment ago is used up"
            self._metrics.entries_proposed += 1
            self._metrics.bytes_proposed += len(encoded)
            if self._tracer is not None:
                self._tracer.proposed(index, term, group)

    def place_of(self, commands: bytes) -> tuple[int, int, int] | None:
        """Of the batch with these very bytes, if it is part of an undecided entry: that one's index and term, and how
        many batches are in it."""
        for index, undecided in reversed(self._undecided.items()):
            if any(proposal.batch.commands is commands for proposal in undecided.proposals):
                return index, undecided.term, len(undecided.proposals)
        return None

    # -- what became of them ----------------------------------------------------------------------

    def decided(self, index: int, term: int) -> tuple[Payload, list[Proposal]] | None:
        """The entry of this index and term is about to be applied: what it carries, if it is ours.

        The caller must then :meth:`finish` each of the proposals. Batches that had been proposed at that
        index in another term learn here that they never happened.
        """
        undecided = self._undecided.pop(index, None)
        if undecided is None:
            return None
        if undecided.term == term:
            return undecided.payload, undecided.proposals
        self._answer_all(undecided.proposals, self._hints.not_leader(self._core.leader_id))
        return None

    def finish(self, proposal: Proposal, outcome: Outcome) -> None:
        """The one reply to a proposal."""
        self.pending_bytes -= proposal.size
        if proposal.reply is not _nobody:
            self._count(proposal, outcome)
        proposal.reply(outcome)

    def _count(self, proposal: Proposal, outcome: Outcome) -> None:
        if not isinstance(outcome, BatchResult):
            self._metrics.write_failed(outcome)
        elif outcome.status is BatchStatus.OK:
            self._metrics.wrote(len(proposal.batch.ops or ()), proposal.began)
        else:
            self._metrics.write_batches_failed[outcome.status.name.lower()] += 1

    def unknown(self, proposal: Proposal) -> None:
        """Decided, and nobody here can say how: its entry came as part of a snapshot."""
        self.finish(proposal, self._hints.outcome_unknown(self._core.leader_id))

    def passed_over(self, index: int) -> None:
        """The entries up to ``index`` came as a snapshot, and will not be applied here one by one."""
        for at in [at for at in self._undecided if at <= index]:
            for proposal in self._undecided.pop(at).proposals:
                self.unknown(proposal)

    def leadership_lost(self) -> None:
        """Another term has begun, or this node has stepped down."""
        detail = self._hints.outcome_unknown(self._core.leader_id)
        for undecided in self._undecided.values():
            keep = []
            for proposal in undecided.proposals:
                if proposal.batch.session_id:
                    # It keeps its place: the results of an entry are matched by position.
                    keep.append(Proposal(proposal.batch, _nobody))
                    keep[-1].size = 0
                    self.finish(proposal, detail)
                else:
                    keep.append(proposal)
            undecided.proposals = keep
        waiting, self._waiting = self._waiting, []
        self._answer_all(waiting, self._hints.not_leader(self._core.leader_id))
        if self._undecided and self._give_up is None:
            self._give_up = asyncio.get_running_loop().call_later(DECISION_WAIT_SECONDS, self._undecided_for_good)

    def _undecided_for_good(self) -> None:
        self._give_up = None
        if not self._core.is_leader:
            self.abandon()

    def abandon(self) -> None:
        """Answer everyone who still waits: what is in the log is unknown, what is not, not applied."""
        if self._give_up is not None:
            self._give_up.cancel()
            self._give_up = None
        detail = self._hints.outcome_unknown(self._core.leader_id)
        undecided, self._undecided = self._undecided, {}
        for each in undecided.values():
            self._answer_all(each.proposals, detail)
        waiting, self._waiting = self._waiting, []
        self._answer_all(waiting, self._hints.not_leader(self._core.leader_id))

    def _answer_all(self, proposals: list[Proposal], detail: kv_pb2.ErrorDetail) -> None:
        for proposal in proposals:
            self.finish(proposal, detail)


def _nobody(_outcome: Outcome) -> None:
    """The reply of a proposal whose caller has been answered."""
