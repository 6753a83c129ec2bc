"""Membership changes in the simulator: SAFETY 32 to 38, 42 and 46 met with crashes and cuts in the middle.

Each plan is written out by hand, so that it stays what it is; each test says first that what it is about has really
happened, and then that nothing went wrong.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import pytest

from lattice_core.raft.leader import Leader
from lattice_core.raft.types import Configuration, NodeId
from lattice_core.sim.nemesis import ARMED, FINAL, JOINT
from lattice_core.sim.plan import Change, Clock, Fault, Membership, Plan, Settings, Workload
from lattice_core.sim.recorder import Recorder
from lattice_core.sim.runner import Report, run, shrink
from lattice_core.sim.violation import Violation
from lattice_core.sim.world import World

HABITS = Membership()
WORKLOAD = Workload(think_ms=150)


def plan_of(
    *changes: Change,
    faults: tuple[Fault, ...] = (),
    nodes: int = 3,
    seconds: int = 20,
    seed: int = 5,
    membership: Membership = HABITS,
    workload: Workload = WORKLOAD,
) -> Plan:
    """A quick network on which only ``faults`` go wrong."""
    return Plan(
        seed=seed,
        nodes=nodes,
        duration_ms=seconds * 1000,
        settings=Settings(snapshot_entries=100),
        workload=workload,
        clocks=(Clock(),) * nodes,
        faults=faults,
        changes=changes,
        membership=membership,
    )


def clean(plan: Plan) -> tuple[Report, Recorder, World]:
    """Run it; nothing may be wrong."""
    recorder = Recorder()
    report = run(plan, recorder=recorder)
    assert report.violations == []
    world = World(plan)
    world.run()
    return report, recorder, world


def going_back(recorder: Recorder) -> list[tuple[NodeId, int]]:
    """(server, how many entries) each time that a server used the configuration of an earlier entry again."""
    found, before = [], dict.fromkeys(range(1, 20), 0)
    for _, node, index, _ in recorder.configurations:
        if index < before[node]:
            found.append((node, before[node] - index))
        before[node] = index
    return found


def appended_by(recorder: Recorder, joint: bool) -> dict[int, NodeId]:
    """Which leader was the first to use the configuration of an entry, by index."""
    found: dict[int, NodeId] = {}
    for _, node, index, configuration in recorder.configurations:
        if index and configuration.is_joint is joint:
            found.setdefault(index, node)
    return found


SOON = 3000


@pytest.mark.parametrize("kind", ["isolate-after-change", "crash-after-change"])
def test_safety_32_a_configuration_that_nobody_else_has_is_rolled_back(kind: str) -> None:
    report, recorder, _ = clean(
        plan_of(
            Change(SOON, "remove-follower"), faults=(Fault(SOON, kind, for_ms=4000),), membership=Membership(looks=1)
        )
    )
    assert report.faults == {kind: 1}
    assert report.changes == {"remove-follower: done": 1}
    # Power was lost before the entry was on disk; who was only cut off had it in its log, and took it out again.
    assert bool(going_back(recorder)) is (kind == "isolate-after-change")


def test_safety_33_changes_are_asked_for_in_the_middle_of_others_and_of_everybody_who_thinks_that_it_leads() -> None:
    changes = tuple(
        Change(SOON + 100 * place, kind, pick=place, ask="all")
        for place, kind in enumerate(("add", "add", "remove-follower", "replace", "add-learner", "remove-leader"))
    )
    faults = tuple(Fault(SOON + 500 * place, "isolate-after-change", for_ms=1500) for place in range(6))
    report, recorder, world = clean(plan_of(*changes, faults=faults, seconds=30, membership=Membership(at_once=3)))
    assert report.counters["changes refused: Refused"] > 5
    assert sum(report.changes.values()) == 6
    assert report.faults["isolate-after-change"] >= 3
    committed = [configuration for _, configuration in world.invariants.configurations]
    for before, after in itertools.pairwise(committed):
        assert not (before.is_joint and after.is_joint)
        if before.voters != after.voters:
            assert after.is_joint
            assert after.voters_outgoing == before.voters
        elif before.is_joint:
            assert (after.voters, after.learners) == (before.voters, before.learners)
    assert recorder.configurations


def test_safety_34_leaders_remove_themselves_one_after_the_other_and_the_rest_goes_on() -> None:
    changes = tuple(Change(SOON + 4000 * place, "remove-leader", linger_ms=2000) for place in range(4))
    faults = (Fault(7000, "crash-after-change", for_ms=1000, amount=FINAL), Fault(11_000, "split-joint", for_ms=2000))
    report, recorder, world = clean(
        plan_of(*changes, nodes=5, faults=faults, seconds=30, membership=Membership(min_voters=1))
    )
    assert report.changes == {"remove-leader: done": 4}
    assert len(world.operator.committed.voters) == 1
    last = {node: configuration for _, node, _, configuration in recorder.configurations}
    gone = [node for node in last if node not in world.operator.committed]
    assert len(gone) == 4
    for node in gone:
        led = [at for at, who, role, *_ in recorder.roles if who == node and role == "leader"]
        assert led, f"n{node} led before it was removed"


def test_safety_35_a_removed_server_that_never_heard_of_it_comes_back_and_disturbs_nobody() -> None:
    report, recorder, world = clean(
        plan_of(
            Change(SOON, "remove-follower", linger_ms=60_000),
            nodes=4,
            faults=(Fault(SOON, "cut-leaver", for_ms=5000),),
            seconds=25,
        )
    )
    assert report.faults == {"cut-leaver": 1}
    assert report.changes == {"remove-follower: done": 1}
    (removed,) = set(world.nodes) - world.operator.committed.voters
    tried = [at for at, node, role, *_ in recorder.roles if node == removed and role == "pre-candidate"]
    assert sum(at > 8e9 for at in tried) > 3, "it asks for votes when it is back"
    assert report.elections == 1
    raft = world.nodes[removed].raft
    assert raft is not None
    assert raft.configuration.is_voter(removed), "it still does not know"


def test_safety_35_a_removed_server_comes_back_with_an_old_log_and_nobody_follows_it() -> None:
    """It was down while it and another were replaced; they two would be enough in the configuration that it knows."""
    changes = (Change(SOON, "replace", pick=2, linger_ms=60_000), Change(9000, "replace", pick=1, linger_ms=60_000))
    report, _, world = clean(
        plan_of(
            *changes, faults=(Fault(SOON, "crash-leaver", for_ms=14_000),), seconds=30, membership=Membership(looks=1)
        )
    )
    assert report.faults == {"crash-leaver": 1}
    assert report.changes == {"replace: done": 2}
    assert world.invariants.configurations[-1][1].voters.isdisjoint({2, 3})
    assert len(world.nodes) == 5, "the removed ones are still running"


def test_safety_36_learners_are_promoted_when_they_have_caught_up_and_never_campaign_before() -> None:
    faults = (
        Fault(SOON, "crash-joiner", for_ms=1500),
        Fault(6000, "isolate-joiner", for_ms=2000, amount=5.0),
        Fault(9000, "isolate", 0, for_ms=2000),
    )
    changes = (Change(SOON, "add"), Change(6000, "add"), Change(8500, "add-learner"))
    report, recorder, world = clean(plan_of(*changes, faults=faults, seconds=25))
    assert report.faults == {"crash-joiner": 1, "isolate-joiner": 1, "isolate": 1}
    assert report.changes == {"add: done": 2, "add-learner: done": 1}
    assert (len(world.operator.committed.voters), len(world.operator.committed.learners)) == (5, 1)
    votes_from: dict[NodeId, int] = {}
    for at, node, _, configuration in recorder.configurations:
        if configuration.is_voter(node):
            votes_from.setdefault(node, at)
    campaigns = [(at, node) for at, node, role, *_ in recorder.roles if role in ("pre-candidate", "candidate")]
    assert campaigns
    assert all(at >= votes_from[node] for at, node in campaigns)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "fault",
    [
        Fault(SOON, "crash-after-change", for_ms=6000),
        Fault(SOON, "crash-after-change", for_ms=6000, amount=FINAL),
        Fault(SOON, "crash-after-change", for_ms=6000, amount=JOINT),
        Fault(SOON, "isolate-after-change", for_ms=4000),
        Fault(SOON, "isolate-after-change", for_ms=4000, amount=FINAL),
        Fault(SOON, "isolate-after-change", for_ms=4000, amount=JOINT),
        Fault(SOON, "pause-after-change", for_ms=4000, amount=FINAL),
        Fault(SOON, "pause-after-change", for_ms=4000, amount=JOINT),
        Fault(SOON, "eio-after-change", amount=JOINT),
        Fault(SOON, "split-joint", for_ms=4000),
        Fault(SOON, "split-joint", for_ms=4000, amount=1.0),
        Fault(SOON, "crash-before-answer", other=1, for_ms=500, amount=FINAL),
        Fault(SOON, "crash-before-answer", other=1, for_ms=500, amount=JOINT),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.amount:g}",
)
def test_safety_37_a_joint_change_that_loses_its_leader_in_any_phase_is_finished(fault: Fault, seed: int) -> None:
    """Three servers change places with three others, at once: the two halves have nobody in common."""
    change = Change(SOON, "several", count=3)
    report, _, world = clean(
        plan_of(change, faults=(fault,), seed=seed, seconds=15, membership=Membership(patience_ms=0, looks=1))
    )
    assert report.faults == {fault.kind: 1}
    assert report.changes == {"several: done": 1}
    final = world.operator.committed
    assert (final.voters, final.is_joint) == (frozenset({4, 5, 6}), False)


def test_safety_37_another_leader_finishes_what_it_finds() -> None:
    finished = 0
    for seed in range(6):
        faults = (Fault(SOON, "isolate-after-change", for_ms=5000, amount=FINAL),)
        plan = plan_of(
            Change(SOON, "several", count=1), faults=faults, seed=seed, seconds=12, membership=Membership(looks=1)
        )
        _, recorder, world = clean(plan)
        begun, ended = appended_by(recorder, joint=True), appended_by(recorder, joint=False)
        joints = [index for index, found in world.invariants.configurations if found.is_joint]
        for index in joints:
            after = min(at for at, found in world.invariants.configurations if at > index and not found.is_joint)
            finished += begun[index] != ended[after]
    assert finished > 0


def test_safety_38_even_sizes_need_more_than_half_and_nonsense_is_refused() -> None:
    """Four voters in two halves: neither may decide. And whoever is asked for nonsense says no, without a change."""
    faults = (Fault(5000, "split", 2, for_ms=5000), Fault(12_000, "split", 2, for_ms=4000))
    changes = tuple(Change(1500 + 300 * place, "astray", pick=place, ask="all") for place in range(42))
    report, _, world = clean(plan_of(*changes, nodes=4, faults=faults, seconds=20))
    assert report.faults == {"split": 2}
    assert report.changes["astray: refused"] > 25
    assert world.invariants.configurations == [(0, world.configuration)]
    writes = [one.return_ns for one in world.history if one.outcome == "ok" and one.op != "get" and one.return_ns]
    assert not [at for at in writes if 6_500_000_000 < at < 10_000_000_000], "no half has taken a write"
    assert [at for at in writes if at > 10_500_000_000]


def test_safety_38_the_last_voter_stays() -> None:
    changes = tuple(
        Change(2000 + 2500 * place, kind) for place, kind in enumerate(("remove-follower", "remove-leader") * 3)
    )
    report, _, world = clean(plan_of(*changes, seconds=25, membership=Membership(min_voters=1)))
    assert len(world.operator.committed.voters) == 1
    assert sum(count for what, count in report.changes.items() if what.endswith("done")) == 2


TRANSFERS = plan_of(
    *(Change(2000 + 1500 * place, "transfer", pick=place) for place in range(12)),
    faults=tuple(Fault(1900 + 1500 * place, "cut-after-transfer", for_ms=1200) for place in range(12)),
    seconds=22,
    workload=Workload(clients=4, keys=1, think_ms=40, pinned_readers=3, attempt_ms=150, lease_reads=0.5),
)
"""Leadership goes round, the old leader is cut off from all but the new one, and those who read under its lease stay
with it."""


def test_safety_42_no_lease_outlives_the_leadership_that_is_handed_over() -> None:
    report, _, _ = clean(TRANSFERS)
    assert report.counters["transfers completed"] + report.faults["cut-after-transfer"] > 12
    assert report.counters["lease reads"] > 500
    kept = run(dataclasses.replace(TRANSFERS, plant="lease-kept-in-transfer"))
    assert [found["check"] for found in kept.violations] == ["linearizability"]


def test_safety_46_a_transfer_to_whom_it_cannot_go_is_refused_or_given_up_and_service_goes_on() -> None:
    """To a learner, a removed, a dead, an unknown server, and to the leader itself."""
    changes = (
        Change(2000, "add-learner"),
        Change(3000, "remove-follower", linger_ms=60_000),
        Change(5000, "replace-dead", pick=1),
        *(Change(6000 + 700 * place, "transfer-astray", pick=place) for place in range(18)),
    )
    faults = (Fault(4900, "crash-after-change", for_ms=3000),)
    report, _, world = clean(plan_of(*changes, nodes=5, faults=faults, seconds=24, membership=Membership(at_once=1)))
    assert report.changes["transfer-astray: refused"] > 8
    writes = [one.return_ns for one in world.history if one.outcome == "ok" and one.op != "get" and one.return_ns]
    late = sorted(at for at in writes if 10_000_000_000 < at < 23_000_000_000)
    assert max(after - before for before, after in itertools.pairwise(late)) < 2_500_000_000


def test_safety_46_a_target_that_is_dead_or_far_behind_is_given_up_or_brought_up_to_date_first() -> None:
    faults = (
        Fault(3000, "crash", 3, for_ms=4000),
        Fault(3500, "transfer", other=3),
        Fault(8000, "slow-link", 1, 2, for_ms=2500, amount=400.0),
        Fault(8500, "transfer", other=2),
    )
    report, recorder, _ = clean(plan_of(faults=faults, seconds=14))
    assert report.faults["transfer"] == 2
    assert report.counters.get("transfers given up", 0) >= 1
    assert [role for _, _, role, *_ in recorder.roles if role == "leader"]


# ---- the whole story --------------------------------------------------------------------------------------

JOURNEY = Counter(
    {"add: done": 2, "replace: done": 2, "transfer: done": 5, "remove-leader: done": 1, "remove-follower: done": 1}
)


@pytest.mark.parametrize("seed", range(700, 708))
def test_three_become_five_two_are_replaced_leadership_moves_five_times_and_three_are_left(seed: int) -> None:
    plan = Plan.from_seed(seed, hours=0.02, membership="journey")
    report = run(plan)
    assert report.violations == []
    assert report.changes == JOURNEY
    assert plan.nodes == 3
    assert report.joined >= 4
    for change in plan.changes:
        assert any(fault.at_ms == change.at_ms and fault.kind in ARMED for fault in plan.faults), (
            "one waits in the middle"
        )


# ---- the operator and the nemesis ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(720, 726))
def test_ids_are_never_used_again_and_no_bound_is_passed(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan.from_seed(seed, hours=0.02, membership="random")
    joined: list[NodeId] = []
    most = 0
    join = World.join

    def joins(self: World, number: NodeId) -> None:
        nonlocal most
        joined.append(number)
        join(self, number)
        most = max(most, self.running)

    monkeypatch.setattr(World, "join", joins)
    world = World(plan)
    world.run()
    assert joined == sorted(set(joined))
    assert all(number > plan.nodes for number in joined)
    assert most <= plan.membership.max_servers
    committed = [configuration for _, configuration in world.invariants.configurations]
    removed: set[NodeId] = set()
    for before, after in itertools.pairwise(committed):
        removed |= {one.id for one in before.members} - {one.id for one in after.members}
        assert not removed & {one.id for one in after.members}
        assert len(after.voters) >= min(plan.membership.min_voters, len(before.voters))


def test_never_more_is_lost_for_good_than_a_quorum_can_do_without() -> None:
    world = World(plan_of())
    assert world.may_lose(1)
    world.kill(1)
    assert not world.may_lose(2)
    assert world.may_lose(1), "it is lost already"
    undecided = Configuration((*world.configuration.members,), frozenset({2, 3}), frozenset({1, 2, 3}))
    five = World(plan_of(nodes=5))
    five.kill(1)
    assert five.may_lose(2)
    three = World(plan_of())
    assert three.may_lose(3)
    three.invariants._lengthened(2, 1, undecided, three.invariants.in_force(0, 0), 0)
    assert not three.may_lose(3), "a change that may yet come into force needs both of the two that it leaves"


def test_a_shrunken_plan_keeps_only_the_changes_that_matter() -> None:
    plan = Plan.from_seed(0, hours=0.02, membership="random", plant="learner-counted")
    report = run(plan)
    assert report.failed
    smaller, again = shrink(plan, budget_seconds=8)
    assert again.violations[0]["check"] == report.violations[0]["check"]
    assert len(smaller.changes) < len(plan.changes)
    assert run(Plan.from_json(smaller.to_json())).violations == again.violations


# ---- time without a quorum -------------------------------------------------------------------------------


def test_the_nemesis_has_mercy_when_nothing_is_acknowledged_for_long() -> None:
    """Power goes everywhere, every second, for nine tenths of it: a run of that would find nothing."""
    faults = tuple(Fault(2000 + 1000 * place, "crash-all", 1, for_ms=900) for place in range(57))
    report = run(plan_of(faults=faults, seconds=60))
    assert report.violations == []
    assert report.counters["faults held back"] > 5
    assert report.faults["crash-all"] > 20
    assert report.acknowledged_writes > 20


def test_a_cluster_that_stands_still_although_nothing_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leader, "_maybe_commit", lambda self: None)
    with pytest.raises(Violation, match="no write was acknowledged for 60 s"):
        World(plan_of(seconds=90)).run()


def test_a_change_that_never_ends_is_a_finding() -> None:
    """Such as: a new leader that does not leave the joint configuration that it finds."""
    change = Change(SOON, "several", count=1)
    faults = (Fault(SOON, "isolate-after-change", for_ms=5000, amount=FINAL),)
    found = [
        run(dataclasses.replace(plan_of(change, faults=faults, seed=seed), plant="joint-never-left")).violations
        for seed in range(4)
    ]
    assert {one[0]["check"] for one in found if one} <= {"progress", "convergence"}
    assert any(found)
