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
from lattice_core.raft.log import RaftLog
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


class Invariants:
    """The observer of one run. Methods are called by the world where the named thing happens."""

    def __init__(self, configuration: Configuration) -> None:
        self.configurations = [(0, configuration)]
        """Every committed configuration: there is one membership at each index."""
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

    def leader_elected(self, node: NodeId, term: int, log: RaftLog) -> None:
        """``log`` is the new leader's. What is compacted there was committed."""
        other = self._leaders.setdefault(term, node)
        if other != node:
            raise Violation("election-safety", f"n{other} and n{node} both lead term {term}")
        self.elections += 1
        for committed_term, index in reversed(self._committed_terms):
            if committed_term < term:
                wanted = self._committed[index - 1].term
                found = log.term_at(index) if index > log.offset else wanted
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
            if isinstance(entry.payload, Configuration):
                self.configurations.append((entry.index, entry.payload))
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
        snapshot = state.snapshot
        if snapshot is not None and snapshot.last_included_index > 0:
            wanted = self._configuration_at(snapshot.last_included_index)
            if snapshot.configuration != wanted:
                raise Violation(
                    "membership",
                    f"n{node} recovers a snapshot at {snapshot.last_included_index} with voters "
                    f"{sorted(snapshot.configuration.voters)}; in force there were {sorted(wanted.voters)}",
                )
        self.appended(node, state.entries, snapshot.last_included_term if snapshot is not None else 0)

    def _configuration_at(self, index: int) -> Configuration:
        for at, configuration in reversed(self.configurations):
            if at <= index:
                return configuration
        raise AssertionError("the first configuration is at index 0")
