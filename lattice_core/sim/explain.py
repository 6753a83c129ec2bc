"""A run as one HTML page on which an election and a log repair can be seen.

Lanes for the nodes, time across; terms are colours, messages arrows. The page needs nothing but itself and
a browser, follows the reader's light or dark setting, and is a function of the plan: the same plan gives the
same bytes. ``explain_template.html``, ``explain.js`` and ``explain_ui.js`` draw what
:mod:`~lattice_core.sim.explain_data` takes from the recorder, and tell what
:mod:`~lattice_core.sim.explain_stories` finds in it.

Limits. A page holds :data:`MAX_MESSAGES` messages and :data:`MAX_PAGE_BYTES`. Of a run with more it shows a
window: around the moment asked for, else around the first violation, else from the start; and says so. Where
the recorder has not kept that part, the plan is run once more to record it. Clients, and streams of
snapshots, are not drawn.
"""

from __future__ import annotations

import html
import json
from importlib import resources
from pathlib import Path
from typing import Any, Final

from lattice_core.sim import explain_data as data
from lattice_core.sim import explain_stories as stories
from lattice_core.sim.plan import FAULT_KINDS, Plan
from lattice_core.sim.recorder import Recorder
from lattice_core.sim.runner import Report, run

MAX_MESSAGES: Final = 40_000
"""What a browser draws at once without stutter, and about 2 MB of page."""
MAX_PAGE_BYTES: Final = 4_800_000
LEAD_NS: Final = 30_000_000_000
"""How much of a long run is shown before the moment that matters: an isolated leader and what it leads to."""
TAIL_NS: Final = 10_000_000_000
FORMAT: Final = 1


def write_explanation(
    path: str | Path, plan: Plan, report: Report, recorder: Recorder, *, around_seconds: float | None = None
) -> None:
    """Draw ``report``'s run, as ``recorder`` has seen it, into the file ``path``.

    Args:
        path: where to write; what is there is replaced.
        plan: what was run.
        report: what came of it.
        recorder: the one that ``run`` was given.
        around_seconds: the moment, in simulated seconds, to open the page at, and to embed the
            surroundings of if the run is too long for one page. Default: the first violation if there is one,
            else the start and the first election.
    """
    page = render_explanation(plan, report, recorder, around_seconds=around_seconds)
    Path(path).write_text(page, encoding="utf-8")


def render_explanation(plan: Plan, report: Report, recorder: Recorder, *, around_seconds: float | None = None) -> str:
    """The HTML; see :func:`write_explanation`."""
    moment_ns = _moment(report) if around_seconds is None else round(around_seconds * 1e9)
    end_ns = round(report.simulated_seconds * 1e9)
    if moment_ns is not None:
        moment_ns = min(max(moment_ns, 0), end_ns)
        start_ns, stop_ns = max(0, moment_ns - LEAD_NS), min(end_ns, moment_ns + TAIL_NS)
        covered = recorder.from_ns <= start_ns and (recorder.full_ns is None or recorder.full_ns > stop_ns)
        if not covered:
            recorder = Recorder(limit=8 * MAX_MESSAGES, from_ns=start_ns)
            run(plan, recorder=recorder)
    budget = MAX_MESSAGES
    while True:
        window = _window(recorder, end_ns, moment_ns, budget)
        page = _page(plan, report, recorder, window, moment_ns if around_seconds is not None else None, end_ns)
        if len(page.encode()) <= MAX_PAGE_BYTES or budget < 100:
            return page
        budget //= 2


