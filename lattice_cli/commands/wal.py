"""``lattice wal``: look into a data directory's log, changing nothing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lattice_cli.declare import group
from lattice_cli.errors import Negative
from lattice_cli.options import common_options, resolve
from lattice_core.errors import InvalidRequest, StorageFailed

if TYPE_CHECKING:
    from lattice_cli.render.storage import RecordShown, SegmentShown
    from lattice_core.storage.inspect import Finding, RecordFound


@group()
@common_options
def wal() -> None:
    """The write-ahead log in a data directory.

    Example: lattice wal inspect ./lattice-data
    """


@wal.command("inspect")
@click.argument("data_dir", type=click.Path(path_type=Path))
@click.option("--records", is_flag=True, help="List every record, not only the segments.")
@common_options
@click.pass_context
def inspect(ctx: click.Context, data_dir: Path, records: bool) -> None:
    """What is in the log of DATA_DIR: segments, records, terms, indices, commands, and where it is damaged.

    Reads only: it takes no lock and repairs nothing, so it may run beside a living node (what that writes
    just then may look like a torn tail). Damage exits with 1; a torn tail, which the next start cuts, does not.

    Examples: lattice wal inspect ./lattice-data    lattice wal inspect ./lattice-data --records -o json
    """
    from lattice_cli.render import storage

    options = resolve(ctx)
    directory = _log_directory(data_dir)
    try:
        if options.output == "json":
            segments = storage.stream_log_document(str(data_dir), _read(directory))
        elif records:
            segments = storage.record_lines(_read(directory))
        elif options.output == "table":
            segments = storage.segments_table(_read(directory), no_color=options.no_color)
        else:
            segments = storage.segment_lines(_read(directory))
    except (FileNotFoundError, StorageFailed) as error:
        raise _unreadable(directory, str(error)) from None
    for segment in segments:
        for each in segment.damage:
            if not each.torn:
                raise Negative(
                    f"{segment.path} is damaged at offset {each.offset}: {each.reason}",
                    hint=f"lattice wal inspect {data_dir} --records",
                )


def _log_directory(data_dir: Path) -> str:
    """Where the segments are: DATA_DIR/wal, or DATA_DIR itself."""
    from lattice_core.storage.segments import sequence_of

    try:
        for directory in (data_dir / "wal", data_dir):
            if directory.is_dir() and any(sequence_of(path.name) is not None for path in directory.iterdir()):
                return str(directory)
    except OSError as error:
        raise _unreadable(data_dir, error.strerror or str(error)) from None
    if not data_dir.exists():
        raise _unreadable(data_dir, "it does not exist")
    raise _unreadable(data_dir, "there is no log of Lattice in it")


def _unreadable(path: Path | str, reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"wal inspect: {path}: {reason}", hint="lattice wal inspect DATA_DIR, as given to lattice start"
    )


def _read(directory: str) -> Iterator[SegmentShown]:
    """The segments in order, each with its records still to be read: exhaust them before asking for the next."""
    from lattice_core.storage.filesystem import RealFileSystem
    from lattice_core.storage.inspect import inspect_log

    for _, findings in groupby(inspect_log(RealFileSystem(), directory), key=lambda finding: finding.path):
        yield _segment(findings)


def _segment(findings: Iterator[Finding]) -> SegmentShown:
    from lattice_cli.render.storage import SegmentShown
    from lattice_core.storage.inspect import SegmentFound

    first = next(findings)
    assert isinstance(first, SegmentFound)
    segment = SegmentShown(first.path, first.size_bytes, None if first.header is None else first.header.sequence)
    segment.records = _records(segment, findings)
    return segment


def _records(segment: SegmentShown, findings: Iterator[Finding]) -> Iterator[RecordShown]:
    """The records of a segment, which learns what there is to say of it on the way."""
    from lattice_cli.render.storage import DamageShown
    from lattice_core.storage.inspect import DamageFound, RecordFound, SegmentEnd

    for finding in findings:
        if isinstance(finding, RecordFound):
            record = _shown(finding)
            segment.count(record)
            yield record
        elif isinstance(finding, DamageFound):
            segment.damage.append(DamageShown(finding.offset, finding.reason, finding.torn))
        elif isinstance(finding, SegmentEnd):
            segment.used, segment.frames = finding.offset, finding.frames


def _shown(found: RecordFound) -> RecordShown:
    from lattice_cli.render.storage import RecordShown, command_text, configuration_text
    from lattice_cli.render.text import hex_id
    from lattice_core.raft.types import Entry, HardState
    from lattice_core.storage.records import CommitHint, Sealed, SnapshotMark, Truncation

    record = found.record
    kind, index, term, detail = "", None, None, ""
    if isinstance(record, Entry):
        index, term = record.index, record.term
        if record.payload is None:
            kind = "noop"
        elif isinstance(record.payload, bytes):
            kind, detail = "command", command_text(record.payload)
        else:
            kind, detail = "configuration", configuration_text(record.payload)
    elif isinstance(record, HardState):
        voted = "nobody" if record.voted_for is None else hex_id(record.voted_for)
        kind, detail = "hard-state", f"term {record.term}, voted for {voted}"
    elif isinstance(record, Truncation):
        kind, detail = "truncation", f"from {record.from_index}, after term {record.previous_term}"
    elif isinstance(record, CommitHint):
        kind, detail = "commit-hint", f"committed through {record.index}"
    elif isinstance(record, SnapshotMark):
        meta = record.meta
        kind = "snapshot"
        detail = f"through {meta.last_included_index} of term {meta.last_included_term}"
        detail += ", restarts the log" if record.restarts_log else ""
        detail += f", {configuration_text(meta.configuration)}"
    elif isinstance(record, Sealed):
        kind, detail = "sealed", f"segment {record.next_sequence} follows"
    return RecordShown(found.offset, found.size_bytes, found.frame, kind, index, term, detail)
