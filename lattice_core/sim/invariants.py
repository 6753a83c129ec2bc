"""What must hold at every step of a run, whatever happens.

Each check keeps just enough to be cheap: it is asked only where something changed. Section numbers are
the Raft paper's; the five properties of its Figure 3 are all here.

* Election Safety: at most one leader a term (5.2), elected by real votes of a quorum, and one vote a term from each
  server, over restarts.
* Log Matching: an index and a term name one payload and one predecessor, everywhere (5.3).
* Leader Completeness: a new leader has every entry committed in earlier terms (5.4).
* State Machine Safety: what one server applies at an index, every server applies there (5.4.3), and the
  state after it has the same hash.
* Leader Append-Only and monotonicity: a server's commit index never goes back while it runs, a leader's
  match indices never within its term (SAFETY 14).
* Durability: what is committed is on the disks of a quorum, judged by what the simulated disks have
  synced and not by what the core believes (SAFETY 13, 24); what was synced is recovered.
* One membership authority (section 6): votes and commits count in the configuration that is newest in the log they
  are about, in both halves of a joint one, and learners never (SAFETY 32, 34, 36, 37); no two configurations that
  may decide at the same time have quorums that miss each other (33); there is one sequence of committed
  configurations, and snapshots carry it (25).

A check that fails raises :class:`Violation`, which ends the run.
"""

from __future__ import annotations

from lattice_core.raft.log import RaftLog
from lattice_core.raft.types import Configuration, Entry, HardState, NodeId, RecoveredState, SnapshotMeta
from lattice_core.sim.authority import InForce, always_meet, decides, describe, halves
from lattice_core.sim.durable import DurableLog
from lattice_core.sim.violation import Violation


