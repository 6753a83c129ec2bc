"""kill -9 at every step of taking and of installing a snapshot: the old state or the new, whole, and no strays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from server_harness import Cluster, cluster, cluster_stub, configs, eventually, run
from steps import StepByStep
from test_install import fill, same_state

from lattice_core.config import NodeConfig
from lattice_core.kv import StateMachine
from lattice_core.rpc.pb import cluster_pb2
from lattice_core.server.bootstrap import open_node
from lattice_core.server.run import RunningNode
from lattice_core.storage.filesystem import RealFileSystem


def state_after_kill(config: NodeConfig, copy: Path) -> tuple[int, StateMachine]:
    """What a node makes of the directory: the snapshot it begins with, and the state with all its log applied."""
    opened = open_node(replace(config, data_dir=str(copy)), RealFileSystem())
    try:
        machine = opened.take_machine()
        begins_with = opened.snapshot.index if opened.snapshot is not None else 0
        assert machine.applied_index == begins_with
        assert machine.state_hash == machine.full_state_hash()
        for entry in opened.recovered.entries:
            if isinstance(entry.payload, bytes):
                machine.apply(entry.index, entry.term, entry.payload)
            else:
                machine.skip(entry.index, entry.term)
        snapshots = copy / "snapshots"
        names = [path.name for path in snapshots.iterdir()] if snapshots.exists() else []
        assert all(name.endswith(".snap") for name in names), names
        assert len(names) <= 3  # two, and a new one before the oldest goes
        return begins_with, machine
    finally:
        opened.close()


async def restarted_on(running: Cluster, name: str, fs: StepByStep) -> RunningNode:
    node = RunningNode(running.configs[name], fs)
    await node.start()
    running.nodes[name] = node
    return node


def test_kill_at_every_step_of_taking_a_snapshot_and_compacting(tmp_path: Path) -> None:
    """SAFETY 20, 26, 29: a member that is the whole cluster has every acknowledged write after each of them."""

    async def scenario() -> None:
        [config] = configs(tmp_path, 1, snapshot_entries=100_000, snapshot_keep_entries=5)
        config = replace(config, segment_bytes=64 << 10)
        fs = StepByStep(Path(config.data_dir), tmp_path / "killed")
        acknowledged: list[int] = []
        async with cluster([]) as running:
            running.configs[config.name] = config
            node = (await restarted_on(running, config.name, fs)).node
            fs.at_step = lambda: acknowledged.append(node.machine.revision)
            async with cluster_stub(config.client_addr) as stub:
                # Each makes the log longer by a few segments, so that the third has files to remove.
                for number in range(3):
                    await fill(config.client_addr, range(200 * number, 200 * number + 200), b"v" * 900)
                    fs.recording = number == 2
                    await stub.TakeSnapshot(cluster_pb2.TakeSnapshotRequest(), timeout=10)
                await eventually(lambda: any(name.startswith("remove") and ".wal" in name for name, _ in fs.steps))
                fs.recording = False
        names = [name for name, _ in fs.steps]
        assert any(name.startswith("rename to") and name.endswith(".snap") for name in names), names
        assert any(name.startswith("remove") and name.endswith(".snap") for name in names), names
        begun_with = set()
        for (name, copy), revision in zip(fs.steps, acknowledged, strict=True):
            begins_with, machine = state_after_kill(config, copy)
            begun_with.add(begins_with)
            assert machine.revision >= revision, name
        assert len(begun_with) == 2, "the old snapshot before, the new one after"

    run(scenario())


def test_kill_at_every_step_of_installing_a_snapshot(tmp_path: Path) -> None:
    """SAFETY 26, 29: what the follower had, or all of what it was sent."""

    async def scenario() -> None:
        node_configs = [
            replace(config, segment_bytes=64 << 10)
            for config in configs(tmp_path, 3, snapshot_entries=50, snapshot_keep_entries=5)
        ]
        async with cluster(node_configs) as running:
            leader = await running.leader()
            await fill(leader.config.client_addr, range(20), b"old")
            away = running.followers()[0]
            await eventually(lambda: away.node.machine.revision == 20)
            name, config = away.config.name, away.config
            await running.kill(name)
            await fill(leader.config.client_addr, range(10, 140))
            leading = (await running.leader()).node
            await eventually(lambda: leading.core.first_index > 30)
            fs = StepByStep(Path(config.data_dir), tmp_path / "killed")
            fs.recording = True
            back = (await restarted_on(running, name, fs)).node
            await eventually(lambda: back.core.snapshot_index > 30)
            await same_state(running)
            # A step is what was there before it, and what the install itself writes to the log may be one write.
            await fill(leading.config.client_addr, range(140, 141))
            await same_state(running)
            fs.recording = False
            assert any(step.startswith("rename to") and step.endswith(".snap") for step, _ in fs.steps)
            outcomes = SimpleNamespace(old=0, new=0)
            for step, copy in fs.steps:
                begins_with, machine = state_after_kill(config, copy)
                if begins_with:
                    outcomes.new += 1
                    assert begins_with > 30, step
                    # Keys were written in their order: what is there is all there was at some moment since.
                    count = len(machine.store)
                    assert count > 30, step
                    assert b"key%06d" % (count - 1) in machine.store, step
                    found = machine.store.get(b"key000015")
                    assert found is not None, step
                    assert found.value == b"v" * 200, step
                else:
                    outcomes.old += 1
                    assert (machine.revision, len(machine.store)) == (20, 20), step
            assert outcomes.old > 5
            assert outcomes.new > 1

    run(scenario())
