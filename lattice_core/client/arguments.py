"""What callers pass, checked before anything is sent: bytes, bounds, revisions, operations.

Errors are InvalidRequest or TooLarge, and say what was asked for; TypeError for what no value of the argument could be.
"""

from __future__ import annotations

from typing import Final, TypeAlias, TypeVar

from lattice_core.client.reads import Level
from lattice_core.client.types import Consistency
from lattice_core.client.writes import NAMES, OP_OVERHEAD_BYTES
from lattice_core.errors import InvalidRequest, LatticeError, TooLarge
from lattice_core.kv.commands import (
    CAS,
    DELETE,
    DELETE_RANGE,
    MAX_BATCH_BYTES,
    MAX_KEY_BYTES,
    MAX_VALUE_BYTES,
    PUT,
    PUT_IF_REVISION,
    TXN,
    Op,
    encode_batch,
    prefix_range,
    validate_op,
)
from lattice_core.rpc.pb import kv_pb2

Data: TypeAlias = str | bytes | bytearray | memoryview
"""What keys and values may be given as; str is encoded as UTF-8."""

_LEVELS: Final = {
    "linearizable": Level(kv_pb2.CONSISTENCY_LINEARIZABLE),
    "lease": Level(kv_pb2.CONSISTENCY_LEASE),
    "stale": Level(kv_pb2.CONSISTENCY_STALE),
}


def to_bytes(data: Data, what: str) -> bytes:
    """Bytes of what a caller passed. Raises TypeError for what is neither text nor bytes."""
    if type(data) is bytes:
        return data
    if isinstance(data, str):
        try:
            return data.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"the {what} cannot be encoded as UTF-8: {error.reason}") from None
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise TypeError(f"the {what} must be bytes or str, not {type(data).__name__}")


def validate(what: str, op: Op) -> None:
    """Raise InvalidRequest or TooLarge, saying what was asked for, if the cluster would refuse ``op``."""
    try:
        validate_op(op)
    except InvalidRequest as error:
        raise prefixed(what, error) from None


E = TypeVar("E", bound=LatticeError)


def prefixed(what: str, error: E) -> E:
    """The same error, saying first what was asked for."""
    error.message = f"{what}: {error.message}"
    error.args = (error.message,)
    return error


def bounds(what: str, prefix: Data | None, start: Data | None, end: Data | None) -> tuple[bytes, bytes]:
    if prefix is not None:
        if start is not None or end is not None:
            raise InvalidRequest(f"{what}: prefix excludes start and end")
        return prefix_range(to_bytes(prefix, "prefix"))
    first = b"" if start is None else to_bytes(start, "start")
    last = b"" if end is None else to_bytes(end, "end")
    if end is not None and last <= first:
        raise InvalidRequest(f"{what}: the end {last!r} is not after the start {first!r}")
    return first, last


def level_of(consistency: Consistency, max_stale: float | None) -> Level:
    """How fresh a read must be, for the wire."""
    try:
        level = _LEVELS[consistency]
    except KeyError:
        raise InvalidRequest(f"consistency {consistency!r} is not linearizable, lease or stale") from None
    if max_stale is None:
        return level
    if level.consistency != kv_pb2.CONSISTENCY_STALE:
        raise InvalidRequest(f"max_stale goes with consistency='stale'; {consistency} reads are never stale")
    if not 0 <= max_stale < float("inf"):
        raise InvalidRequest(f"max_stale is {max_stale}, must be a number of seconds from 0")
    return level._replace(max_stale_seconds=max_stale)


def key_to_read(key: Data) -> bytes:
    """A key that may be asked for. Raises InvalidRequest or TooLarge."""
    if type(key) is not bytes:
        key = to_bytes(key, "key")
    if not key or len(key) > MAX_KEY_BYTES:
        validate("get", (DELETE, key))  # the cheapest op with a key: the rules for keys are the same
    return key


def checked_revision(revision: int | None) -> int | None:
    if revision is not None and revision < 1:
        raise InvalidRequest(f"revision is {revision}, must be at least 1")
    return revision


def checked_limit(what: str, limit: int | None) -> int:
    """The limit as the wire has it: 0 for none."""
    if limit is not None and limit < 1:
        raise InvalidRequest(f"{what}: limit is {limit}, must be at least 1")
    return limit or 0


# -- operations -----------------------------------------------------------------------------------


def put_op(key: Data, value: Data, if_revision: int | None, if_absent: bool) -> Op:
    """A put, conditional or not."""
    if type(key) is not bytes:
        key = to_bytes(key, "key")
    if type(value) is not bytes:
        value = to_bytes(value, "value")
    if if_revision is None and not if_absent:
        op: Op = (PUT, key, value)
        if not key or len(key) > MAX_KEY_BYTES or len(value) > MAX_VALUE_BYTES:
            validate("put", op)
        return op
    if if_revision is not None and if_absent:
        raise InvalidRequest("put: if_revision and if_absent exclude each other")
    op = (PUT_IF_REVISION, key, value, if_revision or 0)
    validate("put", op)
    return op


def delete_op(key: Data) -> Op:
    op: Op = (DELETE, to_bytes(key, "key"))
    validate("delete", op)
    return op


def delete_range_op(prefix: Data | None, start: Data | None, end: Data | None) -> Op:
    if prefix is None and start is None:
        raise InvalidRequest("delete_range: give a prefix or a start")
    op: Op = (DELETE_RANGE, *bounds("delete_range", prefix, start, end))
    validate("delete_range", op)
    return op


def cas_op(key: Data, expected: Data | None, new: Data) -> Op:
    old = None if expected is None else to_bytes(expected, "expected value")
    op: Op = (CAS, to_bytes(key, "key"), old, to_bytes(new, "new value"))
    validate("cas", op)
    return op


def size_of(op: Op) -> int:
    """What an operation counts as, in bytes. Raises TooLarge where it would not fit into any batch."""
    if op[0] == TXN:
        size = len(encode_batch((op,)))
    else:
        size = OP_OVERHEAD_BYTES + sum(len(operand) for operand in op if type(operand) is bytes)
    if size > MAX_BATCH_BYTES:
        name = NAMES[op[0]]
        raise TooLarge(
            f"{name}: the operation has {size} bytes, more than {MAX_BATCH_BYTES}",
            limit=MAX_BATCH_BYTES,
            actual=size,
            hint="split it into several" if op[0] == TXN else None,
        )
    return size
