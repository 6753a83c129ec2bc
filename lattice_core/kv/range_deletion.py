"""Deleting a range of any number of keys, atomically, without holding up whoever calls.

Theory
  * It is one operation with one revision, and nobody may see half of it. The first step *hides* the range: in the
    present its keys are gone, all at once, though they are still physically there. The steps after it take them
    out, some thousand at a time. Nothing else is written until the last step, for commands are applied one after
    the other, so a range is all that has to be remembered.
  * Reads of earlier revisions look at the physical state and undo changes from there, so they find each key either
    still in its place or in the history.
  * A deletion of more changes than the history keeps leaves no way to read anything before it, and no use for its
    own changes: the history is forgotten at once, and each key costs 0.3 µs instead of 1.2.

How many keys a step takes is not part of the replicated state: whoever drives it may stop after any step, or none.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Final

from lattice_core.kv.key_order import drop_run
from lattice_core.kv.records import DIGEST

if TYPE_CHECKING:
    from lattice_core.kv.store import Store

STEP_KEYS: Final = 4096
"""Keys taken out at a time: 2 to 5 ms."""

STEP_KEYS_UNDER_A_VIEW: Final = 1024
"""The same while a snapshot is being taken, which each key has to be put aside for: 3 µs."""

_digest_of = itemgetter(DIGEST)


class RangeDeletion:
    """One deletion under way. ``deleted``, the number of keys, is known from the start."""

    def __init__(self, store: Store, start: bytes, end: bytes, count: int) -> None:
        self.deleted = count
        self._store = store
        self._start = start
        self._end = end
        self._left = count
        self._remembers = count <= store.history_limits.max_changes
        if count:
            store.revision += 1
            store._hidden = (start, end)
            if not self._remembers:
                store._forget_history()

    def step(self, max_keys: int | None = None) -> bool:
        """Take some more keys out; whether there are any left."""
        if not self._left:
            return False
        store = self._store
        if max_keys is None:
            max_keys = STEP_KEYS_UNDER_A_VIEW if store._views else STEP_KEYS
        count = min(max_keys, self._left)
        low: int = store._keys.bisect_left(self._start)
        keys = list(store._keys.islice(low, low + count))
        if self._remembers:
            for key in keys:
                store._remove(key)
        else:
            records = list(map(store._records.pop, keys))
            store._digest_sum -= sum(map(_digest_of, records))
            if store._views:
                for key, record in zip(keys, records, strict=True):
                    store._preserve(key, record, True)
        drop_run(store._keys, low, low + count)
        self._left -= count
        if not self._left:
            store._hidden = None
        return self._left > 0
