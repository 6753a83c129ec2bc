"""Tables say with marks and words what they say with colours, and stay whole on narrow terminals."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from lattice_cli.render import tables
from lattice_cli.render.text import json_bytes, printable

sys.path.insert(0, str(Path(__file__).parent))
from conftest import every_kind_of_cluster


def render(renderable: RenderableType, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, no_color=True, highlight=False).print(renderable)
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_every_state_is_told_without_colour_at_every_width(width: int) -> None:
    lines = render(tables.cluster_table(every_kind_of_cluster(), width), width)
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    for mark, name, word in (
        ("*", "n1", "leader"),
        (" ", "n2", "follower"),
        ("~", "n3", "follower, 3,800 behind"),
        ("+", "n4", "learner"),
        ("!", "n5", "unreachable for 42 s"),
    ):
        assert any(line.startswith(mark) and line[1:].lstrip().startswith(name) and word in line for line in lines), (
            mark,
            name,
            text,
        )
    assert "127.0.0.1:7403" in text
    assert "4 of 5 members" in " ".join(text.split())


def test_the_table_at_80_columns() -> None:
    assert render(tables.cluster_table(every_kind_of_cluster(), 80), 80) == [
        "   NAME  ROLE                    CLIENT          TERM  COMMIT  APPLIED",
        "*  n1    leader                  127.0.0.1:7401     3    5000     5000",
        "   n2    follower                127.0.0.1:7402     3    5000     5000",
        "~  n3    follower, 3,800 behind  127.0.0.1:7403     3    5000     1200",
        "+  n4    learner                 127.0.0.1:7404     3    5000     5000",
        "!  n5    unreachable for 42 s    unknown            -       -        -",
        "",
        "cluster f8721fd7386f22d0  term 3  leader n1  4 of 5 members reachable",
    ]


def test_members_at_every_width() -> None:
    for width in (40, 120):
        lines = render(tables.members_table(every_kind_of_cluster(), width), width)
        assert all(len(line) <= width for line in lines)
        assert any("n4" in line and "learner" in line for line in lines)


@pytest.mark.parametrize(
    ("data", "text", "json"),
    [
        (b"plain", "plain", "plain"),
        ("grüße".encode(), "grüße", "grüße"),
        (b"two\nlines\t", "two\\nlines\\t", "two\nlines\t"),
        (b"\x1b[31mred", "\\x1b[31mred", "\x1b[31mred"),
        (b"\xff\x00", "base64:/wA=", {"base64": "/wA="}),
        (b"", "", ""),
    ],
)
def test_bytes_as_text(data: bytes, text: str, json: object) -> None:
    assert printable(data) == text
    assert json_bytes(data) == json
