"""What a run looked like, for pictures: messages, roles, commits, crashes and cuts, with their times.

Recording is optional and bounded: after ``limit`` items the oldest part of the run is what is kept, which
is where the interesting thing of a shrunk plan is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lattice_core.raft.messages import AppendEntries, Message
from lattice_core.raft.ready import RoleChanged
from lattice_core.raft.types import NodeId

DEFAULT_LIMIT = 50_000


@dataclass(slots=True)
class Recorder:
    """Plain lists of tuples; times are nanoseconds of the world."""

    limit: int = DEFAULT_LIMIT
    messages: list[tuple[int, int | None, Message]] = field(default_factory=list)
    """(sent, received or None where lost, message)."""
    roles: list[tuple[int, NodeId, str, int, NodeId | None, str]] = field(default_factory=list)
    """(time, node, role, term, leader, reason)."""
    commits: list[tuple[int, NodeId, int, int]] = field(default_factory=list)
    """(time, node, index, term)."""
    notes: list[tuple[int, NodeId, str]] = field(default_factory=list)
    """(time, node or 0 for the world, text)."""
    cuts: list[tuple[int, int, list[tuple[NodeId, NodeId]]]] = field(default_factory=list)
    """(from, to, directed pairs)."""
    truncated: bool = False

    def sent(self, sent_ns: int, received_ns: int | None, message: Message) -> None:
        if len(self.messages) < self.limit:
            self.messages.append((sent_ns, received_ns, message))
        else:
            self.truncated = True

    def role(self, now_ns: int, node: NodeId, event: RoleChanged) -> None:
        self.roles.append((now_ns, node, event.role.value, event.term, event.leader_id, event.reason))

    def committed(self, now_ns: int, node: NodeId, index: int, term: int) -> None:
        if len(self.commits) < self.limit:
            self.commits.append((now_ns, node, index, term))

    def note(self, now_ns: int, node: NodeId, text: str) -> None:
        self.notes.append((now_ns, node, text))

    def cut(self, from_ns: int, to_ns: int, pairs: list[tuple[NodeId, NodeId]]) -> None:
        self.cuts.append((from_ns, to_ns, pairs))


def entries_text(message: AppendEntries) -> str:
    """ "3..7" for the indices that it carries; empty for a probe."""
    if not message.entries:
        return ""
    first, last = message.entries[0].index, message.entries[-1].index
    return str(first) if first == last else f"{first}..{last}"
