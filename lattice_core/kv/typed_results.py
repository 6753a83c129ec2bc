"""The results of operations as objects, one class for each kind: for whoever looks at them one by one.

The client's hot path reads the short lists of results.py as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from lattice_core.errors import InvalidRequest
from lattice_core.kv.commands import (
    CAS,
    CLOSE_SESSION,
    DELETE,
    DELETE_RANGE,
    OPEN_SESSION,
    PUT,
    PUT_IF_REVISION,
    TXN,
    Op,
)
from lattice_core.kv.results import TxnResult, read_txn_result


@dataclass(frozen=True, slots=True)
class PutResult:
    """``stored`` is False if a condition on the revision failed; ``revision`` is then the key's own."""

    revision: int
    stored: bool = True


@dataclass(frozen=True, slots=True)
class DeleteResult:
    deleted: int
    revision: int


@dataclass(frozen=True, slots=True)
class CasResult:
    swapped: bool
    revision: int


@dataclass(frozen=True, slots=True)
class OpenSessionResult:
    session_id: int


@dataclass(frozen=True, slots=True)
class CloseSessionResult:
    closed: bool


OpResult: TypeAlias = PutResult | DeleteResult | CasResult | OpenSessionResult | CloseSessionResult | TxnResult


def read_result(op: Op, result: Sequence[Any]) -> OpResult:
    """The typed answer to ``op``."""
    opcode = op[0]
    if opcode in (PUT, PUT_IF_REVISION):
        return PutResult(revision=result[1], stored=result[0] == 0)
    if opcode in (DELETE, DELETE_RANGE):
        return DeleteResult(deleted=result[1], revision=result[2])
    if opcode == CAS:
        return CasResult(swapped=result[1], revision=result[2])
    if opcode == TXN:
        return read_txn_result(result)
    if opcode == OPEN_SESSION:
        return OpenSessionResult(session_id=result[1])
    if opcode == CLOSE_SESSION:
        return CloseSessionResult(closed=result[1])
    raise InvalidRequest(f"no operation has code {opcode}")
