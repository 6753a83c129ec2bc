"""What a node shows to those who watch over it: the pages of ``--metrics-addr``, and gRPC's health and reflection.

* ``/metrics``: for Prometheus (``families``, ``exporter``).
* ``/healthz``: 200 as long as the event loop turns, for restarting what hangs. 503 once the node has failed.
* ``/readyz``: 200 when requests should be sent here, else 503 with the reason (``readiness``).
* ``grpc.health.v1.Health`` on the client port says the same: ``""`` and ``lattice.v1.KV`` are SERVING when ready,
  ``lattice.v1.Cluster``, which answers in any state, always. Watchers are told of changes within a second.
* ``grpc.reflection`` (v1 and v1alpha) on the client port, for grpcurl and the like.

The last two are made when they are first called: nobody who does not use them pays for them.
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import grpc

from lattice_core.rpc.aio import CONNECTION_ERRORS
from lattice_core.rpc.pb import access_pb2, cluster_pb2, kv_pb2
from lattice_core.server.http_listener import HttpListener, Response, text

if TYPE_CHECKING:
    from lattice_core.server.node import Node

WATCH_SECONDS = 1.0
"""How often a watcher's answer is looked at again."""

MAX_WATCHERS = 256
"""Health watches open at once; each is a timer a second."""

SERVICES = tuple(
    sorted(
        service.full_name
        for module in (kv_pb2, cluster_pb2, access_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
    )
)
"""What clients may call, by the wire contract."""

HEALTH_SERVICE = "grpc.health.v1.Health"


def http_listener(addr: str, node: Node) -> HttpListener:
    """The pages, not yet listening."""
    from lattice_core.server.exporter import Exporter

    exporter = Exporter(node)

    def metrics(headers: Mapping[str, str]) -> Response:
        return Response(http.HTTPStatus.OK, *exporter.render(headers.get("accept", "")))

    def healthz(_headers: Mapping[str, str]) -> Response:
        if node.failed.done():
            return text(http.HTTPStatus.SERVICE_UNAVAILABLE, f"failed: {node.failed.result()}")
        return text(http.HTTPStatus.OK, "ok")

    def readyz(_headers: Mapping[str, str]) -> Response:
        reason = node.readiness.reason()
        if reason is None:
            # It serves reads and deletes, and says who leads: no reason to send requests elsewhere.
            no_room = node.room.reason
            return text(http.HTTPStatus.OK, "ready" if no_room is None else f"ready, but writes are refused: {no_room}")
        return text(http.HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {reason}")

    return HttpListener(addr, {"/metrics": metrics, "/healthz": healthz, "/readyz": readyz})


def introspection_handlers(node: Node) -> list[grpc.GenericRpcHandler[Any, Any]]:
    """gRPC's health and reflection services, made when first called."""
    return [
        _Lazy("/grpc.health.v1.Health/", lambda: _health_methods(node)),
        _Lazy("/grpc.reflection.v1.ServerReflection/", _reflection_methods),
        _Lazy("/grpc.reflection.v1alpha.ServerReflection/", _reflection_methods),
    ]


class _Lazy(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in its stubs only
    def __init__(self, prefix: str, make: Callable[[], dict[str, grpc.RpcMethodHandler[Any, Any]]]) -> None:
        self._prefix = prefix
        self._make = make
        self._methods: dict[str, grpc.RpcMethodHandler[Any, Any]] | None = None

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        method = handler_call_details.method
        if not method.startswith(self._prefix):
            return None
        if self._methods is None:
            self._methods = self._make()
        return self._methods.get(method.removeprefix(self._prefix))


def _health_methods(node: Node) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    # Not that package's servicer: its watchers hold a lock while they write, so that one which does not read would
    # hold up whoever changes a status. Here nobody changes one: it is read off the node.
    from grpc_health.v1 import health_pb2

    watchers = 0

    def status(service: str) -> Any:
        if service not in ("", HEALTH_SERVICE, *SERVICES):
            return None
        serves = service in ("lattice.v1.Cluster", HEALTH_SERVICE) or node.readiness.reason() is None
        serving = health_pb2.HealthCheckResponse.ServingStatus
        return serving.SERVING if serves else serving.NOT_SERVING

    async def check(request: Any, context: Any) -> Any:
        found = status(request.service)
        if found is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r}")
        return health_pb2.HealthCheckResponse(status=found)

    async def watch(request: Any, context: Any) -> None:
        nonlocal watchers
        if watchers >= MAX_WATCHERS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{watchers} watches are open already")
        watchers += 1
        try:
            last: Any = None
            while True:
                found = status(request.service)
                if found is None:
                    found = health_pb2.HealthCheckResponse.ServingStatus.SERVICE_UNKNOWN
                if found != last:
                    await context.write(health_pb2.HealthCheckResponse(status=found))
                    last = found
                await asyncio.sleep(WATCH_SECONDS)
        except CONNECTION_ERRORS:
            pass  # the watcher has gone
        finally:
            watchers -= 1

    request, response = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
    return {
        "Check": grpc.unary_unary_rpc_method_handler(check, request.FromString, response.SerializeToString),
        "Watch": grpc.unary_stream_rpc_method_handler(watch, request.FromString, response.SerializeToString),
    }


def _reflection_methods() -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    from grpc_health.v1 import health_pb2  # noqa: F401 - registers the description of that service
    from grpc_reflection.v1alpha import reflection, reflection_pb2

    module: Any = reflection
    name = module.SERVICE_NAME
    servicer = module.aio.ReflectionServicer((*SERVICES, HEALTH_SERVICE, name, name.replace("v1alpha", "v1")))
    # v1 is v1alpha under another name; newer tools ask for it first.
    return {
        "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            reflection_pb2.ServerReflectionRequest.FromString,
            reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
    }
