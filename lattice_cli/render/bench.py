"""What ``lattice bench`` shows: a live view on stderr while it runs, figures and a histogram on stdout at the end.

Everything fits 40 columns; bars and sparklines are letters where the terminal cannot show blocks.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, Any, TextIO

from lattice_cli.render.lines import record

if TYPE_CHECKING:
    from lattice_cli.bench.histogram import Histogram
    from lattice_cli.bench.plan import Plan
    from lattice_cli.bench.run import Result
    from lattice_cli.bench.tally import Tally

BLOCKS = "▁▂▃▄▅▆▇█"
LETTERS = "_.-=+*%#"
FULL_BLOCK = "█"
FULL_LETTER = "#"

STEPS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
"""Edges of the histogram's rows within a decade, chosen to look evenly spaced."""

FINE_STEPS = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0)
"""The same where all values are within a decade."""

PERCENTILES = (50.0, 90.0, 99.0, 99.9)


def document(result: Result) -> dict[str, Any]:
    """CLI.md's fields, and more."""
    plan, tally = result.plan, result.tally
    latencies = tally.latencies()
    found: dict[str, Any] = {
        "ops": tally.count,
        "seconds": round(tally.seconds, 3),
        "ops_per_second": round(per_second(tally), 1),
        "p50_ms": milliseconds(latencies.percentile(50)),
        "p99_ms": milliseconds(latencies.percentile(99)),
        "max_ms": milliseconds(latencies.largest),
        "errors": tally.errors.total(),
        "callers": plan.callers,
        "p90_ms": milliseconds(latencies.percentile(90)),
        "p999_ms": milliseconds(latencies.percentile(99.9)),
        "mean_ms": milliseconds(latencies.mean),
        "longest_gap_ms": milliseconds(tally.longest_gap_ns),
        "oldest_unanswered_ms": milliseconds(tally.oldest_unanswered_ns),
        "errors_by_kind": dict(sorted(tally.errors.items())),
        "mix": plan.mix,
        "value_size": plan.value_bytes,
        "keys": plan.keys,
        "processes": plan.processes,
        "rate": plan.rate,
        "read_consistency": plan.read_consistency,
        "warm_up_seconds": plan.warm_up_seconds,
        "client_cpu_seconds": round(tally.cpu_seconds, 3),
        "interrupted": result.interrupted,
    }
    if plan.mix == "mixed":
        found["puts"], found["gets"] = _part(tally.puts), _part(tally.gets)
    return found


def _part(histogram: Histogram) -> dict[str, Any]:
    return {
        "ops": histogram.count,
        "p50_ms": milliseconds(histogram.percentile(50)),
        "p99_ms": milliseconds(histogram.percentile(99)),
        "max_ms": milliseconds(histogram.largest),
    }


def milliseconds(nanoseconds: float) -> float:
    return round(nanoseconds / 1e6, 3)


def per_second(tally: Tally) -> float:
    return tally.count / tally.seconds if tally.seconds > 0 else 0.0


def report_line(result: Result) -> None:
    """ops, seconds, ops a second, p50, p99, max in ms, errors, callers."""
    found = document(result)
    names = ("ops", "seconds", "ops_per_second", "p50_ms", "p99_ms", "max_ms", "errors", "callers")
    record(*(found[name] for name in names))


def report(result: Result, *, no_color: bool) -> None:
    """For a person."""
    from rich.text import Text

    from lattice_cli.render.console import data_console

    console = data_console(no_color=no_color)
    plan, tally = result.plan, result.tally
    latencies = tally.latencies()
    console.print(Text(f"{per_second(tally):,.0f} {_what(plan)} a second", style="bold"), soft_wrap=True)
    early = ", interrupted" if result.interrupted else ""
    rows = [
        ("ops", f"{tally.count:,} in {tally.seconds:.1f} s{early}"),
        ("callers", f"{plan.callers:,}" + (f" in {plan.processes} processes" if plan.processes > 1 else "")),
        ("errors", _errors(tally)),
        ("longest gap", duration(tally.longest_gap_ns)),
    ]
    if tally.oldest_unanswered_ns > latencies.largest:
        # The slowest of all is missing from the latencies: it has none yet.
        rows.append(("unanswered", f"one for {duration(tally.oldest_unanswered_ns)} at the end"))
    if plan.rate is not None:
        rows.append(("rate asked", f"{plan.rate:,.0f}/s; latency from when due"))
    if plan.mix == "mixed":
        for name, part in (("puts" if not plan.recorded else "writes", tally.puts), ("gets", tally.gets)):
            middle, worst = (duration(part.percentile(percent)) for percent in (50, 99))
            rows.append((name, f"{part.count:,}, p50 {middle}, p99 {worst}"))
    rows += [(f"p{percent:g}", duration(latencies.percentile(percent))) for percent in PERCENTILES]
    rows.append(("max", duration(latencies.largest)))
    for name, value in rows:
        console.print(Text.assemble((f"{name:<13}", "bold"), value), soft_wrap=True)
    for line in histogram_lines(latencies, console.width, blocks=can_show_blocks(sys.stdout)):
        console.print(Text(line), soft_wrap=True)


def _what(plan: Plan) -> str:
    return {"put": "puts", "get": "gets", "mixed": "operations"}[plan.mix]


