"""Several writes to the store as one revision, all of them or none.

The changes of an open transaction are the tail of the history's present segment, which is not closed meanwhile. So
undoing them needs no log of its own: the tail says what each key was before. Reads see what has been written so
far. Bounded by the caller (txn.MAX_KEYS, txn.MAX_OPS), for it is not done in slices.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lattice_core.kv.key_order import drop_run

if TYPE_CHECKING:
    from lattice_core.kv.store import Store


class StoreTransaction:
    """Open from its making until :meth:`commit` or :meth:`roll_back`; whatever is written meanwhile is in it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # As it was before:
        self._revision = store.revision
        self._digest_sum = store._digest_sum
        self._changes = len(store._segment)
        self._segment_bytes = store._segment_bytes
        self._segment_full_bytes = store._segment_full_bytes
        store._segment_full_bytes = sys.maxsize

    def put(self, key: bytes, value: bytes) -> None:
        self._store.put(key, value)
        self._store.revision = self._revision  # the next write gets the same one

    def delete(self, key: bytes) -> int:
        deleted = self._store.delete(key)
        self._store.revision = self._revision
        return deleted

    def delete_range(self, start: bytes, end: bytes) -> int:
        store = self._store
        low, high = store._bounds(start, end)
        if low >= high:
            return 0
        keys = list(store._keys.islice(low, high))
        store.revision += 1
        for key in keys:
            store._remove(key)
        drop_run(store._keys, low, high)
        store.revision = self._revision
        return len(keys)

    def commit(self) -> None:
        """The writes are one revision, if there are any."""
        store = self._store
        if len(store._segment) > self._changes:
            store.revision += 1
        store._segment_full_bytes = self._segment_full_bytes
        if store._segment_bytes >= self._segment_full_bytes:
            store._cut_segment()

    def roll_back(self) -> None:
        """Nothing was written. Open views may have put records aside; they are the same as the store's."""
        store = self._store
        for _, key, old, new in reversed(store._segment[self._changes :]):
            if old is None:
                del store._records[key]
                store._keys.remove(key)
            else:
                store._records[key] = old
                if new is None:
                    store._keys.add(key)
        del store._segment[self._changes :]
        store._segment_bytes = self._segment_bytes
        store._segment_full_bytes = self._segment_full_bytes
        store._digest_sum = self._digest_sum
        store.revision = self._revision
