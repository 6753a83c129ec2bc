"""Many operations at once: gathered into large batches, a few of which are on their way at any time.

Theory
  * A call of ``client.put`` costs a future and a place in a queue; for a million keys that is most of the time. Here
    operations are gathered as plain tuples, encoded some thousand at a time, and one future waits for all of them.
  * **Backpressure**: :class:`BulkWriter` lets a bounded number of batches be under way (the client's window, and two
    that are ready to follow). Whoever produces faster waits in :meth:`BulkWriter.send`. So a load of any length
    takes some megabytes here.
  * A batch leaves when it is full, and when the producer pauses while nothing is under way: a slow producer's
    operations do not wait for company.
  * **It is not a transaction.** Every batch is exactly-once like any write, but it is one of many, and batches under
    way may be executed in any order (a lost leader can turn two round). Operations within a batch keep theirs. Whoever
    needs all or nothing wants ``txn``.

Errors: the first batch that fails ends it. What was sent before is waited for, what was not is not sent, and the error
of the failed batch is raised as it is, so its type says what is known: nothing of *that* batch was applied, or its
outcome is unknown.
"""

# ruff: noqa: ASYNC109 - a deadline here decides between "not applied" and "unknown": asyncio.timeout cannot
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from lattice_core.client.arguments import (
    Data,
    cas_op,
    delete_op,
    delete_range_op,
    prefixed,
    put_op,
    size_of,
    to_bytes,
    validate,
)
from lattice_core.client.engine import Engine
from lattice_core.client.types import CasResult, DeleteResult, PutManyResult, PutResult
from lattice_core.client.writes import OP_OVERHEAD_BYTES
from lattice_core.errors import LatticeError, OutcomeUnknown
from lattice_core.kv.commands import (
    CAS,
    MAX_BATCH_OPS,
    MAX_KEY_BYTES,
    MAX_VALUE_BYTES,
    PUT,
    PUT_IF_REVISION,
    Op,
    encode_batch,
)

BULK_OPS: Final = MAX_BATCH_OPS
BULK_BYTES: Final = 1 << 20
"""One batch: as many operations as the cluster takes, half the bytes. Client and three nodes together need 24 µs of CPU
for a key of 256 bytes then, 27 with half of that, 35 with a quarter (benchmarks/bulk_load.py)."""

READY_BATCHES: Final = 2
"""Beyond the window: encoded while the others are on their way, so that the stream never waits for us."""

Items: TypeAlias = "Mapping[Data, Data] | Iterable[tuple[Data, Data]]"
"""What put_many takes: a mapping, or keys with values."""

BatchItemResult: TypeAlias = int | PutResult | DeleteResult | CasResult | LatticeError
"""What the client's method of the same name returns, or the error that it would raise."""


class Chunk(NamedTuple):
    """A full batch, and where its first operation stands in the whole."""

    first: int
    ops: list[Op]


class OpBuffer:
    """Gathers operations until they make a batch. No I/O, no loop: a thread's or a coroutine's."""

    __slots__ = ("_ops", "_size", "count")

    def __init__(self) -> None:
        self._ops: list[Op] = []
        self._size = 0
        self.count = 0
        """How many operations there have been."""

    def add(self, op: Op, size: int) -> Chunk | None:
        """Take one operation. A batch, if that is now full: then it has to go."""
        chunk = None
        if self._size + size > BULK_BYTES or len(self._ops) >= BULK_OPS:
            chunk = self.take()
        self._ops.append(op)
        self._size += size
        self.count += 1
        return chunk

    def take(self) -> Chunk | None:
        """What there is, full or not; None: nothing."""
        ops = self._ops
        if not ops:
            return None
        self._ops, self._size = [], 0
        return Chunk(self.count - len(ops), ops)

    def add_puts(self, items: Iterable[tuple[Data, Data]]) -> Iterable[Chunk]:
        """Every full batch that these puts make. What is left over stays here."""
        for key, value in items:
            if type(key) is not bytes:
                key = to_bytes(key, "key")
            if type(value) is not bytes:
                value = to_bytes(value, "value")
            op = (PUT, key, value)
            if not key or len(key) > MAX_KEY_BYTES or len(value) > MAX_VALUE_BYTES:
                validate(f"put_many: item {self.count + 1}", op)
            chunk = self.add(op, len(key) + len(value) + OP_OVERHEAD_BYTES)
            if chunk is not None:
                yield chunk


