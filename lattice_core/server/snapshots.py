"""When a node takes a snapshot, and what follows from one: the mark in the log, compaction, old files removed.

Taking. The state is pinned between two entries (:class:`~lattice_core.kv.capture.Capture`), packed on the loop in
slices of a millisecond or so with rests in between, and written by the worker thread. When the file is
published, its mark takes its turn in the log; when that is durable, the core forgets what the snapshot covers
but a tail, files beyond the two newest go, and with them the log's segments before the older of the two:
should the newest be damaged, the other and the log still make up the whole state (SAFETY 31). When the next one is
begun, the newest is verified once more and the older goes: so the disk holds some four times the state:
both snapshots, and as much log after each of them.

Only what is durable in the log here is captured: a snapshot may not know more than the disk (SAFETY 29).

When. ``snapshot_entries`` past the last one, or ``snapshot_log_bytes`` of log; but not before the log has grown by
as much as the last one takes, as Redis does by default: a state of a gigabyte is not written again for a thousand small
entries, and a write's share of a snapshot stays the same however large the state is: about one record. Asked once per
pass, at the cost of a comparison. One at a time.

Where room on the disk is short (``room.py``), neither of the two holds: whatever was applied since is enough, and the
older of the two goes as soon as the newest is verified.

What goes wrong while taking (a full disk, above all) costs the snapshot, one line in the log, and a pause
before the next attempt. Serving goes on; but not after an fsync that failed (``worker.py``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any, Protocol

import msgpack

from lattice_core.config import NodeConfig
from lattice_core.errors import Busy, LatticeError, StorageDamaged, StorageFailed, Unavailable
from lattice_core.kv import Capture, StateMachine, Store
from lattice_core.raft.messages import InstallSnapshot
from lattice_core.raft.node import RaftNode
from lattice_core.raft.types import SnapshotMeta
from lattice_core.rpc.peers import PeerDirectory
from lattice_core.server.apply import Applier
from lattice_core.server.clock import now_ns
from lattice_core.server.metrics import NodeMetrics
from lattice_core.server.ready_loop import ReadyLoop
from lattice_core.server.snapshot_files import Snapshot, SnapshotFiles
from lattice_core.server.snapshot_install import SnapshotInstaller
from lattice_core.server.snapshot_sender import SnapshotSender
from lattice_core.server.storage_thread import LogTask, StorageThread
from lattice_core.storage.errors import DiskFull
from lattice_core.storage.filesystem import FileSystem
from lattice_core.storage.snapshots import SnapshotHeader, SnapshotWriter

log = logging.getLogger("lattice.snapshots")

GROWTH = 1.0
"""By how much of the last snapshot's size the log has to have grown before the next. A put then pays
for about one of its records on each member; with half of this, for two. What a restart applies again grows with it."""

SLICE_ITEMS = 500
"""Records in a chunk: about half a millisecond to read and pack."""

SLICE_BYTES = 256 << 10

REST = 4.0
"""Rest after a slice, in multiples of the time it took: serving keeps four fifths of the loop."""

HURRIED_REST = 1.0
"""While the log grows so fast meanwhile that it would take up as much room as the snapshot."""

HURRY = 0.1
"""Of the snapshot's size: from so much growth on."""

DISSOLVED_ITEMS = 2_000
"""Of a replaced state, freed at a time: less than a millisecond."""

DISSOLVE_REST_SECONDS = 0.002

MAX_TAIL_BYTES = 16 << 20
"""The kept tail's bound in bytes, where entries are large: a follower takes it in a second or so."""

RETRY_SECONDS = 10.0
"""After a failed attempt: a full disk is not empty a moment later."""

ROOM_FOR_SEGMENTS = 2
"""Left for the log while a snapshot is written that may not fit, beyond what was said that it may take."""

PAUSE_FOR_ROOM_SECONDS = 2.0
"""Between snapshots that are taken because room is short."""


class Machine(Protocol):
    """Where the state machine is to be found; another one takes its place when a snapshot is installed."""

    machine: StateMachine


