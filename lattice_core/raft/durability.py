"""What has been handed to storage, and what is known to be on disk.

Several units of work (:class:`~lattice_core.raft.ready.Persist`) may be in flight at once. A conflict can
truncate entries whose write is still under way and put others, of another term, in the same places; the
completion of the first write then says nothing about the second (SAFETY 12). So each unit in flight
remembers the last index it can still vouch for, and a truncation lowers that at once.

Invariants: durable_index <= handed_index <= last_index of the log; sequences complete in order.
"""

from __future__ import annotations

from collections import deque

from lattice_core.raft.errors import InvariantViolation
from lattice_core.raft.log import RaftLog
from lattice_core.raft.messages import Message
from lattice_core.raft.ready import Persist
from lattice_core.raft.types import HardState, SnapshotMeta


class Durability:
    """Keeps count for one node; the node asks it to build each Ready's Persist."""

    __slots__ = (
        "_handed_commit",
        "_handed_hard_state",
        "_in_flight",
        "_snapshot",
        "_truncate_from",
        "durable_hard_state",
        "durable_index",
        "handed_index",
        "handed_sequence",
        "persisted_sequence",
    )

    def __init__(self, hard_state: HardState, log: RaftLog) -> None:
        self.durable_hard_state = hard_state
        self._handed_hard_state = hard_state
        self.durable_index = log.last_index
        self.handed_index = log.last_index
        self._handed_commit = log.commit_index
        self.handed_sequence = 0
        self.persisted_sequence = 0
        self._truncate_from: int | None = None
        self._snapshot: SnapshotMeta | None = None
        # (sequence, last index vouched for, hard state carried), oldest first.
        self._in_flight: deque[tuple[int, int, HardState]] = deque()

    @property
    def is_idle(self) -> bool:
        """Everything handed over is on disk."""
        return self.handed_sequence == self.persisted_sequence

    def truncated(self, index: int) -> None:
        """Entries from ``index`` on are gone from the log; no write under way vouches for them any more."""
        if index <= self.handed_index:
            self._truncate_from = index if self._truncate_from is None else min(index, self._truncate_from)
            self.handed_index = index - 1
            if self._in_flight:
                self._in_flight = deque(
                    (sequence, min(last, index - 1), hard_state) for sequence, last, hard_state in self._in_flight
                )
        self.durable_index = min(self.durable_index, index - 1)

    def restored(self, snapshot: SnapshotMeta, keep_suffix: bool) -> None:
        """The log was replaced, or its head, by ``snapshot``.

        What storage holds after the snapshot stays there only if the log here keeps it; otherwise the unit says
        so with ``truncate_from``, so that no storage has to guess which of the two it is.
        """
        index = snapshot.last_included_index
        if not keep_suffix:
            self.truncated(index + 1)
            self._truncate_from = index + 1
        elif self._truncate_from is not None:
            self._truncate_from = max(self._truncate_from, index + 1)  # below it there is nothing left to remove
        # Entries up to the snapshot's index that were never handed over now never need to be.
        self.handed_index = max(self.handed_index, index)
        self._snapshot = snapshot

    def has_work(self, hard_state: HardState, log: RaftLog) -> bool:
        return (
            log.last_index > self.handed_index
            or hard_state != self._handed_hard_state
            or self._truncate_from is not None
            or self._snapshot is not None
        )

    def hand_over(self, hard_state: HardState, log: RaftLog, messages: tuple[Message, ...]) -> Persist:
        """The next unit of work: all that is not handed over yet, with the messages that must wait for it."""
        self.handed_sequence += 1
        entries = log.between(self.handed_index + 1, log.last_index) if log.last_index > self.handed_index else ()
        commit = log.commit_index if log.commit_index > self._handed_commit else None
        persist = Persist(
            sequence=self.handed_sequence,
            hard_state=hard_state if hard_state != self._handed_hard_state else None,
            snapshot=self._snapshot,
            truncate_from=self._truncate_from,
            entries=entries,
            commit_hint=commit,
            messages=messages,
        )
        self.handed_index = log.last_index
        self._handed_hard_state = hard_state
        self._handed_commit = log.commit_index
        self._truncate_from = None
        self._snapshot = None
        self._in_flight.append((self.handed_sequence, self.handed_index, hard_state))
        return persist

    def persisted(self, sequence: int) -> None:
        """Every unit up to ``sequence`` is on disk."""
        if not self.persisted_sequence < sequence <= self.handed_sequence:
            raise InvariantViolation(
                f"storage reported sequence {sequence}; expected {self.persisted_sequence + 1} "
                f"to {self.handed_sequence}"
            )
        self.persisted_sequence = sequence
        while self._in_flight and self._in_flight[0][0] <= sequence:
            _, last, self.durable_hard_state = self._in_flight.popleft()
            self.durable_index = max(self.durable_index, last)
