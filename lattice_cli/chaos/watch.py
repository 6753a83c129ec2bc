"""What the members say of themselves while they are attacked, and what may never be seen there.

Every member is asked a few times a second, by a connection of its own to its client port. Four things are checked on
the way, as cheap as they are strong: at most one leader a term; whoever has applied the same entry has the same state
hash; a member's applied index never goes back within one life; nobody ends whom nobody has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from lattice_cli.chaos.nodes import ChaosCluster
from lattice_core.rpc.pb import cluster_pb2, cluster_pb2_grpc, raft_pb2

POLL_SECONDS = 0.2
ASK_SECONDS = 0.5
"""For an answer. Whoever takes longer is busy, paused or gone: ask again."""

REMEMBERED_HASHES = 4096
"""Of entries, the last; members lag behind each other by less, or are sent a snapshot."""

CHANNEL_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_http_proxy", 0),
]


@dataclass(frozen=True, slots=True)
class Seen:
    """A member's last account, and in which life (process id) and when (loop time) it gave it."""

    pid: int | None
    at: float
    status: raft_pb2.MemberStatus


class Watch:
    """Lives on one loop. ``violation`` is called with a line for each finding, once for each kind of it."""

    def __init__(self, cluster: ChaosCluster, violation: Callable[[str], None]) -> None:
        self.seen: dict[str, Seen] = {}
        self.leaders: OrderedDict[int, str] = OrderedDict()
        """Term to leader, of those that were seen."""
        self._cluster = cluster
        self._violation = violation
        self._hashes: OrderedDict[int, tuple[str, int]] = OrderedDict()
        self._ended: set[tuple[str, int | None]] = set()
        self._diverged = False
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def leader_changes(self) -> int:
        """How often leadership was seen in another term than before; an election that nobody saw is not counted."""
        return max(0, len(self.leaders) - 1)

    def leader(self) -> str | None:
        """The leader of the highest term seen, if it is awake."""
        if not self.leaders:
            return None
        name = self.leaders[max(self.leaders)]
        return name if name in self._cluster.awake() else None

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._run())

    async def close(self) -> None:
        """Safe to repeat."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for channel in self._channels.values():
            await channel.close(None)
        self._channels.clear()

    async def look(self) -> dict[str, raft_pb2.MemberStatus]:
        """Ask everybody now; the answers of those that gave one."""
        names = self._cluster.awake()
        answers = await asyncio.gather(*(self._ask(name) for name in names))
        self._check_ends()
        return {name: answer for name, answer in zip(names, answers, strict=True) if answer is not None}

    async def _run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(POLL_SECONDS)

    async def _ask(self, name: str) -> raft_pb2.MemberStatus | None:
        node = self._cluster.nodes[name]
        pid, asked_at = node.pid, asyncio.get_running_loop().time()
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = self._cluster.open_channel(node.client_addr, CHANNEL_OPTIONS)
        make: Any = cluster_pb2_grpc.ClusterStub
        try:
            status: raft_pb2.MemberStatus = await make(channel).NodeStatus(
                cluster_pb2.NodeStatusRequest(), timeout=ASK_SECONDS
            )
        except (grpc.RpcError, OSError):
            return None
        if node.pid == pid:
            self._note(name, pid, asked_at, status)
        return status

    # -- what must not be -------------------------------------------------------------------------

    def _note(self, name: str, pid: int | None, asked_at: float, status: raft_pb2.MemberStatus) -> None:
        before = self.seen.get(name)
        same_life = before is not None and before.pid == pid and before.at <= asked_at
        if before is not None and same_life and status.applied_index < before.status.applied_index:
            self._violation(
                f"{name} had applied entry {before.status.applied_index} and now says {status.applied_index}"
            )
        self.seen[name] = Seen(pid, asyncio.get_running_loop().time(), status)
        if status.role == "leader":
            known = self.leaders.setdefault(status.term, name)
            if known != name:
                self._violation(f"two leaders in term {status.term}: {known} and {name}")
        index = status.applied_index
        if index == 0:
            return
        first, expected = self._hashes.setdefault(index, (name, status.state_hash))
        if expected != status.state_hash and not self._diverged:
            self._diverged = True
            self._violation(
                f"at entry {index} the state of {name} has hash {status.state_hash:016x}, that of {first} has "
                f"{expected:016x}"
            )
        while len(self._hashes) > REMEMBERED_HASHES:
            self._hashes.popitem(last=False)

    def _check_ends(self) -> None:
        for name, code, last_words in self._cluster.unexpected_ends():
            key = (name, self._cluster.nodes[name].pid)
            if key not in self._ended:
                self._ended.add(key)
                self._violation(f"{name} ended by itself with exit code {code}: {last_words}")

    # -- conditions -------------------------------------------------------------------------------

    async def agreed(self) -> str | None:
        """The leader that every member names, if all answer and vote, one leads and has committed in its term."""
        answers = await self.look()
        if len(answers) < len(self._cluster.nodes):
            return None
        if not all(status.voter for status in answers.values()):
            return None
        leading = [status for status in answers.values() if status.role == "leader"]
        if len(leading) != 1 or any(status.leader_id != leading[0].node_id for status in answers.values()):
            return None
        return leading[0].name if leading[0].applied_index > 0 else None

    async def until_healed(self, seconds: float) -> str | None:
        """Wait until all follow one leader and have applied what it had committed; the leader, None if too late."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (leader := await self.agreed()) is None:  # noqa: ASYNC110 - members have no event
                    await asyncio.sleep(POLL_SECONDS / 2)
                goal = self.seen[leader].status.commit_index
                while True:
                    answers = await self.look()
                    caught_up = [name for name, status in answers.items() if status.applied_index >= goal]
                    if len(caught_up) == len(self._cluster.nodes):
                        return leader
                    await asyncio.sleep(POLL_SECONDS / 2)
        return None

    async def until_same_state(self, seconds: float) -> tuple[int, int] | None:
        """Wait, nothing being written any more, until all have applied the same entry; its index and the hash.

        A hash that differs is reported as a violation on the way; None: they did not get there in time.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    answers = await self.look()
                    places = {(status.applied_index, status.state_hash) for status in answers.values()}
                    at_one_index = len({index for index, _ in places}) == 1
                    if len(answers) == len(self._cluster.nodes) and at_one_index:
                        return min(places)
                    await asyncio.sleep(POLL_SECONDS / 2)
        return None

    def standing(self) -> str:
        """Where everybody is, for a message."""
        parts = []
        for name, node in self._cluster.nodes.items():
            seen = self.seen.get(name)
            if not node.running:
                parts.append(f"{name} down")
            elif seen is None:
                parts.append(f"{name} never answered")
            else:
                status = seen.status
                voter = "" if status.voter else " without a vote"
                parts.append(f"{name} {status.role}{voter} term {status.term} applied {status.applied_index}")
        return ", ".join(parts)
