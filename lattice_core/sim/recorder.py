"""What a run looked like, for pictures: messages, roles, logs, commits, crashes and cuts, with their times.

Recording is optional and bounded: of messages, writes and commits, which are many, the first ``limit`` from
``from_ns`` on are kept; what the logs were before that is folded into ``logs``. Everything else is rare and
kept from the start. A run is a function of its plan, so whoever wants to see another part of it runs the plan
again with another ``from_ns``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

from lattice_core.raft.log import RaftLog
from lattice_core.raft.messages import AppendEntries, Message
from lattice_core.raft.ready import Persist, RoleChanged
from lattice_core.raft.types import Configuration, Entry, NodeId
from lattice_core.sim.plan import Fault

DEFAULT_LIMIT = 50_000

Runs = tuple[tuple[int, int], ...]
"""Terms of consecutive entries, shortened: (term, how many)."""


def runs_of(entries: Iterable[Entry]) -> Runs:
    groups = itertools.groupby(entries, key=lambda entry: entry.term)
    return tuple((term, sum(1 for _ in group)) for term, group in groups)


class LogShape:
    """The terms of one node's log: ``runs`` are (term, last index of that term), both rising."""

    __slots__ = ("commit", "offset", "runs")

    def __init__(self, offset: int = 0, runs: Runs = (), commit: int = 0) -> None:
        self.offset = offset
        self.runs: list[tuple[int, int]] = []
        self.commit = commit
        self.append(runs)

    @property
    def last_index(self) -> int:
        return self.runs[-1][1] if self.runs else self.offset

    def term_at(self, index: int) -> int | None:
        """None beyond the end, and at or below ``offset``."""
        if index <= self.offset:
            return None
        return next((term for term, last in self.runs if index <= last), None)

    def append(self, runs: Runs) -> None:
        for term, count in runs:
            last = self.last_index + count
            if self.runs and self.runs[-1][0] == term:
                self.runs[-1] = (term, last)
            else:
                self.runs.append((term, last))

    def truncate_from(self, index: int) -> None:
        while self.runs and self.runs[-1][1] >= index:
            term, _ = self.runs.pop()
            if self.last_index < index - 1:
                self.runs.append((term, index - 1))

    def change(self, cut_from: int | None, first: int, runs: Runs) -> None:
        """One of ``Recorder.writes``."""
        if cut_from == 0:
            self.offset, self.runs = first - 1, []
        elif cut_from is not None:
            self.truncate_from(cut_from)
        self.append(runs)


