"""One run: a cluster of real processes, clients at work, faults by a plan, and in the end a verdict.

1. The cluster starts, elects a leader, and the workloads begin.
2. The nemesis carries the plan out, while the members' accounts of themselves are compared (``watch``).
3. Everything is healed: faults lifted, nodes started. All members have to follow one leader, catch up, and take
   writes again within a bound.
4. The callers stop. All members have to come to one applied index and one state hash within a bound.
5. What came of the workloads is read back and judged; the cluster ends; the recorded history is checked.

A run that saw too little proves nothing and fails as vacuous: too few acknowledged writes, faults or changes of
leadership. A run that failed leaves its directory: the plan, the nodes' logs and data, the history, the events.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lattice_cli.chaos.nemesis import Nemesis
from lattice_cli.chaos.nodes import ChaosCluster
from lattice_cli.chaos.plan import Plan
from lattice_cli.chaos.watch import Watch
from lattice_cli.chaos.workloads import WORKLOADS, Arena, Tally, Workload
from lattice_cli.chaos.workloads.base import OVERDUE_SECONDS, TIMEOUT_SECONDS
from lattice_cli.chaos.workloads.register import Register
from lattice_core.errors import LatticeError, Unavailable

FIRST_LEADER_SECONDS: Final = 30.0
HEAL_SECONDS: Final = 60.0
"""Until all follow one leader and have caught up, from when nothing is wrong any more: a node started just now, a
snapshot, a few elections, on a machine that may be busy."""

PROGRESS_SECONDS: Final = 20.0
"""Until writes are acknowledged again, then."""

PROGRESS_WRITES: Final = 20
SAME_STATE_SECONDS: Final = 30.0

MAX_VIOLATIONS: Final = 50
"""Kept; one bug tends to show a thousand times."""

# What a run has to see, so that its verdict means something. All far below what a run usually sees.
MIN_WRITES_PER_SECOND: Final = 8.0
SECONDS_PER_FAULT: Final = 6.0
COSTLY_FAULTS_PER_LEADER_CHANGE: Final = 4
"""One may hit a leader that has just lost its place to another."""

LOG_FINDINGS: Final = ("Traceback (most recent call last)", "internal error", "AssertionError", "MEMBERS DIFFER")
"""What a node may never say, whatever is done to it."""


@dataclass
class Report:
    """What came of a run."""

    plan: Plan
    directory: Path
    faults: dict[str, int] = field(default_factory=dict)
    passed: dict[str, int] = field(default_factory=dict)
    """Faults that were not carried out, and why."""
    leader_changes: int = 0
    acknowledged: int = 0
    acknowledged_writes: int = 0
    unknown: int = 0
    failed: int = 0
    longest_gap_seconds: float = 0.0
    operations_checked: int = 0
    connections: int = 0
    """Through the proxies."""
    wall_seconds: float = 0.0
    violations: list[str] = field(default_factory=list)
    vacuous: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        return "violation" if self.violations else "vacuous" if self.vacuous else "good"

    @property
    def good(self) -> bool:
        return self.verdict == "good"

    def to_json(self) -> dict[str, Any]:
        return {
            "seed": self.plan.seed,
            "nodes": self.plan.nodes,
            "seconds": self.plan.seconds,
            "workloads": list(self.plan.workloads),
            "verdict": self.verdict,
            "faults": self.faults,
            "passed_over": self.passed,
            "leader_changes": self.leader_changes,
            "acknowledged": self.acknowledged,
            "acknowledged_writes": self.acknowledged_writes,
            "unknown": self.unknown,
            "failed": self.failed,
            "longest_gap_seconds": round(self.longest_gap_seconds, 3),
            "operations_checked": self.operations_checked,
            "connections": self.connections,
            "wall_seconds": round(self.wall_seconds, 1),
            "violations": self.violations,
            "vacuous": self.vacuous,
            "directory": str(self.directory) if self.directory.exists() else None,
        }


class Run:
    """Build it on a running loop; :meth:`run`, then :meth:`close` whatever happened."""

    def __init__(
        self,
        plan: Plan,
        *,
        parent_dir: Path | None = None,
        history: Path | None = None,
        tls: bool = False,
        tell: Callable[[float, str], None] = lambda seconds, text: None,
    ) -> None:
        """``tls``: mutual TLS on every port, through the proxies too. ``tell`` gets each event, with the seconds since
        the beginning."""
        self.plan = plan
        self.cluster = ChaosCluster(plan.nodes, parent_dir=parent_dir, tls=tls)
        self.directory = self.cluster.directory
        self.report = Report(plan, self.directory)
        self.tally = Tally()
        self.watch = Watch(self.cluster, self._violation)
        self._tell = tell
        self._began = time.monotonic()
        self._events = (self.directory / "events.log").open("w", encoding="utf-8")
        self._arena = Arena(
            self.cluster.endpoints,
            {node.name: node.client_addr for node in self.cluster.nodes.values()},
            plan.seed,
            self.tally,
            self._violation,
            str(history if history is not None else self.directory / "history.jsonl"),
            self.cluster.open_channel,
            self.cluster.tls,
        )
        self._client = self._arena.new_client()
        self.nemesis = Nemesis(plan, self.cluster, self.watch, self._client, self._event, self._violation)
        self._workloads: list[Workload] = []
        self._callers: list[asyncio.Task[None]] = []
        self._over = False
        (self.directory / "plan.json").write_text(plan.to_json(), encoding="utf-8")

    async def run(self) -> Report:
        """The whole of it. Raises LatticeError only if the cluster does not come up in the first place."""
        self.cluster.power_may_fail = any(fault.kind.startswith("power") for fault in self.plan.faults)
        await self.cluster.prepare()
        self._event(f"seed {self.plan.seed}: {self.plan.nodes} nodes in {self.directory}")
        await self._begin()
        await self.nemesis.run()
        self._event("healing")
        await self.nemesis.heal()
        await self._require_recovery()
        await self._stop_callers()
        await self._require_one_state()
        await self._read_back()
        await self.watch.close()
        self.report.connections = self.cluster.links.connections
        await self.cluster.end()
        self._read_logs()
        await self._judge_history()
        self._sum_up()
        return self.report

    def judge_no_more(self) -> None:
        """Whatever is seen from here on is no finding."""
        self._over = True

    async def close(self) -> None:
        """No process, connection or task is left; the directory is. Safe to repeat.

        Whoever would take the end of a node for a finding ends before the nodes do, and nothing is a finding any more.
        """
        self.judge_no_more()
        for task in self._callers:
            task.cancel()
        await asyncio.gather(*self._callers, return_exceptions=True)
        await self.nemesis.stop()
        await self.watch.close()
        await self.cluster.end()
        for workload in self._workloads:
            await workload.close()
        await self._client.close()
        self._events.close()

    def remove(self) -> None:
        """Nothing is left at all."""
        self.cluster.kill_all()

    # -- phases -----------------------------------------------------------------------------------

    async def _begin(self) -> None:
        try:
            await self.cluster.start()
        except TimeoutError:
            raise Unavailable("chaos: the nodes were not ready in time") from None
        if await self.watch.until_healed(FIRST_LEADER_SECONDS) is None:
            raise Unavailable(f"chaos: no leader after {FIRST_LEADER_SECONDS:g} s: {self.watch.standing()}")
        self.watch.start()
        self.tally.last_acknowledged_at = time.monotonic()
        self._workloads = [WORKLOADS[name](self._arena) for name in self.plan.workloads]
        for workload in self._workloads:
            for caller in workload.callers():
                self._callers.append(asyncio.ensure_future(self._guarded(workload, caller)))

    async def _guarded(self, workload: Workload, caller: Coroutine[Any, Any, None]) -> None:
        """A caller that ends by an error of any other kind than it is prepared for has found something."""
        try:
            await caller
        except Exception as error:
            self._violation(f"{workload.name}: a caller got {type(error).__name__}: {error}")

    async def _require_recovery(self) -> None:
        keeper = asyncio.ensure_future(self.nemesis.keep_members())
        try:
            leader = await self.watch.until_healed(HEAL_SECONDS)
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        if leader is None:
            self._violation(
                f"{HEAL_SECONDS:g} s after everything was healed not all members follow one leader and have "
                f"caught up: {self.watch.standing()}"
            )
            return
        self._event(f"healed: {leader} leads")
        goal = self.tally.acknowledged_writes + PROGRESS_WRITES
        deadline = time.monotonic() + PROGRESS_SECONDS
        while self.tally.acknowledged_writes < goal:
            if time.monotonic() > deadline:
                self._violation(
                    f"{PROGRESS_SECONDS:g} s after everything was healed fewer than {PROGRESS_WRITES} writes have been "
                    f"acknowledged: {self.watch.standing()}"
                )
                return
            await asyncio.sleep(0.05)

    async def _stop_callers(self) -> None:
        self._arena.stopping.set()
        _, late = await asyncio.wait(self._callers, timeout=TIMEOUT_SECONDS + OVERDUE_SECONDS)
        if late:
            self._violation(f"{len(late)} callers had not ended {OVERDUE_SECONDS:g} s after their last deadline")

    async def _require_one_state(self) -> None:
        place = await self.watch.until_same_state(SAME_STATE_SECONDS)
        if place is None:
            self._violation(
                f"{SAME_STATE_SECONDS:g} s after the last write not all members have applied the same entry: "
                f"{self.watch.standing()}"
            )
        else:
            self._event(f"one state: entry {place[0]}, hash {place[1]:016x}")

    async def _read_back(self) -> None:
        for workload in self._workloads:
            try:
                for violation in await workload.verify(self._client):
                    self._violation(violation)
            except LatticeError as error:
                self._violation(f"{workload.name}: what came of it could not be read back: {error}")

    def _read_logs(self) -> None:
        for node in self.cluster.nodes.values():
            text = node.log_path.read_text(errors="replace") if node.log_path.exists() else ""
            for finding in LOG_FINDINGS:
                if finding in text:
                    line = next(line for line in text.splitlines() if finding in line)
                    self._violation(f"the log of {node.name} has {line.strip()!r}: {node.log_path}")
                    break

    async def _judge_history(self) -> None:
        for workload in self._workloads:
            if isinstance(workload, Register):
                # On a thread: nothing else runs any more but a live view.
                for violation in await asyncio.to_thread(workload.judge):
                    self._violation(violation)
                self.report.operations_checked = workload.operations

    def _sum_up(self) -> None:
        report, tally, seconds = self.report, self.tally, self.plan.seconds
        report.faults = dict(sorted(self.nemesis.done.items()))
        report.passed = dict(sorted(self.nemesis.passed.items()))
        report.leader_changes = self.watch.leader_changes
        report.acknowledged, report.acknowledged_writes = tally.acknowledged, tally.acknowledged_writes
        report.unknown, report.failed = tally.unknown, tally.failed
        report.longest_gap_seconds = tally.longest_gap_seconds
        report.wall_seconds = time.monotonic() - self._began
        wanted = {
            "acknowledged writes": (tally.acknowledged_writes, int(seconds * MIN_WRITES_PER_SECOND)),
            "faults": (sum(report.faults.values()), max(1, int(seconds / SECONDS_PER_FAULT))),
            "changes of leadership": (
                report.leader_changes,
                math.ceil(self.nemesis.costly / COSTLY_FAULTS_PER_LEADER_CHANGE),
            ),
        }
        for what, (had, least) in wanted.items():
            if had < least:
                report.vacuous.append(f"only {had} {what}, fewer than {least}")
        self._event(f"verdict: {report.verdict}")
        (self.directory / "report.json").write_text(json.dumps(report.to_json(), indent=1), encoding="utf-8")

    # -- telling ----------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def _event(self, text: str) -> None:
        self._events.write(f"{self.seconds:8.2f}  {text}\n")
        self._events.flush()
        self._tell(self.seconds, text)

    def _violation(self, text: str) -> None:
        if self._over:
            return
        if len(self.report.violations) < MAX_VIOLATIONS:
            self.report.violations.append(text)
            self._event(f"VIOLATION: {text}")
