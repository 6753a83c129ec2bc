"""A snapshot file becomes the data directory of a new cluster's member: whole, or nothing that starts."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from crashfs import CrashFS, Died, eio
from saved_data import (
    MEMBERS,
    OLD_CLUSTER,
    OLD_CONFIGURATION,
    alone,
    config,
    leave_member,
    save,
    state_at,
)

from lattice_core.config import NodeConfig
from lattice_core.errors import (
    ConfigurationError,
    DirectoryInUse,
    Fatal,
    IdentityMismatch,
    InvalidRequest,
    StorageDamaged,
    StorageFailed,
    UnknownCommand,
)
from lattice_core.kv.successor import STEP
from lattice_core.raft.types import HardState, SnapshotMeta
from lattice_core.server.bootstrap import OpenedNode, cluster_id_of, first_configuration, open_node
from lattice_core.server.restore import Restored, restore_snapshot
from lattice_core.server.successor import successor_cluster_id
from lattice_core.storage.errors import DiskFull
from lattice_core.storage.identity import DataDirectory, read_identity, write_identity
from lattice_core.storage.snapshots import SnapshotHeader, SnapshotWriter

SAVED = 40
WHOLE = ["identity", "lock", "peers", "snapshots", "wal"]


@pytest.fixture
def fs() -> CrashFS:
    fs = CrashFS()
    fs.make_dirs("/backup")
    return fs


@pytest.fixture
def file(fs: CrashFS) -> str:
    return save(fs, "/backup", state_at(SAVED))


def opened(fs: CrashFS, node: NodeConfig) -> OpenedNode:
    found = open_node(node, fs)
    found.close()
    return found


# --- what comes of it -------------------------------------------------------------------------------


def test_restored_separately_all_members_agree_on_everything_and_know_each_other(fs: CrashFS, file: str) -> None:
    restored = [restore_snapshot(fs, file, config(name)) for name in MEMBERS]
    (cluster_id,) = {each.member.cluster_id for each in restored}
    (state_hash,) = {each.state_hash for each in restored}
    assert cluster_id not in (OLD_CLUSTER, cluster_id_of(MEMBERS))
    for name in MEMBERS:
        node = opened(fs, config(name))
        assert node.identity.cluster_id == cluster_id
        assert node.machine[0].state_hash == state_hash
        assert node.recovered.hard_state == HardState(1, None)
        assert node.recovered.entries == ()
        assert node.recovered.snapshot == SnapshotMeta(SAVED, 1, first_configuration(MEMBERS, cluster_id))
        assert node.identity.node_id == node.recovered.snapshot.configuration.member_named(name).id
        assert not {member.id for member in OLD_CONFIGURATION.members} & {node.identity.node_id}
        assert node.fresh, "it has met nobody: it introduces itself"


def test_the_state_is_the_saved_one_with_revisions_above_and_sessions_forgotten(fs: CrashFS, file: str) -> None:
    saved = state_at(SAVED)
    assert len(saved.sessions) == 1
    restored = restore_snapshot(fs, file, config())
    machine = opened(fs, config()).machine[0]
    assert machine.store.range(b"", b"").kvs == saved.store.range(b"", b"").kvs
    assert (restored.old_revision, restored.revision) == (saved.revision, saved.revision + STEP)
    assert machine.revision == machine.store.oldest_revision == saved.revision + STEP
    assert len(machine.sessions) == 0
    assert machine.sessions.next_id == saved.sessions.next_id + STEP
    assert (machine.applied_index, machine.time_ms) == (SAVED, saved.time_ms)
    assert restored.keys == len(machine.store) == SAVED - 1


def test_the_cluster_id_depends_on_content_members_and_generation_and_nothing_else(fs: CrashFS, file: str) -> None:
    other = save(fs, "/backup", state_at(SAVED - 1))
    four = {**MEMBERS, "n4": "h:7504"}
    backwards = dict(reversed(MEMBERS.items()))
    copied = file.replace("/backup/", "/copy-of-")
    fs.names[copied] = fs.names[file]
    ids: list[int] = []

    def made(path: str, generation: int = 1, **changes: Any) -> int:
        node = replace(config(data_dir=f"/made/{len(ids)}"), **changes)
        ids.append(restore_snapshot(fs, path, node, generation=generation).member.cluster_id)
        return ids[-1]

    first = made(file)
    assert made(copied) == made(file, initial_cluster=backwards) == first
    different = [made(other), made(file, initial_cluster=four), made(file, generation=2)]
    assert len({first, *different}) == 4
    # Written down: members that are restored by another version of Lattice must agree as well.
    assert successor_cluster_id(bytes(range(32)), 0xC1, {"n2": "b:2", "n1": "a:1"}, 1) == 0xDEB3D50EC08DE0C8


def test_without_first_members_it_is_a_cluster_of_one_like_no_other(fs: CrashFS, file: str) -> None:
    restored = [restore_snapshot(fs, file, alone(data_dir=f"/data/{number}")) for number in range(2)]
    assert len({each.member.cluster_id for each in restored}) == 2
    node = opened(fs, alone(data_dir="/data/0"))
    assert node.recovered.snapshot is not None
    assert [member.name for member in node.recovered.snapshot.configuration.members] == ["n1"]


def test_starting_it_takes_the_options_it_was_made_with_and_no_others(fs: CrashFS, file: str) -> None:
    restore_snapshot(fs, file, config())
    opened(fs, config())
    opened(fs, replace(config(), initial_cluster=dict(reversed(MEMBERS.items()))))
    opened(fs, alone())
    with pytest.raises(IdentityMismatch, match="n9=h:7509") as caught:
        opened(fs, replace(config(), initial_cluster={**MEMBERS, "n9": "h:7509"}))
    assert "n1=h:7501,n2=h:7502,n3=h:7503, but" in str(caught.value), "both are named"
    with pytest.raises(IdentityMismatch, match="node name n1"):
        opened(fs, config("n2", "/data/n1"))


def test_a_directory_from_before_first_members_were_written_down_is_compared_by_its_id(fs: CrashFS) -> None:
    leave_member(fs, "n1", 3)
    content = fs.names["/data/n1/identity"].content
    directory = DataDirectory.open(fs, "/data/n1")
    assert directory.identity is not None
    directory.close()
    fs.remove("/data/n1/identity")
    write_identity(fs, "/data/n1", replace(directory.identity, initial_cluster=None))
    assert fs.names["/data/n1/identity"].content != content
    opened(fs, config())
    with pytest.raises(IdentityMismatch, match="began with other members"):
        opened(fs, replace(config(), initial_cluster={**MEMBERS, "n9": "h:7509"}))


# --- what is refused --------------------------------------------------------------------------------


def refused(fs: CrashFS, file: str, node: NodeConfig, kind: type[Exception], match: str) -> Any:
    before = contents(fs)
    with pytest.raises(kind, match=match) as caught:
        restore_snapshot(fs, file, node)
    assert contents(fs) == before, "nothing was touched"
    assert not fs.locks
    return caught.value


def contents(fs: CrashFS) -> dict[str, bytes]:
    return {path: bytes(inode.content) for path, inode in fs.names.items()}


def test_a_directory_that_is_not_empty_is_refused_and_left_as_it_is(fs: CrashFS, file: str) -> None:
    leave_member(fs, "n2", 3)
    error = refused(fs, file, config(data_dir="/data/n2"), ConfigurationError, "data directory of n2")
    assert f"{OLD_CLUSTER:016x}" in str(error)
    fs.make_dirs("/home")
    fs.open("/home/thesis.tex", create=True)
    fs.open("/home/zzz", create=True)
    refused(fs, file, config(data_dir="/home"), ConfigurationError, r"holds 'thesis\.tex' and 1 more")
    fs.make_dirs("/half/wal")  # of a node whose making was cut short: not ours to clear away
    refused(fs, file, config(data_dir="/half"), ConfigurationError, "holds 'wal'")


def test_a_directory_in_use_is_refused(fs: CrashFS, file: str) -> None:
    fs.make_dirs("/data/n1")
    lock = fs.lock("/data/n1/lock")
    with pytest.raises(DirectoryInUse):
        restore_snapshot(fs, file, config())
    lock.release()
    restore_snapshot(fs, file, config())


def test_a_directory_that_another_restore_has_made_meanwhile_is_left_as_it_is(fs: CrashFS, file: str) -> None:
    original = fs.lock

    def lock_after_another(path: str) -> Any:
        fs.lock = original  # type: ignore[method-assign]
        restore_snapshot(fs, file, config("n2", "/data/n1"))
        return original(path)

    fs.lock = lock_after_another  # type: ignore[method-assign]
    with pytest.raises(ConfigurationError, match="is the data directory of n2"):
        restore_snapshot(fs, file, config())
    opened(fs, config("n2", "/data/n1"))


def test_a_file_system_of_its_own_with_lost_and_found_is_as_good_as_empty(fs: CrashFS, file: str) -> None:
    fs.make_dirs("/data/n1/lost+found")
    restore_snapshot(fs, file, config())
    opened(fs, config())


def test_26_a_file_damaged_or_cut_at_any_byte_is_named_with_its_offset_and_leaves_no_trace(fs: CrashFS) -> None:
    file = save(fs, "/backup", state_at(6))
    inode = fs.names[file]
    whole = bytes(inode.content)
    for offset in range(len(whole)):
        for damaged in (
            whole[:offset] + bytes([whole[offset] ^ (1 << offset % 8)]) + whole[offset + 1 :],
            whole[:offset],
        ):
            inode.content[:] = damaged
            error = refused(fs, file, config(), StorageDamaged, "is damaged at offset")
            assert error.path == file
            assert 0 <= error.offset <= len(whole)
            assert "snapshot inspect" in error.hint
    inode.content[:] = whole + b"\0"
    refused(fs, file, config(), StorageDamaged, "follows its end")
    inode.content[:] = whole
    restore_snapshot(fs, file, config())


def write_chunks(fs: CrashFS, chunks: list[Any], index: int = 9) -> str:
    writer = SnapshotWriter(fs, "/backup", SnapshotHeader(OLD_CLUSTER, SnapshotMeta(index, 1, OLD_CONFIGURATION)))
    for chunk in chunks:
        writer.write(msgpack.packb(chunk))
    return writer.publish()


def test_a_whole_file_with_something_else_in_it_is_refused_by_name(fs: CrashFS) -> None:
    chunks = list(state_at(9).capture().to_chunks())
    header = dict(chunks[0][1])
    for wrong, kind in (
        ([["what", 1]], Fatal),
        ([7], Fatal),
        ([], Fatal),
        (chunks[:-1], Fatal),
        ([["header", {**header, "keys": 5}], *chunks[1:]], Fatal),
        ([["header", {**header, "state_hash": 5}], *chunks[1:]], Fatal),
        ([["header", {**header, "applied_index": 5}], *chunks[1:]], Fatal),
        ([["header", {**header, "chunks_version": 99}], *chunks[1:]], UnknownCommand),
    ):
        file = write_chunks(fs, wrong)
        error = refused(fs, file, config(), kind, r"\.snap: ")
        assert str(error).startswith(file)
        assert error.hint
    refused(fs, "/backup/none", config(), InvalidRequest, "does not exist")
    fs.open("/backup/text", create=True).write_at(0, b"LatticeX" + bytes(100))
    refused(fs, "/backup/text", config(), StorageDamaged, "not a Lattice snapshot")


# --- whatever happens meanwhile ---------------------------------------------------------------------


def outcome_of_a_death(fs: CrashFS, file: str, steps: int, power: random.Random | None) -> tuple[CrashFS, bool]:
    """Restore, killed after so many steps (with ``power``: the machine with it); and whether it came to its end."""
    fs.die_after = steps
    try:
        restore_snapshot(fs, file, config())
        done = True
    except Died:
        done = False
    fs.die_after = None
    fs.locks.clear()
    return (fs if power is None else fs.crash(power)), done


def looks(fs: CrashFS) -> str:
    """What ``lattice start`` takes it for."""
    if not fs.exists("/data/n1"):
        return "nothing"
    fs = fs.copy()
    try:
        directory = DataDirectory.open(fs, "/data/n1")
    except ConfigurationError as error:
        return "unfinished" if "is unfinished" in str(error) else f"refused: {error}"
    directory.close()
    if directory.identity is None:
        assert set(fs.list_dir("/data/n1")) <= {"lock"}
        return "nothing"
    return "whole"


@pytest.mark.parametrize("power_goes", [False, True], ids=["kill", "power"])
def test_killed_at_any_step_it_is_nothing_or_unfinished_or_whole_and_again_it_succeeds(power_goes: bool) -> None:
    seen: set[str] = set()
    finished = False
    steps = 0
    while not finished:
        for seed in range(6 if power_goes else 1):
            fs = CrashFS()
            fs.make_dirs("/backup")
            file = save(fs, "/backup", state_at(SAVED))
            expected = restore_snapshot(fs.copy(), file, config())
            fs, finished = outcome_of_a_death(fs, file, steps, random.Random(seed) if power_goes else None)
            found = looks(fs)
            seen.add(found)
            assert found == "whole" or not finished
            if found == "whole":
                with pytest.raises(ConfigurationError, match="is the data directory of n1"):
                    restore_snapshot(fs, file, config())
            else:
                restored = restore_snapshot(fs, file, config())
                assert restored.member == expected.member
            require_whole(fs, expected)
        steps += 1
    assert seen == {"nothing", "unfinished", "whole"}
    assert steps > 20


def require_whole(fs: CrashFS, expected: Restored) -> None:
    assert fs.list_dir("/data/n1") == WHOLE, "and nothing else"
    assert len(fs.list_dir("/data/n1/wal")) == 1
    assert len(fs.list_dir("/data/n1/snapshots")) == 1
    node = opened(fs, config())
    assert node.machine[0].state_hash == expected.state_hash
    assert node.identity.cluster_id == expected.member.cluster_id
    # What it says is durable: it is all there after the power goes.
    assert opened(fs.crash(random.Random(0)), config()).machine[0].state_hash == expected.state_hash


def test_an_unfinished_directory_is_made_anew_by_a_command_for_another_member_too(fs: CrashFS, file: str) -> None:
    fs, done = outcome_of_a_death(fs, file, 18, None)
    assert not done
    assert looks(fs) == "unfinished"
    restored = restore_snapshot(fs, file, config("n2", "/data/n1"))
    identity = read_identity(fs, "/data/n1")
    assert identity == restored.member.identity
    assert identity.node_name == "n2"


@pytest.mark.parametrize("operation", ["write", "datasync", "rename", "sync_dir", "allocate", "create"])
def test_an_error_on_the_way_leaves_the_place_as_empty_as_it_was(fs: CrashFS, file: str, operation: str) -> None:
    fs.make_dirs("/data/n1")
    fs.lock("/data/n1/lock").release()

    def fail_within(error: Exception) -> None:
        # Only in the middle: what clears up must work.
        original, count = fs.called, 0

        def called(what: str, path: str) -> None:
            nonlocal count
            original(what, path)
            if what == operation and ("wal" in path or "snapshots" in path) and count == 0:
                count += 1
                raise error

        fs.called = called  # type: ignore[method-assign]

    fail_within(DiskFull("no room") if operation in ("write", "allocate", "create") else eio())
    with pytest.raises(StorageFailed):
        restore_snapshot(fs, file, config())
    assert fs.list_dir("/data/n1") == ["lock"]
    assert not fs.locks
    restore_snapshot(fs, file, config())
    opened(fs, config())
