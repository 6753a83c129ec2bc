"""The planted bugs: each is caught by the seed that docs/planted-bugs.md names, and the control stays clean.

tests/sim/planted.json is written by tools/planted_bugs.py. When the plans or the core change so that a seed no
longer catches its bug, run that again and look at what it says.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lattice_core.errors import InvalidRequest
from lattice_core.sim import plants
from lattice_core.sim.plan import Plan
from lattice_core.sim.plants import PLANTS
from lattice_core.sim.runner import run, shrink

TABLE: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "planted.json").read_text())
PAGE = Path(__file__).resolve().parents[2] / "docs" / "planted-bugs.md"


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_caught(name: str) -> None:
    found = TABLE[name]
    report = run(Plan.from_seed(found["seed"], hours=found["hours"], plant=name))
    assert report.failed, f"{name} is no longer caught by seed {found['seed']}: run tools/planted_bugs.py {name}"


@pytest.mark.parametrize("seed", sorted({found["seed"] for found in TABLE.values()}))
def test_the_control_is_clean_on_the_seeds_that_catch_a_bug(seed: int) -> None:
    report = run(Plan.from_seed(seed, hours=0.02))
    assert not report.violations


def test_every_planted_bug_is_in_the_table_and_on_the_page_within_its_budget() -> None:
    text = PAGE.read_text()
    for name in PLANTS:
        assert TABLE[name]["cpu_seconds"] <= 120
        assert f"| `{name}` |" in text
        assert f"| {TABLE[name]['seed']} | {TABLE[name]['cpu_seconds']} s | {TABLE[name]['check']} |" in text


def test_what_a_plant_patches_is_put_back() -> None:
    before = {name: [owner.__dict__[attribute] for owner, attribute, _ in PLANTS[name].patches()] for name in PLANTS}
    for name in PLANTS:
        with plants.planted(name):
            pass
    after = {name: [owner.__dict__[attribute] for owner, attribute, _ in PLANTS[name].patches()] for name in PLANTS}
    assert before == after


def test_an_unknown_bug_is_refused_with_one_line() -> None:
    with pytest.raises(InvalidRequest, match="nonsense"), plants.planted("nonsense"):
        pass


def test_a_failing_plan_is_shrunk_and_still_fails_when_it_is_read_back() -> None:
    plan = Plan.from_seed(TABLE["commit-own-last-index"]["seed"], hours=0.02, plant="commit-own-last-index")
    smaller, report = shrink(plan, budget_seconds=6)
    assert report.failed
    assert len(smaller.faults) < len(plan.faults)
    assert smaller.duration_ms < plan.duration_ms
    again = run(Plan.from_json(smaller.to_json()))
    assert again.violations == report.violations
    assert again.trace_hash == report.trace_hash
