"""An hour of mixed load with faults, and whether anything grows: ``make soak SECONDS=3600``.

Real processes, as in ``lattice chaos``; the same checks of what clients saw, and a load whose state does not grow: a
fixed set of keys written, read, compared-and-set, deleted and listed. Clients that read come and go; those that write
stay, for a session is remembered for an hour after its last write (that is its purpose), and so many are no leak.
Faults are those that processes live through (partitions, delays, resets, pauses, transfers, slow disks, descriptors run
short), because a process that is killed takes its leaks with it.

Memory, descriptors and disk of every member are sampled every second or so, into ``soak/samples.csv``, and drawn into
``soak/soak.svg``. The first quarter is for filling caches, history and sessions. Of the rest the trend is taken by the
Theil-Sen estimator (the median of the slopes between all pairs, which outliers do not move), and a figure is *flat* if
it grew by less than a tenth of its median, or by less than what comes and goes (SLACK). Exits with 1 if one is not
flat, or if the run failed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import secrets
import statistics
import sys
import time
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from rich.console import Console

from lattice_cli.chaos.nodes import SETTINGS
from lattice_cli.chaos.plan import Plan
from lattice_cli.chaos.run import Run
from lattice_cli.chaos.workloads import WORKLOADS
from lattice_cli.chaos.workloads.base import Workload
from lattice_cli.render.tables import new_table
from lattice_core.client import AsyncClient
from lattice_core.errors import NotApplied, OutcomeUnknown

ROOT = Path(__file__).resolve().parent.parent
KINDS = (
    "pause", "transfer", "slow-disk", "few-descriptors", "isolate", "split", "one-way", "mute", "deaf", "delay",
    "reset", "refuse", "half-close",
)  # fmt: skip

CALLERS = 8
KEYS = 1500
VALUE_BYTES = (16, 3000)
OPERATIONS_PER_CLIENT = 200
WEIGHTS = {"put": 8, "get": 8, "cas": 3, "delete": 1, "range": 1}
HISTORY_REVISIONS = 1000
"""Past revisions that members keep: few, so that what they fill is full soon."""
PACE_SECONDS = 0.01

MAX_SAMPLES = 4000
WARM_UP = 0.25
GROWTH = 0.10
SLACK = {"memory": 8 << 20, "descriptors": 20, "disk": 4 << 20}
"""Bytes, descriptors, bytes: a generation of garbage; connections that come and go; two snapshots and some segments."""

PAGE = os.sysconf("SC_PAGE_SIZE")
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2", "#7f7f7f")


class Steady(Workload):
    """A load that changes everything and adds nothing."""

    name = "steady"

    def callers(self) -> list[Coroutine[Any, Any, None]]:
        return [self._work(caller) for caller in range(CALLERS)]

    async def _work(self, caller: int) -> None:
        draw = self.arena.random(f"steady/{caller}")
        writes = caller % 2 == 0
        while not self.arena.stopping.is_set():
            client = self.client if writes else self.arena.new_client()
            try:
                for _ in range(draw.randrange(OPERATIONS_PER_CLIENT)):
                    if self.arena.stopping.is_set():
                        break
                    with contextlib.suppress(NotApplied, OutcomeUnknown):
                        await self._one(client, draw, "put get cas delete range" if writes else "get range")
                    await self.arena.pause(PACE_SECONDS)
            finally:
                if not writes:
                    await client.close()

    async def _one(self, client: AsyncClient, draw: random.Random, may: str) -> None:
        key = b"steady/%04d" % draw.randrange(KEYS)
        value = draw.randbytes(draw.randrange(*VALUE_BYTES))
        kinds = may.split()
        what = draw.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
        if what == "put":
            await self.attempt(client.put(key, value))
        elif what == "get":
            await self.attempt(client.get(key), write=False)
        elif what == "cas":
            found = await self.attempt(client.get(key), write=False)
            await self.attempt(client.cas(key, found.value if found is not None else None, value))
        elif what == "delete":
            await self.attempt(client.delete(key))
        else:
            await self.attempt(client.range(prefix=key[:-2], limit=50), write=False)

    async def verify(self, client: AsyncClient) -> list[str]:
        return []


@dataclass(frozen=True, slots=True)
class Sample:
    """One member at one moment."""

    at: float
    name: str
    pid: int
    memory: int
    descriptors: int
    disk: int


def look(name: str, pid: int, data_dir: Path, at: float) -> Sample | None:
    """None if it is gone."""
    try:
        memory = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        # What is allocated: segments are preallocated, and some files go while we look.
        disk = 0
        for path in data_dir.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                disk += path.stat().st_blocks * 512
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return Sample(at, name, pid, memory, descriptors, disk)


async def sample(run: Run, every: float, found: list[Sample], until: asyncio.Event) -> None:
    """Every member, again and again, while faults go on."""
    while not until.is_set():
        for node in run.cluster.nodes.values():
            if node.running and node.pid is not None and run.watch.seen.get(node.name) is not None:
                one = look(node.name, node.pid, node.data_dir, run.seconds)
                if one is not None:
                    found.append(one)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(every):
                await until.wait()


@dataclass(frozen=True, slots=True)
class Trend:
    """Of one figure of one member's one life."""

    what: str
    name: str
    median: float
    per_hour: float
    growth: float
    """Over what was looked at."""

    @property
    def flat(self) -> bool:
        return self.growth <= max(GROWTH * self.median, SLACK[self.what])


