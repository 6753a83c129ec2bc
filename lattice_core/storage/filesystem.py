"""The seam between storage and the operating system: all that the log and the snapshots need, no more.

Storage never calls ``os`` itself. It is handed a :class:`FileSystem`; in production that is
:class:`RealFileSystem`, in the simulator one that knows which bytes and which directory entries are
durable and loses the rest on a crash. The contract below is therefore what a *power loss* may do, not
what a running kernel happens to do:

* ``write_at``, ``truncate`` and ``allocate`` are volatile until ``datasync`` of the same file returns.
  A crash keeps any subset of the 512-byte sectors written since, each either wholly old or wholly new.
* ``datasync`` also makes the file's size durable, and nothing about its name.
* A name made or removed by ``open(create=True)``, ``rename``, ``remove`` or ``make_dirs`` is volatile
  until ``sync_dir`` of the directory that holds it returns (``make_dirs`` calls it itself).
* ``rename`` replaces its target atomically: after a crash the name means the old file or the new one.
* Space that was ``allocate``-d and not yet written reads as zeros, and writing into it needs no more room.

Errors: what the system refuses becomes :class:`~lattice_core.errors.StorageFailed` with path and errno,
ENOSPC and EDQUOT become :class:`~lattice_core.storage.errors.DiskFull`, any other failure of ``datasync`` and
``sync_dir`` :class:`~lattice_core.storage.errors.SyncFailed`. Only ``FileNotFoundError`` and
``FileExistsError`` pass through unchanged, since they are answers rather than failures. A ``datasync``
that failed must never be tried again: the kernel may have dropped the pages and will report success.

Limits: POSIX only; the lock is ``flock``, which network filesystems may not honour.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from typing import Protocol

from lattice_core.errors import DirectoryInUse, StorageFailed
from lattice_core.storage.descriptors import NoReserve, Reserve
from lattice_core.storage.errors import DiskFull, SyncFailed

SECTOR_BYTES = 512
"""What a device writes all or nothing: the unit in which unsynced data is lost."""

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class File(Protocol):
    """An open file, addressed by byte offset; there is no file position."""

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all of ``data`` at ``offset``. Volatile until :meth:`datasync` returns."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``offset``; fewer only at the end of the file."""

    def datasync(self) -> None:
        """Make every earlier write, and the size, durable. After a failure: stop, never retry."""

    def truncate(self, size: int) -> None:
        """Set the size; what lies beyond is gone, what is added reads as zeros."""

    def allocate(self, size: int) -> None:
        """Grow to at least ``size`` bytes of zeros whose later writing cannot run out of room."""

    def drop_cache(self) -> None:
        """Forget cached clean pages, so that the next read comes from the device. Best effort.

        After a failed fsync a kernel may hold pages that are not on the disk and call them clean
        (SAFETY 18); recovery must not believe those. A simulation has nothing to do here.
        """

    def size(self) -> int:
        """The size in bytes."""

    def close(self) -> None:
        """Release the descriptor. Makes nothing durable. Closing twice is allowed."""


class Lock(Protocol):
    """A held lock. It ends with :meth:`release` or with the process, however that ends."""

    def release(self) -> None:
        """Give the lock up. Releasing twice is allowed."""


class FileSystem(Protocol):
    """Files and directories by path. See the module for what survives a crash."""

    def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> File:
        """Open for reading and writing.

        ``create`` makes a missing file (mode 0600); with ``exclusive`` it must be missing.
        Raises FileNotFoundError, FileExistsError.
        """

    def open_read_only(self, path: str) -> File:
        """Open a file that is only ever read. Raises FileNotFoundError."""

    def exists(self, path: str) -> bool:
        """Whether there is a file or directory of that name."""

    def list_dir(self, path: str) -> list[str]:
        """The names in a directory, sorted. Raises FileNotFoundError."""

    def make_dirs(self, path: str) -> None:
        """Make a directory and its missing parents (mode 0700), durable on return."""

    def rename(self, src: str, dst: str) -> None:
        """Give a file another name, replacing what had it. Raises FileNotFoundError."""

    def remove(self, path: str) -> None:
        """Remove a file's name. Raises FileNotFoundError."""

    def sync_dir(self, path: str) -> None:
        """Make the names in a directory durable."""

    def lock(self, path: str) -> Lock:
        """Take the exclusive lock file at ``path`` or raise DirectoryInUse at once, naming the holder."""

    def free_bytes(self, path: str) -> int:
        """Room left for this user on the filesystem that holds ``path``."""


