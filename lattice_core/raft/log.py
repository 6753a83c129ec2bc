"""The replicated log in memory, with what is committed, applied and in force.

Storage keeps the same entries on disk; the core reads only these. The log begins after ``offset``, the
last index that was compacted away, whose term is still known so that AppendEntries can name it as
``prev_log_index``. A snapshot may be *ahead* of ``offset``: a tail of entries is kept for slow followers.

Invariants (asserted where they could break):
  * entries are contiguous, their terms never decrease;
  * offset <= applied_index <= commit_index <= last_index;
  * commit_index never decreases, and nothing at or below it is ever truncated (section 5.4);
  * ``configurations`` holds the configuration in force at ``offset`` and every later one, oldest first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from lattice_core.raft.errors import InvariantViolation
from lattice_core.raft.types import Configuration, Entry, NodeId, SnapshotMeta

NO_CONFIGURATION = Configuration(members=(), voters=frozenset())
"""What a server knows that has not been told of any cluster: it votes for whoever asks and never campaigns."""


class RaftLog:
    """See the module's docstring. All indices are of the Raft log; the first entry ever is 1."""

    __slots__ = (
        "_entries",
        "applied_index",
        "commit_index",
        "configurations",
        "last_index",
        "last_term",
        "offset",
        "offset_term",
        "snapshot",
    )

    def __init__(self, snapshot: SnapshotMeta | None, entries: Sequence[Entry], commit_hint: int) -> None:
        self.snapshot = snapshot
        if snapshot is None:
            self.offset = self.offset_term = 0
            self.configurations = [(0, NO_CONFIGURATION)]
        else:
            self.offset, self.offset_term = snapshot.last_included_index, snapshot.last_included_term
            self.configurations = [(self.offset, snapshot.configuration)]
        self.commit_index = self.applied_index = self.offset
        self._entries: list[Entry] = []
        self.last_index, self.last_term = self.offset, self.offset_term
        self.append(entries)
        self.commit_index = max(self.offset, min(commit_hint, self.last_index))

    # ---- reading ------------------------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        """The first index whose entry is here."""
        return self.offset + 1

    @property
    def configuration(self) -> Configuration:
        """The newest configuration in the log, committed or not: it is the one in force (section 6)."""
        return self.configurations[-1][1]

    @property
    def configuration_index(self) -> int:
        return self.configurations[-1][0]

    @property
    def committed_configuration(self) -> tuple[int, Configuration]:
        """The newest configuration that is known to be committed, and since which index it is in force. (Behind a
        snapshot that is the snapshot's: it was in force there, perhaps for longer.)"""
        for item in reversed(self.configurations):
            if item[0] <= self.commit_index:
                return item
        raise InvariantViolation("the log begins with a configuration that is not committed")

    def configurations_in_doubt(self) -> list[Configuration]:
        """Those any of which may turn out to be in force: the newest one committed and all after it, newest first."""
        found = []
        for at, configuration in reversed(self.configurations):
            found.append(configuration)
            if at <= self.commit_index:
                break
        return found

    def configuration_at(self, index: int) -> Configuration:
        """The configuration in force at ``index``: what a snapshot taken there has to carry."""
        for at, configuration in reversed(self.configurations):
            if at <= index:
                return configuration
        raise InvariantViolation(f"the configuration at {index} is compacted away (the log begins at {self.offset})")

    def term_at(self, index: int) -> int | None:
        """The term of the entry at ``index``; None where it is compacted away or not there yet."""
        position = index - self.offset
        if position > 0:
            return self._entries[position - 1].term if index <= self.last_index else None
        return self.offset_term if position == 0 else None

    def entry(self, index: int) -> Entry:
        return self._entries[index - self.offset - 1]

    def between(self, first: int, last: int) -> tuple[Entry, ...]:
        """Entries ``first`` to ``last`` inclusive; both must be here."""
        return tuple(self._entries[first - self.offset - 1 : last - self.offset])

    def from_index(self, first: int, max_bytes: int) -> tuple[Entry, ...]:
        """Entries from ``first`` on, at least one if there is one, up to ``max_bytes`` in all."""
        start = first - self.offset - 1
        entries = self._entries
        stop = start
        size = 0
        end = len(entries)
        while stop < end:
            size += entries[stop].size_bytes
            if size > max_bytes and stop > start:
                break
            stop += 1
        return tuple(entries[start:stop])

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a candidate with such a log may be voted for (section 5.4.1)."""
        return last_term > self.last_term or (last_term == self.last_term and last_index >= self.last_index)

    def first_index_of_term(self, term: int, at: int) -> int:
        """The first index here of the run of ``term`` that ``at`` lies in."""
        position = bisect_right(self._entries, term - 1, 0, at - self.offset, key=_term_of)
        return self.offset + position + 1

    def last_index_of_term(self, term: int, at_most: int) -> int | None:
        """The last index up to ``at_most`` whose entry has ``term``; None if there is none."""
        upper = max(0, min(at_most, self.last_index) - self.offset)
        position = bisect_right(self._entries, term, 0, upper, key=_term_of)
        if position > 0:
            return self.offset + position if self._entries[position - 1].term == term else None
        return self.offset if self.offset_term == term and at_most >= self.offset else None

    # ---- changing -----------------------------------------------------------------------------------

    def append(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.index != self.last_index + 1 or entry.term < self.last_term:
                raise InvariantViolation(
                    f"entry {entry.index} of term {entry.term} cannot follow "
                    f"entry {self.last_index} of term {self.last_term}"
                )
            self._entries.append(entry)
            self.last_index, self.last_term = entry.index, entry.term
            if isinstance(entry.payload, Configuration):
                self.configurations.append((entry.index, entry.payload))

    def truncate_from(self, index: int) -> None:
        """Remove ``index`` and all after it; configurations among them are no longer in force (SAFETY 32)."""
        if index <= self.commit_index:
            raise InvariantViolation(f"entry {index} is committed (commit index {self.commit_index}) and must stay")
        del self._entries[index - self.offset - 1 :]
        self.last_index = index - 1
        term = self.term_at(self.last_index)
        assert term is not None
        self.last_term = term
        while len(self.configurations) > 1 and self.configurations[-1][0] >= index:
            self.configurations.pop()

    def commit_to(self, index: int) -> bool:
        """Raise the commit index to ``index``; True if that is news. It never goes back."""
        if index <= self.commit_index:
            return False
        if index > self.last_index:
            raise InvariantViolation(f"commit index {index} is beyond the last entry {self.last_index}")
        self.commit_index = index
        return True

    def compact(self, snapshot: SnapshotMeta, through: int) -> None:
        """A snapshot is durable: forget entries up to ``through`` (at most the snapshot's index)."""
        if not self.offset <= through <= snapshot.last_included_index <= self.applied_index:
            raise InvariantViolation(
                f"cannot compact through {through} with a snapshot at {snapshot.last_included_index}, "
                f"log from {self.offset}, applied {self.applied_index}"
            )
        self.snapshot = snapshot
        term = self.term_at(through)
        assert term is not None
        del self._entries[: through - self.offset]
        self.offset, self.offset_term = through, term
        # Keep the newest configuration at or below the new offset as the base for truncations.
        while len(self.configurations) > 1 and self.configurations[1][0] <= through:
            self.configurations.pop(0)

    def restore(self, snapshot: SnapshotMeta) -> bool:
        """A snapshot from the leader replaces the log, or its head where the boundary entry matches.

        Returns True where the suffix was kept (section 7, SAFETY 28). ``applied_index`` follows when the
        driver has restored the state machine.
        """
        index, term = snapshot.last_included_index, snapshot.last_included_term
        keep_suffix = self.term_at(index) == term
        if keep_suffix:
            del self._entries[: index - self.offset]
            later = [item for item in self.configurations if item[0] > index]
        else:
            self._entries.clear()
            self.last_index, self.last_term = index, term
            later = []
        self.snapshot = snapshot
        self.offset, self.offset_term = index, term
        self.configurations = [(index, snapshot.configuration), *later]
        self.commit_index = max(self.commit_index, index)
        return keep_suffix

    def voters_text(self) -> str:
        """The voters for a log line."""
        return ", ".join(_name(self.configuration, node_id) for node_id in sorted(self.configuration.voters))


def _term_of(entry: Entry) -> int:
    return entry.term


def _name(configuration: Configuration, node_id: NodeId) -> str:
    member = configuration.member(node_id)
    return member.name if member is not None else f"{node_id:016x}"
