"""Making, sealing and mending segment files: the few places where the order of fsyncs is everything.

The order in a segment's life: its predecessor synced to the end; file made and its room allocated and
synced; header and checkpoint written and synced; directory synced; predecessor sealed and synced; only
then does anything go into it. A crash between any two leaves a log that
:mod:`lattice_core.storage.recovery` understands.
"""

from __future__ import annotations

from lattice_core.storage.errors import DiskFull
from lattice_core.storage.filesystem import SECTOR_BYTES, File, FileSystem, join
from lattice_core.storage.records import RawRecord, Sealed, sealed_record
from lattice_core.storage.recovery import SegmentState, UnsealedSegment
from lattice_core.storage.segments import SegmentHeader, encode_frame, segment_name

SEAL_BYTES = SECTOR_BYTES
"""Room at the very end of every segment that nothing but its seal may take."""

_ZERO_BLOCK = bytes(1 << 20)


class NoRoom(Exception):
    """The next segment could not be made for want of room, and nothing of it is left."""

    def __init__(self, error: DiskFull) -> None:
        super().__init__(str(error))
        self.error = error


def make_segment(
    fs: FileSystem, directory: str, header: SegmentHeader, checkpoint: list[RawRecord]
) -> tuple[File, SegmentState, int, int]:
    """A new segment, durable under its name: file, state, end of its checkpoint, chain after it.

    Raises NoRoom if the disk is full and nothing is left of the attempt; StorageFailed.
    """
    path = join(directory, segment_name(header.sequence, header.base_index + 1))
    try:
        file = fs.open(path, create=True, exclusive=True)
    except DiskFull as error:
        raise NoRoom(error) from error
    try:
        try:
            file.allocate(header.capacity_bytes)
        except DiskFull as error:
            fs.remove(path)
            # For good, before anything else is written: should the name come back after a crash, it must
            # not look like a segment that follows what was written since.
            fs.sync_dir(directory)
            raise NoRoom(error) from error
        frame, chain = encode_frame(
            checkpoint,
            salt=header.salt,
            number=header.first_frame,
            offset=SECTOR_BYTES,
            durable=0,
            chain=header.chain,
        )
        file.datasync()  # the size first: a file with a header that is shorter has been damaged since
        file.write_at(0, header.encode() + frame)
        file.datasync()  # the file before its name: a name that survives a crash has its content (SAFETY 20)
        fs.sync_dir(directory)
    except BaseException:
        file.close()
        raise
    state = SegmentState(
        path, header.sequence, header.base_index, header.base_term, header.base_index, header.capacity_bytes
    )
    return file, state, SECTOR_BYTES + len(frame), chain


def encode_seal(header: SegmentHeader, end: int, chain: int, number: int) -> tuple[bytes, int]:
    """The frame that ends a segment whose successor is durable."""
    records = [sealed_record(Sealed(header.sequence + 1))]
    return encode_frame(records, salt=header.salt, number=number, offset=end, durable=end, chain=chain)


def seal_again(fs: FileSystem, segment: UnsealedSegment) -> None:
    """Write the seal that a crash prevented. Its room was kept, and reads as zeros."""
    seal, _ = encode_seal(segment.header, segment.end, segment.chain, segment.next_frame)
    file = fs.open(segment.path)
    try:
        file.write_at(segment.end, seal)
        file.datasync()
    finally:
        file.close()


def zero_range(file: File, offset: int, size: int) -> None:
    """Overwrite a torn tail with zeros, durably. A crash in between leaves a torn tail again."""
    while size > 0:
        block = _ZERO_BLOCK[:size]
        file.write_at(offset, block)
        offset += len(block)
        size -= len(block)
    file.datasync()
