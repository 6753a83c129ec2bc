"""What ``lattice snapshot`` and ``lattice wal`` show: files, segments, records."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lattice_cli.render import lines, tables
from lattice_cli.render.console import data_console
from lattice_cli.render.text import hex_id, plural, printable

if TYPE_CHECKING:
    from lattice_core.client import SnapshotTaken
    from lattice_core.raft.types import Configuration

SHOWN_OPS = 4
"""Of one batch in the summary of a record."""

SHOWN_KEY_CHARACTERS = 48


@dataclass(slots=True)
class RecordShown:
    """A record in words."""

    offset: int
    bytes: int
    frame: int
    kind: str
    index: int | None
    term: int | None
    detail: str


@dataclass(slots=True)
class DamageShown:
    offset: int
    reason: str
    torn: bool


@dataclass(slots=True)
class SegmentShown:
    """A segment with all that is in it."""

    path: str
    bytes: int
    sequence: int | None
    used: int = 0
    frames: int = 0
    records: list[RecordShown] = field(default_factory=list)
    damage: list[DamageShown] = field(default_factory=list)

    def span(self, of: str) -> tuple[int, int] | None:
        """The smallest and largest index or term among its entries."""
        numbers = [getattr(record, of) for record in self.records if record.index is not None]
        return (min(numbers), max(numbers)) if numbers else None

    @property
    def state(self) -> str:
        if not self.damage:
            return "whole"
        return "torn tail" if all(each.torn for each in self.damage) else "DAMAGED"


class ProgressLine:
    """Bytes that have come, on stderr, where that is a terminal."""

    def __init__(self) -> None:
        self._enabled = sys.stderr.isatty()
        self._last = 0.0

    def show(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._enabled and (now - self._last > 0.1 or done == total):
            self._last = now
            share = done / total if total else 1.0
            filled = int(30 * share)
            bar = "#" * filled + "." * (30 - filled)
            sys.stderr.write(f"\r\x1b[2K[{bar}] {share:4.0%}  {done / 2**20:,.1f} of {total / 2**20:,.1f} MiB")
            sys.stderr.flush()

    def clear(self) -> None:
        if self._enabled:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


def taken_document(taken: Iterable[SnapshotTaken]) -> dict[str, Any]:
    return {
        "snapshots": [
            {"member": each.member, "error": str(each.error)}
            if each.error is not None
            else {
                "member": each.member,
                "index": each.index,
                "term": each.term,
                "bytes": each.size_bytes,
                "milliseconds": round(each.milliseconds, 3),
                "path": each.path,
            }
            for each in taken
        ]
    }


def taken_table(taken: Iterable[SnapshotTaken], *, no_color: bool) -> None:
    table = tables.new_table(("", "<"), ("MEMBER", "<"), ("INDEX", ">"), ("BYTES", ">"), ("MILLISECONDS", ">"))
    for each in taken:
        if each.error is not None:
            table.add_row(
                "!", each.member, "-", "-", "unreachable" if not each.reachable else "failed", style="bold red"
            )
        else:
            table.add_row("", each.member, str(each.index), f"{each.size_bytes:,}", f"{each.milliseconds:.1f}")
    data_console(no_color=no_color).print(table)


def taken_lines(taken: Iterable[SnapshotTaken]) -> None:
    """member, index, bytes, milliseconds."""
    for each in taken:
        if each.error is None:
            lines.record(each.member, each.index, each.size_bytes, f"{each.milliseconds:.3f}")


def pairs(document: dict[str, Any], *, table: bool, no_color: bool) -> None:
    """A flat document: names and values, one pair a line."""
    shown = [(name, _flat(value)) for name, value in document.items()]
    if table:
        data_console(no_color=no_color).print(tables.fields(shown))
    else:
        for pair in shown:
            lines.record(*pair)


def _flat(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(f"{each['name']}={each['peer_addr']}{'' if each['voter'] else ' (learner)'}" for each in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def configuration_text(configuration: Configuration) -> str:
    """Names; both sets of voters where there are two."""

    def names(ids: frozenset[int]) -> str:
        known = {member.id: member.name for member in configuration.members}
        return ",".join(sorted(known.get(each, hex_id(each)) for each in ids)) or "none"

    text = f"voters {names(configuration.voters)}"
    if configuration.voters_outgoing:
        text += f" outgoing {names(configuration.voters_outgoing)}"
    if configuration.learners:
        text += f" learners {names(configuration.learners)}"
    return text


def command_text(payload: bytes) -> str:
    """What an entry asks of the state machine, in short."""
    from lattice_core.errors import LatticeError
    from lattice_core.kv.commands import decode_payload

    try:
        decoded = decode_payload(payload)
    except LatticeError as error:
        return f"{plural(len(payload), 'byte')} that cannot be decoded: {error.message}"
    return "; ".join(
        f"s{batch.session_id}#{batch.sequence} " + ("malformed" if batch.ops is None else _ops_text(batch.ops))
        for batch in decoded.batches
    )


def _ops_text(ops: tuple[tuple[Any, ...], ...]) -> str:
    text = ", ".join(_op_text(op) for op in ops[:SHOWN_OPS])
    return text if len(ops) <= SHOWN_OPS else f"{text}, and {len(ops) - SHOWN_OPS} more"


def _op_text(op: tuple[Any, ...]) -> str:
    from lattice_core.kv import commands as c

    names = {
        c.PUT: "put",
        c.PUT_IF_REVISION: "put-if-revision",
        c.DELETE: "delete",
        c.DELETE_RANGE: "delete-range",
        c.CAS: "cas",
        c.OPEN_SESSION: "open-session",
        c.CLOSE_SESSION: "close-session",
    }
    words = [names.get(op[0], f"op-{op[0]}")]
    if op[0] == c.CLOSE_SESSION:
        words.append(f"s{op[1]}")
    elif len(op) > 1 and isinstance(op[1], bytes):
        words.append(_short(op[1]))
    if op[0] in (c.PUT, c.PUT_IF_REVISION):
        words.append(f"({len(op[2])} B)")
    elif op[0] == c.DELETE_RANGE:
        words.append(f"..{_short(op[2])}")
    elif op[0] == c.CAS:
        words.append(f"({len(op[3])} B)")
    return " ".join(words)


def _short(key: bytes) -> str:
    text = printable(key)
    return text if len(text) <= SHOWN_KEY_CHARACTERS else text[:SHOWN_KEY_CHARACTERS] + "..."


def segments_table(segments: Iterable[SegmentShown], *, no_color: bool) -> None:
    """One row a segment, and below it where it is damaged."""
    console = data_console(no_color=no_color)
    table = tables.new_table(
        ("", "<"), ("SEGMENT", "<"), ("RECORDS", ">"), ("INDICES", ">"), ("TERMS", ">"), ("USED", ">"), ("STATE", "<")
    )
    notes: list[str] = []
    for segment in segments:
        style = {"whole": "", "torn tail": "yellow"}.get(segment.state, "bold red")
        mark = {"whole": "", "torn tail": "~"}.get(segment.state, "!")
        name = segment.path.rsplit("/", 1)[-1]
        table.add_row(
            mark,
            name,
            f"{len(segment.records):,}",
            _span(segment.span("index")),
            _span(segment.span("term")),
            f"{segment.used:,}",
            segment.state,
            style=style,
        )
        for each in segment.damage:
            notes.append(f"{'~' if each.torn else '!'} {name} at {each.offset}: {each.reason}")
    console.print(table)
    for note in notes:
        console.print(note, soft_wrap=True)


def _span(span: tuple[int, int] | None) -> str:
    if span is None:
        return "-"
    return str(span[0]) if span[0] == span[1] else f"{span[0]}-{span[1]}"


def segment_lines(segments: Iterable[SegmentShown]) -> None:
    """segment, name, records, first index, last index, used, state; damage, name, offset, torn, reason."""
    for segment in segments:
        name = segment.path.rsplit("/", 1)[-1]
        first, last = segment.span("index") or (None, None)
        lines.record("segment", name, len(segment.records), first, last, segment.used, segment.state)
        for each in segment.damage:
            lines.record("damage", name, each.offset, each.torn, each.reason)


def record_lines(segments: Iterable[SegmentShown]) -> None:
    """record, name, offset, kind, index, term, what it says; damage in its place."""
    for segment in segments:
        name = segment.path.rsplit("/", 1)[-1]
        for record in segment.records:
            lines.record("record", name, record.offset, record.kind, record.index, record.term, record.detail)
        for each in segment.damage:
            lines.record("damage", name, each.offset, each.torn, each.reason)
