"""A follower that is too far behind for the log is brought up to date by a snapshot, while everything goes on."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest
from server_harness import Cluster, cluster, cluster_stub, configs, eventually, get, kv_stub, run, write_request

from lattice_core.errors import StorageDamaged, Unavailable
from lattice_core.kv import ClientBatch, StateMachine, encode_batch, put
from lattice_core.raft.ready import Persist
from lattice_core.raft.types import Configuration, Entry, HardState, Member, SnapshotMeta
from lattice_core.rpc import snapshot_stream
from lattice_core.rpc.pb import cluster_pb2, kv_pb2
from lattice_core.server import snapshot_sender
from lattice_core.server.apply import Applier
from lattice_core.server.clock import ClusterClock
from lattice_core.server.hints import Hints
from lattice_core.server.node import Node
from lattice_core.server.proposals import Proposals
from lattice_core.server.snapshot_files import Snapshot, SnapshotFiles
from lattice_core.server.snapshot_install import SnapshotInstaller
from lattice_core.server.storage_thread import StorageThread
from lattice_core.storage.filesystem import RealFileSystem
from lattice_core.storage.snapshots import SnapshotHeader, SnapshotReceiver, SnapshotWriter, list_snapshots


async def fill(addr: str, keys: range, value: bytes = b"v" * 200) -> None:
    async with kv_stub(addr) as kv:
        for n in keys:
            await kv.Put(kv_pb2.PutRequest(key=b"key%06d" % n, value=value), timeout=10)


@asynccontextmanager
async def behind(
    tmp_path: Path, *, entries: int = 50, with_snapshot: bool = False
) -> AsyncIterator[tuple[Cluster, Node, str]]:
    """Three nodes, one of which was stopped while more was written than the others' logs still hold.

    ``with_snapshot``: it had taken one of its own before it applied its last entries."""
    node_configs = [
        replace(config, segment_bytes=64 << 10)
        for config in configs(tmp_path, 3, snapshot_entries=entries, snapshot_keep_entries=5)
    ]
    async with cluster(node_configs) as running:
        leader = await running.leader()
        await fill(leader.config.client_addr, range(20), b"old")
        away = running.followers()[0]
        await eventually(lambda: away.node.machine.revision == 20)
        if with_snapshot:
            await away.node.snapshots.take()
            await fill(leader.config.client_addr, range(20), b"old")
            await eventually(lambda: away.node.machine.revision == 40)
        await running.kill(away.config.name)
        await fill(leader.config.client_addr, range(10, 40 + 2 * entries))
        node = (await running.leader()).node
        await eventually(lambda: node.core.first_index > 30)
        # No other is due or under way, so that what happens next is about this one.
        await node.snapshots.take()
        yield running, node, away.config.name


async def same_state(running: Cluster) -> None:
    nodes = [each.node for each in running.nodes.values()]
    await eventually(lambda: len({(node.machine.applied_index, node.machine.state_hash) for node in nodes}) == 1, 15)
    assert len({node.machine.full_state_hash() for node in nodes}) == 1


def snapshots(node: Node) -> list[str]:
    return sorted(path.name for path in Path(node.config.data_dir, "snapshots").iterdir())


class Gate:
    """Holds up, or cuts, the reading of snapshot files at the sender."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, piece_bytes: int = 4096) -> None:
        self.offsets: list[int] = []
        self.open = asyncio.Event()
        self.stop_after: int | None = None
        self.cut_after: int | None = None
        self.may_cut: Callable[[], Any] = lambda: True
        original = SnapshotFiles.read
        monkeypatch.setattr(snapshot_stream, "PIECE_BYTES", piece_bytes)

        async def read(files: SnapshotFiles, file: Any, offset: int, size: int) -> bytes:
            self.offsets.append(offset)
            if self.cut_after is not None and len(self.offsets) > self.cut_after:
                self.cut_after = None
                await eventually(self.may_cut)
                raise ConnectionResetError("cut")
            if self.stop_after is not None and len(self.offsets) > self.stop_after:
                await self.open.wait()
            return await original(files, file, offset, size)

        monkeypatch.setattr(SnapshotFiles, "read", read)


