"""What ``lattice chaos`` shows: a live view on a terminal, a line for each event elsewhere, and a table at the end."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from lattice_cli.render import documents, lines
from lattice_cli.render.console import data_console, write_line
from lattice_cli.render.tables import new_table
from lattice_cli.render.text import plural

if TYPE_CHECKING:
    from lattice_cli.chaos.run import Report, Run
    from lattice_cli.options import Globals

REFRESH_SECONDS = 0.25
SHOWN_EVENTS = 10


class View:
    """Everything while it runs goes to stderr: stdout is for what came of it."""

    def __init__(self, *, no_color: bool = False) -> None:
        self._console = Console(file=sys.stderr, no_color=no_color or None, highlight=False, emoji=False, markup=False)
        self._is_terminal = sys.stderr.isatty()
        self._events: deque[str] = deque(maxlen=SHOWN_EVENTS)
        self._live: Live | None = None

    def event(self, seconds: float, text: str) -> None:
        line = f"{seconds:7.2f}  {text}"
        self._events.append(line)
        if self._live is None or text.startswith("VIOLATION"):
            self._console.print(Text(line), soft_wrap=True)

    @contextlib.contextmanager
    def watching(self, run: Run) -> Iterator[None]:
        """Keep the view of this run up to date, on a terminal."""
        if not self._is_terminal:
            yield
            return
        self._events.clear()
        with Live(Text(""), console=self._console, auto_refresh=False, transient=True) as live:
            self._live = live
            task = asyncio.ensure_future(self._refresh(live, run))
            try:
                yield
            finally:
                task.cancel()
                self._live = None

    def close(self) -> None:
        self._live = None

    async def _refresh(self, live: Live, run: Run) -> None:
        while True:
            live.update(_scene(run, list(self._events)), refresh=True)
            await asyncio.sleep(REFRESH_SECONDS)


def _scene(run: Run, events: list[str]) -> RenderableType:
    table = new_table(("", "<"), ("NAME", "<"), ("STATE", "<"), ("TERM", ">"), ("APPLIED", ">"), ("HASH", "<"))
    awake = run.cluster.awake()
    for name, node in run.cluster.nodes.items():
        seen = run.watch.seen.get(name)
        state = (
            "down" if not node.running else "stopped" if name not in awake else seen.status.role if seen else "starting"
        )
        known = seen is not None and node.running and seen.pid == node.pid
        numbers = (
            (str(seen.status.term), str(seen.status.applied_index), f"{seen.status.state_hash:016x}")
            if seen is not None and known
            else ("-", "-", "-")
        )
        mark = "*" if state == "leader" else "!" if state in ("down", "stopped") else " "
        table.add_row(mark, name, state, *numbers, style="bold red" if mark == "!" else None)
    tally = run.tally
    faults = sum(run.nemesis.done.values())
    counts = (
        f"{run.seconds:.0f} s  seed {run.plan.seed}  {plural(tally.acknowledged, 'answer')}  "
        f"{tally.unknown:,} unknown  {tally.failed:,} failed  {plural(faults, 'fault')}  "
        f"{plural(run.watch.leader_changes, 'leader change')}"
    )
    now = ", ".join(run.nemesis.active.values()) or "nothing"
    return Group(table, Text(f"\n{counts}", style="bold"), Text(f"wrong just now: {now}\n"), Text("\n".join(events)))


# -- what came of it ------------------------------------------------------------------------------


def show(options: Globals, reports: list[Report]) -> None:
    """The result of one run or of many, on stdout."""
    if options.output == "json":
        if len(reports) == 1:
            documents.print_document(reports[0].to_json())
        else:
            failed = sum(not report.good for report in reports)
            documents.print_document({"runs": [report.to_json() for report in reports], "failed": failed})
    elif options.output == "raw":
        if len(reports) == 1:
            line(reports[0])
    else:
        _table(options, reports)


def line(report: Report) -> None:
    """One run as a record: seed, verdict, faults, changes of leadership, acknowledged, unknown, failed, faults by
    kind, directory."""
    kept = report.directory if report.directory.exists() else None
    lines.record(
        report.plan.seed,
        report.verdict,
        sum(report.faults.values()),
        report.leader_changes,
        report.acknowledged,
        report.unknown,
        report.failed,
        _by_kind(report),
        kept,
    )


def _table(options: Globals, reports: list[Report]) -> None:
    table = new_table(
        ("RUN", ">"), ("SEED", ">"), ("FAULTS", "<"), ("LEADERS", ">"), ("ACKNOWLEDGED", ">"), ("UNKNOWN", ">"),
        ("FAILED", ">"), ("VERDICT", "<"),
    )  # fmt: skip
    for number, report in enumerate(reports, 1):
        table.add_row(
            str(number),
            str(report.plan.seed),
            _by_kind(report),
            str(report.leader_changes),
            f"{report.acknowledged:,}",
            f"{report.unknown:,}",
            f"{report.failed:,}",
            report.verdict,
            style=None if report.good else "bold red",
        )
    data_console(no_color=options.no_color).print(table)
    for report in reports:
        for reason, count in report.passed.items():
            write_line(f"seed {report.plan.seed}: passed over {count}: {reason}")
        for text in (*report.violations, *report.vacuous):
            write_line(f"seed {report.plan.seed}: {text}")
        if not report.good:
            write_line(f"seed {report.plan.seed}: everything it left is in {report.directory}")
    good = sum(report.good for report in reports)
    operations = sum(report.operations_checked for report in reports)
    write_line(
        f"{good} of {plural(len(reports), 'run')} good: "
        f"{sum(sum(report.faults.values()) for report in reports):,} faults, "
        f"{sum(report.leader_changes for report in reports):,} changes of leadership, "
        f"{sum(report.acknowledged for report in reports):,} answers, {operations:,} operations found linearizable"
        if good == len(reports)
        else f"{len(reports) - good} of {plural(len(reports), 'run')} failed"
    )


def _by_kind(report: Report) -> str:
    return " ".join(f"{kind}:{count}" for kind, count in report.faults.items()) or "none"
