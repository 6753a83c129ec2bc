"""``lattice token`` and ``lattice login``: what proves who somebody is."""

from __future__ import annotations

from pathlib import Path

import click

from lattice_cli.declare import command, group
from lattice_cli.options import common_options, completed_by, resolve
from lattice_cli.render import access as view
from lattice_cli.secrets import Duration, out_option, password_from, password_option, require_new, write_secret


@group()
@common_options
def token() -> None:
    """Tokens: what proves who a program or a person is. Used with --token-file FILE or LATTICE_TOKEN_FILE."""


@token.command("create")
@click.argument("user", shell_complete=completed_by("users"))
@click.option(
    "--ttl", type=Duration(), metavar="TIME", help="How long it is good: 90s, 15m, 12h, 30d. [default: for ever]"
)
@out_option
@common_options
@click.pass_context
def token_create(ctx: click.Context, user: str, ttl: float | None, out: Path | None) -> None:
    """Make a token of USER: of oneself, or as an administrator. It is shown once.

    Examples: lattice token create backup --out backup.token    lattice token create ci --ttl 30d
    """
    options = resolve(ctx)
    require_new("token create", out)
    with options.client() as client:
        fresh = client.access.create_token(user, ttl_seconds=ttl)
    if out is not None:
        write_secret(out, fresh.token)
    view.new_token(options, fresh, None if out is None else str(out))


@token.command("revoke")
@click.argument("token_id", metavar="ID", shell_complete=completed_by("tokens"))
@common_options
@click.pass_context
def token_revoke(ctx: click.Context, token_id: str) -> None:
    """Revoke the token ID, with effect on streams that are open. The ID is the middle of lattice_ID_SECRET.

    Example: lattice token revoke ID
    """
    options = resolve(ctx)
    with options.client() as client:
        client.access.revoke_token(token_id)
    view.done(options, {"id": token_id, "revoked": True}, f"revoked the token {token_id}")


@token.command("list")
@common_options
@click.pass_context
def token_list(ctx: click.Context) -> None:
    """Every token: id, user, kind, when it expires; never the secret.

    Example: lattice token list
    """
    options = resolve(ctx)
    with options.client() as client:
        info = client.access.info()
    view.tokens(options, info)


@command()
@click.argument("user")
@password_option
@click.option("--ttl", type=Duration(), metavar="TIME", help="How long it is good, at most 30d. [default: 12h]")
@out_option
@common_options
@click.pass_context
def login(ctx: click.Context, user: str, password_file: str | None, ttl: float | None, out: Path | None) -> None:
    """Exchange USER's password for a token that expires.

    Examples: lattice login ann --out ~/.lattice-token; export LATTICE_TOKEN_FILE=~/.lattice-token
    """
    options = resolve(ctx)
    secret = password_from("login", password_file, f"Password for {user}")
    with options.client(anonymous=True) as client:
        fresh = client.access.login(user, secret, ttl_seconds=ttl)
    if out is not None:
        write_secret(out, fresh.token)
    view.new_token(options, fresh, None if out is None else str(out))
