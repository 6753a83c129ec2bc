"""The write-ahead log: what a node has promised, on disk before anyone hears of it.

One thread owns a :class:`Wal` and calls::

    wal.write(batches)      # any number of batches: one frame, one pwrite
    wal.sync()              # one fdatasync; when it returns, all of them are durable

Nothing that depends on a batch may leave the node before ``sync`` has returned. There is no clock, no
randomness and no thread in here, so the simulator runs this code inline on its own filesystem.

Guarantees
----------
* **All or nothing.** What one ``write`` brought is found after a crash as a whole or not at all, and only
  together with everything written before it. So no state between the records of a batch is ever seen; in
  the file they still stand in an order that would be safe: hard state first (a term and its vote are
  durable before an entry of that term), then the snapshot mark, the truncation, the entries, the hint.
* **Nothing is rewritten.** A conflict truncation is a record of its own (SAFETY 21). Recovery's zeroing of
  a torn tail is the only write to a place that was written before, and nobody was told of what was there.
* **Segments stand alone.** Each begins with a checkpoint (term and vote, snapshot, commit hint, position
  in the log), durable with its directory entry before the first frame goes in, and only after the segment
  before it was synced to its end; that one is then sealed. So old segments can be deleted, oldest first,
  at any time, and one that was lost is missed.
* **A failure is final** (SAFETY 18). After an error of write, sync or compact every later call raises
  StorageFailed. fsync is never tried again: the kernel may have thrown the pages away.
* **A full disk is not a failure** (SAFETY 19). Segments are preallocated, so only the making of the next
  one can run out of room, and that happens before anything of the batches is written:
  :class:`~lattice_core.storage.errors.DiskFull` then means "nothing happened". The last part of every
  segment is kept for batches that carry nothing but term and vote, so elections go on and a leader can
  step down; when that too is used up they raise DiskFull as well. Every write tries for room again.

:mod:`lattice_core.storage.segments` explains the file format and how a tear is told from damage,
:mod:`lattice_core.storage.recovery` what happens on open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lattice_core.errors import Fatal, StorageFailed
from lattice_core.raft.types import Entry, HardState, SnapshotMeta
from lattice_core.storage.errors import DiskFull
from lattice_core.storage.filesystem import SECTOR_BYTES, File, FileSystem, parent
from lattice_core.storage.records import (
    CommitHint,
    RawRecord,
    SnapshotMark,
    commit_hint_record,
    entry_record,
    hard_state_record,
    records_size_bytes,
    snapshot_record,
    truncation_record,
)
from lattice_core.storage.recovery import (
    LogOnDisk,
    Recovery,
    TornTail,
    list_segments,
    read_log,
    recovery_of,
)
from lattice_core.storage.segment_files import (
    SEAL_BYTES,
    NoRoom,
    encode_seal,
    make_segment,
    seal_again,
)
from lattice_core.storage.segment_files import (
    zero_range as _zero,  # a name of its own here: the simulator plants a bug by replacing it
)
from lattice_core.storage.segments import (
    FRAME_OVERHEAD_BYTES,
    MAX_CONTENT_BYTES,
    SegmentHeader,
    encode_frame,
    frame_size_bytes,
    sector_aligned,
)
from lattice_core.storage.shape import ImpossibleRecord, LogShape

__all__ = ["DiskFull", "ImpossibleRecord", "Recovery", "TornTail", "Wal", "WalBatch"]

DEFAULT_SEGMENT_BYTES = 16 << 20
"""Large enough that making a segment is rare, small enough that compaction soon gives room back."""

MIN_SEGMENT_BYTES = 4096

RESERVE_BYTES = 64 << 10
"""Room in every segment for 128 records of term and vote once the disk is full; less in small segments."""


class WalBatch(Protocol):
    """What a batch must offer; the consensus core's ``Persist`` does. Effects in the order below.

    A snapshot restarts the log after it, unless the log holds the entry at its boundary with the same term
    and ``truncate_from`` lies above it: then what follows stays. After a restart, ``truncate_from`` and
    entries at or below the boundary say nothing new and are passed over.
    """

    @property
    def hard_state(self) -> HardState | None:
        """New term and vote."""

    @property
    def snapshot(self) -> SnapshotMeta | None:
        """A snapshot that is durable and published *already*, received or taken here."""

    @property
    def truncate_from(self) -> int | None:
        """Remove entries with this index or a higher one."""

    @property
    def entries(self) -> Sequence[Entry]:
        """Append these. One at an index the log has already removes that and all after it first."""

    @property
    def commit_hint(self) -> int | None:
        """A commit index known to be true. Goes out beside other records, never alone."""


class Wal:
    """A log open for appending. Not thread-safe; the data directory's lock must be held.

    Invariants: ``_durable <= _end``; everything of earlier segments is durable; ``_shape`` describes
    exactly what has been written, synced or not.
    """

    def __init__(self, fs: FileSystem, directory: str, segment_bytes: int, log: LogOnDisk, file: File) -> None:
        """For :meth:`create` and :meth:`open` only."""
        self._fs = fs
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._reserve = _reserve_bytes(segment_bytes)
        self._file = file
        self._header = log.header
        self._salt = log.header.salt
        self._shape = log.shape
        self._segments = log.segments
        self._end = self._durable = log.end
        self._chain = log.chain
        self._next_frame = log.next_frame
        self._ends_with_mark = log.ends_with_mark
        self._durable_snapshot_index = log.shape.snapshot_index
        self._pending_hint = 0
        self._failure: str | None = None
        self._closed = False

    # ---- opening ------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        fs: FileSystem,
        directory: str,
        cluster_id: int,
        node_id: int,
        *,
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
        initial: WalBatch | None = None,
    ) -> Wal:
        """Begin a log, durable on return. ``initial`` (say, the first configuration) is part of its birth.

        Must happen before the identity is written: a log that holds nothing but its ``initial`` batch and
        has no identity beside it is an unfinished creation and may be begun again. Raises Fatal if there
        is a log already, DiskFull, StorageFailed.
        """
        segment_bytes = _checked_segment_bytes(segment_bytes)
        fs.make_dirs(directory)
        fs.sync_dir(parent(directory))  # an earlier attempt may have made it and died before this
        if list_segments(fs, directory):
            raise Fatal(f"there is a log in {directory} already")
        shape = LogShape()
        records: list[RawRecord] = []
        if initial is not None:
            _collect(initial, shape, records)
            if initial.commit_hint is not None:
                shape.apply(CommitHint(initial.commit_hint))
                records.append(commit_hint_record(CommitHint(initial.commit_hint)))
        checkpoint = records or [hard_state_record(HardState())]
        size = SECTOR_BYTES + frame_size_bytes(records_size_bytes(checkpoint)) + _reserve_bytes(segment_bytes)
        header = SegmentHeader(
            cluster_id=cluster_id, node_id=node_id, sequence=1, base_index=0, base_term=0,
            capacity_bytes=max(segment_bytes, sector_aligned(size)), first_frame=0, previous_end=0, chain=0,
        )  # fmt: skip
        try:
            file, state, end, chain = make_segment(fs, directory, header, checkpoint)
        except NoRoom as full:
            raise full.error from None
        state.max_index = shape.last_index
        log = LogOnDisk(shape, [state], header, end, chain, next_frame=1, ends_with_mark=False)
        return cls(fs, directory, segment_bytes, log, file)

    @classmethod
    def open(
        cls,
        fs: FileSystem,
        directory: str,
        cluster_id: int,
        node_id: int,
        *,
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
    ) -> tuple[Wal, Recovery]:
        """Recover the log and make it ready for more. Everything recovered is durable on return.

        A torn tail is cut and reported in ``Recovery.torn`` (SAFETY 16). Raises StorageDamaged for
        anything else that is not as it was written, and for a missing log (SAFETY 17, 22);
        IdentityMismatch for another node's or cluster's log; Fatal for a newer format; StorageFailed.
        """
        segment_bytes = _checked_segment_bytes(segment_bytes)
        found = list_segments(fs, directory)
        if found:
            # What a killed process wrote and never synced may still be only in memory: believe nothing
            # (not even a file's name) before it is on disk.
            fs.sync_dir(directory)
            last = fs.open(found[-1][1])
            try:
                last.datasync()
            finally:
                last.close()
        log = read_log(fs, directory, cluster_id, node_id)
        if log.unfinished is not None:
            fs.remove(log.unfinished)
            fs.sync_dir(directory)
        if log.unsealed is not None:
            seal_again(fs, log.unsealed)
        file = fs.open(log.segments[-1].path)
        try:
            if log.torn is not None and log.unfinished is None:
                _zero(file, log.torn.offset, log.torn.bytes_cut)
        except BaseException:
            file.close()
            raise
        return cls(fs, directory, segment_bytes, log, file), recovery_of(log)

    # ---- writing ------------------------------------------------------------------------------------

    def write(self, batches: Sequence[WalBatch]) -> int:
        """Write the batches, in order, as one frame. Returns its size in bytes; durable after sync.

        Raises ImpossibleRecord (a ValueError; the caller is at fault, nothing was written) if a batch
        cannot follow what the log holds, DiskFull (nothing was written, the log stays usable), or
        StorageFailed (the log is not usable any more).
        """
        self._require_usable()
        shape = self._shape.copy()
        records: list[RawRecord] = []
        max_index = 0
        hint = self._pending_hint
        for batch in batches:
            max_index = max(max_index, _collect(batch, shape, records))
            if batch.commit_hint is not None and batch.commit_hint > hint:
                hint = batch.commit_hint
        if not records:
            self._pending_hint = hint
            return 0
        if hint > shape.commit_hint:
            shape.apply(CommitHint(hint))
            records.append(commit_hint_record(CommitHint(hint)))
        content = records_size_bytes(records)
        if content > MAX_CONTENT_BYTES - FRAME_OVERHEAD_BYTES:
            raise ValueError(f"{content} bytes are more than one write can take")
        size = frame_size_bytes(content)
        vital = all(not batch.entries and batch.snapshot is None and batch.truncate_from is None for batch in batches)
        try:
            self._make_room(size, vital)
            self._write_frame(records)
        except NoRoom as full:
            raise full.error from None
        except (StorageFailed, OSError) as error:
            raise self._fail(error) from error
        self._shape = shape
        self._pending_hint = 0
        segment = self._segments[-1]
        segment.max_index = max(segment.max_index, max_index)
        return size

    def sync(self) -> None:
        """Make everything written durable: one fdatasync, none if there is nothing new.

        Raises StorageFailed, after which the node must stop: what was written may or may not be there.
        """
        self._require_usable()
        if self._durable == self._end:
            return
        try:
            self._file.datasync()
        except (StorageFailed, OSError) as error:
            raise self._fail(error) from error
        self._durable = self._end
        self._durable_snapshot_index = self._shape.snapshot_index

    def compact(self, through_index: int) -> int:
        """Delete the segments that hold nothing above ``through_index``; returns how many.

        Never above the last snapshot mark that is durable, whatever ``through_index`` says, and never the
        segment in use. The oldest goes first, each for good before the next, so that a crash between two
        leaves a log that recovers. Raises StorageFailed.
        """
        self._require_usable()
        limit = min(through_index, self._durable_snapshot_index)
        removed = 0
        try:
            while len(self._segments) > 1 and self._segments[0].max_index <= limit:
                self._fs.remove(self._segments[0].path)
                self._fs.sync_dir(self._directory)
                del self._segments[0]
                removed += 1
        except (StorageFailed, OSError) as error:
            raise self._fail(error) from error
        if removed:
            self._shape.forget_through(self._segments[0].base_index, self._segments[0].base_term)
        return removed

    def close(self) -> None:
        """Sync, note that all before was durable (so that later rot shows), release the file.

        After a failure, only releases. Raises StorageFailed if the last sync does. Closing twice is allowed.
        """
        if self._closed:
            return
        try:
            if self._failure is None:
                self.sync()
                self._write_closing_mark()
        finally:
            self._closed = True
            self._file.close()

    # ---- looking ------------------------------------------------------------------------------------

    @property
    def size_bytes(self) -> int:
        """What the segments take up on disk, preallocated room included."""
        return sum(segment.size_bytes for segment in self._segments)

    @property
    def last_index(self) -> int:
        """The index of the last entry written (or covered by a snapshot), synced or not."""
        return self._shape.last_index

    @property
    def is_synced(self) -> bool:
        """Whether everything written is durable."""
        return self._durable == self._end

    @property
    def segment_count(self) -> int:
        return len(self._segments)

    # ---- inside -------------------------------------------------------------------------------------

    def _require_usable(self) -> None:
        if self._failure is not None:
            raise StorageFailed(f"the log is closed to writing since an earlier failure: {self._failure}")
        if self._closed:
            raise StorageFailed("the log is closed")

    def _fail(self, error: Exception) -> StorageFailed:
        self._failure = str(error)
        # A full disk at this point is no clean refusal any more, hence never DiskFull.
        if isinstance(error, StorageFailed) and not isinstance(error, DiskFull):
            return error
        return StorageFailed(str(error))

    def _make_room(self, size: int, vital: bool) -> None:
        """Roll if the frame does not fit. Raises NoRoom, having changed nothing."""
        capacity = self._header.capacity_bytes
        if self._end + size <= capacity - self._reserve:
            return
        try:
            self._roll(size)
        except NoRoom:
            if not (vital and self._end + size <= capacity - SEAL_BYTES):
                raise

    def _roll(self, size: int) -> None:
        """Begin the next segment, with room for a frame of ``size``."""
        # First: the new segment's header vouches for everything in this one.
        self._file.datasync()
        self._durable = self._end
        self._durable_snapshot_index = self._shape.snapshot_index
        shape = self._shape
        checkpoint = [hard_state_record(shape.hard_state)]
        if shape.snapshot is not None:
            checkpoint.append(snapshot_record(SnapshotMark(shape.snapshot, restarts_log=False)))
        if shape.commit_hint:
            checkpoint.append(commit_hint_record(CommitHint(shape.commit_hint)))
        need = SECTOR_BYTES + frame_size_bytes(records_size_bytes(checkpoint)) + size + self._reserve
        old = self._header
        header = SegmentHeader(
            cluster_id=old.cluster_id, node_id=old.node_id, sequence=old.sequence + 1,
            base_index=shape.last_index, base_term=shape.last_term,
            capacity_bytes=max(self._segment_bytes, sector_aligned(need)),
            first_frame=self._next_frame, previous_end=self._end, chain=self._chain,
        )  # fmt: skip
        file, state, end, chain = make_segment(self._fs, self._directory, header, checkpoint)
        try:
            # Only now that the successor cannot vanish any more, and before anything goes into it: from
            # here on, a successor that is missing or empty is damage.
            seal, _ = encode_seal(old, self._end, self._chain, self._next_frame)
            self._file.write_at(self._end, seal)
            self._file.datasync()
        except BaseException:
            file.close()
            raise
        self._file.close()
        self._file, self._header, self._salt = file, header, header.salt
        self._segments.append(state)
        self._end = self._durable = end
        self._chain = chain
        self._next_frame += 1
        self._ends_with_mark = False

    def _write_frame(self, records: list[RawRecord]) -> None:
        data, chain = encode_frame(
            records,
            salt=self._salt,
            number=self._next_frame,
            offset=self._end,
            durable=self._durable,
            chain=self._chain,
        )
        self._file.write_at(self._end, data)
        self._end += len(data)
        self._chain = chain
        self._next_frame += 1
        self._ends_with_mark = not records

    def _write_closing_mark(self) -> None:
        if self._ends_with_mark or self._end + frame_size_bytes(0) > self._header.capacity_bytes - SEAL_BYTES:
            return
        try:
            self._write_frame([])
            self._file.datasync()
        except (StorageFailed, OSError) as error:
            raise self._fail(error) from error
        self._durable = self._end


def _checked_segment_bytes(segment_bytes: int) -> int:
    if segment_bytes < MIN_SEGMENT_BYTES:
        raise ValueError(f"segment_bytes is {segment_bytes}, less than {MIN_SEGMENT_BYTES}")
    return sector_aligned(segment_bytes)


def _reserve_bytes(segment_bytes: int) -> int:
    return min(RESERVE_BYTES, sector_aligned(segment_bytes // 4))


def _collect(batch: WalBatch, shape: LogShape, records: list[RawRecord]) -> int:
    """Append the batch's records but the hint, apply them to ``shape``; the highest index among them."""
    if batch.hard_state is not None:
        shape.apply(batch.hard_state)
        records.append(hard_state_record(batch.hard_state))
    truncate_from = batch.truncate_from
    restarted = False
    if batch.snapshot is not None:
        mark = shape.snapshot_mark(batch.snapshot)
        if mark is not None:
            if truncate_from is not None and truncate_from <= mark.meta.last_included_index:
                # The core dropped the boundary entry itself, even if the log still has one like it.
                mark = SnapshotMark(mark.meta, restarts_log=True)
            shape.apply(mark)
            records.append(snapshot_record(mark))
            restarted = mark.restarts_log
    entries = batch.entries
    if restarted:
        covered = shape.last_index
        entries = [entry for entry in entries if entry.index > covered]
    else:
        if entries and entries[0].index <= shape.last_index:
            truncate_from = min(entries[0].index, truncate_from or entries[0].index)
        if truncate_from is not None:
            truncation = shape.truncation(truncate_from)
            if truncation is not None:
                shape.apply(truncation)
                records.append(truncation_record(truncation))
    for entry in entries:
        shape.append(entry.index, entry.term)
        records.append(entry_record(entry))
    return entries[-1].index if entries else 0
