"""The long form of ``lattice chaos``: ``make torture RUNS=60 SECONDS=60 JOBS=1 SEED=1``.

The first runs take the kinds of faults a few at a time, each kind in at least three of them, so that none is left to
chance; the rest leave the choice to their seeds (swarm testing). Every sixth run has five nodes. All workloads run in
all of them.

Each run's report is kept in ``torture/``, by its number and seed, and a run that has one is not made again: stop it
and go on with the same command. Without SEED a fresh one is drawn and kept there, too. Ctrl-C shows the table so far.
Exits with 1 if a run failed; what a failed run left (plan, logs, data, history) stays in ``torture/``.
"""

from __future__ import annotations

import argparse
import json
import secrets
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lattice_cli.chaos.plan import KINDS
from lattice_cli.render.tables import new_table

ROOT = Path(__file__).resolve().parent.parent
KINDS_PER_RUN = 4
FOCUSED_PER_KIND = 3
FIVE_NODES_EVERY = 6
SLACK_SECONDS = 400.0
"""Beyond what faults take: starting, healing and judging are bounded, and this is far beyond the bounds."""


@dataclass(frozen=True, slots=True)
class Order:
    """One run to be made."""

    number: int
    seed: int
    nodes: int
    seconds: float
    kinds: tuple[str, ...]
    """Only these; empty: the seed chooses."""

    @property
    def name(self) -> str:
        return f"{self.number:04d}-{self.seed}.json"

    def command(self, out: Path) -> list[str]:
        command = [sys.executable, "-m", "lattice_cli", "chaos", "-o", "json", "--directory", str(out)]
        command += ["--seed", str(self.seed), "--nodes", str(self.nodes), "--seconds", f"{self.seconds:g}"]
        return command + (["--faults", ",".join(self.kinds)] if self.kinds else [])


def orders(runs: int, seconds: float, first_seed: int) -> list[Order]:
    """What a campaign consists of. The same numbers give the same campaign."""
    kinds = list(KINDS)
    groups = [tuple(kinds[at : at + KINDS_PER_RUN]) for at in range(0, len(kinds), KINDS_PER_RUN)]
    found = []
    for number in range(runs):
        focused = number < FOCUSED_PER_KIND * len(groups)
        group = groups[number % len(groups)] if focused else ()
        nodes = 5 if number % FIVE_NODES_EVERY == FIVE_NODES_EVERY - 1 else 3
        found.append(Order(number + 1, first_seed + number, nodes, seconds, group))
    return found


