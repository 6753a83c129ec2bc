"""Calls that a handler aborts, freed when they have ended.

``context.abort`` raises an error that gRPC keeps in the call's state. Its traceback leads to the handler's frames,
these to the context, and that to the call's state: a circle, and in it all that the handler knew, the call's own memory
in gRPC (some KiB), and whatever error was being handled. Only the garbage collector would find it, which runs rarely in
a server.

So the outermost handler takes the traceback off. Nobody misses it: gRPC has sent the status by then, and drops the
error. Any other error goes on as it is, for gRPC writes it to the log.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import grpc


class BriefAborts(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in its stubs only
    """The same handlers, whose aborts hold nothing."""

    def __init__(self, handlers: grpc.GenericRpcHandler[Any, Any]) -> None:
        self._handlers = handlers
        self._known: dict[str, tuple[object, grpc.RpcMethodHandler[Any, Any]]] = {}
        """By method: the handler, and ours around it. Only methods that exist get here."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = self._handlers.service(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        known = self._known.get(method)
        if known is None or known[0] is not handler:
            known = self._known[method] = (handler, _around(handler))
        return known[1]


def _around(handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
    kind: Callable[..., grpc.RpcMethodHandler[Any, Any]]
    if not handler.request_streaming and not handler.response_streaming:
        behavior, kind = handler.unary_unary, grpc.unary_unary_rpc_method_handler
    elif handler.request_streaming and handler.response_streaming:
        behavior, kind = handler.stream_stream, grpc.stream_stream_rpc_method_handler
    elif handler.response_streaming:
        behavior, kind = handler.unary_stream, grpc.unary_stream_rpc_method_handler
    else:
        behavior, kind = handler.stream_unary, grpc.stream_unary_rpc_method_handler
    around = _generator(behavior) if inspect.isasyncgenfunction(behavior) else _coroutine(behavior)
    return kind(around, handler.request_deserializer, handler.response_serializer)


def _coroutine(behavior: Any) -> Any:
    async def brief(request: Any, context: Any) -> Any:
        try:
            return await behavior(request, context)
        except grpc.aio.AbortError as error:
            del request, context  # this frame is the only one that the traceback will lead to
            error.__context__ = None
            raise error.with_traceback(None)  # noqa: B904 - it is the same one

    return brief


def _generator(behavior: Any) -> Any:
    async def brief(request: Any, context: Any) -> Any:
        try:
            async for response in behavior(request, context):
                yield response
        except grpc.aio.AbortError as error:
            del request, context
            error.__context__ = None
            raise error.with_traceback(None)  # noqa: B904 - it is the same one

    return brief
