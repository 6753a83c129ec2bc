"""Reads on their way to the state machine: never through the log.

* linearizable: all batches that wait in one turn of the loop share one ``read_index``, so one round of
  heartbeats; they are answered when the core says that the index is applied. On a follower the core asks
  the leader for the index;
* lease: while the leader's lease holds, no round: wait until its commit index is applied. Elsewhere, and
  without a lease, it becomes a linearizable read. With ``read_mode = "lease"`` in the node's configuration
  linearizable reads are treated so too;
* stale: at once, from whatever is applied, with an upper bound of how long ago a leader was heard;
* stale with a bound: at once if a round that *began here* no longer ago than that has been confirmed and what
  it vouched for is applied; else it shares the next round, and if that is refused the read is, as too stale.
  What a leader sends unasked proves nothing: it may have waited in a socket while this process was stopped, and
  says nothing of entries that are still on their way. So one round in every bound's length serves all.

A batch sees one state: it is executed in one go.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from lattice_core.errors import Busy, TooStale
from lattice_core.kv import StateMachine
from lattice_core.raft import errors as raft_errors
from lattice_core.raft.ready import ReadRefused, ReadReleased
from lattice_core.raft.types import NodeId
from lattice_core.rpc.errors import to_detail
from lattice_core.rpc.pb import kv_pb2
from lattice_core.server.clock import now_ns as clock_ns
from lattice_core.server.hints import Hints
from lattice_core.server.metrics import NodeMetrics
from lattice_core.server.read_batches import Answer, Read, execute

MAX_PENDING_BATCHES = 10_000
"""As many as the core keeps; a batch that waits is small."""


class Answers(NamedTuple):
    """A batch's answers, the revision of the state they come from, and its age at most (stale reads only)."""

    answers: list[Answer]
    revision: int
    stale_seconds: float


ReadReply = Callable[["Answers | kv_pb2.ErrorDetail"], None]
Refusal = Callable[[], "kv_pb2.ErrorDetail | None"]
"""Asked when a batch is about to be executed: why it must not be, or None."""


class Core(Protocol):
    """What is needed of the consensus core here."""

    @property
    def leader_id(self) -> NodeId | None: ...

    def read_index(self, request_id: int, now_ns: int) -> None: ...

    def lease_read_index(self, now_ns: int) -> int | None: ...


class _Waiting(NamedTuple):
    reads: list[Read]
    consistency: int
    reply: ReadReply
    began: float
    max_stale_seconds: float | None = None
    """For stale reads with a bound, which wait for a round."""
    refusal: Refusal | None = None


class _Round(NamedTuple):
    started_ns: int
    batches: list[_Waiting]


