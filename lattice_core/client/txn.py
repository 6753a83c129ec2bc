"""Transactions as Python writes them: comparisons that look like comparisons, operations that look like calls.

::

    result = client.txn(
        when=[key("stock/apples").value == b"5", key("lock").absent()],
        then=[put("stock/apples", b"4"), get("orders/7")],
        otherwise=[get("stock/apples")],
    )
    if result: ...                        # every comparison held, and all of then was done
    result.results                        # one for each operation: what the client's method of that name returns

A comparison is a description, sent to the cluster and judged there; so it has no truth value here, and ``and``,
``or`` and ``in`` on one are errors instead of surprises. What comparisons mean of keys that do not exist and of
ranges, and what is limited, is in :mod:`lattice_core.kv.txn`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from lattice_core.client.arguments import Data, bounds, checked_limit, to_bytes, validate
from lattice_core.client.types import DeleteResult, KeyValue, RangeResult, TxnOpResult, TxnResult
from lattice_core.errors import InvalidRequest
from lattice_core.kv import txn
from lattice_core.kv.commands import Op, transaction
from lattice_core.kv.results import TxnResult as Answer
from lattice_core.kv.txn import Compare


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """One condition of a transaction, made by comparing a field of :func:`key` or :func:`keys`."""

    compare: Compare

    def __bool__(self) -> bool:
        raise TypeError(f"{self!r} is judged by the cluster: give it to txn(when=[...]), one comparison an element")

    def __repr__(self) -> str:
        target, relation, first, end, operand = self.compare
        subject = f"key({first!r})" if end is None else f"keys(start={first!r}, end={end!r})"
        return f"{subject}.{txn.TARGETS[target]} {txn.RELATIONS[relation]} {operand!r}"


class _Field:
    """Something of a key that can be compared: ==, !=, <, >. Makes Comparisons."""

    __slots__ = ("_end", "_key", "_target")
    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __init__(self, target: int, key: bytes, end: bytes | None) -> None:
        self._target = target
        self._key = key
        self._end = end

    def _compared(self, relation: int, operand: object) -> Comparison:
        return Comparison((self._target, relation, self._key, self._end, self._checked(operand)))

    def _checked(self, operand: Any) -> bytes | int:
        raise NotImplementedError

    def __eq__(self, operand: object) -> Comparison:  # type: ignore[override]
        return self._compared(txn.EQUAL, operand)

    def __ne__(self, operand: object) -> Comparison:  # type: ignore[override]
        return self._compared(txn.NOT_EQUAL, operand)

    def __lt__(self, operand: Any) -> Comparison:
        return self._compared(txn.LESS, operand)

    def __gt__(self, operand: Any) -> Comparison:
        return self._compared(txn.GREATER, operand)


class _Value(_Field):
    __slots__ = ()

    def _checked(self, operand: Any) -> bytes:
        return to_bytes(operand, "value to compare with")


class _Number(_Field):
    __slots__ = ()

    def _checked(self, operand: Any) -> int:
        if type(operand) is not int or operand < 0:
            raise InvalidRequest(f"txn: {txn.TARGETS[self._target]} is compared with a number from 0, not {operand!r}")
        return operand


@dataclass(frozen=True, slots=True)
class Subject:
    """What comparisons are about: a key, or every key of a range."""

    start: bytes
    end: bytes | None

    @property
    def value(self) -> _Value:
        """The value, as bytes or text; compared byte by byte. False of a key that does not exist."""
        return _Value(txn.VALUE, self.start, self.end)

    @property
    def mod_revision(self) -> _Number:
        """The revision of the last change; 0 if there is no such key."""
        return _Number(txn.MOD_REVISION, self.start, self.end)

    @property
    def create_revision(self) -> _Number:
        """The revision that created it; 0 if there is no such key."""
        return _Number(txn.CREATE_REVISION, self.start, self.end)

    @property
    def version(self) -> _Number:
        """How often it was written since; 0 if there is no such key."""
        return _Number(txn.VERSION, self.start, self.end)

    def exists(self) -> Comparison:
        """There is such a key; of a range: there is at least one."""
        return self.version > 0

    def absent(self) -> Comparison:
        """There is no such key; of a range: there is none at all."""
        return self.version == 0


def key(key: Data) -> Subject:
    """The key to compare: ``key("a").value == b"1"``, ``key("b").absent()``."""
    name = to_bytes(key, "key")
    validate("txn", (txn.DELETE, name))
    return Subject(name, None)


def keys(*, prefix: Data | None = None, start: Data | None = None, end: Data | None = None) -> Subject:
    """Every key with ``prefix``, or ``start <= key < end``: each has to satisfy the comparison. Where there are none,
    comparisons are as of a key that does not exist."""
    first, last = bounds("txn", prefix, start, end)
    validate("txn", (txn.DELETE_RANGE, first, last))
    return Subject(first, last)


@dataclass(frozen=True, slots=True)
class TxnOp:
    """One operation of a transaction, made by :func:`put`, :func:`get`, :func:`get_range`, :func:`delete` or
    :func:`delete_range`."""

    op: txn.TxnOp


def put(key: Data, value: Data) -> TxnOp:
    """Store a value. Its result is the revision."""
    op = (txn.PUT, to_bytes(key, "key"), to_bytes(value, "value"))
    validate("put", op)
    return TxnOp(op)


def get(key: Data) -> TxnOp:
    """Read a key, as the operations before this one in the transaction have left it. Its result is a KeyValue, or
    None."""
    name = to_bytes(key, "key")
    validate("get", (txn.DELETE, name))
    return TxnOp((txn.GET, name))


def get_range(
    *,
    prefix: Data | None = None,
    start: Data | None = None,
    end: Data | None = None,
    limit: int | None = None,
    keys_only: bool = False,
    count_only: bool = False,
    reverse: bool = False,
) -> TxnOp:
    """Read a range, as ``client.range`` does. Its result is a RangeResult."""
    first, last = bounds("range", prefix, start, end)
    validate("range", (txn.DELETE_RANGE, first, last))
    flags = txn.KEYS_ONLY * keys_only | txn.COUNT_ONLY * count_only | txn.REVERSE * reverse
    return TxnOp((txn.RANGE, first, last, checked_limit("range", limit), flags))


def delete(key: Data) -> TxnOp:
    """Delete a key. Its result is a DeleteResult."""
    op = (txn.DELETE, to_bytes(key, "key"))
    validate("delete", op)
    return TxnOp(op)


def delete_range(*, prefix: Data | None = None, start: Data | None = None, end: Data | None = None) -> TxnOp:
    """Delete every key with ``prefix``, or ``start <= key < end``. Its result is a DeleteResult."""
    if prefix is None and start is None:
        raise InvalidRequest("delete_range: give a prefix or a start")
    op = (txn.DELETE_RANGE, *bounds("delete_range", prefix, start, end))
    validate("delete_range", op)
    return TxnOp(op)


# -- to and from the wire -------------------------------------------------------------------------

T = TypeVar("T")


def txn_op(when: Iterable[Comparison], then: Iterable[TxnOp], otherwise: Iterable[TxnOp]) -> Op:
    """The operation for the log. Raises InvalidRequest or TooLarge for what the cluster would refuse."""
    op = transaction(
        [each.compare for each in _checked("when", when, Comparison, 'key("a").value == b"1"')],
        [each.op for each in _checked("then", then, TxnOp, 'put("a", b"1")')],
        [each.op for each in _checked("otherwise", otherwise, TxnOp, 'get("a")')],
    )
    validate("txn", op)
    return op


def _checked(what: str, given: Iterable[T], kind: type[T], example: str) -> list[T]:
    if isinstance(given, kind):
        raise InvalidRequest(f"txn: {what} is a list, as in {what}=[{example}]")
    found = list(given)
    for position, each in enumerate(found):
        if not isinstance(each, kind):
            raise InvalidRequest(f"txn: {what}[{position}] is {each!r}, where something like {example} belongs")
    return found


def txn_result(op: Op, answer: Answer) -> TxnResult:
    """What callers get."""
    _, _, then, otherwise = op
    done = then if answer.failed is None else otherwise
    results = tuple(_result(each, found, answer.revision) for each, found in zip(done, answer.results, strict=True))
    return TxnResult(answer.failed is None, answer.revision, results, answer.failed)


def _result(op: txn.TxnOp, found: Sequence[Any], revision: int) -> TxnOpResult:
    code = op[0]
    if code == txn.PUT:
        return revision
    if code in (txn.DELETE, txn.DELETE_RANGE):
        return DeleteResult(found[1], revision)
    if code == txn.GET:
        return None if found[1] is None else KeyValue(*found[1])
    _, kvs, more, count = found
    return RangeResult(tuple(KeyValue(*kv) for kv in kvs), more, count, revision)
