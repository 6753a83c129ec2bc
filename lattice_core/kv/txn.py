"""Transactions as they are written in the log: comparisons, and what to do if all hold, or if one does not.

::

    (TXN, compares, then, otherwise)

    compare     (target, relation, key, end|None, operand)      end None: the key alone; else key <= k < end
    operation   (PUT, key, value)   (DELETE, key)   (DELETE_RANGE, start, end)
                (GET, key)          (RANGE, start, end, limit, flags)           limit 0: all of it

Theory (etcd's users will find what they know)
  * One of the two lists is executed, whole, in order, each operation seeing what those before it did. All that
    it writes has one revision; if it writes nothing there is no new revision.
  * A comparison looks at the state before the transaction. Of a key that does not exist, the revisions and
    the version are 0, and any comparison of the *value* is false. Over a range every key has to satisfy it; an
    empty range is like a key that does not exist. So ``version == 0`` is "absent", ``version > 0`` "exists".
  * No key is written twice: not put twice, not put and deleted. Deleting twice is harmless and allowed.

Two kinds of limits
  * Of what is written (numbers of comparisons and operations): the leader's, checked before anything is proposed.
    They may be changed at any time.
  * Of what it comes to when it is executed (:data:`MAX_KEYS`, :data:`MAX_ANSWER_BYTES`): every member has to
    decide alike, so **these two numbers are part of what TXN means** and can only change with a new opcode. A
    transaction over one of them is refused whole, and answered so (results.py).

Codes of operations are a namespace of their own here: where one also exists outside of transactions, it is the
same. Conditional ones (PUT_IF_REVISION, CAS) do not exist here, since comparisons say the same; transactions
cannot be nested, nor open sessions.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from lattice_core.errors import InvalidRequest, TooLarge
from lattice_core.kv.operands import Newer, is_bytes, is_bytes_or_none, is_code, is_key, is_natural

Compare: TypeAlias = tuple[int, int, bytes, bytes | None, bytes | int]
TxnOp: TypeAlias = tuple[Any, ...]

VALUE: Final = 1
MOD_REVISION: Final = 2
CREATE_REVISION: Final = 3
VERSION: Final = 4
TARGETS: Final = {VALUE: "value", MOD_REVISION: "mod_revision", CREATE_REVISION: "create_revision", VERSION: "version"}

EQUAL: Final = 1
NOT_EQUAL: Final = 2
LESS: Final = 3
GREATER: Final = 4
RELATIONS: Final = {EQUAL: "==", NOT_EQUAL: "!=", LESS: "<", GREATER: ">"}

PUT: Final = 1
DELETE: Final = 3
DELETE_RANGE: Final = 4
GET: Final = 64
RANGE: Final = 65

KEYS_ONLY: Final = 1
COUNT_ONLY: Final = 2
REVERSE: Final = 4

MAX_COMPARES: Final = 1024
MAX_OPS: Final = 1024
"""In each of the two lists. A transaction is applied without a pause: a few milliseconds at this size."""

MAX_KEYS: Final = 10_000
"""Keys that the ranges of one transaction, or of all in one batch, may visit: about 10 ms. See the module."""

MAX_ANSWER_BYTES: Final = 2 * 1024 * 1024
"""What the answers of one transaction, or of all in one batch, may hold: they are kept in the session table until
acknowledged, and travel in one message. As much as a batch may bring. See the module."""

ITEM_OVERHEAD_BYTES: Final = 48
"""What a key in an answer is charged beyond key and value: its revisions and msgpack's headers, at most."""

KEYS_LIMIT: Final = 1
BYTES_LIMIT: Final = 2
"""Which of the limits a refused transaction was over, as its result says."""

_CONDITIONAL_OR_SESSION: Final = (2, 5, 6, 7, 8)
"""Operations outside of transactions that are none inside: malformed, not newer."""

_OPERANDS: Final = {
    PUT: (is_key, is_bytes),
    DELETE: (is_key,),
    DELETE_RANGE: (is_bytes, is_bytes),
    GET: (is_key,),
    RANGE: (is_bytes, is_bytes, is_natural, is_natural),
}


# -- strict parsing -------------------------------------------------------------------------------


def are_compares(operand: object) -> bool:
    """Whether it is a list of comparisons of this version. Raises Newer if one may be of a later version."""
    return _are_all(_is_compare, operand)


def are_ops(operand: object) -> bool:
    """Whether it is a list of a transaction's operations. Raises Newer if one may be of a later version."""
    return _are_all(_is_op, operand)


