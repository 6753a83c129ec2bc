"""Snapshots in the simulator: taken in slices, published, sent in pieces, installed; all on the real code.

What the server does with tasks and a stream, this does with events: every slice written and every piece
sent is one, so that crashes, cuts and compaction can fall between any two of them (SAFETY 25 to 31).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgpack

from lattice_core.errors import Fatal, StorageFailed
from lattice_core.kv import Capture, StateMachine
from lattice_core.raft.config import MILLISECOND_NS
from lattice_core.raft.errors import Refused
from lattice_core.raft.messages import InstallSnapshot
from lattice_core.raft.ready import Persist
from lattice_core.raft.types import NodeId, SnapshotMeta
from lattice_core.sim.violation import Violation
from lattice_core.storage.snapshots import (
    SnapshotHeader,
    SnapshotReader,
    SnapshotReceiver,
    SnapshotWriter,
    list_snapshots,
    retain,
    snapshot_name,
)

if TYPE_CHECKING:
    from lattice_core.sim.node import SimNode

SNAPSHOT_DIRECTORY: Final = "/data/snapshots"
CLUSTER_ID: Final = 0x1A771CE
_SLICE_ITEMS = 20
_PIECE_BYTES = 2048
_SLICE_NS = MILLISECOND_NS // 2


class SnapshotKeeper:
    """A node's snapshots. Forgotten with the process; the files stay."""

    def __init__(self, node: SimNode) -> None:
        self.node = node
        self._writer: SnapshotWriter | None = None
        self._capture: Capture | None = None
        self._receiver: SnapshotReceiver | None = None
        self._received_name = ""
        self.sending: dict[int, str] = {}
        """What is being sent, by number, and from which file: it stays until that is over (SAFETY 30)."""
        self._sends = 0

    # ---- start --------------------------------------------------------------------------------------

    def load(self, path: str) -> StateMachine:
        """The state machine out of a snapshot file."""
        with SnapshotReader(self.node.fs, path) as reader:
            return StateMachine.from_chunks(reader.objects())

    def set_aside(self, damaged: Sequence[str]) -> None:
        """Give files that were passed over another name, so that they are neither offered nor counted, as the server
        does."""
        for path in damaged:
            self.node.fs.rename(path, path + ".damaged")
        if damaged:
            self.node.fs.sync_dir(SNAPSHOT_DIRECTORY)

    # ---- taking -------------------------------------------------------------------------------------

    def maybe_take(self) -> None:
        """Begin a snapshot if enough has been applied since the last."""
        node, raft = self.node, self.node.raft
        assert raft is not None
        entries = node.world.plan.settings.snapshot_entries
        index = node.machine.applied_index
        if not entries or self._writer is not None or index - raft.snapshot_index < entries:
            return
        if node.fs.full or not raft.may_snapshot(index):
            return
        meta = SnapshotMeta(index, node.machine.applied_term, raft.log.configuration_at(index))
        node.world.invariants.snapshot_says(node.id, meta)
        self._capture = node.machine.capture()
        try:
            self._writer = SnapshotWriter(node.fs, SNAPSHOT_DIRECTORY, SnapshotHeader(CLUSTER_ID, meta))
        except StorageFailed:
            self._give_up()
            return
        chunks = self._capture.to_chunks(_SLICE_ITEMS)
        node.world.later(_SLICE_NS, self._slice, (node.incarnation, meta, chunks))

    def _slice(self, item: tuple[int, SnapshotMeta, object]) -> None:
        incarnation, meta, chunks = item
        node = self.node
        if incarnation != node.incarnation or self._writer is None:
            return
        try:
            chunk = next(chunks, None)  # type: ignore[call-overload]
            if chunk is not None:
                self._writer.write(msgpack.packb(chunk))
                node.world.later(_SLICE_NS, self._slice, item)
                return
            self._writer.publish()
        except StorageFailed as error:
            self._give_up()
            if node.fs.dead:
                node.world.process_failed(node, str(error))
            return
        self._writer = self._capture = None
        node.world.count("snapshots taken")
        node.world.note(node.id, f"takes a snapshot at {meta.last_included_index}")
        # The mark in the log follows the file, in order with everything else that is written.
        node.writer.mark_snapshot(meta)

    def _give_up(self) -> None:
        if self._writer is not None and not self.node.fs.dead:
            self._writer.abort()
        if self._capture is not None:
            self._capture.close()
        self._writer = self._capture = None

    def marked(self, meta: SnapshotMeta) -> None:
        """The mark is durable: forget what is covered, but keep the log back to the snapshot before."""
        node, raft = self.node, self.node.raft
        assert raft is not None
        index = meta.last_included_index
        if index > raft.snapshot_index:
            through = max(raft.first_index - 1, index - node.world.plan.settings.keep_entries)
            raft.compacted(meta, through, node.clock_ns)
        retain(node.fs, SNAPSHOT_DIRECTORY, in_use=frozenset(self.sending.values()))
        paths = list_snapshots(node.fs, SNAPSHOT_DIRECTORY)
        if len(paths) > 1:
            older = int(paths[1].rsplit("/", 1)[-1].split("-")[0])
            node.writer.wal.compact(older)

    # ---- sending ------------------------------------------------------------------------------------

    def send(self, message: InstallSnapshot) -> None:
        """Stream the newest snapshot to a follower, a piece an event."""
        node = self.node
        paths = list_snapshots(node.fs, SNAPSHOT_DIRECTORY)
        assert paths, "the core offers a snapshot that is not there"
        self._sends += 1
        self.sending[self._sends] = paths[0]
        node.world.count("snapshots sent")
        node.world.later(_SLICE_NS, self._send_piece, (node.incarnation, message, self._sends, -1))

    def _send_piece(self, item: tuple[int, InstallSnapshot, int, int]) -> None:
        incarnation, message, number, offset = item
        node = self.node
        if incarnation != node.incarnation or node.raft is None:
            return
        world = node.world
        peer = world.nodes.get(message.to)
        if node.raft.term != message.term:
            self.sending.pop(number)  # nobody waits to be told: a new term has its own view of each follower
            return
        if peer is None or peer.raft is None or not world.links.connected(node.id, peer.id):
            self._sent(message.to, number, False)
            return
        if peer.paused_until_ns > world.now_ns:
            world.at(peer.paused_until_ns, self._send_piece, item)
            return
        path = self.sending[number]
        file = node.fs.open_read_only(path)
        size = file.size()
        name = path.rsplit("/", 1)[-1]
        # The receiver says where to go on: at its start, or after what a cut left there.
        try:
            if offset < 0:
                offset = peer.snapshots.begin_receiving(name, size)
            piece = file.read_at(offset, _PIECE_BYTES)
            peer.snapshots.receive(name, size, offset, piece)
        except (StorageFailed, ValueError):
            self._sent(peer.id, number, False)
            return
        if offset + len(piece) < size:
            world.later(_SLICE_NS, self._send_piece, (incarnation, message, number, offset + len(piece)))
            return
        self._sent(peer.id, number, peer.snapshots.complete(message))

    def _sent(self, peer: NodeId, number: int, delivered: bool) -> None:
        self.sending.pop(number)
        raft = self.node.raft
        if raft is not None:
            raft.report_snapshot(peer, delivered, self.node.clock_ns)
            self.node.pump()

    # ---- receiving ----------------------------------------------------------------------------------

    def begin_receiving(self, name: str, size: int) -> int:
        if self._receiver is None or self._received_name != name:
            self._drop_received()
            self._receiver = SnapshotReceiver(self.node.fs, SNAPSHOT_DIRECTORY, name, size)
            self._received_name = name
        return self._receiver.received_bytes

    def receive(self, name: str, size: int, offset: int, piece: bytes) -> None:
        if self._receiver is None or self._received_name != name:
            raise ValueError("another snapshot is being received")
        self._receiver.write(offset, piece)
        if self.node.joining:
            self.node.world.nemesis.joiner_fed(self.node)

    def complete(self, message: InstallSnapshot) -> bool:
        """All pieces are here: check, then let the core decide. False: it was damaged on the way."""
        node = self.node
        assert self._receiver is not None
        assert node.raft is not None
        if node.fs.dead:
            return False
        try:
            meta = self._receiver.verify(CLUSTER_ID)
        except StorageFailed as error:
            node.world.process_failed(node, str(error))
            return False
        except Fatal as error:
            raise Violation("snapshot", f"n{node.id} received a snapshot that is damaged: {error}") from error
        arrived = InstallSnapshot(message.sender, message.to, message.term, meta, message.round)
        try:
            node.raft.step(arrived, node.clock_ns)
        except Refused as error:
            raise Violation("refused", f"n{node.id} refused {arrived}: {error}") from error
        node.pump()
        return True

    def publish_received(self, meta: SnapshotMeta) -> None:
        """The core has accepted it: it becomes a snapshot, before the log is marked."""
        if self._receiver is not None and self._received_name == snapshot_name(meta):
            self._receiver.publish()
            self._receiver = None
            self.node.world.count("snapshots installed")

    def install(self, meta: SnapshotMeta) -> StateMachine:
        """The machine out of the snapshot that was just marked."""
        path = f"{SNAPSHOT_DIRECTORY}/{snapshot_name(meta)}"
        self.node.world.invariants.snapshot_says(self.node.id, meta)
        self.node.world.note(self.node.id, f"installs a snapshot at {meta.last_included_index}")
        return self.load(path)

    def _drop_received(self) -> None:
        if self._receiver is not None and not self.node.fs.dead:
            self._receiver.abort()
        self._receiver = None


def mark_of(meta: SnapshotMeta) -> Persist:
    """A unit of work that only marks a snapshot in the log; sequence 0: the core does not count it."""
    return Persist(0, None, meta, None, (), None, ())