Done: TypeAlias = "Callable[[Chunk, list[Any] | LatticeError], None]"


class BulkWriter:
    """Sends batches, a bounded number at a time. One event loop's.

    Invariant: ``_under_way`` has the batches handed to the engine whose outcome has not been told to ``done``.
    """

    def __init__(self, engine: Engine, timeout: float, done: Done) -> None:
        self._engine = engine
        self._timeout = timeout
        self._done = done
        self._under_way: set[asyncio.Future[list[Any]]] = set()
        self._changed = asyncio.Event()
        self._on_idle: Callable[[], None] | None = None
        self.error: LatticeError | None = None
        """Of the first batch that failed."""

    @property
    def is_idle(self) -> bool:
        return not self._under_way

    def when_idle(self, callback: Callable[[], None]) -> None:
        """Have it called whenever the last batch under way has come back."""
        self._on_idle = callback

    async def send(self, chunk: Chunk) -> None:
        """Wait for room and put a batch under way. Raises the error of one that failed before."""
        while len(self._under_way) >= self._engine.writes.window + READY_BATCHES and self.error is None:
            self._changed.clear()
            await self._changed.wait()
        self.send_now(chunk)
        await asyncio.sleep(0)  # a producer that never waits for anything must not keep the loop to itself

    def send_now(self, chunk: Chunk) -> None:
        """The same without waiting for room: for whoever knows that there is."""
        if self.error is not None:
            raise self.error
        future = self._engine.write_batch(encode_batch(chunk.ops), len(chunk.ops), self._timeout)
        self._under_way.add(future)
        future.add_done_callback(lambda done: self._finished(chunk, done))

    async def drain(self) -> None:
        """Wait until nothing is under way."""
        while self._under_way:
            self._changed.clear()
            await self._changed.wait()

    async def finish(self, kind: type[BaseException] | None) -> None:
        """The producer is done, or ``kind`` was raised in it: wait for what is under way, or, if it was cancelled,
        give that up."""
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            for future in list(self._under_way):
                future.cancel()
        else:
            await self.drain()

    def _finished(self, chunk: Chunk, future: asyncio.Future[list[Any]]) -> None:
        self._under_way.discard(future)
        outcome: list[Any] | LatticeError
        try:
            outcome = future.result()
        except LatticeError as error:
            outcome = error
        except asyncio.CancelledError:
            outcome = OutcomeUnknown("batch: given up while it was under way")
        if isinstance(outcome, LatticeError) and self.error is None:
            self.error = outcome
        self._done(chunk, outcome)
        self._changed.set()
        if not self._under_way and self._on_idle is not None:
            self._on_idle()


def shaped(op: Op, result: list[Any]) -> BatchItemResult:
    """An operation's result as the client's method returns it."""
    code = op[0]
    if code == PUT:
        revision: int = result[1]
        return revision
    if code == PUT_IF_REVISION:
        return PutResult(stored=result[0] == 0, revision=result[1])
    if code == CAS:
        return CasResult(swapped=bool(result[1]), revision=result[2])
    return DeleteResult(deleted=result[1], revision=result[2])


class BatchResults:
    """The results of a batch() so far, by the operations' positions."""

    def __init__(self) -> None:
        self._found: dict[int, list[BatchItemResult]] = {}

    def take(self, chunk: Chunk, outcome: list[Any] | LatticeError) -> None:
        if isinstance(outcome, LatticeError):
            self._found[chunk.first] = [outcome] * len(chunk.ops)
        else:
            self._found[chunk.first] = list(map(shaped, chunk.ops, outcome))

    def in_order(self) -> tuple[BatchItemResult, ...]:
        return tuple(result for first in sorted(self._found) for result in self._found[first])


