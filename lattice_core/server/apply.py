"""Committed entries into the state machine, a slice at a time.

An entry may hold thousands of operations, and there may be many entries; the loop must come round for
heartbeats. So applying stops after a few milliseconds, between two client batches or two steps of deleting a large
range, and goes on in the next turn (SAFETY 49: no big batch causes an election).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence

from lattice_core.kv import BatchResult, StateMachine
from lattice_core.raft.types import Entry
from lattice_core.server.clock import ClusterClock
from lattice_core.server.proposals import Proposal, Proposals
from lattice_core.server.state_hashes import StateHashes

SLICE_SECONDS = 0.005
"""A twentieth of a heartbeat. Looked at after each client batch, which is itself bounded (about 10 ms), and where the
state machine offers to pause in one."""


class Applier:
    """Feeds one state machine, in order, and hands each batch's result to whoever waits for it."""

    def __init__(self, machine: StateMachine, proposals: Proposals, clock: ClusterClock) -> None:
        self._machine = machine
        self._proposals = proposals
        self._clock = clock
        self._entries: deque[Entry] = deque()
        self._results: Iterator[BatchResult | None] | None = None
        self._callers: Iterator[Proposal] | None = None
        self.applied_bytes = 0
        """What the entries applied since the start took up in the log; tells how far it has grown."""
        self.hashes = StateHashes()
        self.hashes.begin_at(machine.applied_index, machine.state_hash)

    @property
    def has_work(self) -> bool:
        return self._results is not None or bool(self._entries)

    @property
    def between_entries(self) -> bool:
        """The state is exactly that of ``machine.applied_index``: no entry is half done."""
        return self._results is None

    @property
    def applied_index(self) -> int:
        return self._machine.applied_index

    def add(self, entries: Sequence[Entry]) -> None:
        """Committed entries, following those added before."""
        self._entries.extend(entries)

    def replace(self, machine: StateMachine, now_ns: int) -> None:
        """Go on with another machine, restored from a snapshot, instead of what was still to be applied.

        Everything handed over so far is covered by the snapshot: the core hands out nothing beyond it before
        it is told that the machine is there. Who waits for one of these entries is told that it is not known
        what came of it: the snapshot holds the state, not the results.
        """
        if self._callers is not None:
            for proposal in self._callers:
                self._proposals.unknown(proposal)
        self._results = None
        self._callers = None
        self._entries.clear()
        self._machine = machine
        self.hashes.begin_at(machine.applied_index, machine.state_hash)
        self._proposals.passed_over(machine.applied_index)
        self._clock.observe(machine.time_ms, now_ns)

    def run_slice(self, now_ns: int) -> bool:
        """Apply for at most about SLICE_SECONDS; True if ``applied_index`` moved.

        Raises a Fatal where the log holds what this version does not know: the node must stop (SAFETY 45).
        """
        machine = self._machine
        before = machine.applied_index
        deadline = time.perf_counter() + SLICE_SECONDS
        while True:
            if self._results is not None:
                if not self._apply_batches(deadline):
                    break
            elif self._entries:
                self._begin(self._entries.popleft())
                continue
            else:
                break
            if time.perf_counter() >= deadline:
                break
        if machine.applied_index == before:
            return False
        self._clock.observe(machine.time_ms, now_ns)
        return True

    def _begin(self, entry: Entry) -> None:
        payload = entry.payload
        self.applied_bytes += entry.size_bytes
        mine = self._proposals.decided(entry.index, entry.term)
        if not isinstance(payload, bytes):
            self._machine.skip(entry.index, entry.term)
            self.hashes.note(entry.index, self._machine.state_hash)
        elif mine is not None:
            decoded, proposals = mine
            self._callers = iter(proposals)
            self._results = iter(self._machine.begin(entry.index, entry.term, payload, decoded))
        else:
            self._callers = None
            self._results = iter(self._machine.begin(entry.index, entry.term, payload))

    def _apply_batches(self, deadline: float) -> bool:
        """Go on with the current entry; True when it is done."""
        results, callers = self._results, self._callers
        assert results is not None
        for result in results:
            if callers is not None and result is not None:
                self._proposals.finish(next(callers), result)
            if time.perf_counter() >= deadline:
                # The iterator may be at its end; finding out is the next slice's first step.
                return False
        self._results = None
        self._callers = None
        self.hashes.note(self._machine.applied_index, self._machine.state_hash)
        return True
