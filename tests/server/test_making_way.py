"""On a follower, applying makes way for the log, whose answer the leader waits for; and it does not wait for ever."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from server_harness import cluster, configs, eventually, put, run

PUTS = 60


class WatchedLog:
    """A log that tells what has been applied when it is synced, and whose disk can be made to hang."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._log = node.storage._wal
        self.applied_at_sync: list[tuple[int, int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def sync(self) -> None:
        self.applied_at_sync.append((self._node.core.last_index, self._node.applier.applied_index))
        self.gate.wait(20)
        self._log.sync()


def watched(running: Any) -> WatchedLog:
    running.node.storage._wal = log = WatchedLog(running.node)
    return log


def test_a_follower_writes_what_has_come_before_it_applies_what_was_committed_with_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            logs = [watched(each) for each in running.followers()]
            for number in range(PUTS):
                await put(leader.config.client_addr, b"k%d" % number, b"v")
            for log in logs:
                # Each append brings the news that the entry before it is committed, unless a heartbeat has.
                behind = [last - applied for last, applied in log.applied_at_sync]
                assert behind.count(2) > PUTS / 2, behind

    run(scenario())


def test_a_disk_that_hangs_does_not_keep_what_is_committed_from_being_applied(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            addr = leader.config.client_addr
            await put(addr, b"a", b"1")
            follower = running.followers()[0]
            log = watched(follower)
            log.gate.clear()
            try:
                # So soon after its start nothing is written on its loop yet, which would hang with the disk.
                for number in range(5):
                    await put(addr, b"b", b"%d" % number)
                last = leader.node.core.last_index
                await eventually(lambda: follower.node.applier.applied_index >= last - 1)
                assert not log.gate.is_set()
            finally:
                log.gate.set()
            await eventually(lambda: follower.node.applier.applied_index == last)

    run(scenario())