class AsyncBatch:
    """Many writes of one coroutine, sent in large batches: see ``AsyncClient.batch``.

    The methods return when the operation is taken, which takes longer only where too much is under way; ``results``
    has what became of them.
    """

    def __init__(self, engine: Engine, timeout: float) -> None:
        self._buffer = OpBuffer()
        self._results = BatchResults()
        self._writer = BulkWriter(engine, timeout, self._results.take)
        self._writer.when_idle(self._send_soon)
        self._is_soon = False
        self._closed = False

    async def __aenter__(self) -> AsyncBatch:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                await self.flush()
        finally:
            self._closed = True  # what is gathered and was not sent is not wanted any more
            await self._writer.finish(kind)

    async def put(self, key: Data, value: Data, *, if_revision: int | None = None, if_absent: bool = False) -> None:
        """As ``client.put``; its result is a revision, or a PutResult if it is conditional."""
        await self._add(put_op(key, value, if_revision, if_absent))

    async def delete(self, key: Data) -> None:
        """As ``client.delete``."""
        await self._add(delete_op(key))

    async def delete_range(
        self, *, prefix: Data | None = None, start: Data | None = None, end: Data | None = None
    ) -> None:
        """As ``client.delete_range``."""
        await self._add(delete_range_op(prefix, start, end))

    async def cas(self, key: Data, expected: Data | None, new: Data) -> None:
        """As ``client.cas``."""
        await self._add(cas_op(key, expected, new))

    async def flush(self) -> None:
        """Send what there is, wait for all of it, and raise the first error."""
        chunk = self._buffer.take()
        if chunk is not None:
            await self._writer.send(chunk)
        await self._writer.drain()
        if self._writer.error is not None:
            raise self._writer.error

    @property
    def results(self) -> tuple[BatchItemResult, ...]:
        """What became of each operation that has been answered, in their order; all of them after :meth:`flush` or the
        end of the ``async with``. An operation that failed has its error here."""
        return self._results.in_order()

    async def _add(self, op: Op) -> None:
        _refuse_if(self._closed)
        if self._writer.error is not None:
            raise self._writer.error
        chunk = self._buffer.add(op, size_of(op))
        if chunk is not None:
            await self._writer.send(chunk)
        elif self._writer.is_idle:
            self._send_soon()

    def _send_soon(self) -> None:
        """Nothing is under way: what is gathered by the end of this turn of the loop goes."""
        if not self._is_soon and not self._closed:
            self._is_soon = True
            asyncio.get_running_loop().call_soon(self._send_rest)

    def _send_rest(self) -> None:
        self._is_soon = False
        if self._writer.is_idle and self._writer.error is None and not self._closed:
            chunk = self._buffer.take()
            if chunk is not None:
                self._writer.send_now(chunk)


Wait: TypeAlias = Callable[[Coroutine[Any, Any, None]], None]
"""Runs a coroutine on the client's loop, and returns when it has."""


