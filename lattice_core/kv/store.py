"""The multi-version store: ordered keys, one revision per change, a bounded memory of the past.

Theory
  * ``revision`` counts operations that changed something, over the whole store. A put is one revision,
    deleting nothing is none, deleting a range of n keys is one.
  * The present is a plain dict from key to record, and a sorted list of the keys. Overwriting a key
    touches the dict only.
  * The past is one queue of *changes* ``(revision, key, old record, new record)``, cut into segments that
    are forgotten whole. A read at revision R takes the present and undoes the changes after R, newest
    first: its cost is the number of changes since R, and a write's does not depend on how much is kept.
  * A :class:`~lattice_core.kv.views.StoreView` is a point in time that does not move. While one is open, a write
    first hands it the record that it is about to replace (copy on write), unless the view has read past that key.
    So an open view holds nothing back: the history is trimmed as always.
  * Deleting a range of very many keys is done in steps (range_deletion.py), between which the store is read and not
    written: the keys are *hidden* from the first step on, all together, and taken out little by little.

Limits
  * The past is bounded in changes and in bytes, and trimmed by itself. ``oldest_revision`` is the oldest
    that can be read; before it is RevisionCompacted. It is not part of the replicated state: a store
    restored from a snapshot starts with no past, and members may remember differently much.
  * Everything is in memory. A record is a bare tuple: half the size of an object, and the garbage
    collector soon stops looking at tuples that hold only bytes and integers.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, NamedTuple

from sortedcontainers import SortedList

from lattice_core.errors import InvalidRequest, RevisionCompacted
from lattice_core.kv.digests import MASK_64, record_digest
from lattice_core.kv.key_order import add_all
from lattice_core.kv.range_deletion import RangeDeletion
from lattice_core.kv.records import DIGEST, MOD_REVISION, VALUE, Change, Record, RestoredItem
from lattice_core.kv.views import StoreView
from lattice_core.tuples import make

CHANGE_OVERHEAD_BYTES: Final = 256
"""What a change is charged beyond its key and old value: the tuples, the integers, the queue's slot."""

SEGMENT_BYTES: Final = 32 * 1024
"""History is forgotten a segment at a time, so that a write does not pay for it: some 60 changes of small
values, since every change is charged its overhead, and never more than 128."""

SEGMENTS: Final = 32
"""Where the history is short, a segment is this fraction of it, so that the limits are kept closely."""


@dataclass(frozen=True, slots=True)
class HistoryLimits:
    """How much of the past is kept; whichever bound is met first. May differ between members."""

    max_changes: int = 10_000
    max_bytes: int = 64 * 1024 * 1024


class _Segment(NamedTuple):
    changes: list[Change]
    size_bytes: int