class Campaign:
    """Makes the runs that have no report yet, and tells of each."""

    def __init__(self, out: Path, planned: list[Order]) -> None:
        self._out = out
        self._planned = planned
        self._stopping = threading.Event()
        self._running: set[subprocess.Popen[str]] = set()
        self.reports: dict[int, dict[str, Any]] = {}

    def run(self, jobs: int) -> None:
        with ThreadPoolExecutor(jobs) as pool:
            made = [pool.submit(self._one, order) for order in self._planned]
            try:
                for each in made:
                    each.result()
            except BaseException:
                self._stopping.set()
                for each in made:
                    each.cancel()
                for process in list(self._running):
                    process.terminate()  # it ends its nodes itself
                raise

    def _one(self, order: Order) -> None:
        if self._stopping.is_set():
            return
        path = self._out / order.name
        if path.exists():
            report = json.loads(path.read_text())
            if report["seconds"] == order.seconds and report["nodes"] == order.nodes:
                self.reports[order.number] = report
                return
        made = self._make(order)
        if made is None:
            return
        aside = path.with_suffix(".tmp")
        aside.write_text(json.dumps(made, indent=1))
        aside.rename(path)
        self.reports[order.number] = made
        reasons = made["violations"] or made["vacuous"]
        told = f"run {order.number} seed {order.seed}: {made['verdict']}" + (f": {reasons[0]}" if reasons else "")
        print(told, file=sys.stderr, flush=True)

    def _make(self, order: Order) -> dict[str, Any] | None:
        began = time.monotonic()
        process = subprocess.Popen(
            order.command(self._out), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,  # Ctrl-C comes by way of us, once
        )  # fmt: skip
        self._running.add(process)
        try:
            said, told = process.communicate(timeout=order.seconds + SLACK_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            said, told = process.communicate()
            told += f"\nkilled: not over after {time.monotonic() - began:.0f} s"
        finally:
            self._running.discard(process)
        if self._stopping.is_set():
            return None
        try:
            report: dict[str, Any] = json.loads(said)
            return report
        except ValueError:
            last = (told.strip().splitlines() or ["it said nothing"])[-1]
            return {
                "seed": order.seed, "nodes": order.nodes, "seconds": order.seconds, "verdict": "no report",
                "faults": {}, "passed_over": {}, "leader_changes": 0, "acknowledged": 0, "unknown": 0, "failed": 0,
                "operations_checked": 0, "violations": [f"exit code {process.returncode}: {last}"], "vacuous": [],
            }  # fmt: skip


def show(planned: list[Order], reports: dict[int, dict[str, Any]]) -> bool:
    """The table and the sums; whether every run that was made is good."""
    console = Console(highlight=False, emoji=False, markup=False, soft_wrap=True)
    table = new_table(
        ("RUN", ">"), ("SEED", ">"), ("NODES", ">"), ("FAULTS", "<"), ("LEADERS", ">"), ("ACKNOWLEDGED", ">"),
        ("UNKNOWN", ">"), ("FAILED", ">"), ("VERDICT", "<"),
    )  # fmt: skip
    by_kind: Counter[str] = Counter()
    runs_of_kind: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    failed = []
    for order in planned:
        report = reports.get(order.number)
        if report is None:
            continue
        faults: dict[str, int] = report["faults"]
        by_kind.update(faults)
        runs_of_kind.update(faults.keys())
        for name in ("leader_changes", "acknowledged", "unknown", "failed", "operations_checked"):
            sums[name] += report[name]
        good = report["verdict"] == "good"
        if not good:
            failed.append((order, report))
        table.add_row(
            str(order.number), str(order.seed), str(order.nodes),
            " ".join(f"{kind}:{count}" for kind, count in faults.items()) or "none",
            f"{report['leader_changes']:,}", f"{report['acknowledged']:,}", f"{report['unknown']:,}",
            f"{report['failed']:,}", report["verdict"], style=None if good else "bold red",
        )  # fmt: skip
    console.print(table)
    console.print()
    kinds = new_table(("FAULT", "<"), ("TIMES", ">"), ("RUNS", ">"), ("", "<"))
    for kind, facts in KINDS.items():
        kinds.add_row(kind, f"{by_kind[kind]:,}", str(runs_of_kind[kind]), facts.text)
    console.print(kinds)
    for order, report in failed:
        for reason in (*report["violations"], *report["vacuous"]):
            console.print(f"\nrun {order.number} seed {order.seed}: {reason}")
        if report.get("directory"):
            console.print(f"run {order.number} seed {order.seed}: everything it left is in {report['directory']}")
    never = [kind for kind in KINDS if not by_kind[kind]]
    if never and len(reports) == len(planned):
        console.print(f"\nnever carried out: {', '.join(never)}")
    console.print(
        f"\n{len(reports)} of {len(planned)} runs made, {len(failed)} failed: {sum(by_kind.values()):,} faults, "
        f"{sums['leader_changes']:,} changes of leadership, {sums['acknowledged']:,} acknowledged, "
        f"{sums['unknown']:,} unknown, {sums['failed']:,} failed, {sums['operations_checked']:,} operations found "
        "linearizable"
    )
    return not failed


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description="Torture a local cluster of real processes for a long time.")
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=60.0, help="of faults in each")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; each wants about a core")
    parser.add_argument("--seed", type=int, help="of the first run; those of the others follow")
    parser.add_argument("--out", type=Path, default=ROOT / "torture")
    options = parser.parse_args()
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "seed"
    if options.seed is None and kept.exists():
        options.seed = int(kept.read_text())
    seed = options.seed if options.seed is not None else secrets.randbits(31)
    kept.write_text(f"{seed}\n")
    planned = orders(options.runs, options.seconds, seed)
    print(f"{len(planned)} runs of {options.seconds:g} s, seeds {seed} to {seed + len(planned) - 1}", file=sys.stderr)
    campaign = Campaign(out, planned)
    try:
        campaign.run(options.jobs)
    except KeyboardInterrupt:
        show(planned, campaign.reports)
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return 130
    return 0 if show(planned, campaign.reports) else 1


if __name__ == "__main__":
    sys.exit(main())
