"""Executing a transaction: compare, do one of the two lists, or refuse the whole.

Deterministic like all of applying: what is refused, and for which limit, depends on the state and on the operations
before it in the same batch, and on nothing else. Refused means that nothing was changed, not even in part.
"""

from __future__ import annotations

from typing import Any, Final

from lattice_core.kv import txn
from lattice_core.kv.records import CREATE_REVISION, MOD_REVISION, VALUE, VERSION
from lattice_core.kv.store import KeyValue, Store
from lattice_core.kv.store_transaction import StoreTransaction

DONE: Final = 0
REFUSED: Final = 2
CROWDED: Final = 3
"""First elements of a transaction's result: see results.py."""

_FIELD: Final = {
    txn.VALUE: VALUE,
    txn.MOD_REVISION: MOD_REVISION,
    txn.CREATE_REVISION: CREATE_REVISION,
    txn.VERSION: VERSION,
}


class Room:
    """What the transactions of one batch may still visit and answer, together."""

    __slots__ = ("bytes", "keys")

    def __init__(self) -> None:
        self.keys = txn.MAX_KEYS
        self.bytes = txn.MAX_ANSWER_BYTES


class _Refused(Exception):
    """Over a limit of its own."""

    def __init__(self, which: int, limit: int, actual: int) -> None:
        self.result = (REFUSED, which, limit, actual)


class _Crowded(Exception):
    """It would fit alone, but not beside what came before it in the batch."""


class _Spent:
    """What one transaction has visited and answered so far, held against its limits."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.keys = 0
        self.bytes = 0

    def settle(self, refused: bool) -> None:
        """Take it from the batch's room: what was visited in any case, for that has cost time."""
        self._room.keys = max(0, self._room.keys - self.keys)
        if not refused:
            self._room.bytes -= self.bytes

    @property
    def may_visit(self) -> int:
        """How many keys there is room for."""
        return min(txn.MAX_KEYS, self._room.keys) - self.keys

    def visit(self, keys: int) -> None:
        self.keys += keys
        if self.keys > txn.MAX_KEYS:
            raise _Refused(txn.KEYS_LIMIT, txn.MAX_KEYS, self.keys)
        if self.keys > self._room.keys:
            raise _Crowded

    def answer(self, key: bytes, value: bytes) -> None:
        self.bytes += len(key) + len(value) + txn.ITEM_OVERHEAD_BYTES
        if self.bytes > txn.MAX_ANSWER_BYTES:
            raise _Refused(txn.BYTES_LIMIT, txn.MAX_ANSWER_BYTES, self.bytes)
        if self.bytes > self._room.bytes:
            raise _Crowded


def execute(
    store: Store,
    compares: tuple[txn.Compare, ...],
    then: tuple[txn.TxnOp, ...],
    otherwise: tuple[txn.TxnOp, ...],
    room: Room,
) -> tuple[Any, ...]:
    """Its result, in the shape that results.py says; takes what it needed from ``room``."""
    spent = _Spent(room)
    transaction: StoreTransaction | None = None
    try:
        failed = _first_that_fails(store, compares, spent)
        transaction = StoreTransaction(store)
        ops = then if failed is None else otherwise
        results = [_perform(store, transaction, op, spent) for op in ops]
    except (_Refused, _Crowded) as refusal:
        if transaction is not None:
            transaction.roll_back()
        spent.settle(refused=True)
        return refusal.result if isinstance(refusal, _Refused) else (CROWDED,)
    transaction.commit()
    spent.settle(refused=False)
    return (DONE, failed, store.revision, results)


# -- comparing ------------------------------------------------------------------------------------


def _first_that_fails(store: Store, compares: tuple[txn.Compare, ...], spent: _Spent) -> int | None:
    """The position of the first comparison that does not hold, or None."""
    for position, compare in enumerate(compares):
        if not _holds(store, compare, spent):
            return position
    return None


def _holds(store: Store, compare: txn.Compare, spent: _Spent) -> bool:
    target, relation, key, end, operand = compare
    field = _FIELD[target]
    if end is None:
        record = store.record(key)
        return _holds_of_nothing(compare) if record is None else _related(record[field], relation, operand)
    if target != txn.VALUE and operand == 0 and relation in (txn.GREATER, txn.NOT_EQUAL):
        return store.count(key, end) > 0  # "is there one?" is true of every key there is: no need to look
    found = False
    for _, record in store.items(key, end):
        found = True
        spent.visit(1)
        if not _related(record[field], relation, operand):
            return False
    return found or _holds_of_nothing(compare)


def _holds_of_nothing(compare: txn.Compare) -> bool:
    """Of a key that does not exist: no value, revisions and version 0."""
    target, relation, _, _, operand = compare
    return target != txn.VALUE and _related(0, relation, operand)


def _related(found: Any, relation: int, operand: Any) -> bool:
    if relation == txn.EQUAL:
        return bool(found == operand)
    if relation == txn.NOT_EQUAL:
        return bool(found != operand)
    return bool(found < operand) if relation == txn.LESS else bool(found > operand)


# -- doing ----------------------------------------------------------------------------------------


def _perform(store: Store, transaction: StoreTransaction, op: txn.TxnOp, spent: _Spent) -> tuple[Any, ...]:
    code = op[0]
    if code == txn.PUT:
        transaction.put(op[1], op[2])
        return (DONE,)
    if code == txn.DELETE:
        return (DONE, transaction.delete(op[1]))
    if code == txn.DELETE_RANGE:
        spent.visit(store.count(op[1], op[2]))
        return (DONE, transaction.delete_range(op[1], op[2]))
    if code == txn.GET:
        found = store.get(op[1])
        if found is None:
            return (DONE, None)
        spent.answer(found.key, found.value)
        return (DONE, _packable(found))
    _, start, end, limit, flags = op
    most = spent.may_visit + 1  # one more than there is room for is enough to know that there is no room
    listed = store.range(
        start,
        end,
        min(limit, most) if limit else most,
        reverse=bool(flags & txn.REVERSE),
        keys_only=bool(flags & txn.KEYS_ONLY),
        count_only=bool(flags & txn.COUNT_ONLY),
    )
    spent.visit(len(listed.kvs))
    for kv in listed.kvs:
        spent.answer(kv.key, kv.value)
    return (DONE, [_packable(kv) for kv in listed.kvs], listed.more, listed.count)


def _packable(kv: KeyValue) -> tuple[bytes, bytes, int, int, int, int | None]:
    return (kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease_id or None)