def test_a_follower_that_was_away_catches_up_by_snapshot_while_writes_go_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with behind(tmp_path) as (running, leader, away):
            writing = asyncio.create_task(fill(leader.config.client_addr, range(1000, 1150)))
            await running.start(away)
            back = running.nodes[away].node
            await eventually(lambda: back.core.snapshot_index > 30)
            await writing
            await same_state(running)
            assert leader.core.is_leader, "nobody was disturbed"
            assert back.machine.store.get(b"key000011") is not None
            name = os.path.basename(back.snapshots.newest.path) if back.snapshots.newest else ""
            assert name in snapshots(back)
            assert not [name for name in snapshots(back) if not name.endswith(".snap")]

            # What was installed is what a restart begins with, and what another member can be caught up from.
            await running.kill(away)
            await running.start(away)
            assert running.nodes[away].node.core.snapshot_index > 30
            await same_state(running)

    run(scenario())


def test_an_install_that_is_cut_goes_on_where_it_was_and_stale_reads_see_the_old_state_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SAFETY 26."""

    async def scenario() -> None:
        async with behind(tmp_path) as (running, leader, away):
            gate = Gate(monkeypatch)
            gate.cut_after, gate.stop_after = 4, 6

            def something_has_arrived() -> bool:
                if away not in running.nodes:
                    return False
                receiver = running.nodes[away].node.snapshots.installer._receiver
                return receiver is not None and receiver.received_bytes > 0

            gate.may_cut = something_has_arrived
            await running.start(away)
            back = running.nodes[away].node
            await eventually(lambda: len(gate.offsets) >= 7, 15)
            first = gate.offsets.index(0)
            assert gate.offsets.count(0) == 1, "the second stream did not begin again"
            assert gate.offsets[first : first + 4] == [0, 4096, 8192, 12288]
            assert gate.offsets[5] > 0
            addr = back.config.client_addr
            former = weakref.ref(back.machine)
            assert await get(addr, b"key000015", kv_pb2.CONSISTENCY_STALE) == b"old"
            await fill(leader.config.client_addr, range(3), b"heartbeats and appends to others go on")
            gate.stop_after = None
            gate.open.set()
            await same_state(running)
            assert await get(addr, b"key000015", kv_pb2.CONSISTENCY_STALE) == b"v" * 200
            # Nothing holds on to the state that was replaced: it would double the memory in use for good.
            await eventually(lambda: former() is None)

    run(scenario())


def test_a_snapshot_from_the_leader_that_comes_while_one_is_begun_here_is_kept_and_overtakes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SAFETY 26, 31: `lattice chaos --seed 2012` had a member remove the file that its log had just been made to begin
    after, because it was not the newest that *this* task knew, and stop; and it could not start again."""

    async def scenario() -> None:
        async with behind(tmp_path, with_snapshot=True) as (running, _, away):
            gate = Gate(monkeypatch)
            gate.stop_after = 3
            await running.start(away)
            back = running.nodes[away].node
            await eventually(lambda: len(gate.offsets) > 3 and back.machine.revision == 40, 15)
            keep_only = back.snapshots.files.keep_only
            making_room = asyncio.Event()

            async def overtaken(snapshot: Snapshot) -> bool:
                making_room.set()
                await eventually(lambda: back.core.snapshot_index > 60 and len(snapshots(back)) > 1)
                return await keep_only(snapshot)

            monkeypatch.setattr(back.snapshots.files, "keep_only", overtaken)
            taking = asyncio.create_task(back.snapshots.take())
            await making_room.wait()
            gate.stop_after = None
            gate.open.set()
            await asyncio.wait([taking])
            assert taking.exception() is None or isinstance(taking.exception(), Unavailable)
            assert not back.failed.done()
            await same_state(running)
            await running.kill(away)
            await running.start(away)
            await same_state(running)

    run(scenario())


def test_making_room_for_a_third_snapshot_never_removes_a_newer_one(tmp_path: Path) -> None:
    """SAFETY 31: what has come from the leader meanwhile is what the log begins after."""

    async def scenario() -> None:
        files = SnapshotFiles(RealFileSystem(), str(tmp_path), 77, pytest.fail)
        members = Configuration.of_voters([Member(1, "n1", "h:1")])
        there = []
        for index in (5, 9, 12):
            meta = SnapshotMeta(index, 1, members)
            writer = SnapshotWriter(files.fs, files.directory, SnapshotHeader(77, meta))
            writer.write(msgpack.packb(index))
            there.append(Snapshot(meta, writer.publish(), writer.size_bytes))
        assert await files.keep_only(there[1])
        assert list_snapshots(files.fs, files.directory) == [there[2].path, there[1].path]
        assert not await files.keep_only(there[1])
        await files.worker.stop()

    run(scenario())


