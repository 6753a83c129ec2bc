"""Transactions of the unary call, to and from what is in the log (kv.proto's Txn, kv/txn.py).

Only shapes are checked here: what a message leaves unset, or sets to what this version does not know. The rules are
commands.py's, the same for every way in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lattice_core.errors import InvalidRequest
from lattice_core.kv import Op, TxnResult, transaction, txn
from lattice_core.rpc.pb import kv_pb2


def request_to_op(request: kv_pb2.TxnRequest) -> Op:
    """The operation for the log. Raises InvalidRequest for what has no meaning."""
    return transaction([_compare(each) for each in request.compare], _ops(request.then), _ops(request.otherwise))


def _compare(compare: kv_pb2.Compare) -> txn.Compare:
    target, relation = int(compare.target), int(compare.relation)
    if target not in txn.TARGETS or relation not in txn.RELATIONS:
        raise InvalidRequest("a comparison without a target or relation, or with one that this server does not know")
    wanted = "value" if target == txn.VALUE else "number"
    if compare.WhichOneof("operand") != wanted:
        raise InvalidRequest(f"a comparison of the {txn.TARGETS[target]} needs a {wanted} to compare with")
    end = compare.range_end if compare.HasField("range_end") else None
    return (target, relation, compare.key, end, compare.value if target == txn.VALUE else compare.number)


def _ops(ops: Iterable[kv_pb2.TxnOp]) -> list[txn.TxnOp]:
    return [_op(each) for each in ops]


def _op(op: kv_pb2.TxnOp) -> txn.TxnOp:
    match op.WhichOneof("op"):
        case "put":
            return (txn.PUT, op.put.key, op.put.value)
        case "delete":
            if op.delete.HasField("range_end"):
                return (txn.DELETE_RANGE, op.delete.key, op.delete.range_end)
            return (txn.DELETE, op.delete.key)
        case "range":
            wanted = op.range
            flags = (
                (txn.KEYS_ONLY if wanted.keys_only else 0)
                | (txn.COUNT_ONLY if wanted.count_only else 0)
                | (txn.REVERSE if wanted.reverse else 0)
            )
            # A range without an end is one key: up to the key that comes next after it.
            end = wanted.range_end if wanted.HasField("range_end") else wanted.key + b"\0"
            return (txn.RANGE, wanted.key, end, wanted.limit, flags)
    raise InvalidRequest("a transaction's operation that is empty, or of a kind this server does not know")


def result_to_pb(op: Op, result: TxnResult) -> kv_pb2.TxnResponse:
    """The answer to ``op``."""
    _, _, then, otherwise = op
    done = then if result.failed is None else otherwise
    return kv_pb2.TxnResponse(
        succeeded=result.failed is None,
        failed_compare=result.failed,
        revision=result.revision,
        results=[_result(each, found) for each, found in zip(done, result.results, strict=True)],
    )


def _result(op: txn.TxnOp, result: Sequence[Any]) -> kv_pb2.TxnOpResult:
    if op[0] == txn.PUT:
        return kv_pb2.TxnOpResult(put=kv_pb2.TxnOpResult.Done())
    if op[0] in (txn.DELETE, txn.DELETE_RANGE):
        return kv_pb2.TxnOpResult(delete=kv_pb2.TxnOpResult.Deleted(deleted=result[1]))
    _, kvs, more, count = result
    return kv_pb2.TxnOpResult(
        range=kv_pb2.TxnOpResult.Found(kvs=[_key_value(kv) for kv in kvs], more=more, count=count)
    )


def _key_value(kv: Sequence[Any]) -> kv_pb2.KeyValue:
    key, value, create_revision, mod_revision, version, lease = kv
    return kv_pb2.KeyValue(
        key=key,
        value=value,
        create_revision=create_revision,
        mod_revision=mod_revision,
        version=version,
        lease=lease,
    )
