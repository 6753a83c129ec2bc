"""What a member that cannot serve a request tells the client: the error, and whom to ask instead."""

from __future__ import annotations

from lattice_core.errors import LatticeError, NoLeader, NotLeader, OutcomeUnknown
from lattice_core.raft.types import NodeId
from lattice_core.rpc.errors import to_detail
from lattice_core.rpc.pb import kv_pb2
from lattice_core.rpc.peers import PeerDirectory


class Hints:
    """Makes ErrorDetails that name the leader where one is known."""

    def __init__(self, directory: PeerDirectory) -> None:
        self._directory = directory

    def leader(self, leader_id: NodeId | None) -> kv_pb2.LeaderHint | None:
        """Who leads, with the address that clients use (empty as long as it has not said hello)."""
        if leader_id is None:
            return None
        return kv_pb2.LeaderHint(
            node_id=leader_id,
            name=self._directory.name_of(leader_id),
            client_addr=self._directory.client_addr_of(leader_id),
        )

    def not_leader(self, leader_id: NodeId | None) -> kv_pb2.ErrorDetail:
        """Known not applied: ask the leader, or wait for there to be one."""
        hint = self.leader(leader_id)
        if hint is None or leader_id == self._directory.local.node_id:
            return to_detail(NoLeader("there is no leader at the moment; an election may be under way"))
        return to_detail(NotLeader(f"{self._directory.local.name} is not the leader, {hint.name} is"), leader=hint)

    def outcome_unknown(self, leader_id: NodeId | None) -> kv_pb2.ErrorDetail:
        """In the log of a leader that is none any more: the next one decides."""
        hint = self.leader(leader_id) if leader_id != self._directory.local.node_id else None
        message = "leadership was lost before the write was decided; it may yet be applied"
        return to_detail(OutcomeUnknown(message), leader=hint)

    def error(self, error: LatticeError) -> kv_pb2.ErrorDetail:
        return to_detail(error)
