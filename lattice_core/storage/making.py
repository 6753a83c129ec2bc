"""Making a data directory out of saved data, so that a crash leaves a whole one or none that starts.

Unlike the directory of a new node, which is begun again if its making was cut short, one that is made out of a
backup holds somebody's data from the first moment: half of it must never pass for a member, nor for a fresh node.
So a marker stands in it until everything is durable, and ``DataDirectory.open`` refuses it meanwhile.

**Anew** (:func:`making`), in a place that is empty::

    DATA/unfinished made  ->  everything written  ->  DATA/unfinished removed

Everything before the last step counts for nothing: whoever makes it again removes it first.

**In place** (:func:`change_over`), where a member's data is, which is never removed::

    new parts made in DATA/recovery.new           a crash: the old member as it was
    DATA/changing made, naming DATA/before-recovery-...
    old parts moved there, and durable            a crash: start refuses, finish_change goes on
    new parts moved up, and durable               likewise
    DATA/changing removed                         a crash: the new member

Nothing is copied and nothing removed while changing over, so it cannot run out of room, and each of its steps may
be repeated. A part is moved away only while its successor still waits in ``recovery.new``: so what has been moved
up already is never taken for what was there before.

Whoever calls these holds no lock of the directory: they take it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from lattice_core.errors import ConfigurationError, Fatal, StorageFailed
from lattice_core.storage.filesystem import OfflineFileSystem, join
from lattice_core.storage.identity import (
    CHANGING,
    CHANGING_ASIDE,
    DIVERGED,
    DIVERGED_ASIDE,
    IDENTITY,
    IDENTITY_ASIDE,
    LOCK,
    OURS,
    PEERS,
    PEERS_ASIDE,
    REMOVED,
    REMOVED_ASIDE,
    SNAPSHOTS,
    TOLERATED,
    UNFINISHED,
    WAL,
    read_identity,
)

NEW_PARTS = "recovery.new"
ARCHIVE_PREFIX = "before-recovery-"

_PARTS = (WAL, SNAPSHOTS, PEERS, IDENTITY)
"""What every new member has."""


def require_empty(fs: OfflineFileSystem, path: str) -> None:
    """Raise ConfigurationError if a data directory cannot be made at ``path``, because something is there.

    What :func:`making` has left there when it was cut short is nothing.
    """
    try:
        names = fs.list_dir(path)
    except FileNotFoundError:
        return
    except StorageFailed as error:
        raise ConfigurationError(f"{path} cannot be used as a data directory: {error}", hint=_ELSEWHERE) from error
    if CHANGING in names:
        raise ConfigurationError(
            f"{path} holds a member's data: `lattice recover` was cut short there while it changed over",
            hint=f"lattice recover {path} --yes, which finishes it",
        )
    if IDENTITY in names and UNFINISHED not in names:
        identity = read_identity(fs, path)
        assert identity is not None
        raise ConfigurationError(
            f"{path} is the data directory of {identity.node_name}, a member of cluster {identity.cluster_id:016x}",
            hint=_ELSEWHERE,
        )
    ours = OURS if UNFINISHED in names else {LOCK}
    foreign = [name for name in names if name not in ours and name not in TOLERATED]
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise ConfigurationError(f"{path} is not empty: it holds {foreign[0]!r}{more}", hint=_ELSEWHERE)


_ELSEWHERE = "name a directory that is empty or does not exist yet"


@contextlib.contextmanager
def making(fs: OfflineFileSystem, path: str) -> Iterator[None]:
    """Within, a member's files are written to ``path``, durably; they count when it is left normally.

    An error leaves the directory as empty as it was found. Raises ConfigurationError for one that is not empty,
    DirectoryInUse, StorageFailed.
    """
    require_empty(fs, path)  # before the lock file is put into somebody else's directory
    try:
        fs.make_dirs(path)
    except StorageFailed as error:
        raise ConfigurationError(f"{path} cannot be used as a data directory: {error}", hint=_ELSEWHERE) from error
    lock = fs.lock(join(path, LOCK))
    try:
        require_empty(fs, path)
        marker = join(path, UNFINISHED)
        fs.open(marker, create=True).close()
        fs.sync_dir(path)
        try:
            clear(fs, path)
            yield
        except BaseException:
            with contextlib.suppress(StorageFailed):  # then it stays unfinished, and says so
                clear(fs, path)
                fs.remove(marker)
                fs.sync_dir(path)
            raise
        fs.remove(marker)
        fs.sync_dir(path)
    finally:
        lock.release()


def clear(fs: OfflineFileSystem, path: str) -> None:
    """Remove what has been made in ``path``, but neither marker nor lock."""
    for directory in (join(path, WAL), join(path, SNAPSHOTS)):
        if fs.exists(directory):
            for name in fs.list_dir(directory):
                fs.remove(join(directory, name))
            fs.sync_dir(directory)
            fs.remove_dir(directory)
    for name in (IDENTITY, IDENTITY_ASIDE, PEERS, PEERS_ASIDE):
        if fs.exists(join(path, name)):
            fs.remove(join(path, name))
    fs.sync_dir(path)


def begin_new_parts(fs: OfflineFileSystem, path: str) -> str:
    """An empty directory within the member's directory ``path``, whose lock is held: for what is to replace it."""
    new = join(path, NEW_PARTS)
    fs.make_dirs(new)
    clear(fs, new)
    return new


