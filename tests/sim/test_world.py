"""Runs: the same everywhere, clean on the product as it is, and not vacuous."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

import pytest

from lattice_core.sim.plan import Plan
from lattice_core.sim.recorder import Recorder
from lattice_core.sim.runner import Report, run

FIXED_SEEDS = range(300, 324)
HOURS = 0.02
FRESH_SEEDS = 4

_PROGRAM = """
from lattice_core.sim.plan import Plan
from lattice_core.sim.runner import run
report = run(Plan.from_seed(11, hours=0.01, membership="journey"))
print(report.trace_hash, report.events, report.acknowledged_writes, report.elections)
"""


def _in_another_process(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, timeout=100, check=True
    )
    return done.stdout.strip()


def test_a_seed_gives_the_same_trace_in_another_process_under_another_hash_seed() -> None:
    here = run(Plan.from_seed(11, hours=0.01, membership="journey"))
    line = f"{here.trace_hash} {here.events} {here.acknowledged_writes} {here.elections}"
    assert _in_another_process("1") == line
    assert _in_another_process("4242") == line


def test_recording_a_run_does_not_change_it() -> None:
    plan = Plan.from_seed(12, hours=0.01, membership="random")
    assert run(plan, recorder=Recorder()).trace_hash == run(plan).trace_hash


def test_another_seed_gives_another_trace() -> None:
    assert run(Plan.from_seed(13, hours=0.005)).trace_hash != run(Plan.from_seed(14, hours=0.005)).trace_hash


def _require_clean(report: Report) -> None:
    assert not report.violations, f"seed {report.plan.seed}: {report.violations}"


def test_fresh_seeds_are_clean(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(FRESH_SEEDS):
        seed = secrets.randbits(32)
        with capsys.disabled():
            print(f"\nfresh seed {seed} ({HOURS} h): lattice sim --seed {seed} --hours {HOURS}", file=sys.stderr)
        _require_clean(run(Plan.from_seed(seed, hours=HOURS)))


def test_the_fixed_seeds_are_clean_and_together_see_enough_to_mean_something() -> None:
    """A simulator that nothing happens in finds nothing."""
    faults: dict[str, int] = {}
    writes = elections = 0
    for seed in FIXED_SEEDS:
        report = run(Plan.from_seed(seed, hours=HOURS))
        _require_clean(report)
        writes += report.acknowledged_writes
        elections += report.elections
        for kind, count in (*report.faults.items(), *report.counters.items(), *report.changes.items()):
            faults[kind] = faults.get(kind, 0) + count
    assert writes > 1000
    assert elections > 50
    for kind in (
        *("crash", "stop", "isolate", "split", "pause", "snapshots taken", "snapshots installed"),
        *(
            "add: done",
            "remove-follower: done",
            "remove-leader: done",
            "replace: done",
            "several: done",
            "transfer: done",
        ),
        *("isolate-after-change", "crash-after-change", "split-joint", "crash-before-answer", "cut-leaver"),
    ):
        assert faults.get(kind, 0) > 0, f"no {kind} in {faults}"


def test_a_single_node_needs_nobody() -> None:
    report = run(Plan.from_seed(21, hours=0.005, nodes=1))
    _require_clean(report)
    assert report.acknowledged_writes > 0
