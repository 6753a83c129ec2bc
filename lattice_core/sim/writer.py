"""A simulated server's writes: the real log on a disk that is busy for a while.

What waits goes out as one group, and is durable when the fsync is over; then the messages that waited for it
leave. The counterpart of the server's storage thread. It lives as long as the process.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from lattice_core.errors import StorageFailed
from lattice_core.raft.config import MILLISECOND_NS
from lattice_core.raft.ready import Persist
from lattice_core.raft.types import SnapshotMeta
from lattice_core.sim.snapshots import mark_of
from lattice_core.storage.errors import DiskFull
from lattice_core.storage.wal import Wal

if TYPE_CHECKING:
    from lattice_core.sim.node import SimNode


class Writer:
    """See the module's docstring. ``waiting`` is what the core has handed over and the log has not taken yet."""

    def __init__(self, node: SimNode, wal: Wal) -> None:
        self.node = node
        self.wal = wal
        self.waiting: deque[Persist] = deque()
        self.busy = False

    def begin(self) -> None:
        """Everything that waits goes out as one group; it is durable when the fsync is over."""
        node = self.node
        world = node.world
        group = list(self.waiting)
        work = [persist for persist in group if persist.needs_sync]
        if work:
            try:
                for persist in work:
                    if persist.snapshot is not None:
                        node.snapshots.publish_received(persist.snapshot)
                self.wal.write(work)
            except DiskFull:
                # Nothing was written (SAFETY 19). It stays in the queue, unacknowledged, until there is room.
                self.busy = True
                world.count("disk full")
                world.later(100 * MILLISECOND_NS, self._retry, node.incarnation)
                return
            except StorageFailed as error:
                world.process_failed(node, str(error))
                return
        node.disk.written(work)
        self.waiting.clear()
        self.busy = True
        if node.crash_when == "write" and work:
            node.crash_when = None
            world.nemesis.crash_in_write(node)
            return
        settings = world.plan.settings
        delay_us = settings.fsync_min_us + node.disk_chance.expovariate(1 / settings.fsync_mean_us)
        delay_ns = int(delay_us * node.slow_disk * 1000) if work else 0
        world.later(delay_ns, self._done, (node.incarnation, group, bool(work)))

    def _retry(self, incarnation: int) -> None:
        if incarnation == self.node.incarnation:
            self.busy = False
            self.begin()
            self.node.pump()

    def _done(self, stamp: tuple[int, list[Persist], bool]) -> None:
        incarnation, group, synced = stamp
        node = self.node
        if incarnation != node.incarnation:
            return
        world = node.world
        if node.paused_until_ns > world.now_ns:
            world.at(node.paused_until_ns, self._done, stamp)
            return
        raft = node.raft
        assert raft is not None
        if synced:
            try:
                self.wal.sync()
            except StorageFailed as error:
                # Never retried; nothing of this group is acknowledged; the process ends (SAFETY 18).
                world.process_failed(node, str(error))
                return
            node.disk.synced()
            world.trace(3, node.id, group[-1].sequence)
            if world.nemesis.spoils_answer(node, group):
                return
        for persist in group:
            for message in persist.messages:
                node.send(message)
            if persist.snapshot is not None:
                node.snapshot_durable(persist.snapshot, installed=persist.sequence > 0)
        last = max(persist.sequence for persist in group)
        if last:
            raft.persisted(last, node.clock_ns)
        self.busy = False
        node.pump()

    def mark_snapshot(self, meta: SnapshotMeta) -> None:
        """A snapshot was published here; its mark takes its turn in the log."""
        self.waiting.append(mark_of(meta))
        if not self.busy:
            self.begin()
