"""OpenTelemetry, where it is asked for: one trace from a client's call through the leader, the followers and apply.

An optional extra (``pip install 'lattice-kv[otel]'``). Nothing here is imported unless tracing is switched on, and
then everything else is OpenTelemetry's own: exporter, endpoint, sampler, resource and queue are set by its standard
``OTEL_*`` variables. An application that has set up a tracer provider of its own keeps it: ours is for processes
that have none, which are servers and the command line.

What is traced is a batch, never an operation: the sampler decides once for each batch, and one that is not sampled
carries nothing further. Over the wire goes a W3C ``traceparent``, in a field of its own that is absent otherwise.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

from lattice_core.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

SERVICE: Final = "lattice"

_EXPORTERS: Final = "opentelemetry_traces_exporter"
"""The entry points by which exporters are known under the names that OTEL_TRACES_EXPORTER takes."""

_PROTOCOLS: Final = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}

_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def require() -> None:
    """Raise ConfigurationError if OpenTelemetry is not installed."""
    from importlib.util import find_spec

    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        raise ConfigurationError(
            "tracing needs OpenTelemetry, which is not installed", hint="pip install 'lattice-kv[otel]'"
        )


def start_tracer(scope: str, *, instance: str = "") -> Tracer:
    """The tracer of one part of Lattice; sets OpenTelemetry up where nobody has. ``instance``: this process' name.

    Raises ConfigurationError if the packages are missing or a variable asks for what is not there.
    """
    require()
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    if not isinstance(trace.get_tracer_provider(), TracerProvider) and not _disabled():
        trace.set_tracer_provider(_provider(instance))
    from lattice_core import __version__

    return trace.get_tracer(scope, __version__)


def _disabled() -> bool:
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _provider(instance: str) -> TracerProvider:
    """By the OTEL_* variables; the sampler, the queue and the exporter read theirs themselves."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    given = Resource.create()
    own = {"service.name": SERVICE} if str(given.attributes["service.name"]).startswith("unknown_service") else {}
    if instance:
        own["service.instance.id"] = instance
    provider = TracerProvider(resource=given.merge(Resource(own)))
    for name in os.environ.get("OTEL_TRACES_EXPORTER", "otlp").split(","):
        if name.strip() and name.strip() != "none":
            provider.add_span_processor(BatchSpanProcessor(_exporter(name.strip())))
    return provider


def _exporter(name: str) -> Any:
    from importlib.metadata import entry_points

    wanted = name
    if name == "otlp":
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get(
            "OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"
        )
        wanted = _PROTOCOLS.get(protocol, protocol)
    found = list(entry_points(group=_EXPORTERS, name=wanted))
    if not found:
        known = ", ".join(sorted({point.name for point in entry_points(group=_EXPORTERS)} | {"none"}))
        raise ConfigurationError(
            f"OTEL_TRACES_EXPORTER: there is no exporter {wanted!r} here, but {known}",
            hint="pip install opentelemetry-exporter-..., or OTEL_TRACES_EXPORTER=otlp",
        )
    return found[0].load()()


# --- over the wire ----------------------------------------------------------------------------------


def traceparent_of(span: Span) -> str:
    """What makes ``span`` the parent of one in another process; empty if it is not sampled."""
    context = span.get_span_context()
    if not (context.is_valid and context.trace_flags.sampled):
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def parent_from(traceparent: str) -> Context | None:
    """The context to begin a span in; None for what is no traceparent (somebody else's bytes: never an error)."""
    from opentelemetry import trace

    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return None
    context = trace.SpanContext(
        int(match[1], 16), int(match[2], 16), is_remote=True, trace_flags=trace.TraceFlags(int(match[3], 16))
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(context)) if context.is_valid else None


def fail(span: Span, why: str) -> None:
    """Mark ``span`` as gone wrong. It has still to be ended."""
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.ERROR, why))
