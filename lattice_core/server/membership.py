"""What becomes of members while nobody is asking: learners are promoted, the removed are told and stop.

The intent is replicated with the member (:class:`~lattice_core.raft.types.Promotion`), so every leader finds it and
goes on where the last one stopped. The leader looks at its learners once a heartbeat; one that has been within a
bound of the log's end for several looks in a row is *caught up* (the thesis, 4.2.1, measures rounds; a bound that
holds for a while says the same and is easier to show to a person). The log is not all: it may still be loading the
snapshot that it was sent, and a quorum that needs it would wait for that; so it is asked what it has applied. Then it
is made a voter by one change, which may remove the voter that it replaces. One change at a time; what the core refuses
now is tried at the next look.

A leader that is to be replaced hands leadership over first: its successor finds the same intent. So clients wait for
a transfer and not for an election. Where that fails twice it goes on itself, and steps down at commit (SAFETY 34).

Removing the dead (off by default). Only a member that has not answered *this* leader for the time that was asked for,
and only while every other voter answers: so that there is a live quorum before, and one after, whose every member is
live. With two voters left there is no such quorum without the dead one, and nothing is done.

Who is in no committed configuration any more, later than the one that made it a member, has been removed. It lingers
for two heartbeats, so that what it was told can be acknowledged and a removed leader can tell the others; then it
stops for good. A follower that has no leader dials the others now and then: if it was removed while it was down,
somebody will say so (rpc/peers.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from lattice_core.config import NodeConfig
from lattice_core.raft import quorum
from lattice_core.raft.errors import RaftError
from lattice_core.raft.membership import MembershipChange
from lattice_core.raft.node import RaftNode
from lattice_core.raft.progress import Progress, ProgressState
from lattice_core.raft.types import Configuration, Member, NodeId
from lattice_core.rpc.peers import PeerDirectory
from lattice_core.rpc.transport import PeerTransport
from lattice_core.server.clock import now_ns
from lattice_core.server.ready_loop import ReadyLoop

CAUGHT_UP_ENTRIES = 100
"""A learner may lag by so many entries: under full load, what a healthy follower lags by."""

CAUGHT_UP_BYTES = 8 << 20
"""And by so many bytes: what the leader keeps in flight to one follower."""

CAUGHT_UP_LOOKS = 3
"""In a row."""

APPLIED_SECONDS = 1.0
"""For a learner to say what it has applied."""

LINGER_LOOKS = 2

HANDOVERS = 2
"""How often a leader that is to be replaced tries to hand over before it does the change itself."""

REACH_OUT_SECONDS = 2.0
"""How often a member without a leader dials everybody it knows."""

log = logging.getLogger("lattice.membership")


class Membership:
    """Owns one task. Everything is read from the core; only counts and times are kept here."""

    def __init__(
        self,
        config: NodeConfig,
        core: RaftNode,
        loop: ReadyLoop,
        transport: PeerTransport,
        peers: PeerDirectory,
        contacts: tuple[Member, ...],
        removed: Callable[[str], None],
    ) -> None:
        """``contacts``: whom to dial until a configuration has come; ``removed`` is told why this node must stop."""
        self._core = core
        self._loop = loop
        self._transport = transport
        self._peers = peers
        self._contacts = Configuration.of_voters(contacts)
        self._removed = removed
        self._look_seconds = config.heartbeat_ms / 1000
        self._auto_remove_ns = int(config.auto_remove_after_seconds * 1e9)
        self._task: asyncio.Task[None] | None = None
        self._good_looks: dict[NodeId, int] = {}
        self._handovers = 0
        self._lingered = 0
        self._reach_out_at = 0.0
        self._said: dict[str, str] = {}

    def start(self) -> None:
        self.tend_links()
        self._task = asyncio.create_task(self._run(), name="membership")

    async def close(self) -> None:
        """Safe to repeat."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @property
    def known_configuration(self) -> Configuration:
        """The one in force; until there is one, those who admitted this server."""
        configuration = self._core.configuration
        return configuration if configuration.members else self._contacts

    # -- what others ask about members --------------------------------------------------------------

    def lag_of(self, progress: Progress) -> tuple[int, int]:
        """How many entries a peer is behind, and (up to about CAUGHT_UP_BYTES) how many bytes."""
        raft_log = self._core.log
        lag = raft_log.last_index - progress.match_index
        size = 0
        first = max(progress.match_index + 1, raft_log.first_index)
        for index in range(first, min(raft_log.last_index, first + CAUGHT_UP_ENTRIES) + 1):
            size += raft_log.entry(index).size_bytes
        return lag, size

    def heard(self, peer: NodeId) -> bool:
        """Whether a peer has answered this leader, in its term, within an election timeout. This node counts."""
        core = self._core
        if peer == core.id:
            return True
        progress = core.progress.get(peer)
        if progress is None or (progress.acked_round == 0 and progress.match_index == 0):
            return False
        return progress.last_heard_ns > now_ns() - core.config.election_timeout_max_ns

    def not_caught_up(self, peer: NodeId) -> str | None:
        """Why a learner cannot be promoted at this moment, in words that follow its name; None: it can."""
        progress = self._core.progress.get(peer)
        if progress is None or (progress.acked_round == 0 and progress.match_index == 0):
            return "has never been heard from"
        if not self.heard(peer):
            return f"has not answered for {(now_ns() - progress.last_heard_ns) / 1e9:.0f} s"
        lag, size = self.lag_of(progress)
        if progress.state is ProgressState.SNAPSHOT:
            return f"is being sent a snapshot, and is {lag:,} entries behind"
        if progress.state is not ProgressState.REPLICATE or lag > CAUGHT_UP_ENTRIES or size > CAUGHT_UP_BYTES:
            return f"is {lag:,} entries behind"
        return None

    async def not_applied(self, peer: NodeId) -> str | None:
        """Why a learner that has the log cannot be promoted yet, in words that follow its name; None: it can."""
        wanted = self._core.applied_index
        status = await self._transport.status(peer, APPLIED_SECONDS)
        if status is None or status.node_id != peer:
            return "does not say what it has applied"
        behind = wanted - status.applied_index
        return f"has yet to apply {behind:,} entries" if behind > CAUGHT_UP_ENTRIES else None

    # -- the task -----------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self._loop.stopped:
            await asyncio.sleep(self._look_seconds)
            try:
                learner = self._look()
                if learner is not None:
                    await self._promote_if_applied(learner)
            except Exception as error:
                self._loop.fail(error)

    def _look(self) -> Member | None:
        """The learner that is to be promoted now, if there is one."""
        core = self._core
        self._notice_removal()
        if self._loop.stopped:
            return None
        if self._transport.peers - {member.id for member in core.configuration.members}:
            self.tend_links()
        if core.is_leader:
            return self._lead()
        self._good_looks.clear()
        self._handovers = 0
        now = asyncio.get_running_loop().time()
        if core.leader_id is None and now >= self._reach_out_at:
            self._reach_out_at = now + REACH_OUT_SECONDS
            self._transport.reach_out()
        return None

    def tend_links(self) -> None:
        """Links for all who are members, or may be again, or have yet to hear that they are not."""
        core = self._core
        leaving = {member.id for each in core.log.configurations_in_doubt() for member in each.members}
        self._transport.set_configuration(self.known_configuration, leaving | core.progress.keys())

    def _notice_removal(self) -> None:
        core = self._core
        at, committed = core.committed_configuration
        if at <= self._peers.local.joined_index or core.id in committed:
            self._lingered = 0
            return
        self._lingered += 1
        if self._lingered > LINGER_LOOKS:
            voters = ", ".join(member.name for member in committed.members if member.id in committed.voters)
            self._removed(f"the configuration at index {at} has the voters {voters}")

    # -- the leader's part --------------------------------------------------------------------------

    def _lead(self) -> Member | None:
        core = self._core
        learners = [member for member in core.configuration.members if member.promotion is not None]
        for gone in self._good_looks.keys() - {member.id for member in learners}:
            del self._good_looks[gone]
        for learner in learners:
            reason = self.not_caught_up(learner.id)
            if reason is None:
                self._good_looks[learner.id] = self._good_looks.get(learner.id, 0) + 1
            else:
                self._good_looks[learner.id] = 0
        if core.configuration_index > core.commit_index or core.configuration.is_joint:
            return None  # one change at a time
        for learner in learners:
            if self._good_looks[learner.id] >= CAUGHT_UP_LOOKS:
                return learner
        if self._auto_remove_ns:
            self._remove_the_dead()
        return None

    async def _promote_if_applied(self, learner: Member) -> None:
        term = self._core.term
        reason = await self.not_applied(learner.id)
        if self._loop.stopped or not self._core.is_leader or self._core.term != term:
            return
        if reason is not None:
            self._good_looks[learner.id] = 0  # ask again after as many looks
            self._say(learner.name, f"{learner.name} has the log, but {reason}")
        elif self._core.configuration.member(learner.id) == learner:
            self._promote(learner)

    def _promote(self, learner: Member) -> None:
        core = self._core
        change = promotion_of(learner, core.configuration)
        if core.id in change.remove and self._handovers < HANDOVERS and len(core.configuration.voters) > 1:
            self._handovers += 1
            try:
                successor = core.transfer_leader(None, now_ns())
            except RaftError as error:
                self._say(learner.name, f"{learner.name} is to replace this leader, which cannot hand over: {error}")
                return
            log.info("%s is to replace this leader: handing over to %s", learner.name, self._peers.name_of(successor))
            self._loop.kick()
            return
        try:
            index = core.propose_membership(change, now_ns())
        except RaftError as error:
            self._say(learner.name, f"{learner.name} has caught up, but cannot be promoted yet: {error}")
            return
        replaced = [self._peers.name_of(node_id) for node_id in sorted(change.remove)]
        in_place = f" in place of {replaced[0]}" if replaced else ""
        text = "%s has caught up: it is to vote%s (index %d)"
        log.info(text, learner.name, in_place, index, extra={"peer": learner.name, "index": index})
        self._good_looks.clear()
        self._loop.kick()

    def _remove_the_dead(self) -> None:
        core, now = self._core, now_ns()
        configuration = core.configuration
        replaced = {member.promotion.replaces for member in configuration.members if member.promotion is not None}
        for peer, progress in core.progress.items():
            member = configuration.member(peer)
            if member is None or peer in replaced or now - progress.last_heard_ns < self._auto_remove_ns:
                continue
            if peer in configuration.learners and self._peers.known_incarnation(peer) is None:
                continue  # it is to be started later
            others = configuration.voters - {peer}
            if not others or not all(map(self.heard, others)) or not quorum.is_quorum(configuration, others):
                self._say(
                    member.name, f"{member.name} is not removed although it does not answer: others do not either"
                )
                continue
            try:
                core.propose_membership(MembershipChange(remove=frozenset((peer,))), now)
            except RaftError as error:
                self._say(member.name, f"{member.name} is not removed yet although it does not answer: {error}")
                return
            log.warning(
                "%s has not answered for %.0f s and is removed (auto_remove_after_seconds)",
                member.name,
                (now - progress.last_heard_ns) / 1e9,
            )
            self._loop.kick()
            return

    def _say(self, about: str, line: str) -> None:
        """Log a line, unless it is what was said last about that."""
        if self._said.get(about) != line:
            self._said[about] = line
            log.info("%s", line)


def promotion_of(learner: Member, configuration: Configuration) -> MembershipChange:
    """The change that makes a learner the voter it is meant to be. Whom it should replace may have left already."""
    replaces = learner.promotion.replaces if learner.promotion is not None else None
    remove = frozenset((replaces,)) if replaces is not None and replaces in configuration else frozenset()
    return MembershipChange(add_voters=(replace(learner, promotion=None),), remove=remove)
