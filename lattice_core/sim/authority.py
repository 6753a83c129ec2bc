"""Which configuration is in force where, worked out from the logs and not from what the core believes.

Section 6 of the paper: a server uses the newest configuration in its log, committed or not. By Log Matching an entry,
named by index and term, has one history behind it, so one configuration is in force there: :class:`InForce` is a link
of that chain. Joint consensus is safe because of one property of the chain, which is checked here when a leader
lengthens it: whatever may decide by the new configuration shares a server with whatever may decide by any that is not
settled yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from lattice_core.raft.types import Configuration, NodeId

Halves = tuple[frozenset[NodeId], ...]


@dataclass(frozen=True, slots=True, eq=False)
class InForce:
    """``configuration``, of the entry ``index``, in force until the next; ``before`` was so until then."""

    index: int
    configuration: Configuration
    before: InForce | None


def halves(configuration: Configuration) -> Halves:
    """The sets of which a majority each must agree."""
    if configuration.voters_outgoing:
        return (configuration.voters, configuration.voters_outgoing)
    return (configuration.voters,)


def decides(configuration: Configuration, servers: set[NodeId]) -> bool:
    """Whether these servers together decide. Written apart from ``raft/quorum.py``, which is what is tested."""
    return all(2 * len(half & servers) > len(half) for half in halves(configuration))


@lru_cache(maxsize=4096)
def always_meet(one: Halves, other: Halves) -> bool:
    """Whether any two quorums, one of each, have a server in common.

    They do not if some set and the rest of the servers are a quorum each: with the few servers there are, all sets
    are tried.
    """
    if any(half in other for half in one):
        return True  # two majorities of the same set
    servers = sorted(frozenset().union(*one, *other))
    for bits in range(1 << len(servers)):
        some = {server for place, server in enumerate(servers) if bits >> place & 1}
        if all(2 * len(half & some) > len(half) for half in one) and all(
            2 * len(half - some) > len(half) for half in other
        ):
            return False
    return True


def describe(configuration: Configuration) -> str:
    """The configuration in words: who votes, who voted before, who only listens."""

    def names(numbers: Iterable[NodeId]) -> str:
        return " ".join(f"n{number}" for number in sorted(numbers)) or "nobody"

    text = f"voters {names(configuration.voters)}"
    if configuration.is_joint:
        text += f" together with {names(configuration.voters_outgoing)}"
    if configuration.learners:
        text += f", learners {names(configuration.learners)}"
    return text
