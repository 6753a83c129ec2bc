"""Executing transactions: their semantics one by one, their limits, sessions and snapshots. Combinations are
test_store_model.py's."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from typing import Any

import msgpack
import pytest

from lattice_core.errors import Busy, TooLarge, UnknownCommand
from lattice_core.kv import (
    BatchStatus,
    ClientBatch,
    HistoryLimits,
    Op,
    StateMachine,
    TxnResult,
    delete_range,
    encode_batch,
    encode_payload,
    open_session,
    put,
    read_result,
    transaction,
    txn,
)
from lattice_core.kv.range_deletion import STEP_KEYS


class Machine:
    """A state machine and its log."""

    def __init__(self, **options: Any) -> None:
        self.machine = StateMachine(**options)

    def batch(self, *ops: Op, session: int = 0, sequence: int = 0, below: int = 0) -> list[Any]:
        machine = self.machine
        batch = ClientBatch(session, sequence, below, encode_batch(ops))
        (result,) = machine.apply(machine.applied_index + 1, 1, encode_payload(0, [batch]))
        assert result.status is BatchStatus.OK
        return result.results

    def txn(self, compares: Any, then: Any, otherwise: Any = ()) -> Any:
        (result,) = self.batch(transaction(compares, then, otherwise))
        return result

    def value(self, key: bytes) -> bytes | None:
        found = self.machine.store.get(key)
        return found.value if found is not None else None


def stocked() -> Machine:
    """apples at revision 1 and 3 (version 2), pears at 2."""
    machine = Machine()
    machine.batch(put(b"apples", b"4"), put(b"pears", b"9"), put(b"apples", b"5"))
    return machine


def compare(target: int, relation: int, operand: bytes | int, key: bytes = b"apples", end: bytes | None = None) -> Any:
    return (target, relation, key, end, operand)


@pytest.mark.parametrize(
    ("target", "found"), [(txn.VALUE, b"5"), (txn.MOD_REVISION, 3), (txn.CREATE_REVISION, 1), (txn.VERSION, 2)]
)
def test_each_target_is_compared_by_each_relation(target: int, found: bytes | int) -> None:
    below, above = (b"4", b"50") if isinstance(found, bytes) else (found - 1, found + 1)
    machine = stocked()
    for relation, holds in (
        (txn.EQUAL, (False, True, False)),
        (txn.NOT_EQUAL, (True, False, True)),
        (txn.LESS, (False, False, True)),
        (txn.GREATER, (True, False, False)),
    ):
        for operand, expected in zip((below, found, above), holds, strict=True):
            failed = machine.txn([compare(target, relation, operand)], [])[1]
            assert (failed is None) == expected


def test_a_key_that_does_not_exist_has_no_value_and_revisions_of_zero() -> None:
    machine = stocked()
    for relation in (txn.EQUAL, txn.NOT_EQUAL, txn.LESS, txn.GREATER):
        for operand in (b"", b"5"):
            assert machine.txn([compare(txn.VALUE, relation, operand, key=b"plums")], [])[1] == 0
    for target in (txn.MOD_REVISION, txn.CREATE_REVISION, txn.VERSION):
        assert machine.txn([compare(target, txn.EQUAL, 0, key=b"plums")], [])[1] is None
        assert machine.txn([compare(target, txn.LESS, 1, key=b"plums")], [])[1] is None
        assert machine.txn([compare(target, txn.GREATER, 0, key=b"plums")], [])[1] == 0


def test_over_a_range_every_key_has_to_satisfy_the_comparison() -> None:
    machine = stocked()
    all_of = {"key": b"a", "end": b"q"}
    assert machine.txn([compare(txn.MOD_REVISION, txn.GREATER, 1, **all_of)], [])[1] is None
    assert machine.txn([compare(txn.MOD_REVISION, txn.GREATER, 2, **all_of)], [])[1] == 0
    assert machine.txn([compare(txn.VERSION, txn.GREATER, 0, **all_of)], [])[1] is None, "there is one"
    assert machine.txn([compare(txn.VERSION, txn.NOT_EQUAL, 0, **all_of)], [])[1] is None
    assert machine.txn([compare(txn.VERSION, txn.EQUAL, 0, **all_of)], [])[1] == 0, "there is none"
    none_of = {"key": b"b", "end": b"c"}
    assert machine.txn([compare(txn.VERSION, txn.EQUAL, 0, **none_of)], [])[1] is None
    assert machine.txn([compare(txn.VERSION, txn.GREATER, 0, **none_of)], [])[1] == 0
    assert machine.txn([compare(txn.VALUE, txn.NOT_EQUAL, b"x", **none_of)], [])[1] == 0
    assert machine.txn([compare(txn.VERSION, txn.GREATER, 0, key=b"", end=b"")], [])[1] is None


def test_the_first_comparison_that_fails_is_named_and_the_other_branch_runs() -> None:
    machine = stocked()
    holds, fails = compare(txn.VALUE, txn.EQUAL, b"5"), compare(txn.VALUE, txn.EQUAL, b"6")
    then, otherwise = [(txn.PUT, b"then", b"")], [(txn.PUT, b"else", b"")]
    assert machine.txn([holds, fails, fails], then, otherwise) == [0, 1, 4, [[0]]]
    assert (machine.value(b"then"), machine.value(b"else")) == (None, b"")
    assert machine.txn([holds, holds], then, otherwise) == [0, None, 5, [[0]]]
    assert machine.value(b"then") == b""


def test_all_writes_of_a_transaction_are_one_revision() -> None:
    machine = stocked()
    ops = [(txn.PUT, b"apples", b"3"), (txn.PUT, b"plums", b"2"), (txn.DELETE, b"pears")]
    assert machine.txn([], ops) == [0, None, 4, [[0], [0], [0, 1]]]
    store = machine.machine.store
    assert store.revision == 4
    assert [(kv.key, kv.create_revision, kv.mod_revision, kv.version) for kv in store.range(b"", b"").kvs] == [
        (b"apples", 1, 4, 3),
        (b"plums", 4, 4, 1),
    ]
    assert [kv.key for kv in store.range(b"", b"", revision=3).kvs] == [b"apples", b"pears"], "half of it was never"
    assert {change[0] for change in store.changes_since(3)} == {4}
    machine.machine.check()


def test_a_transaction_that_writes_nothing_is_no_revision() -> None:
    machine = stocked()
    assert machine.txn([], [(txn.DELETE, b"plums"), (txn.DELETE_RANGE, b"x", b"y"), (txn.GET, b"x")])[2] == 3
    assert machine.machine.revision == 3
    assert machine.txn([compare(txn.VERSION, txn.EQUAL, 99)], [(txn.PUT, b"a", b"")])[2] == 3


def test_reads_inside_see_the_state_of_that_point() -> None:
    machine = stocked()
    before = [b"apples", b"5", 1, 3, 2, None]
    after = [b"apples", b"x", 1, 4, 3, None]
    plums = [b"plums", b"", 4, 4, 1, None]
    ops = [
        (txn.GET, b"apples"),
        (txn.PUT, b"apples", b"x"),
        (txn.GET, b"apples"),
        (txn.PUT, b"plums", b""),
        (txn.RANGE, b"", b"", 0, 0),
        (txn.DELETE_RANGE, b"p", b"pf"),
        (txn.RANGE, b"", b"", 1, txn.REVERSE | txn.KEYS_ONLY),
        (txn.RANGE, b"", b"", 0, txn.COUNT_ONLY),
        (txn.GET, b"pears"),
    ]
    results = machine.txn([], ops)[3]
    pears = [b"pears", b"9", 2, 2, 1, None]
    assert results == [
        [0, before],
        [0],
        [0, after],
        [0],
        [0, [after, pears, plums], False, 3],
        [0, 1],
        [0, [[*plums[:1], b"", *plums[2:]]], True, 2],
        [0, [], False, 2],
        [0, None],
    ]


def test_transactions_and_other_operations_in_one_batch_see_each_other() -> None:
    machine = stocked()
    absent = compare(txn.VERSION, txn.EQUAL, 0, key=b"lock")
    take = transaction([absent], [(txn.PUT, b"lock", b"me")], [(txn.GET, b"lock")])
    results = machine.batch(take, take, put(b"lock", b"you"), take, delete_range(b"", b""), take)
    assert [result[:2] for result in results] == [[0, None], [0, 0], [0, 5], [0, 0], [0, 3], [0, None]]
    assert results[3][3][0][1][1] == b"you"
    assert machine.value(b"lock") == b"me"


# -- limits of what it comes to -------------------------------------------------------------------


def many(keys: int, value: bytes = b"") -> Machine:
    machine = Machine(history=HistoryLimits(max_changes=100_000))
    for first in range(0, keys, 4000):
        machine.batch(*[put(b"%06d" % n, value) for n in range(first, min(keys, first + 4000))])
    return machine


def typed(op: Op, result: Any) -> TxnResult:
    found = read_result(op, result)
    assert isinstance(found, TxnResult)
    return found


@pytest.mark.parametrize(
    "op",
    [
        (txn.RANGE, b"", b"", 0, txn.KEYS_ONLY),
        (txn.RANGE, b"", b"", txn.MAX_KEYS + 1, txn.KEYS_ONLY),
        (txn.DELETE_RANGE, b"", b""),
    ],
)
def test_a_transaction_that_visits_too_many_keys_is_refused_whole(op: Any) -> None:
    machine = many(txn.MAX_KEYS + 1)
    before = (machine.machine.state_hash, machine.machine.revision)
    written = transaction([], [(txn.PUT, b"a", b"1"), (txn.DELETE, b"000000"), (txn.PUT, b"000001", b""), op])
    (result,) = machine.batch(written)
    assert result[:3] == [2, txn.KEYS_LIMIT, txn.MAX_KEYS]
    assert (machine.machine.state_hash, machine.machine.revision) == before
    machine.machine.check()
    with pytest.raises(TooLarge, match="nothing of it was applied") as caught:
        typed(written, result)
    assert caught.value.limit == txn.MAX_KEYS
    assert caught.value.actual > txn.MAX_KEYS
    assert "limit" in (caught.value.hint or "")


def test_a_comparison_over_a_range_is_bounded_in_the_keys_that_it_has_to_look_at() -> None:
    machine = many(txn.MAX_KEYS + 1)
    whole = {"key": b"", "end": b""}
    assert machine.txn([compare(txn.VALUE, txn.EQUAL, b"", **whole)], [])[:3] == [2, txn.KEYS_LIMIT, txn.MAX_KEYS]
    assert machine.txn([compare(txn.VALUE, txn.EQUAL, b"x", **whole)], [])[1] == 0, "the first key decides"
    assert machine.txn([compare(txn.VERSION, txn.GREATER, 0, **whole)], [])[1] is None, "any key decides"
    assert machine.txn([compare(txn.VERSION, txn.EQUAL, 0, **whole)], [])[1] == 0


def test_as_many_keys_as_the_limit_are_visited() -> None:
    machine = many(txn.MAX_KEYS)
    result = machine.txn([], [(txn.RANGE, b"", b"", 0, txn.COUNT_ONLY), (txn.DELETE_RANGE, b"", b"")])
    assert result[3] == [[0, [], False, txn.MAX_KEYS], [0, txn.MAX_KEYS]]
    assert result[2] == txn.MAX_KEYS + 1
    store = machine.machine.store
    assert (len(store), store.range(b"", b"", revision=txn.MAX_KEYS).count) == (0, txn.MAX_KEYS)
    machine.machine.check()


def test_the_bytes_of_a_transactions_answers_are_limited() -> None:
    machine = Machine()
    for n in range(3):
        machine.batch(put(b"%d" % n, bytes(900_000)))
    two, three = [[(txn.GET, b"%d" % n) for n in range(count)] for count in (2, 3)]
    assert len(machine.txn([], two)[3]) == 2
    refused = [2, txn.BYTES_LIMIT, txn.MAX_ANSWER_BYTES, 2_700_147]
    assert machine.txn([], three) == refused
    assert machine.txn([], [(txn.PUT, b"x", b""), (txn.RANGE, b"0", b"3", 0, 0)]) == refused
    assert machine.value(b"x") is None
    assert len(machine.txn([], [(txn.RANGE, b"", b"", 0, txn.KEYS_ONLY)])[3][0][1]) == 3


def test_what_finds_no_room_beside_the_others_in_its_batch_is_to_be_asked_again() -> None:
    machine = Machine()
    machine.batch(put(b"k", bytes(900_000)))
    get = transaction([], [(txn.PUT, b"count", b""), (txn.GET, b"k")])
    results = machine.batch(get, get, get, put(b"other", b""), transaction([], [(txn.GET, b"other")]))
    assert [result[0] for result in results] == [0, 0, 3, 0, 0]
    found = machine.machine.store.get(b"count")
    assert found is not None
    assert found.version == 2, "the third was not executed"
    with pytest.raises(Busy, match="no room"):
        read_result(get, results[2])
    assert machine.batch(get)[0][0] == 0


def test_refused_transactions_do_not_make_a_batch_long() -> None:
    """Each of these would visit 10,001 keys; the first is refused for it, and then the batch's room is used up."""
    machine = many(txn.MAX_KEYS + 1)
    scan = transaction([], [(txn.RANGE, b"", b"", 0, txn.KEYS_ONLY)])
    results = machine.batch(*[scan] * 50)
    assert [result[0] for result in results] == [2] + [3] * 49
    assert machine.batch(transaction([], [(txn.GET, b"000001")]))[0][0] == 0, "the next batch has its own"


