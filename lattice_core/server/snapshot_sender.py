"""Sending snapshots to followers that need what is compacted here: one at a time for each.

The file is held while it is sent, so that none of the snapshots taken meanwhile removes it (SAFETY 30). Every
InstallSnapshot of the core's is answered with ``report_snapshot``, whatever happens; after a refusal only when
a pause has passed, which grows as long as the follower refuses, for its disk is not empty a moment later.
"""

from __future__ import annotations

import asyncio
import logging
import time

from lattice_core.errors import LatticeError
from lattice_core.raft.messages import InstallSnapshot
from lattice_core.raft.node import RaftNode
from lattice_core.raft.types import NodeId
from lattice_core.rpc.aio import CONNECTION_ERRORS
from lattice_core.rpc.link import describe
from lattice_core.rpc.peers import PeerDirectory
from lattice_core.rpc.snapshot_stream import Offer, Refused, send_snapshot
from lattice_core.server.metrics import NodeMetrics
from lattice_core.server.ready_loop import ReadyLoop
from lattice_core.server.snapshot_files import SnapshotFiles
from lattice_core.storage.snapshots import snapshot_name

log = logging.getLogger("lattice.snapshots")

FIRST_PAUSE_SECONDS = 0.25
MAX_PAUSE_SECONDS = 10.0


class SnapshotSender:
    """Lives on the loop. One task for each follower that is being sent a snapshot."""

    def __init__(
        self,
        files: SnapshotFiles,
        core: RaftNode,
        loop: ReadyLoop,
        peers: PeerDirectory,
        metrics: NodeMetrics | None = None,
    ) -> None:
        self._files = files
        self._core = core
        self._loop = loop
        self._peers = peers
        self._metrics = metrics if metrics is not None else NodeMetrics()
        self._sending: dict[NodeId, tuple[int, asyncio.Task[None]]] = {}
        self._pauses: dict[NodeId, float] = {}
        self._sent: dict[NodeId, tuple[int, int]] = {}
        """Bytes read of the file under way, and its size."""

    def start(self, message: InstallSnapshot) -> None:
        """Send the snapshot that the message names. One that is still under way is of an earlier term."""
        former = self._sending.pop(message.to, None)
        if former is not None:
            former[1].cancel()
        task = asyncio.get_running_loop().create_task(self._send(message))
        self._sending[message.to] = (message.snapshot.last_included_index, task)

    @property
    def under_way(self) -> int:
        """Followers that are being sent one."""
        return len(self._sending)

    def lowest_index(self) -> int | None:
        """Of the snapshots on their way, the oldest's index."""
        return min((index for index, _ in self._sending.values()), default=None)

    def progress_of(self, peer: NodeId) -> dict[str, int]:
        """How far the snapshot for that follower is, in PeerProgress' words; empty: none is on its way."""
        if peer not in self._sent:
            return {}
        sent, size = self._sent[peer]
        return {"snapshot_sent_bytes": sent, "snapshot_bytes": size}

    async def close(self) -> None:
        tasks = [task for _, task in self._sending.values()]
        self._sending.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, message: InstallSnapshot) -> None:
        peer = message.to
        name = self._peers.name_of(peer)
        path = self._files.path_of(message.snapshot)
        delivered = False
        pause = 0.0
        with self._files.hold(path):
            try:
                await self._stream(message, path, name)
                delivered = True
            except CONNECTION_ERRORS as error:
                log.info("the snapshot on its way to %s was cut: %s", name, describe(error), extra={"peer": name})
            except (Refused, LatticeError) as error:
                log.warning("%s was not brought up to date by a snapshot: %s", name, error, extra={"peer": name})
                pause = min(self._pauses.get(peer, FIRST_PAUSE_SECONDS / 2) * 2, MAX_PAUSE_SECONDS)
            except Exception:
                # A fault of ours; the core must hear of it all the same, or it would wait for ever.
                log.exception("sending a snapshot to %s failed", name)
                pause = MAX_PAUSE_SECONDS
        if delivered:
            self._metrics.snapshots_sent += 1
        else:
            self._metrics.snapshots_send_failed += 1
        if pause:
            self._pauses[peer] = pause
            await asyncio.sleep(pause)
        else:
            self._pauses.pop(peer, None)
        _, mine = self._sending.get(peer, (0, None))
        if mine is asyncio.current_task():
            del self._sending[peer]
            self._loop.snapshot_sent(peer, message.term, delivered)

    async def _stream(self, message: InstallSnapshot, path: str, name: str) -> None:
        member = self._core.configuration.member(message.to)
        if member is None:
            raise Refused("it is no member any more")
        file, size = await self._files.open(path)
        began = time.perf_counter()
        self._sent[message.to] = (0, size)

        async def read(offset: int, length: int) -> bytes:
            self._sent[message.to] = (offset, size)
            return await self._files.read(file, offset, length)

        try:
            await send_snapshot(
                message.to,
                self._peers.dial_addr_of(member),
                self._peers,
                Offer(message.term, message.round, snapshot_name(message.snapshot), size),
                read,
                lambda: self._core.is_leader and self._core.term == message.term,
            )
        finally:
            self._sent.pop(message.to, None)
            self._files.worker.later(file.close)
        log.info(
            "%s has the snapshot at index %d: %d bytes in %.0f ms",
            name,
            message.snapshot.last_included_index,
            size,
            (time.perf_counter() - began) * 1000,
            extra={"peer": name, "index": message.snapshot.last_included_index, "size_bytes": size},
        )
