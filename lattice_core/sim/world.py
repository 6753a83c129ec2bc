"""The world: virtual time, a network, machines, clients, and a nemesis, all decided by a plan.

Theory. Everything that happens is an event in one heap of (time, sequence, function, argument), taken in
order; nothing runs beside it. Chance comes from streams that the plan's seed names, one for each purpose,
so a run is a function of its plan: the same plan gives the same trace, in any process, under any
PYTHONHASHSEED. (No set or dict of hashed strings is iterated where order matters.) The trace hash covers
every event that touches a node.

At the end the world heals: cuts go, the dead who may live are started, clients stop, and the cluster
must, within a bound of simulated time, elect a leader, take a write and agree on one state. Then every key
is read once more and the whole history is checked for linearizability.

What is simulated is what the core, the log and the state machine see through their seams. What is not: the
gRPC transport, asyncio, the storage thread; tests/cluster and tests/torture have those.
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import random
import struct
import time
from collections.abc import Callable
from typing import Any

from lattice_core.raft.config import MILLISECOND_NS
from lattice_core.raft.errors import InvariantViolation, RaftError
from lattice_core.raft.messages import Message, VoteResponse
from lattice_core.raft.ready import RoleChanged
from lattice_core.raft.types import Configuration, Entry, Member, NodeId, Role
from lattice_core.sim.clients import SimClient
from lattice_core.sim.invariants import Invariants, Violation
from lattice_core.sim.node import Answer, Request, SimNode
from lattice_core.sim.plan import LEADER, Fault, Plan
from lattice_core.sim.recorder import Recorder
from lattice_core.verify.history import Operation

HEAL_BOUND_MS = 30_000
"""After healing: an election or two, a client's deadline, and the slowest disk's backlog."""
_ARMED_MS = 3_000
"""How long a fault that waits for its moment (``isolate-after-append``) stays armed."""
ARMED = (
    "isolate-after-append",
    "crash-after-append",
    "isolate-after-commit",
    "isolate-after-election",
    "crash-after-election",
    "crash-after-vote",
    "cut-after-transfer",
    "hold-votes",
)
"""Faults that wait for their moment."""
_TRACE = struct.Struct("<QBIQ")


class World:
    """One run of one plan. ``run`` does all of it; a :class:`Violation` ends it."""

    def __init__(self, plan: Plan, recorder: Recorder | None = None) -> None:
        self.plan = plan
        self.recorder = recorder
        self.now_ns = 0
        self.events = 0
        self.faults: dict[str, int] = {}
        self.counters: dict[str, int] = {}
        self.history: list[Operation] = []
        self.acknowledged_writes = 0
        self.configuration = Configuration.of_voters(
            Member(number, f"n{number}", f"10.0.0.{number}:7500") for number in range(1, plan.nodes + 1)
        )
        self.invariants = Invariants(self.configuration)
        self._heap: list[tuple[int, int, Callable[[Any], None], Any]] = []
        self._sequence = 0
        self._hash = hashlib.blake2b(digest_size=16)
        self._network = plan.network
        self._net_chance = self.stream("links")
        self._cuts: dict[tuple[NodeId, NodeId], int] = {}
        self._extra_ns: dict[tuple[NodeId, NodeId], int] = {}
        self._armed: dict[str, tuple[int, Fault]] = {}
        self._held_votes: list[VoteResponse] = []
        self.nodes = {number: SimNode(self, number, plan.clocks[number - 1]) for number in range(1, plan.nodes + 1)}
        self.clients = [SimClient(self, number) for number in range(plan.callers)]

    def stream(self, name: str) -> random.Random:
        """A source of chance for one purpose."""
        return random.Random(f"{self.plan.seed}/{name}")

    # ---- time ---------------------------------------------------------------------------------------

    def at(self, time_ns: int, function: Callable[[Any], None], argument: Any) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (time_ns, self._sequence, function, argument))

    def later(self, delay_ns: int, function: Callable[[Any], None], argument: Any) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (self.now_ns + delay_ns, self._sequence, function, argument))

    def run_until(self, end_ns: int, done: Callable[[], bool] | None = None) -> bool:
        """Take events up to ``end_ns``; True as soon as ``done`` says so (asked now and then)."""
        heap, pop = self._heap, heapq.heappop
        count = 0
        while heap and heap[0][0] <= end_ns:
            self.now_ns, _, function, argument = pop(heap)
            function(argument)
            count += 1
            if done is not None and not count & 63 and done():
                self.events += count
                return True
        self.events += count
        self.now_ns = max(self.now_ns, end_ns)
        return done is not None and done()

    def trace(self, kind: int, node: NodeId, detail: int) -> None:
        self._hash.update(_TRACE.pack(self.now_ns, kind, node, detail & 0xFFFFFFFFFFFFFFFF))

    @property
    def trace_hash(self) -> str:
        return self._hash.hexdigest()

    def count(self, what: str, amount: int = 1) -> None:
        self.counters[what] = self.counters.get(what, 0) + amount

    # ---- the run ------------------------------------------------------------------------------------

    def run(self, progress: Callable[[World], None] | None = None) -> None:
        """Everything from the first start to the last check. Raises Violation."""
        try:
            self._run(progress)
        except InvariantViolation as error:
            raise Violation("core", str(error)) from error
        except RaftError as error:
            raise Violation("core", f"{type(error).__name__}: {error}") from error

    def _run(self, progress: Callable[[World], None] | None) -> None:
        for node in self.nodes.values():
            node.start()
        for client in self.clients:
            client.begin()
        for fault in self.plan.faults:
            self.at(fault.at_ms * MILLISECOND_NS, self._inject, fault)
        end_ns = self.plan.duration_ms * MILLISECOND_NS
        step_ns = 10_000 * MILLISECOND_NS
        shown = time.monotonic()
        while self.now_ns < end_ns:
            self.run_until(min(self.now_ns + step_ns, end_ns))
            if progress is not None and time.monotonic() - shown > 0.2:
                shown = time.monotonic()
                progress(self)
        self._heal()

    def _heal(self) -> None:
        """Nothing fails any more: the cluster must come together (liveness), and then agree."""
        self.note(0, "the world heals")
        if self.recorder is not None:
            self.recorder.healed_ns = self.now_ns
        self._armed.clear()
        self._cuts.clear()
        self._extra_ns.clear()
        self._network = dataclasses.replace(self._network, drop=0.0)
        for client in self.clients:
            client.stopped = True
        for node in self.nodes.values():
            node.fs.full = False
            node.fs.fail_next_sync = False
            node.slow_disk = 1.0
            node.garble_next = False
            node.crash_when = None
            if node.raft is None:
                node.start()
        self.run_until(self.now_ns + 2000 * MILLISECOND_NS)
        for node in self.nodes.values():  # who was to be started a little later
            if node.raft is None:
                node.start()
        bound_ns = self.now_ns + HEAL_BOUND_MS * MILLISECOND_NS
        if not self.run_until(bound_ns, lambda: not any(client.busy for client in self.clients)):
            raise Violation("progress", f"clients still wait {HEAL_BOUND_MS} ms after everything was healed")
        reader = SimClient(self, self.plan.callers)
        reader.stopped = True
        self.clients.append(reader)
        keys = sorted({operation.key for operation in self.history})
        recent = keys if len(keys) <= 50 else keys[-50:]
        for key in [b"after-healing", *recent]:
            if key == b"after-healing":
                reader.call("put", key, b"here", None, "write")
            else:
                reader.call("get", key, None, None, "read")
            self.run_until(self.now_ns + HEAL_BOUND_MS * MILLISECOND_NS, lambda: not reader.busy)
            if reader.busy or self.history[-1].outcome != "ok":
                raise Violation("progress", f"after healing, {self.history[-1].op} of {key!r} found no answer")
        alive = [node for node in self.nodes.values() if not node.dead_for_good]

        def agreed() -> bool:
            states = {(node.machine.applied_index, node.machine.state_hash) for node in alive if node.raft is not None}
            return len(states) == 1 and all(node.raft is not None for node in alive)

        if not agreed() and not self.run_until(self.now_ns + HEAL_BOUND_MS * MILLISECOND_NS, agreed):
            states = ", ".join(
                f"n{node.id} applied {node.machine.applied_index}" if node.raft is not None else f"n{node.id} is down"
                for node in alive
            )
            raise Violation("convergence", f"{HEAL_BOUND_MS} ms after healing the nodes differ: {states}")
        for node in alive:
            node.machine.check()

    # ---- the network --------------------------------------------------------------------------------

    def transmit(self, message: Message) -> None:
        link = (message.sender, message.to)
        network, chance = self._network, self._net_chance
        if self._cuts and link in self._cuts:
            self._lost(message)
            return
        if network.drop and chance.random() < network.drop:
            self._lost(message)
            return
        delay_ns = int((network.delay_min_us + chance.expovariate(1 / network.delay_mean_us)) * 1000)
        if self._extra_ns:
            delay_ns += self._extra_ns.get(link, 0)
        self.later(delay_ns, self._deliver, message)
        if self.recorder is not None:
            self.recorder.sent(self.now_ns, self.now_ns + delay_ns, message)
        if network.duplicate and chance.random() < network.duplicate:
            late = chance.random() < network.late_copies
            extra_us = 1_000_000 if late else 10 * network.delay_mean_us
            extra_ns = int(chance.expovariate(1 / extra_us) * 1000)
            self.later(delay_ns + extra_ns, self._deliver, message)
            if self.recorder is not None:
                self.recorder.sent(self.now_ns, self.now_ns + delay_ns + extra_ns, message)

    def connected(self, sender: NodeId, to: NodeId) -> bool:
        """Whether the link is up in both directions, as a stream needs it."""
        return (sender, to) not in self._cuts and (to, sender) not in self._cuts

    def _lost(self, message: Message) -> None:
        if self.recorder is not None:
            self.recorder.sent(self.now_ns, None, message)

    def _deliver(self, message: Message) -> None:
        node = self.nodes[message.to]
        if node.raft is None:
            return
        if node.paused_until_ns > self.now_ns:
            self.at(node.paused_until_ns, self._deliver, message)
            return
        self._hash.update(_TRACE.pack(self.now_ns, 1, message.to, message.term * 16 + message.sender))
        node.receive(message)

    def submit(self, target: NodeId, request: Request) -> None:
        """A client's request is on its way; clients' links fail with their node only."""
        chance = self._net_chance
        delay_ns = int((200 + chance.expovariate(1 / 300)) * 1000)
        self.later(delay_ns, self._arrive, (target, request))

    def _arrive(self, item: tuple[NodeId, Request]) -> None:
        target, request = item
        node = self.nodes[target]
        if node.raft is None:
            return
        if node.paused_until_ns > self.now_ns:
            self.at(node.paused_until_ns, self._arrive, item)
            return
        self.trace(2, target, request.client * 1_000_000 + request.attempt)
        node.request(request)

    def answer(self, node: SimNode, answer: Answer) -> None:
        delay_ns = int((200 + self._net_chance.expovariate(1 / 300)) * 1000)
        self.later(delay_ns, self.clients[answer.client].on_answer, answer)

    def record(self, operation: Operation) -> None:
        self.history.append(operation)
        if operation.outcome == "ok" and operation.op != "get":
            self.acknowledged_writes += 1
        self.trace(4, 0, len(self.history))

    # ---- what nodes report --------------------------------------------------------------------------

    def note(self, node: NodeId, text: str) -> None:
        if self.recorder is not None:
            self.recorder.note(self.now_ns, node, text)

    def role_changed(self, node: SimNode, event: RoleChanged) -> None:
        self.trace(5, node.id, event.term)
        if event.role is Role.LEADER and self._armed:
            self._elected(node)
        elif event.role is Role.CANDIDATE and self._held_votes:
            self._deliver_held_votes(node.id, event.term)
        if self.recorder is not None:
            self.recorder.role(self.now_ns, node.id, event)

    def committed(self, node: SimNode, entries: tuple[Entry, ...]) -> None:
        if self.recorder is not None:
            self.recorder.committed(self.now_ns, node.id, entries[-1].index, entries[-1].term)

    def process_failed(self, node: SimNode, why: str) -> None:
        """The process ends by itself, as it should; somebody starts it again after a while."""
        self.count("processes ended by themselves")
        self.note(node.id, f"ends itself: {why}")
        node.end(power_lost=False)
        self.later(500 * MILLISECOND_NS, self._restart, node.id)

    def leader(self) -> SimNode | None:
        """Who leads, by the highest term."""
        leading = [node for node in self.nodes.values() if node.raft is not None and node.raft.role is Role.LEADER]
        return max(leading, key=lambda node: node.raft.term if node.raft is not None else 0) if leading else None

    # ---- faults -------------------------------------------------------------------------------------

    def _which(self, fault: Fault) -> SimNode | None:
        return self.leader() if fault.node == LEADER else self.nodes[fault.node]

    def _inject(self, fault: Fault) -> None:
        if self.now_ns >= self.plan.duration_ms * MILLISECOND_NS:
            return
        self.trace(6, fault.node, fault.at_ms)
        node = self._which(fault)
        if node is None:
            return
        kind, for_ns = fault.kind, fault.for_ms * MILLISECOND_NS
        if kind in ARMED:
            # It waits for its moment.
            self._armed[kind] = (self.now_ns + _ARMED_MS * MILLISECOND_NS, fault)
            if kind == "cut-after-transfer":
                self._transfer(fault)
            return
        if kind == "figure-8":
            self._figure_8(fault.at_ms)
        done = True
        everyone = list(self.nodes)
        others = [number for number in everyone if number != node.id]
        if kind in ("crash", "stop"):
            done = self._end(node, for_ns, power_lost=kind == "crash")
        elif kind == "crash-all":
            for each in self.nodes.values():
                self._end(each, for_ns, power_lost=True)
        elif kind == "bit-flip":
            done = self._flip(node, for_ns)
        elif kind == "pause":
            node.paused_until_ns = max(node.paused_until_ns, self.now_ns + for_ns)
            self.note(node.id, f"stands still for {fault.for_ms} ms")
            if self.recorder is not None:
                self.recorder.paused(self.now_ns, node.paused_until_ns, node.id)
        elif kind == "isolate":
            self._cut(self._all_links(node.id), for_ns)
        elif kind == "deaf":
            self._cut([(other, node.id) for other in others], for_ns)
        elif kind == "one-way":
            self._cut([(node.id, fault.other)], for_ns)
        elif kind == "split":
            left = [number for number in everyone if number <= node.id]
            right = [number for number in everyone if number > node.id]
            self._cut([pair for a in left for b in right for pair in ((a, b), (b, a))], for_ns)
        elif kind == "bridge":
            half = len(others) // 2
            left, right = others[:half], others[half:]
            self._cut([pair for a in left for b in right for pair in ((a, b), (b, a))], for_ns)
        elif kind == "slow-link":
            self._slow([(node.id, fault.other)], fault.amount, for_ns)
        elif kind == "delay-answers":
            self._slow([(other, node.id) for other in others], fault.amount, for_ns)
            self.later(for_ns // 3, self._cut_later, (self._all_links(node.id), for_ns))
        elif kind == "slow-disk":
            node.slow_disk = fault.amount
            self.later(for_ns, self._undo_disk, node.id)
        elif kind == "enospc":
            node.fs.full = True
            self.later(for_ns, self._undo_disk, node.id)
        elif kind == "eio":
            node.fs.fail_next_sync = True
        elif kind == "garble":
            node.garble_next = True
        elif kind == "crash-in-write":
            node.crash_when = "write"
        elif kind == "transfer":
            done = self._transfer(fault)
        if done:
            self.faults[kind] = self.faults.get(kind, 0) + 1
            if self.recorder is not None:
                self.recorder.fault(self.now_ns, fault, node.id)

    def _figure_8(self, at_ms: int) -> None:
        """The three cuts of Figure 8, each waiting for its moment; where a server is, the moment decides."""
        steps = (
            Fault(at_ms, "isolate-after-append", for_ms=1500),
            Fault(at_ms + 50, "isolate-after-election", for_ms=2500),
            Fault(at_ms + 1600, "isolate-after-commit", for_ms=3000),
        )
        for step in steps:
            self.at(step.at_ms * MILLISECOND_NS, self._inject, step)

    def _end(self, node: SimNode, for_ns: int, *, power_lost: bool) -> bool:
        if node.raft is None:
            return False
        self.note(node.id, "loses power" if power_lost else "is killed")
        node.end(power_lost=power_lost)
        self.later(for_ns, self._restart, node.id)
        return True

    def _restart(self, number: NodeId) -> None:
        self.nodes[number].start()

    def _flip(self, node: SimNode, for_ns: int) -> bool:
        if node.dead_for_good:
            return False
        node.end(power_lost=True)
        where = node.fs.flip_bit("/data")
        if where is not None:
            self.note(node.id, f"loses power, and a bit flips in {where}")
            node.flipped = True
        self.later(for_ns, self._restart, node.id)
        return where is not None

    def _cut(self, pairs: list[tuple[NodeId, NodeId]], for_ns: int) -> None:
        for pair in pairs:
            self._cuts[pair] = self._cuts.get(pair, 0) + 1
        if self.recorder is not None:
            self.recorder.cut(self.now_ns, self.now_ns + for_ns, pairs)
        self.later(for_ns, self._mend, pairs)

    def _cut_later(self, item: tuple[list[tuple[NodeId, NodeId]], int]) -> None:
        self._cut(*item)

    def _mend(self, pairs: list[tuple[NodeId, NodeId]]) -> None:
        for pair in pairs:
            left = self._cuts.get(pair, 0) - 1
            if left > 0:
                self._cuts[pair] = left
            else:
                self._cuts.pop(pair, None)

    def _slow(self, pairs: list[tuple[NodeId, NodeId]], milliseconds: float, for_ns: int) -> None:
        for pair in pairs:
            self._extra_ns[pair] = int(milliseconds * MILLISECOND_NS)
        self.later(for_ns, self._unslow, pairs)

    def _unslow(self, pairs: list[tuple[NodeId, NodeId]]) -> None:
        for pair in pairs:
            self._extra_ns.pop(pair, None)

    def _undo_disk(self, number: NodeId) -> None:
        self.nodes[number].slow_disk = 1.0
        self.nodes[number].fs.full = False

    def _transfer(self, fault: Fault) -> bool:
        leader = self.leader()
        if leader is None or leader.raft is None or leader.paused_until_ns > self.now_ns:
            return False
        target = fault.other if fault.other not in (0, leader.id) else None
        try:
            leader.raft.transfer_leader(target, leader.clock_ns)
        except RaftError:
            return False
        leader.pump()
        return True

    # ---- moments that the nemesis waits for ---------------------------------------------------------

    def _moment(self, kind: str) -> Fault | None:
        armed = self._armed.pop(kind, None) if self._armed else None
        if armed is None or armed[0] < self.now_ns:
            return None
        self.faults[kind] = self.faults.get(kind, 0) + 1
        if self.recorder is not None:
            self.recorder.fault(self.now_ns, armed[1], 0)
        return armed[1]

    def leader_appended(self, node: SimNode) -> None:
        """``node`` leads and has entries that are not committed."""
        if not self._armed:
            return
        fault = self._moment("isolate-after-append")
        if fault is not None:
            self._cut(self._all_links(node.id), fault.for_ms * MILLISECOND_NS)
        fault = self._moment("crash-after-append")
        if fault is not None:
            self.later(0, self._crash_now, (node.id, fault.for_ms))

    def leader_committed(self, node: SimNode) -> None:
        """The leader's commit index has moved; nothing that says so has left it."""
        if self._armed:
            fault = self._moment("isolate-after-commit")
            if fault is not None:
                self._cut(self._all_links(node.id), fault.for_ms * MILLISECOND_NS)

    def _all_links(self, node: NodeId) -> list[tuple[NodeId, NodeId]]:
        return [pair for other in self.nodes if other != node for pair in ((node, other), (other, node))]

    def _deliver_held_votes(self, candidate: NodeId, term: int) -> None:
        held = [vote for vote in self._held_votes if vote.to == candidate and vote.term < term]
        for vote in held:
            self._held_votes.remove(vote)
            self.later(MILLISECOND_NS, self._deliver, vote)
        if held:
            self.faults["hold-votes"] = self.faults.get("hold-votes", 0) + 1

    def _elected(self, node: SimNode) -> None:
        fault = self._moment("isolate-after-election")
        if fault is not None:
            cut = (self._all_links(node.id), fault.for_ms * MILLISECOND_NS)
            if fault.amount:
                self.later(int(fault.amount * MILLISECOND_NS), self._cut_later, cut)
            else:
                self._cut(*cut)  # before its first message leaves
        fault = self._moment("crash-after-election")
        if fault is not None:
            self.later(int(fault.amount * MILLISECOND_NS), self._crash_now, (node.id, fault.for_ms))

    def vote_given(self, node: SimNode, vote: VoteResponse) -> None:
        if self._armed:
            if "hold-votes" in self._armed and len(self._held_votes) < 100:
                self._held_votes.append(vote)
            fault = self._moment("crash-after-vote")
            if fault is not None:
                self.later(0, self._crash_now, (node.id, fault.for_ms))

    def timeout_now_sent(self, node: SimNode, target: NodeId) -> None:
        if self._armed:
            fault = self._moment("cut-after-transfer")
            if fault is not None:
                # TimeoutNow itself arrives; nobody else hears of anything through the old leader.
                self.later(0, self._cut_off_old_leader, (node.id, target, fault.for_ms))

    def _cut_off_old_leader(self, item: tuple[NodeId, NodeId, int]) -> None:
        node, target, for_ms = item
        pairs = [(other, node) for other in self.nodes if other != node]
        pairs += [(node, other) for other in self.nodes if other not in (node, target)]
        self._cut(pairs, for_ms * MILLISECOND_NS)

    def _crash_now(self, item: tuple[NodeId, int]) -> None:
        self._end(self.nodes[item[0]], item[1] * MILLISECOND_NS, power_lost=True)

    def armed_crash(self, node: SimNode) -> None:
        """A write is under way on ``node`` and not synced: now."""
        self.later(0, self._crash_now, (node.id, 300))
