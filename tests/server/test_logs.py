"""One line per event, whatever is in it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from lattice_core.server import logs


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger("lattice")
    before = (root.handlers[:], root.level, root.propagate)
    yield
    root.handlers[:], root.level, root.propagate = before[0], before[1], before[2]


def log_something() -> None:
    logger = logging.getLogger("lattice.raft")
    logger.debug("not shown")
    logger.info("leads term %d\nand more", 3)
    try:
        raise ValueError("inside")
    except ValueError:
        logger.exception("failed")


def test_text_logs_are_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("n1", "info", "text")
    log_something()
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("INFO    n1 raft: leads term 3\\nand more")
    assert "ValueError: inside" in second


def test_json_logs_are_one_object_each(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("n1", "info", "json")
    log_something()
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["node"], first["component"], first["level"]) == ("n1", "raft", "info")
    assert first["message"] == "leads term 3\nand more"
    assert "ValueError: inside" in second["exception"]
