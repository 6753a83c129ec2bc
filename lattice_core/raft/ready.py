"""The contract between the pure core and whoever drives it.

The loop, for every driver (server, simulator, tests)::

    node.step(message, now_ns)          # or tick, propose, read_index, persisted, applied, ...
    if node.has_ready():
        ready = node.ready()
        send(ready.messages)                        # 1. depends on nothing below
        if ready.persist: storage.submit(ready.persist)   # 2. in order of sequence; when durable:
                                                    #        send(persist.messages)
                                                    #        node.persisted(persist.sequence, now_ns)
        apply(ready.committed)                      # 3. in order; then node.applied(index, now_ns)
        release(ready.reads)                        # 4. answer these reads from the applied state

Steps 1, 2 and 3 may overlap in time; each is ordered within itself. The core may be called again while
earlier Readys are still being persisted or applied: it keeps count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from lattice_core.raft.messages import Message
from lattice_core.raft.types import Configuration, Entry, HardState, NodeId, Role, SnapshotMeta


@dataclass(frozen=True, slots=True)
class Persist:
    """One unit of work for the storage thread; several may be in flight, strictly in order of sequence."""

    sequence: int
    """1, 2, 3, ... without a gap."""

    hard_state: HardState | None
    """Set when term or vote changed. Written before ``truncate_from`` and ``entries`` of the same unit."""

    snapshot: SnapshotMeta | None
    """Publish the received snapshot, let the log begin after it, restore the state machine from it, then
    call ``applied(last_included_index)``. Entries on disk beyond it stay (they may be acknowledged), unless
    ``truncate_from`` removes them or the log on disk does not reach it."""

    truncate_from: int | None
    """Remove the log's entries with this index and above before appending ``entries``; beside ``snapshot``
    it is always beyond that. There may be none."""

    entries: tuple[Entry, ...]
    """Append these; the first follows what the log holds after ``snapshot`` and ``truncate_from``."""

    commit_hint: int | None
    """A commit index that is true already; worth a record beside others, never worth an fsync."""

    messages: tuple[Message, ...]
    """Send these only when everything above, and every earlier Persist, is durable: votes, acknowledgements
    of entries, requests for votes. (SAFETY 1, 13.)"""

    @property
    def needs_sync(self) -> bool:
        """False: nothing to write; the unit only keeps ``messages`` behind earlier units."""
        return bool(
            self.entries or self.hard_state is not None or self.truncate_from is not None or self.snapshot is not None
        )


@dataclass(frozen=True, slots=True)
class ReadReleased:
    """Read ``request_id`` may be answered from the state machine now: applied has reached its index."""

    request_id: int
    index: int


@dataclass(frozen=True, slots=True)
class ReadRefused:
    """Read ``request_id`` cannot be confirmed here: leadership was lost or the leader did not answer."""

    request_id: int
    leader_id: NodeId | None


@dataclass(frozen=True, slots=True)
class RoleChanged:
    """Role, term or known leader changed; ``reason`` is a sentence for the log."""

    role: Role
    term: int
    leader_id: NodeId | None
    reason: str


@dataclass(frozen=True, slots=True)
class ConfigurationChanged:
    """This configuration is in force from now on (on append, or again after a truncation)."""

    index: int
    configuration: Configuration


@dataclass(frozen=True, slots=True)
class TransferEnded:
    """A leadership transfer that this node began is over.

    ``reason`` says why it failed. None: a newer term has begun, the target's unless another was faster.
    """

    target: NodeId
    reason: str | None


Event: TypeAlias = RoleChanged | ConfigurationChanged | TransferEnded


@dataclass(frozen=True, slots=True)
class Ready:
    """Everything that has to happen because of the inputs since the last Ready."""

    messages: tuple[Message, ...] = ()
    """Send at once: none of them depends on anything that is not durable yet."""

    persist: Persist | None = None
    """Hand to storage; see :class:`Persist`."""

    committed: tuple[Entry, ...] = ()
    """Committed entries not handed out before, in order. They need not be durable *here*: a quorum has
    them. Apply, then call ``applied`` with the last index."""

    reads: tuple[ReadReleased, ...] = ()
    refused_reads: tuple[ReadRefused, ...] = ()
    events: tuple[Event, ...] = ()