def document_of(
    plan: Plan, report: Report, recorder: Recorder, window: data.Window, moment_ns: int | None, end_ns: int
) -> dict[str, Any]:
    """Everything that the page shows, as it is embedded."""
    places = data.Places(recorder, window)
    strings = data.Strings()
    machines = data.Machines(recorder)
    sent = data.sent_of(recorder, machines, window)
    base, changes, truncations = data.logs_of(recorder, places, window)
    mail = stories.Mail(sent)
    repairs = stories.repairs(recorder, mail, truncations)
    found = {
        "election": stories.elections(recorder, mail, window),
        "repair": repairs,
        "catch-up": stories.catch_ups(sent, mail, repairs),
        "membership": stories.changes(recorder, window),
    }
    settings, network = plan.settings, plan.network
    return {
        "format": FORMAT,
        "seed": plan.seed,
        "nodes": plan.nodes,
        "servers": places.servers,
        "plant": plan.plant,
        "hash": report.trace_hash,
        "events": report.events,
        "end": data.us(end_ns),
        "planned": plan.duration_ms * 1000,
        "healed": None if recorder.healed_ns is None else data.us(recorder.healed_ns),
        "elections": report.elections,
        "writes": report.acknowledged_writes,
        "operations": report.operations,
        "settings": {
            "heartbeat": settings.heartbeat_ms,
            "election": [settings.election_min_ms, settings.election_max_ms],
            "delay": [network.delay_min_us, network.delay_mean_us],
            "drop": network.drop,
            "duplicate": network.duplicate,
        },
        "faults": [[kind, count, FAULT_KINDS.get(kind, "")] for kind, count in sorted(report.faults.items())],
        "membership": [[what, count] for what, count in sorted(report.changes.items())],
        "violations": [
            [one["check"], one["message"], data.us(_violation_ns(report, place))]
            for place, one in enumerate(report.violations)
        ],
        "window": [data.us(window.from_ns), data.us(window.to_ns)],
        "open": None if moment_ns is None else data.us(moment_ns),
        "roles": data.ROLES,
        "kinds": data.KINDS,
        "lanes": data.lanes_of(recorder, places, window, strings),
        "pauses": [
            [data.us(start), data.us(machines.first_down(node, start, end)), places[node]]
            for start, end, node in recorder.pauses
            if window.overlaps(start, end) and places[node]
        ],
        "cuts": data.cuts_of(recorder, places, window),
        "struck": [
            [data.us(at), places[node], strings.place(fault.kind), strings.place(data.fault_text(fault, node))]
            for at, fault, node in recorder.faults
            if at in window
        ],
        "notes": [
            [data.us(at), places[node], strings.place(text)]
            for at, node, text in recorder.notes
            if at in window and "snapshot" in text
        ],
        "configurations": data.configurations_of(recorder, places, window, strings),
        "commits": data.commits_of(recorder, places, window),
        "logs": base,
        "changes": changes,
        "truncations": [
            [
                data.us(cut.at_ns),
                places[cut.node],
                cut.first,
                cut.last,
                list(cut.terms),
                stories.committed_of(recorder, cut) or 0,
            ]
            for cut in truncations
        ],
        "stories": {kind: [story.to_json(places) for story in of_kind] for kind, of_kind in found.items()},
        "messages": data.messages_of(sent, places),
        "strings": strings.texts,
    }


def embed(document: Any) -> str:
    """JSON that may stand inside a ``<script>``: nothing in it can end the element or begin another."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _page(
    plan: Plan, report: Report, recorder: Recorder, window: data.Window, moment_ns: int | None, end_ns: int
) -> str:
    document = document_of(plan, report, recorder, window, moment_ns, end_ns)
    joined = len({node for _, node, *_ in recorder.ups}) - plan.nodes
    more = f" and {joined} more" if joined > 0 else ""
    title = f"Lattice, seed {plan.seed}: {_count(plan.nodes, 'node')}{more}, {report.simulated_seconds:.1f} s"
    script = _asset("explain.js") + _asset("explain_ui.js")
    if "</script" in script.lower():
        raise AssertionError("the script would end its own element")
    parts = {"TITLE": html.escape(title), "SCRIPT": script, "DATA": embed(document)}
    page = _asset("explain_template.html")
    for name, text in parts.items():  # the data come last, so nothing in them is taken for a place
        page = page.replace(f"@@{name}@@", text)
    return page


def _asset(name: str) -> str:
    return resources.files("lattice_core.sim").joinpath(name).read_text(encoding="utf-8")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _moment(report: Report) -> int | None:
    return _violation_ns(report, 0) if report.violations else None


def _violation_ns(report: Report, place: int) -> int:
    """When it happened: what a checker finds at the end happened where the culprit returned."""
    verdict = report.verdict
    if place == 0 and verdict is not None and verdict.counterexample is not None:
        culprit = verdict.counterexample.operations[verdict.counterexample.culprit]
        return int(culprit.call_ns if culprit.return_ns is None else culprit.return_ns)
    return round(float(report.violations[place]["simulated_seconds"]) * 1e9)


def _window(recorder: Recorder, end_ns: int, moment_ns: int | None, budget: int) -> data.Window:
    """What fits: the whole run, else at most ``budget`` messages, three quarters of them before the moment."""
    times = [sent_ns for sent_ns, _, _ in recorder.messages]
    whole = recorder.from_ns == 0 and recorder.full_ns is None and len(times) <= budget
    if whole or not times:
        return data.Window(recorder.from_ns, end_ns)
    last_ns = end_ns if recorder.full_ns is None else recorder.full_ns - 1
    if moment_ns is None:
        return data.Window(recorder.from_ns, times[budget] - 1 if len(times) > budget else last_ns)
    start_ns, stop_ns = max(recorder.from_ns, moment_ns - LEAD_NS), min(last_ns, moment_ns + TAIL_NS)
    before = [at for at in times if start_ns <= at <= moment_ns]
    after = [at for at in times if moment_ns < at <= stop_ns]
    room = budget * 3 // 4
    if len(before) > room:
        start_ns = before[-room - 1] + 1
    if len(after) > budget - room:
        stop_ns = after[budget - room] - 1
    return data.Window(start_ns, stop_ns)
