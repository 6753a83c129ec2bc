"""LatticeError on the wire: an ErrorDetail, in a stream's response or in a unary call's trailing metadata.

Three directions:

* ``to_detail`` and ``from_detail`` convert between the exception tree and the message, and agree with each
  other for every error a server may send;
* ``status_of`` names the gRPC status code (kv.proto lists them) that accompanies a detail;
* ``from_rpc_error`` turns whatever a call failed with into our tree. Without a detail, the failure is the
  transport's: then only the caller knows whether a write had left, and has to say so.

The numbers are ``kv.proto``'s ErrorCode. A code from a newer server becomes OutcomeUnknown: the one answer
that never claims more than is known.
"""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from google.protobuf.message import DecodeError

from lattice_core.errors import (
    Busy,
    InvalidRequest,
    LatticeError,
    NoLeader,
    NotAllowed,
    NotLeader,
    OutcomeUnknown,
    PermissionDenied,
    RevisionCompacted,
    SessionExpired,
    TooLarge,
    TooStale,
    Unauthenticated,
    Unavailable,
)
from lattice_core.rpc.pb import kv_pb2

ERROR_METADATA_KEY = "lattice-error-bin"
"""Trailing metadata of a failed unary call: a serialized ErrorDetail."""

_STATUS: dict[int, grpc.StatusCode] = {
    kv_pb2.ERROR_CODE_NOT_LEADER: grpc.StatusCode.UNAVAILABLE,
    kv_pb2.ERROR_CODE_NO_LEADER: grpc.StatusCode.UNAVAILABLE,
    kv_pb2.ERROR_CODE_SHUTTING_DOWN: grpc.StatusCode.UNAVAILABLE,
    kv_pb2.ERROR_CODE_TOO_STALE: grpc.StatusCode.UNAVAILABLE,
    kv_pb2.ERROR_CODE_BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    kv_pb2.ERROR_CODE_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    kv_pb2.ERROR_CODE_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    kv_pb2.ERROR_CODE_SESSION_EXPIRED: grpc.StatusCode.FAILED_PRECONDITION,
    kv_pb2.ERROR_CODE_NOT_ALLOWED: grpc.StatusCode.FAILED_PRECONDITION,
    kv_pb2.ERROR_CODE_UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    kv_pb2.ERROR_CODE_PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    kv_pb2.ERROR_CODE_STALE_SEQUENCE: grpc.StatusCode.ABORTED,
    kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN: grpc.StatusCode.ABORTED,
    kv_pb2.ERROR_CODE_COMPACTED: grpc.StatusCode.OUT_OF_RANGE,
}

_CODES: tuple[tuple[type[LatticeError], kv_pb2.ErrorCode], ...] = (
    # Most derived first: the first match wins.
    (NotLeader, kv_pb2.ERROR_CODE_NOT_LEADER),
    (NoLeader, kv_pb2.ERROR_CODE_NO_LEADER),
    (TooStale, kv_pb2.ERROR_CODE_TOO_STALE),
    (Busy, kv_pb2.ERROR_CODE_BUSY),
    (TooLarge, kv_pb2.ERROR_CODE_TOO_LARGE),
    (InvalidRequest, kv_pb2.ERROR_CODE_INVALID),
    (Unauthenticated, kv_pb2.ERROR_CODE_UNAUTHENTICATED),
    (PermissionDenied, kv_pb2.ERROR_CODE_PERMISSION_DENIED),
    (NotAllowed, kv_pb2.ERROR_CODE_NOT_ALLOWED),
    (RevisionCompacted, kv_pb2.ERROR_CODE_COMPACTED),
    (SessionExpired, kv_pb2.ERROR_CODE_SESSION_EXPIRED),
    # A plain Unavailable from a server means one thing: it is on its way out.
    (Unavailable, kv_pb2.ERROR_CODE_SHUTTING_DOWN),
    (OutcomeUnknown, kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN),
)


def to_detail(error: LatticeError, *, leader: kv_pb2.LeaderHint | None = None) -> kv_pb2.ErrorDetail:
    """The message for ``error``. ``leader`` is added where given; a NotLeader brings its own if it knows one.

    Whatever has no code of its own (a Fatal) becomes OUTCOME_UNKNOWN: a node that is about to stop cannot
    promise that nothing was applied.
    """
    code = next((code for kind, code in _CODES if isinstance(error, kind)), kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN)
    detail = kv_pb2.ErrorDetail(code=code, message=error.message)
    if leader is not None:
        detail.leader.CopyFrom(leader)
    elif isinstance(error, NotLeader) and (error.leader_addr or error.leader_name):
        detail.leader.name = error.leader_name or ""
        detail.leader.client_addr = error.leader_addr or ""
    if isinstance(error, TooLarge):
        detail.limit = error.limit
        detail.actual = error.actual
    if isinstance(error, RevisionCompacted):
        detail.compacted_revision = error.compacted_revision
    elif error.hint is not None and error.hint != error.default_hint:
        detail.hint = error.hint
    return detail


