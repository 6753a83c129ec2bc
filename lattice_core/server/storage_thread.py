"""Writing to the log: group commit on one thread, or, for something small on a quick disk, on the event loop.

Whatever waits when the thread comes round goes out as one write and one fsync; while that runs, the next
group gathers. Nobody waits for a timer.

Two hand-overs to a thread and back cost a lone writer more than the fsync itself on a good disk: the thread has to
get the interpreter, give it up for each system call, and get it again. So a small unit, or on a follower one of the
usual size, is written on the loop itself, in a turn of its own after what the same pass had to send, as long as
nothing is with the thread and the last :data:`QUICK_RUN` fsyncs, wherever they were made, each took less than
:data:`QUICK_SECONDS`. One slow fsync costs the loop that one; then everything goes to the thread until as many were
quick again. A disk that hangs could hold up heartbeats once, by one fsync: an election timeout is hundreds of times
what is called quick here.

A failed write or fsync ends the node at once: the kernel may have thrown away the pages and will call them
clean, so trying again would prove nothing (SAFETY 18). The one exception is a full disk that refused before
anything was written: then nothing is acknowledged, the same group is offered again now and then, and the
loop is told, so that it stops taking writes and looks for another leader (SAFETY 19).

Snapshots touch the log in three ways, each in its turn among the units: a received one is published just
before the unit that lets the log begin after it; one that was taken here is marked (:class:`LogTask`); and
segments that nobody needs any more are removed (a LogTask as well, after everything that waits is durable).
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from lattice_core.raft.ready import Persist
from lattice_core.raft.types import SnapshotMeta
from lattice_core.server.metrics import NodeMetrics
from lattice_core.storage.errors import DiskFull
from lattice_core.storage.restart import SnapshotMarkBatch
from lattice_core.storage.wal import WalBatch

QUICK_SECONDS = 0.001
"""An fsync that takes longer is not for the loop: a hundredth of a heartbeat."""

QUICK_RUN = 16
"""So many quick ones in a row, before the loop is trusted with the next."""

INLINE_BYTES = 4 << 10
"""What is written on the loop at most. With many callers units are larger, and then it pays that the loop goes on
while the thread waits for the disk (64 callers: 13 % fewer puts with 32 KiB here)."""

INLINE_ANSWER_BYTES = 128 << 10
"""Likewise for a unit that holds back messages. It is a follower's, and its leader waits for nothing but the answer:
two hand-overs to the thread are 0.3 ms of it (64 callers: 1.05 x the puts, a lone one 0.92 x the time)."""

DISK_FULL_RETRY_SECONDS = 0.5
MAX_GROUP = 256
"""Units in one write; more than a turn of the loop ever makes, so a bound only for a disk that stalls."""


class Log(Protocol):
    """What the thread needs of the write-ahead log."""

    def write(self, batches: Sequence[WalBatch]) -> int: ...

    def sync(self) -> None: ...

    def compact(self, through_index: int) -> int: ...


@dataclass(frozen=True, slots=True)
class LogTask:
    """Something for the log that is not the core's: a mark, or the removal of segments, or both."""

    done: Callable[[], None]
    """Called on the loop when it is durable."""
    mark: SnapshotMeta | None = None
    """A snapshot that was taken here and is published."""
    compact_through: int | None = None


def _no_snapshot(meta: SnapshotMeta) -> None:
    raise AssertionError(f"nobody has received a snapshot at {meta.last_included_index}")


