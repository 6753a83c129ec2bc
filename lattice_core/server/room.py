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
the leader, by its own disk.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable

from lattice_core.config import NodeConfig
from lattice_core.errors import StorageFailed
from lattice_core.server.proposals import Proposals
from lattice_core.server.snapshots import Snapshots

log = logging.getLogger("lattice.room")

LOOK_SECONDS = 0.5
TIGHT = 0.8
TO_SPARE = 0.05


class Room:
    """One node's. :meth:`start` and :meth:`close`; the figures are of the last look."""

    def __init__(
        self,
        config: NodeConfig,
        proposals: Proposals,
        snapshots: Snapshots,
        log_bytes: Callable[[], int],
        free_bytes: Callable[[], int],
    ) -> None:
        self.quota_bytes = config.disk_quota_bytes
        self.reserve_bytes = config.disk_reserve_bytes
        self.used_bytes = 0
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
        files = self._snapshots.files
        in_snapshots, free = await files.worker.run(lambda: (files.used_bytes(), self._free_bytes()))
        self.used_bytes = in_snapshots + self._log_bytes()
        was = self._proposals.no_room
        reason = self._reason(self.used_bytes, free, 0.0 if was is None else TO_SPARE)
        self._proposals.no_room = reason
        in_quota = self.quota_bytes - self.used_bytes if self.quota_bytes else math.inf
        self._proposals.room_left = min(in_quota, free - self.reserve_bytes)
        self._snapshots.room_is(
            tight=reason is not None or self._is_tight(self.used_bytes, free),
            short=reason is not None,
            left_for_log=max(0, free - self.reserve_bytes),
        )
        if reason is not None and was is None:
            log.error("writes are refused, deletes go through: %s", reason, extra={"used_bytes": self.used_bytes})
        elif reason is None and was is not None:
            log.warning("there is room again, writing goes on: %d bytes are used, %d are free", self.used_bytes, free)

    def _reason(self, used: int, free: int, to_spare: float) -> str | None:
        quota, reserve = self.quota_bytes, self.reserve_bytes
        if quota and used >= quota * (1 - to_spare):
            return f"the log and the snapshots take up {used} bytes, and the quota is {quota} (disk_quota_bytes)"
        if free < reserve * (1 + to_spare):
            return f"the disk has {free} bytes left, and {reserve} are kept for deletes (disk_reserve_bytes)"
        return None

    def _is_tight(self, used: int, free: int) -> bool:
        return bool(self.quota_bytes and used >= self.quota_bytes * TIGHT) or free < 2 * self.reserve_bytes
