"""A snapshot from the leader: received, checked, published, and the state machine made anew from it.

Until the last of these steps is done the node serves stale reads from the state it has (SAFETY 26):

1. pieces are written aside by the worker thread; a stream that was cut goes on where it was;
2. the whole file's digest is checked, and only then the core hears of it, with what the file says of itself;
3. if the core takes it over (at or below its commit index it is of no use, SAFETY 27), the storage thread gives
   the file its name just before the log is made to begin after it;
4. when that is durable, a second state machine is filled from the file, chunk by chunk on the worker thread;
5. one step on the loop puts it in the place of the old one, and the core goes on handing out entries.

A crash after any of them leaves the old state or the new, whole (SAFETY 29).

An fsync that fails on the way ends the process, as it does for the log, although the file is nobody's yet and the
leader has it still: ``worker.py``.

One file is received at a time: the newest stream's. What it holds is never more than a piece in memory.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

from lattice_core.config import NodeConfig
from lattice_core.errors import LatticeError, StorageFailed
from lattice_core.kv import HistoryLimits, Restore, StateMachine
from lattice_core.raft.messages import InstallSnapshot
from lattice_core.raft.node import RaftNode
from lattice_core.raft.types import NodeId, SnapshotMeta
from lattice_core.rpc.codec import MalformedMessage
from lattice_core.rpc.snapshot_stream import Offer, Refused
from lattice_core.server.ready_loop import ReadyLoop
from lattice_core.server.snapshot_files import Snapshot, SnapshotFiles, index_in
from lattice_core.storage.snapshots import SnapshotReader, SnapshotReceiver, snapshot_name

log = logging.getLogger("lattice.snapshots")

KEEP_PART_SECONDS = 60.0
"""How long the beginning of a file is kept for a stream that was cut; by then a leader has tried again."""


class SnapshotInstaller:
    """The receiving end, a :class:`~lattice_core.rpc.snapshot_stream.Sink`. Lives on the loop."""

    def __init__(
        self,
        config: NodeConfig,
        files: SnapshotFiles,
        core: RaftNode,
        loop: ReadyLoop,
        installed: Callable[[Snapshot, StateMachine], None],
    ) -> None:
        self._segment_bytes = config.segment_bytes
        self._history = HistoryLimits(config.history_revisions, config.history_bytes)
        self._files = files
        self._core = core
        self._loop = loop
        self._installed = installed
        self._offer: Offer | None = None
        self._receiver: SnapshotReceiver | None = None
        # Held through every use of the receiver, so that two streams never mix.
        self._receiving = asyncio.Lock()
        # Handed to the core, not published yet; the storage thread takes them out.
        self._accepted: dict[str, SnapshotReceiver] = {}
        self._forgetting: asyncio.TimerHandle | None = None
        self._target: SnapshotMeta | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """The core has a snapshot that the state machine has not followed yet."""
        return bool(self._accepted) or self._target is not None

    async def close(self) -> None:
        if self._forgetting is not None:
            self._forgetting.cancel()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            self._files.worker.later(receiver.abort)

    # -- receiving --------------------------------------------------------------------------------

    async def begin(self, peer: NodeId, offer: Offer) -> int | None:
        """See :class:`~lattice_core.rpc.snapshot_stream.Sink`."""
        if offer.term < self._core.term:
            raise Refused(f"it is offered in term {offer.term}, and this is term {self._core.term}")
        files = self._files
        async with self._receiving:
            former = self._receiver
            keeps = former is not None and self._offer is not None and _same_file(self._offer, offer)
            self._offer = offer
            if former is not None and keeps:
                return former.received_bytes
            self._receiver = None
            if former is not None:
                files.worker.later(former.abort)
            try:
                receiver = await files.worker.run(lambda: self._make_receiver(offer))
            except (ValueError, LatticeError, OSError) as error:
                raise Refused(str(error)) from None
            if index_in(offer.name) <= self._core.commit_index:
                files.worker.later(receiver.abort)
                return None  # SAFETY 27: the leader's next probe will find the entries here
            self._receiver = receiver
            self._expect_more(receiver)
            log.info(
                "receiving a snapshot at index %d of %d bytes, from byte %d on",
                index_in(offer.name),
                offer.size_bytes,
                receiver.received_bytes,
                extra={"index": index_in(offer.name), "size_bytes": offer.size_bytes},
            )
            return receiver.received_bytes

    def _make_receiver(self, offer: Offer) -> SnapshotReceiver:
        self._files.require_room(offer.size_bytes + self._segment_bytes)
        return SnapshotReceiver(self._files.fs, self._files.directory, offer.name, offer.size_bytes)

    async def write(self, peer: NodeId, offer: Offer, offset: int, data: bytes) -> None:
        """See :class:`~lattice_core.rpc.snapshot_stream.Sink`."""
        async with self._receiving:
            receiver = self._current(offer)
            try:
                await self._files.worker.run(lambda: receiver.write(offset, data))
                self._expect_more(receiver)
            except ValueError as error:
                raise Refused(str(error)) from None
            except StorageFailed as error:
                self._drop(receiver)  # it takes room that the log may need
                log.warning("a snapshot cannot be received: %s", error)
                raise Refused(str(error)) from None

    async def finish(self, peer: NodeId, offer: Offer) -> None:
        """See :class:`~lattice_core.rpc.snapshot_stream.Sink`."""
        async with self._receiving:
            receiver = self._current(offer)
            self._receiver = self._offer = None
            try:
                meta = await self._files.worker.run(lambda: receiver.verify(self._files.cluster_id))
            except LatticeError as error:
                self._files.worker.later(receiver.abort)
                log.warning("a snapshot arrived and is of no use: %s", error)
                raise Refused(str(error)) from None
            except BaseException:
                self._files.worker.later(receiver.abort)
                raise
            self._hand_over(peer, offer, meta, receiver)

    def _hand_over(self, peer: NodeId, offer: Offer, meta: SnapshotMeta, receiver: SnapshotReceiver) -> None:
        core = self._core
        name = snapshot_name(meta)
        committed = core.commit_index
        message = InstallSnapshot(peer, core.id, offer.term, meta, offer.round)
        self._accepted[name] = receiver
        try:
            self._loop.receive(peer, [message])
        except MalformedMessage as error:
            raise Refused(str(error)) from None
        finally:
            if not (committed < meta.last_included_index == core.snapshot_index):
                self._accepted.pop(name, None)
                self._files.worker.later(receiver.abort)

    def _current(self, offer: Offer) -> SnapshotReceiver:
        if self._receiver is None or self._offer is not offer:
            raise Refused("another stream has taken its place")
        return self._receiver

    def _drop(self, receiver: SnapshotReceiver) -> None:
        if self._receiver is receiver:
            self._receiver = self._offer = None
            self._files.worker.later(receiver.abort)

    def _expect_more(self, receiver: SnapshotReceiver) -> None:
        """What nobody goes on sending takes up room for nothing."""
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._forgetting = asyncio.get_running_loop().call_later(KEEP_PART_SECONDS, self._drop, receiver)

    # -- installing -------------------------------------------------------------------------------

    def publish(self, meta: SnapshotMeta) -> None:
        """On the storage thread: give the file that the core has taken over its name."""
        self._accepted[snapshot_name(meta)].publish()

    def begin_restoring(self, meta: SnapshotMeta) -> None:
        """It is published and the log begins after it: now the state machine."""
        self._target = meta
        self._accepted.pop(snapshot_name(meta), None)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._restore())

    async def _restore(self) -> None:
        while (meta := self._target) is not None:
            try:
                loaded = await self._load(meta)
            except Exception as error:
                # The core is past what the old state can follow, and the new one cannot be had.
                self._loop.fail(error)
                return
            if loaded is not None and self._target is meta:
                self._target = None
                self._installed(*loaded)

    async def _load(self, meta: SnapshotMeta) -> tuple[Snapshot, StateMachine] | None:
        """The machine out of the file; None if a newer snapshot has come meanwhile."""
        began = time.perf_counter()
        path = self._files.path_of(meta)
        worker = self._files.worker
        with self._files.hold(path):
            reader = await worker.run(lambda: SnapshotReader(self._files.fs, path))
            try:
                objects = reader.objects()
                restore = Restore(history=self._history)
                while await worker.run(lambda: _feed(restore, objects)):
                    if self._target is not meta:
                        return None
                machine = StateMachine.restored(restore)
            finally:
                worker.later(reader.close)
        log.info(
            "the state is now that of the snapshot at index %d: %d keys, %d bytes, in %.0f ms",
            meta.last_included_index,
            len(machine.store),
            reader.size_bytes,
            (time.perf_counter() - began) * 1000,
            extra={"index": meta.last_included_index, "size_bytes": reader.size_bytes},
        )
        return Snapshot(meta, path, reader.size_bytes), machine


def _same_file(one: Offer, other: Offer) -> bool:
    return one.name == other.name and one.size_bytes == other.size_bytes


def _feed(restore: Restore, objects: Iterator[Any]) -> bool:
    """One chunk more; False at the end, where the digest of the whole file has been checked too."""
    for chunk in objects:
        restore.feed(chunk)
        return True
    return False
