"""What ``lattice snapshot`` and ``lattice wal`` show: files, segments, records."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
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
    """A segment. ``records`` come one by one, once, and are not kept; when they have all come, the rest is known."""

    path: str
    bytes: int
    sequence: int | None
    used: int = 0
    frames: int = 0
    record_count: int = 0
    indices: tuple[int, int] | None = None
    """The smallest and largest among its entries."""
    terms: tuple[int, int] | None = None
    damage: list[DamageShown] = field(default_factory=list)
    records: Iterator[RecordShown] = field(default_factory=lambda: iter(()))

    def count(self, record: RecordShown) -> None:
        self.record_count += 1
        if record.index is not None:
            assert record.term is not None
            self.indices = _widened(self.indices, record.index)
            self.terms = _widened(self.terms, record.term)

    def pass_over_records(self) -> None:
        for _ in self.records:
            pass

    @property
    def state(self) -> str:
        if not self.damage:
            return "whole"
        return "torn tail" if all(each.torn for each in self.damage) else "DAMAGED"


def _widened(span: tuple[int, int] | None, number: int) -> tuple[int, int]:
    return (number, number) if span is None else (min(span[0], number), max(span[1], number))


class ProgressLine:
    """How far something has come, on stderr, where that is a terminal."""

    def __init__(self) -> None:
        self._enabled = sys.stderr.isatty()
        self._last = 0.0

    def show(self, done: int, total: int) -> None:
        """Bytes."""
        self._draw(done, total, f"{done / 2**20:,.1f} of {total / 2**20:,.1f} MiB")

    def count(self, what: str, done: int, total: int) -> None:
        """Anything: what it is comes first."""
        self._draw(done, total, f"{done:,} of {total:,} {what}")

    def _draw(self, done: int, total: int, text: str) -> None:
        now = time.monotonic()
        if self._enabled and (now - self._last > 0.1 or done == total):
            self._last = now
            share = done / total if total else 1.0
            filled = int(30 * share)
            bar = "#" * filled + "." * (30 - filled)
            sys.stderr.write(f"\r\x1b[2K[{bar}] {share:4.0%}  {text}")
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
        c.ACCESS: "access",
        c.OPEN_SESSION_FOR: "open-session",
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


def segments_table(segments: Iterable[SegmentShown], *, no_color: bool) -> list[SegmentShown]:
    """One row a segment, and below it where it is damaged."""
    console = data_console(no_color=no_color)
    table = tables.new_table(
        ("", "<"), ("SEGMENT", "<"), ("RECORDS", ">"), ("INDICES", ">"), ("TERMS", ">"), ("USED", ">"), ("STATE", "<")
    )
    shown: list[SegmentShown] = []
    notes: list[str] = []
    for segment in segments:
        segment.pass_over_records()
        shown.append(segment)
        style = {"whole": "", "torn tail": "yellow"}.get(segment.state, "bold red")
        mark = {"whole": "", "torn tail": "~"}.get(segment.state, "!")
        name = segment.path.rsplit("/", 1)[-1]
        table.add_row(
            mark,
            name,
            f"{segment.record_count:,}",
            _span(segment.indices),
            _span(segment.terms),
            f"{segment.used:,}",
            segment.state,
            style=style,
        )
        for each in segment.damage:
            notes.append(f"{'~' if each.torn else '!'} {name} at {each.offset}: {each.reason}")
    console.print(table)
    for note in notes:
        console.print(note, soft_wrap=True)
    return shown


def _span(span: tuple[int, int] | None) -> str:
    if span is None:
        return "-"
    return str(span[0]) if span[0] == span[1] else f"{span[0]}-{span[1]}"


def segment_lines(segments: Iterable[SegmentShown]) -> list[SegmentShown]:
    """segment, name, records, first index, last index, used, state; damage, name, offset, torn, reason."""
    shown: list[SegmentShown] = []
    for segment in segments:
        segment.pass_over_records()
        shown.append(segment)
        name = segment.path.rsplit("/", 1)[-1]
        first, last = segment.indices or (None, None)
        lines.record("segment", name, segment.record_count, first, last, segment.used, segment.state)
        _damage_lines(segment, name)
    return shown


def record_lines(segments: Iterable[SegmentShown]) -> list[SegmentShown]:
    """record, name, offset, kind, index, term, what it says; damage in its place."""
    shown: list[SegmentShown] = []
    for segment in segments:
        name = segment.path.rsplit("/", 1)[-1]
        for record in segment.records:
            lines.record("record", name, record.offset, record.kind, record.index, record.term, record.detail)
        _damage_lines(segment, name)
        shown.append(segment)
    return shown


def _damage_lines(segment: SegmentShown, name: str) -> None:
    for each in segment.damage:
        lines.record("damage", name, each.offset, each.torn, each.reason)


def stream_log_document(data_dir: str, segments: Iterable[SegmentShown]) -> list[SegmentShown]:
    """One JSON document, written as the records come; each has a line of its own."""
    shown: list[SegmentShown] = []
    write = sys.stdout.write
    write(f'{{"data_dir": {json.dumps(data_dir, ensure_ascii=False)}, "segments": [')
    for segment in segments:
        head = json.dumps({"path": segment.path, "bytes": segment.bytes, "sequence": segment.sequence})
        write(f'{"," if shown else ""}\n{head[:-1]}, "records": [')
        separator = "\n"
        for record in segment.records:
            write(separator + json.dumps(asdict(record), ensure_ascii=False))
            separator = ",\n"
        rest = {
            "used": segment.used,
            "frames": segment.frames,
            "damage": [asdict(each) for each in segment.damage],
            "state": segment.state.lower(),
        }
        write(f"], {json.dumps(rest, ensure_ascii=False)[1:]}")
        shown.append(segment)
    damaged = any(segment.state == "DAMAGED" for segment in shown)
    write(f'], "damaged": {json.dumps(damaged)}}}\n')
    return shown