class KeyValue(NamedTuple):
    """A key with what is known about it. ``lease_id`` 0 means that no lease holds it."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease_id: int


@dataclass(frozen=True, slots=True)
class RangeResult:
    """``revision`` is the one that was read (pass it on to read the next page of the same state),
    ``count`` how many keys the whole range has, ``more`` whether ``kvs`` was cut short."""

    revision: int
    kvs: list[KeyValue]
    more: bool
    count: int


class Store:
    """Not thread-safe. ``revision``, ``oldest_revision`` and ``state_hash`` are to be read, not set."""

    def __init__(self, history: HistoryLimits | None = None) -> None:
        self.revision = 0
        self.oldest_revision = 0
        self.history_limits = history or HistoryLimits()
        self._digest_sum = 0
        self._records: dict[bytes, Record] = {}
        # Invariant: exactly the keys of _records.
        self._keys: Any = SortedList()
        # Invariant: revisions never decrease, and every change after oldest_revision is in here: first the
        # segments that are full, then the one that is being filled, with the bytes each is charged.
        self._segments: deque[_Segment] = deque()
        self._segment: list[Change] = []
        self._segment_bytes = 0
        self._history_changes = 0  # in full segments
        self._history_bytes = 0  # in full segments
        self._segment_full_bytes = min(
            SEGMENT_BYTES,
            self.history_limits.max_bytes // SEGMENTS,
            self.history_limits.max_changes * CHANGE_OVERHEAD_BYTES // SEGMENTS,
        )
        self._views: list[StoreView] = []
        self._hidden: tuple[bytes, bytes] | None = None
        """The range that is being deleted. In the present there is nothing in it; what is still physically there
        is read only at earlier revisions."""

    def __len__(self) -> int:
        low, high = self._hidden_bounds()
        return len(self._records) - (high - low)

    def __contains__(self, key: bytes) -> bool:
        return self.record(key) is not None

    @property
    def state_hash(self) -> int:
        """Sum of the records' digests modulo 2**64: equal records, equal hash. The revision is not in it."""
        return self._digest_sum & MASK_64

    # -- writing ----------------------------------------------------------------------------------

    def put(self, key: bytes, value: bytes, lease_id: int = 0) -> int:
        """Set the key; the new revision."""
        revision = self.revision + 1
        old = self._records.get(key)
        size = self._segment_bytes + CHANGE_OVERHEAD_BYTES + len(key)
        if old is None:
            created, version, old_digest = revision, 1, 0
            self._keys.add(key)
        else:
            old_value, created, _, version, _, old_digest = old
            version += 1
            size += len(old_value)
        digest = record_digest(key, value, created, revision, version, lease_id)
        new = (value, created, revision, version, lease_id, digest)
        if self._views:
            self._preserve(key, old, False)
        self._records[key] = new
        self._digest_sum += digest - old_digest
        self._segment.append((revision, key, old, new))
        self._segment_bytes = size
        self.revision = revision
        if size >= self._segment_full_bytes:
            self._begin_segment()
        return revision

    def put_all(self, items: Sequence[tuple[Any, ...]]) -> int:
        """Set every key, in order, each as a revision of its own: what as many calls of :meth:`put` would do, at half
        their cost. ``items`` are ``(anything, key, value)``, as a batch has them; the first one's revision.
        """
        records, views = self._records, self._views
        created_keys: list[bytes] = []
        find, remember = records.get, self._segment.append
        size, full, total = self._segment_bytes, self._segment_full_bytes, self._digest_sum
        revision = first = self.revision
        for _, key, value in items:
            revision += 1
            old = find(key)
            size += CHANGE_OVERHEAD_BYTES + len(key)
            if old is None:
                created, version = revision, 1
                created_keys.append(key)
            else:
                old_value, created, _, version, _, old_digest = old
                version += 1
                size += len(old_value)
                total -= old_digest
            digest = record_digest(key, value, created, revision, version, 0)
            new = (value, created, revision, version, 0, digest)
            if views:
                self._preserve(key, old, False)
            records[key] = new
            total += digest
            remember((revision, key, old, new))
            if size >= full:
                self._segment_bytes, self.revision = size, revision
                self._begin_segment()
                size, remember = self._segment_bytes, self._segment.append
        self._segment_bytes, self._digest_sum, self.revision = size, total, revision
        if created_keys:
            add_all(self._keys, created_keys)
        return first + 1

    def delete(self, key: bytes) -> int:
        """Remove the key; how many were there (0 or 1). Removing nothing is no revision."""
        if key not in self._records:
            return 0
        self.revision += 1
        self._remove(key)
        self._keys.remove(key)
        return 1

    def delete_range(self, start: bytes, end: bytes) -> int:
        """Remove ``start <= key < end`` (b"": to the end) as one revision; how many were there."""
        deletion = self.begin_delete_range(start, end)
        while deletion.step():
            pass
        return deletion.deleted

    def begin_delete_range(self, start: bytes, end: bytes) -> RangeDeletion:
        """The same in steps: ``step()`` until it returns False, writing nothing else meanwhile."""
        low, high = self._bounds(start, end)
        return RangeDeletion(self, start, end, max(0, high - low))

    def _remove(self, key: bytes) -> None:
        """Take the record out of everything but the sorted keys, at the present revision, and remember it."""
        old = self._records.pop(key)
        if self._views:
            self._preserve(key, old, True)
        self._digest_sum -= old[DIGEST]
        self._segment.append((self.revision, key, old, None))
        self._segment_bytes += CHANGE_OVERHEAD_BYTES + len(key) + len(old[VALUE])
        if self._segment_bytes >= self._segment_full_bytes:
            self._begin_segment()

    def _preserve(self, key: bytes, old: Record | None, deleted: bool) -> None:
        for view in self._views:
            view._preserve(key, old, deleted)

    def _begin_segment(self) -> None:
        """Close the present segment; forget the oldest ones that the limits have no room for.

        At least ``max_changes`` stay, as far as ``max_bytes`` allows.
        """
        segments, limits = self._segments, self.history_limits
        segments.append(_Segment(self._segment, self._segment_bytes))
        self._history_changes += len(self._segment)
        self._history_bytes += self._segment_bytes
        self._segment = []
        self._segment_bytes = 0
        while segments and (
            self._history_changes - len(segments[0].changes) >= limits.max_changes
            or self._history_bytes > limits.max_bytes
        ):
            forgotten = segments.popleft()
            self._history_changes -= len(forgotten.changes)
            self._history_bytes -= forgotten.size_bytes
            self.oldest_revision = forgotten.changes[-1][0]

    def _cut_segment(self) -> None:
        """The present segment has grown beyond its size: close as many of the usual size as it makes."""
        changes, self._segment, self._segment_bytes = self._segment, [], 0
        for change in changes:
            self._segment.append(change)
            self._segment_bytes += _charge(change)
            if self._segment_bytes >= self._segment_full_bytes:
                self._begin_segment()

    def _forget_history(self) -> None:
        """Nothing before the present revision can be read any more."""
        self._segments.clear()
        self._segment = []
        self._segment_bytes = self._history_bytes = self._history_changes = 0
        self.oldest_revision = self.revision

    # -- reading ----------------------------------------------------------------------------------

    def get(self, key: bytes, revision: int | None = None) -> KeyValue | None:
        if revision is None or revision == self.revision:
            record = self._records.get(key) if self._hidden is None else self.record(key)
        else:
            record = self._record_at(key, revision)
        if record is None:
            return None
        value, created, modified, version, lease_id, _ = record
        return make(KeyValue, (key, value, created, modified, version, lease_id))

    def record(self, key: bytes) -> Record | None:
        """The present record, bare."""
        hidden = self._hidden
        if hidden is not None and key >= hidden[0] and (not hidden[1] or key < hidden[1]):
            return None
        return self._records.get(key)

    def count(self, start: bytes, end: bytes) -> int:
        """How many keys there are in ``start <= key < end`` (b"": to the end)."""
        low, gap_low, gap_high, high = self._present_bounds(start, end)
        return gap_low - low + high - gap_high

    def items(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, Record]]:
        """Keys and bare records of the range, in order. To be used up before anything is written."""
        records = self._records
        for key in self._present_keys(start, end, False):
            yield key, records[key]

    def range(
        self,
        start: bytes,
        end: bytes,
        limit: int | None = None,
        revision: int | None = None,
        *,
        reverse: bool = False,
        keys_only: bool = False,
        count_only: bool = False,
        max_bytes: int | None = None,
    ) -> RangeResult:
        """The keys ``start <= key < end`` (b"": to the end), in order, at a revision (None: the present).

        ``limit`` bounds the number of keys and ``max_bytes`` the bytes of keys and values; at least one key
        is returned if there is one, so that a reader always gets on. ``keys_only`` leaves values empty.
        """
        if limit is not None and limit < 1:
            raise InvalidRequest(f"limit must be at least 1, not {limit}")
        keys: Iterable[bytes]
        past: dict[bytes, Record | None] = {}
        if revision is None or revision == self.revision:
            revision = self.revision
            count = self.count(start, end)
            keys = self._present_keys(start, end, reverse)
        else:
            past = self._undo(revision, start, end)
            low, high = self._bounds(start, end)
            keys = self._keys.islice(low, high, reverse)
            count = max(0, high - low)
            for key, record in past.items():
                count += (record is not None) - (key in self._records)
        if count_only:
            return RangeResult(revision, [], False, count)

        kvs: list[KeyValue] = []
        size = 0
        deleted = [key for key, record in past.items() if record is not None and key not in self._records]
        if deleted:
            keys = heapq.merge(keys, sorted(deleted, reverse=reverse), reverse=reverse)
        for key in keys:
            record = past[key] if key in past else self._records[key]
            if record is None:
                continue
            size += len(key) + (0 if keys_only else len(record[VALUE]))
            if len(kvs) == limit or (max_bytes is not None and kvs and size > max_bytes):
                break
            kvs.append(key_value(key, record, keys_only))
        return RangeResult(revision, kvs, len(kvs) < count, count)

    def changes_since(self, revision: int, limit: int | None = None) -> list[Change]:
        """The changes after ``revision``, oldest first: what a watch that resumes there has missed."""
        self._check_readable(revision)
        found = list(self._changes_after(revision))
        found.reverse()
        return found if limit is None else found[:limit]

    def _bounds(self, start: bytes, end: bytes) -> tuple[int, int]:
        """Positions in the sorted keys."""
        low: int = self._keys.bisect_left(start)
        high: int = self._keys.bisect_left(end) if end else len(self._keys)
        return low, high

    def _hidden_bounds(self) -> tuple[int, int]:
        """Positions of the keys that are about to go."""
        return (0, 0) if self._hidden is None else self._bounds(*self._hidden)

    def _present_bounds(self, start: bytes, end: bytes) -> tuple[int, int, int, int]:
        """Positions in the sorted keys of the range and of a gap in it, which does not exist any more."""
        low, high = self._bounds(start, end)
        high = max(low, high)
        if self._hidden is None:
            return low, high, high, high
        gap_low, gap_high = self._hidden_bounds()
        gap_low = min(max(gap_low, low), high)
        return low, gap_low, max(gap_low, min(gap_high, high)), high

    def _present_keys(self, start: bytes, end: bytes, reverse: bool) -> Iterator[bytes]:
        low, gap_low, gap_high, high = self._present_bounds(start, end)
        before: Iterator[bytes] = self._keys.islice(low, gap_low, reverse)
        if gap_high == high:
            return before
        after: Iterator[bytes] = self._keys.islice(gap_high, high, reverse)
        return chain(after, before) if reverse else chain(before, after)

    def _check_readable(self, revision: int) -> None:
        if revision > self.revision:
            raise InvalidRequest(f"revision {revision} is in the future: the newest is {self.revision}")
        if revision < 0:
            raise InvalidRequest(f"a revision cannot be negative: {revision}")
        if revision < self.oldest_revision:
            raise RevisionCompacted(
                f"revision {revision} is no longer kept: the oldest is {self.oldest_revision}",
                compacted_revision=self.oldest_revision - 1,
            )

    def _changes_after(self, revision: int) -> Iterator[Change]:
        """Newest first."""
        for segment in chain([self._segment], (full.changes for full in reversed(self._segments))):
            for change in reversed(segment):
                if change[0] <= revision:
                    return
                yield change

    def _record_at(self, key: bytes, revision: int) -> Record | None:
        self._check_readable(revision)
        record = self._records.get(key)
        if record is not None and record[MOD_REVISION] <= revision:
            return record
        for _, changed, old, _ in self._changes_after(revision):
            if changed == key:
                record = old
        return record

    def _undo(self, revision: int, start: bytes, end: bytes) -> dict[bytes, Record | None]:
        """What each key of the range that has changed since ``revision`` looked like then."""
        self._check_readable(revision)
        past: dict[bytes, Record | None] = {}
        for _, key, old, _ in self._changes_after(revision):
            if key >= start and (not end or key < end):
                past[key] = old
        return past

    # -- snapshots and checks ---------------------------------------------------------------------

    def view(self) -> StoreView:
        """Pin the present, to be read in slices while writes go on. Close it when done."""
        assert self._hidden is None, "a view cannot be opened while a range is being deleted"
        view = StoreView(self)
        self._views.append(view)
        return view

    @classmethod
    def restore(
        cls,
        revision: int,
        items: Iterable[RestoredItem],
        history: HistoryLimits | None = None,
    ) -> Store:
        """A store from (key, value, create_revision, mod_revision, version, lease_id), with no past."""
        store = cls(history)
        store.load(items)
        store.finish_loading(revision)
        return store

    def load(self, items: Iterable[RestoredItem]) -> None:
        """Add restored records; may be called many times, and :meth:`finish_loading` once after."""
        records = self._records
        total = 0
        for key, value, created, modified, version, lease_id in items:
            digest = record_digest(key, value, created, modified, version, lease_id)
            records[key] = (value, created, modified, version, lease_id, digest)
            total += digest
        self._digest_sum += total

    def finish_loading(self, revision: int) -> None:
        self._keys = SortedList(self._records)
        self.revision = self.oldest_revision = revision

    def dissolve(self, max_items: int) -> bool:
        """Take some of a store apart that nobody will use again; False when nothing is left.

        Letting go of a large store at once holds the interpreter, and with it every thread, for as long as it
        takes to free all of it: 60 ms for 300,000 keys.
        """
        records, segments = self._records, self._segments
        for _ in range(min(max_items, len(records))):
            records.popitem()
        for _ in range(min(max(1, max_items // 128), len(segments))):
            segments.pop()
        if records:
            return True
        self._segment.clear()
        for _ in range(min(max_items, len(self._keys))):
            self._keys.pop()
        return bool(segments or self._keys)

    def continue_at(self, revision: int) -> None:
        """Go on counting at a higher revision, with no past: what lies between was never here."""
        if revision < self.revision:
            raise ValueError(f"revision {revision} is below {self.revision}")
        self._segments.clear()
        self._segment = []
        self._segment_bytes = self._history_changes = self._history_bytes = 0
        self.revision = self.oldest_revision = revision

    def full_state_hash(self) -> int:
        """``state_hash`` computed from nothing but the records: walks everything, trusts nothing stored."""
        total = 0
        for key, (value, created, modified, version, lease_id, _) in self._records.items():
            total += record_digest(key, value, created, modified, version, lease_id)
        return total & MASK_64

    def check(self) -> None:
        """Assert the invariants. For tests and the simulator: walks everything."""
        assert list(self._keys) == sorted(self._records)
        assert self.state_hash == self.full_state_hash()
        assert self._history_bytes <= self.history_limits.max_bytes
        assert self._history_bytes == sum(full.size_bytes for full in self._segments)
        assert self._history_changes == sum(len(full.changes) for full in self._segments)
        assert self._history_changes <= self.history_limits.max_changes + SEGMENT_BYTES // CHANGE_OVERHEAD_BYTES
        for changes, size_bytes in [*self._segments, _Segment(self._segment, self._segment_bytes)]:
            assert size_bytes == sum(map(_charge, changes))
        revisions = [change[0] for change in self._changes_after(-1)][::-1]
        assert revisions == sorted(revisions)
        assert self.oldest_revision <= self.revision


def _charge(change: Change) -> int:
    """What a change counts as in the history's bytes. put() and _remove() add it up without this call."""
    _, key, old, _ = change
    return CHANGE_OVERHEAD_BYTES + len(key) + (len(old[VALUE]) if old is not None else 0)


def key_value(key: bytes, record: Record, keys_only: bool = False) -> KeyValue:
    value, created, modified, version, lease_id, _ = record
    return KeyValue(key, b"" if keys_only else value, created, modified, version, lease_id)
