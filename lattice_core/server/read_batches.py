"""Reads as clients write them, and their answers from the store (kv.proto, ReadBatch and ReadResults).

A batch is a msgpack list of reads: ``[1, key, revision|nil]`` gets, ``[2, start, end, limit, revision|nil,
flags]`` ranges. Whoever sends something else gets InvalidRequest; a read that fails by itself (a revision
that is compacted) gets its error in its own place, and the others their answers.

Answers are bounded in bytes: a gRPC client takes 4 MiB in one message by default. A range is cut short and
says so (``more``); a get that no longer fits is answered BUSY in its place, to be asked again with fewer beside
it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

import msgpack

from lattice_core.errors import InvalidRequest, LatticeError, RevisionCompacted, TooLarge
from lattice_core.kv import MAX_KEY_BYTES, KeyValue, RangeResult, Store
from lattice_core.rpc.errors import to_detail
from lattice_core.rpc.pb import kv_pb2
from lattice_core.tuples import make

GET: Final = 1
RANGE: Final = 2

KEYS_ONLY: Final = 1
COUNT_ONLY: Final = 2
REVERSE: Final = 4
_ALL_FLAGS: Final = KEYS_ONLY | COUNT_ONLY | REVERSE

MAX_READS: Final = 4096
"""As many as a write batch has operations."""

MAX_ANSWER_BYTES: Final = 2 << 20
"""Beyond it nothing more is added; the last thing added is at most a value and a key (1 MiB and 4 KiB)."""

MAX_RANGE_KEYS: Final = 10_000
"""What a range returns at most, whatever its limit: about 10 ms of the loop."""

_ITEM_OVERHEAD_BYTES: Final = 48


class Get(NamedTuple):
    key: bytes
    revision: int | None


class Range(NamedTuple):
    start: bytes
    end: bytes
    limit: int
    """0: as many as the server returns at once."""
    revision: int | None
    flags: int


Read: TypeAlias = Get | Range

ReadError: TypeAlias = LatticeError
Answer: TypeAlias = "KeyValue | RangeResult | LatticeError | None"


def decode_reads(data: bytes) -> list[Read]:
    """The reads of a batch. Raises InvalidRequest or TooLarge."""
    try:
        found = msgpack.unpackb(data, use_list=False, raw=False)
    except (ValueError, TypeError):
        raise InvalidRequest("the read batch is not msgpack") from None
    if type(found) is not tuple or not found:
        raise InvalidRequest("the read batch is not a list of reads, or is empty")
    if len(found) > MAX_READS:
        raise TooLarge(
            f"the read batch has {len(found)} reads, more than {MAX_READS}", limit=MAX_READS, actual=len(found)
        )
    return [_decode_read(each) for each in found]


def _decode_read(each: Any) -> Read:
    if (
        type(each) is tuple
        and len(each) == 3
        and each[0] == 1
        and each[2] is None
        and type(each[1]) is bytes
        and 0 < len(each[1]) <= MAX_KEY_BYTES
    ):
        return make(Get, (each[1], None))  # nearly every read there is
    match each:
        case (1, bytes(key), revision) if _is_revision(revision):
            return checked(Get(key, revision))
        case (2, bytes(start), bytes(end), int(limit), revision, int(flags)) if _is_revision(revision):
            return checked(Range(start, end, limit, revision, flags))
    raise InvalidRequest("not a well-formed read")


def _is_revision(value: object) -> bool:
    return value is None or (type(value) is int and value >= 0)


def checked(read: Read) -> Read:
    """The same read. Raises InvalidRequest or TooLarge for what cannot be asked."""
    keys = (read.key,) if isinstance(read, Get) else (read.start, read.end)
    for key in keys:
        if len(key) > MAX_KEY_BYTES:
            raise TooLarge(
                f"the key has {len(key)} bytes, more than {MAX_KEY_BYTES}", limit=MAX_KEY_BYTES, actual=len(key)
            )
    if isinstance(read, Get):
        if not read.key:
            raise InvalidRequest("the key is empty")
    elif read.limit < 0:
        raise InvalidRequest(f"limit must not be negative, but is {read.limit}")
    elif read.flags & ~_ALL_FLAGS:
        raise InvalidRequest(f"range flags {read.flags} are not known to this server")
    return read


def checked_bound(request: Any) -> float | None:
    """The ``max_stale_seconds`` of a read request; None: no bound. Raises InvalidRequest.

    It goes with stale reads only: on any other it would be a misunderstanding to stay silent about.
    """
    if not request.HasField("max_stale_seconds"):
        return None
    if request.consistency != kv_pb2.CONSISTENCY_STALE:
        raise InvalidRequest("max_stale_seconds goes with stale reads; others are never stale")
    seconds: float = request.max_stale_seconds
    if not 0 <= seconds < float("inf"):
        raise InvalidRequest(f"max_stale_seconds is {seconds}, must be 0 or more")
    return seconds


def execute(store: Store, reads: list[Read]) -> list[Answer]:
    """One answer per read, all from the same state, together about MAX_ANSWER_BYTES at most."""
    room = MAX_ANSWER_BYTES
    answers: list[Answer] = []
    for read in reads:
        answer: Answer
        try:
            if room <= 0:
                answer = TooLarge(
                    "the answers before this one fill a message; ask for fewer at a time",
                    limit=MAX_ANSWER_BYTES,
                    actual=MAX_ANSWER_BYTES - room,
                )
            elif isinstance(read, Get):
                answer = store.get(read.key, read.revision)
                if answer is not None:
                    room -= len(answer.key) + len(answer.value) + _ITEM_OVERHEAD_BYTES
            else:
                answer = _range(store, read, room)
                room -= sum(len(kv.key) + len(kv.value) + _ITEM_OVERHEAD_BYTES for kv in answer.kvs)
        except LatticeError as error:
            answer = error
        answers.append(answer)
    return answers


def _range(store: Store, read: Range, room: int) -> RangeResult:
    return store.range(
        read.start,
        read.end,
        limit=min(read.limit or MAX_RANGE_KEYS, MAX_RANGE_KEYS),
        revision=read.revision,
        reverse=bool(read.flags & REVERSE),
        keys_only=bool(read.flags & KEYS_ONLY),
        count_only=bool(read.flags & COUNT_ONLY),
        max_bytes=room,
    )


def encode_answers(answers: list[Answer], pack: Callable[[Any], bytes]) -> bytes:
    """The msgpack list of ReadResults."""
    return pack([_encode_answer(answer) for answer in answers])


def _encode_answer(answer: Answer) -> Any:
    if answer is None:
        return None
    if type(answer) is KeyValue:
        return _encode_key_value(answer)
    if isinstance(answer, RangeResult):
        return ([_encode_key_value(kv) for kv in answer.kvs], answer.more, answer.count)
    assert isinstance(answer, LatticeError)
    error: dict[str, Any] = {"error": int(to_detail(answer).code), "message": answer.message}
    if isinstance(answer, RevisionCompacted):
        error["compacted_revision"] = answer.compacted_revision
    if isinstance(answer, TooLarge):
        error["limit"], error["actual"] = answer.limit, answer.actual
    return error


def _encode_key_value(kv: KeyValue) -> tuple[bytes, bytes, int, int, int, int | None]:
    key, value, create_revision, mod_revision, version, lease_id = kv
    return (key, value, create_revision, mod_revision, version, lease_id or None)


def key_value_to_pb(kv: KeyValue) -> kv_pb2.KeyValue:
    return kv_pb2.KeyValue(
        key=kv.key,
        value=kv.value,
        create_revision=kv.create_revision,
        mod_revision=kv.mod_revision,
        version=kv.version,
        lease=kv.lease_id or None,
    )
