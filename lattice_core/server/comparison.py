"""Members compare their states all the time; whoever is the odd one out stops.

The same log gives the same state on every member, or the cluster is worth nothing: a bug, a broken memory module, a
file that was tampered with under right checksums would otherwise show only when somebody reads the wrong value. So
about once a second each follower tells the leader the hash of its state after the last entry it applied, and the leader
answers with its own after the same entry. Where they differ, both look into it, and each judges only itself:

* It asks every member for the hash after that very entry, again and again for a few seconds, since some have yet to
  apply it and some may be away.
* A quorum of the voters has one hash, and it is mine: I say loudly who the odd one is, and go on.
* A quorum has one hash, and mine is another: I am the odd one. I mark my data directory, so that it is not served
  again, say what to do, and stop. Nobody else can make me stop: a member that is wrong accuses the others just as well.
* No hash has a quorum (two members, say, or three different ones): nobody can tell who is right, and stopping would
  cost availability without making anything right. Everybody goes on and says so, again and again.

Members whose programs compute the hash in another way (``DIGEST_VERSION``) are not compared: in a rolling upgrade they
differ without being different. What a snapshot is made of is checked against the same hash when it is loaded.

Limits: a member is judged when it can be asked, and what it has answered before it was found out has been answered.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from lattice_core.kv.digests import DIGEST_VERSION
from lattice_core.raft import quorum
from lattice_core.raft.node import RaftNode
from lattice_core.raft.types import NodeId
from lattice_core.rpc.pb import raft_pb2
from lattice_core.rpc.peers import PeerDirectory
from lattice_core.rpc.transport import PeerTransport
from lattice_core.server.metrics import NodeMetrics
from lattice_core.server.ready_loop import ReadyLoop
from lattice_core.server.state_hashes import StateHashes

log = logging.getLogger("lattice.state")

COMPARE_SECONDS: Final = 1.0
ASK_SECONDS: Final = 1.0
INQUIRY_SECONDS: Final = 5.0
"""How long an inquiry waits for members who have yet to apply the entry, or to be reached."""

RETRY_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an inquiry came to."""

    index: int
    hashes: dict[NodeId, int]
    """Of those who answered, this member included."""
    right: int | None
    """What a quorum of the voters has; None: nothing has one."""


class RoomReports(Protocol):
    """The room on the disks, of which each member tells the leader on this occasion (room.py)."""

    @property
    def own(self) -> str | None:
        """Why this member has too little; None: it has enough."""

    def told(self, peer: NodeId, reason: str) -> None:
        """What another one says of itself; empty: it has enough."""


