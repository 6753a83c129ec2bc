"""A cluster of pure cores on a virtual clock, in one process, with every message and every fsync in hand.

Three layers, each usable alone:

* :class:`Disk` is what survives a crash. Writes wait in ``pending`` while ``held`` is set; a crash loses them.
* :class:`Server` is one core with its disk and a state machine that remembers all it applied. It drives the
  loop of ``lattice_core/raft/ready.py`` and nothing else. :func:`solo` makes one among absent peers, for tests
  in the manner of etcd's ``raft_paper_test.go``: step a message in, look at what comes out.
* :class:`Cluster` adds a network in which every message is visible and can be held, dropped, duplicated or
  overtaken, and time that moves only when told.

Whatever a test does, :class:`Watch` checks the safety properties of the paper's figure 3 after each input,
and that nothing leaves a server before it is on its disk.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from lattice_core.raft import quorum
from lattice_core.raft.config import RaftConfig
from lattice_core.raft.leader import Leader
from lattice_core.raft.membership import MembershipChange
from lattice_core.raft.messages import (
    AppendConflict,
    AppendEntries,
    AppendSuccess,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from lattice_core.raft.node import RaftNode
from lattice_core.raft.ready import Event, Persist
from lattice_core.raft.types import (
    Configuration,
    Entry,
    HardState,
    Member,
    NodeId,
    Payload,
    RecoveredState,
    Role,
    SnapshotMeta,
)

MS = 1_000_000
LATENCY_NS = MS
CONFIG = RaftConfig()


def member(node_id: NodeId) -> Member:
    return Member(node_id, f"n{node_id}", f"10.0.0.{node_id}:7500")


def members(*ids: NodeId) -> tuple[Member, ...]:
    return tuple(member(node_id) for node_id in ids)


def configuration(
    voters: Iterable[NodeId], *, outgoing: Iterable[NodeId] = (), learners: Iterable[NodeId] = ()
) -> Configuration:
    voters, outgoing, learners = frozenset(voters), frozenset(outgoing), frozenset(learners)
    return Configuration(members(*sorted(voters | outgoing | learners)), voters, outgoing, learners)


def log_of(*terms: int, after: int = 0) -> tuple[Entry, ...]:
    """Entries with these terms, from index ``after + 1`` on; the payload follows from index and term."""
    return tuple(Entry(index, term, f"{index}/{term}".encode()) for index, term in enumerate(terms, start=after + 1))


def terms_of(node: RaftNode) -> list[int]:
    """The terms of all entries that the node's log holds."""
    return [entry.term for entry in node.log.between(node.first_index, node.last_index)]


