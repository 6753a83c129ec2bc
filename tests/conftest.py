"""What all tests share: figures shown at the end of the run, and a second try where real time is at play.

**Figures** are what tests measure and do not assert, shown after the run, whichever process ran the test.

**A second try**: tests with real nodes, sockets and processes depend on when a shared machine lets them run. One that
fails is run once more; one that fails twice fails the run; one that passes then is listed as FLAKY with what it said at
first, so that somebody looks. What is deterministic (core, log, state machine, checker, simulator with its fresh seed)
and what looks for lost writes (torture) gets no second try: a failure that does not come again is the worst kind there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_FIGURE = "figure"

_TESTS = Path(__file__).parent

# Directories of tests that start nodes on the clock of this machine.
_OF_REAL_TIME = frozenset({"benchmarks", "cli", "client", "cluster", "docs", "server"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_TESTS) and item.path.relative_to(_TESTS).parts[0] in _OF_REAL_TIME:
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Tell something that was measured and is not asserted: shown after the run."""

    def tell(text: str) -> None:
        record_property(_FIGURE, text)

    return tell


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if flaky := terminalreporter.stats.get("rerun", []):
        terminalreporter.section("FLAKY: failed at first, run once more")
        for report in flaky:
            terminalreporter.write_line(f"{report.nodeid}\n{report.longreprtext}\n")
    lines = [
        f"{report.nodeid.rpartition('::')[2]}: {text}"
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, text in report.user_properties
        if name == _FIGURE
    ]
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.write_line(line)
