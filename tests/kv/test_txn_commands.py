"""Transactions as they are written: what is one, what a later version may have meant, what a leader refuses."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice_core.errors import InvalidRequest, TooLarge, UnknownCommand
from lattice_core.kv import (
    MAX_BATCH_OPS,
    MAX_KEY_BYTES,
    MAX_VALUE_BYTES,
    ClientBatch,
    decode_batch,
    decode_payload,
    encode_batch,
    encode_payload,
    put,
    transaction,
    txn,
    validate_op,
)
from lattice_core.kv.operands import MAX_INTEGER

KEYS = st.binary(min_size=1, max_size=10)
BOUNDS = st.binary(max_size=10)
NUMBERS = st.integers(0, MAX_INTEGER)
RELATIONS = st.integers(1, 4)
COMPARES = st.one_of(
    st.tuples(st.just(txn.VALUE), RELATIONS, KEYS, st.none(), BOUNDS),
    st.tuples(st.just(txn.VALUE), RELATIONS, BOUNDS, BOUNDS, BOUNDS),
    st.tuples(st.integers(2, 4), RELATIONS, KEYS, st.none(), NUMBERS),
    st.tuples(st.integers(2, 4), RELATIONS, BOUNDS, BOUNDS, NUMBERS),
)
READS = st.one_of(
    st.tuples(st.just(txn.GET), KEYS),
    st.tuples(st.just(txn.RANGE), BOUNDS, BOUNDS, NUMBERS, st.integers(0, 7)),
)
DELETES = st.tuples(st.just(txn.DELETE), KEYS) | st.tuples(st.just(txn.DELETE_RANGE), BOUNDS, BOUNDS)
BRANCHES = st.lists(READS | DELETES, min_size=1, max_size=5)


def txn_of(compare: Any = None, then: Any = None) -> Any:
    return [[6, [] if compare is None else [compare], [] if then is None else [then], []]]


MALFORMED = [
    [[6, None, [], []]],
    [[6, [], [], b""]],
    [[6, [], []]],
    [[6, {}, [], []]],
    txn_of(compare=[]),
    txn_of(compare=7),
    txn_of(compare=[1]),
    txn_of(compare=[1, 1, b"k", None]),
    txn_of(compare=[0, 1, b"k", None, b"v"]),
    txn_of(compare=[1, 128, b"k", None, b"v"]),
    txn_of(compare=[True, 1, b"k", None, b"v"]),
    txn_of(compare=[1, 1, b"", None, b"v"]),
    txn_of(compare=[1, 1, "k", None, b"v"]),
    txn_of(compare=[1, 1, b"k", "z", b"v"]),
    txn_of(compare=[1, 1, b"k", None, 1]),
    txn_of(compare=[2, 1, b"k", None, b"v"]),
    txn_of(compare=[2, 1, b"k", None, -1]),
    txn_of(compare=[2, 1, b"k", None, 2**63]),
    txn_of(then=[]),
    txn_of(then=1),
    txn_of(then=[1, b"k"]),
    txn_of(then=[1, b"", b"v"]),
    txn_of(then=[0, b"k"]),
    txn_of(then=[128, b"k"]),
    txn_of(then=[2, b"k", b"v", 0]),
    txn_of(then=[5, b"k", None, b"v"]),
    txn_of(then=[6, [], [], []]),
    txn_of(then=[7]),
    txn_of(then=[8, 1]),
    txn_of(then=[64, b""]),
    txn_of(then=[64]),
    txn_of(then=[65, b"", b"", 0]),
    txn_of(then=[65, b"", b"", -1, 0]),
    txn_of(then=[65, b"", b"", 0, None]),
    [[1, b"k", b"v"], [6, [], [7], []]],
]

NEWER = [
    [[6, [], [], [], []]],
    txn_of(compare=[5, 1, b"k", None, 1]),
    txn_of(compare=[1, 5, b"k", None, b"v"]),
    txn_of(compare=[1, 1, b"k", None, b"v", 1]),
    txn_of(then=[9, b"k"]),
    txn_of(then=[66, b"k"]),
    txn_of(then=[1, b"k", b"v", 1]),
    txn_of(then=[64, b"k", 7]),
    txn_of(then=[65, b"", b"", 0, 8]),
    [[6, [7], [[9]], []]],  # malformed by our lights beside it, but we cannot judge what is newer
    [[6, [[1]], [], [[9]]]],
    [[6, None, [[9]], []]],
    [[64, b"k"]],  # reads exist only inside, as far as this version knows
]


@given(st.lists(COMPARES, max_size=4), BRANCHES, BRANCHES | st.just([]))
def test_a_transaction_reads_back_as_it_was_written(compares: Any, then: Any, otherwise: Any) -> None:
    op = transaction(compares, then, otherwise)
    assert decode_batch(encode_batch([op])) == (op,)
    validate_op(op)


@pytest.mark.parametrize("ops", MALFORMED)
def test_a_malformed_transaction_is_refused_by_the_leader_and_answered_from_the_log(ops: Any) -> None:
    data = msgpack.packb(ops)
    with pytest.raises(InvalidRequest):
        decode_batch(data)
    assert decode_payload(encode_payload(0, [ClientBatch(0, 0, 0, data)])).batches[0].ops is None


@pytest.mark.parametrize("ops", NEWER)
def test_safety_45_an_unknown_operation_inside_a_transaction_halts_like_any_unknown_command(ops: Any) -> None:
    data = msgpack.packb(ops)
    with pytest.raises(InvalidRequest, match="does not know"):
        decode_batch(data)
    with pytest.raises(UnknownCommand, match="does not know"):
        decode_payload(encode_payload(0, [ClientBatch(0, 0, 0, data)]))


@pytest.mark.parametrize(
    ("inner", "says"),
    [
        ([6, [], [], []], "transactions cannot be nested"),
        ([5, b"k", None, b"v"], "compare instead"),
        ([1, b"", b"v"], "a key in the transaction is empty"),
    ],
)
def test_the_leader_says_which_operation_is_malformed_and_why(inner: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=f"number 2: .*{says}"):
        decode_batch(msgpack.packb([[1, b"k", b"v"], *txn_of(then=inner)]))


PUT_A = (txn.PUT, b"a", b"1")


@pytest.mark.parametrize(
    "ops",
    [
        [PUT_A, PUT_A],
        [PUT_A, (txn.DELETE, b"a")],
        [(txn.DELETE, b"a"), PUT_A],
        [PUT_A, (txn.DELETE_RANGE, b"", b"")],
        [(txn.DELETE_RANGE, b"a", b"b"), PUT_A],
        [(txn.PUT, b"b", b""), PUT_A, (txn.PUT, b"c", b""), (txn.DELETE_RANGE, b"aa", b"bb")],
    ],
)
def test_no_key_may_be_written_twice_in_a_transaction(ops: Any) -> None:
    for op in (transaction([], ops), transaction([], [], ops)):
        with pytest.raises(InvalidRequest, match="puts"):
            decode_batch(encode_batch([op]))
        # The rule is the leader's: what is in the log is executed, the same everywhere.
        assert decode_payload(encode_payload(0, [ClientBatch(0, 0, 0, encode_batch([op]))])).batches[0].ops == (op,)


@pytest.mark.parametrize(
    "ops",
    [
        [PUT_A, (txn.PUT, b"b", b"")],
        [PUT_A, (txn.DELETE_RANGE, b"b", b""), (txn.DELETE_RANGE, b"", b"a")],
        [(txn.DELETE, b"a"), (txn.DELETE, b"a"), (txn.DELETE_RANGE, b"", b"")],
        [(txn.GET, b"a"), PUT_A, (txn.GET, b"a")],
        [PUT_A, (txn.DELETE_RANGE, b"z", b"a")],  # the wrong way round: nothing is in it
    ],
)
def test_keys_that_only_look_written_twice_are_let_in(ops: Any) -> None:
    decode_batch(encode_batch([transaction([], ops)]))


def test_the_same_key_may_be_written_in_both_branches() -> None:
    decode_batch(encode_batch([transaction([], [PUT_A], [PUT_A])]))


def test_an_empty_transaction_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        decode_batch(encode_batch([transaction([], [])]))


def test_numbers_of_comparisons_and_operations_are_limited_with_the_way_out() -> None:
    compare = (txn.VERSION, txn.EQUAL, b"k", None, 0)
    get = (txn.GET, b"k")
    decode_batch(encode_batch([transaction([compare] * txn.MAX_COMPARES, [get] * txn.MAX_OPS, [get] * txn.MAX_OPS)]))
    for op in (
        transaction([compare] * (txn.MAX_COMPARES + 1), [get]),
        transaction([], [get] * (txn.MAX_OPS + 1)),
        transaction([], [], [get] * (txn.MAX_OPS + 1)),
    ):
        with pytest.raises(TooLarge) as caught:
            decode_batch(encode_batch([op]))
        assert (caught.value.limit, caught.value.actual) == (1024, 1025)
        assert "split it" in (caught.value.hint or "")


def test_what_is_in_transactions_counts_against_the_limit_of_a_batch() -> None:
    large = transaction([], [(txn.GET, b"k")] * 1024)
    ops = [large] * 3 + [put(b"k", b"v")] * (MAX_BATCH_OPS - 3 * 1025)
    assert len(decode_batch(encode_batch(ops))) == len(ops)
    with pytest.raises(TooLarge) as caught:
        decode_batch(encode_batch([*ops, put(b"k", b"v")]))
    assert (caught.value.limit, caught.value.actual) == (MAX_BATCH_OPS, MAX_BATCH_OPS + 1)


def test_sizes_of_keys_and_values_are_limited_inside_too() -> None:
    key, value = bytes(MAX_KEY_BYTES + 1), bytes(MAX_VALUE_BYTES + 1)
    for op in (
        transaction([(txn.VALUE, txn.EQUAL, key, None, b"")], []),
        transaction([(txn.VALUE, txn.EQUAL, b"", key, b"")], []),
        transaction([(txn.VALUE, txn.EQUAL, b"k", None, value)], []),
        transaction([], [(txn.PUT, key, b"")]),
        transaction([], [(txn.PUT, b"k", value)]),
        transaction([], [], [(txn.DELETE, key)]),
        transaction([], [(txn.DELETE_RANGE, b"", key)]),
        transaction([], [(txn.GET, key)]),
        transaction([], [(txn.RANGE, key, b"", 0, 0)]),
        transaction([], [(txn.RANGE, b"", key, 0, 0)]),
    ):
        with pytest.raises(TooLarge) as caught:
            decode_batch(encode_batch([op]))
        assert caught.value.actual == caught.value.limit + 1
        with pytest.raises(TooLarge):
            validate_op(op)
