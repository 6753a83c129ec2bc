"""``lattice snapshot`` and ``lattice wal``: on files made here, and once on a real node."""

from __future__ import annotations

import asyncio
import json
import random
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import pytest

from lattice_cli.demo.processes import LocalCluster
from lattice_cli.main import run
from lattice_core.client import Client
from lattice_core.kv import StateMachine
from lattice_core.kv import commands as c
from lattice_core.raft.types import Configuration, Entry, HardState, Member, SnapshotMeta
from lattice_core.storage.filesystem import RealFileSystem
from lattice_core.storage.inspect import Finding, RecordFound, SegmentEnd, SegmentFound
from lattice_core.storage.snapshots import SnapshotHeader, SnapshotWriter
from lattice_core.storage.wal import Wal

Lattice = Callable[..., tuple[int, str, str]]

CONFIG = Configuration.of_voters([Member(1, "n1", "h:1"), Member(2, "n2", "h:2")])


def payload(*ops: c.Op) -> bytes:
    return c.encode_payload(5, [c.ClientBatch(0, 0, 0, c.encode_batch(ops))])


@dataclass(frozen=True)
class Batch:
    hard_state: HardState | None = None
    snapshot: SnapshotMeta | None = None
    truncate_from: int | None = None
    entries: Sequence[Entry] = ()
    commit_hint: int | None = None


