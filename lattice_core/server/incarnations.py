"""``DATA/peers``: this directory's incarnation, and the incarnations bound to the other members' ids.

See lattice_core/rpc/peers.py for what they are for (SAFETY 22). A small JSON file with a checksum, replaced
as a whole: written aside, fsynced, renamed, directory fsynced (SAFETY 20).
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping
from typing import Any

import google_crc32c

from lattice_core.errors import StorageDamaged
from lattice_core.raft.types import NodeId
from lattice_core.storage.filesystem import FileSystem, join
from lattice_core.storage.recovery import DAMAGE_HINT

FORMAT_VERSION = 1

_FILE = "peers"
_ASIDE = "peers.tmp"


class Incarnations:
    """Implements lattice_core.rpc.peers.IncarnationBook. Lives on the loop; writes in a worker thread."""

    def __init__(self, fs: FileSystem, directory: str, own: int, known: dict[NodeId, int]) -> None:
        """For :meth:`create` and :meth:`load` only."""
        self._fs = fs
        self._directory = directory
        self.own = own
        self._known = known
        self._writing = asyncio.Lock()

    @classmethod
    def create(cls, fs: FileSystem, directory: str) -> Incarnations:
        """Draw this directory's incarnation; durable on return."""
        book = cls(fs, directory, secrets.randbits(63) + 1, {})
        book._write(book._known)
        return book

    @classmethod
    def load(cls, fs: FileSystem, directory: str) -> Incarnations | None:
        """What the directory holds; None if it has no such file. Raises StorageDamaged, StorageFailed."""
        path = join(directory, _FILE)
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
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageDamaged(f"{path} is damaged: {error}", path=path, offset=0, hint=DAMAGE_HINT) from error
        return cls(fs, directory, own, known)

    def known(self) -> Mapping[NodeId, int]:
        return self._known

    async def bind(self, bindings: Mapping[NodeId, int]) -> None:
        async with self._writing:
            updated = {**bindings, **self._known}
            if updated != self._known:
                await asyncio.to_thread(self._write, updated)
                self._known = updated

    def _write(self, known: Mapping[NodeId, int]) -> None:
        document: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "incarnation": f"{self.own:016x}",
            "known": {f"{node_id:016x}": f"{number:016x}" for node_id, number in sorted(known.items())},
        }
        document["crc32c"] = _crc(document)
        aside = join(self._directory, _ASIDE)
        file = self._fs.open(aside, create=True)
        try:
            file.truncate(0)
            file.write_at(0, (json.dumps(document, indent=2) + "\n").encode())
            file.datasync()
        finally:
            file.close()
        self._fs.rename(aside, join(self._directory, _FILE))
        self._fs.sync_dir(self._directory)


def _crc(document: Mapping[str, Any]) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return f"{google_crc32c.value(canonical.encode()):08x}"
