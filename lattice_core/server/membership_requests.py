"""Adding, removing, replacing and promoting servers: what is checked first, what is proposed, what is answered.

The core knows what is *consistent*: one change at a time, joint majorities, no last voter removed. Here is what is
*sensible*, which the core cannot know: who answers at an address, who is alive, who has caught up. Every refusal is
one sentence with the reason, and a hint with what to do instead.

Each request becomes a :class:`Plan`; a dry run ends there and says what it would come to. Otherwise a quorum is asked
first whether it is there: what a leader in a minority puts into its log is not committed now, but may be later, when
nobody expects it. Then the plan is proposed and the answer waits until its configuration is committed, under whatever
leader: a follower sees it too. If leadership is lost and the change with it, the caller is told to ask the new leader;
if that cannot be known in time, that the outcome is unknown.

Adding is a learner's configuration, one step; what follows (promotion, replacement) is membership.py's. A new member
gets a random id that was never used; a server that asks for itself is known by its incarnation, and is given the
same id again if it asks again (SAFETY 22).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

import grpc

from lattice_core.addresses import parse_addr
from lattice_core.config import validate_name
from lattice_core.errors import (
    Busy,
    ConfigurationError,
    InvalidRequest,
    LatticeError,
    NotAllowed,
    OutcomeUnknown,
    Unavailable,
)
from lattice_core.raft import errors as raft_errors
from lattice_core.raft import quorum
from lattice_core.raft.membership import MembershipChange, leave_joint, next_configuration
from lattice_core.raft.node import RaftNode
from lattice_core.raft.types import Configuration, Member, NodeId, Promotion
from lattice_core.rpc.aio import CONNECTION_ERRORS
from lattice_core.rpc.codec import configuration_to_pb, member_to_pb
from lattice_core.rpc.link import explain, fetch_status
from lattice_core.rpc.pb import cluster_pb2, raft_pb2
from lattice_core.rpc.peers import PeerDirectory
from lattice_core.server.clock import now_ns
from lattice_core.server.joining import JOINING
from lattice_core.server.membership import Membership, promotion_of
from lattice_core.server.ready_loop import ReadyLoop

TIMEOUT_SECONDS = 5.0
MAX_TIMEOUT_SECONDS = 60.0

PENDING_SECONDS = 2.0
"""How long a request waits for another change to end: with a live quorum that is a few disk writes."""

PROBE_SECONDS = 1.5
"""For whoever listens at a new address to say who it is."""


class Host(Protocol):
    """What is needed of the node."""

    core: RaftNode
    loop: ReadyLoop
    peers: PeerDirectory
    membership: Membership

    def require_leader(self) -> None: ...

    async def confirm_leadership(self) -> None: ...

    async def transfer_leader(self, target_name: str | None) -> tuple[str, int]: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What to propose, and how to know that it is done."""

    member: Member
    change: MembershipChange | None
    """None: it is done already."""
    eventual: Configuration
    """When everything has been done that was asked for."""
    done: Callable[[Configuration], bool]
    incarnation: int | None = None
    """Of the server that waits at the address of a new member: it is bound to the new id before that is used."""


