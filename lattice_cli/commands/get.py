"""``lattice get``: read a key, or all keys with a prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import rich_click

from lattice_cli.errors import Negative
from lattice_cli.options import Globals, as_bytes, checked_key, common_options, resolve
from lattice_cli.render.text import printable

if TYPE_CHECKING:
    from lattice_core.client import Client, Consistency, KeyValue

PAGE_KEYS = 1000
"""Asked for at once when everything with a prefix is wanted: a page of small values is well below a message."""


@rich_click.command()
@click.argument("key")
@click.option("--prefix", is_flag=True, help="Every key that begins with KEY ('' for all), in order.")
@click.option("--revision", type=click.IntRange(min=1), metavar="N", help="As it was at revision N.")
@click.option(
    "--consistency",
    type=click.Choice(["linearizable", "lease", "stale"]),
    default="linearizable",
    show_default=True,
    help="lease: one round trip less, as long as clocks keep time. stale: any member, maybe old.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="With --prefix: at most N keys.")
@common_options
@click.pass_context
def get(
    ctx: click.Context,
    key: str,
    prefix: bool,
    revision: int | None,
    consistency: Consistency,
    limit: int | None,
) -> None:
    """Print the value of KEY: a table on a terminal, else its bytes exactly, without a newline added.

    Exits with 1 if there is no such key. With --prefix, other programs get KEY, a tab and the value, a line each;
    use -o json for values with tabs or newlines in them.
    """
    options = resolve(ctx)
    if limit is not None and not prefix:
        raise click.UsageError("--limit goes with --prefix", ctx=ctx)
    name = as_bytes(key)
    with options.client() as client:
        if prefix:
            kvs, at = _all_with_prefix(client, name, revision, limit, consistency)
        else:
            # The first key with this prefix is the key itself, if there is such a key. A range rather than a
            # get, because its answer also names the store's revision.
            checked_key("get", name)
            found = client.range(prefix=name, limit=1, revision=revision, consistency=consistency)
            kvs, at = [kv for kv in found.kvs if kv.key == name], found.revision
    _print(options, kvs, at, prefix)
    if not kvs and not prefix:
        when = f" at revision {revision}" if revision else ""
        raise Negative(f"get {printable(name)}: not found{when}", hint="lattice get --prefix ''")


def _all_with_prefix(
    client: Client, prefix: bytes, revision: int | None, limit: int | None, consistency: Consistency
) -> tuple[list[KeyValue], int]:
    """Page by page, all of it at the revision of the first page."""
    from lattice_core.kv.commands import prefix_range

    start, end = prefix_range(prefix)
    kvs: list[KeyValue] = []
    first_revision: int | None = None
    while True:
        page = client.range(
            start=start,
            end=end or None,
            limit=PAGE_KEYS if limit is None else min(PAGE_KEYS, limit - len(kvs)),
            revision=revision,
            consistency=consistency,
        )
        kvs += page.kvs
        if first_revision is None:
            first_revision = page.revision
            revision = revision or page.revision or None
        if not page.more or not page.kvs or len(kvs) == limit:
            return kvs, first_revision
        start = page.kvs[-1].key + b"\0"


def _print(options: Globals, kvs: list[KeyValue], revision: int, prefix: bool) -> None:
    if options.output == "json":
        from lattice_cli.render import documents

        documents.print_document(documents.get_document(kvs, revision))
    elif not kvs:
        return
    elif options.output == "table":
        from lattice_cli.render import tables
        from lattice_cli.render.console import data_console

        tables.show(data_console(no_color=options.no_color), tables.key_values(kvs))
    else:
        from lattice_cli.render.console import write_bytes

        write_bytes(b"".join(kv.key + b"\t" + kv.value + b"\n" for kv in kvs) if prefix else kvs[0].value)
