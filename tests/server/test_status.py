"""A member's account of itself with its counters, and watching a cluster by it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from server_harness import Cluster, cluster, configs, eventually, get, put, run

from lattice_core.client import ClusterStatus, StatusWatch
from lattice_core.client import watch as watch_module
from lattice_core.errors import Unavailable
from lattice_core.rpc.pb import kv_pb2, raft_pb2
from lattice_core.server.status import member_status, memory_bytes


def endpoints(running: Cluster) -> str:
    return ",".join(config.client_addr for config in running.configs.values())


def test_a_status_carries_what_was_counted_and_what_is_so_now(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            addr = leader.config.client_addr
            for number in range(3):
                await put(addr, b"k%d" % number, b"v")
            await get(addr, b"k0", kv_pb2.CONSISTENCY_STALE)
            await get(addr, b"k0")
            await eventually(lambda: len(leader.node.metrics.round_trip_seconds) == 2)
            async with StatusWatch(endpoints(running)) as watch:
                status = await watch.ask()
            found = {member.name: member.status for member in status.members}
            assert set(found) == {"n1", "n2", "n3"}
            node = found[leader.config.name]
            assert node is not None
            counters = node.counters
            assert counters is not None
            assert (counters.write_operations, counters.stale_reads, counters.linearizable_reads) == (3, 1, 1)
            assert (counters.read_operations, counters.leader_changes) == (2, 1)
            assert counters.write_batches.count == 3
            assert counters.read_batches.count == 2
            assert counters.fsync.count >= 5, "term and vote, the no-op, three writes"
            assert (counters.disk_full, counters.fsync_stalled_seconds, counters.not_ready) == (False, 0.0, "")
            assert (counters.disk_free_bytes or 0) > 0
            assert counters.cpu_seconds > 0
            assert {each.node_id for each in node.progress} == {
                each.node_id for name, each in found.items() if name != node.name and each is not None
            }
            for progress in node.progress:
                assert progress.round_trip is not None
                assert progress.round_trip.count >= 1
            follower = next(each for name, each in found.items() if name != node.name)
            assert follower is not None
            assert follower.counters is not None
            assert follower.progress == ()

    run(scenario())


def test_memory_is_known_on_linux() -> None:
    found = memory_bytes()
    assert found is None or found > 1 << 20


def test_a_status_is_never_of_half_an_entry(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            node = (await running.leader()).node
            node.applier._results = iter(())  # as in the middle of a big one
            with pytest.raises(AssertionError):
                member_status(node)
            asked = asyncio.ensure_future(node.status())
            node.loop.kick()
            assert (await asked).name == "n1", "the next pass finishes it"

    run(scenario())


def test_a_watch_keeps_its_connection_and_moves_on_when_its_member_dies(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            await running.leader()
            async with StatusWatch(endpoints(running)) as watch:
                await watch.ask()
                channel, address = watch._channel, watch._address
                await watch.ask()
                assert watch._channel is channel
                (dead,) = [name for name, config in running.configs.items() if config.client_addr == address]
                await running.kill(dead)
                await running.leader()
                status = await watch.ask()
                assert watch._address != address
                assert [member.name for member in status.members if not member.reachable] == [dead]

    run(scenario())


def test_a_watch_that_hears_of_no_leader_asks_another_member_next(tmp_path: Path) -> None:
    async def scenario() -> None:
        running = Cluster(configs(tmp_path, 3))
        try:
            await running.start("n1")
            async with StatusWatch(endpoints(running)) as watch:
                first = await watch.ask()
                assert (first.leader_id, watch._channel) == (None, None)
                await running.start("n2", "n3")
                await running.leader()
                assert (await watch.ask()).leader is not None
                assert watch._channel is not None
        finally:
            for name in list(running.nodes):
                await running.kill(name)

    run(scenario())


def test_a_member_that_does_not_answer_costs_a_watch_one_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "ATTEMPT_SECONDS", 0.2)

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            addr = leader.config.client_addr
            others = [each.config.client_addr for each in running.followers()]

            async def never() -> raft_pb2.MemberStatus:
                await asyncio.sleep(60)
                raise AssertionError

            monkeypatch.setattr(leader.node, "status", never)
            async with StatusWatch([addr, *others]) as watch:
                status: ClusterStatus = await watch.ask(5.0)
                assert watch._address in others
                assert len(status.members) == 3

    run(scenario())


def test_a_watch_without_anybody_says_who_was_asked() -> None:
    async def scenario() -> None:
        async with StatusWatch("127.0.0.1:1,127.0.0.1:2") as watch:
            with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1: .*; 127\.0\.0\.1:2: "):
                await watch.ask(2.0)

    run(scenario())
