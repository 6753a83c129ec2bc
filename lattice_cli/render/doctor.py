"""What ``lattice doctor`` found, for people, lines and documents. The severity is a word; colours only repeat it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from lattice_cli.doctor.observed import ACTION, Finding, Observation, Severity
from lattice_cli.render import lines
from lattice_cli.render.console import data_console
from lattice_cli.render.text import hex_id, plural, wrapped

if TYPE_CHECKING:
    from lattice_core.client import Examined, NodeDetails

STYLES: dict[Severity, str] = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "bold red"}
MARKS: dict[Severity, str] = {"ok": " ", "note": " ", "warning": "~", "problem": "!"}

WORD_COLUMNS = 11
NARROW_COLUMNS = 60
"""Below it, what was found stands under its heading."""


def show(findings: Sequence[Finding], *, no_color: bool) -> None:
    """One finding a line or a few; what is to be done below it."""
    console = data_console(no_color=no_color)
    narrow = console.width < NARROW_COLUMNS
    indent = 2 if narrow else WORD_COLUMNS
    for finding in findings:
        head = f"{MARKS[finding.severity]} {finding.severity:<{WORD_COLUMNS - 2}}"
        body = [*wrapped(_what(finding), console.width - indent)]
        if finding.remedy is not None:
            body += [f"{'-> ' if first else '   '}{line}" for first, line in
                     _numbered(wrapped(finding.remedy, console.width - indent - 3))]  # fmt: skip
        if narrow:
            console.print(Text(head.rstrip(), style=STYLES[finding.severity]))
        for position, line in enumerate(body):
            leading = Text(head if position == 0 else "", style=STYLES[finding.severity]) if not narrow else Text("")
            leading.pad_right(max(0, indent - len(leading)))
            console.print(leading.append(line, style="" if finding.severity != "ok" else "dim"), soft_wrap=True)
    console.print(Text("\n" + "\n".join(wrapped(summary(findings), console.width)), style="bold"), soft_wrap=True)


def _what(finding: Finding) -> str:
    who = f" of {', '.join(finding.members)}" if finding.members else ""
    return f"{finding.check}{who}: {finding.text}"


def _numbered(texts: Sequence[str]) -> list[tuple[bool, str]]:
    return [(position == 0, text) for position, text in enumerate(texts)]


def summary(findings: Sequence[Finding]) -> str:
    counts = {word: sum(each.severity == word for each in findings) for word in STYLES}
    if not any(counts[word] for word in ACTION):
        return f"All is well: {plural(counts['ok'], 'check')} passed, {plural(counts['note'], 'note')}."
    return f"{plural(counts['problem'], 'problem')} (!), {plural(counts['warning'], 'warning')} (~): see to these."


def write_lines(findings: Sequence[Finding]) -> None:
    """severity, check, members, what, remedy."""
    for finding in findings:
        lines.record(finding.severity, finding.check, ",".join(finding.members), finding.text, finding.remedy)


def document(seen: Observation, findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings, and what was measured."""
    cluster = seen.cluster
    return {
        "healthy": not any(each.severity in ACTION for each in findings),
        "cluster_id": None if cluster is None else hex_id(cluster.cluster_id),
        "findings": [
            {
                "severity": each.severity,
                "check": each.check,
                "members": list(each.members),
                "text": each.text,
                "remedy": each.remedy,
            }
            for each in findings
        ],
        "members": [
            {"name": report.name, **_measured(seen.members.get(report.id))} for report in seen.reports()
        ],
        "disk": None if seen.disk is None else _disk(seen),
    }  # fmt: skip


def _measured(examined: Examined | None) -> dict[str, Any]:
    if examined is None or examined.status is None:
        return {"reachable": False}
    status = examined.status
    details, counters = status.details, status.counters
    fsync = counters.fsync if counters is not None else None
    return {
        "reachable": True,
        "version": status.version,
        "round_trip_ms": _milliseconds(min(examined.round_trips, default=None)),
        "clock_offset_ms": _milliseconds(examined.clock_offset_seconds),
        "clock_error_ms": _milliseconds(examined.clock_error_seconds),
        "fsync_p50_ms": _milliseconds(fsync.quantile(0.5) if fsync is not None else None),
        "fsync_p99_ms": _milliseconds(fsync.quantile(0.99) if fsync is not None else None),
        "disk_free_bytes": counters.disk_free_bytes if counters is not None else None,
        "open_descriptors": details.open_descriptors if details is not None else None,
        "descriptor_limit": details.descriptor_limit if details is not None else None,
        "heartbeat_ms": details.heartbeat_ms if details is not None else None,
        "election_timeout_min_ms": details.election_timeout_min_ms if details is not None else None,
        "election_timeout_max_ms": details.election_timeout_max_ms if details is not None else None,
        "snapshot_age_seconds": details.snapshot_age_seconds if details is not None else None,
        "certificates": [] if details is None else _certificates(details),
    }


def _certificates(details: NodeDetails) -> list[dict[str, Any]]:
    return [
        {
            "port": each.port,
            "path": each.path,
            "seconds_left": round(each.not_after_seconds - details.wall_clock_seconds),
        }
        for each in details.certificates
    ]


def _disk(seen: Observation) -> dict[str, Any]:
    disk = seen.disk
    assert disk is not None
    return {
        "path": disk.path,
        "filesystem": disk.filesystem,
        "free_bytes": disk.free_bytes,
        "total_bytes": disk.total_bytes,
        "fsyncs": len(disk.fsyncs),
        "fsync_p50_ms": _milliseconds(disk.fsync_quantile(0.5) if disk.fsyncs else None),
        "fsync_p99_ms": _milliseconds(disk.fsync_quantile(0.99) if disk.fsyncs else None),
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
