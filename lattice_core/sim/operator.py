"""The operator: carries out a plan's changes of membership, as whoever runs a cluster would.

Each change is a story of its own (a generator that says how many milliseconds it waits), and several are told at the
same time. It asks whoever leads, or thinks so, and asks again until the newest committed configuration is as it
wants it, or its patience is over. A new server starts with an empty disk, an id that was never used, and no
configuration at all; it joins as a learner and is promoted when the leader has seen it keep up for a while.

What the operator takes care of, the core cannot: that no change leaves too few living voters (a server's manager
refuses that too), and that an id is never used again. What it does not take care of is the core's to refuse: it asks
in the middle of other changes, asks deposed leaders, and now and then asks for nonsense.

Who was removed goes on running for a while, with what it knows, and is then stopped for good (SAFETY 35).
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Final

from lattice_core.raft.config import MILLISECOND_NS
from lattice_core.raft.errors import NotLeader, RaftError, Refused
from lattice_core.raft.leader import Leader
from lattice_core.raft.membership import MembershipChange
from lattice_core.raft.types import Member, NodeId, Promotion
from lattice_core.sim.asking import ASK_AGAIN_MS, Asking
from lattice_core.sim.plan import Change
from lattice_core.sim.violation import Violation

if TYPE_CHECKING:
    from lattice_core.sim.node import SimNode
    from lattice_core.sim.world import World

Story = Generator[int, None, str]
"""Yields milliseconds to wait; returns what became of it."""

_FAREWELL_MS: Final = 500
UNKNOWN: Final = 999_999
"""An id that no server has."""


def member(number: NodeId) -> Member:
    """The member that server ``number`` is."""
    return Member(number, f"n{number}", f"10.0.{number // 250}.{number % 250}:7500")


def _to_be_promoted(members: tuple[Member, ...]) -> tuple[Member, ...]:
    """Learners that are to vote one day; the core carries that for whoever leads then."""
    return tuple(dataclasses.replace(one, promotion=Promotion()) for one in members)


class Operator(Asking):
    """See the module's docstring. ``outcomes`` counts the changes by kind and by what became of them."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.outcomes: dict[str, int] = {}
        self._waiting: deque[Change] = deque()
        self._running: dict[int, Change] = {}
        self._tasks = 0
        self._joining: set[NodeId] = set()
        self._next_id = world.plan.nodes + 1

    def begin(self) -> None:
        for change in self.world.plan.changes:
            self.world.at(change.at_ms * MILLISECOND_NS, self._due, change)

    def rest(self) -> None:
        """The world heals: what is under way is brought to its end; nothing new is begun, unless all of it was to be
        done whatever happens."""
        self._resting = True
        if self.habits.patience_ms:
            self._waiting.clear()
        self._begin_waiting()

    @property
    def busy(self) -> bool:
        return bool(self._running or self._waiting)

    @property
    def under_way(self) -> list[str]:
        """The kinds of change that are not over."""
        return [change.kind for change in (*self._running.values(), *self._waiting)]

    # ---- stories ------------------------------------------------------------------------------------

    def _due(self, change: Change) -> None:
        if not self._resting or not self.habits.patience_ms:
            self._waiting.append(change)
            self._begin_waiting()

    def _begin_waiting(self) -> None:
        while self._waiting and len(self._running) < self.habits.at_once:
            change = self._waiting.popleft()
            self._tasks += 1
            self._running[self._tasks] = change
            self._step((self._tasks, self._story(change)))

    def _step(self, item: tuple[int, Story]) -> None:
        number, story = item
        try:
            wait_ms = next(story)
        except StopIteration as end:
            change = self._running.pop(number)
            self.outcomes[f"{change.kind}: {end.value}"] = self.outcomes.get(f"{change.kind}: {end.value}", 0) + 1
            self._begin_waiting()
            return
        self.world.later(wait_ms * MILLISECOND_NS, self._step, item)

    def _story(self, change: Change) -> Story:
        kind = change.kind
        if kind in ("add", "add-learner", "add-voter"):
            return self._with_other_servers(self._add, change)
        if kind in ("replace", "replace-dead", "several"):
            return self._with_other_servers(self._replace, change)
        if kind == "promote":
            return self._promote(change)
        if kind == "transfer":
            return self._transfer(change)
        if kind == "transfer-astray":
            return self._transfer_astray(change)
        if kind == "astray":
            return self._astray(change)
        return self._remove(change)

    def _with_other_servers(self, story: Callable[[Change], Story], change: Change) -> Story:
        """Again from the beginning if a new server has died, where nothing is given up."""
        while True:
            outcome = yield from story(change)
            if outcome == "done" or self.habits.patience_ms:
                return outcome
            yield self.chance.randint(*ASK_AGAIN_MS)

    def _add(self, change: Change) -> Story:
        number = self._new_id()
        if number is None:
            return "no room"
        late = change.kind != "add-voter" and change.pick % 4 == 3  # added first and started later
        if not late:
            self.world.join(number)
        ended = self._deadline()
        added = (member(number),)
        if change.kind == "add-voter":
            first = MembershipChange(add_voters=added)
        else:
            first = MembershipChange(add_learners=_to_be_promoted(added) if change.kind == "add" else added)
        done = yield from self._ask(change, first, lambda found: number in found, ended)
        if late:
            self.world.join(number)
        if done and change.kind == "add":
            done = yield from self._catch_up([number], ended)
            if done:
                promotion = MembershipChange(add_voters=added)
                done = yield from self._ask(change, promotion, lambda found: number in found.voters, ended)
        self._joining.discard(number)
        if not done:
            self._farewell((number, change.linger_ms))  # if nobody knows it, it is stopped one day
        return "done" if done else "given up"

    def _promote(self, change: Change) -> Story:
        number = self._pick(sorted(self.committed.learners - self._joining - self._leaving - self.world.gone), change)
        if number is None:
            return "nobody"
        ended = self._deadline()
        promotion = MembershipChange(add_voters=(member(number),))
        done = yield from self._catch_up([number], ended)
        if done:
            done = yield from self._ask(change, promotion, lambda found: number in found.voters, ended)
        return "done" if done else "given up"

    def _remove(self, change: Change) -> Story:
        yield from self._wait_for_leader()
        number = self._whom_to_remove(change)
        while number is None:
            if self.habits.patience_ms:
                return "nobody"
            yield self.chance.randint(*ASK_AGAIN_MS)
            number = self._whom_to_remove(change)
        done = yield from self._ask(
            change, MembershipChange(remove=frozenset([number])), lambda found: number not in found, self._deadline()
        )
        if not done and number in self.committed:
            self._leaving.discard(number)
        self._farewell((number, change.linger_ms))
        return "done" if done else "given up"

    def _whom_to_remove(self, change: Change) -> NodeId | None:
        world, found = self.world, self.committed
        leader = world.leader()
        leading = leader.id if leader is not None else None
        voters = sorted(found.voters - self._leaving)
        if change.kind == "remove-leader":
            return leading if leading in voters else None
        if change.kind == "remove-learner":
            return self._pick(sorted(found.learners - self._joining - self._leaving), change)
        if change.kind == "remove-follower":
            dead = [number for number in voters if number in world.gone]
            alive = [number for number in voters if number != leading and number not in world.gone]
            return self._pick(dead if dead and not self.habits.patience_ms else alive, change)
        return self._dead(change, voters, leading)

    def _dead(self, change: Change, voters: list[NodeId], leading: NodeId | None) -> NodeId | None:
        """A voter that is dead for good; if there is none, one that may be dies now."""
        world = self.world
        found = self._pick([number for number in voters if number in world.gone], change)
        if found is None:
            may_die = [number for number in voters if number in world.nodes and number != leading]
            found = self._pick([number for number in may_die if world.may_lose(number)], change)
            if found is not None:
                world.kill(found)
        return found

    def _replace(self, change: Change) -> Story:
        """New servers catch up as learners; one joint change makes them voters and removes as many others."""
        world = self.world
        numbers = [number for number in (self._new_id() for _ in range(change.count)) if number is not None]
        if not numbers:
            return "no room"
        ended = self._deadline()
        for number in numbers:
            world.join(number)
        added = tuple(member(number) for number in numbers)
        done = yield from self._ask(
            change,
            MembershipChange(add_learners=_to_be_promoted(added)),
            lambda found: all(number in found for number in numbers),
            ended,
        )
        if done:
            done = yield from self._catch_up(numbers, ended)
        leaving: list[NodeId] = []
        if done:
            leaving = self._whom_to_replace(change, len(numbers))
            wanted = MembershipChange(added, (), frozenset(leaving))
            done = yield from self._ask(
                change,
                wanted,
                lambda found: found.voters.issuperset(numbers) and not any(number in found for number in leaving),
                ended,
            )
        self._joining.difference_update(numbers)
        if not done:
            self._leaving.difference_update(number for number in leaving if number in self.committed)
        for number in leaving if done else numbers:
            self._farewell((number, change.linger_ms))
        return "done" if done else "given up"

    def _whom_to_replace(self, change: Change, count: int) -> list[NodeId]:
        world = self.world
        voters = sorted(self.committed.voters - self._leaving)
        if change.kind == "replace-dead":
            leader = world.leader()
            found = self._dead(change, voters, leader.id if leader is not None else None)
            return [] if found is None else [found]
        start = change.pick % max(1, len(voters))
        return (voters[start:] + voters[:start])[:count]

    def _transfer(self, change: Change) -> Story:
        ended = self._deadline()
        dead: set[NodeId] = set()
        while not self._over(ended):
            former = self.world.leader()
            if former is not None and former.raft is not None:
                term = former.raft.term
                others = sorted(self.committed.voters - {former.id} - dead)
                dead = self.world.gone  # tried once, perhaps, and never again
                if not others:
                    return "nobody"
                target = self._pick(others, change) if change.pick % 3 else None
                self._hand_over(former, target)
                for _ in range(15):
                    yield 100
                    leader = self.world.leader()
                    if leader is not None and leader.raft is not None and leader.raft.term > term:
                        return "done"
            yield self.chance.randint(*ASK_AGAIN_MS)
        return "given up"

    def _hand_over(self, leader: SimNode, target: NodeId | None) -> bool:
        raft = leader.raft
        if raft is None or leader.paused_until_ns > self.world.now_ns:
            return False
        try:
            chosen = raft.transfer_leader(target, leader.clock_ns)
        except (Refused, NotLeader):
            return False
        self.world.trace(8, leader.id, chosen)
        self.world.note(leader.id, f"is asked to hand leadership to n{chosen}")
        leader.pump()
        return True

    def _transfer_astray(self, change: Change) -> Story:
        """SAFETY 46: refused, or given up after an election timeout, and then commands are taken again."""
        yield from self._wait_for_leader()
        leader = self.world.leader()
        if leader is None or leader.raft is None:
            return "no leader"
        raft, incarnation, term = leader.raft, leader.incarnation, leader.raft.term
        found = self.committed
        dead = found.voters & self.world.gone
        targets = [*sorted(found.learners), *sorted(self._leaving), *sorted(dead), leader.id, UNKNOWN]
        target = self._pick(targets, change)
        if not self._hand_over(leader, target):
            return "refused"
        wait_ns = leader.config.election_timeout_max_ns + 500 * MILLISECOND_NS
        yield wait_ns // MILLISECOND_NS
        while leader.incarnation == incarnation and leader.paused_until_ns > self.world.now_ns:
            yield 500
        yield 100
        state = raft.state
        if leader.incarnation == incarnation and raft.term == term and isinstance(state, Leader):
            late = leader.clock_ns - state.transfer_deadline_ns > 200 * MILLISECOND_NS
            if late and state.transfer_target is not None:
                raise Violation("transfer", f"n{leader.id} still waits for n{state.transfer_target} to take over")
        return "given up by the leader"

    def _astray(self, change: Change) -> Story:
        """A change that breaks a rule (SAFETY 38): refused, whoever is asked, and nothing has changed."""
        yield from self._wait_for_leader()
        asked = [node for node in self._leaders(change) if node.paused_until_ns <= self.world.now_ns]
        for node in asked:
            raft = node.raft
            assert raft is not None
            current = raft.configuration
            some = sorted(current.voters)[change.pick % len(current.voters)]
            stranger = Member(UNKNOWN, "stranger", member(some).peer_addr)
            wrong = (
                MembershipChange(remove=current.voters),
                MembershipChange(remove=frozenset([UNKNOWN])),
                MembershipChange(add_voters=(member(some),)),
                MembershipChange(add_learners=(member(some),)),
                MembershipChange(add_voters=(stranger,)),
                MembershipChange(add_voters=(member(some),), remove=frozenset([some])),
                MembershipChange(),
            )[change.pick % 7]
            try:
                raft.propose_membership(wrong, node.clock_ns)
            except RaftError:
                if raft.configuration != current:
                    raise Violation("membership", f"n{node.id} refused {wrong}, and changed") from None
            else:
                raise Violation("membership", f"n{node.id} took a change that breaks a rule: {wrong}")
            yield 10
        return "refused" if asked else "no leader"

    # ---- machines -----------------------------------------------------------------------------------

    def _new_id(self) -> NodeId | None:
        """A fresh id, if there is room for one more server; who only lingers gives way."""
        world = self.world
        booked = sum(1 for number in self._joining if number not in world.nodes)
        if world.running + booked >= self.habits.max_servers and not self._resting:
            lingering = [
                number
                for number, node in world.nodes.items()
                if number in self._leaving and not node.dead_for_good and not self._is_needed(number)
            ]
            if not lingering:
                return None
            world.retire(lingering[0])
        number, self._next_id = self._next_id, self._next_id + 1
        self._joining.add(number)
        return number

    def _is_needed(self, number: NodeId) -> bool:
        """Whether a configuration that is or may come to be in force has this server."""
        return any(number in configuration for configuration in self.world.invariants.possible_configurations())

    def _farewell(self, item: tuple[NodeId, int]) -> None:
        """Stop a server for good, some time after no configuration that may be in force needs it any more."""
        number, linger_ms = item
        world = self.world
        if number not in world.nodes or self._resting:
            return
        if self._is_needed(number):
            if number in self.committed and number not in self._leaving:
                return  # it stays after all
            world.later(_FAREWELL_MS * MILLISECOND_NS, self._farewell, item)
            return
        if linger_ms:
            world.later(linger_ms * MILLISECOND_NS, self._farewell, (number, 0))
            return
        self._leaving.add(number)
        world.retire(number)
