"""lattice bench against real processes: a leader killed in the middle, several processes, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import LocalCluster, eventually, kill_group, lattice, spawn

from lattice_core.verify import read_history

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180, method="signal")]

BENCH = [sys.executable, "-m", "lattice_cli", "bench"]


def begin(cluster: LocalCluster, output: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a benchmark, and do not wait; what it says goes into ``output``."""
    return spawn([*BENCH, "--endpoints", cluster.endpoints, "-o", "json", *arguments], output=output)


def keys_left(cluster: LocalCluster) -> Any:
    done = lattice("--endpoints", cluster.endpoints, "-o", "json", "get", "bench/", "--prefix", "--limit", "10")
    return json.loads(done.out)["kvs"]


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_recorded_run_with_the_leader_killed_in_the_middle_verifies_as_linearizable(
    cluster: LocalCluster, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    history, output = tmp_path / "history.jsonl", tmp_path / "bench.json"
    bench = begin(cluster, output, "--history", str(history), "--callers", "12", "--seconds", "6", "--warm-up", "0")
    try:
        # The file is written in blocks, so what is there was answered a while ago.
        eventually(lambda: history.exists() and history.stat().st_size > 50_000, "operations are recorded", 60)
        leader = cluster.leader()
        cluster.kill(leader)
        killed_at_ns = time.monotonic_ns()
        assert bench.wait(60) == 0, output.read_text()
    finally:
        kill_group(bench)
    hint = f"check it: lattice verify {history}\n"
    assert hint in output.read_text(), "also where standard output is no terminal"
    found = json.loads(output.read_text().replace(hint, ""))
    operations = read_history(history)
    before = [each for each in operations if each.outcome == "ok" and (each.return_ns or 0) < killed_at_ns]
    after = [each for each in operations if each.outcome == "ok" and each.call_ns > killed_at_ns]
    figure(f"{len(before)} operations before the kill, {len(after)} after; {found['longest_gap_ms']:.0f} ms of silence")
    assert len(before) > 100
    assert len(after) > 100, "the load must have gone on under the next leader"
    assert {each.op for each in after} == {"put", "get", "cas", "delete"}
    assert cluster.leader() != leader
    verdict = lattice("-o", "json", "verify", str(history))
    assert (verdict.code, json.loads(verdict.out)["linearizable"]) == (0, True), verdict
    assert json.loads(verdict.out)["operations"] == len([each for each in operations if each.outcome != "fail"])


def test_several_processes_add_up_to_one_result_and_leave_no_keys_behind(shared: LocalCluster) -> None:
    done = lattice(
        *("--endpoints", shared.endpoints, "-o", "json", "bench", "--mix", "mixed", "--keys", "50"),
        *("--callers", "9", "--processes", "2", "--seconds", "1", "--warm-up", "0.2"),
    )
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert found["ops"] == found["puts"]["ops"] + found["gets"]["ops"] > 0
    assert (found["callers"], found["processes"], found["errors"], found["interrupted"]) == (9, 2, 0, False)
    assert found["seconds"] == pytest.approx(1.0)
    assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["max_ms"]
    assert keys_left(shared) == []


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for children")
def test_ctrl_c_prints_the_result_so_far_and_leaves_no_process_and_no_key(
    shared: LocalCluster, tmp_path: Path, processes: str
) -> None:
    output = tmp_path / "bench.json"
    bench = begin(shared, output, "--seconds", "3600", "--warm-up", "0", "--processes", processes, "--keep")
    try:
        eventually(lambda: len(keys_left(shared)) == 10, "the benchmark writes", 60)
        children = children_of(bench.pid)
        assert len(children) == (0 if processes == "1" else 2)
        bench.send_signal(signal.SIGINT)
        assert bench.wait(30) == 130, output.read_text()
    finally:
        kill_group(bench)
    found = json.loads(output.read_text())
    assert found["interrupted"]
    assert 0 < found["seconds"] < 3600
    assert found["ops"] > 0
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert lattice("--endpoints", shared.endpoints, "delete", "bench/", "--prefix").code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for children")
def test_the_processes_of_a_benchmark_that_is_killed_end_with_it(shared: LocalCluster, tmp_path: Path) -> None:
    bench = begin(shared, tmp_path / "bench.json", "--seconds", "3600", "--processes", "2", "--keep", "--keys", "10")
    try:
        eventually(lambda: len(keys_left(shared)) == 10, "the benchmark writes", 60)
        children = children_of(bench.pid)
        assert len(children) == 2
        os.kill(bench.pid, signal.SIGKILL)
    finally:
        kill_group(bench)
    eventually(lambda: not any(Path(f"/proc/{child}").exists() for child in children), "its children have ended", 30)
    assert lattice("--endpoints", shared.endpoints, "delete", "bench/", "--prefix").code == 0
