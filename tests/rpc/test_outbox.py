"""What waits for a peer is bounded, and heartbeats are never behind it (SAFETY 15, 49)."""

from __future__ import annotations

from lattice_core.raft.messages import AppendEntries, Heartbeat, VoteRequest
from lattice_core.raft.types import Entry
from lattice_core.rpc.outbox import MAX_ENVELOPE_BYTES, MAX_URGENT, Outbox


def append(index: int, size: int) -> AppendEntries:
    return AppendEntries(1, 2, 1, index - 1, 1, (Entry(index, 1, bytes(size)),), 0, 0)


def heartbeat(round_: int) -> Heartbeat:
    return Heartbeat(1, 2, 1, 0, round_)


def test_heartbeats_and_votes_leave_before_the_appends_that_came_first() -> None:
    outbox = Outbox(lambda: None)
    vote = VoteRequest(1, 2, 1, 0, 0, False)
    for message in (append(1, 10), heartbeat(1), append(2, 10), vote):
        outbox.put(message)
    assert outbox.take() == [heartbeat(1), vote, append(1, 10), append(2, 10)]
    assert len(outbox) == 0


def test_an_envelope_is_bounded_and_a_single_larger_append_goes_alone() -> None:
    outbox = Outbox(lambda: None)
    big = append(1, MAX_ENVELOPE_BYTES + 1)
    outbox.put(big)
    outbox.put(append(2, 10))
    assert outbox.take() == [big]
    assert outbox.take() == [append(2, 10)]


def test_past_the_bound_appends_are_dropped_and_reported_and_heartbeats_stay() -> None:
    dropped: list[str] = []
    outbox = Outbox(lambda: dropped.append("unreachable"), max_bulk_bytes=10_500)
    for index in range(1, 9):
        outbox.put(append(index, 1000))
    outbox.put(heartbeat(1))
    outbox.put(append(9, 1000))
    assert not dropped
    outbox.put(append(10, 1000))
    assert dropped == ["unreachable"]
    assert outbox.bulk_bytes == 0
    assert outbox.take() == [heartbeat(1)]


def test_urgent_messages_are_bounded_by_forgetting_the_oldest() -> None:
    outbox = Outbox(lambda: None)
    for round_ in range(MAX_URGENT + 5):
        outbox.put(heartbeat(round_))
    assert outbox.take() == [heartbeat(round_) for round_ in range(5, MAX_URGENT + 5)]
