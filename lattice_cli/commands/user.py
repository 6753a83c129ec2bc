"""``lattice user``: who there is, and which roles they have."""

from __future__ import annotations

import click

from lattice_cli.declare import group
from lattice_cli.options import common_options, completed_by, resolve
from lattice_cli.render import access as view
from lattice_cli.secrets import password_from, password_option


@group()
@common_options
def user() -> None:
    """Users: somebody, or something, that has roles, and a token or a password to prove it."""


@user.command("add")
@click.argument("name")
@click.option(
    "--role",
    "roles",
    multiple=True,
    metavar="ROLE",
    shell_complete=completed_by("roles"),
    help="A role to begin with; may be repeated.",
)
@click.option("--password", is_flag=True, help="Ask for a password on the terminal.")
@click.option("--password-file", metavar="FILE", help="Take the password from its first line; - is standard input.")
@common_options
@click.pass_context
def user_add(ctx: click.Context, name: str, roles: tuple[str, ...], password: bool, password_file: str | None) -> None:
    """Add the user NAME. Without a password there are tokens: lattice token create NAME

    Examples: lattice user add ann --role readers --password    lattice user add backup --role admin
    """
    options = resolve(ctx)
    secret = None
    if password or password_file is not None:
        secret = password_from("user add", password_file, f"Password for {name}", confirm=True)
    with options.client() as client:
        client.access.add_user(name, password=secret, roles=roles)
    document = {"user": name, "roles": list(roles), "has_password": secret is not None}
    view.done(options, document, f"added the user {name}")


@user.command("remove")
@click.argument("name", shell_complete=completed_by("users"))
@common_options
@click.pass_context
def user_remove(ctx: click.Context, name: str) -> None:
    """Remove the user NAME, with all tokens; streams that are open are refused from now on.

    Example: lattice user remove ann
    """
    options = resolve(ctx)
    with options.client() as client:
        client.access.remove_user(name)
    view.done(options, {"user": name, "removed": True}, f"removed the user {name}")


@user.command("list")
@common_options
@click.pass_context
def user_list(ctx: click.Context) -> None:
    """Every user: name, roles, whether there is a password, how many tokens.

    Example: lattice user list
    """
    options = resolve(ctx)
    with options.client() as client:
        info = client.access.info()
    view.users(options, info)


@user.command("passwd")
@click.argument("name", shell_complete=completed_by("users"))
@password_option
@click.option("--remove", is_flag=True, help="There is to be no password any more.")
@common_options
@click.pass_context
def user_passwd(ctx: click.Context, name: str, password_file: str | None, remove: bool) -> None:
    """Set the password of the user NAME: one's own, or as an administrator. Logins with the former one end.

    Example: lattice user passwd ann
    """
    options = resolve(ctx)
    secret = None if remove else password_from("user passwd", password_file, f"New password for {name}", confirm=True)
    with options.client() as client:
        client.access.set_password(name, secret)
    done = "removed" if remove else "set"
    view.done(options, {"user": name, "has_password": not remove}, f"{done} the password of {name}")


@user.command("grant")
@click.argument("name", shell_complete=completed_by("users"))
@click.argument("role", shell_complete=completed_by("roles"))
@common_options
@click.pass_context
def user_grant(ctx: click.Context, name: str, role: str) -> None:
    """Give the user NAME the ROLE. The role admin is built in: it allows everything.

    Example: lattice user grant ann readers
    """
    options = resolve(ctx)
    with options.client() as client:
        client.access.assign(name, role)
    view.done(options, {"user": name, "role": role, "granted": True}, f"{name} has the role {role}")


@user.command("revoke")
@click.argument("name", shell_complete=completed_by("users"))
@click.argument("role", shell_complete=completed_by("roles"))
@common_options
@click.pass_context
def user_revoke(ctx: click.Context, name: str, role: str) -> None:
    """Take the ROLE from the user NAME, with effect on streams that are open.

    Example: lattice user revoke ann readers
    """
    options = resolve(ctx)
    with options.client() as client:
        client.access.unassign(name, role)
    view.done(options, {"user": name, "role": role, "granted": False}, f"{name} does not have the role {role} any more")
