"""The layout of a log segment, and the judgement what a bad byte in it means.

Theory
------
A segment is a preallocated file of zeros that is written once, front to back::

    sector 0       header: magic, format version, who, sequence, where the log stood, CRC
    frame 0        checkpoint: hard state, snapshot, commit hint restated, so older segments can go
    frame 1 ...    what each write brought: one frame, one pwrite, starting on a sector of its own
    seal           one frame that says: the next segment is durable, the log goes on there
    zeros          room not used

A *frame* is ``header | records | trailer | zero padding to the next sector``. It is the unit of loss: a
frame that is not whole is dropped as a whole, so batches are never half applied.

The question of recovery is what a frame that is not whole *means*. Either the machine died before the
frame's fsync returned (a tear: nothing in it was acknowledged, cut it), or the frame was durable and has
rotted since (damage: it may hold acknowledged entries or a vote, refuse to start). etcd#11488 and
"Protocol-Aware Recovery" (Alagappan and others, FAST '18) tell what comes of guessing wrong. Two facts
decide it here:

1. Every frame header says ``durable``: everything in this segment below that offset had been fsynced
   *before* this frame was written. So a good frame header after the bad place whose ``durable`` lies
   beyond the bad place proves damage. (A clean close writes an empty frame just to say so.) A good frame
   after the bad place whose ``durable`` does not reach beyond it was written before the same fsync: a
   crash may keep any subset of sectors of what was not synced, and both go.
2. A crash keeps each 512-byte sector of an unsynced write either old or new, and old means zeros, since
   nothing is ever written twice. So in a tear at least one sector that should hold something is all
   zeros; ``zero_sectors`` in the header says how many are legitimately zero. (A plain prefix with zeros
   after it, as a byte-wise cut leaves, counts as a tear as well: the trailer has no zero byte.) If every
   sector arrived and the checksum is still wrong, that is damage even in the very last frame.

A file shorter than its header says is damage too: the size was durable before the first record.

Limit: a whole sector of the very last frame replaced by zeros, with no frame after it, cannot be told
from a tear. It is cut, and reported, as any log without a second copy would have to.

The checksum of a frame header is salted with cluster, node and sequence, so that a stale block, or a
value that somebody stored because it looks like a frame, does not pass for one.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass

import google_crc32c

from lattice_core.errors import Fatal, IdentityMismatch
from lattice_core.storage.filesystem import SECTOR_BYTES
from lattice_core.storage.records import (
    BadRecord,
    LocatedRecord,
    RawRecord,
    Sealed,
    chain_records,
    read_records,
)

FORMAT_VERSION = 1

_MAGIC = b"LatticeW"
# magic, version, cluster, node, sequence, base index, base term, capacity, first frame, previous end, chain
_HEADER = struct.Struct("<8sIQQQQQQQQI")
_CRC = struct.Struct("<I")
_SALT = struct.Struct("<QQQ")

FRAME_MAGIC = b"\xf7LFr"
# magic, content length, number, offset, durable, chain, zero sectors, crc
_FRAME = struct.Struct("<4sIQQQIII")
_FRAME_CRC_OFFSET = _FRAME.size - _CRC.size
FRAME_HEADER_BYTES = _FRAME.size
TRAILER = b"\xd3\x5a\xa7\x6e"
"""Ends a frame. No byte is zero, nor one flipped bit away from it, so a missing end shows."""

FRAME_OVERHEAD_BYTES = FRAME_HEADER_BYTES + len(TRAILER)
MAX_CONTENT_BYTES = 0xFFFF_FFFF

_ZERO_SECTOR = bytes(SECTOR_BYTES)
_SAMPLE_STRIDE = 250
_NAME = re.compile(r"(\d{16})-(\d{16})\.wal")


def segment_name(sequence: int, first_index: int) -> str:
    """The file name: order of creation, and for people the index of the next entry at that time."""
    return f"{sequence:016d}-{first_index:016d}.wal"


def sequence_of(name: str) -> int | None:
    """The sequence in a segment's file name, or None if the name is not a segment's."""
    match = _NAME.fullmatch(name)
    return int(match.group(1)) if match else None


def sector_aligned(size: int) -> int:
    """``size`` rounded up to whole sectors."""
    return -(-size // SECTOR_BYTES) * SECTOR_BYTES


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """The first sector of a segment.

    ``base_index`` and ``base_term`` are those of the last entry when the segment was begun.
    ``previous_end`` and ``chain`` are where the segment before ended and the CRC of its last record:
    they prove that nothing of it is missing.
    """

    cluster_id: int
    node_id: int
    sequence: int
    base_index: int
    base_term: int
    capacity_bytes: int
    first_frame: int
    previous_end: int
    chain: int

    @property
    def salt(self) -> int:
        return frame_salt(self.cluster_id, self.node_id, self.sequence)

    def encode(self) -> bytes:
        fixed = _HEADER.pack(
            _MAGIC, FORMAT_VERSION, self.cluster_id, self.node_id, self.sequence, self.base_index,
            self.base_term, self.capacity_bytes, self.first_frame, self.previous_end, self.chain,
        )  # fmt: skip
        sector = fixed.ljust(SECTOR_BYTES - _CRC.size, b"\0")
        return sector + _CRC.pack(google_crc32c.value(sector))


def frame_salt(cluster_id: int, node_id: int, sequence: int) -> int:
    """What a frame header's checksum starts from."""
    value: int = google_crc32c.value(_SALT.pack(cluster_id, node_id, sequence))
    return value


