"""Each ``*.txt`` here is a story; its whole trace must be what the file says (see script.py).

After a change that is meant: ``LATTICE_UPDATE_SCENARIOS=1 pytest tests/scenarios``, and read the diff.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from script import play

STORIES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_the_story_goes_as_it_is_written(path: Path) -> None:
    trace = play(path)
    if os.environ.get("LATTICE_UPDATE_SCENARIOS"):
        path.write_text(trace)
    assert trace.splitlines() == path.read_text().splitlines()


def test_there_are_stories() -> None:
    assert len(STORIES) >= 20


@pytest.mark.parametrize("case", [*range(32, 39), 42, 46])
def test_every_case_of_membership_and_transfer_has_a_story(case: int) -> None:
    assert any(f"SAFETY {case}" in path.read_text() or f", {case})" in path.read_text() for path in STORIES)
