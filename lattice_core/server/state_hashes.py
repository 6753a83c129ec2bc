"""What this member's state was, as a hash, after each of the entries it applied lately.

A hash of the whole state is kept up to date with every write (kv/digests.py), so remembering it is a subtraction and a
store for each *entry*, which holds all that came in one turn of the loop. The last few thousand entries are there one
by one; further back every 128th is, so that a member which lags can still be compared.
"""

from __future__ import annotations

from typing import Final

RECENT: Final = 4096
"""Entries: some seconds at full load."""

MARK_EVERY: Final = 128
MARKS: Final = 1024
"""Reaching back 131,072 entries."""


class StateHashes:
    """By index. Two rings: bounded, and never moved."""

    def __init__(self) -> None:
        self._recent: list[tuple[int, int] | None] = [None] * RECENT
        self._marks: list[tuple[int, int] | None] = [None] * MARKS
        self.latest: tuple[int, int] | None = None
        """Index and hash of the last entry applied; None: nothing is."""

    def note(self, index: int, state_hash: int) -> None:
        """The state after the entry ``index``."""
        found = (index, state_hash)
        self.latest = found
        self._recent[index % RECENT] = found
        if index % MARK_EVERY == 0:
            self._marks[index // MARK_EVERY % MARKS] = found

    def begin_at(self, index: int, state_hash: int) -> None:
        """The state comes from a snapshot at ``index``: what was before it was perhaps never here."""
        self._recent = [None] * RECENT
        self._marks = [None] * MARKS
        self.latest = None
        if index:
            self.note(index, state_hash)

    def at(self, index: int) -> int | None:
        """The hash after that entry; None: not applied yet, or forgotten."""
        found = self._recent[index % RECENT]
        if found is not None and found[0] == index:
            return found[1]
        if index % MARK_EVERY == 0:
            found = self._marks[index // MARK_EVERY % MARKS]
            if found is not None and found[0] == index:
                return found[1]
        return None

    @property
    def last_mark(self) -> tuple[int, int] | None:
        """The newest of those that are remembered for long."""
        if self.latest is None:
            return None
        return self._marks[self.latest[0] // MARK_EVERY % MARKS]