def test_a_large_transaction_leaves_history_in_bounds() -> None:
    machine = Machine(history=HistoryLimits(max_changes=200))
    for round_ in range(5):
        machine.txn([], [(txn.PUT, b"%04d" % n, b"%d" % round_) for n in range(500)])
        machine.machine.check()
    store = machine.machine.store
    assert store.oldest_revision == 5
    machine.batch(put(b"a", b""))
    assert store.range(b"", b"", revision=5).count == 500


# -- sessions, snapshots --------------------------------------------------------------------------


def test_safety_43_a_transaction_sent_again_is_answered_with_its_first_result_even_after_a_snapshot() -> None:
    machine = stocked()
    session = machine.batch(open_session())[0][1]
    buy = transaction(
        [compare(txn.VALUE, txn.EQUAL, b"5")], [(txn.PUT, b"apples", b"4"), (txn.GET, b"pears")], [(txn.GET, b"apples")]
    )
    first = machine.batch(buy, session=session, sequence=1, below=1)
    assert first[0][:3] == [0, None, 4]
    assert machine.batch(buy, session=session, sequence=1, below=1) == first
    chunks = [msgpack.unpackb(msgpack.packb(chunk)) for chunk in machine.machine.capture().to_chunks()]
    machine.machine = StateMachine.from_chunks(chunks)
    assert machine.batch(buy, session=session, sequence=1, below=1) == first
    assert machine.machine.revision == 4
    assert machine.batch(buy, session=session, sequence=2, below=1)[0][:2] == [0, 0], "a new one is executed"


