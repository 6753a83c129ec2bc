"""Where the time of one operation went, as bars on one scale. On stderr: the answer itself is what pipes want.

Steps that go on beside each other (the leader's disk and the followers) begin at the same place. When the request was
on its way to the member and when the answer was on its way back cannot be told apart by two clocks: that is one bar.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lattice_cli.render.text import plural, seconds_text, wrapped
from lattice_cli.render.top import glyphs_for

if TYPE_CHECKING:
    from lattice_core.client import Explained, Step

WORDS = {
    "queue": "queue",
    "fsync": "write and fsync",
    "follower": "sent, written, acknowledged",
    "quorum": "a majority has it",
    "apply": "apply",
    "confirm": "a majority confirms the leader",
    "answer": "answer",
}
SHORT_WORDS = {**WORDS, "follower": "acknowledged", "confirm": "confirmed", "quorum": "majority", "fsync": "fsync"}

NARROW_COLUMNS = 72
SHORTEST_BAR = 8
LONGEST_BAR = 48


def show(explained: Explained, *, no_color: bool) -> None:
    """The table, on stderr."""
    console = Console(file=sys.stderr, no_color=no_color or None, highlight=False, emoji=False, markup=False)
    glyphs = glyphs_for(console.encoding)
    words = WORDS if console.width >= NARROW_COLUMNS else SHORT_WORDS
    rows = _rows(explained, words)
    total = explained.total_seconds
    labels = max(len(label) for label, *_ in rows)
    room = min(LONGEST_BAR, console.width - labels - 14)
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1))
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    if room >= SHORTEST_BAR:
        table.add_column(no_wrap=True, width=room)
    for label, began, ended, style in rows:
        seconds = "not yet" if ended is None else seconds_text(ended - began)
        cells = [Text(label, style=style), Text(seconds, style=style)]
        if room >= SHORTEST_BAR:
            start = round(began / total * room)
            length = 0 if ended is None else max(1, round((ended - began) / total * room))
            cells.append(Text(" " * min(start, room - 1) + glyphs.applied * length, style=style))
        table.add_row(*cells)
    console.print(table)
    summary = _summary(explained)
    for line in wrapped(summary, console.width) if console.is_terminal else [summary]:
        console.print(Text(line, style="bold"), soft_wrap=True)


def _rows(explained: Explained, words: dict[str, str]) -> list[tuple[str, float, float | None, str]]:
    """Label, begin and end in seconds from the first attempt to connect, style."""
    rows: list[tuple[str, float, float | None, str]] = []
    at = 0.0
    for attempt in explained.attempts:
        rows.append((f"asked {attempt.address} in vain", at, at + attempt.seconds, "yellow"))
        at += attempt.seconds
    rows.append((f"connect to {explained.member}", at, at + explained.connect_seconds, ""))
    at += explained.connect_seconds
    rows.append(("network, there and back", at, at + explained.network_seconds, ""))
    at += explained.network_seconds
    for step in explained.steps:
        ended = None if step.ended is None else at + step.ended
        rows.append((f"{step.member}: {words.get(step.name, step.name)}", at + step.began, ended, _style(step)))
    return rows


def _style(step: Step) -> str:
    return {"fsync": "cyan", "follower": "cyan", "quorum": "bold"}.get(step.name, "")


def _summary(explained: Explained) -> str:
    text = f"{seconds_text(explained.total_seconds)} in all, {seconds_text(explained.server_seconds)} of it in "
    text += f"{explained.member} ({explained.role})"
    others = explained.batches - 1
    if explained.index is not None:
        text += f"; entry {explained.index}"
        text += f", shared with {plural(others, 'other request')}" if others > 0 else ""
    elif others > 0:
        text += f"; a round shared with {plural(others, 'other request')}"
    return text


def document(explained: Explained) -> dict[str, Any]:
    """For ``-o json``: milliseconds; steps count from the request's arrival at the member."""
    return {
        "member": explained.member,
        "role": explained.role,
        "address": explained.address,
        "total_ms": _ms(explained.total_seconds),
        "attempts": [
            {"address": each.address, "ms": _ms(each.seconds), "why": each.why} for each in explained.attempts
        ],
        "connect_ms": _ms(explained.connect_seconds),
        "network_ms": _ms(explained.network_seconds),
        "server_ms": _ms(explained.server_seconds),
        "steps": [
            {
                "step": each.name,
                "member": each.member,
                "began_ms": _ms(each.began),
                "ended_ms": None if each.ended is None else _ms(each.ended),
            }
            for each in explained.steps
        ],
        "index": explained.index,
        "batches": explained.batches,
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
