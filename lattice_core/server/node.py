"""One member of a cluster: the core, the log, the state machine and the transport, put together.

This module wires and reports; the work is done next door: ``ready_loop`` (drives the core), ``storage_thread``
(writes), ``proposals`` and ``reads`` (callers that wait), ``apply`` (the state machine), ``snapshots``. It knows
nothing of client ports or processes: ``services`` and ``run`` do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Callable

from lattice_core import __version__
from lattice_core.config import NodeConfig
from lattice_core.errors import (
    Busy,
    Fatal,
    IdentityMismatch,
    LatticeError,
    NoLeader,
    NotAllowed,
    NotLeader,
    StateDiverged,
    Unavailable,
)
from lattice_core.raft import errors as raft_errors
from lattice_core.raft.node import RaftNode
from lattice_core.raft.ready import ConfigurationChanged, Event, RoleChanged, TransferEnded
from lattice_core.raft.types import Configuration, NodeId, Role
from lattice_core.rpc.errors import from_detail
from lattice_core.rpc.pb import kv_pb2, raft_pb2
from lattice_core.rpc.peers import LocalIdentity, PeerDirectory
from lattice_core.rpc.transport import PeerTransport
from lattice_core.server.access import Gate
from lattice_core.server.apply import Applier
from lattice_core.server.bootstrap import OpenedNode, introduce, mark_diverged, mark_removed, removed_error
from lattice_core.server.clock import ClusterClock, now_ns
from lattice_core.server.comparison import Comparison
from lattice_core.server.explain import Explanations
from lattice_core.server.hints import Hints
from lattice_core.server.membership import Membership
from lattice_core.server.metrics import NodeMetrics
from lattice_core.server.proposals import Proposals
from lattice_core.server.readiness import Readiness
from lattice_core.server.reads import Reads
from lattice_core.server.ready_loop import ReadyLoop
from lattice_core.server.reseeding import way_back
from lattice_core.server.room import Room
from lattice_core.server.snapshots import Snapshots
from lattice_core.server.status import member_status
from lattice_core.server.storage_thread import StorageThread
from lattice_core.server.tls import NodeTLS
from lattice_core.server.tracing import NodeTracer
from lattice_core.storage.errors import DiskFull

log = logging.getLogger("lattice.node")
raft_log = logging.getLogger("lattice.raft")


SETTLE_SECONDS = 5.0
"""Two fsyncs on any disk that is worth having; longer, and it is better to serve what can be served."""


class Node:
    """Build it on a running loop; :meth:`start`, and in the end :meth:`stop`.

    ``failed`` is done, with the reason, when the node cannot go on; whoever runs it must then end it.
    """

    def __init__(self, config: NodeConfig, opened: OpenedNode, tls: NodeTLS, tracer: NodeTracer | None = None) -> None:
        self.config = config
        self.tls = tls
        self._opened = opened
        self._started_ns = now_ns()
        self.metrics = NodeMetrics()
        self.tracer = tracer
        loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[LatticeError] = loop.create_future()
        identity = opened.identity
        self.core = RaftNode(
            identity.node_id,
            config.raft(),
            opened.recovered,
            random.Random(secrets.randbits(64)),
            # Loading a large state takes as long as an election timeout: it counts as waiting.
            opened.locked_ns,
        )
        self.machine = opened.take_machine()
        self.peers = PeerDirectory(
            LocalIdentity(
                cluster_id=identity.cluster_id,
                node_id=identity.node_id,
                name=identity.node_name,
                client_addr=config.client_addr,
                peer_addr=identity.peer_addr,
                version=__version__,
                incarnation=opened.incarnations.own,
                joined_index=identity.joined_index,
            ),
            opened.incarnations,
            lambda: self.membership.known_configuration,
            lambda: self.core.committed_configuration,
            self._disowned,
            self._removed,
            config.peer_routes,
            tls.peers,
        )
        self.hints = Hints(self.peers)
        clock = ClusterClock(self.machine.time_ms, self._started_ns)
        self.gate = Gate(self, clock, config.data_dir, self.metrics)
        self.loop = ReadyLoop(self.core, self._on_event, self._fatal, self.metrics, self.tracer)
        opened.incarnations.on_sync_failed = self._storage_failed
        self.proposals = Proposals(
            self.core,
            clock,
            self.hints,
            self.loop.kick,
            max_pending_bytes=config.max_pending_bytes,
            max_entry_bytes=config.max_entry_bytes,
            metrics=self.metrics,
            tracer=self.tracer,
        )
        self.reads = Reads(
            self.core,
            self.machine,
            self.hints,
            self.loop.kick,
            self.stale_seconds,
            self.metrics,
            leases_by_default=config.read_mode == "lease",
        )
        self.applier = Applier(self.machine, self.proposals, clock)
        self.transport = PeerTransport(self.peers, self.loop.receive, self.loop.unreachable, self.tracer)
        self.membership = Membership(
            config,
            self.core,
            self.loop,
            self.transport,
            self.peers,
            opened.incarnations.contacts,
            self._removed,
        )
        self.snapshots = Snapshots(
            config,
            opened.fs,
            opened.directory.snapshots_path,
            opened.snapshot,
            self,
            self.core,
            self.loop,
            self.applier,
            self.peers,
            self.metrics,
        )
        self.comparison = Comparison(
            self.core,
            self.applier.hashes,
            self.loop,
            self.transport,
            self.peers,
            self.metrics,
            self._state_diverged,
            lambda: self.room,
        )
        self.storage = StorageThread(
            opened.wal,
            self.loop.durable,
            self._storage_failed,
            self._disk_full,
            self.snapshots.installer.publish,
            self.metrics,
        )
        self.snapshots.storage = self.storage
        self.room = Room(
            config, self.core, self.peers.name_of, self.proposals, self.snapshots, self.log_bytes, self.free_bytes
        )
        self.explanations = Explanations(self.core, self.proposals, self.reads, self.role_name)
        self.loop.explanations = self.explanations
        self.loop.proposals = self.proposals
        self.loop.reads = self.reads
        self.loop.applier = self.applier
        self.loop.transport = self.transport
        self.loop.storage = self.storage
        self.loop.snapshots = self.snapshots
        self.readiness = Readiness(self, opened.recovered.commit_hint)
        self._led_term: int | None = None
        self._transfers: list[asyncio.Future[str | None]] = []
        self._role_watchers: list[Callable[[], None]] = []

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take part. A member that was made just now introduces itself first (SAFETY 22).

        Raises IdentityMismatch if another data directory is known under this member's name.
        """
        if self._opened.fresh:
            await introduce(self.peers, self.membership.known_configuration)
            if self.failed.done():
                raise self.failed.result()
        self.storage.start()
        self.transport.open()
        self.membership.start()
        self.comparison.start()
        self.loop.start()
        self.room.start()
        if self.core.configuration.all_voters == {self.core.id}:
            await self._settled()

    async def caught_up_with_join(self) -> None:
        """Wait until everything is applied that was committed when this member joined its cluster: what it answers is
        then no older than itself. At once, but for the first start of a member that joined a running cluster.

        Raises what keeps it from going on.
        """
        joined = self._opened.identity.joined_index
        if self.machine.applied_index < joined:
            log.info("catching up to index %d before serving", joined)
        while self.machine.applied_index < joined:
            if self.failed.done():
                raise self.failed.result()
            if self.loop.stopped:
                raise Unavailable("this member is stopping")
            await self.loop.next_pass()

    async def _settled(self) -> None:
        """A cluster of one needs nobody to elect it: wait for that, so that "ready" means ready to write."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                while not self.failed.done() and not (
                    self.core.is_leader and self.core.applied_index == self.core.last_index
                ):
                    await self.loop.next_pass()

    async def stop(self) -> None:
        """End everything that start began, write what is waiting, close the log. Safe to repeat."""
        self.loop.stop()
        await self.room.close()
        await self.membership.close()
        await self.comparison.close()
        self.proposals.abandon()
        self.reads.abandon()
        await self.snapshots.close()
        await self.transport.close()
        await self.storage.stop()
        if self.tracer is not None:
            self.tracer.close()

    async def hand_over(self, timeout_seconds: float) -> None:
        """If this node leads, try to have another voter lead. Returns when that is done or hopeless."""
        if not self.core.is_leader:
            return
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.transfer_leader(None)
        except (LatticeError, TimeoutError) as error:
            log.info("leadership was not handed over: %s", error or "no time left")

    async def drain(self, timeout_seconds: float) -> None:
        """Wait until nobody waits for an answer, or the time is over."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while not (self.proposals.idle and self.reads.idle) and not self.failed.done():
                    await self.loop.next_pass()
        except TimeoutError:
            log.info("%d bytes of writes are still undecided; their clients are told so", self.proposals.pending_bytes)

    # -- what goes wrong --------------------------------------------------------------------------

    def _fatal(self, error: BaseException) -> None:
        self.loop.stop()
        if self.failed.done():
            return
        if isinstance(error, LatticeError):
            log.error("this node stops: %s", error)
            self.failed.set_result(error)
        else:
            log.error("this node stops: %s: %s", type(error).__name__, error, exc_info=error)
            self.failed.set_result(Fatal(f"{type(error).__name__}: {error}"))

    def _storage_failed(self, error: BaseException) -> None:
        # Nothing that waits for this disk may be acknowledged: no pass runs after this (SAFETY 18).
        self._fatal(error)

    def _disowned(self, reason: str) -> None:
        self._fatal(IdentityMismatch(reason))

    def _removed(self, why: str) -> None:
        """This server is no member any more: it must not start again as if it were. Blocks: it is the end."""
        if self.failed.done():
            return
        try:
            mark_removed(self._opened.fs, self._opened.directory.path, self.config.name, why)
        except (LatticeError, OSError) as error:
            log.error("the data directory could not be marked as removed: %s", error)
        self._fatal(removed_error(self.config.name, why))

    def _state_diverged(self, why: str) -> None:
        """A majority has another state: what this member would answer is wrong. Blocks: it is the end."""
        if self.failed.done():
            return
        try:
            mark_diverged(self._opened.fs, self._opened.directory.path, why)
        except (LatticeError, OSError) as error:
            log.error("the data directory could not be marked as diverged: %s", error)
        name = self.config.name
        self._fatal(
            StateDiverged(
                f"the state of {name} is not the other members': {why}; it stops, so that nobody reads it",
                hint=way_back(self.config),
            )
        )

    def _disk_full(self, error: DiskFull | None) -> None:
        """SAFETY 19: nothing is acknowledged meanwhile; reads go on; another leader is better placed."""
        self.proposals.disk_is_full = error is not None
        if error is None:
            log.warning("there is room on the disk again; writing goes on")
            return
        log.error("the disk is full, so nothing can be written: %s; %s", error, error.hint)
        if self.core.is_leader:
            try:
                self.core.transfer_leader(None, now_ns())
            except raft_errors.RaftError as refusal:
                log.warning("leadership stays here: %s", refusal)
            self.loop.kick()

    # -- events -----------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        if isinstance(event, RoleChanged):
            self._role_changed(event)
        elif isinstance(event, ConfigurationChanged):
            self.membership.tend_links()
            configuration = event.configuration
            raft_log.info(
                "configuration at index %d: %s",
                event.index,
                _describe(configuration),
                extra={
                    "index": event.index,
                    "voters": _names(configuration, configuration.voters),
                    "outgoing": _names(configuration, configuration.voters_outgoing),
                    "learners": _names(configuration, configuration.learners),
                },
            )
        elif isinstance(event, TransferEnded):
            raft_log.info(
                "handing leadership to %s %s",
                self.peers.name_of(event.target),
                "is done" if event.reason is None else f"failed: {event.reason}",
                extra={"target": self.peers.name_of(event.target), "reason": event.reason},
            )
            waiting, self._transfers = self._transfers, []
            for future in waiting:
                if not future.done():
                    future.set_result(event.reason)

    def _role_changed(self, event: RoleChanged) -> None:
        self.metrics.role_changed(event)
        leads = event.role is Role.LEADER
        if self._led_term is not None and (not leads or event.term != self._led_term):
            self.proposals.leadership_lost()
        self._led_term = event.term if leads else None
        leader = None if event.leader_id is None else self.peers.name_of(event.leader_id)
        raft_log.info(
            "%s in term %d, %s: %s",
            event.role.value,
            event.term,
            "no leader" if leader is None else f"leader {leader}",
            event.reason,
            extra={"role": event.role.value, "term": event.term, "leader": leader, "reason": event.reason},
        )
        if event.leader_id is not None:
            self.loop.last_heard_leader_ns = now_ns()
        for watcher in list(self._role_watchers):
            watcher()

    # -- what services ask ------------------------------------------------------------------------

    async def transfer_leader(self, target_name: str | None) -> tuple[str, int]:
        """Hand leadership over; (name of the new leader, its term) once it leads.

        Raises NotLeader or NoLeader if this node does not lead, NotAllowed with the reason if it cannot be
        done, Unavailable if it was tried and failed. Bounded by the core (an election timeout) until the
        successor takes over; the caller bounds the rest.
        """
        core = self.core
        self.require_leader()
        try:
            target = self._transfer_target(target_name) if target_name else None
            chosen = core.transfer_leader(target, now_ns())
        except raft_errors.Refused as error:
            raise NotAllowed(str(error), hint="lattice cluster status") from None
        except raft_errors.Busy as error:
            raise Busy(str(error)) from None
        ended: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._transfers.append(ended)
        self.loop.kick()
        reason = await ended
        if reason is not None:
            raise Unavailable(f"leadership stays with {self.config.name}: {self.peers.name_of(chosen)}: {reason}")
        leader = await self._next_leader()
        if leader != chosen:
            raise Unavailable(f"{self.peers.name_of(leader)} was elected instead of {self.peers.name_of(chosen)}")
        return self.peers.name_of(leader), core.term

    def require_leader(self) -> None:
        """Raises NotLeader, with whom to ask, or NoLeader."""
        if self.core.is_leader:
            return
        detail = self.hints.leader(self.core.leader_id)
        if detail is None:
            raise NoLeader("there is no leader at the moment; an election may be under way")
        raise NotLeader(
            f"{self.config.name} is not the leader, {detail.name} is",
            leader_addr=detail.client_addr or None,
            leader_name=detail.name,
        )

    async def confirm_leadership(self) -> None:
        """Return when a quorum has answered what was asked after this call. Raises NotLeader, NoLeader, Busy."""
        await self.catch_up()
        self.require_leader()

    async def catch_up(self) -> None:
        """Return when all is applied here that was acknowledged before this call. Raises NotLeader, NoLeader, Busy."""
        answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.reads.submit(
            [], kv_pb2.CONSISTENCY_LINEARIZABLE, lambda answer: None if answered.done() else answered.set_result(answer)
        )
        answer = await answered
        if isinstance(answer, kv_pb2.ErrorDetail):
            raise from_detail(answer)

    def _transfer_target(self, name: str) -> NodeId:
        """Raises NotAllowed for a member that could not take over; trying would only cost an election timeout."""
        configuration = self.core.configuration
        member = configuration.member_named(name)
        voters = sorted((each.name, each.id) for each in configuration.members if each.id in configuration.voters)
        live = [each for each, node_id in voters if node_id != self.core.id and self.membership.heard(node_id)]
        instead = f"lattice transfer-leader {live[0]}" if live else "lattice cluster status"
        if member is None:
            names = ", ".join(each for each, _ in voters)
            raise NotAllowed(f"{name!r} is no member of this cluster; its voters are {names}", hint=instead)
        if member.id == self.core.id:
            raise NotAllowed(f"{name} leads already", hint=instead)
        if member.id in configuration.learners:
            raise NotAllowed(
                f"{name} is a learner and cannot lead", hint=f"lattice cluster promote {name}, or {instead}"
            )
        if not self.membership.heard(member.id):
            raise NotAllowed(
                f"{name} does not answer, so it cannot take over; {self.config.name} goes on", hint=instead
            )
        return member.id

    async def _next_leader(self) -> NodeId:
        """Whoever is known to lead, as soon as somebody is."""
        changed = asyncio.Event()
        self._role_watchers.append(changed.set)
        try:
            while self.core.leader_id is None:
                changed.clear()
                await changed.wait()
            return self.core.leader_id
        finally:
            self._role_watchers.remove(changed.set)

    def stale_seconds(self) -> float:
        """How long ago, at most, this node's state was known to be the leader's latest."""
        core, now = self.core, now_ns()
        if not core.is_leader:
            return (now - self.loop.last_heard_leader_ns) / 1e9
        voters = core.configuration.voters
        heard = sorted((now if voter == core.id else _last_heard(core, voter) for voter in voters), reverse=True)
        # A leader is current as of the time up to which a majority of the voters has answered it.
        return max(0.0, (now - heard[len(heard) // 2]) / 1e9)

    def role_name(self) -> str:
        core = self.core
        learner = core.role is Role.FOLLOWER and core.id in core.configuration.learners
        return "learner" if learner else core.role.value

    def uptime_seconds(self) -> float:
        return self.seconds_since(self._started_ns)

    def seconds_since(self, then_ns: int) -> float:
        return max(0, now_ns() - then_ns) / 1e9

    def log_bytes(self) -> int:
        """What the log takes up on the disk."""
        return self._opened.wal.size_bytes

    @property
    def data_dir(self) -> str:
        return self._opened.directory.path

    def free_bytes(self) -> int:
        """Room on the data directory's disk. Raises StorageFailed, OSError."""
        return self._opened.fs.free_bytes(self._opened.directory.path)

    async def status(self) -> raft_pb2.MemberStatus:
        """This member's account of itself, its hash taken between two entries."""
        while not self.applier.between_entries and not self.failed.done():
            await self.loop.next_pass()
        return member_status(self)


def _last_heard(core: RaftNode, peer: NodeId) -> int:
    progress = core.progress.get(peer)
    return progress.last_heard_ns if progress is not None else 0


def _names(configuration: Configuration, ids: frozenset[NodeId]) -> list[str]:
    return [member.name for member in configuration.members if member.id in ids]


def _describe(configuration: Configuration) -> str:
    text = f"voters {','.join(_names(configuration, configuration.voters))}"
    if configuration.voters_outgoing:
        text += f", outgoing {','.join(_names(configuration, configuration.voters_outgoing))}"
    if configuration.learners:
        text += f", learners {','.join(_names(configuration, configuration.learners))}"
    return text
