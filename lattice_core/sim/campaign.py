"""Many seeds, on several cores: what CI, ``make sim`` and ``lattice sim --seeds`` do.

Every seed is a run of its own in a worker process; nothing is shared, so the number of jobs changes only how
long it takes. Reports come back as they are finished, without their histories.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field

from lattice_core.sim.plan import Plan
from lattice_core.sim.runner import Report, run


@dataclass(slots=True)
class Totals:
    """The sum of many reports."""

    runs: int = 0
    failed: int = 0
    events: int = 0
    simulated_seconds: float = 0.0
    run_seconds: float = 0.0
    """Summed over the workers: events / run_seconds is the speed of one core."""
    elections: int = 0
    acknowledged_writes: int = 0
    operations: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)

    def add(self, report: Report) -> None:
        self.runs += 1
        self.failed += report.failed
        self.events += report.events
        self.simulated_seconds += report.simulated_seconds
        self.run_seconds += report.wall_seconds
        self.elections += report.elections
        self.acknowledged_writes += report.acknowledged_writes
        self.operations += report.operations
        for kind, count in report.faults.items():
            self.faults[kind] = self.faults.get(kind, 0) + count
        for what, count in report.changes.items():
            self.changes[what] = self.changes.get(what, 0) + count


def run_many(plans: Sequence[Plan], *, jobs: int = 1) -> Iterator[Report]:
    """Run every plan; reports in the order in which they end. Close the iterator to stop early."""
    if jobs <= 1:
        for plan in plans:
            yield _run_light(plan)
        return
    # "spawn": a fork would copy whatever threads and locks the caller has.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=jobs, mp_context=context) as pool:
        waiting = iter(plans)
        running: set[Future[Report]] = set()
        try:
            while True:
                while len(running) < 2 * jobs and (coming := next(waiting, None)) is not None:
                    running.add(pool.submit(_run_light, coming))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _run_light(plan: Plan) -> Report:
    report = run(plan)
    report.history = []  # large, and of interest only where it was made
    report.verdict = None
    return report