class MembershipRequests:
    """One method for each call; all of them raise LatticeErrors, for the service to send."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def add(self, request: cluster_pb2.AddServerRequest) -> cluster_pb2.MembershipResponse:
        asked_by_itself = request.incarnation if request.HasField("incarnation") else None
        learner = request.learner
        if request.reseed and asked_by_itself is not None and not request.dry_run:
            learner = await self._remove_former_self(request) or learner

        async def plan() -> Plan:
            configuration = self._core.configuration
            _validate(request.name, request.peer_addr)
            known = configuration.member_named(request.name)
            if known is not None and known.peer_addr == request.peer_addr and asked_by_itself is not None:
                await self._readmit(known, asked_by_itself)
                return _nothing_to_do(known, self._core.configuration)
            self._require_new(configuration, request.name, request.peer_addr)
            promotion = None if learner else Promotion()
            return await self._plan_new(
                request.name, request.peer_addr, promotion, asked_by_itself, start_later=request.start_later
            )

        return await self._carry_out(plan, request.timeout_seconds, dry_run=request.dry_run)

    async def replace(self, request: cluster_pb2.ReplaceServerRequest) -> cluster_pb2.MembershipResponse:
        async def plan() -> Plan:
            configuration = self._core.configuration
            _validate(request.name, request.peer_addr)
            old = self._require_member(configuration, request.old)
            if old.id not in configuration.voters:
                raise NotAllowed(
                    f"{old.name} is a learner, and only a voter is worth replacing in one step",
                    hint=f"lattice cluster remove-server {old.name}",
                )
            self._require_not_being_replaced(configuration, old)
            promotion = Promotion(replaces=old.id)
            known = configuration.member_named(request.name)
            if known is not None and known.peer_addr == request.peer_addr and known.id in configuration.learners:
                if known.promotion is not None and known.promotion.replaces is not None:
                    raise NotAllowed(
                        f"{known.name} is to replace {self._name(known.promotion.replaces)} already",
                        hint=f"lattice cluster remove-server {known.name}, to give that up",
                    )
                member = replace(known, promotion=promotion)
                return _plan_learner(configuration, member)
            if known is not None and known.id in configuration.voters:
                raise NotAllowed(
                    f"{known.name} votes already",
                    hint=f"lattice cluster remove-server {old.name}, and {known.name} stays",
                )
            self._require_new(configuration, request.name, request.peer_addr)
            return await self._plan_new(
                request.name, request.peer_addr, promotion, None, start_later=request.start_later
            )

        return await self._carry_out(plan, request.timeout_seconds, dry_run=request.dry_run)

    async def remove(self, request: cluster_pb2.RemoveServerRequest) -> cluster_pb2.MembershipResponse:
        async def plan() -> Plan:
            member = self._require_member(self._core.configuration, request.name)
            return self._plan_removal(member, force=request.force)

        async def before() -> None:
            # A leader that leaves without a word costs its clients an election; a transfer, a fraction of that.
            if request.name == self._name(self._core.id):
                try:
                    await self._host.transfer_leader(None)
                except LatticeError:
                    return  # nobody to hand over to: it leaves all the same, and steps down at commit
                self._host.require_leader()

        return await self._carry_out(plan, request.timeout_seconds, dry_run=request.dry_run, before=before)

    def _plan_removal(self, member: Member, *, force: bool) -> Plan:
        configuration = self._core.configuration
        self._require_not_being_replaced(configuration, member)
        if configuration.voters == {member.id}:
            raise NotAllowed(
                f"{member.name} is the last voter, and a cluster needs one",
                hint="add another server first: lattice start --name NAME ... --join H:P",
            )
        change = MembershipChange(remove=frozenset((member.id,)))
        eventual = _eventual(configuration, change)
        if not force:
            self._require_live_quorum(configuration, eventual, member)
        return Plan(member, change, eventual, lambda found: not found.is_joint and member.id not in found)

    async def promote(self, request: cluster_pb2.PromoteServerRequest) -> cluster_pb2.MembershipResponse:
        async def plan() -> Plan:
            configuration = self._core.configuration
            member = self._require_member(configuration, request.name)
            if member.id in configuration.voters:
                raise NotAllowed(f"{member.name} votes already", hint="lattice cluster members")
            membership = self._host.membership
            reason = membership.not_caught_up(member.id) or await membership.not_applied(member.id)
            if reason is not None:
                wait = "it is promoted by itself when it has caught up" if member.promotion else "try again when it has"
                start = f"start {member.name}: lattice start --name {member.name} ... --join H:P"
                raise NotAllowed(
                    f"{member.name} {reason}: it cannot be promoted now; {wait}",
                    hint=start if "never" in reason else "lattice cluster status",
                )
            configuration = self._core.configuration
            change = promotion_of(member, configuration)
            return Plan(
                member,
                change,
                _eventual(configuration, change),
                lambda found: not found.is_joint and member.id in found.voters,
            )

        return await self._carry_out(plan, request.timeout_seconds, dry_run=request.dry_run)

    async def _remove_former_self(self, request: cluster_pb2.AddServerRequest) -> bool:
        """Remove the member whose place a server takes that has lost its data; whether it was a learner for good.

        That the member does not run any more is seen, not believed: at its address that very server waits.
        """
        ours = self._host.peers.local.cluster_id
        if request.HasField("reseed_cluster_id") and request.reseed_cluster_id != ours:
            raise NotAllowed(
                f"the data that {request.name} has lost belonged to cluster {request.reseed_cluster_id:016x}, and this "
                f"is cluster {ours:016x}",
                hint="--reseed takes the client address of a member of its own cluster",
            )
        learner = False

        async def plan() -> Plan:
            nonlocal learner
            configuration = self._core.configuration
            known = configuration.member_named(request.name)
            if known is None or self._host.peers.known_incarnation(known.id) == request.incarnation:
                return Plan(known or Member(1, request.name, request.peer_addr), None, configuration, lambda _: True)
            if known.peer_addr != request.peer_addr:
                raise NotAllowed(
                    f"{known.name} is a member at {known.peer_addr}, and its place is asked for at {request.peer_addr}",
                    hint=f"--peer-addr {known.peer_addr}; or first: lattice cluster remove-server {known.name}",
                )
            await self._probe(known.name, known.peer_addr, request.incarnation)
            learner = known.id in configuration.learners and known.promotion is None
            return self._plan_removal(known, force=False)

        await self._carry_out(plan, request.timeout_seconds / 2, dry_run=False)
        return learner

    # -- the way of all requests --------------------------------------------------------------------

    async def _carry_out(
        self,
        plan: Callable[[], Awaitable[Plan]],
        timeout_seconds: float,
        *,
        dry_run: bool,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> cluster_pb2.MembershipResponse:
        seconds = min(timeout_seconds or TIMEOUT_SECONDS, MAX_TIMEOUT_SECONDS)
        core = self._core
        proposed = False
        try:
            async with asyncio.timeout(seconds):
                self._host.require_leader()
                if dry_run:
                    return await self._dry_run(plan)
                await self._until_nothing_is_pending(min(PENDING_SECONDS, seconds / 2))
                planned = await plan()
                self._host.require_leader()  # looking at an address takes its time
                if before is not None:
                    await before()
                await self._host.confirm_leadership()
                before_it = core.configuration
                if planned.change is not None:
                    if planned.incarnation is not None:
                        await self._host.peers.bind(planned.member.id, planned.incarnation)
                    try:
                        index = core.propose_membership(planned.change, now_ns())
                    except raft_errors.NotLeader:
                        self._host.require_leader()
                        raise
                    except raft_errors.Busy as error:
                        raise Busy(str(error)) from None
                    except raft_errors.Refused as error:
                        raise NotAllowed(str(error)) from None
                    proposed = True
                    self._host.loop.kick()
                else:
                    index = core.configuration_index
                at, configuration = await self._committed(planned.done, index, core.log.term_at(index))
        except TimeoutError:
            if not proposed:
                raise Unavailable(f"nothing was changed: no answer after {seconds:g} s") from None
            raise OutcomeUnknown(
                f"the change of members is not committed after {seconds:g} s; it may be yet",
                hint="lattice cluster status",
            ) from None
        return cluster_pb2.MembershipResponse(
            cluster_id=self._host.peers.local.cluster_id,
            member=member_to_pb(configuration.member(planned.member.id) or planned.member),
            index=at,
            configuration=configuration_to_pb(configuration),
            before=self._quorum_of(before_it),
            after=self._quorum_of(planned.eventual),
        )

    async def _dry_run(self, plan: Callable[[], Awaitable[Plan]]) -> cluster_pb2.MembershipResponse:
        core = self._core
        response = cluster_pb2.MembershipResponse(
            cluster_id=self._host.peers.local.cluster_id, before=self._quorum_of(core.configuration)
        )
        try:
            self._require_nothing_pending()
            planned = await plan()
        except NotAllowed as error:
            response.refused, response.hint = error.message, error.hint or ""
            response.configuration.CopyFrom(configuration_to_pb(core.configuration))
            response.after.CopyFrom(response.before)
            return response
        response.member.CopyFrom(member_to_pb(planned.member))
        response.configuration.CopyFrom(configuration_to_pb(planned.eventual))
        response.after.CopyFrom(self._quorum_of(planned.eventual))
        return response

    async def _until_nothing_is_pending(self, seconds: float) -> None:
        """Raises NotAllowed that names the change which does not end, NotLeader."""
        try:
            async with asyncio.timeout(seconds):
                while self._pending() is not None:
                    await self._host.loop.next_pass()
                    self._require_running()
                    self._host.require_leader()
        except TimeoutError:
            self._require_nothing_pending()

    def _require_nothing_pending(self) -> None:
        pending = self._pending()
        if pending is not None:
            raise NotAllowed(pending, hint="wait until it is done: lattice cluster status")

    def _pending(self) -> str | None:
        """What has to be over before the next change, in words."""
        core = self._core
        if core.log.term_at(core.commit_index) != core.term:
            return "this leader has just been elected and has not committed anything yet"
        configuration = core.configuration
        if configuration.is_joint:
            former = self._names(configuration.voters_outgoing)
            return f"another change is under way: the voters {former} become {self._names(configuration.voters)}"
        if core.configuration_index > core.commit_index:
            return f"another change is under way, to the voters {self._names(configuration.voters)}"
        return None

    async def _committed(
        self, done: Callable[[Configuration], bool], index: int, term: int | None
    ) -> tuple[int, Configuration]:
        """Wait for a committed configuration that is ``done``. Raises NotLeader, NoLeader if the entry was lost."""
        core = self._core
        while True:
            at, configuration = core.committed_configuration
            if done(configuration):
                return at, configuration
            replaced = core.log.term_at(index)
            if core.last_index < index or (replaced is not None and replaced != term):
                self._host.require_leader()  # by now another leads; nothing happened
                raise Unavailable("leadership was lost and won again, and the change was lost with it")
            self._require_running()
            await self._host.loop.next_pass()

    def _require_running(self) -> None:
        if self._host.loop.stopped:
            raise Unavailable("this member is stopping")

    # -- what is checked ----------------------------------------------------------------------------

    def _require_member(self, configuration: Configuration, name: str) -> Member:
        member = configuration.member_named(name)
        if member is None:
            there = ", ".join(sorted(each.name for each in configuration.members))
            raise NotAllowed(
                f"{name!r} is no member of this cluster; there are {there}", hint="lattice cluster members"
            )
        return member

    def _require_new(self, configuration: Configuration, name: str, peer_addr: str) -> None:
        for member in configuration.members:
            if member.name == name:
                raise NotAllowed(
                    f"{name} is a member already, at {member.peer_addr}",
                    hint=f"another name, or first: lattice cluster remove-server {name}",
                )
            if member.peer_addr == peer_addr:
                raise NotAllowed(
                    f"{peer_addr} is the peer address of the member {member.name}",
                    hint=f"another address, or first: lattice cluster remove-server {member.name}",
                )

    def _require_not_being_replaced(self, configuration: Configuration, member: Member) -> None:
        for other in configuration.members:
            if other.promotion is not None and other.promotion.replaces == member.id:
                raise NotAllowed(
                    f"{other.name} is to replace {member.name} as soon as it has caught up",
                    hint=f"wait, or give that up first: lattice cluster remove-server {other.name}",
                )

    def _require_live_quorum(self, current: Configuration, eventual: Configuration, leaving: Member) -> None:
        if leaving.id not in current.voters:
            return
        live = {voter for voter in current.voters if self._host.membership.heard(voter)}
        for configuration in (current, eventual):
            if not quorum.is_quorum(configuration, live):
                left = live & configuration.voters
                silent = self._names(configuration.voters - live)
                first = next(iter(sorted(silent.split(", "))))
                raise NotAllowed(
                    f"without {leaving.name} {len(left)} of {len(configuration.voters)} voters would be live, and "
                    f"{quorum.majority(len(configuration.voters))} are needed ({silent}: no answer)",
                    hint=f"start {first}, or remove it first: lattice cluster remove-server {first}; "
                    "or --force, and nothing is written until it is back",
                )

    async def _readmit(self, member: Member, incarnation: int) -> None:
        """A server asks to join whose name and address a member has. Raises NotAllowed unless it may be that one."""
        peers = self._host.peers
        learns = member.id in self._core.configuration.learners
        if learns and peers.known_incarnation(member.id) is None:
            await peers.bind(member.id, incarnation)
        if not learns or peers.known_incarnation(member.id) != incarnation:
            raise NotAllowed(
                f"{member.name} is already a member with another data directory",
                hint=f"lattice cluster remove-server {member.name}, then the same command again",
            )

    async def _plan_new(
        self,
        name: str,
        peer_addr: str,
        promotion: Promotion | None,
        incarnation: int | None,
        *,
        start_later: bool,
    ) -> Plan:
        if not start_later:
            found = await self._probe(name, peer_addr, incarnation)
            incarnation = found if incarnation is None else incarnation
        configuration = self._core.configuration  # another may have been added meanwhile
        self._require_new(configuration, name, peer_addr)
        member = Member(self._fresh_id(configuration), name, peer_addr, promotion)
        return replace(_plan_learner(configuration, member), incarnation=incarnation)

    def _fresh_id(self, configuration: Configuration) -> NodeId:
        while True:
            node_id = secrets.randbits(63) + 1
            if node_id not in configuration and self._host.peers.known_incarnation(node_id) is None:
                return node_id

    async def _probe(self, name: str, addr: str, incarnation: int | None) -> int:
        """The incarnation of the server ``name`` that waits at ``addr`` to join. Raises NotAllowed, Unavailable."""
        peers = self._host.peers
        dialled = peers.dial_addr(name, addr)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                status = await fetch_status(peers.security, name, dialled, PROBE_SECONDS)
        except CONNECTION_ERRORS as error:
            reason = await explain(error, peers.security, name, dialled) or _why_not(error)
            if incarnation is not None:
                # It says itself that it is there; perhaps this was a moment's trouble.
                raise Unavailable(
                    f"the leader {self._name(self._core.id)} gets no answer from {addr}: {reason}",
                    hint="--peer-addr must be an address at which the other members reach this server",
                ) from None
            raise NotAllowed(
                f"nobody who could join answers at {addr}: {reason}",
                hint=f"start it, which adds it too: lattice start --name {name} --peer-addr {addr} ... --join H:P; "
                "or add --start-later here, and start it so afterwards",
            ) from None
        self._judge(status, name, addr, incarnation)
        return status.incarnation

    def _judge(self, status: raft_pb2.MemberStatus, name: str, addr: str, incarnation: int | None) -> None:
        if status.role == JOINING:
            if status.name != name or (incarnation is not None and status.incarnation != incarnation):
                raise NotAllowed(
                    f"the server that waits at {addr} is {status.name or 'nameless'}, not {name}"
                    if status.name != name
                    else f"another server of the name {name} answers at {addr}",
                    hint="give each server an address of its own: --peer-addr",
                )
            return
        ours = self._host.peers.local.cluster_id
        who = status.name or "somebody"
        if status.cluster_id != ours:
            raise NotAllowed(
                f"{addr} is the peer address of {who} of another cluster, {status.cluster_id:016x}",
                hint=f"a server joins with an empty data directory: lattice start --name {name} ... --join H:P",
            )
        member = self._core.configuration.member(status.node_id)
        what = f"the member {member.name}" if member is not None else f"{who}, which was removed from this cluster"
        raise NotAllowed(
            f"{addr} is the peer address of {what}",
            hint="lattice cluster members"
            if member is not None
            else "stop it; it joins again with an empty data directory",
        )

    # -- words and numbers --------------------------------------------------------------------------

    @property
    def _core(self) -> RaftNode:
        return self._host.core

    def _name(self, node_id: NodeId) -> str:
        return self._host.peers.name_of(node_id)

    def _names(self, ids: frozenset[NodeId]) -> str:
        return ", ".join(sorted(map(self._name, ids)))

    def _quorum_of(self, configuration: Configuration) -> cluster_pb2.Quorum:
        def names(ids: frozenset[NodeId]) -> list[str]:
            return sorted(member.name for member in configuration.members if member.id in ids)

        voters = configuration.voters
        size = quorum.majority(len(voters))
        return cluster_pb2.Quorum(
            voters=names(voters),
            learners=names(configuration.learners),
            size=size,
            tolerates=max(0, len(voters) - size),
            live=sum(map(self._host.membership.heard, voters)),
        )


def _validate(name: str, peer_addr: str) -> None:
    try:
        validate_name(name)
        parse_addr(peer_addr, what="peer address")
    except ConfigurationError as error:
        raise InvalidRequest(error.message, hint=error.hint) from None


def _plan_learner(configuration: Configuration, member: Member) -> Plan:
    change = MembershipChange(add_learners=(member,))
    eventual = _eventual(configuration, change)
    if member.promotion is not None:
        eventual = _eventual(eventual, promotion_of(member, eventual))
    return Plan(member, change, eventual, lambda found: found.member(member.id) == member or member.id in found.voters)


def _nothing_to_do(member: Member, configuration: Configuration) -> Plan:
    eventual = configuration
    if member.promotion is not None:
        eventual = _eventual(configuration, promotion_of(member, configuration))
    return Plan(member, None, eventual, lambda found: member.id in found)


def _eventual(configuration: Configuration, change: MembershipChange) -> Configuration:
    try:
        return leave_joint(next_configuration(configuration, change))
    except raft_errors.Refused as error:
        raise NotAllowed(str(error)) from None


def _why_not(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        details = error.details() or ""
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return "what listens there is no peer address of Lattice's"
        if "onnection refused" in details:
            return "connection refused"
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"nothing came within {PROBE_SECONDS:g} s"
        return details.splitlines()[0][:120] if details else error.code().name.lower()
    if isinstance(error, TimeoutError):
        return f"nothing came within {PROBE_SECONDS:g} s"
    return str(error) or type(error).__name__
