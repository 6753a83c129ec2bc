"""Stale reads with a bound, and the lease as the default, on real nodes."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from server_harness import cluster, configs, eventually, get, kv_stub, put, read_request, run

from lattice_core.errors import TooStale
from lattice_core.rpc.errors import from_rpc_error
from lattice_core.rpc.pb import kv_pb2

STALE = kv_pb2.CONSISTENCY_STALE


def test_a_bounded_stale_read_is_served_by_a_follower_and_refused_once_it_is_cut_off(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            await put(leader.config.client_addr, b"a", b"1")
            follower, other = running.followers()
            asked = kv_pb2.GetRequest(key=b"a", consistency=STALE, max_stale_seconds=0.0)
            async with kv_stub(follower.config.client_addr) as kv:
                assert (await kv.Get(asked, timeout=5)).found.value == b"1", "a bound of 0 is a linearizable read"
                asked.max_stale_seconds = 30.0
                await running.kill(leader.config.name)
                await running.kill(other.config.name)
                assert (await kv.Get(asked, timeout=5)).found.value == b"1", "confirmed less than 30 s ago"
                asked.max_stale_seconds = 0.0001
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await kv.Get(asked, timeout=5)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
                assert isinstance(from_rpc_error(caught.value), TooStale)
                assert await get(follower.config.client_addr, b"a", STALE) == b"1", "without a bound, any age will do"

    run(scenario())


def test_a_bound_goes_with_stale_reads_only_and_must_be_a_duration(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            addr = (await running.leader()).config.client_addr
            async with kv_stub(addr) as kv:
                for consistency, bound in (
                    (kv_pb2.CONSISTENCY_LEASE, 1.0),
                    (0, 1.0),
                    (STALE, -1.0),
                    (STALE, float("nan")),
                ):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await kv.Get(kv_pb2.GetRequest(key=b"a", consistency=consistency, max_stale_seconds=bound))
                    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                    request = read_request(1, [[1, b"a", None]], consistency)
                    request.read.max_stale_seconds = bound
                    call = kv.Session()
                    await call.write(request)
                    assert (await call.read()).error.code == kv_pb2.ERROR_CODE_INVALID
                    call.cancel()

    run(scenario())


def test_safety_40_with_read_mode_lease_the_leader_answers_without_a_round_and_not_without_its_majority(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3, read_mode="lease")) as running:
            leader = await running.leader()
            addr, core = leader.config.client_addr, leader.node.core
            await put(addr, b"a", b"1")
            asked: list[int] = []
            ask = core.read_index
            core.read_index = lambda request_id, now: (asked.append(request_id), ask(request_id, now))[1]  # type: ignore[method-assign]
            # A lease may lapse under load, so a read now and then may need a round; not every one of twenty.
            for _ in range(20):
                assert await get(addr, b"a") == b"1"
            assert len(asked) < 20
            follower = running.followers()[0].config.client_addr
            assert await get(follower, b"a") == b"1", "elsewhere it is a round, as ever"
            for each in running.followers():
                await running.kill(each.config.name)
            await eventually(lambda: core.lease_read_index(leader.node.core.now_ns) is None)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await get(addr, b"a")
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    run(scenario())
