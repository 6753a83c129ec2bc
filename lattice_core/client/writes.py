"""Writes on their way: waiting operations, numbered batches, and what each caller may be told. No I/O.

Theory (Raft thesis, section 6.3; SAFETY 43 and 44)
  * An operation is in one of two places. **Waiting**: it has never left this process, or every attempt to
    send it is known to have failed. **In a batch**: it has a session, a sequence and bytes, and they stay
    the same however often the batch is sent, so that the cluster executes it once.
  * A batch is *sent* (on the stream, no answer yet), or *parked* (to be sent again). It remembers whether
    any attempt ended without an answer: ``doubtful``. Only a batch that is parked and not doubtful is
    known not to have been applied.
  * So a caller whose deadline passes gets Unavailable if its operation is waiting or in such a batch, and
    OutcomeUnknown otherwise. In the former case the operation is taken out for good: the batch is broken
    up, its sequence is never sent again, and what is left of it waits anew. An operation that was
    reported as not applied can therefore not be applied later.
  * ``acknowledged_below``, the watermark, is the lowest sequence that anybody still wants to hear of. When
    all callers of a batch have given up, the batch is dropped and the watermark passes it; should a copy
    of it still be travelling, the cluster refuses it as stale.

Limits
  * Waiting operations are bounded in number and bytes: beyond, Busy, at once. Batches are bounded in
    number (the window), operations and bytes; while the window is full, operations accumulate, which is
    what makes batches large under load without any added delay for a lone caller.
  * Operations of one caller that does not wait for answers may be executed in any order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

from lattice_core.errors import Busy, LatticeError, NotApplied, OutcomeUnknown
from lattice_core.kv import txn
from lattice_core.kv.commands import CAS, DELETE, DELETE_RANGE, PUT, PUT_IF_REVISION, TXN, Op, encode_batch
from lattice_core.kv.results import decode_results, is_crowded
from lattice_core.tuples import make

Result: TypeAlias = list[Any]
"""One operation's answer, as lattice_core/kv/results.py lays it out."""

MAX_WAITING_OPS: Final = 65_536
MAX_WAITING_BYTES: Final = 64 << 20
"""As much as a server takes from all its clients (NodeConfig.max_pending_bytes): more could only grow old."""

BATCH_OPS: Final = 1024
BATCH_BYTES: Final = 512 << 10
"""One batch is one gRPC message; past some 64 KiB its fixed cost no longer matters, and smaller batches keep
the leader's turns of the loop short. A single larger operation travels alone."""

WINDOW: Final = 4
"""Batches on the stream without an answer. Two keep the leader busy while an answer travels; four ride out
one slow fsync. More would only make batches smaller."""

OP_OVERHEAD_BYTES: Final = 24
"""msgpack's list, opcode and length headers, rounded up."""

BULK: Final = 0
"""In place of an operation's code: a whole batch of them, put together and encoded by its caller (bulk.py)."""

NAMES: Final = {
    BULK: "batch",
    PUT: "put",
    PUT_IF_REVISION: "put",
    DELETE: "delete",
    DELETE_RANGE: "delete",
    CAS: "cas",
    TXN: "txn",
}


class Waiting(NamedTuple):
    """One caller's operation. ``future`` is done when the caller was answered or has gone away."""

    op: Op
    future: asyncio.Future[Result]
    deadline: float
    """On the event loop's clock, in seconds."""
    size: int
    weight: int = 1
    """How many operations it counts as."""
    commands: bytes | None = None
    """Of a whole batch (``op`` is BULK): its bytes. It travels alone, and its result is the list of all results."""


_WEIGHT: Final = itemgetter(Waiting._fields.index("weight"))
_COMMANDS: Final = itemgetter(Waiting._fields.index("commands"))


class Batch:
    """The unit of retry. ``commands`` never changes; neither do ``session_id`` and ``sequence``."""

    __slots__ = ("commands", "doubtful", "items", "sent_at", "sequence", "session_id")

    def __init__(self, session_id: int, sequence: int, items: list[Waiting]) -> None:
        self.session_id = session_id
        self.sequence = sequence
        self.items = items
        ready = items[0].commands
        self.commands = encode_batch([item.op for item in items]) if ready is None else ready
        self.doubtful = False
        self.sent_at = 0.0

    @property
    def wanted(self) -> bool:
        """Whether any caller still waits for it."""
        return any(not item.future.done() for item in self.items)


