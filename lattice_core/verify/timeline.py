"""A history drawn as one HTML file: a lane for each process, a bar from each call to its return.

The file needs nothing but itself and a browser, and follows the reader's light or dark setting. Bars of
unknown outcome have no right end. Numbered dots give one possible order: of everything if there is one,
else of what came before the culprit, which is marked. Times on the axis are exact and in order, but
idle stretches are shortened and crowded ones widened, so lengths are not to scale.
"""

from __future__ import annotations

import bisect
import html
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lattice_core.errors import InvalidRequest
from lattice_core.verify.counterexample import Counterexample, describe, explain, milliseconds
from lattice_core.verify.history import Operation, display
from lattice_core.verify.linearizability import Verdict
from lattice_core.verify.shrink import order_without, value_written
from lattice_core.verify.timeline_page import TEMPLATE
from lattice_core.verify.wgl import Meter, search

MAX_OPERATIONS = 400
_ORDER_STEPS = 200_000

# Pixels.
_LABEL_WIDTH = 112
_LANE_HEIGHT = 58
_BAR_HEIGHT = 28
_TOP = 46
_BOTTOM = 18
_GAP_MIN, _GAP_MAX = 18.0, 120.0
_CHARACTER = 7.3
_DOT_SPACE = 24.0
_TICK_SPACE = 84.0
_PAGE_WIDTH = 1180.0


def write_timeline(
    path: str | Path, source: Verdict | Counterexample | Sequence[Operation], *, title: str | None = None
) -> None:
    """Draw a counterexample, a verdict's counterexample, or a small whole history, into ``path``."""
    Path(path).write_text(render_timeline(source, title=title), encoding="utf-8")


def render_timeline(source: Verdict | Counterexample | Sequence[Operation], *, title: str | None = None) -> str:
    """The HTML. InvalidRequest if there is nothing to draw, or more than a person could look at."""
    if isinstance(source, Verdict):
        if source.counterexample is None:
            raise InvalidRequest(
                "this verdict has no counterexample to draw", hint="draw the history itself if it is small"
            )
        source = source.counterexample
    drawing = _of_counterexample(source) if isinstance(source, Counterexample) else _of_history(list(source))
    if title is not None:
        drawing.title = title
    return _page(drawing)


