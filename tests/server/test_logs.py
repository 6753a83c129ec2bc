"""One line per event, whatever is in it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_harness import cluster, configs, run

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


def test_json_logs_carry_what_the_node_is_and_what_the_event_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("n1", "info", "json", lambda: {"role": "leader", "term": 7})
    logger = logging.getLogger("lattice.rpc")
    logger.info("lost the stream to %s", "n2", extra={"peer": "n2", "term": 6, "odd": {1}})
    line = json.loads(capsys.readouterr().err)
    assert line["message"] == "lost the stream to n2"
    assert (line["role"], line["peer"]) == ("leader", "n2")
    assert line["term"] == 6, "the event's own figure wins"
    assert line["odd"] == "{1}", "what JSON does not know is written as text"
    assert set(line) == {"time", "level", "node", "component", "message", "role", "term", "peer", "odd"}


def test_every_change_of_role_says_its_term_its_leader_and_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.set_up("n1", "info", "json")

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            await running.leader()

    run(scenario())
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    roles = [line for line in lines if line["component"] == "raft" and "reason" in line]
    assert [line["role"] for line in roles] == ["pre-candidate", "candidate", "leader"]
    assert [line["leader"] for line in roles] == [None, None, "n1"]
    assert (roles[-1]["term"], roles[-1]["reason"]) == (1, "elected by 1 of 1 voters")
