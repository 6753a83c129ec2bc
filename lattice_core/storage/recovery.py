"""Reading a log back: what is on disk, what a crash tore off, and what is damaged.

Nothing here writes. :func:`read_log` returns what was found and which repairs are due (cut a torn tail,
remove a segment whose creation never finished); :meth:`Wal.open <lattice_core.storage.wal.Wal.open>`
carries them out.

Rules, beyond those for a single segment (:mod:`lattice_core.storage.segments`):

* Only the last segment may end in a tear. A later segment, however unfinished, was begun only after all
  of the earlier one was fsynced.
* The next segment's header says where the one before ended and with which CRC, and file names count up
  without a gap, so a missing or shortened segment shows.
* A last segment whose header or checkpoint never arrived was never used: it is removed, unless it is the
  only one, or some frame in it, or the seal of the one before, proves that it was used.
* A sealed segment has a successor. So a newest segment that was deleted or emptied shows as well.
* The log that is left must reach down to the snapshot: otherwise an earlier segment is missing.

What cannot be seen from here is a whole directory put back to an earlier time; SAFETY 22 is about that.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from lattice_core.errors import StorageDamaged
from lattice_core.raft.types import Entry, RecoveredState, SnapshotMeta
from lattice_core.storage.filesystem import SECTOR_BYTES, FileSystem, join
from lattice_core.storage.records import SnapshotMark, Truncation
from lattice_core.storage.segments import (
    FRAME_MAGIC,
    BadHeader,
    Ending,
    SegmentHeader,
    SegmentScan,
    decode_header,
    frame_salt,
    proof_of_damage,
    require_identity,
    scan_segment,
    sequence_of,
)
from lattice_core.storage.shape import ImpossibleRecord, LogShape

DAMAGE_HINT = (
    "start this node with --reseed H:P (the client address of a healthy member): it comes back as a new member with "
    "the leader's state, and what is here is kept"
)


@dataclass(frozen=True, slots=True)
class TornTail:
    """What a crash left of writes that were never acknowledged, and that recovery cut off (SAFETY 16)."""

    path: str
    offset: int
    bytes_cut: int
    reason: str


@dataclass(frozen=True, slots=True)
class Recovery:
    """What :meth:`Wal.open <lattice_core.storage.wal.Wal.open>` found.

    ``state`` is the log by its newest snapshot mark. ``retained`` are the entries at or below that
    snapshot which the log still holds, without a gap up to it: for slow followers, and for
    :meth:`starting_from`. ``base_index`` and ``base_term`` are of the entry before the first of them
    (before the first of ``state.entries`` where nothing is retained).
    """

    state: RecoveredState
    torn: TornTail | None
    retained: tuple[Entry, ...] = ()
    base_index: int = 0
    base_term: int = 0

    def starting_from(self, snapshot: SnapshotMeta | None) -> RecoveredState | None:
        """The state as seen from a snapshot that can really be read, or None if the log has a gap to it.

        A newer one than the log's mark is what a crash between publishing a snapshot and marking it
        leaves (SAFETY 29): it wins, with the entries after it if the boundary entry matches. An older one
        is what is left when the newest file is damaged (SAFETY 31): only if the log covers the rest.
        ``snapshot=None`` stands for no readable snapshot at all.
        """
        index = snapshot.last_included_index if snapshot is not None else 0
        term = snapshot.last_included_term if snapshot is not None else 0
        marked = self.state.snapshot.last_included_index if self.state.snapshot is not None else 0
        entries = (*self.retained, *self.state.entries)
        position = index - self.base_index
        if 0 <= position <= len(entries):
            matches = (entries[position - 1].term if position else self.base_term) == term
            after = entries[position:] if matches else ()
        else:
            matches, after = False, ()
        if not matches and index <= marked:
            return None
        return RecoveredState(
            hard_state=self.state.hard_state,
            snapshot=snapshot,
            entries=after,
            commit_hint=max(self.state.commit_hint, index),
        )


@dataclass(slots=True)
class SegmentState:
    """What the writer needs to know of a segment: ``max_index`` is the highest index it ever held."""

    path: str
    sequence: int
    base_index: int
    base_term: int
    max_index: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class UnsealedSegment:
    """The last but one segment, if a crash came between making its successor and sealing it."""

    path: str
    header: SegmentHeader
    end: int
    chain: int
    next_frame: int


@dataclass(slots=True)
class LogOnDisk:
    """All that was read, and the repairs that are due before anything is written."""

    shape: LogShape
    segments: list[SegmentState]
    header: SegmentHeader
    end: int
    chain: int
    next_frame: int
    ends_with_mark: bool
    entries: list[Entry] = field(default_factory=list)
    torn: TornTail | None = None
    unfinished: str | None = None
    unsealed: UnsealedSegment | None = None


def damaged(path: str, offset: int, reason: str) -> StorageDamaged:
    """The error for damage that must not be cut (SAFETY 17)."""
    return StorageDamaged(f"{path} is damaged at offset {offset}: {reason}", path=path, offset=offset, hint=DAMAGE_HINT)


def list_segments(fs: FileSystem, directory: str) -> list[tuple[int, str]]:
    """Sequence and path of every segment, oldest first. Raises StorageDamaged where one is missing."""
    found: list[tuple[int, str]] = []
    if fs.exists(directory):
        for name in fs.list_dir(directory):
            sequence = sequence_of(name)
            if sequence is not None:
                found.append((sequence, join(directory, name)))
    found.sort()
    for (before, _), (after, path) in itertools.pairwise(found):
        if after != before + 1:
            raise damaged(path, 0, f"segment {after} follows segment {before} in the directory")
    return found


def read_file(fs: FileSystem, path: str) -> bytes:
    """All of a file, from the device rather than from pages that may never have reached it."""
    file = fs.open_read_only(path)
    try:
        file.drop_cache()
        return file.read_at(0, file.size())
    finally:
        file.close()


def read_log(fs: FileSystem, directory: str, cluster_id: int, node_id: int) -> LogOnDisk:
    """Read all segments. Raises StorageDamaged, IdentityMismatch, StorageFailed, Fatal (newer format)."""
    found = list_segments(fs, directory)
    if not found:
        raise damaged(directory, 0, "the log of this node is missing")
    log: LogOnDisk | None = None
    sealed = False
    for position, (sequence, path) in enumerate(found):
        data = read_file(fs, path)
        is_last = position == len(found) - 1
        header, scan = _read_segment(data, path, sequence, cluster_id, node_id, may_be_unfinished=is_last)
        if header is None or scan is None:
            if log is None:
                raise damaged(path, 0, "the only segment of the log is unfinished or has lost its head")
            if sealed:
                raise damaged(path, 0, "the segment before it says it was in use, and its beginning is gone")
            log.unfinished = path
            log.torn = TornTail(path, 0, len(data), "the segment was never finished")
            break
        if log is None:
            shape = LogShape(header.base_index, header.base_term)
            log = LogOnDisk(shape, [], header, 0, 0, 0, False)
        else:
            _require_continuation(log, header, path)
            log.unsealed = None
            if not sealed:
                before = log.segments[-1].path
                log.unsealed = UnsealedSegment(before, log.header, log.end, log.chain, log.next_frame)
        log.header, log.end, log.chain, log.next_frame = header, scan.end, scan.chain, scan.next_frame
        state = SegmentState(path, sequence, header.base_index, header.base_term, header.base_index, len(data))
        log.segments.append(state)
        _replay(log, state, scan)
        sealed = scan.sealed
        if scan.ending is Ending.TORN and is_last:
            # Everything that was not zero goes, up to the last such byte.
            cut = len(data[scan.end :].rstrip(b"\0"))
            log.torn = TornTail(path, scan.end, cut, scan.reason)
        elif scan.ending is not Ending.CLEAN:
            raise damaged(path, scan.bad_offset, scan.reason)
    assert log is not None
    if sealed and log.unfinished is None:
        raise damaged(found[-1][1], log.end, "the segment that follows it is missing")
    _require_coverage(log)
    return log


def _read_segment(
    data: bytes, path: str, sequence: int, cluster_id: int, node_id: int, *, may_be_unfinished: bool
) -> tuple[SegmentHeader | None, SegmentScan | None]:
    """Header and frames; (None, None) for a last segment whose creation never finished."""
    try:
        header = decode_header(data)
    except BadHeader as bad:
        proof = proof_of_damage(data, 0, frame_salt(cluster_id, node_id, sequence))
        if may_be_unfinished and bad.ending is Ending.TORN and proof is None:
            return None, None
        raise damaged(path, 0, bad.reason) from None
    require_identity(header, path, cluster_id, node_id)
    if header.sequence != sequence:
        raise damaged(path, 0, f"it calls itself segment {header.sequence}")
    scan = scan_segment(data, header)
    if len(data) < header.capacity_bytes:
        # The size was durable before the header was written.
        raise damaged(path, len(data), f"the file ends here, and was made {header.capacity_bytes} bytes long")
    if may_be_unfinished and not scan.frames and scan.ending is not Ending.DAMAGED:
        return None, None  # the checkpoint never arrived, and it is durable before any other frame
    return header, scan


def _require_continuation(log: LogOnDisk, header: SegmentHeader, path: str) -> None:
    previous = log.segments[-1].path
    if header.previous_end != log.end:
        at = min(log.end, header.previous_end)
        raise damaged(previous, at, f"its records end at {log.end}, and once ended at {header.previous_end}")
    if (header.chain, header.first_frame) != (log.chain, log.next_frame):
        raise damaged(path, 0, "it does not continue the segment before it")
    if (header.base_index, header.base_term) != (log.shape.last_index, log.shape.last_term):
        raise damaged(path, 0, f"it continues entry {header.base_index}, not {log.shape.last_index}")


def _replay(log: LogOnDisk, state: SegmentState, scan: SegmentScan) -> None:
    shape, entries = log.shape, log.entries
    for frame in scan.frames:
        for located in frame.records:
            record = located.record
            base_before = shape.base_index
            try:
                shape.apply(record)
            except ImpossibleRecord as error:
                raise damaged(state.path, located.offset, str(error)) from error
            if isinstance(record, Entry):
                entries.append(record)
                state.max_index = max(state.max_index, record.index)
            elif isinstance(record, Truncation):
                del entries[max(0, record.from_index - base_before - 1) :]
            elif isinstance(record, SnapshotMark) and record.restarts_log:
                entries.clear()
        log.ends_with_mark = not frame.records


def _require_coverage(log: LogOnDisk) -> None:
    shape = log.shape
    if shape.base_index > shape.snapshot_index:
        raise damaged(
            log.segments[0].path,
            0,
            f"the log begins after entry {shape.base_index}, but the last snapshot ends at "
            f"{shape.snapshot_index}: an earlier segment is missing",
        )


def recovery_of(log: LogOnDisk) -> Recovery:
    """What the caller of open gets to see."""
    shape = log.shape
    split = shape.snapshot_index - shape.base_index
    state = RecoveredState(
        hard_state=shape.hard_state,
        snapshot=shape.snapshot,
        entries=tuple(log.entries[split:]),
        commit_hint=shape.commit_hint,
    )
    return Recovery(state, log.torn, tuple(log.entries[:split]), shape.base_index, shape.base_term)


def discard_unfinished_creation(fs: FileSystem, directory: str) -> bool:
    """Remove a log that was begun but never used; False, changing nothing, if there is more in it.

    Used where a data directory has no identity, which is written last: then either its creation was cut
    short, and the log is nothing but the first segment's checkpoint, or the identity was lost.
    """
    found = list_segments(fs, directory)
    if not found:
        return True
    (sequence, path), *more = found
    data = read_file(fs, path)
    if more or sequence != 1 or not _is_pristine(data):
        return False
    fs.remove(path)
    fs.sync_dir(directory)
    return True


def _is_pristine(data: bytes) -> bool:
    try:
        header = decode_header(data)
    except BadHeader:
        # Without a header there is no telling whose frames these are: let none but frame 0 pass.
        return all(
            data[at : at + len(FRAME_MAGIC)] != FRAME_MAGIC for at in range(2 * SECTOR_BYTES, len(data), SECTOR_BYTES)
        )
    scan = scan_segment(data, header)
    return scan.ending is not Ending.DAMAGED and all(not frame.records for frame in scan.frames[1:])
