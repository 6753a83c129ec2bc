"""The frame of ``lattice top``: as wide as the terminal is, from 40 columns on, and readable without colours.

The bars show the log: from what every member has put into a snapshot, on the left, to the last entry that anybody
has, on the right. A bar is filled as far as the member has come: applied, then committed, then only appended. Each of
the three has a character of its own, besides a colour.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lattice_cli.render.text import hex_id, plural

if TYPE_CHECKING:
    from lattice_cli.top.figures import Event, Figures, MemberFigures, Observer
    from lattice_core.histogram import HistogramReading

WIDE_COLUMNS = 110
MEDIUM_COLUMNS = 72
"""Below it members are written below each other."""

SHORTEST_LOG = 100
"""Entries that a bar shows at least: when all is quiet, one entry more or less should not look like much."""

LAGGING_ENTRIES = 100

STALLED_SECONDS = 1.0
"""An fsync that takes longer is told as a disk that hangs."""

LONGEST_NAME = 16

EVENTS = 5


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What bars and sparklines are made of."""

    applied: str
    committed: str
    appended: str
    missing: str
    spark: str
    """From nothing to most."""


UNICODE = Glyphs("█", "▓", "░", "·", " ▁▂▃▄▅▆▇█")
ASCII = Glyphs("#", "=", "-", ".", " ._-=*#@@")


def glyphs_for(encoding: str) -> Glyphs:
    return UNICODE if encoding.lower().replace("-", "").startswith("utf") else ASCII


def frame(
    figures: Figures, observer: Observer, width: int, *, at: float, glyphs: Glyphs = UNICODE, problem: str | None = None
) -> RenderableType:
    """One picture of the cluster. ``problem``: why there is no newer one."""
    parts: list[RenderableType] = [
        _head(figures, width, at, problem),
        *_load(figures, observer, width, glyphs),
        Text(""),
    ]
    if width < MEDIUM_COLUMNS:
        parts += _stacked(figures, width, glyphs)
    else:
        parts.append(_table(figures, width, glyphs))
    parts.append(_legend(glyphs))
    events = list(observer.events)[-EVENTS:]
    if events:
        parts += [Text(""), *map(_event, events)]
    return Group(*parts)


# -- above the members ----------------------------------------------------------------------------------


def _head(figures: Figures, width: int, at: float, problem: str | None) -> Text:
    status = figures.status
    reachable = sum(member.report.reachable for member in figures.members)
    text = Text(no_wrap=True, overflow="ellipsis")
    if width >= MEDIUM_COLUMNS:
        text.append(f"cluster {hex_id(status.cluster_id)}  ")
    if status.leader is not None:
        text.append(f"term {status.term}  leader ")
        text.append(status.leader.name, "bold green")
    else:
        text.append(f"! no leader in term {status.term}", "bold red")
    total = len(figures.members)
    members = f"  {reachable} of {plural(total, 'member') if width >= MEDIUM_COLUMNS else total}"
    text.append(members, "" if reachable == total else "bold yellow")
    text.append(f"  {time.strftime('%H:%M:%S', time.localtime(at))}")
    if problem is not None:
        text.append(f"\n! {problem}", "bold red")
    return text


def _load(figures: Figures, observer: Observer, width: int, glyphs: Glyphs) -> list[Text]:
    lines = []
    for name, rate, reading, history, style in (
        ("writes", figures.writes_per_second, figures.writes, observer.writes, "cyan"),
        ("reads", figures.reads_per_second, figures.reads, observer.reads, "blue"),
    ):
        line = Text(f"{name:<7}{_rate(rate):>7}/s ", no_wrap=True, overflow="crop")
        latency = f" {_pair(reading)} ms" + (" p50/p99" if width >= MEDIUM_COLUMNS else "")
        line.append(sparkline(list(history), max(4, min(60, width - len(line) - max(21, len(latency)))), glyphs), style)
        if reading is not None and reading.count:
            line.append(latency)
        lines.append(line)
    nodes = [member.node for member in figures.members if member.node is not None]
    leader = figures.status.leader.status if figures.status.leader is not None else None
    shown = leader or max(nodes, key=lambda node: node.applied_index, default=None)
    line = Text()
    if shown is not None:
        line.append(f"keys {shown.keys:,}  revision {shown.revision:,}  sessions {shown.sessions:,}")
    if width < MEDIUM_COLUMNS:
        lines.append(line)
        line = Text()
    else:
        line.append("  ")
    line.append(plural(figures.elections, "election"), "bold yellow" if figures.elections else "")
    if figures.failures_per_second:
        line.append(f"  refused {_rate(figures.failures_per_second)}/s", "yellow")
    return [*lines, line]


def sparkline(values: Sequence[float], width: int, glyphs: Glyphs = UNICODE) -> str:
    """The last ``width`` values, each as high as it is beside the highest of them; what is not 0 shows."""
    values = values[-width:]
    highest = max(values, default=0.0)
    steps = len(glyphs.spark) - 1
    marks = [glyphs.spark[max(1, round(value / highest * steps))] if value > 0 else glyphs.spark[0] for value in values]
    return "".join(marks).rjust(width)


# -- the members ----------------------------------------------------------------------------------------


def _table(figures: Figures, width: int, glyphs: Glyphs) -> Table:
    wide = width >= WIDE_COLUMNS
    headings = ["", "NAME", "ROLE", "LOG", "LAST", "LAG"]
    headings += ["TERM", "WRITES/S", "READS/S"] if wide else []
    headings += ["FSYNC ms", "TRIP ms", "CPU"] + (["MEMORY"] if wide else [])
    rows = [_row(member, figures, wide) for member in figures.members]
    others = [position for position, heading in enumerate(headings) if heading != "LOG"]
    taken = sum(max(len(row[position]) for row in [headings, *rows]) + 1 for position in others)
    bar = max(6, min(40, width - taken))
    low, high = _span(figures)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="left" if position <= 3 else "right", no_wrap=True, overflow="ellipsis")
    for member, row in zip(figures.members, rows, strict=True):
        cells: list[str | Text] = list(row)
        note = _note(member)
        cells[3] = note if note is not None else _bar(member, low, high, bar, glyphs)
        table.add_row(*cells, style=_role(member, figures)[2])
    return table


