"""``lattice cluster``: all members at once."""

from __future__ import annotations

import click

from lattice_cli.commands.membership import add_server, promote, remove_server, replace_server
from lattice_cli.declare import group
from lattice_cli.options import common_options, resolve


@group()
@common_options
def cluster() -> None:
    """All members: how they are, who they are, and who they shall be."""


for command in (add_server, remove_server, replace_server, promote):
    cluster.add_command(command)


@cluster.command("status")
@common_options
@click.pass_context
def cluster_status(ctx: click.Context) -> None:
    """The table of every member, the unreachable included: * leads, + learns, ~ lags, ! is unreachable.

    Examples: lattice cluster status    lattice cluster status -o json
    """
    options = resolve(ctx)
    with options.telling_client() as client:
        status = client.cluster_status()
    if options.output == "json":
        from lattice_cli.render import documents

        documents.print_document(documents.cluster_document(status))
    elif options.output == "raw":
        from lattice_cli.render import lines

        lines.cluster_lines(status)
    else:
        from lattice_cli.render import tables
        from lattice_cli.render.console import data_console

        console = data_console(no_color=options.no_color)
        tables.show(console, tables.cluster_table(status, console.width))


@cluster.command("members")
@common_options
@click.pass_context
def members(ctx: click.Context) -> None:
    """Who belongs to the cluster: names, ids, addresses, voters and learners.

    Examples: lattice cluster members    lattice cluster members -o json
    """
    options = resolve(ctx)
    with options.telling_client() as client:
        status = client.cluster_status()
    if options.output == "json":
        from lattice_cli.render import documents

        documents.print_document(documents.members_document(status))
    elif options.output == "raw":
        from lattice_cli.render import lines

        lines.member_lines(status)
    else:
        from lattice_cli.render import tables
        from lattice_cli.render.console import data_console

        console = data_console(no_color=options.no_color)
        tables.show(console, tables.members_table(status, console.width))
