"""Snapshot files: the state at one applied index, written aside, checked, published by a rename.

Layout of ``DATA/snapshots/{index:016d}-{term:016d}.snap``::

    magic "LatticeS", format version, length of the header, CRC-32C of version, length and header
    header: msgpack of cluster id, index, term, configuration
    chunk:  length, CRC-32C, bytes (what is in them is the state machine's business)
    ...
    end:    length 0, number of chunks, BLAKE2b-256 of everything before it

Guarantees
  * A file with the name of a snapshot is whole: it is written under another name, fsynced, renamed, and the
    directory fsynced (SAFETY 20). What a crash leaves under the other name is removed by the next start.
  * A received file becomes a snapshot only after its digest was checked (SAFETY 26). Reception can be
    resumed: what is there is kept, and checked as a whole at the end.
  * The two newest are kept; one that is being sent is not removed while it is (SAFETY 30).
  * A damaged file is never used: a restart passes over it, and whether an older one will do is for the log to
    say (SAFETY 31, ``restart.py``).

A CRC for each chunk tells where damage is, and stops a reader early; the digest guards the whole. Neither is
a signature: whoever can write the directory can forge both.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Final

import google_crc32c
import msgpack

from lattice_core.errors import Fatal, NotASnapshot, StorageDamaged
from lattice_core.raft.types import SnapshotMeta
from lattice_core.storage.filesystem import File, FileSystem, join
from lattice_core.storage.records import decode_configuration, encode_configuration

FORMAT_VERSION: Final = 1
KEPT: Final = 2
"""Snapshots that stay when a new one is published: the newest, and one to fall back to."""

MAX_CHUNK_BYTES: Final = 64 << 20
"""No writer makes one nearly as large; a larger length is damage, and must not be believed and allocated."""

MAGIC: Final = b"LatticeS"
"""How every snapshot file begins."""

_PREFIX = struct.Struct("<8sIII")  # magic, format version, header length, header CRC
_CHUNK = struct.Struct("<II")  # length, CRC-32C
_END = struct.Struct("<IQ32s")  # zero, number of chunks, digest
_NAME = re.compile(r"(\d{16})-(\d{16})\.snap")
_PART_SUFFIX = ".part"
_RECEIVED_SUFFIX = ".received"


@dataclass(frozen=True, slots=True)
class SnapshotHeader:
    """What a snapshot file says of itself."""

    cluster_id: int
    meta: SnapshotMeta


def snapshot_name(meta: SnapshotMeta) -> str:
    return f"{meta.last_included_index:016d}-{meta.last_included_term:016d}.snap"


def list_snapshots(fs: FileSystem, directory: str) -> list[str]:
    """Paths of published snapshots, newest first."""
    if not fs.exists(directory):
        return []
    return [join(directory, name) for name in reversed(fs.list_dir(directory)) if _NAME.fullmatch(name)]


def remove_strays(fs: FileSystem, directory: str) -> int:
    """Remove what a crash left half written; returns how many files. Call once, at start."""
    if not fs.exists(directory):
        return 0
    strays = [name for name in fs.list_dir(directory) if name.endswith((_PART_SUFFIX, _RECEIVED_SUFFIX))]
    for name in strays:
        fs.remove(join(directory, name))
    if strays:
        fs.sync_dir(directory)
    return len(strays)


def retain(fs: FileSystem, directory: str, *, in_use: frozenset[str] = frozenset(), keep: int = KEPT) -> int:
    """Remove all but the newest ``keep`` snapshots and those ``in_use``; returns how many went."""
    removed = 0
    for path in list_snapshots(fs, directory)[keep:]:
        if path not in in_use:
            fs.remove(path)
            removed += 1
    if removed:
        fs.sync_dir(directory)
    return removed


def _header_crc(version: int, packed: bytes) -> int:
    """Covers everything before and in the header but the magic, which is compared."""
    crc: int = google_crc32c.extend(google_crc32c.value(struct.pack("<II", version, len(packed))), packed)
    return crc


class SnapshotWriter:
    """Writes one snapshot chunk by chunk; :meth:`publish` makes it count, :meth:`abort` leaves no trace.

    Memory is bounded by one chunk. Raises StorageFailed, DiskFull; after either, abort.
    """

    def __init__(self, fs: FileSystem, directory: str, header: SnapshotHeader) -> None:
        self._fs = fs
        self._directory = directory
        self.path = join(directory, snapshot_name(header.meta))
        self._part = self.path + _PART_SUFFIX
        fs.make_dirs(directory)
        if fs.exists(self._part):
            fs.remove(self._part)
        self._file = fs.open(self._part, create=True, exclusive=True)
        self._digest = hashlib.blake2b(digest_size=32)
        self._chunks = 0
        self.size_bytes = 0
        meta = header.meta
        packed = msgpack.packb(
            [
                header.cluster_id,
                meta.last_included_index,
                meta.last_included_term,
                encode_configuration(meta.configuration),
            ]
        )
        try:
            self._put(_PREFIX.pack(MAGIC, FORMAT_VERSION, len(packed), _header_crc(FORMAT_VERSION, packed)) + packed)
        except BaseException:
            self.abort()
            raise

    def write(self, chunk: bytes) -> None:
        """Add one chunk, of at least one byte."""
        if not 0 < len(chunk) <= MAX_CHUNK_BYTES:
            raise ValueError(f"a chunk of {len(chunk)} bytes; it must have 1 to {MAX_CHUNK_BYTES}")
        self._chunks += 1
        self._put(_CHUNK.pack(len(chunk), google_crc32c.value(chunk)) + chunk)

    def publish(self) -> str:
        """Durable under its real name on return, which is the path returned."""
        end = _END.pack(0, self._chunks, self._digest.digest())
        self._file.write_at(self.size_bytes, end)
        self.size_bytes += len(end)
        self._file.datasync()
        self._file.close()
        self._fs.rename(self._part, self.path)
        self._fs.sync_dir(self._directory)
        return self.path

    def abort(self) -> None:
        """Remove what was written so far."""
        self._file.close()
        if self._fs.exists(self._part):
            self._fs.remove(self._part)

    def _put(self, data: bytes) -> None:
        self._file.write_at(self.size_bytes, data)
        self._digest.update(data)
        self.size_bytes += len(data)


_ANOTHER = "use another snapshot; `lattice snapshot inspect FILE` checks one"


class SnapshotReader:
    """Reads a snapshot file from front to back, checking everything on the way.

    Raises StorageDamaged with path and offset, Fatal for a newer format. ``header`` is available at once;
    the file as a whole has been checked only when :meth:`chunks` is exhausted.
    """

    def __init__(self, fs: FileSystem, path: str) -> None:
        self.path = path
        self._file: File = fs.open_read_only(path)
        self._digest = hashlib.blake2b(digest_size=32)
        self._offset = 0
        self.size_bytes = self._file.size()
        self.content_digest: bytes | None = None
        """What the file's digest is, once it has been checked: after the last chunk."""
        self.header = self._read_header()

    def __enter__(self) -> SnapshotReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def read_bytes(self) -> int:
        """How much of the file has been read."""
        return self._offset

    def chunks(self) -> Generator[bytes, None, None]:
        """The chunks in order, each after its CRC was checked; the digest is checked after the last."""
        count = 0
        while True:
            at = self._offset
            head = self._file.read_at(at, _END.size)
            if len(head) < _CHUNK.size:
                raise self._damaged(at, "it ends in the middle of a chunk")
            length, crc = _CHUNK.unpack_from(head)
            if length == 0:
                self._check_end(at, head, count)
                return
            if length > MAX_CHUNK_BYTES or at + _CHUNK.size + length > self.size_bytes:
                raise self._damaged(at, f"a chunk of {length} bytes does not fit")
            chunk = self._file.read_at(at + _CHUNK.size, length)
            if google_crc32c.value(chunk) != crc:
                raise self._damaged(at, "a chunk's checksum is wrong")
            self._digest.update(head[: _CHUNK.size])
            self._digest.update(chunk)
            self._offset = at + _CHUNK.size + length
            count += 1
            yield chunk

    def objects(self) -> Iterator[Any]:
        """The chunks, unpacked from msgpack; lists come as tuples, which cost less to make and to keep."""
        for chunk in self.chunks():
            try:
                yield msgpack.unpackb(chunk, strict_map_key=False, use_list=False)
            except ValueError as error:
                raise self._damaged(self._offset, f"a chunk cannot be unpacked: {error}") from None

    def verify(self) -> SnapshotHeader:
        """Read it all; the header of a file that is whole."""
        for _ in self.chunks():
            pass
        return self.header

    def _read_header(self) -> SnapshotHeader:
        prefix = self._file.read_at(0, _PREFIX.size)
        if len(prefix) < _PREFIX.size:
            raise self._no_snapshot("it is too short to be a snapshot")
        magic, version, length, crc = _PREFIX.unpack(prefix)
        if magic != MAGIC:
            raise self._no_snapshot("it is not a Lattice snapshot")
        packed = self._file.read_at(_PREFIX.size, length) if length <= self.size_bytes else b""
        if len(packed) != length or _header_crc(version, packed) != crc:
            raise self._damaged(_PREFIX.size, "its header's checksum is wrong")
        # After the checksum, which keeps its place in every version: a flipped bit is no newer format.
        if version != FORMAT_VERSION:
            raise Fatal(
                f"{self.path} has snapshot format {version}, and this version of Lattice reads {FORMAT_VERSION}",
                hint="use the version of Lattice that wrote it, or a newer one",
            )
        try:
            cluster_id, index, term, configuration = msgpack.unpackb(packed)
            header = SnapshotHeader(cluster_id, SnapshotMeta(index, term, decode_configuration(configuration)))
        except (ValueError, TypeError, KeyError) as error:
            raise self._damaged(_PREFIX.size, f"its header cannot be read: {error}") from None
        self._digest.update(prefix)
        self._digest.update(packed)
        self._offset = _PREFIX.size + length
        return header

    def _check_end(self, at: int, head: bytes, count: int) -> None:
        if len(head) < _END.size:
            raise self._damaged(at, "its end is cut off")
        _, chunks, digest = _END.unpack(head)
        if chunks != count:
            raise self._damaged(at, f"it has {count} chunks and should have {chunks}")
        if digest != self._digest.digest():
            raise self._damaged(at, "its digest is wrong")
        if at + _END.size != self.size_bytes:
            raise self._damaged(at + _END.size, "something follows its end")
        self._offset = self.size_bytes
        self.content_digest = digest

    def _damaged(self, offset: int, reason: str) -> StorageDamaged:
        self._file.close()
        message = f"{self.path} is damaged at offset {offset}: {reason}"
        return StorageDamaged(message, path=self.path, offset=offset, hint=_ANOTHER)

    def _no_snapshot(self, reason: str) -> NotASnapshot:
        self._file.close()
        return NotASnapshot(f"{self.path} is damaged at offset 0: {reason}", path=self.path, offset=0, hint=_ANOTHER)


