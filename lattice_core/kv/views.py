"""A store as it was at one moment, read in slices while writes go on: what snapshots are made from.

Copy on write: whoever replaces or deletes a record hands the old one to every open view first, which keeps it if it
has not read past that key. So an open view costs writers a call and a dict entry for each key, once.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from sortedcontainers import SortedSet

from lattice_core.kv.records import DIGEST, Record, RestoredItem

if TYPE_CHECKING:
    from lattice_core.kv.store import Store


class StoreView:
    """The store as it was when the view was opened, read once from the first key to the last.

    What is overwritten or deleted behind the view's back is put aside here first, until it has been read.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.revision = store.revision
        self.count = len(store)
        self.state_hash = store.state_hash
        self._cursor = b""  # everything up to here has been read; there is no empty key
        # Keys past the cursor that were written since, with the pinned record (None: did not exist).
        self._replaced: dict[bytes, Record | None] = {}
        # Those among them that the store may no longer list, though the view has to.
        self._deleted: Any = SortedSet()
        self._open = True
        self._exhausted = False

    def _preserve(self, key: bytes, old: Record | None, deleted: bool) -> None:
        """The store is about to replace or delete this key's record. Only the first one is the pinned one."""
        if key <= self._cursor:
            return
        pinned = self._replaced.setdefault(key, old)
        if deleted and pinned is not None:
            self._deleted.add(key)

    def read_slice(self, max_items: int, max_bytes: int | None = None) -> list[RestoredItem]:
        """The next records in key order, as (key, value, create_revision, mod_revision, version, lease_id).

        Never more than ``max_items``, nor more than ``max_bytes`` of keys and values except for a single
        larger one. Empty means that all has been read.
        """
        if not self._open:
            raise ValueError("the view is closed")
        items: list[RestoredItem] = []
        records, replaced = self._store._records, self._replaced
        while not items and not self._exhausted:
            # The first of both are among the first of each: no more than that is looked at, however many there are.
            keys = list(islice(self._store._keys.irange(self._cursor, None, (False, True)), max_items))
            deleted = list(islice(self._deleted.irange(self._cursor, None, (False, True)), max_items))
            if deleted:
                keys = sorted({*keys, *deleted})[:max_items]
            if not keys:
                self._exhausted = True
                self._detach()
                break
            found: Iterable[Record | None] = map(records.get, keys)
            behind = replaced.keys() & keys
            last = keys[-1]
            if behind:
                pinned = dict(zip(keys, found, strict=True))
                pinned.update((key, replaced[key]) for key in behind)
                for created in [key for key in behind if pinned[key] is None]:
                    del pinned[created]  # since
                keys, found = list(pinned), pinned.values()
            if keys:
                # Column by column: half of what it costs record by record, and the loop waits for it.
                values, *rest = tuple(zip(*cast("Iterable[Record]", found), strict=True))[:DIGEST]
                items = list(zip(keys, values, *rest, strict=True))
                if max_bytes is not None and sum(map(len, keys)) + sum(map(len, values)) > max_bytes:
                    last = _cut(items, max_bytes)
            for key in behind:
                if key <= last:
                    del replaced[key]
                    self._deleted.discard(key)
            self._cursor = last
        return items

    def close(self) -> None:
        """Stop being told about writes. Safe to repeat."""
        self._open = False
        self._detach()

    def _detach(self) -> None:
        if self in self._store._views:
            self._store._views.remove(self)
        self._replaced.clear()
        self._deleted.clear()


def _cut(items: list[RestoredItem], max_bytes: int) -> bytes:
    """Leave as many, at least one, as come to no more than ``max_bytes`` of keys and values; the last one's key."""
    size = 0
    for position, item in enumerate(items):
        size += len(item[0]) + len(item[1])
        if size > max_bytes and position:
            del items[position:]
            break
    return items[-1][0]
