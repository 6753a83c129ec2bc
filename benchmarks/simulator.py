"""How fast the simulator is: events a second and times real time, five nodes, disks and every check on.

``python benchmarks/simulator.py [--seeds N] [--hours H]``. CPU time of one core, so that a busy machine is not
counted twice. Prints the median and the spread over the seeds.
"""

from __future__ import annotations

import argparse
import statistics
import time

from lattice_core.sim.plan import Plan
from lattice_core.sim.runner import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--hours", type=float, default=0.1)
    options = parser.parse_args()
    rates, ratios = [], []
    for seed in range(options.seeds):
        plan = Plan.from_seed(seed, hours=options.hours, nodes=5)
        started = time.process_time()
        report = run(plan)
        seconds = time.process_time() - started
        rates.append(report.events / seconds)
        ratios.append(report.simulated_seconds / seconds)
        print(
            f"seed {seed}: {report.events:,} events, {report.simulated_seconds:.0f} s simulated in {seconds:.1f} s: "
            f"{rates[-1]:,.0f} events/s, {ratios[-1]:.0f} x real time{'' if not report.failed else '  FAILED'}"
        )
    print(f"events/s      median {statistics.median(rates):,.0f}   {min(rates):,.0f} to {max(rates):,.0f}")
    print(f"x real time   median {statistics.median(ratios):,.0f}   {min(ratios):,.0f} to {max(ratios):,.0f}")


if __name__ == "__main__":
    main()