class Disk:
    """What is durable, and the writes that are not yet. A crash loses ``pending`` and nothing else."""

    def __init__(self, recovered: RecoveredState) -> None:
        self.hard_state = recovered.hard_state
        self.snapshot = recovered.snapshot
        self.commit_hint = recovered.commit_hint
        self.entries: list[Entry] = list(recovered.entries)
        self.base_index, self.base_term = (
            (recovered.snapshot.last_included_index, recovered.snapshot.last_included_term)
            if recovered.snapshot is not None
            else (0, 0)
        )
        self.pending: deque[Persist] = deque()
        self.held = False

    @property
    def last_index(self) -> int:
        return self.base_index + len(self.entries)

    def term_at(self, index: int) -> int | None:
        if index == self.base_index:
            return self.base_term
        return self.entries[index - self.base_index - 1].term if self.base_index < index <= self.last_index else None

    def write(self, persist: Persist) -> None:
        """Make ``persist`` durable: the order of ready.py, and stricter than any real log about gaps."""
        if persist.hard_state is not None:
            assert persist.hard_state.term >= self.hard_state.term, "the term on disk went back"
            self.hard_state = persist.hard_state
        truncate_from = persist.truncate_from
        if persist.snapshot is not None:
            index, term = persist.snapshot.last_included_index, persist.snapshot.last_included_term
            dropped = truncate_from is not None and truncate_from <= index
            keeps = self.term_at(index) == term and not dropped
            self.entries = self.entries[index - self.base_index :] if keeps else []
            self.snapshot = persist.snapshot
            self.base_index, self.base_term = index, term
        if truncate_from is not None:
            del self.entries[max(0, truncate_from - self.base_index - 1) :]
        for entry in persist.entries:
            if entry.index <= self.base_index:
                continue  # a snapshot of our own overtook this write
            assert entry.index == self.last_index + 1, f"entry {entry.index} after {self.last_index} on disk"
            self.entries.append(entry)
        if persist.commit_hint is not None:
            self.commit_hint = max(self.commit_hint, persist.commit_hint)

    def compact(self, snapshot: SnapshotMeta) -> None:
        """Our own snapshot is published; the log on disk starts after it."""
        index = snapshot.last_included_index
        if index <= self.base_index:
            return
        self.entries = self.entries[index - self.base_index :]
        self.snapshot = snapshot
        self.base_index, self.base_term = index, snapshot.last_included_term

    def recovered(self) -> RecoveredState:
        hint = min(self.commit_hint, self.last_index)
        return RecoveredState(self.hard_state, self.snapshot, tuple(self.entries), hint)


@dataclass
class Archive:
    """The contents of every snapshot taken, by (index, term): the stub for streaming files."""

    states: dict[tuple[int, int], tuple[Entry, ...]] = field(default_factory=dict)


