"""The drawing stands alone and shows what it should."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lattice_core.errors import InvalidRequest
from lattice_core.verify import Operation, check_history
from lattice_core.verify.timeline import render_timeline, write_timeline

STALE = [
    Operation(0, "put", b"k", b"<A & 'B'>", call_ns=0, return_ns=1000),
    Operation(1, "put", b"k", b"B", call_ns=2000, return_ns=3000),
    Operation(2, "get", b"k", result=b"<A & 'B'>", call_ns=4000, return_ns=5000),
    Operation(3, "put", b"k", b"open", call_ns=4000, outcome="unknown"),
]


class Balance(HTMLParser):
    """Every tag that opens closes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_file_is_well_formed_and_needs_nothing_from_outside(tmp_path: Path) -> None:
    path = tmp_path / "t.html"
    write_timeline(path, check_history(STALE))
    page = path.read_text(encoding="utf-8")
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert not re.search(r"""(src|href)=|https?://|@import|url\(""", page)
    assert "prefers-color-scheme: dark" in page
    assert "@@" not in page


def test_the_culprit_is_marked_and_values_are_escaped() -> None:
    page = render_timeline(check_history(STALE))
    assert page.count("▲ impossible") == 1
    assert "<A &" not in page
    assert "&lt;A &amp;" in page
    assert "up to the culprit" in page


def test_a_whole_history_shows_its_order_and_open_ends() -> None:
    page = render_timeline([STALE[0], STALE[1], STALE[3]], title="my run")
    assert "<title>my run</title>" in page
    assert 'class="op put open"' in page
    assert "one possible order" in page


def test_a_whole_bad_history_shows_everything_and_marks_the_culprit() -> None:
    page = render_timeline(STALE)
    assert page.count('<g class="op') == 4
    assert "▲ impossible" in page


def test_what_cannot_be_looked_at_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        render_timeline([])
    with pytest.raises(InvalidRequest, match="too large"):
        render_timeline([Operation(n, "put", b"k", b"v", call_ns=n, return_ns=n + 1) for n in range(500)])
    with pytest.raises(InvalidRequest, match="no counterexample"):
        render_timeline(check_history(STALE[:2]))
