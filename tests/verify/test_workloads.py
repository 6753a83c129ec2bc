"""The invariants of the other workloads."""

from __future__ import annotations

from lattice_core.verify.workloads import (
    check_append_list,
    check_bank_total,
    check_session_counter,
    check_unique_set,
)


def test_a_set_may_hold_unknown_elements_but_must_hold_acknowledged_ones() -> None:
    assert check_unique_set(acknowledged=[1, 2], unknown=[3, 4], final=[1, 2, 3]) == []
    assert check_unique_set(acknowledged=[1, 2], unknown=[], final=[2]) == ["acknowledged element lost: 1"]
    assert check_unique_set(acknowledged=[1], unknown=[], final=[1, 9]) == ["element that nobody added: 9"]
    assert check_unique_set(acknowledged=[1], unknown=[], final=[1, 1]) == ["element present more than once: 1"]


def test_many_violations_are_summed_up() -> None:
    assert check_unique_set(acknowledged=range(9), unknown=[], final=[]) == [
        "acknowledged element lost: 0, 1, 2, 3, 4 and 4 more"
    ]


def test_reads_of_an_append_list_are_prefixes_of_the_final_list() -> None:
    assert check_append_list(acknowledged="ab", unknown="c", reads=["", "a", "abc"], final="abc") == []
    assert check_append_list(acknowledged="ab", unknown="c", reads=["ac"], final="abc") == [
        "a read is not a prefix of the final list: they differ at position 1"
    ]
    assert check_append_list(acknowledged="ab", unknown="", reads=["abc"], final="ab") != []


def test_an_append_list_keeps_the_order_of_real_time() -> None:
    assert check_append_list(acknowledged="ab", unknown="", reads=[], final="ba", precedes=[("a", "b")]) == [
        "'a' was acknowledged before 'b' was appended, but stands behind it"
    ]


def test_a_bank_keeps_its_total_and_nobody_owes() -> None:
    assert check_bank_total(total=10, snapshots=[{"a": 4, "b": 6}, {"a": 10, "b": 0}]) == []
    assert check_bank_total(total=10, snapshots=[{"a": 4, "b": 5}]) == ["snapshot 0 adds up to 9, not 10"]
    assert check_bank_total(total=10, snapshots=[{"a": -1, "b": 11}]) == ["snapshot 0 has a negative balance: a"]


def test_a_session_counter_counts_each_increment_once() -> None:
    assert check_session_counter(acknowledged=5, unknown=2, final=6, reads_in_order=[0, 3, 3, 6]) == []
    assert "lost" in check_session_counter(acknowledged=5, unknown=2, final=4)[0]
    assert "applied twice" in check_session_counter(acknowledged=5, unknown=2, final=8)[0]
    assert "went back" in check_session_counter(acknowledged=5, unknown=0, final=5, reads_in_order=[3, 2])[0]
