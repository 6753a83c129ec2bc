"""``lattice delete``: delete a key, or all keys with a prefix."""

from __future__ import annotations

import click

from lattice_cli.declare import command
from lattice_cli.errors import Negative
from lattice_cli.options import as_bytes, common_options, completed_by, confirm, resolve
from lattice_cli.render.text import plural, printable


@command()
@click.argument("key", shell_complete=completed_by("keys"))
@click.option("--prefix", is_flag=True, help="Every key that begins with KEY, as one operation.")
@click.option("--yes", is_flag=True, help="Do not ask. With --prefix a terminal is asked first.")
@common_options
@click.pass_context
def delete(ctx: click.Context, key: str, prefix: bool, yes: bool) -> None:
    """Delete KEY and print how many keys were deleted. Exits with 1 if there was no such key.

    With --prefix, deleting nothing is fine; the empty prefix is everything.

    Examples: lattice delete colour    lattice delete jobs/ --prefix --yes
    """
    options = resolve(ctx)
    from lattice_cli.render import documents, lines

    name = as_bytes(key)
    if prefix:
        which = f"that begins with {printable(name)}" if name else "there is"
        confirm(f"This deletes every key {which}.", yes=yes)
    with options.telling_client() as client:
        result = client.delete_range(prefix=name) if prefix else client.delete(name)
    if options.output == "json":
        documents.print_document({"deleted": result.deleted, "revision": result.revision})
    elif options.output == "table":
        lines.record(f"{plural(result.deleted, 'key')} deleted, revision {result.revision}")
    else:
        lines.record(result.deleted)
    if not result.deleted and not prefix:
        raise Negative(f"delete {printable(name)}: not found", hint="lattice get --prefix ''")
