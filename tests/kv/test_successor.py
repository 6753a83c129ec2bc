"""One cluster's state as another's first: the same keys, and numbers that nobody has seen."""

from __future__ import annotations

import pytest

from lattice_core.errors import InvalidRequest, RevisionCompacted
from lattice_core.kv import (
    BatchResult,
    BatchStatus,
    ClientBatch,
    HistoryLimits,
    StateMachine,
    delete,
    encode_batch,
    encode_payload,
    open_session,
    put,
)
from lattice_core.kv.successor import MAX_GENERATION, STEP, succeed


def send(machine: StateMachine, *ops: tuple[object, ...], session: int = 0, sequence: int = 0) -> BatchResult:
    batch = ClientBatch(session, sequence, 0, encode_batch(ops))
    (result,) = machine.apply(machine.applied_index + 1, 1, encode_payload(1000, [batch]))
    return result


def machine_with_a_past(keys: int = 300) -> StateMachine:
    machine = StateMachine(history=HistoryLimits(max_changes=400))
    session = send(machine, open_session()).results[0][1]
    for number in range(keys):
        send(machine, put(b"key%d" % number, b"value"), session=session, sequence=number + 1)
    send(machine, put(b"key0", b"again"), delete(b"key1"))
    return machine


def test_keys_stay_as_they_are_and_the_next_write_is_above_anything_the_old_cluster_may_have_written() -> None:
    machine = machine_with_a_past()
    before = machine.store.range(b"", b"").kvs
    old = machine.revision
    succeed(machine)
    assert machine.store.range(b"", b"").kvs == before
    assert send(machine, put(b"new", b"")).results[0][1] == old + STEP + 1
    found = machine.store.get(b"new")
    assert found is not None
    assert (found.create_revision, found.mod_revision, found.version) == (old + STEP + 1, old + STEP + 1, 1)
    machine.check()


def test_revisions_between_are_compacted_so_that_no_reader_takes_two_histories_for_one() -> None:
    machine = machine_with_a_past()
    old = machine.revision
    assert machine.store.get(b"key1", old - 1) is not None, "the past was readable before"
    succeed(machine)
    for revision in (0, 1, old - 1, old, old + 1, old + STEP - 1):
        with pytest.raises(RevisionCompacted) as caught:
            machine.store.get(b"key0", revision)
        assert caught.value.compacted_revision == old + STEP - 1
        with pytest.raises(RevisionCompacted):
            machine.store.changes_since(revision)
    assert machine.store.get(b"key1", old + STEP) is None
    with pytest.raises(InvalidRequest, match="in the future"):
        machine.store.get(b"key0", old + STEP + 1)


def test_the_cut_stays_where_it_is_when_the_new_history_grows_and_is_trimmed() -> None:
    machine = machine_with_a_past()
    cut = machine.revision + STEP
    succeed(machine)
    for number in range(1000):
        send(machine, put(b"k%d" % number, b"v"))
        assert machine.store.oldest_revision >= cut
    machine.check()
    assert machine.store.oldest_revision > cut


def test_43_a_session_of_the_old_cluster_has_expired_and_its_number_is_not_given_out_again() -> None:
    machine = machine_with_a_past()
    (old,) = (session.id for session in machine.sessions.capture())
    next_id = machine.sessions.next_id
    succeed(machine)
    revision = machine.revision
    for sequence in (1, 300, 301):
        answer = send(machine, put(b"twice", b""), session=old, sequence=sequence)
        assert answer.status is BatchStatus.EXPIRED
    # Sessions that the old cluster has opened since the state was saved are not known here either.
    assert send(machine, put(b"twice", b""), session=next_id, sequence=1).status is BatchStatus.EXPIRED
    assert machine.revision == revision, "nothing was executed"
    assert send(machine, open_session()).results[0][1] == next_id + STEP
    machine.check()


def test_equal_states_stay_equal_and_generations_keep_their_distance() -> None:
    hashes = set()
    for generation in (1, 2, 3):
        twins = [machine_with_a_past(), machine_with_a_past()]
        for machine in twins:
            succeed(machine, generation)
            machine.check()
        assert twins[0].state_hash == twins[1].state_hash == twins[0].full_state_hash()
        assert twins[0].revision == machine_with_a_past().revision + generation * STEP
        hashes.add(twins[0].state_hash)
    assert len(hashes) == 3
    for generation in (0, -1, MAX_GENERATION + 1):
        with pytest.raises(InvalidRequest, match="generation"):
            succeed(StateMachine(), generation)


def test_the_new_state_survives_its_own_snapshot() -> None:
    machine = machine_with_a_past()
    succeed(machine)
    again = StateMachine.from_chunks(machine.capture().to_chunks())
    assert again.state_hash == machine.state_hash
    assert again.store.oldest_revision == again.revision == machine.revision
    assert again.sessions.next_id == machine.sessions.next_id
