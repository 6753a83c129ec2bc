"""Reads on their way. Simpler than writes: a read changes nothing, so whatever goes wrong it is asked again.

Reads that wait are grouped by consistency and bound of staleness, for these are properties of a whole batch: one
confirmation round of the leader's serves every linearizable read in it. The limits are those of writes and for the
same reasons.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, TypeAlias

import msgpack

from lattice_core.client.writes import MAX_WAITING_OPS, WINDOW
from lattice_core.errors import Busy, LatticeError, RevisionCompacted, Unavailable
from lattice_core.rpc.errors import from_detail
from lattice_core.rpc.pb import kv_pb2
from lattice_core.tuples import make

GET: Final = 1
RANGE: Final = 2
KEYS_ONLY: Final = 1
COUNT_ONLY: Final = 2
REVERSE: Final = 4

BATCH_READS: Final = 128
"""Reads of many callers travel in several batches, so that while the client wakes the callers of one the cluster
works on the next (256 callers: 1.1 to 1.3 x the reads, for a tenth more CPU; puts, whose batches cost more, travel
together)."""

LAST_BATCH_READS: Final = 512
"""But the last one that the window has room for takes more: with thousands of callers far away it counts how much is in
flight. Answers carry values: some hundred small ones keep a message well below a megabyte."""

BATCH_RANGES: Final = 4
"""Each may answer with the server's whole bound in bytes, and all answers share one message."""

_NO_ROOM: Final = frozenset((kv_pb2.ERROR_CODE_BUSY, kv_pb2.ERROR_CODE_TOO_LARGE))

Read: TypeAlias = tuple[Any, ...]
"""``(GET, key, revision|None)`` or ``(RANGE, start, end, limit, revision|None, flags)``: kv.proto."""


class Level(NamedTuple):
    """How fresh a read must be."""

    consistency: kv_pb2.Consistency
    max_stale_seconds: float | None = None


class Answer(NamedTuple):
    """One read's result, with what was said of its whole batch."""

    result: Any
    revision: int
    stale_seconds: float


class WaitingRead(NamedTuple):
    read: Read
    future: asyncio.Future[Answer]
    deadline: float


class ReadBatch(NamedTuple):
    """What one message carries. Not an identity: asked again, reads may travel in other company."""

    level: Level
    items: list[WaitingRead]
    sent_at: float

    def message(self) -> kv_pb2.ReadBatch:
        """As it goes on the wire."""
        consistency, max_stale_seconds = self.level
        return kv_pb2.ReadBatch(consistency=consistency, reads=self.packed(), max_stale_seconds=max_stale_seconds)

    def packed(self) -> bytes:
        """As kv.proto's ReadBatch.reads wants it."""
        packed: bytes = msgpack.packb([item.read for item in self.items])
        return packed


