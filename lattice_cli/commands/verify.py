"""``lattice verify``: is a recorded history linearizable?"""

from __future__ import annotations

from pathlib import Path

import click

from lattice_cli.declare import command
from lattice_cli.errors import Negative
from lattice_cli.options import Number, common_options, resolve
from lattice_core.errors import Unavailable


@command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Draw the counterexample, or a small history, as one page.",
)
@click.option(
    "--budget",
    type=Number(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up after this long.",
)
@common_options
@click.pass_context
def verify(ctx: click.Context, file: Path, html: Path | None, budget: float) -> None:
    """Check whether the history in FILE (JSON lines) is linearizable.

    Exits 0 if it is, 1 if it is not, with the smallest counterexample found; 3 if that could not be decided
    in time. bench, chaos and sim write such files.

    Examples: lattice sim --seed 7 --history h.jsonl && lattice verify h.jsonl
    """
    options = resolve(ctx)
    from lattice_cli.render import documents, lines
    from lattice_cli.render.console import write_line
    from lattice_core.verify import Budget, check_history, read_history, write_timeline

    operations = read_history(file)
    verdict = check_history(operations, budget=Budget(seconds=budget))
    if html is not None:
        write_timeline(html, verdict if verdict.counterexample is not None else operations, title=str(file))
    if options.output == "json":
        documents.print_document(verdict.to_json())
    elif options.output == "table":
        for text in verdict.lines():
            write_line(text)
    else:
        decided = {True: "linearizable", False: "not linearizable", None: "undecided"}[verdict.linearizable]
        lines.record(decided, verdict.operations)
    if verdict.linearizable is False:
        counterexample = verdict.counterexample
        why = counterexample.explanation if counterexample is not None else "no order explains it"
        raise Negative(f"{file} is not linearizable: {why}", hint=f"lattice verify {file} --html timeline.html")
    if verdict.linearizable is None:
        raise Unavailable(
            f"{file} could not be decided within {budget:g} s", hint=f"lattice verify {file} --budget {budget * 10:g}"
        )
