"""Figures: what tests measure and do not assert, shown at the end of the run, whichever process ran the test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

_FIGURE = "figure"


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Tell something that was measured and is not asserted: shown after the run."""

    def tell(text: str) -> None:
        record_property(_FIGURE, text)

    return tell


def pytest_terminal_summary(terminalreporter: Any) -> None:
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
