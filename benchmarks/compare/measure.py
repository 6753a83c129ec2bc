"""The measurements, each over several systems in turn. Only one system runs at any time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from benchmarks.compare import whole
from benchmarks.compare.lattice import Lattice
from benchmarks.compare.plan import Plan
from benchmarks.compare.processes import Failed, cpu_seconds
from benchmarks.compare.pysyncobj_cluster import PySyncObj
from benchmarks.compare.system import System

Figures = dict[str, dict[str, list[Any]]]
"""Row, then system, then what each turn gave."""

Say = Callable[[str], None]

WRITERS = 8
"""Callers that write while a leader is killed."""

CLIENT_START_SECONDS = 1.5
BEFORE_KILL_SECONDS = 2.0
AFTER_KILL_SECONDS = 7.0
"""Longer than etcd's worst gap seen."""

UNSEEN_MS = 200.0
"""No leader is replaced so quickly: the client was not writing yet when it was killed."""

SETTLE_SECONDS = 3.0

QUIET = 0.3
"""Of one core: what all members together may still use when nobody asks them for anything."""

QUIET_LIMIT_SECONDS = 90.0
"""After a bulk load, before memory is read: snapshots and the collector have had their turn."""


@contextlib.asynccontextmanager
async def running(system: System, say: Say, what: str) -> AsyncIterator[System]:
    """A fresh cluster, gone when the block ends however it ends."""
    say(f"{system.name}: {what}")
    try:
        await system.start()
        yield system
    finally:
        await system.close()


def note(figures: Figures, row: str, system: System, figure: Any, way: str = "") -> None:
    figures.setdefault(row, {}).setdefault(system.label(way), []).append(figure)


async def throughput(systems: Sequence[System], plan: Plan, figures: Figures, say: Say) -> None:
    """Puts and linearizable gets by several numbers of callers."""
    for number in range(plan.rounds):
        for system in systems:
            async with running(system, say, f"puts and gets, round {number + 1} of {plan.rounds}"):
                for callers in (256, 64, 1):
                    for way in system.ways:
                        found = await system.put(callers, plan.seconds, plan.warm_up_seconds, way)
                        note(figures, f"put {callers}", system, found, way)
                        say(_measured("put", callers, found, way))
                if isinstance(system, PySyncObj):
                    continue  # its reads are local
                for callers in (256, 1):
                    for way in system.ways:
                        found = await system.get(callers, plan.seconds, plan.warm_up_seconds, way)
                        note(figures, f"get {callers}", system, found, way)
                        say(_measured("get", callers, found, way))


def _measured(op: str, callers: int, found: dict[str, Any], way: str) -> str:
    rate, middle, errors = found["ops_per_second"], found["p50_ms"], found["errors"]
    trouble = f"  {errors} errors" if errors else ""
    return f"  {op} {callers:>3} callers: {rate:>9,.0f}/s  p50 {middle:.2f} ms{trouble}  {way}"


async def loading(systems: Sequence[System], plan: Plan, figures: Figures, say: Say) -> None:
    """A bulk load, and the memory that it leaves in use."""
    for number in range(plan.rounds):
        for system in systems:
            async with running(system, say, f"bulk load of {plan.load_keys:,} keys, round {number + 1}"):
                rate = await system.load(plan.load_keys)
                await asyncio.sleep(SETTLE_SECONDS)
                members = await system.member_memory()
                note(figures, "load", system, rate)
                note(figures, "memory", system, members)
                resident = ", ".join(f"{member['rss_mb']:.0f}" for member in members)
                say(f"  {rate:,.0f} keys/s; resident memory of the members {resident} MB")