def discard_new_parts(fs: OfflineFileSystem, path: str) -> None:
    """What :func:`begin_new_parts` began is not wanted."""
    new = join(path, NEW_PARTS)
    clear(fs, new)
    fs.remove_dir(new)
    fs.sync_dir(path)


def archive_for(fs: OfflineFileSystem, path: str, cluster_id: int) -> str:
    """A free name within ``path`` for what is there of a member of that cluster."""
    name = first = f"{ARCHIVE_PREFIX}{cluster_id:016x}"
    count = 1
    while fs.exists(join(path, name)):
        count += 1
        name = f"{first}-{count}"
    return join(path, name)


def change_over(fs: OfflineFileSystem, path: str, archive: str) -> None:
    """Put the new parts, which must be complete and durable, in the place of the old ones, and these into
    ``archive``, a name from :func:`archive_for`. The lock of ``path`` must be held."""
    marker = join(path, CHANGING)
    aside = join(path, CHANGING_ASIDE)
    file = fs.open(aside, create=True)
    try:
        file.truncate(0)
        file.write_at(0, (json.dumps({"archive": archive.rsplit("/", 1)[-1]}) + "\n").encode())
        file.datasync()
    finally:
        file.close()
    fs.rename(aside, marker)
    fs.sync_dir(path)
    finish_change(fs, path)


def is_changing(fs: OfflineFileSystem, path: str) -> bool:
    """Whether a change of this directory was begun and not finished."""
    return fs.exists(join(path, CHANGING))


def finish_change(fs: OfflineFileSystem, path: str) -> str:
    """Go on with a change, wherever it was cut short; where the old parts are. The lock must be held."""
    archive, new = join(path, _archive_name(fs, path)), join(path, NEW_PARTS)
    waiting = [part for part in _PARTS if fs.exists(join(new, part))]
    fs.make_dirs(archive)
    # That the old member was removed, or not like the others, goes with it, and before it: the new one was not.
    for part in [REMOVED, DIVERGED, *waiting]:
        if fs.exists(join(path, part)):
            fs.rename(join(path, part), join(archive, part))
    # For good, before anything takes their place: nothing of the old may ever be replaced by the new.
    fs.sync_dir(archive)
    fs.sync_dir(path)
    for part in waiting:
        fs.rename(join(new, part), join(path, part))
    fs.sync_dir(path)
    if fs.exists(new):
        fs.sync_dir(new)
        fs.remove_dir(new)
    for name in (IDENTITY_ASIDE, PEERS_ASIDE, REMOVED_ASIDE, DIVERGED_ASIDE):  # what a crash of the old member has left
        if fs.exists(join(path, name)):
            fs.remove(join(path, name))
    fs.sync_dir(path)  # before the marker goes: without it nobody would clear this away
    fs.remove(join(path, CHANGING))
    fs.sync_dir(path)
    return archive


def _archive_name(fs: OfflineFileSystem, path: str) -> str:
    marker = join(path, CHANGING)
    file = fs.open_read_only(marker)
    try:
        name = json.loads(file.read_at(0, file.size()))["archive"]
    except (ValueError, KeyError, TypeError) as error:
        raise Fatal(
            f"{marker} cannot be read: {error}", hint=f"look at {path}: the old parts are in {ARCHIVE_PREFIX}..."
        ) from error
    finally:
        file.close()
    if not isinstance(name, str) or not name.startswith(ARCHIVE_PREFIX) or "/" in name:
        raise Fatal(f"{marker} names {name!r}, which is no archive")
    return name
