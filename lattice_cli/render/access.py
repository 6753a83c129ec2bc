"""Users, roles and tokens, as tables, lines and documents. Secrets are shown once, by whoever made them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lattice_cli.render import documents, lines
from lattice_cli.render.text import json_bytes, printable

if TYPE_CHECKING:
    from rich.table import Table

    from lattice_cli.options import Globals
    from lattice_core.client.access import AccessInfo, NewToken

BUILT_IN = "admin"


def done(options: Globals, document: dict[str, Any], text: str) -> None:
    """A change was made: nothing for other programs, who have the exit code."""
    if options.output == "json":
        documents.print_document(document)
    elif options.output == "table":
        click.echo(text)


def new_token(options: Globals, fresh: NewToken, file: str | None) -> None:
    """The secret on standard output, unless it went to a file; everything else beside it."""
    if options.output == "json":
        document: dict[str, Any] = {"id": fresh.id, "user": fresh.user, "expires_in_seconds": fresh.expires_in_seconds}
        documents.print_document({**document, "token": fresh.token} if file is None else {**document, "file": file})
        return
    if file is None:
        click.echo(fresh.token)
    life = "never expires" if fresh.expires_in_seconds is None else f"expires in {duration(fresh.expires_in_seconds)}"
    where = "it is not shown again; use it with --token-file" if file is None else f"use it with --token-file {file}"
    click.echo(f"token {fresh.id} of {fresh.user}, {life}: {where}", err=True)


def users(options: Globals, info: AccessInfo) -> None:
    if options.output == "json":
        shown = [
            {"name": each.name, "roles": list(each.roles), "has_password": each.has_password, "tokens": each.tokens}
            for each in info.users
        ]
        documents.print_document({"users": shown})
    elif options.output == "raw":
        for each in info.users:
            lines.record(each.name, ",".join(each.roles), each.has_password, each.tokens)
    else:
        table = _table(("NAME", "<"), ("ROLES", "<"), ("PASSWORD", "<"), ("TOKENS", ">"))
        for each in info.users:
            table.add_row(
                each.name, ", ".join(each.roles) or "none", "yes" if each.has_password else "no", str(each.tokens)
            )
        _print(options, table)


def roles(options: Globals, info: AccessInfo) -> None:
    if options.output == "json":
        shown: list[dict[str, Any]] = [
            {
                "name": each.name,
                "grants": [{"level": grant.level, "prefix": json_bytes(grant.prefix)} for grant in each.grants],
            }
            for each in info.roles
        ]
        documents.print_document({"roles": [{"name": BUILT_IN, "everything": True}, *shown]})
    elif options.output == "raw":
        lines.record(BUILT_IN, "everything", None)
        for each in info.roles:
            for grant in each.grants:
                lines.write(each.name, grant.level, printable(grant.prefix))
            if not each.grants:
                lines.record(each.name, None, None)
    else:
        table = _table(("ROLE", "<"), ("LEVEL", "<"), ("PREFIX", "<"))
        table.add_row(BUILT_IN, "everything", "built in")
        for each in info.roles:
            for number, grant in enumerate(each.grants):
                table.add_row("" if number else each.name, grant.level, printable(grant.prefix) or "(all keys)")
            if not each.grants:
                table.add_row(each.name, "nothing", "")
        _print(options, table)


def tokens(options: Globals, info: AccessInfo) -> None:
    if options.output == "json":
        shown = [
            {
                "id": each.id,
                "user": each.user,
                "kind": "login" if each.from_login else "token",
                "expires_in_seconds": each.expires_in_seconds,
            }
            for each in info.tokens
        ]
        documents.print_document({"tokens": shown})
    elif options.output == "raw":
        for each in info.tokens:
            lines.record(each.id, each.user, "login" if each.from_login else "token", each.expires_in_seconds)
    else:
        table = _table(("ID", "<"), ("USER", "<"), ("KIND", "<"), ("EXPIRES IN", "<"))
        for each in info.tokens:
            table.add_row(
                each.id, each.user, "login" if each.from_login else "token", duration(each.expires_in_seconds)
            )
        _print(options, table)


def duration(seconds: float | None) -> str:
    """About how long, in the largest unit that fits."""
    if seconds is None:
        return "never"
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s" if seconds > 0 else "expired"


def _table(*headings: tuple[str, str]) -> Table:
    from lattice_cli.render.tables import new_table

    return new_table(*headings)


def _print(options: Globals, table: Table) -> None:
    from lattice_cli.render.console import data_console

    data_console(no_color=options.no_color).print(table)