class ReadQueue:
    """All reads of one client that have no answer yet. Driven by one event loop, not thread-safe."""

    def __init__(self, *, window: int = WINDOW, max_reads: int = MAX_WAITING_OPS) -> None:
        self.window = window
        self.max_reads = max_reads
        self._waiting: dict[Level, deque[WaitingRead]] = {}
        self._count = 0
        self._halves: deque[ReadBatch] = deque()
        """Of batches that were rejected as a whole; to be sent as they are."""
        self._sent: dict[int, ReadBatch] = {}

    def add(self, level: Level, read: Read, future: asyncio.Future[Answer], deadline: float) -> None:
        """Queue one validated read. Raises Busy when too many wait already."""
        if self._count >= self.max_reads:
            raise Busy(f"get: {self._count} reads already wait in this client", hint="keep fewer in flight")
        waiting = self._waiting.get(level)
        if waiting is None:
            waiting = self._waiting[level] = deque()
        waiting.append(make(WaitingRead, (read, future, deadline)))
        self._count += 1

    @property
    def idle(self) -> bool:
        """Nothing waits and nobody waits for an answer."""
        return not self._count and not self._sent and not self._halves

    def oldest_sent_at(self) -> float | None:
        return min((batch.sent_at for batch in self._sent.values()), default=None)

    def next_batch(self, request_id: int, now: float) -> ReadBatch | None:
        """What to write next under ``request_id``, or None. Levels take turns."""
        if len(self._sent) >= self.window:
            return None
        if self._halves:
            self._sent[request_id] = self._halves.popleft()._replace(sent_at=now)
            return self._sent[request_id]
        for level in list(self._waiting):
            waiting = self._waiting.pop(level)
            items = self._take(waiting)
            if waiting:
                self._waiting[level] = waiting  # at the end of the dict: the others first
            if items:
                self._sent[request_id] = ReadBatch(level, items, now)
                return self._sent[request_id]
        return None

    def answered(self, request_id: int, packed: bytes, revision: int, stale_seconds: float) -> None:
        batch = self._sent.pop(request_id, None)
        if batch is None:
            return
        results = msgpack.unpackb(packed)
        if len(results) != len(batch.items):
            for item in batch.items:
                _fail(item, Unavailable(f"get: {len(results)} results came for {len(batch.items)} reads"))
            return
        crowded: list[WaitingRead] = []
        for item, result in zip(batch.items, results, strict=True):
            if type(result) is dict:
                if len(batch.items) > 1 and result.get("error") in _NO_ROOM:
                    crowded.append(item)
                else:
                    _fail(item, _read_error(result))
            elif not item.future.done():
                item.future.set_result(make(Answer, (result, revision, stale_seconds)))
        if crowded:
            # The answers before these filled the message. The first of them begins the next one, so that
            # this comes to an end; and one that stands alone is not asked again.
            self._wait_again(batch._replace(items=crowded))

    def refused(self, request_id: int) -> bool:
        """Answered with a passing reason: asked again. Whether it was one of ours."""
        batch = self._sent.pop(request_id, None)
        if batch is not None:
            self._wait_again(batch)
        return batch is not None

    def rejected(self, request_id: int, error: LatticeError) -> None:
        """Answered: wrong as a whole, or too large an answer. Halved until the culprit stands alone, so
        that only its caller hears of it."""
        batch = self._sent.pop(request_id, None)
        if batch is None:
            return
        alive = [item for item in batch.items if not item.future.done()]
        if len(alive) == 1:
            _fail(alive[0], error)
            return
        half = len(alive) // 2
        self._halves.extend(batch._replace(items=part) for part in (alive[:half], alive[half:]) if part)

    def unauthenticated(self, request_id: int, error: LatticeError) -> None:
        """Answered: nobody in it may read anything."""
        batch = self._sent.pop(request_id, None)
        for item in batch.items if batch is not None else ():
            _fail(item, type(error)(f"get: {error.message}", hint=error.hint))

    def connection_lost(self) -> None:
        """Everything on the stream is asked again."""
        for request_id in sorted(self._sent, reverse=True):
            self._wait_again(self._sent.pop(request_id))

    def expire(self, now: float, trouble: Unavailable) -> float | None:
        """Answer every caller whose deadline has passed; the next deadline, or None."""
        batches = [*self._halves, *self._sent.values()]
        for batch in batches:
            _expire(batch.items, now, trouble)
        for level, waiting in list(self._waiting.items()):
            if any(item.deadline <= now for item in waiting):
                _expire(waiting, now, trouble)
                keep = deque(item for item in waiting if not item.future.done())
                self._count -= len(waiting) - len(keep)
                self._waiting[level] = keep
        deadlines = [item.deadline for waiting in self._waiting.values() for item in waiting]
        deadlines += [item.deadline for batch in batches for item in batch.items]
        return min((deadline for deadline in deadlines if deadline > now), default=None)

    def fail_all(self, trouble: Unavailable) -> None:
        """The client closes: answer everybody now."""
        self.expire(float("inf"), trouble)

    def _take(self, waiting: deque[WaitingRead]) -> list[WaitingRead]:
        items: list[WaitingRead] = []
        ranges = 0
        most = BATCH_READS if len(self._sent) < self.window - 1 else LAST_BATCH_READS
        while waiting and len(items) < most:
            is_range = waiting[0].read[0] == RANGE
            if is_range and ranges >= BATCH_RANGES:
                break
            item = waiting.popleft()
            self._count -= 1
            if not item.future.done():
                items.append(item)
                ranges += is_range
        return items

    def _wait_again(self, batch: ReadBatch) -> None:
        alive = [item for item in batch.items if not item.future.done()]
        self._waiting.setdefault(batch.level, deque()).extendleft(reversed(alive))
        self._count += len(alive)


def _expire(items: Iterable[WaitingRead], now: float, trouble: Unavailable) -> None:
    for item in items:
        if item.deadline <= now:
            _fail(item, type(trouble)(f"get: {trouble.message}", hint=trouble.hint))


def _fail(item: WaitingRead, error: LatticeError) -> None:
    if not item.future.done():
        item.future.set_exception(error)


def _read_error(result: dict[str, Any]) -> LatticeError:
    """One read's error, as kv.proto lays it out."""
    code = result.get("error", kv_pb2.ERROR_CODE_UNSPECIFIED)
    message = str(result.get("message", ""))
    if code == kv_pb2.ERROR_CODE_COMPACTED:
        return RevisionCompacted(message, compacted_revision=int(result.get("compacted_revision") or 0))
    return from_detail(kv_pb2.ErrorDetail(code=code, message=message))
