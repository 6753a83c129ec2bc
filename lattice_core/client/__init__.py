"""The client library: ``Client`` for threads, ``AsyncClient`` for asyncio.

::

    from lattice_core.client import Client

    with Client("127.0.0.1:7401,127.0.0.1:7402") as client:
        client.put("greeting", "hello")
        found = client.get("greeting")      # None, or a KeyValue
        print(found.value)                  # b'hello'

Any member's address will do: the client finds the leader, follows it, and learns the other members.
Errors are :mod:`lattice_core.errors`; their type says whether an operation was not applied (``NotApplied``)
or may have been (``OutcomeUnknown``).
"""

from lattice_core.client.aio import DEFAULT_ENDPOINT, DEFAULT_TIMEOUT_SECONDS, AsyncClient, Data
from lattice_core.client.sync import Client
from lattice_core.client.types import (
    CasResult,
    ClusterStatus,
    Consistency,
    DeleteResult,
    KeyValue,
    MemberReport,
    MembershipChanged,
    NodeStatus,
    PutResult,
    QuorumReport,
    RangeResult,
    SnapshotSaved,
    SnapshotTaken,
    Transfer,
)

__all__ = [
    "DEFAULT_ENDPOINT",
    "DEFAULT_TIMEOUT_SECONDS",
    "AsyncClient",
    "CasResult",
    "Client",
    "ClusterStatus",
    "Consistency",
    "Data",
    "DeleteResult",
    "KeyValue",
    "MemberReport",
    "MembershipChanged",
    "NodeStatus",
    "PutResult",
    "QuorumReport",
    "RangeResult",
    "SnapshotSaved",
    "SnapshotTaken",
    "Transfer",
]