class Server:
    """One core, its disk, its state machine (a list of all that was applied), and the loop between them."""

    def __init__(
        self,
        node_id: NodeId,
        disk: Disk,
        *,
        config: RaftConfig = CONFIG,
        seed: int = 0,
        now_ns: int = 0,
        outbox: Callable[[Message], None] | None = None,
        watch: Watch | None = None,
        archive: Archive | None = None,
    ) -> None:
        self.id = node_id
        self.name = f"n{node_id}"
        self.disk = disk
        self.config = config
        self.seed = seed
        self.sent: list[Message] = []
        self.outbox = outbox or self.sent.append
        self.watch = watch or Watch()
        self.archive = archive or Archive()
        self.apply_held = False
        self.down = True
        self.boots = 0
        self.start(now_ns)

    # ---- life and death -----------------------------------------------------------------------------

    def start(self, now_ns: int) -> None:
        assert self.down
        self.down = False
        self.boots += 1
        recovered = self.disk.recovered()
        # A string seeds by its SHA-512: the same in every process.
        chance = random.Random(f"{self.seed}/{self.id}/{self.boots}")
        self.node = RaftNode(self.id, self.config, recovered, chance, now_ns)
        self.machine: list[Entry] = []
        if recovered.snapshot is not None and recovered.snapshot.last_included_index > 0:
            self.machine = list(self._state_of(recovered.snapshot))
        self.to_apply: deque[Entry] = deque()
        self.events: list[Event] = []
        self.released: dict[int, int] = {}
        self.refused: dict[int, NodeId | None] = {}
        self.watch.started(self)
        self.pump()

    def crash(self) -> None:
        """Power off: what is not durable is gone."""
        self.down = True
        self.disk.pending.clear()

    # ---- inputs -------------------------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        return self.node.now_ns

    def step(self, message: Message, now_ns: int | None = None) -> None:
        self.node.step(message, self.now_ns if now_ns is None else now_ns)
        self.pump()

    def tick(self, now_ns: int) -> None:
        self.node.tick(now_ns)
        assert self.node.next_deadline_ns > self.node.now_ns, "a deadline that passed and stays would spin the driver"
        self.pump()

    def time_out(self) -> None:
        """Let time pass, for this server only, up to what it waits for next."""
        self.tick(self.node.next_deadline_ns)

    def propose(self, payload: bytes = b"x") -> int:
        index, _ = self.node.propose(payload, self.now_ns)
        self.pump()
        return index

    def change(self, change: MembershipChange) -> int:
        index = self.node.propose_membership(change, self.now_ns)
        self.pump()
        return index

    def read(self, request_id: int) -> None:
        self.watch.read_asked(self, request_id)
        self.node.read_index(request_id, self.now_ns)
        self.pump()

    def lease_read(self) -> int | None:
        index = self.node.lease_read_index(self.now_ns)
        if index is not None:
            self.watch.lease_read(self, index)
        return index

    def transfer(self, target: NodeId | None) -> NodeId:
        chosen = self.node.transfer_leader(target, self.now_ns)
        self.pump()
        return chosen

    def compact(self, index: int | None = None, keep: int = 0) -> SnapshotMeta:
        """Take a snapshot at ``index`` and forget all but ``keep`` entries before it.

        By default at the last index that is both applied and durable here: a snapshot ahead of the log's own
        disk would be of a term that the disk does not know.
        """
        if index is None:
            index = min(self.node.applied_index, self.node.durability.durable_index)
        term = self.node.log.term_at(index)
        assert term is not None
        assert index == 0 or self.node.may_snapshot(index)
        meta = SnapshotMeta(index, term, self.node.log.configuration_at(index))
        self.archive.states[index, term] = tuple(self.machine[:index])
        self.disk.compact(meta)
        self.node.compacted(meta, max(self.node.log.offset, index - keep), self.now_ns)
        self.pump()
        return meta

    # ---- the loop -----------------------------------------------------------------------------------

    def pump(self) -> None:
        """Everything the core wants done, until it wants nothing more."""
        node = self.node
        for _ in range(10_000):
            self.watch.looked_at(self)
            busy = node.has_ready()
            if busy:
                ready = node.ready()
                self.events += ready.events
                for event in ready.events:
                    self.watch.happened(self, event)
                for message in ready.messages:
                    self._send(message)
                if ready.persist is not None:
                    self.disk.pending.append(ready.persist)
                    if self.disk.held:
                        self.watch.happened(self, ready.persist)
                self.to_apply += ready.committed
                for read in ready.reads:
                    assert read.index <= node.applied_index, "a read was released before its index was applied"
                    self.watch.read_released(self, read.request_id, read.index)
                    self.watch.happened(self, read)
                    self.released[read.request_id] = read.index
                for refusal in ready.refused_reads:
                    self.watch.happened(self, refusal)
                    self.refused[refusal.request_id] = refusal.leader_id
            if not self.apply_held:
                busy |= self._apply_all()
            if not self.disk.held:
                busy |= self._write_one()
            if not busy:
                return
        raise AssertionError(f"{self.name} is never done")

    def release_disk(self, count: int | None = None) -> None:
        """Complete ``count`` of the waiting writes; None: all of them, and hold no longer."""
        if count is None:
            self.disk.held = False
        for _ in range(len(self.disk.pending) if count is None else count):
            self._write_one()
        self.pump()

    def release_apply(self) -> None:
        self.apply_held = False
        self.pump()

    def _write_one(self) -> bool:
        if not self.disk.pending:
            return False
        persist = self.disk.pending.popleft()
        self.disk.write(persist)
        if persist.snapshot is not None:
            self.machine = list(self._state_of(persist.snapshot))
            self.to_apply.clear()
            self.node.applied(persist.snapshot.last_included_index, self.now_ns)
        for message in persist.messages:
            self._send(message)
        self.node.persisted(persist.sequence, self.now_ns)
        return True

    def _apply_all(self) -> bool:
        if not self.to_apply:
            return False
        for entry in self.to_apply:
            assert entry.index == len(self.machine) + 1, f"entry {entry.index} applied after {len(self.machine)}"
            self.machine.append(entry)
            self.watch.applied(entry)
            self.watch.happened(self, entry)
        self.to_apply.clear()
        self.node.applied(len(self.machine), self.now_ns)
        return True

    def _state_of(self, snapshot: SnapshotMeta) -> tuple[Entry, ...]:
        return self.archive.states[snapshot.last_included_index, snapshot.last_included_term]

    def _send(self, message: Message) -> None:
        self.watch.leaves(self, message)
        self.outbox(message)

    def take(self, kind: type | tuple[type, ...] | None = None) -> list[Message]:
        """What was sent since the last call (of a solo server), or only messages of one kind; the rest is dropped."""
        sent = [message for message in self.sent if kind is None or isinstance(message, kind)]
        self.sent.clear()
        return sent


