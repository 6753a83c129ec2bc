"""Snapshots in a running node: taken, kept, started from. SAFETY 25 to 31, on real files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from server_harness import (
    Cluster,
    cluster,
    cluster_stub,
    configs,
    eventually,
    get,
    kv_stub,
    run,
    write_request,
)

from lattice_core.config import NodeConfig
from lattice_core.errors import StorageDamaged
from lattice_core.kv import StateMachine
from lattice_core.rpc.pb import cluster_pb2, kv_pb2
from lattice_core.server import snapshots as taking
from lattice_core.storage.errors import DiskFull
from lattice_core.storage.filesystem import RealFileSystem
from lattice_core.storage.snapshots import SnapshotReader, SnapshotWriter

ROOT = Path(__file__).resolve().parents[2]


def one_node(tmp_path: Path, **settings: Any) -> NodeConfig:
    (config,) = configs(tmp_path, 1, **settings)
    return replace(config, segment_bytes=64 << 10)


async def fill(addr: str, keys: range, value: bytes = b"v" * 100) -> None:
    """An entry for each key."""
    async with kv_stub(addr) as kv:
        for n in keys:
            await kv.Put(kv_pb2.PutRequest(key=b"key%06d" % n, value=value), timeout=10)


def files(config: NodeConfig, pattern: str = "*") -> list[str]:
    return sorted(path.name for path in Path(config.data_dir, "snapshots").glob(pattern))


def bytes_in(directory: Path) -> int:
    """0 while segments are being removed under our eyes."""
    try:
        return sum(path.stat().st_size for path in directory.iterdir())
    except FileNotFoundError:
        return 0


def size_of(path: str) -> int:
    return Path(path).stat().st_size


async def take(addr: str) -> cluster_pb2.TakeSnapshotResponse:
    async with cluster_stub(addr) as stub:
        return await stub.TakeSnapshot(cluster_pb2.TakeSnapshotRequest(), timeout=15)  # type: ignore[no-any-return]


def snapshot_index(running: Cluster, name: str = "n1") -> int:
    return running.nodes[name].node.core.snapshot_index


def test_enough_entries_make_a_snapshot_and_the_segments_before_it_go_away(tmp_path: Path) -> None:
    config = one_node(tmp_path, snapshot_entries=50, snapshot_keep_entries=10)

    async def scenario() -> None:
        async with cluster([config]) as running:
            await running.leader()
            for start in range(0, 400, 40):  # the same forty keys: the state stays small, the log would not
                await fill(config.client_addr, range(40), b"%d" % start * 2000)
            node = running.nodes["n1"].node
            await eventually(lambda: node.core.snapshot_index > 250 and not node.snapshots._taking.locked())
            assert node.core.last_index - node.core.first_index < 250, "the core forgets what is covered"
            await eventually(lambda: node._opened.wal.size_bytes < 16 * config.segment_bytes)  # of 47
            assert 1 <= len(files(config, "*.snap")) <= 2
            await eventually(lambda: node._opened.wal.size_bytes == bytes_in(Path(config.data_dir, "wal")))
            status = await node.status()
            assert status.snapshot_index == node.core.snapshot_index
            assert status.log_bytes == node._opened.wal.size_bytes

    run(scenario())


def test_a_big_state_is_not_written_again_before_the_log_has_grown_by_as_much(tmp_path: Path) -> None:
    config = one_node(tmp_path, snapshot_entries=20)

    async def scenario() -> None:
        async with cluster([config]) as running:
            await running.leader()
            await fill(config.client_addr, range(30), b"v" * 20_000)
            taken = await take(config.client_addr)
            await fill(config.client_addr, range(60))
            await running.nodes["n1"].node.loop.next_pass()
            assert snapshot_index(running) == taken.index
            await fill(config.client_addr, range(35), b"v" * 20_000)
            await eventually(lambda: snapshot_index(running) > taken.index)

    run(scenario())


def test_a_few_large_entries_make_a_snapshot_too(tmp_path: Path) -> None:
    config = one_node(tmp_path, snapshot_log_bytes=256 << 10)

    async def scenario() -> None:
        async with cluster([config]) as running:
            await running.leader()
            await fill(config.client_addr, range(20), b"v" * 20_000)
            await eventually(lambda: snapshot_index(running) > 10)

    run(scenario())


def test_a_restart_from_snapshot_and_tail_has_the_same_state(tmp_path: Path) -> None:
    config = one_node(tmp_path, snapshot_entries=50)

    async def scenario() -> None:
        async with cluster([config]) as running:
            await running.leader()
            await fill(config.client_addr, range(130))
            await eventually(lambda: snapshot_index(running) >= 100)
            await fill(config.client_addr, range(7), b"after the snapshot")
            before = running.nodes["n1"].node.machine.state_hash
            await running.kill("n1")
            await running.start("n1")
            node = (await running.leader()).node
            assert node.core.snapshot_index >= 100
            assert node.machine.state_hash == before == node.machine.full_state_hash()
            assert await get(config.client_addr, b"key000003") == b"after the snapshot"

    run(scenario())


def test_a_snapshot_taken_or_saved_under_load_is_the_state_at_one_index(tmp_path: Path) -> None:
    """SAFETY 25."""
    config = one_node(tmp_path)

    async def scenario() -> None:
        async with cluster([config]) as running:
            await running.leader()
            await fill(config.client_addr, range(50))
            taken = await take(config.client_addr)
            assert (taken.index, taken.name) == (snapshot_index(running), "n1")
            assert taken.size_bytes == size_of(taken.path)
            assert (await take(config.client_addr)).index == taken.index, "nothing new, nothing written"
            await fill(config.client_addr, range(50, 90))
            async with cluster_stub(config.client_addr) as stub:
                call = stub.SaveSnapshot(cluster_pb2.SaveSnapshotRequest(), timeout=15)
                parts = [part async for part in call]
            about = parts[0].snapshot
            assert about.index > taken.index
            saved = tmp_path / "saved"
            saved.write_bytes(b"".join(part.data for part in parts[1:]))
            assert saved.stat().st_size == about.size_bytes
            with SnapshotReader(RealFileSystem(), str(saved)) as reader:
                machine = StateMachine.from_chunks(reader.objects())
            assert machine.applied_index == about.index
            assert machine.full_state_hash() == running.nodes["n1"].node.machine.state_hash

    run(scenario())


def test_a_full_disk_costs_the_snapshot_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = one_node(tmp_path, snapshot_entries=50)
    monkeypatch.setattr(taking, "RETRY_SECONDS", 0.2)

    async def scenario() -> None:
        async with cluster([config]) as running:
            await running.leader()
            with monkeypatch.context() as disk:
                disk.setattr(SnapshotWriter, "write", _no_room)
                await fill(config.client_addr, range(80))
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await take(config.client_addr)
                assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert "No space" in (caught.value.details() or "")
                await fill(config.client_addr, range(5))
                await eventually(lambda: files(config) == [])
                assert running.nodes["n1"].node.machine.store._views == [], "nothing is pinned"
            await fill(config.client_addr, range(5))
            await eventually(lambda: snapshot_index(running) >= 50)

    run(scenario())


def _no_room(_self: SnapshotWriter, _chunk: bytes) -> None:
    raise DiskFull("No space left on device")


def test_a_retry_under_a_session_is_answered_from_the_snapshot_and_not_executed_again(tmp_path: Path) -> None:
    """SAFETY 25, 43."""
    config = one_node(tmp_path)

    async def scenario() -> None:
        async with cluster([config]) as running:
            await running.leader()
            async with kv_stub(config.client_addr) as kv:
                session = (await kv.OpenSession(kv_pb2.OpenSessionRequest())).session_id
            batch = write_request(1, [[1, b"a", b"1"]], session=session, sequence=1)
            first = await session_write(config.client_addr, batch)
            await fill(config.client_addr, range(3))
            await take(config.client_addr)
            await running.kill("n1")
            await running.start("n1")
            node = (await running.leader()).node
            revision = node.machine.revision
            again = await session_write(config.client_addr, batch)
            assert again == first
            assert node.machine.revision == revision

    run(scenario())


def test_a_damaged_newest_snapshot_is_passed_over_for_the_older_one_and_the_log(tmp_path: Path) -> None:
    """SAFETY 31."""
    config = one_node(tmp_path)

    async def scenario() -> None:
        async with cluster([config]) as running:
            await running.leader()
            await fill(config.client_addr, range(40))
            await take(config.client_addr)
            await fill(config.client_addr, range(40, 80), b"v" * 5000)
            newest = await take(config.client_addr)
            await fill(config.client_addr, range(80, 90))
            before = running.nodes["n1"].node.machine.state_hash
            await running.kill("n1")
            flip(newest.path)
            await running.start("n1")
            node = (await running.leader()).node
            assert node.machine.state_hash == before
            assert files(config, "*.damaged") == [os.path.basename(newest.path) + ".damaged"]
            again = await take(config.client_addr)
            assert again.index > newest.index
            await running.kill("n1")
            for name in files(config, "*.snap"):
                flip(str(Path(config.data_dir, "snapshots", name)))
            with pytest.raises(StorageDamaged, match="no whole snapshot"):
                await running.start("n1")

    run(scenario())


def test_while_a_third_snapshot_is_written_the_disk_holds_only_the_newest_besides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two snapshots, a third being written, and the log since the oldest would be five times the state."""
    config = one_node(tmp_path, snapshot_entries=100_000)
    seen: list[list[str]] = []
    write = SnapshotWriter.write

    async def scenario() -> None:
        async with cluster([config]) as running:
            await running.leader()

            def watched(writer: SnapshotWriter, chunk: bytes) -> None:
                write(writer, chunk)
                seen.append(files(config))

            monkeypatch.setattr(SnapshotWriter, "write", watched)
            taken = []
            for _ in range(4):
                await fill(config.client_addr, range(60), b"v" * 10_000)
                seen.clear()
                taken.append(os.path.basename((await take(config.client_addr)).path))
            assert files(config) == taken[2:]
            assert seen
            assert all(names == [taken[2], taken[3] + ".part"] for names in seen), seen

    run(scenario())


