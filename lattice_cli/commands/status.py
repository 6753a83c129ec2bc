"""``lattice status``: the member that answers, about itself."""

from __future__ import annotations

import click

from lattice_cli.declare import command
from lattice_cli.options import common_options, resolve


@command()
@common_options
@click.pass_context
def status(ctx: click.Context) -> None:
    """Show what the member that answers knows of itself. For all members: lattice cluster status

    Examples: lattice status    lattice status --endpoints 127.0.0.1:7402 -o json
    """
    options = resolve(ctx)
    with options.telling_client() as client:
        node = client.node_status()
    if options.output == "json":
        from lattice_cli.render import documents

        documents.print_document(documents.node_document(node))
        return
    from lattice_cli.render import lines, tables
    from lattice_cli.render.console import data_console

    if options.output == "raw":
        for name, value in tables.node_fields(node):
            lines.record(name, value)
    else:
        tables.show(data_console(no_color=options.no_color), tables.fields(tables.node_fields(node)))