def _errors(tally: Tally) -> str:
    if not tally.errors:
        return "0"
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in tally.errors.most_common())
    return f"{tally.errors.total():,} ({kinds}); the last: {tally.last_error}"


def duration(nanoseconds: float) -> str:
    """Three digits and a unit."""
    for limit, divisor, unit in ((1e3, 1, "ns"), (1e6, 1e3, "us"), (1e9, 1e6, "ms")):
        if nanoseconds < limit:
            return f"{_three(nanoseconds / divisor)} {unit}"
    return f"{_three(nanoseconds / 1e9)} s"


def _three(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


# -- histogram ----------------------------------------------------------------------------------------


def histogram_lines(histogram: Histogram, width: int, *, blocks: bool = True) -> list[str]:
    """Rows from the quickest to the slowest: upper edge, bar, count. Long tails share a row at the end."""
    if not histogram.count:
        return []
    edges = _edges(histogram)
    counts = histogram.counts_between(edges)
    labels = [f"< {duration(edge)}" for edge in edges] + [f">= {duration(edges[-1])}" if edges else "all"]
    first = next(row for row, count in enumerate(counts) if count)
    last = max(row for row, count in enumerate(counts) if count)
    numbers = [f"{count:,}" for count in counts[first : last + 1]]
    label_width = max(len(label) for label in labels[first : last + 1])
    number_width = max(len(number) for number in numbers)
    room = max(4, min(width, 100) - label_width - number_width - 3)
    most = max(counts)
    full = FULL_BLOCK if blocks else FULL_LETTER
    lines = []
    for row, number in zip(range(first, last + 1), numbers, strict=True):
        count = counts[row]
        # What is there is seen, if only just.
        bar = full * max(round(room * count / most), 1 if count else 0)
        lines.append(f"{labels[row]:>{label_width}} {bar:<{room}} {number:>{number_width}}")
    return lines


MAX_ROWS = 18


def _edges(histogram: Histogram) -> list[int]:
    """Upper edges in nanoseconds that cover what was recorded; coarser where that would be too many rows."""
    smallest = histogram.smallest or 0
    decade = 1
    while decade * 10 <= max(smallest, 1):
        decade *= 10
    steps = FINE_STEPS if histogram.largest < 10 * smallest else STEPS
    edges: list[int] = []
    while not edges or edges[-1] <= histogram.largest:
        edges += [round(decade * step) for step in steps]
        decade *= 10
    edges = [edge for edge in edges if edge > smallest]
    edges = edges[: next(at for at, edge in enumerate(edges) if edge > histogram.largest) + 1]
    if len(edges) > MAX_ROWS:
        # The middle half second of a long tail is all the same: rows are for where most values are.
        keep = edges[: MAX_ROWS - 3]
        rest = edges[MAX_ROWS - 3 :]
        edges = [*keep, rest[len(rest) // 3], rest[2 * len(rest) // 3], rest[-1]]
    return edges


def can_show_blocks(stream: TextIO) -> bool:
    """Whether the stream's encoding has the block characters."""
    try:
        BLOCKS.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def sparkline(values: list[float], *, blocks: bool = True) -> str:
    """One character a value, the largest of them at full height."""
    marks = BLOCKS if blocks else LETTERS
    most = max(values, default=0.0)
    if most <= 0:
        return marks[0] * len(values)
    return "".join(marks[min(len(marks) - 1, int(value / most * (len(marks) - 1) + 0.5))] for value in values)


# -- while it runs ------------------------------------------------------------------------------------


class LiveView:
    """Time, rate, latency and a sparkline of the rate, on stderr if that is a terminal; else nothing."""

    def __init__(self, plan: Plan, *, no_color: bool) -> None:
        self._plan = plan
        self._live: Any = None
        self._rates: deque[float] = deque(maxlen=60)
        self._last_count = 0
        self._last_ns = 0
        self._blocks = can_show_blocks(sys.stderr)  # now: the live view puts something else in its place
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(file=sys.stderr, no_color=no_color or None, highlight=False)
            # Drawn when there is something new, not by a thread of its own.
            self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> LiveView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, tally: Tally) -> None:
        if self._live is None:
            return
        import time

        from rich.text import Text

        now = time.monotonic_ns()
        if now < tally.start_ns:
            left = (tally.start_ns - now) / 1e9
            self._live.update(Text(f"warming up, {left:.0f} s", style="dim"), refresh=True)
            return
        since = self._last_ns or tally.start_ns
        rate = (tally.count - self._last_count) / max((now - since) / 1e9, 1e-3)
        self._last_count, self._last_ns = tally.count, now
        self._rates.append(rate)
        width = self._live.console.width
        self._live.update(Text("\n".join(self._lines(tally, now, rate, width))), refresh=True)

    def _lines(self, tally: Tally, now: int, rate: float, width: int) -> list[str]:
        latencies = tally.latencies()
        middle, worst = (duration(latencies.percentile(percent)) for percent in (50, 99))
        seconds = (now - tally.start_ns) / 1e9
        lines = [
            f"{seconds:.0f} of {self._plan.seconds:g} s  {rate:,.0f} {_what(self._plan)}/s",
            f"p50 {middle}  p99 {worst}  errors {tally.errors.total():,}",
            sparkline(list(self._rates)[-width + 1 :], blocks=self._blocks),
        ]
        return [line[: width - 1] for line in lines]
