"""The client's side of tracing: a span for each batch, whose id travels with it. See lattice_core/tracing.py.

:class:`TracedEngine` takes the place of the engine where tracing is asked for; without it not one instruction is
added. A span begins when its batch is first written and ends when the last of its callers has been answered, so
that retries and lost leaders are within it, as events. Its parent is the span that was current where the first of
its operations was called; spans of the others' callers are linked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanKind

from lattice_core.client.channels import AddressBook
from lattice_core.client.engine import Engine
from lattice_core.client.reads import Answer, Level, Read, ReadBatch, ReadQueue
from lattice_core.client.writes import Batch, Result, WriteQueue
from lattice_core.errors import LatticeError
from lattice_core.kv.commands import Op
from lattice_core.rpc.pb import kv_pb2
from lattice_core.tracing import fail, start_tracer, traceparent_of

if TYPE_CHECKING:
    AnyFuture = asyncio.Future[Any]

MAX_LINKS: Final = 32
"""Callers of one batch that are named beside the first."""


class TracedEngine(Engine):
    """The engine, with a span for each batch."""

    def __init__(self, book: AddressBook, *, window: int) -> None:
        """Raises ConfigurationError if OpenTelemetry is not there."""
        super().__init__(book, window=window)
        self._spans = _Spans()
        self.writes = _TracedWrites(self._spans, window=window)
        self.reads = _TracedReads(self._spans, window=window)

    def write(self, op: Op, size: int, timeout: float) -> asyncio.Future[Result]:
        return self._spans.asked(super().write(op, size, timeout))

    def write_batch(self, commands: bytes, count: int, timeout: float) -> asyncio.Future[Result]:
        return self._spans.asked(super().write_batch(commands, count, timeout))

    def read(self, level: Level, read: Read, timeout: float) -> asyncio.Future[Answer]:
        return self._spans.asked(super().read(level, read, timeout))

    def _next_request(self, now: float) -> kv_pb2.SessionRequest | None:
        request = super()._next_request(now)
        if request is not None:
            span = self._spans.of_request(request.request_id)
            if span is not None:
                span.add_event("sent", {"server.address": self._address})
                body = request.write if request.WhichOneof("body") == "write" else request.read
                body.traceparent = traceparent_of(span)
        return request


class _TracedWrites(WriteQueue):
    def __init__(self, spans: _Spans, *, window: int) -> None:
        super().__init__(window=window)
        self._spans = spans

    def next_batch(self, request_id: int, now: float) -> Batch | None:
        batch = super().next_batch(request_id, now)
        if batch is not None:
            operations = sum(item.weight for item in batch.items)
            attributes = {"lattice.operations": operations, "lattice.bytes": len(batch.commands)}
            self._spans.sent(request_id, "lattice.write", [item.future for item in batch.items], attributes)
        return batch


class _TracedReads(ReadQueue):
    def __init__(self, spans: _Spans, *, window: int) -> None:
        super().__init__(window=window)
        self._spans = spans

    def next_batch(self, request_id: int, now: float) -> ReadBatch | None:
        batch = super().next_batch(request_id, now)
        if batch is not None:
            attributes = {"lattice.operations": len(batch.items)}
            self._spans.sent(request_id, "lattice.read", [item.future for item in batch.items], attributes)
        return batch


class _Spans:
    """Spans by the callers who wait for them. Bounded by what the queues hold."""

    def __init__(self) -> None:
        self._tracer = start_tracer("lattice.client")
        self._callers: dict[AnyFuture, trace.SpanContext] = {}
        """Whose operation has not travelled yet, with the span in which it was called, if there was one."""
        self._open: dict[AnyFuture, Span] = {}
        """Of every caller that waits for a sampled batch."""
        self._left: dict[Span, int] = {}
        """How many callers each of those spans waits for."""
        self._request: tuple[int, Span] | None = None

    def asked(self, future: asyncio.Future[Any]) -> asyncio.Future[Any]:
        """An operation was called here and now."""
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            self._callers[future] = context
            future.add_done_callback(self._gone)
        return future

    def _gone(self, future: AnyFuture) -> None:
        self._callers.pop(future, None)

    def sent(self, request_id: int, name: str, futures: Sequence[AnyFuture], attributes: dict[str, int]) -> None:
        """A batch is about to be written: for the first time, or again."""
        span = self._open.get(futures[0])
        if span is None:
            span = self._begin(name, futures, attributes)
        self._request = (request_id, span) if span.is_recording() else None

    def _begin(self, name: str, futures: Sequence[AnyFuture], attributes: dict[str, int]) -> Span:
        found = [context for future in futures if (context := self._callers.pop(future, None)) is not None]
        callers = list({(context.trace_id, context.span_id): context for context in found}.values())
        parent = trace.set_span_in_context(trace.NonRecordingSpan(callers[0])) if callers else None
        span = self._tracer.start_span(
            name,
            context=parent,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            links=[Link(context) for context in callers[1 : 1 + MAX_LINKS]],
        )
        if not span.is_recording():
            return span
        waiting = [future for future in futures if not future.done()]
        self._left[span] = len(waiting)
        for future in waiting:
            self._open[future] = span
            future.add_done_callback(self._answered)
        return span

    def _answered(self, future: AnyFuture) -> None:
        span = self._open.pop(future)
        if future.cancelled():
            fail(span, "given up by its caller")
        elif (error := future.exception()) is not None:
            fail(span, error.message if isinstance(error, LatticeError) else str(error))
        self._left[span] -= 1
        if not self._left[span]:
            del self._left[span]
            span.end()

    def of_request(self, request_id: int) -> Span | None:
        """The span of the request that is being made, if it is sampled. Once."""
        request, self._request = self._request, None
        return request[1] if request is not None and request[0] == request_id else None
