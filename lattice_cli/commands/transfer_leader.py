"""``lattice transfer-leader``: hand leadership over in good order."""

from __future__ import annotations

import click

from lattice_cli.declare import command
from lattice_cli.options import common_options, completed_by, resolve


@command("transfer-leader")
@click.argument("name", required=False, shell_complete=completed_by("successors"))
@common_options
@click.pass_context
def transfer_leader(ctx: click.Context, name: str | None) -> None:
    """Make the member NAME the leader (without NAME: the best-placed voter), and wait until it is.

    Examples: lattice transfer-leader    lattice transfer-leader n2
    """
    options = resolve(ctx)
    from lattice_cli.render import documents, lines

    with options.client() as client:
        transfer = client.transfer_leader(name)
    if options.output == "json":
        documents.print_document(documents.transfer_document(transfer))
    elif options.output == "raw":
        lines.record(transfer.old_leader, transfer.new_leader, transfer.term, f"{transfer.milliseconds:.1f}")
    else:
        lines.record(
            f"leadership went from {transfer.old_leader} to {transfer.new_leader} in "
            f"{transfer.milliseconds:.0f} ms, term {transfer.term}"
        )
