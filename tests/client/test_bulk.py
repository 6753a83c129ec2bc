"""batch() and put_many(): large batches, backpressure, results in order, errors by type."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import msgpack
import pytest
from fake import Do, FakeCluster

from lattice_core.client import AsyncBatch, AsyncClient, CasResult, Client, DeleteResult, PutManyResult, PutResult, bulk
from lattice_core.client.writes import WINDOW
from lattice_core.errors import InvalidRequest, OutcomeUnknown, TooLarge, Unavailable


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "BULK_OPS", 10)


def sizes(cluster: FakeCluster) -> list[int]:
    return [len(msgpack.unpackb(batch.commands)) for batch in cluster.seen]


async def test_a_batch_sends_full_batches_and_has_every_result_in_order() -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        async with client.batch() as batch:
            for number in range(25):
                await batch.put(f"k{number}", "v")
            await batch.delete("k3")
            await batch.delete_range(prefix="k2")
            await batch.cas("k1", "v", "w")
            await batch.cas("k1", "v", "w")
            await batch.put("k1", "x", if_absent=True)
            await batch.put("new", "x", if_revision=0)
        revisions, rest = batch.results[:25], batch.results[25:]
        assert revisions == tuple(range(1, 26))
        assert rest[:4] == (
            DeleteResult(1, 26),
            DeleteResult(6, 27),
            CasResult(True, 28),
            CasResult(False, 28),
        )
        assert rest[4:] == (PutResult(False, 28), PutResult(True, 29))
        assert sizes(cluster)[0] == max(sizes(cluster)) == 10
        assert sum(sizes(cluster)) == 31


async def test_put_many_takes_mappings_iterables_and_async_iterables() -> None:
    async def slowly() -> AsyncIterator[tuple[str, str]]:
        for number in range(25):
            yield f"c{number}", "v"

    told: list[int] = []
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        assert await client.put_many({f"a{number}": "v" for number in range(25)}) == PutManyResult(25, 25)
        done = await client.put_many(((f"b{number}", b"v") for number in range(30)), progress=told.append)
        assert done == PutManyResult(30, 55)
        assert told == [10, 20, 30]
        assert await client.put_many(slowly()) == PutManyResult(25, 80)
        assert await client.put_many([]) == PutManyResult(0, 0)
        assert len(cluster.kvs) == 80


async def test_what_a_slow_source_has_given_does_not_wait_for_the_rest() -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        more = asyncio.Event()

        async def source() -> AsyncIterator[tuple[str, str]]:
            yield "a", "1"
            yield "b", "2"
            await more.wait()
            yield "c", "3"

        loading = asyncio.create_task(client.put_many(source()))
        await cluster.until(lambda: len(cluster.kvs) == 2)
        more.set()
        assert (await loading).stored == 3

        async with client.batch() as batch:
            await batch.put("d", "4")
            await batch.put("e", "5")
            await cluster.until(lambda: b"e" in cluster.kvs)
            await batch.put("f", "6")
        assert cluster.kvs.keys() >= {b"d", b"e", b"f"}


@pytest.mark.parametrize("how", ["put_many", "batch"])
async def test_what_came_while_others_were_under_way_leaves_when_they_are_back(how: str) -> None:
    async with FakeCluster() as cluster:
        endpoints = await cluster.start("n1")
        member, more = cluster.members["n1"], asyncio.Event()
        member.script.append(Do.HOLD)

        async def source() -> AsyncIterator[tuple[str, str]]:
            yield "a", "1"
            await cluster.until(lambda: bool(cluster.seen))
            yield "b", "2"
            await more.wait()

        async def load_by_batch() -> None:
            async with client.batch() as batch:
                async for key, value in source():
                    await batch.put(key, value)

        async with AsyncClient(endpoints) as client:
            load = client.put_many(source()) if how == "put_many" else load_by_batch()
            loading = asyncio.ensure_future(load)
            await cluster.until(lambda: bool(cluster.seen))
            member.released.set()
            await cluster.until(lambda: b"b" in cluster.kvs)
            more.set()
            await loading


async def test_a_producer_that_is_too_fast_waits() -> None:
    async with FakeCluster() as cluster:
        endpoints = await cluster.start("n1")
        cluster.members["n1"].script.extend([Do.HOLD] * 1000)
        taken = 0

        def source() -> Iterator[tuple[str, str]]:
            nonlocal taken
            for number in range(1000):
                taken += 1
                yield f"k{number}", "v"

        async with AsyncClient(endpoints) as client:
            loading = asyncio.create_task(client.put_many(source()))
            await cluster.until(lambda: bool(cluster.seen))
            for _ in range(200):
                await asyncio.sleep(0)
            # A window and two that are ready to follow; one more is full and waits for room, one item follows it.
            assert taken <= 10 * (WINDOW + bulk.READY_BATCHES + 1) + 1
            cluster.members["n1"].released.set()
            assert (await loading).stored == 1000


async def test_safety_44_lost_answers_in_the_middle_are_asked_for_again_and_nothing_is_done_twice() -> None:
    async with FakeCluster() as cluster:
        endpoints = await cluster.start("n1", "n2")
        cluster.members["n1"].script.extend([Do.NORMAL, Do.EXECUTE_AND_DROP, Do.NORMAL, Do.DROP])
        async with AsyncClient(endpoints) as client:
            done = await client.put_many((f"k{number}", "v") for number in range(95))
        assert done.stored == 95
        assert len(cluster.kvs) == cluster.revision == 95
        assert {version for *_, version in cluster.kvs.values()} == {1}


async def test_the_first_error_ends_it_is_raised_by_its_type_and_says_how_far_it_went() -> None:
    async with FakeCluster() as cluster:
        endpoints = await cluster.start("n1")
        cluster.members["n1"].script.extend([Do.NORMAL, Do.INVALID])
        async with AsyncClient(endpoints) as client:
            with pytest.raises(InvalidRequest, match=r"put_many: after .* acknowledged puts: this is wrong"):
                await client.put_many((f"k{number}", "v") for number in range(500))
            assert len(cluster.kvs) < 100, "what had not been sent was not sent"

            cluster.members["n1"].script.extend([Do.NORMAL, Do.INVALID])
            batch, before = client.batch(), cluster.revision
            with pytest.raises(InvalidRequest):
                await put_all(batch, 500)
            assert batch.results[:10] == tuple(range(before + 1, before + 11))
            assert {type(result) for result in batch.results[10:20]} == {InvalidRequest}
            assert len(batch.results) < 100


async def put_all(batch: AsyncBatch, count: int, then: Exception | None = None) -> None:
    async with batch:
        for number in range(count):
            await batch.put(f"b{number}", "v")
        if then is not None:
            raise then


async def test_an_outcome_that_is_not_known_is_said_to_be_unknown_and_one_that_is_known_not() -> None:
    async with FakeCluster() as cluster:
        endpoints = await cluster.start("n1")
        cluster.members["n1"].script.append(Do.EXECUTE_SILENTLY)
        async with AsyncClient(endpoints, timeout=0.3) as client:
            with pytest.raises(OutcomeUnknown):
                await client.put_many({"a": "1"})
    async with AsyncClient("127.0.0.1:1", timeout=0.2) as client:
        with pytest.raises(Unavailable, match="put_many: after 0 acknowledged"):
            await client.put_many({"a": "1"})


async def test_an_item_that_cannot_be_put_is_named_and_nothing_after_it_is_sent() -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        items = [(f"k{number}", "v") for number in range(14)]
        with pytest.raises(InvalidRequest, match="item 15: the key is empty"):
            await client.put_many([*items, ("", "v"), ("z", "v")])
        assert len(cluster.kvs) == 10, "the batch that was full before is stored"
        with pytest.raises(TooLarge):
            await client.batch().put("a", b"v" * (1 << 20) + b"v")
        with pytest.raises(TypeError):
            await client.put_many([(1, "v")])  # type: ignore[list-item]


async def test_an_exception_in_the_block_leaves_out_what_was_not_sent() -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        batch = client.batch()
        with pytest.raises(ZeroDivisionError):
            await put_all(batch, 15, then=ZeroDivisionError())
        assert len(cluster.kvs) == len(batch.results) == 10
        with pytest.raises(RuntimeError, match="over"):
            await batch.put("k", "v")


async def test_a_cancelled_load_gives_up_what_it_has_under_way() -> None:
    async with FakeCluster() as cluster:
        endpoints = await cluster.start("n1")
        cluster.members["n1"].script.extend([Do.HOLD] * 100)
        async with AsyncClient(endpoints) as client:
            loading = asyncio.create_task(client.put_many((f"k{number}", "v") for number in range(500)))
            await cluster.until(lambda: bool(cluster.seen))
            loading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await loading
            cluster.members["n1"].released.set()
            assert (await client.put_many({"after": "1"})).stored == 1
            assert len(cluster.kvs) <= 10 * WINDOW + 1, "what was only ready to follow is not sent any more"


async def test_large_values_go_in_smaller_batches() -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        await client.put_many((f"k{number}", bytes(400_000)) for number in range(6))
        assert sizes(cluster) == [2, 2, 2]


def test_the_blocking_client_does_the_same_from_its_callers_thread() -> None:
    async def serve(ready: asyncio.Future[tuple[FakeCluster, str]], stop: asyncio.Event) -> None:
        async with FakeCluster() as cluster:
            ready.set_result((cluster, await cluster.start("n1")))
            await stop.wait()

    async def scenario() -> None:
        ready: asyncio.Future[tuple[FakeCluster, str]] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        serving = asyncio.create_task(serve(ready, stop))
        cluster, endpoints = await ready
        await asyncio.to_thread(work, endpoints)
        assert sizes(cluster) == [10, 10, 5, 10, 10, 10, 10]
        cluster.members["n1"].script.append(Do.INVALID)
        await asyncio.to_thread(fail, endpoints)
        stop.set()
        await serving

    def work(endpoints: str) -> None:
        with Client(endpoints) as client:
            assert client.put_many((f"a{number}", "v") for number in range(25)) == PutManyResult(25, 25)
            with client.batch() as batch:
                for number in range(40):
                    batch.put(f"b{number}", "v")
            assert batch.results == tuple(range(26, 66))
            with pytest.raises(RuntimeError):
                batch.delete("b1")

    def fail(endpoints: str) -> None:
        with Client(endpoints) as client, pytest.raises(InvalidRequest), client.batch() as batch:
            batch.put("c", "v")

    asyncio.run(scenario())