def test_safety_31_the_older_snapshot_stays_if_the_newest_turns_out_damaged_when_the_next_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = one_node(tmp_path)

    async def scenario() -> None:
        async with cluster([config]) as running:
            await running.leader()
            await fill(config.client_addr, range(20))
            older = await take(config.client_addr)
            await fill(config.client_addr, range(20, 40))
            newest = await take(config.client_addr)
            await fill(config.client_addr, range(40, 60))
            flip(newest.path)
            with monkeypatch.context() as disk:
                disk.setattr(SnapshotWriter, "write", _no_room)  # so that nothing comes after it
                with pytest.raises(grpc.aio.AioRpcError):
                    await take(config.client_addr)
            before = running.nodes["n1"].node.machine.state_hash
            await running.kill("n1")
            await running.start("n1")
            node = (await running.leader()).node
            assert node.machine.state_hash == before
            assert node._opened.snapshot is not None
            assert node._opened.snapshot.index == older.index

    run(scenario())


def flip(path: str) -> None:
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 0x10
    Path(path).write_bytes(data)


PROGRAM = """
import sys
from lattice_core.config import NodeConfig
from lattice_core.server import snapshots
from lattice_core.server.run import run
if sys.argv[2] == "slow":
    snapshots.SLICE_ITEMS, snapshots.REST = 1, 300.0
sys.exit(run(NodeConfig(**eval(sys.argv[1]))))
"""