class OfflineFileSystem(FileSystem, Protocol):
    """What tools need beyond it to work on the directories of nodes that do not run.

    Here ``rename`` moves directories as well, to a name that is free.
    """

    def lock_shared(self, path: str) -> Lock:
        """Keep whoever wants the lock file at ``path`` for itself away, writing nothing; others may read likewise.

        Raises DirectoryInUse if somebody has it. Where there is no such file nobody does: it is never removed.
        """

    def remove_dir(self, path: str) -> None:
        """Remove an empty directory. Volatile until ``sync_dir`` of its parent. Raises FileNotFoundError."""


def join(directory: str, *names: str) -> str:
    """Paths are plain ``/``-joined strings, in simulations too."""
    return "/".join((directory.rstrip("/") or "/", *names)).replace("//", "/")


def parent(path: str) -> str:
    """The directory that holds ``path``."""
    return os.path.dirname(path.rstrip("/")) or ("/" if path.startswith("/") else ".")


@contextlib.contextmanager
def _refusals(action: str, path: str) -> Iterator[None]:
    """Turn what the system refuses into our errors, with path and errno."""
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        raise _refused(action, path, error) from error


def _refused(action: str, path: str, error: OSError, otherwise: type[StorageFailed] = StorageFailed) -> StorageFailed:
    code = errno.errorcode.get(error.errno, "unknown error") if error.errno is not None else "unknown error"
    kind = DiskFull if error.errno in _NO_ROOM else otherwise
    return kind(f"cannot {action} {path}: {error.strerror or error} ({code})")


class RealFile:
    """A :class:`File` on a descriptor. One thread at a time for writing; ``pread`` needs no care."""

    def __init__(self, path: str, descriptor: int, reserve: Reserve) -> None:
        self._path = path
        self._descriptor = descriptor
        self._reserve = reserve

    def write_at(self, offset: int, data: bytes) -> None:
        # No context manager here: this and datasync are the hot path of every write to the cluster.
        try:
            written = os.pwrite(self._descriptor, data, offset)
            if written == len(data):
                return
            rest = memoryview(data)
            while written < len(data):
                count = os.pwrite(self._descriptor, rest[written:], offset + written)
                if count == 0:
                    raise OSError(errno.EIO, "the system wrote nothing and gave no reason")
                written += count
        except OSError as error:
            raise _refused("write", self._path, error) from error

    def read_at(self, offset: int, size: int) -> bytes:
        parts: list[bytes] = []
        with _refusals("read", self._path):
            while size > 0:
                part = os.pread(self._descriptor, size, offset)
                if not part:
                    break
                parts.append(part)
                offset += len(part)
                size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def datasync(self) -> None:
        try:
            _datasync(self._descriptor)
        except OSError as error:
            raise _refused("fsync", self._path, error, SyncFailed) from error

    def truncate(self, size: int) -> None:
        with _refusals("truncate", self._path):
            os.ftruncate(self._descriptor, size)

    def allocate(self, size: int) -> None:
        with _refusals("allocate room for", self._path):
            have = os.fstat(self._descriptor).st_size
            if have >= size:
                return
            if hasattr(os, "posix_fallocate"):
                try:
                    os.posix_fallocate(self._descriptor, 0, size)
                    return
                except OSError as error:
                    if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                        raise
            # A sparse file would only promise the room; zeros that were written have it.
            block = bytes(1 << 20)
            while have < size:
                have += os.pwrite(self._descriptor, block[: size - have], have)

    def drop_cache(self) -> None:
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):
                os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def size(self) -> int:
        with _refusals("examine", self._path):
            return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):  # what matters was synced; the descriptor is gone either way
                self._reserve.give_back(descriptor)