def test_safety_45_an_unknown_operation_in_a_transaction_halts_before_any_of_its_entry_is_executed() -> None:
    machine = stocked().machine
    before = machine.state_hash
    newer = msgpack.packb([[6, [], [[1, b"a", b""], [99, b"k"]], []]])
    batches = [ClientBatch(0, 0, 0, encode_batch([put(b"a", b"1")])), ClientBatch(0, 0, 0, newer)]
    with pytest.raises(UnknownCommand):
        machine.apply(2, 1, encode_payload(0, batches))
    assert (machine.state_hash, machine.applied_index) == (before, 1)


# -- deleting very many keys ----------------------------------------------------------------------


def test_a_large_range_is_deleted_in_steps_and_nobody_sees_half_of_it() -> None:
    keys = 3 * STEP_KEYS + 50
    machine = many(keys).machine
    store, before = machine.store, machine.revision
    ops = [put(b"first", b""), delete_range(b"000010", b"a"), put(b"last", b"")]
    batches = [ClientBatch(0, 0, 0, encode_batch(ops)), ClientBatch(0, 0, 0, encode_batch([put(b"z", b"")]))]
    pauses = 0
    results = []
    for result in machine.begin(machine.applied_index + 1, 1, encode_payload(0, batches)):
        if result is None:
            pauses += 1
            assert store.range(b"0", b"1").count == 10
            assert store.get(b"000010") is None
            assert store.get(b"%06d" % (keys - 1)) is None, "it is still there physically"
            assert store.get(b"last") is None
            assert len(store) == 11
            assert store.get(b"000010", before) is not None
            assert store.range(b"", b"", revision=before).count == keys
        else:
            results.append(result.results)
    assert pauses == 3
    assert results == [[[0, before + 1], [0, keys - 10, before + 2], [0, before + 3]], [[0, before + 4]]]
    assert [kv.key for kv in store.range(b"0", b"").kvs][-4:] == [b"000009", b"first", b"last", b"z"]
    machine.check()