def start(config: NodeConfig, how: str) -> subprocess.Popen[str]:
    options = {name: getattr(config, name) for name in ("name", "data_dir", "client_addr", "peer_addr")}
    options["snapshot_entries"] = config.snapshot_entries
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, repr(options), how],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("ready "):
            return process
    raise AssertionError("the process ended before it was ready")


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.002)


@pytest.mark.cluster
def test_kill_9_while_a_snapshot_is_written_leaves_the_old_state_and_no_stray_files(tmp_path: Path) -> None:
    """SAFETY 29."""
    config = one_node(tmp_path, snapshot_entries=100)

    async def read() -> None:
        for n in (0, 149):
            assert await get(config.client_addr, b"key%06d" % n) == b"v" * 100

    process = start(config, "slow")
    try:
        run(fill(config.client_addr, range(150)))
        wait_for(lambda: files(config, "*.part"))
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        assert files(config, "*.part")
    finally:
        process.kill()
        process.communicate()
    Path(config.data_dir, "snapshots", "0000000000000007-0000000000000001.snap.received").write_bytes(b"half")
    process = start(config, "as always")
    try:
        assert files(config, "*.received") == []
        run(read())
        wait_for(lambda: files(config, "*.snap"))
        wait_for(lambda: not files(config, "*.part"))
    finally:
        process.kill()
        process.communicate()


async def session_write(addr: str, request: kv_pb2.SessionRequest) -> bytes:
    async with kv_stub(addr) as kv:
        call = kv.Session()
        await call.write(request)
        answer = await call.read()
        call.cancel()
    assert answer.HasField("write"), answer
    return answer.write.results  # type: ignore[no-any-return]