async def killing(systems: Sequence[System], plan: Plan, figures: Figures, say: Say) -> None:
    """kill -9 of the leader under writes: the longest time without an acknowledgement."""
    share = max(1, plan.kills // plan.rounds)
    done = dict.fromkeys((system.name for system in systems), 0)
    while any(count < plan.kills for count in done.values()):
        for system in systems:
            turns = min(share, plan.kills - done[system.name])
            done[system.name] += turns
            if not turns:
                continue
            async with running(system, say, f"the leader killed {turns} times"):
                for _ in range(turns):
                    gap = await _one_kill(system)
                    note(figures, "kill", system, gap)
                    say(f"  longest gap {gap:,.0f} ms")


async def _one_kill(system: System) -> float:
    seconds = BEFORE_KILL_SECONDS + AFTER_KILL_SECONDS
    writing = asyncio.ensure_future(system.write_through(WRITERS, seconds))
    try:
        await asyncio.sleep(CLIENT_START_SECONDS + BEFORE_KILL_SECONDS)
        killed = await system.kill_leader()
        found = await writing
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    await system.restart(killed)
    gap = float(found["longest_gap_ms"])
    if gap < UNSEEN_MS:
        raise Failed(f"{system.name}: a gap of {gap:.0f} ms, so nobody wrote when the leader was killed: try again")
    return gap


async def saturating(systems: Sequence[System], plan: Plan, figures: Figures, say: Say) -> None:
    """Elections while 256 callers write without a pause."""
    for system in systems:
        async with running(system, say, f"{plan.saturation_seconds:.0f} s of saturation"):
            before = await system.term()
            found = await system.put(256, plan.saturation_seconds, plan.warm_up_seconds)
            elections = await system.term() - before
            note(figures, "elections", system, {"elections": elections, **found})
            say(f"  {elections} elections; {found['ops_per_second']:,.0f} puts/s")


async def growing(systems: Sequence[System], plan: Plan, figures: Figures, say: Say) -> None:
    """What a write costs with 10,000 keys there, and with 1,000,000: CPU time of the members."""
    for system in systems:
        async with running(system, say, "cost of a write as keys grow"):
            for keys in (10_000, 1_000_000):
                await system.load(keys)
                await quiet(system)
                seconds = plan.growth_seconds
                before = sum(map(cpu_seconds, system.pids()))
                found = await system.put(256, seconds, plan.warm_up_seconds, keys=keys)
                used = sum(map(cpu_seconds, system.pids())) - before
                # The warm-up is work as well; it is counted by its share of the time.
                operations = found["ops"] * (seconds + plan.warm_up_seconds) / seconds
                # Ours come last: lattice bench tells how many keys it wrote to, under the same name.
                figure = {**found, "keys": keys, "cpu_us_per_put": used / operations * 1e6}
                note(figures, "growth", system, figure)
                say(
                    f"  {keys:>9,} keys: {found['ops_per_second']:,.0f} puts/s, "
                    f"{figure['cpu_us_per_put']:.1f} us of the members' CPU each"
                )


async def quiet(system: System) -> None:
    """Return when the members have little left to do: snapshots, compaction, what a load has left behind."""
    deadline = time.monotonic() + QUIET_LIMIT_SECONDS
    while time.monotonic() < deadline:
        before = sum(map(cpu_seconds, system.pids()))
        await asyncio.sleep(SETTLE_SECONDS)
        if sum(map(cpu_seconds, system.pids())) - before <= QUIET * SETTLE_SECONDS:
            return


async def commands(systems: Sequence[System], plan: Plan, figures: Figures, say: Say) -> None:
    """``lattice get`` as a whole process, against an interpreter that imports click and grpc and ends."""
    for system in systems:
        if not isinstance(system, Lattice):
            continue
        async with running(system, say, "lattice get as a process"):
            await system.lattice("put", "key", "value")
            get = whole.lattice("--endpoints", system.endpoints, "get", "key")
            costs = whole.in_turns({"lattice get": get, "imports": whole.IMPORTS}, plan.command_runs)
            figures["command"] = {name: [cost.wall_seconds for cost in each] for name, each in costs.items()}
            says = {name: sorted(times)[len(times) // 2] for name, times in figures["command"].items()}
            say(
                f"  lattice get {says['lattice get'] * 1000:.0f} ms, import click, grpc {says['imports'] * 1000:.0f} ms"
            )


def machine() -> dict[str, Any]:
    """What is known of where this ran, the load before it began included."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": sys.version.split()[0],
        "kernel": os.uname().release.partition("-")[0],
    }
