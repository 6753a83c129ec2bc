"""Reads that wait: how they are put into batches, and that each gets its own answer."""

from __future__ import annotations

import asyncio

import msgpack

from lattice_core.client.reads import BATCH_READS, GET, LAST_BATCH_READS, Answer, Level, ReadQueue
from lattice_core.rpc.pb import kv_pb2

LEVEL = Level(kv_pb2.CONSISTENCY_LINEARIZABLE)


def queued(queue: ReadQueue, count: int) -> list[asyncio.Future[Answer]]:
    futures: list[asyncio.Future[Answer]] = []
    for number in range(count):
        futures.append(asyncio.get_running_loop().create_future())
        queue.add(LEVEL, (GET, b"%d" % number, None), futures[-1], 100.0)
    return futures


def test_reads_of_many_callers_travel_in_several_batches_and_each_gets_its_own_answer() -> None:
    """So that the cluster works on one while the callers of another are woken."""

    async def scenario() -> None:
        queue = ReadQueue(window=4)
        futures = queued(queue, 2 * BATCH_READS)
        batches = [queue.next_batch(request_id, 0.0) for request_id in (1, 2, 3)]
        assert [len(batch.items) if batch is not None else 0 for batch in batches] == [BATCH_READS, BATCH_READS, 0]
        for request_id in (2, 1):
            batch = batches[request_id - 1]
            assert batch is not None
            answers = [[key, b"value of " + key, 1, 1, 1, None] for _, key, _ in msgpack.unpackb(batch.packed())]
            queue.answered(request_id, msgpack.packb(answers), 7, 0.0)
        assert [future.result().result[1] for future in futures] == [
            b"value of %d" % number for number in range(len(futures))
        ]
        assert queue.idle

    asyncio.run(scenario())


def test_no_more_batches_are_on_their_way_than_the_window_allows_and_the_last_takes_more() -> None:
    """Callers far away: what is in flight is what counts."""

    async def scenario() -> None:
        queue = ReadQueue(window=3)
        queued(queue, 2 * BATCH_READS + 2 * LAST_BATCH_READS)
        sent = [queue.next_batch(request_id, 0.0) for request_id in (1, 2, 3, 4)]
        sizes = [len(batch.items) if batch is not None else 0 for batch in sent]
        assert sizes == [BATCH_READS, BATCH_READS, LAST_BATCH_READS, 0]

    asyncio.run(scenario())