class WriteQueue:
    """All writes of one client that have no answer yet. Driven by one event loop, not thread-safe.

    Invariants:
      * a batch that is known here is in exactly one of ``_sent`` and ``_parked``;
      * ``_wanted`` holds every sequence of the present session that a caller waits for, in order, so the
        watermark is never above any of them;
      * a sequence belongs to one set of bytes for ever.
    """

    def __init__(self, *, window: int = WINDOW, max_ops: int = MAX_WAITING_OPS) -> None:
        self.session_id: int | None = None
        self.window = window
        self.max_ops = max_ops
        self._waiting: deque[Waiting] = deque()
        self._waiting_bytes = 0
        self._next_sequence = 1
        self._wanted: dict[int, Batch] = {}
        self._sent: dict[int, Batch] = {}
        self._parked: deque[Batch] = deque()

    # -- callers' side ------------------------------------------------------------------------------

    def add(self, op: Op, future: asyncio.Future[Result], deadline: float, size: int) -> None:
        """Queue one validated operation. Raises Busy, and forgets it, when too much waits already."""
        self._check_room(op, size)
        weight = txn.weight(op) if op[0] == TXN else 1
        self._waiting.append(make(Waiting, (op, future, deadline, size, weight, None)))
        self._waiting_bytes += size

    def add_batch(self, commands: bytes, count: int, future: asyncio.Future[Result], deadline: float) -> None:
        """Queue a whole batch of ``count`` validated operations. Raises Busy likewise."""
        op, size = (BULK,), len(commands)
        self._check_room(op, size)
        self._waiting.append(Waiting(op, future, deadline, size, count, commands))
        self._waiting_bytes += size

    def _check_room(self, op: Op, size: int) -> None:
        if len(self._waiting) >= self.max_ops or self._waiting_bytes + size > MAX_WAITING_BYTES:
            raise Busy(
                f"{NAMES[op[0]]}: {len(self._waiting)} operations ({self._waiting_bytes} bytes) already wait in "
                "this client",
                hint="keep fewer operations in flight",
            )

    @property
    def idle(self) -> bool:
        """Nothing waits and nobody waits for an answer."""
        return not self._waiting and not any(batch.wanted for batch in self._batches())

    @property
    def needs_session(self) -> bool:
        return self.session_id is None and bool(self._waiting)

    def oldest_sent_at(self) -> float | None:
        """When the batch that has gone longest without an answer was written."""
        return min((batch.sent_at for batch in self._sent.values()), default=None)

    # -- the stream's side --------------------------------------------------------------------------

    def next_batch(self, request_id: int, now: float) -> Batch | None:
        """What to write next under ``request_id``: parked batches first, then what waits; None if nothing
        can be sent now. The batch counts as sent from here on."""
        if len(self._sent) >= self.window:
            return None
        while self._parked:
            batch = self._parked.popleft()
            if batch.wanted:
                return self._mark_sent(request_id, batch, now)
            self._forget(batch)
        if self.session_id is None or not self._waiting:
            return None
        items = self._take()
        return self._mark_sent(request_id, self._new_batch(items), now) if items else None

    @property
    def acknowledged_below(self) -> int:
        """The lowest sequence that is still of interest. Sequences are given in order, and a dict keeps
        it, so the first is the lowest."""
        return next(iter(self._wanted), self._next_sequence)

    def watermark_for(self, batch: Batch) -> int:
        """What to say with ``batch``: a batch of an earlier session is the last of it that matters."""
        return self.acknowledged_below if batch.session_id == self.session_id else batch.sequence

    def answered(self, request_id: int, packed: bytes) -> None:
        """The results of a batch have come."""
        batch = self._sent.pop(request_id, None)
        if batch is None:
            return
        self._forget(batch)
        results = decode_results(packed)
        first = batch.items[0]
        if len(results) != (len(batch.items) if first.commands is None else first.weight):
            self._fail(batch.items, f"the server sent {len(results)} results for other operations than were asked")
            return
        if first.commands is not None:
            if not first.future.done():
                first.future.set_result(results)
            return
        crowded: list[Waiting] = []
        for item, result in zip(batch.items, results, strict=True):
            if item.op[0] == TXN and is_crowded(result):
                crowded.append(item)  # not executed; the first of them will begin its next batch, so it ends
            elif not item.future.done():
                item.future.set_result(result)
        if crowded:
            self._wait_again(crowded)

    def refused(self, request_id: int) -> None:
        """Answered: this attempt was not applied, and another may succeed. The batch is parked."""
        self._park(self._sent.pop(request_id, None))

    def in_doubt(self, request_id: int) -> None:
        """Answered: not known whether this attempt was applied. The batch is sent again, unchanged."""
        batch = self._sent.pop(request_id, None)
        if batch is not None:
            batch.doubtful = True
            self._park(batch)

    def rejected(self, request_id: int, error: LatticeError) -> None:
        """Answered: wrong, and it always will be. One caller's operation must not fail the others', so a
        batch of several is halved until the culprit stands alone."""
        batch = self._sent.pop(request_id, None)
        if batch is None:
            return
        self._forget(batch)
        alive = [item for item in batch.items if not item.future.done()]
        if batch.doubtful or not isinstance(error, NotApplied):
            self._fail(alive, error.message)
        elif len(batch.items) > 1 and self.session_id is None:
            self._wait_again(alive)  # there is nothing to number halves under; the next session will see to it
        elif len(batch.items) > 1:
            half = len(alive) // 2
            for part in (alive[:half], alive[half:]):
                if part:
                    self._parked.append(self._new_batch(part))
        else:
            for item in alive:
                item.future.set_exception(error)

    def unauthenticated(self, request_id: int, error: LatticeError) -> None:
        """Answered: nobody in it may do anything. Not halved: none of them stands out."""
        batch = self._sent.pop(request_id, None)
        if batch is None:
            return
        self._forget(batch)
        if batch.doubtful:
            self._fail(batch.items, error.message)
            return
        for item in batch.items:
            if not item.future.done():
                item.future.set_exception(not_applied(item.op, error))

    def session_expired(self, request_id: int) -> None:
        """Answered: no such session. What may have been applied under it stays unknown; what cannot have
        been is sent again under the next session."""
        batch = self._sent.pop(request_id, None)
        if batch is None:
            return
        if batch.session_id == self.session_id:
            self._drop_session()
        self._forget(batch)
        if batch.doubtful:
            self._fail(batch.items, "the session expired before the answer came")
        else:
            self._wait_again(batch.items)

    def session_opened(self, session_id: int) -> None:
        """Number from 1 under a new session."""
        assert self.session_id is None, "a session is replaced only when it has expired"
        self.session_id = session_id
        self._next_sequence = 1

    def connection_lost(self) -> None:
        """The stream has ended: everything on it is in doubt and has to be sent again, in order."""
        for request_id in sorted(self._sent, reverse=True):
            batch = self._sent.pop(request_id)
            batch.doubtful = True
            self._park(batch, first=True)

    # -- time ---------------------------------------------------------------------------------------

    def expire(self, now: float, trouble: LatticeError) -> float | None:
        """Answer every caller whose deadline has passed, and return the next deadline (None: no caller).

        ``trouble`` (Unavailable, NoLeader, Busy or Unauthenticated) says why nothing could be sent: its type and text
        are what the callers of operations that were not applied will see.
        """
        for batch in self._batches():
            self._expire_batch(batch, now, trouble)
        if any(item.deadline <= now for item in self._waiting):
            keep: deque[Waiting] = deque()
            for item in self._waiting:
                if item.deadline > now:
                    keep.append(item)
                    continue
                self._waiting_bytes -= item.size
                if not item.future.done():
                    item.future.set_exception(not_applied(item.op, trouble))
            self._waiting = keep
        deadlines = [item.deadline for item in self._waiting]
        deadlines += [item.deadline for batch in self._batches() for item in batch.items]
        return min((deadline for deadline in deadlines if deadline > now), default=None)

    def fail_all(self, trouble: LatticeError) -> None:
        """Answer everybody now: the client closes, or nothing of it will be done."""
        self.expire(float("inf"), trouble)

    def _expire_batch(self, batch: Batch, now: float, trouble: LatticeError) -> None:
        late = [item for item in batch.items if item.deadline <= now and not item.future.done()]
        parked = batch in self._parked
        if late and parked and not batch.doubtful:
            self._parked.remove(batch)
            self._forget(batch)
            for item in late:
                item.future.set_exception(not_applied(item.op, trouble))
            self._wait_again(batch.items)
            return
        self._fail(late, "no answer before the deadline")
        if not batch.wanted:
            self._forget(batch)
            if parked:
                self._parked.remove(batch)

    # -- helpers ------------------------------------------------------------------------------------

    def _batches(self) -> list[Batch]:
        return [*self._parked, *self._sent.values()]

    def _take(self) -> list[Waiting]:
        """As many waiting operations as one batch may hold, without those whose caller has gone."""
        waiting = self._waiting
        if (
            self._waiting_bytes <= BATCH_BYTES
            and len(waiting) <= BATCH_OPS
            and sum(map(_WEIGHT, waiting)) <= BATCH_OPS
            and not any(map(_COMMANDS, waiting))
        ):
            all_of_them = [item for item in waiting if not item.future.done()]
            waiting.clear()
            self._waiting_bytes = 0
            return all_of_them
        items: list[Waiting] = []
        size = weight = 0
        while waiting and weight < BATCH_OPS:
            item = waiting[0]
            if items and (
                size + item.size > BATCH_BYTES or weight + item.weight > BATCH_OPS or item.commands is not None
            ):
                break
            waiting.popleft()
            self._waiting_bytes -= item.size
            if not item.future.done():
                items.append(item)
                size += item.size
                weight += item.weight
                if item.commands is not None:
                    break
        return items

    def _new_batch(self, items: list[Waiting]) -> Batch:
        assert self.session_id is not None, "a batch is numbered under a session"
        batch = Batch(self.session_id, self._next_sequence, items)
        self._wanted[batch.sequence] = batch
        self._next_sequence += 1
        return batch

    def _mark_sent(self, request_id: int, batch: Batch, now: float) -> Batch:
        batch.sent_at = now
        self._sent[request_id] = batch
        return batch

    def _park(self, batch: Batch | None, *, first: bool = False) -> None:
        if batch is None:
            return
        if not batch.wanted:
            self._forget(batch)
        elif first:
            self._parked.appendleft(batch)
        else:
            self._parked.append(batch)

    def _forget(self, batch: Batch) -> None:
        """Nobody asks for this batch any more: the watermark may pass it."""
        if self._wanted.get(batch.sequence) is batch:
            del self._wanted[batch.sequence]

    def _drop_session(self) -> None:
        """The watermark is the next session's from now on. Batches of the old one finish on their own."""
        self.session_id = None
        self._wanted.clear()

    def _wait_again(self, items: Iterable[Waiting]) -> None:
        """Back to the front: they have waited longest. The bound does not apply; it did on the way in."""
        alive = [item for item in items if not item.future.done()]
        self._waiting.extendleft(reversed(alive))
        self._waiting_bytes += sum(item.size for item in alive)

    @staticmethod
    def _fail(items: Iterable[Waiting], why: str) -> None:
        """Answer callers whose operation was sent and may have been applied."""
        for item in items:
            if not item.future.done():
                item.future.set_exception(OutcomeUnknown(f"{NAMES[item.op[0]]}: sent, but {why}"))


def not_applied(op: Op, trouble: LatticeError) -> LatticeError:
    """``trouble`` as the error of one operation. A fresh object: each caller raises its own."""
    return type(trouble)(f"{NAMES[op[0]]}: {trouble.message}", hint=trouble.hint)
