"""Three nodes on loopback in one process."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import grpc
import msgpack
import pytest
from server_harness import (
    cluster,
    cluster_stub,
    configs,
    eventually,
    free_ports,
    get,
    kv_stub,
    put,
    read_request,
    run,
)

from lattice_core.errors import IdentityMismatch, NotLeader
from lattice_core.rpc.errors import from_rpc_error
from lattice_core.rpc.pb import cluster_pb2, kv_pb2
from lattice_core.server.run import RunningNode


def test_three_nodes_elect_write_and_apply_the_same_everywhere(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            for n in range(30):
                await put(leader.config.client_addr, b"key%d" % n, b"value")
            nodes = [each.node for each in running.nodes.values()]
            await eventually(lambda: {node.machine.revision for node in nodes} == {30})
            assert len({node.machine.state_hash for node in nodes}) == 1
            async with cluster_stub(running.followers()[0].config.client_addr) as stub:
                report = await stub.ClusterStatus(cluster_pb2.ClusterStatusRequest())
            assert sorted(member.member.name for member in report.members) == ["n1", "n2", "n3"]
            assert all(member.reachable and member.voter for member in report.members)
            assert {member.client_addr for member in report.members} == {
                config.client_addr for config in running.configs.values()
            }
            assert report.leader_id == leader.node.core.id

    run(scenario())


def test_a_follower_names_the_leader_for_writes_and_serves_reads(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            await put(leader.config.client_addr, b"a", b"1")
            follower = running.followers()[0].config.client_addr
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await put(follower, b"a", b"2")
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            error = from_rpc_error(caught.value)
            assert isinstance(error, NotLeader)
            assert error.leader_name == leader.config.name
            assert error.leader_addr == leader.config.client_addr
            assert await get(follower, b"a") == b"1", "linearizable, by asking the leader for an index"
            assert await get(follower, b"a", kv_pb2.CONSISTENCY_LEASE) == b"1"
            async with kv_stub(follower) as kv:
                call = kv.Session()
                await call.write(read_request(1, [[1, b"a", None]], kv_pb2.CONSISTENCY_STALE))
                answer = (await call.read()).read
                assert 0 <= answer.stale_seconds < 1
                assert len(msgpack.unpackb(answer.results)) == 1
                call.cancel()

    run(scenario())


def test_the_leaders_death_costs_an_election_and_no_acknowledged_write(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            for n in range(10):
                await put(leader.config.client_addr, b"key%d" % n, b"before")
            await running.kill(leader.config.name)
            successor = await running.leader()
            assert successor.config.name != leader.config.name
            await put(successor.config.client_addr, b"after", b"1")
            assert await get(successor.config.client_addr, b"key9") == b"before"
            async with cluster_stub(successor.config.client_addr) as stub:
                report = await stub.ClusterStatus(cluster_pb2.ClusterStatusRequest())
            gone = next(member for member in report.members if member.member.name == leader.config.name)
            assert not gone.reachable
            assert gone.client_addr == leader.config.client_addr, "the last address known is still told"
            await running.start(leader.config.name)
            again = running.nodes[leader.config.name].node
            await eventually(lambda: again.machine.revision == successor.node.machine.revision)
            assert again.machine.state_hash == successor.node.machine.state_hash
            assert successor.node.core.is_leader, "coming back disturbs nobody (SAFETY 8)"

    run(scenario())


def test_without_a_majority_nothing_is_acknowledged_and_linearizable_reads_end_with_an_error(tmp_path: Path) -> None:
    """SAFETY 7, 40."""

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            addr = leader.config.client_addr
            await put(addr, b"a", b"1")
            for follower in [each.config.name for each in running.followers()]:
                await running.kill(follower)
            for attempt in (put(addr, b"a", b"2"), get(addr, b"a")):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await attempt
                assert caught.value.code() in (grpc.StatusCode.ABORTED, grpc.StatusCode.UNAVAILABLE)
            assert await get(addr, b"a", kv_pb2.CONSISTENCY_STALE) == b"1"
            async with kv_stub(addr) as kv:
                call = kv.Session()
                await call.write(read_request(1, [[1, b"a", None]], kv_pb2.CONSISTENCY_STALE))
                assert (await call.read()).read.stale_seconds > 0.3
                call.cancel()

    run(scenario())


def test_leadership_is_handed_over_on_request_and_before_a_stop(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            target = running.followers()[0].config.name
            async with cluster_stub(leader.config.client_addr) as stub:
                done = await stub.TransferLeader(cluster_pb2.TransferLeaderRequest(target=target))
                assert (getattr(done, "from"), done.to) == (leader.config.name, target)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.TransferLeader(cluster_pb2.TransferLeaderRequest(target=target))
                assert isinstance(from_rpc_error(caught.value), NotLeader)
            new = await running.leader()
            assert new.config.name == target
            term = new.node.core.term
            async with cluster_stub(new.config.client_addr) as stub:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.TransferLeader(cluster_pb2.TransferLeaderRequest(target="nobody"))
                assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            await running.stop(target)
            last = await running.leader()
            assert last.node.core.term == term + 1, "no election timeout had to pass"

    run(scenario())


def test_a_node_of_another_cluster_is_refused_by_both_sides(tmp_path: Path) -> None:
    """SAFETY 47: its configuration names our members' addresses, its cluster id is another."""

    async def scenario() -> None:
        node_configs = configs(tmp_path, 3)
        async with cluster(node_configs) as running:
            leader = await running.leader()
            term = leader.node.core.term
            client, peer = free_ports(2)
            members = {**node_configs[0].initial_cluster, "stray": f"127.0.0.1:{peer}"}
            stray = RunningNode(
                replace(
                    node_configs[0],
                    name="stray",
                    data_dir=str(tmp_path / "stray"),
                    client_addr=f"127.0.0.1:{client}",
                    peer_addr=f"127.0.0.1:{peer}",
                    initial_cluster=members,
                )
            )
            await stray.start()
            try:
                await eventually(lambda: stray.node.core.role.value == "pre-candidate")
                assert not any(
                    stray.node.transport.connected(member) for member in stray.node.core.configuration.voters
                )
                await put(leader.config.client_addr, b"a", b"1")
                assert leader.node.core.term == term
            finally:
                await stray.kill()

    run(scenario())


def test_a_lost_data_directory_does_not_come_back_under_its_old_identity(tmp_path: Path) -> None:
    """SAFETY 22."""

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            await put(leader.config.client_addr, b"a", b"1")
            victim = running.followers()[0].config
            await running.kill(victim.name)
            shutil.rmtree(victim.data_dir)
            with pytest.raises(IdentityMismatch) as caught:
                await running.start(victim.name)
            assert f"remove-server {victim.name}" in str(caught.value)
            await put(leader.config.client_addr, b"a", b"2")

    run(scenario())


def test_a_lost_directory_that_starts_alone_stops_when_it_meets_the_others(tmp_path: Path) -> None:
    """SAFETY 22: nobody was there to ask when it started."""

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            await put(leader.config.client_addr, b"a", b"1")
            names = list(running.nodes)
            victim = next(name for name in names if name != leader.config.name)
            for name in names:
                await running.kill(name)
            shutil.rmtree(running.configs[victim].data_dir)
            await running.start(victim)
            lost = running.nodes[victim].node
            await running.start(leader.config.name)
            await eventually(lost.failed.done)
            assert isinstance(lost.failed.result(), IdentityMismatch)
            assert lost.core.commit_index == 0

    run(scenario())
