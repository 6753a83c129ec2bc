"""Exactly once: a batch that is sent again is answered again, and not executed again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lattice_core.errors import Busy, InvalidRequest, OutcomeUnknown, SessionExpired
from lattice_core.kv import (
    BatchResult,
    BatchStatus,
    ClientBatch,
    SessionLimits,
    StateMachine,
    close_session,
    encode_batch,
    encode_payload,
    open_session,
    put,
    raise_for_status,
)

HOUR_MS = 60 * 60 * 1000


class Log:
    """A machine, fed one entry at a time."""

    def __init__(self, **limits: int) -> None:
        self.machine = StateMachine(session_limits=SessionLimits(**limits))
        self.time_ms = 0

    def append(self, *batches: ClientBatch) -> list[BatchResult]:
        machine = self.machine
        results = machine.apply(machine.applied_index + 1, 1, encode_payload(self.time_ms, batches))
        machine.check()
        return results

    def send(self, session_id: int, sequence: int, *ops: tuple[Any, ...], below: int = 0) -> BatchResult:
        (result,) = self.append(ClientBatch(session_id, sequence, below, encode_batch(ops)))
        return result

    def open(self) -> int:
        session_id: int = self.send(0, 0, open_session()).results[0][1]
        return session_id


def ok(*results: list[Any]) -> tuple[BatchStatus, list[list[Any]]]:
    return BatchStatus.OK, list(results)


def seen(result: BatchResult) -> tuple[BatchStatus, list[list[Any]]]:
    return result.status, result.results


def test_safety_43_a_retry_gets_the_first_result_and_is_not_executed() -> None:
    log = Log()
    session = log.open()
    first = log.send(session, 1, put(b"k", b"1"), put(b"k", b"2"))
    assert seen(first) == ok([0, 1], [0, 2])
    log.send(0, 0, put(b"k", b"other"))
    before = log.machine.store.state_hash
    assert log.send(session, 1, put(b"k", b"1"), put(b"k", b"2")) == first
    assert log.machine.revision == 3
    assert log.machine.store.state_hash == before


def test_safety_43_a_retry_within_the_same_entry_is_not_executed() -> None:
    log = Log()
    session = log.open()
    batch = ClientBatch(session, 1, 0, encode_batch([put(b"k", b"1")]))
    first, second = log.append(batch, batch)
    assert first == second
    assert log.machine.revision == 1


def test_safety_43_a_retry_is_recognised_by_its_sequence_not_by_its_bytes() -> None:
    log = Log()
    session = log.open()
    first = log.send(session, 1, put(b"k", b"1"))
    assert log.send(session, 1, put(b"k", b"changed")) == first
    assert log.machine.revision == 1


def test_without_a_session_every_batch_is_executed() -> None:
    log = Log()
    assert seen(log.send(0, 1, put(b"k", b"1"))) == ok([0, 1])
    assert seen(log.send(0, 1, put(b"k", b"1"))) == ok([0, 2])


def test_sequences_may_arrive_in_any_order() -> None:
    log = Log()
    session = log.open()
    assert [seen(log.send(session, n, put(b"k", b"v"))) for n in (3, 1, 2)] == [ok([0, n]) for n in (1, 2, 3)]
    assert [seen(log.send(session, n, put(b"k", b"v"))) for n in (1, 2, 3)] == [ok([0, n]) for n in (2, 3, 1)]


def test_what_is_acknowledged_is_forgotten_and_never_executed_again() -> None:
    log = Log()
    session = log.open()
    for sequence in range(5):
        log.send(session, sequence, put(b"k", b"v"))
    log.send(session, 5, put(b"k", b"v"), below=4)
    revision = log.machine.revision
    for sequence in range(4):
        assert log.send(session, sequence, put(b"k", b"v")) == BatchResult(BatchStatus.STALE)
    assert seen(log.send(session, 4, put(b"k", b"v"))) == ok([0, 5])
    assert log.machine.revision == revision


def test_a_late_message_does_not_move_the_watermark_back() -> None:
    log = Log()
    session = log.open()
    log.send(session, 9, put(b"k", b"v"), below=9)
    assert log.send(session, 8, put(b"k", b"v"), below=0).status == BatchStatus.STALE
    assert log.machine.revision == 1


def test_a_sequence_below_its_own_acknowledgement_is_stale() -> None:
    log = Log()
    assert log.send(log.open(), 3, put(b"k", b"v"), below=4).status == BatchStatus.STALE
    assert log.machine.revision == 0


def test_safety_43_an_unknown_session_executes_nothing() -> None:
    log = Log()
    for session in (1, 7, 2**64 - 1):
        assert log.send(session, 1, put(b"k", b"v")) == BatchResult(BatchStatus.EXPIRED)
    assert log.machine.revision == 0


def test_safety_43_an_expired_session_executes_nothing_not_even_a_retry() -> None:
    log = Log()
    session = log.open()
    log.send(session, 1, put(b"k", b"v"))
    log.time_ms = HOUR_MS + 1
    assert log.send(session, 1, put(b"k", b"v")).status == BatchStatus.EXPIRED
    assert log.send(session, 2, put(b"k", b"v")).status == BatchStatus.EXPIRED
    assert log.machine.revision == 1


def test_a_session_lives_for_exactly_its_time_after_its_last_use() -> None:
    log = Log()
    session = log.open()
    for use in (1, 2, 3):
        log.time_ms = use * HOUR_MS
        assert log.send(session, use, put(b"k", b"v")).status == BatchStatus.OK
    log.time_ms += HOUR_MS + 1
    assert log.send(session, 4, put(b"k", b"v")).status == BatchStatus.EXPIRED


def test_a_retry_and_a_stale_sequence_are_uses_too() -> None:
    log = Log()
    session = log.open()
    log.send(session, 1, put(b"k", b"v"), below=1)
    log.time_ms = HOUR_MS
    assert log.send(session, 1, put(b"k", b"v")).status == BatchStatus.OK
    log.time_ms = 2 * HOUR_MS
    assert log.send(session, 0, put(b"k", b"v")).status == BatchStatus.STALE
    log.time_ms = 3 * HOUR_MS
    assert log.send(session, 2, put(b"k", b"v")).status == BatchStatus.OK


def test_safety_50_logged_time_never_goes_back() -> None:
    """A new leader's clock is an hour behind: nothing lives longer or expires sooner for that."""
    log = Log()
    log.time_ms = 5 * HOUR_MS
    session = log.open()
    log.time_ms = 4 * HOUR_MS
    assert log.send(session, 1, put(b"k", b"v")).status == BatchStatus.OK
    assert log.machine.time_ms == 5 * HOUR_MS
    log.time_ms = 6 * HOUR_MS
    assert log.send(session, 2, put(b"k", b"v")).status == BatchStatus.OK
    log.time_ms = 7 * HOUR_MS + 1
    assert log.send(session, 3, put(b"k", b"v")).status == BatchStatus.EXPIRED


