"""The demonstration as it is told: on a terminal it breaks between words, to other programs a sentence is one line."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys

import pytest

from lattice_cli.render.stage import TextStage

ACT = "Starting 3 nodes, real processes in /var/folders/lattice-klvtg_j9"
RESULT = "400 writes acknowledged before; n1 leads in term 2, writes stood still for 872 ms"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(stdout: io.StringIO, monkeypatch: pytest.MonkeyPatch, columns: int) -> list[str]:
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    stage = TextStage(no_color=True)
    stage.act(ACT)
    stage.result(RESULT)
    stage.end("The end.")
    stage.command("lattice get --endpoints 127.0.0.1:7401,127.0.0.1:7402 greeting")
    return re.sub(r"\x1b\[[0-9;]*m", "", stdout.getvalue()).splitlines()


@pytest.mark.parametrize("columns", [40, 80])
def test_the_story_breaks_between_words_where_it_is_watched(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = told(Screen(), monkeypatch, columns)
    assert max(map(len, lines[:-1])) <= columns
    assert " ".join(" ".join(lines).split()).startswith(f"1. {ACT} {RESULT} The end. lattice get")
    assert lines[-1] == "   lattice get --endpoints 127.0.0.1:7401,127.0.0.1:7402 greeting", "to be copied as it is"


def test_what_suggested_commands_are_for_stands_in_one_column(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stdout)
    TextStage(no_color=True).commands({"lattice cluster status": "who leads", "kill -9 7": "n2 leads"})
    assert stdout.getvalue() == "   lattice cluster status  # who leads\n   kill -9 7               # n2 leads\n"


def test_a_reader_that_has_gone_is_an_error_like_any_other_and_not_an_exit_code_of_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with contextlib.suppress(BrokenPipeError), open(writing, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        with pytest.raises(BrokenPipeError):
            TextStage(no_color=True).act(ACT)


def test_a_sentence_is_one_line_for_other_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = told(io.StringIO(), monkeypatch, 40)
    assert f"1. {ACT}" in lines
    assert f"   {RESULT}" in lines
