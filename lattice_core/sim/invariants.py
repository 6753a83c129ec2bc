"""What must hold at every step of a run, whatever happens.

Each check keeps just enough to be cheap: it is asked only where something changed. Section numbers are
the Raft paper's; the five properties of its Figure 3 are all here.

* Election Safety: at most one leader a term (5.2), and one vote a term from each server, over restarts.
* Log Matching: an index and a term name one payload and one predecessor, everywhere (5.3).
* Leader Completeness: a new leader has every entry committed in earlier terms (5.4).
* State Machine Safety: what one server applies at an index, every server applies there (5.4.3), and the
  state after it has the same hash.
* Leader Append-Only and monotonicity: a server's commit index never goes back while it runs, a leader's
  match indices never within its term (SAFETY 14).
* Durability: what is committed is on the disks of a quorum, judged by what the simulated disks have
  synced and not by what the core believes (SAFETY 13, 24); what was synced is recovered.

A check that fails raises :class:`Violation`, which ends the run.
"""

from __future__ import annotations

from lattice_core.raft import quorum
from lattice_core.raft.ready import Persist
from lattice_core.raft.types import Configuration, Entry, HardState, NodeId, RecoveredState


class Violation(Exception):
    """A property does not hold. ``check`` is its short name."""

    def __init__(self, check: str, message: str) -> None:
        super().__init__(f"{check}: {message}")
        self.check = check
        self.message = message


class DurableLog:
    """What one node's disk holds: terms by index, and term and vote. Fed by completed syncs.

    One group of writes may be under way; it is one frame of the log, so a crash keeps all of it or nothing.
    """

    __slots__ = ("_under_way", "hard_state", "terms")

    def __init__(self) -> None:
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
        if persist.truncate_from is not None:
            del self.terms[persist.truncate_from - 1 :]
        if persist.entries:
            self.terms.extend(entry.term for entry in persist.entries)

    def require_recovered(self, node: NodeId, state: RecoveredState) -> None:
        """``state`` must be what was synced, or that and the whole group under way. Raises Violation."""
        found = [entry.term for entry in state.entries]
        if (found, state.hard_state) != (self.terms, self.hard_state):
            synced, vote = list(self.terms), self.hard_state
            self.synced()
            if (found, state.hard_state) != (self.terms, self.hard_state):
                raise Violation(
                    "recovery",
                    f"n{node} had synced {_brief(synced)} and {vote}, with {_brief(self.terms)} and "
                    f"{self.hard_state} under way, and recovers {_brief(found)} and {state.hard_state}",
                )
        self._under_way = []

    def holds(self, index: int, term: int) -> bool:
        return index <= len(self.terms) and self.terms[index - 1] == term


def _brief(terms: list[int]) -> str:
    return f"{len(terms)} entries with terms ...{terms[-4:]}"


class Invariants:
    """The observer of one run. Methods are called by the world where the named thing happens."""

    def __init__(self) -> None:
        self._leaders: dict[int, NodeId] = {}
        self._votes: dict[tuple[NodeId, int], NodeId] = {}
        self._entries: dict[tuple[int, int], tuple[int, object]] = {}
        self._committed: list[Entry] = []
        self._committed_terms: list[tuple[int, int]] = []  # (term of the committing leader, last index), both rising
        self._hashes: dict[int, int] = {}
        self.disks: dict[NodeId, DurableLog] = {}
        self.elections = 0

    @property
    def committed_index(self) -> int:
        return len(self._committed)

    def leader_elected(self, node: NodeId, term: int, log_term_at: object) -> None:
        """``log_term_at`` is the new leader's ``RaftLog.term_at``."""
        other = self._leaders.setdefault(term, node)
        if other != node:
            raise Violation("election-safety", f"n{other} and n{node} both lead term {term}")
        self.elections += 1
        for committed_term, index in reversed(self._committed_terms):
            if committed_term < term:
                wanted = self._committed[index - 1].term
                found = log_term_at(index)  # type: ignore[operator]
                if found != wanted:
                    raise Violation(
                        "leader-completeness",
                        f"n{node} leads term {term} without entry {index} of term {wanted}, "
                        f"committed in term {committed_term} (it has term {found} there)",
                    )
                break

    def voted(self, node: NodeId, term: int, candidate: NodeId) -> None:
        other = self._votes.setdefault((node, term), candidate)
        if other != candidate:
            raise Violation("one-vote-a-term", f"n{node} voted for n{other} and for n{candidate} in term {term}")

    def appended(self, node: NodeId, entries: tuple[Entry, ...], previous_term: int) -> None:
        known = self._entries
        for entry in entries:
            payload = entry.payload
            found = known.get((entry.index, entry.term))
            if found is None:
                known[entry.index, entry.term] = (previous_term, payload)
            elif found[0] != previous_term or (found[1] is not payload and found[1] != payload):
                raise Violation(
                    "log-matching",
                    f"n{node} has an entry {entry.index} of term {entry.term} that differs from another's, "
                    f"or follows another predecessor (terms {found[0]} and {previous_term})",
                )
            previous_term = entry.term

    def committed(self, node: NodeId, term: int, entries: tuple[Entry, ...], configuration: Configuration) -> None:
        """``node`` hands out ``entries`` as committed."""
        committed = self._committed
        for entry in entries:
            if entry.index <= len(committed):
                known = committed[entry.index - 1]
                if known.term != entry.term or (known.payload is not entry.payload and known.payload != entry.payload):
                    raise Violation(
                        "state-machine-safety",
                        f"n{node} commits entry {entry.index} of term {entry.term}; "
                        f"committed there before was one of term {known.term}",
                    )
                continue
            if entry.index != len(committed) + 1:
                raise Violation("state-machine-safety", f"n{node} commits entry {entry.index} after {len(committed)}")
            committed.append(entry)
        last = entries[-1]
        if last.index == len(committed) and (not self._committed_terms or self._committed_terms[-1][1] < last.index):
            if self._committed_terms and self._committed_terms[-1][0] >= term:
                self._committed_terms[-1] = (self._committed_terms[-1][0], last.index)
            else:
                self._committed_terms.append((term, last.index))
            holders = {number for number, disk in self.disks.items() if disk.holds(last.index, last.term)}
            if not quorum.is_quorum(configuration, holders):
                raise Violation(
                    "durability",
                    f"n{node} commits entry {last.index} of term {last.term}, which only "
                    f"{', '.join(f'n{holder}' for holder in sorted(holders)) or 'nobody'} has on disk",
                )

    def applied(self, node: NodeId, index: int, state_hash: int) -> None:
        other = self._hashes.setdefault(index, state_hash)
        if other != state_hash:
            raise Violation(
                "state-hash", f"after entry {index} n{node} has state {state_hash:016x}, another had {other:016x}"
            )

    def recovered(self, node: NodeId, state: RecoveredState) -> None:
        """``node`` has read its disk after a crash or stop."""
        self.disks[node].require_recovered(node, state)
        self.appended(node, state.entries, 0)
