"""The same inputs give the same outputs, byte for byte, in any process (DESIGN.md, "Consensus core")."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from harness import MS, Cluster, Disk, Server, configuration
from schedules import Course

from lattice_core.raft.config import RaftConfig
from lattice_core.raft.types import RecoveredState, SnapshotMeta

ROOT = Path(__file__).parents[2]


def history(seed: int) -> str:
    """A digest of every message sent, lost and delivered, every event and every byte on disk, in order."""
    digest = hashlib.sha256()
    chance = random.Random(f"history {seed}")
    course = Course(5, seed)
    cluster = course.cluster
    cluster.observer = lambda what, message: digest.update(f"{what} {message!r}\n".encode())
    cluster.watch.happened = lambda server, what: digest.update(repr(what).encode())  # type: ignore[method-assign]
    for _ in range(300):
        course.step((chance.getrandbits(16), chance.getrandbits(16), chance.getrandbits(16)))
    course.heal()
    for server in cluster:
        digest.update(repr((server.disk.hard_state, server.disk.entries, server.node.configuration)).encode())
    return digest.hexdigest()


def test_the_same_seed_gives_the_same_history() -> None:
    assert history(1) == history(1)


def test_another_seed_gives_another_history() -> None:
    assert history(1) != history(2)


@pytest.mark.parametrize("hash_seed", ["0", "1", "4242"])
def test_the_history_is_the_same_in_another_process_with_another_hash_seed(hash_seed: str) -> None:
    """Nothing in the core may depend on the order of a set or on ``hash``."""
    code = "import test_determinism; print(test_determinism.history(7))"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"}
    found = subprocess.run(  # the interpreter that runs this test, with a fixed program
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout.strip() == history(7)


def test_election_timeouts_come_from_the_random_source_that_was_passed_in() -> None:
    """The core draws from it and from nothing else: the same source, the same deadlines."""
    begin = RecoveredState(snapshot=SnapshotMeta(0, 0, configuration([1, 2, 3])))

    def waits(seed: int) -> list[int]:
        server = Server(1, Disk(begin), seed=seed)
        found = []
        for _ in range(20):
            server.time_out()
            found.append(server.now_ns)
        return found

    state = random.getstate()
    assert waits(1) == waits(1)
    assert waits(1) != waits(2)
    assert random.getstate() == state, "the process-wide source is not touched"


def test_the_clock_never_goes_back_in_the_core() -> None:
    """A driver's clock is monotonic; a caller that is a little behind another must not turn time back."""
    begin = RecoveredState(snapshot=SnapshotMeta(0, 0, configuration([1])))
    server = Server(1, Disk(begin))
    server.tick(500 * MS)
    server.node.tick(100 * MS)
    assert server.node.now_ns == 500 * MS


def test_every_configuration_of_timeouts_that_contradicts_itself_is_refused_with_both_values() -> None:
    for bad, text in (
        (RaftConfig(heartbeat_interval_ns=0), "positive"),
        (RaftConfig(heartbeat_interval_ns=400 * MS), r"500 ms.*400 ms"),
        (RaftConfig(election_timeout_max_ns=500 * MS), r"500 ms.*500 ms"),
        (RaftConfig(clock_drift_ppm=1_000_000), "999,999"),
        (RaftConfig(max_inflight_appends=0), "max_inflight_appends"),
    ):
        with pytest.raises(ValueError, match=text):
            bad.validate()
    RaftConfig().validate()


def test_members_are_kept_in_order_of_their_ids() -> None:
    """Whatever order they are given in: what is sent to whom, and when, must not depend on it."""
    cluster = Cluster(first=configuration([3, 1, 2]))
    assert [item.id for item in cluster.first.members] == [1, 2, 3]
