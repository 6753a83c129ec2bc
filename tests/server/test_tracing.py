"""One trace from a client's call through the leader, the followers and apply. Three nodes in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from server_harness import cluster, configs, eventually, kv_stub, run

from lattice_core.client import AsyncClient
from lattice_core.kv import BatchResult, BatchStatus
from lattice_core.raft.types import Entry
from lattice_core.rpc.pb import kv_pb2, raft_pb2
from lattice_core.server.tracing import MAX_ENTRIES, NodeTracer

_EXPORTER = InMemorySpanExporter()


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    """As an application that has set OpenTelemetry up for itself: that is possible once in a process."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(_EXPORTER))
        trace.set_tracer_provider(provider)
    _EXPORTER.clear()
    yield _EXPORTER
    _EXPORTER.clear()


def named(spans: Sequence[ReadableSpan], name: str) -> list[ReadableSpan]:
    return [span for span in spans if span.name == name]


def attribute(span: ReadableSpan, name: str) -> Any:
    assert span.attributes is not None
    return span.attributes.get(name)


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    return span.parent is not None and span.parent.span_id == parent.context.span_id


def test_a_write_is_one_trace_through_client_leader_both_followers_and_apply(
    tmp_path: Path, exporter: InMemorySpanExporter
) -> None:
    async def scenario() -> None:
        traced = [replace(config, trace=True) for config in configs(tmp_path, 3)]
        async with cluster(traced) as running:
            leader = (await running.leader()).config
            async with AsyncClient(leader.client_addr, tracing=True) as client:
                with trace.get_tracer("application").start_as_current_span("order") as order:
                    await client.put(b"key", b"value")
            await eventually(lambda: len(named(exporter.get_finished_spans(), "follower apply")) == 2)
        spans = exporter.get_finished_spans()
        assert {span.context.trace_id for span in spans} == {order.get_span_context().trace_id}
        (write,), (led,) = named(spans, "lattice.write"), named(spans, "lattice.leader")
        assert write.parent is not None
        assert write.parent.span_id == order.get_span_context().span_id
        assert is_child(led, write)
        stages = {name: named(spans, name) for name in ("queue", "persist", "replicate", "apply")}
        assert all(len(found) == 1 and is_child(found[0], led) for found in stages.values())
        (replicate,), (apply,) = stages["replicate"], stages["apply"]
        assert replicate.end_time is not None
        assert apply.start_time is not None
        assert replicate.end_time <= apply.start_time
        followers = {config.name for config in traced} - {leader.name}
        for name in ("follower append", "follower apply"):
            found = named(spans, name)
            assert {attribute(span, "lattice.node") for span in found} == followers
            assert all(is_child(span, replicate) for span in found)
            assert {attribute(span, "lattice.index") for span in found} == {attribute(led, "lattice.index")}
        assert all(span.status.is_unset for span in spans)

    run(scenario())


def test_a_batch_of_several_callers_is_one_span_that_is_linked_to_the_others(
    tmp_path: Path, exporter: InMemorySpanExporter
) -> None:
    async def scenario() -> None:
        tracer = trace.get_tracer("application")

        async def call(client: AsyncClient, name: str) -> None:
            with tracer.start_as_current_span(name):
                await client.put(name, b"value")

        async with cluster([replace(config, trace=True) for config in configs(tmp_path, 1)]) as running:
            leader = (await running.leader()).config
            async with AsyncClient(leader.client_addr, tracing=True) as client:
                await asyncio.gather(*(call(client, f"caller-{number}") for number in range(3)))
        spans = exporter.get_finished_spans()
        (write,) = named(spans, "lattice.write")
        callers = [named(spans, f"caller-{number}")[0] for number in range(3)]
        assert is_child(write, callers[0])
        linked = {link.context.span_id for link in write.links}
        assert linked == {each.context.span_id for each in callers[1:]}

    run(scenario())


def test_reads_and_unary_calls_are_traced_and_what_asks_for_no_trace_has_none(
    tmp_path: Path, exporter: InMemorySpanExporter
) -> None:
    async def scenario() -> None:
        async with cluster([replace(config, trace=True) for config in configs(tmp_path, 1)]) as running:
            addr = (await running.leader()).config.client_addr
            async with AsyncClient(addr) as client:
                await client.put(b"untraced", b"")
                await client.get(b"untraced")
            assert exporter.get_finished_spans() == ()
            async with AsyncClient(addr, tracing=True) as client:
                await client.get(b"untraced")
            (asked,) = [span for span in exporter.get_finished_spans() if span.parent is None]
            (served,) = [span for span in exporter.get_finished_spans() if span.parent is not None]
            assert is_child(served, asked)
            assert attribute(served, "lattice.consistency") == "linearizable"
            parent = f"00-{1:032x}-{2:016x}-01"
            async with kv_stub(addr) as stub:
                for traceparent in (parent, "nonsense"):
                    request = kv_pb2.PutRequest(key=b"k", value=b"v")
                    await stub.Put(request, metadata=(("traceparent", traceparent),))
            (led,) = named(exporter.get_finished_spans(), "lattice.leader")
            assert led.context.trace_id == 1

    run(scenario())


def test_spans_of_what_was_not_executed_or_replaced_end_as_failed(exporter: InMemorySpanExporter) -> None:
    tracer = NodeTracer(trace.get_tracer("test"), "n1")
    parent = f"00-{1:032x}-{2:016x}-01"
    answers: list[object] = []
    reply = tracer.writing(parent, 10, answers.append)
    tracer.proposed(7, 1, [SimpleNamespace(reply=reply)])  # type: ignore[list-item]
    reply(kv_pb2.ErrorDetail(message="leadership was lost"))
    tracer.incoming([raft_pb2.TracedEntry(index=8, term=1, traceparent=parent)])
    tracer.committed([Entry(8, 2, b"of another leader")])
    spans = exporter.get_finished_spans()
    assert len(answers) == 1
    assert {span.name: span.status.description for span in spans if not span.status.is_unset} == {
        "persist": "leadership was lost",
        "replicate": "leadership was lost",
        "lattice.leader": "leadership was lost",
        "follower append": "replaced by an entry of term 2",
    }


def test_what_is_followed_at_once_is_bounded_and_ends(exporter: InMemorySpanExporter) -> None:
    tracer = NodeTracer(trace.get_tracer("test"), "n1")
    parent = f"00-{1:032x}-{2:016x}-01"
    marks = [raft_pb2.TracedEntry(index=index, term=1, traceparent=parent) for index in range(1, MAX_ENTRIES + 100)]
    tracer.incoming(marks)
    tracer.incoming([raft_pb2.TracedEntry(index=1, term=1, traceparent=parent)] * 1000)
    tracer.applied(MAX_ENTRIES + 100)
    ended = exporter.get_finished_spans()
    assert MAX_ENTRIES <= len(ended) < MAX_ENTRIES + 100
    reply = tracer.writing(parent, 10, lambda _: None)
    tracer.proposed(1000, 1, [SimpleNamespace(reply=reply)])  # type: ignore[list-item]
    reply(BatchResult(BatchStatus.OK, b"\x90"))
    tracer.close()
    assert len(named(exporter.get_finished_spans(), "lattice.leader")) == 1
    assert tracer._entries == {}