class SnapshotReceiver:
    """Takes a snapshot file that arrives in pieces and publishes it when it is whole.

    Pieces may repeat; a gap is refused. ``received_bytes`` is where to go on after a cut.
    """

    def __init__(self, fs: FileSystem, directory: str, name: str, size_bytes: int) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a snapshot")
        self._fs = fs
        self._directory = directory
        self._name = name
        self._path = join(directory, name + _RECEIVED_SUFFIX)
        self._size_bytes = size_bytes
        fs.make_dirs(directory)
        self._file = fs.open(self._path, create=True)
        self.received_bytes = min(self._file.size(), size_bytes)

    @property
    def is_complete(self) -> bool:
        return self.received_bytes == self._size_bytes

    def write(self, offset: int, data: bytes) -> None:
        """A piece at ``offset``. Raises ValueError for a gap or a piece beyond the announced size."""
        if offset > self.received_bytes or offset + len(data) > self._size_bytes:
            raise ValueError(f"a piece at {offset} of {len(data)} bytes, after {self.received_bytes}")
        self._file.write_at(offset, data)
        self.received_bytes = max(self.received_bytes, offset + len(data))

    def verify(self, cluster_id: int) -> SnapshotMeta:
        """Check the whole file; on damage remove it and raise StorageDamaged. Nothing is published yet."""
        self._file.datasync()
        try:
            with SnapshotReader(self._fs, self._path) as reader:
                header = reader.verify()
            if header.cluster_id != cluster_id or snapshot_name(header.meta) != self._name:
                raise StorageDamaged(f"{self._path} is not the snapshot that was announced", path=self._path, offset=0)
        except (StorageDamaged, Fatal):
            self.abort()
            raise
        return header.meta

    def publish(self) -> str:
        """Give the verified file its real name, durably; returns the path."""
        self._file.close()
        path = join(self._directory, self._name)
        self._fs.rename(self._path, path)
        self._fs.sync_dir(self._directory)
        return path

    def abort(self) -> None:
        self._file.close()
        if self._fs.exists(self._path):
            self._fs.remove(self._path)
