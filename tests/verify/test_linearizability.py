"""The checker against histories whose verdict is known, and against brute force."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lattice_core.errors import InvalidRequest
from lattice_core.verify import Budget, Operation, Verdict, check_history
from lattice_core.verify.shrink import cut_at
from lattice_core.verify.wgl import Meter, search


def put(process: int, value: str, call: int, back: int | None, outcome: str = "ok", key: bytes = b"k") -> Operation:
    return Operation(process, "put", key, value.encode(), call_ns=call, return_ns=back, outcome=outcome)  # type: ignore[arg-type]


def get(process: int, result: str | None, call: int, back: int, key: bytes = b"k") -> Operation:
    found = None if result is None else result.encode()
    return Operation(process, "get", key, result=found, call_ns=call, return_ns=back)


def cas(process: int, expected: str | None, value: str, swapped: bool | None, call: int, back: int | None) -> Operation:
    return Operation(
        process,
        "cas",
        b"k",
        value.encode(),
        None if expected is None else expected.encode(),
        swapped=swapped,
        call_ns=call,
        return_ns=back,
        outcome="unknown" if swapped is None else "ok",
    )


def delete(process: int, call: int, back: int | None, deleted: bool | None = None) -> Operation:
    outcome: Any = "unknown" if back is None else "ok"
    return Operation(process, "delete", b"k", call_ns=call, return_ns=back, outcome=outcome, deleted=deleted)


def explanation(verdict: Verdict) -> str:
    assert verdict.linearizable is False
    assert verdict.counterexample is not None
    return verdict.counterexample.explanation


# --- known verdicts -------------------------------------------------------------------------------


def test_an_empty_history_is_linearizable() -> None:
    verdict = check_history([])
    assert verdict.linearizable is True
    assert verdict.to_json()["operations"] == 0


def test_a_sequential_history_of_every_operation_is_linearizable() -> None:
    history = [
        get(0, None, 0, 1),
        put(0, "a", 2, 3),
        get(0, "a", 4, 5),
        cas(0, "a", "b", True, 6, 7),
        cas(0, "a", "c", False, 8, 9),
        delete(0, 10, 11, True),
        delete(0, 12, 13, False),
        get(0, None, 14, 15),
        cas(0, None, "d", True, 16, 17),
        get(0, "d", 18, 19),
    ]
    assert check_history(history).linearizable is True


def test_concurrent_puts_may_take_effect_in_either_order() -> None:
    for seen in "ab":
        assert check_history([put(0, "a", 0, 10), put(1, "b", 0, 10), get(2, seen, 11, 12)]).linearizable is True


def test_a_stale_read_is_caught_and_said_in_words() -> None:
    history = [
        put(0, "A", 1_000_000, 2_000_000),
        put(1, "B", 5_000_000, 10_100_000),
        get(2, "A", 11_000_000, 12_300_000),
    ]
    verdict = check_history(history)
    assert explanation(verdict) == (
        "get by process 2 at 11.300 ms returned A, but B was already acknowledged at 9.100 ms and no later write "
        "restored A. The key held B then."
    )


def test_a_lost_write_is_caught() -> None:
    verdict = check_history([put(0, "A", 0, 1), get(1, None, 2, 3)])
    assert "returned not found, but A was already acknowledged" in explanation(verdict)


def test_reads_that_go_back_in_time_are_caught_though_the_write_is_still_under_way() -> None:
    history = [put(0, "A", 0, 1), put(1, "B", 2, 100), get(2, "B", 3, 4), get(3, "A", 5, 6)]
    assert "process 2 had already found B" in explanation(check_history(history))


def test_a_compare_and_set_applied_twice_is_caught() -> None:
    history = [put(0, "1", 0, 1), cas(1, "1", "2", True, 2, 9), cas(2, "1", "2", True, 3, 9)]
    assert "1 was written once only" in explanation(check_history(history))


def test_a_retry_that_ran_twice_is_seen_by_a_later_compare_and_set() -> None:
    # put a; cas a->b (acknowledged); put a again by a retry nobody asked for: the second swap from a shows it.
    history = [put(0, "a", 0, 1), cas(1, "a", "b", True, 2, 3), cas(2, "a", "c", True, 4, 5)]
    assert check_history(history).linearizable is False


def test_a_refused_compare_and_set_needs_another_value_to_have_been_there() -> None:
    history = [put(0, "a", 0, 1), cas(1, "a", "b", False, 2, 3)]
    assert "a was in place since" in explanation(check_history(history))


def test_a_delete_that_found_nothing_contradicts_an_acknowledged_put() -> None:
    assert check_history([put(0, "a", 0, 1), delete(1, 2, 3, False)]).linearizable is False
    assert check_history([put(0, "a", 0, 1), delete(1, 2, 3, True)]).linearizable is True
    assert check_history([put(0, "a", 0, 1), delete(1, 2, 3)]).linearizable is True
    assert check_history([delete(1, 2, 3, True)]).linearizable is False


def test_an_unknown_write_may_be_applied_late() -> None:
    history = [
        put(0, "late", 0, None, "unknown"),
        put(1, "a", 1, 2),
        get(2, "a", 3, 4),
        get(2, "late", 100, 101),
        get(2, "late", 102, 103),
    ]
    assert check_history(history).linearizable is True


def test_an_unknown_write_may_never_be_applied() -> None:
    history = [put(0, "never", 0, None, "unknown"), put(1, "a", 1, 2), get(2, "a", 3, 4)]
    assert check_history(history).linearizable is True


def test_an_unknown_write_is_applied_at_most_once() -> None:
    history = [
        put(0, "x", 0, None, "unknown"),
        get(1, "x", 1, 2),
        put(1, "a", 3, 4),
        get(1, "a", 5, 6),
        get(1, "x", 7, 8),
    ]
    assert check_history(history).linearizable is False


def test_an_unknown_write_cannot_be_applied_before_it_is_called() -> None:
    assert check_history([get(0, "x", 0, 1), put(1, "x", 2, None, "unknown")]).linearizable is False


def test_an_unknown_operation_stays_open_although_the_caller_stopped_waiting() -> None:
    history = [put(0, "x", 0, 5, "unknown"), get(1, None, 10, 11), get(1, "x", 12, 13)]
    assert check_history(history).linearizable is True


def test_unknown_compare_and_sets_form_chains() -> None:
    history = [
        put(0, "a", 0, 1),
        cas(1, "b", "c", None, 2, None),
        cas(2, "a", "b", None, 2, None),
        get(3, "c", 4, 5),
    ]
    assert check_history(history).linearizable is True
    assert check_history([*history, get(3, "b", 6, 7)]).linearizable is False


def test_reading_the_value_of_a_failed_write_is_caught() -> None:
    history = [put(0, "ghost", 0, 1, "fail"), get(1, "ghost", 2, 3)]
    verdict = check_history(history)
    assert "the only write of ghost failed" in explanation(verdict)
    assert verdict.counterexample is not None
    assert len(verdict.counterexample.operations) == 2


def test_reading_a_value_before_it_is_written_is_caught() -> None:
    assert "was not written before" in explanation(check_history([get(0, "x", 0, 1), put(1, "x", 2, 3)]))


def test_a_value_nobody_wrote_is_caught() -> None:
    assert "nothing ever wrote x" in explanation(check_history([put(0, "y", 0, 1), get(1, "x", 2, 3)]))


def test_keys_are_independent_and_the_failing_one_is_named() -> None:
    history = [put(0, "a", 0, 1, key=b"good"), get(0, "a", 2, 3, key=b"good"), get(1, "b", 2, 3, key=b"bad")]
    verdict = check_history(history)
    assert verdict.failed_keys == (b"bad",)
    assert verdict.keys == 2
    assert verdict.to_json()["counterexample"]["key"] == "bad"
    assert "1 key" not in verdict.lines()[0]
    assert any("->" in line for line in verdict.lines())


def test_operations_that_touch_in_time_are_concurrent_between_processes() -> None:
    assert check_history([put(0, "a", 0, 5), get(1, None, 5, 6)]).linearizable is True


def test_operations_of_one_process_that_touch_in_time_are_in_order() -> None:
    assert check_history([put(0, "a", 0, 5), get(0, None, 5, 6)]).linearizable is False


# --- not a history at all -------------------------------------------------------------------------


def test_impossible_operations_are_refused_not_judged() -> None:
    with pytest.raises(InvalidRequest, match="before it was called"):
        check_history([put(0, "a", 5, 4)])
    with pytest.raises(InvalidRequest, match="two operations at once"):
        check_history([put(0, "a", 0, 10), get(0, "a", 5, 12)])


# --- budget ---------------------------------------------------------------------------------------


def test_out_of_budget_is_no_verdict_and_never_a_false_one() -> None:
    history = random_run(random.Random(5), operations=300, callers=8, values=4)
    assert check_history(history).linearizable is True
    assert check_history(history, budget=Budget(seconds=None, steps_per_key=20)).linearizable is None
    assert check_history(history, budget=Budget(seconds=0.0)).linearizable is None
    broken = [*history, get(99, "never written", 10**9, 10**9 + 1)]
    assert check_history(broken, budget=Budget(seconds=None, steps_per_key=0)).linearizable is not True


def test_steps_are_the_same_in_every_run() -> None:
    history = random_run(random.Random(6), operations=400, callers=8, values=3)
    assert check_history(history).steps == check_history(list(reversed(history))).steps


# --- against brute force --------------------------------------------------------------------------

ABSENT_OR_NOT = (None, b"a", b"b", b"c")


def after(state: bytes | None, op: Operation) -> tuple[bool, bytes | None]:
    """The model, written once more and independently: (could this happen here, the value afterwards)."""
    known = op.outcome == "ok"
    if op.op == "put":
        return True, op.value
    if op.op == "get":
        return (not known or op.result == state), state
    if op.op == "delete":
        return (not known or op.deleted is None or op.deleted == (state is not None)), None
    matches = state == op.expected
    return (not known or op.swapped == matches), op.value if matches else state


def precedes(first: Operation, second: Operation) -> bool:
    if first.outcome != "ok" or first.return_ns is None:
        return False
    return first.return_ns < second.call_ns


def brute_force(operations: Sequence[Operation]) -> bool:
    """Try every order of every choice of unknown operations."""

    def extend(left: list[Operation], state: bytes | None) -> bool:
        if all(op.outcome == "unknown" for op in left):
            return True
        for index, op in enumerate(left):
            if any(precedes(other, op) for other in left):
                continue
            possible, then = after(state, op)
            if possible and extend(left[:index] + left[index + 1 :], then):
                return True
        return False

    return extend([op for op in operations if op.outcome != "fail"], None)


@st.composite
def small_histories(draw: st.DrawFn) -> list[Operation]:
    span = draw(st.sampled_from([5, 12, 30]))
    values = st.sampled_from(ABSENT_OR_NOT[1 : 1 + draw(st.integers(1, 3))])
    kinds = draw(
        st.sampled_from([("put", "get"), ("put", "get", "cas"), ("put", "get", "cas", "delete"), ("cas", "get")])
    )
    outcomes = draw(st.sampled_from([("ok",), ("ok", "ok", "ok", "unknown"), ("ok", "unknown"), ("ok", "ok", "fail")]))
    history = []
    for process in range(draw(st.integers(1, 7))):
        op: Any = draw(st.sampled_from(kinds))
        outcome: Any = draw(st.sampled_from(outcomes))
        call = draw(st.integers(0, span))
        known = outcome == "ok"
        history.append(
            Operation(
                process,
                op,
                b"k",
                value=draw(values) if op in ("put", "cas") else None,
                expected=draw(st.none() | values) if op == "cas" else None,
                result=draw(st.none() | values) if op == "get" and known else None,
                swapped=draw(st.booleans()) if op == "cas" and known else None,
                deleted=draw(st.sampled_from([None, True, False])) if op == "delete" and known else None,
                call_ns=call,
                return_ns=None if outcome == "unknown" else call + draw(st.integers(0, span // 2)),
                outcome=outcome,
            )
        )
    return history


def assert_valid_order(history: Sequence[Operation], order: Sequence[int]) -> None:
    placed = [history[index] for index in order]
    assert sorted(i for i in order if history[i].outcome == "ok") == [
        i for i, op in enumerate(history) if op.outcome == "ok"
    ]
    state: bytes | None = None
    for position, op in enumerate(placed):
        possible, state = after(state, op)
        assert possible
        assert not any(precedes(later, op) for later in placed[position + 1 :])


@settings(max_examples=800, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(small_histories())
def test_the_search_agrees_with_brute_force_and_its_orders_are_valid(history: list[Operation]) -> None:
    verdict, order = search(history, Meter(steps=None, seconds=None))
    assert verdict == brute_force(history)
    if verdict:
        assert_valid_order(history, order)


def random_small(rng: random.Random) -> list[Operation]:
    kinds: Any = rng.choice([("put", "get"), ("put", "get", "cas", "delete"), ("put", "cas", "get"), ("cas", "get")])
    values = ABSENT_OR_NOT[1 : 1 + rng.randint(1, 3)]
    unknown, span = rng.choice([0, 0.2, 0.5]), rng.choice([6, 12, 30])
    history = []
    for process in range(rng.randint(1, 8)):
        op: Any = rng.choice(kinds)
        outcome: Any = "unknown" if rng.random() < unknown else rng.choice(["ok"] * 9 + ["fail"])
        known, call = outcome == "ok", rng.randint(0, span)
        history.append(
            Operation(
                process,
                op,
                b"k",
                value=rng.choice(values) if op in ("put", "cas") else None,
                expected=rng.choice((None, *values)) if op == "cas" else None,
                result=rng.choice((None, *values)) if op == "get" and known else None,
                swapped=rng.random() < 0.6 if op == "cas" and known else None,
                deleted=rng.choice([None, True, False]) if op == "delete" and known else None,
                call_ns=call,
                return_ns=None if outcome == "unknown" else call + rng.randint(0, span // 2),
                outcome=outcome,
            )
        )
    return history


def test_the_search_agrees_with_brute_force_on_thousands_of_seeded_histories() -> None:
    # Hypothesis looks for corners and shrinks; this goes for numbers.
    rng = random.Random(2017)
    counted = {True: 0, False: 0}
    for _ in range(8_000):
        history = random_small(rng)
        expected = brute_force(history)
        counted[expected] += 1
        verdict, order = search(history, Meter(steps=None, seconds=None))
        assert verdict == expected, history
        if verdict:
            assert_valid_order(history, order)
    assert min(counted.values()) > 2_500, f"one-sided, so it shows little: {counted}"


def test_counterexamples_are_themselves_impossible_and_possible_without_the_culprit() -> None:
    rng = random.Random(7)
    seen = 0
    while seen < 600:
        history = random_small(rng)
        if brute_force(history):
            continue
        seen += 1
        found = check_history(history).counterexample
        assert found is not None, history
        assert not brute_force(found.operations), (history, found)
        culprit = found.operations[found.culprit]
        rest = [op for op in cut_at(found.operations, culprit.return_ns or 0) if op != culprit]
        assert brute_force(rest), (history, found)
        state: bytes | None = None
        for index in found.order:
            _, state = after(state, found.operations[index])
        # Values it says were possible are; and what the culprit returned is not among them.
        assert found.possible_values is not None
        if culprit.op == "get":
            assert culprit.result not in found.possible_values
        assert "\n" not in found.explanation


def test_a_counterexample_keeps_a_write_of_every_value_that_was_written() -> None:
    rng = random.Random(8)
    for _ in range(1500):
        history = random_small(rng)
        found = check_history(history).counterexample
        if found is None:
            continue
        written = {
            op.value for op in history if op.op in ("put", "cas") and op.outcome != "fail" and op.swapped is not False
        }
        shown = {op.value for op in found.operations if op.op in ("put", "cas")}
        for op in found.operations:
            if op.op == "get" and op.outcome == "ok" and op.result in written:
                assert op.result in shown, (history, found)


# --- size -----------------------------------------------------------------------------------------


def random_run(
    rng: random.Random, *, operations: int, callers: int, values: int | None = None, keys: int = 1, unknown: float = 0.0
) -> list[Operation]:
    """A history that really happened: each operation takes effect at one moment of its interval."""
    free_at = [rng.random() for _ in range(callers)]
    process = list(range(callers))
    moments: list[tuple[float, int, dict[str, Any]]] = []
    for number in range(operations):
        caller = min(range(callers), key=free_at.__getitem__)
        call = free_at[caller]
        back = call + rng.expovariate(1) + 1e-5
        moment = call + (back - call) * rng.random()
        fields: dict[str, Any] = {
            "process": process[caller],
            "call_ns": int(call * 1e6),
            "return_ns": int(back * 1e6) + 1,
        }
        if rng.random() < unknown:
            fields.update(return_ns=None, outcome="unknown")
            process[caller] += callers
            if rng.random() < 0.2:
                moment += 20
        value = f"v{number if values is None else rng.randrange(values)}".encode()
        fields.update(
            op=rng.choice(("put", "get", "get", "cas", "delete")), key=b"k%d" % rng.randrange(keys), value=value
        )
        moments.append((moment, number, fields))
        free_at[caller] = back + 1e-4 + rng.expovariate(10)
    state: dict[bytes, bytes | None] = {}
    history = []
    for _, _, fields in sorted(moments, key=lambda moment: moment[:2]):
        known, now = fields.get("outcome") != "unknown", state.get(fields["key"])
        applied = known or rng.random() < 0.5
        if fields["op"] == "get":
            fields.update(value=None, result=now if known else None)
        elif fields["op"] == "put":
            state[fields["key"]] = fields["value"] if applied else now
        elif fields["op"] == "delete":
            fields.update(value=None, deleted=now is not None if known else None)
            state[fields["key"]] = None if applied else now
        else:
            fields["expected"] = now if rng.random() < 0.7 else b"other"
            matches = fields["expected"] == now
            fields["swapped"] = matches if known else None
            if applied and matches:
                state[fields["key"]] = fields["value"]
        history.append(Operation(**fields))
    return history


@pytest.mark.parametrize("values", [None, 3])
@pytest.mark.parametrize("unknown", [0.0, 0.03])
def test_histories_that_really_happened_are_linearizable(values: int | None, unknown: float) -> None:
    for seed in range(6):
        rng = random.Random(seed)
        history = random_run(rng, operations=800, callers=10, values=values, keys=2, unknown=unknown)
        assert check_history(history, budget=Budget(seconds=None)).linearizable is True


def test_many_unknown_writes_on_one_key_do_not_blow_the_search_up() -> None:
    history = random_run(random.Random(3), operations=3_000, callers=10, unknown=0.2)
    verdict = check_history(history, budget=Budget(seconds=None, steps_per_key=100_000))
    assert verdict.linearizable is True
    assert verdict.steps < 10_000


def test_a_large_history_takes_a_few_seconds_and_its_flaw_is_found() -> None:
    history = random_run(random.Random(1), operations=20_000, callers=10, keys=100)
    started = time.perf_counter()
    assert check_history(history).linearizable is True
    assert time.perf_counter() - started < 10  # measured 0.3 s; generous, the machine is shared
    end = max(op.return_ns or 0 for op in history)
    history += [
        put(5000, "first", end + 10, end + 20, key=b"k7"),
        put(5000, "second", end + 30, end + 40, key=b"k7"),
        get(5001, "first", end + 50, end + 60, key=b"k7"),
    ]
    verdict = check_history(history)
    assert verdict.failed_keys == (b"k7",)
    assert verdict.counterexample is not None
    assert len(verdict.counterexample.operations) == 3
    assert "second was already acknowledged" in explanation(verdict)


def test_a_sequential_history_costs_a_constant_for_each_operation() -> None:
    history = [
        put(0, str(n), 2 * n, 2 * n + 1) if n % 2 == 0 else get(0, str(n - 1), 2 * n, 2 * n + 1) for n in range(20_000)
    ]
    verdict = check_history(history)
    assert verdict.linearizable is True
    assert verdict.steps <= len(history)


# Found by breaking the search on purpose (each by a cache that forgets a part of what ``used`` means) and looking
# for a history on which the broken one errs: (op, value or result, expected, swapped, call, return or None).
HARD: dict[str, list[tuple[str, str | None, str | None, bool | None, int, int | None]]] = {
    "the same place reached with an open operation spent and without": [
        ("cas", "b", None, True, 11, 16),
        ("get", "a", None, None, 3, 8),
        ("get", "b", None, None, 6, 9),
        ("put", "b", None, None, 1, 1),
        ("put", "b", None, None, 1, 5),
        ("cas", "a", "b", True, 5, 6),
        ("cas", "b", None, True, 0, 4),
        ("get", None, None, None, 12, 18),
        ("delete", None, None, None, 4, None),
        ("get", "a", None, None, 12, 18),
        ("put", "a", None, None, 8, 9),
        ("cas", "b", "a", None, 10, None),
    ],
    "the same place reached with different open operations spent": [
        ("put", "b", None, None, 6, None),
        ("delete", None, None, None, 3, None),
        ("get", "c", None, None, 4, 6),
        ("put", "a", None, None, 0, None),
        ("get", "a", None, None, 5, 7),
        ("get", None, None, None, 5, 6),
        ("put", "b", None, None, 3, 5),
        ("cas", "c", None, None, 4, None),
        ("put", "b", None, None, 6, 7),
        ("put", "a", None, None, 6, None),
        ("put", "a", None, None, 4, 4),
        ("cas", "a", None, True, 6, 6),
    ],
}


@pytest.mark.parametrize("name", HARD)
def test_what_an_open_operation_was_spent_on_is_part_of_the_configuration(name: str) -> None:
    history = []
    for process, (op, value, expected, swapped, call, back) in enumerate(HARD[name]):
        if op == "get":
            history.append(get(process, value, call, back or 0))
        elif op == "delete":
            history.append(delete(process, call, back))
        elif op == "put":
            history.append(put(process, value or "", call, back, "unknown" if back is None else "ok"))
        else:
            history.append(cas(process, expected, value or "", swapped, call, back))
    verdict, order = search(history, Meter(steps=None, seconds=None))
    assert verdict is True
    assert_valid_order(history, order)
