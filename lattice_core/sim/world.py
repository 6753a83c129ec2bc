"""The world: virtual time, a network, machines, clients, and a nemesis, all decided by a plan.

Theory. Everything that happens is an event in one heap of (time, sequence, function, argument), taken in
order; nothing runs beside it. Chance comes from streams that the plan's seed names, one for each purpose,
so a run is a function of its plan: the same plan gives the same trace, in any process, under any
PYTHONHASHSEED. (No set or dict of hashed strings is iterated where order matters.) The trace hash covers
every event that touches a node.

The parts are in modules of their own: ``links.py`` the network, ``node.py`` a server, ``clients.py`` those who use it,
``nemesis.py`` what goes wrong,
``operator.py`` who changes the membership, ``invariants.py`` what must hold, ``healing.py`` how it ends.

What is simulated is what the core, the log and the state machine see through their seams. What is not: the
gRPC transport, asyncio, the storage thread; tests/cluster has those.
"""

from __future__ import annotations

import hashlib
import heapq
import random
import struct
import time
from collections.abc import Callable
from typing import Any, Final

from lattice_core.raft.config import MILLISECOND_NS
from lattice_core.raft.errors import InvariantViolation, RaftError
from lattice_core.raft.log import NO_CONFIGURATION
from lattice_core.raft.ready import ConfigurationChanged, RoleChanged
from lattice_core.raft.types import Configuration, Entry, NodeId, Role
from lattice_core.sim.clients import SimClient
from lattice_core.sim.healing import heal
from lattice_core.sim.invariants import Invariants
from lattice_core.sim.links import Links
from lattice_core.sim.nemesis import MERCY_NS, Nemesis
from lattice_core.sim.node import SimNode
from lattice_core.sim.operator import Operator, member
from lattice_core.sim.plan import MAX_DRIFT_PPM, Clock, Plan
from lattice_core.sim.recorder import Recorder
from lattice_core.sim.violation import Violation
from lattice_core.verify.history import Operation

STALL_NS: Final = 60_000 * MILLISECOND_NS
"""Without an acknowledged write for so long, most of it without new faults, the cluster has lost its liveness."""
_TRACE = struct.Struct("<QBIQ")


