"""Plans: everything a run depends on, saved and read back, or refused with one line."""

from __future__ import annotations

import dataclasses
import json

import pytest

from lattice_core.errors import InvalidRequest
from lattice_core.sim.plan import ASK, CHANGE_KINDS, FAULT_KINDS, MEMBERSHIP_FAULTS, Fault, Membership, Plan


def test_the_same_seed_gives_the_same_plan_and_another_seed_another() -> None:
    assert Plan.from_seed(5) == Plan.from_seed(5)
    assert Plan.from_seed(5) != Plan.from_seed(6)


def test_a_plan_survives_being_saved() -> None:
    for seed in range(20):
        plan = Plan.from_seed(seed, hours=0.1, plant="commit-old-term" if seed % 2 else None)
        assert Plan.from_json(plan.to_json()) == plan


def test_every_kind_of_fault_and_of_change_is_drawn_by_some_seed() -> None:
    plans = [Plan.from_seed(seed, hours=0.05) for seed in range(60)]
    assert {fault.kind for plan in plans for fault in plan.faults} == set(FAULT_KINDS)
    assert {change.kind for plan in plans for change in plan.changes} == set(CHANGE_KINDS)
    assert {change.ask for plan in plans for change in plan.changes} == set(ASK)


def test_about_half_of_the_seeds_change_the_membership_some_of_them_in_one_long_story() -> None:
    plans = [Plan.from_seed(seed) for seed in range(300)]
    changing = [plan for plan in plans if plan.changes]
    journeys = [plan for plan in changing if plan.membership.patience_ms == 0]
    assert 130 < len(changing) < 190
    assert 25 < len(journeys) < 65
    calm = [plan for plan in plans if not plan.changes]
    assert not {fault.kind for plan in calm for fault in plan.faults} & set(MEMBERSHIP_FAULTS)


def test_membership_can_be_chosen_and_without_changes_the_rest_of_the_plan_is_as_the_seed_has_it() -> None:
    for seed in range(20):
        off = Plan.from_seed(seed, membership="off")
        assert off.changes == ()
        assert off.membership.max_servers == max(7, off.nodes)
        assert Plan.from_seed(seed, membership="random").changes
        journey = Plan.from_seed(seed, membership="journey")
        assert journey.nodes == 3
        assert len(journey.changes) == 11
        assert (journey.workload, journey.network) == (off.workload, off.network)
    with pytest.raises(InvalidRequest, match="one of off, random, journey"):
        Plan.from_seed(1, membership="sometimes")


def test_no_more_bits_flip_than_a_quorum_can_repair() -> None:
    """Where members come and go the nemesis looks before it strikes; see test_membership.py."""
    at_the_bound = 0
    for seed in range(60):
        plan = Plan.from_seed(seed, hours=0.25, membership="off")
        flips, bound = sum(fault.kind == "bit-flip" for fault in plan.faults), (plan.nodes - 1) // 2
        assert flips <= bound
        at_the_bound += flips == bound > 0
    assert at_the_bound >= 10


def test_a_plan_of_before_membership_changes_is_still_read() -> None:
    document = json.loads(Plan.from_seed(1, membership="off").to_json())
    document["lattice_plan"] = 1
    del document["changes"], document["membership"]
    assert Plan.from_json(json.dumps(document)) == dataclasses.replace(
        Plan.from_seed(1, membership="off"), membership=Membership()
    )


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
        (_edited(changes=[{"at_ms": 1, "kind": "divorce"}]), "unknown kind of change 'divorce'"),
        (_edited(changes=[{"at_ms": 1, "kind": "add", "count": 9}]), "add change is out of range"),
        (_edited(changes=[{"at_ms": 1, "kind": "add", "ask": "nobody"}]), "add change is out of range"),
        (_edited(membership={"looks": 0}), "membership is out of range"),
        (_edited(membership={"max_servers": 99}), "membership is out of range"),
        (_edited(changes=...), "'changes' is missing"),
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