def test_safety_45_deleting_in_steps_is_the_same_as_at_once() -> None:
    def deleted(history: HistoryLimits, *, view: bool) -> StateMachine:
        machine = StateMachine(history=history, digest_log=True)
        for first in range(0, 9000, 3000):
            ops = [put(b"%06d" % n, b"%d" % n) for n in range(first, first + 3000)]
            machine.apply(machine.applied_index + 1, 1, encode_payload(0, [ClientBatch(0, 0, 0, encode_batch(ops))]))
        opened = machine.store.view() if view else None
        op = encode_batch([delete_range(b"000100", b"008900")])
        machine.apply(machine.applied_index + 1, 1, encode_payload(0, [ClientBatch(0, 0, 0, op)]))
        if opened is not None:
            assert len(opened.read_slice(10_000)) == 9000
        machine.check()
        return machine

    # One keeps all changes, one has no room for them and takes the short way.
    kept = deleted(HistoryLimits(max_changes=100_000), view=True)
    forgot = deleted(HistoryLimits(max_changes=100), view=True)
    plain = deleted(HistoryLimits(max_changes=100), view=False)
    assert (kept.store.oldest_revision, forgot.store.oldest_revision) == (0, 9001)
    assert kept.state_hash == forgot.state_hash == plain.state_hash
    assert kept.applied_digest == forgot.applied_digest == plain.applied_digest