@dataclass(slots=True)
class Recorder:
    """Plain lists of tuples; times are nanoseconds of the world."""

    limit: int = DEFAULT_LIMIT
    from_ns: int = 0
    messages: list[tuple[int, int | None, Message]] = field(default_factory=list)
    """(sent, received or None where lost, message); a duplicate follows the original, the same object."""
    roles: list[tuple[int, NodeId, str, int, NodeId | None, str]] = field(default_factory=list)
    """(time, node, role, term, leader, reason)."""
    commits: list[tuple[int, NodeId, int, int]] = field(default_factory=list)
    """(time, node, index, term)."""
    notes: list[tuple[int, NodeId, str]] = field(default_factory=list)
    """(time, node or 0 for the world, text)."""
    cuts: list[tuple[int, int, list[tuple[NodeId, NodeId]]]] = field(default_factory=list)
    """(from, to, directed pairs). Healing ends them all, earlier if need be: see ``healed_ns``."""
    ups: list[tuple[int, NodeId, int, int, Runs]] = field(default_factory=list)
    """(time, node, term, offset, the terms of its log after ``offset``): what it has recovered."""
    downs: list[tuple[int, NodeId, bool]] = field(default_factory=list)
    """(time, node, whether power was lost)."""
    configurations: list[tuple[int, NodeId, int, Configuration]] = field(default_factory=list)
    """(time, node, index of its entry, what is in force there from then on)."""
    ends: list[tuple[int, NodeId]] = field(default_factory=list)
    """(time, node): it is stopped for good, and taken away."""
    pauses: list[tuple[int, int, NodeId]] = field(default_factory=list)
    """(from, to, node)."""
    writes: list[tuple[int, NodeId, int | None, int, Runs]] = field(default_factory=list)
    """(time, node, cut off from this index on, first index appended, terms appended): what the core hands to
    its disk. 0 as the second means: the whole log is replaced."""
    faults: list[tuple[int, Fault, NodeId]] = field(default_factory=list)
    """(time, fault, the node that it struck or 0)."""
    logs: dict[NodeId, LogShape] = field(default_factory=dict)
    """What each log was at ``from_ns``."""
    healed_ns: int | None = None
    full_ns: int | None = None
    """From here on something is missing, because of ``limit``."""

    @property
    def truncated(self) -> bool:
        return self.full_ns is not None

    def sent(self, sent_ns: int, received_ns: int | None, message: Message) -> None:
        if sent_ns >= self.from_ns and self._room(len(self.messages), sent_ns):
            self.messages.append((sent_ns, received_ns, message))

    def role(self, now_ns: int, node: NodeId, event: RoleChanged) -> None:
        self.roles.append((now_ns, node, event.role.value, event.term, event.leader_id, event.reason))

    def committed(self, now_ns: int, node: NodeId, index: int, term: int) -> None:
        if now_ns < self.from_ns:
            self.logs[node].commit = index
        elif self._room(len(self.commits), now_ns):
            self.commits.append((now_ns, node, index, term))

    def note(self, now_ns: int, node: NodeId, text: str) -> None:
        self.notes.append((now_ns, node, text))

    def cut(self, from_ns: int, to_ns: int, pairs: list[tuple[NodeId, NodeId]]) -> None:
        self.cuts.append((from_ns, to_ns, pairs))

    def up(self, now_ns: int, node: NodeId, term: int, log: RaftLog) -> None:
        runs = runs_of(log.between(log.first_index, log.last_index))
        self.ups.append((now_ns, node, term, log.offset, runs))
        self.configured(now_ns, node, log.configuration_index, log.configuration)
        if now_ns < self.from_ns:
            self.logs[node] = LogShape(log.offset, runs)

    def down(self, now_ns: int, node: NodeId, *, power_lost: bool) -> None:
        self.downs.append((now_ns, node, power_lost))

    def configured(self, now_ns: int, node: NodeId, index: int, configuration: Configuration) -> None:
        self.configurations.append((now_ns, node, index, configuration))

    def gone(self, now_ns: int, node: NodeId) -> None:
        self.ends.append((now_ns, node))

    def paused(self, from_ns: int, to_ns: int, node: NodeId) -> None:
        self.pauses.append((from_ns, to_ns, node))

    def wrote(self, now_ns: int, node: NodeId, persist: Persist, log: RaftLog) -> None:
        """``log`` is what the core has now, with ``persist`` in it."""
        if persist.snapshot is not None:
            cut_from: int | None = 0
            first, entries = log.first_index, log.between(log.first_index, log.last_index)
        elif persist.entries or persist.truncate_from is not None:
            cut_from, entries = persist.truncate_from, persist.entries
            first = entries[0].index if entries else 0
        else:
            return
        if now_ns < self.from_ns:
            self.logs[node].change(cut_from, first, runs_of(entries))
        elif self._room(len(self.writes), now_ns):
            self.writes.append((now_ns, node, cut_from, first, runs_of(entries)))

    def fault(self, now_ns: int, fault: Fault, node: NodeId) -> None:
        self.faults.append((now_ns, fault, node))

    def _room(self, count: int, now_ns: int) -> bool:
        if count < self.limit:
            return True
        if self.full_ns is None:
            self.full_ns = now_ns
        return False


def entries_text(message: AppendEntries) -> str:
    """ "3..7" for the indices that it carries; empty for a probe."""
    if not message.entries:
        return ""
    first, last = message.entries[0].index, message.entries[-1].index
    return str(first) if first == last else f"{first}..{last}"