class Ending(enum.Enum):
    """What lies where the readable frames of a segment end."""

    CLEAN = "clean"
    TORN = "torn"
    DAMAGED = "damaged"


class BadHeader(Exception):
    """A segment's first sector is no header. ``ending`` is TORN if it never arrived as a whole."""

    def __init__(self, ending: Ending, reason: str) -> None:
        super().__init__(reason)
        self.ending = ending
        self.reason = reason


def decode_header(data: bytes) -> SegmentHeader:
    """Read sector 0. Raises BadHeader, and Fatal for a format version this code does not know.

    Magic, version and the CRC in the last four bytes of the sector keep their places in every version,
    so that a newer log is told from a damaged one.
    """
    sector = data[:SECTOR_BYTES]
    if len(sector) < SECTOR_BYTES:
        raise BadHeader(Ending.TORN, "the file is too short to hold a header")
    body, stored = sector[: -_CRC.size], sector[-_CRC.size :]
    if _CRC.pack(google_crc32c.value(body)) != stored:
        arrived = any(stored)  # the header is one sector: without its last bytes, it never arrived
        raise BadHeader(Ending.DAMAGED if arrived else Ending.TORN, "the segment header's checksum is wrong")
    magic, version, *fields = _HEADER.unpack_from(sector)
    if magic != _MAGIC:
        raise BadHeader(Ending.DAMAGED, "this is not a segment of a Lattice log")
    if version != FORMAT_VERSION:
        raise Fatal(
            f"the log has format version {version}, and this version of Lattice reads {FORMAT_VERSION}",
            hint="start this node with the version of Lattice that wrote its data directory, or a newer one",
        )
    return SegmentHeader(*fields)


def require_identity(header: SegmentHeader, path: str, cluster_id: int, node_id: int) -> None:
    """Raise IdentityMismatch, naming both values, unless the segment was written by this very node."""
    if header.cluster_id != cluster_id:
        raise IdentityMismatch(
            f"{path} belongs to cluster {header.cluster_id:016x}, but this node is of cluster {cluster_id:016x}"
        )
    if header.node_id != node_id:
        raise IdentityMismatch(f"{path} belongs to node {header.node_id:016x}, but this node is {node_id:016x}")


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole frame: ``offset`` to ``end`` (sector-aligned), and what everything below ``durable`` was."""

    number: int
    offset: int
    end: int
    durable: int
    records: tuple[LocatedRecord, ...]


@dataclass(frozen=True, slots=True)
class SegmentScan:
    """The frames of one segment up to ``end``, the chain after them, and how they end there.

    A seal is among the frames, but ``end``, ``chain`` and ``next_frame`` are those before it: from there
    the next segment, which was made before the seal was written, goes on.
    """

    frames: tuple[Frame, ...]
    end: int
    chain: int
    next_frame: int
    ending: Ending
    reason: str
    bad_offset: int
    sealed: bool


def frame_size_bytes(content_bytes: int) -> int:
    """What a frame with that many bytes of records takes up in a segment."""
    return sector_aligned(FRAME_OVERHEAD_BYTES + content_bytes)


def encode_frame(
    records: Iterable[RawRecord], *, salt: int, number: int, offset: int, durable: int, chain: int
) -> tuple[bytes, int]:
    """A frame's bytes, padded to whole sectors, and the chain after it."""
    records = list(records)
    # The records' chain runs through the frame header's CRC, which is not known before the number of
    # zero sectors is; any chain will do for counting, since no record's head is all zeros.
    zero_sectors = 0
    if any(_may_hold_zero_sector(tail) for _, tail in records):
        pieces, _ = chain_records(records, 0)
        zero_sectors = _count_zero_sectors(b"".join((bytes(FRAME_HEADER_BYTES), *pieces, TRAILER)))
    length = sum(len(head) + len(tail) for head, tail in records) + _CRC.size * len(records) + len(TRAILER)
    fixed = _FRAME.pack(FRAME_MAGIC, length, number, offset, durable, chain, zero_sectors, 0)
    crc: int = google_crc32c.extend(salt, fixed[:_FRAME_CRC_OFFSET])
    pieces, chain = chain_records(records, crc)
    used = FRAME_HEADER_BYTES + length
    padding = bytes(sector_aligned(used) - used)
    return b"".join((fixed[:_FRAME_CRC_OFFSET], _CRC.pack(crc), *pieces, TRAILER, padding)), chain