def _datasync(descriptor: int) -> None:
    if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: fsync alone leaves the data in the drive's own cache
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    elif hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)


class RealLock:
    """A :class:`Lock` by ``flock``. The file stays: removing it would let two processes hold two files."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _in_use(path: str, descriptor: int) -> DirectoryInUse:
    holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
    by = f" by process {holder}" if holder else " by another process"
    return DirectoryInUse(
        f"{parent(path)} is in use{by}",
        hint="stop that process, or give this one another data directory",
    )


class RealFileSystem:
    """:class:`OfflineFileSystem` on the operating system's files."""

    def __init__(self, reserve: Reserve | None = None) -> None:
        """``reserve``: descriptors to fall back on when the process has no other left."""
        self._reserve = reserve or NoReserve()

    def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> RealFile:
        flags = os.O_RDWR | os.O_CLOEXEC
        if create:
            flags |= os.O_CREAT | (os.O_EXCL if exclusive else 0)
        with _refusals("open", path):
            descriptor = self._reserve.get(lambda: os.open(path, flags, FILE_MODE))
            return RealFile(path, descriptor, self._reserve)

    def open_read_only(self, path: str) -> RealFile:
        with _refusals("open", path):
            descriptor = self._reserve.get(lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            return RealFile(path, descriptor, self._reserve)

    def exists(self, path: str) -> bool:
        with _refusals("examine", path):
            try:
                os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                return False
            return True

    def list_dir(self, path: str) -> list[str]:
        with _refusals("list", path):
            return sorted(self._reserve.during(lambda: os.listdir(path)))

    def make_dirs(self, path: str) -> None:
        missing: list[str] = []
        probe = path
        while not self.exists(probe):
            missing.append(probe)
            probe = parent(probe)
        for directory in reversed(missing):
            with _refusals("make directory", directory), contextlib.suppress(FileExistsError):
                os.mkdir(directory, DIRECTORY_MODE)
            self.sync_dir(parent(directory))

    def rename(self, src: str, dst: str) -> None:
        with _refusals("rename", f"{src} to {dst}"):
            os.rename(src, dst)

    def remove(self, path: str) -> None:
        with _refusals("remove", path):
            os.unlink(path)

    def sync_dir(self, path: str) -> None:
        with _refusals("fsync directory", path):
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            descriptor = self._reserve.get(lambda: os.open(path, flags))
            try:
                os.fsync(descriptor)
            except OSError as error:
                raise _refused("fsync directory", path, error, SyncFailed) from error
            finally:
                self._reserve.give_back(descriptor)

    def lock(self, path: str) -> RealLock:
        with _refusals("lock", path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # For the message below only: what excludes is the lock, which dies with its process. So
                # a full disk must not keep a node from starting here.
                with contextlib.suppress(OSError):
                    os.pwrite(descriptor, f"{os.getpid():<20}\n".encode(), 0)
            except BlockingIOError as error:
                in_use = _in_use(path, descriptor)
                os.close(descriptor)
                raise in_use from error
            except BaseException:
                os.close(descriptor)
                raise
            return RealLock(descriptor)

    def lock_shared(self, path: str) -> RealLock:
        with _refusals("lock", path):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                return RealLock(-1)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError as error:
                in_use = _in_use(path, descriptor)
                os.close(descriptor)
                raise in_use from error
            except BaseException:
                os.close(descriptor)
                raise
            return RealLock(descriptor)

    def remove_dir(self, path: str) -> None:
        with _refusals("remove directory", path):
            os.rmdir(path)

    def free_bytes(self, path: str) -> int:
        with _refusals("examine", path):
            stat = os.statvfs(path)
            return stat.f_bavail * stat.f_frsize
