"""What can be asked of the state machine, and how it is written in the log.

Three layers, from the inside out:

* an **op** is one small change, a tuple whose first element is its opcode: ``(PUT, key, value)``;
* a **batch** is msgpack of a list of ops. It is what one client sends at once, the unit of retry, and
  passes through the leader byte for byte;
* a **payload** is what one log entry carries: a header with the format version and the time the leader
  logged, then many batches, each framed with its session, sequence and acknowledgement.

Two doors lead in, and they answer a stranger differently. :func:`decode_batch` is the leader's, before
anything is proposed: whatever it does not like is :class:`InvalidRequest`, for a client must never be
able to halt a node. :func:`decode_payload` reads what is already in the log, where every member has to
do the same:

* a *newer* thing (another payload version, an opcode not known here, a known opcode with more operands
  than known here) is :class:`UnknownCommand`: this node must stop, because newer ones did execute it;
* a batch that can never mean anything (not msgpack, operands of the wrong type) is ``ops=None``:
  answered as malformed, changing nothing. **So what is malformed must stay malformed**: whoever wants
  to widen what is valid takes a new opcode, another operand, or a new payload version;
* limits of size are the leader's only. They may be changed without a new version for that reason.

Types are compared exactly (``type(x) is bytes``), and nothing but arrays, byte strings, integers and nil
is accepted, so it makes no difference how lenient a msgpack library is about the rest.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgpack

from lattice_core.errors import InvalidRequest, TooLarge, UnknownCommand
from lattice_core.kv import access, txn
from lattice_core.kv.operands import MAX_CODE, Newer, is_bytes, is_bytes_or_none, is_key, is_natural

Op: TypeAlias = tuple[Any, ...]
"""One change: opcode first, then its operands."""

Ops: TypeAlias = tuple[Op, ...]

PUT: Final = 1
PUT_IF_REVISION: Final = 2
DELETE: Final = 3
DELETE_RANGE: Final = 4
CAS: Final = 5
TXN: Final = 6  # its operands are txn.py's
OPEN_SESSION: Final = 7
CLOSE_SESSION: Final = 8
ACCESS: Final = 9  # its operand is access.py's
OPEN_SESSION_FOR: Final = 10

PAYLOAD_VERSION: Final = 1

MAX_KEY_BYTES: Final = 4096
"""Keys live in memory twice (table and history) and in every answer; longer ones are values in disguise."""

MAX_VALUE_BYTES: Final = 1024 * 1024
"""A value crosses the wire, the log and the snapshot whole; 1 MiB is sent in about a millisecond, so one
big value holds up the small ones behind it only that long."""

MAX_BATCH_BYTES: Final = 2 * 1024 * 1024
"""The largest value and as much again beside it; stays well below gRPC's 4 MiB limit for a message."""

MAX_BATCH_OPS: Final = 4096
"""A batch is applied without a pause: about 10 ms at this size, a tenth of a heartbeat. What is in transactions
counts."""

_HEADER: Final = struct.Struct("<BQ")  # payload version, logged time in milliseconds
_FRAME: Final = struct.Struct("<QQQI")  # session id, sequence, acknowledged below, length of the batch


# -- ops ------------------------------------------------------------------------------------------


def put(key: bytes, value: bytes) -> Op:
    return (PUT, key, value)


def put_if_revision(key: bytes, value: bytes, mod_revision: int) -> Op:
    """Put only if the key was last modified at ``mod_revision``; 0 means that it must be absent."""
    return (PUT_IF_REVISION, key, value, mod_revision)


def delete(key: bytes) -> Op:
    return (DELETE, key)


def delete_range(start: bytes, end: bytes) -> Op:
    """Delete ``start <= key < end``; an empty ``end`` reaches to the end of the keyspace."""
    return (DELETE_RANGE, start, end)


def delete_prefix(prefix: bytes) -> Op:
    return (DELETE_RANGE, *prefix_range(prefix))


def cas(key: bytes, expected: bytes | None, new: bytes) -> Op:
    """Put ``new`` only if the value is ``expected``; None means that the key must be absent."""
    return (CAS, key, expected, new)


def transaction(compares: Sequence[txn.Compare], then: Sequence[txn.TxnOp], otherwise: Sequence[txn.TxnOp] = ()) -> Op:
    """All of ``then`` if every comparison holds, else all of ``otherwise``, as one revision: see txn.py."""
    return (TXN, tuple(compares), tuple(then), tuple(otherwise))


def open_session() -> Op:
    return (OPEN_SESSION,)


def open_session_for(owner: bytes) -> Op:
    """A session that the server serves this user only."""
    return (OPEN_SESSION_FOR, owner)


def close_session(session_id: int) -> Op:
    return (CLOSE_SESSION, session_id)


def change_access(change: access.Change) -> Op:
    return (ACCESS, change)


