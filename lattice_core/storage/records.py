"""What the log's records say, and their bytes.

A record is ``crc u32 | length u32 | type u8 | body[length]``, little-endian. The CRC-32C covers
everything after itself and is *chained*: it starts from the CRC of the record before, across frames and
segments, so a record that is whole but in the wrong place (left over from an earlier life of the block,
or written to the wrong offset) does not pass. Frames, which group records into what one write puts on
disk, are :mod:`lattice_core.storage.segments`' business.

======== ============================================= ====================================================
type     body                                          effect on the log
======== ============================================= ====================================================
ENTRY    index u64, term u64, kind u8, payload         appends one entry
HARD     term u64, has_vote u8, voted_for u64          term and vote, always together (SAFETY 1)
TRUNCATE from u64, previous_term u64                  removes entries with index >= from
HINT     index u64                                     the commit index was at least this
SNAPSHOT index u64, term u64, restarts u8, config      a durable snapshot stands for the log up to index;
                                                       ``restarts``: nothing else of the log is left
SEALED   sequence u64                                  none: the next segment is durable and in use
======== ============================================= ====================================================

Type 0 does not exist, so that a stretch of zeros is never a record. A type this version does not know is
not skipped: it may matter, and the node stops with a clear error instead (SAFETY 45 in spirit).

Encoding is in two steps, because a record's size decides into which segment it goes and its CRC depends
on that: ``*_record`` functions give a :data:`RawRecord`, :func:`chain_records` adds the CRCs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import google_crc32c
import msgpack

from lattice_core.errors import Fatal
from lattice_core.raft.types import Configuration, Entry, HardState, Member, Payload, Promotion, SnapshotMeta

ENTRY = 1
HARD_STATE = 2
TRUNCATE = 3
COMMIT_HINT = 4
SNAPSHOT = 5
SEALED = 6

_NOOP = 0
_COMMAND = 1
_CONFIGURATION = 2

_CRC = struct.Struct("<I")
_HEAD = struct.Struct("<IB")
_ENTRY_HEAD = struct.Struct("<IBQQB")
_ENTRY_BODY = struct.Struct("<QQB")
_HARD_STATE_BODY = struct.Struct("<QBQ")
_TRUNCATE_BODY = struct.Struct("<QQ")
_HINT_BODY = struct.Struct("<Q")
_SNAPSHOT_BODY = struct.Struct("<QQB")
_SEALED_BODY = struct.Struct("<Q")

RECORD_OVERHEAD_BYTES = _CRC.size + _HEAD.size
MAX_BODY_BYTES = 0xFFFF_FFFF - 64

RawRecord: TypeAlias = tuple[bytes, bytes]
"""A record without its CRC: the head (length, type, fixed fields) and what follows it, uncopied."""


@dataclass(frozen=True, slots=True)
class Truncation:
    """Entries with ``index >= from_index`` are gone; the one before, now the last, has ``previous_term``.

    The term is there for a recovery that starts at a later segment than the entry before lies in.
    """

    from_index: int
    previous_term: int


@dataclass(frozen=True, slots=True)
class CommitHint:
    """The commit index was at least ``index`` when this was written."""

    index: int


@dataclass(frozen=True, slots=True)
class SnapshotMark:
    """A durable snapshot covers the log up to ``meta.last_included_index``.

    With ``restarts_log`` no entry written before is valid any more. The flag records what the writer
    did, since a recovery that starts at a later segment could not work it out again.
    """

    meta: SnapshotMeta
    restarts_log: bool


@dataclass(frozen=True, slots=True)
class Sealed:
    """The last record of a segment: segment ``next_sequence`` exists for certain and goes on from here."""

    next_sequence: int


Record: TypeAlias = Entry | HardState | Truncation | CommitHint | SnapshotMark | Sealed


class BadRecord(Exception):
    """A record's bytes are not what was written; the caller knows the file and makes the message."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


def entry_record(entry: Entry) -> RawRecord:
    payload = entry.payload
    if payload is None:
        kind, tail = _NOOP, b""
    elif isinstance(payload, bytes):
        kind, tail = _COMMAND, payload
    else:
        kind, tail = _CONFIGURATION, encode_configuration(payload)
    if len(tail) > MAX_BODY_BYTES:
        raise ValueError(f"entry {entry.index} has {len(tail)} bytes, more than a record can hold")
    return _ENTRY_HEAD.pack(_ENTRY_BODY.size + len(tail), ENTRY, entry.index, entry.term, kind), tail


def hard_state_record(state: HardState) -> RawRecord:
    vote = state.voted_for
    body = _HARD_STATE_BODY.pack(state.term, vote is not None, 0 if vote is None else vote)
    return _HEAD.pack(len(body), HARD_STATE) + body, b""


def truncation_record(truncation: Truncation) -> RawRecord:
    body = _TRUNCATE_BODY.pack(truncation.from_index, truncation.previous_term)
    return _HEAD.pack(len(body), TRUNCATE) + body, b""


def commit_hint_record(hint: CommitHint) -> RawRecord:
    return _HEAD.pack(_HINT_BODY.size, COMMIT_HINT) + _HINT_BODY.pack(hint.index), b""


def snapshot_record(mark: SnapshotMark) -> RawRecord:
    meta = mark.meta
    body = _SNAPSHOT_BODY.pack(meta.last_included_index, meta.last_included_term, mark.restarts_log)
    tail = encode_configuration(meta.configuration)
    return _HEAD.pack(len(body) + len(tail), SNAPSHOT) + body, tail