def _are_all(check: Callable[[object], bool], operand: object) -> bool:
    if type(operand) is not tuple:
        return False
    well_formed = True
    for each in operand:
        well_formed &= check(each)  # look at all: something newer decides, whatever the others are
    return well_formed


def _is_compare(compare: object) -> bool:
    if type(compare) is not tuple or len(compare) < 2:
        return False
    target, relation = compare[:2]
    if not is_code(target) or not is_code(relation):
        return False
    if target not in TARGETS:
        raise Newer(f"a comparison with code {target}")
    if relation not in RELATIONS:
        raise Newer(f"a relation with code {relation}")
    if len(compare) > 5:
        raise Newer(f"a comparison with {len(compare)} operands")
    if len(compare) < 5:
        return False
    _, _, key, end, operand = compare
    key_is_right = is_key(key) if end is None else is_bytes(key) and is_bytes_or_none(end)
    return key_is_right and (is_bytes(operand) if target == VALUE else is_natural(operand))


def _is_op(op: object) -> bool:
    if type(op) is not tuple or not op or not is_code(op[0]):
        return False
    code = op[0]
    operands = _OPERANDS.get(code)
    if operands is None:
        if code in _CONDITIONAL_OR_SESSION:
            return False
        raise Newer(f"an operation with code {code} in a transaction")
    if len(op) - 1 > len(operands):
        raise Newer(f"an operation with code {code} and {len(op) - 1} operands in a transaction")
    if len(op) - 1 < len(operands) or not all(check(operand) for check, operand in zip(operands, op[1:], strict=True)):
        return False
    if code == RANGE and op[4] & ~(KEYS_ONLY | COUNT_ONLY | REVERSE):
        raise Newer(f"range flags {op[4]} in a transaction")
    return True


def describe_malformed(op: Sequence[Any]) -> str:
    """Why a TXN of three lists is not well-formed, as far as there is more to say than that."""
    for branch in op[2:4]:
        for inner in branch if isinstance(branch, tuple) else ():
            if not isinstance(inner, tuple) or not inner:
                continue
            if inner[0] == 6:
                return "transactions cannot be nested"
            if inner[0] in _CONDITIONAL_OR_SESSION:
                return f"an operation with code {inner[0]} has no place in a transaction; compare instead"
            if inner[0] in (PUT, DELETE, GET) and len(inner) > 1 and inner[1] == b"":
                return "a key in the transaction is empty"
    return "the transaction is not well-formed"


# -- the leader's rules ---------------------------------------------------------------------------


def weight(op: TxnOp) -> int:
    """How many operations a transaction counts as, against the limit of a batch."""
    return 1 + len(op[1]) + len(op[2]) + len(op[3])


def check(op: TxnOp) -> None:
    """Raise TooLarge or InvalidRequest for a well-formed transaction that must not be proposed.

    Sizes of keys and values are commands.py's to check.
    """
    _, compares, then, otherwise = op
    if not compares and not then and not otherwise:
        raise InvalidRequest("the transaction is empty", hint="give it comparisons or operations")
    for what, found, limit in (
        ("comparisons", len(compares), MAX_COMPARES),
        ("operations under then", len(then), MAX_OPS),
        ("operations under else", len(otherwise), MAX_OPS),
    ):
        if found > limit:
            raise TooLarge(
                f"the transaction has {found} {what}, more than {limit}",
                limit=limit,
                actual=found,
                hint="split it into several transactions, each of which compares what it relies on",
            )
    _check_no_key_is_written_twice(then)
    _check_no_key_is_written_twice(otherwise)


def _check_no_key_is_written_twice(ops: Sequence[TxnOp]) -> None:
    """As etcd has it: puts must differ from each other and from all that is deleted in the same list."""
    put: set[bytes] = set()
    deleted: set[bytes] = set()
    ranges: list[tuple[bytes, bytes]] = []
    for op in ops:
        if op[0] == PUT:
            if op[1] in put:
                raise InvalidRequest(f"the transaction puts {op[1]!r} twice")
            put.add(op[1])
        elif op[0] == DELETE:
            deleted.add(op[1])
        elif op[0] == DELETE_RANGE:
            ranges.append((op[1], op[2]))
    both = put & deleted
    if both:
        raise InvalidRequest(f"the transaction puts and deletes {min(both)!r}")
    keys = sorted(put)
    for start, end in ranges:
        at = bisect_left(keys, start)
        if at < len(keys) and (not end or keys[at] < end):
            raise InvalidRequest(f"the transaction puts {keys[at]!r} and deletes a range that it is in")
