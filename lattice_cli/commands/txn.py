"""``lattice txn``: compare, then do one of two lists of operations, all at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lattice_cli.declare import command
from lattice_cli.errors import Negative
from lattice_cli.options import Globals, common_options, resolve

if TYPE_CHECKING:
    from lattice_cli.txn_file import Operation, Transaction
    from lattice_core.client import TxnResult


@command()
@click.option(
    "-f",
    "--file",
    "path",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="The transaction. [default: standard input, also as -]",
)
@common_options
@click.pass_context
def txn(ctx: click.Context, path: Path | None) -> None:
    """Do all of the operations under "then:" if every comparison under "when:" holds, else all of those under
    "else:": atomically, as one revision, each seeing what those before it did. Any section may be left out.

    \b
      when:
        value(stock/apples) = 5         also mod(KEY), create(KEY), version(KEY)
        version(jobs/1) < 3             = != < >
        absent(orders/7)                or exists(KEY); absent(--prefix orders/)
      then:
        put stock/apples 4
        put orders/7 "one apple"        quoted as in a shell; base64:AAEC
        delete --prefix carts/7/        or --range-end END
        get --prefix orders/ --limit 5  also --reverse, --keys-only, --count-only
      else:                             # a comment
        get stock/apples

    Examples: lattice txn -f moves.txn    lattice txn < moves.txn

    Exits with 1 if a comparison did not hold; what is under "else:" has been done then. No key may be written twice.

    With -o json: {"succeeded","revision","results":[...],"failed"}, a result for each operation done, in order:
    {"op":"put","key","revision"}, {"op":"delete","key","deleted"}, {"op":"get","key","kv"} with null for no such key;
    ranges have "prefix", or "key" and "range_end", and for get {"kvs","more","count"}. "failed" is there if a
    comparison did not hold: {"line","comparison"}. Other programs get a line each: true or false and the
    revision; then "put", "delete" or "get", the key, and revision, number or value.
    """
    options = resolve(ctx)
    data, name = _read(path)
    from lattice_cli.txn_file import parse

    transaction = parse(data, name)
    with options.telling_client() as client:
        result = client.txn(
            when=[each.comparison for each in transaction.when],
            then=[each.op for each in transaction.then],
            otherwise=[each.op for each in transaction.otherwise],
        )
    _show(options, transaction, result)
    if result.failed is not None:
        condition = transaction.when[result.failed]
        done = "; what is under else: was done" if transaction.otherwise else ""
        raise Negative(
            f"txn: {name}, line {condition.line} does not hold: {condition.text}{done}",
            hint="lattice get KEY, to see what is there",
        )


def _read(path: Path | None) -> tuple[bytes, str]:
    """The transaction's text, and what to call it."""
    from lattice_cli.txn_file import MAX_FILE_BYTES
    from lattice_core.errors import InvalidRequest, TooLarge

    if path is None or str(path) == "-":
        name = "standard input"
        data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    else:
        name = str(path)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise InvalidRequest(f"txn: cannot read {name}: {error.strerror}", hint="lattice txn -f FILE") from None
    if len(data) > MAX_FILE_BYTES:
        raise TooLarge(
            f"txn: {name} has more than {MAX_FILE_BYTES} bytes",
            limit=MAX_FILE_BYTES,
            actual=len(data),
            hint="split it into several transactions",
        )
    return data, name


def _show(options: Globals, transaction: Transaction, result: TxnResult) -> None:
    done = transaction.then if result.succeeded else transaction.otherwise
    if options.output == "json":
        from lattice_cli.render import documents, transactions

        document = transactions.document(done, result)
        if result.failed is not None:
            failed = transaction.when[result.failed]
            document["failed"] = {"line": failed.line, "comparison": failed.text}
        documents.print_document(document)
    elif options.output == "raw":
        from lattice_cli.render import transactions

        transactions.write_lines(done, result)
    else:
        _show_table(options, done, result)


def _show_table(options: Globals, done: list[Operation], result: TxnResult) -> None:
    from lattice_cli.render import lines, tables, transactions
    from lattice_cli.render.console import data_console

    lines.record(f"{'succeeded' if result else 'a comparison did not hold'}, revision {result.revision}")
    if done:
        rows: Any = transactions.table(done, result)
        tables.show(data_console(no_color=options.no_color), rows)
