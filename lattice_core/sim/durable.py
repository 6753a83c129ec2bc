"""What one node's disk holds, as the checks see it: fed by completed syncs, compared with what recovery finds."""

from __future__ import annotations

from lattice_core.raft.ready import Persist
from lattice_core.raft.types import HardState, NodeId, RecoveredState
from lattice_core.sim.violation import Violation


class DurableLog:
    """What one node's disk holds: terms by index, and term and vote. Fed by completed syncs.

    One group of writes may be under way; it is one frame of the log, so a crash keeps all of it or nothing.
    """

    __slots__ = ("_under_way", "base", "hard_state", "terms")

    def __init__(self) -> None:
        self.base = 0
        """``terms`` begin after this index; what is before it is in a snapshot."""
        self.terms: list[int] = []
        self.hard_state = HardState()
        self._under_way: list[Persist] = []

    def written(self, group: list[Persist]) -> None:
        self._under_way = group

    def synced(self) -> None:
        """The group under way is durable."""
        for persist in self._under_way:
            self._apply(persist)
        self._under_way = []

    def _apply(self, persist: Persist) -> None:
        if persist.hard_state is not None:
            self.hard_state = persist.hard_state
        snapshot = persist.snapshot
        if snapshot is not None and snapshot.last_included_index > self.base:
            # Kept only where the boundary entry is the same (section 7).
            index = snapshot.last_included_index
            cut = persist.truncate_from is not None and persist.truncate_from <= index
            keep = not cut and self.holds(index, snapshot.last_included_term)
            self.terms = self.terms[index - self.base :] if keep else []
            self.base = index
        if persist.truncate_from is not None:
            del self.terms[max(0, persist.truncate_from - self.base - 1) :]
        if persist.entries:
            self.terms.extend(entry.term for entry in persist.entries if entry.index > self.base)

    def require_recovered(self, node: NodeId, state: RecoveredState) -> None:
        """``state`` must be what was synced, or that and the whole group under way. Raises Violation."""
        synced = f"{self._text()} and {self.hard_state}"
        if not self._is(state):
            self.synced()
            if not self._is(state):
                start = state.snapshot.last_included_index if state.snapshot is not None else 0
                terms = [entry.term for entry in state.entries]
                raise Violation(
                    "recovery",
                    f"n{node} had synced {synced}, with {self._text()} and {self.hard_state} under way, and "
                    f"recovers {len(terms)} entries after {start} with terms ...{terms[-4:]} and {state.hard_state}",
                )
        self._under_way = []
        self.base = state.snapshot.last_included_index if state.snapshot is not None else 0
        self.terms = [entry.term for entry in state.entries]

    def _is(self, state: RecoveredState) -> bool:
        start = state.snapshot.last_included_index if state.snapshot is not None else 0
        terms = [entry.term for entry in state.entries]
        # The snapshot recovered from may be older than the last mark (the newest file is damaged), or newer
        # (it was published, and the mark not yet written): compare where both speak.
        mine = self.terms[max(0, start - self.base) :]
        found = terms[max(0, self.base - start) :]
        if found != mine:
            return False
        # A snapshot that is newer than the log brings its term along, without a vote: whatever vote was on its
        # way to the disk was answered to nobody.
        brought = HardState(state.snapshot.last_included_term, None) if start > self.base and state.snapshot else None
        return state.hard_state in (self.hard_state, brought)

    def holds(self, index: int, term: int) -> bool:
        if index <= self.base:
            return True  # in a snapshot, and so committed
        return index <= self.base + len(self.terms) and self.terms[index - self.base - 1] == term

    def _text(self) -> str:
        return f"{len(self.terms)} entries after {self.base} with terms ...{self.terms[-4:]}"
