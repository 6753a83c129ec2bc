"""The page of a run stands alone, holds what happened, and tells it truly."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lattice_core.raft import messages as m
from lattice_core.raft.types import Entry
from lattice_core.sim import explain, explain_data, explain_stories
from lattice_core.sim.explain import document_of, embed, render_explanation, write_explanation
from lattice_core.sim.explain_data import DEAD_LETTER, DELIVERED, LOST, Window
from lattice_core.sim.plan import FAULT_KINDS, Change, Clock, Fault, Plan
from lattice_core.sim.recorder import LogShape, Recorder, runs_of
from lattice_core.sim.runner import Report, run

Run = tuple[Plan, Report, Recorder]
DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


def plan_of(*faults: Fault, seconds: int = 12) -> Plan:
    """Five nodes on a quick network on which only ``faults`` go wrong."""
    return Plan(seed=7, nodes=5, duration_ms=seconds * 1000, clocks=(Clock(),) * 5, faults=faults)


def recorded(plan: Plan, recorder: Recorder | None = None) -> Run:
    recorder = recorder or Recorder()
    return plan, run(plan, recorder=recorder), recorder


def data_of(page: str) -> dict[str, Any]:
    found = DATA.search(page)
    assert found is not None
    document = json.loads(found.group(1))
    assert isinstance(document, dict)
    return document


def document(made: Run, window: Window | None = None) -> dict[str, Any]:
    plan, report, recorder = made
    end_ns = round(report.simulated_seconds * 1e9)
    found = document_of(plan, report, recorder, window or Window(0, end_ns), None, end_ns)
    loaded = json.loads(json.dumps(found))
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture(scope="module")
def busy() -> Run:
    """A leader that is cut off with entries that nobody has, a crash, a pause, and lost messages."""
    return recorded(
        plan_of(
            Fault(2500, "isolate-after-append", for_ms=2500),
            Fault(6200, "crash", node=2, for_ms=700),
            Fault(7500, "pause", node=3, for_ms=900),
            Fault(9000, "one-way", node=1, other=4, for_ms=500),
        )
    )


class Parts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in ("meta", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_nothing_from_outside(busy: Run, tmp_path: Path) -> None:
    path = tmp_path / "run.html"
    write_explanation(path, *busy)
    page = path.read_text(encoding="utf-8")
    parts = Parts()
    parts.feed(page)
    assert parts.open == []
    assert parts.addresses == []
    assert not {"link", "img", "iframe", "object", "embed"} & set(parts.tags)
    assert parts.tags.count("script") == 2
    # The one address is the name of a namespace, which nothing loads.
    assert set(re.findall(r"https?://[^\"'\s]+", page)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest|import\(", page)
    assert "@@" not in page
    assert "<title>Lattice, seed 7: 5 nodes" in page


def test_the_same_plan_gives_the_same_bytes(busy: Run) -> None:
    assert render_explanation(*busy) == render_explanation(*recorded(busy[0]))


def test_recording_changes_nothing_in_the_run(busy: Run) -> None:
    plan, report, _ = busy
    assert run(plan).trace_hash == report.trace_hash


def test_every_message_is_on_the_page_as_it_was_sent(busy: Run) -> None:
    found, recorder = document(busy), busy[2]
    columns = found["messages"]
    assert {len(column) for column in columns.values()} == {len(recorder.messages)}
    sent = 0
    kinds: set[str] = set()
    rows = zip(*(columns[name] for name in ("code", "sent", "took", "term", "more")), strict=True)
    for (code, delta, took, term, more), (sent_ns, due_ns, message) in zip(rows, recorder.messages, strict=True):
        sent += delta
        kind, fate = found["kinds"][code & 15], code >> 20 & 3
        kinds.add(kind)
        assert (code >> 4 & 255, code >> 12 & 255, term) == (message.sender, message.to, message.term)
        assert sent == sent_ns // 1000
        assert (took < 0) == (due_ns is None) == (fate == LOST)
        if due_ns is not None:
            assert sent + took >= due_ns // 1000
        if isinstance(message, m.AppendEntries):
            assert kind == ("append" if message.entries else "probe")
            assert more[:3] == [message.prev_log_index, message.prev_log_term, message.leader_commit]
            assert more[3:4] == ([len(message.entries)] if message.entries else [])
        elif isinstance(message, m.VoteResponse | m.PreVoteResponse):
            assert more == [int(message.granted)]
        elif isinstance(message, m.AppendConflict):
            assert kind == "conflict"
            assert more[0] == message.rejected_index
    assert kinds >= {"pre-vote", "vote", "vote answer", "append", "append answer", "conflict", "heartbeat"}


def test_what_reaches_a_machine_that_is_down_is_lost_and_a_pause_delays_it(busy: Run) -> None:
    found = document(busy)
    (down,) = [item for item in found["lanes"][1] if found["roles"][item[1]] == "down"]
    up = next(item[0] for item in found["lanes"][1] if item[0] > down[0])
    ((paused, resumed, node),) = found["pauses"]
    assert node == 3
    assert (up - down[0], resumed - paused) == (700_000, 900_000)
    sent, fates = 0, set()
    for code, delta, took in zip(*(found["messages"][name] for name in ("code", "sent", "took")), strict=True):
        sent += delta
        if took < 0:
            continue
        at, to, fate = sent + took, code >> 12 & 255, code >> 20 & 3
        if to == 2 and down[0] < at < up:
            fates.add(fate)
        else:
            assert fate == DELIVERED
        assert not (to == 3 and paused <= at < resumed)
    assert fates == {DEAD_LETTER}


def test_cuts_say_who_does_not_hear_whom(busy: Run) -> None:
    cuts = document(busy)["cuts"]
    whole = [cut for cut in cuts if len(cut[3]) == len(cut[4]) == 4]
    assert len(whole) == 1
    start, end, leader, _, _ = whole[0]
    assert end - start == 2_500_000
    others = [cut for cut in cuts if cut[0] == start and cut[2] != leader]
    assert [cut[3:] for cut in others] == [[[leader], [leader]]] * 4
    assert [cut[2:] for cut in cuts if cut[0] > end] == [[1, [4], []], [4, [], [1]]]


def test_an_election_is_told_step_by_step(busy: Run) -> None:
    found = document(busy)
    stories = found["stories"]["election"]
    assert len(stories) == busy[1].elections >= 2
    at, first, last, title, (node, *_), steps = stories[1]
    assert re.fullmatch(rf"n{node} is elected leader of term \d+", title)
    assert first <= at <= last
    assert [step[0] for step in steps] == sorted(step[0] for step in steps)
    told = "\n".join(step[2] for step in steps)
    for part in (
        "would you vote for me?",
        "a majority: 3 of 5 do",
        "votes for itself and asks the others",
        "gives its vote in term",
        "has 3 of 5 votes and leads term",
        "It is on a majority: committed",
    ):
        assert part in told
    assert [at, 3] in [item[:2] for item in found["lanes"][node - 1]]


def test_a_log_repair_is_told_and_leaves_the_logs_alike(busy: Run) -> None:
    found = document(busy)
    assert found["truncations"]
    stories = found["stories"]["repair"]
    assert [story[0] for story in stories] == [cut[0] for cut in found["truncations"]]
    at, node, first, last, terms, committed = found["truncations"][0]
    assert committed == 0
    told = "\n".join(step[2] for step in stories[0][5])
    assert f"n{node} drops " in told
    assert "They were never committed" in told
    assert "repaired" in told
    logs = {number: LogShape() for number in range(1, 6)}
    for changed_at, changed, cut, begin, flat in found["changes"]:
        if (changed_at, changed) == (at, node):
            shape = logs[node]
            assert (cut, shape.last_index) == (first, last)
            assert {shape.term_at(index) for index in range(first, last + 1)} == set(terms)
        runs = tuple(zip(flat[::2], flat[1::2], strict=True))
        logs[changed].change(None if cut < 0 else cut, begin, runs)
    assert len({tuple(shape.runs) for shape in logs.values()}) == 1


def test_a_later_window_begins_with_the_logs_as_they_were_then(busy: Run) -> None:
    plan, report, _ = busy
    middle_ns, end_ns = 6_500_000_000, round(report.simulated_seconds * 1e9)
    later = recorded(plan, Recorder(from_ns=middle_ns))
    assert document(later, Window(middle_ns, end_ns)) == document(busy, Window(middle_ns, end_ns))


def test_a_violation_is_on_the_page_at_its_time() -> None:
    plans = (Plan.from_seed(seed, hours=0.02, plant="truncate-on-any-append") for seed in range(7, 27))
    made = next(one for one in map(recorded, plans) if one[1].failed)
    _, report, recorder = made
    found = data_of(render_explanation(*made))
    ((check, message, at),) = found["violations"]
    assert (check, message) == (report.violations[0]["check"], report.violations[0]["message"])
    assert at == round(report.violations[0]["simulated_seconds"] * 1e6)
    assert found["plant"] == "truncate-on-any-append"
    assert found["window"] == [0, found["end"]]
    assert not recorder.truncated


def test_a_dropped_entry_that_was_committed_is_called_what_it_is() -> None:
    recorder = Recorder()
    recorder.commits.append((5, 1, 8, 2))
    cut = explain_data.Truncation(9, 3, 7, 9, (2,))
    (story,) = explain_stories.repairs(recorder, explain_stories.Mail([]), [cut])
    assert "But 8 was committed already! This must never happen." in story.steps[0][2]


def test_a_run_that_is_too_long_shows_a_window_and_says_so(busy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, report, recorder = busy
    monkeypatch.setattr(explain, "MAX_MESSAGES", 300)
    monkeypatch.setattr(explain, "LEAD_NS", 2_000_000_000)
    first = data_of(render_explanation(plan, report, recorder))
    assert first["window"][0] == 0
    assert first["window"][1] < first["end"]
    assert len(first["messages"]["code"]) <= 300
    assert first["stories"]["election"]
    around = data_of(render_explanation(plan, report, recorder, around_seconds=7.0))
    start, end = around["window"]
    assert 5_000_000 <= start < 7_000_000 <= end
    assert around["open"] == 7_000_000
    assert 100 < len(around["messages"]["code"]) <= 300


def test_what_the_recorder_has_not_kept_is_recorded_again(busy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "LEAD_NS", 1_000_000_000)
    monkeypatch.setattr(explain, "TAIL_NS", 1_000_000_000)
    short = recorded(busy[0], Recorder(limit=200))
    assert short[2].truncated
    found = data_of(render_explanation(*short, around_seconds=9.0))
    assert found["window"] == [8_000_000, 10_000_000]
    assert len(found["messages"]["code"]) > 50


def test_a_page_never_grows_beyond_its_bound(busy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = len(render_explanation(*busy))
    monkeypatch.setattr(explain, "MAX_PAGE_BYTES", whole - 20_000)
    page = render_explanation(*busy)
    assert len(page) <= whole - 20_000
    assert data_of(page)["window"][1] < data_of(page)["end"]


@pytest.mark.parametrize("evil", ["</script><script>alert(1)</script>", "<!--<script>", "]]>&lt;\u2028\u2029'\"\\"])
def test_no_text_of_a_run_can_become_a_part_of_the_page(busy: Run, evil: str) -> None:
    plan, report, recorder = busy
    hurt = dataclasses.replace(report, violations=[{"check": evil, "message": evil, "simulated_seconds": 1.0}])
    page = render_explanation(plan, hurt, recorder)
    parts = Parts()
    parts.feed(page)
    assert parts.tags.count("script") == 2
    assert "alert(1)</script>" not in page
    assert data_of(page)["violations"][0][:2] == [evil, evil]
    assert not re.search(r"[<>&\u2028\u2029]", embed({"evil": evil}))


def test_texts_reach_the_page_as_text_only() -> None:
    for name in ("explain.js", "explain_ui.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", explain._asset(name))


@pytest.fixture(scope="module")
def changing() -> Run:
    """A server joins and becomes a voter, another one leaves and is taken away, and once more; so ids run ahead."""
    changes = (Change(2000, "add"), Change(5000, "remove-follower"), Change(8000, "replace", pick=1))
    plan = dataclasses.replace(plan_of(seconds=14), nodes=3, clocks=(Clock(),) * 3, changes=changes)
    return recorded(plan)


def test_servers_that_come_and_go_have_a_lane_while_they_are_there(changing: Run) -> None:
    found, (_, report, recorder) = document(changing), changing
    assert not report.violations
    assert found["servers"] == [1, 2, 3, 4, 5]
    assert found["nodes"] == 3
    absent = found["roles"].index("not there")
    for server, lane in zip(found["servers"], found["lanes"], strict=True):
        begun = min(at for at, node, *_ in recorder.ups if node == server)
        there = [item for item in lane if item[1] != absent]
        assert there[0][0] == begun // 1000
        assert (lane[0][1] == absent) == (begun > 0)
    ended = {node: at // 1000 for at, node in recorder.ends}
    assert len(ended) == 2
    for server, at in ended.items():
        assert found["lanes"][server - 1][-1][:2] == [at, absent]
    assert re.search(r"<title>Lattice, seed 7: 3 nodes and 2 more", render_explanation(*changing))


def test_a_window_shows_only_the_servers_that_are_there_in_it(changing: Run) -> None:
    _, report, recorder = changing
    end_ns = round(report.simulated_seconds * 1e9)
    (_, first), (_, second) = recorder.ends
    late = document(changing, Window(end_ns - 1_000_000_000, end_ns))
    assert late["servers"] == [server for server in (1, 2, 3, 4, 5) if server not in (first, second)]
    assert {len(late[name]) for name in ("lanes", "logs", "servers")} == {3}
    numbers = {code >> shift & 255 for code in late["messages"]["code"] for shift in (4, 12)}
    assert numbers <= {1, 2, 3}
    early = document(changing, Window(0, min(at for at, node, *_ in recorder.ups if node == 4) - 1))
    assert early["servers"] == [1, 2, 3]


def test_a_membership_change_is_told_step_by_step(changing: Run) -> None:
    found = document(changing)
    told = found["stories"]["membership"]
    joint = [story for story in told if "together with" in story[3]]
    assert len(joint) == 3, "a promotion, a removal, a replacement"
    steps = "\n".join(step[2] for step in joint[0][5])
    assert "3 of 4 and 2 of 3 (section 6)" in steps
    assert "knows that it is committed" in steps
    assert steps.count("has it in its log, and uses it") >= 3
    used = {found["strings"][what]: joint for _, _, what, joint in found["configurations"]}
    assert any("together with" in text and joint for text, joint in used.items())
    assert found["membership"] == [["add: done", 1], ["remove-follower: done", 1], ["replace: done", 1]]


def test_an_election_of_changed_members_counts_them_as_they_are() -> None:
    changes = (Change(2000, "add"), Change(5000, "remove-leader"))
    plan = dataclasses.replace(plan_of(seconds=10), nodes=3, clocks=(Clock(),) * 3, changes=changes)
    found = document(recorded(plan))
    last = "\n".join(step[2] for step in found["stories"]["election"][-1][5])
    assert "has 2 of 3 votes" in last


def test_every_kind_of_fault_has_its_words() -> None:
    for kind in FAULT_KINDS:
        assert len(explain_data.fault_text(Fault(0, kind, 1, 2, 30, 4.0), 1)) > 20, kind


def test_a_log_is_known_by_the_runs_of_its_terms() -> None:
    shape = LogShape(3, runs_of([Entry(4, 1, None), Entry(5, 1, None), Entry(6, 3, None)]))
    assert shape.runs == [(1, 5), (3, 6)]
    assert [shape.term_at(index) for index in (3, 4, 5, 6, 7)] == [None, 1, 1, 3, None]
    shape.truncate_from(5)
    assert (shape.runs, shape.last_index) == ([(1, 4)], 4)
    shape.append(((1, 1), (4, 2)))
    assert shape.runs == [(1, 5), (4, 7)]
    shape.truncate_from(4)
    assert (shape.runs, shape.last_index) == ([], 3)
    shape.change(0, 11, ((5, 2),))
    assert (shape.offset, shape.runs) == (10, [(5, 12)])