class Overtaken(Exception):
    """A newer snapshot came from the leader while this one was being taken."""


class Snapshots:
    """Everything a node does with snapshots, in one place. Lives on the loop."""

    def __init__(
        self,
        config: NodeConfig,
        fs: FileSystem,
        directory: str,
        newest: Snapshot | None,
        host: Machine,
        core: RaftNode,
        loop: ReadyLoop,
        applier: Applier,
        peers: PeerDirectory,
        metrics: NodeMetrics | None = None,
    ) -> None:
        self.files = SnapshotFiles(fs, directory, peers.local.cluster_id, loop.fail)
        self.storage: StorageThread
        """Attach before the first pass; it needs :attr:`installer`."""
        self.newest = newest
        self._entries = config.snapshot_entries
        self._log_bytes = config.snapshot_log_bytes
        self._keep_entries = config.snapshot_keep_entries
        self._segment_bytes = config.segment_bytes
        self._host = host
        self._core = core
        self._loop = loop
        self._applier = applier
        self._metrics = metrics if metrics is not None else NodeMetrics()
        self.sender = SnapshotSender(self.files, core, loop, peers, self._metrics)
        self.installer = SnapshotInstaller(config, self.files, core, loop, self._installed)
        # applier.applied_bytes when the newest snapshot was captured.
        self._bytes_before = 0
        # Whoever watches the disk says so (room_is): take snapshots early; keep no second one.
        self.tight = self.short_of_room = False
        self._kept_for_log = 0
        self._lean = False  # there is nothing but the newest snapshot and the log after it
        self._taking = asyncio.Lock()
        self._automatic = False
        self._overtaken = False
        self._retry_at = 0.0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def close(self) -> None:
        """Cancel what is under way, leaving no half-written file, and end the thread. Safe to repeat."""
        self._closed = True
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.sender.close()
        await self.installer.close()
        await self.files.worker.stop()

    # -- when -------------------------------------------------------------------------------------

    def consider(self) -> None:
        """Called once per pass: begin a snapshot if one is due."""
        applier = self._applier
        grown = applier.applied_bytes - self._bytes_before
        if self.tight:
            self._consider_for_room(grown)
            return
        if applier.applied_index - self._core.snapshot_index < self._entries and grown < self._log_bytes:
            return
        if self._automatic or (self.newest is not None and grown < GROWTH * self.newest.size_bytes):
            return
        if self._taking.locked() or not self._capturable() or self._now() < self._retry_at or self._closed:
            return
        self._automatic = True
        self._own(self._take_automatically())

    def room_is(self, *, tight: bool, short: bool, left_for_log: int) -> None:
        """What the last look at the disk has shown; ``left_for_log``: what may be proposed until the next."""
        if short and not self.short_of_room:
            self._retry_at = 0.0  # it may fit now that less goes into the log
        self.tight, self.short_of_room = tight, short
        self._kept_for_log = ROOM_FOR_SEGMENTS * self._segment_bytes + (0 if short else left_for_log)

    def _consider_for_room(self, grown: int) -> None:
        """The disk is short of room, or soon will be: whatever was applied since may let go of something."""
        newest = self.newest
        due = self._applier.applied_index > self._core.snapshot_index and (
            self.short_of_room or newest is None or grown >= self._segment_bytes
        )
        lean = newest is None or not self.short_of_room or self._lean
        if (lean and not due) or self._automatic or self._taking.locked() or self._closed:
            return
        if not self._capturable() or self._now() < self._retry_at:
            return
        self._retry_at = self._now() + PAUSE_FOR_ROOM_SECONDS
        self._automatic = True
        self._own(self._take_automatically() if due else self._let_go())

    async def _let_go(self) -> None:
        """Nothing new to capture: the newest snapshot alone, once it is read again in full, and the log after it."""
        newest = self.newest
        assert newest is not None
        try:
            async with self._taking:
                await self.files.verify(newest)
                await self.files.keep_only(newest)
                self.storage.submit(LogTask(lambda: None, compact_through=newest.index))
                self._lean = True
        except (LatticeError, OSError) as error:
            self._retry_at = self._now() + RETRY_SECONDS
            log.error("room is short, and the log and the older snapshot stay: %s", error)
        finally:
            self._automatic = False

    def _capturable(self) -> bool:
        return (
            self._applier.between_entries
            and self._applier.applied_index > 0
            and self._core.may_snapshot(self._applier.applied_index)
            and not self.installer.busy
        )

    async def _take_automatically(self) -> None:
        try:
            await self._take()
        except LatticeError as error:
            self._retry_at = self._now() + RETRY_SECONDS
            log.warning("no snapshot was taken, and the next attempt is in %g s: %s", RETRY_SECONDS, error)
        except Overtaken:
            log.info("gave up a snapshot that one from the leader has overtaken")
        finally:
            self._automatic = False

    async def take(self) -> Snapshot:
        """A snapshot of at least what is applied now. Raises Busy if the disk is full, StorageFailed, Unavailable.

        It is taken to its end even if the caller is cancelled.
        """
        if self._closed:
            raise Unavailable("this member is shutting down")
        try:
            return await asyncio.shield(self._own(self._take()))
        except DiskFull as error:
            raise Busy(f"no snapshot was taken: {error}") from None
        except Overtaken:
            raise Unavailable("this member is being brought up to date by a snapshot; ask again") from None

    # -- taking -----------------------------------------------------------------------------------

    async def _take(self) -> Snapshot:
        wanted = self._applier.applied_index
        async with self._taking:
            began = time.perf_counter()
            while True:
                if self.newest is not None and self.newest.index >= max(1, wanted):
                    return self.newest
                if not self._capturable():
                    await self._loop.next_pass()
                    if self._loop.stopped:
                        raise Unavailable("this member is stopping")
                    continue
                began = time.perf_counter()
                await self._make_room()
                if self._capturable():
                    break  # and not overtaken meanwhile by a snapshot from the leader
            self._overtaken = False
            grown_to = self._applier.applied_bytes
            capture = self._host.machine.capture()
            try:
                configuration = self._core.log.configuration_at(capture.applied_index)
                meta = SnapshotMeta(capture.applied_index, capture.applied_term, configuration)
                snapshot = await self._write(meta, capture)
            except OSError as error:
                self._metrics.snapshots_failed += 1
                raise StorageFailed(f"a snapshot cannot be written: {error}") from error
            except LatticeError:
                self._metrics.snapshots_failed += 1
                raise
            finally:
                capture.close()
            marked = asyncio.get_running_loop().create_future()
            self.storage.submit(LogTask(lambda: None if marked.done() else marked.set_result(None), mark=meta))
            await marked
            self._bytes_before = grown_to
            self._compact_core(meta)
            await self._published(snapshot)
            seconds = time.perf_counter() - began
            self._metrics.snapshots_taken += 1
            self._metrics.snapshot_seconds.note(seconds)
            log.info(
                "snapshot at index %d: %d keys, %d bytes, in %.0f ms",
                snapshot.index,
                capture.key_count,
                snapshot.size_bytes,
                seconds * 1000,
                extra={"index": snapshot.index, "size_bytes": snapshot.size_bytes, "seconds": seconds},
            )
            return snapshot

    async def _make_room(self) -> None:
        """Let the older of two snapshots go before a third is written, and the log before the newer one.

        Three of them and the log would be five times the state. While the third is written the newest has to do, with
        the log that follows it; so it is read again first, in full, and if it is damaged everything stays.
        """
        newest = self.newest
        if newest is None:
            return
        try:
            if not await self.files.keep_only(newest):
                return
        except StorageDamaged as error:
            log.error("the newest snapshot is damaged, so the older one and its log stay: %s", error)
            return
        except (LatticeError, OSError) as error:
            log.warning("old snapshots were not removed: %s", error)
            return
        self.storage.submit(LogTask(lambda: None, compact_through=newest.index))

    async def _write(self, meta: SnapshotMeta, capture: Capture) -> Snapshot:
        """Write and publish the file; what fails leaves no trace of it."""
        files = self.files
        header = SnapshotHeader(files.cluster_id, meta)
        expected = self.newest.size_bytes if self.newest is not None else 0
        before = self._applier.applied_bytes

        def begin() -> SnapshotWriter:
            # The log must not run out of it for a snapshot's sake. Where room is short the state may be much smaller
            # than it was, and this the way to more: then it is tried, and given up if it does not fit.
            files.require_room((0 if self.short_of_room else expected) + self._segment_bytes)
            return SnapshotWriter(files.fs, files.directory, header)

        writer = await files.worker.run(begin)
        try:
            began = time.perf_counter()
            for chunk in capture.to_chunks(SLICE_ITEMS, SLICE_BYTES):
                packed = msgpack.packb(chunk)
                spent = time.perf_counter() - began

                def write(packed: bytes = packed) -> None:
                    if self.tight:  # what the log may take until somebody looks again is not the snapshot's
                        files.require_room(len(packed) + self._kept_for_log)
                    writer.write(packed)

                await files.worker.run(write)
                hurried = self._applier.applied_bytes - before > max(HURRY * expected, self._segment_bytes)
                await asyncio.sleep(spent * (HURRIED_REST if hurried else REST))
                if self._overtaken:
                    raise Overtaken
                began = time.perf_counter()
            path = await files.worker.run(writer.publish)
        except BaseException:
            files.worker.later(writer.abort)
            raise
        return Snapshot(meta, path, writer.size_bytes)

    # -- what follows -----------------------------------------------------------------------------

    def _compact_core(self, meta: SnapshotMeta) -> None:
        core, index = self._core, meta.last_included_index
        if index <= core.snapshot_index:
            return
        through = self._tail_begins(index)
        sending = self.sender.lowest_index()
        if sending is not None and sending >= core.snapshot_index:
            # What follows the snapshot on its way is wanted next. For one generation only: that bounds it.
            through = min(through, sending)
        core.compacted(meta, through, now_ns())

    def _tail_begins(self, index: int) -> int:
        """The last index that need not be kept for slow followers."""
        core_log = self._core.log
        first = max(core_log.offset, index - self._keep_entries)
        size = 0
        for at in range(index, first, -1):
            size += core_log.entry(at).size_bytes
            if size > MAX_TAIL_BYTES:
                return at
        return first

    async def _published(self, snapshot: Snapshot) -> None:
        """A snapshot is published and marked, taken here or received: let go of what it replaces."""
        if self.newest is None or snapshot.index > self.newest.index:
            self.newest = snapshot
        self._lean = False
        try:
            indices = await self.files.retain()
        except (LatticeError, OSError) as error:
            log.warning("old snapshots were not removed: %s", error)
            return
        if len(indices) > 1:
            self.storage.submit(LogTask(lambda: None, compact_through=indices[1]))

    def send(self, message: InstallSnapshot) -> None:
        """The core wants this follower to have a snapshot. Ends in ``report_snapshot``."""
        self.sender.start(message)

    def durable(self, meta: SnapshotMeta) -> None:
        """A received snapshot is published and marked: the state machine follows."""
        self._overtaken = True
        self.installer.begin_restoring(meta)

    def _installed(self, snapshot: Snapshot, machine: StateMachine) -> None:
        """The machine is there: change over, in one step."""
        now = now_ns()
        self._metrics.snapshots_installed += 1
        self._bytes_before = self._applier.applied_bytes
        self._loop.restored(machine, now)
        former, self._host.machine = self._host.machine, machine
        self._own(self._published(snapshot))
        self._own(self._dissolve(former.store))

    async def _dissolve(self, store: Store) -> None:
        """Free a replaced state on the worker thread, bit by bit; not while a snapshot of it is still being read."""
        async with self._taking:
            while await self.files.worker.run(lambda: store.dissolve(DISSOLVED_ITEMS)):  # noqa: ASYNC110
                await asyncio.sleep(DISSOLVE_REST_SECONDS)

    def _own(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            error = task.exception()
            if error is not None and not isinstance(error, LatticeError | Overtaken):
                self._loop.fail(error)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
