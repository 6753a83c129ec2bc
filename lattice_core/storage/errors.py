"""Errors that only storage can tell apart: a full disk, which a node may survive, and a failed fsync, which it may not.

Everything else storage raises lives in :mod:`lattice_core.errors`, because a person meets it.
"""

from __future__ import annotations

from lattice_core.errors import StorageFailed


class DiskFull(StorageFailed):
    """No room (ENOSPC or EDQUOT) for something new, such as the next log segment.

    Raised by :meth:`Wal.write <lattice_core.storage.wal.Wal.write>` only while nothing of the batches
    has been written: the log stays usable, a term or a vote still fits in its reserve, and the same
    batches may be offered again once there is room. Where a full disk struck half way through, a plain
    :class:`~lattice_core.errors.StorageFailed` is raised instead and the log is closed to further writes.
    """

    default_hint = "free some space on the disk of the data directory"


class SyncFailed(StorageFailed):
    """An fsync failed, of a file or a directory, for another reason than room: the process has to end (SAFETY 18).

    Whatever file it was, also one that nobody relies on yet and that could be written again: the kernel reports such an
    error once, to whoever syncs next, and the disk is the one that the log is on.
    """

    default_hint = "look for the disk's errors in the system's log, and start this member again when it is sound"