@dataclass(slots=True)
class _Drawing:
    operations: list[Operation]
    start_ns: int
    title: str
    verdict: str  # "bad", "good" or "unknown"
    sentence: str
    culprit: int | None = None
    # One order for each key that has one, as indices into operations.
    orders: list[list[int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    simplified: frozenset[int] = frozenset()


def _of_counterexample(found: Counterexample) -> _Drawing:
    operations, culprit, keep = list(found.operations), found.culprit, list(range(len(found.operations)))
    notes = []
    if len(operations) > MAX_OPERATIONS:
        first = max(0, min(culprit - MAX_OPERATIONS + 20, len(operations) - MAX_OPERATIONS))
        keep = keep[first : first + MAX_OPERATIONS]
        notes.append(f"Drawn: {len(keep)} operations around the culprit, of {len(operations)}.")
    place = {index: new for new, index in enumerate(keep)}
    if found.simplified:
        notes.append("* What this write found before does not matter here; it is shown as a plain one.")
    return _Drawing(
        operations=[operations[index] for index in keep],
        start_ns=found.start_ns,
        title=f"Key {display(found.key)}: a counterexample",
        verdict="bad",
        sentence=found.explanation,
        culprit=place[culprit],
        orders=[[place[index] for index in found.order if index in place]],
        notes=notes,
        simplified=frozenset(place[index] for index in found.simplified if index in place),
    )


def _of_history(operations: list[Operation]) -> _Drawing:
    if not operations:
        raise InvalidRequest("an empty history cannot be drawn")
    if len(operations) > MAX_OPERATIONS:
        raise InvalidRequest(
            f"a history of {len(operations)} operations is too large to draw, the limit is {MAX_OPERATIONS}",
            hint="check it and draw the verdict's counterexample",
        )
    operations = sorted(operations, key=lambda op: (op.call_ns, op.process))
    start_ns = operations[0].call_ns
    drawing = _Drawing(operations, start_ns, f"{len(operations)} operations", "good", "")
    by_key: dict[bytes, list[int]] = {}
    for index, op in enumerate(operations):
        by_key.setdefault(op.key, []).append(index)
    undecided = []
    for key, indices in by_key.items():
        own = [operations[index] for index in indices]
        verdict, order = search(own, Meter(steps=_ORDER_STEPS, seconds=None))
        if verdict:
            drawing.orders.append([indices[place] for place in order])
        elif verdict is None:
            undecided.append(display(key))
        elif drawing.culprit is None:
            found = explain(own, start_ns=start_ns)
            if found is not None:
                _mark(drawing, found, own, indices)
    if drawing.verdict != "bad":
        if undecided:
            drawing.verdict = "unknown"
            drawing.sentence = f"No verdict within the budget for: {', '.join(undecided)}."
        else:
            drawing.sentence = "Linearizable: the numbered dots are one possible order."
    return drawing


def _mark(drawing: _Drawing, found: Counterexample, own: list[Operation], indices: list[int]) -> None:
    culprit = found.operations[found.culprit]
    at = next(place for place, op in enumerate(own) if op is culprit)
    drawing.verdict, drawing.sentence, drawing.culprit = "bad", found.explanation, indices[at]
    happened = [place for place, op in enumerate(own) if op.outcome != "fail"]
    order = order_without(
        [own[place] for place in happened], culprit, culprit.return_ns or 0, Meter(steps=_ORDER_STEPS, seconds=None)
    )
    drawing.orders.append([indices[happened[place]] for place in order])


# --- layout ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Axis:
    """Times to pixels: exact at every call and return, in proportion between them."""

    times: list[int]
    xs: list[float]
    width: float

    def x(self, time_ns: int) -> float:
        return self.xs[bisect.bisect_left(self.times, time_ns)]


def _label(drawing: _Drawing, index: int) -> str:
    op = drawing.operations[index]
    several_keys = len({op.key for op in drawing.operations}) > 1
    star = " *" if index in drawing.simplified else ""
    return (f"{display(op.key, limit=12)}: " if several_keys else "") + describe(op) + star


def _ends(op: Operation) -> int | None:
    """When the bar ends; None for an open one."""
    return None if op.outcome == "unknown" else op.return_ns


def _layout(drawing: _Drawing) -> tuple[_Axis, dict[int, tuple[int, float]]]:
    """The axis, and for each operation placed in an order its (number, x)."""
    operations = drawing.operations
    times = sorted({time for op in operations for time in (op.call_ns, _ends(op)) if time is not None})
    place = {time: index for index, time in enumerate(times)}
    slots = len(times)  # slot i lies between times[i] and times[i + 1]; the last one is open
    steps = [max(1, after - before) for before, after in itertools.pairwise(times)]
    typical = sorted(steps)[len(steps) // 2] if steps else 1
    gaps = [min(_GAP_MAX, _GAP_MIN + 22.0 * math.log1p(step / typical)) for step in steps] + [90.0]

    # Dots: as early as the order allows, several of them side by side within a slot.
    slot_of: dict[int, tuple[int, int]] = {}
    for order in drawing.orders:
        slot = 0
        for number, index in enumerate(order, start=1):
            slot = max(slot, place[operations[index].call_ns])
            slot_of[index] = (number, slot)
    members: dict[int, list[int]] = {}
    for index, (_, slot) in slot_of.items():
        members.setdefault(slot, []).append(index)
    for slot, inside in members.items():
        gaps[slot] = max(gaps[slot], _DOT_SPACE * (len(inside) + 0.5))

    # Every bar as wide as its label: widen the gaps inside it.
    for index in sorted(
        range(len(operations)), key=lambda i: (_ends(operations[i]) or math.inf) - operations[i].call_ns
    ):
        op = operations[index]
        end = _ends(op)
        first, last = place[op.call_ns], slots if end is None else place[end]
        lacking = len(_label(drawing, index)) * _CHARACTER + 20 - sum(gaps[first:last])
        if lacking > 0 and last > first:
            for slot in range(first, last):
                gaps[slot] += lacking / (last - first)

    # A small drawing may fill the page.
    stretch = min(2.2, max(1.0, (_PAGE_WIDTH - _LABEL_WIDTH) / sum(gaps)))
    gaps = [gap * stretch for gap in gaps]
    xs = [_LABEL_WIDTH + 12.0]
    for gap in gaps:
        xs.append(xs[-1] + gap)
    dots: dict[int, tuple[int, float]] = {}
    for slot, inside in members.items():
        inside.sort(key=lambda index: slot_of[index][0])
        for position, index in enumerate(inside, start=1):
            dots[index] = (slot_of[index][0], xs[slot] + gaps[slot] * position / (len(inside) + 1))
    return _Axis(times, xs[:-1], xs[-1] + 8), dots


def _lanes(operations: Sequence[Operation]) -> tuple[list[str], list[int]]:
    """Lane names, and the lane of each operation. What overlaps in one process gets a lane of its own."""
    lanes: dict[int, list[tuple[list[int], float]]] = {}
    order: list[tuple[int, int]] = []
    lane_of: dict[int, tuple[int, int]] = {}
    for index in sorted(range(len(operations)), key=lambda i: operations[i].call_ns):
        op = operations[index]
        end = _ends(op)
        until = math.inf if end is None else end
        rows = lanes.setdefault(op.process, [])
        for number, (inside, busy_until) in enumerate(rows):
            if busy_until <= op.call_ns:
                inside.append(index)
                rows[number] = (inside, until)
                lane_of[index] = (op.process, number)
                break
        else:
            rows.append(([index], until))
            lane_of[index] = (op.process, len(rows) - 1)
            order.append(lane_of[index])
    order.sort()
    where = {lane: position for position, lane in enumerate(order)}
    names = [f"process {process}" if number == 0 else "" for process, number in order]
    return names, [where[lane_of[index]] for index in range(len(operations))]


# --- drawing --------------------------------------------------------------------------------------


def _page(drawing: _Drawing) -> str:
    counted = {"bad": "Not linearizable", "good": "Linearizable", "unknown": "No verdict"}[drawing.verdict]
    legend = "".join(f'<span><i class="{op}"></i>{op}</span>' for op in ("put", "get", "delete", "cas"))
    legend += '<span><i class="open"></i>outcome unknown</span>'
    legend += '<span><i class="failed"></i>failed</span>'
    if any(drawing.orders):
        legend += '<span><b class="dot">1</b>a possible order</span>'
    notes = "".join(f"<p class=note>{html.escape(note)}</p>" for note in drawing.notes)
    return (
        TEMPLATE.replace("@@TITLE@@", html.escape(drawing.title))
        .replace("@@BADGE@@", f'<span class="badge {drawing.verdict}">{counted}</span>')
        .replace("@@SENTENCE@@", html.escape(drawing.sentence))
        .replace("@@LEGEND@@", legend)
        .replace("@@SVG@@", _svg(drawing))
        .replace("@@ORDERS@@", "".join(_order_list(drawing, order) for order in drawing.orders if order))
        .replace("@@NOTES@@", notes)
    )


def _svg(drawing: _Drawing) -> str:
    operations = drawing.operations
    axis, dots = _layout(drawing)
    names, lane_of = _lanes(operations)
    height = _TOP + len(names) * _LANE_HEIGHT + _BOTTOM
    out = [
        f'<svg width="{axis.width:.0f}" height="{height}" viewBox="0 0 {axis.width:.0f} {height}" role="img" '
        f'aria-label="{html.escape(drawing.title, quote=True)}">'
    ]
    bottom = height - _BOTTOM
    for lane, name in enumerate(names):
        y = _TOP + lane * _LANE_HEIGHT
        if lane % 2 == 0:
            out.append(f'<rect class="stripe" x="0" y="{y}" width="{axis.width:.0f}" height="{_LANE_HEIGHT}"/>')
        out.append(f'<text class="lane" x="12" y="{y + _LANE_HEIGHT / 2 + 1:.0f}">{html.escape(name)}</text>')
    important: list[int] = []  # the ends of the culprit
    top, tall = _TOP - 8, bottom - _TOP + 8.0
    if drawing.culprit is not None:
        culprit = operations[drawing.culprit]
        important = [culprit.call_ns, culprit.return_ns or culprit.call_ns]
        begin, finish = axis.x(important[0]), axis.x(important[1])
        out.append(f'<rect class="band" x="{begin:.1f}" y="{top}" width="{finish - begin:.1f}" height="{tall}"/>')
    out.append(_ticks(drawing, axis, important, bottom))
    # Lines below the bars, dots above: labels stay readable.
    for order in drawing.orders:
        line = " ".join(f"{dots[index][1]:.1f},{_dot_y(lane_of[index]):.1f}" for index in order)
        out.append(f'<polyline class="order" points="{line}"/>')
    for index, op in enumerate(operations):
        out.append(_bar(drawing, index, op, axis, _TOP + lane_of[index] * _LANE_HEIGHT))
    for index, (number, x) in dots.items():
        level = _dot_y(lane_of[index])
        out.append(
            f'<g class="dot"><circle cx="{x:.1f}" cy="{level:.1f}" r="9.5"/>'
            f'<text x="{x:.1f}" y="{level + 3.5:.1f}">{number}</text></g>'
        )
    out.append("</svg>")
    return "".join(out)


def _dot_y(lane: int) -> float:
    """On the lower edge of the lane's bars."""
    return _TOP + lane * _LANE_HEIGHT + (_LANE_HEIGHT - _BAR_HEIGHT) / 2 - 2 + _BAR_HEIGHT


def _ticks(drawing: _Drawing, axis: _Axis, important: list[int], bottom: float) -> str:
    out: list[str] = []
    taken: list[float] = []
    for time in [*important, *axis.times]:
        x = axis.x(time)
        near = any(abs(x - other) < _TICK_SPACE for other in taken)
        if time not in important and near:
            continue
        kind = "tick culprit" if time in important else "tick"
        out.append(f'<line class="{kind}" x1="{x:.1f}" y1="{_TOP - 8}" x2="{x:.1f}" y2="{bottom}"/>')
        if not near:
            taken.append(x)
            out.append(
                f'<text class="{kind}" x="{x:.1f}" y="{_TOP - 16}">{milliseconds(time - drawing.start_ns)} ms</text>'
            )
    return "".join(out)


def _bar(drawing: _Drawing, index: int, op: Operation, axis: _Axis, lane_y: float) -> str:
    left = axis.x(op.call_ns)
    end = _ends(op)
    right = axis.width - 8 if end is None else max(axis.x(end), left + 6)
    y = lane_y + (_LANE_HEIGHT - _BAR_HEIGHT) / 2 - 6
    classes = ["op", op.op]
    if op.outcome == "fail":
        classes.append("failed")
    if end is None:
        classes.append("open")
        tail = 14
        shape = (
            f'<path d="M{right - tail:.1f},{y} H{left + 5:.1f} q-5,0 -5,5 v{_BAR_HEIGHT - 10} q0,5 5,5 '
            f'H{right - tail:.1f} l{tail},-{_BAR_HEIGHT / 2} z"/>'
        )
    else:
        shape = f'<rect x="{left:.1f}" y="{y}" width="{right - left:.1f}" height="{_BAR_HEIGHT}" rx="5"/>'
    label = _label(drawing, index)
    details: list[tuple[str, str]] = [
        ("operation", f"{describe(op)}"),
        ("key", display(op.key, limit=80)),
        ("process", str(op.process)),
        ("called", f"{milliseconds(op.call_ns - drawing.start_ns)} ms"),
        ("returned", "never" if end is None else f"{milliseconds(end - drawing.start_ns)} ms"),
        (
            "outcome",
            {"ok": "ok", "fail": "failed: did not happen", "unknown": "unknown: may or may not happen"}[op.outcome],
        ),
    ]
    if end is not None:
        details.insert(5, ("took", f"{milliseconds(end - op.call_ns)} ms"))
    mark = ""
    if index == drawing.culprit:
        classes.append("culprit")
        details.append(("verdict", "no order allows this"))
        mark = f'<text class="mark" x="{left + 2:.1f}" y="{y + _BAR_HEIGHT + 15:.1f}">▲ impossible</text>'
    data = html.escape(json.dumps(details, ensure_ascii=False), quote=True)
    plain = html.escape("\n".join(f"{name}: {value}" for name, value in details))
    return (
        f'<g class="{" ".join(classes)}" tabindex="0" data-details="{data}"><title>{plain}</title>{shape}'
        f'<text x="{left + 10:.1f}" y="{y + _BAR_HEIGHT / 2 + 4.5:.1f}">{html.escape(label)}</text>{mark}</g>'
    )


def _order_list(drawing: _Drawing, order: list[int]) -> str:
    operations = drawing.operations
    items = []
    state: bytes | None = None
    for index in order:
        op = operations[index]
        writes, value = value_written(op)
        if writes:
            state = value
        items.append(
            f'<li><span class="chip {op.op}">{html.escape(describe(op))}</span> '
            f'<span class="by">process {op.process}</span> '
            f'<span class="state">key holds {html.escape(display(state))}</span></li>'
        )
    key = display(operations[order[0]].key)
    head = f"A possible order for key {key}"
    last = ""
    if drawing.culprit is not None and operations[drawing.culprit].key == operations[order[0]].key:
        head += ", up to the culprit"
        op = operations[drawing.culprit]
        last = (
            f'<li class="stop"><span class="chip {op.op}">{html.escape(describe(op))}</span> '
            f'<span class="by">process {op.process}</span><span class="state">fits nowhere</span></li>'
        )
    return f"<section><h2>{html.escape(head)}</h2><ol>{''.join(items)}{last}</ol></section>"
