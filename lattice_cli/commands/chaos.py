"""``lattice chaos``: faults on a local cluster of real processes, with a verdict."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lattice_cli.declare import command
from lattice_cli.errors import EXIT_INTERRUPTED, Negative
from lattice_cli.options import Globals, Number, common_options, completed_by, resolve
from lattice_core.errors import InvalidRequest, LatticeError

if TYPE_CHECKING:
    from lattice_cli.chaos.plan import Plan
    from lattice_cli.chaos.run import Report
    from lattice_cli.render.chaos import View

FRESH_SEED_BITS = 32


class Interrupted(Exception):
    """A run was ended before its verdict."""

    def __init__(self, found: list[str], left: Path | None) -> None:
        super().__init__("interrupted")
        self.found = found
        """Violations, until then."""
        self.left = left
        """Its directory, if that is kept."""


@command()
@click.option("--nodes", type=click.IntRange(3, 9), default=3, show_default=True, help="How many.")
@click.option(
    "--seconds",
    type=Number(min=1),
    default=30.0,
    show_default=True,
    metavar="S",
    help="How long faults go on; starting, healing and judging come on top.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="N",
    help="The seed; the same seed is the same schedule of faults. [default: a fresh one]",
)
@click.option(
    "--faults",
    metavar="KIND,...",
    shell_complete=completed_by("faults"),
    help="Only these kinds, all of them; 'list' names them. [default: the seed chooses]",
)
@click.option(
    "--workload",
    metavar="NAME,...",
    shell_complete=completed_by("workloads"),
    help="What clients do: register, set, list, bank, counter. [default: all]",
)
@click.option(
    "--history",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Keep what the register's clients saw, for lattice verify.",
)
@click.option(
    "--runs", type=click.IntRange(min=1), default=1, metavar="COUNT", help="One after the other, seeds from --seed on."
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Where each run makes its directory. [default: the system's for temporary files]",
)
@click.option("--tls", is_flag=True, help="With certificates of its own: mutual TLS among members and with clients.")
@click.option("--keep", is_flag=True, help="Keep the directory of a good run, too.")
@common_options
@click.pass_context
def chaos(
    ctx: click.Context,
    nodes: int,
    seconds: float,
    seed: int | None,
    faults: str | None,
    workload: str | None,
    history: Path | None,
    runs: int,
    directory: Path | None,
    tls: bool,
    keep: bool,
) -> int:
    """Attack a local cluster of real processes while clients work on it, and judge what they saw.

    kill -9, stopped processes, failing and full disks, damaged files, cut and slow connections, by a schedule
    that the seed decides. Histories have to be linearizable, nothing acknowledged may be lost or happen twice,
    and in the end every member has to come back to one state. Exits with 1 if anything of that does not hold,
    or if too little happened to mean anything; then the directory with logs, data and history stays.

    Examples: lattice chaos    lattice chaos --faults kill,isolate --seconds 60    lattice chaos --faults list
    """
    options = resolve(ctx)
    from lattice_cli.chaos.plan import KINDS, Plan
    from lattice_cli.chaos.workloads import WORKLOADS

    if faults == "list":
        _list_kinds(options)
        return 0
    kinds = _names(faults)
    chosen = _names(workload) or tuple(WORKLOADS)
    for name in chosen:
        if name not in WORKLOADS:
            raise InvalidRequest(f"chaos: there is no workload called {name!r}", hint=f"one of {', '.join(WORKLOADS)}")
    for name in kinds or ():
        if name not in KINDS:
            raise InvalidRequest(f"chaos: there is no fault called {name!r}", hint="lattice chaos --faults list")
    if history is not None and (runs > 1 or "register" not in chosen):
        raise click.UsageError("--history belongs to a single run with the register workload", ctx=ctx)
    first = seed if seed is not None else secrets.randbits(FRESH_SEED_BITS)
    plans = [
        Plan.from_seed(number, nodes=nodes, seconds=seconds, workloads=chosen, kinds=kinds)
        for number in range(first, first + runs)
    ]
    return _run(options, plans, directory, history, tls, keep)


def _names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip())) or None


def _run(
    options: Globals, plans: list[Plan], directory: Path | None, history: Path | None, tls: bool, keep: bool
) -> int:
    import asyncio

    from lattice_cli.render import chaos as render

    view = render.View(no_color=options.no_color)
    reports: list[Report] = []
    interrupted: Interrupted | None = None
    try:
        for plan in plans:
            report = asyncio.run(_one(plan, view, directory, history, tls, keep))
            reports.append(report)
            if len(plans) > 1 and options.output == "raw":
                render.line(report)
    except Interrupted as error:
        interrupted = error
    finally:
        view.close()
    if reports or interrupted is None:
        render.show(options, reports)
    failed = [report for report in reports if not report.good]
    if failed:
        worst = failed[0]
        reason = (worst.violations or worst.vacuous)[0]
        raise Negative(
            f"chaos: seed {worst.plan.seed}: {worst.verdict}: {reason}", hint=f"less {worst.directory}/events.log"
        )
    if interrupted is None:
        return 0
    left = f"; what it left is in {interrupted.left}" if interrupted.left is not None else ""
    if interrupted.found:  # what was found is found, whoever interrupts
        raise Negative(f"chaos: interrupted, and had found by then: {interrupted.found[0]}{left}")
    what = "nothing was judged" if not reports else f"{len(reports)} of {len(plans)} runs were judged"
    click.echo(f"interrupted: {what}{left}", err=True)
    return EXIT_INTERRUPTED


async def _one(plan: Plan, view: View, directory: Path | None, history: Path | None, tls: bool, keep: bool) -> Report:
    """One run. Raises Interrupted: Ctrl-C and SIGTERM end it in good order, whatever it is doing."""
    import asyncio

    from lattice_cli.chaos.run import Run
    from lattice_cli.interrupts import Interrupts

    run = Run(plan, parent_dir=directory, history=history, tls=tls, tell=view.event)
    interrupts = Interrupts(run.judge_no_more)
    report = None
    try:
        with view.watching(run):
            report = await run.run()
    except (asyncio.CancelledError, LatticeError):
        if not interrupts.came:
            raise
    finally:
        await interrupts.settle()
        try:
            await run.close()
        finally:
            if not keep and not run.report.violations and (report is None or report.good):
                run.remove()
            interrupts.close()
    if report is None:
        raise Interrupted(run.report.violations, run.directory if run.directory.exists() else None)
    return report


def _list_kinds(options: Globals) -> None:
    from lattice_cli.chaos.plan import KINDS
    from lattice_cli.render import documents, lines

    if options.output == "json":
        documents.print_document({name: kind.text for name, kind in KINDS.items()})
        return
    for name, kind in KINDS.items():
        lines.record(name, kind.text)