@pytest.fixture
def snapshot_file(tmp_path: Path) -> Path:
    machine = StateMachine()
    machine.apply(1, 1, payload(c.open_session()))
    for index in range(2, 40):
        machine.apply(index, 3, payload(c.put(b"key%d" % index, b"v" * 50)))
    header = SnapshotHeader(0xC1, SnapshotMeta(39, 3, CONFIG))
    writer = SnapshotWriter(RealFileSystem(), str(tmp_path / "snapshots"), header)
    for chunk in machine.capture().to_chunks(max_items=10):
        writer.write(msgpack.packb(chunk))
    return Path(writer.publish())


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A log of three kinds of entries, in a data directory of a node that has stopped."""
    directory = tmp_path / "data"
    wal = Wal.create(RealFileSystem(), str(directory / "wal"), 0xC1, 0xA1, segment_bytes=1 << 16)
    wal.write([Batch(hard_state=HardState(2, 1))])
    entries = (
        Entry(1, 1, CONFIG),
        Entry(2, 2, None),
        Entry(3, 2, payload(c.put(b"jobs/1", b"x" * 9), c.delete(b"old"), c.cas(b"k", None, b"new"))),
        Entry(4, 2, b"\xffnot a payload"),
    )
    wal.write([Batch(entries=entries, commit_hint=2)])
    wal.sync()
    wal.close()
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_inspecting_a_snapshot_says_what_is_in_it(lattice: Lattice, snapshot_file: Path) -> None:
    code, out, err = lattice("snapshot", "inspect", str(snapshot_file), "-o", "json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["cluster_id"], found["index"], found["term"]) == ("00000000000000c1", 39, 3)
    assert (found["keys"], found["sessions"], found["revision"]) == (38, 1, 38)
    assert found["bytes"] == snapshot_file.stat().st_size
    assert found["digest_verified"] is True
    assert [member["name"] for member in found["members"]] == ["n1", "n2"]
    code, out, _ = lattice("snapshot", "inspect", str(snapshot_file), "-o", "table")
    assert code == 0
    assert "n1=h:1, n2=h:2" in out


def test_a_damaged_snapshot_is_one_line_wherever_it_is_damaged(lattice: Lattice, snapshot_file: Path) -> None:
    whole = snapshot_file.read_bytes()
    chance = random.Random(4)
    for _ in range(60):
        at = chance.randrange(len(whole))
        flipped = bytearray(whole)
        flipped[at] ^= 1 << chance.randrange(8)
        for damaged in (bytes(flipped), whole[:at]):
            snapshot_file.write_bytes(damaged)
            code, out, err = lattice("snapshot", "inspect", str(snapshot_file))
            begins_well = damaged[:8] == whole[:8] and len(damaged) >= 20
            assert (code, out) == (3 if begins_well else 2, "")
            assert err.count("\n") == 1
            assert str(snapshot_file) in err
            assert "offset" in err or not begins_well


def test_what_is_no_snapshot_is_refused(lattice: Lattice, tmp_path: Path) -> None:
    assert lattice("snapshot", "inspect", str(tmp_path / "none"))[0] == 2
    assert lattice("snapshot", "inspect", str(tmp_path))[0] == 2
    (tmp_path / "text").write_text("LatticeX and so on, long enough to have a header")
    code, _, err = lattice("snapshot", "inspect", str(tmp_path / "text"))
    assert code == 2, "usage: nothing is unavailable, and the same again would not help"
    assert "not a Lattice snapshot" in err


def test_the_log_is_shown_with_its_commands_and_left_as_it_is(lattice: Lattice, data_dir: Path) -> None:
    before = contents(data_dir)
    code, out, _ = lattice("wal", "inspect", str(data_dir), "-o", "json")
    assert code == 0
    (segment,) = json.loads(out)["segments"]
    assert segment["state"] == "whole"
    entries = [record for record in segment["records"] if record["index"] is not None]
    assert [(entry["index"], entry["term"], entry["kind"]) for entry in entries] == [
        (1, 1, "configuration"),
        (2, 2, "noop"),
        (3, 2, "command"),
        (4, 2, "command"),
    ]
    assert entries[0]["detail"] == "voters n1,n2"
    assert entries[2]["detail"] == "s0#0 put jobs/1 (9 B), delete old, cas k (3 B)"
    assert "cannot be decoded" in entries[3]["detail"]
    code, out, _ = lattice("wal", "inspect", str(data_dir), "-o", "table")
    assert code == 0
    assert "1-4" in out
    _, out, _ = lattice("wal", "inspect", str(data_dir / "wal"), "--records")
    assert "put jobs/1" in out
    assert contents(data_dir) == before


def test_damage_in_the_log_is_named(lattice: Lattice, data_dir: Path) -> None:
    (path,) = (data_dir / "wal").iterdir()
    content = bytearray(path.read_bytes())
    content[content.index(b"jobs/1")] ^= 1
    path.write_bytes(content)
    code, out, err = lattice("wal", "inspect", str(data_dir), "-o", "json")
    (damage,) = json.loads(out)["segments"][0]["damage"]
    assert code == (0 if damage["torn"] else 1)
    content[:8] = b"notmagic"
    path.write_bytes(content)
    code, out, err = lattice("wal", "inspect", str(data_dir))
    assert code == 1
    assert err.count("\n") == 1
    assert "offset 0" in err
    assert "DAMAGED" in out


def test_a_directory_without_a_log_is_refused_in_one_line(lattice: Lattice, tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "none"):
        code, out, err = lattice("wal", "inspect", str(directory))
        assert (code, out, err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("command", [["take"], ["save", "b.snap"]])
def test_a_timeout_counts_only_if_it_was_asked_for_be_it_that_of_other_commands(
    lattice: Lattice, client: Any, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    def used(*arguments: str) -> object:
        assert lattice("snapshot", *command, *arguments)[0] == 0
        return client.calls[-1][2]["timeout"]

    assert used() is None, "a snapshot may take longer than an operation"
    assert used("--timeout", "5") == 5.0
    assert used("--timeout", "7") == 7.0
    monkeypatch.setenv("LATTICE_TIMEOUT", "5")
    assert used() == 5.0


def test_save_says_that_it_wrote_over_what_a_killed_save_had_left(lattice: Lattice, client: Any) -> None:
    code, out, err = lattice("snapshot", "save", "b.snap", "-o", "json")
    assert code == 0
    assert json.loads(out)["file"] == "b.snap"
    assert err == "wrote over b.snap.part, which a save that was cut short had left\n"


def test_a_log_of_any_length_is_shown_without_being_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def long_log(fs: object, directory: str) -> Iterator[Finding]:
        yield SegmentFound("1.wal", 1, None)
        for number in range(count):
            yield RecordFound("1.wal", number, 9, 1, Entry(number + 1, 1, None))
        yield SegmentEnd("1.wal", 9, count)

    monkeypatch.setattr("lattice_core.storage.inspect.inspect_log", long_log)
    (tmp_path / "0000000000000001-0000000000000001.wal").touch()
    for arguments in (["-o", "json"], ["--records"], ["-o", "raw"], ["-o", "table"]):
        count = 10
        assert run(["wal", "inspect", str(tmp_path), *arguments]) == 0  # what it imports does not count
        count = 10_000
        tracemalloc.start()
        try:
            assert run(["wal", "inspect", str(tmp_path), *arguments]) == 0
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 40 * count, f"{arguments}: {peak} bytes for {count} records"


@pytest.mark.cluster
def test_take_save_and_inspect_on_a_real_node(lattice: Lattice, tmp_path: Path) -> None:
    cluster = LocalCluster(1, parent_dir=tmp_path)
    try:
        asyncio.run(cluster.start())
        with Client(cluster.endpoints) as client:
            for number in range(20):
                client.put(f"key{number}", "value")
        at = ("--endpoints", cluster.endpoints, "-o", "json")
        code, out, err = lattice("snapshot", "take", *at)
        assert (code, err) == (0, "")
        (taken,) = json.loads(out)["snapshots"]
        assert taken["member"] == "n1"
        assert taken["index"] > 0
        assert lattice("snapshot", "take", "--member", "nobody", *at)[0] == 2
        file = tmp_path / "backup.snap"
        code, out, err = lattice("snapshot", "save", str(file), *at)
        assert (code, err) == (0, "")
        saved = json.loads(out)
        assert saved["file"] == str(file)
        assert saved["bytes"] == file.stat().st_size
        code, out, _ = lattice("snapshot", "inspect", str(file), "-o", "json")
        assert code == 0
        assert json.loads(out)["keys"] == 20
        assert json.loads(out)["index"] == saved["index"] >= taken["index"]
        before = file.read_bytes()
        assert lattice("snapshot", "save", str(file), *at)[0] == 2
        assert file.read_bytes() == before
        assert not list(tmp_path.glob("*.part"))
        code, out, _ = lattice("wal", "inspect", str(cluster.nodes["n1"].data_dir), "-o", "json")
        assert code == 0
        assert json.loads(out)["segments"]
    finally:
        cluster.kill_all()


def test_save_leaves_nothing_behind_when_nobody_answers(lattice: Lattice, tmp_path: Path) -> None:
    at = ("--endpoints", "127.0.0.1:1")
    assert lattice("snapshot", "save", str(tmp_path / "b.snap"), *at)[0] == 3
    assert lattice("snapshot", "save", str(tmp_path / "no" / "b.snap"), *at)[0] == 2
    assert lattice("snapshot", "take", *at)[0] == 3
    assert list(tmp_path.iterdir()) == []
