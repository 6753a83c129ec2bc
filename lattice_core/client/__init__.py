"""The client library: ``Client`` for threads, ``AsyncClient`` for asyncio.

::

    from lattice_core.client import Client

    with Client("127.0.0.1:7401,127.0.0.1:7402") as client:
        client.put("greeting", "hello")
        found = client.get("greeting")      # None, or a KeyValue
        print(found.value)                  # b'hello'

Transactions read as they are meant (``key``, ``put`` and so on make their parts)::

        moved = client.txn(when=[key("a").value == b"1"], then=[put("a", b"0"), put("b", b"1")])

With ``Client(endpoints, tls=ClientTLS(ca="ca.pem"))`` it speaks TLS.

Any member's address will do: the client finds the leader, follows it, and learns the other members.
Errors are :mod:`lattice_core.errors`; their type says whether an operation was not applied (``NotApplied``)
or may have been (``OutcomeUnknown``).

Each name is imported when it is first asked for (PEP 562): a command that runs once is mostly imports.
"""

from typing import TYPE_CHECKING

import lattice_core.rpc  # noqa: F401 - before anything imports gRPC
from lattice_core.lazy import lazy_names

if TYPE_CHECKING:
    from lattice_core.client.aio import DEFAULT_ENDPOINT, DEFAULT_TIMEOUT_SECONDS, AsyncClient
    from lattice_core.client.arguments import Data
    from lattice_core.client.bulk import AsyncBatch, Batch
    from lattice_core.client.cluster_types import (
        ClusterStatus,
        Examined,
        MemberReport,
        MembershipChanged,
        NodeStatus,
        QuorumReport,
        SnapshotSaved,
        SnapshotTaken,
        Transfer,
    )
    from lattice_core.client.counters import CertificateDetails, NodeCounters, NodeDetails, PeerProgress
    from lattice_core.client.explain import Attempt, Explained, Step
    from lattice_core.client.sync import Client
    from lattice_core.client.txn import (
        Comparison,
        Subject,
        TxnOp,
        delete,
        delete_range,
        get,
        get_range,
        key,
        keys,
        put,
    )
    from lattice_core.client.types import (
        CasResult,
        Consistency,
        DeleteResult,
        KeyValue,
        PutManyResult,
        PutResult,
        RangeResult,
        TxnOpResult,
        TxnResult,
    )
    from lattice_core.client.watch import StatusWatch
    from lattice_core.tls import ClientTLS

__getattr__ = lazy_names(
    __name__,
    {
        "lattice_core.client.aio": ("AsyncClient", "DEFAULT_ENDPOINT", "DEFAULT_TIMEOUT_SECONDS"),
        "lattice_core.client.arguments": ("Data",),
        "lattice_core.client.bulk": ("AsyncBatch", "Batch"),
        "lattice_core.client.counters": ("CertificateDetails", "NodeCounters", "NodeDetails", "PeerProgress"),
        "lattice_core.client.explain": ("Attempt", "Explained", "Step"),
        "lattice_core.client.sync": ("Client",),
        "lattice_core.client.txn": (
            "Comparison",
            "Subject",
            "TxnOp",
            "delete",
            "delete_range",
            "get",
            "get_range",
            "key",
            "keys",
            "put",
        ),
        "lattice_core.client.cluster_types": (
            "ClusterStatus",
            "Examined",
            "MemberReport",
            "MembershipChanged",
            "NodeStatus",
            "QuorumReport",
            "SnapshotSaved",
            "SnapshotTaken",
            "Transfer",
        ),
        "lattice_core.client.types": (
            "CasResult",
            "Consistency",
            "DeleteResult",
            "KeyValue",
            "PutManyResult",
            "PutResult",
            "RangeResult",
            "TxnOpResult",
            "TxnResult",
        ),
        "lattice_core.client.watch": ("StatusWatch",),
        "lattice_core.tls": ("ClientTLS",),
    },
)

__all__ = [
    "DEFAULT_ENDPOINT",
    "DEFAULT_TIMEOUT_SECONDS",
    "AsyncBatch",
    "AsyncClient",
    "Attempt",
    "Batch",
    "CasResult",
    "CertificateDetails",
    "Client",
    "ClientTLS",
    "ClusterStatus",
    "Comparison",
    "Consistency",
    "Data",
    "DeleteResult",
    "Examined",
    "Explained",
    "KeyValue",
    "MemberReport",
    "MembershipChanged",
    "NodeCounters",
    "NodeDetails",
    "NodeStatus",
    "PeerProgress",
    "PutManyResult",
    "PutResult",
    "QuorumReport",
    "RangeResult",
    "SnapshotSaved",
    "SnapshotTaken",
    "StatusWatch",
    "Step",
    "Subject",
    "Transfer",
    "TxnOp",
    "TxnOpResult",
    "TxnResult",
    "delete",
    "delete_range",
    "get",
    "get_range",
    "key",
    "keys",
    "put",
]
