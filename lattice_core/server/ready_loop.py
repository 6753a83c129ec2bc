"""The loop that drives the core: take inputs, persist, send, apply, answer. The contract is raft/ready.py.

There is no task here. An input (a message, a client's batch, a finished fsync, the timer) calls the core
and *kicks* the loop, which schedules one pass with ``call_soon``; everything that arrives in the same turn
of the event loop shares that pass, and so one entry, one append per peer, one write to the disk.

On a follower, applying makes way for the log: an append brings new entries and the news that the ones before are
committed, the leader waits for the answer to the first and nobody for the second, and whichever thread writes the
log needs the interpreter. So that is applied when the log has come back, or after a few milliseconds all the same.

The timer follows the core's deadline. If it fires late, this process was held up (stopped, swapped out, a
long apply), and what others sent meanwhile is waiting unread: the loop lets input in before it lets the
core conclude that it has heard nothing (no needless elections).

Any exception in a pass ends the node: the state in memory may not be what the disk or others think.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from lattice_core.kv import StateMachine
from lattice_core.raft.errors import Refused
from lattice_core.raft.messages import InstallSnapshot, Message
from lattice_core.raft.node import RaftNode
from lattice_core.raft.ready import ConfigurationChanged, Event, Persist
from lattice_core.raft.types import NodeId, SnapshotMeta
from lattice_core.rpc.codec import MalformedMessage
from lattice_core.rpc.transport import PeerTransport
from lattice_core.server.apply import Applier
from lattice_core.server.clock import now_ns
from lattice_core.server.explain import Explanations
from lattice_core.server.metrics import NodeMetrics
from lattice_core.server.proposals import Proposals
from lattice_core.server.reads import Reads
from lattice_core.server.storage_thread import StorageThread
from lattice_core.server.tracing import NodeTracer

log = logging.getLogger("lattice.node")

LATE_SECONDS = 0.05
"""A timer later than this means that the process was held up: half a heartbeat."""

GRACE_SECONDS = 0.02
"""How long input is let in first then. gRPC needs a few turns to read what waits in the sockets."""

YIELD_SECONDS = 0.003
"""How long applying makes way at most: a disk that hangs must not keep what is committed from being read."""

QUIET_HEARTBEATS = 2
"""After a start, before the first tick: a leader dials within one heartbeat and sends the next."""


class SnapshotWork(Protocol):
    """What the loop hands on to whoever keeps the snapshots; nothing of it blocks."""

    def consider(self) -> None:
        """A pass is over: is a snapshot due?"""

    def send(self, message: InstallSnapshot) -> None:
        """Must end in :meth:`ReadyLoop.snapshot_sent`."""

    def durable(self, meta: SnapshotMeta) -> None:
        """A received snapshot is in force; must end in :meth:`ReadyLoop.restored`."""


class ReadyLoop:
    """Everything that touches the core goes through here, on one event loop.

    Attach what is declared below before :meth:`start`; most of it needs the callbacks of this object.
    """

    transport: PeerTransport
    storage: StorageThread
    snapshots: SnapshotWork

    def __init__(
        self,
        core: RaftNode,
        on_event: Callable[[Event], None],
        on_fatal: Callable[[BaseException], None],
        metrics: NodeMetrics | None = None,
        tracer: NodeTracer | None = None,
    ) -> None:
        self.core = core
        self._tracer = tracer
        self._metrics = metrics if metrics is not None else NodeMetrics()
        self.explanations: Explanations
        self.proposals: Proposals
        self.reads: Reads
        self.applier: Applier
        self.last_heard_leader_ns = now_ns()
        """When a leader of this term was last heard from (or this node started)."""
        self._on_event = on_event
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_ns = 0
        self._quiet_until_ns = 0
        self._thread_seconds = time.thread_time()
        self._process_seconds = time.process_time()
        self._in_grace = False
        self._yield_timer: asyncio.TimerHandle | None = None
        """Running while applying makes way for the log."""
        self._pass_watchers: list[asyncio.Future[None]] = []

    # -- inputs -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin. Whoever is not alone first gives a leader that may be there the time to say so: the core's first
        deadline may have passed while the state was loaded, and asking for votes then would only be noise."""
        core = self.core
        if core.configuration.all_voters != {core.id}:
            self._quiet_until_ns = now_ns() + QUIET_HEARTBEATS * core.config.heartbeat_interval_ns
        self._run_pass()

    def stop(self) -> None:
        """No pass runs after this."""
        self._stopped = True
        self._tell_watchers()
        if self._timer is not None:
            self._timer.cancel()
        if self._yield_timer is not None:
            self._yield_timer.cancel()

    @property
    def stopped(self) -> bool:
        return self._stopped

    def kick(self) -> None:
        """There is something to do: make a pass soon, one for all that comes until then."""
        if not self._scheduled and not self._stopped:
            self._scheduled = True
            self._loop.call_soon(self._run_pass)

    async def next_pass(self) -> None:
        """Return after the next pass, or when there will be none."""
        if self._stopped:
            return
        watcher = self._loop.create_future()
        self._pass_watchers.append(watcher)
        await watcher

    def receive(self, peer: NodeId, messages: Sequence[Message]) -> None:
        """Messages from a peer. Raises MalformedMessage for what no correct member sends (SAFETY 48)."""
        if self._stopped:
            return
        now = now_ns()
        core = self.core
        try:
            for message in messages:
                core.step(message, now)
        except Refused as error:
            raise MalformedMessage(str(error)) from None
        except Exception as error:
            self.fail(error)
            return
        finally:
            self.kick()
        progress = core.progress.get(peer)
        if progress is not None and (echo_ns := progress.take_echo_ns()) is not None:
            self._metrics.round_trip_seconds[peer].note(echo_ns / 1e9)
        if peer == core.leader_id:
            self.last_heard_leader_ns = now
        if self.explanations.watched:
            self.explanations.look()

    def durable(self, units: list[Persist]) -> None:
        """The storage thread has these on disk: their messages may go, and the core may count on them."""
        if self._stopped:
            return
        if self._tracer is not None:
            self._tracer.durable(units)
        for unit in units:
            if unit.messages:
                self.transport.send(unit.messages)
            if unit.snapshot is not None:
                self.snapshots.durable(unit.snapshot)
        try:
            self.core.persisted(units[-1].sequence, now_ns())
        except Exception as error:
            self.fail(error)
        if self.explanations.watched:
            self.explanations.look()
        self.kick()

    def unreachable(self, peer: NodeId) -> None:
        """Messages to this peer were dropped."""
        if not self._stopped:
            self.core.report_unreachable(peer, now_ns())
            self.kick()

    def snapshot_sent(self, peer: NodeId, term: int, delivered: bool) -> None:
        """Sending a snapshot, begun in ``term``, is over."""
        if not self._stopped and self.core.term == term:
            self.core.report_snapshot(peer, delivered, now_ns())
            self.kick()

    def restored(self, machine: StateMachine, now: int) -> None:
        """The state machine has been made anew from a snapshot: everything goes on from there."""
        if self._stopped:
            return
        self.applier.replace(machine, now)
        self.reads.replace(machine)
        try:
            self.core.applied(machine.applied_index, now)
        except Exception as error:
            self.fail(error)
            return
        self.reads.applied(machine.applied_index)
        self.kick()

    # -- the loop ---------------------------------------------------------------------------------

    def _run_pass(self) -> None:
        self._scheduled = False
        if self._stopped:
            return
        try:
            self._drive(now_ns())
        except Exception as error:
            self.fail(error)
            return
        if self.applier.has_work and self._yield_timer is None:
            self.kick()
        self._arm_timer()
        # Whose fault it is when the next timer is late: this thread's, another's of this process, or the machine's.
        self._thread_seconds = time.thread_time()
        self._process_seconds = time.process_time()
        if self._pass_watchers:
            self._tell_watchers()

    def _tell_watchers(self) -> None:
        watchers, self._pass_watchers = self._pass_watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)

    def _drive(self, now: int) -> None:
        core, applier = self.core, self.applier
        self.proposals.flush(now)
        self.reads.flush(now)
        if self.explanations.watched:
            self.explanations.look()
        sliced = False
        while core.has_ready():
            ready = core.ready()
            for event in ready.events:
                if type(event) is ConfigurationChanged:  # first: there must be a link before a message
                    self._on_event(event)
            if ready.messages:
                self._send(ready.messages)
            if ready.persist is not None:
                self._persist(ready.persist)
            applier.add(ready.committed)
            if self._tracer is not None:
                self._tracer.committed(ready.committed)
            if not sliced:
                sliced = True  # one slice in a pass: then other input has its turn
                self._apply(now)
            for event in ready.events:
                if type(event) is not ConfigurationChanged:  # last: what is committed has its answer then
                    self._on_event(event)
            self.reads.settle(ready.reads, ready.refused_reads)
        if not sliced and applier.has_work:
            self._apply(now)
            if core.has_ready():  # reads that waited for what has just been applied
                self.kick()
        self.snapshots.consider()

    def _persist(self, unit: Persist) -> None:
        self.storage.submit(unit)
        # Messages that wait for it: an answer to the leader (or a vote).
        if unit.messages and self.storage.queued and self._yield_timer is None:
            self._yield_timer = self._loop.call_later(YIELD_SECONDS, self._waited_long_enough)

    def _waited_long_enough(self) -> None:
        """The timer says so and no clock is asked again: of one that has whole milliseconds, as uvloop's has, three of
        them may be a little less than three."""
        self._yield_timer = None
        self.kick()

    def _apply(self, now: int) -> None:
        if self._yield_timer is not None:
            if self.storage.queued:
                return
            self._yield_timer.cancel()
            self._yield_timer = None
        if self.applier.run_slice(now):
            index = self.applier.applied_index
            self.core.applied(index, now)
            self.reads.applied(index)
            if self._tracer is not None:
                self._tracer.applied(index)

    def _send(self, messages: Sequence[Message]) -> None:
        if any(type(message) is InstallSnapshot for message in messages):
            for message in messages:
                if type(message) is InstallSnapshot:
                    self.snapshots.send(message)
            messages = [message for message in messages if type(message) is not InstallSnapshot]
        self.transport.send(messages)

    def fail(self, error: BaseException) -> None:
        """The node cannot go on."""
        self.stop()
        self._on_fatal(error)

    # -- time -------------------------------------------------------------------------------------

    def _arm_timer(self) -> None:
        """Have a timer no later than the deadline. One that is early is cheaper than moving it each pass."""
        deadline = max(self.core.next_deadline_ns, self._quiet_until_ns)
        if self._timer is not None:
            if self._timer_at_ns <= deadline:
                return
            self._timer.cancel()
        self._timer_at_ns = deadline
        seconds = (deadline - now_ns()) / 1e9
        # uvloop has whole milliseconds: less than one might be none, again and again until the deadline is there.
        self._timer = self._loop.call_later(max(0.001, seconds) if seconds > 0 else 0, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._stopped:
            return
        now = now_ns()
        late = (now - self._timer_at_ns) / 1e9
        if now >= self.core.next_deadline_ns:
            if late > LATE_SECONDS and not self._in_grace:
                self._metrics.held_up += 1
                log.info(
                    "held up for %.0f ms (since the last pass this thread ran for %.0f ms, the process for %.0f); "
                    "reading what has arrived before looking at the clock",
                    late * 1000,
                    (time.thread_time() - self._thread_seconds) * 1000,
                    (time.process_time() - self._process_seconds) * 1000,
                )
                self._in_grace = True
                self._timer = self._loop.call_later(GRACE_SECONDS, self._on_timer)
                return
            try:
                self.core.tick(now)
            except Exception as error:
                self.fail(error)
                return
        self._in_grace = False
        self._run_pass()