def test_an_entry_without_batches_only_moves_time() -> None:
    log = Log()
    session = log.open()
    log.time_ms = HOUR_MS + 1
    assert log.append() == []
    assert session not in log.machine.sessions


def test_ids_are_never_used_twice() -> None:
    log = Log(max_sessions=2)
    opened = [log.open() for _ in range(5)]
    assert log.send(0, 0, close_session(opened[-1])).results == [[0, True]]
    opened.append(log.open())
    assert opened == [1, 2, 3, 4, 5, 6]


def test_the_least_recently_used_session_makes_room() -> None:
    log = Log(max_sessions=3)
    a, b, c = log.open(), log.open(), log.open()
    log.send(a, 1, put(b"k", b"v"))
    d = log.open()
    assert [session in log.machine.sessions for session in (a, b, c, d)] == [True, False, True, True]


def test_a_full_window_refuses_new_sequences_and_still_answers_retries() -> None:
    log = Log(window_batches=3)
    session = log.open()
    for sequence in (1, 2, 3):
        log.send(session, sequence, put(b"k", b"v"))
    assert log.send(session, 4, put(b"k", b"v")) == BatchResult(BatchStatus.WINDOW)
    assert seen(log.send(session, 2, put(b"k", b"v"))) == ok([0, 2])
    assert log.machine.revision == 3
    assert seen(log.send(session, 4, put(b"k", b"v"), below=2)) == ok([0, 4])


def test_the_window_is_bounded_in_bytes_too() -> None:
    log = Log(max_session_bytes=200)
    session = log.open()
    assert log.send(session, 1, put(b"k", b"v")).status == BatchStatus.OK
    assert log.send(session, 2, *[put(b"k", b"v")] * 50).status == BatchStatus.OK
    assert log.send(session, 3, put(b"k", b"v")).status == BatchStatus.WINDOW


def test_all_results_together_are_bounded_at_the_cost_of_the_least_recently_used_that_holds_any() -> None:
    log = Log(max_total_bytes=1100, max_session_bytes=400)  # room for the results of three sessions, not four
    idle, *sessions = [log.open() for _ in range(6)]
    for session in sessions:
        for sequence in (1, 2):
            assert log.send(session, sequence, *[put(b"k", b"v")] * 20).status == BatchStatus.OK
    assert log.machine.sessions.stored_bytes <= 1100
    assert idle in log.machine.sessions
    assert [session in log.machine.sessions for session in sessions] == [False, False, True, True, True]