class Comparison:
    """Owns one task. ``diverged`` is called with the reason if this member has to stop."""

    def __init__(
        self,
        core: RaftNode,
        hashes: StateHashes,
        loop: ReadyLoop,
        transport: PeerTransport,
        peers: PeerDirectory,
        metrics: NodeMetrics,
        diverged: Callable[[str], None],
        room: Callable[[], RoomReports],
    ) -> None:
        self._core = core
        self._hashes = hashes
        self._loop = loop
        self._transport = transport
        self._peers = peers
        self._metrics = metrics
        self._diverged = diverged
        self._room = room
        self._suspect: int | None = None
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="comparison")

    async def close(self) -> None:
        """Safe to repeat."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def answer(self, request: raft_pb2.StateHashRequest) -> raft_pb2.StateHashResponse:
        """Another member's question, which says what it has itself."""
        local = self._peers.local
        response = raft_pb2.StateHashResponse(cluster_id=local.cluster_id, node_id=local.node_id)
        if request.cluster_id != local.cluster_id:
            return response
        if request.asker_id:
            self._room().told(request.asker_id, request.no_room)
        if request.digest_version == DIGEST_VERSION:
            mine = self._hashes.at(request.index)
            if mine is not None:
                response.state_hash = mine
                if request.HasField("state_hash") and request.state_hash != mine:
                    self._suspect = request.index
                    self._woken.set()
        return response

    # -- the task -----------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self._loop.stopped:
            try:
                async with asyncio.timeout(COMPARE_SECONDS * random.uniform(0.75, 1.25)):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            try:
                await self._compare()
                index, self._suspect = self._suspect, None
                if index is not None:
                    self._judge(await self._inquire(index))
            except Exception as error:
                self._loop.fail(error)

    async def _compare(self) -> None:
        """With the leader, after the last entry applied here; a leader that lags behind has not got there, and one
        that is far ahead has forgotten: then after the last that is remembered for long."""
        leader = self._core.leader_id
        if leader is None or leader == self._core.id:
            return
        for mine in (self._hashes.latest, self._hashes.last_mark):
            if mine is None:
                return
            theirs = await self._ask(leader, *mine)
            if theirs is not None:
                self._metrics.states_compared += 1
                if theirs != mine[1]:
                    self._suspect = mine[0]
                return

    async def _ask(self, peer: NodeId, index: int, mine: int) -> int | None:
        local = self._peers.local
        request = raft_pb2.StateHashRequest(
            cluster_id=local.cluster_id,
            digest_version=DIGEST_VERSION,
            index=index,
            state_hash=mine,
            asker_id=local.node_id,
            no_room=self._room().own or "",
        )
        response = await self._transport.state_hash(peer, request, ASK_SECONDS)
        if response is None or response.cluster_id != local.cluster_id or response.node_id != peer:
            return None
        return response.state_hash if response.HasField("state_hash") else None

    async def _inquire(self, index: int) -> Verdict | None:
        """Everybody's hash after that entry, as soon as a quorum has one, or when there is no more time."""
        mine = self._hashes.at(index)
        if mine is None:
            return None  # it is forgotten here; the next comparison is about another
        self._metrics.states_differed += 1
        found: dict[NodeId, int] = {self._core.id: mine}
        loop = asyncio.get_running_loop()
        deadline = loop.time() + INQUIRY_SECONDS
        while True:
            configuration = self._core.configuration
            missing = [member.id for member in configuration.members if member.id not in found]
            answers: list[int | None] = await asyncio.gather(*(self._ask(peer, index, mine) for peer in missing))
            found.update({peer: each for peer, each in zip(missing, answers, strict=True) if each is not None})
            verdict = Verdict(index, found, self._right(found))
            if verdict.right is not None or len(found) >= len(configuration.members) or loop.time() >= deadline:
                return verdict
            await asyncio.sleep(RETRY_SECONDS)

    def _right(self, found: dict[NodeId, int]) -> int | None:
        for each in set(found.values()):
            if quorum.is_quorum(self._core.configuration, {peer for peer, theirs in found.items() if theirs == each}):
                return each
        return None

    def _judge(self, verdict: Verdict | None) -> None:
        if verdict is None or len(set(verdict.hashes.values())) == 1:
            return
        mine = verdict.hashes[self._core.id]
        after = f"after entry {verdict.index}"
        if verdict.right is None:
            log.error(
                "MEMBERS DIFFER: %s the states are %s, and no majority has one of them: nobody can tell who is right, "
                "and all go on; compare what they serve, and keep a backup of each: lattice snapshot save",
                after,
                self._listed(verdict),
            )
        elif verdict.right == mine:
            odd = [peer for peer, theirs in verdict.hashes.items() if theirs != mine]
            log.error("MEMBERS DIFFER: %s the states are %s: %s is the odd one, and has to stop", after,
                      self._listed(verdict), ", ".join(map(self._peers.name_of, odd)))  # fmt: skip
        else:
            self._diverged(f"{after} the states are {self._listed(verdict)}")

    def _listed(self, verdict: Verdict) -> str:
        by_hash: dict[int, list[str]] = {}
        for peer, theirs in verdict.hashes.items():
            by_hash.setdefault(theirs, []).append(self._peers.name_of(peer))
        return ", ".join(f"{theirs:016x} on {' and '.join(sorted(names))}" for theirs, names in by_hash.items())
