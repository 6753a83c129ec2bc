"""Run a plan, and say what came of it; shrink a plan that fails."""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lattice_core.sim import plants
from lattice_core.sim.plan import Plan
from lattice_core.sim.recorder import Recorder
from lattice_core.sim.violation import Violation
from lattice_core.sim.world import World
from lattice_core.verify.history import Operation
from lattice_core.verify.linearizability import Budget, Verdict, check_history


@dataclass(slots=True)
class Report:
    """What ``lattice sim -o json`` prints, and what is needed to look closer."""

    plan: Plan
    trace_hash: str = ""
    events: int = 0
    simulated_seconds: float = 0.0
    wall_seconds: float = 0.0
    elections: int = 0
    acknowledged_writes: int = 0
    operations: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)
    """Changes of membership, by kind and by what became of them."""
    joined: int = 0
    """Servers that came after the first."""
    counters: dict[str, int] = field(default_factory=dict)
    violations: list[dict[str, Any]] = field(default_factory=list)
    history: list[Operation] = field(default_factory=list)
    verdict: Verdict | None = None

    @property
    def failed(self) -> bool:
        return bool(self.violations)

    def to_json(self) -> dict[str, Any]:
        return {
            "seed": self.plan.seed,
            "nodes": self.plan.nodes,
            "joined": self.joined,
            "plant": self.plan.plant,
            "trace_hash": self.trace_hash,
            "events": self.events,
            "simulated_seconds": round(self.simulated_seconds, 3),
            "wall_seconds": round(self.wall_seconds, 3),
            "elections": self.elections,
            "acknowledged_writes": self.acknowledged_writes,
            "operations": self.operations,
            "faults": dict(sorted(self.faults.items())),
            "changes": dict(sorted(self.changes.items())),
            "counters": dict(sorted(self.counters.items())),
            "violations": self.violations,
        }


def run(plan: Plan, *, recorder: Recorder | None = None, progress: Callable[[World], None] | None = None) -> Report:
    """Run ``plan`` to its end or its first violation, and check its history."""
    started = time.perf_counter()
    report = Report(plan)
    with plants.planted(plan.plant):
        world = World(plan, recorder)
        try:
            world.run(progress)
        except Violation as violation:
            report.violations.append(_violation(world, violation.check, violation.message))
        except Exception as error:  # a crash of our own code is a finding like any other
            where = traceback.extract_tb(error.__traceback__)[-1]
            message = f"{type(error).__name__}: {error} ({where.filename.rsplit('/', 1)[-1]}:{where.lineno})"
            report.violations.append(_violation(world, "exception", message))
    report.history = world.history
    if not report.violations:
        report.verdict = check_history(world.history, budget=Budget(seconds=None))
        if report.verdict.linearizable is not True:
            counterexample = report.verdict.counterexample
            text = counterexample.explanation if counterexample is not None else "the checker ran out of its budget"
            name = "linearizability" if report.verdict.linearizable is False else "linearizability-undecided"
            report.violations.append(_violation(world, name, text))
    report.trace_hash = world.trace_hash
    report.events = world.events
    report.simulated_seconds = world.now_ns / 1e9
    report.elections = world.invariants.elections
    report.acknowledged_writes = world.acknowledged_writes
    report.operations = len(world.history)
    report.faults = world.nemesis.struck
    report.changes = world.operator.outcomes
    report.joined = world.joined
    report.counters = world.counters
    report.wall_seconds = time.perf_counter() - started
    return report


def _violation(world: World, check: str, message: str) -> dict[str, Any]:
    return {"check": check, "message": message, "simulated_seconds": round(world.now_ns / 1e9, 6)}


def shrink(
    plan: Plan, *, budget_seconds: float = 60.0, progress: Callable[[Plan, str], None] | None = None
) -> tuple[Plan, Report]:
    """A smaller plan that fails the same check: fewer faults, changes and nodes, less time.

    Deterministic but for the budget. Returns the smallest found with its report; the plan itself if nothing
    smaller fails. Raises ValueError if the plan does not fail at all.
    """
    deadline = time.monotonic() + budget_seconds
    best_report = run(plan)
    if not best_report.failed:
        raise ValueError("the plan does not fail")
    best = plan
    check = best_report.violations[0]["check"]

    def attempt(candidate: Plan, what: str) -> bool:
        nonlocal best, best_report
        if time.monotonic() > deadline:
            return False
        report = run(candidate)
        if not report.failed or report.violations[0]["check"] != check:
            return False
        best, best_report = candidate, report
        if progress is not None:
            progress(best, what)
        return True

    def cut_time() -> None:
        # Nothing after the violation matters; a linearizability violation was complete before the end.
        end_ms = int(best_report.violations[0]["simulated_seconds"] * 1000) + 1
        if end_ms < best.duration_ms:
            attempt(_until(best, end_ms), f"{end_ms} ms")
        while best.duration_ms > 2000:
            half = best.duration_ms // 2
            if not attempt(_until(best, half), f"{half} ms"):
                break

    def drop(part: str) -> None:
        """Fewer of ``part``, faults or changes: halves first, one by one in the end."""
        size = max(1, len(getattr(best, part)) // 2)
        while getattr(best, part):
            start = 0
            while start < len(getattr(best, part)):
                some = getattr(best, part)
                fewer = some[:start] + some[start + size :]
                if not attempt(dataclasses.replace(best, **{part: fewer}), f"{len(fewer)} {part}"):
                    start += size
                if time.monotonic() > deadline:
                    return
            if size == 1:
                return
            size //= 2

    def drop_nodes() -> None:
        while best.nodes > 1:
            nodes = best.nodes - 1
            places = max(nodes, best.membership.max_servers) if best.changes else nodes
            faults = tuple(fault for fault in best.faults if max(fault.node, fault.other) <= places)
            smaller = dataclasses.replace(best, nodes=nodes, clocks=best.clocks[:nodes], faults=faults)
            if not attempt(smaller, f"{nodes} nodes"):
                return

    cut_time()
    drop("faults")
    drop("changes")
    drop_nodes()
    cut_time()
    drop("faults")
    drop("changes")
    return best, best_report


def _until(plan: Plan, end_ms: int) -> Plan:
    """What of the plan begins by ``end_ms``."""
    return dataclasses.replace(
        plan,
        duration_ms=end_ms,
        faults=tuple(fault for fault in plan.faults if fault.at_ms <= end_ms),
        changes=tuple(change for change in plan.changes if change.at_ms <= end_ms),
    )
