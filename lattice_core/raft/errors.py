"""What the core raises, each named for what the caller does next. The server maps them to its own tree."""

from __future__ import annotations

from lattice_core.raft.types import NodeId


class RaftError(Exception):
    """Root of the core's errors. None of them has changed any state."""


class NotLeader(RaftError):
    """Ask ``leader_id`` instead; None: there is no leader yet, wait for an election."""

    def __init__(self, leader_id: NodeId | None) -> None:
        super().__init__(f"not the leader; the leader is {leader_id}")
        self.leader_id = leader_id


class Busy(RaftError):
    """Try again shortly: a bound is reached, or leadership is being handed over."""


class Refused(RaftError):
    """The request breaks a rule; the message says which. Waiting does not help unless it says so."""


class InvariantViolation(RaftError):
    """The core has found itself, its driver or its disk in a state that must not be. Stop the node."""
