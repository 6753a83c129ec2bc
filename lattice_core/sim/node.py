"""A simulated server: the real core, log and state machine, driven by the contract of ready.py.

It does what :mod:`lattice_core.server` does with asyncio, threads and gRPC, on the world's time. ``service.py`` has
what it does for clients, ``writer.py`` its log, ``snapshots.py`` its snapshots. A crash throws the volatile half
away; :meth:`SimNode.start` builds it again from the disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lattice_core.errors import Fatal, StorageDamaged, StorageFailed, UnknownCommand
from lattice_core.kv import SessionLimits, StateMachine
from lattice_core.raft.config import MILLISECOND_NS, RaftConfig
from lattice_core.raft.errors import Refused
from lattice_core.raft.log import NO_CONFIGURATION
from lattice_core.raft.messages import InstallSnapshot, Message, TimeoutNow, VoteResponse
from lattice_core.raft.node import RaftNode
from lattice_core.raft.ready import ConfigurationChanged, Event, Ready, RoleChanged
from lattice_core.raft.types import Configuration, Entry, NodeId, Role, SnapshotMeta
from lattice_core.sim.disk import SimFileSystem
from lattice_core.sim.durable import DurableLog
from lattice_core.sim.plan import Clock
from lattice_core.sim.service import Service
from lattice_core.sim.snapshots import CLUSTER_ID, SNAPSHOT_DIRECTORY, SnapshotKeeper, mark_of
from lattice_core.sim.violation import Violation
from lattice_core.sim.writer import Writer
from lattice_core.storage.errors import DiskFull
from lattice_core.storage.restart import restart
from lattice_core.storage.wal import Wal

if TYPE_CHECKING:
    from lattice_core.sim.world import World

WAL_DIRECTORY = "/data/wal"
GARBLED_VERSION = b"\xff"


class SimNode:
    """One server of the world. ``raft`` is None while it is down.

    Args:
        world: where it stands.
        node_id: its id, never used again.
        clock: its own clock against the world's.
        first: the configuration that its empty disk begins with.
    """

    def __init__(self, world: World, node_id: NodeId, clock: Clock, first: Configuration) -> None:
        self.world = world
        self.id = node_id
        self.first = first
        self.fs = SimFileSystem(world.stream(f"disk-{node_id}"))
        self.disk_chance = world.stream(f"fsync-{node_id}")
        self.core_chance = world.stream(f"core-{node_id}")
        self._clock_offset_ns = clock.offset_ms * MILLISECOND_NS
        self._clock_ppm = 1_000_000 + clock.drift_ppm
        settings = world.plan.settings
        self.config = RaftConfig(
            heartbeat_interval_ns=settings.heartbeat_ms * MILLISECOND_NS,
            election_timeout_min_ns=settings.election_min_ms * MILLISECOND_NS,
            election_timeout_max_ns=settings.election_max_ms * MILLISECOND_NS,
            max_append_bytes=settings.max_append_bytes,
            max_inflight_appends=settings.max_inflight_appends,
        )
        self.raft: RaftNode | None = None
        self.machine = StateMachine()
        self.disk = DurableLog()
        world.invariants.disks[node_id] = self.disk
        self.incarnation = 0
        """Raised by every start and end, so that events of an earlier life find nobody."""
        self.paused_until_ns = 0
        self.flipped = False
        """A bit of its log was flipped at rest: it must refuse to start."""
        self.dead_for_good = False
        self.joining = first is NO_CONFIGURATION
        """It has joined, and has nothing yet."""
        self.garble_next = False
        self.slow_disk = 1.0
        self.crash_when: str | None = None
        self.snapshots = SnapshotKeeper(self)
        self.service = Service(self)
        self.writer: Writer
        self._timer_at_ns = -1
        self._commit_seen = 0
        self._log_end = self._log_end_before = (0, 0)
        """Index and term of the last entry, when last looked at and the time before: what was committed since was
        decided by the configuration in force there."""
        self._match_seen: dict[NodeId, int] = {}
        self._match_term = 0

    # ---- clocks -------------------------------------------------------------------------------------

    @property
    def clock_ns(self) -> int:
        """This node's monotonic clock."""
        return self._clock_offset_ns + self.world.now_ns * self._clock_ppm // 1_000_000

    def _world_time(self, clock_ns: int) -> int:
        """When this node's clock will show ``clock_ns``."""
        return -((self._clock_offset_ns - clock_ns) * 1_000_000 // self._clock_ppm)

    # ---- life and death -----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, or begin again from what the disk has. A damaged log must be refused (SAFETY 17)."""
        world = self.world
        if self.raft is not None or self.dead_for_good:
            return
        segment_bytes = world.plan.settings.segment_bytes
        self.snapshots = SnapshotKeeper(self)
        machine: StateMachine | None = None
        try:
            if not (self.fs.exists(WAL_DIRECTORY) and self.fs.list_dir(WAL_DIRECTORY)):
                first = mark_of(SnapshotMeta(0, 0, self.first))
                Wal.create(
                    self.fs, WAL_DIRECTORY, CLUSTER_ID, self.id, segment_bytes=segment_bytes, initial=first
                ).close()
            begun = restart(
                self.fs, WAL_DIRECTORY, SNAPSHOT_DIRECTORY, CLUSTER_ID, self.id, segment_bytes=segment_bytes
            )
            state = begun.state
            if begun.snapshot_path is not None:
                machine = self.snapshots.load(begun.snapshot_path)
            self.snapshots.set_aside(begun.damaged_snapshots)
        except DiskFull:
            world.later(200 * MILLISECOND_NS, self._start_again, self.incarnation)
            return
        except StorageDamaged as error:
            if not self.flipped:
                raise Violation("recovery", f"n{self.id} refuses a log that nobody damaged: {error}") from error
            self.dead_for_good = True
            world.gone.add(self.id)
            world.count("damage refused")
            world.note(self.id, "refuses to start: its log is damaged")
            return
        except StorageFailed as error:
            if not self.fs.dead:
                raise Violation("recovery", f"n{self.id} cannot open its log: {error}") from error
            world.process_failed(self, str(error))
            return
        if self.flipped:
            self.flipped = False  # what was flipped does not matter
            world.gone.discard(self.id)
        world.invariants.recovered(self.id, state)
        settings = world.plan.settings
        self.incarnation += 1
        self.machine = machine or StateMachine(session_limits=SessionLimits(ttl_ms=settings.session_ttl_ms))
        if machine is not None:
            world.invariants.applied(self.id, machine.applied_index, machine.state_hash)
        self.raft = RaftNode(self.id, self.config, state, self.core_chance, self.clock_ns)
        self.writer = Writer(self, begun.wal)
        self.service = Service(self)
        self._commit_seen = 0
        self._log_end = self._log_end_before = (self.raft.last_index, self.raft.log.last_term)
        self._match_term = 0
        self._timer_at_ns = -1
        self.garble_next = False
        self.crash_when = None
        world.note(self.id, "starts" if self.incarnation == 1 else "is back")
        if world.recorder is not None:
            world.recorder.up(world.now_ns, self.id, self.raft.term, self.raft.log)
        self.pump()

    def _start_again(self, incarnation: int) -> None:
        if incarnation == self.incarnation:
            self.start()

    def end(self, *, power_lost: bool) -> None:
        """The process is gone; with ``power_lost`` so is what was not synced."""
        if self.raft is not None and self.world.recorder is not None:
            self.world.recorder.down(self.world.now_ns, self.id, power_lost=power_lost)
        if power_lost:
            lost = self.fs.crash()
            self.world.count("sectors or names lost", lost)
        else:
            self.fs.stop()
        self.raft = None
        self.incarnation += 1
        self.paused_until_ns = 0

    # ---- the Ready loop -----------------------------------------------------------------------------

    def pump(self) -> None:
        """Carry out everything the core wants; the whole contract of ready.py in one place."""
        raft = self.raft
        while raft is not None and raft.has_ready():
            ready = raft.ready()
            self._watch(raft, ready)
            for message in ready.messages:
                if type(message) is InstallSnapshot:
                    self.snapshots.send(message)
                else:
                    self.send(message)
            writer = self.writer
            if ready.persist is not None:
                writer.waiting.append(ready.persist)
            if ready.committed:
                self._apply(raft, ready.committed)
                if self.raft is None:
                    return  # it has halted
            for read in ready.reads:
                self.service.released(read)
            for refused in ready.refused_reads:
                self.service.refused(refused)
            if writer.waiting and not writer.busy:
                writer.begin()
            raft = self.raft  # a crash may have been armed for just this moment
        if raft is not None:
            self._schedule_timer(raft)

    def _watch(self, raft: RaftNode, ready: Ready) -> None:
        """Let the invariants see what has changed."""
        world, log = self.world, raft.log
        persist = ready.persist
        if persist is not None:
            if world.recorder is not None:
                world.recorder.wrote(world.now_ns, self.id, persist, log)
            if persist.entries:
                first = persist.entries[0].index
                previous = log.term_at(first - 1)
                # Entries handed over may already be truncated again in memory; then there is nothing to compare.
                if previous is not None and log.term_at(persist.entries[-1].index) == persist.entries[-1].term:
                    world.invariants.appended(self.id, persist.entries, previous, log.commit_index)
                if self.joining:
                    world.nemesis.joiner_fed(self)
        self._log_end_before, self._log_end = self._log_end, (log.last_index, log.last_term)
        for event in ready.events:
            self._happened(raft, event)
        commit = log.commit_index
        if commit < self._commit_seen:
            raise Violation("commit-monotonic", f"n{self.id} went back from commit {self._commit_seen} to {commit}")
        if commit > self._commit_seen and raft.is_leader:
            world.invariants.uses_newest(self.id, raft.configuration, log)
            world.nemesis.leader_committed(self)
        self._commit_seen = commit
        progress = raft.progress
        if progress:
            if self._match_term != raft.term:
                self._match_term, self._match_seen = raft.term, {}
            seen = self._match_seen
            for peer, one in progress.items():
                if one.match_index < seen.get(peer, 0):
                    raise Violation(
                        "match-monotonic",
                        f"n{self.id} lowered the match index of n{peer} from {seen[peer]} to {one.match_index}",
                    )
                seen[peer] = one.match_index
        if log.last_index > commit and raft.is_leader:
            world.nemesis.leader_appended(self)

    def _happened(self, raft: RaftNode, event: Event) -> None:
        world = self.world
        if isinstance(event, RoleChanged):
            world.role_changed(self, event)
            if event.role is Role.LEADER and event.leader_id == self.id:
                world.invariants.leader_elected(self.id, event.term, raft.log)
                self.service.leads(self.machine.time_ms)
            elif not raft.is_leader:
                self.service.disappoint_waiters(raft.leader_id)
        elif isinstance(event, ConfigurationChanged):
            world.configuration_changed(self, event)
            if raft.is_leader and raft.log.term_at(event.index) == raft.term:
                world.nemesis.configuration_appended(self, event.configuration)
        else:
            world.count("transfers completed" if event.reason is None else "transfers given up")

    def send(self, message: Message) -> None:
        if type(message) is VoteResponse and message.granted:
            self.world.invariants.voted(self.id, message.term, message.to)
            self.world.nemesis.vote_given(self, message)
        elif type(message) is TimeoutNow:
            self.world.nemesis.timeout_now_sent(self, message.to)
        self.world.transmit(message)

    def receive(self, message: Message) -> None:
        raft = self.raft
        assert raft is not None
        try:
            raft.step(message, self.clock_ns)
        except Refused as error:
            raise Violation("refused", f"n{self.id} refused {message}: {error}") from error
        self.pump()

    # ---- time ---------------------------------------------------------------------------------------

    def _schedule_timer(self, raft: RaftNode) -> None:
        wanted = max(self._world_time(raft.next_deadline_ns), self.world.now_ns)
        if self._timer_at_ns < 0 or wanted < self._timer_at_ns:
            self._timer_at_ns = wanted
            self.world.at(wanted, self._on_timer, (self.incarnation, wanted))

    def _on_timer(self, stamp: tuple[int, int]) -> None:
        incarnation, wanted = stamp
        if incarnation != self.incarnation or wanted != self._timer_at_ns:
            return  # replaced by an earlier one, or of an earlier life
        if self.paused_until_ns > self.world.now_ns:
            self._timer_at_ns = self.paused_until_ns
            self.world.at(self.paused_until_ns, self._on_timer, (incarnation, self.paused_until_ns))
            return
        raft = self.raft
        assert raft is not None
        self._timer_at_ns = -1
        if self.clock_ns >= raft.next_deadline_ns:
            raft.tick(self.clock_ns)
        self.pump()

    # ---- applying -----------------------------------------------------------------------------------

    def snapshot_durable(self, meta: SnapshotMeta, *, installed: bool) -> None:
        """The mark of a snapshot is durable; ``installed``: it came from the leader and replaces the state."""
        raft = self.raft
        assert raft is not None
        if installed:
            self.machine = self.snapshots.install(meta)
            self.world.invariants.applied(self.id, meta.last_included_index, self.machine.state_hash)
            self.service.disappoint_waiters(raft.leader_id)
            raft.applied(meta.last_included_index, self.clock_ns)
        self.snapshots.marked(meta)

    def _apply(self, raft: RaftNode, entries: tuple[Entry, ...]) -> None:
        world, machine, service = self.world, self.machine, self.service
        world.invariants.committed(self.id, raft.term, entries, self._log_end_before)
        world.committed(self, entries)
        results: list[Any]
        for entry in entries:
            payload = entry.payload
            if isinstance(payload, bytes):
                if self.garble_next:
                    self.garble_next = False
                    world.count("garbled")
                    payload = GARBLED_VERSION + payload[1:]
                try:
                    results = machine.apply(entry.index, entry.term, payload)
                except UnknownCommand as error:
                    # It halts, loudly, instead of going on with another state than its peers (SAFETY 45).
                    world.process_failed(self, str(error))
                    return
                except Fatal as error:
                    raise Violation("apply", f"n{self.id} cannot apply entry {entry.index}: {error}") from error
            else:
                machine.skip(entry.index, entry.term)
                results = []
            world.invariants.applied(self.id, entry.index, machine.state_hash)
            service.applied(raft, entry, results)
        raft.applied(entries[-1].index, self.clock_ns)
        self.snapshots.maybe_take()
        service.release_lease_reads()
