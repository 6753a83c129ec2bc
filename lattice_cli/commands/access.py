"""``lattice access``: whether a token is asked for, and the way back in."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from lattice_cli.declare import group
from lattice_cli.options import common_options, resolve
from lattice_cli.secrets import out_option, write_secret
from lattice_core.errors import ConfigurationError


@group()
@common_options
def access() -> None:
    """Access control: whether a token is asked for.

    To begin: lattice user add NAME --role admin; lattice token create NAME --out FILE;
    lattice access enable --token-file FILE
    """


@access.command("status")
@common_options
@click.pass_context
def access_status(ctx: click.Context) -> None:
    """Whether access control is enabled, and who you are to the cluster.

    Example: lattice access status
    """
    from lattice_cli.render import documents, lines, tables
    from lattice_cli.render.console import data_console

    options = resolve(ctx)
    with options.client() as client:
        found = client.access.status()
    document = {
        "enabled": found.enabled,
        "user": found.user,
        "roles": list(found.roles),
        "users": found.users,
        "has_admin": found.has_admin,
    }
    if options.output == "json":
        documents.print_document(document)
        return
    fields = [
        ("enabled", "yes" if found.enabled else "no"),
        ("user", found.user or "none"),
        ("roles", ", ".join(found.roles) or "none"),
        ("users", str(found.users)),
        ("has_admin", "yes" if found.has_admin else "no"),
    ]
    if options.output == "table":
        data_console(no_color=options.no_color).print(tables.fields(fields))
    else:
        for field in fields:
            lines.record(*field)


@access.command("enable")
@common_options
@click.pass_context
def access_enable(ctx: click.Context) -> None:
    """From now on every call needs a token. Needs an administrator's (--token-file), so that nobody is locked out.

    Example: lattice access enable --token-file admin.token
    """
    from lattice_cli.render.access import done

    options = resolve(ctx)
    with options.client() as client:
        client.access.enable()
    done(options, {"enabled": True}, "access control is enabled")


@access.command("disable")
@common_options
@click.pass_context
def access_disable(ctx: click.Context) -> None:
    """Everybody may do everything again; users, roles and tokens stay.

    Example: lattice access disable --token-file admin.token
    """
    from lattice_cli.render.access import done

    options = resolve(ctx)
    with options.client() as client:
        client.access.disable()
    done(options, {"enabled": False}, "access control is disabled: everybody may do everything")


@access.command("rescue")
@click.argument("data_dir", type=click.Path(path_type=Path, file_okay=False))
@out_option
@common_options
@click.pass_context
def access_rescue(ctx: click.Context, data_dir: Path, out: Path | None) -> None:
    """No administrator's secret is left: make a token that the member with this DATA_DIR takes for an hour.

    Run it on that member's machine, as somebody who may write there, while the member runs. Only the leader makes
    changes, so let it be the leader's; with the token, lattice cluster status says who leads. Then, with --token-file:
    lattice token create NAME, lattice user passwd NAME, or lattice access disable

    Example: lattice access rescue ./lattice-data --out rescue.token
    """
    from lattice_cli.render import documents
    from lattice_core.tokens import RESCUE_FILE, RESCUE_ID, RESCUE_SECONDS, token_named

    options = resolve(ctx)
    if not (data_dir / "identity").is_file():
        raise ConfigurationError(f"access rescue: {data_dir} is no data directory", hint="lattice config show")
    fresh = token_named(RESCUE_ID)
    path = data_dir / RESCUE_FILE
    write_secret(path, fresh.digest.hex())
    owner = data_dir.stat()
    if os.geteuid() == 0:
        os.chown(path, owner.st_uid, owner.st_gid)  # the node has to be able to read it
    if out is not None:
        write_secret(out, fresh.text)
    until = time.strftime("%H:%M:%S", time.localtime(time.time() + RESCUE_SECONDS))
    if options.output == "json":
        secret = {"token": fresh.text} if out is None else {"file": str(out)}
        documents.print_document({"data_dir": str(data_dir), "expires_in_seconds": RESCUE_SECONDS, **secret})
        return
    if out is None:
        click.echo(fresh.text)
    click.echo(
        f"good until {until}, at this member alone; end it earlier by removing {path}. "
        "next: lattice access status --token-file FILE --endpoints H:P",
        err=True,
    )