# -- determinism ----------------------------------------------------------------------------------

SCRIPT = """
import random
from lattice_core.kv import *
chance = random.Random(11)
machine = StateMachine(digest_log=True, session_limits=SessionLimits(max_sessions=5))
def key(): return b"k%d" % chance.randrange(80)
def compare():
    end = chance.choice([None, None, key()])
    if chance.random() < 0.5:
        return (1, chance.randrange(1, 5), key(), end, b"%d" % chance.randrange(9))
    return (chance.randrange(2, 5), chance.randrange(1, 5), key(), end, chance.randrange(4))
def inner():
    return chance.choice([(1, key(), b"%d" % chance.randrange(9)), (1, key(), b""), (3, key()), (4, key(), key()),
                          (64, key()), (65, key(), b"", chance.randrange(9), chance.randrange(8))])
def an_op():
    if chance.random() < 0.1:
        return chance.choice([open_session(), delete_range(key(), key())])
    return transaction([compare() for _ in range(chance.randrange(3))],
                       [inner() for _ in range(chance.randrange(6))], [inner() for _ in range(chance.randrange(6))])
for index in range(1, 401):
    session = chance.choice([0, max(0, machine.sessions.next_id - 1)])
    batches = [ClientBatch(session, chance.randrange(1, 30), 0, encode_batch([an_op() for _ in range(3)]))]
    machine.apply(index, 1, encode_payload(index, batches))
machine.check()
print(machine.revision, machine.state_hash, machine.applied_digest, len(machine.store))
"""


def test_safety_45_transactions_come_out_the_same_in_every_process() -> None:
    root = pathlib.Path(__file__).parents[2]
    printed = set()
    for seed in ("0", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        printed.add(done.stdout)
    # Pinned: members of different versions have to agree on what a transaction does and answers.
    assert printed == {"627 7838529370812112623 2366956180 10\n"}