class StorageThread:
    """Submit from the loop; ``on_durable`` comes back on the loop with the units that are on disk, in order.

    The queue is bounded by what the core lets be in flight: a leader's uncommitted bytes, a follower's
    window at its leader.
    """

    def __init__(
        self,
        wal: Log,
        on_durable: Callable[[list[Persist]], None],
        on_failure: Callable[[BaseException], None],
        on_disk_full: Callable[[DiskFull | None], None],
        publish: Callable[[SnapshotMeta], None] = _no_snapshot,
        metrics: NodeMetrics | None = None,
    ) -> None:
        """``on_disk_full`` gets the refusal when it begins and None when there is room again. ``publish`` is called
        on the thread, to give a received snapshot its name."""
        self._wal = wal
        self._publish = publish
        self._on_durable = on_durable
        self._on_failure = on_failure
        self._on_disk_full = on_disk_full
        self._metrics = metrics if metrics is not None else NodeMetrics()
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Persist | LogTask | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._stopped = asyncio.Event()
        self._with_thread = 0  # units that the thread has not come back from
        self._inline: list[Persist] = []  # to be written in the next turn of the loop
        self._quick_syncs = 0  # in a row; written wherever an fsync was made, never by both at once
        self._failed = False
        # A daemon: a disk that never answers must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="lattice-storage", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def queued(self) -> int:
        """Units that were submitted and are not done."""
        return self._with_thread + len(self._inline)

    def submit(self, unit: Persist | LogTask) -> None:
        """Hand over the next unit. Sequences must come in order."""
        if self._failed:
            return  # nothing may be written after a write that failed (SAFETY 18)
        if self._inline:
            if isinstance(unit, Persist) and self._may_be_inline(unit):
                self._inline.append(unit)
                return
            self._give_to_thread()
        elif not self._with_thread and isinstance(unit, Persist) and self._may_be_inline(unit):
            self._inline.append(unit)
            self._loop.call_soon(self._write_inline)
            return
        self._with_thread += 1
        self._queue.put(unit)

    # -- on the loop ------------------------------------------------------------------------------

    def _may_be_inline(self, unit: Persist) -> bool:
        if self._quick_syncs < QUICK_RUN or unit.snapshot is not None or self._stopping.is_set():
            return False
        most = INLINE_ANSWER_BYTES if unit.messages else INLINE_BYTES
        return sum(entry.size_bytes for entry in unit.entries) <= most

    def _give_to_thread(self) -> None:
        inline, self._inline = self._inline, []
        self._with_thread += len(inline)
        for unit in inline:
            self._queue.put(unit)

    def _write_inline(self) -> None:
        units, self._inline = self._inline, []
        if not units:
            return  # the thread has them
        began = time.perf_counter()
        try:
            self._wal.write(units)
            self._sync(units)
            if time.perf_counter() - began >= QUICK_SECONDS:
                self._quick_syncs = 0  # what took its time was the making of a new segment
        except DiskFull:
            # Refused before anything was written. Waiting for room is nothing for the loop.
            self._inline = units + self._inline
            self._give_to_thread()
        except BaseException as error:
            self._failed = True
            self._on_failure(error)
        else:
            self._on_durable(units)

    def _came_back(self, count: int) -> None:
        self._with_thread -= count

    def _durable(self, units: list[Persist], count: int) -> None:
        self._with_thread -= count
        self._on_durable(units)

    async def stop(self) -> None:
        """Write what was submitted, then end the thread; returns when it has ended."""
        if not self._thread.is_alive():
            return
        self._give_to_thread()
        self._stopping.set()
        self._queue.put(None)
        await self._stopped.wait()
        self._thread.join()

    # -- on the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._write_one_group():
                pass
        except BaseException as error:
            self._tell(self._on_failure, error)
        finally:
            self._tell(self._stopped.set)

    def _write_one_group(self) -> bool:
        """False: asked to stop, and everything before that is written."""
        take = self._queue
        unit = take.get()
        group: list[Persist | LogTask] = []
        try:
            while unit is not None and len(group) < MAX_GROUP:
                group.append(unit)
                unit = take.get_nowait()
        except queue.Empty:
            pass
        else:
            if unit is not None:
                group.append(unit)
        if group:
            self._carry_out(group)
        return unit is not None or not self._stopping.is_set()

    def _carry_out(self, group: list[Persist | LogTask]) -> None:
        units = [unit for unit in group if isinstance(unit, Persist)]
        tasks = [task for task in group if isinstance(task, LogTask)]
        batches: list[WalBatch] = []
        for unit in group:
            if isinstance(unit, LogTask):
                if unit.mark is not None:
                    batches.append(SnapshotMarkBatch(unit.mark))
                continue
            if unit.snapshot is not None:
                # A published snapshot must not be of a term that the disk does not know: first what comes before.
                if unit.hard_state is not None:
                    batches.append(SnapshotMarkBatch(None, hard_state=unit.hard_state))
                self._write(batches)
                batches = []
                self._publish(unit.snapshot)
            batches.append(unit)
        self._write(batches)
        if not tasks:
            self._tell(self._durable, units, len(group))
            return
        if units:
            self._tell(self._on_durable, units)
        for task in tasks:
            if task.compact_through is not None:
                self._wal.compact(task.compact_through)
            self._tell(task.done)
        self._tell(self._came_back, len(group))

    def _write(self, batches: Sequence[WalBatch]) -> None:
        if not batches:
            return
        full = False
        while True:
            try:
                self._wal.write(batches)
                break
            except DiskFull as error:
                if not full:
                    full = True
                    self._tell(self._on_disk_full, error)
                if self._stopping.wait(DISK_FULL_RETRY_SECONDS):
                    raise
        self._sync(batches)
        if full:
            self._tell(self._on_disk_full, None)

    def _sync(self, batches: Sequence[WalBatch]) -> None:
        if not any(not isinstance(batch, Persist) or batch.needs_sync for batch in batches):
            return
        metrics = self._metrics
        metrics.fsync_began = began = time.perf_counter()
        self._wal.sync()
        seconds = time.perf_counter() - began
        metrics.fsync_began = None
        metrics.fsync_seconds.note(seconds)
        self._quick_syncs = self._quick_syncs + 1 if seconds < QUICK_SECONDS else 0

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            pass  # the loop is closed: nobody is left to be told
