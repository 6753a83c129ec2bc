"""``lattice top -o json``: one document for each interval, a line each."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from lattice_cli.render.text import hex_id

if TYPE_CHECKING:
    from lattice_cli.top.figures import Figures, MemberFigures
    from lattice_core.histogram import HistogramReading


def top_document(figures: Figures, at: float) -> dict[str, Any]:
    """Rates are null in the first, which has nothing before it to compare with."""
    status = figures.status
    return {
        "time": moment(at),
        "seconds": _rounded(figures.seconds),
        "cluster_id": hex_id(status.cluster_id),
        "leader": None if status.leader is None else status.leader.name,
        "term": status.term,
        "writes_per_second": _rounded(figures.writes_per_second),
        "reads_per_second": _rounded(figures.reads_per_second),
        "failures_per_second": _rounded(figures.failures_per_second),
        **_percentiles("write", figures.writes),
        **_percentiles("read", figures.reads),
        "elections": figures.elections,
        "members": [_member(member) for member in figures.members],
    }


def problem_document(problem: str, at: float) -> dict[str, Any]:
    """When no member answered."""
    return {"time": moment(at), "error": problem}


def moment(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="milliseconds")


def _member(member: MemberFigures) -> dict[str, Any]:
    report, node = member.report, member.node
    document: dict[str, Any] = {
        "name": report.name,
        "id": hex_id(report.id),
        "role": None if node is None else node.role,
        "voter": report.voter,
        "reachable": report.reachable,
        "unreachable_seconds": report.unreachable_seconds,
    }
    if node is None:
        return document
    counters = node.counters
    return {
        **document,
        "term": node.term,
        "commit_index": node.commit_index,
        "applied_index": node.applied_index,
        "last_index": node.last_index,
        "snapshot_index": node.snapshot_index,
        "lag": member.lag,
        "writes_per_second": _rounded(member.writes_per_second),
        "reads_per_second": _rounded(member.reads_per_second),
        "failures_per_second": _rounded(member.failures_per_second),
        **_percentiles("fsync", member.fsync),
        **_percentiles("round_trip", member.round_trip),
        "elections_started": member.elections_started,
        "cpu": _rounded(member.cpu),
        "memory_bytes": None if counters is None else counters.memory_bytes,
        "disk_free_bytes": None if counters is None else counters.disk_free_bytes,
        "pending_write_bytes": None if counters is None else counters.pending_write_bytes,
        "not_ready": None if counters is None else counters.not_ready or None,
    }


def _percentiles(name: str, reading: HistogramReading | None) -> dict[str, float | None]:
    found = {}
    for label, fraction in (("p50", 0.5), ("p99", 0.99)):
        seconds = reading.quantile(fraction) if reading is not None else None
        found[f"{name}_{label}_ms"] = None if seconds is None else round(seconds * 1000, 3)
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