class Invariants:
    """The observer of one run. Methods are called by the world where the named thing happens."""

    def __init__(self, configuration: Configuration) -> None:
        self.configurations = [(0, configuration)]
        """Every committed configuration: there is one membership at each index."""
        self._first = InForce(0, configuration, None)
        self._undecided: list[InForce] = []
        """Configurations that were appended somewhere, of entries that were not committed when last looked at."""
        self._leaders: dict[int, NodeId] = {}
        self._votes: dict[tuple[NodeId, int], NodeId] = {}
        self._entries: dict[tuple[int, int], tuple[int, object, InForce | None]] = {}
        """By index and term: the term before, the payload, and what is in force there."""
        self._committed: list[Entry] = []
        self._committed_terms: list[tuple[int, int]] = []  # (term of the committing leader, last index), both rising
        self._hashes: dict[int, int] = {}
        self.disks: dict[NodeId, DurableLog] = {}
        self.elections = 0

    @property
    def committed_index(self) -> int:
        return len(self._committed)

    # ---- elections ----------------------------------------------------------------------------------

    def leader_elected(self, node: NodeId, term: int, log: RaftLog) -> None:
        """``log`` is the new leader's. What is compacted there was committed."""
        other = self._leaders.setdefault(term, node)
        if other != node:
            raise Violation("election-safety", f"n{other} and n{node} both lead term {term}")
        self.elections += 1
        self._require_votes(node, term, log)
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
        self.uses_newest(node, log.configuration, log)

    def _require_votes(self, node: NodeId, term: int, log: RaftLog) -> None:
        in_force = self.in_force(log.last_index, log.last_term)
        if in_force is None:
            return
        members = in_force.configuration.all_voters
        given = {voter for voter in members if self._votes.get((voter, term)) == node}
        if self.disks[node].hard_state == HardState(term, node):
            given.add(node)
        if not decides(in_force.configuration, given):
            raise Violation(
                "election-safety",
                f"n{node} leads term {term} by the votes of {_names(given & members)}; "
                f"in its log the voters are {_voters(in_force.configuration)}",
            )

    def voted(self, node: NodeId, term: int, candidate: NodeId) -> None:
        other = self._votes.setdefault((node, term), candidate)
        if other != candidate:
            raise Violation("one-vote-a-term", f"n{node} voted for n{other} and for n{candidate} in term {term}")

    # ---- logs ---------------------------------------------------------------------------------------

    def appended(self, node: NodeId, entries: tuple[Entry, ...], previous_term: int, commit_index: int) -> None:
        """``node``, which knows that all up to ``commit_index`` is committed, has ``entries`` in its log."""
        known = self._entries
        in_force: InForce | None = None
        looked = False
        for entry in entries:
            payload = entry.payload
            found = known.get((entry.index, entry.term))
            if found is None:
                if not looked:
                    in_force = self.in_force(entry.index - 1, previous_term)
                if type(payload) is Configuration:
                    in_force = self._lengthened(node, entry.index, payload, in_force, commit_index)
                known[entry.index, entry.term] = (previous_term, payload, in_force)
            elif found[0] != previous_term or (found[1] is not payload and found[1] != payload):
                raise Violation(
                    "log-matching",
                    f"n{node} has an entry {entry.index} of term {entry.term} that differs from another's, "
                    f"or follows another predecessor (terms {found[0]} and {previous_term})",
                )
            else:
                in_force = found[2]
            looked = True
            previous_term = entry.term

    def committed(self, node: NodeId, term: int, entries: tuple[Entry, ...], decided_at: tuple[int, int]) -> None:
        """``node`` hands out ``entries`` as committed. ``decided_at`` is index and term of the entry that its log ended
        with when that was decided: a leader that commits a joint configuration appends the final one at once, which
        has no part in it."""
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
            self._require_durable(node, last, decided_at)

    def _require_durable(self, node: NodeId, last: Entry, decided_at: tuple[int, int]) -> None:
        in_force = self.in_force(*decided_at)
        configuration = in_force.configuration if in_force is not None else self.configurations[-1][1]
        disks = self.disks
        holders = {
            number
            for number in configuration.all_voters
            if number in disks and disks[number].holds(last.index, last.term)
        }
        if not decides(configuration, holders):
            raise Violation(
                "durability",
                f"n{node} commits entry {last.index} of term {last.term}, which only {_names(holders)} "
                f"of the voters {_voters(configuration)} {'has' if len(holders) < 2 else 'have'} on disk",
            )

    # ---- membership ---------------------------------------------------------------------------------

    def in_force(self, index: int, term: int) -> InForce | None:
        """What is in force in a log that ends with this entry; None: nobody has appended such an entry."""
        if index == 0:
            return self._first
        found = self._entries.get((index, term))
        return found[2] if found is not None else None

    def _lengthened(
        self, node: NodeId, index: int, configuration: Configuration, before: InForce | None, commit_index: int
    ) -> InForce | None:
        """A configuration is in a log for the first time: its leader's. All that it does not know to be settled may
        still decide, back to the newest that it knows to be committed."""
        if before is None:
            return None
        earlier: InForce | None = before
        mine = halves(configuration)
        while earlier is not None:
            if not always_meet(mine, halves(earlier.configuration)):
                raise Violation(
                    "membership-authority",
                    f"n{node} appends the voters {_voters(configuration)} as entry {index} while those of entry "
                    f"{earlier.index}, {_voters(earlier.configuration)}, may still decide: both could at once",
                )
            earlier = earlier.before if earlier.index > commit_index else None
        added = InForce(index, configuration, before)
        self._undecided.append(added)
        return added

    def uses_newest(self, node: NodeId, configuration: Configuration, log: RaftLog) -> None:
        """A leader decides by ``configuration``: it must be the newest in its log."""
        in_force = self.in_force(log.last_index, log.last_term)
        if in_force is not None and in_force.configuration != configuration:
            raise Violation(
                "membership",
                f"n{node} leads by {describe(configuration)}; the newest configuration in its log, of entry "
                f"{in_force.index}, has {describe(in_force.configuration)}",
            )

    def possible_configurations(self) -> list[Configuration]:
        """Those by which something may be decided from now on, and perhaps some more."""
        self._undecided = [one for one in self._undecided if one.index > len(self._committed)]
        return [self.configurations[-1][1], *(one.configuration for one in self._undecided)]

    def snapshot_says(self, node: NodeId, meta: SnapshotMeta) -> None:
        """``node`` takes, installs or recovers from a snapshot of this membership."""
        wanted = self._configuration_at(meta.last_included_index)
        if meta.configuration != wanted:
            raise Violation(
                "membership",
                f"n{node} has a snapshot at {meta.last_included_index} that says {describe(meta.configuration)}; "
                f"in force there were {describe(wanted)}",
            )

    def _configuration_at(self, index: int) -> Configuration:
        for at, configuration in reversed(self.configurations):
            if at <= index:
                return configuration
        raise AssertionError("the first configuration is at index 0")

    # ---- states -------------------------------------------------------------------------------------

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
            self.snapshot_says(node, snapshot)
        previous_term = snapshot.last_included_term if snapshot is not None else 0
        self.appended(node, state.entries, previous_term, state.commit_hint)


def _names(numbers: set[NodeId] | frozenset[NodeId]) -> str:
    return ", ".join(f"n{number}" for number in sorted(numbers)) or "nobody"


def _voters(configuration: Configuration) -> str:
    return " and ".join(f"{{{_names(half)}}}" for half in halves(configuration))
