"""Looking into a log without touching it: what `lattice wal inspect` prints.

Takes no lock and repairs nothing, so it may run beside a living node; what that node is writing just then
may look like a tear. Unlike recovery it goes on after damage, with the next segment, and never refuses
what it can show. One segment at a time is in memory, however long the log.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from lattice_core.errors import Fatal
from lattice_core.storage.filesystem import FileSystem, join
from lattice_core.storage.records import Record
from lattice_core.storage.recovery import read_file
from lattice_core.storage.segments import (
    BadHeader,
    Ending,
    SegmentHeader,
    decode_header,
    scan_segment,
    sequence_of,
)


@dataclass(frozen=True, slots=True)
class SegmentFound:
    """A segment begins. ``header`` is None if it cannot be read; a DamageFound follows."""

    path: str
    size_bytes: int
    header: SegmentHeader | None


@dataclass(frozen=True, slots=True)
class RecordFound:
    """A good record; ``frame`` is the number of the write that brought it."""

    path: str
    offset: int
    size_bytes: int
    frame: int
    record: Record


@dataclass(frozen=True, slots=True)
class SegmentEnd:
    """The good part of a segment ends here; the rest, if not told otherwise, is unused room."""

    path: str
    offset: int
    frames: int


@dataclass(frozen=True, slots=True)
class DamageFound:
    """What does not belong there. ``torn``: by itself it may be the trace of a crash, which start cuts."""

    path: str
    offset: int
    reason: str
    torn: bool


Finding: TypeAlias = SegmentFound | RecordFound | SegmentEnd | DamageFound


def inspect_log(fs: FileSystem, directory: str) -> Iterator[Finding]:
    """Everything in the log directory ``directory``, in order. Raises StorageFailed, FileNotFoundError.

    A segment that a running node removes meanwhile, since a snapshot covers it, is passed over.
    """
    segments = [name for name in fs.list_dir(directory) if sequence_of(name) is not None]
    previous: tuple[SegmentHeader, int, int, int] | None = None
    for position, name in enumerate(segments):
        path = join(directory, name)
        is_last = position == len(segments) - 1
        try:
            data = read_file(fs, path)
        except FileNotFoundError:
            previous = None
            continue
        try:
            header = decode_header(data)
        except (BadHeader, Fatal) as error:
            torn = isinstance(error, BadHeader) and error.ending is Ending.TORN
            yield SegmentFound(path, len(data), None)
            yield DamageFound(path, 0, str(error), torn and is_last)
            previous = None
            continue
        yield SegmentFound(path, len(data), header)
        if previous is not None:
            before, end, chain, next_frame = previous
            if header.sequence != before.sequence + 1:
                yield DamageFound(path, 0, f"segment {header.sequence} follows {before.sequence}", torn=False)
            elif (header.previous_end, header.chain, header.first_frame) != (end, chain, next_frame):
                yield DamageFound(path, 0, "it does not continue the segment before it", torn=False)
        try:
            scan = scan_segment(data, header)
        except Fatal as error:
            yield DamageFound(path, 0, str(error), torn=False)
            previous = None
            continue
        for frame in scan.frames:
            for located in frame.records:
                yield RecordFound(path, located.offset, located.size_bytes, frame.number, located.record)
        yield SegmentEnd(path, scan.end, len(scan.frames))
        if len(data) < header.capacity_bytes:
            reason = f"the file ends here, and was made {header.capacity_bytes} bytes long"
            yield DamageFound(path, len(data), reason, torn=False)
        if scan.ending is not Ending.CLEAN:
            torn = scan.ending is Ending.TORN and is_last
            yield DamageFound(path, scan.bad_offset, scan.reason, torn)
        previous = (header, scan.end, scan.chain, scan.next_frame)