def test_an_install_whose_leader_is_killed_leaves_the_old_state_whole_and_the_next_leader_completes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SAFETY 26."""

    async def scenario() -> None:
        async with behind(tmp_path) as (running, leader, away):
            gate = Gate(monkeypatch)
            gate.stop_after = 3
            await running.start(away)
            back = running.nodes[away].node
            await eventually(lambda: len(gate.offsets) > 3, 15)
            assert back.core.snapshot_index == 0
            await running.kill(leader.config.name)
            assert await get(back.config.client_addr, b"key000015", kv_pb2.CONSISTENCY_STALE) == b"old"
            assert back.machine.revision == 20
            gate.stop_after = None
            gate.open.set()
            # Two of three are left, and one of them has nothing: until it is caught up, nothing can be committed.
            successor = (await running.leader()).node
            assert successor is not back, "who lacks committed entries is not elected"
            await eventually(lambda: back.core.snapshot_index > 30, 15)
            await fill(successor.config.client_addr, range(3), b"on with it")
            await same_state(running)
            assert not [name for name in snapshots(back) if not name.endswith(".snap")]

    run(scenario())


def test_a_snapshot_that_was_damaged_on_the_way_is_never_published_and_is_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SAFETY 26."""

    async def scenario() -> None:
        async with behind(tmp_path) as (running, _, away):
            verify = SnapshotReceiver.verify
            refused = 0

            def spoiled(receiver: SnapshotReceiver, cluster_id: int) -> SnapshotMeta:
                nonlocal refused
                if refused < 2:
                    refused += 1
                    byte = receiver._file.read_at(5000, 1)
                    receiver._file.write_at(5000, bytes([byte[0] ^ 1]))
                    with pytest.raises(StorageDamaged):
                        verify(receiver, cluster_id)
                    raise StorageDamaged("spoiled", path="x", offset=5000)
                return verify(receiver, cluster_id)

            monkeypatch.setattr(SnapshotReceiver, "verify", spoiled)
            monkeypatch.setattr(snapshot_sender, "FIRST_PAUSE_SECONDS", 0.01)
            await running.start(away)
            await same_state(running)
            assert refused == 2

    run(scenario())