class Watch:
    """The safety properties of figure 3, checked at every step, and the durability contract of ready.py."""

    def __init__(self) -> None:
        self.leaders: dict[int, NodeId] = {}
        self.committed: dict[int, Entry] = {}
        self.acknowledged = 0
        """The highest index any leader has committed, and so may have answered a client for."""
        self.disks: dict[NodeId, Disk] = {}
        self._commit_seen: dict[NodeId, int] = {}
        self._led: dict[NodeId, int] = {}
        self._asked: dict[tuple[NodeId, int, int], int] = {}
        self.single = True
        """A server among absent peers: quorums cannot be looked up on their disks."""

    def started(self, server: Server) -> None:
        self.disks[server.id] = server.disk
        self._commit_seen[server.id] = server.node.commit_index
        self._led.pop(server.id, None)

    def happened(self, server: Server, what: object) -> None:
        """A place for others to listen: events, entries applied, reads answered, disk writes."""

    def applied(self, entry: Entry) -> None:
        """State Machine Safety: nobody applies another entry at the same index (figure 3)."""
        assert self.committed.get(entry.index, entry) == entry

    def looked_at(self, server: Server) -> None:
        node = server.node
        log = node.log
        leads = node.is_leader
        if leads and self._led.get(server.id) != node.term:
            self._led[server.id] = node.term
            assert self.leaders.setdefault(node.term, server.id) == server.id, f"term {node.term} has two leaders"
            for index, entry in self.committed.items():
                assert index <= log.offset or log.term_at(index) == entry.term, (
                    f"{server.name} leads term {node.term} without committed entry {index}/{entry.term}"
                )
        if leads:
            for progress in node.progress.values():
                assert progress.match_index < progress.next_index <= log.last_index + 1
        seen = self._commit_seen[server.id]
        assert node.commit_index >= seen, f"commit went back from {seen} to {node.commit_index}"
        assert node.applied_index <= node.commit_index <= node.last_index
        assert node.durability.durable_index <= log.last_index
        if node.commit_index == seen:
            return
        self._commit_seen[server.id] = node.commit_index
        for entry in log.between(max(seen + 1, node.first_index), node.commit_index):
            known = self.committed.setdefault(entry.index, entry)
            assert known == entry, f"{server.name} commits {entry.index}/{entry.term}, another did {known.term}"
        if leads:
            if not self.single:
                self._on_quorum_of_disks(server)
            self.acknowledged = max(self.acknowledged, node.commit_index)

    def _on_quorum_of_disks(self, server: Server) -> None:
        index = server.node.commit_index
        term = server.node.log.term_at(index)
        holders = {
            node_id for node_id, disk in self.disks.items() if disk.term_at(index) == term or disk.base_index > index
        }
        # The configuration in force may have changed with this very commit (a joint one ends): the commit
        # was decided by the one before it.
        deciding = [item for at, item in server.node.log.configurations if at <= index or at == 0][-1:]
        candidates = [server.node.configuration, *deciding]
        assert any(quorum.is_quorum(item, holders) for item in candidates), (
            f"{server.name} commits {index}/{term}, durable only on {sorted(holders)}"
        )

    def leaves(self, server: Server, message: Message) -> None:
        """SAFETY 1 and 13: nothing leaves a server that depends on what its disk could still lose."""
        disk = server.disk
        kind = type(message)
        if kind is PreVoteRequest or (isinstance(message, PreVoteResponse) and message.granted):
            return  # a term that is only proposed
        assert message.term <= disk.hard_state.term, f"{show(message)} before its term is durable"
        if isinstance(message, VoteRequest):
            assert disk.hard_state == HardState(message.term, server.id) or disk.hard_state.term > message.term
        elif isinstance(message, VoteResponse) and message.granted:
            assert disk.hard_state == HardState(message.term, message.to) or disk.hard_state.term > message.term
        elif isinstance(message, AppendSuccess):
            assert message.match_index <= disk.last_index, f"{show(message)} before it is durable"

    def read_asked(self, server: Server, request_id: int) -> None:
        self._asked[server.id, server.boots, request_id] = self.acknowledged

    def read_released(self, server: Server, request_id: int, index: int) -> None:
        asked_at = self._asked.get((server.id, server.boots, request_id), 0)
        assert index >= asked_at, f"read {request_id} at {index}, but {asked_at} was acknowledged before it was asked"

    def lease_read(self, server: Server, index: int) -> None:
        assert index >= self.acknowledged, (
            f"{server.name} reads at {index} by lease, but {self.acknowledged} is committed"
        )


