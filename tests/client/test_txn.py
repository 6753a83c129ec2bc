"""Transactions as Python writes them: what is built, what is refused before it is sent, what comes back."""

from __future__ import annotations

from typing import Any

import pytest

from lattice_core import client
from lattice_core.client import (
    AsyncClient,
    Comparison,
    DeleteResult,
    KeyValue,
    RangeResult,
    TxnResult,
    delete,
    delete_range,
    get,
    get_range,
    key,
    keys,
    put,
)
from lattice_core.client.txn import txn_op, txn_result
from lattice_core.errors import InvalidRequest, TooLarge
from lattice_core.kv import TxnResult as Answer
from lattice_core.kv import txn, validate_op


@pytest.mark.parametrize(
    ("comparison", "wire"),
    [
        (key("a").value == b"1", (txn.VALUE, txn.EQUAL, b"a", None, b"1")),
        (key(b"a").value != "1", (txn.VALUE, txn.NOT_EQUAL, b"a", None, b"1")),
        (key("a").value < b"1", (txn.VALUE, txn.LESS, b"a", None, b"1")),
        (key("a").mod_revision > 7, (txn.MOD_REVISION, txn.GREATER, b"a", None, 7)),
        (key("a").create_revision == 7, (txn.CREATE_REVISION, txn.EQUAL, b"a", None, 7)),
        (key("a").version != 1, (txn.VERSION, txn.NOT_EQUAL, b"a", None, 1)),
        (key("a").exists(), (txn.VERSION, txn.GREATER, b"a", None, 0)),
        (key("a").absent(), (txn.VERSION, txn.EQUAL, b"a", None, 0)),
        (keys(prefix="jobs/").absent(), (txn.VERSION, txn.EQUAL, b"jobs/", b"jobs0", 0)),
        (keys(start="a", end="b").mod_revision < 9, (txn.MOD_REVISION, txn.LESS, b"a", b"b", 9)),
        (keys().version > 0, (txn.VERSION, txn.GREATER, b"", b"", 0)),
    ],
)
def test_comparisons_are_written_as_they_are_meant(comparison: Comparison, wire: Any) -> None:
    assert comparison.compare == wire
    validate_op(txn_op([comparison], [put("a", "b")], []))


@pytest.mark.parametrize(
    ("built", "wire"),
    [
        (put("a", b"1"), (txn.PUT, b"a", b"1")),
        (get(b"a"), (txn.GET, b"a")),
        (delete("a"), (txn.DELETE, b"a")),
        (delete_range(prefix="a"), (txn.DELETE_RANGE, b"a", b"b")),
        (delete_range(start="a"), (txn.DELETE_RANGE, b"a", b"")),
        (get_range(prefix="a", limit=5), (txn.RANGE, b"a", b"b", 5, 0)),
        (get_range(keys_only=True, reverse=True), (txn.RANGE, b"", b"", 0, txn.KEYS_ONLY | txn.REVERSE)),
        (get_range(start="a", end="c", count_only=True), (txn.RANGE, b"a", b"c", 0, txn.COUNT_ONLY)),
    ],
)
def test_operations_are_written_as_they_are_meant(built: client.TxnOp, wire: Any) -> None:
    assert built.op == wire
    validate_op(txn_op([], [built], [built]))


def test_a_comparison_has_no_truth_of_its_own() -> None:
    """So "and", "or", "not", "in" and chains of comparisons are errors, and not something else than was meant."""
    fresh = key("a").value == b"1"
    with pytest.raises(TypeError, match=r"when=\[...\]"):
        bool(fresh and key("b").absent())
    with pytest.raises(TypeError):
        bool(3 < key("a").version < 7)  # type: ignore[operator]
    with pytest.raises(TypeError):
        bool(not fresh)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: key(""), "key is empty"),
        (lambda: key("k" * 4097), "4096"),
        (lambda: key("a").version == "1", "number"),
        (lambda: key("a").version == -1, "number"),
        (lambda: key("a").version == True, "number"),  # noqa: E712
        (lambda: keys(prefix="a", start="b"), "prefix excludes"),
        (lambda: put("", "v"), "key is empty"),
        (lambda: put("k", b"v" * (1 << 20) + b"v"), "1048576"),
        (delete_range, "give a prefix or a start"),
        (lambda: get_range(limit=0), "at least 1"),
        (lambda: txn_op([True], [], []), r"when\[0\] is True"),  # type: ignore[list-item]
        (lambda: txn_op([], [key("a").absent()], []), r"then\[0\] is key"),  # type: ignore[list-item]
        (lambda: txn_op([], [], [b"a"]), r"otherwise\[0\] is b'a'"),  # type: ignore[list-item]
        (lambda: txn_op(key("a").absent(), [], []), "when is a list"),  # type: ignore[arg-type]
        (lambda: txn_op([], put("a", "b"), []), "then is a list"),  # type: ignore[arg-type]
        (lambda: txn_op([], [], []), "empty"),
        (lambda: txn_op([], [put("a", "1"), put("a", "2")], []), "puts b'a' twice"),
        (lambda: txn_op([], [put("a", "1"), delete_range(prefix="")], []), "deletes a range"),
        (lambda: txn_op([], [get("a")] * 1025, []), "1025 operations"),
    ],
)
def test_what_the_cluster_would_refuse_is_refused_before_it_is_sent(build: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        build()


def test_a_value_that_is_no_value_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        key("a").value == 5  # noqa: B015


async def test_a_transaction_larger_than_a_batch_is_refused_before_it_is_sent() -> None:
    async with AsyncClient("127.0.0.1:1") as nobody:
        with pytest.raises(TooLarge, match="txn"):
            await nobody.txn(then=[put("a", bytes(1 << 20)), put("b", bytes(1 << 20))])


def test_results_are_what_the_methods_of_the_same_names_return() -> None:
    op = txn_op([], [put("a", "1"), get("a"), get("b"), delete("c"), delete_range(prefix="d"), get_range()], [get("a")])
    wire = [b"a", b"1", 9, 9, 1, None]
    answer = Answer(None, 9, [[0], [0, wire], [0, None], [0, 1], [0, 5], [0, [wire], True, 3]])
    found = KeyValue(b"a", b"1", 9, 9, 1, None)
    result = txn_result(op, answer)
    assert result == TxnResult(
        True, 9, (9, found, None, DeleteResult(1, 9), DeleteResult(5, 9), RangeResult((found,), True, 3, 9)), None
    )
    assert result
    failed = txn_result(op, Answer(0, 8, [[0, None]]))
    assert (failed.results, failed.failed, failed.revision) == ((None,), 0, 8)
    assert not failed
