"""The deterministic state machine: commands, the multi-version store, client sessions.

::

    leader:   ops = decode_batch(data)                       # InvalidRequest, or ops that may be proposed
              batches = [ClientBatch(session, sequence, acknowledged_below, data, ops), ...]
              payload = encode_payload(time_ms, batches)
    applying: for result in machine.begin(index, term, payload, Payload(time_ms, batches)): ...
              machine.begin(index, term, payload)            # without the ops at hand
              machine.skip(index, term)                      # no-ops and configurations
    reading:  machine.store.get(key), machine.store.range(start, end, limit)
    snapshot: machine.capture().to_chunks(), StateMachine.from_chunks(chunks)

Importing this package imports nothing else: each name comes with its module when it is first asked for. A client
needs the commands and not the store, and a command that runs once is mostly imports.
"""

from typing import TYPE_CHECKING

from lattice_core.lazy import lazy_names

if TYPE_CHECKING:
    from lattice_core.kv import txn
    from lattice_core.kv.capture import Capture, Restore
    from lattice_core.kv.commands import (
        MAX_BATCH_BYTES,
        MAX_BATCH_OPS,
        MAX_KEY_BYTES,
        MAX_VALUE_BYTES,
        ClientBatch,
        Op,
        Ops,
        Payload,
        cas,
        close_session,
        decode_batch,
        decode_payload,
        delete,
        delete_prefix,
        delete_range,
        encode_batch,
        encode_payload,
        open_session,
        prefix_range,
        put,
        put_if_revision,
        transaction,
        validate_op,
    )
    from lattice_core.kv.limits import RequestLimits, frees
    from lattice_core.kv.machine import StateMachine
    from lattice_core.kv.results import (
        BatchResult,
        BatchStatus,
        TxnResult,
        decode_results,
        is_crowded,
        raise_for_status,
        read_txn_result,
    )
    from lattice_core.kv.sessions import SessionLimits, SessionTable
    from lattice_core.kv.store import HistoryLimits, KeyValue, RangeResult, Store
    from lattice_core.kv.typed_results import (
        CasResult,
        CloseSessionResult,
        DeleteResult,
        OpenSessionResult,
        OpResult,
        PutResult,
        read_result,
    )
    from lattice_core.kv.views import StoreView

__getattr__ = lazy_names(
    __name__,
    {
        "lattice_core.kv.capture": ("Capture", "Restore"),
        "lattice_core.kv.commands": (
            "ClientBatch",
            "MAX_BATCH_BYTES",
            "MAX_BATCH_OPS",
            "MAX_KEY_BYTES",
            "MAX_VALUE_BYTES",
            "Op",
            "Ops",
            "Payload",
            "cas",
            "close_session",
            "decode_batch",
            "decode_payload",
            "delete",
            "delete_prefix",
            "delete_range",
            "encode_batch",
            "encode_payload",
            "open_session",
            "prefix_range",
            "put",
            "put_if_revision",
            "transaction",
            "validate_op",
        ),
        "lattice_core.kv.limits": ("RequestLimits", "frees"),
        "lattice_core.kv.machine": ("StateMachine",),
        "lattice_core.kv.results": (
            "BatchResult",
            "BatchStatus",
            "TxnResult",
            "decode_results",
            "is_crowded",
            "raise_for_status",
            "read_txn_result",
        ),
        "lattice_core.kv.sessions": ("SessionLimits", "SessionTable"),
        "lattice_core.kv.store": ("HistoryLimits", "KeyValue", "RangeResult", "Store"),
        "lattice_core.kv.typed_results": (
            "CasResult",
            "CloseSessionResult",
            "DeleteResult",
            "OpenSessionResult",
            "OpResult",
            "PutResult",
            "read_result",
        ),
        "lattice_core.kv.views": ("StoreView",),
    },
)

__all__ = [
    "MAX_BATCH_BYTES",
    "MAX_BATCH_OPS",
    "MAX_KEY_BYTES",
    "MAX_VALUE_BYTES",
    "BatchResult",
    "BatchStatus",
    "Capture",
    "CasResult",
    "ClientBatch",
    "CloseSessionResult",
    "DeleteResult",
    "HistoryLimits",
    "KeyValue",
    "Op",
    "OpResult",
    "OpenSessionResult",
    "Ops",
    "Payload",
    "PutResult",
    "RangeResult",
    "RequestLimits",
    "Restore",
    "SessionLimits",
    "SessionTable",
    "StateMachine",
    "Store",
    "StoreView",
    "TxnResult",
    "cas",
    "close_session",
    "decode_batch",
    "decode_payload",
    "decode_results",
    "delete",
    "delete_prefix",
    "delete_range",
    "encode_batch",
    "encode_payload",
    "frees",
    "is_crowded",
    "open_session",
    "prefix_range",
    "put",
    "put_if_revision",
    "raise_for_status",
    "read_result",
    "read_txn_result",
    "transaction",
    "txn",
    "validate_op",
]
