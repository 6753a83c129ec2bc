"""``DATA/peers``: this directory's incarnation, and the incarnations bound to the other members' ids.

See lattice_core/rpc/peers.py for what they are for (SAFETY 22). A small JSON file with a checksum, replaced
as a whole: written aside, fsynced, renamed, directory fsynced (SAFETY 20).

A directory that joins a cluster has this file before anything else, identity included: so a join that was cut
short and is begun again is recognised as the same one. It also holds whom the joiner was told of (``contacts``):
until a log has come, they are all that it knows of its cluster.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import google_crc32c

from lattice_core.errors import StorageDamaged
from lattice_core.raft.types import Member, NodeId
from lattice_core.storage.errors import SyncFailed
from lattice_core.storage.filesystem import FileSystem, join
from lattice_core.storage.identity import PEERS, PEERS_ASIDE
from lattice_core.storage.recovery import DAMAGE_HINT

FORMAT_VERSION = 1


class Incarnations:
    """Implements lattice_core.rpc.peers.IncarnationBook. Lives on the loop; writes in a worker thread."""

    def __init__(
        self, fs: FileSystem, directory: str, own: int, known: dict[NodeId, int], contacts: tuple[Member, ...] = ()
    ) -> None:
        """For :meth:`create` and :meth:`load` only."""
        self._fs = fs
        self._directory = directory
        self.own = own
        self.contacts = contacts
        self._known = known
        self._writing = asyncio.Lock()
        self._binding: set[asyncio.Task[None]] = set()
        self._sync_failed: SyncFailed | None = None
        self.on_sync_failed: Callable[[SyncFailed], None] = lambda _: None
        """What to do when an fsync fails while the node runs (SAFETY 18)."""

    @classmethod
    def create(cls, fs: FileSystem, directory: str) -> Incarnations:
        """Draw this directory's incarnation; durable on return."""
        book = cls(fs, directory, secrets.randbits(63) + 1, {})
        book._write(book._known)
        return book

    @classmethod
    def load(cls, fs: FileSystem, directory: str) -> Incarnations | None:
        """What the directory holds; None if it has no such file. Raises StorageDamaged, StorageFailed."""
        path = join(directory, PEERS)
        try:
            file = fs.open_read_only(path)
        except FileNotFoundError:
            return None
        try:
            data = file.read_at(0, file.size())
        finally:
            file.close()
        try:
            document: dict[str, Any] = json.loads(data)
            stated = document.pop("crc32c")
            if stated != _crc(document) or document["format_version"] != FORMAT_VERSION:
                raise ValueError("its checksum or version is wrong")
            own = int(document["incarnation"], 16)
            known = {int(node_id, 16): int(number, 16) for node_id, number in document["known"].items()}
            contacts = tuple(
                Member(int(each["id"], 16), str(each["name"]), str(each["peer_addr"]))
                for each in document.get("contacts", ())
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageDamaged(f"{path} is damaged: {error}", path=path, offset=0, hint=DAMAGE_HINT) from error
        return cls(fs, directory, own, known, contacts)

    def meet(self, contacts: tuple[Member, ...]) -> None:
        """Remember whom to turn to; durable on return. Blocking: before the node runs."""
        self.contacts = contacts
        self._write(self._known)

    def known(self) -> Mapping[NodeId, int]:
        return self._known

    async def bind(self, bindings: Mapping[NodeId, int]) -> None:
        """Carried out to its end even if the caller is cancelled, as a peer that hangs up cancels its stream's handler:
        the thread writes on, and an fsync that fails has to be told."""
        task = asyncio.create_task(self._bind(bindings))
        self._binding.add(task)
        task.add_done_callback(self._ended)
        await asyncio.shield(task)

    async def close(self) -> None:
        """Wait for what is being written. Safe to repeat."""
        await asyncio.gather(*self._binding, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._binding.discard(task)
        if not task.cancelled():
            task.exception()  # whoever still waits is told; otherwise asyncio would say that nobody looked

    async def _bind(self, bindings: Mapping[NodeId, int]) -> None:
        async with self._writing:
            if self._sync_failed is not None:
                raise self._sync_failed
            updated = {**bindings, **self._known}
            if updated != self._known:
                try:
                    await asyncio.to_thread(self._write, updated)
                except SyncFailed as error:
                    self._sync_failed = error
                    self.on_sync_failed(error)
                    raise
                self._known = updated

    def _write(self, known: Mapping[NodeId, int]) -> None:
        document: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "incarnation": f"{self.own:016x}",
            "known": {f"{node_id:016x}": f"{number:016x}" for node_id, number in sorted(known.items())},
        }
        if self.contacts:
            document["contacts"] = [
                {"id": f"{member.id:016x}", "name": member.name, "peer_addr": member.peer_addr}
                for member in self.contacts
            ]
        document["crc32c"] = _crc(document)
        replace_file(self._fs, self._directory, PEERS, PEERS_ASIDE, (json.dumps(document, indent=2) + "\n").encode())


def replace_file(fs: FileSystem, directory: str, name: str, aside_name: str, data: bytes) -> None:
    """Make ``name`` hold ``data``, at once or not at all; durable on return (SAFETY 20). Raises StorageFailed."""
    aside = join(directory, aside_name)
    file = fs.open(aside, create=True)
    try:
        file.truncate(0)
        file.write_at(0, data)
        file.datasync()
    finally:
        file.close()
    fs.rename(aside, join(directory, name))
    fs.sync_dir(directory)


def _crc(document: Mapping[str, Any]) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return f"{google_crc32c.value(canonical.encode()):08x}"
