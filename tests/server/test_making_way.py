"""On a follower, applying makes way for the log, whose answer the leader waits for; and it does not wait for ever."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from server_harness import cluster, configs, eventually, put, run

from lattice_core.server.ready_loop import YIELD_SECONDS, ReadyLoop

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


async def _seconds_until_applied(disk_hangs_for_ever: bool) -> float:
    """Of a ReadyLoop with one unit with the log and something to apply, and nothing else that could wake it."""
    loop = asyncio.get_running_loop()
    applied: asyncio.Future[None] = loop.create_future()
    applier = SimpleNamespace(has_work=True)

    def run_slice(_now: int) -> bool:
        applier.has_work = False
        applied.set_result(None)
        return False

    applier.run_slice = run_slice
    core: Any = SimpleNamespace(is_leader=False, has_ready=lambda: False, next_deadline_ns=2**62)
    ready: Any = ReadyLoop(core, lambda event: None, lambda error: pytest.fail(str(error)))
    ready.applier = applier
    ready.explanations = SimpleNamespace(watched=False)
    ready.proposals = ready.reads = SimpleNamespace(flush=lambda now: None)
    ready.snapshots = SimpleNamespace(consider=lambda: None)
    ready.storage = SimpleNamespace(queued=1, submit=lambda unit: None)
    began = time.perf_counter()
    try:
        ready._persist(SimpleNamespace(messages=("an answer",)))
        ready._run_pass()
        assert not applied.done()
        if not disk_hangs_for_ever:
            ready.storage.queued = 0
            ready.kick()
        async with asyncio.timeout(5):
            await applied
    finally:
        ready.stop()
    return time.perf_counter() - began


@pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_nothing_but_its_own_timer_is_needed_to_end_the_wait(new_loop: Any) -> None:
    """Whatever the loop's clock is like: uvloop's has whole milliseconds, and 0.003 is not always less than three."""

    async def scenario() -> None:
        for turn in range(60):
            await asyncio.sleep(0.0005 * (turn % 7))
            assert await _seconds_until_applied(disk_hangs_for_ever=True) >= YIELD_SECONDS / 2
            await _seconds_until_applied(disk_hangs_for_ever=False)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())