def sealed_record(sealed: Sealed) -> RawRecord:
    return _HEAD.pack(_SEALED_BODY.size, SEALED) + _SEALED_BODY.pack(sealed.next_sequence), b""


def records_size_bytes(records: Iterable[RawRecord]) -> int:
    """The size of the records once chained."""
    return sum(_CRC.size + len(head) + len(tail) for head, tail in records)


def chain_records(records: Iterable[RawRecord], chain: int) -> tuple[list[bytes], int]:
    """The pieces to write, in order, and the chain after them. ``chain`` is the CRC to start from."""
    extend = google_crc32c.extend
    pack = _CRC.pack
    pieces: list[bytes] = []
    for head, tail in records:
        chain = extend(chain, head)
        if tail:
            chain = extend(chain, tail)
            pieces += (pack(chain), head, tail)
        else:
            pieces += (pack(chain), head)
    return pieces, chain


@dataclass(frozen=True, slots=True)
class LocatedRecord:
    """A decoded record, the offset of its first byte and its size with overhead."""

    offset: int
    size_bytes: int
    record: Record
    chain: int


def read_records(data: bytes, start: int, end: int, chain: int) -> Iterator[LocatedRecord]:
    """Decode the records that fill ``data[start:end]`` exactly. Raises BadRecord, Fatal (unknown type)."""
    extend = google_crc32c.extend
    while start < end:
        body = start + RECORD_OVERHEAD_BYTES
        if body > end:
            raise BadRecord(start, "a record's head does not fit into its frame")
        (crc,) = _CRC.unpack_from(data, start)
        length, kind = _HEAD.unpack_from(data, start + _CRC.size)
        stop = body + length
        if stop > end:
            raise BadRecord(start, f"a record of {length} bytes does not fit into its frame")
        chain = extend(chain, data[start + _CRC.size : stop])
        if chain != crc:
            raise BadRecord(start, "a record's checksum does not match")
        try:
            record = _decode(kind, data, body, stop)
        except (struct.error, ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
            raise BadRecord(start, f"a record of type {kind} cannot be decoded: {error}") from error
        yield LocatedRecord(start, stop - start, record, chain)
        start = stop


def _decode(kind: int, data: bytes, start: int, stop: int) -> Record:
    if kind == ENTRY:
        index, term, payload_kind = _ENTRY_BODY.unpack_from(data, start)
        tail = data[start + _ENTRY_BODY.size : stop]
        return Entry(index, term, _decode_payload(payload_kind, tail))
    if kind == HARD_STATE:
        term, has_vote, vote = _HARD_STATE_BODY.unpack(data[start:stop])
        return HardState(term, vote if has_vote else None)
    if kind == TRUNCATE:
        from_index, previous_term = _TRUNCATE_BODY.unpack(data[start:stop])
        return Truncation(from_index, previous_term)
    if kind == COMMIT_HINT:
        (index,) = _HINT_BODY.unpack(data[start:stop])
        return CommitHint(index)
    if kind == SNAPSHOT:
        index, term, restarts = _SNAPSHOT_BODY.unpack_from(data, start)
        configuration = decode_configuration(data[start + _SNAPSHOT_BODY.size : stop])
        return SnapshotMark(SnapshotMeta(index, term, configuration), bool(restarts))
    if kind == SEALED:
        (sequence,) = _SEALED_BODY.unpack(data[start:stop])
        return Sealed(sequence)
    raise _unknown(f"a record of type {kind}")


def _decode_payload(kind: int, tail: bytes) -> Payload:
    if kind == _COMMAND:
        return tail
    if kind == _NOOP:
        return None
    if kind == _CONFIGURATION:
        return decode_configuration(tail)
    raise _unknown(f"an entry of kind {kind}")


def _unknown(what: str) -> Fatal:
    return Fatal(
        f"the log holds {what}, which this version does not know",
        hint="start this node with the version of Lattice that wrote its data directory, or a newer one",
    )


def encode_configuration(configuration: Configuration) -> bytes:
    """A configuration as msgpack; equal configurations give equal bytes."""
    encoded: bytes = msgpack.packb(
        {
            "members": [_encode_member(member) for member in configuration.members],
            "voters": sorted(configuration.voters),
            "outgoing": sorted(configuration.voters_outgoing),
            "learners": sorted(configuration.learners),
        }
    )
    return encoded


def _encode_member(member: Member) -> list[Any]:
    """``[id, name, address]``; for a learner that is to be promoted a fourth: ``[replaced id or nil]``."""
    fields: list[Any] = [member.id, member.name, member.peer_addr]
    return fields if member.promotion is None else [*fields, [member.promotion.replaces]]


def _decode_member(member_id: int, name: str, addr: str, promotion: list[int | None] | None = None) -> Member:
    return Member(member_id, name, addr, None if promotion is None else Promotion(*promotion))


def decode_configuration(data: bytes) -> Configuration:
    """The inverse of :func:`encode_configuration`. Raises ValueError, TypeError, KeyError."""
    fields: dict[str, list[Any]] = msgpack.unpackb(data)
    return Configuration(
        members=tuple(_decode_member(*member) for member in fields["members"]),
        voters=frozenset(fields["voters"]),
        voters_outgoing=frozenset(fields["outgoing"]),
        learners=frozenset(fields["learners"]),
    )