class Batch:
    """The same for one thread: see ``Client.batch``. Batches are put together in the calling thread; only full ones
    cross to the client's own, so a batch leaves when it is full, at :meth:`flush`, or at the end of the ``with``."""

    def __init__(
        self, wait: Callable[[Coroutine[Any, Any, None]], None], writer: BulkWriter, results: BatchResults
    ) -> None:
        self._wait = wait
        self._buffer = OpBuffer()
        self._results = results
        self._writer = writer
        self._closed = False

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._closed = True
        try:
            if kind is None:
                self.flush()
        finally:
            self._wait(self._writer.finish(kind))

    def put(self, key: Data, value: Data, *, if_revision: int | None = None, if_absent: bool = False) -> None:
        """As ``client.put``; its result is a revision, or a PutResult if it is conditional."""
        self._add(put_op(key, value, if_revision, if_absent))

    def delete(self, key: Data) -> None:
        """As ``client.delete``."""
        self._add(delete_op(key))

    def delete_range(self, *, prefix: Data | None = None, start: Data | None = None, end: Data | None = None) -> None:
        """As ``client.delete_range``."""
        self._add(delete_range_op(prefix, start, end))

    def cas(self, key: Data, expected: Data | None, new: Data) -> None:
        """As ``client.cas``."""
        self._add(cas_op(key, expected, new))

    def flush(self) -> None:
        """Send what there is, wait for all of it, and raise the first error."""
        chunk = self._buffer.take()
        if chunk is not None:
            self._wait(self._writer.send(chunk))
        self._wait(self._writer.drain())
        if self._writer.error is not None:
            raise self._writer.error

    @property
    def results(self) -> tuple[BatchItemResult, ...]:
        """What became of each operation that has been answered, in their order; all of them after :meth:`flush` or the
        end of the ``with``. An operation that failed has its error here."""
        return self._results.in_order()

    def _add(self, op: Op) -> None:
        _refuse_if(self._closed)
        if self._writer.error is not None:
            raise self._writer.error
        chunk = self._buffer.add(op, size_of(op))
        if chunk is not None:
            self._wait(self._writer.send(chunk))


def _refuse_if(closed: bool) -> None:
    if closed:
        raise RuntimeError("the batch is over: begin another one")


# -- bulk loads -----------------------------------------------------------------------------------


class PutCounter:
    """What a bulk load comes to."""

    def __init__(self, progress: Callable[[int], None] | None) -> None:
        self.stored = 0
        self.revision = 0
        self._progress = progress

    def take(self, chunk: Chunk, outcome: list[Any] | LatticeError) -> None:
        if not isinstance(outcome, LatticeError):
            self.stored += len(chunk.ops)
            self.revision = max(self.revision, outcome[-1][1])
            if self._progress is not None:
                self._progress(self.stored)

    def result(self, error: LatticeError | None) -> PutManyResult:
        """Raises the error, if there is one, with how far it went."""
        if error is not None:
            raise prefixed(f"put_many: after {self.stored} acknowledged puts", error)
        return PutManyResult(self.stored, self.revision)


def pairs(items: Items) -> Iterable[tuple[Data, Data]]:
    return items.items() if isinstance(items, Mapping) else items


async def put_many(
    engine: Engine,
    items: Items | AsyncIterable[tuple[Data, Data]],
    timeout: float,
    progress: Callable[[int], None] | None,
) -> PutManyResult:
    """See ``AsyncClient.put_many``."""
    counter = PutCounter(progress)
    writer = BulkWriter(engine, timeout, counter.take)
    buffer = OpBuffer()
    kind: type[BaseException] | None = None
    try:
        if isinstance(items, AsyncIterable):
            await _feed_slowly(items, buffer, writer)
        else:
            for chunk in buffer.add_puts(pairs(items)):
                await writer.send(chunk)
        last = buffer.take()
        if last is not None:
            await writer.send(last)
    except BaseException as error:
        kind = type(error)
        if error is not writer.error:
            raise
    finally:
        await writer.finish(kind)
    return counter.result(writer.error)


async def _feed_slowly(items: AsyncIterable[tuple[Data, Data]], buffer: OpBuffer, writer: BulkWriter) -> None:
    """A source that may pause: what has come before a pause does not wait for it to end."""

    def send_rest() -> None:
        if writer.is_idle and writer.error is None:
            chunk = buffer.take()
            if chunk is not None:
                writer.send_now(chunk)

    loop = asyncio.get_running_loop()
    writer.when_idle(send_rest)
    async for item in items:
        for chunk in buffer.add_puts((item,)):
            await writer.send(chunk)
        if writer.is_idle:
            loop.call_soon(send_rest)
        elif writer.error is not None:
            break