def prefix_range(prefix: bytes) -> tuple[bytes, bytes]:
    """``(start, end)`` of all keys that begin with ``prefix``; the end is b"" where there is none."""
    stem = prefix.rstrip(b"\xff")
    return prefix, stem[:-1] + bytes([stem[-1] + 1]) if stem else b""


# -- batches --------------------------------------------------------------------------------------


def encode_batch(ops: Sequence[Op]) -> bytes:
    """What a client sends. Does not validate: see :func:`validate_op`."""
    encoded: bytes = msgpack.packb(ops, use_bin_type=True)
    return encoded


def decode_batch(data: bytes) -> Ops:
    """The leader's door: ops that may be proposed, or InvalidRequest with the reason."""
    if len(data) > MAX_BATCH_BYTES:
        raise TooLarge(
            f"the batch has {len(data)} bytes, more than {MAX_BATCH_BYTES}",
            limit=MAX_BATCH_BYTES,
            actual=len(data),
            hint="send fewer operations at a time",
        )
    try:
        ops = _parse(data)
    except Newer as error:
        raise InvalidRequest(f"{error}; this server does not know it", hint="upgrade the server") from None
    if ops is None:
        raise InvalidRequest(_describe_malformed_batch(data))
    if not ops:
        raise InvalidRequest("the batch is empty")
    count = len(ops)
    if count <= MAX_BATCH_OPS:
        for op in ops:
            if op[0] == TXN:
                count += txn.weight(op) - 1
            _check_limits(op)
    if count > MAX_BATCH_OPS:
        raise TooLarge(
            f"the batch has {count} operations, more than {MAX_BATCH_OPS}",
            limit=MAX_BATCH_OPS,
            actual=count,
            hint="send fewer operations at a time",
        )
    return ops


def validate_op(op: Op) -> None:
    """Raise InvalidRequest or TooLarge if this op could not be proposed. For clients, before sending."""
    try:
        if not _well_formed(op):
            raise InvalidRequest(_describe_malformed(op))
    except Newer as error:
        raise InvalidRequest(str(error)) from None
    _check_limits(op)


def _check_limits(op: Op) -> None:
    opcode = op[0]
    if opcode >= OPEN_SESSION:
        if opcode in (ACCESS, OPEN_SESSION_FOR):
            # Whoever may propose these decides who may do what: not for a client to put into its batch.
            raise InvalidRequest(f"an operation with code {opcode} is the cluster's own", hint="lattice access --help")
        return
    if opcode == TXN:
        _check_transaction(op)
        return
    key = op[1]
    if len(key) > MAX_KEY_BYTES:
        raise _too_large("key", MAX_KEY_BYTES, key)
    if opcode in (PUT, PUT_IF_REVISION):
        if len(op[2]) > MAX_VALUE_BYTES:
            raise _too_large("value", MAX_VALUE_BYTES, op[2])
    elif opcode == CAS:
        for value in (op[2], op[3]):
            if value is not None and len(value) > MAX_VALUE_BYTES:
                raise _too_large("value", MAX_VALUE_BYTES, value)
    elif opcode == DELETE_RANGE and len(op[2]) > MAX_KEY_BYTES:
        raise _too_large("end of the range", MAX_KEY_BYTES, op[2])


def _check_transaction(op: Op) -> None:
    txn.check(op)
    _, compares, then, otherwise = op
    for target, _, key, end, operand in compares:
        for each in (key, end):
            if each is not None and len(each) > MAX_KEY_BYTES:
                raise _too_large("key of a comparison", MAX_KEY_BYTES, each)
        if target == txn.VALUE and len(operand) > MAX_VALUE_BYTES:
            raise _too_large("value to compare with", MAX_VALUE_BYTES, operand)
    for inner in (*then, *otherwise):
        if inner[0] in (txn.GET, txn.RANGE):
            for each in inner[1:3]:
                if type(each) is bytes and len(each) > MAX_KEY_BYTES:
                    raise _too_large("key", MAX_KEY_BYTES, each)
        else:
            _check_limits(inner)  # what writes has the same code and shape outside of transactions


def _too_large(what: str, limit: int, data: bytes) -> TooLarge:
    return TooLarge(f"the {what} has {len(data)} bytes, more than {limit}", limit=limit, actual=len(data))


def _describe_malformed(op: object) -> str:
    if isinstance(op, tuple) and len(op) > 1 and op[1] == b"" and op[0] in (PUT, PUT_IF_REVISION, DELETE, CAS):
        return "the key is empty"
    if isinstance(op, tuple) and len(op) == 4 and op[0] == TXN:
        return txn.describe_malformed(op)
    return "not a well-formed operation"


def _describe_malformed_batch(data: bytes) -> str:
    """Which operation it is, where that can be told; for a client's author to find it."""
    ops = _unpack(data)
    if type(ops) is tuple:
        for number, op in enumerate(ops, start=1):
            if not _well_formed(op):
                return f"the batch has something else among its operations: number {number}: {_describe_malformed(op)}"
    return "the batch is not a list of well-formed operations"


