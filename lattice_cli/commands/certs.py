"""``lattice certs``: an authority of one's own, and certificates for members and clients.

What is made, and for whom, is :mod:`lattice_core.certificates`' and :mod:`lattice_cli.cert_files`' business.
"""

from __future__ import annotations

from pathlib import Path

import click

from lattice_cli.declare import group
from lattice_cli.options import common_options, resolve

DIRECTORY = "certs"
AUTHORITY_DAYS = 3650
"""Replacing it means a new certificate for everybody."""
DAYS = 365
"""A year: renewing needs no restart, and is warned about a month before."""

_dir = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=DIRECTORY,
    show_default=True,
    metavar="DIR",
    help="Where the files are and are made.",
)
_days = click.option(
    "--days", type=click.IntRange(1, AUTHORITY_DAYS), default=DAYS, show_default=True, help="How long it is valid."
)
_replace = click.option("--replace", is_flag=True, help="In place of one that is there: a renewal, with a new key.")


@group()
@common_options
def certs() -> None:
    """Make the certificates of a cluster: for its authority, its members and its clients.

    Examples: lattice certs init    lattice certs node n1 --host 10.0.0.1    lattice certs client alice
    """


@certs.command("init")
@_dir
@click.option(
    "--days",
    type=click.IntRange(1, 10 * AUTHORITY_DAYS),
    default=AUTHORITY_DAYS,
    show_default=True,
    help="How long it is valid.",
)
@common_options
@click.pass_context
def init(ctx: click.Context, directory: Path, days: int) -> None:
    """Make an authority: ca.pem, which everybody is given, and ca.key, which nobody is.

    Whoever has ca.key can be any member and any client. It is needed here, for lattice certs, and nowhere else.

    Example: lattice certs init
    """
    from lattice_cli import cert_files
    from lattice_cli.render import certs as view

    made = cert_files.make_authority(directory, days)
    view.show(made, output=resolve(ctx).output)


@certs.command("node")
@click.argument("name")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="HOST[,HOST]",
    help="Names and IP addresses at which clients reach it. [default: localhost, 127.0.0.1 and ::1]",
)
@_dir
@_days
@_replace
@common_options
@click.pass_context
def node(ctx: click.Context, /, name: str, hosts: tuple[str, ...], directory: Path, days: int, replace: bool) -> None:
    """Make a certificate for the member NAME: NAME.pem and NAME.key.

    It serves for both ports. Other members know it by NAME, wherever it is; clients by the host they dial.

    Examples: lattice certs node n1    lattice certs node n1 --host 10.0.0.1,db1.example.com
    """
    from lattice_cli import cert_files
    from lattice_cli.render import certs as view

    named = [each.strip() for host in hosts for each in host.split(",") if each.strip()]
    made = cert_files.make_node(directory, name, named, days, replace=replace)
    view.show(made, output=resolve(ctx).output)


@certs.command("client")
@click.argument("name")
@_dir
@_days
@_replace
@common_options
@click.pass_context
def client(ctx: click.Context, /, name: str, directory: Path, days: int, replace: bool) -> None:
    """Make a certificate for a client: client-NAME.pem and client-NAME.key.

    Members that run with --tls-client-ca serve nobody without one.

    Example: lattice certs client alice
    """
    from lattice_cli import cert_files
    from lattice_cli.render import certs as view

    made = cert_files.make_client(directory, name, days, replace=replace)
    view.show(made, output=resolve(ctx).output)
