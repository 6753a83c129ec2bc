"""The table of issue and documentation: both sides' figures, the ratio, and what was to be reached."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.compare.measure import Figures

Pick = Callable[[Any], float]


@dataclass(frozen=True, slots=True)
class Row:
    """One line. ``pick`` takes the figure out of what one turn gave; the median over turns stands in the table."""

    title: str
    figures: str
    pick: Pick
    show: Callable[[float], str]
    goal: str
    reached: Callable[[float, float], bool] | None
    """Of Lattice's figure and etcd's."""
    gather: Callable[[Sequence[float]], float] = statistics.median


def _rate(found: Any) -> float:
    return float(found["ops_per_second"])


def _median(found: Any) -> float:
    return float(found["p50_ms"])


def _largest_member(members: Any) -> float:
    return max(float(member["rss_mb"]) for member in members)


def _all_members(members: Any) -> float:
    return sum(float(member["rss_mb"]) for member in members)


def _same(found: Any) -> float:
    return float(found)


def _elections(found: Any) -> float:
    return float(found["elections"])


def per_second(value: float) -> str:
    return f"{value:,.0f}/s"


def ms(value: float) -> str:
    return f"{value:.2f} ms" if value < 10 else f"{value:,.0f} ms"


def mb(value: float) -> str:
    return f"{value:,.0f} MB"


def number(value: float) -> str:
    return f"{value:,.0f}"


ROWS = (
    Row("put, 256 callers", "put 256", _rate, per_second, "at least 8 x", lambda ours, theirs: ours >= 8 * theirs),
    Row("put, 256 callers, median", "put 256", _median, ms, "at most 1/5", lambda ours, theirs: ours <= theirs / 5),
    Row("put, 64 callers", "put 64", _rate, per_second, "at least 4 x", lambda ours, theirs: ours >= 4 * theirs),
    Row("put, 1 caller, median", "put 1", _median, ms, "at most 1.3 x", lambda ours, theirs: ours <= 1.3 * theirs),
    Row("get, 256 callers", "get 256", _rate, per_second, "at least 5 x", lambda ours, theirs: ours >= 5 * theirs),
    Row("get, 1 caller, median", "get 1", _median, ms, "at most 1.0 x", lambda ours, theirs: ours <= theirs),
    Row("bulk load, keys", "load", _same, per_second, "at least 3 x", lambda ours, theirs: ours >= 3 * theirs),
    Row("memory, largest member", "memory", _largest_member, mb, "at most 1.0 x", lambda ours, theirs: ours <= theirs),
    Row("memory, all members", "memory", _all_members, mb, "", None),
    Row("leader killed, median gap", "kill", _same, ms, "under 1.0 s", lambda ours, _: ours < 1000),
    Row("leader killed, worst gap", "kill", _same, ms, "under 1.5 s", lambda ours, _: ours < 1500, max),
    Row("elections under saturation", "elections", _elections, number, "0", lambda ours, _: ours == 0, max),
)


ETCD = "etcd"
TUNED = "etcd, tuned"
OURS = "Lattice"


@dataclass(frozen=True, slots=True)
class Line:
    """A row with its figures. ``ratio`` and ``reached`` are of Lattice to etcd, the others to tuned etcd; None where
    there is nothing to compare."""

    title: str
    values: dict[str, float]
    """By column; absent where it was not measured."""
    shown: dict[str, str]
    goal: str
    ratio: float | None = None
    reached: bool | None = None
    ratio_to_tuned: float | None = None
    reached_tuned: bool | None = None
    turns: dict[str, list[float]] = field(default_factory=dict)
    """What each turn gave."""


def rows(figures: Figures, columns: Sequence[str]) -> list[Line]:
    """The table as data: a line for each row of which anything was measured."""
    lines = [line for row in ROWS if (line := _line_of(row, figures, columns)) is not None]
    return [*lines, *_command_lines(figures), *_growth_lines(figures, columns)]


def _line_of(row: Row, figures: Figures, columns: Sequence[str]) -> Line | None:
    measured = figures.get(row.figures, {})
    turns = {column: [row.pick(turn) for turn in measured[column]] for column in columns if column in measured}
    values = {column: row.gather(found) for column, found in turns.items()}
    if not values:
        return None
    ours = values.get(OURS)

    def ratio_to(column: str) -> float | None:
        theirs = values.get(column)
        return ours / theirs if ours is not None and theirs else None

    def reached(column: str) -> bool | None:
        if row.reached is None or ours is None or column not in values:
            return None
        return row.reached(ours, values[column])

    return Line(
        title=row.title,
        values=values,
        shown={column: row.show(value) for column, value in values.items()},
        goal=row.goal,
        ratio=ratio_to(ETCD),
        reached=reached(ETCD),
        ratio_to_tuned=ratio_to(TUNED),
        reached_tuned=reached(TUNED),
        turns=turns,
    )


COMMAND_GOAL = 1.4


def _command_lines(figures: Figures) -> list[Line]:
    times = figures.get("command")
    if not times:
        return []
    get, imports = statistics.median(times["lattice get"]), statistics.median(times["imports"])
    return [
        Line(
            title="`lattice get`, whole process, to imports only",
            values={OURS: get * 1000, ETCD: imports * 1000},
            shown={OURS: ms(get * 1000), ETCD: f"({ms(imports * 1000)})"},
            goal=f"at most {COMMAND_GOAL} x",
            ratio=get / imports,
            reached=get <= COMMAND_GOAL * imports,
            turns=dict(times),
        )
    ]


FLAT = 1.15
"""More than noise: what a hundred times as many keys may add to the cost of a write."""


def _growth_lines(figures: Figures, columns: Sequence[str]) -> list[Line]:
    measured = figures.get("growth", {})
    costs = {
        column: {turn["keys"]: float(turn["cpu_us_per_put"]) for turn in measured[column]}
        for column in columns
        if column in measured
    }
    sizes = sorted({keys for cost in costs.values() for keys in cost})
    lines = []
    for keys in sizes:
        values = {column: cost[keys] for column, cost in costs.items() if keys in cost}
        ours, theirs, first = values.get(OURS), values.get(ETCD), costs.get(OURS, {}).get(sizes[0])
        grown = keys != sizes[0] and ours is not None and first is not None
        lines.append(
            Line(
                title=f"CPU of all members for a put, {keys:,} keys",
                values=values,
                shown={column: f"{value:.0f} us" for column, value in values.items()},
                goal="flat" if keys != sizes[0] else "",
                ratio=ours / theirs if ours and theirs else None,
                reached=ours <= FLAT * first if grown and ours is not None and first is not None else None,
            )
        )
    return lines


def text(lines: Iterable[Line], columns: Sequence[str], headings: dict[str, str]) -> str:
    """The table for a terminal and, as it is, for documentation. ``headings``: of the columns."""
    lines = list(lines)
    tuned = TUNED in columns
    heads = ["", *(headings[column] for column in columns), "ratio", "goal", ""]
    if tuned:
        heads += ["to tuned", ""]
    cells = [heads]
    for line in lines:
        row = [line.title, *(line.shown.get(column, "") for column in columns)]
        row += [_ratio(line.ratio), line.goal, _verdict(line.reached)]
        if tuned:
            row += [_ratio(line.ratio_to_tuned), _verdict(line.reached_tuned)]
        cells.append(row)
    widths = [max(2, *(len(row[column]) for row in cells)) for column in range(len(heads))]
    rule = ["-" * width if column == 0 else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join(_padded(row, widths) for row in (cells[0], rule, *cells[1:])) + "\n"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} x"


def _verdict(reached: bool | None) -> str:
    return {True: "yes", False: "NO", None: ""}[reached]


def _padded(cells: Sequence[str], widths: Sequence[int]) -> str:
    """The first column to the left, figures to the right."""
    figures = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return "| " + " | ".join([cells[0].ljust(widths[0]), *figures]) + " |"
