"""The client library against real nodes: transactions, bulk loads, scans, bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from server_harness import cluster, configs, run

from lattice_core.client import AsyncClient, KeyValue, RangeResult, delete_range, get, get_range, key, keys, put
from lattice_core.errors import RevisionCompacted, TooLarge, TooStale


@asynccontextmanager
async def connected(tmp_path: Path, **settings: Any) -> AsyncIterator[AsyncClient]:
    """A client of a node alone."""
    async with cluster(configs(tmp_path, 1, **settings)) as running:
        client = AsyncClient((await running.leader()).config.client_addr)
        async with client:
            yield client


def test_transactions_move_money_and_never_lose_any(tmp_path: Path) -> None:
    """A bank with optimistic concurrency: many tellers, one total. A leader is lost in the middle."""
    accounts, tellers, moves = 5, 8, 6

    async def teller(client: AsyncClient, number: int) -> int:
        retries = 0
        for move in range(moves):
            source, target = f"account/{(number + move) % accounts}", f"account/{(number * 3 + move + 1) % accounts}"
            while source != target:
                read = await client.txn(then=[get(source), get(target)])
                left, right = read.results
                assert isinstance(left, KeyValue)
                assert isinstance(right, KeyValue)
                amount = 1 + move % 3
                moved = await client.txn(
                    when=[
                        key(source).mod_revision == left.mod_revision,
                        key(target).mod_revision == right.mod_revision,
                    ],
                    then=[
                        put(source, b"%d" % (int(left.value) - amount)),
                        put(target, b"%d" % (int(right.value) + amount)),
                    ],
                )
                if moved:
                    break
                retries += 1
        return retries

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            endpoints = [config.client_addr for config in running.configs.values()]
            async with AsyncClient(endpoints, timeout=15.0) as client:
                opened = await client.txn(
                    when=[keys(prefix="account/").absent()],
                    then=[put(f"account/{number}", b"100") for number in range(accounts)],
                )
                assert opened
                busy = asyncio.gather(*(teller(client, number) for number in range(tellers)))
                await asyncio.sleep(0.05)
                await running.kill(leader.config.name)
                await busy
                found = await client.range(prefix="account/")
                assert sum(int(kv.value) for kv in found.kvs) == 100 * accounts
                assert {kv.create_revision for kv in found.kvs} == {opened.revision}

    run(scenario())


def test_a_transaction_over_its_limits_is_a_typed_error_with_the_way_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as client:
            stored = await client.put_many((f"k{number:05}", b"v") for number in range(10_001))
            assert (stored.stored, stored.revision) == (10_001, 10_001)
            with pytest.raises(
                TooLarge, match=r"txn: .* visits more than 10000 keys: nothing of it was applied"
            ) as caught:
                await client.txn(then=[put("a", b"1"), delete_range(prefix="k")])
            assert caught.value.hint
            assert await client.get("a") is None
            deleted = await client.delete_range(prefix="k")
            assert deleted.deleted == 10_001, "outside of a transaction there is no such limit"
            listed = await client.txn(then=[get_range(prefix="k", limit=3)])
            assert listed.results == (RangeResult((), False, 0, 10_002),)

    run(scenario())


def test_large_answers_of_concurrent_transactions_all_arrive(tmp_path: Path) -> None:
    """Together they are far more than one batch's answers may hold: they are executed a few at a time."""

    async def scenario() -> None:
        async with connected(tmp_path) as client:
            await client.put("large", bytes(900_000))
            found = await asyncio.gather(
                *(client.txn(then=[put(f"seen/{number}", b""), get("large")]) for number in range(12))
            )
            assert all(isinstance(each.results[1], KeyValue) for each in found)
            assert len({each.revision for each in found}) == 12
            assert (await client.range(prefix="seen/", count_only=True)).count == 12

    run(scenario())


def test_a_scan_sees_one_revision_while_others_write_or_says_that_it_cannot(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, history_revisions=500) as client:
            await client.put_many({f"k{number:03}": b"old" for number in range(300)})
            found = []
            async for kv in client.scan(prefix="k", page_keys=50, reverse=True):
                if len(found) % 50 == 0:
                    await client.put(f"k{len(found):03}", b"new")
                    await client.put(f"k{len(found):03}+", b"new")
                found.append(kv)
            assert [kv.key for kv in found] == [b"k%03d" % number for number in reversed(range(300))]
            assert {kv.value for kv in found} == {b"old"}

            pages = client.scan(prefix="k", page_keys=50)
            await anext(pages)
            await client.put_many({f"x{number}": b"" for number in range(2000)})
            with pytest.raises(RevisionCompacted):
                [kv async for kv in pages]

    run(scenario())


def test_a_bound_is_kept_at_any_member_and_refused_when_there_is_no_majority(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            follower, other = running.followers()
            async with AsyncClient(leader.config.client_addr) as client:
                await client.put("a", b"1")
            async with AsyncClient(follower.config.client_addr, timeout=2.0) as client:
                for _ in range(3):
                    found = await client.get("a", consistency="stale", max_stale=0.0)
                    assert found is not None, "the write was acknowledged before"
                await running.kill(leader.config.name)
                await running.kill(other.config.name)
                with pytest.raises(TooStale):
                    await client.get("a", consistency="stale", max_stale=0.001)
                assert await client.get("a", consistency="stale") == found

    run(scenario())
