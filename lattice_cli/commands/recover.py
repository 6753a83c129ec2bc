"""``lattice recover``: a quorum is lost for good."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from lattice_cli.declare import command
from lattice_cli.options import common_options, resolve


@command()
@click.argument("data_dirs", metavar="DATA_DIR ...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--yes", is_flag=True, help="Do it. Without this, nothing is changed.")
@click.option(
    "--into",
    metavar="DIR",
    help="Write the new member's data there and leave every DATA_DIR as it is. [default: in the place of the "
    "chosen one, whose old data moves into a directory beside it]",
)
@click.option("--name", metavar="NAME", help="The new member's name. [default: the chosen one's]")
@click.option("--client-addr", metavar="H:P", help="Where clients will connect. [default: the chosen one's]")
@click.option("--peer-addr", metavar="H:P", help="Where other members will connect. [default: the chosen one's]")
@click.option(
    "--generation",
    type=int,
    default=1,
    metavar="N",
    help="2, 3, ...: the same data was recovered before, and that cluster has served. [default: 1]",
)
@click.option("--force", is_flag=True, help="Even if the survivors are a quorum and could go on by themselves.")
@common_options
@click.pass_context
def recover(
    ctx: click.Context,
    data_dirs: tuple[Path, ...],
    yes: bool,
    into: str | None,
    name: str | None,
    client_addr: str | None,
    peer_addr: str | None,
    generation: int,
    force: bool,
) -> None:
    """A quorum is lost for good: make a new cluster of one member out of what the survivors have.

    Give the data directories of all survivors; none of them may be running. The one whose log has the most becomes
    the new cluster. Says what was found, what may be lost and what would be written, and changes nothing
    without --yes. The new cluster has an id of its own: nobody of the old one can join it.

    While a quorum can still come back, start it instead: see docs/operations.md.

    Examples: lattice recover d3    lattice recover d2 d3 --yes    lattice recover d3 --into new3 --yes
    """
    from lattice_cli.render import documents, recovery, storage
    from lattice_core.server.recover import Order, Plan, finish
    from lattice_core.server.recover import recover as carry_out
    from lattice_core.storage.filesystem import RealFileSystem

    options = resolve(ctx)
    paths = [str(path) for path in data_dirs]
    fs = RealFileSystem()
    finished = finish(fs, paths) if yes else None
    if finished is not None:
        if options.output == "json":
            documents.print_document(recovery.finished_document(finished))
        else:
            recovery.finished_text(finished, table=options.output == "table", no_color=options.no_color)
            click.echo(recovery.next_line(finished.identity, finished.data_dir), err=True)
        return
    order = Order(
        into=into,
        name=name,
        peer_addr=peer_addr,
        client_addr=client_addr,
        generation=generation,
        although_quorum=force,
    )
    progress = storage.ProgressLine()

    def consent(plan: Plan) -> bool:
        progress.clear()
        # Before anything is done: what was found is to be seen even if the doing fails.
        if options.output == "table":
            recovery.plan_text(plan, no_color=options.no_color)
        elif options.output == "raw":
            recovery.plan_lines(plan)
        return yes

    try:
        plan = carry_out(fs, paths, order, consent=consent, progress=progress.count)
    finally:
        progress.clear()
    if options.output == "json":
        documents.print_document(recovery.plan_document(plan, done=yes))
    elif yes:
        recovery.done_text(plan, table=options.output == "table", no_color=options.no_color)
        click.echo(recovery.next_line(plan.member.identity, plan.data_dir), err=True)
    elif plan.is_quorum and not force:
        click.echo("nothing was changed, and with --yes this is refused: start the survivors instead", err=True)
    else:
        again = ["lattice", "recover", *paths]
        for option, value in (
            ("--into", into),
            ("--name", name),
            ("--client-addr", client_addr),
            ("--peer-addr", peer_addr),
            ("--generation", None if generation == 1 else str(generation)),
        ):
            again += [option, value] if value is not None else []
        again += ["--force"] if force else []
        click.echo(f"nothing was changed. to do it: {shlex.join(again)} --yes", err=True)
