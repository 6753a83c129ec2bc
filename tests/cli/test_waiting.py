"""A person at a terminal is told what a command waits for, and sees nothing of it any more when the answer comes."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from lattice_cli import waiting


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, after_seconds: float) -> None:
    """In the test itself: pytest gives each phase a standard error of its own."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(waiting, "AFTER_SECONDS", after_seconds)


@pytest.mark.parametrize("command", [["get", "k"], ["put", "k", "v"], ["delete", "k"]])
def test_a_terminal_is_told_what_is_waited_for_until_there_is_an_answer(
    command: list[str], lattice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_a_terminal(monkeypatch, 0.01)
    code, _, err = lattice("--endpoints", "127.0.0.1:1,127.0.0.1:2", "--timeout", "0.5", *command)
    assert code == 3
    assert err.startswith("waiting for 127.0.0.1:1 and 1 more ...\r\x1b[2Kerror: ")


def test_a_quick_answer_is_not_announced(lattice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    at_a_terminal(monkeypatch, 60.0)
    _, _, err = lattice("--endpoints", "127.0.0.1:1", "--timeout", "0.2", "get", "k")
    assert err.startswith("error: ")


def test_a_script_is_told_nothing_but_the_error(lattice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "AFTER_SECONDS", 0.01)
    _, _, err = lattice("--endpoints", "127.0.0.1:1", "--timeout", "0.3", "get", "k")
    assert err.startswith("error: ")
