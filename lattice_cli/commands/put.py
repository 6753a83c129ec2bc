"""``lattice put``: store a value, always or on a condition."""

from __future__ import annotations

import click

from lattice_cli.declare import command
from lattice_cli.errors import Negative
from lattice_cli.options import as_bytes, common_options, completed_by, resolve, value_argument
from lattice_cli.render.text import printable


@command()
@click.argument("key", shell_complete=completed_by("keys"))
@click.argument("value")
@click.option(
    "--if-revision",
    type=click.IntRange(min=0),
    metavar="N",
    help="Only if the key was last changed at revision N (0: if there is no such key).",
)
@click.option("--if-absent", is_flag=True, help="Only if there is no such key.")
@click.option("--explain", is_flag=True, help="Say on stderr where the time went, by the leader's own account.")
@common_options
@click.pass_context
def put(ctx: click.Context, key: str, value: str, if_revision: int | None, if_absent: bool, explain: bool) -> None:
    """Store VALUE under KEY and print the new revision. With VALUE "-", standard input is stored as it is.

    Begin with "--" if the value starts with a dash: lattice put -- KEY -5

    Examples: lattice put colour blue    lattice put lock me --if-absent    lattice put photo - < photo.jpg
    """
    options = resolve(ctx)
    from lattice_cli.render import documents, lines
    from lattice_core.kv.commands import MAX_VALUE_BYTES

    if if_absent and if_revision is not None:
        raise click.UsageError("--if-absent and --if-revision exclude each other", ctx=ctx)
    name, data = as_bytes(key), value_argument(value, MAX_VALUE_BYTES)
    stored, explained = True, None
    with options.telling_client() as client:
        if explain:
            result, explained = client.put_explained(name, data, if_revision=0 if if_absent else if_revision)
            stored, revision = result.stored, result.revision
        elif if_absent or if_revision is not None:
            result = client.put(name, data, if_revision=if_revision or 0)
            stored, revision = result.stored, result.revision
        else:
            revision = client.put(name, data)
    if options.output == "json":
        document = documents.put_document(name, revision, stored)
        if explained is not None:
            from lattice_cli.render import explain as view

            document["explain"] = view.document(explained)
        documents.print_document(document)
    elif stored:
        lines.record(f"revision {revision}" if options.output == "table" else revision)
    if explained is not None and options.output != "json":
        from lattice_cli.render import explain as view

        view.show(explained, no_color=options.no_color)
    if not stored:
        key_is = f"is at revision {revision}" if revision else "does not exist"
        wanted = f"not {if_revision}" if if_revision else "and must not exist"
        raise Negative(
            f"put {printable(name)}: the key {key_is}" + (f", {wanted}" if revision else ""),
            hint=f"lattice get {printable(name)}",
        )
