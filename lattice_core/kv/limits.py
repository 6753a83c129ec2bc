"""A server's own limits on what one request may bring, below those that :mod:`commands` and :mod:`txn` set for all.

They are the leader's alone, checked before anything is proposed, so members may have different ones and they may be
changed at any time. What every member has to decide alike when an entry is applied (what a transaction visits and
answers, what the session table keeps) is part of the replicated state and nobody's configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from lattice_core.errors import TooLarge
from lattice_core.kv import commands, txn
from lattice_core.kv.commands import MAX_BATCH_BYTES, MAX_BATCH_OPS, MAX_KEY_BYTES, MAX_VALUE_BYTES, Op, Ops
from lattice_core.kv.txn import MAX_OPS

_WRITES = frozenset({commands.PUT, commands.PUT_IF_REVISION, commands.CAS})


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The names are those of the configuration. None may be above its default, which is what clients count on."""

    max_key_bytes: int = MAX_KEY_BYTES
    max_value_bytes: int = MAX_VALUE_BYTES
    max_batch_bytes: int = MAX_BATCH_BYTES
    max_batch_ops: int = MAX_BATCH_OPS
    max_txn_ops: int = MAX_OPS

    @property
    def narrower(self) -> bool:
        """Whether there is anything to check beyond what :func:`decode_batch` checks."""
        return any(getattr(self, each.name) < each.default for each in fields(self))

    def check(self, ops: Ops, size_bytes: int) -> None:
        """Raise TooLarge, with the limit, what there was, and the setting's name."""
        _require("batch", size_bytes, "bytes", self.max_batch_bytes, "max_batch_bytes")
        count = sum(txn.weight(op) if op[0] == commands.TXN else 1 for op in ops)
        _require("batch", count, "operations", self.max_batch_ops, "max_batch_ops")
        for op in ops:
            if op[0] == commands.TXN:
                for part, what in zip(
                    op[1:], ("comparisons", "operations if they hold", "other operations"), strict=True
                ):
                    _require("transaction", len(part), what, self.max_txn_ops, "max_txn_ops")
        for key in _keys(ops):
            _require("key", len(key), "bytes", self.max_key_bytes, "max_key_bytes")
        for value in _values(ops):
            _require("value", len(value), "bytes", self.max_value_bytes, "max_value_bytes")


def _require(thing: str, actual: int, unit: str, limit: int, setting: str) -> None:
    if actual > limit:
        raise TooLarge(
            f"the {thing} has {actual} {unit}, more than {limit}, this server's {setting}",
            limit=limit,
            actual=actual,
            hint=f"send less at a time, or raise {setting} where the servers are started",
        )


def _simple(ops: Ops) -> Iterator[Op]:
    """Each operation, those of transactions in their place."""
    for op in ops:
        if op[0] == commands.TXN:
            yield from op[2]
            yield from op[3]
        else:
            yield op


def _keys(ops: Ops) -> Iterator[bytes]:
    for op in _simple(ops):
        if len(op) > 1 and type(op[1]) is bytes:
            yield op[1]
        if op[0] in (commands.DELETE_RANGE, txn.RANGE):
            yield op[2]
    for op in ops:
        if op[0] == commands.TXN:
            for _, _, key, end, _ in op[1]:
                yield key
                if end is not None:
                    yield end


def _values(ops: Ops) -> Iterator[bytes]:
    for op in _simple(ops):
        if op[0] in _WRITES:
            yield op[2] if op[0] != commands.CAS else op[3]
            if op[0] == commands.CAS and op[2] is not None:
                yield op[2]
    for op in ops:
        if op[0] == commands.TXN:
            for target, _, _, _, operand in op[1]:
                if target == txn.VALUE:
                    yield operand


def frees(ops: Ops) -> bool:
    """Whether these can only make the state smaller: deletes, and what a client needs in order to send them."""
    for op in ops:
        if op[0] == commands.TXN:
            if any(inner[0] == txn.PUT for inner in (*op[2], *op[3])):
                return False
        elif op[0] in _WRITES:
            return False
    return True
