"""What ``lattice sim`` shows: a live line while it runs, a table at the end."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from lattice_cli.render.console import data_console, write_line

if TYPE_CHECKING:
    from lattice_core.sim.campaign import Totals
    from lattice_core.sim.runner import Report
    from lattice_core.sim.world import World


class LiveLine:
    """One line on stderr that is written over again; nothing where stderr is no terminal."""

    def __init__(self) -> None:
        self._shown = False
        self._enabled = sys.stderr.isatty()
        self._last = 0.0

    def run(self, world: World) -> None:
        """Progress within one run."""
        faults = sum(world.nemesis.struck.values())
        self._show(
            f"{world.events:,} events  {world.now_ns / 1e9:,.0f} s simulated  {world.invariants.elections} elections  "
            f"{faults} faults  {world.acknowledged_writes:,} writes acknowledged"
        )

    def campaign(self, totals: Totals, count: int) -> None:
        """Progress over many runs."""
        faults = sum(totals.faults.values())
        self._show(
            f"{totals.runs}/{count} seeds  {totals.events:,} events  "
            f"{totals.simulated_seconds / 3600:,.2f} h simulated  {totals.elections:,} elections  {faults:,} faults  "
            f"{totals.acknowledged_writes:,} writes acknowledged  {totals.failed} failed"
        )

    def clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
            self._shown = False

    def _show(self, text: str) -> None:
        if self._enabled and time.monotonic() - self._last > 0.1:
            self._last = time.monotonic()
            sys.stderr.write("\r\x1b[2K" + text[: _width() - 1])
            sys.stderr.flush()
            self._shown = True


def _width() -> int:
    import shutil

    return shutil.get_terminal_size().columns


def report_table(report: Report, *, no_color: bool) -> None:
    """One run, for a person."""
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    plan = report.plan
    rows = [
        ("seed", f"{plan.seed}   ({plan.nodes} nodes{_joined(report)}, planted bug: {plan.plant or 'none'})"),
        ("simulated", f"{report.simulated_seconds:,.1f} s in {report.wall_seconds:,.1f} s of real time"),
        ("events", f"{report.events:,}   ({report.events / max(report.wall_seconds, 1e-9):,.0f} a second)"),
        ("elections", f"{report.elections}"),
        ("operations", f"{report.operations:,}, {report.acknowledged_writes:,} writes acknowledged"),
        ("faults", ", ".join(f"{kind} {count}" for kind, count in sorted(report.faults.items())) or "none"),
        ("trace hash", report.trace_hash),
    ]
    if plan.changes:
        done = ", ".join(f"{what} {count}" for what, count in sorted(report.changes.items()))
        rows.insert(-1, ("membership", done or "no change was begun"))
    for name, text in rows:
        table.add_row(name, text)
    data_console(no_color=no_color).print(table)
    verdict(report)


def _joined(report: Report) -> str:
    return f", {report.joined} joined later" if report.joined else ""


def verdict(report: Report) -> None:
    """The last line: what was found, or that nothing was."""
    if not report.violations:
        write_line("clean: every invariant held, the history is linearizable, the nodes agree")
    for violation in report.violations:
        write_line(f"FOUND at {violation['simulated_seconds']} s  {violation['check']}: {violation['message']}")


def report_line(report: Report) -> None:
    """One run of many, as a record."""
    what = report.violations[0]["check"] if report.violations else "clean"
    fields = (
        report.plan.seed,
        what,
        report.trace_hash,
        report.events,
        f"{report.simulated_seconds:.1f}",
        f"{report.wall_seconds:.1f}",
        report.elections,
        report.acknowledged_writes,
        sum(report.faults.values()),
    )
    write_line("\t".join(str(value) for value in fields))


def totals_table(totals: Totals, seconds: float, *, no_color: bool) -> None:
    """Many runs, for a person."""
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("seeds", f"{totals.runs}, {totals.failed} failed")
    speed = totals.simulated_seconds / max(totals.run_seconds, 1e-9)
    table.add_row("simulated", f"{totals.simulated_seconds / 3600:,.2f} h, {speed:,.0f} times real time on each core")
    table.add_row(
        "events", f"{totals.events:,}   ({totals.events / max(totals.run_seconds, 1e-9):,.0f} a second and core)"
    )
    table.add_row("elections", f"{totals.elections:,}")
    table.add_row("operations", f"{totals.operations:,}, {totals.acknowledged_writes:,} writes acknowledged")
    table.add_row("faults", f"{sum(totals.faults.values()):,}")
    done = sum(count for what, count in totals.changes.items() if what.endswith(": done"))
    table.add_row("membership", f"{done:,} changes done, {sum(totals.changes.values()) - done:,} refused or given up")
    table.add_row("real time", f"{seconds:,.1f} s")
    data_console(no_color=no_color).print(table)
