"""Random courses of events over a cluster: what may happen to it, one small number at a time.

A schedule is a list of steps; each is three small numbers, which hypothesis can shrink and a seeded random
source can draw by the thousand. :class:`~harness.Watch` looks at every step; ``heal`` asks for progress after.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from harness import CONFIG, MS, Cluster, members

from lattice_core.raft.config import RaftConfig
from lattice_core.raft.errors import Busy, NotLeader, Refused
from lattice_core.raft.membership import MembershipChange

Step = tuple[int, int, int]

TIGHT = RaftConfig(max_append_bytes=100, max_inflight_appends=3, max_inflight_bytes=400)
"""Small bounds, so that short schedules meet them."""


class Course:
    """A cluster to which things happen."""

    def __init__(self, size: int, seed: int = 0, *, membership: bool = True, tight: bool = False) -> None:
        spare = [size + 1, size + 2] if membership else []
        drift = {node_id: (-20_000, 0, 20_000)[(node_id + seed) % 3] for node_id in range(1, size + 3)}
        self.cluster = Cluster(size, spare=spare, seed=seed, config=TIGHT if tight else CONFIG, drift_ppm=drift)
        self.membership = membership
        self.reads = 0
        self.writes = 0
        self.weighted: list[Callable[[int, int], None]] = []
        for action, weight in (
            (self.deliver, 10),
            (self.deliver_many, 5),
            (self.drop, 2),
            (self.duplicate, 2),
            (self.pass_time, 5),
            (self.run, 3),
            (self.propose, 4),
            (self.read, 2),
            (self.lease_read, 2),
            (self.hold_disk, 1),
            (self.release_disk, 2),
            (self.crash, 1),
            (self.restart, 2),
            (self.cut, 1),
            (self.heal_link, 1),
            (self.transfer, 1),
            (self.compact, 1),
            (self.change, 1 if membership else 0),
        ):
            self.weighted += [action] * weight

    def step(self, step: Step) -> None:
        choice, first, second = step
        self.weighted[choice % len(self.weighted)](first, second)

    def _server(self, number: int) -> int:
        ids = sorted(self.cluster.servers)
        return ids[number % len(ids)]

    def _leader(self, number: int) -> int | None:
        leading = [server.id for server in self.cluster.up if server.node.is_leader]
        return leading[number % len(leading)] if leading else None

    def deliver(self, first: int, second: int) -> None:
        flying = self.cluster.in_flight
        if flying:
            # Mostly in order, sometimes not.
            self.cluster.deliver(flying[first % len(flying) if second % 4 == 0 else 0])

    def deliver_many(self, first: int, second: int) -> None:
        for _ in range(first % 40):
            self.deliver(0, 1)

    def drop(self, first: int, second: int) -> None:
        flying = self.cluster.in_flight
        if flying:
            envelope = flying.pop(first % len(flying))
            self.cluster._not_delivered(envelope.message)

    def duplicate(self, first: int, second: int) -> None:
        flying = self.cluster.in_flight
        if flying:
            self.cluster.duplicate(flying[first % len(flying)])

    def pass_time(self, first: int, second: int) -> None:
        self.cluster.pass_time((first % 16 * 40 + 1) * MS)
        self.cluster.tick_due()

    def run(self, first: int, second: int) -> None:
        self.cluster.run((first % 16 * 20 + 1) * MS)

    def propose(self, first: int, second: int) -> None:
        leader = self._leader(second)
        if leader is None:
            return
        try:
            for _ in range(first % 5 + 1):
                self.writes += 1
                self.cluster[leader].propose(b"%d" % self.writes)
        except (NotLeader, Busy):
            pass

    def read(self, first: int, second: int) -> None:
        server = self.cluster[self._server(first)]
        if not server.down:
            self.reads += 1
            try:
                server.read(self.reads)
            except (NotLeader, Busy):
                pass

    def lease_read(self, first: int, second: int) -> None:
        for server in self.cluster.up:
            server.lease_read()

    def hold_disk(self, first: int, second: int) -> None:
        self.cluster[self._server(first)].disk.held = True

    def release_disk(self, first: int, second: int) -> None:
        server = self.cluster[self._server(first)]
        if not server.down:
            server.release_disk(second % 3 or None)

    def crash(self, first: int, second: int) -> None:
        self.cluster[self._server(first)].crash()

    def restart(self, first: int, second: int) -> None:
        server = self.cluster[self._server(first)]
        if server.down:
            self.cluster.restart(server.id)

    def cut(self, first: int, second: int) -> None:
        one, other = self._server(first), self._server(second)
        if one != other:
            self.cluster.cut_one_way(one, other)
            if (first + second) % 2:
                self.cluster.cut_one_way(other, one)

    def heal_link(self, first: int, second: int) -> None:
        self.cluster.heal()

    def transfer(self, first: int, second: int) -> None:
        leader = self._leader(second)
        if leader is not None:
            try:
                self.cluster[leader].transfer(self._server(first))
            except Refused:
                pass

    def compact(self, first: int, second: int) -> None:
        server = self.cluster[self._server(first)]
        if not server.down:
            index = min(server.node.applied_index, server.node.durability.durable_index)
            if index > server.node.snapshot_index:
                server.compact(index, keep=second % 4)

    def change(self, first: int, second: int) -> None:
        leader = self._leader(second)
        if leader is None:
            return
        target = self._server(first)
        there = self.cluster[leader].node.configuration
        if target not in there:
            change = (
                MembershipChange(add_voters=members(target))
                if second % 2
                else MembershipChange(add_learners=members(target))
            )
        elif target in there.learners and second % 2:
            change = MembershipChange(add_voters=members(target))
        else:
            change = MembershipChange(remove=frozenset([target]))
        try:
            self.cluster[leader].change(change)
        except (Refused, Busy):
            pass

    def heal(self) -> None:
        """All damage ends: a leader must come, commit something new, and everybody of its configuration get it."""
        cluster = self.cluster
        cluster.heal()
        for server in cluster:
            server.disk.held = False
            if server.down:
                cluster.restart(server.id)
            else:
                server.release_disk()

        # A write may get lost with the leader that took it; a client would try again, and so do we.
        for _ in range(4):
            assert cluster.run_until(self._takes_a_write, 15_000 * MS), "no leader"
            if cluster.run_until(self._everybody_has_it, 5_000 * MS):
                break
        else:
            raise AssertionError("no progress")
        cluster.check_log_matching()

    def _takes_a_write(self) -> bool:
        leader = self.cluster.leader
        if leader is None:
            return False
        try:
            self.last = leader.propose(b"last")
        except Busy:
            return False
        return True

    def _everybody_has_it(self) -> bool:
        leader = self.cluster.leader
        if leader is None or leader.node.configuration.is_joint:
            return False
        present = [server for server in self.cluster if server.id in leader.node.configuration]
        return all(len(server.machine) >= self.last and server.machine == leader.machine for server in present)


def run_seed(seed: int, steps: int, **options: bool) -> Course:
    """A whole course from one number."""
    chance = random.Random(f"course {seed}")
    course = Course(chance.choice((3, 3, 4, 5)), seed, **options)
    for _ in range(steps):
        course.step((chance.getrandbits(16), chance.getrandbits(16), chance.getrandbits(16)))
    course.heal()
    return course
