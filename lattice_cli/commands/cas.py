"""``lattice cas``: compare and swap."""

from __future__ import annotations

import click

from lattice_cli.declare import command
from lattice_cli.errors import Negative
from lattice_cli.options import as_bytes, common_options, completed_by, resolve, value_argument
from lattice_cli.render.text import printable


@command()
@click.argument("key", shell_complete=completed_by("keys"))
@click.argument("expected")
@click.argument("new")
@common_options
@click.pass_context
def cas(ctx: click.Context, key: str, expected: str, new: str) -> None:
    """Replace the value of KEY by NEW if it is EXPECTED; exits with 1 if it is not. NEW "-" is standard input.

    For "if there is no such key", see: lattice put --if-absent

    Example: lattice cas colour blue green
    """
    options = resolve(ctx)
    from lattice_cli.render import documents, lines
    from lattice_core.kv.commands import MAX_VALUE_BYTES

    name, value = as_bytes(key), value_argument(new, MAX_VALUE_BYTES)
    with options.telling_client() as client:
        result = client.cas(name, as_bytes(expected), value)
    if options.output == "json":
        documents.print_document({"swapped": result.swapped, "revision": result.revision})
    elif options.output == "table":
        lines.record(f"{'swapped' if result else 'not swapped'}, revision {result.revision}")
    else:
        lines.record(result.swapped)
    if not result:
        raise Negative(
            f"cas {printable(name)}: the value is not the one expected", hint=f"lattice get {printable(name)}"
        )
