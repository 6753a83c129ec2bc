"""The KV service: the pipelined stream that our client uses, and unary calls for everybody else.

A stream costs two coroutines, whatever is on it: the handler reads requests and hands them to proposals or
reads, which call back; a writer sends the answers as they come. No task is made per request.

Bounds: per stream, requests taken and not yet answered, in number and bytes, and the answers that were not taken; at
any of them the reader stops reading, and gRPC's flow control stops the client. All together: ``max_pending_bytes``,
beyond which writes are answered with BUSY (RESOURCE_EXHAUSTED), and ``max_answer_bytes``, beyond which reads are.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import fields
from typing import Any, NoReturn

import grpc
import msgpack
from google.protobuf.message import DecodeError

from lattice_core.errors import InvalidRequest, LatticeError, OutcomeUnknown, Unavailable
from lattice_core.kv import (
    BatchResult,
    BatchStatus,
    ClientBatch,
    Op,
    RangeResult,
    RequestLimits,
    cas,
    close_session,
    decode_batch,
    decode_results,
    delete,
    delete_range,
    encode_batch,
    open_session,
    put,
    put_if_revision,
    raise_for_status,
    read_txn_result,
)
from lattice_core.kv.commands import open_session_for
from lattice_core.rpc.aio import CONNECTION_ERRORS, EOF, until_first_ends
from lattice_core.rpc.errors import ERROR_METADATA_KEY, status_of, to_detail
from lattice_core.rpc.pb import kv_pb2
from lattice_core.server.access import Caller
from lattice_core.server.bounds import AnswerBudget
from lattice_core.server.explain import ExplainedRead, ExplainedWrite
from lattice_core.server.node import Node
from lattice_core.server.proposals import Outcome, Reply
from lattice_core.server.read_batches import (
    COUNT_ONLY,
    KEYS_ONLY,
    REVERSE,
    Answer,
    Get,
    Range,
    Read,
    checked,
    checked_bound,
    decode_reads,
    encode_answers,
    key_value_to_pb,
)
from lattice_core.server.reads import Answers
from lattice_core.server.tracing import traceparent_of_call
from lattice_core.server.txn_messages import request_to_op, result_to_pb

_pack: Callable[[Any], bytes] = msgpack.Packer(autoreset=True).pack


class MalformedRequest(Exception):
    """Bytes on a session stream that are no request. They cannot be answered, so the stream ends."""


def outcome_to_detail(result: BatchResult) -> kv_pb2.ErrorDetail | None:
    """The error of a batch that was not executed; None if it was."""
    if result.status is BatchStatus.OK:
        return None
    try:
        raise_for_status(result.status)
    except LatticeError as error:
        detail = to_detail(error)
        if result.status is BatchStatus.STALE:
            detail.code = kv_pb2.ERROR_CODE_STALE_SEQUENCE
        return detail
    raise AssertionError(f"status {result.status!r} is no error")


class KVService:
    """Handlers for lattice.v1.KV. ``draining`` refuses what is new and lets the rest finish."""

    def __init__(self, node: Node) -> None:
        config = node.config
        self._node = node
        limits = RequestLimits(**{each.name: getattr(config, each.name) for each in fields(RequestLimits)})
        self._limits = limits if limits.narrower else None
        self.max_stream_requests = config.max_stream_requests
        self.max_stream_bytes = config.max_stream_bytes
        self.budget = AnswerBudget(config.max_answer_bytes)
        self.tracer = node.tracer
        self.draining = False

    def refusal(self) -> kv_pb2.ErrorDetail | None:
        """Why nothing new is taken; None: it is."""
        if self.draining:
            leader_id = self._node.core.leader_id
            hint = self._node.hints.leader(leader_id) if leader_id != self._node.core.id else None
            return to_detail(Unavailable(f"{self._node.config.name} is shutting down"), leader=hint)
        if self._node.failed.done():
            return to_detail(Unavailable(f"{self._node.config.name} has failed and is stopping"))
        return None

    def write(self, batch: ClientBatch, reply: Reply, caller: Caller) -> None:
        """Check a batch and propose it; ``batch.ops`` need not be set. Exactly one reply, maybe at once."""
        gate = self._node.gate
        try:
            if batch.session_id and not batch.sequence:
                raise InvalidRequest("a batch under a session needs a sequence, counted from 1")
            ops = batch.ops if batch.ops is not None else decode_batch(batch.commands)
            if gate.enabled:
                gate.check_write(caller, batch, ops)
            if self._limits is not None:
                self._limits.check(ops, len(batch.commands))
        except LatticeError as error:
            gate.refused(error, "a write", caller.peer)
            reply(to_detail(error))
            return
        self._node.proposals.submit(
            ClientBatch(batch.session_id, batch.sequence, batch.acknowledged_below, batch.commands, ops), reply
        )

    def propose_session(self, reply: Reply, caller: Caller) -> None:
        """Propose a session: for the user who calls, if it matters who does."""
        op = open_session()
        gate = self._node.gate
        try:
            if gate.enabled and self._node.core.is_leader:
                gate.require_settled()
                op = open_session_for(caller.permission().user)
        except LatticeError as error:
            gate.refused(error, "opening a session", caller.peer)
            reply(to_detail(error))
            return
        self._node.proposals.submit(ClientBatch(0, 0, 0, encode_batch([op]), (op,)), reply)

    def read(
        self,
        reads: list[Read],
        consistency: int,
        reply: Callable[[Answers | kv_pb2.ErrorDetail], None],
        max_stale_seconds: float | None,
        caller: Caller,
    ) -> None:
        self._node.reads.submit(reads, consistency, reply, max_stale_seconds, lambda: self._may_read(caller, reads))

    def _may_read(self, caller: Caller, reads: list[Read]) -> kv_pb2.ErrorDetail | None:
        """Why these reads must not be executed now; None: they may."""
        gate = self._node.gate
        if not gate.enabled:
            return None
        try:
            gate.check_reads(caller, reads)
        except LatticeError as error:
            gate.refused(error, "a read", caller.peer)
            return to_detail(error)
        return None

    def caller(self, context: Any) -> Caller:
        return self._node.gate.caller(context)

    def leader_hint(self) -> kv_pb2.LeaderHint | None:
        return self._node.hints.leader(self._node.core.leader_id)

    # -- the stream -------------------------------------------------------------------------------

    async def session(self, _requests: object, context: Any) -> None:
        stream = _SessionStream(self, self.caller(context))
        try:
            await until_first_ends(stream.read_requests(context.read), stream.write_answers(context.write))
        except MalformedRequest as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except CONNECTION_ERRORS:
            pass  # the client has gone; what it sent runs its course
        finally:
            stream.close()

    # -- unary calls ------------------------------------------------------------------------------

    async def put(self, request: kv_pb2.PutRequest, context: Any) -> kv_pb2.PutResponse:
        if request.HasField("if_mod_revision"):
            op = put_if_revision(request.key, request.value, request.if_mod_revision)
        else:
            op = put(request.key, request.value)
        explained = self._node.explanations.write() if request.explain else None
        failed, revision = await self._write_one(op, request, context, explained)
        response = kv_pb2.PutResponse(done=not failed, revision=revision)
        if explained is not None:
            response.explanation.CopyFrom(explained.to_pb())
        return response

    async def delete(self, request: kv_pb2.DeleteRequest, context: Any) -> kv_pb2.DeleteResponse:
        op = delete_range(request.key, request.range_end) if request.HasField("range_end") else delete(request.key)
        _, deleted, revision = await self._write_one(op, request, context)
        return kv_pb2.DeleteResponse(deleted=deleted, revision=revision)

    async def compare_and_swap(
        self, request: kv_pb2.CompareAndSwapRequest, context: Any
    ) -> kv_pb2.CompareAndSwapResponse:
        expected = request.expected if request.HasField("expected") else None
        _, swapped, revision = await self._write_one(cas(request.key, expected, request.value), request, context)
        return kv_pb2.CompareAndSwapResponse(swapped=swapped, revision=revision)

    async def txn(self, request: kv_pb2.TxnRequest, context: Any) -> kv_pb2.TxnResponse:
        try:
            op = request_to_op(request)
            result = await self._write_one(op, request, context)
            return result_to_pb(op, read_txn_result(result))
        except LatticeError as error:
            await abort(context, to_detail(error))

    async def open_session(self, _request: kv_pb2.OpenSessionRequest, context: Any) -> kv_pb2.OpenSessionResponse:
        await self._refuse_if_draining(context)
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.propose_session(lambda outcome: _settle(done, outcome), self.caller(context))
        _, session_id = await self._result_of(done, context)
        return kv_pb2.OpenSessionResponse(session_id=session_id, leader=self.leader_hint())

    async def get(self, request: kv_pb2.GetRequest, context: Any) -> kv_pb2.GetResponse:
        revision = request.revision if request.HasField("revision") else None
        explained = self._node.explanations.read() if request.explain else None
        answers = await self._read_one(Get(request.key, revision), request, context, explained)
        answer = answers.answers[0]
        response = kv_pb2.GetResponse(revision=answers.revision)
        if answer is None:
            response.not_found.SetInParent()
        else:
            assert not isinstance(answer, RangeResult | LatticeError)
            response.found.CopyFrom(key_value_to_pb(answer))
        if explained is not None:
            response.explanation.CopyFrom(explained.to_pb())
        await self._charge(response, context)
        return response

    async def range(self, request: kv_pb2.RangeRequest, context: Any) -> kv_pb2.RangeResponse:
        flags = (
            (KEYS_ONLY if request.keys_only else 0)
            | (COUNT_ONLY if request.count_only else 0)
            | (REVERSE if request.reverse else 0)
        )
        revision = request.revision if request.HasField("revision") else None
        read = Range(request.start, request.end, request.limit, revision, flags)
        answers = await self._read_one(read, request, context)
        answer = answers.answers[0]
        assert isinstance(answer, RangeResult)
        response = kv_pb2.RangeResponse(
            revision=answer.revision,
            kvs=[key_value_to_pb(kv) for kv in answer.kvs],
            more=answer.more,
            count=answer.count,
        )
        await self._charge(response, context)
        return response

    async def _charge(self, response: Any, context: Any) -> None:
        """Count a unary answer until its call is over. Aborts the call if there is no room for it."""
        budget, size = self.budget, response.ByteSize()
        refusal = budget.refusal(size)
        if refusal is not None:
            await abort(context, to_detail(refusal))
        budget.waiting += size

        def over(_context: object) -> None:
            budget.waiting -= size

        context.add_done_callback(over)

    async def _write_one(
        self, op: Op, request: Any, context: Any, explained: ExplainedWrite | None = None
    ) -> list[Any]:
        """The result of one op as a batch of its own. Aborts the call with what went wrong."""
        await self._refuse_if_draining(context)
        identity = request.identity if request is not None and request.HasField("identity") else None
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        commands = encode_batch([op])
        reply: Reply = lambda outcome: _settle(done, outcome)  # noqa: E731
        if explained is not None:
            reply = explained.replying(commands, reply)
        if self.tracer is not None:
            reply = self.tracer.writing(traceparent_of_call(context), len(commands), reply)
        self.write(
            ClientBatch(
                identity.session_id if identity is not None else 0,
                identity.sequence if identity is not None else 0,
                identity.acknowledged_below if identity is not None else 0,
                commands,
            ),
            reply,
            self.caller(context),
        )
        return await self._result_of(done, context)

    async def _result_of(self, done: asyncio.Future[Outcome], context: Any) -> list[Any]:
        outcome = await done
        detail = outcome_to_detail(outcome) if isinstance(outcome, BatchResult) else outcome
        if detail is not None:
            await abort(context, detail)
        assert isinstance(outcome, BatchResult)
        return decode_results(outcome.packed)[0]

    async def _read_one(
        self, read: Read, request: Any, context: Any, explained: ExplainedRead | None = None
    ) -> Answers:
        await self._refuse_if_draining(context)
        try:
            reads = [checked(read)]
            max_stale_seconds = checked_bound(request)
        except LatticeError as error:
            await abort(context, to_detail(error))
        done: asyncio.Future[Answers | kv_pb2.ErrorDetail] = asyncio.get_running_loop().create_future()
        reply: Callable[[Answers | kv_pb2.ErrorDetail], None] = lambda answers: _settle(done, answers)  # noqa: E731
        if explained is not None:
            reply = explained.replying(reads, reply)
        if self.tracer is not None:
            reply = self.tracer.reading(traceparent_of_call(context), request.consistency, 1, reply)
        self.read(reads, request.consistency, reply, max_stale_seconds, self.caller(context))
        answers = await done
        if isinstance(answers, kv_pb2.ErrorDetail):
            await abort(context, answers)
        answer: Answer = answers.answers[0]
        if isinstance(answer, LatticeError):
            await abort(context, to_detail(answer))
        return answers

    async def _refuse_if_draining(self, context: Any) -> None:
        refusal = self.refusal()
        if refusal is not None:
            await abort(context, refusal)

    def handlers(self) -> grpc.GenericRpcHandler[Any, Any]:
        return grpc.method_handlers_generic_handler(
            "lattice.v1.KV",
            {
                "Session": grpc.stream_stream_rpc_method_handler(
                    self.session,
                    # Requests stay bytes until we parse them, so that malformed ones are ours to answer.
                    response_serializer=kv_pb2.SessionResponse.SerializeToString,
                ),
                "Put": _unary(self.put, kv_pb2.PutRequest),
                "Get": _unary(self.get, kv_pb2.GetRequest),
                "Range": _unary(self.range, kv_pb2.RangeRequest),
                "Delete": _unary(self.delete, kv_pb2.DeleteRequest),
                "CompareAndSwap": _unary(self.compare_and_swap, kv_pb2.CompareAndSwapRequest),
                "Txn": _unary(self.txn, kv_pb2.TxnRequest),
                "OpenSession": _unary(self.open_session, kv_pb2.OpenSessionRequest),
            },
        )


class _SessionStream:
    """One open stream: what is under way on it, and what waits to be sent."""

    def __init__(self, service: KVService, caller: Caller) -> None:
        self._service = service
        self._caller = caller
        self._tracer = service.tracer
        # Each answer with the size of its request, and its own as the budget is charged.
        self._answers: deque[tuple[kv_pb2.SessionResponse, int, int]] = deque()
        self._has_answers = asyncio.Event()
        self._has_room = asyncio.Event()
        # Invariant: requests taken whose answers have not been sent, in number and bytes.
        self._under_way = 0
        self._under_way_bytes = 0
        # Invariant: what the service's budget is charged for answers of this stream that have not been sent.
        self._answer_bytes = 0
        self.closed = False

    def close(self) -> None:
        self.closed = True
        self._service.budget.waiting -= self._answer_bytes
        self._answer_bytes = 0
        self._answers.clear()

    async def read_requests(self, read: Callable[[], Any]) -> None:
        """Take requests until the client ends its half; then wait until all are answered."""
        max_requests, max_bytes = self._service.max_stream_requests, self._service.max_stream_bytes
        while True:
            data = await read()
            if data is EOF:
                break
            self._under_way += 1
            self._under_way_bytes += len(data)
            self._take(data)
            while self._under_way >= max_requests or self._under_way_bytes + self._answer_bytes >= max_bytes:
                self._has_room.clear()
                await self._has_room.wait()
        while self._under_way:
            self._has_room.clear()
            await self._has_room.wait()

    async def write_answers(self, write: Callable[[kv_pb2.SessionResponse], Any]) -> None:
        """Send answers as they come, one by one. Never returns."""
        answers, budget = self._answers, self._service.budget
        while True:
            await self._has_answers.wait()
            while answers:
                response, size, answer_bytes = answers.popleft()
                await write(response)
                self._under_way -= 1
                self._under_way_bytes -= size
                self._answer_bytes -= answer_bytes
                budget.waiting -= answer_bytes
                self._has_room.set()
            self._has_answers.clear()

    def _take(self, data: bytes) -> None:
        size = len(data)
        try:
            request = kv_pb2.SessionRequest.FromString(data)
        except DecodeError as error:
            raise MalformedRequest(f"not a SessionRequest: {error}") from None
        request_id = request.request_id
        refusal = self._service.refusal()
        if refusal is not None:
            self._answer_error(request_id, size, refusal)
            return
        match request.WhichOneof("body"):
            case "write":
                batch = request.write
                reply: Reply = lambda outcome: self._written(request_id, size, outcome)  # noqa: E731
                if self._tracer is not None and batch.traceparent:
                    reply = self._tracer.writing(batch.traceparent, len(batch.commands), reply)
                self._service.write(
                    ClientBatch(batch.session_id, batch.sequence, batch.acknowledged_below, batch.commands),
                    reply,
                    self._caller,
                )
            case "read":
                try:
                    reads = decode_reads(request.read.reads)
                    max_stale_seconds = checked_bound(request.read)
                except LatticeError as error:
                    self._answer_error(request_id, size, to_detail(error))
                    return
                answer: Callable[[Answers | kv_pb2.ErrorDetail], None] = lambda answers: self._have_read(  # noqa: E731
                    request_id, size, answers
                )
                if self._tracer is not None and request.read.traceparent:
                    traceparent = request.read.traceparent
                    answer = self._tracer.reading(traceparent, request.read.consistency, len(reads), answer)
                self._service.read(reads, request.read.consistency, answer, max_stale_seconds, self._caller)
            case "open":
                self._service.propose_session(lambda outcome: self._opened(request_id, size, outcome), self._caller)
            case "close":
                self._service.write(
                    ClientBatch(0, 0, 0, encode_batch([close_session(request.close.session_id)])),
                    lambda outcome: self._session_closed(request_id, size, outcome),
                    self._caller,
                )
            case _:
                unknown = InvalidRequest("a request without a body, or of a kind this server does not know")
                self._answer_error(request_id, size, to_detail(unknown))

    # -- callbacks --------------------------------------------------------------------------------

    def _written(self, request_id: int, size: int, outcome: Outcome) -> None:
        result = self._executed(request_id, size, outcome)
        if result is not None:
            self._answer(
                size,
                kv_pb2.SessionResponse(request_id=request_id, write=kv_pb2.WriteResults(results=result.packed)),
                len(result.packed),
            )

    def _opened(self, request_id: int, size: int, outcome: Outcome) -> None:
        result = self._executed(request_id, size, outcome)
        if result is not None:
            opened = kv_pb2.OpenSessionResponse(session_id=result.results[0][1], leader=self._service.leader_hint())
            self._answer(size, kv_pb2.SessionResponse(request_id=request_id, open=opened))

    def _session_closed(self, request_id: int, size: int, outcome: Outcome) -> None:
        if self._executed(request_id, size, outcome) is not None:
            closed = kv_pb2.CloseSessionResponse()
            self._answer(size, kv_pb2.SessionResponse(request_id=request_id, close=closed))

    def _executed(self, request_id: int, size: int, outcome: Outcome) -> BatchResult | None:
        """The batch's result if it was executed; else the error is answered."""
        if not isinstance(outcome, BatchResult):
            self._answer_error(request_id, size, outcome)
            return None
        if outcome.status is BatchStatus.OK:
            return outcome
        detail = outcome_to_detail(outcome)
        assert detail is not None
        self._answer_error(request_id, size, detail)
        return None

    def _have_read(self, request_id: int, size: int, answers: Answers | kv_pb2.ErrorDetail) -> None:
        if isinstance(answers, kv_pb2.ErrorDetail):
            self._answer_error(request_id, size, answers)
            return
        if self.closed:
            return
        packed = encode_answers(answers.answers, _pack)
        refusal = self._service.budget.refusal(len(packed))
        if refusal is not None:
            self._answer_error(request_id, size, to_detail(refusal))
            return
        results = kv_pb2.ReadResults(
            results=packed,
            revision=answers.revision,
            stale_seconds=answers.stale_seconds,
        )
        self._answer(size, kv_pb2.SessionResponse(request_id=request_id, read=results), len(packed))

    def _answer_error(self, request_id: int, size: int, detail: kv_pb2.ErrorDetail) -> None:
        self._answer(size, kv_pb2.SessionResponse(request_id=request_id, error=detail))

    def _answer(self, size: int, response: kv_pb2.SessionResponse, answer_bytes: int = 0) -> None:
        if self.closed:
            return
        self._answer_bytes += answer_bytes
        self._service.budget.waiting += answer_bytes
        self._answers.append((response, size, answer_bytes))
        self._has_answers.set()


def _unary(behavior: Any, request: Any) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.unary_unary_rpc_method_handler(
        behavior,
        request_deserializer=request.FromString,
        response_serializer=_serialize,
    )


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _settle(done: asyncio.Future[Any], value: Any) -> None:
    if not done.done():  # the call was cancelled: nobody wants to know any more
        done.set_result(value)


async def abort(context: Any, detail: kv_pb2.ErrorDetail) -> NoReturn:
    """End a unary call with the status code and the detail in the trailing metadata."""
    await context.abort(status_of(detail), detail.message, ((ERROR_METADATA_KEY, detail.SerializeToString()),))
    raise OutcomeUnknown("unreachable: abort raises")
