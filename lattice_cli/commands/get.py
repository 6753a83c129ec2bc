"""``lattice get``: read a key, or all keys of a range."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import click

from lattice_cli.declare import command, option_panel
from lattice_cli.errors import Negative
from lattice_cli.options import Globals, Number, as_bytes, checked_key, common_options, completed_by, resolve
from lattice_cli.render.text import printable

if TYPE_CHECKING:
    from lattice_core.client import Client, Consistency, KeyValue, RangeResult


class _Wanted(NamedTuple):
    """What is to be read, and how fresh it must be."""

    start: bytes
    end: bytes
    limit: int | None
    reverse: bool
    keys_only: bool
    count_only: bool
    revision: int | None
    consistency: Consistency
    max_stale: float | None


@command()
@click.argument("key", shell_complete=completed_by("keys"))
@click.option("--prefix", is_flag=True, help="Every key that begins with KEY ('' for all), in order.")
@click.option(
    "--range-end", metavar="END", help="Every key from KEY up to END, without END ('': to the last), in order."
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Of a range: at most N keys.")
@click.option("--reverse", is_flag=True, help="Of a range: from its end.")
@click.option("--keys-only", is_flag=True, help="Of a range: the keys without their values.")
@click.option("--count-only", is_flag=True, help="Of a range: only how many keys there are.")
@click.option("--revision", type=click.IntRange(min=1), metavar="N", help="As it was at revision N.")
@click.option(
    "--consistency",
    type=click.Choice(["linearizable", "lease", "stale"]),
    default="linearizable",
    show_default=True,
    help="lease: one round trip less, as long as clocks keep time. stale: any member, maybe old.",
)
@click.option(
    "--max-stale",
    type=Number(min=0),
    metavar="SECONDS",
    help="With --consistency stale: no older than this, or another member is asked.",
)
@click.option("--explain", is_flag=True, help="Of one key: say on stderr where the time went, by the member's account.")
@common_options
@option_panel("Ranges", options=[
    "--prefix", "--range-end", "--limit", "--reverse", "--keys-only", "--count-only",
])  # fmt: skip
@click.pass_context
def get(
    ctx: click.Context,
    key: str,
    prefix: bool,
    range_end: str | None,
    limit: int | None,
    reverse: bool,
    keys_only: bool,
    count_only: bool,
    revision: int | None,
    consistency: Consistency,
    max_stale: float | None,
    explain: bool,
) -> None:
    """Print the value of KEY: a table on a terminal, else its bytes exactly, without a newline added.

    Exits with 1 if there is no such key. Of a range (--prefix, --range-end) other programs get KEY, a tab and the
    value, a line each; use -o json for values with tabs or newlines in them, {"revision","kvs":[...],"more","count"}.
    A range of any size is read at one revision. Exits with 1 too if that revision is no longer kept.

    Examples: lattice get colour    lattice get jobs/ --prefix --keys-only --limit 20    lattice get colour --revision 7
    """
    options = resolve(ctx)
    is_range = prefix or range_end is not None
    _check_usage(ctx, prefix, range_end, consistency, max_stale)
    for name, given in (("limit", limit), ("reverse", reverse), ("keys-only", keys_only), ("count-only", count_only)):
        if given and not is_range:
            raise click.UsageError(f"--{name} goes with --prefix or --range-end", ctx=ctx)
        if given and count_only and name != "count-only":
            raise click.UsageError(f"--count-only and --{name} exclude each other", ctx=ctx)
    if explain and is_range:
        raise click.UsageError("--explain is for one key: not with --prefix or --range-end", ctx=ctx)
    name_ = as_bytes(key)
    start, end = _bounds(name_, prefix, None if range_end is None else as_bytes(range_end))
    wanted = _Wanted(start, end, limit, reverse, keys_only, count_only, revision, consistency, max_stale)
    with options.telling_client() as client:
        if is_range:
            _show_range(options, wanted, _pages(client, wanted))
        else:
            _show_one(options, wanted, client, explain=explain)


def _check_usage(
    ctx: click.Context, prefix: bool, range_end: str | None, consistency: str, max_stale: float | None
) -> None:
    if prefix and range_end is not None:
        raise click.UsageError("--prefix and --range-end exclude each other", ctx=ctx)
    if max_stale is not None and consistency != "stale":
        raise click.UsageError("--max-stale goes with --consistency stale", ctx=ctx)


def _bounds(key: bytes, prefix: bool, range_end: bytes | None) -> tuple[bytes, bytes]:
    from lattice_core.errors import InvalidRequest
    from lattice_core.kv.commands import prefix_range

    if range_end is None:
        if not prefix:
            checked_key("get", key)
        return prefix_range(key)
    if range_end and range_end <= key:
        raise InvalidRequest(
            f"get: the end {printable(range_end)} is not after {printable(key)}", hint="lattice get KEY --range-end END"
        )
    return key, range_end


def _pages(client: Client, wanted: _Wanted) -> Iterator[RangeResult]:
    """Page by page, all of it at the revision of the first."""
    from lattice_core.client.pages import PAGE_KEYS, Pages

    pages = Pages((wanted.start, wanted.end), wanted.limit, wanted.revision, wanted.reverse, PAGE_KEYS)
    while (page := pages.next_page()) is not None:
        found = client.range(
            **page,
            keys_only=wanted.keys_only,
            count_only=wanted.count_only,
            reverse=wanted.reverse,
            consistency=wanted.consistency,
            max_stale=wanted.max_stale,
        )
        pages.took(found)
        yield found


def _show_one(options: Globals, wanted: _Wanted, client: Client, *, explain: bool) -> None:
    explained = None
    if explain:
        kv, revision, explained = client.get_explained(
            wanted.start, revision=wanted.revision, consistency=wanted.consistency, max_stale=wanted.max_stale
        )
        kvs = [] if kv is None else [kv]
    else:
        # The first key with this prefix is the key itself, if there is such a key. A range rather than a get, because
        # its answer also names the store's revision.
        found = next(_pages(client, wanted._replace(limit=1)))
        kvs, revision = [kv for kv in found.kvs if kv.key == wanted.start], found.revision
    if options.output == "json":
        from lattice_cli.render import documents

        document = documents.get_document(kvs, revision)
        if explained is not None:
            from lattice_cli.render import explain as view

            document["explain"] = view.document(explained)
        documents.print_document(document)
    elif kvs and options.output == "table":
        _show_table(options, kvs, keys_only=False)
    elif kvs:
        from lattice_cli.render.console import write_bytes

        write_bytes(kvs[0].value)
    if explained is not None and options.output != "json":
        from lattice_cli.render import explain as view

        view.show(explained, no_color=options.no_color)
    if not kvs:
        when = f" at revision {wanted.revision}" if wanted.revision else ""
        raise Negative(f"get {printable(wanted.start)}: not found{when}", hint="lattice get --prefix ''")


def _show_range(options: Globals, wanted: _Wanted, pages: Iterator[RangeResult]) -> None:
    first = next(pages)
    if options.output == "raw":
        _write_range(wanted, first, pages)
        return
    kvs = [*first.kvs, *(kv for page in pages for kv in page.kvs)]
    if options.output == "json":
        from lattice_cli.render import documents

        more = not wanted.count_only and len(kvs) < first.count
        documents.print_document(
            documents.range_document(kvs, first.revision, more, first.count, keys_only=wanted.keys_only)
        )
    elif wanted.count_only:
        from lattice_cli.render import lines
        from lattice_cli.render.text import plural

        lines.record(plural(first.count, "key"))
    elif kvs:
        _show_table(options, kvs, keys_only=wanted.keys_only)


def _write_range(wanted: _Wanted, first: RangeResult, pages: Iterator[RangeResult]) -> None:
    """As it comes: a range may be larger than memory."""
    from lattice_cli.render import lines
    from lattice_cli.render.console import write_bytes

    if wanted.count_only:
        lines.record(first.count)
        return
    page: RangeResult | None = first
    while page is not None:
        if wanted.keys_only:
            write_bytes(b"".join(kv.key + b"\n" for kv in page.kvs))
        else:
            write_bytes(b"".join(kv.key + b"\t" + kv.value + b"\n" for kv in page.kvs))
        page = next(pages, None)


def _show_table(options: Globals, kvs: list[KeyValue], *, keys_only: bool) -> None:
    from lattice_cli.render import tables
    from lattice_cli.render.console import data_console

    tables.show(data_console(no_color=options.no_color), tables.key_values(kvs, keys_only=keys_only))
