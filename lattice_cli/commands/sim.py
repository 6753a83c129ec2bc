"""``lattice sim``: run the simulator over one seed, many, or a saved plan."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lattice_cli.declare import command
from lattice_cli.errors import Negative
from lattice_cli.options import Globals, Number, common_options, completed_by, resolve
from lattice_core.errors import InvalidRequest

if TYPE_CHECKING:
    from lattice_core.sim.plan import Plan
    from lattice_core.sim.runner import Report

FRESH_SEED_BITS = 32


@command()
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="N",
    help="The seed; the same seed is the same run. [default: a fresh one]",
)
@click.option(
    "--seeds", type=click.IntRange(min=1), default=1, metavar="COUNT", help="Run so many seeds, from --seed on."
)
@click.option(
    "--hours",
    type=Number(min=0, min_open=True),
    default=0.05,
    show_default=True,
    metavar="H",
    help="Simulated hours for each seed.",
)
@click.option(
    "--nodes", type=click.IntRange(1, 9), metavar="N", help="Nodes in the cluster. [default: the seed decides]"
)
@click.option(
    "--membership",
    type=click.Choice(["off", "random", "journey"]),
    help="Whether servers join and leave: off, at random, or one long story. [default: the seed decides]",
)
@click.option(
    "--plant",
    metavar="BUG",
    shell_complete=completed_by("plants"),
    help="Switch a planted bug on, to see it caught; 'list' names them.",
)
@click.option(
    "--replay",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Run a saved plan instead of a seed.",
)
@click.option(
    "--save", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Save the plan that is run."
)
@click.option(
    "--history",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write what the clients saw, for lattice verify.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write one page that shows the run: elections, messages, crashes, log repair.",
)
@click.option("--shrink/--no-shrink", default=True, help="Shrink a plan that fails before saving it.")
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    metavar="N",
    help="Seeds run at once, one a core.",
)
@common_options
@click.pass_context
def sim(
    ctx: click.Context,
    seed: int | None,
    seeds: int,
    hours: float,
    nodes: int | None,
    membership: str | None,
    plant: str | None,
    replay: Path | None,
    save: Path | None,
    history: Path | None,
    html: Path | None,
    shrink: bool,
    jobs: int,
) -> None:
    """Attack the real consensus core, log and state machine in a simulated world.

    One seed decides everything: network, disks, crashes, clocks, clients, who joins and leaves. Every step is
    checked, and at the end the clients' history must be linearizable. A violation exits with 1, saves the plan,
    shrunk to what matters, and prints the command that replays it.

    Examples: lattice sim --seed 7    lattice sim --seeds 100 --hours 0.5 --jobs 2    lattice sim --plant list
    """
    options = resolve(ctx)
    from lattice_core.sim import plants
    from lattice_core.sim.plan import Plan

    if plant == "list":
        _list_plants(options)
        return
    plants.require_known(plant)
    if replay is not None:
        if seed is not None or seeds > 1 or nodes is not None or membership is not None:
            raise click.UsageError(
                "--replay runs one saved plan; it excludes --seed, --seeds, --nodes and --membership", ctx=ctx
            )
        plan = Plan.from_json(_read(replay), source=str(replay))
        plants.require_known(plan.plant)
        _one(options, plan, save, history, html, shrink and plant is None, replayed=replay)
        return
    first = seed if seed is not None else secrets.randbits(FRESH_SEED_BITS)
    plans = [
        Plan.from_seed(number, hours=hours, nodes=nodes, plant=plant, membership=membership)
        for number in range(first, first + seeds)
    ]
    if seeds == 1:
        _one(options, plans[0], save, history, html, shrink)
        return
    if save or history or html:
        raise click.UsageError("--save, --history and --html belong to a single run", ctx=ctx)
    _many(options, plans, jobs, shrink)


def _one(
    options: Globals,
    plan: Plan,
    save: Path | None,
    history: Path | None,
    html: Path | None,
    shrink: bool,
    replayed: Path | None = None,
) -> None:
    from lattice_cli.render import documents, simulation
    from lattice_core.sim.recorder import Recorder
    from lattice_core.sim.runner import run
    from lattice_core.verify import write_history

    live = simulation.LiveLine()
    recorder = Recorder() if html is not None else None
    try:
        report = run(plan, recorder=recorder, progress=live.run)
    finally:
        live.clear()
    if save is not None:
        save.write_text(plan.to_json(), encoding="utf-8")
    if history is not None:
        write_history(history, report.history)
    if html is not None and recorder is not None:
        from lattice_core.sim.explain import write_explanation

        write_explanation(html, plan, report, recorder)
    if options.output == "json":
        documents.print_document(report.to_json())
    elif options.output == "table":
        simulation.report_table(report, no_color=options.no_color)
    else:
        simulation.report_line(report)
    if report.failed:
        if replayed is not None:
            raise Negative(
                f"{replayed} fails: {report.violations[0]['check']}",
                hint=f"lattice sim --replay {replayed} --html run.html",
            )
        raise _finding(report, shrink, live)


def _many(options: Globals, plans: list[Plan], jobs: int, shrink: bool) -> None:
    from lattice_cli.render import documents, simulation
    from lattice_core.sim.campaign import Totals, run_many

    live, totals, started = simulation.LiveLine(), Totals(), time.monotonic()
    failed: list[Report] = []
    runs: list[Report] = []
    try:
        for report in run_many(plans, jobs=jobs):
            totals.add(report)
            runs.append(report)
            live.clear()
            if report.failed:
                failed.append(report)
            if options.output == "raw" or (report.failed and options.output == "table"):
                simulation.report_line(report)
            live.campaign(totals, len(plans))
    finally:
        live.clear()
    if options.output == "json":
        runs.sort(key=lambda report: report.plan.seed)
        documents.print_document({"runs": [report.to_json() for report in runs], "failed": totals.failed})
    else:
        simulation.totals_table(totals, time.monotonic() - started, no_color=options.no_color)
    if failed:
        raise _finding(failed[0], shrink, live)


def _finding(report: Report, shrink: bool, live: object) -> Negative:
    """Save the plan that found something, as small as it gets, and say how to see it again."""
    from lattice_core.sim.runner import shrink as shrink_plan

    plan = report.plan
    if shrink and plan.plant is None:
        plan, report = shrink_plan(plan, budget_seconds=60.0)
    path = Path(f"lattice-sim-{plan.seed}.json" if plan.plant is None else f"lattice-sim-{plan.plant}-{plan.seed}.json")
    path.write_text(plan.to_json(), encoding="utf-8")
    found = report.violations[0]
    return Negative(f"seed {plan.seed} found {found['check']}: {found['message']}", hint=f"lattice sim --replay {path}")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InvalidRequest(f"{path} cannot be read: {reason}") from None


def _list_plants(options: Globals) -> None:
    from lattice_cli.render import documents, lines
    from lattice_core.sim.plants import PLANTS

    if options.output == "json":
        documents.print_document({"planted": {name: plant.description for name, plant in PLANTS.items()}})
        return
    for name, plant in PLANTS.items():
        lines.record(name, plant.description)
