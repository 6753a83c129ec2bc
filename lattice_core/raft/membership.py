"""Requests to change who belongs to the cluster, and the configurations they lead to.

A change of voters goes through a joint configuration (thesis section 4.3), whether it concerns one server
or several: one mechanism, and the one whose safety needs no side conditions. A change that touches
learners only is a single step, since learners are in no quorum.

Pure functions: the leader calls them, appends what they return, and the log does the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from lattice_core.raft.errors import Refused
from lattice_core.raft.types import Configuration, Member, NodeId


@dataclass(frozen=True, slots=True)
class MembershipChange:
    """What should be true afterwards; parts may be combined (a replacement adds and removes at once)."""

    add_voters: tuple[Member, ...] = ()
    """New servers, or learners to promote, that shall vote. Their ``promotion`` is over, so it is dropped."""
    add_learners: tuple[Member, ...] = ()
    """New learners, or learners whose ``promotion`` shall be another."""
    remove: frozenset[NodeId] = frozenset()


def next_configuration(current: Configuration, change: MembershipChange) -> Configuration:
    """The configuration to append for ``change``: joint if voters change, else final.

    Raises Refused where the change breaks a rule (SAFETY 33, 38).
    """
    if current.is_joint:
        raise Refused("a membership change is still under way; wait until it is finished")
    members = {member.id: member for member in current.members}
    for node_id in sorted(change.remove):
        if node_id not in members:
            raise Refused(f"member {node_id:016x} is not in the cluster")
    voters = set(current.voters) - change.remove
    learners = set(current.learners) - change.remove
    for member in _distinct(change.add_voters + change.add_learners):
        known = members.get(member.id)
        if known is not None and (known.name, known.peer_addr) != (member.name, member.peer_addr):
            raise Refused(f"member id {member.id:016x} is already {known.name} at {known.peer_addr}")
        if known is None:
            for other in members.values():
                if other.id in change.remove and other.id not in current.voters:
                    continue  # a learner leaves in this very step
                if other.name == member.name:
                    raise Refused(f"the name {member.name} is already a member's")
                if other.peer_addr == member.peer_addr:
                    raise Refused(f"the peer address {member.peer_addr} is already {other.name}'s")
        members[member.id] = member
    for member in change.add_voters:
        if member.id in change.remove:
            raise Refused(f"{member.name} cannot be added and removed at once")
        members[member.id] = replace(member, promotion=None)
        voters.add(member.id)
        learners.discard(member.id)
    for member in change.add_learners:
        if member.id in change.remove:
            raise Refused(f"{member.name} cannot be added and removed at once")
        if member.id in current.voters:
            raise Refused(f"{member.name} votes already; remove it first to make it a learner")
        learners.add(member.id)
    if not voters:
        raise Refused("the last voter cannot be removed")
    if voters == current.voters and learners == current.learners and tuple(members.values()) == current.members:
        raise Refused("nothing would change")
    outgoing = current.voters if voters != current.voters else frozenset()
    keep = voters | learners | outgoing
    return Configuration(
        members=tuple(member for node_id, member in members.items() if node_id in keep),
        voters=frozenset(voters),
        voters_outgoing=frozenset(outgoing),
        learners=frozenset(learners),
    )


def leave_joint(current: Configuration) -> Configuration:
    """The final configuration that a committed joint one leads to."""
    keep = current.voters | current.learners
    return Configuration(
        members=tuple(member for member in current.members if member.id in keep),
        voters=current.voters,
        learners=current.learners,
    )


def _distinct(members: Iterable[Member]) -> list[Member]:
    found: dict[NodeId, Member] = {}
    for member in members:
        if member.id in found:
            raise Refused(f"{member.name} is named twice in one change")
        found[member.id] = member
    return list(found.values())