# -- payloads -------------------------------------------------------------------------------------


class ClientBatch(NamedTuple):
    """One client's batch inside a payload.

    ``session_id`` 0 means that it runs without a session: once per entry it is in, so a retry may execute
    it again. ``commands`` is the batch as the client encoded it. ``ops`` is the same decoded: a leader
    that has validated the batch passes it along so that it is not decoded twice; None says that
    ``commands`` is malformed, and in :func:`encode_payload` it is not looked at.
    """

    session_id: int
    sequence: int
    acknowledged_below: int
    commands: bytes
    ops: Ops | None = None


class Payload(NamedTuple):
    """What one log entry carries, decoded."""

    time_ms: int
    batches: Sequence[ClientBatch]


def encode_payload(time_ms: int, batches: Iterable[ClientBatch]) -> bytes:
    """One log entry's bytes; ``time_ms`` is the cluster's own clock (docs/architecture.md, "Logged time")."""
    parts = [_HEADER.pack(PAYLOAD_VERSION, time_ms)]
    for session_id, sequence, acknowledged_below, commands, _ in batches:
        parts.append(_FRAME.pack(session_id, sequence, acknowledged_below, len(commands)))
        parts.append(commands)
    return b"".join(parts)


def decode_payload(payload: bytes) -> Payload:
    """Everything an entry carries, decoded before any of it is executed.

    Raises UnknownCommand, which halts the node (SAFETY 45), for anything this version does not know, so a
    node never stops half way through an entry.
    """
    if not payload or payload[0] != PAYLOAD_VERSION:
        found = f"version {payload[0]}" if payload else "no version at all"
        raise UnknownCommand(
            f"a log entry has {found}; this program knows version {PAYLOAD_VERSION}",
            hint="start a version of Lattice at least as new as the other members'",
        )
    size = len(payload)
    try:
        _, time_ms = _HEADER.unpack_from(payload)
        batches: list[ClientBatch] = []
        position = _HEADER.size
        while position < size:
            session_id, sequence, acknowledged_below, length = _FRAME.unpack_from(payload, position)
            position += _FRAME.size
            commands = payload[position : position + length]
            position += length
            batches.append(ClientBatch(session_id, sequence, acknowledged_below, commands, _parse(commands)))
    except struct.error:
        position = size + 1
    except Newer as error:
        raise UnknownCommand(
            f"the log holds {error}, which this program does not know",
            hint="start a version of Lattice at least as new as the other members'",
        ) from None
    if position != size:
        raise UnknownCommand(f"a log entry of {size} bytes does not divide into batches")
    return Payload(time_ms, batches)


# -- strict parsing -------------------------------------------------------------------------------


def _parse(data: bytes) -> Ops | None:
    """The ops, or None if malformed. Raises Newer."""
    ops = _unpack(data)
    if type(ops) is not tuple:
        return None
    malformed = False
    for op in ops:
        if (
            type(op) is tuple
            and len(op) == 3
            and op[0] == PUT
            and type(op[1]) is bytes
            and type(op[2]) is bytes
            and op[1]
            and type(op[0]) is int
        ):
            continue  # nearly every op there is
        if not _well_formed(op):
            malformed = True  # but look on: a newer op anywhere in the batch decides
    return None if malformed else ops


def _unpack(data: bytes) -> Any:
    """What msgpack makes of it; None for what is not msgpack."""
    try:
        return msgpack.unpackb(data, use_list=False, raw=False)
    except (ValueError, TypeError):  # every msgpack error on bytes is a ValueError, or unhashable map keys
        return None


_OPERANDS: Final = {
    PUT: (is_key, is_bytes),
    PUT_IF_REVISION: (is_key, is_bytes, is_natural),
    DELETE: (is_key,),
    DELETE_RANGE: (is_bytes, is_bytes),
    CAS: (is_key, is_bytes_or_none, is_bytes),
    TXN: (txn.are_compares, txn.are_ops, txn.are_ops),
    OPEN_SESSION: (),
    CLOSE_SESSION: (is_natural,),
    ACCESS: (access.is_change,),
    OPEN_SESSION_FOR: (is_key,),
}


def _well_formed(op: object) -> bool:
    """Whether it is an op of this version. Raises Newer if it may be one of a later version."""
    if type(op) is not tuple or not op:
        return False
    opcode = op[0]
    if type(opcode) is not int or not 1 <= opcode <= MAX_CODE:
        return False
    operands = _OPERANDS.get(opcode)
    if operands is None:
        raise Newer(f"an operation with code {opcode}")
    if len(op) - 1 > len(operands):
        raise Newer(f"an operation with code {opcode} and {len(op) - 1} operands")
    if len(op) - 1 < len(operands):
        return False
    well_formed = True
    for check, operand in zip(operands, op[1:], strict=True):
        well_formed &= check(operand)  # look at all: something newer in one of them decides, whatever another is
    return well_formed
