"""``lattice top``: what it makes of statuses, and what that looks like in any terminal."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from rich.console import Console
from watched import Watched, away, cluster, latencies, node, report, trip

from lattice_cli.render.top import ASCII, UNICODE, Glyphs, frame, glyphs_for, sparkline
from lattice_cli.top.document import top_document
from lattice_cli.top.figures import HISTORY, Figures, Observer
from lattice_core.client import ClusterStatus
from lattice_core.errors import Unavailable

NOON = 1_770_000_000.0


def observed(*statuses: ClusterStatus) -> tuple[Observer, Figures]:
    observer = Observer()
    for second, status in enumerate(statuses):
        figures = observer.observe(status, NOON + second)
    return observer, figures


def events(observer: Observer) -> list[str]:
    return [f"{event.mark} {event.text}" for event in observer.events]


# -- figures --------------------------------------------------------------------------------------------


def test_the_first_status_has_no_rates() -> None:
    _, figures = observed(cluster(node("n1", "leader", write_operations=500), node("n2")))
    assert (figures.seconds, figures.writes_per_second, figures.reads_per_second) == (None, None, None)
    assert figures.members[0].writes_per_second is None
    assert figures.elections == 0


def test_rates_are_over_each_members_own_time() -> None:
    before = cluster(node("n1", "leader", uptime=10, write_operations=100, linearizable_reads=10),
                     node("n2", uptime=50, stale_reads=7))  # fmt: skip
    after = cluster(
        node("n1", "leader", uptime=12, write_operations=300, linearizable_reads=11, lease_reads=1, cpu_seconds=0.5),
        node("n2", uptime=50.5, stale_reads=17, read_batches_failed=1),
    )
    _, figures = observed(before, after)
    first, second = figures.members
    assert (first.writes_per_second, first.reads_per_second, first.cpu) == (100, 1, 0.25)
    assert (second.reads_per_second, second.failures_per_second) == (20, 2)
    assert (figures.writes_per_second, figures.reads_per_second) == (100, 21)


def test_a_restarted_member_counts_anew() -> None:
    before = cluster(node("n1", "leader", uptime=500, write_operations=10_000, elections_started=7))
    restarted = cluster(node("n1", "leader", uptime=1, write_operations=10, elections_started=1))
    later = cluster(node("n1", "leader", uptime=2, write_operations=30, elections_started=1))
    observer, figures = observed(before, restarted)
    assert figures.members[0].writes_per_second is None, "nothing to compare with"
    assert figures.members[0].elections_started == 1
    assert "+ n1 was restarted" in events(observer)
    assert observer.observe(later, NOON).members[0].writes_per_second == 20


def test_members_come_and_go_and_come_back() -> None:
    observer, figures = observed(
        cluster(node("n1", "leader", uptime=1), node("n2", uptime=1)),
        cluster(node("n1", "leader", uptime=2), away("n2"), node("n3", "learner", uptime=0.5)),
        cluster(node("n1", "leader", uptime=3), node("n2", uptime=3, stale_reads=4), report(node("n3", uptime=1.5))),
        cluster(node("n1", "leader", uptime=4), node("n2", uptime=4, stale_reads=4)),
    )
    assert events(observer) == [
        "! n2 does not answer",
        "+ n3 has joined as a learner",
        "+ n2 answers again",
        "+ n3 votes now",
        "- n3 is no member any more",
    ]
    assert [member.report.name for member in figures.members] == ["n1", "n2"]
    assert figures.members[1].reads_per_second == 0


def test_a_newcomer_that_answers_for_the_first_time_does_not_answer_again() -> None:
    observer, _ = observed(
        cluster(node("n1", "leader", uptime=1)),
        cluster(node("n1", "leader", uptime=2), away("n2")),
        cluster(node("n1", "leader", uptime=3), node("n2", uptime=1)),
        cluster(node("n1", "leader", uptime=4), away("n2")),
        cluster(node("n1", "leader", uptime=5), node("n2", uptime=3)),
    )
    assert events(observer) == [
        "+ n2 has joined as a voter",
        "+ n2 answers",
        "! n2 does not answer",
        "+ n2 answers again",
    ]


def test_what_a_member_did_while_it_was_away_is_over_that_long() -> None:
    _, figures = observed(
        cluster(node("n1", "leader"), node("n2", uptime=10)),
        cluster(node("n1", "leader"), away("n2")),
        cluster(node("n1", "leader"), node("n2", uptime=30, stale_reads=100)),
    )
    assert figures.members[1].reads_per_second == 5


def test_leaders_lost_and_found_are_told_with_their_terms() -> None:
    observer, figures = observed(
        cluster(node("n1", "leader"), node("n2")),
        cluster(away("n1"), node("n2", "pre-candidate"), leader=None),
        cluster(away("n1"), node("n2", "candidate", term=4), leader=None, term=4),
        cluster(away("n1"), node("n2", "leader", term=5), leader=2, term=5),
        cluster(away("n1"), node("n2", "leader", term=6), leader=2, term=6),
    )
    assert [each for each in events(observer) if each[0] in "*!" and "answer" not in each] == [
        "! no leader; n1 led in term 3",
        "* n2 leads in term 5, after n1",
        "* n2 leads in term 6",
    ]
    assert figures.elections == 3


def test_percentiles_are_of_the_last_interval_or_else_of_all_there_is() -> None:
    slow, quick = [0.5] * 10, [0.001] * 10
    before = cluster(node("n1", "leader", fsync=latencies(*slow), progress=(trip(2, latencies(*slow)),)), node("n2"))
    after = cluster(
        node("n1", "leader", uptime=101, fsync=latencies(*slow, *quick), progress=(trip(2, latencies(*slow)),)),
        node("n2", uptime=101),
    )
    _, figures = observed(before, after)
    leader, follower = figures.members
    assert leader.fsync is not None
    assert (leader.fsync.count, leader.round_trip) == (10, None)
    assert (leader.fsync.quantile(0.99) or 1) <= 0.001
    assert follower.round_trip is not None
    assert follower.round_trip.count == 10, "nothing new: what there is since the start"


def test_batches_of_all_members_are_taken_together() -> None:
    before = cluster(node("n1", "leader", read_batches=latencies(0.1)), node("n2", read_batches=latencies(0.1)))
    after = cluster(
        node("n1", "leader", uptime=101, read_batches=latencies(0.1, 0.001)),
        node("n2", uptime=101, read_batches=latencies(0.1, 0.001, 0.001)),
    )
    _, figures = observed(before, after)
    assert figures.reads is not None
    assert figures.reads.count == 3


def test_a_member_of_a_version_that_does_not_count_is_shown_without_figures() -> None:
    status = cluster(node("n1", "leader"), report(node("n2", counters=None)))
    observer, figures = observed(status, status)
    assert figures.members[1].writes_per_second is None
    assert "n2" in drawn(observer, figures, 80)


def test_history_and_events_are_bounded() -> None:
    observer = Observer()
    for second in range(1000):
        leader = 1 + second % 2
        status = cluster(node("n1", uptime=second), node("n2", uptime=second), leader=leader, term=second)
        observer.observe(status, NOON + second)
    observer.lost()
    assert len(observer.writes) == HISTORY
    assert len(observer.events) <= 50


# -- frames ---------------------------------------------------------------------------------------------


def drawn(observer: Observer, figures: Figures, width: int, glyphs: Glyphs = UNICODE, **more: Any) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, color_system=None)
    console.print(frame(figures, observer, width, at=NOON, glyphs=glyphs, **more))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def everything() -> tuple[Observer, Figures]:
    """A leader, a follower, a laggard, a learner, one that is away and one in trouble."""

    def at(second: float) -> ClusterStatus:
        return cluster(
            node("n1", "leader", uptime=second, write_operations=int(second * 12_345), applied_index=4990,
                 fsync=latencies(*[0.0003] * int(second)), write_batches=latencies(*[0.004] * int(second)),
                 progress=(trip(2, latencies(0.0004)),)),
            node("n2", uptime=second, applied_index=4600, commit_index=4800, last_index=4950),
            report(node("n3", uptime=second, last_index=4100, applied_index=4100, commit_index=4100), lag=900),
            node("n4", "learner", uptime=second),
            away("n5"),
            node("n6", uptime=second, fsync_stalled_seconds=7.0),
            node("n7", "candidate", uptime=second, disk_full=True),
        )  # fmt: skip

    return observed(at(10), at(11))


@pytest.mark.parametrize("width", [40, 60, 72, 80, 100, 120, 200])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_every_member_and_its_state_is_there_at_any_width_and_no_line_is_wider(width: int, glyphs: Glyphs) -> None:
    observer, figures = everything()
    text = drawn(observer, figures, width, glyphs)
    lines = text.splitlines()
    assert all(len(line) <= width for line in lines), max(lines, key=len)
    for mark, name, word in (
        ("*", "n1", "leader"),
        (" ", "n2", "follower"),
        ("~", "n3", "follower"),
        ("+", "n4", "learner"),
        ("!", "n5", "unreachable"),
        ("!", "n6", "disk hangs"),
        ("!", "n7", "disk full"),
    ):
        (line,) = [line for line in lines if line.startswith(f"{mark} {name} ") and word in line]
        assert "for 12 s" in line or name != "n5"
    assert "12,345/s" in text
    assert "900" in text, "how far the laggard is behind"
    if glyphs is ASCII:
        assert text.isascii()


def test_a_member_that_has_just_gone_is_shown_before_anybody_knows_since_when() -> None:
    observer, figures = observed(cluster(node("n1", "leader"), away("n2", None)))
    for width in (40, 80, 120):
        assert "! n2" in drawn(observer, figures, width)


def test_bars_show_how_far_a_log_is_applied_committed_and_appended() -> None:
    observer, figures = everything()
    lines = drawn(observer, figures, 120, ASCII).splitlines()
    bars = {line[2:4]: match[0] for line in lines if (match := re.search(r"[#=.-]{10,}", line))}
    cells = len(bars["n1"])
    assert cells >= 20
    # From 4000, the oldest snapshot, to 5000, the newest entry.
    assert bars["n1"] == "#" * cells
    follower = [bars["n2"].count(glyph) / cells for glyph in "#=-."]
    assert follower == pytest.approx([0.6, 0.2, 0.15, 0.05], abs=1 / cells)
    assert bars["n2"] == "".join(sorted(bars["n2"], key="#=-.".index))
    assert bars["n3"].count("#") / cells == pytest.approx(0.1, abs=1 / cells)
    assert set(bars["n3"]) == {"#", "."}
    assert set(bars) == {"n1", "n2", "n3", "n4"}, "what matters more stands in place of the others' bars"


def test_a_cluster_without_a_leader_says_so_in_words() -> None:
    observer, figures = observed(cluster(node("n1"), node("n2", "pre-candidate"), away("n3"), leader=None))
    for width in (40, 80):
        text = drawn(observer, figures, width, problem="cannot reach 127.0.0.1:7401")
        assert "! no leader in term 3" in text
        assert "! n2" in text
        assert "! cannot reach" in text


def test_colours_say_nothing_that_marks_and_words_do_not() -> None:
    observer, figures = everything()
    console = Console(file=io.StringIO(), width=80, highlight=False, force_terminal=True, color_system="truecolor")
    console.print(frame(figures, observer, 80, at=NOON))
    file = console.file
    assert isinstance(file, io.StringIO)
    assert re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()) == drawn(observer, figures, 80)


def test_sparklines_are_as_high_as_their_highest_and_show_what_is_not_nothing() -> None:
    assert sparkline([], 3) == "   "
    assert sparkline([0, 0], 3) == "   "
    assert sparkline([0, 1, 4000, 8000], 4) == " ▁▄█"
    assert sparkline([1, 2, 3, 8], 2) == "▃█"
    assert sparkline([8.0], 3, ASCII) == "  @"


def test_glyphs_are_what_the_terminal_can_show() -> None:
    assert glyphs_for("utf-8") is UNICODE
    assert glyphs_for("UTF8") is UNICODE
    assert glyphs_for("latin-1") is ASCII
    assert glyphs_for("ascii") is ASCII


def test_the_document_names_every_figure() -> None:
    _, figures = everything()
    document = json.loads(json.dumps(top_document(figures, NOON)))
    assert document["time"] == "2026-02-02T02:40:00.000+00:00"
    assert (document["leader"], document["term"], document["seconds"]) == ("n1", 3, 1.0)
    assert document["writes_per_second"] == 12345
    assert document["write_p50_ms"] == pytest.approx(3.5)
    leader, *_, gone, _, _ = document["members"]
    assert leader["fsync_p99_ms"] <= 0.5
    assert (leader["memory_bytes"], leader["lag"]) == (61 << 20, 0)
    assert gone == {"name": "n5", "id": "0000000000000005", "role": None, "voter": True, "reachable": False,
                    "unreachable_seconds": 12.0}  # fmt: skip


# -- the command ----------------------------------------------------------------------------------------


def watching(monkeypatch: pytest.MonkeyPatch, *answers: ClusterStatus | Exception) -> Watched:
    watched = Watched(answers)
    monkeypatch.setattr("lattice_core.client.StatusWatch", watched)
    return watched


@pytest.mark.parametrize("arguments", [[], ["--once"], ["-o", "raw"], ["--once", "-o", "table"]])
def test_without_a_terminal_or_once_it_is_one_plain_frame(
    lattice: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    watched = watching(
        monkeypatch,
        cluster(node("n1", "leader", uptime=1), node("n2", uptime=1)),
        cluster(node("n1", "leader", uptime=2, write_operations=42), node("n2", uptime=2)),
    )
    code, out, err = lattice("top", "--interval", "0.1", *arguments)
    assert (code, err, watched.asked) == (0, "", 2)
    assert "42/s" in out
    assert "\x1b" not in out


def test_once_in_json_is_one_document_with_rates(lattice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    watching(
        monkeypatch,
        cluster(node("n1", "leader", uptime=1)),
        cluster(node("n1", "leader", uptime=2, write_operations=42)),
    )
    code, out, _ = lattice("top", "--interval", "0.1", "--once", "-o", "json")
    assert (code, out.count("\n")) == (0, 1)
    assert json.loads(out)["writes_per_second"] == 42


def test_json_goes_on_through_an_outage_until_it_is_ended(lattice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    watching(
        monkeypatch,
        cluster(node("n1", "leader", uptime=1)),
        Unavailable("cannot reach anybody"),
        cluster(node("n1", "leader", uptime=3)),
    )
    monkeypatch.setattr(Watched, "ask", _interrupted(Watched.ask))
    code, out, err = lattice("top", "--interval", "0.1", "-o", "json")
    assert (code, err) == (130, "")
    first, second, third = map(json.loads, out.splitlines())
    assert (first["writes_per_second"], third["writes_per_second"]) == (None, 0)
    assert second["error"] == "cannot reach anybody"


def _interrupted(ask: Any) -> Any:
    async def wrapped(self: Watched, seconds: float) -> ClusterStatus:
        if self.asked == 3:
            raise KeyboardInterrupt
        found: ClusterStatus = await ask(self, seconds)
        return found

    return wrapped


@pytest.mark.parametrize("arguments", [[], ["-o", "json"]])
def test_nobody_there_is_said_at_once(lattice: Any, arguments: list[str]) -> None:
    code, out, err = lattice("top", "--endpoints", "127.0.0.1:1", "--timeout", "0.5", *arguments)
    assert (code, out) == (3, "")
    assert err.startswith("error: cannot reach 127.0.0.1:1: connection refused. try: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("interval", ["0", "-1", "x", "0.01", "1e9"])
def test_an_interval_that_makes_no_sense_is_refused(lattice: Any, interval: str) -> None:
    code, _, err = lattice("top", "--interval", interval)
    assert (code, err.count("\n")) == (2, 1)