def solo(
    node_id: NodeId = 1,
    voters: Iterable[NodeId] | Configuration = (1, 2, 3),
    *,
    term: int = 0,
    voted_for: NodeId | None = None,
    log: Sequence[Entry] = (),
    commit: int = 0,
    config: RaftConfig = CONFIG,
    snapshot: SnapshotMeta | None = None,
    patient: bool = True,
) -> Server:
    """One server among absent peers. ``patient``: what a restarted voter has to wait for is over."""
    first = voters if isinstance(voters, Configuration) else configuration(voters)
    term = max([term, *(entry.term for entry in log)])
    start = snapshot or SnapshotMeta(0, 0, first)
    archive = Archive()
    archive.states[start.last_included_index, start.last_included_term] = log_of(
        *[start.last_included_term] * start.last_included_index
    )
    disk = Disk(RecoveredState(HardState(term, voted_for), start, tuple(log), commit))
    server = Server(node_id, disk, config=config, archive=archive)
    if patient:
        server.node.protect_until_ns = 0
    return server


def lead(server: Server, *, granting: Iterable[NodeId] = (), own_disk: bool = True) -> Server:
    """Make a solo server leader, with the votes of ``granting`` (default: everybody), and forget what it sent."""
    voters = sorted(server.node.configuration.all_voters - {server.id})
    granting = list(granting) or voters
    server.time_out()
    for peer in granting:
        if server.node.role is Role.PRE_CANDIDATE:
            server.step(PreVoteResponse(peer, server.id, server.node.term + 1, True))
    for peer in granting:
        if server.node.role is Role.CANDIDATE:
            server.step(VoteResponse(peer, server.id, server.node.term, True))
    assert server.node.is_leader
    server.disk.held = not own_disk
    server.take()
    return server


# ---- a cluster --------------------------------------------------------------------------------------


@dataclass
class Envelope:
    """A message on its way."""

    number: int
    message: Message
    due_ns: int