class World:
    """One run of one plan. ``run`` does all of it; a :class:`Violation` ends it."""

    def __init__(self, plan: Plan, recorder: Recorder | None = None) -> None:
        self.plan = plan
        self.recorder = recorder
        self.now_ns = 0
        self.events = 0
        self.counters: dict[str, int] = {}
        self.history: list[Operation] = []
        self.acknowledged_writes = 0
        self.last_write_ns = 0
        """When a write was last acknowledged."""
        self.configuration = Configuration.of_voters(member(number) for number in range(1, plan.nodes + 1))
        self.invariants = Invariants(self.configuration)
        self._heap: list[tuple[int, int, Callable[[Any], None], Any]] = []
        self._sequence = 0
        self.hash = hashlib.blake2b(digest_size=16)
        self.links = Links(self)
        self.transmit = self.links.transmit
        self.nemesis = Nemesis(self)
        self.nodes = {
            number: SimNode(self, number, plan.clocks[number - 1], self.configuration)
            for number in range(1, plan.nodes + 1)
        }
        self.addresses = tuple(self.nodes)
        """Every server there is, in order of age."""
        self.gone: set[NodeId] = set()
        """Who is dead for good: what was on their disks is lost."""
        self.joined = 0
        self.operator = Operator(self)
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
        self.hash.update(_TRACE.pack(self.now_ns, kind, node, detail & 0xFFFFFFFFFFFFFFFF))

    @property
    def trace_hash(self) -> str:
        return self.hash.hexdigest()

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
        self.operator.begin()
        for fault in self.plan.faults:
            self.at(fault.at_ms * MILLISECOND_NS, self.nemesis.inject, fault)
        end_ns = self.plan.duration_ms * MILLISECOND_NS
        step_ns = 10_000 * MILLISECOND_NS
        shown = time.monotonic()
        while self.now_ns < end_ns:
            self.run_until(min(self.now_ns + step_ns, end_ns))
            if self.now_ns - self.last_write_ns > STALL_NS:
                raise Violation(
                    "progress",
                    f"no write was acknowledged for {STALL_NS // 1_000_000_000} s, and nothing new went wrong after "
                    f"{MERCY_NS // 1_000_000_000} s of that",
                )
            if progress is not None and time.monotonic() - shown > 0.2:
                shown = time.monotonic()
                progress(self)
        heal(self)

    # ---- what is reported ---------------------------------------------------------------------------

    def record(self, operation: Operation) -> None:
        self.history.append(operation)
        if operation.outcome == "ok" and operation.op != "get":
            self.acknowledged_writes += 1
            self.last_write_ns = self.now_ns
        self.trace(4, 0, len(self.history))

    def note(self, node: NodeId, text: str) -> None:
        if self.recorder is not None:
            self.recorder.note(self.now_ns, node, text)

    def role_changed(self, node: SimNode, event: RoleChanged) -> None:
        self.trace(5, node.id, event.term)
        if event.role is Role.LEADER:
            self.nemesis.elected(node)
        elif event.role is Role.CANDIDATE:
            self.nemesis.stands(node.id, event.term)
        if self.recorder is not None:
            self.recorder.role(self.now_ns, node.id, event)

    def configuration_changed(self, node: SimNode, event: ConfigurationChanged) -> None:
        self.trace(9, node.id, event.index)
        if self.recorder is not None:
            self.recorder.configured(self.now_ns, node.id, event.index, event.configuration)

    def committed(self, node: SimNode, entries: tuple[Entry, ...]) -> None:
        if self.recorder is not None:
            self.recorder.committed(self.now_ns, node.id, entries[-1].index, entries[-1].term)

    # ---- servers ------------------------------------------------------------------------------------

    def leader(self) -> SimNode | None:
        """Who leads, by the highest term."""
        leading = [node for node in self.nodes.values() if node.raft is not None and node.raft.role is Role.LEADER]
        return max(leading, key=lambda node: node.raft.term if node.raft is not None else 0) if leading else None

    def process_failed(self, node: SimNode, why: str) -> None:
        """The process ends by itself, as it should; somebody starts it again after a while."""
        self.count("processes ended by themselves")
        self.note(node.id, f"ends itself: {why}")
        node.end(power_lost=False)
        self.later(500 * MILLISECOND_NS, self.restart, node.id)

    def restart(self, number: NodeId) -> None:
        node = self.nodes.get(number)
        if node is not None:
            node.start()

    @property
    def running(self) -> int:
        """How many servers there are that are not dead for good."""
        return sum(1 for node in self.nodes.values() if not node.dead_for_good)

    def join(self, number: NodeId) -> None:
        """A new server, with an empty disk and no idea of any cluster."""
        drifting = any(clock.drift_ppm for clock in self.plan.clocks)
        draw = self.stream(f"clock-{number}")
        clock = Clock(draw.randint(0, 100_000_000), draw.randint(-MAX_DRIFT_PPM, MAX_DRIFT_PPM) if drifting else 0)
        self.trace(10, number, 0)
        self.joined += 1
        self.nodes[number] = SimNode(self, number, clock, NO_CONFIGURATION)
        self.addresses = tuple(self.nodes)
        self.nodes[number].start()

    def retire(self, number: NodeId) -> None:
        """A server is stopped for good, and its machine taken away."""
        self.trace(11, number, 0)
        self.note(number, "is stopped for good")
        node = self.nodes.pop(number)
        self.addresses = tuple(self.nodes)
        node.end(power_lost=False)
        node.dead_for_good = True
        self.gone.add(number)
        if self.recorder is not None:
            self.recorder.gone(self.now_ns, number)

    def kill(self, number: NodeId) -> None:
        """A server dies for good, and all that was on its disk with it; the machine is still there, and silent."""
        self.trace(12, number, 0)
        self.note(number, "is dead for good")
        node = self.nodes[number]
        node.end(power_lost=True)
        node.dead_for_good = True
        self.gone.add(number)
        self.count("servers that died for good")

    def may_lose(self, number: NodeId) -> bool:
        """Whether every configuration that is or may come to be in force keeps a quorum without this server."""
        lost = self.gone | {number}
        return all(
            2 * len(half - lost) > len(half)
            for configuration in self.invariants.possible_configurations()
            for half in (configuration.voters, configuration.voters_outgoing)
            if half
        )
