"""What a role can be asked; by default it has nothing to say to a message that is not for it.

A role object lives as long as the role does: what only a leader knows is born and dies with its
:class:`~lattice_core.raft.leader.Leader`, so nothing of an earlier term can leak into a later one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from lattice_core.raft.errors import InvariantViolation, NotLeader
from lattice_core.raft.messages import (
    AppendConflict,
    AppendEntries,
    AppendSuccess,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    PreVoteResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
    VoteResponse,
)
from lattice_core.raft.types import NodeId, Role

if TYPE_CHECKING:
    from lattice_core.raft.node import RaftNode


class RoleState:
    """Base of the roles. Messages reach it only in the node's own term."""

    role: ClassVar[Role]
    deadline_ns: int
    """When ``on_deadline`` is wanted."""

    def __init__(self, node: RaftNode) -> None:
        self.node = node

    def on_deadline(self) -> None:
        raise NotImplementedError  # every role has a timer

    def election_deadline(self) -> int | None:
        """When this role would campaign (again); None: it waits for no election."""
        return None

    def on_leave(self) -> None:
        """The role has ended, another is in its place; tell whoever waits for something that now will not come."""

    def flush(self) -> None:
        """A Ready is about to be built: send what was left to be gathered."""

    def on_persisted(self) -> None:
        """More of the log, or the vote, is durable."""

    def on_configuration_changed(self) -> None:
        """Another configuration is in force."""

    def on_vote_granted(self) -> None:
        """This server has just given its vote to another."""

    # Messages of a leader in this term end a candidacy; a leader cannot meet another in its own term.

    def _follow(self, sender: NodeId) -> RoleState:
        raise InvariantViolation(
            f"{self.node.name(self.node.id)} leads term {self.node.term}, and so claims {self.node.name(sender)}"
        )

    def on_append_entries(self, message: AppendEntries) -> None:
        self._follow(message.sender).on_append_entries(message)

    def on_heartbeat(self, message: Heartbeat) -> None:
        self._follow(message.sender).on_heartbeat(message)

    def on_install_snapshot(self, message: InstallSnapshot) -> None:
        self._follow(message.sender).on_install_snapshot(message)

    # Everything else is ignored unless a role says otherwise.

    def on_append_success(self, message: AppendSuccess) -> None:
        pass

    def on_append_conflict(self, message: AppendConflict) -> None:
        pass

    def on_heartbeat_response(self, message: HeartbeatResponse) -> None:
        pass

    def on_pre_vote_response(self, message: PreVoteResponse) -> None:
        pass

    def on_vote_response(self, message: VoteResponse) -> None:
        pass

    def on_timeout_now(self, message: TimeoutNow) -> None:
        pass

    def on_read_index_request(self, message: ReadIndexRequest) -> None:
        node = self.node
        node.send(ReadIndexResponse(node.id, message.sender, node.term, message.request_id, None))

    def on_read_index_response(self, message: ReadIndexResponse) -> None:
        pass

    def on_unreachable(self, peer: NodeId) -> None:
        pass

    def on_snapshot_report(self, peer: NodeId, delivered: bool) -> None:
        pass

    def read_index(self, request_id: int) -> None:
        raise NotLeader(self.node.leader_id)

    def lease_read_index(self) -> int | None:
        return None
