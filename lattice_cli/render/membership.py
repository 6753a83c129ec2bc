"""A change of members, done or only thought through, and how far a new member has caught up."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from lattice_cli.render import lines, tables
from lattice_cli.render.console import data_console, write_line
from lattice_cli.render.text import hex_id, plural

if TYPE_CHECKING:
    from lattice_core.client import MemberReport, MembershipChanged, QuorumReport

RATE_SECONDS = 5.0
"""Over how long the rate of catching up is measured."""


def document(changed: MembershipChanged) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": changed.name,
        "id": hex_id(changed.id),
        "peer_addr": changed.peer_addr,
        "member": changed.member,
        "voter": changed.voter,
        "promotes": changed.promotes,
        "replaces": changed.replaces,
        "index": changed.index,
        "dry_run": changed.dry_run,
        "before": _quorum_document(changed.before),
        "after": _quorum_document(changed.after),
    }
    if changed.refused is not None:
        shown["refused"] = changed.refused
        shown["hint"] = changed.hint
    return shown


def _quorum_document(quorum: QuorumReport) -> dict[str, Any]:
    return {
        "voters": list(quorum.voters),
        "learners": list(quorum.learners),
        "quorum": quorum.size,
        "tolerates": quorum.tolerates,
        "live": quorum.live,
    }


def line(changed: MembershipChanged, *, table: bool) -> None:
    """What was done, in one line."""
    kind = "removed" if not changed.member else "voter" if changed.voter else "learner"
    if not table:
        lines.record(changed.name, hex_id(changed.id), kind, changed.peer_addr, changed.index)
        return
    after = changed.after
    what = {
        "removed": f"{changed.name} was removed",
        "voter": f"{changed.name} votes",
        "learner": f"{changed.name} is a learner",
    }[kind]
    if changed.promotes:
        place = f" in place of {changed.replaces}" if changed.replaces else ""
        what += f", and votes{place} as soon as it has caught up; then"
    else:
        what += ":"
    write_line(
        f"{what} {plural(len(after.voters), 'voter')} ({', '.join(after.voters)}), {after.size} decide, "
        f"{after.tolerates} may fail"
    )


def outlook(changed: MembershipChanged, *, table: bool, no_color: bool) -> None:
    """Before and after, beside each other."""
    before, after = changed.before, changed.after
    rows = [
        ("voters", ", ".join(before.voters), ", ".join(after.voters)),
        ("learners", ", ".join(before.learners), ", ".join(after.learners)),
        ("quorum", f"{before.size} of {len(before.voters)}", f"{after.size} of {len(after.voters)}"),
        ("may fail", str(before.tolerates), str(after.tolerates)),
        ("live now", str(before.live), str(after.live)),
    ]
    if not table:
        for row in rows:
            lines.record(*row)
        return
    shown = tables.new_table(("", "<"), ("NOW", "<"), ("THEN", "<"))
    for name, now, then in rows:
        shown.add_row(name, now or "none", then or "none", style="" if now == then else "bold")
    data_console(no_color=no_color).print(shown)


class CatchUpLine:
    """One line on stderr that keeps itself up to date, where that is a terminal."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._enabled = sys.stderr.isatty()
        self._seen: list[tuple[float, int, str]] = []

    def show(self, member: MemberReport) -> None:
        if self._enabled:
            sys.stderr.write(f"\r\x1b[2K{self.text(member, time.monotonic())}")
            sys.stderr.flush()

    def text(self, member: MemberReport, now: float) -> str:
        """How far it is behind, how fast that shrinks, how long it takes at that rate."""
        if not member.reachable and member.unreachable_seconds is not None:
            return f"{self._name} does not answer (for {member.unreachable_seconds:.0f} s)"
        if member.snapshot_bytes:
            left, unit = member.snapshot_bytes - (member.snapshot_sent_bytes or 0), "bytes"
            share = f"{left / 2**20:,.1f} of {member.snapshot_bytes / 2**20:,.1f} MiB of a snapshot to come"
        elif member.lag is not None:
            left, unit = member.lag, "entries"
            share = f"{plural(left, 'entry').replace('entrys', 'entries')} behind"
        else:
            return f"{self._name} is catching up"
        self._seen = [each for each in self._seen if each[0] > now - RATE_SECONDS and each[2] == unit]
        self._seen.append((now, left, unit))
        first_at, first_left, _ = self._seen[0]
        text = f"{self._name} is catching up: {share}"
        if now - first_at >= 0.2 and first_left > left:
            rate = (first_left - left) / (now - first_at)
            shown = f"{rate / 2**20:,.1f} MiB/s" if unit == "bytes" else f"{rate:,.0f} entries/s"
            text += f", {shown}, {left / rate:,.0f} s left"
        return text

    def clear(self) -> None:
        if self._enabled:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