class Reads:
    """Lives on the loop; ``flush`` is called once per pass of the Ready loop, after proposals."""

    def __init__(
        self,
        core: Core,
        machine: StateMachine,
        hints: Hints,
        kick: Callable[[], None],
        stale_seconds: Callable[[], float],
        metrics: NodeMetrics | None = None,
        *,
        leases_by_default: bool = False,
        now_ns: Callable[[], int] = clock_ns,
    ) -> None:
        self._core = core
        self._machine = machine
        self._hints = hints
        self._kick = kick
        self._stale_seconds = stale_seconds
        self._leases_by_default = leases_by_default
        self._now_ns = now_ns
        self._metrics = metrics if metrics is not None else NodeMetrics()
        self._waiting: list[_Waiting] = []
        self._waiting_for_lease: list[_Waiting] = []
        self._rounds: dict[int, _Round] = {}
        # When the newest round that was confirmed began: all that was acknowledged before is in the state.
        self._confirmed_ns: int | None = None
        self._next_round = 1
        # Lease reads whose index is not applied yet: (index, order of arrival, batch).
        self._by_index: list[tuple[int, int, _Waiting]] = []
        self._arrivals = 0
        # Invariant: how many batches have not had their reply.
        self._pending = 0

    @property
    def idle(self) -> bool:
        return self._pending == 0

    @property
    def pending(self) -> int:
        """Batches that wait for their answer."""
        return self._pending

    def submit(
        self,
        reads: list[Read],
        consistency: int,
        reply: ReadReply,
        max_stale_seconds: float | None = None,
        refusal: Refusal | None = None,
    ) -> None:
        """Take a batch of checked reads. Exactly one reply, later or at once."""
        waiting = _Waiting(reads, consistency, reply, time.perf_counter(), max_stale_seconds, refusal)
        if consistency == kv_pb2.CONSISTENCY_STALE:
            age_seconds = self._age_if_fresh(waiting)
            if age_seconds is not None:
                self._pending += 1
                self._answer(waiting, age_seconds)
                return
        if self._pending >= MAX_PENDING_BATCHES:
            busy = self._hints.error(Busy(f"{self._pending} batches of reads are waiting already"))
            self._metrics.read_failed(busy)
            reply(busy)
            return
        self._pending += 1
        by_lease = consistency == kv_pb2.CONSISTENCY_LEASE or (
            self._leases_by_default and consistency != kv_pb2.CONSISTENCY_STALE
        )
        if by_lease:
            self._waiting_for_lease.append(waiting)
        else:
            self._waiting.append(waiting)
        self._kick()

    def _age_if_fresh(self, waiting: _Waiting) -> float | None:
        """How old the state may be, if it will do for a stale read; None: it has to wait for a round."""
        revision = self._machine.store.revision
        if any(read.revision is not None and read.revision > revision for read in waiting.reads):
            return None  # whoever asks has seen newer state than is here
        if waiting.max_stale_seconds is None:
            return self._stale_seconds()
        if self._confirmed_ns is None:
            return None
        age_seconds = (self._now_ns() - self._confirmed_ns) / 1e9
        return age_seconds if age_seconds <= waiting.max_stale_seconds else None

    def flush(self, now_ns: int) -> None:
        """Ask the core for an index, once for all that waits."""
        if self._waiting_for_lease:
            leased, self._waiting_for_lease = self._waiting_for_lease, []
            index = self._core.lease_read_index(now_ns)
            if index is None:
                self._waiting += leased
            elif index <= self._machine.applied_index:
                for waiting in leased:
                    self._answer(waiting)
            else:
                for waiting in leased:
                    self._arrivals += 1
                    heapq.heappush(self._by_index, (index, self._arrivals, waiting))
        if not self._waiting:
            return
        batches, self._waiting = self._waiting, []
        request_id = self._next_round
        try:
            self._core.read_index(request_id, now_ns)
        except raft_errors.NotLeader as error:
            self._refuse(batches, self._hints.not_leader(error.leader_id))
        except raft_errors.Busy as error:
            self._refuse(batches, self._hints.error(Busy(str(error))))
        else:
            self._next_round += 1
            self._rounds[request_id] = _Round(now_ns, batches)

    def sharing_round(self, reads: list[Read]) -> int:
        """How many batches share the round that this very list of reads waits for; 0: it waits for none."""
        for round_ in self._rounds.values():
            if any(waiting.reads is reads for waiting in round_.batches):
                return len(round_.batches)
        return 0

    def settle(self, released: Sequence[ReadReleased], refused: Sequence[ReadRefused]) -> None:
        """The core's verdicts."""
        for read in released:
            round_ = self._rounds.pop(read.request_id, None)
            if round_ is None:
                continue
            self._confirmed_ns = max(round_.started_ns, self._confirmed_ns or 0)
            for waiting in round_.batches:
                bounded = waiting.max_stale_seconds is not None
                self._answer(waiting, (self._now_ns() - round_.started_ns) / 1e9 if bounded else 0.0)
        for refusal in refused:
            round_ = self._rounds.pop(refusal.request_id, None)
            if round_ is not None:
                self._refuse(round_.batches, self._hints.not_leader(refusal.leader_id))

    def applied(self, index: int) -> None:
        """The state machine has come to ``index``."""
        while self._by_index and self._by_index[0][0] <= index:
            self._answer(heapq.heappop(self._by_index)[2])

    def replace(self, machine: StateMachine) -> None:
        """Read from another machine from now on: a snapshot was installed."""
        self._machine = machine

    def abandon(self) -> None:
        """Answer everyone who still waits: not served here."""
        batches = self._waiting + self._waiting_for_lease + [waiting for _, _, waiting in self._by_index]
        for round_ in self._rounds.values():
            batches += round_.batches
        self._waiting, self._waiting_for_lease, self._by_index = [], [], []
        self._rounds.clear()
        self._refuse(batches, self._hints.not_leader(self._core.leader_id))

    def _answer(self, waiting: _Waiting, stale_seconds: float = 0.0) -> None:
        self._pending -= 1
        refused = waiting.refusal() if waiting.refusal is not None else None
        if refused is not None:
            self._metrics.read_failed(refused)
            waiting.reply(refused)
            return
        store = self._machine.store
        answers = Answers(execute(store, waiting.reads), store.revision, stale_seconds)
        self._metrics.have_read(waiting.consistency, len(waiting.reads), waiting.began)
        waiting.reply(answers)

    def _refuse(self, batches: list[_Waiting], detail: kv_pb2.ErrorDetail) -> None:
        for waiting in batches:
            self._pending -= 1
            self._metrics.read_failed(detail)
            if waiting.max_stale_seconds is not None and detail.code != kv_pb2.ERROR_CODE_BUSY:
                waiting.reply(self._too_stale(waiting.max_stale_seconds, detail))
            else:
                waiting.reply(detail)

    def _too_stale(self, max_stale_seconds: float, cause: kv_pb2.ErrorDetail) -> kv_pb2.ErrorDetail:
        age = "was never known to be the newest since this member started"
        if self._confirmed_ns is not None:
            age = f"was last known to be the newest {(self._now_ns() - self._confirmed_ns) / 1e9:.3g} s ago"
        return to_detail(
            TooStale(f"this member's state {age}, more than {max_stale_seconds:g} s: {cause.message}"),
            leader=cause.leader if cause.HasField("leader") else None,
        )