def _may_hold_zero_sector(payload: bytes) -> bool:
    # A sector of zeros covers at least 500 bytes of one payload (a record's head has non-zero bytes),
    # and thereby two neighbouring samples: cheap to rule out, and never wrong in that direction.
    return len(payload) >= 2 * _SAMPLE_STRIDE and b"\0\0" in payload[::_SAMPLE_STRIDE]


def _count_zero_sectors(frame: bytes) -> int:
    """All-zero sectors after the first, which holds the frame header. The last may be partial."""
    return sum(not frame[at : at + SECTOR_BYTES].strip(b"\0") for at in range(SECTOR_BYTES, len(frame), SECTOR_BYTES))


def scan_segment(data: bytes, header: SegmentHeader) -> SegmentScan:
    """Read all frames of a segment whose header is good, and judge how they end.

    Pure: the caller decides what a tear or damage means for a segment in its position. Raises Fatal
    only for a record of a type that this version does not know.
    """
    salt = header.salt
    offset, chain, number = SECTOR_BYTES, header.chain, header.first_frame
    frames: list[Frame] = []

    def ended(ending: Ending, reason: str = "", bad_offset: int | None = None, sealed: bool = False) -> SegmentScan:
        bad_offset = offset if bad_offset is None else bad_offset
        if ending is not Ending.CLEAN:
            proof = proof_of_damage(data, offset, salt)
            if proof is not None:
                ending = Ending.DAMAGED
                reason += f", and what was written after it was durable is still there at offset {proof}"
        return SegmentScan(tuple(frames), offset, chain, number, ending, reason, bad_offset, sealed)

    while True:
        sector = data[offset : offset + SECTOR_BYTES]
        if not sector.strip(b"\0"):
            if first_nonzero(data, offset) is None:
                return ended(Ending.CLEAN)
            return ended(Ending.TORN, "the head of a frame is missing")
        fields = _decode_frame_header(data, offset, salt)
        if fields is None:
            cut = len(sector.rstrip(b"\0")) < FRAME_HEADER_BYTES
            return ended(Ending.TORN if cut else Ending.DAMAGED, "a frame's header is not readable")
        length, frame_number, at, durable, frame_chain, zero_sectors, crc = fields
        if (frame_number, at, frame_chain) != (number, offset, chain):
            return ended(Ending.DAMAGED, "a frame stands where another one belongs")
        content = offset + FRAME_HEADER_BYTES
        stop = content + length - len(TRAILER)
        try:
            if data[stop : stop + len(TRAILER)] != TRAILER:
                raise BadRecord(stop, "a frame has no end")
            records = tuple(read_records(data, content, stop, crc))
        except BadRecord as bad:
            torn = _has_missing_part(data, offset, content + length, zero_sectors)
            return ended(Ending.TORN if torn else Ending.DAMAGED, bad.reason, bad.offset)
        end = offset + sector_aligned(FRAME_HEADER_BYTES + length)
        frames.append(Frame(number, offset, end, durable, records))
        if records and isinstance(records[-1].record, Sealed):
            return ended(Ending.CLEAN, sealed=True)
        chain = records[-1].chain if records else crc
        offset, number = end, number + 1


def _decode_frame_header(data: bytes, offset: int, salt: int) -> tuple[int, int, int, int, int, int, int] | None:
    """Length, number, offset, durable, chain, zero sectors, crc: or None if this is no frame header."""
    if offset + FRAME_HEADER_BYTES > len(data):
        return None
    magic, *fields, crc = _FRAME.unpack_from(data, offset)
    expected = google_crc32c.extend(salt, data[offset : offset + _FRAME_CRC_OFFSET])
    if magic != FRAME_MAGIC or crc != expected:
        return None
    length, number, at, durable, chain, zero_sectors = fields
    return length, number, at, durable, chain, zero_sectors, crc


def _has_missing_part(data: bytes, offset: int, stop: int, zero_sectors: int) -> bool:
    """Whether a frame with a good header could be a tear: some of it is still the zeros from before."""
    if stop > len(data):
        return True
    trailer = data[stop - len(TRAILER) : stop]
    if trailer != TRAILER and TRAILER.startswith(trailer.rstrip(b"\0")):
        return True
    return _count_zero_sectors(data[offset:stop]) > zero_sectors


def proof_of_damage(data: bytes, bad: int, salt: int) -> int | None:
    """The offset of a later frame header which shows that the bytes at ``bad`` were durable once."""
    at = data.find(FRAME_MAGIC, bad + 1)
    while at >= 0:
        if at % SECTOR_BYTES == 0:
            fields = _decode_frame_header(data, at, salt)
            if fields is not None and fields[2] == at and fields[3] > bad:
                return at
        at = data.find(FRAME_MAGIC, at + 1)
    return None


def first_nonzero(data: bytes, start: int) -> int | None:
    """The offset of the first byte that is not zero, or None."""
    rest = data[start:]
    kept = len(rest.lstrip(b"\0"))
    return start + len(rest) - kept if kept else None
