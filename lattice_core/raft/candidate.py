"""Campaigning: first for pre-votes, which change nothing anywhere, then for votes (sections 5.2, thesis 9.6).

Only answers that arrive in the same role and term count, only those of current voters, and each voter once
(SAFETY 3). The candidate's own vote counts when it is on disk, like anybody's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lattice_core.raft import quorum
from lattice_core.raft.messages import PreVoteRequest, PreVoteResponse, TimeoutNow, VoteRequest, VoteResponse
from lattice_core.raft.role import RoleState
from lattice_core.raft.types import NodeId, Role

if TYPE_CHECKING:
    from lattice_core.raft.node import RaftNode


class _Campaign(RoleState):
    """What both kinds of candidate share: a tally and a deadline."""

    def __init__(self, node: RaftNode) -> None:
        super().__init__(node)
        self.deadline_ns = node.draw_election_deadline()
        self.granted: set[NodeId] = set()
        self.refused: set[NodeId] = set()

    def begin(self) -> None:
        raise NotImplementedError  # both candidates ask for something

    def election_deadline(self) -> int:
        return self.deadline_ns

    def _electors(self) -> list[NodeId]:
        """The voters to ask, in a fixed order."""
        return sorted(self.node.configuration.all_voters - {self.node.id})

    def on_deadline(self) -> None:
        # A split vote, or nobody there: once more, after a new random wait (SAFETY 4).
        if self.node.may_campaign:
            self.node.become_pre_candidate("no majority answered in time")
        else:
            self.node.become_follower(self.node.term, None, "no longer a voter")

    def _follow(self, sender: NodeId) -> RoleState:
        node = self.node
        node.become_follower(node.term, sender, f"{node.name(sender)} leads")
        return node.state

    def _count(self, sender: NodeId, granted: bool) -> None:
        (self.granted if granted else self.refused).add(sender)
        if quorum.is_quorum(self.node.configuration, self.granted):
            self.won()
        elif quorum.is_lost(self.node.configuration, self.refused):
            self.node.become_follower(self.node.term, None, "a majority refused")

    def won(self) -> None:
        raise NotImplementedError  # both candidates win something

    def on_timeout_now(self, message: TimeoutNow) -> None:
        # It campaigns anyway; but its leader is alive after all, and vouches for it.
        self._follow(message.sender).on_timeout_now(message)

    def on_vote_granted(self) -> None:
        """Whoever gives its vote away stops asking for itself: winning would depose the one just voted for."""
        node = self.node
        node.become_follower(node.term, None, f"voted for {node.name(node.voted_for)}")
        node.state.on_vote_granted()


class PreCandidate(_Campaign):
    """Asks whether an election could be won; its term stays what it was."""

    role = Role.PRE_CANDIDATE

    def begin(self) -> None:
        node = self.node
        for peer in self._electors():
            node.send_at_once(PreVoteRequest(node.id, peer, node.term + 1, node.log.last_index, node.log.last_term))
        self._count(node.id, True)

    def on_pre_vote_response(self, message: PreVoteResponse) -> None:
        if message.granted and message.term != self.node.term + 1:
            return  # an answer to an earlier question
        self._count(message.sender, message.granted)

    def won(self) -> None:
        self.node.become_candidate("a majority would vote for this node")


class Candidate(_Campaign):
    """Asks for votes in a new term of its own."""

    role = Role.CANDIDATE

    def __init__(self, node: RaftNode, *, leadership_transfer: bool) -> None:
        super().__init__(node)
        self._leadership_transfer = leadership_transfer

    def begin(self) -> None:
        node = self.node
        for peer in self._electors():
            # Waits until the new term, and the vote for itself, are on disk.
            node.send(
                VoteRequest(
                    node.id,
                    peer,
                    node.term,
                    node.log.last_index,
                    node.log.last_term,
                    self._leadership_transfer,
                ),
                when_durable=True,
            )

    def on_persisted(self) -> None:
        durable = self.node.durability.durable_hard_state
        if durable.term == self.node.term and self.node.id not in self.granted:
            self._count(self.node.id, True)

    def on_vote_response(self, message: VoteResponse) -> None:
        self._count(message.sender, message.granted)

    def won(self) -> None:
        self.node.become_leader(f"elected by {len(self.granted)} of {len(self.node.configuration.all_voters)} voters")