def trends(samples: Sequence[Sample]) -> list[Trend]:
    """Of each member's longest life, without its first quarter."""
    found = []
    for name in sorted({each.name for each in samples}):
        lives: dict[int, list[Sample]] = {}
        for each in samples:
            if each.name == name:
                lives.setdefault(each.pid, []).append(each)
        life = max(lives.values(), key=len)
        settled = life[int(len(life) * WARM_UP) :]
        if len(settled) < 10:
            continue
        thin = settled[:: max(1, len(settled) // 400)]
        seconds = thin[-1].at - thin[0].at
        for what in SLACK:
            values = [float(getattr(each, what)) for each in thin]
            slope = theil_sen([each.at for each in thin], values)
            found.append(Trend(what, name, statistics.median(values), slope * 3600, slope * seconds))
    return found


def theil_sen(times: Sequence[float], values: Sequence[float]) -> float:
    """The median of the slopes between all pairs."""
    slopes = [
        (values[j] - values[i]) / (times[j] - times[i])
        for i in range(len(times))
        for j in range(i + 1, len(times))
        if times[j] > times[i]
    ]
    return statistics.median(slopes) if slopes else 0.0


# -- drawing --------------------------------------------------------------------------------------

WIDTH, PANEL, LEFT, TOP, GAP = 960, 200, 80, 46, 44


def draw_svg(samples: Sequence[Sample], title: str) -> str:
    """Three panels, one above the other, a line for each member."""
    panels = (
        ("memory", "resident memory, MiB", 1 << 20),
        ("descriptors", "descriptors", 1),
        ("disk", "disk, MiB", 1 << 20),
    )
    names = sorted({each.name for each in samples})
    end = max(each.at for each in samples)
    height = TOP + len(panels) * (PANEL + GAP)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="15">{title}</text>',
    ]
    for position, name in enumerate(names):
        x = WIDTH - 20 - 60 * (len(names) - position)
        out.append(f'<text x="{x}" y="20" fill="{COLOURS[position % len(COLOURS)]}">&#9632; {name}</text>')
    plot_width = WIDTH - LEFT - 20
    for row, (what, label, unit) in enumerate(panels):
        y0 = TOP + row * (PANEL + GAP)
        top = max(float(getattr(each, what)) for each in samples) / unit * 1.15 or 1.0
        out.append(f'<text x="{LEFT}" y="{y0 - 6}">{label}</text>')
        for tick in range(5):
            y = y0 + PANEL - PANEL * tick / 4
            out.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
            out.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{top * tick / 4:.0f}</text>')
        for tick in range(7):
            x = LEFT + plot_width * tick / 6
            out.append(f'<text x="{x:.1f}" y="{y0 + PANEL + 16}" text-anchor="middle">{end * tick / 6:.0f} s</text>')
        for position, name in enumerate(names):
            for line in _lines([each for each in samples if each.name == name]):
                scale = PANEL / unit / top
                points = " ".join(
                    f"{LEFT + plot_width * each.at / end:.1f},{y0 + PANEL - getattr(each, what) * scale:.1f}"
                    for each in _peaks(line, what, plot_width // 2)
                )
                colour = COLOURS[position % len(COLOURS)]
                out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.2"/>')
    out.append("</svg>")
    return "\n".join(out) + "\n"


def _lines(samples: Sequence[Sample]) -> Iterable[list[Sample]]:
    """One for each life."""
    line: list[Sample] = []
    for each in samples:
        if line and each.pid != line[-1].pid:
            yield line
            line = []
        line.append(each)
    if line:
        yield line


def _peaks(line: Sequence[Sample], what: str, most: int) -> list[Sample]:
    """As many as can be told apart in a drawing: of those that cannot, the highest."""
    together = max(1, -(-len(line) // most))
    return [
        max(line[i : i + together], key=lambda each: float(getattr(each, what))) for i in range(0, len(line), together)
    ]


# -- all of it ------------------------------------------------------------------------------------


async def soak(seconds: float, nodes: int, seed: int, out: Path) -> bool:
    """Whether all is well. Everything is written to ``out``."""
    WORKLOADS["steady"] = Steady
    SETTINGS["history_revisions"] = HISTORY_REVISIONS
    plan = Plan.from_seed(seed, nodes=nodes, seconds=seconds, workloads=("steady", "bank", "counter"), kinds=KINDS)
    run = Run(plan, parent_dir=out, tell=lambda at, text: print(f"{at:8.1f}  {text}", file=sys.stderr, flush=True))
    samples: list[Sample] = []
    over = asyncio.Event()
    every = max(1.0, seconds * nodes / MAX_SAMPLES)
    sampling = asyncio.ensure_future(sample(run, every, samples, over))
    try:
        report = await run.run()
    finally:
        over.set()
        await sampling
        await run.close()
    if report.good:
        run.remove()
    found = trends(samples)
    (out / "samples.csv").write_text(
        "seconds,member,pid,memory_bytes,descriptors,disk_bytes\n"
        + "".join(f"{s.at:.1f},{s.name},{s.pid},{s.memory},{s.descriptors},{s.disk}\n" for s in samples)
    )
    title = f"{seconds:g} s, {nodes} nodes, seed {seed}: {report.verdict}"
    (out / "soak.svg").write_text(draw_svg(samples, title))
    (out / "report.json").write_text(
        json.dumps({"run": report.to_json(), "trends": [_document(each) for each in found]}, indent=1)
    )
    table = new_table(("FIGURE", "<"), ("MEMBER", "<"), ("MEDIAN", ">"), ("GROWTH", ">"), ("PER HOUR", ">"), ("", "<"))
    for each in found:
        unit = 1 if each.what == "descriptors" else 1 << 20
        suffix = "" if unit == 1 else " MiB"
        table.add_row(
            each.what, each.name, f"{each.median / unit:.1f}{suffix}", f"{each.growth / unit:+.2f}{suffix}",
            f"{each.per_hour / unit:+.2f}{suffix}", "flat" if each.flat else "GROWS",
            style=None if each.flat else "bold red",
        )  # fmt: skip
    Console(highlight=False, emoji=False, markup=False, soft_wrap=True).print(table)
    for text in (*report.violations, *report.vacuous):
        print(text)
    flat = len(found) == nodes * len(SLACK) and all(each.flat for each in found)
    faults = sum(report.faults.values())
    print(
        f"\n{report.verdict}; {'everything is flat' if flat else 'NOT FLAT'}: {seconds:g} s, {faults} "
        f"faults, {report.leader_changes} changes of leadership, {report.acknowledged:,} acknowledged, "
        f"{report.unknown:,} unknown, {report.failed:,} failed; drawn in {out / 'soak.svg'}"
    )
    return report.good and flat


def _document(trend: Trend) -> dict[str, Any]:
    return {
        "figure": trend.what, "member": trend.name, "median": trend.median, "growth": trend.growth,
        "per_hour": trend.per_hour, "flat": trend.flat,
    }  # fmt: skip


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description="A long run with faults: does anything grow?")
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--out", type=Path, default=ROOT / "soak")
    options = parser.parse_args()
    if not Path("/proc/self/statm").exists():
        print("soak reads memory and descriptors from /proc, which there is on Linux only", file=sys.stderr)
        return 2
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    seed = options.seed if options.seed is not None else secrets.randbits(31)
    began = time.monotonic()
    try:
        return 0 if asyncio.run(soak(options.seconds, options.nodes, seed, out)) else 1
    except KeyboardInterrupt:
        print(f"interrupted after {time.monotonic() - began:.0f} s", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
