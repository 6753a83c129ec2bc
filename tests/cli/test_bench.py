"""lattice bench without a cluster: what is counted, what is recorded, what is shown, what is refused."""

# ruff: noqa: ASYNC109 - the client's signatures
from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lattice_cli.bench.load import Load, clear, fill
from lattice_cli.bench.plan import Plan
from lattice_cli.bench.run import Result
from lattice_cli.bench.tally import SILENCE_NS, Tally, overlaps
from lattice_cli.render import bench as view
from lattice_core.client import CasResult, DeleteResult, KeyValue
from lattice_core.errors import OutcomeUnknown, Unavailable
from lattice_core.verify import HistoryRecorder, check_history

MS = 1_000_000


def plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "endpoints": "h:1",
        "timeout_seconds": 1.0,
        "callers": 4,
        "processes": 1,
        "seconds": 0.4,
        "warm_up_seconds": 0.0,
        "value_bytes": 8,
        "mix": "put",
        "keys": 10,
        "read_consistency": "linearizable",
        "rate": None,
        "prefix": "bench/x/",
        "recorded": False,
    }
    return Plan(**{**values, **changes})


class Register:
    """A store in memory with the asynchronous client's methods. ``before`` runs before each operation."""

    def __init__(self, before: Callable[[str, bytes], Any] = lambda _op, _key: None) -> None:
        self.kvs: dict[bytes, bytes] = {}
        self.calls: list[tuple[str, bytes]] = []
        self._before = before

    async def _take(self, op: str, key: bytes) -> None:
        self.calls.append((op, key))
        await asyncio.sleep(0.001)
        waits = self._before(op, key)
        if waits is not None:
            await waits

    async def put(self, key: bytes, value: bytes, *, timeout: float | None = None) -> int:
        await self._take("put", key)
        self.kvs[key] = value
        return 1

    async def get(self, key: bytes, *, consistency: str) -> KeyValue | None:
        await self._take(f"get {consistency}", key)
        value = self.kvs.get(key)
        return None if value is None else KeyValue(key, value, 1, 1, 1, None)

    async def cas(self, key: bytes, expected: bytes | None, new: bytes) -> CasResult:
        await self._take("cas", key)
        if self.kvs.get(key) != expected:
            return CasResult(False, 1)
        self.kvs[key] = new
        return CasResult(True, 1)

    async def delete(self, key: bytes) -> DeleteResult:
        await self._take("delete", key)
        return DeleteResult(int(self.kvs.pop(key, None) is not None), 1)

    async def delete_range(self, *, start: bytes, end: bytes, timeout: float | None = None) -> DeleteResult:
        await self._take("delete_range", start)
        gone = [key for key in self.kvs if start <= key < end]
        for key in gone:
            del self.kvs[key]
        return DeleteResult(len(gone), 1)


def work(wanted: Plan, client: Any, recorder: HistoryRecorder | None = None) -> Tally:
    """Run the whole plan on this client."""

    async def run() -> Tally:
        start = time.monotonic_ns() + int(wanted.warm_up_seconds * 1e9)
        tally = Tally(start, start + int(wanted.seconds * 1e9))
        await Load(client, wanted, wanted.callers_of(0), tally, recorder).run()
        return tally

    return asyncio.run(run())


# -- counting -----------------------------------------------------------------------------------------


def test_only_what_ends_within_the_measurement_counts() -> None:
    tally = Tally(100, 200)
    for ended in (99, 100, 150, 200, 201):
        tally.done(tally.puts, 50, ended)
    tally.failed(Unavailable("x"), 99)
    tally.failed(Unavailable("y"), 150)
    assert (tally.puts.count, tally.count, dict(tally.errors)) == (3, 3, {"Unavailable": 1})


def test_the_longest_gap_counts_the_beginning_and_the_end() -> None:
    tally = Tally(0, 100 * MS)
    tally.done(tally.puts, 0, 30 * MS)
    tally.done(tally.gets, 0, 35 * MS)
    assert tally.longest_gap_ns == 30 * MS
    tally.finish(100 * MS)
    assert tally.longest_gap_ns == 65 * MS