def _row(member: MemberFigures, figures: Figures, wide: bool) -> list[str]:
    """The cells of one member; its bar is filled in when the others' widths are known."""
    mark, role, _ = _role(member, figures)
    name = member.report.name
    row = [mark, name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "~", role, ""]
    node = member.node
    if node is None:
        return row + [""] * (9 if wide else 5)
    row += [f"{node.last_index:,}", _count(member.lag)]
    if wide:
        row += [str(node.term), _rate(member.writes_per_second), _rate(member.reads_per_second)]
    row += [_pair(member.fsync), _pair(member.round_trip), _percent(member.cpu)]
    if wide:
        row.append(_bytes(node.counters.memory_bytes if node.counters is not None else None))
    return row


def _note(member: MemberFigures) -> Text | None:
    """What matters more than how far the log is."""
    node = member.node
    if node is None:
        away = member.report.unreachable_seconds
        return Text("" if away is None else f"for {away:.0f} s")
    counters = node.counters
    if counters is not None and counters.fsync_stalled_seconds > STALLED_SECONDS:
        return Text(f"disk hangs, {counters.fsync_stalled_seconds:.0f} s", "bold red")
    if counters is not None and counters.disk_full:
        return Text("disk full", "bold red")
    if counters is not None and counters.no_room:
        return Text("no room: only deletes", "bold red")
    return None


def _stacked(figures: Figures, width: int, glyphs: Glyphs) -> list[RenderableType]:
    """The same for narrow terminals: three short lines a member."""
    lines: list[RenderableType] = []
    low, high = _span(figures)
    for member in figures.members:
        mark, role, style = _role(member, figures)
        line = Text(f"{mark} {member.report.name}  {role}", style=style, no_wrap=True, overflow="ellipsis")
        note = _note(member)
        if note is not None:
            line.append(" ")
            line.append_text(note)
        lines.append(line)
        node = member.node
        if node is None:
            continue
        last = f" {node.last_index:,}"
        line = Text("  ")
        line.append_text(_bar(member, low, high, max(8, min(40, width - len(last) - 3)), glyphs))
        line.append(last)
        lines.append(line)
        detail = f"  lag {_count(member.lag)}"
        if member.fsync is not None:
            detail += f"  fsync {_pair(member.fsync)}"
        if member.round_trip is not None:
            detail += f"  trip {_pair(member.round_trip)}"
        lines.append(Text(detail, no_wrap=True, overflow="ellipsis"))
    return lines


def _role(member: MemberFigures, figures: Figures) -> tuple[str, str, str]:
    """Mark, words and style: * leads, + learns, ~ lags, ! is away, in trouble or a candidate."""
    node = member.node
    if node is None:
        return "!", "unreachable", "bold red"
    if _note(member) is not None:
        return "!", node.role, "bold red"
    if node.role == "leader":
        return "*", "leader", "bold green"
    if member.report.learner or node.role == "learner":
        return "+", "learner", "cyan"
    if node.role != "follower":
        return "!", node.role, "bold yellow"
    if member.lag is not None and member.lag >= LAGGING_ENTRIES and figures.status.leader is not None:
        return "~", "follower", "yellow"
    return " ", "follower", ""


def _span(figures: Figures) -> tuple[int, int]:
    """The entries that all bars stand for."""
    nodes = [member.node for member in figures.members if member.node is not None]
    high = max((node.last_index for node in nodes), default=0)
    low = min((min(node.snapshot_index, node.applied_index) for node in nodes), default=0)
    return max(0, min(low, high - SHORTEST_LOG)), high


def _bar(member: MemberFigures, low: int, high: int, width: int, glyphs: Glyphs) -> Text:
    node = member.node
    assert node is not None

    def cells(index: int) -> int:
        return min(width, max(0, round((index - low) / max(1, high - low) * width)))

    applied = cells(node.applied_index)
    committed = max(applied, cells(node.commit_index))
    last = max(committed, cells(node.last_index))
    bar = Text()
    bar.append(glyphs.applied * applied, "green")
    bar.append(glyphs.committed * (committed - applied), "yellow")
    bar.append(glyphs.appended * (last - committed), "yellow")
    bar.append(glyphs.missing * (width - last), "dim")
    return bar


def _legend(glyphs: Glyphs) -> Text:
    text = f"{glyphs.applied} applied {glyphs.committed} committed {glyphs.appended} appended"
    return Text(text, style="dim", no_wrap=True, overflow="crop")


def _event(event: Event) -> Text:
    text = f"{time.strftime('%H:%M:%S', time.localtime(event.at))} {event.mark} {event.text}"
    return Text(text, style="yellow" if event.mark == "!" else "", no_wrap=True, overflow="ellipsis")


# -- numbers --------------------------------------------------------------------------------------------


def _pair(reading: HistogramReading | None) -> str:
    """Median and 99th percentile in milliseconds."""
    if reading is None or not reading.count:
        return "-"
    return f"{_milliseconds(reading.quantile(0.5))}/{_milliseconds(reading.quantile(0.99))}"


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    value = seconds * 1000
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _rate(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.0f}%"


def _bytes(value: int | None) -> str:
    if value is None:
        return "-"
    amount = float(value)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
