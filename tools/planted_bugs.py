"""Find, for every planted bug, the first seed that catches it: ``python tools/planted_bugs.py [NAME ...]``.

Writes tests/sim/planted.json, which the tests replay, and docs/planted-bugs.md. Seeds are tried in order from
0, each for the same simulated time; the time to catch is CPU time of one core, all seeds before included.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from lattice_core.sim.plan import Plan
from lattice_core.sim.plants import PLANTS
from lattice_core.sim.runner import run

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "tests" / "sim" / "planted.json"
PAGE = ROOT / "docs" / "planted-bugs.md"
HOURS = 0.02
BUDGET_SECONDS = 120.0


def find(name: str) -> dict[str, object] | None:
    """The first seed that catches ``name``; None where the budget did not suffice."""
    started = time.process_time()
    seed = 0
    while time.process_time() - started < BUDGET_SECONDS:
        report = run(Plan.from_seed(seed, hours=HOURS, plant=name))
        if report.failed:
            found = report.violations[0]
            return {
                "seed": seed,
                "hours": HOURS,
                "check": found["check"],
                "at_seconds": round(found["simulated_seconds"], 1),
                "cpu_seconds": round(time.process_time() - started, 1),
                "message": found["message"],
            }
        seed += 1
    return None


def page(table: dict[str, dict[str, object]]) -> str:
    """docs/planted-bugs.md."""
    lines = [
        "# Planted bugs",
        "",
        "What a simulator is worth is what it catches. Each of these mistakes is switched on by name",
        "(`lattice sim --plant NAME`), by patching the product from `lattice_core/sim/plants.py`; seeds are tried in",
        f"order from 0, {HOURS * 3600:.0f} simulated seconds each. The time is of one core, all seeds before included.",
        "The product as it is stays clean on the same seeds (`tests/sim/test_plants.py` runs both).",
        "This page is written by `tools/planted_bugs.py`.",
        "",
        "| bug | what it does | seed | time to catch | what saw it |",
        "|---|---|---|---|---|",
    ]
    for name, plant in PLANTS.items():
        found = table.get(name)
        if found is None:
            lines.append(f"| `{name}` | {plant.description} | | not within {BUDGET_SECONDS:.0f} s | |")
            continue
        lines.append(
            f"| `{name}` | {plant.description} | {found['seed']} | {found['cpu_seconds']} s | {found['check']} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    names = sys.argv[1:] or list(PLANTS)
    table = json.loads(TABLE.read_text()) if TABLE.exists() and sys.argv[1:] else {}
    for name in names:
        found = find(name)
        print(name, found or "not caught", flush=True)
        table.pop(name, None)
        if found is not None:
            table[name] = found
    TABLE.write_text(json.dumps(dict(sorted(table.items())), indent=1) + "\n")
    PAGE.write_text(page(table))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
