"""The log without its payloads: which indices exist, their terms, and what else is durable.

One small state machine, fed by the writer *before* it writes and by recovery as it reads, so that both
have one notion of what a record does and of what can never follow what. A record that cannot follow
raises :class:`ImpossibleRecord`: when writing that is a fault in the caller and nothing is written; when
reading it means that the file is damaged in a way no checksum shows.

Rules (Raft, figures 2 and 3):
  * the term never goes back, and a vote once given in a term stays (section 5.2);
  * indices have no gap, terms never fall along the log, none is above the current term (section 5.3);
  * nothing committed, and nothing under a snapshot, is ever truncated (section 5.4).
"""

from __future__ import annotations

from bisect import bisect_right

from lattice_core.raft.types import Entry, HardState, SnapshotMeta
from lattice_core.storage.records import CommitHint, Record, SnapshotMark, Truncation


class ImpossibleRecord(ValueError):
    """A record that cannot follow what the log holds already."""


class LogShape:
    """Invariants: ``base_index <= last_index``; runs are strictly rising in index and in term.

    ``base_index`` and ``base_term`` are of the entry just before the first the log still holds.
    ``snapshot`` may lie below the base only while recovery is under way (a later mark must raise it).
    """

    __slots__ = ("_runs", "base_index", "base_term", "commit_hint", "hard_state", "last_index", "snapshot")

    def __init__(self, base_index: int = 0, base_term: int = 0) -> None:
        self.base_index = base_index
        self.base_term = base_term
        self.last_index = base_index
        self.hard_state = HardState()
        self.snapshot: SnapshotMeta | None = None
        self.commit_hint = 0
        self._runs: list[tuple[int, int]] = []  # (first index, term) of each stretch of one term

    def copy(self) -> LogShape:
        """An independent copy, cheap: one tuple per term in the log."""
        other = LogShape(self.base_index, self.base_term)
        other.last_index = self.last_index
        other.hard_state = self.hard_state
        other.snapshot = self.snapshot
        other.commit_hint = self.commit_hint
        other._runs = self._runs.copy()
        return other

    @property
    def last_term(self) -> int:
        return self._runs[-1][1] if self._runs else self.base_term

    @property
    def snapshot_index(self) -> int:
        """The last index a snapshot covers, 0 without one."""
        return self.snapshot.last_included_index if self.snapshot is not None else 0

    def term_at(self, index: int) -> int | None:
        """The term of the entry at ``index``, or None where the log does not know it."""
        if index == self.base_index:
            return self.base_term
        if not self.base_index < index <= self.last_index:
            return None
        return self._runs[bisect_right(self._runs, index, key=_first_index) - 1][1]

    def truncation(self, from_index: int) -> Truncation | None:
        """The record that removes entries from ``from_index`` on, or None where there are none."""
        if from_index > self.last_index:
            return None
        previous_term = self.term_at(from_index - 1)
        if previous_term is None:
            raise ImpossibleRecord(f"truncation from {from_index}, but the log starts at {self.base_index + 1}")
        return Truncation(from_index, previous_term)

    def snapshot_mark(self, meta: SnapshotMeta) -> SnapshotMark | None:
        """The record for a durable snapshot, or None if the log knows one as new already.

        The entries after it stay if the entry at its boundary is the snapshot's; otherwise nothing of
        the log is left (section 7, rule 6 of figure 13; SAFETY 28).
        """
        if self.snapshot is not None and meta.last_included_index <= self.snapshot_index:
            return None
        matches = self.term_at(meta.last_included_index) == meta.last_included_term
        return SnapshotMark(meta, restarts_log=not matches)

    def apply(self, record: Record) -> None:
        """Take in one record. Raises ImpossibleRecord and changes nothing if it cannot come next."""
        if isinstance(record, Entry):
            self.append(record.index, record.term)
        elif isinstance(record, HardState):
            self._set_hard_state(record)
        elif isinstance(record, Truncation):
            self._truncate(record)
        elif isinstance(record, CommitHint):
            # Only a hint: one beyond the log (it cannot be, in Raft) is worth no refusal to start.
            self.commit_hint = max(self.commit_hint, min(record.index, self.last_index))
        elif isinstance(record, SnapshotMark):
            self._mark_snapshot(record)

    def append(self, index: int, term: int) -> None:
        """One entry more."""
        if index != self.last_index + 1:
            raise ImpossibleRecord(f"entry {index} cannot follow entry {self.last_index}")
        last_term = self.last_term
        if term != last_term or not self._runs:
            if term < last_term:
                raise ImpossibleRecord(f"entry {index} has term {term}, but the one before has {last_term}")
            if term > self.hard_state.term:
                raise ImpossibleRecord(f"entry {index} has term {term}, but the current term is {self.hard_state.term}")
            self._runs.append((index, term))
        self.last_index = index

    def forget_through(self, base_index: int, base_term: int) -> None:
        """The entries up to ``base_index`` have been deleted with their segments."""
        if base_index > self.base_index and self.term_at(base_index) == base_term:
            keep = bisect_right(self._runs, base_index + 1, key=_first_index)
            if base_index == self.last_index:
                self._runs = []
            else:
                self._runs = [(base_index + 1, self._runs[keep - 1][1]), *self._runs[keep:]]
            self.base_index, self.base_term = base_index, base_term

    def _set_hard_state(self, state: HardState) -> None:
        current = self.hard_state
        if state.term < current.term:
            raise ImpossibleRecord(f"term {state.term} cannot follow term {current.term}")
        if state.term == current.term and current.voted_for not in (None, state.voted_for):
            raise ImpossibleRecord(
                f"the vote of term {state.term} was given to {current.voted_for} and cannot become {state.voted_for}"
            )
        self.hard_state = state

    def _truncate(self, record: Truncation) -> None:
        start = record.from_index
        if start <= self.snapshot_index or start <= self.commit_hint:
            raise ImpossibleRecord(
                f"truncation from {start}, but {max(self.commit_hint, self.snapshot_index)} is committed"
            )
        if start > self.last_index:
            raise ImpossibleRecord(f"truncation from {start}, but the log ends at {self.last_index}")
        if start <= self.base_index:
            # Recovery that began at a later segment: what it never saw has been replaced.
            self.base_index, self.base_term = start - 1, record.previous_term
            self._runs = []
        else:
            if self.term_at(start - 1) != record.previous_term:
                raise ImpossibleRecord(f"truncation from {start} names another term before it than the log")
            while self._runs and self._runs[-1][0] >= start:
                self._runs.pop()
        self.last_index = start - 1

    def _mark_snapshot(self, mark: SnapshotMark) -> None:
        index, term = mark.meta.last_included_index, mark.meta.last_included_term
        if index < self.snapshot_index:
            raise ImpossibleRecord(f"a snapshot at {index} cannot follow one at {self.snapshot_index}")
        if term > self.hard_state.term:
            raise ImpossibleRecord(f"snapshot of term {term}, but the current term is {self.hard_state.term}")
        if mark.restarts_log:
            self.base_index, self.base_term, self._runs = index, term, []
            self.last_index = index
        elif index > self.last_index:
            raise ImpossibleRecord(f"a snapshot at {index} lies beyond the log's end at {self.last_index}")
        self.snapshot = mark.meta
        self.commit_hint = max(self.commit_hint, index)


def _first_index(run: tuple[int, int]) -> int:
    return run[0]
