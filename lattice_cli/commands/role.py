"""``lattice role``: what may be read and written, by key prefix."""

from __future__ import annotations

import click

from lattice_cli.declare import group
from lattice_cli.options import as_bytes, common_options, completed_by, resolve
from lattice_cli.render import access as view
from lattice_cli.render.text import json_bytes, printable


@group()
@common_options
def role() -> None:
    """Roles: which keys may be read or written. The role admin is built in and allows everything."""


@role.command("grant")
@click.argument("name", metavar="ROLE", shell_complete=completed_by("own_roles"))
@click.argument("level", type=click.Choice(["read", "write"]))
@click.argument("prefix", shell_complete=completed_by("keys"))
@common_options
@click.pass_context
def role_grant(ctx: click.Context, name: str, level: str, prefix: str) -> None:
    """Let ROLE read, or read and write, all keys that begin with PREFIX ("": all). Its first grant makes the role.

    Examples: lattice role grant readers read docs/    lattice role grant app write app/
    """
    options = resolve(ctx)
    data = as_bytes(prefix)
    with options.client() as client:
        client.access.grant(name, level, data)
    where = f"the keys that begin with {printable(data)}" if data else "all keys"
    document = {"role": name, "level": level, "prefix": json_bytes(data)}
    view.done(options, document, f"{name} may {level} {where}")


@role.command("revoke")
@click.argument("name", metavar="ROLE", shell_complete=completed_by("own_roles"))
@click.argument("prefix", shell_complete=completed_by("keys"))
@common_options
@click.pass_context
def role_revoke(ctx: click.Context, name: str, prefix: str) -> None:
    """Take back what ROLE was granted on exactly this PREFIX, with effect on streams that are open.

    Example: lattice role revoke readers jobs/
    """
    options = resolve(ctx)
    data = as_bytes(prefix)
    with options.client() as client:
        client.access.revoke(name, data)
    document = {"role": name, "level": None, "prefix": json_bytes(data)}
    view.done(options, document, f"{name} has nothing on the prefix {printable(data)!r} any more")


@role.command("remove")
@click.argument("name", metavar="ROLE", shell_complete=completed_by("own_roles"))
@common_options
@click.pass_context
def role_remove(ctx: click.Context, name: str) -> None:
    """Remove ROLE; whoever has it, has it no more.

    Example: lattice role remove readers
    """
    options = resolve(ctx)
    with options.client() as client:
        client.access.remove_role(name)
    view.done(options, {"role": name, "removed": True}, f"removed the role {name}")


@role.command("list")
@common_options
@click.pass_context
def role_list(ctx: click.Context) -> None:
    """Every role, with what it may do and on which prefixes.

    Example: lattice role list
    """
    options = resolve(ctx)
    with options.client() as client:
        info = client.access.info()
    view.roles(options, info)
