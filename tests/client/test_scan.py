"""Reading a range page by page, at one revision; reads with a bound on staleness."""

from __future__ import annotations

import pytest
from fake import Do, FakeCluster

from lattice_core.client import AsyncClient
from lattice_core.errors import InvalidRequest, TooStale
from lattice_core.rpc.pb import kv_pb2

KEYS = [f"k{number:02}" for number in range(25)]


async def filled(cluster: FakeCluster, client: AsyncClient) -> None:
    await client.put_many({**{key: f"v{key}" for key in KEYS}, "other": ""})


async def test_a_scan_fetches_page_after_page_at_the_first_pages_revision() -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        await filled(cluster, client)
        found = []
        async for kv in client.scan(prefix="k", page_keys=10):
            found.append(kv)
            if len(found) == 3:
                await client.put("later", "")
        assert [kv.key.decode() for kv in found] == KEYS
        assert [revision for revision, _ in cluster.ranges] == [None, 26, 26]


async def test_a_scan_goes_backwards_is_limited_and_reads_only_keys() -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        await filled(cluster, client)
        back = [kv.key.decode() async for kv in client.scan(prefix="k", page_keys=7, reverse=True, keys_only=True)]
        assert back == KEYS[::-1]
        assert {flags for _, flags in cluster.ranges} == {1 | 4}
        some = [kv.key.decode() async for kv in client.scan(start="k05", end="k20", page_keys=4, limit=6, revision=9)]
        assert some == KEYS[5:11]
        assert [revision for revision, _ in cluster.ranges[-2:]] == [9, 9]
        assert len([kv async for kv in client.scan()]) == 26


async def test_nothing_is_scanned_to_its_end() -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        assert [kv async for kv in client.scan()] == []
        with pytest.raises(InvalidRequest, match="page_keys is 0"):
            [kv async for kv in client.scan(page_keys=0)]
        with pytest.raises(InvalidRequest, match="limit is 0"):
            [kv async for kv in client.scan(limit=0)]


async def test_a_bound_travels_with_the_read_and_a_member_that_is_too_stale_is_left_for_the_leader() -> None:
    async with FakeCluster(leader="n2") as cluster:
        await cluster.start("n1", "n2")
        stale, leader = cluster.members["n1"], cluster.members["n2"]
        stale.read_script.extend([Do.TOO_STALE] * 10)
        async with AsyncClient(stale.address) as client:
            assert await client.get("a", consistency="stale", max_stale=2.5) is None
        assert stale.bounds == [2.5]
        assert leader.bounds == [2.5]


async def test_without_a_leader_to_go_to_another_member_is_asked() -> None:
    async with FakeCluster(leader=None) as cluster:
        endpoints = await cluster.start("n1", "n2")
        cluster.members["n1"].read_script.extend([Do.TOO_STALE] * 10)
        async with AsyncClient(endpoints) as client:
            found = await client.range(consistency="stale", max_stale=0)
        assert found.kvs == ()
        assert cluster.members["n2"].bounds == [0.0]


async def test_too_stale_is_what_the_caller_hears_if_nobody_knows_better_in_time() -> None:
    async with FakeCluster(leader=None) as cluster:
        endpoints = await cluster.start("n1")
        cluster.members["n1"].read_script.extend([Do.TOO_STALE] * 1000)
        async with AsyncClient(endpoints, timeout=0.3) as client:
            with pytest.raises(TooStale, match="get: this member's state is old"):
                await client.get("a", consistency="stale", max_stale=1)


async def test_reads_with_different_bounds_do_not_share_a_batch() -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        for bound in (None, 1.0, 2.0):
            await client.get("a", consistency="stale", max_stale=bound)
        assert cluster.members["n1"].bounds == [1.0, 2.0]
        assert [consistency for consistency, _ in cluster.members["n1"].read_batches] == [kv_pb2.CONSISTENCY_STALE] * 3


async def test_a_bound_that_means_nothing_is_refused() -> None:
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(InvalidRequest, match="goes with consistency='stale'"):
            await client.get("a", max_stale=1.0)
        for bound in (-1.0, float("nan"), float("inf")):
            with pytest.raises(InvalidRequest, match="max_stale is"):
                await client.range(consistency="stale", max_stale=bound)
