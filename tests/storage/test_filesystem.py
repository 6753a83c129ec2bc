"""The real filesystem behind the seam: modes, errors with names, and whole writes."""

from __future__ import annotations

import errno
import os
import stat

import pytest
from logs import CLUSTER, NODE, append, entries, put, term

from lattice_core.errors import StorageFailed
from lattice_core.storage.errors import DiskFull, SyncFailed
from lattice_core.storage.filesystem import RealFileSystem
from lattice_core.storage.identity import DataDirectory, Identity
from lattice_core.storage.wal import Wal


def test_a_log_on_real_files_survives_and_nobody_else_may_read_it(tmp_path):
    fs = RealFileSystem()
    path = str(tmp_path / "a" / "data")
    directory = DataDirectory.open(fs, path)
    wal = Wal.create(fs, directory.wal_path, CLUSTER, NODE, segment_bytes=1 << 16)
    directory.write_identity(Identity(CLUSTER, NODE, "n1", "h:1"))
    put(wal, term(1), append(1, 500, size=200))
    put(wal, append(501, 600, size=200))
    wal.close()
    _, recovery = Wal.open(fs, directory.wal_path, CLUSTER, NODE)
    assert recovery.state.entries == entries(1, 600, size=200)
    for where, names, files in os.walk(path):
        for name in (*names, *files):
            mode = stat.S_IMODE(os.stat(os.path.join(where, name)).st_mode)
            assert mode == (0o700 if name in names else 0o600), name
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700


def test_short_writes_are_finished(tmp_path, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, bytes(data[:7]), offset))
    file = RealFileSystem().open(str(tmp_path / "f"), create=True)
    data = bytes(range(100))
    file.write_at(3, data)
    assert file.read_at(3, 1000) == data


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.EIO, StorageFailed), (errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull)]
)
def test_a_refused_write_names_path_and_errno_and_a_failed_fsync_is_told_apart(tmp_path, monkeypatch, code, kind):
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    file = RealFileSystem().open(str(tmp_path / "f"), create=True)
    monkeypatch.setattr(os, "pwrite", refuse)
    monkeypatch.setattr(os, "fdatasync", refuse)
    for call, otherwise in ((lambda: file.write_at(0, b"x"), StorageFailed), (file.datasync, SyncFailed)):
        with pytest.raises(StorageFailed, match=errno.errorcode[code]) as caught:
            call()
        assert str(tmp_path / "f") in str(caught.value)
        assert type(caught.value) is (DiskFull if kind is DiskFull else otherwise)


def test_allocation_without_system_support_writes_zeros(tmp_path, monkeypatch):
    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not here")

    monkeypatch.setattr(os, "posix_fallocate", unsupported, raising=False)
    file = RealFileSystem().open(str(tmp_path / "f"), create=True)
    file.write_at(0, b"kept")
    file.allocate(3 << 20)
    assert file.size() == 3 << 20
    assert file.read_at(0, 8) == b"kept\0\0\0\0"
    assert os.stat(tmp_path / "f").st_blocks * 512 >= 3 << 20


def test_missing_and_existing_files_are_answers_not_failures(tmp_path):
    fs = RealFileSystem()
    with pytest.raises(FileNotFoundError):
        fs.open(str(tmp_path / "f"))
    fs.open(str(tmp_path / "f"), create=True, exclusive=True).close()
    with pytest.raises(FileExistsError):
        fs.open(str(tmp_path / "f"), create=True, exclusive=True)
    assert fs.exists(str(tmp_path / "f"))
    assert fs.list_dir(str(tmp_path)) == ["f"]
    fs.rename(str(tmp_path / "f"), str(tmp_path / "g"))
    fs.remove(str(tmp_path / "g"))
    fs.sync_dir(str(tmp_path))
    assert fs.free_bytes(str(tmp_path)) > 0