def from_detail(detail: kv_pb2.ErrorDetail) -> LatticeError:
    """The exception for a detail; never raises, whatever the sender wrote."""
    error = _from_code(detail)
    if detail.hint:
        error.hint = detail.hint
    return error


def _from_code(detail: kv_pb2.ErrorDetail) -> LatticeError:
    message = detail.message
    if not message and detail.code in _STATUS:
        message = kv_pb2.ErrorCode.Name(detail.code)
    match detail.code:
        case kv_pb2.ERROR_CODE_NOT_LEADER:
            return NotLeader(
                message,
                leader_addr=detail.leader.client_addr or None,
                leader_name=detail.leader.name or None,
            )
        case kv_pb2.ERROR_CODE_NO_LEADER:
            return NoLeader(message)
        case kv_pb2.ERROR_CODE_TOO_STALE:
            return TooStale(message)
        case kv_pb2.ERROR_CODE_BUSY:
            return Busy(message)
        case kv_pb2.ERROR_CODE_INVALID:
            return InvalidRequest(message)
        case kv_pb2.ERROR_CODE_TOO_LARGE:
            return TooLarge(message, limit=detail.limit, actual=detail.actual)
        case kv_pb2.ERROR_CODE_SESSION_EXPIRED:
            return SessionExpired(message)
        case kv_pb2.ERROR_CODE_COMPACTED:
            return RevisionCompacted(message, compacted_revision=detail.compacted_revision)
        case kv_pb2.ERROR_CODE_NOT_ALLOWED:
            return NotAllowed(message)
        case kv_pb2.ERROR_CODE_UNAUTHENTICATED:
            return Unauthenticated(message)
        case kv_pb2.ERROR_CODE_PERMISSION_DENIED:
            return PermissionDenied(message)
        case kv_pb2.ERROR_CODE_SHUTTING_DOWN:
            return Unavailable(message)
        case kv_pb2.ERROR_CODE_STALE_SEQUENCE | kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN:
            return OutcomeUnknown(message)
    return OutcomeUnknown(message or f"the server answered with error code {detail.code}, unknown to this version")


def status_of(detail: kv_pb2.ErrorDetail) -> grpc.StatusCode:
    """The status code that accompanies ``detail``; UNKNOWN for a code this version does not know."""
    return _STATUS.get(detail.code, grpc.StatusCode.UNKNOWN)


def from_rpc_error(error: grpc.RpcError, *, may_have_been_applied: bool = False) -> LatticeError:
    """What a failed call means.

    A detail in the trailing metadata decides. Without one the transport failed, and
    ``may_have_been_applied`` says whether a write had been handed to it: then the outcome is unknown.
    """
    detail = _detail_in(error)
    if detail is not None:
        return from_detail(detail)
    code = error.code() if callable(getattr(error, "code", None)) else None
    text = error.details() if callable(getattr(error, "details", None)) else None
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and not may_have_been_applied:
        # gRPC's own: a message over a size limit. Were it the answer, the request would have been executed.
        return Busy(text or "the server has no room for the request")
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidRequest(text or "the request is malformed")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return InvalidRequest(
            text or "the server does not know this call",
            hint="is this a client address (not a peer address)?",
        )
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        return NotAllowed(text or "refused")
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return Unauthenticated(text or "no valid token")
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return PermissionDenied(text or "refused")
    reason = text or (code.name if code is not None else str(error)) or "the connection failed"
    if may_have_been_applied:
        return OutcomeUnknown(f"the connection failed before the answer came: {reason}")
    return Unavailable(reason)


def _detail_in(error: grpc.RpcError) -> kv_pb2.ErrorDetail | None:
    trailing = getattr(error, "trailing_metadata", None)
    metadata: Iterable[tuple[str, str | bytes]] | None = trailing() if callable(trailing) else None
    for key, value in metadata or ():
        if key == ERROR_METADATA_KEY and isinstance(value, bytes):
            try:
                return kv_pb2.ErrorDetail.FromString(value)
            except DecodeError:
                return None
    return None
