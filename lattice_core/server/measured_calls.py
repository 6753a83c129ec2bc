"""Every call on the client port timed, counted and bounded, whatever service it belongs to.

Wrapped around a service's handlers once, so that neither services nor new methods need to think of it. A unary call
costs a few microseconds more, on top of the hundreds that gRPC takes; a stream costs that once in its life, and
nothing for each message: what goes over ``KV/Session`` is counted where it is served (``proposals``, ``reads``).
"""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import Any

import grpc

from lattice_core.server.bounds import CallBound
from lattice_core.server.metrics import CallMetrics, NodeMetrics


class MeasuredHandlers(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in its stubs only
    """The same handlers, counted under ``Service/Method`` without the package."""

    def __init__(self, handlers: grpc.GenericRpcHandler[Any, Any], metrics: NodeMetrics, bound: CallBound) -> None:
        self._handlers = handlers
        self._metrics = metrics
        self._bound = bound
        # Only methods that exist get here, so what strangers ask for does not make it grow.
        self._measured: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        method = handler_call_details.method
        measured = self._measured.get(method)
        if measured is None:
            handler = self._handlers.service(handler_call_details)
            if handler is None:
                return None
            name = method.rpartition(".")[2]
            measured = self._measured[method] = _measure(handler, self._metrics.calls[name], self._bound)
        return measured


def _measure(handler: Any, call: CallMetrics, bound: CallBound) -> grpc.RpcMethodHandler[Any, Any]:
    if not handler.request_streaming and not handler.response_streaming:
        return grpc.unary_unary_rpc_method_handler(
            _unary(handler.unary_unary, call, bound), handler.request_deserializer, handler.response_serializer
        )
    if handler.request_streaming and handler.response_streaming:
        kind: Any = grpc.stream_stream_rpc_method_handler
        behavior = handler.stream_stream
    elif handler.response_streaming:
        kind, behavior = grpc.unary_stream_rpc_method_handler, handler.unary_stream
    else:
        kind, behavior = grpc.stream_unary_rpc_method_handler, handler.stream_unary
    wrapped = (
        _generator(behavior, call, bound) if inspect.isasyncgenfunction(behavior) else _stream(behavior, call, bound)
    )
    measured: grpc.RpcMethodHandler[Any, Any] = kind(wrapped, handler.request_deserializer, handler.response_serializer)
    return measured


def _unary(behavior: Any, call: CallMetrics, bound: CallBound) -> Any:
    async def measured(request: Any, context: Any) -> Any:
        began = time.perf_counter()
        bound.open += 1
        try:
            if bound.exceeded:
                await bound.refuse(context)
            return await behavior(request, context)
        except BaseException as error:
            call.errors[_code_of(error, context)] += 1
            raise
        finally:
            bound.open -= 1
            call.seconds.note(time.perf_counter() - began)

    return measured


def _stream(behavior: Any, call: CallMetrics, bound: CallBound) -> Any:
    async def measured(request: Any, context: Any) -> Any:
        call.streams_total += 1
        call.streams_open += 1
        bound.open += 1
        try:
            if bound.exceeded:
                await bound.refuse(context)
            return await behavior(request, context)
        except asyncio.CancelledError:
            raise  # the client has hung up, which is how most streams end
        except BaseException as error:
            call.errors[_code_of(error, context)] += 1
            raise
        finally:
            call.streams_open -= 1
            bound.open -= 1

    return measured


def _generator(behavior: Any, call: CallMetrics, bound: CallBound) -> Any:
    async def measured(request: Any, context: Any) -> Any:
        call.streams_total += 1
        call.streams_open += 1
        bound.open += 1
        try:
            if bound.exceeded:
                await bound.refuse(context)
            async for response in behavior(request, context):
                yield response
        except (GeneratorExit, asyncio.CancelledError):
            raise
        except BaseException as error:
            call.errors[_code_of(error, context)] += 1
            raise
        finally:
            call.streams_open -= 1
            bound.open -= 1

    return measured


def _code_of(error: BaseException, context: Any) -> str:
    """The status that the client sees."""
    if isinstance(error, asyncio.CancelledError):
        return grpc.StatusCode.CANCELLED.name
    code = context.code()
    if isinstance(code, grpc.StatusCode):
        return code.name
    known = {each.value[0]: each.name for each in grpc.StatusCode}
    return known.get(code, "UNKNOWN") if code else "UNKNOWN"
