"""Quorum arithmetic: the one place that divides by two.

A quorum of n voters is n // 2 + 1 (SAFETY 38). In a joint configuration everything must hold for the
incoming and for the outgoing voters (thesis section 4.3; SAFETY 37). Learners never count (SAFETY 36).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet

from lattice_core.raft.types import Configuration, NodeId


def majority(count: int) -> int:
    """How many of ``count`` voters are a quorum."""
    return count // 2 + 1


def is_quorum(configuration: Configuration, granted: AbstractSet[NodeId]) -> bool:
    """Whether the members in ``granted`` decide; members who are no voters are ignored."""
    voters = configuration.voters
    if not voters or len(voters & granted) < majority(len(voters)):
        return False
    outgoing = configuration.voters_outgoing
    return not outgoing or len(outgoing & granted) >= majority(len(outgoing))


def completing(configuration: Configuration, granted: NodeId, others: Iterable[NodeId]) -> list[NodeId]:
    """As many of ``others``, in their order, as decide together with ``granted``; all of them if they do not."""
    needed: list[NodeId] = []
    so_far = {granted}
    for other in others:
        if is_quorum(configuration, so_far):
            break
        needed.append(other)
        so_far.add(other)
    return needed


def is_lost(configuration: Configuration, refused: AbstractSet[NodeId]) -> bool:
    """Whether so many have refused that the rest can no longer be a quorum."""
    return not is_quorum(configuration, configuration.all_voters - refused)


def quorum_value(configuration: Configuration, value_of: Callable[[NodeId], int]) -> int:
    """The largest number that a quorum has reached: commit index from match indices, confirmed round
    from acknowledged rounds, and so on."""
    reached = _reached(configuration.voters, value_of)
    if configuration.voters_outgoing:
        reached = min(reached, _reached(configuration.voters_outgoing, value_of))
    return reached


def _reached(voters: Collection[NodeId], value_of: Callable[[NodeId], int]) -> int:
    values = sorted(map(value_of, voters), reverse=True)
    return values[majority(len(values)) - 1] if values else 0


def quorum_of(configuration: Configuration, values: Mapping[NodeId, int]) -> int:
    """:func:`quorum_value` over a mapping; who is not in it counts as 0."""
    return quorum_value(configuration, lambda node_id: values.get(node_id, 0))
