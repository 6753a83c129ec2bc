"""How the operator gets a change through: it asks, again and again, until the membership is as it wants it.

It asks whoever leads, or thinks so, and takes nobody's word for it: what counts is the newest configuration that is
committed anywhere. What it would not ask of any cluster it does not ask here either: that an id comes back, or that too
few living voters are left.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Final

from lattice_core.raft.config import MILLISECOND_NS
from lattice_core.raft.errors import Busy, NotLeader, Refused
from lattice_core.raft.membership import MembershipChange
from lattice_core.raft.types import Configuration, NodeId
from lattice_core.sim.plan import Change

if TYPE_CHECKING:
    from lattice_core.sim.node import SimNode
    from lattice_core.sim.world import World

ASK_AGAIN_MS: Final = (50, 500)


class Asking:
    """See the module's docstring."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.habits = world.plan.membership
        self.chance = world.stream("operator")
        self._resting = False
        """The world is healed: everything must come to its end, and whether it does is what is tested."""
        self._leaving: set[NodeId] = set()
        """Who is being removed, or has been."""
        self._never_again: set[NodeId] = set()
        """Whose removal some leader has begun: whatever came of it, they are never added again."""

    # ---- asking -------------------------------------------------------------------------------------

    @property
    def committed(self) -> Configuration:
        """The newest configuration that is committed anywhere."""
        return self.world.invariants.configurations[-1][1]

    def _ask(
        self, change: Change, wanted: MembershipChange, met: Callable[[Configuration], bool], ended: int
    ) -> Generator[int, None, bool]:
        """Ask until it is so. False: the operator has lost patience, or it must not be any more."""
        while self.committed.is_joint or not met(self.committed):
            if self._over(ended) or not self._is_possible(wanted):
                return False
            found = self.committed
            if not found.is_joint and not (
                all(number in found for number in wanted.remove) and self._leaves_enough(found, wanted)
            ):
                return False
            for node in self._leaders(change):
                self.world.later(self.chance.randint(200, 3000) * 1000, self._arrive, (node.id, wanted))
            yield self.chance.randint(*ASK_AGAIN_MS)
        return True

    def _wait_for_leader(self) -> Generator[int, None, None]:
        """For a while; there may be none for longer."""
        for _ in range(30):
            if self.world.leader() is not None:
                return
            yield 100

    def _leaders(self, change: Change) -> list[SimNode]:
        """Who is asked: see :class:`Change`."""
        if change.ask == "leader":
            leader = self.world.leader()
            return [leader] if leader is not None else []
        leading = [node for node in self.world.nodes.values() if node.raft is not None and node.raft.is_leader]
        if change.ask == "any" and leading:
            return [self.chance.choice(leading)]
        return leading

    def _arrive(self, item: tuple[NodeId, MembershipChange]) -> None:
        """The request has reached a server, which may not lead any more."""
        number, wanted = item
        world = self.world
        node = world.nodes.get(number)
        if node is None or node.raft is None:
            return
        if node.paused_until_ns > world.now_ns:
            world.at(node.paused_until_ns, self._arrive, item)
            return
        raft = node.raft
        if not self._is_possible(wanted) or not self._leaves_enough(raft.configuration, wanted):
            world.count("changes held back")
            return
        try:
            index = raft.propose_membership(wanted, node.clock_ns)
        except (NotLeader, Busy, Refused) as error:
            world.count(f"changes refused: {type(error).__name__}")
            return
        world.trace(7, number, index)
        world.count("changes begun")
        for leaver in sorted(wanted.remove):
            self._leaving.add(leaver)
            self._never_again.add(leaver)
            if leaver != number and leaver in world.nodes:
                world.nemesis.leaving(leaver)
        node.pump()

    def _is_possible(self, wanted: MembershipChange) -> bool:
        """No id comes back, and nobody is added who is dead."""
        return not any(
            one.id in self._never_again or one.id in self.world.gone
            for one in (*wanted.add_voters, *wanted.add_learners)
        )

    def _leaves_enough(self, current: Configuration, wanted: MembershipChange) -> bool:
        """What a server's manager would insist on: the rest has a quorum of living voters."""
        voters = (current.voters | {one.id for one in wanted.add_voters}) - wanted.remove
        if wanted.remove & current.voters and len(voters) < min(self.habits.min_voters, len(current.voters)):
            return False
        return 2 * len(voters - self.world.gone) > len(voters)

    def _catch_up(self, numbers: Iterable[NodeId], ended: int) -> Generator[int, None, bool]:
        """Wait until the leader has seen them keep up. False: it will not be, or it took too long."""
        looks, before = 0, (0, 0)
        while not self._over(ended):
            found = self.committed
            if not self.world.gone.isdisjoint(numbers) or not all(number in found for number in numbers):
                return False  # dead, or removed by another change
            leader = self.world.leader()
            raft = leader.raft if leader is not None else None
            if raft is not None:
                progress = [raft.progress.get(number) for number in numbers]
                near = all(
                    one is not None and raft.last_index - one.match_index <= self.habits.lag_entries for one in progress
                )
                looks = looks + 1 if near and before == (raft.id, raft.term) else int(near)
                before = (raft.id, raft.term)
                if looks >= self.habits.looks:
                    return True
            yield self.habits.look_ms
        return False

    def _deadline(self) -> int:
        return self.world.now_ns + self.habits.patience_ms * MILLISECOND_NS

    def _over(self, ended: int) -> bool:
        return bool(self.habits.patience_ms) and not self._resting and self.world.now_ns > ended

    def _pick(self, numbers: list[NodeId], change: Change) -> NodeId | None:
        return numbers[change.pick % len(numbers)] if numbers else None
