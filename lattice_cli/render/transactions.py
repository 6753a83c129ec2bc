"""What a transaction has done: as a document, as lines, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lattice_cli.render import lines
from lattice_cli.render.documents import key_value_document
from lattice_cli.render.text import json_bytes, plural, printable
from lattice_core.client import DeleteResult, KeyValue, RangeResult, TxnResult

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lattice_cli.txn_file import Operation


def document(done: Sequence[Operation], result: TxnResult) -> dict[str, Any]:
    """{"succeeded", "revision", "results"}: see lattice txn --help."""
    results = [_result(each, found) for each, found in zip(done, result.results, strict=True)]
    return {"succeeded": result.succeeded, "revision": result.revision, "results": results}


def _result(operation: Operation, found: Any) -> dict[str, Any]:
    target = operation.target
    shown: dict[str, Any] = {"op": operation.name, "prefix" if target.prefix else "key": json_bytes(target.key)}
    if target.range_end is not None:
        shown["range_end"] = json_bytes(target.range_end)
    if isinstance(found, DeleteResult):
        shown["deleted"] = found.deleted
    elif isinstance(found, RangeResult):
        shown["kvs"] = [key_value_document(kv, keys_only=operation.keys_only) for kv in found.kvs]
        shown["more"], shown["count"] = found.more, found.count
    elif operation.name == "put":
        shown["revision"] = found
    else:
        shown["kv"] = None if found is None else key_value_document(found)
    return shown


def write_lines(done: Sequence[Operation], result: TxnResult) -> None:
    """A line for the whole, one for each operation, and one for each key that a range has found."""
    lines.record(result.succeeded, result.revision)
    for operation, found in zip(done, result.results, strict=True):
        name, key = operation.name, printable(operation.target.key)
        if isinstance(found, DeleteResult):
            lines.write(name, key, str(found.deleted))
        elif isinstance(found, RangeResult):
            if operation.count_only:
                lines.write(name, key, str(found.count))
            for kv in found.kvs:
                lines.write(name, printable(kv.key), *(() if operation.keys_only else (printable(kv.value),)))
        elif isinstance(found, KeyValue):
            lines.write(name, key, printable(found.value))
        elif found is None:
            lines.write(name, key)  # no third field: there is no such key
        else:
            lines.write(name, key, str(found))


def table(done: Sequence[Operation], result: TxnResult) -> RenderableType:
    from lattice_cli.render.tables import new_table

    made = new_table(("OPERATION", "<"), ("KEY", "<"), ("RESULT", "<"), ("REVISION", ">"))
    for operation, found in zip(done, result.results, strict=True):
        for row in _rows(operation, found):
            made.add_row(operation.name, *row)
    return made


def _rows(operation: Operation, found: Any) -> Iterator[tuple[str, str, str]]:
    target = str(operation.target)
    if isinstance(found, DeleteResult):
        yield target, f"{plural(found.deleted, 'key')} deleted", ""
    elif isinstance(found, KeyValue):
        yield target, printable(found.value), str(found.mod_revision)
    elif isinstance(found, RangeResult):
        for kv in found.kvs:
            yield printable(kv.key), "" if operation.keys_only else printable(kv.value), str(kv.mod_revision)
        if found.more or not found.kvs:
            yield target, f"{plural(found.count, 'key')} in all", ""
    elif operation.name == "put":
        yield target, "stored", str(found)
    else:
        yield target, "not found", ""
