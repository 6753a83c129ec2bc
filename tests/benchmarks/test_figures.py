"""What the benchmarks compute from what they measured: the comparison's table, flame graphs, the timeline of a put."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import command_cost
from benchmarks.compare import measure, plan, table, whole
from benchmarks.compare.processes import Failed
from benchmarks.profiling import flame, threads, timeline
from benchmarks.profiling.tracepoints import Tracer

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ["etcd", "etcd, tuned", "Lattice"]


def found(rate: float, p50: float = 1.0) -> dict[str, float]:
    return {"ops_per_second": rate, "p50_ms": p50}


def line(figures: Any, title: str) -> table.Line:
    (only,) = [line for line in table.rows(figures, COLUMNS) if line.title == title]
    return only


def test_a_row_compares_medians_over_the_turns_with_both_ways_of_driving_etcd() -> None:
    figures = {
        "put 256": {
            "etcd": [found(900), found(1000), found(5000)],
            "etcd, tuned": [found(2000)],
            "Lattice": [found(7000), found(9000), found(8000)],
        }
    }
    row = line(figures, "put, 256 callers")
    assert row.values == {"etcd": 1000, "etcd, tuned": 2000, "Lattice": 8000}
    assert (row.ratio, row.reached) == (8.0, True)
    assert (row.ratio_to_tuned, row.reached_tuned) == (4.0, False)
    assert row.turns["Lattice"] == [7000, 9000, 8000]


@pytest.mark.parametrize(("gaps", "reached"), [([800.0, 900.0, 1400.0], True), ([800.0, 900.0, 1600.0], False)])
def test_the_worst_of_the_kills_counts_and_not_their_median(gaps: list[float], reached: bool) -> None:
    figures = {"kill": {"etcd": [1500.0, 5000.0, 1500.0], "Lattice": gaps}}
    assert line(figures, "leader killed, worst gap").reached is reached
    assert line(figures, "leader killed, median gap").reached is True


def test_one_election_too_many_is_not_lost_in_a_median() -> None:
    turns = {"etcd": [{"elections": 0}] * 3, "Lattice": [{"elections": 0}, {"elections": 0}, {"elections": 1}]}
    assert line({"elections": turns}, "elections under saturation").reached is False


def test_a_store_that_slows_down_as_it_grows_is_not_flat() -> None:
    def costs(first: float, last: float) -> list[dict[str, float]]:
        return [{"keys": 10_000, "cpu_us_per_put": first}, {"keys": 1_000_000, "cpu_us_per_put": last}]

    for last, flat in ((31.0, True), (45.0, False)):
        row = line({"growth": {"Lattice": costs(30.0, last)}}, "CPU of all members for a put, 1,000,000 keys")
        assert row.reached is flat


def test_what_was_not_measured_is_not_in_the_table_and_the_table_is_markdown() -> None:
    figures = {"put 1": {"etcd": [found(500, 1.8)], "Lattice": [found(500, 2.0)]}}
    lines = table.rows(figures, COLUMNS)
    assert [line.title for line in lines] == ["put, 1 caller, median"]
    text = table.text(lines, COLUMNS, {column: column for column in COLUMNS})
    head, rule, row = text.splitlines()
    assert len({head.count("|"), rule.count("|"), row.count("|")}) == 1
    assert "1.11 x" in row
    assert len({len(head), len(rule), len(row)}) == 1


# -- flame graphs -------------------------------------------------------------------------------------

FOLDED = """\
thread (7): MainThread;run (click/core.py:1);run (lattice_core/server/run.py:9);put (lattice_core/kv/store.py:10) 30
thread (7): MainThread;run (lattice_core/server/run.py:9);put (lattice_core/kv/store.py:22) 10
thread (7): MainThread;run (lattice_core/server/run.py:9);_write (grpc/aio/_call.py:5) 60
not a stack
"""


def test_lines_of_one_function_are_one_frame_and_the_way_in_is_left_out() -> None:
    stacks = flame.read_folded(FOLDED.splitlines())
    assert sum(count for _, count in stacks) == 100
    assert not any("click" in frame for frames, _ in stacks for frame in frames)
    assert flame.by_layer(stacks) == {"gRPC": 0.6, "state machine": 0.4}
    assert flame.by_function(stacks, inclusive=False)[:2] == [
        ("_write (grpc/aio/_call.py)", 0.6),
        ("put (lattice_core/kv/store.py)", 0.4),
    ]
    assert ("run (lattice_core/server/run.py)", 1.0) in flame.by_function(stacks, inclusive=True)


def test_a_box_is_as_wide_as_its_share_and_the_picture_is_well_formed() -> None:
    svg = flame.flame_graph(flame.read_folded(FOLDED.splitlines()), "a < b", "of <it>")
    root = ElementTree.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    widths = {}
    for group in root.iter(f"{space}g"):
        title, box = group.find(f"{space}title"), group.find(f"{space}rect")
        assert title is not None
        assert box is not None
        widths[(title.text or "").partition(":")[0]] = float(box.attrib["width"])
    assert widths["_write (grpc/aio/_call.py)"] == pytest.approx(0.6 * widths["all"], rel=0.01)
    assert widths["put (lattice_core/kv/store.py)"] == pytest.approx(0.4 * widths["all"], rel=0.01)


def test_a_picture_of_nothing_is_a_picture() -> None:
    assert ElementTree.fromstring(flame.flame_graph([], "nothing", "")).tag.endswith("svg")


# -- the timeline -------------------------------------------------------------------------------------


def marks_of_one_put(start: int) -> tuple[Tracer, Tracer, Tracer]:
    """Client, leader and follower as one put passes them, a microsecond a step."""
    client, leader, follower = Tracer(), Tracer(), Tracer()
    owner = {"client": client, "leader": leader, "follower": follower}
    at = start
    client.marks.append((at, "put", ""))
    for steps in (timeline.CLIENT_OUT, timeline.LEADER_DISK, timeline.OUT_TO_FOLLOWER, timeline.BACK):
        for step in steps:
            at += 1000
            owner[step.where].marks.append((at, step.label, step.detail))
    return client, leader, follower


def test_a_put_is_followed_through_all_processes_and_each_step_has_its_length() -> None:
    client, leader, follower = marks_of_one_put(5000)
    text = timeline.timeline(
        *(timeline.Track(each.marks) for each in (client, leader)), [timeline.Track(follower.marks)]
    )
    assert text.startswith("1 puts followed")
    assert f"client to leader: {len(timeline.CLIENT_OUT)} us" in text
    assert f"back to the caller: {len(timeline.BACK)} us" in text


def test_a_put_that_cannot_be_followed_is_left_out_and_said_so() -> None:
    client, leader, follower = marks_of_one_put(0)
    del leader.marks[2]
    text = timeline.timeline(
        *(timeline.Track(each.marks) for each in (client, leader)), [timeline.Track(follower.marks)]
    )
    assert "no put could be followed" in text


def test_the_trace_points_fit_the_code() -> None:
    """In a process of its own, for they stay. A method that has been renamed is reported on stderr."""
    program = (
        "from benchmarks.profiling.tracepoints import Tracer, install_server\n"
        "install_server(Tracer())\n"
        "with Tracer().installed_in_client(): pass\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_a_threads_cost_is_told_by_its_role() -> None:
    before = threads.costs(os.getpid())
    sum(range(2_000_000))
    spent = threads.roles(os.getpid(), before)
    assert spent["event loop"].cpu_seconds > 0


def test_a_whole_process_is_charged_what_it_has_used_and_one_that_fails_says_why() -> None:
    costs = whole.in_turns({"busy": [sys.executable, "-c", "sum(range(5_000_000))"], "true": ["true"]}, 2)
    assert all(busy.cpu_seconds > true.cpu_seconds for busy, true in zip(costs["busy"], costs["true"], strict=True))
    with pytest.raises(Failed, match="no such thing"):
        whole.run([sys.executable, "-c", "import sys; sys.exit('no such thing')"])


def test_top_costs_what_it_adds_to_the_dearest_node() -> None:
    shares = {"without": [[0.10, 0.20], [0.12, 0.20], [0.90, 0.20]], "with": [[0.11, 0.23], [0.13, 0.23], [0.12, 0.23]]}
    cost = command_cost.top_cost("idle", shares)
    assert (cost["without"], cost["with"]) == ([0.12, 0.20], [0.12, 0.23])
    assert (cost["added"], cost["added_mean"]) == (0.03, 0.015)


def test_what_a_write_costs_is_told_by_how_many_keys_there_were_and_not_by_how_many_were_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``lattice bench`` says how many keys it wrote to, under the same name."""
    monkeypatch.setattr(measure, "SETTLE_SECONDS", 0.0)

    class Fake:
        name = "Lattice"

        def label(self, way: str) -> str:
            return self.name

        async def nothing(self, *_arguments: object) -> None: ...

        start = close = load = nothing

        def pids(self) -> list[int]:
            return [os.getpid()]

        async def put(self, *_arguments: object, **_keys: object) -> dict[str, Any]:
            return {"ops": 10, "ops_per_second": 1.0, "keys": 10_000}

    figures: Any = {}
    asyncio.run(measure.growing([Fake()], plan.QUICK, figures, lambda line: None))  # type: ignore[list-item]
    assert [each["keys"] for each in figures["growth"]["Lattice"]] == [10_000, 1_000_000]
