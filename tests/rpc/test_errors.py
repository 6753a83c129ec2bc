"""Errors keep their meaning across the wire, and never claim more than is known."""

from __future__ import annotations

import grpc
import pytest

from lattice_core import errors as e
from lattice_core.rpc.errors import ERROR_METADATA_KEY, from_detail, from_rpc_error, status_of, to_detail
from lattice_core.rpc.pb import kv_pb2

SENT: list[e.LatticeError] = [
    e.NotLeader("n1 is not the leader, n2 is", leader_addr="127.0.0.1:7402", leader_name="n2"),
    e.NotLeader("not the leader"),
    e.NoLeader("no leader"),
    e.Busy("full"),
    e.InvalidRequest("wrong"),
    e.TooLarge("too large", limit=10, actual=11),
    e.NotAllowed("a rule"),
    e.RevisionCompacted("gone", compacted_revision=41),
    e.SessionExpired("expired"),
    e.Unavailable("shutting down"),
    e.OutcomeUnknown("who knows"),
]


@pytest.mark.parametrize("error", SENT, ids=lambda error: type(error).__name__)
def test_errors_survive_the_wire(error: e.LatticeError) -> None:
    detail = kv_pb2.ErrorDetail.FromString(to_detail(error).SerializeToString())
    back = from_detail(detail)
    assert type(back) is type(error)
    assert (str(back), vars(back)) == (str(error), vars(error))


def test_every_code_of_the_contract_has_a_status_and_an_error() -> None:
    for code in kv_pb2.ErrorCode.values():
        if code == kv_pb2.ERROR_CODE_UNSPECIFIED:
            continue
        detail = kv_pb2.ErrorDetail(code=code)  # type: ignore[arg-type]
        assert status_of(detail) is not grpc.StatusCode.UNKNOWN
        assert from_detail(detail).message


def test_statuses_are_those_of_the_contract() -> None:
    assert status_of(to_detail(e.Busy("x"))) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert status_of(to_detail(e.NotLeader("x"))) is grpc.StatusCode.UNAVAILABLE
    assert status_of(to_detail(e.RevisionCompacted("x", compacted_revision=1))) is grpc.StatusCode.OUT_OF_RANGE
    assert status_of(to_detail(e.OutcomeUnknown("x"))) is grpc.StatusCode.ABORTED
    assert status_of(to_detail(e.SessionExpired("x"))) is grpc.StatusCode.FAILED_PRECONDITION


def test_what_a_failing_node_says_never_promises_that_nothing_was_applied() -> None:
    assert isinstance(from_detail(to_detail(e.StorageFailed("EIO"))), e.OutcomeUnknown)


def test_an_unknown_code_is_an_unknown_outcome() -> None:
    assert isinstance(from_detail(kv_pb2.ErrorDetail(code=99)), e.OutcomeUnknown)  # type: ignore[arg-type]


def rpc_error(code: grpc.StatusCode, detail: kv_pb2.ErrorDetail | None = None) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata()
    if detail is not None:
        trailing = grpc.aio.Metadata((ERROR_METADATA_KEY, detail.SerializeToString()))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, "text", None)


def test_a_detail_in_the_metadata_decides_whatever_the_status_is() -> None:
    error = from_rpc_error(rpc_error(grpc.StatusCode.UNKNOWN, to_detail(e.Busy("full"))), may_have_been_applied=True)
    assert isinstance(error, e.Busy)


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ],
)
def test_a_failed_transport_leaves_a_write_that_was_sent_unknown(code: grpc.StatusCode) -> None:
    assert isinstance(from_rpc_error(rpc_error(code), may_have_been_applied=True), e.OutcomeUnknown)
    assert isinstance(from_rpc_error(rpc_error(code)), e.Unavailable)


def test_rubbish_in_the_metadata_is_ignored() -> None:
    error = rpc_error(grpc.StatusCode.UNAVAILABLE)
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE,
        grpc.aio.Metadata(),
        grpc.aio.Metadata((ERROR_METADATA_KEY, b"\xff\xff\xff")),
        "text",
        None,
    )
    assert isinstance(from_rpc_error(error), e.Unavailable)
