"""Whose data directory this is, and that only one process uses it.

::

    DATA/lock          held by the one process that may write here (SAFETY 23)
    DATA/identity      JSON for people, with a CRC for us; written once
    DATA/peers         this directory's incarnation, and the other members' (written by the server)
    DATA/removed       there when this member has learned that it is none any more (written by the server)
    DATA/diverged      there when its state was not the other members' (written by the server)
    DATA/wal/          the log
    DATA/snapshots/    the snapshots
    DATA/unfinished    being made out of a snapshot, not to be started: see making.py
    DATA/changing      being changed for a recovered one, not to be started: see making.py

The identity is written *last* when a directory is made: aside, fsynced, renamed, directory fsynced. So a
directory without one is either fresh, or its creation was cut short (what is there holds no promise and
is begun again), or the identity has been lost: then the log shows that this member has voted or
acknowledged something, and starting it as if it were new could make it promise the opposite (SAFETY 22).
That is refused.

A member id is never used twice. A directory that was emptied or restored from a backup is not that
member any more; it joins again under a new id.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from typing import Any

import google_crc32c

from lattice_core.errors import ConfigurationError, Fatal, IdentityMismatch, StorageDamaged, StorageFailed
from lattice_core.storage.filesystem import FileSystem, Lock, join, parent
from lattice_core.storage.recovery import DAMAGE_HINT, damaged, discard_unfinished_creation

IDENTITY_FORMAT_VERSION = 1

IDENTITY = "identity"
IDENTITY_ASIDE = "identity.tmp"
LOCK = "lock"
WAL = "wal"
SNAPSHOTS = "snapshots"
PEERS = "peers"
PEERS_ASIDE = "peers.tmp"
REMOVED = "removed"
REMOVED_ASIDE = "removed.tmp"
DIVERGED = "diverged"
DIVERGED_ASIDE = "diverged.tmp"
UNFINISHED = "unfinished"
CHANGING = "changing"
CHANGING_ASIDE = "changing.tmp"
OURS = frozenset(
    {IDENTITY, IDENTITY_ASIDE, LOCK, WAL, SNAPSHOTS, PEERS, PEERS_ASIDE, REMOVED, REMOVED_ASIDE}
    | {UNFINISHED, CHANGING, CHANGING_ASIDE, DIVERGED, DIVERGED_ASIDE}
)
TOLERATED = frozenset({"lost+found"})
"""The root of a filesystem of its own has one."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a data directory belongs to. Ids are 64-bit; addresses are HOST:PORT."""

    cluster_id: int
    node_id: int
    node_name: str
    peer_addr: str
    client_addr: str | None = None
    joined_index: int = 0
    """The index of the committed configuration that made it a member; 0: it is one of the first."""
    initial_cluster: str | None = None
    """The first members as text, in an order that does not depend on who wrote it: what a repeated
    ``--initial-cluster`` is compared with. None in directories that were made before it was written down."""

    def require(
        self,
        path: str,
        *,
        cluster_id: int | None = None,
        node_id: int | None = None,
        node_name: str | None = None,
        peer_addr: str | None = None,
    ) -> None:
        """Raise IdentityMismatch, naming both values, if anything given (not None) is not as recorded.

        The client address is no part of who a node is and may change at every start.
        """
        hexadecimal = "{:016x}".format
        checks: tuple[tuple[str, str | None, str], ...] = (
            ("cluster id", None if cluster_id is None else hexadecimal(cluster_id), hexadecimal(self.cluster_id)),
            ("node id", None if node_id is None else hexadecimal(node_id), hexadecimal(self.node_id)),
            ("node name", node_name, self.node_name),
            ("peer address", peer_addr, self.peer_addr),
        )  # fmt: skip
        for what, asked, recorded in checks:
            if asked is not None and asked != recorded:
                raise IdentityMismatch(
                    f"the data directory {path} has the {what} {recorded}, but {asked} was asked for",
                    hint=f"start it with {recorded}, or use another data directory",
                )


def nothing_in(fs: FileSystem, path: str) -> bool:
    """Whether a data directory at ``path`` would be made from nothing: there is none yet, or an empty one."""
    try:
        return not fs.list_dir(path)
    except FileNotFoundError:
        return True
    except (StorageFailed, OSError):
        return False  # what is wrong with it, whoever opens it is told