def test_a_snapshot_that_is_being_sent_stays_while_newer_ones_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SAFETY 30."""

    async def scenario() -> None:
        async with behind(tmp_path) as (running, leader, away):
            gate = Gate(monkeypatch)
            gate.stop_after = 2
            await running.start(away)
            await eventually(lambda: len(gate.offsets) >= 3, 15)
            index = leader.snapshots.sender.lowest_index()
            (sent,) = (name for name in snapshots(leader) if name.startswith(f"{index:016d}-"))
            for n in range(3):
                await fill(leader.config.client_addr, range(3), b"%d" % n)
                async with cluster_stub(leader.config.client_addr) as stub:
                    await stub.TakeSnapshot(cluster_pb2.TakeSnapshotRequest(), timeout=10)
            await eventually(lambda: len(snapshots(leader)) == 3, 15)
            assert sent in snapshots(leader)
            gate.stop_after = None
            gate.open.set()
            await same_state(running)
            await fill(leader.config.client_addr, range(3), b"more")
            async with cluster_stub(leader.config.client_addr) as stub:
                await stub.TakeSnapshot(cluster_pb2.TakeSnapshotRequest(), timeout=10)
            await eventually(lambda: len(snapshots(leader)) == 2 and sent not in snapshots(leader))

    run(scenario())


def test_sessions_survive_an_install_so_that_a_retry_at_the_new_leader_executes_nothing(tmp_path: Path) -> None:
    """SAFETY 25, 43."""

    async def scenario() -> None:
        node_configs = configs(tmp_path, 3, snapshot_entries=40, snapshot_keep_entries=5)
        async with cluster(node_configs) as running:
            leader = await running.leader()
            addr = leader.config.client_addr
            away = running.followers()[0].config.name
            await running.kill(away)
            async with kv_stub(addr) as kv:
                session = (await kv.OpenSession(kv_pb2.OpenSessionRequest())).session_id
            batch = write_request(1, [[1, b"once", b"1"]], session=session, sequence=1)
            first = await session_write(addr, batch)
            await fill(addr, range(100))
            await eventually(lambda: leader.node.core.first_index > 20)
            await running.start(away)
            await same_state(running)
            assert running.nodes[away].node.core.snapshot_index > 20
            async with cluster_stub(addr) as stub:
                await stub.TransferLeader(cluster_pb2.TransferLeaderRequest(target=away), timeout=10)
            successor = await running.leader()
            assert successor.config.name == away
            revision = successor.node.machine.revision
            assert await session_write(successor.config.client_addr, batch) == first
            assert successor.node.machine.revision == revision
            await same_state(running)

    run(scenario())


async def session_write(addr: str, request: kv_pb2.SessionRequest) -> bytes:
    async with kv_stub(addr) as kv:
        call = kv.Session()
        await call.write(request)
        answer = await call.read()
        call.cancel()
    assert answer.HasField("write"), answer
    return answer.write.results  # type: ignore[no-any-return]


def test_a_snapshot_at_or_below_the_commit_index_is_not_received_at_all(tmp_path: Path) -> None:
    """SAFETY 27."""

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3, snapshot_entries=30, snapshot_keep_entries=5)) as running:
            leader = await running.leader()
            await fill(leader.config.client_addr, range(40))
            await eventually(lambda: leader.node.core.snapshot_index >= 30)
            follower = running.followers()[0].node
            await eventually(lambda: follower.core.commit_index >= 40)
            assert leader.node.snapshots.newest is not None
            name = os.path.basename(leader.node.snapshots.newest.path)
            offer = snapshot_stream.Offer(follower.core.term, 1, name, 1000)
            installer: SnapshotInstaller = follower.snapshots.installer
            assert await installer.begin(leader.node.core.id, offer) is None
            with pytest.raises(snapshot_stream.Refused, match="in term 0"):
                await installer.begin(leader.node.core.id, replace(offer, term=0))
            with pytest.raises(snapshot_stream.Refused, match="not the name"):
                await installer.begin(leader.node.core.id, replace(offer, name="../../etc/passwd"))
            await eventually(lambda: not [name for name in snapshots(follower) if not name.endswith(".snap")])

    run(scenario())


def test_a_received_snapshot_is_published_after_its_term_and_before_its_mark_is_written() -> None:
    """SAFETY 29: a crash in between must leave something that recovers."""

    async def scenario() -> None:
        done: list[str] = []

        class Log:
            def write(self, batches: Any) -> int:
                done.extend(
                    "mark" if batch.snapshot else "term" if batch.hard_state else "entries" for batch in batches
                )
                return 0

            def sync(self) -> None:
                done.append("sync")

            def compact(self, through_index: int) -> int:
                raise AssertionError(through_index)

        written = asyncio.Event()
        thread = StorageThread(
            Log(),
            lambda units: written.set() if units[-1].sequence == 2 else None,
            lambda error: None,
            lambda error: None,
            lambda meta: done.append(f"publish {meta.last_included_index}"),
        )
        meta = SnapshotMeta(9, 3, Configuration(members=(), voters=frozenset()))
        thread.submit(Persist(1, None, None, 5, (), None, ()))
        thread.submit(Persist(2, HardState(3, None), meta, 10, (), None, ()))
        thread.start()
        await written.wait()
        await thread.stop()
        assert done == ["entries", "term", "sync", "publish 9", "mark", "sync"]

    run(scenario())


def test_who_waits_for_an_entry_that_comes_as_part_of_a_snapshot_hears_that_the_outcome_is_unknown() -> None:
    outcomes: list[Any] = []
    directory = SimpleNamespace(
        local=SimpleNamespace(node_id=1, name="n1"), name_of=lambda _: "n2", client_addr_of=lambda _: ""
    )
    core = SimpleNamespace(is_leader=True, leader_id=1, propose=lambda payload, now: (next(indices), 1))
    indices = iter((5, 9))
    clock = ClusterClock(0, 0)
    proposals = Proposals(
        core,
        clock,
        Hints(directory),  # type: ignore[arg-type]
        lambda: None,
        max_pending_bytes=1 << 20,
        max_entry_bytes=1,
    )
    for _ in range(2):
        proposals.submit(decoded(), outcomes.append)
    proposals.flush(0)
    applier = Applier(StateMachine(), proposals, clock)
    applier.add([Entry(5, 1, b"never decoded")])
    machine = StateMachine()
    machine.applied_index, machine.time_ms = 7, 5000
    applier.replace(machine, 0)
    assert [outcome.code for outcome in outcomes] == [kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN]
    assert (applier.applied_index, applier.has_work, clock.read(0)) == (7, False, 5000)
    assert not proposals.idle, "the one at index 9 goes on waiting"


def decoded() -> ClientBatch:
    ops = [put(b"a", b"1")]
    return ClientBatch(0, 0, 0, encode_batch(ops), ops)
