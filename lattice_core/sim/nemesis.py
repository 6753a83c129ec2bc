"""The nemesis: carries out a plan's faults, some at their time, some when their moment has come.

A fault that waits for its moment (:data:`ARMED`) is armed at its time and strikes when the world reports what it
waits for: the leader has just appended, somebody was just elected, a vote was just given.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from lattice_core.raft.config import MILLISECOND_NS
from lattice_core.raft.errors import RaftError
from lattice_core.raft.log import NO_CONFIGURATION
from lattice_core.raft.messages import VoteResponse
from lattice_core.raft.ready import Persist
from lattice_core.raft.types import Configuration, NodeId
from lattice_core.sim.plan import LEADER, MEMBERSHIP_FAULTS, Fault

if TYPE_CHECKING:
    from lattice_core.sim.node import SimNode
    from lattice_core.sim.world import World

_ARMED_MS: Final = 3_000
"""How long a fault that waits for its moment (``isolate-after-append``) stays armed."""
_ARMED_FOR_CHANGE_MS: Final = 15_000
"""The same for a moment of a membership change: it may have to wait for other changes."""
MERCY_NS: Final = 6_000 * MILLISECOND_NS
"""After so long without an acknowledged write nothing more goes wrong until there is one. Faults that overlap can
leave no quorum for minutes; a run in which nothing happens finds nothing."""
FINAL: Final = 1.0
JOINT: Final = 2.0
ARMED: Final = (
    "isolate-after-append",
    "crash-after-append",
    "isolate-after-commit",
    "isolate-after-election",
    "crash-after-election",
    "crash-after-vote",
    "cut-after-transfer",
    "hold-votes",
    *MEMBERSHIP_FAULTS,
)
"""Faults that wait for their moment."""


class Nemesis:
    """See the module's docstring. ``struck`` counts what really happened, by kind."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.struck: dict[str, int] = {}
        self._armed: dict[str, tuple[int, Fault]] = {}
        self._held_votes: list[VoteResponse] = []

    def rest(self) -> None:
        """Nothing fails any more."""
        self._armed.clear()

    # ---- faults at their time -----------------------------------------------------------------------

    def inject(self, fault: Fault) -> None:
        world = self.world
        if world.now_ns >= world.plan.duration_ms * MILLISECOND_NS:
            return
        world.trace(6, fault.node, fault.at_ms)
        kind = fault.kind
        if self._merciful:
            world.count("faults held back")
            return
        if kind in MEMBERSHIP_FAULTS:
            self._armed[kind] = (world.now_ns + _ARMED_FOR_CHANGE_MS * MILLISECOND_NS, fault)
            return
        node = self._which(fault)
        if node is None:
            return
        if kind in ARMED:
            # It waits for its moment.
            self._armed[kind] = (world.now_ns + _ARMED_MS * MILLISECOND_NS, fault)
            if kind == "cut-after-transfer":
                self._transfer(fault)
            return
        if kind == "figure-8":
            self._figure_8(fault.at_ms)
        if self._strike(node, fault):
            self._count(fault, node.id)

    @property
    def _merciful(self) -> bool:
        return self.world.now_ns - self.world.last_write_ns > MERCY_NS

    def _which(self, fault: Fault) -> SimNode | None:
        if fault.node == LEADER:
            return self.world.leader()
        return self.world.nodes[self._at_place(fault.node)]

    def _at_place(self, place: int) -> NodeId:
        """The server that a fault names, counted round and round."""
        addresses = self.world.addresses
        return addresses[(place - 1) % len(addresses)]

    def _count(self, fault: Fault, node: NodeId) -> None:
        self.struck[fault.kind] = self.struck.get(fault.kind, 0) + 1
        if self.world.recorder is not None:
            self.world.recorder.fault(self.world.now_ns, fault, node)

    def _strike(self, node: SimNode, fault: Fault) -> bool:
        """Do it; False if there was nothing to do it to."""
        world, links = self.world, self.world.links
        kind, for_ns = fault.kind, fault.for_ms * MILLISECOND_NS
        everyone = list(world.nodes)
        others = [number for number in everyone if number != node.id]
        if kind in ("crash", "stop"):
            return self._end(node, for_ns, power_lost=kind == "crash")
        if kind == "bit-flip":
            return self._flip(node, for_ns)
        if kind == "transfer":
            return self._transfer(fault)
        if kind == "crash-all":
            for each in world.nodes.values():
                self._end(each, for_ns, power_lost=True)
        elif kind == "pause":
            self._pause(node, fault.for_ms)
        elif kind == "isolate":
            links.cut(links.all_of(node.id), for_ns)
        elif kind == "deaf":
            links.cut([(other, node.id) for other in others], for_ns)
        elif kind == "one-way":
            links.cut([(node.id, self._at_place(fault.other))], for_ns)
        elif kind == "split":
            left = [number for number in everyone if number <= node.id]
            right = [number for number in everyone if number > node.id]
            links.cut(links.between(left, right), for_ns)
        elif kind == "bridge":
            half = len(others) // 2
            links.cut(links.between(others[:half], others[half:]), for_ns)
        elif kind == "slow-link":
            links.slow([(node.id, self._at_place(fault.other))], fault.amount, for_ns)
        elif kind == "delay-answers":
            links.slow([(other, node.id) for other in others], fault.amount, for_ns)
            world.later(for_ns // 3, links.cut_item, (links.all_of(node.id), for_ns))
        elif kind == "slow-disk":
            node.slow_disk = fault.amount
            world.later(for_ns, self._undo_disk, node.id)
        elif kind == "enospc":
            node.fs.full = True
            world.later(for_ns, self._undo_disk, node.id)
        elif kind == "eio":
            node.fs.fail_next_sync = True
        elif kind == "garble":
            node.garble_next = True
        elif kind == "crash-in-write":
            node.crash_when = "write"
        return True

    def _figure_8(self, at_ms: int) -> None:
        """The three cuts of Figure 8, each waiting for its moment; where a server is, the moment decides."""
        steps = (
            Fault(at_ms, "isolate-after-append", for_ms=1500),
            Fault(at_ms + 50, "isolate-after-election", for_ms=2500),
            Fault(at_ms + 1600, "isolate-after-commit", for_ms=3000),
        )
        for step in steps:
            self.world.at(step.at_ms * MILLISECOND_NS, self.inject, step)

    def _end(self, node: SimNode, for_ns: int, *, power_lost: bool) -> bool:
        if node.raft is None:
            return False
        self.world.note(node.id, "loses power" if power_lost else "is killed")
        node.end(power_lost=power_lost)
        self.world.later(for_ns, self.world.restart, node.id)
        return True

    def _pause(self, node: SimNode, for_ms: int) -> None:
        world = self.world
        node.paused_until_ns = max(node.paused_until_ns, world.now_ns + for_ms * MILLISECOND_NS)
        world.note(node.id, f"stands still for {for_ms} ms")
        if world.recorder is not None:
            world.recorder.paused(world.now_ns, node.paused_until_ns, node.id)

    def _flip(self, node: SimNode, for_ns: int) -> bool:
        if node.dead_for_good or not self.world.may_lose(node.id):
            return False
        node.end(power_lost=True)
        where = node.fs.flip_bit("/data")
        if where is not None:
            self.world.note(node.id, f"loses power, and a bit flips in {where}")
            node.flipped = True
            self.world.gone.add(node.id)  # unless it turns out to be able to start
        self.world.later(for_ns, self.world.restart, node.id)
        return where is not None

    def _undo_disk(self, number: NodeId) -> None:
        node = self.world.nodes.get(number)
        if node is not None:
            node.slow_disk = 1.0
            node.fs.full = False

    def _transfer(self, fault: Fault) -> bool:
        leader = self.world.leader()
        if leader is None or leader.raft is None or leader.paused_until_ns > self.world.now_ns:
            return False
        target = self._at_place(fault.other) if fault.other else None
        if target == leader.id:
            target = None
        try:
            leader.raft.transfer_leader(target, leader.clock_ns)
        except RaftError:
            return False
        leader.pump()
        return True

    # ---- moments ------------------------------------------------------------------------------------

    def _moment(self, kind: str) -> Fault | None:
        armed = self._armed.pop(kind, None) if self._armed else None
        if armed is None or armed[0] < self.world.now_ns or self._merciful:
            return None
        self._count(armed[1], 0)
        return armed[1]

    def leader_appended(self, node: SimNode) -> None:
        """``node`` leads and has entries that are not committed."""
        if not self._armed:
            return
        links = self.world.links
        fault = self._moment("isolate-after-append")
        if fault is not None:
            links.cut(links.all_of(node.id), fault.for_ms * MILLISECOND_NS)
        fault = self._moment("crash-after-append")
        if fault is not None:
            self.world.later(0, self._crash_now, (node.id, fault.for_ms))

    def leader_committed(self, node: SimNode) -> None:
        """The leader's commit index has moved; nothing that says so has left it."""
        if self._armed:
            fault = self._moment("isolate-after-commit")
            if fault is not None:
                links = self.world.links
                links.cut(links.all_of(node.id), fault.for_ms * MILLISECOND_NS)

    def elected(self, node: SimNode) -> None:
        if not self._armed:
            return
        world, links = self.world, self.world.links
        fault = self._moment("isolate-after-election")
        if fault is not None:
            cut = (links.all_of(node.id), fault.for_ms * MILLISECOND_NS)
            if fault.amount:
                world.later(int(fault.amount * MILLISECOND_NS), links.cut_item, cut)
            else:
                links.cut(*cut)  # before its first message leaves
        fault = self._moment("crash-after-election")
        if fault is not None:
            world.later(int(fault.amount * MILLISECOND_NS), self._crash_now, (node.id, fault.for_ms))

    def stands(self, candidate: NodeId, term: int) -> None:
        """``candidate`` campaigns in ``term``: the copies of earlier votes for it arrive now."""
        if not self._held_votes:
            return
        held = [vote for vote in self._held_votes if vote.to == candidate and vote.term < term]
        for vote in held:
            self._held_votes.remove(vote)
            self.world.later(MILLISECOND_NS, self.world.links.deliver, vote)
        if held:
            self.struck["hold-votes"] = self.struck.get("hold-votes", 0) + 1

    def vote_given(self, node: SimNode, vote: VoteResponse) -> None:
        if self._armed:
            if "hold-votes" in self._armed and len(self._held_votes) < 100:
                self._held_votes.append(vote)
            fault = self._moment("crash-after-vote")
            if fault is not None:
                self.world.later(0, self._crash_now, (node.id, fault.for_ms))

    def timeout_now_sent(self, node: SimNode, target: NodeId) -> None:
        if self._armed:
            fault = self._moment("cut-after-transfer")
            if fault is not None:
                # TimeoutNow itself arrives; nobody else hears of anything through the old leader.
                self.world.later(0, self._cut_off_old_leader, (node.id, target, fault.for_ms))

    def _cut_off_old_leader(self, item: tuple[NodeId, NodeId, int]) -> None:
        node, target, for_ms = item
        nodes = self.world.nodes
        pairs = [(other, node) for other in nodes if other != node]
        pairs += [(node, other) for other in nodes if other not in (node, target)]
        self.world.links.cut(pairs, for_ms * MILLISECOND_NS)

    def _crash_now(self, item: tuple[NodeId, int]) -> None:
        node = self.world.nodes.get(item[0])
        if node is not None:
            self._end(node, item[1] * MILLISECOND_NS, power_lost=True)

    def crash_in_write(self, node: SimNode) -> None:
        """A write is under way on ``node`` and not synced: now."""
        self.world.later(0, self._crash_now, (node.id, 300))

    # ---- moments of a membership change -------------------------------------------------------------

    def configuration_appended(self, node: SimNode, configuration: Configuration) -> None:
        """``node`` leads and has just appended ``configuration``; nothing of it has left the node."""
        if not self._armed:
            return
        links = self.world.links
        for kind in ("isolate-after-change", "crash-after-change", "pause-after-change", "eio-after-change"):
            armed = self._armed.get(kind)
            if armed is None or not _is_meant(armed[1], node):
                continue
            fault = self._moment(kind)
            if fault is None:
                continue
            if kind == "isolate-after-change":
                links.cut(links.all_of(node.id), fault.for_ms * MILLISECOND_NS)
            elif kind == "pause-after-change":
                self._pause(node, fault.for_ms)
            elif kind == "eio-after-change":
                node.fs.fail_next_sync = True
            else:
                self.world.later(0, self._crash_now, (node.id, fault.for_ms))
        if configuration.is_joint:
            fault = self._moment("split-joint")
            if fault is not None:
                side = _one_majority(node.id, configuration, new=bool(fault.amount))
                rest = [number for number in self.world.nodes if number not in side]
                links.cut(links.between(side, rest), fault.for_ms * MILLISECOND_NS)

    def spoils_answer(self, node: SimNode, group: list[Persist]) -> bool:
        """What ``node`` was given is on its disk, and nothing that says so has left it. True: now it loses power."""
        armed = self._armed.get("crash-before-answer")
        if armed is None or node.raft is None or node.raft.is_leader:
            return False
        found = any(type(entry.payload) is Configuration for persist in group for entry in persist.entries)
        fault = self._moment("crash-before-answer") if found and _is_meant(armed[1], node) else None
        if fault is None:
            return False
        self._crash_now((node.id, fault.for_ms))
        if fault.other:
            links = self.world.links
            links.cut(links.all_of(node.id), (fault.for_ms + 2000) * MILLISECOND_NS)
        return True

    def joiner_fed(self, node: SimNode) -> None:
        """A new server has got its first entries, or the first piece of a snapshot."""
        node.joining = False
        if not self._armed:
            return
        world, links = self.world, self.world.links
        fault = self._moment("crash-joiner")
        if fault is not None:
            world.later(int(fault.amount * MILLISECOND_NS), self._crash_now, (node.id, fault.for_ms))
        fault = self._moment("isolate-joiner")
        if fault is not None:
            cut = (links.all_of(node.id), fault.for_ms * MILLISECOND_NS)
            world.later(int(fault.amount * MILLISECOND_NS), links.cut_item, cut)

    def leaving(self, number: NodeId) -> None:
        """A leader has just begun to remove this server; nothing of it has left the leader."""
        if not self._armed:
            return
        links = self.world.links
        fault = self._moment("cut-leaver")
        if fault is not None:
            links.cut(links.all_of(number), fault.for_ms * MILLISECOND_NS)
        fault = self._moment("crash-leaver")
        if fault is not None:
            self._crash_now((number, fault.for_ms))


def _is_meant(fault: Fault, node: SimNode) -> bool:
    """Whether the newest configuration in a log is one that the fault waits for: any, or by its ``amount`` 1, one that
    ends a joint one, 2, a joint one."""
    assert node.raft is not None
    *_, before, (_, newest) = ((0, NO_CONFIGURATION), *node.raft.log.configurations)
    return not fault.amount or (newest.is_joint if fault.amount == JOINT else before[1].is_joint)


def _one_majority(leader: NodeId, joint: Configuration, *, new: bool) -> list[NodeId]:
    """The leader and as few others as have a majority of one half of ``joint`` and none of the other; the other way
    round where that cannot be, and just the leader where neither can."""
    others = sorted(joint.all_voters - {leader})
    halves = (joint.voters, joint.voters_outgoing)
    for wanted, other in (halves, halves[::-1]) if new else (halves[::-1], halves):
        for size in range(len(others) + 1):
            for some in itertools.combinations(others, size):
                side = {leader, *some}
                if 2 * len(wanted & side) > len(wanted) and not 2 * len(other & side) > len(other):
                    return sorted(side)
    return [leader]
