"""The bookkeeping of writes, without a network: who may be told what, and where the watermark stands."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgpack
import pytest

from lattice_core.client.writes import BATCH_OPS, Result, WriteQueue
from lattice_core.errors import Busy, InvalidRequest, NoLeader, OutcomeUnknown, Unavailable
from lattice_core.kv import transaction, txn
from lattice_core.kv.commands import PUT, Op

TROUBLE = Unavailable("nobody answers")


class Caller:
    """Queues puts and looks at what became of them."""

    def __init__(self, queue: WriteQueue, loop: asyncio.AbstractEventLoop) -> None:
        self.queue = queue
        self.loop = loop

    def put(self, key: bytes, *, deadline: float = 10.0, size: int = 30) -> asyncio.Future[Result]:
        future: asyncio.Future[Result] = self.loop.create_future()
        self.queue.add((PUT, key, b"v"), future, deadline, size)
        return future


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def queue() -> WriteQueue:
    queue = WriteQueue(window=2)
    queue.session_opened(5)
    return queue


@pytest.fixture
def caller(queue: WriteQueue, loop: asyncio.AbstractEventLoop) -> Caller:
    return Caller(queue, loop)


def results(*revisions: int) -> bytes:
    packed: bytes = msgpack.packb([[0, revision] for revision in revisions])
    return packed


def test_what_waits_together_travels_together_in_order(queue: WriteQueue, caller: Caller) -> None:
    futures = [caller.put(b"a"), caller.put(b"b"), caller.put(b"c")]
    batch = queue.next_batch(1, now=0.0)
    assert batch is not None
    assert (batch.session_id, batch.sequence) == (5, 1)
    assert [op[1] for op in msgpack.unpackb(batch.commands)] == [b"a", b"b", b"c"]
    queue.answered(1, results(7, 8, 9))
    assert [future.result() for future in futures] == [[0, 7], [0, 8], [0, 9]]
    assert queue.idle


def test_nothing_is_numbered_before_there_is_a_session(loop: asyncio.AbstractEventLoop) -> None:
    queue = WriteQueue()
    Caller(queue, loop).put(b"a")
    assert queue.needs_session
    assert queue.next_batch(1, now=0.0) is None


def test_a_full_window_lets_operations_accumulate(queue: WriteQueue, caller: Caller) -> None:
    for key in (b"a", b"b"):
        caller.put(key)
        assert queue.next_batch(key[0], now=0.0) is not None
    caller.put(b"c")
    caller.put(b"d")
    assert queue.next_batch(3, now=0.0) is None
    queue.answered(ord("a"), results(1))
    batch = queue.next_batch(3, now=0.0)
    assert batch is not None
    assert len(batch.items) == 2


def test_a_batch_is_bounded_in_operations_and_in_bytes(queue: WriteQueue, caller: Caller) -> None:
    for number in range(BATCH_OPS + 1):
        caller.put(b"%d" % number)
    first = queue.next_batch(1, now=0.0)
    second = queue.next_batch(2, now=0.0)
    assert first is not None
    assert second is not None
    assert (len(first.items), len(second.items)) == (BATCH_OPS, 1)
    queue.answered(1, results(*range(BATCH_OPS)))
    for _ in range(3):
        caller.put(b"big", size=300_000)
    third = queue.next_batch(3, now=0.0)
    assert third is not None
    assert len(third.items) == 1


def test_too_much_waiting_is_refused_at_once(loop: asyncio.AbstractEventLoop) -> None:
    queue = WriteQueue(max_ops=2)
    caller = Caller(queue, loop)
    caller.put(b"a")
    caller.put(b"b")
    with pytest.raises(Busy, match="2 operations"):
        caller.put(b"c")


def test_the_watermark_is_the_lowest_sequence_still_wanted(queue: WriteQueue, caller: Caller) -> None:
    assert queue.acknowledged_below == 1
    caller.put(b"a")
    queue.next_batch(1, now=0.0)
    caller.put(b"b")
    queue.next_batch(2, now=0.0)
    queue.answered(2, results(2))
    assert queue.acknowledged_below == 1
    queue.answered(1, results(1))
    assert queue.acknowledged_below == 3


def test_a_lost_connection_parks_batches_in_order_and_unchanged(queue: WriteQueue, caller: Caller) -> None:
    caller.put(b"a")
    first = queue.next_batch(1, now=0.0)
    caller.put(b"b")
    second = queue.next_batch(2, now=0.0)
    assert first is not None
    assert second is not None
    before = first.commands
    queue.connection_lost()
    assert queue.next_batch(3, now=0.0) is first
    assert queue.next_batch(4, now=0.0) is second
    assert (first.sequence, first.commands) == (1, before)


def test_safety_44_a_deadline_after_sending_means_unknown(queue: WriteQueue, caller: Caller) -> None:
    future = caller.put(b"a", deadline=1.0)
    queue.next_batch(1, now=0.0)
    assert queue.expire(0.5, TROUBLE) == 1.0
    queue.expire(1.0, TROUBLE)
    with pytest.raises(OutcomeUnknown):
        future.result()
    assert queue.acknowledged_below == 2
    queue.connection_lost()
    assert queue.next_batch(2, now=1.0) is None, "nobody wants it any more"


def test_a_deadline_before_sending_means_not_applied(queue: WriteQueue, caller: Caller) -> None:
    future = caller.put(b"a", deadline=1.0)
    assert queue.expire(1.0, NoLeader("there is no leader")) is None
    with pytest.raises(NoLeader, match="put: there is no leader"):
        future.result()
    assert queue.next_batch(1, now=1.0) is None


def test_a_deadline_after_a_refusal_means_not_applied_and_never_will_be(queue: WriteQueue, caller: Caller) -> None:
    late, patient = caller.put(b"a", deadline=1.0), caller.put(b"b", deadline=9.0)
    first = queue.next_batch(1, now=0.0)
    queue.refused(1)
    queue.expire(1.0, TROUBLE)
    with pytest.raises(Unavailable):
        late.result()
    again = queue.next_batch(2, now=1.0)
    assert first is not None
    assert again is not None
    assert again.sequence == 2, "the old sequence must never be sent again"
    assert [op[1] for op in msgpack.unpackb(again.commands)] == [b"b"]
    assert not patient.done()


def test_a_refusal_after_a_lost_answer_leaves_the_doubt(queue: WriteQueue, caller: Caller) -> None:
    future = caller.put(b"a", deadline=1.0)
    queue.next_batch(1, now=0.0)
    queue.connection_lost()
    queue.next_batch(2, now=0.0)
    queue.refused(2)
    queue.expire(1.0, TROUBLE)
    with pytest.raises(OutcomeUnknown):
        future.result()


def test_safety_43_an_expired_session_repeats_only_what_cannot_have_been_applied(
    queue: WriteQueue, caller: Caller
) -> None:
    doubtful = caller.put(b"a")
    queue.next_batch(1, now=0.0)
    queue.connection_lost()
    queue.next_batch(2, now=0.0)
    fresh = caller.put(b"b")
    queue.next_batch(3, now=0.0)
    queue.session_expired(2)
    queue.session_expired(3)
    with pytest.raises(OutcomeUnknown, match="session expired"):
        doubtful.result()
    assert queue.needs_session
    queue.session_opened(6)
    batch = queue.next_batch(4, now=0.0)
    assert batch is not None
    assert (batch.session_id, batch.sequence) == (6, 1)
    queue.answered(4, results(9))
    assert fresh.result() == [0, 9]


def test_a_batch_of_an_expired_session_does_not_hold_the_next_ones_watermark(queue: WriteQueue, caller: Caller) -> None:
    caller.put(b"a")
    queue.next_batch(1, now=0.0)
    caller.put(b"b")
    old = queue.next_batch(2, now=0.0)
    queue.session_expired(1)
    queue.session_opened(6)
    queue.next_batch(3, now=0.0)
    queue.connection_lost()
    assert queue.next_batch(4, now=0.0) is old, "it goes under its own session, to be told that it expired"
    assert old is not None
    assert queue.watermark_for(old) == old.sequence
    queue.session_expired(4)
    assert queue.session_id == 6, "an answer about the old session must not cost the new one"


def test_one_wrong_operation_does_not_fail_the_others(queue: WriteQueue, caller: Caller) -> None:
    futures = {key: caller.put(key) for key in (b"a", b"b", b"bad", b"c")}
    queue.next_batch(1, now=0.0)
    queue.rejected(1, InvalidRequest("wrong"))
    request_id = 1
    while not queue.idle:
        request_id += 1
        batch = queue.next_batch(request_id, now=0.0)
        assert batch is not None
        keys = [op[1] for op in msgpack.unpackb(batch.commands)]
        if b"bad" in keys:
            queue.rejected(request_id, InvalidRequest("wrong"))
        else:
            queue.answered(request_id, results(*range(len(keys))))
    with pytest.raises(InvalidRequest):
        futures.pop(b"bad").result()
    assert all(future.result()[0] == 0 for future in futures.values())


def test_an_operation_whose_caller_went_away_is_not_sent(queue: WriteQueue, caller: Caller) -> None:
    gone, stays = caller.put(b"a"), caller.put(b"b")
    gone.cancel()
    batch = queue.next_batch(1, now=0.0)
    assert batch is not None
    assert [item.future for item in batch.items] == [stays]


def test_a_wrong_number_of_results_is_an_unknown_outcome(queue: WriteQueue, caller: Caller) -> None:
    futures = [caller.put(b"a"), caller.put(b"b")]
    queue.next_batch(1, now=0.0)
    queue.answered(1, results(1))
    for future in futures:
        with pytest.raises(OutcomeUnknown):
            future.result()


def test_an_answer_to_a_forgotten_request_changes_nothing(queue: WriteQueue, caller: Caller) -> None:
    queue.answered(99, results(1))
    queue.refused(99)
    queue.in_doubt(99)
    queue.session_expired(99)
    queue.rejected(99, InvalidRequest("wrong"))
    assert queue.idle
    assert queue.session_id == 5


# -- transactions and whole batches ---------------------------------------------------------------


def queued(queue: WriteQueue, loop: asyncio.AbstractEventLoop, op: Op) -> asyncio.Future[Result]:
    future: asyncio.Future[Result] = loop.create_future()
    queue.add(op, future, 10.0, 30)
    return future


def whole_batch(
    queue: WriteQueue, loop: asyncio.AbstractEventLoop, commands: bytes, count: int
) -> asyncio.Future[Result]:
    future: asyncio.Future[Result] = loop.create_future()
    queue.add_batch(commands, count, future, 10.0)
    return future


def test_what_is_in_a_transaction_counts_against_the_size_of_a_batch(
    queue: WriteQueue, loop: asyncio.AbstractEventLoop
) -> None:
    op = transaction([], [(txn.GET, b"k")] * (BATCH_OPS // 2 - 1))
    for _ in range(3):
        queued(queue, loop, op)
    first, second = queue.next_batch(1, 0.0), queue.next_batch(2, 0.0)
    assert first is not None
    assert second is not None
    assert (len(first.items), len(second.items)) == (2, 1)


def test_a_transaction_larger_than_a_batch_travels_alone(queue: WriteQueue, loop: asyncio.AbstractEventLoop) -> None:
    queued(queue, loop, transaction([], [(txn.GET, b"k")] * txn.MAX_OPS))
    queued(queue, loop, (PUT, b"k", b"v"))
    first, second = queue.next_batch(1, 0.0), queue.next_batch(2, 0.0)
    assert first is not None
    assert second is not None
    assert (len(first.items), len(second.items)) == (1, 1)


def test_a_transaction_that_found_no_room_is_sent_again_first_and_under_a_new_sequence(
    queue: WriteQueue, caller: Caller, loop: asyncio.AbstractEventLoop
) -> None:
    op = transaction([], [(txn.GET, b"k")])
    fits, crowded = queued(queue, loop, op), queued(queue, loop, op)
    put = caller.put(b"a")
    queue.next_batch(1, 0.0)
    later = caller.put(b"b")
    queue.answered(1, msgpack.packb([[0, None, 3, [[0, None]]], [3], [0, 4]]))
    assert fits.result() == [0, None, 3, [[0, None]]]
    assert put.result() == [0, 4]
    assert not crowded.done()
    again = queue.next_batch(2, 0.0)
    assert again is not None
    assert again.sequence == 2
    assert [item.future for item in again.items] == [crowded, later]
    queue.answered(2, msgpack.packb([[0, None, 4, []], [0, 5]]))
    assert crowded.result() == [0, None, 4, []]


def test_a_whole_batch_travels_alone_as_it_is_and_gets_all_results(
    queue: WriteQueue, caller: Caller, loop: asyncio.AbstractEventLoop
) -> None:
    caller.put(b"a")
    whole = whole_batch(queue, loop, b"the bytes", 3)
    other = caller.put(b"b")
    queue.window = 3
    batches = [queue.next_batch(number, 0.0) for number in (1, 2, 3)]
    assert [len(batch.items) for batch in batches if batch is not None] == [1, 1, 1]
    assert batches[1] is not None
    assert batches[1].commands == b"the bytes"
    queue.answered(2, results(7, 8, 9))
    assert whole.result() == [[0, 7], [0, 8], [0, 9]]
    queue.answered(3, results(10))
    assert other.result() == [0, 10]


def test_safety_44_a_whole_batch_is_sent_again_unchanged_after_a_lost_connection(
    queue: WriteQueue, loop: asyncio.AbstractEventLoop
) -> None:
    whole = whole_batch(queue, loop, b"the bytes", 2)
    first = queue.next_batch(1, 0.0)
    queue.connection_lost()
    again = queue.next_batch(2, 0.0)
    assert again is first
    queue.answered(2, results(1, 2))
    assert whole.result() == [[0, 1], [0, 2]]


def test_a_whole_batch_with_the_wrong_number_of_results_is_of_unknown_outcome(
    queue: WriteQueue, loop: asyncio.AbstractEventLoop
) -> None:
    whole = whole_batch(queue, loop, b"the bytes", 2)
    queue.next_batch(1, 0.0)
    queue.answered(1, results(1))
    assert isinstance(whole.exception(), OutcomeUnknown)


def test_a_whole_batch_that_is_refused_for_good_has_its_error(
    queue: WriteQueue, loop: asyncio.AbstractEventLoop
) -> None:
    whole = whole_batch(queue, loop, b"the bytes", 2)
    queue.next_batch(1, 0.0)
    queue.rejected(1, InvalidRequest("no"))
    assert isinstance(whole.exception(), InvalidRequest)
    assert queue.idle
