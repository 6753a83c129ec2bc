"""Lattice beside a real etcd (and PySyncObj), on this machine, in one run. Prints issue 6's table, writes JSON.

    python benchmarks/compare.py [--quick] [--growth] [--only ROWS] [--json FILE] [--dir DIR]

Every cluster has three members as processes of their own, started with their defaults on loopback, with fresh data
directories on the same disk; etcd is driven by a program on its own Go client. Systems take turns, A B A B, and only
one runs at a time; the table has medians over the turns. benchmarks/README.md says what has to be installed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import datetime
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.compare import measure, table
from benchmarks.compare.etcd import Etcd
from benchmarks.compare.lattice import Lattice
from benchmarks.compare.plan import FULL, QUICK, Plan
from benchmarks.compare.processes import Failed
from benchmarks.compare.pysyncobj_cluster import PySyncObj
from benchmarks.compare.system import System

Measurement = Callable[[Sequence[System], Plan, measure.Figures, measure.Say], Awaitable[None]]

MEASUREMENTS: dict[str, Measurement] = {
    "throughput": measure.throughput,
    "load": measure.loading,
    "kills": measure.killing,
    "elections": measure.saturating,
    "command": measure.commands,
    "growth": measure.growing,
}

OF_PYSYNCOBJ = ("throughput", "load")
"""What PySyncObj can be asked: it has neither clients nor linearizable reads."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def compare(options: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    parent = options.dir.resolve()
    systems: list[System] = [Lattice(parent), Etcd(parent)]
    others: list[System] = [] if options.no_pysyncobj else [PySyncObj(parent)]
    figures: measure.Figures = {}
    began = measure.machine()
    for name in options.only:
        everybody = [*systems, *others] if name in OF_PYSYNCOBJ else systems
        await MEASUREMENTS[name](everybody, plan, figures, say)
    everybody = [systems[1], systems[0], *others]
    columns = [system.label(way) for system in everybody for way in system.ways]
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": began,
        "load_average_at_the_end": measure.machine()["load_average"],
        "plan": dataclasses.asdict(plan),
        "columns": {system.label(way): _heading(system, way) for system in everybody for way in system.ways},
        "notes": [line for system in everybody if _was_run(system, figures) for line in system.notes()],
        "table": table.rows(figures, columns),
        "figures": figures,
    }


def _heading(system: System, way: str) -> str:
    return f"{way} {system.name}" if way else f"{system.name} {system.version}"


def _was_run(system: System, figures: measure.Figures) -> bool:
    return any(system.name in turns for turns in figures.values())


async def interruptible(options: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    """SIGTERM ends it as Ctrl-C does: in good order."""
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await compare(options, plan)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one short round of each: whether it works, not how fast")
    parser.add_argument("--growth", action="store_true", help="also the cost of a write at 10,000 and 1,000,000 keys")
    parser.add_argument("--only", help=f"comma-separated, of {', '.join(MEASUREMENTS)}")
    parser.add_argument("--rounds", type=int, help="of A B")
    parser.add_argument("--seconds", type=float, help="of each measurement")
    parser.add_argument("--load-keys", type=int, help="of the bulk load")
    parser.add_argument("--kills", type=int, help="of the leader, for each system")
    parser.add_argument("--saturation", type=float, metavar="SECONDS", help="while elections are counted")
    parser.add_argument("--no-pysyncobj", action="store_true", help="Lattice and etcd only")
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="on the disk to measure: not a tmpfs")
    parser.add_argument("--json", type=Path, help="write everything there")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    changes = {"rounds": options.rounds, "seconds": options.seconds, "kills": options.kills}
    changes |= {"load_keys": options.load_keys}
    changes |= {"saturation_seconds": options.saturation, "growth": options.growth or None}
    plan = dataclasses.replace(plan, **{name: value for name, value in changes.items() if value is not None})
    options.only = (
        options.only.split(",") if options.only else [name for name in MEASUREMENTS if name != "growth" or plan.growth]
    )
    if unknown := [name for name in options.only if name not in MEASUREMENTS]:
        parser.error(f"--only {unknown[0]}: not one of {', '.join(MEASUREMENTS)}")
    try:
        result = asyncio.run(interruptible(options, plan))
    except Failed as error:
        say(f"error: {error}")
        return 3
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    print(table.text(result["table"], list(result["columns"]), result["columns"]), end="")
    for line in result["notes"]:
        print(f"  {line}")
    machine, load = result["machine"], result["load_average_at_the_end"]
    print(
        f"  {result['date']}, {machine['cores']} cores shared by members and clients, medians of {plan.rounds} "
        f"rounds, {plan.seconds:g} s each; load average {machine['load_average'][0]} before, "
        f"{load[0]} at the end"
    )
    if options.json:
        result["table"] = [dataclasses.asdict(line) for line in result["table"]]
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
