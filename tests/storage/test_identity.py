"""Whose directory it is: one process, one identity, and no second life for a lost one."""

from __future__ import annotations

import random
import signal
import subprocess
import sys

import pytest
from crashfs import CrashFS, Died
from logs import CLUSTER, DIR, NODE, append, put, term

from lattice_core.errors import ConfigurationError, DirectoryInUse, Fatal, IdentityMismatch, StorageDamaged
from lattice_core.storage.filesystem import RealFileSystem
from lattice_core.storage.identity import DataDirectory, Identity, read_identity
from lattice_core.storage.wal import Wal

PATH = "/data"
ME = Identity(CLUSTER, NODE, "n1", "127.0.0.1:7500", "127.0.0.1:7400")


def make(fs: CrashFS) -> Wal:
    """What bootstrap does: directory, log, and last of all the identity."""
    directory = DataDirectory.open(fs, PATH)
    wal = Wal.create(fs, directory.wal_path, CLUSTER, NODE, segment_bytes=4096)
    directory.write_identity(ME)
    directory.close()
    return wal


def test_an_identity_comes_back_as_written_and_a_person_can_read_it():
    fs = CrashFS()
    make(fs)
    directory = DataDirectory.open(fs, PATH)
    assert directory.identity == ME
    assert b'"node_name": "n1"' in fs.names[f"{PATH}/identity"].content
    directory.write_identity(ME)


def test_safety_20_the_identity_is_fsynced_aside_renamed_and_its_directory_fsynced():
    fs = CrashFS()
    directory = DataDirectory.open(fs, PATH)
    fs.calls.clear()
    directory.write_identity(ME)
    assert [operation for operation, _ in fs.calls] == ["create", "truncate", "write", "datasync", "rename", "sync_dir"]


def test_a_creation_cut_short_at_any_step_is_begun_again():
    for steps in range(16):
        for seed in range(8):
            fs = CrashFS()
            fs.die_after = steps
            try:
                make(fs)
                done = True
            except Died:
                done = False
            fs = fs.crash(random.Random(seed))
            directory = DataDirectory.open(fs, PATH)
            if directory.identity is None:
                assert not done
                directory.close()
                make(fs)
            else:
                directory.close()
            assert DataDirectory.open(fs, PATH).identity == ME
            Wal.open(fs, DIR, CLUSTER, NODE, segment_bytes=4096)


def test_safety_22_a_used_log_without_its_identity_is_refused():
    fs = CrashFS()
    put(make(fs), term(1, vote=2))
    fs.remove(f"{PATH}/identity")
    with pytest.raises(StorageDamaged, match="identity file is missing") as caught:
        DataDirectory.open(fs, PATH)
    assert "--reseed" in (caught.value.hint or "")
    assert fs.list_dir(DIR), "nothing was removed"
    assert not fs.locks


def test_safety_22_a_used_log_that_lost_its_header_and_identity_is_refused():
    fs = CrashFS()
    put(make(fs), term(1, vote=2), append(1, 2))
    fs.remove(f"{PATH}/identity")
    fs.names[f"{DIR}/{fs.list_dir(DIR)[0]}"].content[:512] = bytes(512)
    with pytest.raises(StorageDamaged):
        DataDirectory.open(fs, PATH)


def test_snapshots_without_an_identity_are_refused():
    fs = CrashFS()
    fs.make_dirs(f"{PATH}/snapshots")
    fs.open(f"{PATH}/snapshots/1.snap", create=True)
    with pytest.raises(StorageDamaged):
        DataDirectory.open(fs, PATH)


def test_every_contradiction_names_both_values():
    for what, asked, shown in [
        ("cluster_id", 0xBAD, "0000000000000bad"),
        ("node_id", 0xBAD, "0000000000000bad"),
        ("node_name", "n9", "n9"),
        ("peer_addr", "h:9", "h:9"),
    ]:
        with pytest.raises(IdentityMismatch, match=shown) as caught:
            ME.require(PATH, **{what: asked})
        recorded = getattr(ME, what)
        assert (f"{recorded:016x}" if isinstance(recorded, int) else recorded) in str(caught.value)
    ME.require(PATH, cluster_id=CLUSTER, node_name="n1")


def test_a_second_identity_is_refused():
    fs = CrashFS()
    make(fs)
    directory = DataDirectory.open(fs, PATH)
    with pytest.raises(IdentityMismatch):
        directory.write_identity(Identity(CLUSTER, NODE + 1, "n1", ME.peer_addr))


def test_a_changed_identity_file_is_refused_at_every_byte():
    fs = CrashFS()
    make(fs)
    content = bytes(fs.names[f"{PATH}/identity"].content)
    for offset in range(len(content)):
        rotten = fs.copy()
        rotten.names[f"{PATH}/identity"].content[offset] ^= 1
        try:
            assert read_identity(rotten, PATH) == ME
        except Fatal:
            pass
    fs.names[f"{PATH}/identity"].content[:] = b""
    with pytest.raises(StorageDamaged):
        read_identity(fs, PATH)


def test_a_directory_with_somebody_elses_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigurationError, match=r"thesis\.tex"):
        DataDirectory.open(RealFileSystem(), str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ConfigurationError):
        DataDirectory.open(RealFileSystem(), str(tmp_path / "thesis.tex"))


HOLDER = """
import sys, time
from lattice_core.storage.filesystem import RealFileSystem
from lattice_core.storage.identity import DataDirectory
directory = DataDirectory.open(RealFileSystem(), sys.argv[1])
print("locked", flush=True)
time.sleep(60)
"""


def test_safety_23_a_second_process_is_refused_and_told_who_holds_it(tmp_path):
    path = str(tmp_path / "data")
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(DirectoryInUse, match=rf"process {holder.pid}\b"):
            DataDirectory.open(RealFileSystem(), path)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    DataDirectory.open(RealFileSystem(), path).close()