def test_of_two_processes_the_longest_gap_is_the_silence_they_share() -> None:
    first, second = Tally(0, 1000 * MS), Tally(0, 1000 * MS)
    for tally, times in ((first, (100, 400, 900)), (second, (50, 300, 350, 950))):
        for at in times:
            tally.done(tally.puts, 0, at * MS)
        tally.finish(1000 * MS)
    total = Tally.from_json(first.to_json())
    total.add(Tally.from_json(second.to_json()))
    assert total.longest_gap_ns == 500 * MS  # from 400 to 900
    assert total.puts.count == 7


def test_where_no_silence_is_shared_the_gap_is_short() -> None:
    first, second = Tally(0, 40 * MS), Tally(0, 40 * MS)
    first.done(first.puts, 0, 20 * MS)
    first.finish(40 * MS)
    for at in range(1, 40):
        second.done(second.puts, 0, at * MS)
    second.finish(40 * MS)
    first.add(second)
    assert first.longest_gap_ns == MS < SILENCE_NS


def test_overlaps_of_intervals() -> None:
    assert overlaps([(0, 10), (20, 30)], [(5, 22), (25, 40)]) == [(5, 10), (20, 22), (25, 30)]
    assert overlaps([(0, 10)], []) == []


def test_callers_are_shared_out_evenly_and_each_once() -> None:
    wanted = plan(callers=10, processes=4)
    shares = [list(wanted.callers_of(process)) for process in range(4)]
    assert [len(share) for share in shares] == [3, 3, 2, 2]
    assert [caller for share in shares for caller in share] == list(range(10))


# -- callers at work ----------------------------------------------------------------------------------


def test_a_mix_of_gets_asks_for_the_consistency_and_the_keys_of_the_plan() -> None:
    client = Register()
    tally = work(plan(mix="get", read_consistency="stale", keys=3), client)
    assert tally.gets.count > 0
    assert tally.puts.count == 0
    assert {op for op, _ in client.calls} == {"get stale"}
    assert {key for _, key in client.calls} <= {b"bench/x/0000000%d" % number for number in range(3)}


def test_a_mixed_load_does_both() -> None:
    tally = work(plan(mix="mixed"), Register())
    assert tally.puts.count > 0
    assert tally.gets.count > 0


def test_errors_are_counted_by_kind_and_the_callers_go_on() -> None:
    def fail(op: str, key: bytes) -> None:
        if key.endswith(b"1"):
            raise Unavailable("nobody there")

    tally = work(plan(keys=2), Register(fail))
    assert set(tally.errors) == {"Unavailable"}
    assert tally.last_error == "nobody there"
    assert tally.puts.count > 0


def test_with_a_rate_a_stall_shows_in_every_operation_that_was_due_meanwhile() -> None:
    """Coordinated omission: one caller at 100/s stands still once; the closed loop sees one slow operation, the
    schedule sees all that were late because of it."""
    stalled: list[bytes] = []

    def stall(op: str, key: bytes) -> Any:
        if not stalled:
            stalled.append(key)
            return asyncio.sleep(0.3)
        return None

    closed = work(plan(callers=1, seconds=1.5), Register(stall))
    stalled.clear()
    due = work(plan(callers=1, seconds=1.5, rate=100.0), Register(stall))
    slow = 50 * MS
    seen, late = (tally.puts.counts_between([slow])[1] for tally in (closed, due))
    assert late >= 15  # of the 25 that were due while it stood still, more than 50 ms before it went on
    assert 1 <= seen < late
    assert due.puts.count <= 151


def test_the_end_does_not_wait_for_what_never_ends() -> None:
    tally = work(plan(seconds=0.1), Register(lambda _op, _key: asyncio.sleep(3600)))
    assert tally.count == 0
    assert 0 < tally.oldest_unanswered_ns <= 100 * MS
    assert tally.longest_gap_ns == pytest.approx(0.1e9, rel=0.01)


