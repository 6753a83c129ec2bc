"""Histories on disk and in the making."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice_core.errors import InvalidRequest
from lattice_core.verify import HistoryRecorder, Operation, iter_history, read_history, write_history
from lattice_core.verify.history import operation_from_json

GOOD: dict[str, Any] = {
    "process": 3, "op": "put", "key": "k", "value": "v", "call": 10, "return": 20, "outcome": "ok",
}  # fmt: skip


def file_of(tmp_path: Path, *lines: str | dict[str, Any]) -> Path:
    path = tmp_path / "history.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def refusal(tmp_path: Path, *lines: str | dict[str, Any]) -> str:
    path = file_of(tmp_path, *lines)
    with pytest.raises(InvalidRequest) as caught:
        read_history(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:{len(lines)}: "), message
    assert "\n" not in message
    return message


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    op: Any = draw(st.sampled_from(["put", "get", "delete", "cas"]))
    outcome: Any = draw(st.sampled_from(["ok", "fail", "unknown"]))
    known, call = outcome == "ok", draw(st.integers(0, 10**15))
    raw = st.binary(max_size=12) | st.text("a é\n\u2713", max_size=8).map(str.encode)
    return Operation(
        process=draw(st.integers(0, 5000)),
        op=op,
        key=draw(raw),
        value=draw(raw) if op in ("put", "cas") else None,
        expected=draw(st.none() | raw) if op == "cas" else None,
        result=draw(st.none() | raw) if op == "get" and known else None,
        swapped=draw(st.booleans()) if op == "cas" and known else None,
        deleted=draw(st.none() | st.booleans()) if op == "delete" and known else None,
        call_ns=call,
        return_ns=None if outcome == "unknown" else call + draw(st.integers(0, 10**9)),
        outcome=outcome,
    )


@given(operations())
def test_an_operation_survives_json(operation: Operation) -> None:
    assert operation_from_json(json.loads(json.dumps(operation.to_json()))) == operation


def test_a_file_survives_writing_and_reading(tmp_path: Path) -> None:
    written = [
        Operation(0, "put", b"k", b"\xff\x00", call_ns=1, return_ns=2),
        Operation(1, "get", "schlüssel".encode(), result=None, call_ns=1, return_ns=5),
        Operation(2, "cas", b"k", b"v", None, call_ns=3, outcome="unknown"),
    ]
    path = tmp_path / "h.jsonl"
    assert write_history(path, written) == 3
    assert read_history(path) == written == list(iter_history(path))
    first = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    assert first["value"] == {"base64": "/wA="}


def test_fields_that_do_not_apply_are_left_out() -> None:
    line = Operation(0, "delete", b"k", call_ns=1, return_ns=2).to_json()
    assert set(line) == {"process", "op", "key", "call", "return", "outcome"}


def test_blank_lines_and_unknown_fields_are_ignored(tmp_path: Path) -> None:
    assert len(read_history(file_of(tmp_path, GOOD | {"node": "n1"}, "", GOOD | {"process": 4}))) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"op": "append"}, 'unknown op "append": put, get, delete or cas'),
        ({"outcome": "maybe"}, 'unknown outcome "maybe"'),
        ({"call": 30}, "returned at 20 ns, before it was called at 30 ns"),
        ({"return": None}, "an ok operation needs 'return'"),
        ({"call": "10"}, "'call' must be a whole number"),
        ({"process": True}, "'process' must be a whole number"),
        ({"value": None}, "a put needs a 'value'"),
        ({"value": 5}, "'value' must be text"),
        ({"value": {"base64": "?"}}, "'value' is not valid base64"),
        ({"key": None}, "'key' is null"),
        ({"op": "cas"}, "'expected' is missing"),
        ({"op": "cas", "expected": "e"}, "an ok cas needs 'swapped'"),
        ({"op": "get"}, "an ok get needs 'result'"),
        ({"swapped": "yes"}, "'swapped' must be true or false"),
    ],
)
def test_a_bad_operation_is_named_by_file_and_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    assert said in refusal(tmp_path, GOOD, GOOD | {"process": 9} | change)


@pytest.mark.parametrize("field", ["process", "op", "key", "value", "call", "outcome"])
def test_a_missing_field_is_named_by_file_and_line(tmp_path: Path, field: str) -> None:
    bad = {name: value for name, value in GOOD.items() if name != field}
    assert f"field {field!r} is missing" in refusal(tmp_path, GOOD, bad)


@pytest.mark.parametrize("line", ["{", "[1, 2]", "null", '"text"', "{} trailing", "[" * 100_000])
def test_a_line_that_is_no_operation_is_named_by_file_and_line(tmp_path: Path, line: str) -> None:
    refusal(tmp_path, GOOD, line)


def test_a_line_that_is_not_utf8_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\xff\xfe{\n")
    with pytest.raises(InvalidRequest, match=":2: not text, so no history"):
        read_history(path)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read: No such file"):
        read_history(tmp_path / "none.jsonl")


def test_a_process_cannot_do_two_things_at_once(tmp_path: Path) -> None:
    said = refusal(tmp_path, GOOD, GOOD | {"call": 15, "return": 25})
    assert "process 3 has two operations at once" in said


def test_a_process_left_in_an_unknown_operation_must_not_be_used_again(tmp_path: Path) -> None:
    said = refusal(tmp_path, GOOD | {"return": None, "outcome": "unknown"}, GOOD | {"call": 30, "return": 35})
    assert "new process number" in said


def test_a_process_that_stopped_waiting_for_an_unknown_operation_may_go_on(tmp_path: Path) -> None:
    path = file_of(tmp_path, GOOD | {"outcome": "unknown"}, GOOD | {"call": 30, "return": 35})
    assert len(read_history(path)) == 2


# --- the recorder ---------------------------------------------------------------------------------


def test_the_recorder_keeps_real_order_within_one_tick_of_the_clock() -> None:
    recorder = HistoryRecorder(callers=2, clock_ns=lambda: 7)
    first = recorder.complete(recorder.invoke(0, "put", b"k", value=b"v"))
    second = recorder.complete(recorder.invoke(1, "get", b"k"), result=b"v")
    assert first.return_ns is not None
    assert first.call_ns < first.return_ns < second.call_ns


def test_the_recorder_goes_on_under_a_new_process_after_an_unknown_outcome() -> None:
    recorder = HistoryRecorder(callers=4, clock_ns=lambda: 1)
    lost = recorder.complete(recorder.invoke(2, "put", b"k", value=b"v"), "unknown")
    following = recorder.complete(recorder.invoke(2, "get", b"k"), result=None)
    assert (lost.process, lost.return_ns, following.process) == (2, None, 6)


def test_the_recorder_writes_what_was_under_way_as_unknown(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    with HistoryRecorder(callers=3, path=path) as recorder:
        recorder.invoke(0, "put", b"k", value=b"v")
        recorder.complete(recorder.invoke(1, "cas", b"k", value=b"w", expected=b"v"), swapped=True)
        recorder.complete(recorder.invoke(2, "delete", b"k"), "fail")
    assert [(op.process, op.outcome) for op in read_history(path)] == [(1, "ok"), (2, "fail"), (0, "unknown")]


def test_the_recorder_refuses_what_no_sequential_caller_could_do() -> None:
    recorder = HistoryRecorder(callers=1)
    called = recorder.invoke(0, "get", b"k")
    with pytest.raises(ValueError, match="still in its last operation"):
        recorder.invoke(0, "get", b"k")
    recorder.complete(called)
    with pytest.raises(ValueError, match="not under way"):
        recorder.complete(called)
    with pytest.raises(ValueError, match="not one of the 1 callers"):
        recorder.invoke(1, "get", b"k")