def test_a_retry_keeps_a_sessions_results_from_being_the_first_to_go() -> None:
    log = Log(max_total_bytes=400, max_session_bytes=200)
    a, b, c = log.open(), log.open(), log.open()
    for session in (a, b):
        log.send(session, 1, *[put(b"k", b"v")] * 10)
    log.send(a, 1, put(b"k", b"v"))
    for sequence in (1, 2):
        log.send(c, sequence, *[put(b"k", b"v")] * 10)
    assert [session in log.machine.sessions for session in (a, b, c)] == [True, False, True]


def test_closing_is_final_and_may_be_repeated() -> None:
    log = Log()
    session = log.open()
    assert log.send(0, 0, close_session(session)).results == [[0, True]]
    assert log.send(0, 0, close_session(session)).results == [[0, False]]
    assert log.send(session, 1, put(b"k", b"v")).status == BatchStatus.EXPIRED


def test_a_batch_may_close_the_session_it_runs_in() -> None:
    log = Log()
    session = log.open()
    assert seen(log.send(session, 1, put(b"k", b"v"), close_session(session))) == ok([0, 1], [0, True])
    assert log.send(session, 1, put(b"k", b"v")).status == BatchStatus.EXPIRED
    assert log.machine.revision == 1


def test_a_batch_whose_new_session_evicts_its_own_is_still_answered() -> None:
    log = Log(max_sessions=1)
    session = log.open()
    assert seen(log.send(session, 1, open_session(), put(b"k", b"v"))) == ok([0, 2], [0, 1])
    assert log.send(session, 1, put(b"k", b"v")).status == BatchStatus.EXPIRED


def test_safety_43_a_restored_machine_answers_retries_as_before() -> None:
    log = Log(window_batches=2)
    session, idle = log.open(), log.open()
    first = log.send(session, 1, put(b"k", b"v"))
    log.machine = StateMachine.from_chunks(log.machine.capture().to_chunks())
    assert log.send(session, 1, put(b"k", b"v")) == first
    assert log.machine.revision == 1
    assert idle in log.machine.sessions
    assert log.open() == 3
    log.send(session, 2, put(b"k", b"v"))
    assert log.send(session, 3, put(b"k", b"v")).status == BatchStatus.WINDOW  # the limits came along


def test_safety_25_a_capture_holds_sessions_as_they_were() -> None:
    log = Log()
    session, other = log.open(), log.open()
    log.send(session, 1, put(b"k", b"1"))
    captured_hash = log.machine.state_hash
    capture = log.machine.capture()
    log.time_ms = HOUR_MS
    log.send(session, 2, put(b"k", b"2"), below=2)
    log.send(0, 0, close_session(other))
    later = log.machine.capture()
    log.send(session, 3, put(b"k", b"3"))
    restored = StateMachine.from_chunks(capture.to_chunks())
    assert restored.state_hash == captured_hash != log.machine.state_hash
    restored.check()
    log.machine = restored
    log.time_ms = 0
    assert seen(log.send(session, 1, put(b"k", b"1"))) == ok([0, 1])
    log.machine = StateMachine.from_chunks(later.to_chunks())
    assert log.send(session, 1, put(b"k", b"1")).status == BatchStatus.STALE
    assert seen(log.send(session, 2, put(b"k", b"2"))) == ok([0, 2])


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (BatchStatus.EXPIRED, SessionExpired),
        (BatchStatus.STALE, OutcomeUnknown),
        (BatchStatus.MALFORMED, InvalidRequest),
        (BatchStatus.WINDOW, Busy),
        (99, OutcomeUnknown),
    ],
)
def test_every_status_but_ok_is_an_error_named_for_the_next_action(status: int, error: type[Exception]) -> None:
    raise_for_status(BatchStatus.OK)
    with pytest.raises(error):
        raise_for_status(status)


ATTEMPTS = st.tuples(
    st.integers(1, 4),  # session
    st.integers(1, 8),  # sequence
    st.integers(0, 8),  # acknowledged below
    st.integers(0, 30),  # time
    st.booleans(),  # open another session first
    st.booleans(),  # restart from a snapshot first
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ATTEMPTS, max_size=40))
def test_safety_43_no_history_executes_a_sequence_twice(
    attempts: list[tuple[int, int, int, int, bool, bool]],
) -> None:
    log = Log(max_sessions=3, window_batches=3, ttl_ms=20)
    log.open()
    executed: dict[tuple[int, int], BatchResult] = {}
    for session, sequence, below, time_ms, opens, restarts in attempts:
        log.time_ms = time_ms
        if opens:
            log.open()
        if restarts:
            log.machine = StateMachine.from_chunks(log.machine.capture().to_chunks(2))
        revision = log.machine.revision
        result = log.send(session, sequence, put(b"%d" % session, b"%d" % sequence), below=below)
        if log.machine.revision > revision:
            assert result.status == BatchStatus.OK
            assert (session, sequence) not in executed, "executed twice"
            executed[session, sequence] = result
        elif result.status == BatchStatus.OK:
            assert result == executed[session, sequence]