def test_stopping_early_ends_the_measurement_there() -> None:
    async def run() -> Tally:
        start = time.monotonic_ns()
        tally = Tally(start, start + int(3600e9))
        load = Load(Register(), plan(seconds=3600.0), range(4), tally)  # type: ignore[arg-type]
        asyncio.get_running_loop().call_later(0.1, load.stop)
        await load.run()
        return tally

    tally = asyncio.run(run())
    assert 0 < tally.seconds < 60
    assert tally.puts.count > 0


def test_a_bug_in_a_caller_is_not_swallowed() -> None:
    def bug(op: str, key: bytes) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work(plan(seconds=30.0), Register(bug))


def test_the_key_space_is_filled_and_cleared_and_nothing_else_is_touched() -> None:
    client = Register()
    client.kvs[b"bench/x/"] = client.kvs[b"bench/x0"] = client.kvs[b"other"] = b"mine"
    wanted = plan(keys=12_345)
    asyncio.run(fill(client, wanted))  # type: ignore[arg-type]
    assert len(client.kvs) == 12_345 + 3
    assert wanted.key(12_344) in client.kvs
    asyncio.run(clear(client, wanted))  # type: ignore[arg-type]
    assert set(client.kvs) == {b"bench/x/", b"bench/x0", b"other"}


# -- histories ----------------------------------------------------------------------------------------


def recorded(client: Any, **changes: Any) -> HistoryRecorder:
    wanted = plan(recorded=True, mix="mixed", value_bytes=0, keys=2, **changes)
    with HistoryRecorder(callers=wanted.callers) as recorder:
        work(wanted, client, recorder)
    return recorder


def test_a_recorded_run_does_every_kind_of_operation_and_is_linearizable() -> None:
    operations = recorded(Register()).operations
    assert {operation.op for operation in operations} == {"put", "get", "cas", "delete"}
    assert any(operation.swapped for operation in operations)
    values = [operation.value for operation in operations if operation.op in ("put", "cas")]
    assert len(values) == len(set(values)), "a read could not tell which write it saw"
    assert check_history(operations).linearizable is True


def test_a_store_that_forgets_writes_is_found_out_by_the_recorded_history() -> None:
    class Forgetful(Register):
        async def put(self, key: bytes, value: bytes, *, timeout: float | None = None) -> int:
            before = self.kvs.get(key)
            await super().put(key, value)
            if before is not None and len(self.calls) % 5 == 0:
                self.kvs[key] = before
            return 1

    assert check_history(recorded(Forgetful()).operations).linearizable is False


def test_what_is_unknown_is_recorded_as_unknown_and_what_was_not_applied_as_failed() -> None:
    def fail(op: str, key: bytes) -> None:
        if key.endswith(b"1"):
            raise OutcomeUnknown("no answer") if op in ("put", "delete") else Unavailable("nobody")

    operations = recorded(Register(fail)).operations
    outcomes = {(op.op, op.outcome) for op in operations if op.key.endswith(b"1") and op.return_ns is not None}
    assert outcomes <= {("get", "fail"), ("cas", "fail")}
    open_ones = {(op.op, op.outcome) for op in operations if op.return_ns is None}
    assert {("put", "unknown"), ("delete", "unknown")} <= open_ones


def test_a_get_that_got_no_answer_has_failed_for_it_changed_nothing() -> None:
    def fail(op: str, key: bytes) -> None:
        raise OutcomeUnknown("no answer")

    gets = [operation for operation in recorded(Register(fail)).operations if operation.op == "get"]
    assert {operation.outcome for operation in gets} == {"fail"}


def test_operations_that_are_cut_off_at_the_end_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lattice_cli.bench.load.RECORDED_FINISH_SECONDS", 0.05)
    operations = recorded(Register(lambda _op, _key: asyncio.sleep(3600)), seconds=0.05).operations
    assert len(operations) == 4
    assert {operation.outcome for operation in operations} == {"unknown"}


# -- showing ------------------------------------------------------------------------------------------


def tally_of(*milliseconds: float) -> Tally:
    tally = Tally(0, 2_000 * MS)
    for number, latency in enumerate(milliseconds, 1):
        tally.done(tally.puts, int(number * MS - latency * MS), number * MS)
    tally.finish(2_000 * MS)
    return tally