class Cluster:
    """Servers 1 to n, a network of visible messages, and one clock (with a drift for each server if wanted)."""

    def __init__(
        self,
        size: int = 3,
        *,
        learners: Iterable[NodeId] = (),
        spare: Iterable[NodeId] = (),
        config: RaftConfig = CONFIG,
        seed: int = 0,
        drift_ppm: dict[NodeId, int] | None = None,
        first: Configuration | None = None,
        disks: dict[NodeId, Disk] | None = None,
    ) -> None:
        self.config = config
        self.seed = seed
        self.now_ns = 0
        self.drift_ppm = drift_ppm or {}
        self.watch = Watch()
        self.watch.single = False
        self.archive = Archive()
        self.in_flight: list[Envelope] = []
        self.cut_links: set[tuple[NodeId, NodeId]] = set()
        self.held_links: set[tuple[NodeId, NodeId]] = set()
        self.lose: Callable[[Message], bool] = lambda message: False
        self.paused: set[NodeId] = set()
        self.observer: Callable[[str, Message], None] = lambda what, message: None
        self._sent = 0
        self.first = first or configuration(range(1, size + 1), learners=learners)
        self.servers: dict[NodeId, Server] = {}
        for node_id in [item.id for item in self.first.members]:
            begin = RecoveredState(snapshot=SnapshotMeta(0, 0, self.first))
            self._add(node_id, disks[node_id] if disks else Disk(begin))
        for node_id in spare:
            self._add(node_id, Disk(RecoveredState()))

    def _add(self, node_id: NodeId, disk: Disk) -> None:
        self.servers[node_id] = Server(
            node_id,
            disk,
            config=self.config,
            seed=self.seed,
            now_ns=self.clock_of(node_id),
            outbox=self._send,
            watch=self.watch,
            archive=self.archive,
        )

    def __getitem__(self, node_id: NodeId) -> Server:
        return self.servers[node_id]

    def __iter__(self) -> Iterator[Server]:
        return iter(self.servers.values())

    @property
    def up(self) -> list[Server]:
        return [server for server in self if not server.down]

    @property
    def leader(self) -> Server | None:
        """The leader of the newest term, if there is one."""
        leading = [server for server in self.up if server.node.is_leader]
        return max(leading, key=lambda server: server.node.term, default=None)

    # ---- time ---------------------------------------------------------------------------------------

    def clock_of(self, node_id: NodeId) -> int:
        return self.now_ns * (1_000_000 + self.drift_ppm.get(node_id, 0)) // 1_000_000

    def pass_time(self, duration_ns: int) -> None:
        """Time goes on and nobody does anything."""
        self.now_ns += duration_ns
        for server in self.up:
            server.node._advance(self.clock_of(server.id))

    def tick(self, node_id: NodeId) -> None:
        """Time goes on to what ``node_id`` waits for; nobody else's timer is looked at."""
        server = self[node_id]
        self.pass_time(max(0, server.node.next_deadline_ns - self.clock_of(node_id)))
        server.tick(self.clock_of(node_id))

    def tick_due(self) -> None:
        """Everybody whose deadline has come."""
        for server in self.up:
            if server.id not in self.paused:
                server.node._advance(self.clock_of(server.id))
                if server.node.next_deadline_ns <= server.now_ns:
                    server.tick(server.now_ns)

    def run(self, duration_ns: int) -> None:
        """The usual course of things: messages take a millisecond, timers fire."""
        self.run_until(lambda: False, duration_ns)

    def run_until(self, done: Callable[[], bool], limit_ns: int = 10_000 * MS) -> bool:
        """Run until ``done``; False if that took longer than ``limit_ns``."""
        end = self.now_ns + limit_ns
        while not done():
            due = [envelope.due_ns for envelope in self.in_flight if not self._is_held(envelope.message)]
            for server in self.up:
                if server.id not in self.paused:
                    ahead = server.node.next_deadline_ns - self.clock_of(server.id)
                    due.append(
                        self.now_ns + max(0, ahead * 1_000_000 // (1_000_000 + self.drift_ppm.get(server.id, 0)))
                    )
            at = min(due, default=end)
            if at > end or self.now_ns >= end:
                self.pass_time(max(0, end - self.now_ns))
                return done()
            # A clock that lags a rounding error behind its deadline gets there with the next nanosecond.
            self.pass_time(max(at - self.now_ns, 1))
            for envelope in [item for item in self.in_flight if item.due_ns <= self.now_ns]:
                if envelope in self.in_flight and not self._is_held(envelope.message):
                    self.deliver(envelope)
            self.tick_due()
        return True

    # ---- the network --------------------------------------------------------------------------------

    def _send(self, message: Message) -> None:
        if (message.sender, message.to) in self.cut_links or self.lose(message):
            self.observer("lost", message)
            self._not_delivered(message)
            return
        self._sent += 1
        self.in_flight.append(Envelope(self._sent, message, self.now_ns + LATENCY_NS))
        self.observer("sent", message)

    def _not_delivered(self, message: Message) -> None:
        if isinstance(message, InstallSnapshot):
            self._report_snapshot(message, delivered=False)

    def _report_snapshot(self, message: InstallSnapshot, *, delivered: bool) -> None:
        sender = self.servers.get(message.sender)
        if sender is not None and not sender.down:
            sender.node.report_snapshot(message.to, delivered, self.clock_of(sender.id))

    def _is_held(self, message: Message) -> bool:
        return (message.sender, message.to) in self.held_links

    def messages(self, kind: type | tuple[type, ...] = object, *, to: NodeId | None = None) -> list[Message]:
        """What is on its way."""
        return [
            envelope.message
            for envelope in self.in_flight
            if isinstance(envelope.message, kind) and to in (None, envelope.message.to)
        ]

    def deliver(self, envelope: Envelope) -> None:
        self.in_flight.remove(envelope)
        message = envelope.message
        receiver = self.servers.get(message.to)
        if receiver is None or receiver.down or (message.sender, message.to) in self.cut_links:
            self.observer("lost", message)
            self._not_delivered(message)
            return
        self.observer("delivered", message)
        receiver.step(message, self.clock_of(receiver.id))
        if isinstance(message, InstallSnapshot):
            self._report_snapshot(message, delivered=True)
            sender = self[message.sender]
            if not sender.down:
                sender.pump()

    def deliver_first(self, kind: type | tuple[type, ...] = object, *, to: NodeId | None = None) -> Message:
        """Deliver the oldest such message, past all others."""
        for envelope in self.in_flight:
            if isinstance(envelope.message, kind) and to in (None, envelope.message.to):
                self.deliver(envelope)
                return envelope.message
        raise AssertionError(f"no {kind} to {to} is on its way")

    def settle(self) -> None:
        """Deliver all that is on its way, and what comes of it; no time passes."""
        for _ in range(10_000):
            ready = [item for item in self.in_flight if not self._is_held(item.message)]
            if not ready:
                return
            self.deliver(ready[0])
        raise AssertionError("messages go on for ever")

    def drop(self, kind: type | tuple[type, ...] = object, *, to: NodeId | None = None) -> int:
        """Lose what is on its way; returns how many."""
        lost = [item for item in self.in_flight if isinstance(item.message, kind) and to in (None, item.message.to)]
        for envelope in lost:
            self.in_flight.remove(envelope)
            self.observer("lost", envelope.message)
            self._not_delivered(envelope.message)
        return len(lost)

    def duplicate(self, envelope: Envelope) -> None:
        self._sent += 1
        self.in_flight.append(replace(envelope, number=self._sent))

    def cut(self, *links: tuple[NodeId, NodeId]) -> None:
        """Cut these links in both directions; what is on its way there is lost."""
        for one, other in links:
            self.cut_links |= {(one, other), (other, one)}

    def cut_one_way(self, sender: NodeId, to: NodeId) -> None:
        self.cut_links.add((sender, to))

    def partition(self, *groups: Iterable[NodeId]) -> None:
        """Only servers of one group reach each other; who is in none is alone."""
        self.cut_links.clear()
        group_of = {node_id: number for number, group in enumerate(groups) for node_id in group}
        for one in self.servers:
            for other in self.servers:
                if one != other and group_of.get(one, -one) != group_of.get(other, -other):
                    self.cut_links.add((one, other))

    def isolate(self, node_id: NodeId) -> None:
        self.partition([other for other in self.servers if other != node_id], [node_id])

    def heal(self) -> None:
        self.cut_links.clear()

    # ---- common courses of events -------------------------------------------------------------------

    def elect(self, node_id: NodeId) -> Server:
        """``node_id`` times out first and wins."""
        self.tick(node_id)
        self.settle()
        assert self[node_id].node.is_leader, f"n{node_id} is {self[node_id].node.role.value}"
        return self[node_id]

    def replicate(self, payload: Payload = b"x") -> int:
        """The leader takes a command and everybody reachable gets it, commit index included."""
        leader = self.leader
        assert leader is not None
        assert isinstance(payload, bytes)
        index = leader.propose(payload)
        self.settle()
        self.tick(leader.id)
        self.settle()
        return index

    def crash(self, *ids: NodeId) -> None:
        for node_id in ids:
            self[node_id].crash()

    def restart(self, *ids: NodeId) -> None:
        for node_id in ids:
            self[node_id].start(self.clock_of(node_id))

    def check_log_matching(self) -> None:
        """Log Matching (figure 3): equal index and term mean equal logs up to there."""
        logs = [server.node.log for server in self.up]
        for position, one in enumerate(logs):
            for other in logs[position + 1 :]:
                agreed = False
                lowest = max(one.offset, other.offset)
                for index in range(min(one.last_index, other.last_index), lowest, -1):
                    agreed |= one.term_at(index) == other.term_at(index)
                    assert not agreed or one.entry(index) == other.entry(index), f"logs differ at {index}"


def leader_of(server: Server) -> Leader:
    """The role object, for tests that look inside."""
    assert isinstance(server.node.state, Leader)
    return server.node.state


# ---- words for messages -----------------------------------------------------------------------------


def show_payload(payload: Payload) -> str:
    if payload is None:
        return "no-op"
    if isinstance(payload, Configuration):
        return show_configuration(payload)
    return f'"{payload.decode()}"'


def show_configuration(item: Configuration) -> str:
    def names(ids: Iterable[NodeId]) -> str:
        return "+".join(f"n{node_id}" for node_id in sorted(ids))

    text = f"voters {names(item.voters)}"
    if item.is_joint:
        text += f" and {names(item.voters_outgoing)}"
    if item.learners:
        text += f" learners {names(item.learners)}"
    return f"({text})"


def show_entry(entry: Entry) -> str:
    return f"{entry.index}/{entry.term} {show_payload(entry.payload)}"


def show(message: Message) -> str:
    """One line for a message: who to whom, kind, term, and what matters in it."""
    head = f"n{message.sender}->n{message.to} {type(message).__name__} term={message.term}"
    match message:
        case PreVoteRequest() | VoteRequest():
            text = f"log={message.last_log_index}/{message.last_log_term}"
            if isinstance(message, VoteRequest) and message.leadership_transfer:
                text += " transfer"
        case PreVoteResponse() | VoteResponse():
            text = "granted" if message.granted else "refused"
        case AppendEntries():
            entries = ", ".join(show_entry(entry) for entry in message.entries)
            text = f"prev={message.prev_log_index}/{message.prev_log_term} [{entries}] commit={message.leader_commit}"
        case AppendSuccess():
            text = f"match={message.match_index}"
        case AppendConflict():
            where = "too short" if message.conflict_term is None else f"term {message.conflict_term}"
            text = f"rejected={message.rejected_index} ({where}) try={message.conflict_index}"
        case Heartbeat():
            text = f"commit={message.commit} round={message.round}"
        case HeartbeatResponse():
            text = f"round={message.round}"
        case InstallSnapshot():
            meta = message.snapshot
            text = f"at={meta.last_included_index}/{meta.last_included_term} {show_configuration(meta.configuration)}"
        case ReadIndexRequest():
            text = ""
        case ReadIndexResponse():
            text = f"index={message.read_index}"
        case TimeoutNow():
            text = ""
    return f"{head} {text}".rstrip()
