"""Plans: everything a run depends on, saved and read back, or refused with one line."""

from __future__ import annotations

import dataclasses
import json

import pytest

from lattice_core.errors import InvalidRequest
from lattice_core.sim.plan import FAULT_KINDS, Fault, Plan


def test_the_same_seed_gives_the_same_plan_and_another_seed_another() -> None:
    assert Plan.from_seed(5) == Plan.from_seed(5)
    assert Plan.from_seed(5) != Plan.from_seed(6)


def test_a_plan_survives_being_saved() -> None:
    for seed in range(20):
        plan = Plan.from_seed(seed, hours=0.1, plant="commit-old-term" if seed % 2 else None)
        assert Plan.from_json(plan.to_json()) == plan


def test_every_kind_of_fault_is_drawn_by_some_seed() -> None:
    drawn = {fault.kind for seed in range(60) for fault in Plan.from_seed(seed, hours=0.05).faults}
    assert drawn == set(FAULT_KINDS)


def test_no_more_bits_flip_than_a_quorum_can_repair() -> None:
    for seed in range(200):
        plan = Plan.from_seed(seed, hours=0.5)
        assert sum(fault.kind == "bit-flip" for fault in plan.faults) <= (plan.nodes - 1) // 2


def _edited(**changes: object) -> str:
    document = json.loads(Plan.from_seed(1).to_json())
    for name, value in changes.items():
        if value is ...:
            del document[name]
        else:
            document[name] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is not a plan"),
        ("[1, 2", "is not a plan"),
        ("[]", "no field lattice_plan"),
        (_edited(lattice_plan=99), "version 99"),
        (_edited(seed=...), "'seed' is missing"),
        (_edited(nodes=0), "nodes is 0"),
        (_edited(nodes="three"), "nodes must be a whole number"),
        (_edited(surprise=1), "'surprise'"),
        (_edited(clocks=[]), "clocks one for each node"),
        (_edited(faults=[{"at_ms": 1, "kind": "meteor"}]), "unknown kind of fault 'meteor'"),
        (_edited(faults=[{"at_ms": 1, "kind": "crash", "node": 77}]), "beyond"),
        (_edited(faults=[{"at_ms": "soon", "kind": "crash"}]), "at_ms cannot be 'soon'"),
        (_edited(network={"delay": 1}), "no field 'delay'"),
        (_edited(workload=7), "must be an object"),
    ],
)
def test_a_damaged_plan_is_refused_with_one_line_that_names_the_file(text: str, part: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Plan.from_json(text, source="p.json")
    assert str(caught.value).startswith("p.json")
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dropping_a_fault_leaves_everything_else_of_the_plan_alone() -> None:
    plan = Plan.from_seed(3)
    fewer = dataclasses.replace(plan, faults=plan.faults[1:])
    assert dataclasses.replace(fewer, faults=plan.faults) == plan
    assert isinstance(fewer.faults[0], Fault)