def test_the_document_has_the_fields_of_the_contract() -> None:
    found = view.document(Result(plan(), tally_of(1, 2, 3, 4), False))
    assert {name: found[name] for name in ("ops", "seconds", "ops_per_second", "errors", "callers")} == {
        "ops": 4,
        "seconds": 2.0,
        "ops_per_second": 2.0,
        "errors": 0,
        "callers": 4,
    }
    assert found["p50_ms"] == pytest.approx(2, rel=0.01)
    assert found["p99_ms"] == found["max_ms"] == 4.0
    assert found["longest_gap_ms"] == 1996.0


def test_a_run_without_a_single_answer_is_shown_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally(0, 0)
    tally.finish(0)
    tally.errors["Unavailable"] = 3
    result = Result(plan(), tally, True)
    assert view.document(result)["ops_per_second"] == 0
    view.report(result, no_color=True)
    assert "Unavailable 3" in capsys.readouterr().out


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("latencies", [(1.0,), (1.0, 1.1, 1.2), (0.05, 2.0, 90.0, 7000.0), (0.0,)])
def test_the_histogram_fits_40_columns_and_counts_everything(latencies: tuple[float, ...], blocks: bool) -> None:
    histogram = tally_of(*latencies).puts
    lines = view.histogram_lines(histogram, 40, blocks=blocks)
    assert max(map(len, lines)) <= 40
    assert len(lines) <= view.MAX_ROWS + 1
    assert sum(int(line.split()[-1]) for line in lines) == len(latencies)
    mark = view.FULL_BLOCK if blocks else view.FULL_LETTER
    assert [mark in line for line in lines] == [line.split()[-1] != "0" for line in lines]


def test_the_report_fits_40_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    view.report(Result(plan(), tally_of(*[1.0] * 900, *[700.0] * 9), False), no_color=True)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 40
    assert "longest gap" in out


def test_a_sparkline_has_a_mark_a_value_and_its_peak_is_full() -> None:
    assert view.sparkline([0.0, 5.0, 10.0]) == "▁▅█"
    assert view.sparkline([0.0, 5.0, 10.0], blocks=False) == "_+#"
    assert view.sparkline([0.0, 0.0]) == "▁▁"


def test_blocks_are_only_shown_where_the_encoding_has_them() -> None:
    assert view.can_show_blocks(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert not view.can_show_blocks(io.TextIOWrapper(io.BytesIO(), encoding="ascii"))


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "0.00 ns"), (999, "999 ns"), (1500, "1.50 us"), (12_340_000, "12.3 ms"), (2_500_000_000, "2.50 s")],
)
def test_durations_have_three_digits_and_a_unit(nanoseconds: int, text: str) -> None:
    assert view.duration(nanoseconds) == text


# -- refusing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--callers", "2", "--processes", "3"], "--processes 3 is more than --callers 2"),
        (["--callers", "100000"], "--callers is 100000, must be 1 to 65536"),
        (["--history", "h", "--processes", "2"], "--history is written by one process, --processes is 2"),
        (["--value-size", "2000000"], "--value-size is 2000000 bytes, more than 1048576"),
        (["--seconds", "0"], "'--seconds'"),
        (["--mix", "puts"], "'puts' is not one of"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(lattice: Any, arguments: list[str], expected: str) -> None:
    code, out, err = lattice("bench", *arguments)
    assert (code, out) == (2, "")
    assert expected in err
    assert err.count("\n") == 1


def test_nobody_there_is_exit_code_3_before_anything_is_measured(lattice: Any) -> None:
    code, out, err = lattice("--endpoints", "127.0.0.1:1", "--timeout", "0.2", "bench", "--seconds", "60")
    assert (code, out) == (3, "")
    assert err.startswith("error: bench: cannot reach 127.0.0.1:1")


def test_a_history_that_cannot_be_written_is_one_line(lattice: Any, tmp_path: Path) -> None:
    code, out, err = lattice("bench", "--history", str(tmp_path / "no" / "h.jsonl"))
    assert (code, out) == (3, "")
    assert "No such file or directory" in err
    assert err.count("\n") == 1
