"""Whether this member should be sent requests, and if not, why. Asked by /readyz and by gRPC's health service.

Ready: it knows a leader, so that it can serve or say who does; and its state has come at least as far as what was
known to be committed when it started, so that a stale read does not go back behind what it served before. Alive is
another question: a node whose loop turns is alive, whatever its cluster is like, and restarting it would not help.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lattice_core.server.node import Node


class Readiness:
    """One node's. ``draining`` is set once it has been told to stop."""

    def __init__(self, node: Node, committed_at_start: int) -> None:
        self._node = node
        self._committed_at_start = committed_at_start
        self.draining = False

    def reason(self) -> str | None:
        """Why not, in a few words for a person; None: it is ready."""
        node = self._node
        if node.failed.done():
            return f"it has failed: {node.failed.result()}"
        if self.draining:
            return "it is shutting down"
        if node.snapshots.installer.busy:
            return "its state is being replaced by a snapshot from the leader"
        applied = node.machine.applied_index
        if applied < self._committed_at_start:
            return f"its state is at entry {applied}, and {self._committed_at_start} was committed before it started"
        if node.core.leader_id is None:
            return "no leader is known"
        return None
