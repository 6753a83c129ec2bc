"""Room on the disk: writes are refused before it is gone, deletes go through, and it ends by itself.

A disk that is really full leaves a member unable to do anything (SAFETY 19), the remedy included: a delete is an
entry of the log like any other, and compaction writes a snapshot before it removes anything. So this looks ahead, twice
a second, at what the data directory takes up (``disk_quota_bytes``) and at what the disk has left
(``disk_reserve_bytes``):

* **tight**, from :data:`TIGHT` of the quota, or less than twice the reserve left: snapshots are taken although they
  would not be due yet, so that the log gives up what it can;
* **short**, beyond the quota or within the reserve: whatever would make the state larger is refused with
  RESOURCE_EXHAUSTED; deletes, new sessions and changes of membership go through, as do elections. Of snapshots only the
  newest is kept, once it is verified.

It is over when there is a twentieth to spare, not just a byte: otherwise it would come and go with each write.
Between two looks no more is proposed than the last one left room for. A member decides for the writes that it takes as
the leader: by its own disk, and by those of the others. Each tells the leader about once a second whether it is short
(with its question about the state's hash, comparison.py). As long as a majority of the voters has room, the others are
left behind: one small disk must not stop a cluster, and a member whose disk is full goes on by itself later. Where
there is none without those that are short, what is written would use up what *they* keep for deletes, so it is refused
as if it were the leader's own disk. Of those who are silent, to Raft as well, nothing good is assumed; but for that
alone nothing is refused. One that Raft hears, and that says nothing of its disk, is of an older version, or its
questions do not get through: it counts as one with room.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable

from lattice_core.config import NodeConfig
from lattice_core.errors import StorageFailed
from lattice_core.raft import quorum
from lattice_core.raft.node import RaftNode
from lattice_core.raft.types import NodeId
from lattice_core.server.clock import now_ns
from lattice_core.server.proposals import Proposals
from lattice_core.server.snapshots import Snapshots

log = logging.getLogger("lattice.room")

LOOK_SECONDS = 0.5
TIGHT = 0.8
TO_SPARE = 0.05

REPORT_SECONDS = 5.0
"""What a member has said of its room holds for so long: they say it about once a second."""

MAX_REASON_CHARS = 300
"""Of what another member says: it goes into logs, errors and /readyz."""


class Room:
    """One node's. :meth:`start` and :meth:`close`; the figures are of the last look."""

    def __init__(
        self,
        config: NodeConfig,
        core: RaftNode,
        name_of: Callable[[NodeId], str],
        proposals: Proposals,
        snapshots: Snapshots,
        log_bytes: Callable[[], int],
        free_bytes: Callable[[], int],
    ) -> None:
        self.quota_bytes = config.disk_quota_bytes
        self.reserve_bytes = config.disk_reserve_bytes
        self.used_bytes = 0
        self._free = 0
        self.own: str | None = None
        """Why this member's own disk is short of room; None: it is not."""
        self._core = core
        self._name_of = name_of
        self._reports: dict[NodeId, tuple[str, float]] = {}
        self._led_since: float | None = None
        self._for_others: str | None = None
        self._proposals = proposals
        self._snapshots = snapshots
        self._log_bytes = log_bytes
        self._free_bytes = free_bytes
        self._task: asyncio.Task[None] | None = None

    @property
    def reason(self) -> str | None:
        """Why writes are refused; None: they are not."""
        return self._proposals.no_room

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="room on the disk")

    async def close(self) -> None:
        """Safe to repeat."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
            except (OSError, StorageFailed) as error:
                log.debug("the room on the disk is not known: %s", error)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Measure once, and draw the conclusions. Raises OSError, StorageFailed."""
        in_snapshots, self._free = await self._measured()
        self.used_bytes, free = in_snapshots + self._log_bytes(), self._free
        self.own = self._reason(self.used_bytes, free, TO_SPARE if self._is_short else 0.0)
        self._for_others = self._reason_of_others()
        self._refuse(self.own or self._for_others)
        in_quota = self.quota_bytes - self.used_bytes if self.quota_bytes else math.inf
        self._proposals.room_left = min(in_quota, free - self.reserve_bytes)
        self._snapshots.room_is(
            tight=self.own is not None or self._is_tight(self.used_bytes, free),
            short=self.own is not None,
            left_for_log=max(0, free - self.reserve_bytes),
        )

    async def _measured(self) -> tuple[int, int]:
        """What the snapshots take up, and what the disk has left. What the others say counts meanwhile: a look may wait
        behind a snapshot that is being written, or fail."""
        files = self._snapshots.files
        measuring = asyncio.ensure_future(files.worker.run(lambda: (files.used_bytes(), self._free_bytes())))
        try:
            while not measuring.done():
                is_short, self._for_others = self._is_short, self._reason_of_others()
                if not is_short:
                    self._refuse(self._for_others)
                await asyncio.wait((measuring,), timeout=LOOK_SECONDS)
            return measuring.result()
        finally:
            measuring.cancel()

    @property
    def _is_short(self) -> bool:
        """Whether writes are refused for this member's own disk: by the last look, or used up since."""
        was = self._proposals.no_room
        return was is not None and was is not self._for_others

    def _refuse(self, reason: str | None) -> None:
        was, self._proposals.no_room = self._proposals.no_room, reason
        if reason is not None and was is None:
            log.error("writes are refused, deletes go through: %s", reason, extra={"used_bytes": self.used_bytes})
        elif reason is None and was is not None:
            text = "there is room again, writing goes on: %d bytes are used, %d are free"
            log.warning(text, self.used_bytes, self._free)

    def told(self, peer: NodeId, reason: str) -> None:
        """Another member's own reason, as it has just told this one; empty: it has room."""
        if peer in self._core.configuration and peer != self._core.id:
            self._reports[peer] = (reason[:MAX_REASON_CHARS], asyncio.get_running_loop().time())

    def _reason_of_others(self) -> str | None:
        """Who keeps a majority from writing on, if this member leads; None: nobody does."""
        core = self._core
        now = asyncio.get_running_loop().time()
        self._reports = {
            peer: (reason, at)
            for peer, (reason, at) in self._reports.items()
            if now - at < REPORT_SECONDS and peer in core.configuration
        }
        if not core.is_leader:
            self._led_since = None
            return None
        if self._led_since is None:
            self._led_since = now
        voters = core.configuration.all_voters
        short = {peer: reason for peer, (reason, _) in self._reports.items() if reason and peer in voters}
        if not short:
            return None
        # A leader that has just been elected has yet to hear from those that are well.
        silent = self._silent(voters) if now - self._led_since >= REPORT_SECONDS else frozenset()
        if quorum.is_quorum(core.configuration, voters - short.keys() - silent):
            return None
        told = "; ".join(f"{self._name_of(peer)}: {reason}" for peer, reason in sorted(short.items()))
        return f"without members whose disks are short of room there is no majority: {told}"

    def _silent(self, voters: frozenset[NodeId]) -> frozenset[NodeId]:
        """Who has said nothing for long, neither of its disk nor to Raft."""
        heard_since = now_ns() - int(REPORT_SECONDS * 1e9)
        heard = {peer for peer, progress in self._core.progress.items() if progress.last_heard_ns > heard_since}
        return voters - self._reports.keys() - heard - {self._core.id}

    def _reason(self, used: int, free: int, to_spare: float) -> str | None:
        quota, reserve = self.quota_bytes, self.reserve_bytes
        if quota and used >= quota * (1 - to_spare):
            return f"the log and the snapshots take up {used} bytes, and the quota is {quota} (disk_quota_bytes)"
        if free < reserve * (1 + to_spare):
            return f"the disk has {free} bytes left, and {reserve} are kept for deletes (disk_reserve_bytes)"
        return None

    def _is_tight(self, used: int, free: int) -> bool:
        return bool(self.quota_bytes and used >= self.quota_bytes * TIGHT) or free < 2 * self.reserve_bytes
