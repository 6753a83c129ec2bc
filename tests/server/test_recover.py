"""What survivors have becomes a new cluster: the most there is, nothing of theirs lost on the way."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from crashfs import CrashFS, Died, eio
from saved_data import (
    MEMBERS,
    OLD_CLUSTER,
    SEGMENT_BYTES,
    alone,
    command,
    config,
    leave_member,
    node_id,
    save,
    state_at,
)

from lattice_core.errors import (
    ConfigurationError,
    DirectoryInUse,
    Fatal,
    IdentityMismatch,
    InvalidRequest,
    NotAllowed,
    ServerRemoved,
    StorageDamaged,
    StorageFailed,
    UnknownCommand,
)
from lattice_core.kv.successor import STEP
from lattice_core.raft.types import Entry, HardState
from lattice_core.server import recover as module
from lattice_core.server.bootstrap import mark_removed, open_node
from lattice_core.server.recover import Order, Plan, finish, recover
from lattice_core.storage.errors import DiskFull
from lattice_core.storage.identity import DataDirectory, read_identity
from lattice_core.storage.restart import SnapshotMarkBatch

HERE = Order(segment_bytes=SEGMENT_BYTES)
ARCHIVE = f"before-recovery-{OLD_CLUSTER:016x}"


def yes(_: Plan) -> bool:
    return True


def no(_: Plan) -> bool:
    return False


def contents(fs: CrashFS) -> dict[str, bytes]:
    return {path: bytes(inode.content) for path, inode in fs.names.items()}


def state_of(fs: CrashFS, name: str, data_dir: str | None = None) -> Any:
    opened = open_node(alone(name, data_dir), fs)
    opened.close()
    return opened


# --- which, and what ---------------------------------------------------------------------------------


def test_the_survivor_with_the_most_up_to_date_log_is_chosen_by_term_before_length() -> None:
    """Section 5.4.1."""
    fs = CrashFS()
    longer = leave_member(fs, "n1", 30, term=1)
    newer = leave_member(fs, "n2", 12, term=1, last_term=2)
    for paths in ([longer, newer], [newer, longer]):
        plan = recover(fs, paths, HERE, consent=no)
        assert plan.chosen.data_dir == newer
        assert (plan.log.last_index, plan.log.last_term) == (12, 2)
        assert plan.member.name == "n2"


def test_of_equal_logs_the_one_that_knows_more_is_chosen_and_any_knowledge_of_a_commit_counts() -> None:
    fs = CrashFS()
    knows_less = leave_member(fs, "n1", 20, commit=5)
    knows_more = leave_member(fs, "n2", 20, commit=15)
    plan = recover(fs, [knows_less, knows_more], HERE, consent=no)
    assert (plan.chosen.data_dir, plan.commit_index, plan.uncommitted) == (knows_more, 15, 5)
    ahead = leave_member(fs, "n3", 25, commit=3)
    plan = recover(fs, [knows_less, knows_more, ahead], HERE, consent=no)
    assert (plan.chosen.data_dir, plan.commit_index, plan.uncommitted) == (ahead, 15, 10)


@pytest.mark.parametrize("snapshot_at", [0, 12])
def test_snapshot_and_log_are_replayed_to_the_last_entry_committed_or_not(snapshot_at: int) -> None:
    fs = CrashFS()
    path = leave_member(fs, "n3", 30, commit=20, snapshot_at=snapshot_at)
    plan = recover(fs, [path], HERE, consent=yes)
    expected = state_at(30)
    assert (plan.log.snapshot_index, plan.log.entries) == (snapshot_at, 30 - snapshot_at)
    assert (plan.uncommitted, plan.keys) == (10, 29)
    opened = state_of(fs, "n3")
    machine = opened.machine[0]
    assert machine.store.range(b"", b"").kvs == expected.store.range(b"", b"").kvs
    assert machine.revision == machine.store.oldest_revision == plan.revision == expected.revision + STEP
    assert len(machine.sessions) == 0
    assert machine.sessions.next_id == expected.sessions.next_id + STEP
    assert machine.applied_index == 30


def test_it_is_a_new_cluster_of_one_with_an_id_that_never_was() -> None:
    fs = CrashFS()
    path = leave_member(fs, "n3", 9)
    twin = fs.copy()
    plans = [recover(each, [path], HERE, consent=yes) for each in (fs, twin)]
    opened = state_of(fs, "n3")
    assert opened.identity == plans[0].member.identity
    assert opened.identity.cluster_id not in (OLD_CLUSTER, plans[1].member.cluster_id)
    assert opened.identity.node_id != node_id("n3")
    assert opened.recovered.snapshot.configuration.voters == {opened.identity.node_id}
    assert opened.recovered.hard_state == HardState(1, None)
    # The command that started it before says --initial-cluster: told, and told what to do.
    with pytest.raises(IdentityMismatch, match="began with n3=h:7503, but --initial-cluster says n1=") as caught:
        open_node(config("n3"), fs)
    assert "or none" in (caught.value.hint or "")


def test_name_and_addresses_are_the_chosen_ones_unless_others_are_asked_for() -> None:
    fs = CrashFS()
    path = leave_member(fs, "n3", 9)
    plan = recover(fs, [path], HERE, consent=no)
    assert (plan.member.name, plan.member.peer_addr, plan.member.client_addr) == ("n3", "h:7503", "h:7403")
    order = replace(HERE, name="fresh", peer_addr="other:1", client_addr="other:2")
    plan = recover(fs, [path], order, consent=yes)
    identity = read_identity(fs, path)
    assert identity == plan.member.identity
    assert (identity.node_name, identity.peer_addr, identity.client_addr) == ("fresh", "other:1", "other:2")
    with pytest.raises(ConfigurationError, match="two listeners"):
        recover(fs, [leave_member(fs, "n1", 3)], replace(HERE, peer_addr="a:1", client_addr="a:1"), consent=no)


def test_the_newest_membership_in_the_log_is_the_one_that_counts() -> None:
    """In force from append, committed or not."""
    fs = CrashFS()
    opened = open_node(config("n1"), fs)
    reduced = alone_in(opened.recovered.snapshot.configuration, "n1")
    entries = [command(1), command(2), Entry(3, 1, reduced)]
    opened.wal.write([SnapshotMarkBatch(None, hard_state=HardState(1, None), entries=entries)])
    opened.close()
    plan = recover(fs, ["/data/n1"], HERE, consent=no)
    assert plan.log.configuration == reduced
    assert plan.is_quorum


def alone_in(configuration: Any, name: str) -> Any:
    return type(configuration).of_voters([configuration.member_named(name)])


# --- what can be known -------------------------------------------------------------------------------


def test_what_may_be_lost_depends_on_whether_the_dead_could_decide_alone() -> None:
    fs = CrashFS()
    one, two = leave_member(fs, "n1", 9), leave_member(fs, "n2", 9)
    plan = recover(fs, [one], HERE, consent=no)
    assert (plan.is_quorum, plan.is_complete) == (False, False)
    plan = recover(fs, [one, two], HERE, consent=no)
    assert (plan.is_quorum, plan.is_complete) == (True, True)
    four = {**MEMBERS, "n4": "h:7504"}
    paths = []
    for name in ("n1", "n2"):
        opened = open_node(config(name, f"/four/{name}", initial_cluster=four), fs)
        opened.wal.write([SnapshotMarkBatch(None, hard_state=HardState(1, None), entries=[command(1)])])
        opened.close()
        paths.append(opened.directory.path)
    plan = recover(fs, paths, HERE, consent=no)
    assert (plan.is_quorum, plan.is_complete) == (False, True), "two of four cannot go on, and the other two neither"
    plan = recover(fs, paths[:1], HERE, consent=no)
    assert (plan.is_quorum, plan.is_complete) == (False, False)


def test_survivors_that_are_a_quorum_are_told_to_go_on_by_themselves() -> None:
    fs = CrashFS()
    paths = [leave_member(fs, name, 9) for name in ("n1", "n2")]
    before = contents(fs)
    with pytest.raises(NotAllowed, match="n1, n2: these are a quorum") as caught:
        recover(fs, paths, HERE, consent=yes)
    assert "lattice start" in (caught.value.hint or "")
    assert contents(fs) == before
    assert recover(fs, paths, replace(HERE, although_quorum=True), consent=yes).is_quorum
    # What has just been recovered is a cluster of one, its own quorum: a second time changes nothing.
    with pytest.raises(NotAllowed):
        recover(fs, paths[:1], HERE, consent=yes)


# --- damage ------------------------------------------------------------------------------------------


def flip(fs: CrashFS, path: str, offset: int) -> None:
    fs.names[path].content[offset] ^= 1


def segment(fs: CrashFS, data_dir: str) -> str:
    return f"{data_dir}/wal/{fs.list_dir(data_dir + '/wal')[0]}"


def test_a_damaged_survivor_is_named_with_file_and_offset_and_left_out() -> None:
    fs = CrashFS()
    whole, broken = leave_member(fs, "n1", 9), leave_member(fs, "n2", 30)
    path = segment(fs, broken)
    flip(fs, path, fs.names[path].content.index(b"key007"))
    plan = recover(fs, [broken, whole], HERE, consent=no)
    assert plan.chosen.data_dir == whole
    (left_out,) = [each for each in plan.survivors if each.log is None]
    assert isinstance(left_out.unusable, StorageDamaged)
    assert left_out.unusable.path == path
    assert f"{path} is damaged at offset {left_out.unusable.offset}" in str(left_out.unusable)
    assert left_out.unusable.offset > 0
    assert plan.usable == {node_id("n1")}, "nor does it count for a quorum"
    with pytest.raises(StorageDamaged) as caught:
        recover(fs, [broken], HERE, consent=no)
    assert "snapshot restore" in (caught.value.hint or "")
    flip(fs, segment(fs, whole), 100)
    with pytest.raises(Fatal, match="none of the 2 directories") as fatal:
        recover(fs, [broken, whole], HERE, consent=no)
    assert path in str(fatal.value)


def test_a_lost_or_damaged_identity_leaves_the_survivor_out() -> None:
    fs = CrashFS()
    whole, lost, rotten = (leave_member(fs, name, 9) for name in MEMBERS)
    fs.remove(f"{lost}/identity")
    flip(fs, f"{rotten}/identity", 60)
    plan = recover(fs, [lost, rotten, whole], HERE, consent=no)
    assert plan.chosen.data_dir == whole
    assert [each.log is None for each in plan.survivors] == [True, True, False]


def test_a_disk_that_cannot_be_read_leaves_the_survivor_out() -> None:
    fs = CrashFS()
    whole, broken = leave_member(fs, "n1", 9), leave_member(fs, "n2", 30)
    dying = segment(fs, broken)
    original = fs.open_read_only

    def open_read_only(path: str) -> Any:
        if path == dying:
            raise eio()
        return original(path)

    fs.open_read_only = open_read_only  # type: ignore[method-assign]
    plan = recover(fs, [broken, whole], HERE, consent=no)
    assert plan.chosen.data_dir == whole
    assert isinstance(plan.survivors[0].unusable, StorageFailed)


def test_16_a_torn_tail_is_cut_and_told_as_at_any_start() -> None:
    fs = CrashFS()
    path = leave_member(fs, "n3", 9)
    opened = open_node(config("n3"), fs)
    opened.wal.write([SnapshotMarkBatch(None, entries=[Entry(10, 1, bytes(100) + b"x" * 2000)])])
    file = segment(fs, path)
    content = fs.names[file].content
    at = content.rindex(b"x" * 512)
    content[at - at % 512 : at - at % 512 + 512] = bytes(512)  # a sector that never arrived
    fs.locks.clear()
    plan = recover(fs, [path], HERE, consent=no)
    assert plan.log.torn is not None
    assert (plan.log.torn.path, plan.log.last_index) == (file, 9)
    assert recover(fs, [path], HERE, consent=yes).keys == 8


def test_31_a_damaged_newest_snapshot_is_passed_over_where_the_log_reaches_back() -> None:
    fs = CrashFS()
    path = leave_member(fs, "n3", 30, snapshot_at=12)
    (name,) = fs.list_dir(f"{path}/snapshots")
    flip(fs, f"{path}/snapshots/{name}", 200)
    with pytest.raises(StorageDamaged):  # the mark says that there is one, and an empty state is none
        recover(fs, [path], HERE, consent=no)
    older = save(fs, f"{path}/snapshots", state_at(5))
    plan = recover(fs, [path], HERE, consent=yes)
    assert plan.log.damaged_snapshots == (f"{path}/snapshots/{name}",)
    assert (plan.log.snapshot_index, plan.keys) == (5, 29)
    assert older.rsplit("/", 1)[1] in fs.list_dir(f"{path}/{ARCHIVE}/snapshots")


def test_45_an_entry_that_this_version_does_not_know_stops_it_before_anything_is_written() -> None:
    fs = CrashFS()
    opened = open_node(config("n3"), fs)
    newer = Entry(1, 1, bytes([99]) + b"of a newer version")
    opened.wal.write([SnapshotMarkBatch(None, hard_state=HardState(1, None), entries=[newer])])
    opened.close()
    before = contents(fs)
    with pytest.raises(UnknownCommand):
        recover(fs, ["/data/n3"], HERE, consent=yes)
    assert contents(fs) == before


# --- what is refused ---------------------------------------------------------------------------------


def test_what_cannot_be_meant_is_refused(tmp_path: Any) -> None:
    fs = CrashFS()
    path = leave_member(fs, "n1", 9)
    stranger = leave_stranger(fs)
    empty = leave_member(fs, "n2", 0)
    fs.make_dirs("/nothing")
    fs.make_dirs("/half")
    fs.open("/half/unfinished", create=True)
    before = contents(fs)
    cases: list[tuple[list[str], Order, type[Exception], str]] = [
        ([], HERE, InvalidRequest, "no data directory"),
        (["/none"], HERE, ConfigurationError, "does not exist"),
        (["/nothing"], HERE, ConfigurationError, "not a data directory"),
        (["/half"], HERE, ConfigurationError, "is unfinished"),
        ([path, path + "/"], HERE, ConfigurationError, "the same directory"),
        ([path, stranger], HERE, IdentityMismatch, f"{OLD_CLUSTER:016x}"),
        ([empty], HERE, InvalidRequest, "nothing was ever written"),
        ([path], replace(HERE, generation=0), InvalidRequest, "generation"),
        ([path], replace(HERE, into=stranger), ConfigurationError, "data directory of n1"),
        ([path], replace(HERE, into=path), ConfigurationError, "data directory of n1"),
        ([path], replace(HERE, name="no name"), ConfigurationError, "member name"),
    ]
    for paths, order, kind, match in cases:
        for consent in (yes, no):
            with pytest.raises(kind, match=match):
                recover(fs, paths, order, consent=consent)
    assert contents(fs) == before
    assert not fs.locks


def leave_stranger(fs: CrashFS) -> str:
    opened = open_node(alone("n1", "/stranger"), fs)
    opened.wal.write([SnapshotMarkBatch(None, hard_state=HardState(1, None), entries=[command(1)])])
    opened.close()
    return "/stranger"


def test_23_a_running_node_is_left_alone() -> None:
    fs = CrashFS()
    path = leave_member(fs, "n1", 9)
    other = leave_member(fs, "n2", 9)
    running = open_node(config("n1"), fs)
    for paths in ([path], [other, path]):
        with pytest.raises(DirectoryInUse):
            recover(fs, paths, HERE, consent=yes)
    running.close()


def test_a_node_that_was_started_after_the_look_is_left_alone() -> None:
    fs = CrashFS()
    path = leave_member(fs, "n1", 9)
    started: list[Any] = []

    def start_meanwhile(_: Plan) -> bool:
        started.append(fs.lock(f"{path}/lock"))
        return True

    before = contents(fs)
    with pytest.raises(DirectoryInUse):
        recover(fs, [path], HERE, consent=start_meanwhile)
    assert contents(fs) == before

    def write_meanwhile(_: Plan) -> bool:
        opened = open_node(config("n1"), fs)
        opened.wal.write([SnapshotMarkBatch(None, entries=[command(10)])])
        opened.close()
        return True

    started[0].release()
    with pytest.raises(Fatal, match="has changed meanwhile"):
        recover(fs, [path], HERE, consent=write_meanwhile)
    assert state_of(fs, "n1").identity.cluster_id == OLD_CLUSTER


# --- what becomes of directories ---------------------------------------------------------------------


def test_a_dry_run_changes_nothing_at_all() -> None:
    fs = CrashFS()
    paths = [leave_member(fs, name, 9, snapshot_at=4) for name in MEMBERS]
    before, calls = contents(fs), len(fs.calls)
    recover(fs, paths, HERE, consent=no)
    recover(fs, paths[:1], replace(HERE, into="/elsewhere"), consent=no)
    assert contents(fs) == before
    assert fs.calls[calls:] == [], "no write, no fsync, not even to a lock file"


def test_elsewhere_every_survivor_stays_as_it_is() -> None:
    fs = CrashFS()
    paths = [leave_member(fs, "n2", 5), leave_member(fs, "n3", 9)]
    before = contents(fs)
    plan = recover(fs, paths, replace(HERE, into="/elsewhere", although_quorum=True), consent=yes)
    after = contents(fs)
    assert {path: after[path] for path in before} == before
    assert plan.archive is None
    assert state_of(fs, "n3", "/elsewhere").identity.cluster_id == plan.member.cluster_id


def test_in_place_the_old_parts_are_beside_the_new_ones_and_are_still_a_member() -> None:
    fs = CrashFS()
    path = leave_member(fs, "n3", 9, snapshot_at=4)
    old = contents(fs)
    plan = recover(fs, [path], HERE, consent=yes)
    assert plan.archive == f"{path}/{ARCHIVE}"
    for each, content in old.items():
        if not each.endswith("/lock"):
            assert bytes(fs.names[each.replace(path, plan.archive)].content) == content
    assert sorted(fs.list_dir(path)) == sorted([ARCHIVE, "identity", "lock", "peers", "snapshots", "wal"])
    assert read_identity(fs, plan.archive).cluster_id == OLD_CLUSTER  # type: ignore[union-attr]
    again = recover(fs, [plan.archive], replace(HERE, into="/again", generation=2), consent=yes)
    assert again.revision == plan.revision + STEP, "a second attempt keeps its distance"


def test_a_survivor_that_had_been_removed_is_called_so_and_its_successor_was_not() -> None:
    fs = CrashFS()
    path = leave_member(fs, "n3", 9)
    mark_removed(fs, path, "n3", "by somebody")
    with pytest.raises(ServerRemoved):
        open_node(config("n3"), fs)
    plan = recover(fs, [path], HERE, consent=yes)
    assert plan.survivors[0].removed
    assert state_of(fs, "n3").identity == plan.member.identity
    assert "removed" in fs.list_dir(f"{path}/{ARCHIVE}")


def killed(fs: CrashFS, path: str, steps: int, power: random.Random | None, order: Order) -> tuple[CrashFS, bool]:
    fs.die_after = steps
    try:
        recover(fs, [path], order, consent=yes)
        done = True
    except Died:
        done = False
    fs.die_after = None
    fs.locks.clear()
    return (fs if power is None else fs.crash(power)), done


def taken_for(fs: CrashFS, path: str) -> str:
    """What ``lattice start`` takes the directory for."""
    fs = fs.copy()
    try:
        directory = DataDirectory.open(fs, path)
    except ConfigurationError as error:
        return "unfinished" if "nothing is lost" in str(error) else f"refused: {error}"
    directory.close()
    assert directory.identity is not None
    return "old" if directory.identity.cluster_id == OLD_CLUSTER else "new"


@pytest.mark.parametrize("power_goes", [False, True], ids=["kill", "power"])
def test_killed_at_any_step_in_place_nothing_is_lost_and_again_it_succeeds(power_goes: bool) -> None:
    template = CrashFS()
    path = leave_member(template, "n3", 30, snapshot_at=12)
    mark_removed(template, path, "n3", "by somebody")
    old = {part: content for part, content in contents(template).items() if not part.endswith("/lock")}
    seen: set[str] = set()
    done = False
    steps = 0
    while not done:
        for seed in range(6 if power_goes else 1):
            fs, done = killed(template.copy(), path, steps, random.Random(seed) if power_goes else None, HERE)
            found = taken_for(fs, path)
            seen.add(found)
            assert found == "new" or not done
            # Every byte of the old member is there, under its old name or in the archive.
            for each, content in old.items():
                places = [each, each.replace(path, f"{path}/{ARCHIVE}")]
                assert any(place in fs.names and bytes(fs.names[place].content) == content for place in places), each
            if found == "old":
                assert recover(fs.copy(), [path], HERE, consent=no).log.last_index == 30
                recover(fs, [path], HERE, consent=yes)
            elif found == "unfinished":
                with pytest.raises(ConfigurationError, match="is unfinished"):
                    recover(fs, [path], HERE, consent=no)
                finished = finish(fs, [path])
                assert finished is not None
                assert finished.identity == read_identity(fs, path)
            assert finish(fs, [path]) is None
            require_recovered(fs, path)
        steps += 1
    assert seen == {"old", "unfinished", "new"}
    assert steps > 20


def require_recovered(fs: CrashFS, path: str) -> None:
    assert sorted(fs.list_dir(path)) == sorted([ARCHIVE, "identity", "lock", "peers", "snapshots", "wal"])
    for _ in range(2):
        opened = state_of(fs, "n3")
        assert opened.machine[0].applied_index == 30
        assert opened.identity.cluster_id != OLD_CLUSTER
        fs = fs.crash(random.Random(0))  # what has been started once stays


def test_killed_at_any_step_elsewhere_the_survivor_is_as_it_was_and_again_it_succeeds() -> None:
    template = CrashFS()
    path = leave_member(template, "n3", 30, snapshot_at=12)
    old = contents(template)
    order = replace(HERE, into="/elsewhere")
    done = False
    steps = 0
    while not done:
        for seed in range(3):
            fs, done = killed(template.copy(), path, steps, random.Random(seed), order)
            for each, content in old.items():
                assert bytes(fs.names[each].content) == content
            try:
                recover(fs, [path], order, consent=yes)
            except ConfigurationError as error:
                whole = "is the data directory of n3" in str(error)
            else:
                whole = True
            assert whole
            assert state_of(fs, "n3", "/elsewhere").machine[0].applied_index == 30
            assert len(fs.list_dir("/elsewhere")) == 5
        steps += 1


@pytest.mark.parametrize("make_error", [lambda: DiskFull("no room"), eio], ids=["full", "eio"])
def test_an_error_before_the_change_leaves_the_old_member_as_it_was(
    make_error: Callable[[], StorageFailed], monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = CrashFS()
    path = leave_member(fs, "n3", 9)
    before, names = contents(fs), fs.list_dir(path)
    original = module.write_member

    def fail_at_the_end(*args: Any, **kwargs: Any) -> Any:
        original(*args, **kwargs)
        raise make_error()

    monkeypatch.setattr(module, "write_member", fail_at_the_end)
    with pytest.raises(StorageFailed):
        recover(fs, [path], HERE, consent=yes)
    assert contents(fs) == before
    assert fs.list_dir(path) == names
    assert not fs.locks