class DataDirectory:
    """A data directory, locked for this process until :meth:`close`.

    ``identity`` is None while the directory is fresh.
    """

    def __init__(self, fs: FileSystem, path: str, lock: Lock, identity: Identity | None) -> None:
        """For :meth:`open` only."""
        self._fs = fs
        self._lock = lock
        self.path = path
        self.identity = identity

    @property
    def wal_path(self) -> str:
        return join(self.path, WAL)

    @property
    def snapshots_path(self) -> str:
        return join(self.path, SNAPSHOTS)

    @classmethod
    def open(cls, fs: FileSystem, path: str) -> DataDirectory:
        """Make the directory (0700) if need be, take its lock, read its identity.

        Raises DirectoryInUse (SAFETY 23); ConfigurationError for a path that cannot be used or a
        directory full of somebody else's files, or one whose making was cut short; StorageDamaged for an
        unreadable identity, or a used log without one (SAFETY 22); Fatal for a newer format.
        """
        try:
            fs.make_dirs(path)
            names = fs.list_dir(path)
        except (StorageFailed, OSError) as error:
            reason = str(error)
            if isinstance(error, OSError) and error.filename:  # whose text has the error's number
                reason = f"cannot make {error.filename}: {error.strerror}"
            raise ConfigurationError(f"{path} cannot be used as a data directory: {reason}") from error
        foreign = [name for name in names if name not in OURS and name not in TOLERATED]
        if foreign and not {IDENTITY, CHANGING} & set(names):
            raise ConfigurationError(
                f"{path} is not a Lattice data directory: it holds {foreign[0]!r}"
                + (f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""),
                hint="name an empty directory, or one that does not exist yet",
            )
        lock = fs.lock(join(path, LOCK))
        try:
            require_finished(fs, path)
            identity = read_identity(fs, path)
            directory = cls(fs, path, lock, identity)
            if identity is None:
                directory._begin_again()
            # A process that was killed here before us may have left names that are not durable yet.
            fs.sync_dir(path)
        except BaseException:
            lock.release()
            raise
        return directory

    def write_identity(self, identity: Identity) -> None:
        """Make the directory belong to ``identity``, for good, after the log has been created.

        Saying the same again is allowed; anything else raises IdentityMismatch. Raises StorageFailed.
        """
        if self.identity is not None:
            self.identity.require(
                self.path,
                cluster_id=identity.cluster_id,
                node_id=identity.node_id,
                node_name=identity.node_name,
                peer_addr=identity.peer_addr,
            )
            return
        write_identity(self._fs, self.path, identity)
        self.identity = identity

    def close(self) -> None:
        """Give the directory up to other processes."""
        self._lock.release()

    def _begin_again(self) -> None:
        """No identity: clear away an unfinished creation, or refuse what once was a member."""
        snapshots = self._fs.list_dir(self.snapshots_path) if self._fs.exists(self.snapshots_path) else []
        kept = [name for name in snapshots if name.endswith(".snap")]
        if kept or not discard_unfinished_creation(self._fs, self.wal_path):
            raise StorageDamaged(
                f"{self.path} holds a member's data, but its identity file is missing",
                path=join(self.path, IDENTITY),
                offset=0,
                hint=DAMAGE_HINT,
            )
        with contextlib.suppress(StorageFailed):  # not ours, perhaps not readable for us
            self._fs.sync_dir(parent(self.path))


def require_finished(fs: FileSystem, path: str) -> None:
    """Raise ConfigurationError if the making of the data directory ``path`` was cut short (making.py)."""
    if fs.exists(join(path, UNFINISHED)):
        raise ConfigurationError(
            f"{path} is unfinished: the command that was making a member out of saved data here was cut short",
            hint="run that command again, `lattice snapshot restore` or `lattice recover`: it begins anew",
        )
    if fs.exists(join(path, CHANGING)):
        raise ConfigurationError(
            f"{path} is unfinished: `lattice recover` was cut short while it changed over; nothing is lost",
            hint=f"lattice recover {path} --yes, which finishes it",
        )


def write_identity(fs: FileSystem, path: str, identity: Identity) -> None:
    """Write it aside, fsync, rename, fsync the directory (SAFETY 20). Raises StorageFailed."""
    aside = join(path, IDENTITY_ASIDE)
    file = fs.open(aside, create=True)
    try:
        file.truncate(0)
        file.write_at(0, _encode(identity))
        file.datasync()
    finally:
        file.close()
    fs.rename(aside, join(path, IDENTITY))
    fs.sync_dir(path)


def read_identity(fs: FileSystem, path: str) -> Identity | None:
    """The identity of the data directory at ``path``, None if there is none. Takes no lock.

    Raises StorageDamaged, Fatal (newer format), StorageFailed.
    """
    file_path = join(path, IDENTITY)
    try:
        file = fs.open_read_only(file_path)
    except FileNotFoundError:
        return None
    try:
        data = file.read_at(0, file.size())
    finally:
        file.close()
    try:
        document: dict[str, Any] = json.loads(data)
        version = document.pop("format_version")
        stated = document.pop("crc32c")
        if stated != _crc(version, document):
            raise damaged(file_path, 0, "its checksum is wrong; it has been changed")
        if version != IDENTITY_FORMAT_VERSION:
            raise Fatal(
                f"{file_path} has format version {version}, and this version of Lattice reads "
                f"{IDENTITY_FORMAT_VERSION}",
                hint="start this node with the version of Lattice that wrote its data directory, or a newer one",
            )
        document["cluster_id"] = int(document["cluster_id"], 16)
        document["node_id"] = int(document["node_id"], 16)
        return Identity(**document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(file_path, 0, f"it cannot be read: {error}") from error


def _encode(identity: Identity) -> bytes:
    fields = asdict(identity)
    fields["cluster_id"] = f"{identity.cluster_id:016x}"
    fields["node_id"] = f"{identity.node_id:016x}"
    document = {
        "format_version": IDENTITY_FORMAT_VERSION,
        **fields,
        "crc32c": _crc(IDENTITY_FORMAT_VERSION, fields),
    }
    return (json.dumps(document, indent=2) + "\n").encode()


def _crc(version: object, fields: dict[str, Any]) -> str:
    canonical = json.dumps({"format_version": version, **fields}, sort_keys=True, separators=(",", ":"))
    return f"{google_crc32c.value(canonical.encode()):08x}"
